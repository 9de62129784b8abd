"""The engine: from scripts, loops, threads and forks; interrupted, stopped, and at the end of the interpreter."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import moa_nb as moa
from moa_nb import settings
from moa_nb.engine import engine
from moa_nb.engine.loop import Job, Loop
from moa_nb.errors import ServiceError, SetupError, UnknownOption
from moa_nb.gateway import Gateway, gateway
from moa_nb.pipeline.record import RunRecord
from moa_nb.settings import Service
from moa_nb.store import Store
from moa_nb.testing import ChatServer, Reply

Lab = Callable[..., None]


def process(script: str, *arguments: str, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    """What a Python process of its own printed, where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


HEAD = """
import asyncio, os, sys, threading, time
import moa_nb as moa
moa.configure(aggregator="lab:z", providers={"lab": {"base_url": sys.argv[1]}})
"""


def says(server: ChatServer, script: str, *, warnings: str = "error") -> str:
    """What a script prints; it must end well, quickly and without a word on standard error."""
    done = process(HEAD + script, server.base_url, warnings=warnings)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# Where it is called from ------------------------------------------------------------------------


def test_a_plain_script_runs_and_ends(server: ChatServer) -> None:
    """``run`` needs no loop, and the interpreter's end is silent."""
    assert says(server, "print(moa.run('Why?', pipeline='single'))") == "answer of z"


def test_a_script_that_ends_in_the_middle_of_a_run_ends_at_once(server: ChatServer) -> None:
    """What is in flight in the background is closed, nothing is printed, nothing hangs."""
    server.on("z", Reply.hanging())
    script = """
import pandas as pd
from moa_nb.engine import engine
run = engine.current().start(moa.arun("Why?", pipeline="single"))
time.sleep(0.5)
print(time.monotonic())
"""
    ended = float(says(server, script))
    assert time.monotonic() - ended < 60  # what hangs would be waited for until the process is given up, after 120
    assert server.wait_until(lambda: all(record.closed_at for record in server.requests))


def test_under_a_running_loop(server: ChatServer, lab: Lab) -> None:
    """``run`` blocks the caller's loop as any function does, ``arun`` leaves it free."""

    async def go() -> tuple[str, str, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        blocked = moa.run("Why?")
        assert ticks == 0
        server.on("z", lambda body: "late" if server.wait_until(lambda: ticks > 5) else "held up")
        awaited = await moa.arun("Why else?")
        ticking.cancel()
        return blocked.text, awaited.text, ticks

    first, second, ticks = asyncio.run(go())
    assert (first, second) == ("answer of z", "late")
    assert ticks > 5, "the loop went on while the answer was awaited"


def test_under_uvloop(server: ChatServer, lab: Lab) -> None:
    """Both, on a loop that is not asyncio's own."""
    uvloop = pytest.importorskip("uvloop")

    async def go() -> list[str]:
        return [moa.run("Why?").text, (await moa.arun("Why else?")).text]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(go()) == ["answer of z"] * 2


def test_in_a_callback_of_a_running_loop(server: ChatServer, lab: Lab) -> None:
    """As widgets call it."""

    async def go() -> str:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()
        loop.call_soon(lambda: done.set_result(moa.run("Why?").text))
        return await done

    assert asyncio.run(go()) == "answer of z"


def test_from_eight_threads_at_once(server: ChatServer, lab: Lab) -> None:
    """They share one engine, one loop and, for equal questions, one call."""
    engine.stop()
    others = set(threading.enumerate())
    barrier = threading.Barrier(8)

    def ask(number: int) -> str:
        barrier.wait()
        return moa.run("Why?", pipeline="single").text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == ["answer of z"] * 8
    assert server.count() == 1
    assert sum(thread.name == "moa-nb-engine" for thread in set(threading.enumerate()) - others) == 1


def test_sync_and_async_give_the_same(server: ChatServer, lab: Lab) -> None:
    """``run`` and ``arun`` differ in nothing but the waiting."""
    one = moa.run("Why?", cache="off")
    other = asyncio.run(moa.arun("Why?", cache="off"))
    assert [call.prompt for call in one.calls] == [call.prompt for call in other.calls]
    assert (one.text, one.usage, one.cost) == (other.text, other.usage, other.cost)


KERNEL = """
import asyncio, warnings
import moa_nb as moa
moa.configure(loop="kernel")
seen = []
async def agent(prompt):
    seen.append(asyncio.get_running_loop() is home)
    return "from the kernel's loop"
async def cell():
    global home
    home = asyncio.get_running_loop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = moa.run("Why?", models=[agent], aggregator="lab:z")
        second = moa.run("Why else?", models=[agent], aggregator="lab:z")
    third = await moa.arun("Why then?", models=[agent], aggregator="lab:z")
    print(first, second, third, seen, [w.category.__name__ for w in caught], sep="|")
asyncio.run(cell())
"""


def test_kernel_mode_runs_on_the_callers_loop(server: ChatServer) -> None:
    """For agents that are tied to it; it warns once that it patches asyncio."""
    said = says(server, KERNEL)
    assert said == "answer of z|answer of z|answer of z|[True, True, True]|['RuntimeWarning']"


def test_kernel_mode_refuses_a_loop_that_cannot_be_patched(server: ChatServer, lab: Lab) -> None:
    """Uvloop has no nesting: the error says what to set."""
    uvloop = pytest.importorskip("uvloop")
    lab(loop="kernel")

    async def go() -> None:
        with pytest.raises(SetupError, match="use loop = 'thread'"):
            moa.run("Why?")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(go())


FORK = """
print(moa.run("Why?", pipeline="single"), flush=True)
pid = os.fork()
if pid == 0:
    print(moa.run("Why else?", pipeline="single"), flush=True)
    sys.exit(0)
_, status = os.waitpid(pid, 0)
print(moa.run("And now?", pipeline="single"), status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_an_engine_of_its_own(server: ChatServer) -> None:
    """Parent and child both go on, and end without a word."""
    assert says(server, FORK, warnings="default").split("\n") == ["answer of z", "answer of z", "answer of z 0"]


# Stopping ---------------------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops a run or a loop waits a minute for its goodbye: a machine that stands still is no fault of it."""
    monkeypatch.setattr("moa_nb.engine.loop._GOODBYE_SECONDS", 60.0)


SOON = 20.0
"""Seconds within which something ends at once on any machine; what is waited for in vain ends after 60 and more."""


def test_a_cancelled_run_closes_its_connections_at_once(
    server: ChatServer, lab: Lab, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers see it, and what was finished is listed and kept."""
    server.on("b", Reply.hanging())
    server.on("c", Reply.hanging())
    records: list[RunRecord] = []
    make = engine.Engine.new_record
    monkeypatch.setattr(engine.Engine, "new_record", lambda *given: records.append(make(*given)) or records[-1])

    def one_is_over() -> bool:
        return sum(call.call is not None for layer in records[0].layers for call in layer.calls) == 1

    async def go() -> float:
        task = asyncio.create_task(moa.arun("Why?"))
        for condition in (
            lambda: sorted(record.model for record in server.requests) == ["a", "b", "c"],
            lambda: moa.estimate("Why?").n_cached == 1,
            one_is_over,
        ):
            assert await asyncio.to_thread(server.wait_until, condition, seconds=60)
        cancelled = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return cancelled

    cancelled = asyncio.run(go())
    assert server.wait_until(lambda: all(server.asked(name)[0].closed_at for name in "bc"), seconds=60)
    assert all((server.asked(name)[0].closed_at or 0) - cancelled < SOON for name in "bc")
    assert server.wait_until(lambda: list(moa.runs()["state"]) == ["stopped"], seconds=60), "the engine has seen it too"
    result: Any = moa.last()
    assert [call.error_kind for call in result.calls] == [None, "cancelled", "cancelled"]
    assert (result.stop_reason, list(moa.runs()["state"])) == ("stopped", ["stopped"])
    for nonsense in ("x", 0, 1.5, 10**30):
        with pytest.raises(SetupError, match="limit is how many runs"):
            moa.runs(nonsense)  # type: ignore[arg-type]  # as users do
    with pytest.raises(SetupError, match="a chat has a name, and 5 is none"):
        moa.messages(5)  # type: ignore[arg-type]  # likewise


def test_an_interrupt_closes_connections_and_a_rerun_asks_the_rest(server: ChatServer, lab: Lab, patient: None) -> None:
    """KeyboardInterrupt comes through at once; what was finished comes from the store."""
    server.on("b", Reply.hanging(), "b at last")

    def interrupt() -> None:
        server.wait_until(lambda: server.count("b") and moa.estimate("Why?").n_cached == 2, seconds=60)
        time.sleep(0.1)
        moments.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    moments: list[float] = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        moa.run("Why?")
    assert time.monotonic() - moments[0] < SOON
    thread.join()
    assert server.wait_until(lambda: server.asked("b")[0].closed_at, seconds=60)
    assert (server.asked("b")[0].closed_at or 0) - moments[0] < SOON
    assert [call.cached for call in moa.run("Why?").layers[0].calls] == [True, False, True]


@pytest.mark.parametrize("way", ["interrupt", "cancel"])
def test_connections_are_closed_within_a_moment(server: ChatServer, lab: Lab, patient: None, way: str) -> None:
    """The server sees it 0.3 s after an interrupt or a cancelled task; where the machine stands still, one try of five."""
    server.on("z", Reply.hanging())

    def stopped(turn: int) -> float:
        moments: list[float] = []

        def has_come() -> None:
            assert server.wait_until(lambda: server.count() == turn + 1, seconds=60)
            moments.append(time.monotonic())

        def interrupt() -> None:
            has_come()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        async def cancel() -> None:
            task = asyncio.create_task(moa.arun(f"Why, {turn}?", pipeline="single"))
            await asyncio.to_thread(has_come)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        if way == "cancel":
            asyncio.run(cancel())
        else:
            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                moa.run(f"Why, {turn}?", pipeline="single")
            thread.join()
        record = server.requests[turn]
        assert server.wait_until(lambda: record.closed_at, seconds=60)
        return (record.closed_at or 0) - moments[0]

    took = [stopped(0)]
    while took[-1] >= 0.3 and len(took) < 5:
        took.append(stopped(len(took)))
    assert took[-1] < 0.3, took


def test_stopping_the_engine_cancels_what_is_in_flight(server: ChatServer, lab: Lab, patient: None) -> None:
    """Whoever waits is told, connections are closed, and the next run starts a new engine."""
    server.on("a", Reply.hanging())
    job = engine.current().start(moa.arun("Why?"))
    assert server.wait_until(lambda: server.count("a") == 1, seconds=60)
    engine.stop()
    assert job.done
    assert server.wait_until(lambda: server.asked("a")[0].closed_at, seconds=60)
    server.on("a", "fine")
    assert moa.run("Why?").text == "answer of z"


def test_code_that_blocks_the_loop_does_not_hold_up_the_end(server: ChatServer, lab: Lab) -> None:
    """Stopping waits a moment, not for ever."""
    begun, goes_on = threading.Event(), threading.Event()

    async def block(prompt: str) -> str:
        begun.set()
        goes_on.wait(60)  # this is the mistake
        return "late"

    engine.current().start(moa.arun("Why?", models=[block]))
    assert begun.wait(60)
    loop = engine.current().loop
    engine.stop()
    assert loop.thread.is_alive(), "nobody has waited for what blocks it"
    goes_on.set()
    loop.thread.join()
    assert loop.loop.is_closed()


def test_an_interrupt_inside_the_engine_does_not_end_it(patient: None) -> None:
    """A callback that raises KeyboardInterrupt or SystemExit leaves the loop running."""
    loop = Loop()

    async def closing() -> None:
        return

    async def answer() -> int:
        return 42

    def interrupt() -> None:
        raise KeyboardInterrupt

    loop.loop.call_soon_threadsafe(interrupt)
    loop.loop.call_soon_threadsafe(sys.exit)
    assert loop.job(answer()).wait() == 42
    loop.stop(closing())
    assert not loop.thread.is_alive()


def test_a_timeout_of_the_run_itself_is_not_taken_for_waiting() -> None:
    """A coroutine that raises TimeoutError ends the wait with it."""
    loop = Loop()

    async def late() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        loop.job(late()).wait()
    loop.stop(asyncio.sleep(0))


@pytest.mark.parametrize("reached", [False, True])
def test_an_interrupt_while_a_job_begins_leaves_nothing_running(
    patient: None, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    """An interrupt just before or just after the engine has the coroutine ends it too, not one during the wait alone."""
    loop, ended, begin = Loop(), threading.Event(), Job.begin

    async def paid() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    def interrupted(job: Job[None]) -> None:
        if reached:
            begin(job)
            loop.job(asyncio.sleep(0.01)).wait()
        raise KeyboardInterrupt

    job = loop.job(paid())
    monkeypatch.setattr(Job, "begin", lambda one: interrupted(one) if one is job else begin(one))
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    assert job.done
    assert ended.is_set() is reached
    begin(job)  # whoever comes late starts nothing
    loop.job(asyncio.sleep(0)).wait()
    assert asyncio.run_coroutine_threadsafe(_n_tasks(), loop.loop).result() == 1
    loop.stop(asyncio.sleep(0))


async def _n_tasks() -> int:
    return len(asyncio.all_tasks())


def test_a_run_that_outlives_its_engine_opens_no_store(server: ChatServer, lab: Lab) -> None:
    """What is still to be kept when the stores are closed is let go, and no other store is opened for it."""
    ended, store = engine.current(), engine.current().store(settings.current())
    moa.run("kept", pipeline="single")
    engine.stop()
    assert ended.store(settings.current()) is store
    assert store.runs() == []
    store.forget_chat("nobody")
    assert store.complaint() is None
    assert [row.title for row in engine.current().store(settings.current()).runs()] == ["kept"]


# Settings and connections -----------------------------------------------------------------------


def test_new_settings_take_effect_and_leave_no_connections_behind(server: ChatServer, lab: Lab) -> None:
    """Each ``configure`` makes a gateway; the connections stay those of the loop, and old gateways go."""
    for number in range(5):
        lab(timeout=50.0 + number)
        moa.run(f"Question {number}", pipeline="single")

    async def count() -> int:
        import gc

        gc.collect()
        (place,) = engine.current()._connections._places.values()
        return len(place.gateways)

    assert engine.current().finish(count()) <= 2


def test_a_run_goes_on_under_the_settings_it_began_with(server: ChatServer, lab: Lab) -> None:
    """Settings that change in the middle hold for the next run."""
    server.on("a", Reply("late", delay=0.2))
    job = engine.current().start(moa.arun("Why?"))
    assert server.wait_until(lambda: server.count("a") == 1, seconds=60)
    moa.configure(aggregator="lab:b")
    assert len(job.wait().calls) == 4
    assert (server.count("z"), server.count("b")) == (1, 1)


# Who answers ------------------------------------------------------------------------------------

TEXT = "The mill closed in May. Forty people lost their work. The town bought the mill. It may open again."


def no_services(monkeypatch: pytest.MonkeyPatch, *known: Service) -> None:
    """Let there be only these services."""
    found = {service.name: service for service in known}
    for place in ("moa_nb.settings.services", "moa_nb.engine.roles.services"):
        monkeypatch.setattr(place, lambda: found)


def roles(prompt: str = TEXT) -> dict[str, str]:
    """Who proposed and aggregated a default run."""
    result = moa.run(prompt)
    return {layer.name: ",".join(call.model for call in layer.calls) for layer in result.layers}


def test_with_nothing_at_all_the_offline_agents_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the result says that they are no language models."""
    no_services(monkeypatch)
    result = moa.run(f"Summarize: {TEXT}")
    assert {call.model.partition(":")[0] for call in result.calls} == {"offline"}
    assert result.cost == 0.0
    assert result.text


def test_the_first_key_in_the_stated_order_decides(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the order in the environment; and a key that goes or comes counts at once."""
    one = Service("one", server.base_url, key_env="ONE_API_KEY", proposers=("a", "b"), aggregator="z")
    two = Service("two", server.base_url, key_env="TWO_API_KEY", proposers=("c",), aggregator="c")
    no_services(monkeypatch, one, two)
    monkeypatch.setenv("TWO_API_KEY", "k2")
    assert roles() == {"layer 1": "two:c", "layer 2": "two:c"}
    monkeypatch.setenv("ONE_API_KEY", "k1")
    assert roles() == {"layer 1": "one:a,one:b", "layer 2": "one:z"}
    monkeypatch.delenv("ONE_API_KEY")
    monkeypatch.setenv("TWO_API_KEY", " ")
    assert roles()["layer 2"] == "offline:consensus"


def test_a_local_server_is_found_by_its_mark(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chat models answer; what listens on its port and is something else is passed over."""
    monkeypatch.setattr("moa_nb.engine.roles._PROBE_SECONDS", 60.0)  # it is there, however long it takes
    server.on("llama", "from the laptop").on("nomic-embed", "no")
    port = server.base_url
    stranger = Service("ollama", port, local=True, mark=("/api/tags", "models"))
    closed = Service("lmstudio", "http://127.0.0.1:9/v1", local=True, mark=("/v1/models", "data"))
    mine = Service("llamacpp", port, local=True, mark=("/v1/models", "moa-nb"))
    no_services(monkeypatch, stranger, closed)
    assert roles()["layer 2"] == "offline:consensus"
    no_services(monkeypatch, stranger, closed, mine)
    engine.stop()
    result = moa.run(TEXT)
    assert (result.text, result.cost) == ("from the laptop", 0.0)
    assert {call.model for call in result.calls} == {"llamacpp:llama"}


def test_a_configured_model_that_does_not_answer_is_an_error() -> None:
    """Never silently offline."""
    moa.configure(proposers=["lab:a"], providers={"lab": {"base_url": "http://127.0.0.1:9/v1"}})
    with pytest.raises(SetupError, match="does not answer"):
        moa.run(TEXT)


def test_configured_models_win_over_keys(server: ChatServer, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment changes nothing for who is named in the settings."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert roles()["layer 2"] == "lab:z"


# Options and estimates --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pipeline": "mao"}, "did you mean 'moa'"),
        ({"models": []}, "models is empty"),
        ({"models": ["gpt-4o"]}, "named provider:model"),
        ({"models": ["labb:a"]}, "did you mean 'lab'"),
        ({"models": ["function:nobody"]}, "no function 'nobody'"),
        ({"models": ["offline:textrnk"]}, "did you mean 'textrank'"),
        ({"pipeline": "single", "models": ["lab:a"]}, "asks for no $proposers"),
        ({"budget": -1}, "0 or more"),
        ({"budget": float("nan")}, "0 or more"),
        ({"temperature": 9}, "less than or equal to 2"),
        ({"samples": 0}, "at least 1 sample"),
        ({"layers": 0}, "at least 1 layer"),
        ({"cache": False}, "cache cannot be False; there are: off, refresh, use"),
        ({"cache": "of"}, "did you mean 'off'"),
        ({"budget": "five"}, "a budget is dollars (0.5), calls"),
        ({"samples": "3"}, "samples takes a whole number, not '3'"),
        ({"layers": True}, "layers takes a whole number"),
        ({"temperature": "x"}, "temperature takes a number"),
        ({"pipeline": 5}, "pipeline takes a name or a Pipeline, not 5"),
        ({"template": 5}, "template takes Jinja source"),
        ({"models": [5]}, "models takes a list"),
        ({"models": 5}, "models takes a list"),
        ({"aggregator": 5}, "aggregator takes"),
        ({"pipeline": "moa", "samples": 1000, "layers": 20}, "calls for one input, and 10,000 are the most"),
    ],
)
def test_a_mistake_in_the_options_costs_nothing(
    server: ChatServer, lab: Lab, options: dict[str, Any], words: str
) -> None:
    """One line that says what is right, before anything is sent."""
    with pytest.raises(SetupError) as raised:
        moa.run("Why?", **options)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert server.count() == 0


@pytest.mark.parametrize(
    "prompt", ["", "  \n", [], [{"role": "robot", "content": "x"}], [{"role": "system", "content": "x"}], [3], None, 5]
)
def test_an_empty_prompt_is_a_setup_error(server: ChatServer, lab: Lab, prompt: Any) -> None:
    """There must be something to answer."""
    with pytest.raises(SetupError):
        moa.run(prompt)
    assert server.count() == 0


def test_a_prompt_of_another_kind_is_refused_with_what_a_prompt_is() -> None:
    """Not with words on iterables or attributes."""
    with pytest.raises(SetupError, match=r"a prompt is a text, or messages such as .*, not None"):
        moa.run(None)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("verb", [moa.run, moa.estimate, lambda *a, **k: asyncio.run(moa.arun(*a, **k))])
def test_an_unknown_option_is_a_type_error_that_names_the_nearest(verb: Callable[..., Any]) -> None:
    """As Python says it, with a hint; in a notebook it is one line below one's own."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'pipelin'; did you mean 'pipeline'") as caught:
        verb("Why?", pipelin="moa")
    assert isinstance(caught.value, UnknownOption)
    shown = caught.value._render_traceback_()
    assert shown[-1] == f"UnknownOption: {caught.value}"
    assert not any("moa_nb" in line for line in shown[:-1])


def test_a_function_that_hangs_ends_at_the_deadline_and_holds_no_process(server: ChatServer) -> None:
    """Its error names it and the seconds, and the interpreter's end does not wait for its thread."""
    script = """
moa.configure(deadline=0.3)
def slow(prompt):
    time.sleep(3600)
try:
    moa.run("Why?", models=[slow], aggregator=None, pipeline="moa-lite")
except moa.MoaError as error:
    print(error)
"""
    assert "function 'slow' gave no answer within 0.3 s" in says(server, script)  # which gives up after 120


def test_an_estimate_counts_each_long_text_once(server: ChatServer, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work grows with the layers, not with the square of the agents."""
    counted: list[str] = []
    monkeypatch.setattr("moa_nb.tokens.count_tokens", lambda text, model=None: counted.append(text) or 1)
    assert moa.estimate("Why?", models=["lab:a"], pipeline="moa-lite", samples=30, layers=3).n_calls == 61
    assert len(counted) < 10


def test_a_single_model_may_be_given_as_a_text(server: ChatServer, lab: Lab) -> None:
    """``models="lab:a"`` is one model, not five letters."""
    assert [call.model for call in moa.run("Why?", models="lab:a").calls] == ["lab:a", "lab:z"]


def test_an_estimate_sends_nothing_and_is_never_below_the_cost(server: ChatServer, lab: Lab) -> None:
    """Calls as they will be, dollars at most; what the cache has is free."""
    lab(max_tokens=50)
    before = moa.estimate("Why did it close?", pipeline="moa")
    assert (server.count(), before.n_calls) == (0, 7)
    result = moa.run("Why did it close?", pipeline="moa")
    assert (result.cost or 0) <= (before.cost or 0)
    assert moa.estimate("Why did it close?", pipeline="moa").n_cached == 7


def test_a_template_is_checked_before_the_proposers_are_paid(server: ChatServer, lab: Lab) -> None:
    """An aggregator's template that lacks a variable stops the run before the first call."""
    from pathlib import Path

    folder = Path("templates/prompts")
    folder.mkdir(parents=True)
    (folder / "mine.jinja").write_text("{{ referenzes }}")
    pipeline = moa.Pipeline(layers=[["$proposers"], {"agents": ["$aggregator"], "template": "mine"}])
    with pytest.raises(SetupError, match="did you mean 'references'"):
        moa.run("Why?", pipeline=pipeline)
    assert server.count() == 0


def test_an_error_of_foreign_code_comes_through_with_the_run_listed(server: ChatServer, lab: Lab) -> None:
    """A strategy of one's own that has a bug raises it, and what it paid for is shown."""
    from moa_nb.pipeline.spec import Params
    from moa_nb.pipeline.strategies import _registry, strategy

    @strategy("buggy", params=Params)
    async def buggy(task: Any, params: Any, ask: Any) -> Any:
        await ask.one("first", moa.Agent(model="lab:a"))
        return 1 / 0

    class Nobody(Params):
        def agents(self) -> tuple[moa.Agent, ...]:
            return ()

    _registry["buggy"] = type(_registry["buggy"])("buggy", Nobody, buggy)
    try:
        with pytest.raises(ZeroDivisionError):
            moa.run("Why?", pipeline=moa.Pipeline(strategy="buggy"))
    finally:
        del _registry["buggy"]
    result: Any = moa.last()
    assert (result.stop_reason, result.n_calls, list(moa.runs()["state"])) == ("failed", 1, ["failed"])


def test_an_error_is_raised_where_it_was_asked_for(server: ChatServer, lab: Lab) -> None:
    """With the run's result on it."""
    lab(retry_seconds=0.0)
    server.on("z", Reply.fault())
    with pytest.raises(ServiceError) as raised:
        asyncio.run(moa.arun("Why?"))
    assert raised.value.result is not None
    assert raised.value.result.layers[0].n_ok == 3
    assert settings.current().retry_seconds == 0.0


def test_a_run_leaves_nothing_for_the_collector(server: ChatServer, lab: Lab) -> None:
    """Its texts are freed when it is over: nothing of it refers to itself in a circle."""
    moa.run("Why?", pipeline="moa", budget=1)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        moa.run("Why not?", pipeline="moa", budget=1)
        gc.collect()
        kinds = {type(found).__module__ for found in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not any(kind.startswith("moa_nb") for kind in kinds)


def test_the_collector_is_as_the_user_set_it_when_a_run_is_over(server: ChatServer, lab: Lab) -> None:
    """While it goes on, the collector looks less often."""
    before, seen = gc.get_threshold(), []
    gc.set_threshold(555, 5, 5)
    try:
        moa.run("Why?", models=[lambda prompt: seen.append(gc.get_threshold()) or "yes"], aggregator="lab:z")
        assert gc.get_threshold() == (555, 5, 5)
    finally:
        gc.set_threshold(*before)
    assert seen[0][0] > 555


def test_a_loop_that_is_stopped_before_it_ran_says_goodbye(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread has begun, and no more: a script that starts a run and ends at once."""
    gate, closed, begin = threading.Event(), list[str](), asyncio.set_event_loop
    monkeypatch.setattr(asyncio, "set_event_loop", lambda loop: (gate.wait(), begin(loop)))
    loop = Loop()
    join = loop.thread.join
    monkeypatch.setattr(loop.thread, "join", lambda seconds: (gate.set(), join(seconds)))

    async def closing() -> None:
        closed.append("connections")

    loop.stop(closing())
    assert closed == ["connections"]
    assert loop.loop.is_closed()


def test_complaints_are_asked_for_while_a_store_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may be opening one for other settings."""
    made = engine.Engine()
    in_memory, on_disk = (settings.Settings(store=where) for where in ("none", "disk"))
    made.store(in_memory)
    monkeypatch.setattr(Store, "complaint", lambda _: made.store(on_disk) and None)
    made.complain()
    made.close()


def test_two_that_ask_first_have_one_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread may ask while the first makes it; with two, twice as many calls could be in flight."""
    one, seen, make = Gateway(settings.Settings(), Store(None)), list[Any](), gateway.make_route

    def interrupted(*arguments: Any) -> Any:
        if not seen:
            seen.append(None)
            seen.append(one.route("offline:lead"))
        return make(*arguments)

    monkeypatch.setattr(gateway, "make_route", interrupted)
    assert one.route("offline:lead") is one.route("offline:lead") is seen[1]


KERNEL_TICK = """
from moa_nb.engine.loop import on_kernel_loop

async def work():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled")
        raise

def tick():
    raise LookupError

async def main():
    try:
        on_kernel_loop(work(), tick)
    except LookupError:
        print("said", len(asyncio.all_tasks()))

asyncio.run(main())
"""


def test_on_the_kernel_loop_a_tick_that_fails_ends_the_run(server: ChatServer) -> None:
    """Nobody waits any more, so nobody goes on paying."""
    done = process(HEAD + KERNEL_TICK, server.base_url, warnings="ignore")
    assert (done.returncode, done.stdout.split()) == (0, ["cancelled", "said", "1"]), done.stderr


FORK_IN_A_RUN = """
import gc
from moa_nb.engine import collector

before = gc.get_threshold()
collector.slow_down()
collector._lock.acquire()
if os.fork() == 0:
    print(gc.get_threshold() == before, collector._lock.locked(), flush=True)
    os._exit(0)
os.wait()
collector._lock.release()
collector.resume()
print(gc.get_threshold() == before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_forked_in_a_run_has_its_own_collector(server: ChatServer) -> None:
    """The parent's run ends there, not here; nor does its lock stay shut."""
    assert says(server, FORK_IN_A_RUN, warnings="default").split("\n") == ["True False", "True"]


FORK_WITH_A_RUN = """
import pandas as pd

run = pd.Series(["Why?"]).moa.start.synthesize(pipeline="single").wait()
if os.fork() == 0:
    try:
        run.estimate()
    except moa.MoaError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
print(run.values[0])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_a_fork_took_along_says_so(server: ChatServer) -> None:
    """Its engine has stayed behind: nobody waits for it for ever."""
    said = says(server, FORK_WITH_A_RUN, warnings="default").split("\n")
    assert said == [
        "the engine of this run is not in this process any more (a fork has none): run it again here",
        "answer of z",
    ]


FORK_WHILE_IT_RUNS = """
import asyncio
import threading
import pandas as pd

asked = threading.Event()

@moa.agent("slow", version="1")
async def slow(prompt):
    asked.set()
    await asyncio.Event().wait()

run = pd.Series(["Why?"]).moa.start.synthesize(pipeline=moa.Pipeline(layers=[[slow]]))
asked.wait()

async def awaited():
    return await run

if os.fork() == 0:
    for wait in (run.wait, lambda: asyncio.run(awaited())):
        try:
            wait()
        except moa.MoaError as error:
            print(error, flush=True)
    os._exit(0)
os.wait()
run.stop()
print(run.wait().state)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_nobody_waits_in_a_fork_for_a_run_that_goes_on_elsewhere(server: ChatServer) -> None:
    """Waited for or awaited, it is one line; where it began it can still be stopped."""
    left = "the engine of this run is not in this process any more (a fork has none): run it again here"
    assert says(server, FORK_WHILE_IT_RUNS, warnings="default").split("\n") == [left, left, "stopped"]
