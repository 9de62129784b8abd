"""Rows in flight: in order, bounded, each through its layers on its own.

The first row goes ahead alone until every model of the pipeline has answered once, so that a wrong
key or a wrong name stops the run before a second row is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

__all__ = ["run_rows"]

_LOOK_SECONDS = 0.005


async def run_rows(
    positions: Iterable[int],
    one: Callable[[int], Awaitable[None]],
    *,
    window: int,
    is_verified: Callable[[], bool],
    may_go_on: Callable[[], bool],
) -> None:
    """Return when all rows are over.

    Args:
        positions: the rows to ask, in order.
        one: asks a row; an exception ends the whole run.
        window: the most rows in flight.
        is_verified: whether every model has answered.
        may_go_on: whether a further row may begin.
    """
    free = asyncio.Semaphore(window)
    first: asyncio.Task[None] | None = None

    async def guarded(position: int) -> None:
        try:
            await one(position)
        finally:
            free.release()

    try:
        async with asyncio.TaskGroup() as group:
            for position in positions:
                await free.acquire()
                if not may_go_on():
                    break
                task = group.create_task(guarded(position))
                if first is None:
                    first = task
                    while not first.done() and not is_verified():
                        await asyncio.wait([first], timeout=_LOOK_SECONDS)
    except BaseExceptionGroup as raised:
        raise raised.exceptions[0] from None
