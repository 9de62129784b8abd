"""How much is kept, and how it is deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from moa_nb.store.completions import repack, unpack
from moa_nb.store.index import prefix, split
from moa_nb.store.schema import transaction

__all__ = ["Cleared", "Held", "Holding", "delete_keys", "delete_where", "held", "shrink", "size"]

_BUSY = 2000
"""Milliseconds to wait for other kernels before the space is left to be used again."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What is kept of one model."""

    model: str
    """``provider:model`` as asked; from a store of an earlier version, the model that the service named."""
    completions: int
    oldest: float
    """Seconds since 1970."""
    bytes: int
    """Its completions alone, as they are compressed."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept, and where."""

    path: Path | None
    """``None``: in the memory of this process."""
    bytes: int
    """On disk, with runs, ledger and log."""
    models: tuple[Holding, ...]
    """The largest first."""

    @property
    def completions(self) -> int:
        """Of all models; one that was asked again counts each time."""
        return sum(one.completions for one in self.models)

    @property
    def oldest(self) -> float | None:
        """Seconds since 1970; ``None`` where there is nothing."""
        return min((one.oldest for one in self.models), default=None)


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was deleted."""

    completions: int
    bytes: int
    """By which the file is smaller now; the rest of what was deleted is written over by what comes."""


def size(path: Path) -> int:
    """Return the bytes of the store on disk, its log included."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def held(connection: sqlite3.Connection) -> tuple[Holding, ...]:
    """Return what is kept of each model, the largest first."""
    rows = connection.execute(
        "SELECT model, SUM(n), MIN(at), SUM(LENGTH(data)) FROM blocks GROUP BY model ORDER BY 4 DESC"
    )
    return tuple(Holding(*row) for row in rows)


def delete_where(connection: sqlite3.Connection, *, before: float | None = None, model: str | None = None) -> int:
    """Return how many completions were deleted: all, those kept before a time, those of a model, or those of both."""
    conditions = {"at < ?": before, "model = ?": model}
    values = [value for value in conditions.values() if value is not None]
    where = " AND ".join(["1", *(condition for condition, value in conditions.items() if value is not None)])
    with transaction(connection):
        (n,) = connection.execute(f"SELECT SUM(n) FROM blocks WHERE {where}", values).fetchone()  # noqa: S608 - own names
        if n and values:
            connection.execute(f"DELETE FROM places WHERE block IN (SELECT id FROM blocks WHERE {where})", values)  # noqa: S608 - own names
            connection.execute(f"DELETE FROM blocks WHERE {where}", values)  # noqa: S608 - own names
        elif n:
            connection.execute("DELETE FROM places")
            connection.execute("DELETE FROM blocks")
        if n:
            _changed(connection)
    return n or 0


def delete_keys(connection: sqlite3.Connection, keys: Collection[bytes]) -> int:
    """Return how many of these completions were deleted; their neighbours stay."""
    n = 0
    with transaction(connection):
        touched = [
            (block, known)
            for block, known in connection.execute("SELECT id, keys FROM blocks")
            if not keys_of(known).isdisjoint(keys)
        ]
        for block, known in touched:
            n += _rewrite(connection, block, known, keys)
        if touched:
            _changed(connection)
    return n


def _rewrite(connection: sqlite3.Connection, block: int, known: bytes, keys: Collection[bytes]) -> int:
    names = list(split(known))
    gone = [key for key in names if key in keys]
    connection.executemany("DELETE FROM places WHERE key = ? AND block = ?", [(prefix(key), block) for key in gone])
    (data,) = connection.execute("SELECT data FROM blocks WHERE id = ?", [block]).fetchone()
    try:
        kept = [(key, one) for key, one in zip(names, unpack(data), strict=True) if key not in keys]
    except ValueError:
        kept = []  # a damaged block is no loss
    if kept:
        connection.execute(
            "UPDATE blocks SET n = ?, keys = ?, data = ? WHERE id = ?",
            [len(kept), b"".join(key for key, _ in kept), repack([one for _, one in kept]), block],
        )
    else:
        connection.execute("DELETE FROM blocks WHERE id = ?", [block])
    return len(gone)


def keys_of(known: bytes) -> set[bytes]:
    """Return the keys of a block."""
    return set(split(known))


def shrink(connection: sqlite3.Connection) -> None:
    """Return nothing; give the space of what was deleted back to the disk, where it is worth it and nobody is in the way."""
    (free,), (pages,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count"))
    connection.execute(f"PRAGMA busy_timeout={_BUSY}")
    try:
        if free * 4 > pages:
            connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        pass  # other kernels are at work, or the disk has no room for the copy
    finally:
        connection.execute("PRAGMA busy_timeout=30000")


def _changed(connection: sqlite3.Connection) -> None:
    """Return nothing; let every process forget where things were."""
    connection.execute(
        "UPDATE marks SET changes = changes + 1, indexed = MIN(indexed, (SELECT IFNULL(MAX(id), 0) FROM blocks))"
    )
