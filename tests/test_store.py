"""The store: what came back is on disk before it is used, and no fault of the file costs an answer."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.chat import Completion, Usage
from moa_nb.engine import engine
from moa_nb.store import Store, StoreWarning, index, memory, place, schema, versions, writer
from moa_nb.store.completions import completion as read
from moa_nb.store.completions import pack, unpack
from moa_nb.store.runs import LedgerRow, RunRow
from moa_nb.testing import ChatServer, Reply

Lab = Callable[..., None]

ANSWER = Completion("an answer", "m-2024", "stop", Usage(10, 5, 2, None, 1), cost=0.25, seconds=1.5, reasoning="hm")


def key(name: object) -> bytes:
    """A key, as the gateway digests it."""
    return hashlib.blake2b(str(name).encode(), digest_size=16).digest()


def put(store: Store, *names: object, completion: Completion = ANSWER, model: str = "lab:a") -> None:
    """Put one completion under the key of each name, side by side."""

    async def go() -> None:
        await asyncio.gather(*(store.put(key(name), completion, model) for name in names))

    asyncio.run(go())


def asked(path: Path, query: str) -> Any:
    """What another connection sees: the first value that a query finds."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchone()[0]
    finally:
        connection.close()


def stored(path: Path) -> int:
    """How many completions another connection sees."""
    return int(asked(path, "SELECT TOTAL(n) FROM blocks"))


def as_cached(completion: Completion) -> Completion:
    """The completion as the store gives it back."""
    return replace(completion, cached=True, attempts=0)


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
    (record,) = unpack(pack([completion]))
    known = read(record, b"")
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
    put(store, 1)
    assert stored(path) == 1
    assert store.get(key(1)) == as_cached(ANSWER)
    assert store.get(key(2)) is None
    store.close()
    again = Store(path)
    assert again.get(key(1)) == as_cached(ANSWER)
    again.close()


def test_many_are_committed_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand completions that come at once take a few commits."""
    store, groups, commit = Store(tmp_path / "store.sqlite"), list[int](), writer.commit
    monkeypatch.setattr(
        writer, "commit", lambda connection, group: (groups.append(len(group)), commit(connection, group))
    )
    put(store, *range(1000))
    assert stored(tmp_path / "store.sqlite") == sum(groups) == 1000
    assert len(groups) < 100
    store.close()


def test_what_is_kept_is_called_on_its_loop(tmp_path: Path) -> None:
    """``put_soon`` waits for nothing; each ``kept`` is called on the loop that put it, once it is committed."""
    store = Store(tmp_path / "store.sqlite")

    async def go() -> list[tuple[int, bool]]:
        seen: list[tuple[int, bool]] = []
        all_kept = asyncio.get_running_loop().create_future()

        def kept(n: int) -> None:
            seen.append((threading.get_ident(), store.get(key(n)) is not None))
            if len(seen) == 20:
                all_kept.set_result(None)

        for n in range(20):
            store.put_soon(key(n), ANSWER, functools.partial(kept, n))
        assert seen == []
        await all_kept
        return seen

    assert asyncio.run(go()) == [(threading.get_ident(), True)] * 20
    store.close()


def test_one_that_fails_once_it_is_kept_holds_up_nobody(tmp_path: Path) -> None:
    """The others of its group are called all the same, and the loop hears of the failure."""
    store, failures = Store(tmp_path / "store.sqlite"), list[str]()

    async def go() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(repr(context["exception"])))
        for n in range(3):
            store.put_soon(key(n), ANSWER, lambda: 1 / 0)
        await asyncio.gather(*(store.put(key(n), ANSWER) for n in range(3, 6)))

    asyncio.run(go())
    assert failures == ["ZeroDivisionError('division by zero')"] * 3
    store.close()


def test_two_stores_on_one_file_see_each_other(tmp_path: Path) -> None:
    """What one kernel keeps the other finds, and an answer that one asks for again replaces the earlier one."""
    one, other = Store(tmp_path / "store.sqlite"), Store(tmp_path / "store.sqlite")
    for n in range(3):
        put(one, f"one {n}")
        put(other, f"other {n}")
        assert other.get(key(f"one {n}")) == one.get(key(f"other {n}")) == as_cached(ANSWER)
    new = replace(ANSWER, text="a new answer")
    put(other, "one 0", completion=new)
    assert one.get(key("one 0")) == as_cached(new)
    one.close()
    other.close()


def test_sorted_in_or_not_a_key_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys go into the index some at a time, by whichever kernel; each is found before, after and in a later kernel."""
    monkeypatch.setattr(index, "TAIL", 100)
    path = tmp_path / "store.sqlite"
    one, other = Store(path), Store(path)
    for start in range(0, 550, 50):
        put(one, *range(start, start + 50))
        assert all(other.get(key(n)) is not None for n in range(start + 50))
    put(other, *range(550, 570))
    new = replace(ANSWER, text="a new answer")
    put(one, *range(10), completion=new)
    one.close()
    other.close()
    later = Store(path)
    assert [later.get(key(n)) for n in range(10)] == [as_cached(new)] * 10
    assert all(later.get(key(n)) is not None for n in range(570))
    assert later.get(key("none")) is None
    assert 500 <= asked(path, "SELECT COUNT(*) FROM places") <= 570
    later.close()


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("umask", [0, 0o022])
def test_the_store_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    """Answers may be private: folder, file and log are open to nobody else, whatever the umask; an open file is closed."""
    before = os.umask(umask)
    try:
        path = tmp_path / "mine" / "store.sqlite"
        store = Store(path)
        put(store, 1)
        files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert files == dict.fromkeys(["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"], 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    Store(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


# Faults -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("harm", [newer, not_a_folder])
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


def test_a_damaged_file_is_set_aside(server: ChatServer, lab: Lab) -> None:
    """One warning that names both files; a new one is begun, and what was there is kept under another name."""
    path = Path(os.environ["MOA_NB_HOME"]) / "store.sqlite"
    damaged(path)
    lab(budget=None)
    before = path.read_bytes()
    with pytest.warns(StoreWarning, match=r"was damaged .* set aside as store\.damaged-.* a new one begun") as warned:
        moa.run("Why?", pipeline="single")
    assert len(warned) == 1
    (aside,) = path.parent.glob("store.damaged-*.sqlite")
    assert aside.read_bytes() == before
    engine.stop()
    moa.run("Why?", pipeline="single")
    assert server.count() == 1


def test_only_the_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """A kernel that comes second does not take away the new file of the first."""
    path = tmp_path / "store.sqlite"
    damaged(path)
    found = place.inode(path)
    (tmp_path / "other").write_bytes(b"a new file")
    (tmp_path / "other").replace(path)
    assert place.set_aside(path, found) is None
    assert path.read_bytes() == b"a new file"


def test_damage_in_the_middle_costs_no_answer(tmp_path: Path) -> None:
    """Where only a part is broken, the session goes on in memory, and the next one begins a new file."""
    path = tmp_path / "store.sqlite"
    store = Store(path)
    put(store, *range(200))
    store.close()
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(4096)
        file.write(b"\xee" * (size - 4096))
    store = Store(path)
    put(store, "a", "b")
    assert store.get(key("a")) == store.get(key("b")) == as_cached(ANSWER)
    assert "set aside as store.damaged-" in (store.complaint() or "")
    store.close()
    later = Store(path)
    put(later, "c")
    assert later.complaint() is None
    assert stored(path) <= 3
    later.close()


def test_a_group_that_cannot_be_written_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who wait for it go on with it in memory, and it is said once."""
    store = Store(tmp_path / "store.sqlite")
    put(store, 0)
    monkeypatch.setattr("moa_nb.store.writer.pack", lambda completions: 1 / 0)
    put(store, 1, 2)
    monkeypatch.undo()
    put(store, 3)
    assert all(store.get(key(n)) is not None for n in range(4))
    assert "in memory only" in (store.complaint() or "")
    assert store.complaint() is None
    store.close()


FULL = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from moa_nb.chat import Completion
from moa_nb.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
store = Store(Path(sys.argv[1]))
async def put(n):
    await store.put(n.to_bytes(16, "little"), Completion(os.urandom(1000).hex(), "m"))
async def go():
    for start in range(0, 3000, 100):
        await asyncio.gather(*map(put, range(start, start + 100)))
asyncio.run(go())
assert all(store.get(n.to_bytes(16, "little")) for n in range(3000))
print(store.complaint())
print(store.complaint())
store.close()
"""


@pytest.mark.skipif(os.name != "posix", reason="limits on the size of a file are those of POSIX")
def test_a_disk_that_fills_up_costs_no_answer(tmp_path: Path) -> None:
    """The file cannot grow any more: one warning, every answer is there, and the file is whole."""
    path = tmp_path / "store.sqlite"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, again = done.stdout.splitlines()
    assert "cannot be written" in said
    assert "in memory only" in said
    assert again == "None"
    assert asked(path, "PRAGMA integrity_check") == "ok"
    assert 0 < stored(path) < 3000


def test_a_folder_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    """A store whose file cannot be made or changed says so, and answers from memory."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        folder = Path("/proc/self/fd")  # whoever may write everywhere may not write here
        if not folder.exists():
            pytest.skip("this user may write everywhere")
    store = Store(folder / "store.sqlite")
    put(store, 1)
    assert store.get(key(1)) == as_cached(ANSWER)
    assert "in memory only" in (store.complaint() or "")
    store.close()


def test_on_a_network_file_system_there_is_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store says that it is slower, works, and two share it all the same; a file that had a log is changed."""
    path = tmp_path / "store.sqlite"
    Store(path).close()
    monkeypatch.setattr(schema, "is_remote", lambda path: True)
    one, other = Store(path), Store(path)
    assert "no write-ahead log" in (one.complaint() or "")
    for n in range(20):
        put(one, f"one {n}")
        put(other, f"other {n}")
        assert other.get(key(f"one {n}")) == one.get(key(f"other {n}")) == as_cached(ANSWER)
    assert asked(path, "PRAGMA journal_mode") == "delete"
    assert not path.with_name("store.sqlite-wal").exists()
    assert one.complaint() is None
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("folder", "is_remote"),
    [("/home/ann", True), ("/home/bob", False), ("/data/with space/x", True), ("/tmp", False), ("/homes", False)],
)
def test_a_network_file_system_is_known_by_its_mount(folder: str, is_remote: bool) -> None:
    """The innermost mount counts."""
    if os.name == "nt":
        pytest.skip("mounts are listed on Linux")
    mounts = "/dev/a / ext4 rw 0 0\nhost:/h /home nfs4 rw 0 0\n/dev/b /home/bob xfs rw 0 0\n//s/x /data/with\\040space cifs rw 0 0\n"
    assert place.is_remote(Path(folder) / "store.sqlite", mounts) is is_remote


def test_one_damaged_answer_is_asked_again_and_the_store_goes_on(server: ChatServer, lab: Lab) -> None:
    """It is written over, and nothing is said."""
    moa.run("Why?", pipeline="single")
    path = Path(os.environ["MOA_NB_HOME"]) / "store.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE blocks SET data = x'ff00'")
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
async def ask(n):
    answer = await moa.arun(f"question {n}", pipeline="single")
    with open("told", "ab", buffering=0) as told:
        told.write(b".")
    return answer
async def all():
    answers = await asyncio.gather(*map(ask, range(start, end)))
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
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return json.loads(out)


def test_two_processes_share_a_store(server: ChatServer) -> None:
    """Both begin at once on a fresh folder, write side by side, and a third finds everything."""
    processes = [client(server.base_url, start, start + 60) for start in (0, 60)]
    assert [len(ended(process)) for process in processes] == [60, 60]
    assert ended(client(server.base_url, 0, 120)) == [True] * 120
    assert server.count() == 120


def test_a_killed_process_asks_only_what_was_not_committed() -> None:
    """Killed in the middle of 200 calls: what it was told is in the store and not asked again, the rest is asked once."""
    path = Path(os.environ["MOA_NB_HOME"]) / "store.sqlite"
    with ChatServer() as server:
        server.on("*", *[Reply("an answer", delay=0.01)] * 180, Reply.hanging())
        process = client(server.base_url, 0, 200)
        told = Path("told")
        assert server.wait_until(lambda: server.count() > 90 and told.exists() and told.stat().st_size, seconds=60)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        server.on("*", "an answer")
        committed = stored(path)
        assert committed < 200
        assert 0 < told.stat().st_size <= committed
        assert asked(path, "PRAGMA integrity_check") == "ok"
        for _ in range(3):  # whoever comes now is served after all that the killed process sent
            urlopen(f"{server.base_url}/models").close()
        assert server.wait_until(lambda: server.in_flight == 0)
        server.clear()
        cached = ended(client(server.base_url, 0, 200))
        assert cached.count(True) == committed
        assert server.count() == 200 - committed


WRITER = """
import asyncio, os, sys
from pathlib import Path
from moa_nb.chat import Completion
from moa_nb.store import Store, index
index.TAIL = 64
store = Store(Path(sys.argv[1]))
async def keep(numbers):
    for n in numbers:
        await store.put(n.to_bytes(16, "big")[::-1], Completion(f"answer {n} " * 50, "m"), "lab:" + "ab"[n % 2])
        os.write(1, b"%d\\n" % n)
async def all():
    numbers = iter(range(10**6))
    await asyncio.gather(*(keep(numbers) for _ in range(32)))
asyncio.run(all())
"""


@pytest.mark.parametrize("told", [1, 300, 2000])
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path, told: int) -> None:
    """Killed while it commits and sorts in: the file is whole and has everything that was said to be kept."""
    path = tmp_path / "store.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(told)]
    process.kill()
    lines += process.communicate()[0].splitlines(keepends=True)
    numbers = [int(line) for line in lines if line.endswith("\n")]
    assert asked(path, "PRAGMA integrity_check") == "ok"
    store = Store(path)
    found = [store.get(n.to_bytes(16, "big")[::-1]) for n in numbers]
    assert [one.text if one else None for one in found] == [f"answer {n} " * 50 for n in numbers]
    assert store.complaint() is None
    store.close()


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
    put(store, 1)
    assert stored(tmp_path / "store.sqlite") == 1
    store.close()


# Versions ---------------------------------------------------------------------------------------

VERSION_ONE = """
CREATE TABLE completions (key BLOB NOT NULL UNIQUE, value BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE runs (
    id TEXT PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, pipeline TEXT NOT NULL, state TEXT NOT NULL,
    title TEXT NOT NULL, calls INTEGER NOT NULL, cached INTEGER NOT NULL, failed INTEGER NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL, saved REAL, seconds REAL NOT NULL, record BLOB
);
CREATE INDEX runs_at ON runs (at);
CREATE TABLE ledger (
    run TEXT NOT NULL, at REAL NOT NULL, model TEXT NOT NULL, calls INTEGER NOT NULL, cached INTEGER NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL, saved REAL, unpriced INTEGER NOT NULL
);
CREATE INDEX ledger_run ON ledger (run);
PRAGMA user_version=1;
"""


def version_one(path: Path, n: int) -> None:
    """Make a store as the first version did: ``n`` completions, one of them damaged, and a run."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(VERSION_ONE)
    for number in range(n):
        text = f"answer {number} " * (100 if number % 2 else 1)
        fields = [text, f"m{number % 3}", "stop", [10, 5, 2, None, 1, False], 0.25, 1.5, None, None]
        value = json.dumps(fields).encode()
        value = zlib.compress(value, 1) if len(value) >= 600 else value
        connection.execute("INSERT INTO completions VALUES (?, ?, ?)", (key(number), value, 1000.0 + number))
    connection.execute("INSERT INTO completions VALUES (?, ?, ?)", (key("damaged"), b"\xff", 1000.0))
    run = ("r1", 86400.0 * 365, "cell", "moa", "done", "Why?", 4, 1, 0, 10, 5, 0.5, 0.0, 1.5)
    connection.execute(f"INSERT INTO runs VALUES ({','.join('?' * 15)})", (*run, zlib.compress(b'{"text": "x"}')))
    connection.execute("INSERT INTO ledger VALUES ('r1', ?, 'lab:a', 4, 1, 10, 5, 0.5, NULL, 0)", (86400.0 * 365,))
    connection.commit()
    connection.close()


def test_an_older_file_is_migrated(tmp_path: Path) -> None:
    """Its completions, runs and ledger are all there, in place; what was damaged is left behind."""
    path = tmp_path / "store.sqlite"
    version_one(path, 2500)
    store = Store(path)
    for number in range(2500):
        known = store.get(key(number))
        assert known is not None
        assert known.text == f"answer {number} " * (100 if number % 2 else 1)
        assert (known.model, known.cost, known.cached) == (f"m{number % 3}", 0.25, True)
    assert store.get(key("damaged")) is None
    assert [(run.id, run.calls) for run in store.runs()] == [("r1", 4)]
    assert store.run_record("r1") == {"text": "x"}
    (row,) = store.costs()
    assert (row.pipeline, row.model, row.calls, row.cost, row.saved) == ("moa", "lab:a", 4, 0.5, 0.0)
    assert store.complaint() is None
    assert asked(path, "PRAGMA user_version") == schema.VERSION
    assert asked(
        path, "SELECT GROUP_CONCAT(name) FROM (SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1)"
    ) == ("batches,blocks,ledger,marks,places,questions,recipes,runs,turns,versions")
    store.close()


def test_a_file_of_version_two_is_migrated(tmp_path: Path) -> None:
    """Its answers and runs stay where they are; runs may go on now, and have recipes."""
    path = tmp_path / "store.sqlite"
    store = Store(path)
    put(store, *range(20))
    run = RunRow("r2", time.time(), "cell", "moa", "done", "Why?", 4, 1, 0, 10, 5, 0.5, 0.0, 1.5)
    store.add_run(run, [LedgerRow("lab:a", 4, 1, 10, 5, 0.5, 0.0, 0)], {"text": "x"})
    store.close()
    connection = sqlite3.connect(path)
    for statement in (
        *(f"DROP TABLE {name}" for name in ("recipes", "questions", "batches", "turns", "versions")),
        "ALTER TABLE runs DROP COLUMN process",
        "PRAGMA user_version=2",
    ):
        connection.execute(statement)
    connection.commit()
    connection.close()
    store = Store(path)
    assert all(store.get(key(number)) is not None for number in range(20))
    assert store.runs() == [run]
    assert store.run_record("r2") == {"text": "x"}
    store.add_run(replace(run, id="r3", state="running"), [], None)
    store.keep_recipe("r3", {"version": "1"})
    assert (store.recipe("r3"), store.recipe("r2")) == ({"version": "1"}, None)
    assert {run.id: run.state for run in store.runs()} == {"r2": "done", "r3": "running"}
    assert store.complaint() is None
    store.close()
    assert asked(path, "PRAGMA user_version") == schema.VERSION


def test_many_processes_migrate_one_file(server: ChatServer) -> None:
    """Two kernels may meet the older file at the same moment."""
    path = Path(os.environ["MOA_NB_HOME"]) / "store.sqlite"
    version_one(path, 2000)
    processes = [client(server.base_url, start, start + 20) for start in (0, 20)]
    assert [len(ended(process)) for process in processes] == [20, 20]
    assert stored(path) == 2040


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it or nothing: the older file is as it was, and the session goes on in memory."""
    path = tmp_path / "store.sqlite"
    version_one(path, 50)

    def fail(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(schema, "from_version_one", fail)
    store = Store(path)
    put(store, 1)
    assert "disk full" in (store.complaint() or "")
    store.close()
    assert asked(path, "SELECT COUNT(*) FROM completions") == 51
    assert asked(path, "PRAGMA user_version") == 1


def test_versions_of_templates_are_forgotten_too(tmp_path: Path) -> None:
    """Those that were last kept before a time are gone, named or not; one that was kept again since stays."""
    store = Store(tmp_path / "store.sqlite")
    for source in ("old", "kept again", "new"):
        store.keep_version("here", "moa", {"propose": source}, source)
    store._do(lambda connection: connection.execute("UPDATE versions SET at = at - 90000 WHERE name != 'new'"))
    store.keep_version("here", "moa", {"propose": "kept again"})
    assert store._do(lambda connection: versions.delete_before(connection, time.time() - 86_400)) == 1
    assert [version.name for version in store.versions("here", "moa")] == ["kept again", "new"]
    store.close()


def test_of_two_that_set_a_damaged_file_aside_the_second_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone as soon as it was looked at; and a new file's log is not taken along."""
    path, look, move = tmp_path / "store.sqlite", place.inode, Path.replace
    log = path.with_name("store.sqlite-wal")
    damaged(path)
    found = place.inode(path)
    with monkeypatch.context() as other:
        other.setattr(place, "inode", lambda path: (look(path), move(path, tmp_path / "aside"))[0])
        assert place.set_aside(path, found) is None
    damaged(path)

    def moved(self: Path, target: Path) -> Path:
        done = move(self, target)
        if self == path:
            log.write_text("of a new file")
        return done

    monkeypatch.setattr(Path, "replace", moved)
    assert place.set_aside(path, place.inode(path)) is not None
    assert log.read_text() == "of a new file"


def test_an_event_that_is_waited_for_is_that_of_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may note something while the writer of the first one's note is being started."""
    store = Store(tmp_path / "store.sqlite")
    start, waited_for = store._start, list[Any]()

    def interrupted() -> Any:
        if not waited_for:
            waited_for.append(store._noted)
            store._note(lambda _: None)
        return start()

    monkeypatch.setattr(store, "_start", interrupted)
    store._note(lambda _: None)
    store.close()
    assert all(event is None or event.is_set() for event in waited_for)


def test_what_is_in_memory_is_looked_through_while_more_comes() -> None:
    """The engine's thread goes on adding."""
    kept = memory.Memory()

    class Adding(memory.Kept):
        @property
        def model(self) -> str:  # type: ignore[override]  # it does something besides
            kept.keep(os.urandom(16), ANSWER, "lab:z")
            return "lab:a"

    kept[bytes(16)] = Adding(ANSWER, "", 1.0)
    kept[b"x" * 16] = Adding(ANSWER, "", 1.0)
    assert [one.completions for one in kept.held()] == [2]
    assert kept.forget(before=None, model="lab:a") == 2


def test_a_name_of_a_version_is_one_version_s_alone_whoever_gives_it(tmp_path: Path) -> None:
    """Another process cannot give it to another version in between."""
    (one, _), (other, _) = (schema.connect(tmp_path / "store.sqlite") for _ in range(2))
    other.execute("PRAGMA busy_timeout=0")
    refused: list[str] = []

    def between(sql: str) -> None:
        if "INSERT INTO versions" in sql and not refused:
            with pytest.raises(sqlite3.OperationalError) as said:
                versions.keep(other, "here", "moa", {"propose": "two"}, "best")
            refused.append(str(said.value))

    one.set_trace_callback(between)
    versions.keep(one, "here", "moa", {"propose": "one"}, "best")
    one.set_trace_callback(None)
    assert refused == ["database is locked"]
    assert [version.name for version in versions.listed(other, "here", "moa")] == ["best"]
    one.close()
    other.close()


def test_an_interrupt_at_the_beginning_of_a_transaction_ends_it() -> None:
    """Else every other writer would wait in vain."""

    class Interrupted(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *values)
            if sql.startswith("BEGIN"):
                raise KeyboardInterrupt
            return cursor

    connection = sqlite3.connect(":memory:", factory=Interrupted, isolation_level=None)
    with pytest.raises(KeyboardInterrupt), schema.transaction(connection):
        pass
    assert not connection.in_transaction
    connection.close()
