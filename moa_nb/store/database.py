"""The store: reads on the caller's thread, writes by one thread that commits in groups."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from moa_nb.chat import Completion
from moa_nb.store import runs, schema
from moa_nb.store.completions import pack, unpack

__all__ = ["Store", "StoreWarning"]

_T = TypeVar("_T")

_GROUP = 512
"""The most completions of one commit."""


class StoreWarning(UserWarning):
    """The store cannot keep what it should; the run goes on without."""


class _Write(NamedTuple):
    key: bytes
    completion: Completion
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class Store:
    """Completions and runs, on disk or (``path=None``) in memory for this process alone.

    Whatever goes wrong with the file is said once (see ``complaint``), and the run goes on with what
    is kept in memory: a full disk must not cost an answer that was paid for.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._broken = False
        self._complaint: str | None = None
        self._memory: dict[bytes, Completion] = {}
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        try:
            self._connection, wal = schema.connect(path)
        except (sqlite3.Error, OSError) as error:
            self._warn(f"the store {path} cannot be used ({error}); this session keeps its answers in memory only")
            return
        if not wal:
            self._warn(f"the file system of {path} has no write-ahead log; the store works, but slower")
            self._broken = False

    def _warn(self, text: str) -> None:
        # Kept, not issued: this may be the writer's thread, and threads print into the wrong cell.
        self._broken = True
        self._complaint = text

    def complaint(self) -> str | None:
        """Return what went wrong since the last time this was asked, in one line; ``None`` if nothing did."""
        text, self._complaint = self._complaint, None
        return text

    # Completions ------------------------------------------------------------------------------

    def get(self, key: bytes) -> Completion | None:
        """Return the completion of a key, marked as cached; ``None`` if there is none."""
        found = self._memory.get(key)
        if found is not None:
            return found
        if self._connection is None:
            return None
        try:
            with self._lock:
                row = self._connection.execute("SELECT value FROM completions WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            if not self._broken:
                self._warn(f"the store {self.path} cannot be read ({error}); what it holds is asked again")
            return None
        try:
            return None if row is None else unpack(row[0])
        except ValueError:
            return None  # one damaged answer: it is asked again and written over

    async def put(self, key: bytes, completion: Completion) -> None:
        """Return once the completion is committed, or kept in memory where nothing can be written."""
        if self._connection is None or self._broken:
            self._memory[key] = _as_cached(completion)
            return
        if self._writer is None:
            self._start()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._writes.put(_Write(key, completion, loop, done))
        await done

    def _start(self) -> None:
        with self._lock:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="moa-nb-store", daemon=True)
                self._writer.start()

    def _write(self) -> None:
        assert self.path is not None
        try:
            connection, _ = schema.connect(self.path)
        except (sqlite3.Error, OSError) as error:
            connection = None
            self._warn(
                f"the store {self.path} cannot be written ({error}); this session keeps its answers in memory only"
            )
        while (first := self._writes.get()) is not None:
            group = [first]
            while len(group) < _GROUP:
                try:
                    following = self._writes.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._writes.put(None)
                    break
                group.append(following)
            self._commit(connection, group)
        if connection is not None:
            connection.close()

    def _commit(self, connection: sqlite3.Connection | None, group: list[_Write]) -> None:
        try:
            if connection is None or self._broken:
                raise sqlite3.OperationalError  # noqa: TRY301 - the one way into memory
            at = time.time()
            values = [part for write in group for part in (write.key, pack(write.completion), at)]
            rows = ",".join(["(?,?,?)"] * len(group))
            connection.execute(f"INSERT OR REPLACE INTO completions (key, value, at) VALUES {rows}", values)  # noqa: S608
        except Exception as error:  # whatever it is, those who wait for this group must be woken
            if not self._broken:
                self._warn(
                    f"the store {self.path} cannot be written ({error}); this session keeps its answers in memory only"
                )
            for write in group:
                self._memory[write.key] = _as_cached(write.completion)
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for write in group:
            by_loop.setdefault(write.loop, []).append(write.done)
        for loop, waiters in by_loop.items():
            try:
                loop.call_soon_threadsafe(_wake, waiters)
            except RuntimeError:
                pass  # the loop is closed: nobody waits there any more

    # Runs -------------------------------------------------------------------------------------

    def add_run(self, run: runs.RunRow, ledger: list[runs.LedgerRow], record: dict[str, Any] | None) -> None:
        """Return nothing; keep a run and what its models took."""
        self._do(lambda connection: runs.insert(connection, run, ledger, record))

    def runs(self, limit: int = 50) -> list[runs.RunRow]:
        """Return the latest runs, newest first."""
        return self._do(lambda connection: runs.read(connection, limit)) or []

    def run_record(self, run_id: str) -> dict[str, Any] | None:
        """Return the record of a run, or ``None``."""
        return self._do(lambda connection: runs.record(connection, run_id))

    def delete_run(self, run_id: str) -> bool:
        """Return whether there was such a run; it is gone."""
        return bool(self._do(lambda connection: runs.delete(connection, run_id)))

    def costs(self) -> list[tuple[Any, ...]]:
        """Return what was spent by day, pipeline and model, newest first."""
        return self._do(runs.costs) or []

    def _do(self, action: Callable[[sqlite3.Connection], _T]) -> _T | None:
        if self._connection is None:
            return None
        try:
            with self._lock:
                return action(self._connection)
        except (sqlite3.Error, OSError) as error:
            if not self._broken:
                self._warn(
                    f"the store {self.path} cannot be used ({error}); this session keeps its answers in memory only"
                )
        except Exception as error:  # a run is worth more than its entry in the list
            self._complaint = f"the store cannot keep this run ({type(error).__name__}: {error})"
        return None

    def close(self) -> None:
        """Return once everything is written and the file is closed."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._writes.put(None)
            writer.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def _as_cached(completion: Completion) -> Completion:
    return replace(completion, cached=True, attempts=0, queued_seconds=0.0, first_token_seconds=None)
