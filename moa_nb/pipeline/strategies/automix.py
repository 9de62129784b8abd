"""AutoMix: a small model verifies its own answer several times, and hands over what it does not trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from moa_nb.errors import Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.parse import correct
from moa_nb.pipeline.spec import Agent, Agents, OneAgent, Params
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.strategies.cascade import Judgement, climb

__all__ = ["AutoMix", "automix", "confidence"]


class AutoMix(Params):
    """Who answers in which tier, how often answers are verified, and what is handed over."""

    tiers: Agents = (Agent(model="$small"), Agent(model="$strong"))
    """Who answers, the cheapest first; the last one's answer is not verified."""
    verifier: OneAgent | None = None
    """Who verifies; each tier its own answer if ``None``."""
    draws: int = Field(8, ge=1, le=1000)
    """How often an answer is verified."""
    temperature: float = Field(1.0, ge=0, le=2)
    """That of the verifications, which have to differ."""
    accept_above: float = Field(0.75, ge=0, le=1)
    """The share of verdicts that call the answer correct above which (>) it is accepted. Documented default: the
    published code tunes it on labelled data."""
    hopeless_below: float = Field(0.0, ge=0, le=1)
    """The share below which (<) nothing is handed over, since a question so hard is not worth the price: the second
    threshold of the published code."""

    @model_validator(mode="after")
    def _leaves_room(self) -> AutoMix:
        if self.hopeless_below > self.accept_above:
            msg = f"hopeless_below is at most accept_above ({self.accept_above:g}), not {self.hopeless_below:g}"
            raise ValueError(msg)
        return self

    def override(self, *, samples: int | None = None, **others: Any) -> Self:
        """Return the parameters with another number of verifications (``samples``), or other sampling of answers."""
        return super().override(**others).having(draws=samples)

    def judging(self) -> tuple[Agent, ...]:
        """Return who verifies."""
        return (self.verifier,) if self.verifier is not None else self.tiers[:-1]


@strategy("automix", params=AutoMix)
async def automix(task: Task, params: AutoMix, ask: Ask) -> Candidate:
    """AutoMix (Aggarwal et al. 2023, arXiv 2310.12963, sections 3.1 and 3.2): answer, self-verify k times, hand over.

    p is the share of "correct" among the verdicts that can be read, 0 if none can. An answer is accepted if
    p > ``accept_above``, and kept without being accepted if p < ``hopeless_below``. k verifications are 1 + k or
    2 + k calls with two tiers. Of the paper's routers it is the thresholds; its POMDP needs training. Where no
    verification answers at all, nothing was verified, and the question is handed over.
    """

    async def attempt(number: int, agent: Agent) -> tuple[Candidate, Judgement | None]:
        answer = await ask.one(f"tier {number}", agent)
        if number == len(tiers):
            return answer, None
        verdicts = await _verdicts(task, params, ask, number, agent, answer)
        share = confidence(verdicts)
        ask.flag(f"tier {number}: {share:.0%} of the checks say correct, to be above {params.accept_above:.0%}")
        is_hopeless = any(verdict is not None for verdict in verdicts) and share < params.hopeless_below
        return answer, Judgement(share, accepted=share > params.accept_above, hopeless=is_hopeless)

    tiers = ask.agents(params.tiers)
    return await climb(ask, tiers, attempt)


def confidence(verdicts: Sequence[bool | None]) -> float:
    """Return the share of the verdicts there are that say "correct"; 0 where there are none.

    >>> confidence([True, True, None, False]), confidence([None])
    (0.6666666666666666, 0.0)
    """
    said = [verdict for verdict in verdicts if verdict is not None]
    return sum(said) / len(said) if said else 0.0


async def _verdicts(
    task: Task, params: AutoMix, ask: Ask, number: int, agent: Agent, answer: Candidate
) -> list[bool | None]:
    """Return the verdicts on a tier's answer; ``None`` for each that failed or cannot be read."""
    name = f"tier {number}: verification"
    (verifier,) = (agent,) if params.verifier is None else ask.agents([params.verifier])
    # What a tier is told for its answer is no part of verifying it.
    template = None if params.verifier is None else verifier.template
    values = {"conversation": task.conversation}
    questions = [
        Question(
            verifier.changed(name=f"{verifier.label} {draw}", temperature=params.temperature, template=template),
            see=[answer],
            template="verify/verify",
            place="alone",
            values=values,
        )
        for draw in range(1, params.draws + 1)
    ]
    try:
        found = await ask.each(name, questions, parse=correct, aside=True)
    except Unanswered:
        ask.flag(f"{name} failed, and the answer counts as rejected", degraded=True)
        return []
    return [None if one is None or one.value is None else bool(one.value) for one in found]
