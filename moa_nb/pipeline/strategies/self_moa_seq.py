"""Self-MoA in sequence: many samples of one model, folded into one answer a window at a time."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from moa_nb.errors import Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.spec import Agent, Agents, OneAgent, Params, sampled
from moa_nb.pipeline.strategies import strategy

__all__ = ["SelfMoaSeq", "self_moa_seq"]

_SAMPLES = 16


def _sampled(agents: tuple[Agent, ...]) -> tuple[Agent, ...]:
    return tuple(agent if agent.samples else agent.changed(samples=_SAMPLES) for agent in agents)


class SelfMoaSeq(Params):
    """Who is sampled, who folds, and how many answers a fold reads."""

    proposers: Annotated[Agents, AfterValidator(_sampled)] = (
        Agent(model="$aggregator", temperature=0.7, samples=_SAMPLES),
    )
    """Who is sampled, ``samples`` times each, 16 if it says nothing; of several the answers follow one another."""
    aggregator: OneAgent = Agent(model="$aggregator", temperature=0)
    """Who folds."""
    window: int = Field(6, ge=2)
    """How many answers a fold reads at most."""
    carry: int = Field(1, ge=1)
    """How many places of the window the answer so far takes; it stands there as often, and weighs as much."""

    @model_validator(mode="after")
    def _takes_something_new(self) -> SelfMoaSeq:
        if self.carry >= self.window:
            msg = f"carry is less than window, so that each fold reads new answers: not {self.carry} of {self.window}"
            raise ValueError(msg)
        return self

    def override(self, *, samples: int | None = None, **others: Any) -> Self:
        """Return the parameters with another number of samples, or other sampling."""
        changed = super().override(**others)
        return changed.having(proposers=sampled(changed.proposers, samples))


@strategy("self-moa-seq", params=SelfMoaSeq)
async def self_moa_seq(task: Task, params: SelfMoaSeq, ask: Ask) -> Candidate:
    """Self-MoA-Seq (Li et al. 2025, arXiv 2502.00674): a window slides over the samples, the answer so far stays in it.

    So any number of samples fits into the aggregator's context. n samples are n + 1 + ⌈(n - window) / (window - carry)⌉
    calls. A window of 6, a carry of 1, 16 samples and the fold's temperature of 0 are our defaults, not the paper's.
    A fold that fails leaves the answer so far as it is.
    """
    queue = samples = await ask.layer("samples", params.proposers)
    best: Candidate | None = None
    failure: Unanswered | None = None
    number = 0
    while queue:
        number += 1
        n_new = params.window if best is None else params.window - params.carry
        taken, queue = queue[:n_new], queue[n_new:]
        carried = [] if best is None else [best] * params.carry
        try:
            best = await ask.one(f"fold {number}", params.aggregator, see=[*carried, *taken])
        except Unanswered as error:
            failure = error
            ask.flag(f"fold {number} failed, and with it {len(taken)} of {len(samples)} samples", degraded=True)
    if best is None:
        assert failure is not None
        raise failure
    return best
