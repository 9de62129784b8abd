"""CPU of the store for each completion, as its file grows: keeping, looking for what is not there, finding.

    python tests/benchmarks/store_growth.py [completions] [--alike]

Texts of 2 KB from a small vocabulary, unlike one another (``--alike``: one text for all); 64 puts are under way. The
least of several pieces counts, threads of the store included; what the loop itself takes is measured apart and taken
off. Last, what the store holds of runs: 100,000 of them, and how long the listings take.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from moa_nb.chat import Completion, Usage
from moa_nb.store import LedgerRow, RunRow, Store

SIZES = (3_000, 80_000, 300_000, 1_000_000)
IN_FLIGHT, PIECE, PIECES = 64, 3_000, 3
WORDS = ["strap", "broke", "battery", "lasts", "two", "days", "after", "week", "sent", "back", "nobody", "said", "why"]
CHUNKS = [" ".join(random.Random(n).choices(WORDS, k=25))[:100] for n in range(5_000)]


def key(number: int) -> bytes:
    """The key of a completion."""
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


def completion(number: int) -> Completion:
    """A completion of 2 KB, unlike all others."""
    draw = random.Random(number)
    return Completion(" ".join(draw.choices(CHUNKS, k=20)), "m", "stop", Usage(200, 400), cost=0.001, seconds=1.5)


async def in_turns(act: Callable[[int], Awaitable[None]], numbers: Iterable[int]) -> None:
    """Return once ``act`` was awaited for each number, 64 at a time."""
    left = iter(numbers)

    async def work() -> None:
        for number in left:
            await asyncio.sleep(0)
            await act(number)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


async def cpu(act: Callable[[int], Awaitable[None]], numbers: range) -> float:
    """Microseconds of CPU a number of this process, all threads together."""
    began = time.process_time()
    await in_turns(act, numbers)
    return (time.process_time() - began) / len(numbers) * 1e6


async def measured(store: Store, upto: int, *, alike: bool) -> None:
    """Print what each size costs."""
    made: dict[int, Completion] = {}

    async def nothing(number: int) -> None:
        assert made[number]
        key(number)

    async def put(number: int) -> None:
        await store.put(key(number), made[number], "lab:a")

    async def get(number: int) -> None:
        store.get(key(number))

    at, found = 0, list[tuple[float, float, float]]()
    for size in (size for size in SIZES if size <= upto):
        while at < size:
            numbers = range(at, min(at + PIECE, size))
            made = {number: completion(0 if alike else number) for number in numbers}
            if numbers.stop <= size - PIECES * PIECE:
                await in_turns(put, numbers)
            else:
                found.append((await cpu(nothing, numbers), await cpu(get, numbers), await cpu(put, numbers)))
            at = numbers.stop
        last, anywhere = range(size - PIECE, size), random.Random(size).sample(range(size), 1000)
        idle = min(idle for idle, _, _ in found)
        figures = {
            "put": min(put for _, _, put in found) - idle,
            "miss": min(miss for _, miss, _ in found) - idle,
            "get in order": await cpu(get, last) - idle,
            "get anywhere": await scattered(store, anywhere),
        }
        found.clear()
        size_on_disk = store.held().bytes / size
        print(
            f"{size:>9,} completions:",
            ", ".join(f"{name} {value:.1f} µs" for name, value in figures.items()),
            f"({size_on_disk:.0f} bytes each)",
            flush=True,
        )


async def scattered(store: Store, numbers: list[int]) -> float:
    """Microseconds of CPU a completion, when no two that are looked for are neighbours."""
    began = time.process_time()
    for number in numbers:
        assert store.get(key(number)) is not None
    return (time.process_time() - began) / len(numbers) * 1e6


def runs(store: Store, n: int = 100_000) -> None:
    """Print what a run costs to keep, and what the listings take with many."""
    began = time.process_time()
    for number in range(n):
        at = 1.7e9 + 60 * number
        row = RunRow(f"r{number}", at, "cell", f"p{number % 4}", "done", "Why?", 4, 1, 0, 10, 5, 0.1, 0.0, 1.0)
        ledger = [LedgerRow(f"lab:{name}", 2, 1, 10, 5, 0.1, 0.05, 0, 7) for name in "ab"]
        store.add_run(row, ledger, {"text": "because " * 50})
    print(f"{n:,} runs: {(time.process_time() - began) / n * 1e6:.0f} µs each", end="")
    for name, listing in {"runs": store.runs, "costs": store.costs, "savings": store.savings}.items():
        began = time.perf_counter()
        listing()
        print(f", {name} in {(time.perf_counter() - began) * 1e3:.1f} ms", end="")
    print()


def main() -> None:
    """Print the figures of each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("completions", nargs="?", type=int, default=300_000)
    parser.add_argument("--alike", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store.sqlite")
        asyncio.run(measured(store, options.completions, alike=options.alike))
        runs(store)
        complaint = store.complaint()
        store.close()
        assert complaint is None, complaint


if __name__ == "__main__":
    main()
