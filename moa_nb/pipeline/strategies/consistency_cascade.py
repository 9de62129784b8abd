"""Consistency cascade: a small model answers several times, and a strong one only where it contradicts itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.parse import parser
from moa_nb.pipeline.spec import Agent, Agents, Params
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.strategies.cascade import Judgement, climb
from moa_nb.pipeline.vote import plurality, unanimous

__all__ = ["ConsistencyCascade", "consistency_cascade"]


class ConsistencyCascade(Params):
    """Who answers in which tier, how often and in which ways, and how consistent that has to be."""

    tiers: Agents = (Agent(model="$small", temperature=0.7), Agent(model="$strong"))
    """Who answers, the cheapest first; the last one once."""
    samples: int = Field(5, ge=1, le=1000)
    """How often each tier but the last answers in each of the ways."""
    ways: tuple[str | None, ...] = Field(("cascade/steps", "cascade/program"), min_length=1)
    """Templates that say how the question is to be worked out; ``None``: the bare question."""
    gate: Literal["vote", "ways"] = "vote"
    """``vote``: all answers vote, and ``agree`` of them have to; ``ways``: the winners of the ways are the same."""
    agree: float = Field(0.8, ge=0, le=1)
    """The share of all answers that has to agree (>=). Documented default: the paper tries several."""
    answer: str | list[str] | Callable[[str], Any] | None = "number"
    """How an answer's value is read."""

    @model_validator(mode="after")
    def _compares(self) -> ConsistencyCascade:
        parser(self.answer)
        if self.gate == "ways" and len(self.ways) < 2:
            msg = "gate = 'ways' compares the answers of at least two ways"
            raise ValueError(msg)
        return self

    def override(self, *, samples: int | None = None, **others: Any) -> Self:
        """Return the parameters with another number of ``samples`` in each way, or other sampling."""
        return super().override(**others).having(samples=samples)


@strategy("consistency-cascade", params=ConsistencyCascade)
async def consistency_cascade(task: Task, params: ConsistencyCascade, ask: Ask) -> Candidate:
    """Cascades with a mixture of thoughts (Yue et al. 2023, arXiv 2310.03094, sections 3.2 and 3.3).

    The weak model answers several times, by steps and by a program; the answers are the test. Voting accepts the
    plurality if its share is large enough, verification if both ways come to the same. Else the strong model
    answers, once. s samples in w ways are s·w or s·w + 1 calls with two tiers. Programs are not run here: the model
    states what its own comes to. What cannot be read, or did not come, agrees with nothing.
    """
    read = parser(params.answer)

    async def attempt(number: int, agent: Agent) -> tuple[Candidate, Judgement | None]:
        if number == len(tiers):
            return await ask.one(f"tier {number}", agent, parse=read), None
        drawn = [
            Question(agent.changed(name=f"{agent.label} {draw}"), template=None if task.form else way)
            for draw, way in enumerate((way for way in params.ways for _ in range(params.samples)), start=1)
        ]
        answers = await ask.each(f"tier {number}", drawn, parse=read)
        values = [None if answer is None else answer.value for answer in answers]
        vote = plurality(values)
        at = vote.winner if vote.winner is not None else next(at for at, one in enumerate(answers) if one is not None)
        winner = answers[at]
        assert winner is not None  # it has a value, or is the first there is
        is_same = unanimous([plurality(part).value for part in _parts(values, params.samples)])
        if params.gate == "vote":
            ask.flag(f"tier {number}: {vote.share_of_all:.0%} agree, {params.agree:.0%} asked for")
        accepted = is_same if params.gate == "ways" else vote.share_of_all >= params.agree
        return replace(winner, agent=agent.label), Judgement(vote.share_of_all, accepted=accepted)

    tiers = ask.agents(params.tiers)
    return await climb(ask, tiers, attempt)


def _parts(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Return the values in parts of one size: those of each way."""
    return [values[at : at + size] for at in range(0, len(values), size)]
