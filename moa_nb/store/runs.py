"""Runs: one row a run, one ledger row for each of its models."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from moa_nb.store import recipes
from moa_nb.store.index import split
from moa_nb.store.processes import may_live, this_process
from moa_nb.store.schema import transaction

__all__ = ["LedgerRow", "RunRow", "delete", "delete_before", "insert", "one", "only_used_by", "read", "record"]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What one model took in one run."""

    model: str
    calls: int
    cached: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    """Dollars paid; ``None`` when no price is known for any call."""
    saved: float | None
    """Dollars that cached answers would have cost."""
    unpriced: int
    """Calls whose price is not known."""
    saved_tokens: int = 0
    """Tokens, of prompts and completions together, that cached answers once took."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as the store lists it."""

    id: str
    at: float
    """Seconds since 1970."""
    kind: str
    """``cell``, ``text`` or ``frame``."""
    pipeline: str
    state: str
    """``running``, ``done``, ``stopped`` or ``failed``; ``interrupted`` where the process that ran it is gone."""
    title: str
    """The beginning of what was asked."""
    calls: int
    cached: int
    failed: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    saved: float | None
    seconds: float


_COLUMNS = ",".join(RunRow.__slots__)
_INSERT_RUN = f"INSERT OR REPLACE INTO runs ({_COLUMNS}, keys, record, process) VALUES ({','.join('?' * 17)})"  # noqa: S608 - own names
_INSERT_LEDGER = f"INSERT INTO ledger VALUES ({','.join('?' * 12)})"  # noqa: S608 - marks only


def insert(
    connection: sqlite3.Connection,
    run: RunRow,
    ledger: Iterable[LedgerRow],
    record: dict[str, Any] | None,
    keys: bytes | None = None,
) -> None:
    """Return nothing; write a run, its ledger rows and its record in one transaction, over an earlier state of it.

    One that goes on is written under the mark of this process.
    """
    packed = None if record is None else zlib.compress(_dumps(record), 6)
    values = [getattr(run, name) for name in RunRow.__slots__]
    values = [value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values]
    process = this_process() if run.state == "running" else None
    day = time.strftime("%Y-%m-%d", time.localtime(run.at))
    rows = [[run.id, day, run.pipeline, *(getattr(row, name) for name in LedgerRow.__slots__)] for row in ledger]
    with transaction(connection):
        connection.execute(_INSERT_RUN, [*values, keys, packed, process])
        connection.execute("DELETE FROM ledger WHERE run = ?", [run.id])
        connection.executemany(_INSERT_LEDGER, rows)


def _dumps(record: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(record, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Half of a surrogate pair, from a cell with broken text.
        return json.dumps(record, default=str, ensure_ascii=False).encode("utf-8", "replace")


def read(connection: sqlite3.Connection, limit: int) -> list[RunRow]:
    """Return the latest runs, newest first."""
    rows = connection.execute(f"SELECT process, {_COLUMNS} FROM runs ORDER BY at DESC LIMIT ?", [limit])  # noqa: S608 - own names
    return [_listed(*row) for row in rows]


def one(connection: sqlite3.Connection, run_id: str) -> RunRow | None:
    """Return a run as it is listed; ``None`` if there is no such run."""
    found = connection.execute(f"SELECT process, {_COLUMNS} FROM runs WHERE id = ?", [run_id]).fetchone()  # noqa: S608 - own names
    return None if found is None else _listed(*found)


def _listed(process: str | None, *values: Any) -> RunRow:
    run = RunRow(*values)
    if run.state != "running" or may_live(process, run.at):
        return run
    return replace(run, state="interrupted")


def record(connection: sqlite3.Connection, run_id: str) -> dict[str, Any] | None:
    """Return a run's record, or ``None`` if there is no such run or it has none."""
    found = connection.execute("SELECT record FROM runs WHERE id = ?", [run_id]).fetchone()
    if not found or found[0] is None:
        return None
    value: dict[str, Any] = orjson.loads(zlib.decompress(found[0]))
    return value


def only_used_by(connection: sqlite3.Connection, run_id: str) -> set[bytes] | None:
    """Return the keys of the answers that this run used and no other listed one; ``None`` where that is not known."""
    found = connection.execute("SELECT keys FROM runs WHERE id = ?", [run_id]).fetchone()
    if not found or found[0] is None:
        return None
    own = set(split(found[0]))
    for (keys,) in connection.execute("SELECT keys FROM runs WHERE id <> ? AND keys IS NOT NULL", [run_id]):
        own.difference_update(split(keys))
    return own


def delete(connection: sqlite3.Connection, run_id: str) -> bool:
    """Return whether there was such a run; it, its record and its recipe are gone. What it cost stays in the ledger."""
    with transaction(connection):
        n = connection.execute("DELETE FROM runs WHERE id = ?", [run_id]).rowcount
        recipes.delete_unlisted(connection)
    return n > 0


def delete_before(connection: sqlite3.Connection, at: float) -> int:
    """Return how many runs that began before a time were deleted, as ``delete`` does."""
    with transaction(connection):
        n = connection.execute("DELETE FROM runs WHERE at < ?", [at]).rowcount
        recipes.delete_unlisted(connection)
    return n
