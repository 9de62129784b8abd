"""One thing that was measured of a judge, and whether it is fine, worrying or not to be said."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from moa_nb.evaluation.statistics import Interval

__all__ = ["Finding", "resampled", "share"]

_FEWEST = 10
"""Fewer cases say nothing of a judge."""
_RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one judge."""

    judge: str
    measure: str
    said: str
    """In words, with its figures."""
    value: float | None = None
    """``None`` where it cannot be had."""
    low: float | None = None
    """Of its 95 % interval; ``None`` where there is none."""
    high: float | None = None
    n: int = 0
    """The cases that it was measured on."""
    tolerated: tuple[float, float] | None = None
    """The range in which it does no harm; ``None`` where that depends."""

    @property
    def verdict(self) -> Literal["fine", "worrying", "unsaid"]:
        """``fine`` if the whole interval is tolerated, ``worrying`` if none of it is; ``unsaid`` in between, or of few."""
        if self.low is None or self.high is None or self.tolerated is None or self.n < _FEWEST:
            return "unsaid"
        least, most = self.tolerated
        if least <= self.low and self.high <= most:
            return "fine"
        return "worrying" if self.high < least or self.low > most else "unsaid"

    @property
    def sentence(self) -> str:
        """The finding as a sentence; that it cannot be judged is said too."""
        is_open = self.verdict == "unsaid" and self.value is not None and self.tolerated is not None
        return f"{self.said}: too few to say whether it matters" if is_open else self.said


def share(hits: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> Interval:
    """Return a share with its 95 % interval, where cases of one row are not independent of each other.

    Wilson's interval (1927) for as many cases as would be as sure were they independent: from the variance between
    rows (Kott and Liu 2009). It holds for shares near 0 and 1 too, and for 0 of 12.

    >>> share(np.zeros(12), np.arange(12))
    0.00 [0.00, 0.24], 12 rows
    """
    n = len(hits)
    if not n:
        return Interval(None, None, None, 0)
    mean = float(np.mean(hits))
    _, group = np.unique(rows, return_inverse=True)
    n_rows = int(group.max()) + 1
    effective = float(n_rows)
    if 0 < mean < 1 and n_rows > 1:
        between = np.bincount(group, np.asarray(hits, dtype=float) - mean)
        variance = float(between @ between) / n**2 * n_rows / (n_rows - 1)
        effective = min(float(n), mean * (1 - mean) / variance) if variance else float(n)
    z = 1.959964
    middle = (mean + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * math.sqrt(mean * (1 - mean) / effective + z * z / (4 * effective**2))
    # At the ends rounding may leave the share a little outside.
    return Interval(mean, max(0.0, min(mean, middle - half)), min(1.0, max(mean, middle + half)), n)


def resampled(
    measured: Callable[[np.ndarray[Any, Any]], float], rows: np.ndarray[Any, Any], *, seed: int = 0
) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a measure over 400 resamples of the rows; ``None`` where it is often undefined.

    ``measured`` takes the positions of the cases and returns ``nan`` where it is undefined.
    """
    _, group = np.unique(rows, return_inverse=True)
    order, sizes = np.argsort(group, kind="stable"), np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(0, len(sizes), len(sizes))
        ends = np.cumsum(sizes[drawn])
        # The places of each drawn row's cases, one row after the other.
        within = np.arange(ends[-1]) - np.repeat(ends - sizes[drawn], sizes[drawn])
        found.append(measured(order[np.repeat(starts[drawn], sizes[drawn]) + within]))
    known = [value for value in found if not math.isnan(value)]
    if len(known) < 0.9 * _RESAMPLES:
        return None, None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
