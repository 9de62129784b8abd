"""When a call is asked again: how long a service asks to wait, the policy's decisions, the retry budget."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_nb.gateway.quota import seconds_until
from moa_nb.gateway.retry import Fault, RetryBudget, RetryPolicy, retry_after, should_retry
from moa_nb.testing import Clock


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after": "20"}, 20.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT", "Date": "Thu, 01 Jan 1970 00:01:30 GMT"}, 10.0),
        ({"Retry-After": "1970-01-01T00:01:40Z"}, 60.0),
        ({"Retry-After": "6m0s"}, 360.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "6431", "Retry-After": "7"}, 6.431),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 9.0),
        ({"retry-after-ms": "60000", "Retry-After": "1"}, 60.0),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "Wed, 31 Dec 1969 23:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "-5"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"retry-after-ms": "nan", "Retry-After": "2"}, 2.0),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_what_a_service_asks_for_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, dates by the service's own clock, milliseconds; of two that contradict each other the later."""
    assert retry_after(headers, now=lambda: 40.0) == seconds


def test_a_moment_since_1970_is_no_duration() -> None:
    """Some services send the moment itself, in seconds or in milliseconds."""
    assert seconds_until("1700000030", now=lambda: 1.7e9) == pytest.approx(30)
    assert seconds_until("1700000030000", now=lambda: 1.7e9) == pytest.approx(30)


@given(st.text(max_size=30), st.text(max_size=20))
def test_any_header_gives_finite_seconds_or_none(text: str, other: str) -> None:
    """Nothing a service sends raises, or makes a wait that is negative, endless or no number."""
    seconds = retry_after({"Retry-After": text, "retry-after-ms": other, "Date": other})
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


@given(st.integers(0, 10**6), st.integers(-(10**6), 10**6))
def test_a_date_is_measured_by_the_clock_that_wrote_it(seconds: int, skew: int) -> None:
    """However far the two clocks are apart."""
    sent = 1_700_000_000 + skew
    date, after = (format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True) for at in (sent, sent + seconds))
    assert retry_after({"Retry-After": after, "Date": date}, now=lambda: 1.7e9) == seconds


@pytest.mark.parametrize(
    ("text", "said"), [("true", True), ("False", False), ("maybe", None), ("", None)], ids=["yes", "no", "?", "empty"]
)
def test_a_service_may_say_whether_to_ask_again(text: str, said: bool | None) -> None:
    """``x-should-retry`` is read, anything else in it is nothing said."""
    assert should_retry({"x-should-retry": text}) is said


@pytest.mark.parametrize("kind", ["server", "disconnected", "timeout", "malformed"])
def test_a_policy_decides_by_time_alone(kind: Any) -> None:
    """Before ``seconds`` are over a fault is asked again, however often; afterwards not."""
    policy = RetryPolicy(seconds=10.0, draw=lambda: 0.5)
    fault = Fault(kind, "x")
    assert policy.decide(fault, attempt=99, failing_seconds=9.9, ever_answered=True).wait_seconds == 2.0
    assert policy.decide(fault, attempt=1, failing_seconds=10.0, ever_answered=True).wait_seconds is None


@given(attempt=st.integers(1, 10**6), draw=st.floats(0, 1))
def test_jitter_is_full_and_bounded(attempt: int, draw: float) -> None:
    """From nothing to a bound that doubles to the longest wait."""
    policy = RetryPolicy(draw=lambda: draw)
    wait = policy.decide(Fault("server", "x"), attempt=attempt, failing_seconds=0, ever_answered=True).wait_seconds
    assert wait == pytest.approx(draw * min(4.0, 0.25 * 2.0 ** min(attempt, 16)))


def test_a_single_failure_is_asked_again_at_once() -> None:
    """A service that fails now and then is not slowed."""
    clock = Clock()
    budget = RetryBudget(clock.time)
    waits = []
    for number in range(2000):
        budget.asked()
        clock.advance(0.01)
        if number % 10 == 0:
            waits.append(budget.wait_seconds())
    assert set(waits) == {0.0}


def test_an_outage_is_not_hammered() -> None:
    """A thousand calls that fail at once come back spread out, each of them."""
    budget = RetryBudget(lambda: 0.0, share=0.2, per_second=5.0, reserve=10)
    waits = [budget.wait_seconds() for _ in range(1000)]
    assert waits[:10] == [0.0] * 10
    assert waits == sorted(waits)
    assert max(waits) == pytest.approx(990 / 5.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.5)), min_size=1, max_size=300))
def test_retries_are_bounded_by_the_reserve_the_time_and_the_share_of_calls(steps: list[tuple[bool, float]]) -> None:
    """Those that may go at once never exceed what was brought."""
    clock = Clock()
    budget = RetryBudget(clock.time, share=0.2, per_second=2.0, reserve=3)
    at_once, asked = 0, 0
    for is_retry, seconds in steps:
        clock.advance(seconds)
        if is_retry:
            wait = budget.wait_seconds()
            assert math.isfinite(wait)
            assert wait >= 0
            at_once += wait == 0
        else:
            budget.asked()
            asked += 1
        assert at_once <= 3 + 0.2 * asked + 2.0 * clock.now + 1e-6
