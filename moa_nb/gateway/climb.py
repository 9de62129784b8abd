"""How many calls in flight give the most answers a second."""

from __future__ import annotations

__all__ = ["Climb"]

_CUT = 0.85
_STEP = 2.0**0.25
"""Factor of the smallest step."""

_LONGEST_STRIDE = 4
"""Steps that are taken at once after some that went well: together they double."""

_LOST = 0.9
"""Times the answers a second of fewer calls: below it, doubling has gone too far."""

_WORTH = 0.1
"""The share of a step up that must come back as answers a second."""

_CROWDED = 1.35
"""Times the shortest mean latency: from here fewer calls might do."""

_SWAMPED = 1.7
"""Times the shortest mean latency: twice the calls, and hardly more answers."""

_EARLY = 1.25
"""Times the mean latency of a round in which the calls double, where the short ones come first."""

_FEWEST = 48
"""Answers of which a rate is made."""

_MOST_PATIENCE = 32
"""Measurements between a step that failed often and the next try."""


class Climb:
    """The number of calls in flight, from the answers a second that it brings.

    It doubles with each round trip from a small start, until it is at the most, a call is refused, or twice the calls
    bring no more answers. From then on it takes steps, up while more calls bring more answers, down while fewer bring
    no fewer, and goes back where a step did not pay; each failure lets more time pass before the next. Single
    latencies say nothing, since they scatter and have heavy tails: what counts are answers a second over a round of
    calls. Latency only says whether fewer might do: it is never tried while calls take as long as they did at first.

    (The start is that of Jacobson 1988, "Congestion Avoidance and Control"; the trial of a step by what it brings is
    that of Dong et al. 2015, "PCC: Re-architecting Congestion Control for Consistent High Performance".)

    Args:
        most: the most calls in flight.
        start: how many at first; the most if ``None``.
    """

    def __init__(self, most: int, start: int | None = None) -> None:
        self.most = most
        self.cap = float(most if start is None else min(start, most))
        self.is_fast = self.cap < most
        """Whether it still doubles."""
        self._home = self.cap
        """Where a step started; the cap while none is tried."""
        self._best = self.cap
        """Where a round brought most answers a second while it doubles."""
        self._rate = 0.0
        """Answers a second at home; 0 while nobody knows."""
        self._shortest = float("inf")
        """The shortest mean latency of a round, in seconds."""
        self._latest = 0.0
        """The mean latency of the latest round."""
        self._goes_up = True
        self._stride = 1
        self._patience = 1
        self._waited = 0
        self._settle(0)

    def answered(self, now: float, seconds: float, *, is_full: bool) -> None:
        """Return nothing; a call was answered.

        Args:
            now: the present.
            seconds: what it took.
            is_full: whether as many calls were in flight as may be.
        """
        if not is_full:
            # What is not asked for says nothing about what could be served.
            self._settle(0)
            return
        if self.is_fast and self.cap < self.most:
            self.cap = min(self.cap + 1.0, float(self.most))
        if self._settling > 0:
            self._settling -= 1
            return
        if self._n == 0:
            self._began = now
        self._n += 1
        self._seconds += seconds
        if self._n > self._goal and now > self._began:
            self._measured((self._n - 1) / (now - self._began), self._seconds / self._n)

    def waited(self) -> None:
        """Return nothing; calls waited for a second, and nothing was answered at all: slow is not full."""
        if self.is_fast and self._latest == 0.0:
            self.cap = min(self.cap * 2.0, float(self.most))

    def grow(self) -> None:
        """Return nothing; refusals were not about the calls in flight, which double again."""
        self.is_fast = self.cap < self.most
        self._home = self._best = self.cap
        self._rate, self._patience = 0.0, 1
        self._settle(int(self.cap))

    def refused(self) -> None:
        """Return nothing; there were too many."""
        was_step = self.cap != self._home and not self.is_fast
        self.is_fast = False
        patience = min(self._patience, _MOST_PATIENCE // 8)
        self._failed(max(self.cap * _CUT, 1.0))
        self._patience = patience * 2 if was_step else 1
        self._goes_up = True
        self._rate = 0.0

    def _measured(self, rate: float, latency: float) -> None:
        """Take the answers a second of a round, and their mean latency, and go on."""
        self._shortest = min(self._shortest, latency * (_EARLY if self.is_fast else 1.0))
        self._latest = latency
        if self.is_fast:
            self._try_fast(rate)
        elif self.cap == self._home:
            self._rate = rate if self._rate == 0.0 else (self._rate + rate) / 2
            self._waited += 1
            if self._waited >= self._patience:
                self._step()
        else:
            is_up = self.cap > self._home
            if rate >= self._rate * (1.0 + (_WORTH * (self.cap / self._home - 1.0) if is_up else 0.0)):
                self._home, self._rate, self._patience = self.cap, rate, 1
                self._stride = min(self._stride * 2, _LONGEST_STRIDE) if is_up else 1
                self._step()
            else:
                self._failed(self._home)
        self._settle(int(self.cap) if not self.is_fast else 0)

    def _try_fast(self, rate: float) -> None:
        """Go on doubling, unless it is at the most, or more calls brought fewer answers or took too long."""
        is_lost = rate < _LOST * self._rate
        if rate > self._rate:
            self._rate, self._best = rate, self._from
        if is_lost or self.cap >= self.most or self._latest > _SWAMPED * self._shortest:
            self.is_fast = False
            self._home = self.cap = self._best if is_lost else self.cap
            self._goes_up, self._stride = False, _LONGEST_STRIDE
            self._rate, self._patience = 0.0, 1

    def _step(self) -> None:
        """Try more or fewer calls, as it went well last; stay where there is nothing to try."""
        self._waited = 0
        is_top, is_crowded = self.cap >= self.most, self._latest > _CROWDED * self._shortest
        if is_top and not is_crowded:
            self._stride = 1
            return
        self._goes_up = not is_top and (self._goes_up or self.cap < 2)
        factor = _STEP**self._stride
        if self._goes_up:
            self.cap = min(max(self.cap * factor, self.cap + 1.0), float(self.most))
        else:
            self.cap = max(min(self.cap / factor, self.cap - 1.0), 1.0)

    def _failed(self, home: float) -> None:
        self._home = self.cap = home
        self._goes_up = not self._goes_up
        self._stride = 1
        self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._waited = 0
        self._settle(int(home))

    def _settle(self, calls: int) -> None:
        """Measure anew, once as many calls are answered as went out before."""
        self._settling = calls
        self._from = self.cap
        self._n, self._seconds, self._began = 0, 0.0, 0.0
        self._goal = max(int(self.cap), 8) if self.is_fast else max(2 * int(self.cap), _FEWEST)
