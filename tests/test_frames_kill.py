"""A process that is killed or interrupted in the middle of a frame, and the one that goes on from there."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moa_nb.testing import read_log

N_ROWS = 200

SCRIPT = f"""
import json, sys
import pandas as pd
import moa_nb as moa
url = sys.argv[1]
moa.configure(
    providers={{"lab": {{"base_url": url, "concurrency": 16}}}}, proposers=["lab:alpha", "lab:beta"], aggregator="lab:judge",
    ask_above_calls=10_000,
)
frame = pd.DataFrame({{"q": [f"q{{number}}" for number in range({N_ROWS})]}})
"""

RUN = """
answers = frame.moa.synthesize("q", progress=False)
print(json.dumps(int(answers.notna().sum())))
"""

INTERRUPTED = """
from moa_nb.engine import loop
loop._GOODBYE_SECONDS = 60.0  # a machine that stands still meanwhile is no fault of it
try:
    frame.moa.synthesize("q")
except KeyboardInterrupt:
    run = moa.last()
    once = int(run.partial.notna().sum())
    again = pd.Series(["x", "y"]).moa.synthesize(progress=False)
    rest = frame.moa.synthesize("q", progress=False)
    print(json.dumps([once, run.state, run.done, int(again.notna().sum()), int(rest.notna().sum())]))
"""

Script = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The server's log."""
    return tmp_path / "log.jsonl"


@pytest.fixture
def late() -> float:
    """Seconds that one of the first run's rows takes, so that what ends a run does not come after its end."""
    return 600.0


@pytest.fixture
def script(tmp_path: Path, log: Path, late: float) -> Iterator[Script]:
    """Start a script against a server that is a process of its own and outlives it."""
    # Before the first 200 answers are there it has been asked for: a run that comes afterwards does not meet it.
    alpha = ["a"] * 40 + [{"text": "a", "delay": late}] + ["a"]
    replies = json.dumps(
        {"options": {"latency": 0.02}, "replies": {"judge": ["an answer"], "alpha": alpha, "beta": ["b"]}}
    )
    (tmp_path / "replies.json").write_text(replies)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MOA_NB_")}
    environment |= {"MOA_NB_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "moa_nb.testing", "--port", "0", "--log", str(log), "--exit-with-stdin"]
    command += ["--script", str(tmp_path / "replies.json")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdin is not None
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    (tmp_path / "url").write_text(url)
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT + code, url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    server.stdin.close()
    server.wait(60)
    server.stdout.close()


def wait_for(log: Path, n_requests: int) -> None:
    """Return once the server has answered so many requests."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if log.exists() and log.read_bytes().count(b"\n") >= n_requests:
            return
        time.sleep(0.005)
    pytest.fail(f"fewer than {n_requests} requests")


def settle(log: Path) -> None:
    """Return once the server has noticed who is gone: whoever comes afterwards is served afterwards."""
    url = (log.parent / "url").read_text()
    for _ in range(3):
        urllib.request.urlopen(url + "/models").close()


def output(process: subprocess.Popen[str]) -> str:
    """What a process wrote, once it has ended well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


def test_a_killed_run_goes_on_where_it_was(script: Script, log: Path, tmp_path: Path) -> None:
    """After kill -9 at half of 200 rows, running again asks for exactly what was not committed."""
    process = script(RUN)
    wait_for(log, N_ROWS * 3 // 2)
    process.kill()
    process.communicate()
    settle(log)
    with sqlite3.connect(tmp_path / "home" / "store.sqlite") as connection:
        (committed,) = connection.execute("SELECT CAST(TOTAL(n) AS INTEGER) FROM blocks").fetchone()
    connection.close()
    before = log.read_bytes().count(b"\n")
    assert N_ROWS <= committed < 3 * N_ROWS
    assert json.loads(output(script(RUN))) == N_ROWS
    records = read_log(log)
    assert len(records) - before == 3 * N_ROWS - committed
    under_way = 3 * 2 * 16  # the calls of twice as many rows as there are slots; none goes on before its answer is kept
    assert before - committed <= under_way, "what was handed on was on disk"
    assert json.loads(output(script(RUN))) == N_ROWS
    assert len(read_log(log)) == len(records), "the third time nothing is asked"


def test_an_interrupted_script_keeps_its_rows_and_goes_on(script: Script, log: Path) -> None:
    """A real SIGINT raises KeyboardInterrupt at once, keeps what is finished, and the engine works on."""
    process = script(INTERRUPTED)
    wait_for(log, N_ROWS)
    process.send_signal(signal.SIGINT)
    once, state, is_done, again, rest = json.loads(output(process))  # which does not wait for the late one
    assert (state, is_done) == ("stopped", True)
    assert 20 <= once < N_ROWS
    assert (again, rest) == (2, N_ROWS)
    records = read_log(log)
    closed = [record for record in records if record.closed_at is not None]
    assert len(closed) <= 3 * 16
    assert len(records) <= 3 * (N_ROWS + 2) + 3 * 16


RECALLED = """
run = moa.recall(moa.runs()["id"].iloc[0])
asked = run.values.notna()
first = run.trace(0)
print(json.dumps({
    "state": run.state, "rows": len(run.values), "answered": int(asked.sum()), "values": run.values[asked].tolist()[:2],
    "prompt": first.calls[-1].prompt[0].content[:17], "texts": [call.text for call in first.calls],
    "listed": moa.runs()["state"].iloc[0], "calls": int(run.report["n_calls"].sum()),
    "layers": [list(column) for column in run.layers.columns],
}))
"""


@pytest.mark.parametrize("late", [0.0])
def test_a_run_of_yesterday_is_there_with_its_traces(script: Script, log: Path) -> None:
    """Another process, without the frame, has the run's values, report and each row's layers; nothing is sent."""
    assert json.loads(output(script(RUN))) == N_ROWS
    n_sent = len(read_log(log))
    found = json.loads(output(script("del frame\n" + RECALLED)))
    assert (found["state"], found["rows"], found["answered"]) == ("done", N_ROWS, N_ROWS)
    assert found["values"] == ["an answer", "an answer"]
    assert found["texts"] == ["a", "b", "an answer"]
    assert found["prompt"] == "You are given the"
    assert found["layers"] == [["layer 1", "alpha"], ["layer 1", "beta"], ["layer 2", "judge"]]
    assert found["calls"] == 3 * N_ROWS
    assert len(read_log(log)) == n_sent


def test_a_killed_run_is_there_as_far_as_it_came(script: Script, log: Path) -> None:
    """The run that was killed is listed as interrupted, and its finished rows can be looked at."""
    process = script(RUN)
    wait_for(log, N_ROWS * 3 // 2)
    process.kill()
    process.communicate()
    found = json.loads(output(script(RECALLED)))
    assert found["listed"] == "interrupted"
    assert 0 < found["answered"] < N_ROWS == found["rows"]
    assert found["texts"] == ["a", "b", "an answer"]
