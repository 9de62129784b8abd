"""Which pipelines nobody beats for the price: the Pareto front of cost, or seconds, and quality."""

from __future__ import annotations

from collections.abc import Iterable

from moa_nb.errors import SetupError

__all__ = ["front"]


def front(costs: Iterable[float | None], qualities: Iterable[float | None]) -> list[bool]:
    """Return whether each point is on the front: no other costs at most as much and is at least as good, one of them strictly.

    Equal points stand or fall together. What has no cost or no quality (``None``, NaN, ``pd.NA``) is on no front,
    and keeps nobody else off it.

    Args:
        costs: of each point, the lower the better: dollars, seconds, tokens.
        qualities: of each point, the higher the better.

    Raises:
        SetupError: there are not as many costs as qualities.

    >>> front([1.0, 5.0, 6.0, None], [0.4, 0.7, 0.6, 0.9])
    [True, True, False, False]
    """
    points = [*zip(map(_known, costs := [*costs]), map(_known, qualities := [*qualities]), strict=False)]
    if len(costs) != len(qualities):
        msg = f"a front needs a cost for each quality: {len(costs)} costs, {len(qualities)} qualities"
        raise SetupError(msg)
    known = {(cost, quality) for cost, quality in points if cost is not None and quality is not None}
    unbeaten: set[tuple[float | None, float | None]] = set()
    best = None
    for cost, quality in sorted(known, key=lambda point: (point[0], -point[1])):
        # From cheap to dear: whoever is no better than somebody before is beaten by that one.
        if best is None or quality > best:
            unbeaten.add((cost, quality))
            best = quality
    return [point in unbeaten for point in points]


def _known(value: float | None) -> float | None:
    import pandas as pd

    return None if pd.isna(value) else float(value)
