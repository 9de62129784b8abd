"""Iterative consensus: agents criticize each other's answers and answer again until they agree."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.similarity import similarity_of_all
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.strategies.debate import Debate, begin, others, revise
from moa_nb.pipeline.vote import unanimous
from moa_nb.pipeline.voting import elected

__all__ = ["Ice", "ice"]


class Ice(Debate):
    """Who has to agree, for how long they may try, and what agreeing means."""

    rounds: int = Field(5, ge=1, le=50)
    """How often each answers at most."""
    similarity: float = Field(0.8, ge=0, le=1)
    """How alike free texts have to be on average to agree, in words and their neighbours; not used with ``answer``."""


@strategy("ice", params=Ice)
async def ice(task: Task, params: Ice, ask: Ask) -> Candidate:
    """Iterative Consensus Ensemble (Omar et al. 2025, Computers in Biology and Medicine 110731): revise until all agree.

    Each agent answers; while they do not all agree, each reads the question, its own answer and those of the others,
    criticizes them and answers anew. N calls for an agreement at once, N·R at most. An answer that cannot be read
    agrees with nothing, nor does an answer alone. Without consensus the plurality decides.

    The abstract gives the loop and three models, the rest is ours: five rounds, agents without names, the plurality,
    and for free text the threshold of similarity, a lexical one.
    """
    agents, answers = await begin(params, ask)
    form = {"form": None if ask.task.form else params.form}
    number = 1
    while number < params.rounds and len(answers) > 1 and ask.decide("another round", not _agree(answers, params, ask)):
        questions = [
            Question(agent, see=[answers[at], *others(answers, at)], template="ice/revise", place="user", values=form)
            for at, agent in enumerate(agents)
        ]
        revised = await revise(number + 1, questions, answers, params, ask)
        if revised is None:
            break
        answers = revised
        number += 1
    if _agree(answers, params, ask):
        ask.flag(converged=True, stop_reason="consensus")
    else:
        ask.flag(f"no consensus after {number} round{'s' * (number > 1)}", converged=False)
    return elected(answers, params, ask)


def _agree(answers: Sequence[Candidate], params: Ice, ask: Ask) -> bool:
    if len(answers) < 2:
        return False
    if params.answer is None and ask.task.form is None:
        return similarity_of_all([answer.text for answer in answers]) >= params.similarity
    return unanimous([answer.value for answer in answers])
