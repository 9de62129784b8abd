"""Points from verdicts: both orders of a pair settled into a win, a tie or a loss. The only place where that is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.frames.texts import series
from moa_nb.pipeline.verdicts import settle
from moa_nb.plain import quoted

__all__ = ["points_of", "settled", "table", "whole"]

_SWAPPED = {"A": "B", "B": "A", "C": "C"}


def settled(judgements: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each pair that a judge saw: ``row``, ``first``, ``second``, ``judge``, ``points``, ``flipped``, ``orders``.

    ``points`` are of ``first``: 1 for the same winner in both orders, 0.5 for a tie or two winners, 0 for a loss
    (Zheng et al. 2023, arXiv 2306.05685, section 3.4); missing where a verdict could not be read. A pair in one order
    counts as it is: ``orders`` is 1 or 2. ``flipped``: whether the judge chose the same place twice. Pairs of different
    turns are different pairs, where there is a column ``turn``; without a column ``judge`` all are of one. A pair that
    was shown again in the same order is a pair of its own.

    Raises:
        SetupError: a column is missing, or a row that is no whole number.

    >>> said = pd.DataFrame({"row": [0, 0], "first": ["a", "b"], "second": ["b", "a"], "verdict": ["A", "B"]})
    >>> settled(said)[["first", "second", "points"]].to_numpy().tolist()
    [['a', 'b', 1.0]]
    """
    names = ["row", "first", "second", "judge", *(["turn"] if "turn" in judgements else [])]
    missing = [name for name in (*names, "verdict") if name not in judgements and name != "judge"]
    if missing:
        raise SetupError(f"judgements of pairs lack {', '.join(map(repr, missing))}")
    found = judgements.assign(
        row=whole(judgements["row"], "row"),
        judge=[*map(_judge, judgements["judge"])] if "judge" in judgements else "",
        **({"turn": whole(judgements["turn"], "turn", missing=1)} if "turn" in judgements else {}),
    )
    orders: dict[tuple[Any, ...], list[str | None]] = {}
    times: Counter[tuple[Any, ...]] = Counter()
    for *place, verdict in zip(*(found[name].tolist() for name in (*names, "verdict")), strict=True):
        row, first, second, *more = place
        word = verdict if isinstance(verdict, str) else None
        times[(*place,)] += 1
        other = (row, second, first, *more, times[(*place,)])
        if other in orders:
            orders[other].append(word)
        else:
            orders[(*place, times[(*place,)])] = [word]
    lines = []
    for (*place, _), words in orders.items():
        # A pair that was shown once counts as if its other order said the same.
        outcome = settle(words[0], words[1] if len(words) > 1 else _SWAPPED.get(words[0] or ""))
        lines.append((*place, outcome.points, outcome.position_conflict, len(words)))
    return table(lines, [*names, "points", "flipped", "orders"])


def whole(column: pd.Series[Any], name: str, missing: int | None = None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a column of whole numbers, with ``missing`` where there is none.

    Raises:
        SetupError: something in it is no whole number.
    """
    if pd.api.types.is_integer_dtype(column) and not column.hasnans:
        return column.to_numpy(dtype=np.int64)
    known = [missing if missing is not None and pd.isna(one) else one for one in column]
    for one in known:
        if isinstance(one, bool) or not isinstance(one, Real) or one % 1 != 0:
            raise SetupError(f"the column {name!r} of judgements has whole numbers, not {quoted(one, 40)}")
    return np.array(known, dtype=np.int64)


def _judge(said: Any) -> str:
    """Return who judged; nobody's name is empty. Records also have a list: the model, and what it was asked by."""
    return said if isinstance(said, str) else "" if pd.api.types.is_scalar(said) and pd.isna(said) else str(said)


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
    # Pipelines may go by numbers: only texts are kept as texts.
    is_text = all(isinstance(one, str) or one is None for one in column)
    return series(column, pd.RangeIndex(len(column))) if is_text else pd.Series(column, dtype=object)


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
