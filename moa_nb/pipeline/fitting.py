"""Prompts that fit the model they go to: references are shortened by the declared rule, or the run ends unpaid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from moa_nb.chat import Message
from moa_nb.errors import Unanswered
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.context import capped, in_words, no_room, room_for_references, shares, trimmed
from moa_nb.pipeline.spec import Agent
from moa_nb.tokens import count_prompt_tokens, count_tokens, estimate_error, most_tokens

if TYPE_CHECKING:
    from moa_nb.pipeline.ask import Ask
    from moa_nb.pipeline.prompt import Prompts

__all__ = ["Room", "fitted"]

_SHORTEN = 300
"""Tokens that the words of ``shorten`` have at the most, beside the text that is to be shortened."""

_FRAME = 1000
"""Tokens that a template's own words may have, for the quick look before anything is counted."""


@dataclass(frozen=True)
class Room:
    """How much the models of a run can read, and what happens to references that are more.

    Args:
        context: a model's context in tokens; ``None`` where nobody knows it.
        answer: the ``max_tokens`` of an agent that names none.
        rule: ``trim`` shortens references here, ``summarize`` by a call each.
        max_ref_chars: the most characters of a single reference; ``None`` for any.
    """

    context: Callable[[str], int | None]
    answer: int
    rule: Literal["trim", "summarize"] = "trim"
    max_ref_chars: int | None = None

    def check(self, task: Task, agents: Iterable[Agent]) -> None:
        """Return nothing if every agent can read the question, so that nobody is paid in vain.

        Raises:
            RowError: one of them cannot.
        """
        most = None
        for agent in agents:
            context = self.context(agent.model)
            if context is None:
                continue
            if most is None:
                most = sum(most_tokens(message.content) for message in task.conversation)
            answer = agent.max_tokens or self.answer
            if most + answer + _FRAME <= context:
                continue
            prompt = count_prompt_tokens(task.conversation, agent.model)
            if prompt + answer > context:
                raise no_room(model=agent.model, context=context, prompt=prompt, answer=answer)


async def fitted(ask: Ask, room: Room, layer: str, question: Question, prompts: Prompts) -> Question:
    """Return the question with its references as long as its agent can read them.

    What is shortened is said in the result, which is then degraded.

    Raises:
        RowError: not even the marks of what is left out fit.
    """
    agent, see = question.agent, question.see
    if room.max_ref_chars is not None:
        short = [capped(candidate.text, room.max_ref_chars) for candidate in see]
        question = _with(ask, question, short, f"max_ref_chars = {room.max_ref_chars:,}")
        see = question.see
    context = room.context(agent.model)
    if context is None:
        return question
    answer = agent.max_tokens or room.answer
    messages, _ = prompts.of(question)
    if _fits(messages, agent.model, context - answer):
        return question
    bare, _ = prompts.of(replace(question, see=[replace(candidate, text="") for candidate in see]))
    error = estimate_error(agent.model)
    left = room_for_references(context, prompt=count_prompt_tokens(bare, agent.model), answer=answer, error=error)
    texts = [candidate.text for candidate in see]
    count = functools.cache(functools.partial(count_tokens, model=agent.model))
    if room.rule == "summarize":
        texts = await _summarized(ask, layer, agent, texts, shares(texts, left, count), context, count)
    return _with(ask, question, trimmed(texts, left, count), f"the {context:,} tokens that {agent.model} can read")


def _fits(messages: Sequence[Message], model: str, room: int) -> bool:
    # What is sure to fit need not be counted.
    if count_prompt_tokens(messages, model, count=most_tokens) <= room:
        return True
    return count_prompt_tokens(messages, model) * (1 + estimate_error(model)) <= room


def _with(ask: Ask, question: Question, texts: Sequence[str], reason: str) -> Question:
    """Return the question with other texts of its references; the result says so."""
    n_short = sum(text != candidate.text for candidate, text in zip(question.see, texts, strict=True))
    if not n_short:
        return question
    agent = question.agent.label
    ask.flag(f"{agent} read {n_short} of {len(texts)} answers shortened, to fit {reason}", degraded=True)
    see = [replace(candidate, text=text) for candidate, text in zip(question.see, texts, strict=True)]
    return replace(question, see=see)


async def _summarized(
    ask: Ask,
    layer: str,
    agent: Agent,
    texts: list[str],
    wanted: Sequence[int | None],
    context: int,
    count: Callable[[str], int],
) -> list[str]:
    """Return the texts, the long ones as the agent itself sums them up; one that it cannot stays.

    What is too long even to be summed up is trimmed before.
    """
    places = [place for place, share in enumerate(wanted) if share]
    questions = []
    for place in places:
        share = wanted[place] or 1
        reader = agent.changed(max_tokens=share, template=None, system=None)
        room = room_for_references(context, prompt=_SHORTEN, answer=share, error=estimate_error(agent.model))
        (readable,) = trimmed([texts[place]], room, count)
        values = {"reference": readable, "words": in_words(share)}
        questions.append(Question(reader, template="shorten", place="alone", values=values))
    try:
        summaries: Sequence[Candidate | None] = await ask.each(f"{layer}: shortened", questions, aside=True)
    except Unanswered:
        return texts
    shorter = dict(zip(places, summaries, strict=True))
    return [found.text if (found := shorter.get(place)) is not None else text for place, text in enumerate(texts)]
