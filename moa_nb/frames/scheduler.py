"""Rows in flight: in order, bounded, each through its layers on its own.

Rows go ahead one at a time until every model of the pipeline has been asked, so that a wrong key or
a wrong name stops the run before a second row is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from moa_nb.errors import gravest

__all__ = ["run_rows"]

_LOOK_SECONDS = 0.005
_SCOUTS = 3
"""Rows that may fail alone, before some model was asked at all, until the others follow anyway."""


async def run_rows(
    positions: Iterable[int],
    one: Callable[[int], Coroutine[Any, Any, bool]],
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
    waiting = iter(positions)

    async def work() -> None:
        for position in waiting:
            await one(position)

    try:
        async with asyncio.TaskGroup() as group:
            scouts = _SCOUTS
            for position in waiting:
                scout = group.create_task(one(position))
                while not (scout.done() or is_proven()):
                    await asyncio.wait([scout], timeout=_LOOK_SECONDS)
                if scout.done() and not scout.cancelled() and scout.exception() is None:
                    scouts -= scout.result()
                if is_proven() or not scouts:
                    break
            for _ in range(window):
                group.create_task(work())
    except BaseExceptionGroup as raised:
        raise gravest(raised) from None
