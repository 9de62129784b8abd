"""Attention-MoA: agents criticize each other's answers in words and revise their own, before one is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Self

from pydantic import Field

from moa_nb.errors import Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.spec import Agent, Agents, OneAgent, Params
from moa_nb.pipeline.strategies import strategy

__all__ = ["AttentionMoa", "attention_moa", "improvement"]

_VERDICT = re.compile(r"\W{0,8}improved\W{1,8}(?P<word>yes|no)\b[^\n]*(?P<answer>.*)", re.IGNORECASE | re.DOTALL)


class AttentionMoa(Params):
    """Who answers and criticizes, who writes, and how many layers there are at most."""

    proposers: Agents = (Agent(model="$proposers", temperature=0.7),)
    """Who answers, criticizes and revises; N of them make N² critiques a layer. A ``template`` is for the answers."""
    aggregator: OneAgent = Agent(model="$aggregator", temperature=0.7)
    """Who writes a layer's answer, and judges whether it improves on those before. A ``template`` is for the former."""
    layers: int = Field(2, ge=1, le=50)
    """How many layers there are, unless one brings no improvement."""

    def override(self, *, layers: int | None = None, **others: Any) -> Self:
        """Return the parameters with another number of layers, or other sampling."""
        return super().override(**others).having(layers=layers)

    def judging(self) -> tuple[Agent, ...]:
        """Return who criticizes: everybody."""
        return self.proposers


@strategy("attention-moa", params=AttentionMoa)
async def attention_moa(task: Task, params: AttentionMoa, ask: Ask) -> Candidate:
    """Attention-MoA (Wen et al. 2026, arXiv 2601.16596): critiques are the attention in a layer, a residual joins layers.

    In each layer every agent answers, reading the one answer of the layer before; each agent i criticizes the answer
    of each j in the light of its own; each rewrites its answer with what all said of it; the aggregator writes one
    answer of these. From the second layer on it then reads the answers of all layers, and either writes a better one
    or says that the newest is no improvement: the earlier one is the end. With N agents the first layer is
    N² + 2N + 1 calls, each later one N² + 2N + 2.

    The verdict stands on a line of its own and is never part of an answer, and what is read has one answer a layer;
    the published code differs in both. Two layers are our default, its scripts have one.
    """
    answers: list[Candidate] = []
    for number in range(1, params.layers + 1):
        layer = f"layer {number}"
        try:
            newest = await _layer(params, ask, layer, answers[-1:])
        except Unanswered:
            if not answers:
                raise
            ask.flag(f"{layer} failed: the answer is that of layer {number - 1}", degraded=True)
            break
        better = await _residual(params, ask, layer, [*answers, newest]) if answers else newest
        if answers and not ask.decide("improved", better is not None):
            ask.flag(f"{layer} was no improvement", stop_reason="no improvement")
            break
        answers.append(better or newest)
    return answers[-1]


async def _layer(params: AttentionMoa, ask: Ask, layer: str, before: Sequence[Candidate]) -> Candidate:
    """Return the one answer of a layer, written in sight of the one ``before``."""
    agents = ask.agents(params.proposers)
    drafts = await ask.each(f"{layer}: answers", [Question(agent, see=before) for agent in agents])
    own = [(agent, draft) for agent, draft in zip(agents, drafts, strict=True) if draft is not None]
    reviews = await _reviews(ask, layer, own)
    revised = await _revised(ask, layer, own, reviews)
    return await ask.one(f"{layer}: synthesis", params.aggregator, see=revised)


async def _reviews(ask: Ask, layer: str, own: Sequence[tuple[Agent, Candidate]]) -> list[list[Candidate]]:
    """Return what all agents say of each answer, their own included; nothing of one that nobody could judge."""
    pairs = list(product(range(len(own)), repeat=2))
    questions = []
    for critic, target in pairs:
        agent, mine = own[critic]
        see = [mine] if critic == target else [mine, own[target][1]]
        questions.append(Question(agent, see=see, template="attention/critique", place="alone", own_template=False))
    critiques = await _each(ask, f"{layer}: critiques", questions, aside=True)
    reviews: list[list[Candidate]] = [[] for _ in own]
    for (_, target), critique in zip(pairs, critiques, strict=True):
        if critique is not None:
            reviews[target].append(critique)
    return reviews


async def _revised(
    ask: Ask, layer: str, own: Sequence[tuple[Agent, Candidate]], reviews: Sequence[Sequence[Candidate]]
) -> list[Candidate]:
    """Return each answer as its author rewrote it; as it was, where there is nothing to go by or the author failed."""
    questions = [
        Question(agent, see=[draft, *found], template="attention/refine", own_template=False)
        for (agent, draft), found in zip(own, reviews, strict=True)
        if found
    ]
    written = iter(await _each(ask, f"{layer}: revisions", questions))
    return [(next(written) if found else None) or draft for (_, draft), found in zip(own, reviews, strict=True)]


async def _residual(params: AttentionMoa, ask: Ask, layer: str, answers: Sequence[Candidate]) -> Candidate | None:
    """Return the better answer that the aggregator makes of all layers'; ``None`` if the newest is no improvement."""
    (aggregator,) = ask.agents([params.aggregator])
    question = Question(aggregator, see=answers, template="attention/residual", own_template=False)
    (said,) = await _each(ask, f"{layer}: residual", [question], parse=improvement, aside=True)
    if said is None or said.value is None:
        return answers[-1]
    return replace(said, text=said.value, value=ask.read(said.value)) if said.value else None


async def _each(ask: Ask, name: str, questions: Sequence[Question], **more: Any) -> list[Candidate | None]:
    """Return the answers; ``None`` for each if all failed, since what was there before still stands."""
    try:
        return await ask.each(name, questions, **more)
    except Unanswered:
        ask.flag(f"{name} failed: what was there before stands", degraded=True)
        return [None] * len(questions)


def improvement(text: str) -> str | None:
    r"""Return the answer that follows "improved: yes", "" after "improved: no"; ``None`` where the text begins with neither.

    >>> improvement("**Improved: yes**\n\nIt closed in 1921."), improvement("improved: no"), improvement("It closed.")
    ('It closed in 1921.', '', None)
    """
    verdict = _VERDICT.match(text)
    if verdict is None:
        return None
    return "" if verdict["word"].lower() == "no" else verdict["answer"].strip() or None
