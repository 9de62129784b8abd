"""Hedging: a straggler is asked once more, and the first answer wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any

from moa_nb.chat import Completion
from moa_nb.errors import MoaError
from moa_nb.gateway.retry import Fault

if TYPE_CHECKING:
    from moa_nb.gateway.attempts import Call

__all__ = ["hedged"]


async def hedged(
    attempt: Callable[[Call], Coroutine[Any, Any, Completion | Fault]], call: Call, clock: Callable[[], float]
) -> Completion | Fault:
    """Return what the quicker of two attempts brings; the second one goes out when the first is late.

    (Dean and Barroso 2013, "The Tail at Scale", hedged requests: after the 95th percentile of what calls
    take, so that about one in twenty is asked twice.) The overtaken one is cancelled; it may be billed, and
    counts as unreported, as does one of two that answer at the same moment.
    """
    began_with = call.attempts
    tasks = [asyncio.ensure_future(attempt(call))]
    try:
        while not tasks[0].done():
            late = call.route.late_seconds
            if late is not None and call.attempts > began_with:
                late -= clock() - call.began
                if late <= 0:
                    tasks.append(asyncio.ensure_future(attempt(call)))
                    break
            await asyncio.wait(tasks, timeout=late)
        return await _first_answer(tasks, call)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _first_answer(tasks: Collection[asyncio.Task[Completion | Fault]], call: Call) -> Completion | Fault:
    """Return the first completion, or what the last of the tasks brings where there is none.

    Raises:
        MoaError: each of them does.
    """
    pending: set[asyncio.Task[Completion | Fault]] = set(tasks)
    answers: list[Completion] = []
    fault: Fault | None = None
    error: MoaError | None = None
    while pending and not answers:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            try:
                outcome = task.result()
            except MoaError as raised:
                error = raised
                continue
            if isinstance(outcome, Completion):
                answers.append(outcome)
            else:
                fault = outcome
    for _ in answers[1:]:
        call.may_be_billed()
    if answers:
        return answers[0]
    if fault is not None:
        return fault
    assert error is not None
    raise error
