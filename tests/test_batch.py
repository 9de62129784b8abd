"""Batch mode: every strategy as it is, half the price, no request in two batches. All over real HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest
from departing import quiet

import moa_nb as moa
from moa_nb import engine, settings
from moa_nb.engine.plan import Options
from moa_nb.engine.task import make_task
from moa_nb.errors import BudgetExceeded, KeyRejected, RowError, ServiceError, SetupError, UnknownName
from moa_nb.gateway.batches import batch, departures, service
from moa_nb.providers import batches as formats
from moa_nb.testing import Reply
from moa_nb.testing.batch_server import BatchEnd, BatchServer
from moa_nb.testing.recorded import text_of

WIRES = ("openai", "anthropic")

N_ROWS = 24

Lab = Callable[..., BatchServer]


def echo(body: dict[str, Any]) -> str:
    """An answer that tells its question from all others."""
    return f"{body['model']} on {text_of(body['messages'][-1])[-40:]}"


handed_over = threading.Event()
"""Not set while the thread that asks still hands calls over: it may stand still between two of them."""


async def quiet_afterwards(batches: departures.Batches) -> None:
    """Return when all calls have been handed over, and then a quiet moment was."""
    while not handed_over.is_set():
        await asyncio.sleep(0.01)
    await quiet(batches)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a day's work, in hundredths of a second."""
    monkeypatch.setattr(departures, "QUIET_SECONDS", 0.01)
    handed_over.set()
    monkeypatch.setattr(departures.Batches, "_quiet", quiet_afterwards)
    monkeypatch.setattr(batch, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(batch, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(batch, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(service, "_SECONDS", 1.0)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Start a server with ``lab:a``, ``lab:b`` and the aggregator ``lab:z``; a dollar a million tokens."""
    started: list[BatchServer] = []

    def start(wire: str = "openai", provider: dict[str, Any] | None = None, **options: Any) -> BatchServer:
        server = BatchServer(**options).start()
        started.append(server)
        server.on("*", echo)
        price = {"prompt_price": 1.0, "completion_price": 1.0}
        moa.configure(
            proposers=["lab:a", "lab:b"],
            aggregator="lab:z",
            providers={"lab": {"base_url": server.base_url, "wire": wire, "batch": True, **(provider or {})}},
            models={f"lab:{name}": price for name in "abz"},
        )
        return server

    yield start
    engine.engine.stop()
    for server in started:
        server.stop()


async def begun(runs: Iterable[Coroutine[Any, Any, Any]]) -> list[asyncio.Task[Any]]:
    """Runs side by side, each of which the engine has before any batch leaves."""
    handed_over.clear()
    asked = [asyncio.create_task(run) for run in runs]
    await asyncio.sleep(0)  # each takes its first step, in which it is handed over
    handed_over.set()
    return asked


def questions(n_rows: int, **options: Any) -> Iterator[Coroutine[Any, Any, Any]]:
    """As many runs in batch mode."""
    return (moa.arun(f"question {number}", mode="batch", **options) for number in range(n_rows))


def ask_all(n_rows: int = N_ROWS, **options: Any) -> list[Any]:
    """The results of as many questions asked side by side; an error in place of a result."""

    async def ask() -> list[Any]:
        return await asyncio.gather(*await begun(questions(n_rows, **options)), return_exceptions=True)

    return asyncio.run(ask())


def sizes(server: BatchServer) -> list[tuple[str, int]]:
    """Model and number of requests of each batch, in the order in which they were made."""
    return [(one["model"], len(one["requests"])) for one in server.batches]


def open_rows() -> int:
    """How many batches the store has open."""
    return len(engine.current().store(settings.current()).open_batches())


# The rule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
def test_a_batch_for_each_layer_and_model(lab: Lab, wire: str) -> None:
    """24 rows through two layers make one batch for each model of each layer, and answer as live calls do."""
    server = lab(wire, looks=2)
    results = ask_all()
    assert sorted(sizes(server)[:2]) == [("a", N_ROWS), ("b", N_ROWS)]
    assert sizes(server)[2:] == [("z", N_ROWS)]
    assert max(Counter(server.batched).values()) == 1
    assert server.count() == 0, "nothing went out live"
    assert open_rows() == 0
    live = [moa.run(f"question {number}", cache="refresh") for number in range(N_ROWS)]
    assert [result.text for result in results] == [result.text for result in live]
    assert [result.usage for result in results] == [result.usage for result in live]
    for result, other in zip(results, live, strict=True):
        assert other.cost is not None
        assert result.cost == pytest.approx(other.cost / 2)
        assert not result.degraded
        assert [call.attempts for call in result.calls] == [1, 1, 1]


@pytest.mark.parametrize("wire", WIRES)
def test_the_ledger_has_half_the_price(lab: Lab, wire: str) -> None:
    """What the ledger says of a batch is what the results reported, at half the price."""
    lab(wire)
    results = ask_all(3)
    store = engine.current().store(settings.current())
    spent = sum(row.cost or 0.0 for row in store.costs())
    tokens = sum(result.usage.total_tokens for result in results)
    assert spent == pytest.approx(sum(result.cost for result in results)) == pytest.approx(tokens / 1e6 / 2)


def test_an_estimate_is_half(lab: Lab) -> None:
    """The same calls and tokens are forecast at half the dollars; models without a Batch API keep their price."""
    lab()
    live, batched = (moa.estimate("question", mode=mode) for mode in ("live", "batch"))
    assert live.cost is not None
    assert batched.cost == pytest.approx(live.cost / 2)
    assert (batched.n_calls, batched.prompt_tokens) == (live.n_calls, live.prompt_tokens)


def test_what_is_known_is_not_handed_in(lab: Lab) -> None:
    """A second run of the same rows and one more takes only that one's calls to the service."""
    server = lab()
    ask_all(3)
    before = len(server.batched)
    results = ask_all(4)
    assert len(server.batched) == before + 3
    assert [sum(call.cached for call in result.calls) for result in results] == [3, 3, 3, 0]


def test_equal_calls_are_one_and_samples_are_several(lab: Lab) -> None:
    """Five equal runs are one request; three samples of a question are three."""
    server = lab()

    async def ask() -> list[Any]:
        return await asyncio.gather(*(moa.arun("same", mode="batch", pipeline="single") for _ in range(5)))

    assert len({result.text for result in asyncio.run(ask())}) == 1
    assert len(server.batched) == 1
    moa.run("other", mode="batch", models=["lab:a"], samples=3)
    assert [n for model, n in sizes(server) if model == "a"] == [3]


def test_threads_wait_together(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain functions in threads of their own are rows as well: their calls are in one batch."""
    server = lab()

    async def quiet_after_six(batches: departures.Batches) -> None:
        for _ in range(6000):  # a thread may come late, but within a minute
            if batches._n_came < 6:
                await asyncio.sleep(0.01)
        await quiet(batches)

    monkeypatch.setattr(departures.Batches, "_quiet", quiet_after_six)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: moa.run(f"q{number}", mode="batch", pipeline="single"), range(6)))
    assert sizes(server) == [("z", 6)]


def test_a_frame_goes_out_in_batches(lab: Lab) -> None:
    """Rows have the answers that they have live, equal ones are asked once, and no request is in two batches."""
    server = lab()
    frame = pd.DataFrame({"q": [*(f"question {number}" for number in range(N_ROWS)), "question 1", None]})
    frame.index += 5
    answers = frame.moa.synthesize("q", mode="batch", progress=False)
    assert max(Counter(server.batched).values()) == 1
    assert sorted(sizes(server)) == [("a", N_ROWS), ("b", N_ROWS), ("z", N_ROWS)]
    assert server.count() == 0
    paid = moa.last().costs.sum()
    pd.testing.assert_series_equal(answers, frame.moa.synthesize("q", cache="refresh", progress=False))
    assert paid == pytest.approx(moa.last().costs.sum() / 2)


def test_other_models_go_live(lab: Lab) -> None:
    """Offline agents and functions answer at once; the batch leaves when none of them is under way any more."""
    server = lab()

    def slow(prompt: str) -> str:
        return f"thought of {prompt}"

    texts = [f"The mill {number} closed in May. Forty people lost their work." for number in range(5)]

    async def ask() -> list[Any]:
        models = ["lab:a", "offline:lead", slow]
        return await asyncio.gather(*await begun(moa.arun(text, mode="batch", models=models) for text in texts))

    results = asyncio.run(ask())
    assert sizes(server) == [("a", 5), ("z", 5)]
    assert all(len(result.calls) == 4 and not result.degraded for result in results)


def test_a_full_batch_is_followed_by_another(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more than a service takes in a batch goes into several, by number and by bytes."""
    server = lab()
    api = formats.BATCH_APIS["openai"]
    monkeypatch.setattr(formats, "BATCH_APIS", {"openai": api._replace(most_requests=10)})
    ask_all(pipeline="single")
    assert [n for _, n in sizes(server)] == [10, 10, 4]
    length = len(server.batches[0]["requests"][0][1]) + 200
    monkeypatch.setattr(formats, "BATCH_APIS", {"openai": api._replace(most_bytes=2 * length)})
    engine.engine.stop()
    ask_all(5, pipeline="single", cache="refresh")
    assert sum(n for _, n in sizes(server)[3:]) == 5
    assert len(sizes(server)) > 5


def test_only_a_known_address_has_batches(lab: Lab) -> None:
    """A server of the user's own that says nothing of batches is asked live, whatever its name."""
    lab(provider={"batch": None})
    with pytest.raises(SetupError, match="Batch API"):
        moa.run("question", mode="batch")
    provider = settings.current().provider
    assert provider("openai:gpt-4o-mini").has_batches
    assert provider("anthropic:claude-haiku-4-5").has_batches
    assert not provider("groq:llama-3.1-8b-instant").has_batches
    assert not provider("offline:lead").has_batches
    moa.configure(providers={"openai": {"base_url": "http://127.0.0.1:9/v1"}})
    assert not settings.current().provider("openai:gpt-4o-mini").has_batches


# Refused in one line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"models": ["offline:lead"], "aggregator": "offline:consensus"}, "none of offline:lead, offline:consensus"),
        ({"cache": "off"}, "cache='off'"),
        ({"mode": "bach"}, "did you mean 'batch'"),
    ],
)
def test_a_mistake_is_refused(lab: Lab, options: dict[str, Any], line: str) -> None:
    """Models without a Batch API, no cache, a misspelt mode: one line, and nothing is sent."""
    server = lab()
    with pytest.raises(SetupError, match=line) as caught:
        moa.run("Some text. Some more.", **{"mode": "batch", **options})
    assert "\n" not in str(caught.value)
    assert server.batches == []


def test_a_store_of_this_session_alone_is_refused(lab: Lab) -> None:
    """What is paid for and comes tomorrow must be found tomorrow."""
    server = lab()
    moa.configure(store="none")
    with pytest.raises(SetupError, match="store='none'"):
        moa.run("question", mode="batch")
    assert server.batches == []


def test_a_store_that_cannot_be_written_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that cannot be written down is not handed in."""
    server = lab()
    store = engine.current().store(settings.current())
    monkeypatch.setattr(store, "add_batch", lambda row: None)
    with pytest.raises(ServiceError, match="store cannot be written"):
        moa.run("question", mode="batch", pipeline="single")
    assert server.batches == []


@pytest.mark.parametrize("wire", WIRES)
def test_a_wrong_key_is_said_before_anything_is_handed_in(lab: Lab, wire: str) -> None:
    """401 is the error of all rows and of the other models' batches; there is no batch and no file."""
    server = lab(wire, key="right", provider={"key": "wrong"})
    results = ask_all(4)
    assert all(isinstance(result, KeyRejected) for result in results)
    assert (server.batches, server._files, open_rows()) == ([], {}, 0)


def test_a_refused_batch_is_a_setup_error(lab: Lab) -> None:
    """A 400 when it is handed in, and a validation that fails later, end as they do live."""
    server = lab()
    server.answer_create(Reply.bad_request("Unsupported endpoint"))
    (result,) = ask_all(1, pipeline="single")
    assert isinstance(result, SetupError)
    assert "Unsupported endpoint" in str(result)
    server.ends("z", BatchEnd("failed", code="model_not_found", message="There is no model z"))
    results = ask_all(3, pipeline="single")
    assert all(isinstance(result, UnknownName) for result in results)
    assert [result.unreported for result in results] == [0, 0, 0]
    assert server.model_listings == 1
    assert open_rows() == 0


def test_a_server_without_batches_says_so(server: Any) -> None:
    """``batch = true`` at a server that has none is one line that says what to leave out."""
    moa.configure(
        proposers=["lab:a"], aggregator="lab:a", providers={"lab": {"base_url": server.base_url, "batch": True}}
    )
    with pytest.raises(SetupError, match="no Batch API at /files"):
        moa.run("question", mode="batch", pipeline="single")


# What goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_a_batch_did_not_answer_is_handed_in_once_more(lab: Lab, wire: str, status: Any) -> None:
    """Of a batch that came to its end after ten requests, the others are in the next one, and only they."""
    server = lab(wire)
    server.ends("z", BatchEnd(status, answered=10))
    results = ask_all(pipeline="single")
    assert sizes(server) == [("z", N_ROWS), ("z", N_ROWS - 10)]
    assert sorted(result.text for result in results) == sorted(f"z on question {number}" for number in range(N_ROWS))
    assert sorted(call.attempts for result in results for call in result.calls) == [1] * 10 + [2] * (N_ROWS - 10)
    assert sum(result.usage.total_tokens for result in results) / 2e6 == pytest.approx(
        sum(result.cost for result in results)
    )


def test_what_is_never_answered_is_a_service_error(lab: Lab) -> None:
    """The second batch that comes to its end is the last."""
    server = lab()
    server.ends("z", BatchEnd("expired"), BatchEnd("expired"))
    results = ask_all(3, pipeline="single")
    assert all(isinstance(result, ServiceError) for result in results)
    assert [result.unreported for result in results] == [0, 0, 0], "what expired is not billed"
    assert [n for _, n in sizes(server)] == [3, 3]


@pytest.mark.parametrize("wire", WIRES)
def test_an_error_of_one_request_is_its_own(lab: Lab, wire: str) -> None:
    """A refused request is a row's error, a fault is asked again in the next batch; the others have their answers."""
    server = lab(wire)
    faults = {"question 5": [Reply.bad_request("Bad words")] * 9, "question 7": [Reply.fault(500)]}

    def answer(body: dict[str, Any]) -> str | Reply:
        question = text_of(body["messages"][-1])
        return faults[question].pop() if faults.get(question) else echo(body)

    server.on("z", answer)
    results = ask_all(pipeline="single")
    assert isinstance(results[5], RowError)
    assert "Bad words" in str(results[5])
    assert [n for _, n in sizes(server)] == [N_ROWS, 1]
    assert results[7].calls[0].attempts == 2
    assert all(results[number].text == f"z on question {number}" for number in range(N_ROWS) if number != 5)


def test_a_model_that_takes_no_temperature_is_asked_without(lab: Lab) -> None:
    """What a refusal teaches holds for the next batch, as it does for live calls."""
    server = lab()
    words = "Unsupported parameter: 'temperature' is not supported with this model."

    def answer(body: dict[str, Any]) -> str | Reply:
        return Reply.bad_request(words) if "temperature" in body else echo(body)

    server.on("z", answer)
    results = ask_all(3, pipeline="single", temperature=0.3)
    assert [n for _, n in sizes(server)] == [3, 3]
    assert [result.text for result in results] == [f"z on question {number}" for number in range(3)]


def test_a_full_queue_makes_smaller_batches(lab: Lab) -> None:
    """A service that would have too much under way gets half of it, one batch after the other."""
    server = lab()
    server.ends("z", BatchEnd("failed", code="token_limit_exceeded", message="Enqueued token limit reached for z"))
    results = ask_all(10, pipeline="single")
    assert [n for _, n in sizes(server)] == [10, 5, 5]
    assert [result.text for result in results] == [f"z on question {number}" for number in range(10)]
    assert all(result.calls[0].attempts == 1 for result in results)


def test_a_batch_that_the_service_forgot_is_handed_in_again(lab: Lab) -> None:
    """A 404 that stays is believed; its calls are in one more batch."""
    server = lab()
    server.held = True

    async def ask() -> Any:
        asked = asyncio.create_task(moa.arun("question", mode="batch", pipeline="single"))
        while not server.batches or not server.batches[0]["looks"]:
            await asyncio.sleep(0.01)
        server.forget()
        server.held = False
        return await asked

    result = asyncio.run(ask())
    assert result.text == "z on question"
    assert result.calls[0].attempts == 2
    assert open_rows() == 0


def test_a_call_in_a_batch_has_no_deadline(lab: Lab) -> None:
    """The seconds of a live call say nothing of one that may take a day."""
    server = lab(looks=15)
    moa.configure(timeout=0.05, deadline=0.1, hedge=True)
    (result,) = ask_all(1, pipeline="single")
    assert result.text == "z on question 0"
    assert len(server.batched) == 1


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("is_made", [True, False])
def test_a_lost_answer_makes_no_second_batch(lab: Lab, wire: str, is_made: bool) -> None:
    """Where nobody knows whether a batch was made it is looked for: it is found, or handed in again."""
    server = lab(wire)
    server.answer_create(Reply.dropped(), is_made=is_made)
    results = ask_all(5, pipeline="single")
    assert [result.text for result in results] == [f"z on question {number}" for number in range(5)]
    assert [n for _, n in sizes(server)] == [5]
    assert open_rows() == 0


def test_faults_on_the_way_are_asked_again(lab: Lab) -> None:
    """A 429 and a 503 when a batch is handed in only take time."""
    server = lab()
    server.answer_create(Reply.rate_limited(retry_after=0.01))
    (result,) = ask_all(1, pipeline="single")
    assert result.text == "z on question 0"
    assert [n for _, n in sizes(server)] == [1]


# Stopping and going on --------------------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
def test_an_interrupted_run_leaves_its_batch_and_finds_it_again(lab: Lab, wire: str) -> None:
    """Who stops waiting stops nothing at the service; who asks again waits for the same batch."""
    server = lab(wire)
    server.held = True

    async def stopped() -> list[Any]:
        asked = await begun(questions(5, pipeline="single"))
        while not server.batches or server.batches[0]["looks"] < 2:
            await asyncio.sleep(0.01)
        for task in asked:
            task.cancel()
        return await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(result, asyncio.CancelledError) for result in asyncio.run(stopped()))
    assert server.wait_until(lambda: engine.current().latest is not None), "the engine's loop has seen it too"
    assert moa.last().calls[0].unreported == 1, "it may be billed"
    assert open_rows() == 1
    server.held = False
    results = ask_all(7, pipeline="single")
    assert sorted(sizes(server)) == [("z", 2), ("z", 5)]
    assert all(result.text == f"z on question {number}" for number, result in enumerate(results))
    assert all(result.cost > 0 for result in results), "the first run did not report it"
    assert open_rows() == 0


def test_answers_that_nobody_waits_for_are_kept_too(lab: Lab) -> None:
    """A batch of an earlier, larger run is closed only when all its answers are in the store."""
    server = lab()
    server.held = True

    async def stopped() -> None:
        asked = await begun(questions(6, pipeline="single"))
        while not server.batches:
            await asyncio.sleep(0.01)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(stopped())
    server.held = False
    ask_all(1, pipeline="single")
    assert open_rows() == 0
    result = moa.run("question 5", pipeline="single")
    assert result.calls[0].cached
    assert (len(server.batches), server.count()) == (1, 0)


def test_a_budget_holds_and_reserves_half(lab: Lab) -> None:
    """A budget that is enough for half of the worst case is enough in a batch; a smaller one is refused unsent."""
    server = lab()
    live = moa.estimate("question 0", pipeline="single", max_tokens=100, budget=1.0)
    assert live.cost is not None
    body = 200 / 1e6  # bytes stand for the most tokens that a prompt can have
    enough = (live.cost + body) / 2
    result = moa.run("question 0", mode="batch", pipeline="single", max_tokens=100, budget=enough)
    assert 0 < result.cost <= enough
    engine.engine.stop()
    with pytest.raises(BudgetExceeded):
        moa.run("question 1", mode="batch", pipeline="single", max_tokens=100, budget=enough / 10)
    assert [n for _, n in sizes(server)] == [1]


def test_what_comes_back_pays_for_the_next_batch(lab: Lab) -> None:
    """Rows that the worst case leaves no room for wait; what is settled is spent on them, and never more."""
    server = lab()
    one = moa.estimate("question 0", pipeline="single", max_tokens=100, budget=1.0, mode="batch").cost
    assert one is not None

    async def ask() -> list[Any]:
        plan = await engine.current().plan(Options(pipeline="single", max_tokens=100, budget=4 * one, mode="batch"))
        assert plan.budget is not None

        async def answer(number: int) -> Any:
            task = make_task(f"question {number}", None, None)
            return await engine.current().answer(plan, task, engine.current().new_record(plan, task), row=number)

        results = await asyncio.gather(*map(answer, range(N_ROWS)), return_exceptions=True)
        assert plan.budget.spent <= plan.budget.limit
        assert plan.budget.reserved == 0
        assert plan.budget.spent == pytest.approx(sum(result.cost for result in results))
        return results

    results = engine.current().finish(ask())
    assert all(result.text == f"z on question {number}" for number, result in enumerate(results))
    assert len(server.batches) > 1
    assert [text_of(body["messages"][-1]) for _, body in server.batches[0]["requests"]][:2] == [
        "question 0",
        "question 1",
    ]


def test_what_a_budget_cuts_off_is_kept_apart(lab: Lab) -> None:
    """An answer that ended at the budget's own ceiling is no answer to the question without a budget."""
    server = lab()
    server.on("z", Reply.truncated("half an ans"))
    first = moa.run("question", mode="batch", pipeline="single", budget=1.0)
    again = moa.run("question", mode="batch", pipeline="single", budget=1.0)
    assert (first.calls[0].cached, again.calls[0].cached) == (False, True)
    server.on("z", "the whole answer")
    assert moa.run("question", mode="batch", pipeline="single").text == "the whole answer"
    assert len(server.batches) == 2


def test_a_closed_batch_keeps_its_id_alone(lab: Lab) -> None:
    """A row that is closed holds no keys any more; its id tells it from batches of others."""
    lab()
    ask_all(2, pipeline="single")
    store = engine.current().store(settings.current())
    with sqlite3.connect(store.path) as connection:  # type: ignore[arg-type]  # on disk
        rows = connection.execute("SELECT model, batch, is_open, keys FROM batches").fetchall()
    connection.close()
    assert rows == [("lab:z", "batch_1", 0, b"")]
