"""What is asked again after ``kill -9``: a run of 500 rows is killed at a random moment and started again, 20 times.

    python tests/benchmarks/kills.py [--kills 20]

A row is two proposals and an aggregation. The server is a process of its own that outlives the runs and logs every
request. A repeat is a request that an earlier run has sent too. None may be of a call that was in the store when the
run was killed, nor of one whose answer was handed on (its row's aggregator was asked); each must have been sent at most
50 ms before the kill, the server's latency included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

from processes import environment, machine, result_of, serving

from moa_nb.testing import Recorded, read_log

IN_FLIGHT = 16
"""Calls to each model. Where more are in flight than the processor can serve, answers wait unread in the sockets."""

N_ROWS, PROPOSERS, AGGREGATOR = 500, ("alpha", "beta"), "judge"
N_CALLS = N_ROWS * (len(PROPOSERS) + 1)
CLAIM_SECONDS = 0.050


class _Over(Exception):
    """The run ended before it could be killed."""


def run(url: str) -> int:
    """Return how many rows have an answer."""
    import pandas as pd

    import moa_nb as moa

    moa.configure(
        providers={"lab": {"base_url": url, "concurrency": IN_FLIGHT}},
        proposers=[f"lab:{name}" for name in PROPOSERS],
        aggregator=f"lab:{AGGREGATOR}",
        models={f"lab:{name}": {"prompt_price": 0.0, "completion_price": 0.0} for name in (*PROPOSERS, AGGREGATOR)},
        ask_above_calls=10**9,
    )
    rows = pd.Series([f"row {number}" for number in range(N_ROWS)])
    return int(rows.moa.synthesize(progress=False).notna().sum())


def killed(url: str, log: Path, home: Path, seconds: float) -> float:
    """Return when the run was killed (``time.monotonic``): so many seconds after its first answer."""
    process = subprocess.Popen([sys.executable, __file__, "--child", url], env=environment(home), cwd=home)
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.001)
    time.sleep(seconds)
    at = time.monotonic()
    process.kill()
    if process.wait() != -signal.SIGKILL:
        raise _Over
    return at


def name(record: Recorded) -> tuple[str, str]:
    """Return what tells a call from others: its model and its row."""
    return record.model, record.text_of("user")


def service(log: Path, latency: float) -> AbstractContextManager[str]:
    """Return the server, which yields its address."""
    options = ["--log", str(log), "--latency", str(latency), "--exit-with-stdin"]
    return serving("-m", "moa_nb.testing", "--port", "0", *options)


def whole(latency: float, folder: Path) -> float:
    """Return the seconds from the first answer of a run that nobody kills to its last."""
    log = folder / "log.jsonl"
    with service(log, latency) as url:
        assert result_of(__file__, "--child", url) == N_ROWS
    finished = [record.finished or 0.0 for record in read_log(log)]
    return finished[-1] - finished[0]


def trial(seconds: float, latency: float, folder: Path) -> dict[str, float]:
    """Return what a kill so many seconds after the first answer, and the run after it, led to."""
    log, home = folder / "log.jsonl", folder / "home"
    home.mkdir()
    with service(log, latency) as url:
        at = killed(url, log, home, seconds)
        with sqlite3.connect(f"file:{home / 'store.sqlite'}?mode=ro", uri=True) as connection:
            (n_committed,) = connection.execute("SELECT CAST(TOTAL(n) AS INTEGER) FROM blocks").fetchone()
        connection.close()
        again = time.monotonic()
        n_answers = result_of(__file__, "--child", url, home=home)
    records = read_log(log)
    before = {name(record): record.arrived for record in records if record.arrived < again}
    after = Counter(name(record) for record in records if record.arrived >= again)
    handed_on = {row for model, row in before if model == AGGREGATOR}
    repeated = [call for call in after if call in before]
    return {
        "committed": n_committed,
        "sent": len(before),
        "missing": N_ROWS - n_answers,
        "repeated": len(repeated),
        "committed and repeated": sum(after.values()) - (N_CALLS - n_committed),
        "handed on and repeated": sum(model != AGGREGATOR and row in handed_on for model, row in repeated),
        "twice in one run": sum(after.values()) - len(after),
        "oldest": 1000 * max((at - before[call] for call in repeated if before[call] < at), default=0.0),
    }


def main() -> int:
    """Return 0 if every trial keeps the claims, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds of a call (default 0.03)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(options.child)), flush=True)
        os._exit(0)
    draw, n_bad = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        length = whole(options.latency, Path(folder))
    print(f"a run takes {length:.2f} s from its first answer to its last\n")
    print("killed after   sent  committed  repeated, sent at most ... before  missing")
    n_kills = 0
    while n_kills < options.kills:
        seconds = length * draw.random()
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = trial(seconds, options.latency, Path(folder))
        except _Over:
            continue
        n_kills += 1
        wrong = [
            key
            for key in ("missing", "committed and repeated", "handed on and repeated", "twice in one run")
            if found[key]
        ]
        wrong += ["oldest"] if found["oldest"] > 1000 * CLAIM_SECONDS else []
        n_bad += bool(wrong)
        print(
            f"{seconds:10.3f} s  {found['sent']:5}  {found['committed']:9}  {found['repeated']:8}, {found['oldest']:5.1f} ms"
            f"{'':14}  {found['missing']:7}  {', '.join(f'{key}: {found[key]:.0f}' for key in wrong)}",
            flush=True,
        )
    print(f"{options.kills - n_bad} of {options.kills} kills kept the claims")
    print(machine())
    return int(n_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
