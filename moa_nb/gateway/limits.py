"""How many calls may be in flight, and which one is next.

Calls of earlier rows go first, and within a row those of later layers: rows finish early and what
is held in memory stays small.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable

__all__ = ["Limiter", "Priority"]

Priority = tuple[int, int]
"""(row, minus layer): the smallest goes first."""

_CUT = 0.85


class Limiter:
    """Slots for the calls of one model: grows while all is well, shrinks when the service refuses.

    Args:
        most: the most calls in flight.
        clock: seconds, never going back.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.most = most
        self.cap = float(most)
        self.in_flight = 0
        self._clock, self._sleep = clock, sleep
        self._queue: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._closed_until = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._last_cut = float("-inf")

    def try_acquire(self, tokens: int = 0) -> bool:
        if self.in_flight < int(self.cap) and not self._queue and self._clock() >= self._closed_until:
            self.in_flight += 1
            return True
        return False

    async def acquire(self, priority: Priority, tokens: int = 0) -> None:
        """Return once a slot is this call's; give it back with ``release``."""
        if self.in_flight < int(self.cap) and not self._queue and self._clock() >= self._closed_until:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._order), turn))
        if self._clock() < self._closed_until:
            self._wait_for_opening()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Return nothing; the slot goes to the next call."""
        self.in_flight -= 1
        self._hand_out()

    def answered(self, seconds=0.0, tokens=None, headers=None) -> None:
        """Return nothing; the service served a call, so a little more may be tried."""
        if self.cap < self.most:
            self.cap = min(self.cap + 1 / self.cap, float(self.most))

    def refused(self, wait_seconds: float | None, round_trip: float, headers=None) -> None:
        """Return nothing; the service refused: fewer calls, and none before ``wait_seconds`` are over."""
        now = self._clock()
        if now - self._last_cut >= round_trip:
            # Calls that were sent before the cut say nothing new when they are refused too.
            self.cap = max(min(self.cap, self.in_flight) * _CUT, 1.0)
            self._last_cut = now
        if wait_seconds:
            self._closed_until = max(self._closed_until, now + wait_seconds)

    @property
    def closed_seconds(self) -> float:
        """Seconds until calls may go out again; 0 when they may now."""
        return max(self._closed_until - self._clock(), 0.0)

    def _hand_out(self) -> None:
        if self._clock() < self._closed_until:
            if self._queue:
                self._wait_for_opening()
            return
        while self._queue and self.in_flight < int(self.cap):
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def _wait_for_opening(self) -> None:
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        while (seconds := self.closed_seconds) > 0:
            await self._sleep(seconds)
        self._opening = None
        self._hand_out()
