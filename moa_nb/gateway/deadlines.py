"""Until when what is under way must be over: one timer of the loop for all of it, since nearly all is over in time."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

__all__ = ["Deadlines"]

_RESOLUTION = 0.001
"""Seconds by which a loop's timer may ring early."""


class Deadlines:
    """The deadlines of one loop. A timer for each would cost more than all else that is done about them.

    >>> async def wait(seconds: float) -> str:
    ...     try:
    ...         with Deadlines().within(0.01):
    ...             await asyncio.sleep(seconds)
    ...     except TimeoutError:
    ...         return "late"
    ...     return "in time"
    >>> asyncio.run(wait(0)), asyncio.run(wait(60))
    ('in time', 'late')
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.open: dict[_Deadline, None] = {}
        self._rings_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> _Deadline:
        """Return a context that its task leaves with ``TimeoutError`` when ``seconds`` are over."""
        return _Deadline(self, seconds)

    def close(self) -> None:
        """Return once the timer is off; what is still under way has no deadline any more."""
        if self._timer is not None:
            self._timer.cancel()

    def ring_by(self, due: float) -> None:
        """Return once the timer rings no later than at a moment."""
        if due < self._rings_at:
            self.close()
            self._rings_at, self._timer = due, self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._rings_at, self._timer = math.inf, None
        now, coming = self.now() + _RESOLUTION, math.inf
        for deadline in self.open:
            if deadline.due > now:
                coming = min(coming, deadline.due)
            else:
                deadline.pass_by()
        self.ring_by(coming)


class _Deadline:
    """A deadline of the task that enters it, as ``asyncio.timeout`` has it."""

    __slots__ = ("_cancelling", "_deadlines", "_is_past", "_seconds", "_task", "due")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines, self._seconds = deadlines, seconds
        self._is_past = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        deadlines = self._deadlines
        self.due = deadlines.now() + self._seconds
        deadlines.open[self] = None
        deadlines.ring_by(self.due)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The timer is left as it is, and will find nobody who is late.
        del self._deadlines.open[self]
        if (
            self._is_past
            and self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def pass_by(self) -> None:
        """Return once the task is being cancelled."""
        self.due, self._is_past = math.inf, True
        self._task.cancel()
