"""What services say of their limits above each answer: how much is left, and until when."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from moa_nb.gateway.pace import Bucket

__all__ = ["Quotas", "seconds_until"]

_LONGEST_WAIT = 120.0
"""Seconds. A reset further away is that of a day: the service's own refusal then tells more than a long silence."""

_SCARCE = 0.25
"""The share of a limit below which what is left is watched."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS = (86400.0, 3600.0, 60.0, 1.0, 0.001)

_EPOCH = 1e9
"""From here a number is no duration but a moment, in seconds since 1970; from a thousand times this in milliseconds."""


class _Names(NamedTuple):
    """The headers of one limit."""

    limit: str
    remaining: str
    reset: str
    is_of_tokens: bool = False
    is_per_minute: bool = True


_KNOWN = (
    _Names("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    _Names("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", is_of_tokens=True),
    _Names(
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
    _Names(
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
        is_of_tokens=True,
    ),
    _Names("x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute", "x-ratelimit-reset-req-minute"),
    _Names(
        "x-ratelimit-limit-tokens-minute",
        "x-ratelimit-remaining-tokens-minute",
        "x-ratelimit-reset-tokens-minute",
        is_of_tokens=True,
    ),
    _Names("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", is_per_minute=False),
)


class _Quota:
    """One limit of a service, and what is left of it."""

    def __init__(self, names: _Names) -> None:
        self.names = names
        self.bucket: Bucket | None = None
        """Holds calls back while little is left."""
        self._scarce = math.inf
        """What is left is watched from here."""

    def read(self, headers: Mapping[str, str], now: float, in_flight: int, each: float) -> float:
        """Return the seconds for which nothing is left; 0 if there is something."""
        left = _number(headers.get(self.names.remaining))
        if left is None:
            return 0.0
        # What is under way may not be counted yet.
        under_way = in_flight * each
        if left > self._scarce and left > 2 * under_way:
            self.bucket = None
            return 0.0
        limit = _number(headers.get(self.names.limit))
        if limit is not None and limit > 0 and self.names.is_per_minute:
            self._scarce = limit * _SCARCE
            if left > self._scarce and left > 2 * under_way:
                self.bucket = None
            elif self.bucket is None:
                self.bucket = Bucket(limit / 60, limit, now, level=left - under_way)
            else:
                self.bucket.take(0, now)
                self.bucket.level = min(self.bucket.level, left - under_way)
        return self.wait_seconds(headers) if left <= 0 else 0.0

    def wait_seconds(self, headers: Mapping[str, str]) -> float:
        """Return the seconds until there is more; 0 where nobody says, or where it is too long to wait."""
        seconds = seconds_until(headers.get(self.names.reset), headers) or 0.0
        return seconds if seconds <= _LONGEST_WAIT else 0.0


class Quotas:
    """The limits that a service tells of; whoever tells of none is asked ever more seldom."""

    def __init__(self) -> None:
        self._quotas: list[_Quota] = []
        self._n_answers = 0

    def read(self, headers: Mapping[str, str], now: float, in_flight: int, tokens: float) -> float:
        """Return the seconds for which nothing may go out, as an answer tells it.

        Args:
            headers: of the answer; their names may be looked up in lower case.
            now: the present.
            in_flight: further calls under way.
            tokens: what a call takes on average.
        """
        if not self._quotas:
            self._n_answers += 1
            # Looked for in the 1st, 2nd, 4th, 8th, ... answer.
            if self._n_answers & (self._n_answers - 1):
                return 0.0
            self._quotas = [_Quota(names) for names in _KNOWN if names.remaining in headers]
        wait_seconds = 0.0
        for quota in self._quotas:
            each = tokens if quota.names.is_of_tokens else 1.0
            wait_seconds = max(wait_seconds, quota.read(headers, now, in_flight, each))
        return wait_seconds

    def refused_for(self, headers: Mapping[str, str]) -> float | None:
        """Return the seconds until what is used up comes back, as a refusal tells it; ``None`` if it does not."""
        waits = [
            _Quota(names).wait_seconds(headers)
            for names in _KNOWN
            if (left := _number(headers.get(names.remaining))) is not None and left <= 0
        ]
        return max(waits, default=0.0) or None

    @property
    def is_telling(self) -> bool:
        """Whether the service tells of any."""
        return bool(self._quotas)

    def buckets(self) -> list[tuple[Bucket, bool]]:
        """Return what holds calls back, and whether it counts tokens."""
        return [(quota.bucket, quota.names.is_of_tokens) for quota in self._quotas if quota.bucket is not None]


def seconds_until(
    text: str | None, headers: Mapping[str, str] | None = None, now: Callable[[], float] = time.time
) -> float | None:
    """Return the seconds until a moment, however it is written; ``None`` if it cannot be read. Never negative.

    A duration such as ``6m0s`` or ``120ms``, seconds, a date as in HTTP or RFC 3339, seconds or milliseconds since
    1970. Dates are compared with the service's own ``Date``, where the answer has one, as its clock may differ.

    >>> seconds_until("6m0s"), seconds_until("120ms"), seconds_until("1.5"), seconds_until("soon")
    (360.0, 0.12, 1.5, None)
    """
    if not text:
        return None
    text = text.strip()
    number = _number(text)
    if number is not None:
        if number < _EPOCH:
            return max(number, 0.0)
        moment = number if number < 1000 * _EPOCH else number / 1000
    else:
        parts = _DURATION.fullmatch(text)
        if parts and any(parts.groups()):
            return sum(float(part) * unit for part, unit in zip(parts.groups(), _UNITS, strict=True) if part)
        found = _moment(text)
        if found is None:
            return None
        moment = found
    present = _moment((headers or {}).get("Date") or (headers or {}).get("date") or "")
    return max(moment - (now() if present is None else present), 0.0)


def _moment(text: str) -> float | None:
    """Return a date as seconds since 1970."""
    for read in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            return read(text).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            pass
    return None


def _number(text: str | None) -> float | None:
    """Return a finite number."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
