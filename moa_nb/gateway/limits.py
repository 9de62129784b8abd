"""How many calls may be in flight and how fast they follow, and which one is next.

Calls of earlier rows go first, and within a row those of later layers: rows finish early and what
is held in memory stays small.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Mapping

from moa_nb.gateway.chance import Chance
from moa_nb.gateway.climb import Climb
from moa_nb.gateway.pace import Bucket, Pace, per_minute
from moa_nb.gateway.quota import Quotas

__all__ = ["Limiter", "OutOfOrder", "Priority"]

Priority = tuple[int, int]
"""(row, minus layer): the smallest goes first."""

_OUTAGE = 8
"""Faults in a row, without an answer between, that make an outage."""

_FIRST_PROBE_SECONDS = 0.25
_LONGEST_PROBE_SECONDS = 4.0

_LONGEST_HOLD = 0.1
"""Seconds after which rates are looked at again."""

_COOL_DOWN = 8
"""Refusals in a row that are one, where single ones are known to come of the rate or of chance."""

_COOL_DOWN_SECONDS = 1.0
"""In which nothing is answered in a cool-down, at least."""

_LONG_SILENCE = 3.0
"""Seconds of refusals alone, after which what was learnt before holds no more."""

_LONGEST_SINGLE_SECONDS = 2.0
"""What a service may ask for in a single refusal of a known rate without meaning all calls."""

_INSTANT = 1e-6
"""Seconds for which nobody waits: what is left of a wait when moments are rounded."""

_SMOOTHING = 0.1
"""Weight of the latest call in the mean of the calls."""


class OutOfOrder(Exception):
    """The service has been out of order for too long: the calls that wait for it are given up."""


class Limiter:
    """Slots for the calls of one model: grows while all is well, shrinks and slows when the service refuses.

    Args:
        most: the most calls in flight.
        clock: seconds, never going back.
        sleep: waits for seconds.
        start: calls in flight at first, from which it grows; ``most`` if ``None``.
        requests_per_minute: never more than these go out in a minute; ``None`` leaves it to the service.
        tokens_per_minute: likewise, of the tokens that calls are expected to take.

    >>> limiter = Limiter(1, clock=lambda: 0.0)
    >>> limiter.try_acquire(), limiter.try_acquire()
    (True, False)
    >>> limiter.answered(0.5)
    >>> limiter.release()
    >>> limiter.in_flight
    0
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        start: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        self.most = most
        self.in_flight = 0
        self._clock, self._sleep = clock, sleep
        self._climb = Climb(most, start)
        self._slots = int(self._climb.cap)
        """Calls that may be in flight; one while the service is out of order."""
        self._pace = Pace()
        self._quotas = Quotas()
        limits = ((requests_per_minute, False), (tokens_per_minute, True))
        self._set = [(per_minute(limit, clock()), is_of_tokens) for limit, is_of_tokens in limits if limit]
        self._buckets: list[tuple[Bucket, bool]] = list(self._set)
        """All that holds calls back, and whether it counts tokens."""
        self._closed_until = 0.0
        self._is_timed = bool(self._buckets)
        """Whether time may hold calls back."""
        self._queue: list[tuple[Priority, int, asyncio.Future[None], int]] = []
        self._order = itertools.count()
        self._waking: asyncio.Task[None] | None = None
        self._wakes_at = 0.0
        self._round_trip = self._tokens = 0.0
        """What a call takes on average."""
        self._cut_at = -math.inf
        self._chance = Chance()
        self._n_refused = 0
        """Refusals since the latest answer."""
        self._answered_at = 0.0
        self._n_faults = 0
        self._failing_since = 0.0
        self._probe_seconds = 0.0
        """Between two probes of a service that is out of order; 0 while it is not."""
        self._probed_at = -math.inf

    @property
    def cap(self) -> float:
        """Calls that may be in flight while the service is in order."""
        return self._climb.cap

    @property
    def closed_seconds(self) -> float:
        """Seconds until calls may go out again; 0 when they may now."""
        return max(self._closed_until - self._clock(), 0.0)

    # Slots ------------------------------------------------------------------------------------

    def try_acquire(self, tokens: int = 0) -> bool:
        """Return whether a slot is this call's at once, since nobody waits and nothing holds it back.

        Args:
            tokens: what the call is expected to take.
        """
        if self.in_flight >= self._slots or self._queue:
            return False
        if self._is_timed:
            now = self._clock()
            if self._held_seconds(tokens, now) > _INSTANT:
                return False
            self._take(tokens, now)
        elif self.in_flight == 0:
            self._pace.began(self._clock())
        self.in_flight += 1
        return True

    async def acquire(self, priority: Priority, tokens: int = 0) -> None:
        """Return once a slot is this call's; give it back with ``release``.

        Args:
            priority: the smallest goes first; among equals the one that came first.
            tokens: what the call is expected to take.

        Raises:
            OutOfOrder: somebody gave up for all who wait.
        """
        if self.try_acquire(tokens):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._order), turn, tokens))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release()
            raise

    def release(self) -> None:
        """Return nothing; the slot goes to the next call."""
        self.in_flight -= 1
        if self._queue:
            self._hand_out()

    # What the service does --------------------------------------------------------------------

    def answered(
        self, seconds: float, tokens: int | None = None, headers: Mapping[str, str] | None = None, *, expected: int = 0
    ) -> None:
        """Return nothing; the service served a call, and maybe told what is left. To be called before ``release``.

        Args:
            seconds: what the call took.
            tokens: that it took; ``None`` if nobody said.
            headers: of the answer.
            expected: the tokens that it was acquired with.
        """
        now = self._clock()
        self._round_trip += (_SMOOTHING if self._round_trip else 1.0) * (seconds - self._round_trip)
        if self._probe_seconds:
            self._closed_until = now
        self._in_order()
        if self._n_refused >= _COOL_DOWN and now - self._answered_at > _LONG_SILENCE:
            self._pace.closed(now, now, is_new=True)
        self._n_refused, self._answered_at = 0, now
        self._see(is_refused=False)
        self._climb.answered(now, seconds, is_full=self.in_flight >= self._slots)
        self._slots = int(self._climb.cap)
        had_pace = self._pace.bucket is not None
        self._pace.answered(now)
        if tokens:
            self._tokens += _SMOOTHING * (tokens - self._tokens)
            for bucket, is_of_tokens in self._set:
                if is_of_tokens:
                    bucket.take(tokens - expected, now)
        if headers is not None:
            wait_seconds = self._quotas.read(headers, now, self.in_flight - 1, self._tokens)
            if wait_seconds:
                self._close(now + wait_seconds)
        if had_pace or self._quotas.is_telling:
            self._gather()

    def refused(self, wait_seconds: float | None, seconds: float, headers: Mapping[str, str] | None = None) -> None:
        """Return nothing; the service had enough (429, 529): fewer or slower, and none until it says so.

        Calls that went out before the latest cut say nothing new when they are refused too, so that there is at most
        one cut a round trip. What is cut is what let the call through: the calls in flight, or their rate. Refusals that
        come of chance cut nothing.

        The wait that the service asked for holds back all calls; but once its rate is learnt, a short wait after a
        single refusal says no more than that this one call was beyond it, and is the call's own.

        Args:
            wait_seconds: what the service asked for; ``None`` if nothing.
            seconds: what the refusal took.
            headers: of the refusal.
        """
        now = self._clock()
        self._in_order()
        self._n_refused += 1
        self._see(is_refused=True)
        is_cool_down = self._is_cool_down(now)
        if not self._chance.is_all:
            self._cut(now, seconds)
        if wait_seconds is None and headers is not None:
            wait_seconds = self._quotas.refused_for(headers)
        if wait_seconds and (is_cool_down or wait_seconds > _LONGEST_SINGLE_SECONDS):
            self._pace.closed(now, now + wait_seconds, is_new=is_cool_down)
            self._close(now + wait_seconds)
        self._gather()

    def _cut(self, now: float, seconds: float) -> None:
        """Cut what let a call through that was refused after ``seconds``."""
        is_news = now - self._cut_at >= max(seconds, self._round_trip)
        is_full = self.in_flight >= self._slots
        was_paced = self._pace.bucket is not None
        self._pace.refused(now, is_news=is_news, is_full=is_full)
        if is_news:
            self._cut_at = now
            if is_full or not was_paced:
                self._climb.refused()
                self._slots = int(self._climb.cap)

    def _see(self, *, is_refused: bool) -> None:
        """Let chance be known for what it is."""
        bucket, load = self._pace.bucket, float(self.in_flight)
        if bucket is not None and self.in_flight < self._slots:
            load = min(bucket.rate * self._round_trip, float(self._slots))
        if self._chance.ended(load, is_refused=is_refused):
            self._pace.forget()
            self._climb.grow()
            self._gather()

    def _is_cool_down(self, now: float) -> bool:
        """Return whether a refusal is more than what a learnt rate or chance explains."""
        if self._pace.bucket is None and not self._chance.is_all:
            return True
        return self._n_refused >= _COOL_DOWN and now - self._answered_at >= max(self._round_trip, _COOL_DOWN_SECONDS)

    def faulted(self, seconds: float) -> None:
        """Return nothing; the service failed (5xx, a broken connection, no answer in time).

        After some faults in a row it counts as out of order: one call at a time probes it, after ever longer pauses,
        until one is answered.

        Args:
            seconds: what the call took.
        """
        now = self._clock()
        self._n_faults += 1
        if self._n_faults < _OUTAGE or now - seconds <= self._probed_at:
            return
        if not self._probe_seconds:
            self._failing_since = now
        self._probed_at = now
        self._probe_seconds = min(max(2 * self._probe_seconds, _FIRST_PROBE_SECONDS), _LONGEST_PROBE_SECONDS)
        self._slots = 1
        self._close(now + self._probe_seconds)

    @property
    def failing_seconds(self) -> float:
        """For how long the service has been out of order; 0 while it is not."""
        return self._clock() - self._failing_since if self._probe_seconds else 0.0

    def give_up(self) -> None:
        """Return nothing; whoever waits for the service is told that it is out of order."""
        for _, _, turn, _ in self._queue:
            if not turn.done():
                turn.set_exception(OutOfOrder())
        self._queue.clear()

    def _in_order(self) -> None:
        self._n_faults, self._probe_seconds = 0, 0.0
        self._slots = int(self._climb.cap)

    # Time -------------------------------------------------------------------------------------

    def _close(self, moment: float) -> None:
        self._closed_until = max(self._closed_until, moment)
        self._is_timed = True

    def _gather(self) -> None:
        self._buckets = self._set + self._quotas.buckets()
        if self._pace.bucket is not None:
            self._buckets.append((self._pace.bucket, False))
        self._is_timed = bool(self._buckets) or self._clock() < self._closed_until

    def _held_seconds(self, tokens: int, now: float) -> float:
        """Return the seconds for which a call is held back."""
        self._pace.adjust(now)
        held = self._closed_until - now
        for bucket, is_of_tokens in self._buckets:
            held = max(held, bucket.wait_seconds(tokens if is_of_tokens else 1, now))
        return held

    def _take(self, tokens: int, now: float) -> None:
        for bucket, is_of_tokens in self._buckets:
            bucket.take(tokens if is_of_tokens else 1, now)
        self._is_timed = bool(self._buckets)

    def _hand_out(self) -> None:
        while self._queue:
            _, _, turn, tokens = self._queue[0]
            if turn.done():
                heapq.heappop(self._queue)
                continue
            if self.in_flight >= self._slots:
                if self._climb.is_fast:
                    self._wake_in(1.0)
                return
            if self._is_timed:
                now = self._clock()
                held = self._held_seconds(tokens, now)
                if held > _INSTANT:
                    # A rate that grows brings it sooner.
                    self._wake_in(held if now < self._closed_until else min(held, _LONGEST_HOLD))
                    return
                self._take(tokens, now)
            heapq.heappop(self._queue)
            self.in_flight += 1
            turn.set_result(None)

    def _wake_in(self, seconds: float) -> None:
        """See to it that the queue is looked at again in ``seconds``, or before."""
        moment = self._clock() + seconds
        if self._waking is not None and not self._waking.done():  # somebody may have cancelled every task of a loop
            if self._wakes_at <= moment:
                return
            self._waking.cancel()
        self._wakes_at = moment
        self._waking = asyncio.get_running_loop().create_task(self._wake(seconds))

    async def _wake(self, seconds: float) -> None:
        await self._sleep(seconds)
        self._waking = None
        if self._queue and self.in_flight >= self._slots and not self._probe_seconds:
            self._climb.waited()
            self._slots = int(self._climb.cap)
        self._hand_out()
