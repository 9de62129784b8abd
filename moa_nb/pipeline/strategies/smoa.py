"""Sparse Mixture-of-Agents: of each round's answers only those go on that a moderator chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field

from moa_nb.errors import Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.parse import structured
from moa_nb.pipeline.spec import Agent, Agents, OneAgent, Params
from moa_nb.pipeline.strategies import strategy

__all__ = ["Choice", "Smoa", "choice_among", "smoa"]


class Smoa(Params):
    """Who answers in which role, who moderates, who writes, and how many answers go on."""

    proposers: Agents = (Agent(model="$proposers", temperature=0.7),)
    """Who answers in every round."""
    roles: tuple[str, ...] = ()
    """What agents without a ``system`` of their own are told that they are, one after the other, over again if need be."""
    moderator: OneAgent = Agent(model="$judge", temperature=0.7)
    """Who chooses the answers that go on, and says when it is enough."""
    aggregator: OneAgent = Agent(model="$aggregator", temperature=0.7)
    """Who writes the one answer in the end."""
    keep: int = Field(2, ge=1)
    """How many answers go on from each round."""
    rounds: int = Field(2, ge=1, le=50)
    """How many rounds of answers there are at most."""

    def override(self, *, layers: int | None = None, **others: Any) -> Self:
        """Return the parameters with another number of rounds (``layers``), or other sampling."""
        return super().override(**others).having(rounds=layers)

    def judging(self) -> tuple[Agent, ...]:
        """Return who chooses."""
        return (self.moderator,)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a moderator says of a round."""

    keep: tuple[int, ...]
    """The positions of the answers that go on, from 0, the best first."""
    end: bool
    """Whether another round would add nothing."""


@strategy("smoa", params=Smoa)
async def smoa(task: Task, params: Smoa, ask: Ask) -> Candidate:
    """SMoA (Li et al. 2024, arXiv 2411.03284): agents in roles, their answers thinned out, an end as soon as they suffice.

    Each round every agent answers, in sight of the answers that the round before it kept; a moderator chooses those
    that go on and may end the rounds; an aggregator reads the last ones chosen. N agents are N + 1 calls a round, and
    one in the end. Roles are declared, not generated. A choice that cannot be read is no random one, as in the
    published code: the first answers go on, and the result says so.
    """
    agents = [_in_role(agent, at, params.roles) for at, agent in enumerate(ask.agents(params.proposers))]
    kept: list[Candidate] = []
    for number in range(1, params.rounds + 1):
        try:
            found = await ask.each(f"round {number}", [Question(agent, see=kept) for agent in agents])
        except Unanswered:
            if not kept:
                raise
            ask.flag(f"round {number} failed: the answers of round {number - 1} stand", degraded=True)
            break
        answers = [answer for answer in found if answer is not None]
        choice = await _choice(params, ask, number, answers)
        kept = ask.pick(answers, choice.keep)
        if number < params.rounds and not ask.decide("another round", not choice.end):
            ask.flag(f"the moderator ended it after round {number}", stop_reason="the moderator")
            break
    return await ask.one("synthesis", params.aggregator, see=kept)


async def _choice(params: Smoa, ask: Ask, number: int, answers: list[Candidate]) -> Choice:
    """Return the moderator's choice; the first answers and no end where there is none."""
    keep = min(params.keep, len(answers))
    name = f"round {number}: moderation"
    try:
        said = await ask.one(
            name,
            params.moderator,
            see=answers,
            template="smoa/moderate",
            place="alone",
            values={"keep": keep},
            parse=choice_among(len(answers), keep),
            aside=True,
        )
        if isinstance(said.value, Choice):
            return said.value
    except Unanswered:
        pass
    which = "answer goes" if keep == 1 else f"{keep} answers go"
    ask.flag(f"{name} made no choice: the first {which} on", degraded=True)
    return Choice(tuple(range(keep)), end=False)


def choice_among(n: int, keep: int) -> Callable[[str], Choice | None]:
    """Return what reads a moderator's choice of ``keep`` among ``n`` answers; of more the first ones count.

    It reads ``None`` from a text without such an object, with fewer answers, or with one that is not there.

    >>> choice_among(4, 2)('I take {"keep": [3, 1], "end": true}')
    Choice(keep=(2, 0), end=True)
    """

    def read(text: str) -> Choice | None:
        found = structured(text, keys=("keep", "end"))
        if not isinstance(found, dict) or not isinstance(found["end"], bool) or not isinstance(found["keep"], list):
            return None
        chosen = list(dict.fromkeys(found["keep"])) if all(type(one) is int for one in found["keep"]) else []
        if len(chosen) < keep or not all(1 <= one <= n for one in chosen):
            return None
        return Choice(tuple(one - 1 for one in chosen[:keep]), found["end"])

    return read


def _in_role(agent: Agent, at: int, roles: tuple[str, ...]) -> Agent:
    return agent.changed(system=roles[at % len(roles)]) if roles and not agent.system else agent
