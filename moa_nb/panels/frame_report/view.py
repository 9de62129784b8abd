"""What a reader is shown of a run over the rows of a frame: plain figures.

A view knows nothing of HTML and nothing of frames. Whoever has the rows fills one; while they go on,
it holds what is known so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BELOW",
    "AgreementView",
    "FailureView",
    "LatencyView",
    "ModelView",
    "ReportView",
    "RowView",
    "RunState",
]

RunState = Literal["waiting", "running", "done", "stopped", "failed"]

BELOW = 0.6
"""Rows whose agents agree less than this, in [0, 1], are worth a person's look."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """The calls of one model in one layer."""

    layer: str
    model: str
    calls: int
    cached: int
    """Of the calls: those that the store answered."""
    failed: int
    prompt_tokens: int
    """Of calls that were sent, as reported."""
    completion_tokens: int
    cost: float | None
    """Dollars of calls that were sent; ``None`` where a price is not known."""
    mean_seconds: float | None
    """Of a call that was sent; ``None`` where none was."""
    estimated: bool = False
    """Whether tokens of some call are estimates, since its service reports none."""


@dataclass(frozen=True, slots=True)
class LatencyView:
    """How long answered rows took for which something was sent, in seconds."""

    edges: tuple[float, ...]
    """Where the bars begin; each ends where the next begins."""
    step: float
    """How wide a bar is."""
    counts: tuple[int, ...]
    """Rows for each bar, which has its lower edge and not its upper one; the last has all that is longer."""
    median: float
    p95: float
    """What 95 of 100 rows did not pass, between neighbours by a straight line."""
    longest: float

    @property
    def n_rows(self) -> int:
        """How many rows these are."""
        return sum(self.counts)

    def bar_of(self, seconds: float) -> int:
        """Return which bar a duration is in, from 0."""
        return max(0, sum(edge <= seconds for edge in self.edges) - 1)


@dataclass(frozen=True, slots=True)
class AgreementView:
    """How far the agents of rows agree, in [0, 1]."""

    counts: tuple[int, ...]
    """Rows for each tenth, which has its lower end and not its upper one; the last has 1 too."""
    n_below: int
    """Rows below ``BELOW``."""
    n_uncompared: int = 0
    """Answered rows of which nobody knows it: not compared yet, or one agent answered alone."""

    @property
    def n_rows(self) -> int:
        """How many rows were compared."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class FailureView:
    """Rows without an answer, of one kind of error."""

    kind: str
    n_rows: int
    label: str
    """The first row's label in the index."""
    error: str
    """The first row's."""


@dataclass(frozen=True, slots=True)
class RowView:
    """One row, and what came out."""

    label: str
    state: str
    values: tuple[str | None, ...]
    """One for each column; ``None`` is missing."""


@dataclass(frozen=True, slots=True)
class ReportView:
    """A run over rows as its report shows it. Calls, tokens, dollars and seconds are this run's."""

    verb: str
    column: str
    """What is asked about; empty for a template."""
    pipeline: str
    """Empty until it is chosen."""
    state: RunState
    rows: int
    states: tuple[tuple[str, int], ...]
    """Rows in each state, in a fixed order; ``still to come`` while it goes on."""
    degraded: int = 0
    """Of the answered rows: those of which an agent failed."""
    noun: str = "row"
    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    """Of calls that were sent, as reported; without ``models``, of all calls."""
    completion_tokens: int = 0
    is_estimated_by_rows: bool = False
    """Without ``models``: whether some of the tokens are known to be estimates."""
    tokens_are_at_least: bool = False
    """Some answered row's services did not report all of them."""
    cost: float | None = 0.0
    """Dollars; ``None`` where a call's price is not known."""
    cost_is_at_least: bool = False
    """Some call was paid for, and its service never said how much it took."""
    projected_cost: float | None = None
    """Dollars in the end, if the rows go on as they began; ``None`` when they are over, or unpriced."""
    saved: float = 0.0
    """Dollars that the cached answers took when they were asked."""
    budget: str | None = None
    """How far it is used up, in words; ``None`` without one."""
    seconds: float = 0.0
    rows_per_second: float | None = None
    """``None`` where some rows were over before."""
    unsent: int = 0
    """Calls counted in ``calls`` that are no model's, since the budget or a stop kept them from going out."""
    earlier_calls: int = 0
    """Calls of rows that an earlier run answered; the report has them, the figures here have not."""
    error: str | None = None
    """What ended the run early."""
    models: tuple[ModelView, ...] = ()
    """Nothing for a run of an earlier session, of which only the rows are kept."""
    latency: LatencyView | None = None
    """``None`` where no answered row sent anything."""
    cached_rows: int = 0
    """Answered rows of which the store had every call."""
    cached_seconds: float | None = None
    """Their median."""
    agreement: AgreementView | None = None
    """``None`` where nothing was compared."""
    failures: tuple[FailureView, ...] = ()
    """The commonest first."""
    index: str = ""
    """The index's name."""
    columns: tuple[str, ...] = ()
    """What the verb returns; as many values has each row of ``head``."""
    head: tuple[RowView, ...] = ()
    """The first rows."""
    run_id: str = ""
    """Its name in ``moa.runs()``."""

    @property
    def estimated(self) -> bool:
        """Whether some of the tokens are estimates."""
        return self.is_estimated_by_rows or any(one.estimated for one in self.models)

    @property
    def n_over(self) -> int:
        """Rows that need no more asking."""
        return sum(number for state, number in self.states if state in {"done", "failed", "skipped", "duplicate"})

    @property
    def was_asked(self) -> bool:
        """Whether anybody was: a run that never began has neither times nor an agreement."""
        return self.calls > 0 or self.latency is not None or self.agreement is not None

    @property
    def goes_on(self) -> bool:
        """Whether there is more to come."""
        return self.state in {"waiting", "running"}
