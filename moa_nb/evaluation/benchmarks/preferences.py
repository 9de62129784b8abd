"""Preferences for one of two answers: read from annotations, and from the verdicts of judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.evaluation.points import points_of, settled

__all__ = ["Column", "Floats", "numbers", "preferences_of", "shares"]

Floats: TypeAlias = npt.NDArray[np.float64]
Column: TypeAlias = Sequence[Any] | pd.Series | npt.NDArray[Any]
"""One value a row; missing ones are ``None`` or ``nan``."""


def numbers(column: Column) -> Floats:
    """Return a column as floats, ``nan`` where it is missing.

    Raises:
        SetupError: something in it is no finite number.
    """
    if isinstance(column, pd.DataFrame | Mapping):
        raise SetupError(f"a column of numbers is needed, not a {type(column).__name__}: take one of its columns")
    try:
        found = pd.Series(list(column), dtype="Float64").to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise SetupError(f"a column of numbers is needed: {error}") from None
    if np.isinf(found).any():
        raise SetupError("a column of finite numbers is needed: one is infinite")
    return found


def shares(preferences: Column, scale: tuple[float, float]) -> Floats:
    """Return the preferences as shares of a win, 0 to 1, ``nan`` where missing.

    On the scale from 1 to 2 a 0 is a draw, as older annotations write it.

    Raises:
        SetupError: one outside its scale, or another scale.

    >>> shares([2, 0, None], (1, 2)).tolist()
    [1.0, 0.5, nan]
    """
    ends = tuple(scale) if isinstance(scale, Sequence) else ()
    if ends not in {(0, 1), (1, 2)}:
        raise SetupError(f"scale={scale!r}: preferences run from 1 to 2, or with scale=(0, 1) from 0 to 1")
    share = numbers(preferences)
    if ends == (1, 2):
        if any(isinstance(one, bool | np.bool_) for one in preferences):
            raise SetupError("true and false are wins and losses: say scale=(0, 1)")
        share = np.where(share == 0, 0.5, share - 1)
    outside = np.flatnonzero((share < 0) | (share > 1))
    if len(outside):
        value = list(preferences)[outside[0]]
        other = "(0, 1)" if ends == (1, 2) else "(1, 2)"
        raise SetupError(f"preference {value} in row {outside[0]} is not in {scale}; is it scale={other}?")
    return share


def preferences_of(judgements: pd.DataFrame, model: str, baseline: str, n: int) -> pd.Series:
    """Return the preference of each of ``n`` rows for ``model`` over ``baseline``, 1 to 2, missing where there is none.

    ``judgements`` has a line a verdict: ``row`` (position from 0), ``first`` and ``second`` (who was shown as A and
    as B), ``judge``, ``verdict`` (A, B, C for a tie). A pair asked in both orders is settled: the same winner twice
    wins, all else is a draw, 1.5; one asked in a single order counts as it is. Of several judges the mean counts.

    Raises:
        UnknownName: nobody of that name was judged.
        SetupError: judgements of another form, or of other rows.

    >>> asked = [(0, "moa", "single", "A"), (0, "single", "moa", "B"), (1, "moa", "single", "A"), (1, "single", "moa", "A")]
    >>> judgements = pd.DataFrame(asked, columns=["row", "first", "second", "verdict"]).assign(judge="j")
    >>> preferences_of(judgements, "moa", "single", 3).tolist()
    [2.0, 1.5, nan]
    """
    lines = settled(judgements)
    names = {*lines["first"], *lines["second"]}
    for name in (model, baseline):
        if len(lines) and name not in names:
            raise UnknownName(f"no judgement of {name!r}; {nearest(name, map(str, names))}")
    if len(lines) and not lines["row"].between(0, n - 1).all():
        said = f"judgements are of rows {lines['row'].min()} to {lines['row'].max()}, and there are {n} rows of answers"
        raise SetupError(f"{said}: a row is its position, counted from 0")
    means = 1 + points_of(lines, model, baseline).reindex(range(n))
    return pd.Series(means.to_numpy(dtype=float, na_value=np.nan), name=model)
