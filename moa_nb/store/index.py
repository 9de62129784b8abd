"""Where each completion is: the keys that were added lately in memory, all others in a table.

A key is a digest, so that keys which are added together belong on as many pages of a sorted table. They are
therefore appended to their block and sorted in only when there are many of them: a log-structured merge with two
levels (O'Neil et al. 1996). A process reads the keys that are not sorted in yet when it first looks for one, and
afterwards those that it or others have added since, so that what it holds stays small however large the store is.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from typing import Any

from moa_nb.chat import Completion
from moa_nb.store.completions import completion, unpack

__all__ = ["KEY", "TAIL", "Index", "prefix", "prefixes", "sort_in", "unsorted"]

KEY = 16
"""Bytes of a key."""

TAIL = 16384
"""Keys that are sorted in together."""

_UNPACKED = 64
"""Blocks kept unpacked: a run that is repeated looks for neighbours one after another."""

_LOOK = (
    "SELECT changes, indexed, (SELECT MAX(id) FROM blocks), (SELECT block FROM places WHERE key = ?) FROM marks LIMIT 1"
)


def prefix(key: bytes) -> int:
    """Return what a key is sorted by: its first half. The whole key is compared in its block."""
    return int.from_bytes(key[:8], "little", signed=True)


def prefixes(keys: bytes) -> tuple[int, ...]:
    """Return what the keys of a block are sorted by.

    >>> prefixes(bytes(16) + bytes([7]) + bytes(15))
    (0, 7)
    """
    found: tuple[int, ...] = struct.unpack(f"<{len(keys) // 8}q", keys)[::2]
    return found


def split(keys: bytes) -> Iterator[bytes]:
    """Return the keys of a block one by one."""
    return (keys[start : start + KEY] for start in range(0, len(keys), KEY))


class Index:
    """Finds completions; one connection's, used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._changes: int | None = None
        """How often something was deleted, when this was last looked at."""
        self._indexed = self._seen = 0
        self._tail: dict[int, int] = {}
        self._unpacked: dict[int, dict[bytes, Any]] = {}

    def find(self, key: bytes) -> Completion | None:
        """Return the completion of a key; ``None`` if there is none that can be read.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        place = prefix(key)
        changes, indexed, newest, block = self._connection.execute(_LOOK, (place,)).fetchone()
        if changes != self._changes:
            self._changes, self._seen = changes, indexed
            self._tail.clear()
            self._unpacked.clear()
        if indexed != self._indexed:
            self._indexed = indexed
            self._tail = {known: at for known, at in self._tail.items() if at > indexed}
        if newest is not None and newest > self._seen:
            self._catch_up()
        block = self._tail.get(place, block)
        if block is None:
            return None
        records = self._unpacked.pop(block, None)
        if records is None:
            records = self._unpack(block)
        self._unpacked[block] = records  # the last one used is the last one to go
        if len(self._unpacked) > _UNPACKED:
            del self._unpacked[next(iter(self._unpacked))]
        record = records.get(key)
        try:
            return None if record is None else completion(record, key)
        except ValueError:
            return None  # one damaged answer: it is asked again

    def _catch_up(self) -> None:
        for block, keys in self._connection.execute(
            "SELECT id, keys FROM blocks WHERE id > ? ORDER BY id", (self._seen,)
        ):
            self._tail.update(dict.fromkeys(prefixes(keys), block))
            self._seen = block

    def _unpack(self, block: int) -> dict[bytes, Any]:
        row = self._connection.execute("SELECT keys, data FROM blocks WHERE id = ?", (block,)).fetchone()
        if row is None:
            return {}
        try:
            return dict(zip(split(row[0]), unpack(row[1]), strict=True))
        except ValueError:
            return {}


def unsorted(connection: sqlite3.Connection) -> int:
    """Return how many keys are not sorted in yet."""
    found = connection.execute("SELECT SUM(n) FROM blocks WHERE id > (SELECT indexed FROM marks)").fetchone()[0]
    return int(found or 0)


def sort_in(connection: sqlite3.Connection) -> int:
    """Return how many keys, ``TAIL`` or the few that a last block has beyond, were sorted in. To be called in a transaction."""
    (indexed,) = connection.execute("SELECT indexed FROM marks").fetchone()
    places: dict[int, int] = {}
    for block, keys in connection.execute("SELECT id, keys FROM blocks WHERE id > ? ORDER BY id", (indexed,)):
        places.update(dict.fromkeys(prefixes(keys), block))
        indexed = block
        if len(places) >= TAIL:
            break
    connection.executemany("INSERT OR REPLACE INTO places VALUES (?, ?)", sorted(places.items()))
    connection.execute("UPDATE marks SET indexed = ?", (indexed,))
    return len(places)
