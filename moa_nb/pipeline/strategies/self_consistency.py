"""Self-consistency: one model answers many times, and what most of its answers come to wins."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator

from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.spec import Agent, Agents, Params, sampled
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.voting import Voting, elected

__all__ = ["Sampled", "SelfConsistency", "self_consistency"]

_SAMPLES = 9


def _sampled(agents: tuple[Agent, ...]) -> tuple[Agent, ...]:
    return tuple(agent if agent.samples else agent.changed(samples=_SAMPLES) for agent in agents)


class Sampled(Params):
    """Who is sampled, and how often."""

    proposers: Annotated[Agents, AfterValidator(_sampled)] = (
        Agent(model="$aggregator", temperature=0.7, samples=_SAMPLES),
    )
    """Who is sampled, ``samples`` times each, 9 if it says nothing; usually one model."""

    def override(self, *, samples: int | None = None, **others: Any) -> Self:
        """Return the parameters with another number of samples, or other sampling."""
        changed = super().override(**others)
        return changed.having(proposers=sampled(changed.proposers, samples))


class SelfConsistency(Sampled, Voting):
    """Who is sampled, how often, and how the answers are read."""


@strategy("self-consistency", params=SelfConsistency)
async def self_consistency(task: Task, params: SelfConsistency, ask: Ask) -> Candidate:
    """Self-consistency (Wang et al. 2022, arXiv 2203.11171, section 2): argmax over a of Σ_i 1(a_i = a), of n samples.

    What cannot be read abstains. The paper draws up to 40 samples at temperature 0.7; 9 is ours. Free text has no
    equals to count: there the sample that is most like the others is the answer, which takes no call either.
    """
    samples = await ask.each("samples", params.opening(ask, ask.agents(params.proposers)), parse=params.parse)
    return elected([sample for sample in samples if sample is not None], params, ask)
