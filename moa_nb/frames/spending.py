"""What the open rows of a run would take, and whether that was agreed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence

from moa_nb import money
from moa_nb.engine.forecast import Estimate, Figures, most, price
from moa_nb.engine.plan import Plan
from moa_nb.errors import SpendingNotAgreed, Unanswered
from moa_nb.frames.questions import Digest
from moa_nb.frames.rows import Questions
from moa_nb.frames.verbs import Verb
from moa_nb.gateway import Gateway
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.result import Result
from moa_nb.settings import Settings
from moa_nb.tokens import most_tokens

__all__ = ["agree", "forecast"]

_SAMPLE = 100
"""Rows whose calls are priced one by one; the others count like those of their length."""
_LONGEST = 20
"""So many of the sample are the longest rows, which may cost as much as all others together."""
_TURN = 256
"""Rows that are looked at before others on the loop have their turn."""
_SPARE = 1.05
"""What is asked for beside the estimate: attempts that fail, prompts that were counted short."""


async def agree(
    plan: Plan, verb: Verb, questions: Questions, positions: Iterable[int], digest: Digest, gateway: Gateway
) -> None:
    """Return nothing if a run that nobody gave a budget may take what its rows would.

    Raises:
        SpendingNotAgreed: with the estimate, and the ``budget=`` to pass.
    """
    longest_first = await _unlike(questions, positions, digest)
    if not longest_first or await _is_clearly_fine(plan, questions, longest_first, gateway):
        return
    parts = await _priced(plan, verb, questions, longest_first, gateway)
    estimate = _together(plan.pipeline.name, parts)
    if _is_fine(estimate.high, plan.settings):
        return
    calls = f'budget="{math.ceil(estimate.n_calls * _SPARE)} calls"'
    if estimate.cost is not None:
        # The last calls are only sent if their worst case still fits, however short their form is.
        dearest = max(part.high.priced for _, part in parts)
        if estimate.by_form:
            longest = await _priced_row(plan, verb, questions.tasks(longest_first[0]), gateway, full=True)
            dearest = max(dearest, sum(part.high.priced for part in longest))
        dollars = math.ceil((estimate.cost * _SPARE + dearest) * 100) / 100
        msg = f"{estimate}: more than ask_above (${plan.settings.ask_above:.2f}); pass budget={dollars:g} to agree"
        raise SpendingNotAgreed(msg)
    if estimate.n_unpriced > plan.settings.ask_above_calls:
        above = f": more than ask_above_calls ({plan.settings.ask_above_calls})"
    else:
        above = f", the others at most ${money.dollars(estimate.high.priced)}: more than ask_above (${plan.settings.ask_above:.2f})"
    msg = (
        f"{estimate}{above}; pass {calls} to agree (budget=float('inf') agrees to any), or set the models' prices in"
        " moa.toml and pass dollars"
    )
    raise SpendingNotAgreed(msg)


async def forecast(
    plan: Plan, verb: Verb, questions: Questions, positions: Iterable[int], digest: Digest, gateway: Gateway
) -> Estimate:
    """Return what the rows at ``positions`` would take: equal ones count once, cached answers nothing.

    Every row is rendered, which is quick, and none is kept; of many, a sample is priced.
    """
    longest_first = await _unlike(questions, positions, digest)
    parts = await _priced(plan, verb, questions, longest_first, gateway)
    return _together(plan.pipeline.name, parts)


async def _unlike(questions: Questions, positions: Iterable[int], digest: Digest) -> list[int]:
    """Return one row for each question, the longest first."""
    sizes: dict[bytes, tuple[int, int]] = {}
    for number, position in enumerate(positions, start=1):
        try:
            tasks = questions.tasks(position)
            if tasks:
                size = sum(most_tokens(task.question) for task in tasks)
                sizes.setdefault(digest(tasks), (-size, position))
        except Exception:  # noqa: S110 - whatever it is, the row will fail of it without being sent
            pass
        if number % _TURN == 0:
            await asyncio.sleep(0)
    return [position for _, position in sorted(sizes.values())]


async def _is_clearly_fine(plan: Plan, questions: Questions, longest_first: list[int], gateway: Gateway) -> bool:
    """Return whether it would be fine if every row took as much as the longest, and nothing were cached."""
    tasks = questions.tasks(longest_first[0])
    if len(tasks) > 1:
        return False  # those that depend on answers are only known to an estimate
    try:
        bound = await most(plan, tasks[0], gateway)
    except Unanswered:
        return False
    return bound is not None and _is_fine(bound.times(len(longest_first)), plan.settings)


def _is_fine(figures: Figures, settings: Settings) -> bool:
    """Return whether so much may be spent unasked."""
    return figures.n_unpriced <= settings.ask_above_calls and figures.priced <= settings.ask_above


async def _priced(
    plan: Plan, verb: Verb, questions: Questions, longest_first: list[int], gateway: Gateway
) -> list[tuple[float, Estimate]]:
    """Return what a sample of the rows would take, each with the number of rows that it stands for."""
    parts: list[tuple[float, Estimate]] = []
    for position, weight in _sample(longest_first):
        try:
            tasks = questions.tasks(position)
            longest = await _priced_row(plan, verb, tasks, gateway)
            # Of answers of a word a verb that gathers them makes fewer calls.
            shortest = longest if len(tasks) == 1 else await _priced_row(plan, verb, tasks, gateway, said="~")
            low = sum((part.low for part in shortest), Figures())
            high = sum((part.high for part in longest), Figures())
            at_least = any(part.at_least for part in longest)
            by_form = any(part.by_form for part in longest)
            parts.append((weight, Estimate(plan.pipeline.name, low, high, at_least, by_form=by_form)))
        except Unanswered:
            continue  # the row will fail of it without being sent
        await asyncio.sleep(0)
    return parts


async def _priced_row(
    plan: Plan, verb: Verb, tasks: Sequence[Task], gateway: Gateway, *, said: str | None = None, full: bool = False
) -> list[Estimate]:
    """Return what each task of a row would take, with answers that say ``said``, or are as long as they may be.

    ``full``: though that is longer than their form.
    """
    priced: list[Estimate] = []

    async def answer(task: Task) -> Result:
        estimate = await price(plan, task, gateway, full=full)
        assert estimate.result is not None
        priced.append(estimate)
        return estimate.result if said is None else estimate.result.replace(text=said)

    await verb.answer(tasks, answer)
    return priced


def _sample(positions: list[int]) -> Iterator[tuple[int, float]]:
    """Yield positions, the longest first, each with the number of rows that it stands for."""
    if len(positions) <= _SAMPLE:
        yield from ((position, 1.0) for position in positions)
        return
    yield from ((position, 1.0) for position in positions[:_LONGEST])
    others = positions[_LONGEST:]
    step = len(others) / (_SAMPLE - _LONGEST)
    yield from ((others[math.floor((number + 0.5) * step)], step) for number in range(_SAMPLE - _LONGEST))


def _together(pipeline: str, parts: list[tuple[float, Estimate]]) -> Estimate:
    low = sum((part.low.times(weight) for weight, part in parts), Figures())
    high = sum((part.high.times(weight) for weight, part in parts), Figures())
    return Estimate(
        pipeline,
        low.whole(),
        high.whole(),
        at_least=any(part.at_least for _, part in parts),
        by_form=any(part.by_form for _, part in parts),
    )
