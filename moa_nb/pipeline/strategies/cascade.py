"""Cascade: the cheapest tier answers first, and a question goes on to the next until an answer is accepted."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moa_nb.errors import BudgetExceeded, PipelineError, Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.parse import probability
from moa_nb.pipeline.routing import called, is_function
from moa_nb.pipeline.spec import Agent, Agents, OneAgent, Params
from moa_nb.pipeline.strategies import strategy

__all__ = ["Cascade", "Judgement", "cascade", "climb"]


class Cascade(Params):
    """Who answers in which tier, who scores the answers, and what they must score."""

    tiers: Agents = (Agent(model="$small"), Agent(model="$strong"))
    """Who answers, the cheapest first: any number, each a model or a pipeline."""
    scorer: OneAgent = Agent(model="$judge", temperature=0)
    """Who says how likely an answer is right: a model, or a Python function ``scorer(question, answer)``, sync or
    async, that returns a number."""
    accept_above: float | tuple[float, ...] = 0.7
    """The score above which (>) an answer is accepted, for each tier but the last, or one for each of them; one more
    is the last tier's, whose answer is otherwise not scored. Documented default: the paper learns them."""

    def judging(self) -> tuple[Agent, ...]:
        """Return who scores."""
        return (self.scorer,)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a gate makes of a tier's answer."""

    score: float | None
    """How good it is; ``None`` where nobody could say, which is a rejection."""
    accepted: bool
    hopeless: bool = False
    """Whether it is rejected, and no stronger tier is expected to do better."""


Attempt = Callable[[int, Agent], Awaitable[tuple[Candidate, Judgement | None]]]
"""Asks one tier, counted from 1: its answer, and the gate's judgement; ``None`` where no gate stands."""


@strategy("cascade", params=Cascade)
async def cascade(task: Task, params: Cascade, ask: Ask) -> Candidate:
    """FrugalGPT's cascade (Chen et al. 2023, arXiv 2305.05176, section 3): ask, score, stop above the threshold.

    ``accept_above`` is the 1 - t of the published code, and must be passed. d tiers are 1 to d calls, and with a
    model as scorer up to d - 1 more. The paper trains a small scorer for each service, and searches tiers and
    thresholds on labelled data; here a model gives a probability, or a function of yours a score.
    """
    tiers = ask.agents(params.tiers)
    limits = _limits(params.accept_above, len(tiers))

    async def attempt(number: int, agent: Agent) -> tuple[Candidate, Judgement | None]:
        answer = await ask.one(f"tier {number}", agent)
        if number > len(limits):
            return answer, None
        score = await _score(task, params.scorer, ask, f"tier {number}: score", answer)
        if score is not None:
            ask.flag(f"tier {number}: score {score:.3g}, to be above {limits[number - 1]:g}")
        return answer, Judgement(score, accepted=score is not None and score > limits[number - 1])

    return await climb(ask, tiers, attempt)


async def climb(ask: Ask, tiers: list[Agent], attempt: Attempt) -> Candidate:
    """Return the first answer that is accepted, else the last tier's: what all cascades have in common.

    ``accepted`` says whether a gate accepted it. A tier that fails is one that is rejected. Where the last one
    fails, or the budget ends, the best answer so far is returned, and the result says so.

    Raises:
        Unanswered: no tier answered.
    """
    best: tuple[float, Candidate] | None = None
    failure: Unanswered | None = None
    for number, agent in enumerate(tiers, start=1):
        try:
            answer, judgement = await attempt(number, agent)
        except Unanswered as error:
            failure = error
            ask.flag(f"tier {number} ({agent.label}) failed", degraded=True)
            if isinstance(error, BudgetExceeded):
                break
            continue
        is_readable = ask.task.form is None or answer.value is not None
        accepted = judgement is not None and judgement.accepted and is_readable
        hopeless = judgement is not None and judgement.hopeless
        if number == len(tiers) or not ask.decide(f"beyond tier {number}", not accepted and not hopeless):
            ask.flag(accepted=accepted, stop_reason="hopeless" if hopeless and number < len(tiers) else None)
            return answer
        score = -math.inf if judgement is None or judgement.score is None else judgement.score
        if best is None or score >= best[0]:
            best = (score, answer)
    assert failure is not None  # the last tier returns unless it fails
    if best is None:
        raise failure
    ask.flag(
        f"the answer of {best[1].agent} stands, though it was not accepted",
        degraded=True,
        accepted=False,
        stop_reason="budget" if isinstance(failure, BudgetExceeded) else None,
    )
    return best[1]


async def _score(task: Task, scorer: Agent, ask: Ask, name: str, answer: Candidate) -> float | None:
    """Return the score of an answer; ``None`` if the scorer fails, which rejects it."""
    try:
        if is_function(scorer):
            said = await called(ask, scorer, task.question, answer.text)
            return None if ask.choices is not None else float(said)
        values = {"conversation": task.conversation}
        found = await ask.one(
            name,
            scorer,
            see=[answer],
            template="cascade/score",
            place="alone",
            values=values,
            parse=probability,
            aside=True,
        )
    except (Unanswered, TypeError, ValueError) as error:
        ask.flag(f"{name} failed, and the answer counts as rejected: {error}", degraded=True)
        return None
    return None if found.value is None else float(found.value)


def _limits(accept_above: float | tuple[float, ...], n_tiers: int) -> tuple[float, ...]:
    """Return the thresholds of the tiers that are scored."""
    limits = accept_above if isinstance(accept_above, tuple) else (accept_above,) * (n_tiers - 1)
    if len(limits) not in {n_tiers - 1, n_tiers}:
        msg = f"accept_above is one number, or one for each tier but the last: {n_tiers - 1}, not {len(limits)}"
        raise PipelineError(msg)
    return limits
