"""The one way in which an output follows work that goes on after its cell: redrawn on a thread, at a bounded pace."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from moa_nb.engine import Engine
from moa_nb.engine.loop import Job
from moa_nb.notebook.display import is_somebody_there

__all__ = ["follow", "pause", "publish"]

_LOG = logging.getLogger("moa_nb")
_LOOK_SECONDS = 0.1
_EVERY_SECONDS = 0.5
_BYTES_A_SECOND = 20_000
"""Of HTML, for each output: what is larger is drawn less often."""


def follow(engine: Engine, publishing: Coroutine[Any, Any, None]) -> Job[None]:
    """Return at once what ends with ``publishing``, which goes on on the engine's loop.

    Where a program runs the notebook its messages are no cell's: such programs drop what says that it is of a cell
    that is over. For a page they are of the cell that began it.
    """
    context = contextvars.copy_context() if is_somebody_there() else contextvars.Context()
    return context.run(engine.start, publishing)


def pause(drawn: Mapping[str, Any], least: float) -> float:
    """Return how many seconds an output stands before it is drawn anew, at ``least`` so many."""
    return max(least, len(drawn.get("text/html", "")) / _BYTES_A_SECOND)


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
    drawn_or_none = _outspoken(draw)
    due, last = 0.0, None

    def end() -> None:
        if (drawn := drawn_or_none()) is not None:
            finish(drawn)

    try:
        # Messages of two threads may overtake each other, and a page drops what is of an output that it has not yet.
        await asyncio.sleep(_EVERY_SECONDS)
        while not is_over():
            if loop.time() >= due:
                drawn = await asyncio.to_thread(drawn_or_none)
                if drawn is not None and drawn != last and not is_over():
                    update(drawn)
                    last = drawn
                due = loop.time() + pause(drawn or {}, _EVERY_SECONDS)
            await asyncio.sleep(_LOOK_SECONDS)
    except asyncio.CancelledError:
        # The engine ends, and the work with it: its own end comes first.
        for _ in range(20):
            if is_over():
                break
            await asyncio.sleep(_LOOK_SECONDS / 2)
        end()
        raise
    end()


def _outspoken(draw: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any] | None]:
    """Return ``draw`` for any thread, one after the other; where it fails it says so once: the work goes on, seen or not."""
    is_said, lock = False, threading.Lock()

    def drawn() -> dict[str, Any] | None:
        nonlocal is_said
        try:
            with lock:
                return draw()
        except Exception as error:
            if not is_said:
                _LOG.warning("a panel cannot be drawn, its run goes on: %s: %s", type(error).__name__, error)
            _LOG.debug("drawing a panel", exc_info=error)
            is_said = True
            return None

    return drawn
