"""The ledger: what was spent and what was saved, over all notebooks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["BY", "CostRow", "Savings", "costs", "savings"]

By = Literal["day", "pipeline", "model"]

BY: tuple[By, ...] = ("day", "pipeline", "model")
"""What costs can be grouped by."""

_DAY = 86400


@dataclass(frozen=True, slots=True)
class CostRow:
    """The sums of one group of ledger rows."""

    day: str | None
    """``2025-01-31``, by the clock of the place where it was spent; ``None`` where days are summed up."""
    pipeline: str | None
    model: str | None
    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    """Dollars paid, as far as prices are known."""
    saved: float
    """Dollars that cached answers would have cost, as far as prices are known."""
    saved_tokens: int
    unpriced: int
    """Calls whose price is not known."""


@dataclass(frozen=True, slots=True)
class Savings:
    """What the cache has saved since the ledger began."""

    calls: int
    tokens: int
    dollars: float


def costs(connection: sqlite3.Connection, by: Sequence[By] = BY, days: int | None = None) -> list[CostRow]:
    """Return what was spent, the latest days first, then the most expensive.

    Args:
        connection: the store's.
        by: what makes a group of its own: any of ``BY``.
        days: only those, today included; ``None``: all.
    """
    groups = ", ".join(name if name in by else "NULL" for name in BY)
    since = "" if days is None else time.strftime("%Y-%m-%d", time.localtime(time.time() - (days - 1) * _DAY))
    rows = connection.execute(
        f"SELECT {groups}, SUM(calls), SUM(cached), TOTAL(prompt_tokens), TOTAL(completion_tokens), TOTAL(cost),"  # noqa: S608 - own names
        " TOTAL(saved), SUM(saved_tokens), SUM(unpriced)"
        " FROM ledger WHERE day >= ? GROUP BY 1, 2, 3 ORDER BY 1 DESC, 8 DESC, 2, 3",
        [since],
    )
    return [
        CostRow(day, pipeline, model, calls, cached, int(prompt), int(completion), *rest)
        for day, pipeline, model, calls, cached, prompt, completion, *rest in rows
    ]


def savings(connection: sqlite3.Connection) -> Savings:
    """Return what cached answers would have taken."""
    calls, tokens, dollars = connection.execute(
        "SELECT SUM(cached), SUM(saved_tokens), TOTAL(saved) FROM ledger"
    ).fetchone()
    return Savings(calls or 0, tokens or 0, dollars)
