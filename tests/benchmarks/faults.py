"""What calls cost when the service fails: none may be lost, and few may be asked more often than they must.

    python tests/benchmarks/faults.py [--calls 10000]

Of the requests 10 % are answered with 429, 10 % with 500, 502 or 503, 5 % are cut (a body in the middle, a stream in the
middle, a connection that is reset) and 5 % are malformed; each is drawn on its own. Half of the calls are the rows of a
frame, half are runs that somebody watches, which are streamed. The least possible is ``calls / (1 - 0.3)``
requests; with the faults as they were drawn it is one request for each call and each fault.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from processes import machine, result_of, serving

from moa_nb.testing import ChatServer, Reply, read_log

CLAIM, SHARE = 1.03, 0.30
ANSWER = "a good answer of some words that a fault may cut in the middle"
GOOD = "good"


def reply(draw: random.Random, *, is_stream: bool) -> tuple[str, Reply]:
    """Return what the next request meets, by name."""
    at = draw.random()
    if at < 0.10:
        return "429", Reply.rate_limited()
    if at < 0.20:
        return "5xx", Reply.fault(draw.choice([500, 502, 503]))
    if at < 0.25:
        if draw.random() < 0.2:
            return "cut", Reply.dropped()
        return "cut", Reply.cut(ANSWER, after=draw.randrange(1, 12) if is_stream else draw.randrange(1, 150))
    if at < 0.30:
        broken = b'data: {"choices": [{"delta"\n\n' if is_stream else b'{"choices": [{"message": {"content": "a go'
        kind = "text/event-stream" if is_stream else "application/json"
        return "malformed", Reply(body=broken, headers={"Content-Type": kind})
    return GOOD, Reply(ANSWER)


def serve(options: argparse.Namespace) -> None:
    """Serve until standard input closes, and write down what was drawn."""
    draw, drawn = random.Random(options.seed), Counter[str]()

    def answer(body: dict[str, Any]) -> Reply:
        name, chosen = reply(draw, is_stream=bool(body.get("stream")))
        drawn[name] += 1
        return chosen

    with ChatServer(latency=options.latency, log=f"{options.drawn}.log").on("*", answer) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()
    Path(options.drawn).write_text(json.dumps(drawn))


def child(options: argparse.Namespace) -> tuple[int, float, list[str]]:
    """Return how many calls were answered well, the seconds, and the first errors."""
    import asyncio

    import pandas as pd

    import moa_nb as moa
    from moa_nb.engine.engine import current
    from moa_nb.engine.plan import Options
    from moa_nb.engine.task import make_task
    from moa_nb.errors import MoaError

    moa.configure(
        aggregator="lab:a",
        pipeline="single",
        providers={"lab": {"base_url": options.child}},
        models={"lab:a": {"prompt_price": 0.0, "completion_price": 0.0}},
        ask_above_calls=10**9,
    )
    half, began = options.calls // 2, time.monotonic()
    answers = pd.Series([f"row {number}" for number in range(half)]).moa.synthesize(progress=False)
    errors = list(moa.last().errors.dropna())
    engine = current()

    async def watched() -> list[str | None]:
        plan = await engine.plan(Options())
        numbers, found = iter(range(options.calls - half)), list[str | None]()

        async def work() -> None:
            for number in numbers:
                task = make_task(f"watched {number}")
                try:
                    result = await engine.answer(plan, task, engine.new_record(plan, task), row=number, watched=True)
                    found.append(result.text)
                except MoaError as error:
                    errors.append(str(error))

        await asyncio.gather(*(work() for _ in range(64)))
        return found

    n_good = sum(answer == ANSWER for answer in [*answers, *engine.finish(watched())])
    return n_good, time.monotonic() - began, errors[:3]


def main() -> int:
    """Return 0 if no call was lost and few were asked too often, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--latency", type=float, default=0.005, help="seconds of a request (default 0.005)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--drawn", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drawn:
        serve(options)
        return 0
    if options.child:
        print(json.dumps(child(options)))
        return 0
    given = [f"--{name}={getattr(options, name)}" for name in ("calls", "latency", "seed")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "drawn.json"
        with serving(__file__, *given, "--drawn", str(file)) as url:
            n_good, seconds, errors = result_of(__file__, *given, "--child", url)
        drawn = json.loads(file.read_text())
        n_streams = sum(bool(record.body.get("stream")) for record in read_log(f"{file}.log"))
    n_requests = sum(drawn.values())
    expected, needed = options.calls / (1 - SHARE), options.calls + n_requests - drawn[GOOD]
    print(f"{n_requests} requests in {seconds:.1f} s, {n_streams} of them streams; {drawn}")
    print(f"{options.calls - n_good} of {options.calls} calls lost {errors or ''}")
    print(
        f"requests over the least possible: {n_requests / expected:.4f} (claim: at most {CLAIM});"
        f" over the calls and their faults: {n_requests / needed:.4f}"
    )
    print(machine())
    return int(n_good < options.calls or n_requests > CLAIM * expected)


if __name__ == "__main__":
    sys.exit(main())
