"""How fast calls may follow one another: a rate that was set, or one that refusals taught."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Bucket", "Pace", "per_minute"]

_REMEMBERED = 1024
"""Answers that are remembered at most."""

_MEASURED_SECONDS = 1.0
"""Over which the rate of a service is measured; longer while there are fewer answers than follow."""

_FEWEST = 16
"""Answers below which no rate is measured."""

_EVIDENCE = 8
"""Refusals among the answers measured that make a rate of them; fewer are chance."""

_LEAST = 4.0
"""Requests a second from which on a rate is searched."""

_SEARCHED_SECONDS = 6.0
"""After which a rate is no longer searched: nothing was refused."""

_SLOWER = 0.25
"""Times the doublings, once a rate is reached that was served before."""

_MANY = 4
"""Refusals after which a silence that the service asks for is that of a rate."""

_DOUBLING_SECONDS = 0.3
"""In which a rate doubles of which nothing is known but that it is too low."""

_CUT = 0.85
_KEPT = 0.95
"""Of what the service serves while it refuses more: this much is asked of it next."""

_DEEPEST = 0.4
"""Of what the service served lately: no rate is cut to less."""

_REST, _LONGEST_REST = 16.0, 256.0
"""Times the seconds of a silence until the rate that brought it is tried again, and at most so many seconds."""

_SHORTEST_PLATEAU, _LONGEST_PLATEAU = 1.0, 16.0
"""Seconds after a cut until the rate is back where it was refused: longer each time it is refused at the same rate."""

_SAME = 1.2
"""Rates that differ by less than this factor are the same."""

_FORGOTTEN = 4.0
"""Times the refused rate without a new refusal: the service no longer minds."""

_EARNEST = 5.0
"""Times the rate served: a rate above it is not what was refused."""

_LOWEST = 0.1
"""Requests a second that are asked at least."""

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
    Variant", over a shallower cut, since the rate served is known). After a silence that the service asked for, what
    was served says little: the rate then starts low and doubles until it is refused.
    """

    def __init__(self) -> None:
        self.bucket: Bucket | None = None
        """What holds calls back; ``None`` while nothing does."""
        self._idle = 0.0
        """Seconds in which nothing was asked; moments are counted without them."""
        self._served: deque[float] = deque(maxlen=_REMEMBERED)
        self._refused: deque[float] = deque(maxlen=_EVIDENCE)
        self._peak = self._depth = self._cut_at = 0.0
        self._is_search = False
        """Whether the rate doubles from ``_peak``; else it is near it."""
        self._plateau = _SHORTEST_PLATEAU
        self._known = 0.0
        """A rate that was served, from which a search goes on more slowly; 0 where nobody knows."""

    @property
    def is_learnt(self) -> bool:
        """Whether the rate is known at which calls are refused."""
        return self.bucket is not None and not self._is_search

    def began(self, now: float) -> None:
        """Return nothing; a call goes out after nothing was under way. Unless refusals were why, the pause is no time."""
        if self._served and not (self._refused and self._refused[-1] >= self._served[-1]):
            self._idle = now - self._served[-1]

    def answered(self, now: float) -> None:
        """Return nothing; a call was served."""
        self._served.append(now - self._idle)
        if self.bucket is not None and (
            now - self._cut_at > _SEARCHED_SECONDS if self._is_search else self.bucket.rate > _FORGOTTEN * self._peak
        ):
            self.forget()

    def adjust(self, now: float) -> None:
        """Return nothing; the bucket has the rate of the present."""
        if self.bucket is not None:
            rate = self._rate(max(now - self._cut_at, 0.0))
            self.bucket.rate, self.bucket.burst = rate, _burst(rate)

    def refused(self, now: float, *, is_news: bool, is_full: bool) -> None:
        """Return nothing; a call was refused.

        Args:
            now: the present.
            is_news: whether it speaks against the present rate, since it was sent after the latest cut.
            is_full: whether as many calls were in flight as may be, so that not the rate held them back.
        """
        moment = now - self._idle
        self._refused.append(moment)
        served = self._served_a_second(moment)
        if self.bucket is None:
            if len(self._served) >= _FEWEST and self._is_evident():
                self._cut(now, _KEPT * served / _CUT, _KEPT * served)
        elif is_news:
            rate = self.bucket.rate
            # A rate so far above what is served was never tried in earnest.
            tried = min(rate, _SAME * served) if is_full or rate > _EARNEST * served else rate
            low = max(_CUT * tried, _KEPT * served)
            if low >= rate:
                # What was served lately was more than is asked already, and is no measure.
                low = min(rate, max(_CUT * rate, _DEEPEST * served))
            # Refused even before it was back where it was refused last: that was too high.
            peak = (low + tried) / 2 if self._is_search or rate < self._peak else tried
            self._cut(now, max(peak, _KEPT * served), low)

    def closed(self, now: float, until: float, *, is_new: bool) -> None:
        """Return nothing; nothing goes out before ``until``: what is held back meanwhile teaches nothing.

        Args:
            now: the present.
            until: when calls go out again.
            is_new: whether what was learnt has not prevented it.
        """
        if is_new and (self.bucket is not None or len(self._refused) >= _MANY):
            self._search(now - self._idle, until)
        self._plateau = max(self._plateau, min(_REST * (until - now), _LONGEST_REST))
        self._cut_at = max(self._cut_at, until)

    def _search(self, moment: float, until: float) -> None:
        """Start low ``until`` then, from what was served in a second, the silence included."""
        self._served_a_second(moment)  # forgets what is older
        if self.bucket is not None and moment + self._idle >= self._cut_at:
            # The last search went too far: what was served in a second is a better guess than none.
            self._known = len(self._served) / _MEASURED_SECONDS
        first = self._served[0] if self._served else moment
        seconds = max(until - self._idle - first, _MEASURED_SECONDS)
        self._peak = max(len(self._served) / seconds, _LEAST)
        self._is_search = True
        self.bucket = Bucket(self._peak, 1.0, until)

    def forget(self) -> None:
        """Return nothing; refusals were not about the rate."""
        self.bucket, self._is_search, self._known = None, False, 0.0
        self._refused.clear()

    def _is_evident(self) -> bool:
        return len(self._refused) == _EVIDENCE and (not self._served or self._refused[0] >= self._served[0])

    def _rate(self, seconds: float) -> float:
        """Return the rate so long after the latest cut."""
        if self._is_search:
            doubled = min(seconds / _DOUBLING_SECONDS, 64.0)
            known = math.log2(max(self._known / self._peak, 1.0)) if self._known else math.inf
            return self._peak * math.pow(2.0, min(doubled, known) + _SLOWER * max(doubled - known, 0.0))
        return self._peak + self._depth * math.pow(seconds / self._plateau - 1.0, 3)

    def _cut(self, now: float, peak: float, low: float) -> None:
        low = max(low, _LOWEST)
        peak = max(peak, low)
        is_same = not self._is_search and peak < _SAME * self._peak and self._peak < _SAME * peak
        if not is_same:
            self._plateau = _SHORTEST_PLATEAU
        elif now - self._cut_at >= self._plateau / 2:
            self._plateau = max(self._plateau, min(self._plateau * 2, _LONGEST_PLATEAU))
        self._peak, self._cut_at, self._is_search = peak, now, False
        self._depth = max(peak - low, (1 - _KEPT) * peak)
        self.bucket = Bucket(low, _burst(low), now, level=0.0)

    def _served_a_second(self, moment: float) -> float:
        """Return the answers a second lately."""
        served = self._served
        while len(served) > _FEWEST and served[0] < moment - _MEASURED_SECONDS:
            served.popleft()
        return len(served) / max(moment - served[0], _MEASURED_SECONDS / 8) if served else 0.0


def _burst(rate: float) -> float:
    """Return what may go at once: no more than timers are late by."""
    return max(rate / 20, 1.0)
