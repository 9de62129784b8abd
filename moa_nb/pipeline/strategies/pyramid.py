"""Pyramid: small models answer side by side, and one strong model is asked only where they do not agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from moa_nb.errors import BudgetExceeded, Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.parse import parser
from moa_nb.pipeline.routing import called, is_function
from moa_nb.pipeline.similarity import medoid
from moa_nb.pipeline.spec import Agent, Agents, OneAgent, Params
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.vote import agreement, plurality

__all__ = ["Pyramid", "pyramid"]


class Pyramid(Params):
    """Who is at the base, who at the top, and what keeps a question from going there."""

    base: Agents = (Agent(model="$proposers"),)
    """Who answers each question, side by side."""
    oracle: OneAgent = Agent(model="$strong")
    """Who answers where the base does not agree."""
    answer: str | list[str] | Callable[[str], Any] | None = "number"
    """How an answer's value is read; ``"text"`` takes the whole text."""
    by: Literal["vote", "text"] = "vote"
    """``vote``: the share of the base that gives the commonest value, which is the consensus; ``text``: how alike
    the values are as texts, and the consensus is the answer that is most like the others."""
    agree: float = Field(0.67, ge=0, le=1)
    """The agreement that is enough (>=), in [0, 1]: of three all have to agree. Documented default, not the
    paper's."""
    router: OneAgent | None = None
    """A Python function ``router(question, answers)``, sync or async, that returns the confidence in the base in place
    of its agreement; answers are texts. ``None``: agreement."""
    oracle_sees: bool = False
    """Whether the oracle reads the base's answers; otherwise it reads the question alone."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Pyramid:
        parser(self.answer)
        if self.router is not None and not is_function(self.router):
            msg = "the router of a pyramid is a Python function of the question and the base's answers"
            raise ValueError(msg)
        return self


@strategy("pyramid", params=Pyramid)
async def pyramid(task: Task, params: Pyramid, ask: Ask) -> Candidate:
    """Pyramid MoA (Khaled 2026, arXiv 2602.19509): an ensemble of small models, an oracle for what it is not sure of.

    k models at the base are k or k + 1 calls. A valid answer is there before the oracle is asked, and stands if that
    one fails. The paper trains a router on what the base says, and weighs its word against the oracle's price and
    errors; here the agreement of the base decides, or a function of yours. What fails on the way counts against the
    base: whoever did not answer, or not readably, agrees with nobody, and without a router's word the oracle is asked.
    """
    read = parser(params.answer)
    asked = [Question(agent) for agent in ask.agents(params.base)]
    answers: list[Candidate | None]
    try:
        answers = await ask.each("base", asked, parse=read)
    except BudgetExceeded:
        raise
    except Unanswered:
        ask.flag("nobody at the base answered: the oracle answers alone", degraded=True)
        answers = [None] * len(asked)
    sure = await _confidence(task, params, ask, answers)
    if sure is not None:
        ask.flag(f"the base agrees to {sure:.3g}, {params.agree:g} is enough")
    consensus = _consensus(params, answers)
    if not ask.decide("the oracle", sure is None or not sure >= params.agree or consensus is None):
        assert consensus is not None  # without one the oracle is asked
        ask.flag(accepted=True)
        return consensus
    ask.flag(accepted=False)
    see = [answer for answer in answers if answer is not None] if params.oracle_sees else []
    try:
        return await ask.one("oracle", params.oracle, see=see, parse=read)
    except Unanswered as error:
        if consensus is None:
            raise
        reason = "budget" if isinstance(error, BudgetExceeded) else None
        ask.flag("the oracle failed: the base's consensus stands", degraded=True, stop_reason=reason)
        return consensus


async def _confidence(task: Task, params: Pyramid, ask: Ask, answers: list[Candidate | None]) -> float | None:
    """Return how sure the base is; ``None`` if its router fails."""
    if params.router is None:
        return agreement([None if answer is None else answer.value for answer in answers], params.by)
    texts = [answer.text for answer in answers if answer is not None]
    try:
        said = await called(ask, params.router, task.question, texts)
        return None if ask.choices is not None else float(said)
    except (Unanswered, TypeError, ValueError) as error:
        ask.flag(f"the router failed, and the oracle is asked: {error}", degraded=True)
        return None


def _consensus(params: Pyramid, answers: list[Candidate | None]) -> Candidate | None:
    """Return the base's answer: a plurality's or the medoid, else the first there is; ``None`` where there is none."""
    values = [None if answer is None else answer.value for answer in answers]
    if params.by == "vote":
        at = plurality(values).winner
    else:
        at = medoid([None if value is None else str(value) for value in values])
    return answers[at] if at is not None else next((answer for answer in answers if answer is not None), None)
