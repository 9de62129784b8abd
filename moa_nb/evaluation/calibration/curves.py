"""Quality against the share of strong calls: what each threshold of a router would have made of rows that are known.

Everything is a replay. Of each row it is known what the router said, and how good both models' answers are; so each
threshold's outcome is exact for these rows, and takes no call. A curve is a DataFrame with the columns ``threshold``,
``strong_share`` and ``quality``, and ``cost`` where the costs are known; the share rises from row to row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.evaluation.statistics import Interval, numbers

__all__ = ["Curve", "apgr", "apgr_interval", "chance", "cpt", "curve", "optimal"]

Curve: TypeAlias = "pd.DataFrame | Iterable[tuple[float, float]]"
"""What ``curve`` returns, or pairs: share of strong calls in [0, 1], quality."""

_RESAMPLES = 2000
_Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


def curve(
    scores: Any, weak: Any, strong: Any, *, weak_cost: Any = None, strong_cost: Any = None, bins: int | None = None
) -> pd.DataFrame:
    """Return what each threshold makes of the rows: strong if score >= threshold, as the ``route`` strategy does.

    The first line sends nobody to the strong model, the last one everybody. A row without a score goes to the strong
    model whatever the threshold, as a route's does whose fallback nobody changed. Rows of which a quality is missing
    are left out.

    Args:
        scores: what the router says of each row.
        weak: how good the weak model's answers are: 0 and 1, or any number; higher is better.
        strong: the same of the strong model.
        weak_cost: dollars of each of the weak model's answers, or of all alike; with ``strong_cost``.
        strong_cost: the same of the strong model.
        bins: the thresholds at so many quantile bins of the scores, as RouteLLM's evaluation has ten (Ong et al. 2024,
            arXiv 2406.18665); ``None``: every distinct score.

    Raises:
        SetupError: not as many values, values that are no numbers, or no row that has all of them.

    >>> curve([0.2, 0.9, 0.6, 0.6], weak=[1, 0, 1, 0], strong=[1, 1, 0, 1])
       threshold  strong_share  quality
    0        0.9          0.00     0.50
    1        0.9          0.25     0.75
    2        0.6          0.75     0.75
    3        0.2          1.00     0.75
    """
    costs = [] if weak_cost is None and strong_cost is None else [weak_cost, strong_cost]
    if bins is not None and (not isinstance(bins, Integral) or bins < 1):
        msg = f"bins is at least 1, a whole number, not {bins!r}"
        raise SetupError(msg)
    said, columns = _rows(scores, weak, strong, *costs)
    distinct, place = _ranked(said)
    ones = np.ones(len(said))
    found = {
        "threshold": np.append(distinct, np.nextafter(distinct[-1], np.inf) if len(distinct) else np.inf)[::-1],
        "strong_share": _swept(place, len(distinct), 0 * ones, ones, ones),
        "quality": _swept(place, len(distinct), columns[0], columns[1], ones),
    }
    if costs:
        found["cost"] = _swept(place, len(distinct), columns[2], columns[3], ones)
    frame = pd.DataFrame(found)
    if bins is None or not len(distinct):
        return frame
    # A threshold between two scores does what the higher one does.
    edges = np.quantile(said[~np.isnan(said)], np.linspace(0, 1, bins + 1), method="higher")
    lines = {len(distinct) - int(at) for at in np.searchsorted(distinct, edges)}
    return frame.iloc[[0, *sorted(lines)]].reset_index(drop=True)


def chance(weak: Any, strong: Any) -> pd.DataFrame:
    """Return the curve that a coin gives: the straight line between both models, which is its mean over all throws.

    >>> chance([1, 0, 1, 0], [1, 1, 0, 1])
       strong_share  quality
    0           0.0     0.50
    1           1.0     0.75
    """
    _, (first, second) = _rows(np.zeros(np.size(weak)), weak, strong)
    return pd.DataFrame({"strong_share": [0.0, 1.0], "quality": [first.mean(), second.mean()]})


def optimal(weak: Any, strong: Any) -> pd.DataFrame:
    """Return the curve of who knows both answers' quality: first the rows go that gain most, those that lose last.

    No router's curve is above it. Of rows that gain alike nobody is first: between two lines, the straight one holds.

    >>> optimal([1, 0, 1, 0], [1, 1, 0, 1])
       threshold  strong_share  quality
    0        1.0          0.00     0.50
    1        1.0          0.50     1.00
    2        0.0          0.75     1.00
    3       -1.0          1.00     0.75
    """
    _, (first, second) = _rows(np.zeros(np.size(weak)), weak, strong)
    return curve(second - first, first, second)


def apgr(curve: Curve, weak: float | None = None, strong: float | None = None) -> float:
    """Return the average performance gap recovered (Ong et al. 2024, arXiv 2406.18665, section 2.2).

    It is the area under quality over the share of strong calls, 0 at the weak model's quality throughout, 1 at the
    strong one's, and 1/2 for a coin. Between two points the straight line holds, beyond the curve's ends its nearest
    point.

    Args:
        curve: in any order.
        weak: the weak model's quality; ``None``: the curve's at share 0.
        strong: the strong model's; ``None``: the curve's at share 1.

    Raises:
        SetupError: no curve, no gap, or a curve that does not say what is ``None``.

    >>> apgr([(0, 0.5), (1, 0.75)])
    0.5
    """
    points = _points(curve)
    low, high = _ends(points, weak, strong)
    if low == high:
        msg = "apgr takes a curve, and two models of different quality"
        raise SetupError(msg)
    around = [(0.0, points[0][1]), *points, (1.0, points[-1][1])]
    area = math.fsum((right - left) * (one + other) / 2 for (left, one), (right, other) in pairwise(around))
    return (area - low) / (high - low)


def cpt(curve: Curve, x: float, weak: float | None = None, strong: float | None = None) -> float | None:
    """Return the call-performance threshold CPT(x): the least share of strong calls that recovers ``x`` of the gap.

    That is, at which quality reaches weak + x(strong - weak) (Ong et al. 2024, arXiv 2406.18665, section 2.2). The
    curve is followed from share 0 upwards, along straight lines between its points, and the first crossing counts: a
    share between two points is what a coin between their thresholds gives. Quality may fall again on the way, which
    is why nothing is looked up by quality. ``None`` where the curve never gets there.

    Args:
        curve: in any order.
        x: the part of the gap, as 0.5 or 0.8.
        weak: the weak model's quality; ``None``: the curve's at share 0.
        strong: the strong model's; ``None``: the curve's at share 1.

    Raises:
        SetupError: a strong model that is not better, or a curve that does not say what is ``None``.

    >>> line = [(0, 0.5), (0.2, 0.7), (0.4, 0.6), (1, 0.8)]
    >>> round(cpt(line, 0.5), 3), round(cpt(line, 0.8), 3)
    (0.15, 0.82)
    """
    points = _points(curve)
    low, high = _ends(points, weak, strong)
    if not low < high:
        msg = f"cpt takes a strong model that is better than the weak one: {high:.4g} is not above {low:.4g}"
        raise SetupError(msg)
    wanted = low + x * (high - low)
    # What is reached but for the rounding of a sum is reached.
    near = wanted - 1e-12 * max(1.0, abs(low), abs(high))
    if points[0][1] >= near:
        return points[0][0]
    for (left, one), (right, other) in pairwise(points):
        if other >= near:
            return min(right, left + (right - left) * (wanted - one) / (other - one))
    return None


def apgr_interval(scores: Any, weak: Any, strong: Any, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return a router's APGR over all its thresholds with its bootstrap interval: 2,000 resamples of the rows.

    An interval that holds 0.5 says that these rows do not tell the router from a coin.

    Raises:
        SetupError: as ``curve`` does, no gap, or a confidence that is none.

    >>> apgr_interval([0.2, 0.9, 0.6, 0.7] * 25, [1, 0, 1, 0] * 25, [1, 1, 1, 1] * 25)
    0.75 [0.70, 0.80], 100 rows
    """
    if not 0 < confidence < 1:
        msg = f"a confidence is between 0 and 1, as 0.95 is, not {confidence!r}"
        raise SetupError(msg)
    said, (first, second) = _rows(scores, weak, strong)
    distinct, place = _ranked(said)
    n = len(said)
    # Sorted once, the first to go to the strong model before the others; equal scores go together.
    order = np.argsort(-place, kind="stable")
    weak_of, gain_of = first[order], (second - first)[order]
    ends = np.cumsum(np.bincount(place, minlength=len(distinct) + 1)[::-1])

    def recovered(times: np.ndarray[Any, np.dtype[np.intp]]) -> float:
        share = np.append(0, np.cumsum(times[order]))[ends] / n
        gains = np.append(0.0, np.cumsum(gain_of * times[order]))
        low, gap = float((weak_of * times[order]).sum()) / n, float(gains[-1]) / n
        share, gained = np.append(0.0, share), np.append(gains[ends[0]], gains[ends]) / n
        area = low + float((np.diff(share) * (gained[1:] + gained[:-1])).sum()) / 2
        return (area - low) / gap if gap else math.nan

    seen = recovered(np.ones(n, dtype=np.intp))
    if math.isnan(seen):
        msg = "apgr takes two models of different quality"
        raise SetupError(msg)
    generator = np.random.default_rng(seed)
    drawn = [recovered(np.bincount(generator.integers(0, n, n), minlength=n)) for _ in range(_RESAMPLES)]
    if n < 2:
        return Interval(seen, None, None, n, confidence)
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(seen, float(low), float(high), n, confidence)


# Rows -------------------------------------------------------------------------------------------


def _rows(scores: Any, *columns: Any) -> tuple[_Floats, list[_Floats]]:
    """Return scores and columns as floats, of the rows that have all columns."""
    try:
        said = pd.to_numeric(pd.Series(scores)).to_numpy(dtype="float64", na_value=np.nan)
    except (TypeError, ValueError) as error:
        msg = f"scores have to be numbers: {error}"
        raise SetupError(msg) from error
    if np.isposinf(said).any():
        msg = "scores have to be finite: no threshold is above an infinite one"
        raise SetupError(msg)
    indexes = [one.index for one in (scores, *columns) if isinstance(one, pd.Series)]
    if any(not index.equals(indexes[0]) for index in indexes):
        msg = "scores and qualities have to be of the same rows, in the same order: their labels differ"
        raise SetupError(msg)
    found = [
        np.full(len(said), np.nan if one is None else one) if np.ndim(one) == 0 else numbers(one) for one in columns
    ]
    if {len(said)} != {len(said), *map(len, found)}:
        msg = f"scores and qualities have to be of the same rows: {len(said)} scores, and {[*map(len, found)]} others"
        raise SetupError(msg)
    whole = ~np.isnan(found).any(axis=0)
    if not whole.any():
        msg = f"none of {len(said)} rows has the quality of both models" + " and their costs" * (len(columns) > 2)
        raise SetupError(msg)
    return said[whole], [one[whole] for one in found]


def _ranked(scores: _Floats) -> tuple[_Floats, np.ndarray[Any, np.dtype[np.intp]]]:
    """Return the distinct scores, rising, and the place of each row's among them: past the last where it has none."""
    distinct, place = np.unique(scores[~np.isnan(scores)], return_inverse=True)
    places = np.full(len(scores), len(distinct), dtype=np.intp)
    places[~np.isnan(scores)] = place
    return distinct, places


def _swept(
    place: np.ndarray[Any, np.dtype[np.intp]], n_distinct: int, weak: _Floats, strong: _Floats, weights: _Floats
) -> _Floats:
    """Return the mean value at each threshold from above the highest score to the lowest one."""
    gains = np.bincount(place, weights=(strong - weak) * weights, minlength=n_distinct + 1)
    found: _Floats = (weak @ weights + np.cumsum(gains[::-1])) / weights.sum()
    return found


def _points(curve: Curve) -> list[tuple[float, float]]:
    try:
        pairs = curve[["strong_share", "quality"]].to_numpy() if isinstance(curve, pd.DataFrame) else curve
        points = sorted((float(share), float(quality)) for share, quality in pairs)
    except (KeyError, TypeError, ValueError) as error:
        msg = "a curve has the columns strong_share and quality, or it is pairs of them, numbers all"
        raise SetupError(msg) from error
    for share, quality in points:
        if not (-1e-12 <= share <= 1 + 1e-12 and math.isfinite(quality)):
            msg = f"a curve's points are a share in [0, 1] and a quality, not {share:g} and {quality:g}"
            raise SetupError(msg)
    if not points:
        msg = "this takes a curve, and there are no points: say curve(scores, weak, strong)"
        raise SetupError(msg)
    return points


def _ends(points: list[tuple[float, float]], weak: float | None, strong: float | None) -> tuple[float, float]:
    """Return the quality of both models: as said, or else the curve's at shares 0 and 1."""
    found = []
    for name, said, (share, quality), end in (("weak", weak, points[0], 0), ("strong", strong, points[-1], 1)):
        if said is None and not math.isclose(share, end, abs_tol=1e-12):
            msg = f"the curve has no point at share {end}: say {name}=, the {name} model's quality"
            raise SetupError(msg)
        found.append(quality if said is None else float(said))
    return found[0], found[1]
