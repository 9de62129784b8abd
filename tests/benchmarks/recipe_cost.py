"""CPU of keeping a row's question, beside that of keeping a completion.

    python tests/benchmarks/recipe_cost.py [rows]

Questions of 1 KB, an instruction and a review, whose material is a part of the prompt; completions of 2 KB, 64 at a
time. All threads of the process count, the store's writer included; the least of several rounds.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from store_growth import CHUNKS, completion, in_turns, key

from moa_nb.chat import Message
from moa_nb.engine.questions import QuestionKeeper
from moa_nb.pipeline.candidate import Task
from moa_nb.store import RunRow, Store

ROUNDS = 5


def question(number: int) -> Task:
    """A question of 1 KB, unlike all others."""
    review = " ".join(random.Random(number).choices(CHUNKS, k=9))
    return Task((Message("user", f"Summarize in a line what the customer says.\n\n<<<\n{review}\n>>>"),), review)


def least(act: Callable[[Store, int], None], n_rows: int) -> float:
    """Microseconds of CPU a row, the best of several rounds, each with a store of its own."""
    found = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "store.sqlite")
            began = time.process_time()
            act(store, number)
            store.close()
            found.append((time.process_time() - began) / n_rows * 1e6)
    return min(found)


def main(n_rows: int) -> None:
    """Print what a question and a completion cost."""
    questions = [question(number) for number in range(n_rows)]
    answers = {number: completion(number) for number in range(n_rows)}

    def keep(store: Store, number: int) -> None:
        name = f"run-{number}"
        store.add_run(RunRow(name, 0.0, "frame", "moa", "running", "", 0, 0, 0, 0, 0, 0.0, 0.0, 0.0), [], None)
        store.keep_recipe(name, {})
        keeper = QuestionKeeper(store, name, n_rows)
        for position, task in enumerate(questions):
            keeper.add(position, [task])
        keeper.close()

    def put(store: Store, _: int) -> None:
        async def one(number: int) -> None:
            await store.put(key(number), answers[number], "lab:a")

        asyncio.run(in_turns(one, range(n_rows)))

    def nothing(store: Store, _: int) -> None:
        async def one(number: int) -> None:
            key(number)

        asyncio.run(in_turns(one, range(n_rows)))

    def opened(store: Store, _: int) -> None:
        """Open and close, which keeping has besides."""

    kept, own = least(keep, n_rows), least(opened, n_rows)
    asked, loop = least(put, n_rows), least(nothing, n_rows)
    size = len(questions[0].conversation[0].content)
    print(f"a question of {size:,} characters: {kept - own:.1f} µs of CPU; a completion of 2 KB: {asked - loop:.1f} µs")
    print(f"ratio {(kept - own) / (asked - loop):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
