"""The one way in which an output follows work that goes on after its cell: redrawn on a thread, at a bounded pace."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from moa_nb.engine import Engine
from moa_nb.notebook.display import is_somebody_there

__all__ = ["follow", "publish"]

_LOOK_SECONDS = 0.1
_EVERY_SECONDS = 0.5
_BYTES_A_SECOND = 20_000
"""Of HTML, for each output: what is larger is drawn less often."""


def follow(engine: Engine, publishing: Coroutine[Any, Any, None]) -> None:
    """Return at once; ``publishing`` goes on on the engine's loop.

    Where a program runs the notebook its messages are no cell's: such programs drop what says that it is of a cell
    that is over. For a page they are of the cell that began it.
    """
    context = contextvars.copy_context() if is_somebody_there() else contextvars.Context()
    context.run(engine.start, publishing)


async def publish(
    draw: Callable[[], dict[str, Any]],
    update: Callable[[dict[str, Any]], None],
    finish: Callable[[dict[str, Any]], None],
    is_over: Callable[[], bool],
) -> None:
    """Return when the work is over and the output shows how it ended.

    Args:
        draw: returns the output as it should be now; called on a thread of its own.
        update: puts it in its place: ``DisplayHandle.update``, which works on any thread.
        finish: puts the last one in its place.
        is_over: whether nothing changes any more.
    """
    loop = asyncio.get_running_loop()
    due, last = 0.0, None
    try:
        # Messages of two threads may overtake each other, and a page drops what is of an output that it has not yet.
        await asyncio.sleep(_EVERY_SECONDS)
        while not is_over():
            if loop.time() >= due:
                drawn = await asyncio.to_thread(draw)
                if drawn != last and not is_over():
                    update(drawn)
                    last = drawn
                due = loop.time() + max(_EVERY_SECONDS, len(drawn["text/html"]) / _BYTES_A_SECOND)
            await asyncio.sleep(_LOOK_SECONDS)
    except asyncio.CancelledError:
        # The engine ends, and the work with it: its own end comes first.
        for _ in range(20):
            if is_over():
                break
            await asyncio.sleep(_LOOK_SECONDS / 2)
        finish(draw())
        raise
    finish(draw())
