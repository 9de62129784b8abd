"""Time that passes without waiting."""

from __future__ import annotations

import asyncio
from bisect import insort
from itertools import count


class Clock:
    """A clock for tests: whoever sleeps on it goes on at once, and the time has passed.

    Tasks that sleep side by side wake in the order of their times, and their sleeps overlap as real ones do.

    >>> clock = Clock()
    >>> asyncio.run(clock.sleep(60))
    >>> clock.time(), clock.sleeps
    (60.0, [60])
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        """The present, in seconds."""
        self.sleeps: list[float] = []
        """Every sleep that was asked for, in seconds, in the order of the calls."""
        self._wakes: list[tuple[float, int]] = []
        self._numbers = count()

    def time(self) -> float:
        """Return the present, in seconds; stands in for ``time.monotonic``."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass without waiting; stands in for ``asyncio.sleep``."""
        self.sleeps.append(seconds)
        wake = (self.now + max(0.0, seconds), next(self._numbers))
        insort(self._wakes, wake)
        try:
            await asyncio.sleep(0)  # others that are about to sleep get their chance
            await asyncio.sleep(0)
            while self._wakes[0] != wake:  # earlier sleepers go first; nothing waits for real
                await asyncio.sleep(0)
            self.now = max(self.now, wake[0])
        finally:
            self._wakes.remove(wake)
