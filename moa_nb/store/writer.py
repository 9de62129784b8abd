"""The thread that commits completions, all that have come since its last commit together, and what nobody waits for."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from moa_nb.chat import Completion
from moa_nb.store import index, schema
from moa_nb.store.completions import blocks, pack

__all__ = ["Note", "Write", "Writer"]

_GROUP = 512
"""The most completions of one commit."""

_BUSY_SECONDS, _GATHER_SECONDS = 0.05, 0.003
"""So soon after a commit others are on their way, and are waited for: taking turns with the engine's thread for each
one costs more than it takes."""


class Write(NamedTuple):
    """One completion on its way to the disk."""

    key: bytes
    completion: Completion
    model: str
    loop: asyncio.AbstractEventLoop
    kept: Callable[[], None]


class Note(NamedTuple):
    """What is written beside the completions, and nobody waits for."""

    write: Callable[[sqlite3.Connection], None]
    """Called on the writer's thread, where it may take its time."""
    over: threading.Event
    """Set when it is written, or cannot be."""


class Writer:
    """Commits what ``put`` is given, then calls each ``kept`` on its loop; notes are written when nobody waits.

    Args:
        path: the store's file.
        failed: told, on the writer's thread, of what could not be committed; those who wait are called all the same.
    """

    def __init__(self, path: Path, failed: Callable[[Exception, Sequence[Write]], None]) -> None:
        self._path, self._failed = path, failed
        self._unsorted = 0
        self._writes: queue.SimpleQueue[Write | Note | None] = queue.SimpleQueue()
        self.put = self._writes.put
        self._thread = threading.Thread(target=self._work, name="moa-nb-store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Return once everything is committed."""
        self._writes.put(None)
        self._thread.join()

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        committed_at = float("-inf")
        while (first := self._writes.get()) is not None:
            if time.monotonic() - committed_at < _BUSY_SECONDS:
                time.sleep(_GATHER_SECONDS)
            group, notes = self._waiting(first)
            try:
                if connection is None:
                    connection, _ = schema.connect(self._path)
                    self._unsorted = index.unsorted(connection)
                if group:
                    commit(connection, group)
            except Exception as error:  # whatever it is, those who wait for this group must be woken
                self._failed(error, group)
            else:
                self._unsorted += len(group)
            _wake(group)
            for note in notes:
                self._write(connection, note)
            committed_at = time.monotonic()
            del first, group, notes  # not held while there is nothing to do
            if connection is not None and self._unsorted >= index.TAIL:
                self._sort_in(connection)
        if connection is not None:
            connection.close()

    def _waiting(self, first: Write | Note) -> tuple[list[Write], list[Note]]:
        """Return the first and what else waits: a group of completions, and the notes among them."""
        group, notes = list[Write](), list[Note]()
        one: Write | Note | None = first
        while one is not None:
            if isinstance(one, Note):
                notes.append(one)
            else:
                group.append(one)
            if len(group) == _GROUP:
                break
            try:
                one = self._writes.get_nowait()
            except queue.Empty:
                break
        if one is None:
            self._writes.put(None)
        return group, notes

    def _write(self, connection: sqlite3.Connection | None, note: Note) -> None:
        try:
            if connection is not None:
                note.write(connection)
        except (sqlite3.Error, OSError) as error:
            self._failed(error, ())
        finally:
            note.over.set()

    def _sort_in(self, connection: sqlite3.Connection) -> None:
        try:
            while self._unsorted >= index.TAIL:
                with schema.transaction(connection):
                    index.sort_in(connection)
                    self._unsorted = index.unsorted(connection)
        except sqlite3.Error as error:
            self._unsorted = 0
            self._failed(error, ())


def commit(connection: sqlite3.Connection, group: Sequence[Write]) -> None:
    """Return once the completions of a group are committed, all of them or none.

    Raises:
        sqlite3.Error: they cannot be written.
    """
    by_model: dict[str, list[tuple[bytes, Completion]]] = {}
    for write in group:
        by_model.setdefault(write.model, []).append((write.key, write.completion))
    at = time.time()
    values: list[object] = []
    for model, items in by_model.items():
        for block in blocks(items):
            keys = b"".join(key for key, _ in block)
            values += (at, model, len(block), keys, pack([one for _, one in block]))
    marks = ",".join(["(?,?,?,?,?)"] * (len(values) // 5))
    connection.execute(f"INSERT INTO blocks (at, model, n, keys, data) VALUES {marks}", values)  # noqa: S608 - marks only


def _wake(group: Sequence[Write]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
    for write in group:
        by_loop.setdefault(write.loop, []).append(write.kept)
    for loop, kept in by_loop.items():
        try:
            loop.call_soon_threadsafe(_call_all, loop, kept)
        except RuntimeError:
            pass  # the loop is closed: nobody waits there any more


def _call_all(loop: asyncio.AbstractEventLoop, kept: Sequence[Callable[[], None]]) -> None:
    for call in kept:
        try:
            call()
        except Exception as error:  # the others of the group wait, too
            loop.call_exception_handler({"message": "what was to follow a commit failed", "exception": error})
