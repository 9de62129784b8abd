"""Where a question ends in a route or a cascade, as its thresholds and what its gates see have it: the strategies' rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import Any, TypeAlias

import numpy as np

from moa_nb.errors import SetupError, nearest
from moa_nb.pipeline.routing import is_function
from moa_nb.pipeline.spec import Agent, Pipeline
from moa_nb.plain import quoted

__all__ = ["CLOSED", "Gates", "Thresholds", "gates_of"]

Thresholds: TypeAlias = "float | Sequence[float]"
"""One threshold, or several: as the pipeline's parameter takes them."""

CLOSED = {
    "cascade": "accept_above=math.inf",
    "automix": "accept_above=1, hopeless_below=0",
    "consistency-cascade": "agree=1",
    "pyramid": "agree=1",
}
"""What lets each row go through all tiers."""

_MOST = 10_000
"""Combinations of thresholds that are tried."""

_Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
_Places: TypeAlias = np.ndarray[Any, np.dtype[np.intp]]
_Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Gates:
    """The gates of one pipeline with so many tiers."""

    strategy: str
    parameter: str
    """What its thresholds are called."""
    n_tiers: int
    is_strict: bool = False
    """Whether a score has to be above its threshold, or only to reach it."""
    is_shared: bool = False
    """Whether one threshold, in [0, 1], holds for all tiers."""
    hopeless_below: float = -math.inf
    """The score below which an answer stands, though it is not accepted."""
    fallback: int = 0
    """Where a route sends what its router says nothing of."""

    @property
    def is_route(self) -> bool:
        """Whether one score says which tier answers, and no other is asked."""
        return self.strategy == "route"

    @property
    def n_scores(self) -> int:
        """How many scores a row has."""
        return 1 if self.is_route else self.n_tiers - 1

    @property
    def n_thresholds(self) -> int:
        """How many thresholds there are."""
        return 1 if self.is_shared else self.n_tiers - 1

    def limits(self, thresholds: Thresholds) -> tuple[float, ...]:
        """Return thresholds as numbers, as many as there are gates.

        Raises:
            SetupError: they are no numbers, more or fewer, or a route's do not rise.
        """
        try:
            is_one = np.ndim(np.asarray(thresholds)) == 0
            several: list[float] = np.atleast_1d(np.asarray(thresholds, dtype=np.float64)).tolist()
        except (TypeError, ValueError):
            several = [math.nan]
        if any(math.isnan(one) for one in several):
            msg = f"{self.parameter}: a threshold is a number, not {quoted(thresholds)}"
            raise SetupError(msg)
        if self.strategy == "cascade":
            # One for all, or one more: the last tier's own only says whether its answer counts as accepted.
            several = several * (self.n_tiers - 1) if is_one else several
            several = several[:-1] if len(several) == self.n_tiers else several
        if len(several) != self.n_thresholds:
            msg = f"{self.parameter}: {self.n_thresholds} for {self.n_tiers} tiers, not {len(several)}"
            raise SetupError(msg)
        if self.is_route and several != sorted(several):
            msg = f"{self.parameter}: a route's thresholds rise, and {several} do not"
            raise SetupError(msg)
        return tuple(several)

    def ends(self, scores: _Floats, limits: Sequence[float]) -> _Places:
        """Return the tier whose answer stands for each row of ``scores``, from 0."""
        if self.is_route:
            at = np.searchsorted(np.asarray(limits), scores[:, 0], side="right")
            return np.where(np.isnan(scores[:, 0]), self.fallback, at)
        stops = scores > np.asarray(limits) if self.is_strict else scores >= np.asarray(limits)
        stops |= scores < self.hopeless_below
        return np.where(stops.any(axis=1), stops.argmax(axis=1), self.n_tiers - 1)

    def needed(self, scores: _Floats) -> _Mask:
        """Return, row by row, which tiers some thresholds may ask: none behind full agreement, which always stops."""
        reached = np.ones((len(scores), self.n_tiers), dtype=bool)
        if self.is_shared and not self.is_strict:
            reached[:, 1:] = np.cumsum(scores >= 1, axis=1) == 0
        return reached

    def candidates(self, scores: _Floats) -> tuple[list[tuple[float, ...]], str]:
        """Return the thresholds that are worth trying on these rows, and in words which they are.

        Thresholds between two scores all do the same, so these are the scores themselves, and one beyond them; of
        several gates every combination. Beyond 10,000 of these, each gate has quantiles of its scores instead.
        """
        columns = [scores.ravel()] if self.is_shared else [*scores.T]
        columns = [one[~np.isnan(one)] for one in columns]
        n = self.n_thresholds
        values = [self._parting(np.unique(one)) for one in columns]
        n_all = math.comb(len(values[0]) + n - 1, n) if self.is_route else math.prod(map(len, values))
        words = f"all {n_all:,} {'thresholds' if n == 1 else 'combinations of thresholds'}"
        if n_all > _MOST:
            # Rising thresholds are fewer than all: about one combination in n!.
            most = int((_MOST * math.factorial(n)) ** (1 / n)) - n if self.is_route else int(_MOST ** (1 / n))
            shares = np.linspace(0, 1, most - 1)
            values = [
                self._parting(np.unique(np.quantile(one, shares, method="nearest")) if len(one) else one)
                for one in columns
            ]
            words = f"a grid of up to {most:,} quantiles of each gate's scores, exact on the grid"
        return list(combinations_with_replacement(values[0], n) if self.is_route else product(*values)), words

    def _parting(self, values: _Floats) -> list[float]:
        """Return the thresholds that part rising scores: themselves and one beyond them, as far as they are allowed."""
        if self.is_shared:
            low = max(0.0, self.hopeless_below)
            return sorted({low if self.is_strict else 1.0, *(one for one in map(float, values) if low <= one <= 1)})
        return sorted({-math.inf if self.is_strict else math.inf, *map(float, values)})


def gates_of(pipeline: Pipeline, n_tiers: int) -> tuple[Gates, tuple[float, ...]]:
    """Return a pipeline's gates, and its own thresholds.

    Raises:
        SetupError: it has none, or another number of tiers.
    """
    params: Any = pipeline.params
    if pipeline.strategy == "route":
        _check_router(params.router)
        names = params.names
        fallback = len(names) - 1 if params.fallback is None else names.index(params.fallback)
        gates, own, tiers = Gates("route", "thresholds", n_tiers, fallback=fallback), params.limits, params.ways
    elif pipeline.strategy == "cascade":
        gates, own, tiers = Gates("cascade", "accept_above", n_tiers, True), params.accept_above, params.tiers
    elif pipeline.strategy == "automix":
        gates = Gates("automix", "accept_above", n_tiers, True, True, params.hopeless_below)
        own, tiers = params.accept_above, params.tiers
    elif pipeline.strategy == "consistency-cascade" and params.gate == "vote":
        gates, own, tiers = Gates(pipeline.strategy, "agree", n_tiers, False, True), params.agree, params.tiers
    elif pipeline.strategy == "pyramid":
        gates, own = Gates("pyramid", "agree", n_tiers, False, True), params.agree
        tiers = ("base", params.oracle)
    else:
        msg = f"{pipeline.name!r} has no threshold to calibrate; {nearest(pipeline.strategy, ('route', *CLOSED))}"
        raise SetupError(msg)
    if n_tiers != len(tiers) and all(getattr(tier, "model", "") != "$proposers" for tier in tiers):
        msg = f"{pipeline.name!r} has {len(tiers)} tiers, and quality {n_tiers} columns: pass pipeline= with as many"
        raise SetupError(msg)
    return gates, gates.limits(own)


def _check_router(router: Any) -> None:
    if isinstance(router, tuple) or (isinstance(router, Agent) and not is_function(router)):
        msg = (
            "this router names a way and needs no threshold: pass the pipeline whose router says a score, such as "
            "moa.Pipeline(strategy='route', router={'column': 'score'})"
        )
        raise SetupError(msg)
