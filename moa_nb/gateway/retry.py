"""What went wrong with an attempt, and whether to ask again."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from moa_nb.providers.wire import Cause

__all__ = ["Fault", "FaultKind", "RetryDecision", "RetryPolicy", "retry_after"]

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
            failing_seconds: since this call's first fault, waits that the service asked for left out.
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


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that the service asks to wait; ``None`` if it says nothing.

    ``retry-after-ms`` is exacter than ``Retry-After``, which may be seconds or a date.

    >>> retry_after({"Retry-After": "2"})
    2.0
    """
    milliseconds = headers.get("retry-after-ms") or headers.get("Retry-After-Ms")
    if milliseconds:
        try:
            return max(float(milliseconds) / 1000, 0.0)
        except ValueError:
            pass
    text = headers.get("Retry-After") or headers.get("retry-after")
    if not text:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - now(), 0.0)
    except (ValueError, TypeError):
        return None
