"""Rank and fuse: a judge compares all answers in pairs, and an aggregator joins the best ones."""

from __future__ import annotations

from pydantic import Field

from moa_nb.errors import Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.spec import Agent, Agents, OneAgent, Params
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.strategies.judge import compare

__all__ = ["RankAndFuse", "rank_and_fuse"]


class RankAndFuse(Params):
    """Who answers, who compares, who joins, and how many are joined."""

    proposers: Agents = (Agent(model="$proposers", temperature=0.7),)
    """Who answers; n of them make n(n-1) comparisons."""
    judge: OneAgent = Agent(model="$judge", temperature=0)
    """Who compares two answers, in both orders."""
    aggregator: OneAgent = Agent(model="$aggregator")
    """Who joins the best answers into one."""
    top: int = Field(3, ge=1)
    """How many of the best answers are joined."""

    def judging(self) -> tuple[Agent, ...]:
        """Return who compares."""
        return (self.judge,)


@strategy("rank-and-fuse", params=RankAndFuse)
async def rank_and_fuse(task: Task, params: RankAndFuse, ask: Ask) -> Candidate:
    """LLM-Blender (Jiang et al. 2023, arXiv 2306.02561, sections 3 and 4), with language models for its trained parts.

    PairRM's matrix is a judge's verdicts on all ordered pairs, GenFuser an aggregator that reads the best three, the
    best first: n + n(n-1) + 1 calls. Both orders of a pair are settled before they count, so that a judge who chooses
    by place moves nobody; equals keep the order of their declaration. If they cannot be joined, the best one is the
    answer.
    """
    answers = await ask.layer("answers", params.proposers)
    rankings = await compare(ask, [params.judge], answers)
    order = rankings[0].order if rankings else range(len(answers))
    if not rankings and len(answers) > 1:
        ask.flag("the answers could not be compared: they stand in the order of their agents", degraded=True)
    best = ask.pick(answers, order[: params.top])
    ask.flag(f"joined: {', '.join(one.agent for one in best)}")
    try:
        return await ask.one("fusion", params.aggregator, see=best, template="fuse/fuse")
    except Unanswered:
        ask.flag("the best answers could not be joined: the best one is the answer", degraded=True)
        return best[0]
