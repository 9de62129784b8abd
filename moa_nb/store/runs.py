"""Runs: one row a run, one ledger row for each of its models."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

__all__ = ["LedgerRow", "RunRow", "costs", "delete", "insert", "read", "record"]


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
    """``done``, ``stopped`` or ``failed``."""
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


_INSERT_RUN = f"INSERT OR REPLACE INTO runs VALUES ({','.join('?' * 15)})"  # noqa: S608 - marks only
_INSERT_LEDGER = f"INSERT INTO ledger VALUES ({','.join('?' * 10)})"  # noqa: S608 - marks only


def insert(
    connection: sqlite3.Connection, run: RunRow, ledger: Iterable[LedgerRow], record: dict[str, Any] | None
) -> None:
    """Return nothing; write a run, its ledger rows and its record in one transaction."""
    packed = None if record is None else zlib.compress(_dumps(record), 6)
    connection.execute("BEGIN IMMEDIATE")
    try:
        values = [getattr(run, name) for name in RunRow.__slots__]
        values = [value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values]
        connection.execute(_INSERT_RUN, [*values, packed])
        connection.execute("DELETE FROM ledger WHERE run = ?", [run.id])
        connection.executemany(
            _INSERT_LEDGER,
            [[run.id, run.at, *(getattr(row, name) for name in LedgerRow.__slots__)] for row in ledger],
        )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _dumps(record: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(record, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Half of a surrogate pair, from a cell with broken text.
        return json.dumps(record, default=str, ensure_ascii=False).encode("utf-8", "replace")


def read(connection: sqlite3.Connection, limit: int) -> list[RunRow]:
    """Return the latest runs, newest first."""
    columns = ",".join(RunRow.__slots__)
    rows = connection.execute(f"SELECT {columns} FROM runs ORDER BY at DESC LIMIT ?", [limit])  # noqa: S608 - own names
    return [RunRow(*row) for row in rows]


def record(connection: sqlite3.Connection, run_id: str) -> dict[str, Any] | None:
    """Return a run's record, or ``None`` if there is no such run or it has none."""
    found = connection.execute("SELECT record FROM runs WHERE id = ?", [run_id]).fetchone()
    if not found or found[0] is None:
        return None
    value: dict[str, Any] = orjson.loads(zlib.decompress(found[0]))
    return value


def delete(connection: sqlite3.Connection, run_id: str) -> bool:
    """Return whether there was such a run; it and its ledger rows are gone."""
    connection.execute("DELETE FROM ledger WHERE run = ?", [run_id])
    return connection.execute("DELETE FROM runs WHERE id = ?", [run_id]).rowcount > 0


def costs(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return (day, pipeline, model, calls, cached, prompt, completion, cost, saved, unpriced), newest first."""
    return connection.execute(
        "SELECT date(l.at, 'unixepoch', 'localtime') AS day, r.pipeline, l.model, SUM(l.calls), SUM(l.cached),"
        " SUM(l.prompt_tokens), SUM(l.completion_tokens), SUM(l.cost), SUM(l.saved), SUM(l.unpriced)"
        " FROM ledger l JOIN runs r ON r.id = l.run GROUP BY day, r.pipeline, l.model ORDER BY day DESC, 8 DESC",
    ).fetchall()
