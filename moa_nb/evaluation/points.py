"""Points from verdicts: both orders of a pair settled into a win, a tie or a loss. The only place where that is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.frames.texts import series
from moa_nb.pipeline.verdicts import settle

__all__ = ["points_of", "settled", "table"]

_SWAPPED = {"A": "B", "B": "A", "C": "C"}


def settled(judgements: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each pair that a judge saw: ``row``, ``first``, ``second``, ``judge``, ``points``, ``flipped``, ``orders``.

    ``points`` are of ``first``: 1 for the same winner in both orders, 0.5 for a tie or two winners, 0 for a loss
    (Zheng et al. 2023, arXiv 2306.05685, section 3.4); missing where a verdict could not be read. A pair in one order
    counts as it is: ``orders`` is 1 or 2. ``flipped``: whether the judge chose the same place twice. Pairs of different
    turns are different pairs, where there is a column ``turn``; without a column ``judge`` all are of one.

    Raises:
        SetupError: a column is missing.

    >>> said = pd.DataFrame({"row": [0, 0], "first": ["a", "b"], "second": ["b", "a"], "verdict": ["A", "B"]})
    >>> settled(said)[["first", "second", "points"]].to_numpy().tolist()
    [['a', 'b', 1.0]]
    """
    names = ["row", "first", "second", "judge", *(["turn"] if "turn" in judgements else [])]
    found = judgements if "judge" in judgements else judgements.assign(judge="")
    missing = [name for name in (*names, "verdict") if name not in found]
    if missing:
        raise SetupError(f"judgements of pairs lack {', '.join(map(repr, missing))}")
    orders: dict[tuple[Any, ...], list[str | None]] = {}
    for row, first, second, *more, verdict in zip(*(found[name].tolist() for name in (*names, "verdict")), strict=True):
        word = verdict if isinstance(verdict, str) else None
        if (row, second, first, *more) in orders:
            orders[row, second, first, *more].append(word)
        else:
            orders[row, first, second, *more] = [word]
    lines = []
    for place, words in orders.items():
        # A pair that was shown once counts as if its other order said the same.
        outcome = settle(words[0], words[1] if len(words) > 1 else _SWAPPED.get(words[0] or ""))
        lines.append((*place, outcome.points, outcome.position_conflict, min(len(words), 2)))
    return table(lines, [*names, "points", "flipped", "orders"])


def points_of(lines: pd.DataFrame, one: str, other: str) -> pd.Series[Any]:
    """Return the points of ``one`` against ``other`` by row, the mean of several judges; of settled ``lines``.

    >>> said = pd.DataFrame({"row": [3], "first": ["a"], "second": ["b"], "verdict": ["A"]})
    >>> points_of(settled(said), "b", "a").to_dict()
    {3: 0.0}
    """
    given = lines[(lines["first"] == one) & (lines["second"] == other)]
    turned = lines[(lines["first"] == other) & (lines["second"] == one)]
    both = pd.concat([given, turned.assign(points=1 - turned["points"])])
    found: pd.Series[Any] = both.groupby("row")["points"].mean()
    return found


def table(lines: Sequence[tuple[Any, ...]], names: Sequence[str]) -> pd.DataFrame:
    """Return lines as a frame of plain dtypes."""
    columns = {name: [line[place] for line in lines] for place, name in enumerate(names)}
    made = {name: _TYPED.get(name, _text)(column) for name, column in columns.items()}
    return pd.DataFrame(made, index=pd.RangeIndex(len(lines)))


def _text(column: list[Any]) -> Any:
    return series(column, pd.RangeIndex(len(column)))


_TYPED: Mapping[str, Callable[[list[Any]], Any]] = {
    "row": lambda column: np.array(column, dtype=np.int64),
    "turn": lambda column: np.array(column, dtype=np.int64),
    "orders": lambda column: np.array(column, dtype=np.int64),
    "flipped": lambda column: np.array(column, dtype=bool),
    "rating": lambda column: pd.array(column, dtype="Float64"),
    "points": lambda column: pd.array(column, dtype="Float64"),
    "json": lambda column: pd.Series(column, dtype=object),
}
"""How columns are made that hold no text."""
