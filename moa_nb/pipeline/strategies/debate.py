"""Debate: agents answer, read each other's answers, answer again, and vote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field

from moa_nb.errors import Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.spec import Agent, Agents
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.voting import Voting, elected

__all__ = ["Debate", "begin", "debate", "others"]


class Debate(Voting):
    """Who debates, for how long, and how the answers are read."""

    proposers: Agents = (Agent(model="$proposers"),)
    """Who debates. A ``template`` is for the rounds after the first; it quotes the others' answers as ``references``."""
    rounds: int = Field(2, ge=1, le=50)
    """How often each answers; there is no end before."""

    def override(self, *, layers: int | None = None, **more: Any) -> Self:
        """Return the parameters with another number of rounds (``layers``), or other sampling."""
        return super().override(**more).having(rounds=layers)


@strategy("debate", params=Debate)
async def debate(task: Task, params: Debate, ask: Ask) -> Candidate:
    """Multiagent debate (Du et al. 2023, arXiv 2305.14325, section 2): A agents answer in R rounds, then they vote.

    Each agent has a dialogue of its own. From the second round on it is told what all others said in the round before,
    never what is said in the same one; who is alone is asked to check the answer. A·R calls. Three agents and two
    rounds are the paper's; its sampling is the service's own, as here. Who fails in a round keeps the earlier answer.
    """
    agents, answers = await begin(params, ask)
    for number in range(2, params.rounds + 1):
        questions = [
            Question(agent, see=others(answers, at), template="debate/revise", place="turn", after=answers[at])
            for at, agent in enumerate(agents)
        ]
        revised = await revise(number, questions, answers, params, ask)
        if revised is None:
            break
        answers = revised
    return elected(answers, params, ask)


async def begin(params: Debate, ask: Ask) -> tuple[list[Agent], list[Candidate]]:
    """Return who answered in the first round, and what; an agent's own template is not for that round."""
    agents = ask.agents(params.proposers)
    found = await ask.each("round 1", params.opening(ask, agents, own_template=False), parse=params.parse)
    pairs = [(agent, answer) for agent, answer in zip(agents, found, strict=True) if answer is not None]
    return [agent for agent, _ in pairs], [answer for _, answer in pairs]


async def revise(
    number: int, questions: Sequence[Question], answers: Sequence[Candidate], params: Debate, ask: Ask
) -> list[Candidate] | None:
    """Return each one's answer after a round, the earlier one where it failed; ``None`` if all did, which is said."""
    try:
        found = await ask.each(f"round {number}", questions, parse=params.parse)
    except Unanswered:
        ask.flag(f"round {number} failed: the answers of round {number - 1} stand", degraded=True)
        return None
    return [new or old for new, old in zip(found, answers, strict=True)]


def others(answers: Sequence[Candidate], at: int) -> list[Candidate]:
    """Return all answers but the one at a position, in their order."""
    return [*answers[:at], *answers[at + 1 :]]
