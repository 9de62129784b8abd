"""Thresholds chosen by replay: on one part of a sample, and then measured on the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.evaluation.statistics import figure, numbers
from moa_nb.panels.figures import dollars
from moa_nb.plain import quoted

if TYPE_CHECKING:
    from moa_nb.evaluation.calibration.replay import Figures, Replay
    from moa_nb.pipeline.spec import Pipeline

__all__ = ["Calibration", "calibrate", "calibrated"]

_FEWEST = 10
"""Rows that each part has to have."""


def calibrate(scores: Iterable[float], strong_fraction: float) -> float:
    """Return the threshold that so large a part of ``scores`` reaches: a quantile (Ong et al. 2024, arXiv 2406.18665).

    It needs no answers. Where it is known which of them were right, ``Replay.calibrate`` says what a threshold is worth.

    Args:
        scores: of a sample of questions like those to come; missing ones are left out.
        strong_fraction: the part of questions that may go to the strong model, in [0, 1]; equal scores go together,
            so it may become more. At 0 the threshold is just above the highest score.

    Raises:
        SetupError: no scores, one that is no finite number, or a fraction out of its range.

    >>> calibrate([0.1, 0.9, 0.4, 0.6], 0.5)
    0.6
    """
    found = numbers([*scores])
    ranked = sorted(found[~np.isnan(found)].tolist(), reverse=True)
    if not ranked or not isinstance(strong_fraction, Real) or not 0 <= strong_fraction <= 1:
        msg = f"calibrate takes at least one score and a fraction in [0, 1], not {len(ranked)} and {strong_fraction!r}"
        raise SetupError(msg)
    n_strong = round(strong_fraction * len(ranked))
    return ranked[n_strong - 1] if n_strong else math.nextafter(ranked[0], math.inf)


@dataclass(frozen=True, repr=False)
class Calibration:
    """Thresholds, what they made of the rows they were chosen on, and of rows on which nothing was chosen."""

    pipeline: Pipeline
    """With the thresholds filled in, ready to run; it asks its own scorer, whatever made the scores of the replay."""
    parameter: str
    """What the pipeline calls them."""
    thresholds: tuple[float, ...]
    fit: Figures
    """On the rows they were chosen on: flattering."""
    held_out: Figures
    """On the others: what to expect of rows to come."""
    alone: pd.DataFrame
    """Each tier alone on the rows held out: ``strong_share``, ``quality``, ``cost``; missing where not all were asked."""
    curve: pd.DataFrame
    """The thresholds that nothing else on the fit rows is both better and cheaper than, and what each of them makes of
    the rows held out, as ``Replay.curve`` has it."""
    parts: pd.Series[Any]
    """``"fit"`` or ``"held out"`` for each row of the sample; missing for one that was left out."""
    searched: str
    """Which thresholds were tried, in words."""
    notes: tuple[str, ...] = field(default=())
    """What else a reader must know."""

    def to_toml(self) -> str:
        """Return the text of a file in ``templates/pipelines/`` with the thresholds filled in.

        Raises:
            PipelineError: the pipeline holds what no file can, such as a function that has no name of its own.
        """
        return self.pipeline.to_toml()

    def __repr__(self) -> str:
        values = ", ".join(f"{threshold:.6g}" for threshold in self.thresholds)
        lines = [
            f"{self.parameter} = {values}, chosen among {self.searched}",
            f"fit:      {self.fit}",
            f"held out: {self.held_out}",
        ]
        for name, row in self.alone.iterrows():
            known = ", ".join(
                _SAID[what](row[what]) for what in ("quality", "cost") if what in row and row.notna()[what]
            )
            lines.append(f"{name} alone, held out: {known or 'unknown, since not every row was asked'}")
        return "\n".join([*lines, *self.notes])


def calibrated(
    replay: Replay,
    *,
    min_quality: float | None = None,
    max_cost: float | None = None,
    max_strong_share: float | None = None,
    hold_out: float = 0.5,
    seed: int = 0,
) -> Calibration:
    """Return the thresholds that serve a wish best; see ``Replay.calibrate``.

    Raises:
        SetupError: no wish, one that no thresholds can serve, or too few rows.
    """
    wishes = {"min_quality": min_quality, "max_cost": max_cost, "max_strong_share": max_strong_share}
    if all(wish is None for wish in wishes.values()):
        msg = "say what you wish: min_quality=, max_cost= (dollars a row) or max_strong_share="
        raise SetupError(msg)
    for name, wish in wishes.items():
        if wish is not None and not (isinstance(wish, Real) and math.isfinite(wish)):
            msg = f"{name} is a number, not {quoted(wish, 40)}"
            raise SetupError(msg)
    if max_cost is not None and replay.costs is None:
        msg = "max_cost: nobody knows what these tiers cost; give costs, or say max_strong_share="
        raise SetupError(msg)
    fit_places, other_places = _parted(len(replay), hold_out, seed)
    fit, other = replay.take(fit_places), replay.take(other_places)
    candidates, searched = fit.candidates()
    tried = fit.curve(candidates)
    thresholds = candidates[_best(tried, min_quality, max_cost, max_strong_share)]
    front = [candidates[at] for at in _front(tried)]
    held_out = other.at(thresholds)
    parts = pd.Series(pd.NA, index=replay.index, dtype="object", name="part")
    parts.iloc[replay.rows[fit_places]] = "fit"
    parts.iloc[replay.rows[other_places]] = "held out"
    return Calibration(
        replay.filled(thresholds),
        replay.gates.parameter,
        thresholds,
        fit.at(thresholds),
        held_out,
        _alone(other),
        other.curve(front),
        parts,
        searched,
        tuple(_notes(replay, held_out, min_quality, max_cost, max_strong_share)),
    )


def _parted(n: int, hold_out: float, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the places to choose on and those to measure on, each in order."""
    if not 0 < hold_out < 1:
        msg = f"hold_out is a part of the rows, between 0 and 1, not {hold_out!r}"
        raise SetupError(msg)
    n_out = round(n * hold_out)
    if min(n_out, n - n_out) < _FEWEST:
        msg = f"{n} rows are {n - n_out} to choose on and {n_out} held out: each part needs {_FEWEST}, better hundreds"
        raise SetupError(msg)
    drawn = np.random.default_rng(seed).permutation(n)
    return np.sort(drawn[n_out:]), np.sort(drawn[:n_out])


def _best(
    tried: pd.DataFrame, min_quality: float | None, max_cost: float | None, max_strong_share: float | None
) -> int:
    """Return which row serves the wishes best."""
    price = "cost" if "cost" in tried else "strong_share"
    served = pd.Series(data=True, index=tried.index)
    limits = [("quality", min_quality), ("cost", max_cost), ("strong_share", max_strong_share)]
    for name, limit in limits:
        if limit is not None:  # but for the rounding of a mean
            served &= tried[name] >= limit - 1e-12 if name == "quality" else tried[name] <= limit + 1e-12
    if not served.any():
        raise SetupError(_infeasible(tried, limits))
    wanted = [price, "quality"] if min_quality is not None else ["quality", price]
    by = list(dict.fromkeys([*wanted, "strong_share"]))
    order = tried[served].sort_values(by, ascending=[one != "quality" for one in by], kind="stable")
    return int(order.index[0])


def _infeasible(tried: pd.DataFrame, limits: Sequence[tuple[str, float | None]]) -> str:
    """Return what nothing serves, and what would be feasible."""
    wishes = {name: limit for name, limit in limits if limit is not None}
    for name, limit in wishes.items():
        column = tried[name]
        if name == "quality" and column.max() < limit - 1e-12:
            return f"no thresholds reach quality {limit:g}: the best is {_spoken(tried, int(column.argmax()))}"
        if name != "quality" and column.min() > limit + 1e-12:
            return f"no thresholds keep {_SAID[name](limit)}: the least is {_spoken(tried, int(column.argmin()))}"
    enough = tried[tried["quality"] >= wishes.get("quality", -math.inf) - 1e-12]
    price = next(name for name in ("cost", "strong_share") if name in wishes)
    return f"no thresholds serve all wishes at once; within one of them: {_spoken(enough, int(enough[price].argmin()))}"


_SAID: dict[str, Callable[[float], str]] = {
    "quality": lambda quality: f"quality {figure(quality)}",
    "cost": lambda cost: f"${dollars(cost)} a row",
    "strong_share": lambda share: f"{share:.0%} strong",
}


def _spoken(tried: pd.DataFrame, at: int) -> str:
    return ", ".join(said(float(tried[name].iloc[at])) for name, said in _SAID.items() if name in tried)


def _front(tried: pd.DataFrame) -> list[int]:
    """Return the rows, from the cheapest, that no other is both better and as cheap as."""
    price = "cost" if "cost" in tried else "strong_share"
    order = tried.sort_values([price, "quality"], ascending=[True, False], kind="stable")
    before = order["quality"].cummax().shift(fill_value=-math.inf)
    return [int(at) for at in order.index[order["quality"] > before]]


def _alone(replay: Replay) -> pd.DataFrame:
    figures = [replay.alone(tier) for tier in range(len(replay.quality.columns))]
    found = {"strong_share": [one.strong_share for one in figures], "quality": [one.quality.mean for one in figures]}
    costs = [one.cost for one in figures]
    if None not in costs:
        found["cost"] = [None if cost is None else cost.mean for cost in costs]
    return pd.DataFrame(found, index=replay.quality.columns).astype("float64")


def _notes(
    replay: Replay, seen: Figures, min_quality: float | None, max_cost: float | None, max_strong_share: float | None
) -> list[str]:
    notes = [*replay.notes]
    if min_quality is not None and (seen.quality.mean or 0) < min_quality:
        notes.append(f"Held out, the quality is below the {figure(min_quality)} that was wished.")
    if max_cost is not None and seen.cost is not None and (seen.cost.mean or 0) > max_cost:
        notes.append(f"Held out, it takes more than the ${dollars(max_cost)} a row that was wished.")
    if max_strong_share is not None and seen.strong_share > max_strong_share:
        notes.append(f"Held out, more go to the last tier than the {max_strong_share:.0%} that was wished.")
    if replay.n_left_out:
        notes.append(f"{replay.n_left_out:,} rows are left out: a quality or a cost of theirs is missing.")
    return notes
