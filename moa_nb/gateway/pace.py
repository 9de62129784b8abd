"""How fast calls may follow one another: a rate that was set, or one that refusals taught."""

from __future__ import annotations

from collections import deque

__all__ = ["Bucket", "Pace", "per_minute"]

_REMEMBERED = 256
"""Answers from which a service's rate is measured: a second of a quick service, a minute of a slow one."""

_FEWEST = 16
"""Answers below which no rate is measured."""

_EVIDENCE = 8
"""Refusals among the remembered answers that make a rate of them; fewer are chance."""

_CUT = 0.85
_KEPT = 0.95
"""Of what the service serves while it refuses more: this much is asked of it next."""

_PLATEAU_SECONDS = 15.0
"""How long after a cut the rate is back where it was refused."""

_FORGOTTEN = 4.0
"""Times the refused rate without a new refusal: the service no longer minds."""

_DUST = 1e-6


class Bucket:
    """So many a second, and a few at once (a token bucket).

    Args:
        rate: what flows in a second.
        burst: what it holds.
        now: the present, in seconds.
        level: what is in it now; full if ``None``.

    >>> bucket = Bucket(2.0, burst=1.0, now=0.0)
    >>> bucket.take(1, now=0.0)
    >>> bucket.wait_seconds(1, now=0.0)
    0.5
    """

    __slots__ = ("_filled", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float, level: float | None = None) -> None:
        self.rate, self.burst = rate, burst
        self.level = burst if level is None else level
        self._filled = now

    def wait_seconds(self, amount: float, now: float) -> float:
        """Return the seconds until ``amount`` may go; what is more than it holds goes when it is full."""
        self._fill(now)
        missing = min(amount, self.burst) - self.level
        return missing / self.rate if missing > _DUST else 0.0

    def take(self, amount: float, now: float) -> None:
        """Return nothing; ``amount`` went, which may leave a debt. A negative one comes back."""
        self._fill(now)
        self.level = min(self.level - amount, self.burst)

    def _fill(self, now: float) -> None:
        if now > self._filled:
            self.level = min(self.level + (now - self._filled) * self.rate, self.burst)
            self._filled = now


def per_minute(limit: int, now: float) -> Bucket:
    """Return a bucket that lets no more than ``limit`` through in any minute, nor a minute's worth at once.

    A second's worth may go at once; what flows in is less by that, so that a minute that begins with it has no more.
    """
    burst = max(limit / 60, 1.0)
    return Bucket((limit + 1 - burst) / 60, burst, now)


class Pace:
    """The requests a second that a service takes, learnt from what it serves while it refuses more.

    Where calls are answered at once, no number of calls in flight bounds their rate. So after several refusals the
    rate falls to just below the rate served; it comes back to where it was refused within seconds, stays near it, and
    then tries more and more above it (the curve of Ha, Rhee and Xu 2008, "CUBIC: A New TCP-Friendly High-Speed TCP
    Variant", over a shallower cut, since the rate served is known).
    """

    def __init__(self) -> None:
        self.bucket: Bucket | None = None
        """What holds calls back; ``None`` while nothing does."""
        self._served: deque[float] = deque(maxlen=_REMEMBERED)
        self._refused: deque[float] = deque(maxlen=_EVIDENCE)
        self._peak = 0.0
        self._low = 0.0
        self._cut_at = 0.0

    def began(self) -> None:
        """Return nothing; a call goes out after a pause. If no refusal caused it, it says nothing of the rate."""
        if not self._refused or (self._served and self._served[-1] > self._refused[-1]):
            self._served.clear()

    def answered(self, now: float) -> None:
        """Return nothing; a call was served."""
        self._served.append(now)
        if self.bucket is not None:
            along = (now - self._cut_at) / _PLATEAU_SECONDS - 1.0
            rate = self._peak + (self._peak - self._low) * along**3
            if rate > _FORGOTTEN * self._peak:
                self.bucket = None
            else:
                self.bucket.rate = rate
                self.bucket.burst = _burst(rate)

    def refused(self, now: float, *, is_news: bool) -> None:
        """Return nothing; a call was refused.

        Args:
            now: the present.
            is_news: whether it was sent after the latest cut, so that it speaks against the present rate.
        """
        self._refused.append(now)
        served = self._served_a_second(now)
        if served is None:
            return
        if self.bucket is None:
            if len(self._refused) == _EVIDENCE and self._refused[0] >= self._served[0]:
                self._cut(now, served, _KEPT * served)
        elif is_news:
            rate = self.bucket.rate
            self._cut(now, rate, min(rate, max(_CUT * rate, _KEPT * served)))

    def _cut(self, now: float, peak: float, low: float) -> None:
        self._peak, self._low, self._cut_at = peak, low, now
        self.bucket = Bucket(low, _burst(low), now, level=0.0)

    def _served_a_second(self, now: float) -> float | None:
        if len(self._served) < _FEWEST or now <= self._served[0]:
            return None
        return len(self._served) / (now - self._served[0])


def _burst(rate: float) -> float:
    """Return what may go at once: no more than timers are late by."""
    return max(rate / 20, 1.0)
