"""Rows in flight: in order, bounded, each through its layers on its own.

Rows go ahead one at a time until every model of the pipeline has been asked, so that a wrong key or
a wrong name stops the run before a second row is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from moa_nb.errors import gravest

__all__ = ["run_rows"]

_LOOK_SECONDS = 0.005
_SCOUTS = 3
"""Rows that may fail alone, before some model was asked at all, until the others follow anyway."""


async def run_rows(
    positions: Iterable[int],
    one: Callable[[int], Awaitable[bool]],
    *,
    window: int,
    is_proven: Callable[[], bool],
) -> None:
    """Return when all rows are over.

    Args:
        positions: the rows to ask, in order.
        one: asks a row and returns whether anything was sent; an exception ends the whole run.
        window: the most rows in flight.
        is_proven: whether every model has been asked, so that its key and name are right.
    """
    free = asyncio.Semaphore(window)
    scouts = _SCOUTS

    async def guarded(position: int) -> bool:
        try:
            return await one(position)
        finally:
            free.release()

    try:
        async with asyncio.TaskGroup() as group:
            for position in positions:
                await free.acquire()
                row = group.create_task(guarded(position))
                if scouts and not is_proven():
                    while not (row.done() or is_proven()):
                        await asyncio.wait([row], timeout=_LOOK_SECONDS)
                    scouts -= row.done() and not row.cancelled() and row.exception() is None and row.result()
    except BaseExceptionGroup as raised:
        raise gravest(raised) from None
