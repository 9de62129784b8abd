"""What went wrong with an attempt, and whether to ask again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from moa_nb.gateway.quota import seconds_until
from moa_nb.providers.wire import Cause

__all__ = ["Fault", "FaultKind", "RetryBudget", "RetryDecision", "RetryPolicy", "retry_after", "should_retry"]

_LATELY_SECONDS = 10.0
"""How far back the calls count from which a rate of retries follows."""

FaultKind = Literal[
    "rate limit", "server", "disconnected", "timeout", "malformed", "web page", "unreachable", "moved", "final"
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed attempt."""

    kind: FaultKind
    message: str
    status: int | None = None
    retry_after_seconds: float | None = None
    """What the service asked for; ``None`` if it said nothing."""
    cause: Cause | None = None
    """What is wrong, where the service refused."""
    headers: Mapping[str, str] | None = field(default=None, repr=False, compare=False)
    """What stood above a refusal, where that may say more of its limits."""


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """Ask again after some seconds, or not at all."""

    wait_seconds: float | None

    @classmethod
    def after(cls, seconds: float) -> RetryDecision:
        """Return the decision to ask again after ``seconds``."""
        return cls(seconds)

    @classmethod
    def no(cls) -> RetryDecision:
        """Return the decision not to ask again."""
        return cls(None)


@dataclass(frozen=True)
class RetryPolicy:
    """Full jitter over a doubling wait; only time ends it, never a count of attempts.

    (Brooker 2015, "Exponential Backoff And Jitter": each wait is drawn from 0 to the doubled bound.)
    """

    seconds: float = 20.0
    """How long a call that meets faults is asked again."""
    first_seconds: float = 0.25
    longest_seconds: float = 4.0
    unreachable_attempts: int = 3
    """Attempts at a server that never answered anybody."""
    web_page_attempts: int = 2
    """Attempts at a server that never gave anybody anything but a web page."""
    draw: Callable[[], float] = random.random

    def decide(self, fault: Fault, *, attempt: int, failing_seconds: float, ever_answered: bool) -> RetryDecision:
        """Return whether to ask again after the ``attempt``-th attempt ended in ``fault``.

        Args:
            fault: what happened.
            attempt: 1 after the first attempt.
            failing_seconds: since this call's first fault (with the time that it hung, if it did), waits that the service
                asked for left out.
            ever_answered: whether this server has answered any call of this session.
        """
        if fault.kind in {"final", "moved"}:
            return RetryDecision.no()
        if fault.kind == "rate limit":
            bound = self._jitter(attempt)
            return RetryDecision.after(
                bound if fault.retry_after_seconds is None else fault.retry_after_seconds + bound / 4
            )
        if fault.kind == "unreachable" and not ever_answered:
            return (
                RetryDecision.no()
                if attempt >= self.unreachable_attempts
                else RetryDecision.after(self._jitter(attempt))
            )
        if fault.kind == "web page" and not ever_answered and attempt >= self.web_page_attempts:
            return RetryDecision.no()
        if failing_seconds >= self.seconds:
            return RetryDecision.no()
        if fault.retry_after_seconds is not None:
            return RetryDecision.after(fault.retry_after_seconds)
        return RetryDecision.after(self._jitter(attempt))

    def _jitter(self, attempt: int) -> float:
        return self.draw() * min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempt, 16))


class RetryBudget:
    """How often calls that failed may be asked again: it slows, and never fails a call.

    Each call brings a share of a retry, and each second a few, so that a service that fails now and then is asked
    again at once, and one that fails for all is not asked much more than it would be anyway (the idea of a retry
    budget is that of Finagle's ``RetryBudget``). What goes beyond waits its turn.

    Args:
        clock: seconds, never going back.
        share: retries that each call brings.
        per_second: retries that each second brings.
        reserve: retries that may be made at once.

    >>> budget = RetryBudget(lambda: 0.0, per_second=2.0, reserve=2)
    >>> [budget.wait_seconds() for _ in range(4)]
    [0.0, 0.0, 0.5, 1.0]
    """

    def __init__(
        self, clock: Callable[[], float], *, share: float = 0.5, per_second: float = 4.0, reserve: float = 16.0
    ) -> None:
        self._clock = clock
        self._share, self._per_second, self._reserve = share, per_second, reserve
        self._left = reserve
        self._filled = clock()
        self._asked = 0.0
        """Calls lately, each counting less with time."""

    def asked(self) -> None:
        """Return nothing; a call goes out for the first time."""
        self._asked += 1.0
        if self._left < self._reserve:
            self._left = min(self._left + self._share, self._reserve)

    def wait_seconds(self) -> float:
        """Return the seconds after which one call may be asked again; it is counted as asked then."""
        now = self._clock()
        passed = now - self._filled
        self._filled = now
        self._left = min(self._left + passed * self._per_second, self._reserve)
        self._asked *= math.exp(-passed / _LATELY_SECONDS)
        self._left -= 1.0
        return max(0.0, -self._left) / (self._per_second + self._share * self._asked / _LATELY_SECONDS)


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what the service says of asking again, whatever the status; ``None`` if it says nothing.

    OpenAI and Anthropic send ``x-should-retry``, and their own clients go by it.

    >>> should_retry({"x-should-retry": "false"}), should_retry({})
    (False, None)
    """
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that the service asks to wait; ``None`` if it says nothing that can be read.

    ``Retry-After`` may be seconds or a date, which is compared with the service's own ``Date``; ``retry-after-ms`` is
    the same in milliseconds. Where the two contradict each other by more than their rounding, the later moment is the
    safe one.

    >>> retry_after({"Retry-After": "2"}), retry_after({"Retry-After": "7", "retry-after-ms": "6431"})
    (2.0, 6.431)
    """
    seconds = seconds_until(headers.get("Retry-After") or headers.get("retry-after"), headers, now)
    exact = _exact(headers.get("retry-after-ms") or headers.get("Retry-After-Ms"))
    if seconds is None or exact is None:
        return exact if seconds is None else seconds
    return exact if abs(seconds - exact) <= 1.0 else max(seconds, exact)


def _exact(milliseconds: str | None) -> float | None:
    try:
        seconds = float(milliseconds or "") / 1000
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
