"""CPU of the client per call, against bare aiohttp in the same run.

    python tests/benchmarks/call_overhead.py                    3,000 calls, everything on
    python tests/benchmarks/call_overhead.py --calls 80000      the store must stay cheap as it grows
    python tests/benchmarks/call_overhead.py --no-cache         nothing is looked up or kept
    python tests/benchmarks/call_overhead.py --no-uvloop        on asyncio's own event loop
    python tests/benchmarks/call_overhead.py --stream           66 chunks an answer, as a watched run reads them

*bare* is one session with keep-alive, no limit on connections and a semaphore of 64, stdlib json, asyncio's own event
loop; of a stream it parses each event as it comes. *engine* is ``engine.answer`` by 64 workers: template, digest,
store, limits, retry, record. *frame* is ``df.moa.synthesize(...)``. All send the same bytes and get the same.

The server is a process of its own and answers at once. A figure is the slope of a process's CPU, all its threads
together and its end included, between a small and a large run; each run is a fresh process, the kinds take turns, and
the least of the rounds counts. The noise is how far the rounds of bare lie apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from processes import machine, result_of, serving
from responder import text

IN_FLIGHT, SMALL = 64, 500
INSTRUCTION = "Say in one sentence what this customer wants:\n\n"
Ask = Callable[[str], Awaitable[str]]


def texts(n_rows: int) -> list[str]:
    """Return texts of about 1 KB, unlike one another."""
    long = text(4000)
    return [f"{number}: {long[number % 3000 :][:1000]}" for number in range(n_rows)]


async def by_workers(ask: Ask, rows: list[str]) -> list[str]:
    """Return the answers to all rows, 64 in flight."""
    waiting, answers = iter(enumerate(rows)), [""] * len(rows)

    async def work() -> None:
        for number, row in waiting:
            answers[number] = await ask(row)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return answers


# What is measured --------------------------------------------------------------------------------


async def bare(url: str, rows: list[str], *, stream: bool) -> list[str]:
    """Return the answers that aiohttp and stdlib json get."""
    import aiohttp

    slots = asyncio.Semaphore(IN_FLIGHT)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}

    async def read(response: aiohttp.ClientResponse) -> str:
        if not stream:
            return str(json.loads(await response.read())["choices"][0]["message"]["content"])
        pieces: list[str] = []
        async for line in response.content:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                pieces += (choice["delta"].get("content", "") for choice in json.loads(line[6:])["choices"])
        return "".join(pieces)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(row: str) -> str:
            fields: dict[str, Any] = {"model": "a", "messages": [{"role": "user", "content": INSTRUCTION + row}]}
            if stream:
                fields |= {"stream": True, "stream_options": {"include_usage": True}}
            data = json.dumps(fields, separators=(",", ":"))
            async with slots, session.post(f"{url}/chat/completions", data=data, headers=headers) as response:
                return await read(response)

        return await by_workers(ask, rows)


def configure(url: str, *, uvloop: bool) -> None:
    """Point ``lab:a`` at the server."""
    if not uvloop:
        sys.modules["uvloop"] = None  # type: ignore[assignment] # as if it were not installed
    import moa_nb as moa

    moa.configure(
        aggregator="lab:a",
        pipeline="single",
        providers={"lab": {"base_url": url, "key_env": "LAB_KEY", "concurrency": IN_FLIGHT}},
        models={"lab:a": {"prompt_price": 1.0, "completion_price": 1.0}},
    )


def engine(rows: list[str], budget: float, cache: Any, *, stream: bool) -> list[str]:
    """Return the answers that ``engine.answer`` gets."""
    from moa_nb.chat import conversation
    from moa_nb.engine.engine import current
    from moa_nb.engine.plan import Options, prompt_template
    from moa_nb.pipeline.candidate import Task

    engine, template = current(), prompt_template(INSTRUCTION + "{{ text }}")

    async def go() -> list[str]:
        plan = await engine.plan(Options(budget=budget, cache=cache))

        async def ask(row: str) -> str:
            task = Task(conversation(template.render({"text": row})), material=row)
            return (await engine.answer(plan, task, engine.new_record(plan, task), watched=stream)).text

        return await by_workers(ask, rows)

    return engine.finish(go())


def frame(rows: list[str], budget: float, cache: Any) -> list[str]:
    """Return the answers that a frame's verb gets."""
    import pandas as pd

    import moa_nb as moa

    data = pd.DataFrame({"text": rows})
    answers = data.moa.synthesize(
        "text", template=INSTRUCTION + "{{ text }}", budget=budget, cache=cache, progress=False
    )
    assert moa.last().report["state"].eq("done").all()
    return list(answers)


def child(options: argparse.Namespace) -> float:
    """Return the seconds of CPU that one run takes in this process, what is imported before left out."""
    import aiohttp  # noqa: F401 - the first call would import it
    import pandas as pd  # noqa: F401 - as does a frame

    rows = texts(options.rows)
    cache: Any = "off" if options.no_cache else "use"
    if options.child != "bare":
        configure(options.url, uvloop=not options.no_uvloop)
        from moa_nb.engine.engine import stop
    began = time.process_time()
    if options.child == "bare":
        answers = asyncio.run(bare(options.url, rows, stream=options.stream))
    else:
        if options.child == "engine":
            answers = engine(rows, options.budget, cache, stream=options.stream)
        else:
            answers = frame(rows, options.budget, cache)
        stop()
    seconds = time.process_time() - began
    assert set(answers) == {text(options.answer)}
    return seconds


# How it is measured ------------------------------------------------------------------------------


def main(arguments: list[str]) -> None:
    """Print microseconds of CPU per call for each kind, and their ratio to bare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000, help="calls of the large run (default 3000)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the least counts (default 5)")
    parser.add_argument("--answer", type=int, default=1000, help="bytes of an answer (default 1000)")
    parser.add_argument("--kinds", nargs="+", default=["frame", "engine"], help="what is held against bare")
    parser.add_argument("--budget", type=float, default=float("inf"), help="dollars; without one none is kept")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--no-uvloop", action="store_true")
    parser.add_argument("--stream", action="store_true", help="of the engine alone: a frame's rows are not watched")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(child(options)))
        return
    kinds = ["bare", *(["engine"] if options.stream else options.kinds)]
    sizes = (SMALL, options.calls)
    found: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in kinds}
    sent = dict.fromkeys(kinds, 0.0)
    with serving(str(Path(__file__).with_name("responder.py")), "--answer", str(options.answer)) as url:
        for _ in range(options.rounds):
            for kind in kinds:
                n_requests, n_bytes = seen(url)
                child_of = [*arguments, "--child", kind, "--url", url]
                found[kind].append(tuple(result_of(__file__, *child_of, "--rows", str(size)) for size in sizes))
                n_requests, n_bytes = (
                    after - before for after, before in zip(seen(url), (n_requests, n_bytes), strict=True)
                )
                assert n_requests == sum(sizes), "each row is asked once"
                sent[kind] = n_bytes / n_requests
    print(
        f"{options.calls} calls, least of {options.rounds}; microseconds of CPU a call (each round's), bytes of a request"
    )
    per_call = {
        kind: slope([min(sizes) for sizes in zip(*runs, strict=True)], options.calls) for kind, runs in found.items()
    }
    for kind, runs in found.items():
        rounds = ", ".join(f"{slope(run, options.calls):.0f}" for run in runs)
        print(f"{kind:>6}: {per_call[kind]:4.0f} ({rounds}), {sent[kind]:.0f} bytes")
    of_bare = [slope(run, options.calls) for run in found["bare"]]
    print(f"noise: {max(of_bare) / min(of_bare) - 1:.0%}; {machine()}")
    for kind in kinds[1:]:
        print(f"ratio {kind} to bare: {per_call[kind] / per_call['bare']:.2f}")


def slope(seconds: Any, calls: int) -> float:
    """Return microseconds per call from the seconds of a small and a large run."""
    small, large = seconds
    return 1e6 * (large - small) / (calls - SMALL)


def seen(url: str) -> list[int]:
    """Return how many requests came, and their bytes."""
    with urlopen(f"{url}/seen") as answer:
        return json.load(answer)


if __name__ == "__main__":
    main(sys.argv[1:])
