"""Jury: judges say which of two answers is better, or how good one is; what they say is what comes out."""

from __future__ import annotations

import json
from functools import partial

from pydantic import field_validator

from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.parse import parser, structured
from moa_nb.pipeline.spec import Agent, Agents, Params
from moa_nb.pipeline.strategies import strategy

__all__ = ["Jury", "jury"]


class Jury(Params):
    """Who judges, and what is read from their answers."""

    judges: Agents = (Agent(model="$judge", temperature=0),)
    """Who judges, each for itself."""
    reads: str = "verdict"
    """The parser of their answers: ``verdict`` (A, B, or C for a tie), ``rating`` (1 to 10), ``rating:1-5``; or
    ``json``, an object with the ``keys`` that the task's values name."""

    @field_validator("reads")
    @classmethod
    def _is_known(cls, reads: str) -> str:
        parser(reads)
        return reads

    @property
    def uses_columns(self) -> bool:
        """Whether the task's values matter."""
        return self.reads == "json"

    def judging(self) -> tuple[Agent, ...]:
        """Return who judges."""
        return self.judges


@strategy("jury", params=Jury)
async def jury(task: Task, params: Jury, ask: Ask) -> Candidate:
    """A panel of judges (Verga et al. 2024, arXiv 2404.18796): all are asked the same, and each one's word is kept.

    The task is the judges' whole prompt: what is judged is quoted in it. An answer that cannot be read is asked for
    once more, and then abstains: its place is ``None``. A judge that could not answer has an empty place.
    """
    questions = [Question(judge) for judge in ask.agents(params.judges)]
    read = parser(params.reads)
    if params.reads == "json":
        read = partial(structured, keys=tuple(task.values.get("keys", ())))
    said = await ask.each("verdicts", questions, parse=read)
    words = ["" if one is None else one.value for one in said]
    return Candidate(json.dumps(words), "jury", value=words)
