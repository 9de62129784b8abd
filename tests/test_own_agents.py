"""Python functions as agents: what they are called, what is kept of them, what they cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

import moa_nb as moa
from moa_nb import settings
from moa_nb.chat import Completion, Message, Request, Usage
from moa_nb.engine import current
from moa_nb.engine.plan import Options
from moa_nb.engine.recipe import Recipe
from moa_nb.engine.replay import replay
from moa_nb.errors import BudgetExceeded, RowError, SetupError, UnknownName
from moa_nb.frames.figures import view_of_run
from moa_nb.frames.run import RowsFailed
from moa_nb.gateway import Budget, Gateway
from moa_nb.panels.frame_report.text import plain
from moa_nb.pipeline.candidate import Task
from moa_nb.providers import functions
from moa_nb.settings import Settings
from moa_nb.store import Store
from moa_nb.testing import ChatServer

ROWS = pd.DataFrame({"text": [f"Question {number}" for number in range(20)]})


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(functions, "_registered", {})


def writer(style: str) -> Callable[[str], str]:
    """Return a function that is made alike for every style, and registered under its own."""

    def write(prompt: str) -> str:
        return f"I am {style}"

    moa.agent(style, version="1")(write)
    return write


def joined(prompt: str, references: tuple[str, ...]) -> str:
    """Return all answers."""
    return " | ".join(references)


def alone(function: Callable[..., Any]) -> moa.Pipeline:
    """Return the pipeline of one function."""
    return moa.Pipeline(layers=[[function]])


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [lambda: "x", lambda prompt, history: "x", lambda **said: "x"])
def test_a_function_that_cannot_be_called_ends_the_run(function: Callable[..., Any]) -> None:
    """No other row would fare better; what is wrong within a function is a row's affair."""
    with pytest.raises(
        SetupError, match=r"cannot be called as an agent: .*; it gets the prompt, and by name"
    ) as raised:
        ROWS.moa.synthesize("text", pipeline=alone(function))
    assert "\n" not in str(raised.value)
    with pytest.raises(RowError, match="raised TypeError: two lines"):
        moa.run("Hello", pipeline=alone(torn))


def torn(prompt: str) -> str:
    """Raise in two lines."""
    raise TypeError("two\nlines")


def test_a_function_is_registered_under_a_name() -> None:
    """Without the brackets the decorator says how it is written; an unknown name is told how to register it."""
    with pytest.raises(SetupError, match=r"write it as @moa\.agent\('joined'\)"):
        moa.agent(joined)  # type: ignore[arg-type]  # the mistake
    writer("wry")
    with pytest.raises(
        UnknownName, match=r"no function 'zzz'; there are: wry\. Register one with @moa\.agent\('zzz'\)"
    ):
        functions.find("zzz")


# Names --------------------------------------------------------------------------------------------


def test_functions_that_are_made_alike_keep_their_answers_apart() -> None:
    """One ``__name__`` and one version, two names: two answers, today and from the store."""
    pipeline = moa.Pipeline(layers=[[writer("warm"), writer("brief")], [joined]])
    for _ in range(2):
        result = moa.run("Hello", pipeline=pipeline)
        assert result.text == "I am warm | I am brief"
        assert [call.model for call in result.layers[0].calls] == ["function:warm", "function:brief"]
        assert [call.agent for call in result.layers[0].calls] == ["warm", "brief"]
    assert [call.cached for call in result.layers[0].calls] == [True, True]


def test_a_function_is_known_by_its_registration_whatever_it_fills() -> None:
    """As a proposer, as an aggregator, in a pipeline and by its name it is one agent with one answer."""
    warm = writer("warm")
    ways: list[dict[str, Any]] = [
        {"pipeline": alone(warm)},
        {"pipeline": moa.Pipeline(layers=[["function:warm"]])},
        {"pipeline": moa.Pipeline(layers=[["$proposers"], [joined]]), "models": [warm]},
        {"pipeline": "single", "aggregator": warm},
    ]
    calls = [moa.run("Hello", **way).calls[0] for way in ways]
    assert {call.model for call in calls} == {"function:warm"}
    assert [call.cached for call in calls] == [False, True, True, True]


def test_a_request_that_names_a_function_otherwise_is_kept_under_its_registration() -> None:
    """The gateway digests the registered name and the version, not what the model happens to be called."""
    functions_made = [writer("warm"), writer("brief")]

    async def ask() -> list[str]:
        gateway = Gateway(Settings(), Store(None))
        asked = [Request("function:write", (Message("user", "Hello"),), function=one) for one in functions_made]
        texts = [(await gateway.complete(one)).text for one in asked]
        await gateway.close()
        gateway.store.close()
        return texts

    assert asyncio.run(ask()) == ["I am warm", "I am brief"]


def test_a_kept_run_of_functions_that_are_made_alike_is_made_again() -> None:
    """From its recipe, which names them as they are registered."""
    engine = current()
    pipeline = moa.Pipeline(layers=[[writer("warm"), writer("brief")], ["function:joined"]])
    moa.agent("joined", version="1")(joined)
    plan = engine.finish(engine.plan(Options(pipeline=pipeline)))
    task = Task((Message("user", "Hello"),))
    expected = engine.finish(engine.answer(plan, task, engine.new_record(plan, task)))
    recipe = Recipe.of(plan)
    assert recipe.functions == {"warm": "1", "brief": "1", "joined": "1"}
    again = recipe.plan(settings.current(), engine.store(settings.current()))
    found = engine.finish(replay(again, task, again.gateway))
    assert (found.text, found.error) == (expected.text, None)
    assert [call.agent for call in found.calls] == [call.agent for call in expected.calls]


def test_the_keys_of_functions_are_those_of_earlier_runs() -> None:
    """Where a function's own name is its registered one, its answers are found under the digest they always had."""
    moa.agent("shout", version="1")(str.upper)
    route = Gateway(Settings(), Store(None)).route("function:shout")
    request = Request("function:shout", (Message("user", "Hello"),))
    assert route.key(request, b"body") == bytes.fromhex("3a45e01195c07d74340eb2cdb20e9843")


# Costs --------------------------------------------------------------------------------------------


class Metered:
    """A function that says what it costs, and counts its calls."""

    def __init__(self, cost: float | None = 0.01, usage: Usage | None = None) -> None:
        self.__name__ = "metered"
        self.cost, self.usage, self.n_calls, self.lock = cost, usage or Usage(), 0, threading.Lock()

    def __call__(self, prompt: str) -> Completion:
        """Return the prompt, louder."""
        with self.lock:
            self.n_calls += 1
        return Completion(prompt.upper(), "metered", "stop", self.usage, cost=self.cost)


def spent(run: Any) -> float:
    """Return the dollars of all rows."""
    return float(run.report["cost"].sum())


def test_a_declared_cost_keeps_the_budget() -> None:
    """The most of a call is set aside before it, for rows side by side too; five of a cent each fit into five cents."""
    metered = Metered()
    moa.agent("metered", cost=0.01)(metered)
    with pytest.warns(RowsFailed, match="could cost \\$0.0100, and of the budget of \\$0.0500 only \\$0 is left"):
        run = ROWS.moa.start.synthesize("text", pipeline=alone(metered), budget=0.05).wait()
    assert (metered.n_calls, run.partial.notna().sum()) == (5, 5)
    assert spent(run) == pytest.approx(0.05)


def test_what_was_not_taken_comes_back() -> None:
    """A call that reports less than it may take leaves the rest to others; a text counts as declared."""
    cheap, told = Metered(0.002), []
    moa.agent("cheap", cost=0.01)(cheap)
    with pytest.warns(RowsFailed):
        ROWS.moa.synthesize("text", pipeline=alone(cheap), budget=0.03, progress=False)
    assert cheap.n_calls == 11  # after the eleventh less than a cent is left

    @moa.agent("told", cost=0.01)
    def says(prompt: str) -> str:
        told.append(prompt)
        return prompt

    assert moa.run("Hello", pipeline=alone(says)).cost == 0.01
    with pytest.warns(RowsFailed):
        ROWS.moa.synthesize("text", pipeline=alone(says), budget=0.03, progress=False)
    assert len(told) == 4


@pytest.mark.parametrize("cost", [0.01, 0.0, None])
def test_a_cost_that_was_not_declared_ends_a_run_in_dollars(cost: float | None) -> None:
    """After one call, though rows and samples wait side by side; the next run refuses before it, in the same line."""
    metered = Metered(cost)
    five = moa.Pipeline(layers=[[moa.Agent(function=metered, model="function:metered", samples=5)], [joined]])
    says = r"function 'metered' says only afterwards what a call took.*@moa.agent\('metered', cost=0.01\)"
    with pytest.raises(SetupError, match=says) as raised:
        ROWS.moa.synthesize("text", pipeline=five, budget=0.05, progress=False)
    assert "\n" not in str(raised.value)
    assert metered.n_calls == 1
    assert view_of_run(moa.last()._execution).cost_is_at_least
    with pytest.raises(SetupError, match=says):
        moa.run("Hello", pipeline=five, budget=0.05)
    assert metered.n_calls == 1
    assert moa.run("Hello", pipeline=alone(metered)).cost == cost
    assert moa.estimate("Again", pipeline=alone(metered)).n_unpriced == 1
    moa.agent("metered", cost=0.01)(metered)
    assert moa.run("Hello", pipeline=alone(metered), budget=0.05).cost == (0.01 if cost is None else cost)


def test_more_than_was_declared_ends_the_run() -> None:
    """What it took is counted as what nobody could foresee, and the line says what to mend."""
    moa.agent("dear", cost=0.01)(Metered(0.02))
    with pytest.raises(SetupError, match=r"'dear' took \$0.0200 for one call, and \$0.0100 was set aside: raise cost="):
        moa.run("Hello", pipeline=moa.Pipeline(layers=[["function:dear"]]), budget=0.05)


@pytest.mark.parametrize("cost", [-0.01, float("nan"), float("inf"), "0.01"])
def test_a_cost_is_a_number_of_dollars(cost: Any) -> None:
    """What is none is refused where it is declared."""
    with pytest.raises(SetupError, match=r"cost is the most dollars of a call, such as 0\.01"):
        moa.agent("odd", cost=cost)


def test_texts_cost_nothing_and_wait_for_nobody() -> None:
    """Under a budget in dollars, plain functions are called side by side as ever."""
    meeting = threading.Barrier(4, timeout=30)
    first = threading.Event()

    def meet(prompt: str) -> str:
        if first.is_set():
            meeting.wait()
        first.set()
        return prompt

    rows = ROWS.head(5)
    assert rows.moa.synthesize("text", pipeline=alone(meet), budget=0.05, progress=False).notna().all()


def test_what_failed_stays_set_aside(server: ChatServer) -> None:
    """A call that raised may have been billed: it counts as declared, and is shown as at least."""

    @moa.agent("falls", cost=0.01)
    def falls(prompt: str) -> str:
        raise ValueError(prompt)

    async def ask() -> tuple[Budget, int]:
        gateway, budget = Gateway(Settings(), Store(None)), Budget(0.015)
        request = Request("function:falls", (Message("user", "Hello"),))
        with pytest.raises(RowError) as raised:
            await gateway.complete(request, budget=budget)
        with pytest.raises(BudgetExceeded):
            await gateway.complete(request, budget=budget)
        gateway.store.close()
        return budget, raised.value.unreported

    budget, n_unreported = asyncio.run(ask())
    assert (budget.spent, budget.unreported, n_unreported) == (0.01, 0.01, 1)


def test_a_price_a_token_holds_too() -> None:
    """As set for the function's model: prompt and ``max_tokens`` are set aside, the reported usage is paid."""
    moa.configure(models={"function:priced": {"prompt_price": 1000.0, "completion_price": 1000.0}})
    priced = Metered(None, Usage(10, 20))
    moa.agent("priced")(priced)
    assert moa.run("Hello", pipeline=moa.Pipeline(layers=[["function:priced"]]), max_tokens=100).cost == 0.03
    with pytest.raises(BudgetExceeded):
        moa.run("Hi", pipeline=moa.Pipeline(layers=[["function:priced"]]), max_tokens=100, budget=0.1)
    assert priced.n_calls == 1


# Calls and tokens ---------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [str.upper, Metered()], ids=["a text", "a completion"])
def test_a_budget_counts_the_calls_of_functions(function: Callable[..., Any]) -> None:
    """As many rows as it says are answered, side by side."""
    with pytest.warns(RowsFailed):
        answers = ROWS.moa.synthesize("text", pipeline=alone(function), budget="6 calls", progress=False)
    assert answers.notna().sum() == 6


def test_a_budget_counts_the_tokens_that_functions_report() -> None:
    """Prompt and ``max_tokens`` are set aside before a call; what is reported never passes the limit."""
    metered = Metered(None, Usage(10, 20))
    with pytest.warns(RowsFailed):
        run = ROWS.moa.start.synthesize("text", pipeline=alone(metered), max_tokens=50, budget="300 tokens").wait()
    assert 90 < 30 * metered.n_calls <= 300
    assert run.partial.notna().sum() == metered.n_calls


def test_more_tokens_than_were_set_aside_end_the_run() -> None:
    """One call takes them before anybody knows, and the line says what to raise."""
    metered = Metered(None, Usage(1000, 2000))
    with pytest.raises(SetupError, match=r"took 3,000 tokens for one call, and .* was set aside: raise max_tokens"):
        ROWS.moa.synthesize("text", pipeline=alone(metered), max_tokens=50, budget="9000 tokens", progress=False)
    assert metered.n_calls == 1


# What is said of them -----------------------------------------------------------------------------


def test_a_text_takes_no_tokens() -> None:
    """In the result, in the report, which speaks of no service, and in the estimate."""
    estimate = ROWS.moa.estimate.synthesize("text", pipeline=alone(str.upper))
    assert (estimate.n_calls, estimate.prompt_tokens, estimate.completion_tokens, estimate.cost) == (20, 0, 0, 0.0)
    run = ROWS.moa.start.synthesize("text", pipeline=alone(str.upper)).wait()
    assert run.report["prompt_tokens"].eq(0).all()
    assert "did not report tokens" not in plain(view_of_run(run._execution))


def test_what_quotes_a_function_is_priced_with_its_answer(server: ChatServer, lab: Callable[..., None]) -> None:
    """Its answer has no price of its own, but the aggregator reads it."""
    layered = moa.Pipeline(layers=[[str.upper], ["lab:z"]])
    short, long = (moa.estimate("Hello", pipeline=layered, max_tokens=most).prompt_tokens for most in (50, 1000))
    assert long > short + 900


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No gateway remembers what another test's functions cost."""
    yield
    settings.reset()


def test_a_function_is_looked_up_while_others_are_registered() -> None:
    """A cell may register one while a run in the background looks for its own."""

    class Registering(functions.Function):
        def __getattribute__(self, name: str) -> Any:
            if name == "call" and len(functions.registered()) < 9:
                moa.agent(f"one more {len(functions.registered())}")(lambda prompt: prompt)
            return super().__getattribute__(name)

    functions._registered["first"] = Registering("first", print)
    assert functions.registration(len) is None
