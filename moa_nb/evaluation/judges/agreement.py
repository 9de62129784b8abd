"""How far judges agree with each other and with people, beyond chance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.evaluation.judges.findings import Finding, resampled
from moa_nb.evaluation.judges.outcomes import PEOPLE

__all__ = ["agreements", "alpha", "kappa"]

_KAPPA = (0.4, 1.0)
"""Moderate agreement and more (Landis and Koch 1977)."""
_ALPHA = (0.667, 1.0)
"""What tentative conclusions may be drawn from (Krippendorff 2004)."""

_Values = np.ndarray[Any, Any]


def kappa(a: _Values, b: _Values) -> float:
    """Return Cohen's kappa (1960) of two judges' outcomes, by scikit-learn; ``nan`` where both have only one value.

    Raises:
        SetupError: scikit-learn is not installed.

    >>> round(kappa(np.array([1, 0, 1, 1]), np.array([1, 0, 0, 1])), 2)
    0.5
    """
    try:
        from sklearn.metrics import cohen_kappa_score
    except ImportError as error:
        raise SetupError('agreement needs scikit-learn: pip install "moa-nb[evaluation]"') from error
    kinds, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    return float(cohen_kappa_score(codes[: len(a)], codes[len(a) :])) if len(kinds) > 1 else math.nan


def _quick_kappa(a: _Values, b: _Values) -> float:
    """Return what ``kappa`` does, of small whole numbers, a hundred times as fast: resamples need it often."""
    size = int(max(a.max(), b.max())) + 1
    met = np.bincount(a * size + b, minlength=size * size).reshape(size, size) / len(a)
    by_chance = float(met.sum(axis=0) @ met.sum(axis=1))
    return (float(np.trace(met)) - by_chance) / (1 - by_chance) if by_chance < 1 - 1e-12 else math.nan


def alpha(table: _Values, level: Literal["nominal", "interval"]) -> float:
    """Return Krippendorff's alpha of a table with a row a judge; ``nan`` where all say the same of all.

    ``level``: ``nominal`` for verdicts, ``interval`` for ratings. What a judge did not say is ``nan``.

    Raises:
        SetupError: krippendorff is not installed.

    >>> round(alpha(np.array([[7, 3, 9, np.nan], [8, 3, 9, 5]]), "interval"), 2)
    0.98
    """
    try:
        import krippendorff
    except ImportError as error:
        raise SetupError('agreement needs krippendorff: pip install "moa-nb[evaluation]"') from error
    pairable = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    if len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        return math.nan
    return float(krippendorff.alpha(reliability_data=pairable, level_of_measurement=level))


def agreements(outcomes: pd.DataFrame, ratings: pd.DataFrame | None) -> Iterator[Finding]:
    """Yield how every two judges agree, each with people, and all of them: on pairs, and on ratings where they rated.

    Both tables have the judges and, under ``PEOPLE``, the labels. On pairs: Cohen's kappa of win, tie and loss, and
    Krippendorff's nominal alpha of three judges and more; on ratings Krippendorff's alpha for intervals.
    """
    try:
        yield from _on(outcomes, ["row", "one", "other"], "points", "pair")
        if ratings is not None:
            yield from _on(ratings, ["row", "pipeline"], "rating", "rating")
    except SetupError as error:
        yield Finding("all", "agreement", str(error))


def _on(lines: pd.DataFrame, unit: list[str], value: str, what: str) -> Iterator[Finding]:
    lines = lines.dropna(subset=[value])
    judges = list(dict.fromkeys(lines["judge"]))
    if len(judges) < 2:
        return
    wide = lines.pivot_table(index=unit, columns="judge", values=value, sort=False)[judges]
    table = wide.to_numpy(dtype=float).T
    rows = wide.index.get_level_values("row").to_numpy()
    for one, other in combinations(range(len(judges)), 2):
        both = ~np.isnan(table[[one, other]]).any(axis=0)
        if both.any():
            yield _between(judges[one], judges[other], table[[one, other]][:, both], rows[both], what)
    models = [at for at, judge in enumerate(judges) if judge != PEOPLE]
    if len(models) > 2:
        yield _among(table[models], rows, what)


def _between(one: str, other: str, said: _Values, rows: _Values, what: str) -> Finding:
    n = said.shape[1]
    if what == "rating":
        name, region = "alpha", _ALPHA
        value = alpha(said, "interval")
        low, high = resampled(lambda at: alpha(said[:, at], "interval"), rows)
        same = f"{np.mean(np.abs(said[0] - said[1])):.1f} apart on average in {n:,} ratings"
    else:
        name, region = "kappa", _KAPPA
        value = kappa(*said)
        codes = np.unique(said, return_inverse=True)[1].reshape(said.shape)
        low, high = resampled(lambda at: _quick_kappa(*codes[:, at]), rows)
        same = f"say the same of {np.mean(said[0] == said[1]):.0%} of {n:,} pairs"
    judge, against = (one, other) if one != PEOPLE else (other, one)
    measured = _measured(name, value, low, high)
    words = f"{judge} and {against} {'are ' if what == 'rating' else ''}{same} ({measured})"
    return Finding(judge, f"{name} with {against}", words, None if math.isnan(value) else value, low, high, n, region)


def _among(said: _Values, rows: _Values, what: str) -> Finding:
    level: Literal["nominal", "interval"] = "interval" if what == "rating" else "nominal"
    shared = (~np.isnan(said)).sum(axis=0) > 1
    said, rows = said[:, shared], rows[shared]
    value = alpha(said, level)
    low, high = resampled(lambda at: alpha(said[:, at], level), rows) if len(rows) else (None, None)
    words = f"all {len(said)} judges agree on {len(rows):,} {what}s as {_measured('alpha', value, low, high)} says"
    return Finding(
        "all", f"alpha of {what}s", words, None if math.isnan(value) else value, low, high, len(rows), _ALPHA
    )


def _measured(name: str, value: float, low: float | None, high: float | None) -> str:
    if math.isnan(value):
        return f"no {name} can be had: all are alike"
    return f"{name} {value:.2f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")
