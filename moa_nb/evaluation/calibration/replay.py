"""A sample replayed: what other thresholds of a route or a cascade would have made of rows whose answers are all known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.evaluation.calibration.gates import Thresholds, gates_of
from moa_nb.evaluation.statistics import Interval, figure, interval
from moa_nb.panels.figures import dollars
from moa_nb.pipeline import presets
from moa_nb.pipeline.spec import Pipeline

if TYPE_CHECKING:
    from moa_nb.evaluation.calibration.calibration import Calibration
    from moa_nb.frames.run import FrameRun

__all__ = ["Figures", "Replay"]

_Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
_Places: TypeAlias = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True, repr=False)
class Figures:
    """What thresholds make of rows, with 95 % bootstrap intervals over the rows."""

    quality: Interval
    strong_share: float
    """The part of the rows that the last tier was asked, in [0, 1]."""
    cost: Interval | None
    """Dollars a row; ``None`` where the costs are not known."""
    n: int

    def __repr__(self) -> str:
        said = [f"quality {_around(self.quality, figure)}", f"{self.strong_share:.0%} strong"]
        if self.cost is not None:
            said.append(f"{_around(self.cost, lambda dollar: f'${dollars(dollar)}')} a row")
        return f"{', '.join(said)}; {self.n:,} rows"


class Replay:
    """Rows of which it is known what every tier would have answered, how good that is, and what the gates see.

    With it every threshold can be tried at no cost, as often as one likes: ``at`` says what it would have made of
    these rows, ``calibrate`` finds the best. The replay is exact: it stops where the strategy itself would have.
    Rows of which something is missing that a replay needs are left out (``n_left_out``).

    Args:
        scores: what the gates see: of a ``route`` one number a row, from its router; of a cascade a column for each
            tier but the last: the scorer's score, AutoMix's share of "correct", the agreement. Missing where the gate
            could not say: a cascade then goes on, a route goes to its fallback.
        quality: a column for each tier or way, in the pipeline's order: how good its answer to each row is, as
            ``compare(...).scores`` has it. Higher is better.
        costs: dollars of each tier's answer to each row, the scoring of it included; ``None``: nobody knows.
        pipeline: what is calibrated: a route, cascade, automix, consistency-cascade or pyramid, or one's name.

    Raises:
        SetupError: tables that do not fit each other or the pipeline, or no complete row.

    >>> replay = Replay(
    ...     scores=[0.9, 0.2, 0.7, 0.4],
    ...     quality={"small": [1, 0, 0, 1], "large": [1, 1, 1, 1]},
    ...     costs={"small": [0.001] * 4, "large": [0.02] * 4},
    ... )
    >>> replay.at(0.5)
    quality 0.75 [0.00, 1.00], 50% strong, $0.0110 [$0.0010, $0.0210] a row; 4 rows
    >>> replay.ends(0.5).tolist()
    [0, 1, 0, 1]
    """

    def __init__(
        self,
        scores: Any,
        quality: pd.DataFrame | Mapping[str, Any],
        costs: pd.DataFrame | Mapping[str, Any] | None = None,
        *,
        pipeline: str | Pipeline = "cascade",
    ) -> None:
        quality = _table(quality, "quality", None)
        scores = _table(scores, "scores", quality.index)
        costs = None if costs is None else _table(costs, "costs", quality.index)
        if len(quality.columns) < 2:
            msg = f"quality has a column for each tier, two or more, not {len(quality.columns)}"
            raise SetupError(msg)
        if costs is not None and [*costs.columns] != [*quality.columns]:
            msg = f"costs have the columns of quality: {[*quality.columns]}, not {[*costs.columns]}"
            raise SetupError(msg)
        self.pipeline = presets.load(pipeline)
        self.gates, self._own = gates_of(self.pipeline, len(quality.columns))
        if len(scores.columns) != self.gates.n_scores:
            msg = f"scores: {self.gates.n_scores} column(s) for {self.gates.n_tiers} tiers, not {len(scores.columns)}"
            raise SetupError(msg)
        missing = quality.isna() if costs is None else quality.isna() | costs.isna()
        lacks = (missing.to_numpy() & self.gates.needed(scores.to_numpy())).any(axis=1)
        self.rows = np.flatnonzero(~lacks)
        """The positions of the rows that are replayed, counted from 0."""
        if not len(self.rows):
            msg = f"none of the {len(quality)} rows has all that a replay needs: each tier's quality" + (
                "" if costs is None else " and costs; leave costs out where nobody knows them"
            )
            raise SetupError(msg)
        self.n_left_out = len(quality) - len(self.rows)
        """Rows of which something is missing."""
        self.index: pd.Index[Any] = quality.index
        """That of all rows."""
        self.scores, self.quality = scores.iloc[self.rows], quality.iloc[self.rows]
        self.costs = None if costs is None else costs.iloc[self.rows]
        self.notes: tuple[str, ...] = ()
        """What a reader of its calibrations must know, a sentence each."""

    @classmethod
    def of(
        cls,
        runs: FrameRun | Mapping[str, FrameRun],
        pipeline: str | Pipeline,
        *,
        reference: Any = None,
        metric: Any = "exact",
        quality: pd.DataFrame | None = None,
        scores: Any = None,
    ) -> Replay:
        """Return the replay of what was run; nothing is sent.

        Two runs leave all that is needed. Either the pipeline itself with its gates closed, so that each row goes
        through all tiers: ``accept_above=math.inf`` in a cascade, ``accept_above=1`` in automix, ``agree=1`` in a
        consistency cascade or a pyramid. Or each tier by its own verb over the same rows: ``{"small": run, "large":
        run}``, in the pipeline's order, as ``compare(...).runs`` has them; then a cascade's scorer is a Python
        function, and for a route ``scores`` are what its router says. What answers took is counted as if each were
        paid, those from the cache too.

        Args:
            runs: one run of the pipeline, or a run for each tier.
            pipeline: the pipeline that is calibrated.
            reference: the reference answers, as many as rows.
            metric: as in ``compare``: ``exact``, ``numeric``, a function of answer and reference, ...
            quality: in place of both, how good each tier's answers are, as a judge found: a column a tier.
            scores: what the gates see, where the runs do not say it. A threshold fits only what made its scores: the
                pipeline that comes of ``calibrate`` asks its own scorer, so of a cascade pass the one whose scorer is
                the function that made them, ``Pipeline(strategy="cascade", scorer=function)``; with a model as scorer
                the calibration says so in its ``notes``, and what scoring takes is not among the costs of tiers.

        Raises:
            SetupError: something that is needed was not logged; the message says how to log it.

        >>> frame = pd.DataFrame({"text": ["It is good. Very.", "Hm. The mill broke.", "Fine. All fine."]})
        >>> tiers = ["offline:lead", "offline:textrank"]
        >>> recipe = Pipeline(strategy="cascade", tiers=tiers, scorer=lambda question, answer: len(answer) / 20)
        >>> runs = {tier: frame.moa.start.synthesize("text", pipeline=Pipeline(layers=[[tier]])) for tier in tiers}
        >>> replay = Replay.of(runs, recipe, metric=lambda answer: "broke" in answer)
        >>> replay.scores.shape, replay.quality.shape
        ((3, 1), (3, 2))
        """
        from moa_nb.evaluation.calibration.logged import given_scores, logged

        recipe = presets.load(pipeline)
        seen, quality, costs = logged(runs, recipe, reference=reference, metric=metric, quality=quality, scores=scores)
        replay = cls(seen, quality, costs, pipeline=recipe)
        if scores is not None:
            replay.notes = tuple(given_scores(recipe, is_scoring_paid=not isinstance(runs, Mapping)))
        return replay

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        left_out = f", {self.n_left_out:,} left out" if self.n_left_out else ""
        tiers = ", ".join(map(str, self.quality.columns))
        return f"<Replay of {self.pipeline.name!r} ({tiers}): {len(self):,} rows{left_out}>"

    def take(self, places: Any) -> Replay:
        """Return the replay of some of the rows that are not left out, by their places among these, from 0."""
        costs = None if self.costs is None else self.costs.iloc[places]
        part = Replay(self.scores.iloc[places], self.quality.iloc[places], costs, pipeline=self.pipeline)
        part.notes = self.notes
        return part

    # At one setting ---------------------------------------------------------------------------

    def ends(self, thresholds: Thresholds | None = None) -> _Places:
        """Return which tier's answer stands for each row, from 0; ``None``: with the pipeline's own thresholds.

        Raises:
            SetupError: not as many thresholds as there are gates.
        """
        limits = self._own if thresholds is None else self.gates.limits(thresholds)
        return self.gates.ends(self._said, limits)

    def at(self, thresholds: Thresholds | None = None) -> Figures:
        """Return what thresholds would have made of the rows; ``None``: the pipeline's own.

        Raises:
            SetupError: not as many thresholds as there are gates.
        """
        ends = self.ends(thresholds)
        places = np.arange(len(ends)), ends
        cost = None if self._totals is None else interval(self._totals[places])
        return Figures(interval(self._quality[places]), float((ends == self._last).mean()), cost, len(ends))

    def alone(self, tier: int) -> Figures:
        """Return what asking one tier for each row would have been, without gates, counted from 0.

        Quality and cost are unknown of a tier that not every row was logged with.
        """
        quality = self._quality[:, tier]
        cost = None if self.costs is None else self.costs.to_numpy()[:, tier]
        is_whole = not np.isnan(quality).any()
        return Figures(
            interval(quality if is_whole else []),
            float(tier == self._last),
            None if cost is None else interval(cost if is_whole else []),
            len(self),
        )

    def filled(self, thresholds: Thresholds) -> Pipeline:
        """Return the pipeline with these thresholds, ready to run."""
        limits, recipe = self.gates.limits(thresholds), self.pipeline
        stated = {name: getattr(recipe.params, name) for name in recipe.params.model_fields_set}
        stated[self.gates.parameter] = limits[0] if self.gates.is_shared else limits
        return Pipeline(strategy=recipe.strategy, name=recipe.name, description=recipe.description, **stated)

    # At all settings --------------------------------------------------------------------------

    def candidates(self) -> tuple[list[tuple[float, ...]], str]:
        """Return the thresholds that are worth trying on these rows, and in words which they are."""
        return self.gates.candidates(self._said)

    def curve(self, candidates: Sequence[tuple[float, ...]] | None = None) -> pd.DataFrame:
        """Return what each of ``candidates`` makes of the rows; ``None``: all that are worth trying, the fewest strong first.

        The columns are ``threshold`` (or ``threshold 1`` and so on), ``strong_share``, ``quality`` and, where it is
        known, ``cost``: of two tiers it is what ``apgr`` and ``cpt`` take.
        """
        limits = self.candidates()[0] if candidates is None else candidates
        if self.gates.n_tiers == 2:
            means = self._swept(np.array(limits, dtype=np.float64).reshape(-1))
        else:
            means = [
                [float(values.mean()) for values in self._values(self.gates.ends(self._said, one))] for one in limits
            ]
        n = self.gates.n_thresholds
        names = ["threshold"] if n == 1 else [f"threshold {at}" for at in range(1, n + 1)]
        figures = ["strong_share", "quality", "cost"][: 2 + (self._totals is not None)]
        table = pd.DataFrame(
            [[*one, *found] for one, found in zip(limits, means, strict=True)], columns=[*names, *figures]
        )
        return table.sort_values("strong_share", kind="stable", ignore_index=True) if candidates is None else table

    def calibrate(
        self,
        *,
        min_quality: float | None = None,
        max_cost: float | None = None,
        max_strong_share: float | None = None,
        hold_out: float = 0.5,
        seed: int = 0,
    ) -> Calibration:
        """Return the thresholds that serve a wish best, chosen on one part of the rows and measured on the other.

        With ``min_quality`` the cheapest that reach it (by strong share where costs are not known), else the best
        within ``max_cost``, ``max_strong_share`` or both. All candidates are tried, and nothing is sent.

        Args:
            min_quality: mean quality, at least.
            max_cost: dollars a row, at most.
            max_strong_share: the part of the rows that the last tier is asked, at most.
            hold_out: the part of the rows on which nothing is chosen.
            seed: of the lot that parts the rows.

        Raises:
            SetupError: no wish, one that no thresholds can serve (the message says what they can), or too few rows.

        >>> easy = [True, True, False] * 40
        >>> replay = Replay([0.9 if one else 0.2 for one in easy], {"small": easy, "large": [True] * 120})
        >>> found = replay.calibrate(min_quality=0.95)
        >>> found.pipeline.params.accept_above, round(found.fit.strong_share, 2)
        ((0.2,), 0.33)
        """
        from moa_nb.evaluation.calibration.calibration import calibrated

        return calibrated(
            self,
            min_quality=min_quality,
            max_cost=max_cost,
            max_strong_share=max_strong_share,
            hold_out=hold_out,
            seed=seed,
        )

    # Inside -----------------------------------------------------------------------------------

    def _values(self, ends: _Places) -> list[_Floats]:
        """Return each row's figures where it ends: whether the last tier was asked, its quality and, if known, cost."""
        places = np.arange(len(self)), ends
        found = [(ends == self._last).astype(np.float64), self._quality[places]]
        return found if self._totals is None else [*found, self._totals[places]]

    def _swept(self, limits: _Floats) -> list[list[float]]:
        """Return the mean figures at each threshold of a single gate between two tiers, all in one sweep.

        Rows change sides one after the other as the threshold rises past their scores.
        """
        low, high = (self._values(self.gates.ends(self._said, (end,))) for end in (-np.inf, np.inf))
        order = np.argsort(self._said[:, 0], kind="stable")
        side: Any = "right" if self.gates.is_strict else "left"
        n_below = np.searchsorted(self._said[order, 0], limits, side=side)
        sums = [
            one.sum() + np.append(0.0, np.cumsum((other - one)[order]))[n_below]
            for one, other in zip(low, high, strict=True)
        ]
        return (np.transpose(sums) / len(self)).tolist()  # type: ignore[no-any-return]  # rows of floats

    @cached_property
    def _said(self) -> _Floats:
        said: _Floats = self.scores.to_numpy(dtype="float64")
        return said

    @cached_property
    def _quality(self) -> _Floats:
        quality: _Floats = self.quality.to_numpy(dtype="float64")
        return quality

    @cached_property
    def _totals(self) -> _Floats | None:
        """What a row takes that ends in each tier: a route asks one, a cascade all before it too."""
        if self.costs is None:
            return None
        costs: _Floats = self.costs.to_numpy(dtype="float64", copy=True)
        if not self.gates.is_route:
            np.cumsum(costs, axis=1, out=costs)
        return costs

    @property
    def _last(self) -> int:
        return self.gates.n_tiers - 1


def _table(values: Any, name: str, index: pd.Index[Any] | None) -> pd.DataFrame:
    """Return values as a table of floats."""
    is_labelled = isinstance(values, pd.DataFrame | pd.Series)
    if isinstance(values, Mapping):
        parts = [one for one in values.values() if isinstance(one, pd.Series)]
        is_labelled = len(parts) == len(values) > 0
        if any(not one.index.equals(parts[0].index) for one in parts):
            msg = f"{name} have to be of the same rows, in the same order: their labels differ"
            raise SetupError(msg)
    try:
        frame = pd.DataFrame(values)
        columns = [
            pd.to_numeric(frame.iloc[:, at]).to_numpy("float64", na_value=np.nan) for at in range(frame.shape[1])
        ]
    except (TypeError, ValueError) as error:
        msg = f"{name} have to be numbers, a column for each tier: {error}"
        raise SetupError(msg) from error
    if index is not None and (len(frame) != len(index) or (is_labelled and not frame.index.equals(index))):
        msg = f"{name} have to be of the same rows as quality, in the same order: {len(frame)} and {len(index)} rows"
        raise SetupError(msg)
    found = pd.DataFrame(dict(enumerate(columns)), index=frame.index if index is None else index)
    if np.isposinf(found.to_numpy()).any() or (name != "scores" and np.isinf(found.to_numpy()).any()):
        msg = f"{name} have to be finite numbers: one is infinite"
        raise SetupError(msg)
    found.columns = frame.columns
    return found


def _around(seen: Interval, said: Any) -> str:
    around = "" if seen.low is None or seen.high is None else f" [{said(seen.low)}, {said(seen.high)}]"
    return f"{said(seen.mean)}{around}"
