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

_SHORTEST_PLATEAU, _LONGEST_PLATEAU = 1.0, 16.0
"""Seconds after a cut until the rate is back where it was refused: longer each time it is refused at the same rate."""

_SAME = 1.2
"""Rates that differ by less than this factor are the same."""

_FORGOTTEN = 4.0
"""Times the refused rate without a new refusal: the service no longer minds."""

_EARNEST = 3.0
"""Times the rate served: a rate above it is not what was refused."""

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
        self._idle = 0.0
        """Seconds in which nothing was asked; moments are counted without them."""
        self._served: deque[float] = deque(maxlen=_REMEMBERED)
        self._refused: deque[float] = deque(maxlen=_EVIDENCE)
        self._peak = self._depth = self._cut_at = 0.0
        self._plateau = _SHORTEST_PLATEAU

    def began(self, now: float) -> None:
        """Return nothing; a call goes out after nothing was under way. Unless refusals were why, the pause is no time."""
        if self._served and not (self._refused and self._refused[-1] >= self._served[-1]):
            self._idle = now - self._served[-1]

    def answered(self, now: float) -> None:
        """Return nothing; a call was served."""
        self._served.append(now - self._idle)
        if self.bucket is not None:
            along = max(now - self._cut_at, 0.0) / self._plateau - 1.0
            rate = self._peak + self._depth * along**3
            if rate > _FORGOTTEN * self._peak:
                self.bucket = None
            else:
                self.bucket.rate, self.bucket.burst = rate, _burst(rate)

    def refused(self, now: float, *, is_news: bool) -> None:
        """Return nothing; a call was refused.

        Args:
            now: the present.
            is_news: whether it speaks against the present rate, since it was sent after the latest cut.
        """
        self._refused.append(now - self._idle)
        served = self._served_a_second(now - self._idle)
        if served is None:
            return
        if self.bucket is None:
            if len(self._refused) == _EVIDENCE and self._refused[0] >= self._served[0]:
                self._cut(now, _KEPT * served / _CUT, _KEPT * served)
        elif is_news:
            rate = self.bucket.rate
            # A rate so far above what is served was never tried in earnest.
            tried = rate if rate <= _EARNEST * served else _SAME * served
            low = min(rate, max(_CUT * tried, _KEPT * served))
            # Refused even before it was back where it was refused last: that was too high.
            self._cut(now, (low + tried) / 2 if rate < self._peak else tried, low)

    def closed(self, until: float) -> None:
        """Return nothing; nothing goes out before ``until``: what is held back meanwhile teaches nothing."""
        self._cut_at = max(self._cut_at, until)

    def _cut(self, now: float, peak: float, low: float) -> None:
        is_same = peak < _SAME * self._peak and self._peak < _SAME * peak
        if not is_same:
            self._plateau = _SHORTEST_PLATEAU
        elif now - self._cut_at >= self._plateau / 2:
            self._plateau = min(self._plateau * 2, _LONGEST_PLATEAU)
        self._peak, self._cut_at = peak, now
        self._depth = max(peak - low, (1 - _KEPT) * peak)
        self.bucket = Bucket(low, _burst(low), now, level=0.0)

    def _served_a_second(self, moment: float) -> float | None:
        if len(self._served) < _FEWEST or moment <= self._served[0]:
            return None
        return len(self._served) / (moment - self._served[0])


def _burst(rate: float) -> float:
    """Return what may go at once: no more than timers are late by."""
    return max(rate / 20, 1.0)
