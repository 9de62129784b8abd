"""Batches that services work through at half the price, so that a new process finds those of an earlier one.

A row is written before a batch is handed in, without the id that only the service can give; a process that is killed in
between leaves it to the next one to look whether there is such a batch. A row is closed when all its answers are kept.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from moa_nb.store.index import KEY

__all__ = ["TABLES", "BatchRow", "add", "close", "get", "give_id", "ids", "under_way"]

TABLES = """
CREATE TABLE batches (
    mark    TEXT PRIMARY KEY,
    at      REAL NOT NULL,
    until   REAL NOT NULL,
    model   TEXT NOT NULL,
    batch   TEXT,
    is_open INTEGER NOT NULL,
    keys    BLOB NOT NULL
);
"""

_FORGOTTEN_SECONDS = 40 * 86_400.0
"""After which no service has the results of a batch."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One batch. Moments are seconds since 1970."""

    mark: str
    """Drawn before it was handed in; stands in its metadata where the service keeps some."""
    at: float
    """When it was about to be handed in."""
    until: float
    """By when the service has it, if it ever got it."""
    model: str
    """``provider:model``."""
    batch: str | None
    """Its id at the service; ``None`` while that is not known."""
    keys: tuple[tuple[bytes, bytes], ...]
    """Of each request: the digest of what was sent, which is its ``custom_id``, and of what was asked."""


def add(connection: sqlite3.Connection, row: BatchRow) -> bool:
    """Return whether a row is on disk; it is not where another process has one of its requests under way."""
    from moa_nb.store.schema import transaction  # which knows the tables of this module

    with _lasting(connection), transaction(connection):
        known = {sent for other in under_way(connection) for sent, _ in other.keys}
        if not known.isdisjoint(sent for sent, _ in row.keys):
            return False
        connection.execute("DELETE FROM batches WHERE at < ?", [row.at - _FORGOTTEN_SECONDS])
        keys = b"".join(sent + asked for sent, asked in row.keys)
        connection.execute(
            "INSERT INTO batches VALUES (?, ?, ?, ?, ?, 1, ?)",
            [row.mark, row.at, row.until, row.model, row.batch, keys],
        )
    return True


def give_id(connection: sqlite3.Connection, mark: str, batch: str) -> bool:
    """Return that a batch's id is on disk."""
    with _lasting(connection):
        connection.execute("UPDATE batches SET batch = ? WHERE mark = ?", [batch, mark])
    return True


def close(connection: sqlite3.Connection, mark: str) -> bool:
    """Return that a batch is closed: nobody will look for it again. Its id is kept, so that it is known as done."""
    with _lasting(connection):
        connection.execute("UPDATE batches SET is_open = 0, keys = x'' WHERE mark = ?", [mark])
    return True


def get(connection: sqlite3.Connection, mark: str) -> BatchRow | None:
    """Return an open batch; ``None`` where it is closed."""
    return next((row for row in under_way(connection) if row.mark == mark), None)


def under_way(connection: sqlite3.Connection) -> list[BatchRow]:
    """Return the open batches, oldest first."""
    found = connection.execute("SELECT mark, at, until, model, batch, keys FROM batches WHERE is_open ORDER BY at")
    return [
        BatchRow(mark, at, until, model, batch, tuple(_pairs(keys))) for mark, at, until, model, batch, keys in found
    ]


def ids(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the ids of all batches that were ever known, open and closed."""
    return frozenset(batch for (batch,) in connection.execute("SELECT batch FROM batches WHERE batch IS NOT NULL"))


def _pairs(keys: bytes) -> Iterator[tuple[bytes, bytes]]:
    for start in range(0, len(keys), 2 * KEY):
        yield keys[start : start + KEY], keys[start + KEY : start + 2 * KEY]


@contextlib.contextmanager
def _lasting(connection: sqlite3.Connection) -> Iterator[None]:
    """Return a block whose writes survive a power cut too: they are about money that is spent."""
    (before,) = connection.execute("PRAGMA synchronous").fetchone()
    connection.execute("PRAGMA synchronous=FULL")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA synchronous={before}")
