"""Who is late: layers with patience, calls that are asked once more, and what of it may be billed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import moa_nb as moa
from moa_nb import settings
from moa_nb.chat import Completion, Usage
from moa_nb.engine import current
from moa_nb.errors import LayerFailed, ServiceError
from moa_nb.gateway.hedge import hedged
from moa_nb.gateway.route import _ENOUGH
from moa_nb.testing import ChatServer, Reply

Lab = Callable[..., None]


def patient(seconds: float, min_ok: int = 1) -> moa.Pipeline:
    """Three proposers, of whom as many must answer, and nobody is waited for longer."""
    first = {"agents": ["lab:a", "lab:b", "lab:c"], "patience": seconds, "min_ok": min_ok}
    return moa.Pipeline(layers=[first, ["lab:z"]])


def warm_up() -> None:
    """Ask as often as it takes to know what is late; with one more call, that one might be hedged already."""
    for number in range(_ENOUGH):
        moa.run(f"Question {number}", pipeline="single")


def test_a_layer_goes_on_without_who_is_late(server: ChatServer, lab: Lab) -> None:
    """After its patience the aggregator reads those that are there; who was dropped is said, and its connection closed."""
    server.on("a", Reply("one")).on("b", Reply.hanging()).on("c", Reply("three"))
    result = moa.run("Why?", pipeline=patient(1.5, min_ok=2))  # or one that is slow here would be late, too
    assert server.wait_until(lambda: server.in_flight == 0, seconds=60)
    (seen,) = server.asked("z")
    assert "1. one" in seen.text_of("system")
    assert "2. three" in seen.text_of("system")
    late = result.layers[0].calls[1]
    assert (late.error, late.unreported) == ("no answer within the 1.5 s that the layer waits", 1)
    assert result.degraded
    assert result.unreported == 1, "what it wrote may be billed"
    assert "layer 1: 2 of 3 agents answered" in result.notes


def test_patience_waits_for_as_many_as_must_answer(server: ChatServer, lab: Lab) -> None:
    """With ``min_ok = 2`` the layer waits for the second, however late; one is enough unless more are said to be."""
    server.on("a", Reply("one")).on("b", Reply.hanging()).on("c", Reply("three", delay=0.8))
    began = time.monotonic()
    result = moa.run("Why?", pipeline=patient(0.2, min_ok=2))
    assert time.monotonic() - began >= 0.8
    assert [call.ok for call in result.layers[0].calls] == [True, False, True]
    server.on("c", Reply.hanging())
    one, *late = moa.run("Why not?", pipeline=patient(0.2)).layers[0].calls
    assert one.ok
    assert [call.error for call in late] == ["no answer within the 0.2 s that the layer waits"] * 2


def test_patience_does_not_hold_up_a_layer_that_is_over(server: ChatServer, lab: Lab) -> None:
    """It ends with its last call, and where too few answered it fails as ever."""
    began = time.monotonic()
    assert not moa.run("Why?", pipeline=patient(20)).degraded
    assert time.monotonic() - began < 10
    server.on("a", Reply.bad_request()).on("b", Reply.bad_request())
    with pytest.raises(LayerFailed, match="1 of 3 agents answered, 2 must"):
        moa.run("Why not?", pipeline=patient(20, min_ok=2))


def test_a_straggler_is_asked_once_more(server: ChatServer, lab: Lab) -> None:
    """Where asked for: once it takes longer than 95 of 100 did, a second request goes out, and the first answer wins."""
    lab(hedge=True, concurrency=4)
    server.on("z", Reply("quick", delay=0.02))
    warm_up()
    server.clear()
    server.on("z", Reply.hanging(), Reply("the second"))
    result = moa.run("Why?", pipeline="single")
    (call,) = result.calls
    assert (result.text, call.attempts, call.unreported, server.count()) == ("the second", 2, 1, 2)
    assert server.wait_until(lambda: server.in_flight == 0, seconds=60), "the overtaken one is closed"


def test_nobody_is_asked_twice_unasked(server: ChatServer, lab: Lab) -> None:
    """Without ``hedge`` a slow answer is waited for."""
    server.on("z", Reply("quick", delay=0.02))
    warm_up()
    server.on("z", Reply("slow", delay=0.6))
    result = moa.run("Why?", pipeline="single")
    assert (result.text, result.calls[0].attempts) == ("slow", 1)


def test_a_hedged_call_whose_twin_cannot_be_paid_goes_on(server: ChatServer, lab: Lab) -> None:
    """The budget has room for one attempt: the second is not sent, and the first is waited for."""
    lab(hedge=True, concurrency=4)
    server.on("z", Reply("quick", delay=0.02))
    warm_up()
    server.clear()
    server.on("z", Reply("slow", delay=0.6))
    result = moa.run("Why?", pipeline="single", max_tokens=100, budget="1 call")
    assert (result.text, server.count()) == ("slow", 1)


def test_hedged_calls_that_all_fail_are_one_error(server: ChatServer, lab: Lab) -> None:
    """Both attempts count, and the call is asked again until its time is over."""
    lab(hedge=True, retry_seconds=0.5)
    server.on("z", Reply.fault(500))
    with pytest.raises(ServiceError, match="goes on failing"):
        moa.run("Why?", pipeline="single")


def test_a_first_attempt_that_wins_late_is_remembered_as_late(server: ChatServer, lab: Lab) -> None:
    """What it took is counted from its own beginning, not from that of its twin: else 'late' would creep towards 0."""
    lab(hedge=True, concurrency=4)
    server.on("z", Reply("quick", delay=0.02))
    warm_up()
    server.clear()
    server.on("z", Reply("the first", delay=0.5), Reply.hanging())
    assert moa.run("Why?", pipeline="single").text == "the first"

    async def latest() -> float:
        engine = current()
        return engine.gateway(settings.current()).route("lab:z").seconds[-1]

    assert current().finish(latest()) >= 0.5


def test_of_two_answers_at_the_same_moment_the_other_is_paid_for_too() -> None:
    """Both were served: the one that nobody reads counts as unreported."""
    both, answer = asyncio.Event(), Completion("yes", "z", "stop", Usage(1, 1))
    call: Any = SimpleNamespace(attempts=0, began=0.0, unreported=0, route=SimpleNamespace(late_seconds=0.001))

    def may_be_billed() -> None:
        call.unreported += 1

    async def attempt(call: Any) -> Completion:
        call.attempts += 1
        if call.attempts == 2:
            both.set()
        await both.wait()
        return answer

    call.may_be_billed = may_be_billed
    assert asyncio.run(hedged(attempt, call, time.monotonic)) is answer
    assert (call.attempts, call.unreported) == (2, 1)
