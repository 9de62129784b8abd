"""How near a frame's run comes to the shortest time in which its calls can be made.

    python tests/benchmarks/makespan.py [--rows 1000] [--mean 0.3] [--sigma 0.5]

Rows of four proposals and an aggregation by one model, 64 calls in flight. The server draws the latency of a request
from its digest, so that the work is known exactly; imports are made before. The bound is ``max(work / 64, longest
row)``; a row takes its slowest proposal and then its aggregation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from processes import machine, result_of, serving

from moa_nb.testing import ChatServer, Recorded, Reply, read_log

IN_FLIGHT, PROPOSALS = 64, 4
CLAIM, EARLY_CLAIM = 1.08, 0.18


class Latency:
    """Seconds of each request, lognormal: drawn from its digest, and from how many like it came before."""

    def __init__(self, mean: float, sigma: float) -> None:
        self._mu, self._sigma = math.log(mean) - sigma**2 / 2, sigma
        self._seen: Counter[str] = Counter()

    def __call__(self, body: dict[str, Any]) -> float:
        """Return the seconds of the next request with this body."""
        request = json.dumps(body, sort_keys=True)
        seed = f"{self._seen[request]} {request}".encode()
        self._seen[request] += 1
        return random.Random(hashlib.sha256(seed).digest()).lognormvariate(self._mu, self._sigma)


def serve(options: argparse.Namespace) -> None:
    """Serve until standard input closes."""
    latency = Latency(options.mean, options.sigma)

    def reply(body: dict[str, Any]) -> Reply:
        text = "a proposal" if is_proposal(body) else "an answer"
        return Reply(f"{text} {random.random()}", delay=latency(body))

    with ChatServer(log=options.log).on("*", reply) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


def is_proposal(body: dict[str, Any]) -> bool:
    """Return whether nothing but the row's text is sent."""
    return len(body["messages"]) == 1


def child(options: argparse.Namespace) -> tuple[float, float]:
    """Return the seconds until all rows are done, and until the first tenth of them is."""
    import aiohttp  # noqa: F401 - imported by the first call
    import pandas as pd

    import moa_nb as moa

    moa.configure(
        providers={"lab": {"base_url": options.child, "concurrency": IN_FLIGHT}},
        models={"lab:a": {"prompt_price": 0.0, "completion_price": 0.0}},
        ask_above_calls=10**9,
    )
    moa.run("A first run imports what is imported late.", models=["offline:lead"], aggregator="offline:lead")
    frame = pd.DataFrame({"q": [f"question {number}" for number in range(options.rows)]})
    began, tenth = time.monotonic(), 0.0
    run = frame.moa.start.synthesize("q", pipeline="moa-lite", models=["lab:a"] * PROPOSALS, aggregator="lab:a")
    while not run.done:
        time.sleep(0.02)
        if not tenth and run.partial[: options.rows // 10].notna().all():
            tenth = time.monotonic() - began
    ended = time.monotonic() - began
    assert run.wait().partial.notna().all()
    return ended, tenth


def bound(records: list[Recorded], options: argparse.Namespace) -> tuple[float, float]:
    """Return the seconds of work of all calls, and of the longest row."""
    proposing: defaultdict[str, float] = defaultdict(float)
    aggregating: dict[str, float] = {}
    work, latency = 0.0, Latency(options.mean, options.sigma)
    for record in records:
        seconds, row = latency(record.body), record.text_of("user")
        work += seconds
        if is_proposal(record.body):
            proposing[row] = max(proposing[row], seconds)
        else:
            aggregating[row] = seconds
    return work, max(proposing[row] + seconds for row, seconds in aggregating.items())


def in_flight(records: list[Recorded]) -> int:
    """Return the most calls that were in flight together."""
    moments = [(record.arrived, 1) for record in records] + [(record.finished or 0.0, -1) for record in records]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def main() -> int:
    """Return 0 if both claims are kept, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--mean", type=float, default=0.3, help="seconds of a call (default 0.3)")
    parser.add_argument("--sigma", type=float, default=0.5, help="of the logarithm (default 0.5)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--log", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.log:
        serve(options)
        return 0
    if options.child:
        print(json.dumps(child(options)))
        return 0
    given = ["--rows", str(options.rows), "--mean", str(options.mean), "--sigma", str(options.sigma)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        with serving(__file__, *given, "--log", str(log)) as url:
            ended, tenth = result_of(__file__, *given, "--child", url)
        records = read_log(log)
    work, longest = bound(records, options)
    least = max(work / IN_FLIGHT, longest)
    ratio, early = ended / least, tenth / ended
    print(
        f"{len(records)} calls, {work:.1f} s of work, at most {in_flight(records)} in flight, longest row {longest:.2f} s"
    )
    print(f"makespan {ended:.2f} s, of at least {least:.2f} s: {ratio:.3f} (claim: at most {CLAIM})")
    print(f"the first tenth of the rows by {tenth:.2f} s: {early:.3f} of it (claim: at most {EARLY_CLAIM})")
    print(machine())
    return int(ratio > CLAIM or early > EARLY_CLAIM)


if __name__ == "__main__":
    sys.exit(main())
