"""What a reader is shown of a comparison of pipelines on the rows of a frame: plain figures.

A view knows nothing of HTML and nothing of frames. Whoever has compared fills one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DifferenceView", "EvaluationView", "JudgeView", "MeasureKind", "PairView", "PipelineView"]

MeasureKind = Literal["share", "metric", "rating"]


@dataclass(frozen=True, slots=True)
class PipelineView:
    """One pipeline over all rows."""

    name: str
    quality: float | None = None
    """In the unit of ``EvaluationView.measure``; ``None`` where no row has one."""
    low: float | None = None
    """The lower end of its interval; ``None`` where there is none."""
    high: float | None = None
    n_judged: int = 0
    """Rows that have a quality."""
    cost_per_row: float | None = None
    """Dollars a row when the pipeline runs alone with nothing in the cache; 0 is free, ``None`` an unknown price."""
    cost: float | None = None
    """Dollars for all rows, likewise."""
    seconds_per_row: float | None = None
    """The median of rows that were asked; ``None`` where nobody knows it, as when all came from the cache."""
    prompt_tokens_per_row: float | None = None
    """The mean; ``None`` is not reported."""
    completion_tokens_per_row: float | None = None
    estimated: bool = False
    """Some of these tokens are estimates."""
    n_calls: int | None = 0
    """Calls for all rows."""
    n_failed: int = 0
    """Rows without an answer."""
    n_degraded: int = 0
    """Rows with an answer that is degraded."""
    on_cost_front: bool = False
    """No other pipeline is at most as dear and at least as good, one of them strictly."""
    on_time_front: bool = False
    """Likewise for seconds."""
    cost_is_at_least: bool = False
    """Some call was paid for, and its service never said how much it took."""


@dataclass(frozen=True, slots=True)
class PairView:
    """How one pipeline fared against another; each pair stands here once, in either direction."""

    one: str
    other: str
    share: float | None
    """Of the points of this pair, those that ``one`` won, in [0, 1], a tie being half; ``None`` without a verdict."""
    n: int
    """Rows on which both were compared and a verdict could be read."""
    ties: int = 0
    """Of these rows: those without a winner, flipped verdicts included."""


@dataclass(frozen=True, slots=True)
class DifferenceView:
    """A paired test: on the rows that both have, how much better one pipeline is than another."""

    one: str
    other: str
    by: float
    """Mean of ``one`` less mean of ``other``, in the unit of the measure."""
    low: float | None
    high: float | None
    p: float | None
    """``None`` where there were too few rows for a test."""
    n: int
    """Rows that both have."""
    p_holm: float | None = None
    """Corrected for all tests of this view; ``None`` where only one was made."""

    @property
    def p_said(self) -> float | None:
        """The value to go by: the corrected one where there is one."""
        return self.p if self.p_holm is None else self.p_holm


@dataclass(frozen=True, slots=True)
class JudgeView:
    """How far one judge can be trusted; every share is in [0, 1], and ``None`` where there was nothing to see it by."""

    model: str
    n_verdicts: int
    """Verdicts or ratings asked for."""
    n_unreadable: int = 0
    """Of these: those that could not be read."""
    flip_rate: float | None = None
    """Of the pairs shown in both orders: those whose verdict went with the place, not with the answer."""
    n_swapped: int = 0
    """Pairs shown in both orders, both verdicts read."""
    first_wins: float | None = None
    """Of the verdicts with a winner: those for the answer shown first."""
    longer_wins: float | None = None
    """Of the pairs with a winner and answers of unequal length: those that the longer one won."""
    n_unequal: int = 0
    """How many pairs these are."""
    own_wins: float | None = None
    """Of the pairs with a winner in which one answer is by the judge's own model: those that this one won."""
    n_own: int = 0
    kappa: float | None = None
    """Agreement with people's labels, Cohen's kappa, -1 to 1."""
    n_labelled: int = 0


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """Several pipelines on the same rows: how good, how sure, how dear, how slow."""

    column: str
    """What was asked about: a column's name, or a template's."""
    rows: int
    pipelines: tuple[PipelineView, ...]
    """In the order in which they were named; they are shown by quality."""
    measure: MeasureKind = "share"
    """What quality is: a share of the points won against the others, 0 to 1; a metric; a rating from 1 to 10."""
    metric: str = ""
    """The metric's name."""
    baseline: str = ""
    """The pipeline that the others are held against; empty for the first."""
    confidence: float = 0.95
    """Of all intervals; a test whose p is below ``1 - confidence`` counts as settled."""
    reservations: tuple[str, ...] = ()
    """Sentences that take something back from the answer on top; they stand right below it."""
    pairs: tuple[PairView, ...] = ()
    differences: tuple[DifferenceView, ...] = ()
    judges: tuple[JudgeView, ...] = ()
    """Nothing where a metric measured."""
    reference: str = ""
    """The column of reference answers; empty without."""
    unsaid: tuple[str, ...] = ()
    """Sentences: what these rows cannot tell."""
    answers_cost: float | None = 0.0
    """Dollars paid now for the answers; ``None`` where a price is not known."""
    answers_saved: float = 0.0
    """Dollars that answers out of the cache once took."""
    judging_cost: float | None = 0.0
    """Dollars paid now for judging; ``None`` where a price is not known."""
    judging_saved: float = 0.0
    judging_calls: int = 0
    """Calls of judges, cached ones included."""
    judging_cached: int = 0
    cost_is_at_least: bool = False
    """Some of these calls were paid for, and their service never said how much they took."""
    seconds: float | None = None
    """From the beginning to the end, judging included."""
    notes: tuple[str, ...] = ()
    """Sentences that a reader needs to read the figures rightly."""

    @property
    def against(self) -> PipelineView | None:
        """The baseline; ``None`` without any pipeline."""
        named = (one for one in self.pipelines if one.name == self.baseline)
        return next(named, self.pipelines[0] if self.pipelines else None)

    @property
    def ranked(self) -> tuple[PipelineView, ...]:
        """The pipelines, the best first, those without a quality last; equals as they were named."""
        return tuple(sorted(self.pipelines, key=lambda one: (one.quality is None, -(one.quality or 0.0))))

    @property
    def cost(self) -> float | None:
        """Dollars paid now, for answers and judging; ``None`` where a price is not known."""
        if self.answers_cost is None or self.judging_cost is None:
            return None
        return self.answers_cost + self.judging_cost

    def difference(self, one: str, other: str) -> DifferenceView | None:
        """Return the test of ``one`` against ``other``, whichever way round it was made; ``None`` without."""
        for made in self.differences:
            if (made.one, made.other) == (one, other):
                return made
            if (made.one, made.other) == (other, one):
                low, high = (None if end is None else -end for end in (made.high, made.low))
                return DifferenceView(one, other, -made.by, low, high, made.p, made.n, made.p_holm)
        return None

    def is_settled(self, test: DifferenceView) -> bool:
        """Return whether a test found a difference that chance alone would seldom make."""
        return test.p_said is not None and test.p_said < round(1 - self.confidence, 9)

    def pair(self, one: str, other: str) -> PairView | None:
        """Return how ``one`` fared against ``other``; ``None`` where they were not compared."""
        for made in self.pairs:
            if (made.one, made.other) == (one, other):
                return made
            if (made.one, made.other) == (other, one):
                return PairView(one, other, None if made.share is None else 1 - made.share, made.n, made.ties)
        return None
