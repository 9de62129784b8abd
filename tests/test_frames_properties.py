"""Whatever the verb, the index, the missing values and the faults: the result is the frame's, row for row."""

# ruff: noqa: PD011 - a run's ``values`` are its own

from __future__ import annotations

import asyncio
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.errors import KeyRejected, RowError
from moa_nb.frames.run import FrameRun, RowsFailed
from moa_nb.testing import ChatServer, Reply

# Any fault ----------------------------------------------------------------------------------------


class Faults:
    """A model that does what a row's text says: ``kind/id`` is echoed after the fault of that kind."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds
        self._met: set[str] = set()

    def __call__(self, body: dict[str, Any]) -> Reply:
        """Return the fault of the text, if this model has it; the passing ones only once a text."""
        text = str(body["messages"][-1]["content"])
        kind = text.partition("/")[0]
        if kind in self._kinds:
            if kind == "refused":
                return Reply.bad_request("No")
            if kind == "empty":
                return Reply("")
            if text not in self._met:
                self._met.add(text)
                return Reply.rate_limited(retry_after=0.001) if kind == "busy" else Reply.dropped()
        return Reply(text)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    """A server whose judge refuses, and whose proposer alpha fails in passing."""
    with ChatServer() as server:
        yield server


LABELS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(["a", "b", "", "é"]),
    st.none(),
    st.floats(allow_nan=True, width=16),
    st.tuples(st.integers(0, 1), st.sampled_from("xy")),
)

ROWS = st.lists(
    st.tuples(
        LABELS,
        st.sampled_from(["fine", "fine", "refused", "empty", "busy", "reset", "missing", "blank"]),
        st.integers(0, 6),
    ),
    max_size=24,
)


def text_of(kind: str, number: int) -> str | None:
    """A row's text."""
    return {"missing": None, "blank": " \n"}.get(kind, f"{kind}/{number}")


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, concurrency=st.integers(1, 5), as_series=st.booleans())
def test_every_row_has_its_own_answer(server: ChatServer, rows: list[Any], concurrency: int, as_series: bool) -> None:
    """The result has the frame's index in order; each row its own answer, or none for a reason of its own."""
    server.on("alpha", Faults("busy", "reset", "refused"))
    server.on("beta", Faults("busy", "empty"))
    server.on("judge", Faults("refused", "empty", "busy"))
    moa.configure(
        providers={"lab": {"base_url": server.base_url, "concurrency": concurrency}},
        proposers=["lab:alpha", "lab:beta"],
        aggregator="lab:judge",
    )
    labels = pd.Index([label for label, _, _ in rows], dtype=object, tupleize_cols=False)
    frame = pd.DataFrame({"q": [text_of(kind, number) for _, kind, number in rows]}, index=labels, dtype=object)
    before = frame.copy(deep=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RowsFailed)
        answers = frame["q"].moa.synthesize(progress=False) if as_series else frame.moa.synthesize("q", progress=False)
    wanted = [
        None if kind in {"refused", "empty", "missing", "blank"} else text
        for (_, kind, _), text in zip(rows, frame["q"], strict=True)
    ]
    assert [None if missing else answer for answer, missing in zip(answers, answers.isna(), strict=True)] == wanted
    pd.testing.assert_index_equal(answers.index, frame.index)
    pd.testing.assert_frame_equal(frame, before)
    run = moa.last()
    assert isinstance(run, FrameRun)
    is_failed = [kind in {"refused", "empty"} for _, kind, _ in rows]
    assert run.errors.notna().to_list() == is_failed
    assert sum(issubclass(warning.category, RowsFailed) for warning in caught) == any(is_failed)
    assert run.state == "done"
    assert run.progress.done == len(rows)


# Any verb -----------------------------------------------------------------------------------------

LABELS_OF_ROWS = ["even", "odd"]


@dataclass(frozen=True)
class Said:
    """A verb over the rows of a frame, what is said to it, and what a model answers for a row."""

    verb: str
    says: Mapping[str, Any]
    answer: Callable[[int, bool], Any]
    """Of a row's number, and whether the second of both columns comes first."""
    other: Callable[[Any], Any]
    """Something else than an answer."""
    column: tuple[str, ...] = ("q",)
    n_tasks: int = 1
    """Questions a row."""

    def __call__(self, frame: pd.DataFrame, how: str | None = None, **options: Any) -> Any:
        """Return what comes of it; with ``how`` of ``estimate`` and ``start``."""
        verbs = frame.moa if how is None else getattr(frame.moa, how)
        return getattr(verbs, self.verb)(*self.column, **self.says, **{"progress": False, **options})


@dataclass
class Lab:
    """A server whose alpha and judge answer a verb alike, and whose beta objects."""

    server: ChatServer
    said: Said
    faults: dict[str, Callable[[int], Reply | None]] = field(default_factory=dict)
    """By model: what it answers instead for a row's number; ``None``: nothing else."""
    beta_objects: bool = True
    delay: float = 0.0

    def __post_init__(self) -> None:
        for model in ("alpha", "beta", "judge"):
            self.server.on(model, self.answer)

    def answer(self, body: dict[str, Any]) -> Reply:
        """Return what the model of a request says about its row."""
        ((number, column), *_) = rows_of(body)
        fault = self.faults.get(body["model"], lambda _: None)(number)
        answer = self.said.answer(number, column == "r")
        if body["model"] == "beta" and self.beta_objects:
            answer = self.said.other(answer)
        return fault or Reply(answer if isinstance(answer, str) else json.dumps(answer), delay=self.delay)

    def use(self, *, concurrency: int = 8, **values: Any) -> None:
        """Configure the server as the lab of this test."""
        moa.configure(
            providers={"lab": {"base_url": self.server.base_url, "concurrency": concurrency}},
            **{"proposers": ["lab:alpha", "lab:beta"], "aggregator": "lab:judge", **values},
        )

    def counts(self) -> list[int]:
        """Return how often each model was asked."""
        return [self.server.count(model) for model in ("alpha", "beta", "judge")]


def rows_of(body: dict[str, Any]) -> list[tuple[int, str]]:
    """The rows' numbers and columns in the question of a request."""
    found = re.findall(r"<(\d+) ([qr])>", str(body["messages"][-1]["content"]))
    return [(int(number), column) for number, column in found]


SAID = {
    "synthesize": Said("synthesize", {}, lambda n, _: f"answer {n}", "not {}".format),
    "extract": Said(
        "extract", {"schema": {"count": int}}, lambda n, _: {"count": n}, lambda said: {"count": said["count"] + 100}
    ),
    "classify": Said(
        "classify",
        {"labels": LABELS_OF_ROWS},
        lambda n, _: {"label": LABELS_OF_ROWS[n % 2]},
        lambda said: {"label": "odd" if said["label"] == "even" else "even"},
    ),
    "score": Said(
        "score",
        {"criterion": "how long"},
        lambda n, _: {"score": n % 10 + 1},
        lambda said: {"score": 11 - said["score"]},
    ),
    "filter": Said(
        "filter", {"condition": "even"}, lambda n, _: {"holds": n % 2 == 0}, lambda said: {"holds": not said["holds"]}
    ),
    "prefer": Said(
        "prefer",
        {},
        lambda _, is_swapped: {"better": "B" if is_swapped else "A"},
        lambda said: {"better": "B" if said["better"] == "A" else "A"},
        column=("q", "r"),
        n_tasks=2,
    ),
    "summarize": Said("summarize", {"by": "id"}, lambda n, _: f"about {n}", "not {}".format),
}


@pytest.fixture(params=SAID.values(), ids=SAID)
def lab(server: ChatServer, request: pytest.FixtureRequest) -> Lab:
    """The lab for each verb."""
    server.clear()
    lab = Lab(server, request.param)
    lab.use()
    return lab


def frame_of(numbers: list[int | None]) -> pd.DataFrame:
    """A frame with a row of texts for each number, and names of rows to group them by."""
    texts = {column: [None if n is None else f"<{n} {column}>" for n in numbers] for column in "qr"}
    return pd.DataFrame({"id": [f"id {place:03}" for place in range(len(numbers))], **texts})


def wanted(said: Said, numbers: list[int | None]) -> list[Any]:
    """What must come of a frame, row by row."""
    if said.verb == "prefer":
        return [None if n is None else "q" for n in numbers]
    answers = [None if n is None else said.answer(n, False) for n in numbers]
    return [next(iter(answer.values())) if isinstance(answer, dict) else answer for answer in answers]


def cells(made: Any) -> list[Any]:
    """The only column's cells, ``None`` where they are missing."""
    column = made.iloc[:, 0] if isinstance(made, pd.DataFrame) else made
    return [None if is_missing else cell for cell, is_missing in zip(column, column.isna(), strict=True)]


def last() -> FrameRun:
    """The last run, which was a frame's."""
    run = moa.last()
    assert isinstance(run, FrameRun)
    return run


def test_equal_rows_are_asked_once(lab: Lab) -> None:
    """15 rows of 6 texts are 6 questions a model, of ``prefer`` in both orders."""
    numbers: list[int | None] = [place % 6 for place in range(15)]
    made = lab.said(frame_of(numbers))
    assert cells(made) == wanted(lab.said, numbers)
    assert lab.counts() == [6 * lab.said.n_tasks] * 3


def test_rows_without_text_are_no_calls(lab: Lab) -> None:
    """A missing row is missing in the result, no failure, and costs no call; neither does an empty frame."""
    assert cells(lab.said(frame_of([None] * 3))) == [None] * 3
    assert last().errors.isna().all()
    assert cells(lab.said(frame_of([]))) == []
    assert lab.counts() == [0] * 3
    assert cells(lab.said(frame_of([None, 4, None]))) == wanted(lab.said, [None, 4, None])
    assert lab.counts() == [lab.said.n_tasks] * 3


@pytest.mark.parametrize(("bad", "is_retried"), [(0, False), (19, True)])
def test_one_refused_row_costs_no_other(lab: Lab, bad: int, is_retried: bool) -> None:
    """A row that is refused is missing with its error, the other 19 have their answers; ``retry()``, or the same verb
    again, asks the failed calls alone.
    """
    for model in ("alpha", "beta"):
        lab.faults[model] = lambda number: Reply.bad_request("No") if number == bad else None
    numbers: list[int | None] = [*range(20)]
    with pytest.warns(RowsFailed, match="1 of 20 rows have no answer"):
        made = lab.said(frame_of(numbers))
    assert cells(made) == wanted(lab.said, [None if number == bad else number for number in numbers])
    assert last().errors.notna().to_list() == [number == bad for number in numbers]
    assert "400" in last().errors.iloc[bad]
    lab.faults.clear()
    lab.server.clear()
    again = last().retry().values if is_retried else lab.said(frame_of(numbers))
    assert cells(again) == wanted(lab.said, numbers)
    assert lab.counts() == [lab.said.n_tasks] * 3
    assert {number for record in lab.server.requests for number, _ in rows_of(record.body)} == {bad}


def test_a_refused_row_may_raise(lab: Lab) -> None:
    """``on_error="raise"`` raises the row's error, and keeps what was finished before it."""
    lab.use(concurrency=1)
    for model in ("alpha", "beta"):
        lab.faults[model] = lambda number: Reply.bad_request("No") if number == 9 else None
    with pytest.raises(RowError, match="400"):
        lab.said(frame_of([*range(20)]), on_error="raise")
    done = [place for place, cell in enumerate(cells(last().partial)) if cell is not None]
    assert len(done) >= 3
    assert 9 not in done


def test_a_verb_works_where_a_loop_runs(lab: Lab) -> None:
    """In a coroutine, as in a notebook's cell, a verb returns its values, and one in the background can be awaited."""

    async def main() -> list[Any]:
        return [cells(lab.said(frame_of([3, 4]))), cells(await lab.said(frame_of([5]), "start"))]

    assert asyncio.run(main()) == [wanted(lab.said, [3, 4]), wanted(lab.said, [5])]


def test_a_refused_key_stops_before_a_second_row(lab: Lab) -> None:
    """A wrong key raises, and nothing of a second row was sent."""
    lab.faults["alpha"] = lambda _: Reply.refused_key()
    with pytest.raises(KeyRejected):
        lab.said(frame_of([*range(20)]))
    assert {number for record in lab.server.requests for number, _ in rows_of(record.body)} == {0}
    assert last().state == "failed"
    assert cells(last().partial) == [None] * 20


def test_a_proposer_that_is_down_lowers_the_agreement_and_loses_no_row(lab: Lab) -> None:
    """Where one of two refuses, every row has its answer, is degraded, and is agreed on less than where both answer."""
    lab.beta_objects = False
    numbers: list[int | None] = [*range(5)]
    assert cells(lab.said(frame_of(numbers))) == wanted(lab.said, numbers)
    whole = last().agreement
    lab.faults["beta"] = lambda _: Reply.bad_request("beta is ill")
    assert cells(lab.said(frame_of(numbers), cache="off")) == wanted(lab.said, numbers)
    assert last().report["degraded"].all()
    assert (last().agreement.to_numpy() < whole.to_numpy()).all()
    assert last().errors.isna().all()


def test_a_budget_that_runs_out_keeps_what_is_finished(lab: Lab) -> None:
    """Rows beyond the budget are missing and say so, it is not passed, and with more nothing is paid for twice."""
    price = {"prompt_price": 1000.0, "completion_price": 1000.0}
    lab.use(concurrency=2, models={f"lab:{model}": price for model in ("alpha", "beta", "judge")}, max_tokens=50)
    numbers: list[int | None] = [*range(20)]
    frame = frame_of(numbers)
    budget = lab.said(frame, "estimate", budget=float("inf")).cost / 4
    with pytest.warns(RowsFailed, match="budget"):
        made = lab.said(frame, budget=budget)
    run = last()
    is_done = [cell is not None for cell in cells(made)]
    assert 0 < sum(is_done) < 20
    assert cells(made) == wanted(lab.said, [n if done else None for n, done in zip(numbers, is_done, strict=True)])
    assert run.progress.cost is not None
    assert run.progress.cost <= budget
    assert run.errors.isna().to_list() == is_done
    assert (run.report["error_kind"].dropna() == "budget").all()
    assert run.state == "stopped"
    assert cells(lab.said(frame, budget=float("inf"))) == wanted(lab.said, numbers)
    assert lab.counts() == [20 * lab.said.n_tasks] * 3


def test_a_stopped_run_keeps_what_is_finished(lab: Lab) -> None:
    """After stop() the finished rows have their answers, the others are missing; again goes on from there."""
    lab.use(concurrency=2)
    lab.delay = 0.01
    lab.faults["judge"] = lambda number: Reply.hanging() if number >= 20 else None
    numbers: list[int | None] = [*range(30)]
    run = lab.said(frame_of(numbers), "start")
    assert lab.server.wait_until(lambda: run.progress.done >= 3)
    run.stop()
    lab.faults.clear()
    is_done = [cell is not None for cell in cells(run.wait().partial)]
    assert run.state == "stopped"
    assert 3 <= sum(is_done) < 30
    assert cells(run.partial) == wanted(
        lab.said, [n if done else None for n, done in zip(numbers, is_done, strict=True)]
    )
    lab.server.wait_until(lambda: lab.server.in_flight == 0)
    lab.server.clear()
    assert cells(lab.said(frame_of(numbers))) == wanted(lab.said, numbers)
    # Requests that were on their way when the run was stopped may arrive late, with nobody to answer.
    answered = [record for record in lab.server.requests if record.closed_at is None]
    assert not {number for record in answered for number, _ in rows_of(record.body) if is_done[number]}
