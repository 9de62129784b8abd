"""What a run keeps of its rows: texts and numbers in columns, which questions are the same, how far the budget is."""

# ruff: noqa: PD011 - a task's ``values`` are its own

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.errors import SetupError, SpendingNotAgreed, UnknownName
from moa_nb.frames import texts as module
from moa_nb.frames.execution import _tail
from moa_nb.frames.outcome import Outcome, Outcomes
from moa_nb.frames.progress import Progress, Spent
from moa_nb.frames.rows import Rows
from moa_nb.frames.run import FrameRun
from moa_nb.frames.texts import TEXT, Texts
from moa_nb.pipeline import strategies
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.spec import Agent, Params, Pipeline
from moa_nb.pipeline.strategies import strategy
from moa_nb.testing import ChatServer, Reply


@pytest.fixture
def lab(server: ChatServer) -> ChatServer:
    """The server as the configured lab, whose models say what they were asked last."""
    server.on("*", lambda body: Reply(str(body["messages"][-1]["content"])))
    moa.configure(
        providers={"lab": {"base_url": server.base_url}},
        proposers=["lab:alpha", "lab:beta"],
        aggregator="lab:judge",
    )
    return server


def last() -> FrameRun:
    """The last run, which was a frame's."""
    run = moa.last()
    assert isinstance(run, FrameRun)
    return run


# Columns of texts and numbers ---------------------------------------------------------------------

STORAGES = ["python", *(["pyarrow"] if find_spec("pyarrow") else [])]

ANSWERS = st.one_of(st.none(), st.text(max_size=9), st.sampled_from(["", "é", "语" * 40, "\ud800", "a\0b"]))


def as_kept(text: str | None) -> str | None:
    """A text with what no file holds replaced: halves of surrogate pairs."""
    return None if text is None else text.encode("utf-8", "replace").decode()


@hypothesis_settings(max_examples=150, deadline=None)
@given(data=st.data(), answers=st.lists(ANSWERS, max_size=13), storage=st.sampled_from(STORAGES))
def test_texts_are_what_was_set_in_whatever_order(data: Any, answers: list[str | None], storage: str) -> None:
    """At every moment the Series has what was set so far, whether stretches are sealed or not."""
    order = data.draw(st.permutations(range(len(answers))))
    with pytest.MonkeyPatch.context() as patch, pd.option_context("mode.string_storage", storage):
        patch.setattr(module, "_STRETCH", 4)
        texts = Texts(len(answers))
        index = pd.RangeIndex(len(answers))
        known: list[str | None] = [None] * len(answers)
        for position in order:
            texts[position] = answers[position]
            known[position] = answers[position]
            series = texts.series(index, "q")
            said = [None if is_missing else text for text, is_missing in zip(series, series.isna(), strict=True)]
            assert list(map(as_kept, said)) == list(map(as_kept, known))
            assert list(map(as_kept, (texts[place] for place in index))) == list(map(as_kept, known))
            assert (series.dtype, series.name) == (pd.api.types.pandas_dtype(TEXT), "q")


COUNTS = st.integers(0, 2**40)
OUTCOMES = st.builds(
    Outcome,
    text=st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=3)),
    state=st.sampled_from(["done", "failed", "skipped", "stopped", "not asked"]),
    n_calls=st.integers(0, 99),
    prompt_tokens=st.none() | COUNTS,
    completion_tokens=st.none() | COUNTS,
    cost=st.none() | st.floats(0, 1e6),
    seconds=st.floats(0, 1e6),
    n_cached=st.integers(0, 99),
    degraded=st.booleans(),
    unreported=st.integers(0, 9),
    agreement=st.none() | st.floats(0, 1),
    error_kind=st.just("row"),
    error=st.sampled_from(["too long", "refused"]),
)


@given(rows=st.lists(OUTCOMES, max_size=9))
def test_an_outcome_is_kept_as_it_was(rows: list[Outcome]) -> None:
    """What is settled comes back as it was; who is open, and the sums, follow from it."""
    outcomes = Outcomes(len(rows) + 1)
    for position, outcome in reversed([*enumerate(rows)]):
        assert outcomes[position] is None
        outcomes.settle(position, outcome)
    assert [outcomes[position] for position in range(len(rows))] == rows
    assert [*outcomes.open] == [len(rows)]
    progress = outcomes.progress(1.0, None)
    assert progress.done == sum(outcome.is_over for outcome in rows)
    assert progress.calls == sum(outcome.n_calls for outcome in rows)
    assert progress.unreported == sum(outcome.unreported for outcome in rows)
    assert (progress.cost is None) == any(row.cost is None for row in rows if row.state != "not asked")


def test_equal_rows_far_apart_have_the_answer_of_the_first(lab: ChatServer) -> None:
    """An answer is found again for a later row when its stretch was sealed long ago, and nothing is asked twice."""
    n = module._STRETCH
    frame = pd.DataFrame({"q": [f"q{number % n}" for number in range(2 * n + 7)]})
    answers = frame.moa.synthesize("q", pipeline="single", aggregator="lab:alpha", progress=False)
    assert answers.to_list() == frame["q"].to_list()
    assert lab.count() == n
    assert last().report["state"].value_counts().to_dict() == {"done": n, "duplicate": n + 7}
    assert last().retry().wait().partial.equals(answers)


# A row's other columns ----------------------------------------------------------------------------


class Peek(Params):
    """One agent, which is shown a column."""

    agent: Agent = Agent(model="lab:alpha")


@pytest.fixture
def peek(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], str | None]]:
    """What a strategy of the user's own saw beside each question."""
    seen: list[tuple[dict[str, Any], str | None]] = []
    monkeypatch.setattr(strategies, "_registry", dict(strategies._registry))

    @strategy("peek", params=Peek)
    async def look(task: Task, params: Peek, ask: Ask) -> Candidate:
        seen.append((dict(task.values), task.reference_answer))
        return await ask.one("look", params.agent)

    return seen


def peeking() -> Pipeline:
    """A pipeline that looks at columns."""
    return Pipeline(name="peek", strategy="peek")


def test_strategies_see_a_rows_columns_and_its_reference_answer(lab: ChatServer, peek: list[Any]) -> None:
    """Columns come by name as Python values, a missing cell as None; so does the right answer."""
    frame = pd.DataFrame(
        {"q": ["a", "b", "c"], 7: [1, 2, 3], "mark": [0.5, None, 1.5], "gold": ["x", None, "z"]}, index=list("kkl")
    )
    frame.moa.synthesize("q", reference="gold", pipeline=peeking(), budget=float("inf"), progress=False)
    by_question = sorted(peek, key=lambda one: str(one[0]["q"]))
    assert by_question == [
        ({"q": "a", "7": 1, "mark": 0.5, "gold": "x"}, "x"),
        ({"q": "b", "7": 2, "mark": None, "gold": None}, None),
        ({"q": "c", "7": 3, "mark": 1.5, "gold": "z"}, "z"),
    ]


def test_rows_are_the_same_question_unless_somebody_looks_at_what_tells_them_apart(
    lab: ChatServer, peek: list[Any]
) -> None:
    """Other columns count only where the pipeline may look at them, the right answer always."""
    frame = pd.DataFrame({"q": ["a"] * 4, "n": [1, 2, 2, 2], "gold": ["x", "x", "x", "y"]})
    once = {"budget": float("inf"), "progress": False}
    frame.moa.synthesize("q", pipeline="single", aggregator="lab:alpha", **once)
    assert last().report["state"].to_list() == ["done", "duplicate", "duplicate", "duplicate"]
    frame.moa.synthesize("q", pipeline="single", aggregator="lab:alpha", reference="gold", **once)
    assert last().report["state"].to_list() == ["done", "duplicate", "duplicate", "done"]
    frame.moa.synthesize("q", pipeline=peeking(), **once)
    assert last().report["state"].to_list() == ["done", "done", "duplicate", "done"]
    assert lab.count() == 1, "equal calls are paid once in any case"


def test_columns_that_share_a_name_trouble_only_who_asks_for_them(lab: ChatServer) -> None:
    """A frame with two columns of one name works as long as nobody needs either."""
    frame = pd.DataFrame([["a", 1, 2]], columns=["q", "n", "n"])
    rows = Rows.of(frame, "q", template=None, na="skip")
    task = rows.task(0)
    assert task is not None
    assert dict(task.values) == {"q": "a"}
    assert "n" in task.values
    with pytest.raises(SetupError, match="2 columns named 'n'"):
        task.values["n"]
    with pytest.raises(KeyError):
        task.values["absent"]


def test_reference_answers_stand_in_a_column(lab: ChatServer) -> None:
    """A wrong name is found before anything is sent, and a Series has no columns."""
    frame = pd.DataFrame({"q": ["a"], "gold": ["x"]})
    with pytest.raises(UnknownName, match="did you mean 'gold'"):
        frame.moa.synthesize("q", reference="golf")
    with pytest.raises(SetupError, match="a Series has no column with reference answers"):
        frame["q"].moa.synthesize(reference="gold")
    with pytest.raises(TypeError, match="did you mean 'reference'"):
        frame.moa.synthesize("q", referense="gold")
    assert lab.count() == 0


# Budgets ------------------------------------------------------------------------------------------


def test_unpriced_models_are_agreed_to_by_calls(lab: ChatServer) -> None:
    """Where no price is known the error names a budget in calls, which then suffices and shows how far it is used."""
    moa.configure(ask_above_calls=20)
    frame = pd.DataFrame({"q": [f"q{number}" for number in range(7)]})
    with pytest.raises(SpendingNotAgreed, match='budget="23 calls" to agree'):
        frame.moa.synthesize("q", progress=False)
    assert lab.count() == 0
    assert frame.moa.synthesize("q", budget="23 calls", progress=False).notna().all()
    budget = last().progress.budget
    assert budget is not None
    assert (budget.limit, budget.unit, budget.amount, budget.unreported) == (23, "calls", 21, 0)
    assert "91 % of a budget of 23 calls" in repr(last())


def test_runs_that_are_clearly_fine_begin_at_once(lab: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even the longest row times all rows may be spent unasked, no sample is priced and no tokenizer counts."""
    from moa_nb.engine import forecast

    monkeypatch.setattr(forecast.tokens, "count_tokens", lambda *_: pytest.fail("counted"))
    monkeypatch.setattr("moa_nb.frames.spending.price", lambda *_: pytest.fail("priced"))
    moa.configure(models={f"lab:{name}": {"prompt_price": 1, "completion_price": 1} for name in ("alpha", "judge")})
    frame = pd.DataFrame({"q": [f"q{number}" for number in range(30)]})
    answers = frame.moa.synthesize("q", models=["lab:alpha"], max_tokens=100, progress=False)
    assert answers.notna().all()


def test_a_cut_off_attempt_makes_the_cost_at_least(lab: ChatServer) -> None:
    """A run that is stopped in the middle of its calls says that it may have cost more, and how much was reserved."""
    moa.configure(models={"lab:alpha": {"prompt_price": 1000.0, "completion_price": 1000.0}})
    lab.on("alpha", lambda body: Reply("x", delay=30))
    frame = pd.DataFrame({"q": ["a", "b"]})
    run = frame.moa.start.synthesize("q", pipeline="single", aggregator="lab:alpha", max_tokens=10, budget=100)
    assert lab.wait_until(lambda: lab.count("alpha") >= 1)
    run.stop()
    progress = run.wait().progress
    assert progress.unreported >= 1
    assert "at least $0" in progress.figures
    assert progress.budget is not None
    assert 0 < progress.budget.unreported == progress.budget.amount
    assert "as reserved, never reported" in progress.figures


@pytest.mark.parametrize(
    ("progress", "figures"),
    [
        (Progress(2, 2, 0, 0, 0, 4, 1.5, 1.0), "$1.50"),
        (Progress(2, 2, 0, 0, 0, 4, 1.5, 1.0, unreported=1), "at least $1.50"),
        (Progress(2, 2, 0, 0, 0, 4, None, 1.0, unreported=1), "unknown cost"),
        (
            Progress(4, 2, 1, 0, 3, 4, 0.5, 1.0, 0, Spent(2.0, "dollars", 0.5, 0.0)),
            "1 failed, 3 of 4 calls cached, $0.5000, $1.00 in the end, 25 % of a budget of $2.00",
        ),
        (
            Progress(2, 0, 0, 0, 0, 0, 0.0, 1.0, 0, Spent(0, "tokens", 0, 0.0)),
            "$0, 100 % of a budget of 0 tokens",
        ),
    ],
)
def test_figures_say_what_is_known(progress: Progress, figures: str) -> None:
    """Dollars are 'at least' where an attempt was never reported; a budget is shown in its unit."""
    assert progress.figures == figures


@pytest.mark.parametrize(
    ("n_rows", "window", "first"), [(1000, 128, 872), (100, 128, 50), (1, 128, None), (0, 128, None), (9, 2, 7)]
)
def test_the_last_rows_go_layer_by_layer(n_rows: int, window: int, first: int | None) -> None:
    """At most a window of them and half of all, so that all places are taken until nearly the end."""
    assert _tail(list(range(n_rows)), window) == (sys.maxsize if first is None else first)
