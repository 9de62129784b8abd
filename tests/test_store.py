"""The store: what came back is on disk before it is used, and no fault of the file costs an answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.chat import Completion, Usage
from moa_nb.engine import engine
from moa_nb.store import Store, StoreWarning, schema
from moa_nb.store.completions import pack, unpack
from moa_nb.store.runs import RunRow
from moa_nb.testing import ChatServer, Reply, read_log

Lab = Callable[..., None]

ANSWER = Completion("an answer", "m-2024", "stop", Usage(10, 5, 2, None, 1), cost=0.25, seconds=1.5, reasoning="hm")


def put(store: Store, *keys: bytes, completion: Completion = ANSWER) -> None:
    """Put one completion under each key, side by side."""

    async def go() -> None:
        await asyncio.gather(*(store.put(key, completion) for key in keys))

    asyncio.run(go())


def stored(path: Path) -> int:
    """How many completions another connection sees."""
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT COUNT(*) FROM completions").fetchone()[0])
    finally:
        connection.close()


@given(
    text=st.text(alphabet=st.characters(), max_size=900),
    reasoning=st.none() | st.text(max_size=5),
    counts=st.lists(st.none() | st.integers(0, 10**9), min_size=5, max_size=5),
    cost=st.none() | st.floats(0, 10),
)
def test_a_completion_comes_back_as_it_was(
    text: str, reasoning: str | None, counts: list[int | None], cost: float | None
) -> None:
    """But for its being cached; half a surrogate pair is replaced."""
    completion = Completion(text, "m", "stop", Usage(*counts), cost=cost, reasoning=reasoning, note="n")
    known = unpack(pack(completion))
    assert (known.text, known.usage, known.cost, known.reasoning, known.note) == (
        text.encode("utf-8", "replace").decode(),
        completion.usage,
        cost,
        reasoning,
        "n",
    )
    assert (known.cached, known.attempts) == (True, 0)


def test_what_was_put_is_committed(tmp_path: Path) -> None:
    """When ``put`` returns, another process sees it."""
    path = tmp_path / "folder" / "store.sqlite"
    store = Store(path)
    put(store, b"1")
    assert stored(path) == 1
    assert store.get(b"1") == unpack(pack(ANSWER))
    assert store.get(b"2") is None
    store.close()
    assert Store(path).get(b"1") is not None


def test_many_are_committed_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand completions that come at once take a few commits."""
    store, groups = Store(tmp_path / "store.sqlite"), []
    commit = store._commit
    monkeypatch.setattr(
        store, "_commit", lambda connection, group: (groups.append(len(group)), commit(connection, group))
    )
    put(store, *(b"%d" % n for n in range(1000)))
    assert stored(tmp_path / "store.sqlite") == sum(groups) == 1000
    assert len(groups) < 100
    store.close()


def test_the_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Answers may be private: folder and file open to nobody else."""
    Store(tmp_path / "mine" / "store.sqlite").close()
    assert (tmp_path / "mine").stat().st_mode & 0o077 == 0
    assert (tmp_path / "mine" / "store.sqlite").stat().st_mode & 0o077 == 0


def damaged(path: Path) -> None:
    """Write something else into it."""
    path.write_bytes(b"this is no database, and never was" * 100)


def newer(path: Path) -> None:
    """Let a later version have made it."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    connection.close()


def not_a_folder(path: Path) -> None:
    """Put a file where its folder should be."""
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")


@pytest.mark.parametrize("harm", [damaged, newer, not_a_folder])
def test_a_file_that_cannot_be_used_costs_no_answer(server: ChatServer, lab: Lab, harm: Callable[[Path], None]) -> None:
    """One warning, on the caller's thread; the session keeps its answers in memory; the file is left alone."""
    path = Path(os.environ["MOA_NB_HOME"]) / "store.sqlite"
    harm(path)
    lab(budget=None)
    before = path.read_bytes() if path.exists() else None
    with pytest.warns(StoreWarning, match="in memory only") as warned:
        first = moa.run("Why?")
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert moa.run("Why?").text == first.text
    assert server.count() == 4
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_disk_that_fills_up_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a group cannot be written, those who wait for it go on, and it is said once."""
    store = Store(tmp_path / "store.sqlite")
    put(store, b"0")
    monkeypatch.setattr("moa_nb.store.database.pack", lambda completion: 1 / 0)
    put(store, b"1", b"2")
    monkeypatch.undo()
    put(store, b"3")
    assert all(store.get(key) is not None for key in (b"0", b"1", b"2", b"3"))
    assert "in memory only" in (store.complaint() or "")
    assert store.complaint() is None
    store.close()


def test_one_damaged_answer_is_asked_again_and_the_store_goes_on(server: ChatServer, lab: Lab) -> None:
    """It is written over, and nothing is said."""
    moa.run("Why?", pipeline="single")
    path = Path(os.environ["MOA_NB_HOME"]) / "store.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE completions SET value = x'ff00'")
    connection.commit()
    connection.close()
    moa.run("Why?", pipeline="single")
    moa.run("Why?", pipeline="single")
    assert server.count() == 2


def test_nothing_is_on_disk_with_store_none(server: ChatServer, lab: Lab) -> None:
    """``store="none"`` answers from memory within the session, and leaves no file but the fence's secret."""
    lab(store="none")
    moa.run("Why?")
    moa.run("Why?")
    assert server.count() == 4
    engine.stop()
    assert {file.name for file in Path(os.environ["MOA_NB_HOME"]).iterdir()} <= {"fence.key"}
    moa.run("Why?")
    assert server.count() == 8


CLIENT = """
import json, sys, moa_nb as moa
base_url, start, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
moa.configure(aggregator="lab:a", providers={"lab": {"base_url": base_url, "concurrency": 8}})
import asyncio
async def all():
    answers = await asyncio.gather(*(moa.arun(f"question {n}", pipeline="single") for n in range(start, end)))
    print(json.dumps([answer.calls[0].cached for answer in answers]))
asyncio.run(all())
"""


def client(*arguments: object) -> subprocess.Popen[str]:
    """A process of its own that asks a range of questions."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CLIENT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Any:
    """What the process printed; it must have ended well."""
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    return json.loads(out)


def test_two_processes_share_a_store(server: ChatServer) -> None:
    """Both begin at once on a fresh folder, write side by side, and a third finds everything."""
    processes = [client(server.base_url, start, start + 60) for start in (0, 60)]
    assert [len(ended(process)) for process in processes] == [60, 60]
    assert ended(client(server.base_url, 0, 120)) == [True] * 120
    assert server.count() == 120


def test_a_killed_process_asks_only_what_was_not_committed(tmp_path: Path) -> None:
    """Killed in the middle of 200 calls: what the store has is not asked again, the rest is asked once."""
    log = tmp_path / "log.jsonl"
    path = Path(os.environ["MOA_NB_HOME"]) / "store.sqlite"
    with ChatServer(log=log) as server:
        server.on("*", Reply("an answer", delay=0.01))
        process = client(server.base_url, 0, 200)
        assert server.wait_until(lambda: server.count() > 90, seconds=20)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        committed = stored(path)
        assert 40 < committed < 200
        server.wait_until(lambda: server.in_flight == 0)
        server.clear()
        cached = ended(client(server.base_url, 0, 200))
        assert cached.count(True) == committed
        assert server.count() == 200 - committed
    # Everything that the first process had been told, but what was on its way at the end, was kept.
    answered = sum(record.status == 200 for record in read_log(log)) - (200 - committed)
    assert answered - committed <= 2 * 8


def test_runs_are_listed_with_what_they_took(server: ChatServer, lab: Lab) -> None:
    """Newest first, with tokens, dollars and state; the record gives the result back."""
    result = moa.run("Why did it close?")
    server.on("z", Reply.bad_request())
    with pytest.raises(moa.MoaError):
        moa.run("And then?", cache="off")
    frame = moa.runs()
    assert list(frame["state"]) == ["failed", "done"]
    assert list(frame["title"]) == ["And then?", "Why did it close?"]
    assert frame["cost"].iloc[1] == pytest.approx(result.cost)
    assert frame["calls"].iloc[1] == 4
    from moa_nb import settings

    store = engine.current().store(settings.current())
    record = store.run_record(result.run_id)
    assert record is not None
    assert moa.Result.from_record(record).text == result.text
    assert store.delete_run(result.run_id)
    assert not store.delete_run(result.run_id)
    assert len(moa.runs()) == 1


def test_a_run_that_cannot_be_listed_is_only_complained_of(tmp_path: Path) -> None:
    """Its answers are worth more than its entry."""
    store = Store(tmp_path / "store.sqlite")
    row = RunRow("1", time.time(), "cell", "moa", "done", "broken \ud83d", 1, 0, 0, 1, 1, 0.0, 0.0, 1.0)
    store.add_run(row, [], {"text": "broken \ud83d", 3: object()})
    assert [run.title for run in store.runs()] == ["broken ?"]
    store.add_run(row, [], {"loop": (loop := {}, loop.setdefault("self", loop))})
    assert "cannot keep this run" in (store.complaint() or "")
    put(store, b"1")
    assert stored(tmp_path / "store.sqlite") == 1
    store.close()
