"""The way of one call, station by station: cache, single flight, budget, limits, retry, http."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import random
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.chat import Completion, Message, Request, Sampling, Usage
from moa_nb.errors import (
    BudgetExceeded,
    KeyRejected,
    MoaError,
    RowError,
    ServiceError,
    SetupError,
    UnknownName,
    gravest,
)
from moa_nb.gateway import Budget, Gateway
from moa_nb.gateway.deadlines import Deadlines
from moa_nb.gateway.events import Events
from moa_nb.gateway.limits import Limiter
from moa_nb.gateway.prices import price_of
from moa_nb.gateway.retry import Fault, RetryPolicy
from moa_nb.providers import openai_chat
from moa_nb.settings import ModelSettings, Settings, services
from moa_nb.store import Store
from moa_nb.testing import ChatServer, Clock, Reply

T = TypeVar("T")
Using = Callable[[Gateway], Coroutine[Any, Any, T]]


def question(model: str = "a", text: str = "Why?", sample: int = 0, **sampling: Any) -> Request:
    """A request to the lab."""
    return Request(f"lab:{model}", (Message("user", text),), Sampling(**sampling), sample=sample)


def lab_settings(server: ChatServer, **values: Any) -> Settings:
    """Settings with the provider ``lab`` on the server; a dollar per million tokens."""
    provider = {"base_url": server.base_url, **values.pop("provider", {})}
    models = values.pop("models", {f"lab:{name}": {"prompt_price": 1.0, "completion_price": 1.0} for name in "abcz"})
    return Settings.model_validate({"providers": {"lab": provider}, "models": models, **values})


def through(settings: Settings, use: Using[T], store: Store | None = None, **parts: Any) -> T:
    """What ``use`` returns, given a gateway on a loop of its own."""

    async def go() -> T:
        gateway = Gateway(settings, store or Store(None), **parts)
        try:
            return await use(gateway)
        finally:
            await gateway.close()

    return asyncio.run(go())


class Watching:
    """Remembers what a call told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.pieces: list[str] = []

    def sent(self, attempt: int) -> None:
        """Remember an attempt."""
        self.told.append(f"sent {attempt}")

    def piece(self, text: str) -> None:
        """Remember a piece."""
        self.pieces.append(text)

    def again(self, reason: str, wait_seconds: float) -> None:
        """Remember why it is asked again."""
        self.told.append(f"again: {reason}")


# Cache and single flight ------------------------------------------------------------------------


def test_equal_requests_in_flight_are_one_call(server: ChatServer) -> None:
    """Ten callers, one request; one of them paid, the others say 'cached'."""
    server.on("a", Reply("once", delay=0.05))

    async def use(gateway: Gateway) -> list[Completion]:
        return await asyncio.gather(*(gateway.complete(question()) for _ in range(10)))

    completions = through(lab_settings(server), use)
    assert server.count() == 1
    assert {completion.text for completion in completions} == {"once"}
    assert sum(completion.cached for completion in completions) == 9


def test_samples_of_one_question_are_requests_of_their_own(server: ChatServer) -> None:
    """N samples are n requests with equal bodies."""

    async def use(gateway: Gateway) -> None:
        await asyncio.gather(*(gateway.complete(question(sample=n)) for n in range(5)))

    through(lab_settings(server), use)
    assert server.count() == 5
    assert len({record.content for record in server.requests}) == 1


def test_one_waiter_that_leaves_does_not_take_the_call_with_it(server: ChatServer) -> None:
    """Cancelling the one that began the call leaves the other with its answer."""
    has_left = threading.Event()
    server.on("a", lambda body: "for the other" if has_left.wait(30) else Reply.fault())

    async def use(gateway: Gateway) -> str:
        first = asyncio.create_task(gateway.complete(question()))
        second = asyncio.create_task(gateway.complete(question()))
        await asyncio.to_thread(server.wait_until, lambda: server.count() == 1)
        first.cancel()
        await asyncio.wait([first])
        has_left.set()
        completion = await second
        assert first.cancelled()
        return completion.text

    assert through(lab_settings(server), use) == "for the other"
    assert (server.count(), server.requests[0].closed_at) == (1, None)


def test_the_last_waiter_that_leaves_closes_the_connection(server: ChatServer) -> None:
    """When nobody waits any more the call is cancelled, and an equal one that comes then is asked anew."""
    server.on("a", Reply.hanging(), "second")

    async def use(gateway: Gateway) -> str:
        waiters = [asyncio.create_task(gateway.complete(question())) for _ in range(2)]
        await asyncio.to_thread(server.wait_until, lambda: server.count() == 1)
        for waiter in waiters:
            waiter.cancel()
        again = asyncio.create_task(gateway.complete(question()))
        return (await again).text

    assert through(lab_settings(server), use) == "second"
    assert server.wait_until(lambda: server.requests[0].closed_at is not None)


def test_a_call_that_is_cancelled_before_it_began_leaves_nothing_behind(server: ChatServer) -> None:
    """An equal call later is asked as if nothing had been."""

    async def use(gateway: Gateway) -> str:
        early = asyncio.create_task(gateway.complete(question()))
        await asyncio.sleep(0)
        early.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await early
        return (await asyncio.wait_for(gateway.complete(question()), 60)).text

    assert through(lab_settings(server), use) == "answer of a"


def test_a_failure_is_told_to_all_who_wait_and_to_nobody_else(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each waiter gets an error of its own; errors are not kept; nothing is left 'never retrieved'."""
    server.on("a", Reply.bad_request(delay=0.02), "fine")

    async def use(gateway: Gateway) -> str:
        tasks = [asyncio.create_task(gateway.complete(question())) for _ in range(3)]
        tasks.append(asyncio.create_task(gateway.complete(question("z"))))
        done = await asyncio.gather(*tasks[:3], return_exceptions=True)
        assert all(isinstance(error, RowError) for error in done)
        assert len({id(error) for error in done}) == 3
        return (await gateway.complete(question())).text

    assert through(lab_settings(server), use) == "fine"
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_what_is_known_is_not_asked(server: ChatServer) -> None:
    """``use`` answers from the store, ``refresh`` asks and keeps, ``off`` asks and keeps nothing."""
    server.on("a", "1", "2", "3", "4")

    async def use(gateway: Gateway) -> list[str]:
        modes: list[Any] = ["off", "use", "use", "refresh", "use", "off", "use"]
        return [(await gateway.complete(question(), cache=mode)).text for mode in modes]

    assert through(lab_settings(server), use) == ["1", "2", "2", "3", "3", "4", "3"]
    assert server.count() == 4


def test_a_flight_is_kept_if_anybody_wants_it_kept(server: ChatServer) -> None:
    """A caller with the cache boards a call of one without, and its answer is kept."""
    server.on("a", Reply("once", delay=0.05))

    async def use(gateway: Gateway) -> bool:
        await asyncio.gather(gateway.complete(question(), cache="off"), gateway.complete(question(), cache="use"))
        return (await gateway.complete(question())).cached

    assert through(lab_settings(server), use)
    assert server.count() == 1


def test_streamed_and_buffered_answers_share_a_key(server: ChatServer) -> None:
    """Whether somebody looked on does not matter to the cache, and the two say the same."""
    server.on("a", Reply("The same answer, either way.", chunks=2))
    watch = Watching()

    async def use(gateway: Gateway) -> list[Completion]:
        streamed = await gateway.complete(question(), watch=watch)
        known = await gateway.complete(question())
        plain = await gateway.complete(question(), cache="refresh")
        return [streamed, known, plain]

    streamed, known, plain = through(lab_settings(server), use)
    assert streamed.text == known.text == plain.text == "".join(watch.pieces)
    assert streamed.usage == known.usage == plain.usage
    assert streamed.first_token_seconds is not None
    assert known.cached
    assert server.count() == 2


@given(
    one=st.tuples(st.text(max_size=5), st.floats(0, 2), st.integers(0, 3)),
    other=st.tuples(st.text(max_size=5), st.floats(0, 2), st.integers(0, 3)),
)
def test_keys_are_equal_exactly_when_the_requests_are(
    one: tuple[str, float, int], other: tuple[str, float, int]
) -> None:
    """Text, sampling and sample index all make the key."""
    gateway = Gateway(Settings.model_validate({"providers": {"lab": {"base_url": "http://x"}}}), Store(None))
    keys, bodies = [], []
    for text, temperature, sample in (one, other):
        request = question(text=text, temperature=temperature, sample=sample)
        route = gateway.route(request.model)
        bodies.append((route.body(request), sample))
        keys.append(route.key(request, bodies[-1][0]))
    assert (keys[0] == keys[1]) == (bodies[0] == bodies[1])


# Budget -----------------------------------------------------------------------------------------


def test_a_call_that_could_pass_the_ceiling_is_not_sent(server: ChatServer) -> None:
    """The worst case is the prompt's bytes and ``max_tokens``; without ``max_tokens`` one is sent."""

    async def use(gateway: Gateway) -> None:
        budget = Budget(0.0005)
        with pytest.raises(BudgetExceeded, match="run again with a higher budget"):
            await gateway.complete(question(max_tokens=500), budget=budget)
        await gateway.complete(question(max_tokens=300), budget=budget)
        assert budget.spent == pytest.approx(4 / 1e6)
        with pytest.raises(BudgetExceeded):
            await gateway.complete(question("b"), budget=budget)

    through(lab_settings(server, max_tokens=700), use)
    assert [record.body["max_tokens"] for record in server.requests] == [300]


def test_a_budget_needs_prices_before_the_first_call(server: ChatServer, lab: Callable[..., None]) -> None:
    """An unknown price under an explicit budget is an error, and nothing is sent."""
    lab(models={"lab:z": {"prompt_price": None, "completion_price": None}})
    with pytest.raises(SetupError, match="none is known for lab:z"):
        moa.run("Why?", budget=1.0)
    assert server.count() == 0


def test_what_the_service_says_it_cost_is_what_was_spent(server: ChatServer) -> None:
    """Reported calls settle at their price, a refused one at nothing."""
    server.on("a", Reply("x", usage={"prompt_tokens": 10, "completion_tokens": 20}))
    server.on("b", Reply.bad_request())

    async def use(gateway: Gateway) -> Budget:
        budget = Budget(1.0)
        await gateway.complete(question(max_tokens=100), budget=budget)
        with pytest.raises(RowError):
            await gateway.complete(question("b", max_tokens=100), budget=budget)
        return budget

    budget = through(lab_settings(server), use)
    assert (budget.spent, budget.unreported, budget.reserved) == (pytest.approx(30 / 1e6), 0.0, 0.0)


@pytest.mark.parametrize(
    "reply",
    [Reply.hanging(), Reply.cut("never whole", 60), Reply.dropped(), Reply.malformed(), Reply("x", usage=None)],
    ids=["timeout", "cut", "reset", "malformed", "no usage"],
)
def test_what_was_never_reported_counts_at_its_worst(server: ChatServer, reply: Reply) -> None:
    """A call that may have been billed, though nobody says so, is spent at its reservation."""
    server.on("a", reply)

    async def use(gateway: Gateway) -> Budget:
        budget = Budget(1.0)
        with contextlib.suppress(ServiceError):
            await gateway.complete(question(max_tokens=100), budget=budget)
        return budget

    budget = through(lab_settings(server, timeout=0.2, retry_seconds=0.0), use)
    assert budget.spent == budget.unreported > 100 / 1e6
    assert budget.reserved == 0.0


def test_a_cancelled_call_counts_at_its_reservation(server: ChatServer) -> None:
    """One that was sent at its worst case, one that still waited for its turn at nothing."""
    server.on("a", Reply.hanging())

    async def use(gateway: Gateway) -> Budget:
        budget = Budget(1.0)
        calls = [gateway.complete(question(max_tokens=100, sample=n), budget=budget) for n in range(2)]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.to_thread(server.wait_until, lambda: server.count() == 1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return budget

    budget = through(lab_settings(server, provider={"concurrency": 1}), use)
    assert budget.spent == budget.unreported == pytest.approx((100 + len(server.requests[0].content)) / 1e6)
    assert budget.reserved == 0.0


def test_money_that_comes_back_goes_to_earlier_rows_first() -> None:
    """A reservation waits while others may give back, and is refused when they cannot."""

    async def go() -> list[int]:
        budget, order = Budget(10.0), []
        await budget.reserve(8.0)

        async def row(number: int) -> None:
            await budget.reserve(3.0, (number, 0))
            order.append(number)

        tasks = [asyncio.create_task(row(number)) for number in (3, 1, 2)]
        await asyncio.sleep(0)
        budget.settle(8.0, 3.5)  # 6.5 left: two rows
        await asyncio.sleep(0)
        budget.settle(3.0, 3.0)
        budget.settle(3.0, 3.0)
        with pytest.raises(BudgetExceeded):
            await tasks[0]
        return order

    assert asyncio.run(go()) == [1, 2]


def test_a_waiting_reservation_that_is_cancelled_gives_back_what_it_was_just_given() -> None:
    """Cancelled between its turn and its waking, it leaves nothing reserved."""

    async def go() -> float:
        budget = Budget(1.0)
        await budget.reserve(1.0)
        waiting = asyncio.create_task(budget.reserve(1.0))
        await asyncio.sleep(0)
        budget.settle(1.0, 0.0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        return budget.reserved

    assert asyncio.run(go()) == 0.0


def test_another_runs_empty_purse_does_not_stop_a_run(server: ChatServer) -> None:
    """Who boards a call that its own run cannot pay asks for itself."""

    async def use(gateway: Gateway) -> tuple[BaseException | Completion, BaseException | Completion]:
        poor, rich = Budget(1e-6), Budget(1.0)
        return await asyncio.gather(
            gateway.complete(question(max_tokens=100), budget=poor),
            gateway.complete(question(max_tokens=100), budget=rich),
            return_exceptions=True,
        )

    refused, answered = through(lab_settings(server), use)
    assert isinstance(refused, BudgetExceeded)
    assert isinstance(answered, Completion)


faults = st.sampled_from(
    [
        Reply.fault(),
        Reply.rate_limited(),
        Reply.bad_request(),
        Reply.dropped(),
        Reply.malformed(),
        Reply.cut("half of it", 70),
        Reply("no usage", usage=None),
        Reply(""),
    ],
)


@effort(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_spending_as_reported_never_passes_the_budget(server: ChatServer, data: st.DataObject) -> None:
    """Under any prices, lengths, faults and concurrency."""
    price = st.floats(0, 100, allow_nan=False)
    prices = {
        f"lab:{name}": {
            "prompt_price": data.draw(price),
            "completion_price": data.draw(price),
            "cached_prompt_price": data.draw(price),
        }
        for name in "abc"
    }
    limit = data.draw(st.floats(0, 0.05))
    rng = random.Random(data.draw(st.integers(0, 999)))
    for name in "abc":
        script: list[Any] = []
        for kind in data.draw(st.lists(st.one_of(st.none(), faults), min_size=1, max_size=6)):
            if kind is not None:
                script.append(kind)
                continue

            def answer(body: dict[str, Any]) -> Reply:
                most = sum(len(message["content"].encode()) for message in body["messages"])
                prompt = rng.randint(0, most)
                usage = {
                    "prompt_tokens": prompt,
                    "completion_tokens": rng.randint(0, body["max_tokens"]),
                    "prompt_tokens_details": {"cached_tokens": rng.randint(0, prompt)},
                }
                return Reply("text", usage=usage)

            script.append(answer)
        server.on(name, *script)
    calls = data.draw(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 400), st.integers(1, 3000)), max_size=12)
    )
    settings = lab_settings(
        server, models=prices, retry_seconds=0.02, deadline=0.2, provider={"concurrency": data.draw(st.integers(1, 8))}
    )
    budget = Budget(limit)

    async def use(gateway: Gateway) -> float:
        tasks = [
            gateway.complete(
                question(name, "x" * length, max_tokens=most, sample=number), budget=budget, priority=(number, 0)
            )
            for number, (name, length, most) in enumerate(calls)
        ]
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 120)
        assert all(isinstance(one, Completion | MoaError) for one in done), done
        return sum(one.cost or 0.0 for one in done if isinstance(one, Completion))

    quick = RetryPolicy(seconds=0.02, first_seconds=0.001, longest_seconds=0.002)
    reported = through(settings, use, retry=quick)
    assert reported <= budget.spent + 1e-9
    assert budget.spent <= limit + 1e-9
    assert budget.reserved == pytest.approx(0.0)


@effort(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 999), share=st.floats(0.02, 0.9), hedge=st.booleans())
def test_256_calls_in_flight_do_not_pass_the_budget(server: ChatServer, seed: int, share: float, hedge: bool) -> None:
    """What the service reports in all, whoever still waits for it, stays below the ceiling; most of that is used."""
    rng, reported = random.Random(seed), []

    def answer(body: dict[str, Any]) -> Reply:
        kind = rng.random()
        if kind < 0.3:
            return rng.choice([Reply.fault(), Reply.rate_limited(0), Reply.dropped(), Reply.malformed()])
        usage = {"prompt_tokens": rng.randint(1, 200), "completion_tokens": rng.randint(0, body["max_tokens"])}
        reported.append(usage["prompt_tokens"] * 3e-6 + usage["completion_tokens"] * 5e-6)
        return Reply("text", usage=usage, delay=rng.choice([0, 0.01, 0.05]))

    server.on("a", answer)
    settings = lab_settings(
        server,
        models={"lab:a": {"prompt_price": 3.0, "completion_price": 5.0}},
        provider={"concurrency": 256},
        hedge=hedge,
    )
    worst = (300 * 3e-6 + 400 * 5e-6) * 256
    budget = Budget(worst * share)

    async def use(gateway: Gateway) -> int:
        tasks = [
            gateway.complete(
                question("a", "x" * 200, max_tokens=400, sample=number), budget=budget, priority=(number, 0)
            )
            for number in range(256)
        ]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, Completion | BudgetExceeded) for one in done), done
        return sum(isinstance(one, Completion) for one in done)

    quick = RetryPolicy(seconds=300, first_seconds=0.001, longest_seconds=0.002)
    assert through(settings, use, retry=quick) > 0
    assert sum(reported) <= budget.spent + 1e-9
    assert budget.spent <= budget.limit + 1e-9
    assert budget.reserved == pytest.approx(0, abs=1e-9)


def test_a_run_whose_money_ends_keeps_what_it_paid_for(server: ChatServer, lab: Callable[..., None]) -> None:
    """The error carries the finished layers, no proposal that was paid is cut off, and a higher budget goes on."""
    lab(max_tokens=100)
    for name in "abc":
        server.on(name, Reply("word " * 30, delay=0.05))
    with pytest.raises(BudgetExceeded) as raised:
        moa.run("Why?", budget=0.00055)
    assert raised.value.result is not None
    assert raised.value.result.layers[0].n_ok == 3
    assert raised.value.result.stop_reason == "budget"
    assert server.count("z") == 0
    again = moa.run("Why?", budget=1.0)
    assert [call.cached for call in again.calls] == [True, True, True, False]
    assert server.count() == 4


# Prices -----------------------------------------------------------------------------------------


def test_every_default_model_has_a_price() -> None:
    """No service is offered by default whose spending could not be shown."""
    for service in services().values():
        for models in service.roles().values():
            for model in models:
                assert price_of(model, Settings().provider(model), None) is not None, model


def test_prices_as_four_rates_agree_with_the_list() -> None:
    """Applying a rule's rates gives what genai-prices gives, cached tokens included."""
    import genai_prices

    for model in ("openai:gpt-4o-mini", "anthropic:claude-haiku-4-5", "gemini:gemini-2.5-pro"):
        price = price_of(model, Settings().provider(model), None)
        assert price is not None
        provider, _, name = model.partition(":")
        for usage in (Usage(1200, 300, 200, 100), Usage(400_000, 10, 0, 0), Usage(5, 0)):
            expected = genai_prices.calc_price(
                genai_prices.Usage(
                    input_tokens=usage.prompt_tokens,
                    output_tokens=usage.completion_tokens,
                    cache_read_tokens=usage.cached_prompt_tokens or 0,
                    cache_write_tokens=usage.cache_write_tokens or 0,
                ),
                model_ref=name,
                provider_id={"gemini": "google"}.get(provider, provider),
            )
            assert price.cost(usage) == pytest.approx(float(expected.total_price))
            assert price.worst(usage.prompt_tokens or 0, usage.completion_tokens or 0) >= (price.cost(usage) or 0.0)


def test_local_servers_are_free_and_others_unknown() -> None:
    """A recognised local server costs 0; an address nobody knows has no price."""
    settings = Settings.model_validate({"providers": {"lab": {"base_url": "http://x"}}})
    free = price_of("ollama:llama3.2:3b", settings.provider("ollama:llama3.2:3b"), None)
    assert free is not None
    assert free.cost(Usage(1000, 1000)) == 0.0
    assert price_of("lab:a", settings.provider("lab:a"), None) is None
    half = price_of("lab:a", settings.provider("lab:a"), ModelSettings(prompt_price=2.0))
    assert half is not None
    assert half.cost(Usage(1_000_000, 5)) == pytest.approx(2.0)
    assert half.cost(Usage()) is None


# Limits -----------------------------------------------------------------------------------------


def test_earlier_rows_go_first_and_later_layers_before_earlier_ones() -> None:
    """Slots are handed out by (row, minus layer), then in order of asking."""

    async def go() -> list[Any]:
        limiter = Limiter(1, clock=Clock().time)
        await limiter.acquire((0, 0))
        order = []

        async def call(name: Any) -> None:
            await limiter.acquire(name)
            order.append(name)
            limiter.release()

        wanted = [(5, 0), (2, 0), (2, -1), (1, 0), (9, -2)]
        async with asyncio.TaskGroup() as group:
            for name in wanted:
                group.create_task(call(name))
            await asyncio.sleep(0)
            limiter.release()
        return order

    assert asyncio.run(go()) == [(1, 0), (2, -1), (2, 0), (5, 0), (9, -2)]


@given(seed=st.integers(0, 10_000), most=st.integers(1, 5))
def test_no_slot_is_lost_or_given_twice(seed: int, most: int) -> None:
    """Under any mix of cancelling, refusing and releasing, never more than ``most`` hold a slot, and all come through."""

    async def go() -> None:
        rng, clock = random.Random(seed), Clock()
        limiter = Limiter(most, clock=clock.time, sleep=clock.sleep)
        holding = 0

        async def call(number: int) -> None:
            nonlocal holding
            await limiter.acquire((number, 0))
            holding += 1
            try:
                assert holding <= most
                for _ in range(rng.randint(0, 3)):
                    await asyncio.sleep(0)
                if rng.random() < 0.3:
                    limiter.refused(rng.choice([None, 0.5, 3.0]), rng.random())
                else:
                    limiter.answered()
            finally:
                holding -= 1
                limiter.release()

        tasks = [asyncio.create_task(call(number)) for number in range(20)]
        for task in tasks:
            if rng.random() < 0.3:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait_for(asyncio.wait(tasks), 60)
        assert limiter.in_flight == 0

    asyncio.run(go())


def test_a_cool_down_of_one_model_leaves_the_others_alone(server: ChatServer) -> None:
    """A waits for its ``Retry-After``; B goes on; other calls to A wait with it."""
    server.on("a", Reply.rate_limited(retry_after=40), "a now")
    clock, is_over = Clock(), asyncio.Event()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await is_over.wait()
        clock.advance(seconds)

    async def use(gateway: Gateway) -> None:
        first = asyncio.create_task(gateway.complete(question("a")))
        while not slept:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(gateway.complete(question("a", "Another")))
        for number in range(5):
            await gateway.complete(question("b", sample=number))
        assert (server.count("a"), server.count("b"), clock.now) == (1, 5, 0.0)
        is_over.set()
        await asyncio.gather(first, second)

    through(lab_settings(server), use, clock=clock.time, sleep=sleep)
    assert server.count("a") == 3
    assert clock.now >= 40


def test_calls_in_flight_never_pass_the_limit(server: ChatServer) -> None:
    """``concurrency`` holds for each model."""

    async def use(gateway: Gateway) -> None:
        await asyncio.gather(*(gateway.complete(question(sample=n)) for n in range(20)))

    server.on("a", Reply("x", delay=0.01))
    through(lab_settings(server, provider={"concurrency": 3}), use)
    assert server.max_in_flight == 3


# Retry ------------------------------------------------------------------------------------------


def in_time(server: ChatServer, **settings: Any) -> tuple[Clock, Completion | MoaError]:
    """What a call brings on a clock that never waits."""
    clock = Clock()

    async def use(gateway: Gateway) -> Completion | MoaError:
        try:
            return await gateway.complete(question())
        except MoaError as error:
            return error

    policy = RetryPolicy(seconds=settings.get("retry_seconds", 20.0), draw=lambda: 1.0)
    return clock, through(lab_settings(server, **settings), use, clock=clock.time, sleep=clock.sleep, retry=policy)


def test_waits_double_up_to_a_bound(server: ChatServer) -> None:
    """Full jitter: each wait is drawn from 0 to a bound that doubles to four seconds."""
    server.on("a", *[Reply.fault()] * 5, "fine")
    clock, completion = in_time(server)
    assert isinstance(completion, Completion)
    assert completion.attempts == 6
    assert clock.sleeps == [0.5, 1.0, 2.0, 4.0, 4.0]


def test_only_time_ends_the_asking(server: ChatServer) -> None:
    """Faults end a call after ``retry_seconds``, rate limits only at its deadline."""
    server.on("a", Reply.fault())
    clock, error = in_time(server, retry_seconds=10.0)
    assert isinstance(error, ServiceError)
    assert 10.0 <= clock.now < 15.0
    server.on("a", Reply.rate_limited())
    clock, error = in_time(server, retry_seconds=10.0, deadline=100.0)
    assert "the call's 100 s are over" in str(error)
    assert 90.0 < clock.now <= 100.0


def test_what_breaks_off_late_is_asked_for_again(server: ChatServer) -> None:
    """The seconds for which a service worked on an answer are no part of ``retry_seconds``, unless it hung."""

    async def use(gateway: Gateway) -> Completion:
        return await gateway.complete(question())

    server.on("a", Reply.fault(502, delay=0.4), "fine")
    assert through(lab_settings(server, retry_seconds=0.2), use).attempts == 2
    server.on("a", Reply.hanging(), "fine")
    with pytest.raises(ServiceError, match="in time"):
        through(lab_settings(server, timeout=0.4, retry_seconds=0.2), use)


def test_a_wait_that_the_service_asks_for_is_not_held_against_it(server: ChatServer) -> None:
    """``Retry-After`` on a 503 is honoured, and does not use up ``retry_seconds``."""
    server.on("a", *[Reply.fault(503, headers={"Retry-After": "30"})] * 3, "fine")
    clock, completion = in_time(server, retry_seconds=20.0)
    assert isinstance(completion, Completion)
    assert clock.sleeps == [30.0, 30.0, 30.0]


def test_nobody_waits_longer_than_a_call_may_take(server: ChatServer) -> None:
    """An hour's ``Retry-After`` fails the call at once, and the next call does not wait that hour."""
    server.on("a", Reply.rate_limited(retry_after=3600), "fine")
    clock = Clock()

    async def use(gateway: Gateway) -> Completion:
        with pytest.raises(ServiceError, match="are over"):
            await gateway.complete(question())
        return await gateway.complete(question())

    completion = through(lab_settings(server, deadline=60.0), use, clock=clock.time, sleep=clock.sleep)
    assert completion.text == "fine"
    assert clock.now <= 60.0


def test_overload_slows_like_a_rate_limit(server: ChatServer) -> None:
    """A 529 cuts the calls in flight and is asked again."""
    server.on("a", Reply.overloaded(), "fine")

    async def use(gateway: Gateway) -> float:
        await gateway.complete(question())
        return gateway.route("lab:a").limiter.cap

    assert through(lab_settings(server), use, sleep=Clock().sleep) < 64


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301])
def test_what_asking_again_cannot_mend_is_asked_once(server: ChatServer, status: int) -> None:
    """Refusals are final."""
    server.on("a", Reply(status=status, error="no"))
    _, error = in_time(server)
    assert isinstance(error, MoaError)
    assert server.count() == 1
    assert isinstance(error, SetupError) == (status not in {400, 422})


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(status=401, error="no"), KeyRejected, "providers.lab.key_env"),
        (Reply(status=404, error="no"), UnknownName, "has no 'a'"),
        (Reply.out_of_credit(), SetupError, "wants payment"),
        (Reply(status=402, error="pay"), SetupError, "wants payment"),
        (
            Reply(status=301, headers={"Location": "https://elsewhere.example/v1?key=1"}),
            SetupError,
            "https://elsewhere.example;",
        ),
        (Reply.too_long(), RowError, "maximum context length"),
    ],
)
def test_an_error_says_what_to_do(server: ChatServer, reply: Reply, kind: type[MoaError], words: str) -> None:
    """One line each, of the right kind."""
    server.on("a", reply)
    _, error = in_time(server)
    assert type(error) is kind
    assert words in str(error)
    assert "\n" not in str(error)


def test_a_server_that_is_not_there_is_a_setup_error_soon() -> None:
    """Three attempts at an address where nobody ever answered, and the line says what to mend."""
    clock = Clock()
    settings = Settings.model_validate({"providers": {"lab": {"base_url": "http://127.0.0.1:9/v1"}}})

    async def use(gateway: Gateway) -> None:
        with pytest.raises(
            SetupError, match=r"does not answer.*\(3 tries\); start it, or mend providers\.lab\.base_url"
        ):
            await gateway.complete(question())

    through(settings, use, clock=clock.time, sleep=clock.sleep)


def test_a_web_page_from_an_address_that_never_answered_is_a_setup_error(server: ChatServer) -> None:
    """Two tries, and the line says what to mend."""
    server.on("a", Reply(body=b"<html>Welcome</html>", headers={"Content-Type": "text/html"}))
    _, error = in_time(server)
    assert server.count() == 2
    assert isinstance(error, SetupError)
    assert str(error) == (
        "lab sent a web page, not an answer (2 tries); mend providers.lab.base_url (it often ends in /v1)"
    )


def test_an_error_of_who_looks_on_is_not_the_services(server: ChatServer) -> None:
    """A ValueError that no body raised is nothing malformed, and is asked once."""

    class Broken(Watching):
        def piece(self, text: str) -> None:
            raise ValueError(text)

    async def use(gateway: Gateway) -> None:
        with pytest.raises(ValueError, match="hello"):
            await gateway.complete(question(), watch=Broken())

    server.on("a", "hello")
    through(lab_settings(server), use)
    assert server.count() == 1


def test_a_model_that_is_listed_and_refused_is_not_its_own_nearest(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint says that the key is what lacks."""

    async def listed(*_: object) -> list[str]:
        return ["a", "b"]

    monkeypatch.setattr("moa_nb.gateway.attempts.Attempts.list_models", listed)
    server.on("a", Reply(status=404, error="no"))
    _, error = in_time(server)
    assert str(error).endswith("; it is listed, but this key may not use it")


def test_a_services_words_carry_no_control_characters(server: ChatServer) -> None:
    """Neither colours nor bells nor lines of their own."""
    server.on(
        "a", Reply(status=400, error="\x1b[31mno\x1b[0m\x07 such\U000e0041\U000e007f\n\u202ething\x1b]0;title\x07")
    )
    _, error = in_time(server)
    assert str(error).endswith(": no such thing [invalid_request_error]")


def test_an_address_that_is_none_is_a_setup_error() -> None:
    """Nothing of it is repeated but scheme and host: the rest may be a secret."""
    settings = Settings.model_validate({"providers": {"lab": {"base_url": "ftp://host/v1?key=secret"}}})

    async def use(gateway: Gateway) -> None:
        with pytest.raises(SetupError, match="not an address") as raised:
            await gateway.complete(question())
        assert "secret" not in str(raised.value)

    through(settings, use)


@pytest.mark.parametrize("kind", ["server", "disconnected", "timeout", "malformed"])
def test_a_policy_decides_by_time_alone(kind: Any) -> None:
    """Before ``seconds`` are over a fault is asked again, however often; afterwards not."""
    policy = RetryPolicy(seconds=10.0, draw=lambda: 0.5)
    fault = Fault(kind, "x")
    assert policy.decide(fault, attempt=99, failing_seconds=9.9, ever_answered=True).wait_seconds == 2.0
    assert policy.decide(fault, attempt=1, failing_seconds=10.0, ever_answered=True).wait_seconds is None


# HTTP and the wire ------------------------------------------------------------------------------


@given(spans=st.lists(st.sampled_from([0.0, 0.002, 0.01, 0.02, 60.0]), min_size=1, max_size=12))
def test_each_deadline_is_kept_by_one_timer(spans: list[float]) -> None:
    """Whatever came before it and comes after it, each ends the wait of its own task, and no other's."""

    async def go() -> None:
        deadlines, ended = Deadlines(), []

        async def wait(span: float) -> None:
            with pytest.raises(TimeoutError), deadlines.within(span):
                await asyncio.get_running_loop().create_future()
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()
            ended.append(span)

        tasks = {asyncio.create_task(wait(span)): span for span in spans}
        short = [task for task, span in tasks.items() if span < 60]
        if short:
            await asyncio.wait(short)
        assert sorted(ended) == sorted(span for span in spans if span < 60)
        for task in tasks.keys() - short:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        deadlines.close()

    asyncio.run(go())


def test_a_deadline_within_another_ends_first_and_alone() -> None:
    """The inner one's end is a ``TimeoutError`` that the outer one does not take for its own."""

    async def go() -> str:
        deadlines = Deadlines()
        with deadlines.within(60):
            with contextlib.suppress(TimeoutError), deadlines.within(0.001):
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)
            return "went on"

    assert asyncio.run(go()) == "went on"


def test_who_is_cancelled_when_it_is_late_too_stays_cancelled() -> None:
    """Whoever stops a run is not told that a service was slow."""

    async def go() -> None:
        deadlines = Deadlines()

        async def wait() -> None:
            with deadlines.within(0.001):
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    task.cancel()  # at the moment when the deadline is over

        task = asyncio.create_task(wait())
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())


def events_of(content: bytes, size: int) -> list[bytes]:
    """The data of the events of a stream that arrives in pieces of one size."""
    events = Events()
    found = [event for start in range(0, len(content), size) for event in events.feed(content[start : start + size])]
    return found + events.rest()


@given(
    texts=st.lists(st.text(min_size=1, max_size=20), max_size=6),
    size=st.integers(1, 40),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    comment=st.booleans(),
)
def test_events_are_the_same_however_their_bytes_are_cut(
    texts: list[str], size: int, newline: bytes, comment: bool
) -> None:
    """Byte by byte, with any line ends, with comments between them."""
    data = [orjson.dumps(text) for text in texts]
    written = b"".join((b": ping" + newline * 2 if comment else b"") + b"data: " + one + newline * 2 for one in data)
    assert events_of(written, size) == data


def test_a_long_event_in_small_pieces_takes_linear_time() -> None:
    """A megabyte in pieces of 64 bytes is read at once, not in a minute."""
    import time

    started = time.process_time()
    (event,) = events_of(b"data: " + b"x" * 1_000_000 + b"\n\n", 64)
    assert len(event) == 1_000_000
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("n_bytes", [10, 5_000_000])
def test_a_compressed_answer_is_read_whole(server: ChatServer, n_bytes: int) -> None:
    """Short or long, as a proxy on the way may send it."""
    body = orjson.dumps({"choices": [{"message": {"content": "a" * n_bytes}, "finish_reason": "stop"}]})
    server.on("a", Reply(body=gzip.compress(body), headers={"Content-Encoding": "gzip"}))
    completion = through(lab_settings(server), lambda gateway: gateway.complete(question()))
    assert completion.text == "a" * n_bytes
    assert "gzip" in server.requests[0].headers["Accept-Encoding"]


@pytest.mark.parametrize("stream_usage", ["asked", "own_chunk", "last", "none"])
@pytest.mark.parametrize("write_size", [None, 1, 7])
def test_a_stream_says_what_a_whole_answer_says(server: ChatServer, stream_usage: Any, write_size: int | None) -> None:
    """Text, thoughts, finish reason and usage, however it is cut."""
    server.on("a", Reply("Ein Märchen", reasoning="hm", chunks=1, write_size=write_size, stream_usage=stream_usage))
    watch = Watching()

    async def use(gateway: Gateway) -> Completion:
        return await gateway.complete(question(), watch=watch)

    completion = through(lab_settings(server), use)
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("Ein Märchen", "hm", "stop")
    assert "".join(watch.pieces) == "Ein Märchen"
    assert completion.usage.estimated == (stream_usage == "none")
    assert watch.told == ["sent 1"]


def test_a_stream_that_breaks_off_is_asked_again(server: ChatServer) -> None:
    """Cut, hanging, an error as an event, an event that is no JSON: each time the whole answer is asked for."""
    server.on(
        "a",
        Reply.cut("one two three four", 2),
        Reply("one two three four", cut_after=2, hang=True),
        Reply("one two", error="overloaded {key}"),
        Reply(body=b"data: {not json\n\n", headers={"Content-Type": "text/event-stream"}),
        Reply(body=b'data: {"choices": 3}\n\n', headers={"Content-Type": "text/event-stream"}),
        "whole",
    )
    watch = Watching()

    async def use(gateway: Gateway) -> Completion:
        return await gateway.complete(question(), watch=watch)

    settings = lab_settings(server, timeout=1.5, provider={"key": "sk-0123456789abcdef"})
    completion = through(settings, use, retry=RetryPolicy(first_seconds=0.001))
    # One hangs; where the machine stood still, others were late too.
    n_late = sum("in time" in told for told in watch.told)
    assert completion.text == "whole"
    assert n_late >= 1
    assert 6 <= completion.attempts <= 5 + n_late
    assert not any("sk-0123456789abcdef" in told for told in watch.told)


def test_a_stream_may_end_with_done_alone_and_need_not_close(server: ChatServer) -> None:
    """Some services name no finish reason, some leave the connection open."""
    event = b'data: {"choices":[{"delta":{"content":"all"}}]}\n\n'
    server.on("a", Reply(body=event + b"data: [DONE]\n\n", headers={"Content-Type": "text/event-stream"}))
    server.on("b", Reply("all", hang=True, cut_after=99))

    async def use(gateway: Gateway) -> list[str]:
        return [(await gateway.complete(question(name), watch=Watching())).text for name in "ab"]

    assert through(lab_settings(server, timeout=5.0), use) == ["all", "all"]


def test_a_plain_answer_to_a_stream_is_an_answer(server: ChatServer) -> None:
    """Services that cannot stream answer whole."""
    server.on("a", Reply("plain", plain_json_to_stream=True))

    async def use(gateway: Gateway) -> str:
        return (await gateway.complete(question(), watch=Watching())).text

    assert through(lab_settings(server), use) == "plain"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "delta", "content", "usage", "error", "prompt_tokens", "finish_reason"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
)
def test_any_json_is_an_answer_or_a_value_error(value: Any) -> None:
    """No shape of a body raises anything else, in whole answers and in streams."""
    data = orjson.dumps(value)
    for read in (openai_chat.parse, lambda data: openai_chat.Stream().feed([data, b"[DONE]"])):
        with contextlib.suppress(ValueError):
            read(data)
    assert isinstance(openai_chat.said(data)[0], str)


def test_the_same_request_gives_the_same_bytes() -> None:
    """Further fields are sent as the service spells them; a temperature near 0 is 0."""
    request = question(temperature=0.00005, seed=3, stop=("a", "b"), extra=(("reasoning_effort", "low"),))
    body = orjson.loads(openai_chat.body(request, "m"))
    assert (body["temperature"], body["seed"], body["stop"], body["reasoning_effort"]) == (0, 3, ["a", "b"], "low")
    assert openai_chat.body(request, "m") == openai_chat.body(replace(request), "m")


def test_a_parameter_that_is_no_json_is_a_setup_error(server: ChatServer) -> None:
    """It is named before anything is sent."""

    async def use(gateway: Gateway) -> None:
        with pytest.raises(SetupError, match="cannot be sent as JSON"):
            await gateway.complete(question(extra=(("tools", object()),)))

    through(lab_settings(server), use)


# Keys -------------------------------------------------------------------------------------------

KEY = "sk-abcd" + "0123456789" * 5


@pytest.mark.parametrize(
    "echo",
    ["{key}", "x" * 580 + " {key}", f"Incorrect: {KEY[:8]}****{KEY[-4:]}.", f"key {KEY[:6]}...{KEY[-3:]}"],
    ids=["plain", "at the cut", "starred", "dotted"],
)
@pytest.mark.parametrize("status", [400, 401, 500])
def test_no_key_is_in_any_error(server: ChatServer, echo: str, status: int) -> None:
    """Not even when the service repeats it, starred out or at the place where the message is cut."""
    server.on("a", Reply(status=status, error=echo))
    watch = Watching()

    async def use(gateway: Gateway) -> MoaError:
        with pytest.raises(MoaError) as raised:
            await gateway.complete(question(), watch=watch)
        return raised.value

    error = through(lab_settings(server, retry_seconds=0.0, provider={"key": KEY}), use)
    seen = repr(error) + repr(error.__cause__) + repr(error.__context__) + "".join(watch.told)
    assert not any(part in seen for part in (KEY[:8], KEY[-12:], KEY[7:17]))


def test_keys_in_headers_are_kept_out_too(server: ChatServer) -> None:
    """Azure's ``api-key`` and the like."""
    server.on("a", lambda body: Reply(status=400, error="the key azure-secret-key-1 is wrong"))

    async def use(gateway: Gateway) -> str:
        with pytest.raises(RowError) as raised:
            await gateway.complete(question())
        return str(raised.value)

    headers = {"api-key": "azure-secret-key-1"}
    settings = lab_settings(server, provider={"headers": headers})
    assert "azure-secret" not in through(settings, use) + repr(settings)
    assert server.requests[0].headers["api-key"] == "azure-secret-key-1"


def test_a_key_that_expires_is_fetched_for_each_attempt(server: ChatServer) -> None:
    """A function for the key is called again after a wait."""
    keys = iter(["first-key-1", "second-key-2"])
    server.on("a", Reply.rate_limited(), "fine")

    async def use(gateway: Gateway) -> None:
        await gateway.complete(question())

    through(lab_settings(server, provider={"key": lambda: next(keys)}), use)
    assert [record.headers["Authorization"] for record in server.requests] == [
        "Bearer first-key-1",
        "Bearer second-key-2",
    ]


@pytest.mark.parametrize("key", [lambda: 1 / 0, lambda: None, lambda: "two\nlines", lambda: ""])
def test_a_key_that_cannot_be_had_is_a_setup_error(server: ChatServer, key: Callable[[], Any]) -> None:
    """Whatever the function for the key does, nothing is sent with half a key."""

    async def use(gateway: Gateway) -> None:
        with pytest.raises(KeyRejected):
            await gateway.complete(question())

    through(lab_settings(server, provider={"key": key}), use)
    assert server.count() == 0


def test_a_query_stays_at_the_end_of_the_address(server: ChatServer) -> None:
    """As Azure's ``?api-version=`` needs it."""

    async def use(gateway: Gateway) -> tuple[str, list[str]]:
        completion = await gateway.complete(question())
        return completion.text, await gateway.list_models(gateway.settings.provider("lab:a"))

    settings = lab_settings(server, provider={"base_url": server.base_url + "?api-version=1"})
    server.on("a", "found")
    assert through(settings, use) == ("found", ["a"])


def test_the_gravest_of_several_errors_is_told() -> None:
    """Setup before budget before the rest, nested groups included; a fault of the code before all."""
    setup, budget, row = SetupError("s"), BudgetExceeded("b"), RowError("r")
    assert gravest(BaseExceptionGroup("", [row, BaseExceptionGroup("", [budget, setup])])) is setup
    assert gravest(BaseExceptionGroup("", [row, budget])) is budget
    fault = ssl.SSLError()
    assert gravest(BaseExceptionGroup("", [setup, fault])) is fault


def test_a_budget_is_no_part_of_the_question(server: ChatServer, lab: Callable[..., None]) -> None:
    """What was answered without a budget is not paid for again under one, nor the other way round."""
    lab()
    moa.run("first", pipeline="single")
    moa.run("first", pipeline="single", budget=1.0)
    moa.run("second", pipeline="single", budget=1.0)
    moa.run("second", pipeline="single")
    assert [recorded.body.get("max_tokens") for recorded in server.requests] == [None, 2048]


def test_an_answer_that_a_ceiling_cut_off_is_kept_under_that_ceiling_alone(
    server: ChatServer, lab: Callable[..., None]
) -> None:
    """A rerun under the budget takes it as it is; without a budget the whole answer is asked."""
    lab()
    server.on("z", Reply.truncated("the beginning of"), "the whole answer")
    texts = [moa.run("first", pipeline="single", budget=budget).text for budget in (1.0, 1.0, None, 1.0)]
    assert texts == ["the beginning of", "the beginning of", "the whole answer", "the whole answer"]
    assert server.count() == 2


def test_an_option_that_a_model_refuses_is_left_out_from_then_on(server: ChatServer, lab: Callable[..., None]) -> None:
    """The call goes on without it, and the next call does not try it again."""
    lab()

    def picky(body: dict[str, Any]) -> str | Reply:
        if "temperature" in body:
            return Reply.bad_request("Unsupported value: 'temperature' does not support 0.3 with this model.")
        if "max_tokens" in body:
            return Reply.bad_request("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return f"at most {body['max_completion_tokens']}"

    server.on("z", picky)
    assert moa.run("one", pipeline="single", temperature=0.3, max_tokens=9).text == "at most 9"
    assert moa.run("two", pipeline="single", temperature=0.3, max_tokens=9).text == "at most 9"
    assert server.count() == 4
