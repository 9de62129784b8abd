"""Estimates of answers whose longest form is known, and what a budget and a person make of them."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import json
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pandas as pd
import pytest
from annotated_types import Len
from hypothesis import given
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.engine.forecast import Estimate, Figures
from moa_nb.engine.plan import Options, make_plan
from moa_nb.engine.roles import Cast
from moa_nb.errors import KeyRejected, SpendingNotAgreed
from moa_nb.gateway import Gateway
from moa_nb.pipeline.forms import form
from moa_nb.settings import Settings
from moa_nb.store import Store
from moa_nb.testing import ChatServer, Reply

Lab = Callable[..., None]

LABELS = ["praise", "bug", "billing"]
ROWS = pd.DataFrame({"text": [f"Ticket {number}: the box was broken." for number in range(8)]})
OF_FORM = "if no answer says more than its form"


class Colour(enum.Enum):
    """Two labels, one of them in letters of several bytes."""

    RED = "red"
    BLUE = "голубой"


KINDS: dict[Any, st.SearchStrategy[Any]] = {
    Literal["a", 'quo"ted', "naïve"]: st.sampled_from(["a", 'quo"ted', "naïve"]),
    Colour: st.sampled_from(["red", "голубой"]),
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    float | None: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    dt.date: st.dates().map(str),
    dt.datetime: st.datetimes(timezones=st.just(dt.UTC)).map(dt.datetime.isoformat),
    dt.time: st.times().map(str),
    uuid.UUID: st.uuids().map(str),
    set[Literal["x", "y"]]: st.lists(st.sampled_from("xy"), unique=True),
    Annotated[list[bool], Len(0, 3)]: st.lists(st.booleans(), max_size=3),
    tuple[bool, int]: st.tuples(st.booleans(), st.integers(-(2**63), 2**63 - 1)),
}


@given(data=st.data(), kinds=st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=4))
def test_no_filled_form_is_longer(data: st.DataObject, kinds: list[Any]) -> None:
    """Whatever its fields are filled with, the JSON has no more bytes than were foreseen."""
    wanted = form({f"field {place}": kind for place, kind in enumerate(kinds)})
    filled = {f"field {place}": data.draw(KINDS[kind]) for place, kind in enumerate(kinds)}
    written = json.dumps(filled, ensure_ascii=False, separators=(",", ":")).encode()
    assert wanted.longest is not None
    assert len(written) <= wanted.longest


@pytest.mark.parametrize(
    "kind",
    [str, Annotated[str, Len(0, 10)], str | int, list[bool], list[str], dict[str, int], Any, {"inner": str}],
    ids=str,
)
def test_free_text_has_no_longest_answer(kind: Any) -> None:
    """Nor has a list of any length, an object of any names, or what holds one of these."""
    assert form({"free": kind, "sure": bool}).longest is None


@pytest.mark.parametrize(
    ("ask", "most"),
    [
        (lambda verbs, **more: verbs.classify("text", LABELS, **more), 80),
        (lambda verbs, **more: verbs.classify("text", LABELS, multi=True, **more), 100),
        (lambda verbs, **more: verbs.score("text", "urgent", **more), 100),
        (lambda verbs, **more: verbs.filter("text", "is angry", **more), 80),
        (lambda verbs, **more: verbs.extract("text", {"price": float, "on": dt.date}, **more), 110),
        (lambda verbs, **more: verbs.extract("text", {"why": str}, **more), None),
    ],
    ids=["classify", "multi", "score", "filter", "extract", "free text"],
)
def test_a_short_form_is_a_low_price(lab: Lab, ask: Callable[..., Estimate], most: int | None) -> None:
    """An answer is priced as its longest form and a little around it; with free text, as ``max_tokens``."""
    estimate = ask(ROWS.moa.estimate, pipeline="single")
    each = estimate.completion_tokens / len(ROWS)
    assert estimate.by_form is (most is not None)
    assert (OF_FORM in str(estimate)) is estimate.by_form
    assert each == 2048 if most is None else each <= most
    asked = ask(ROWS.moa.estimate, pipeline="single", max_tokens=40)
    assert (asked.completion_tokens, asked.by_form) == (40 * len(ROWS), False)


@pytest.mark.parametrize(
    "model", ["o3-mini", "gpt-5", "deepseek-r1:8b", "Qwen3-32B", "gemini-2.5-flash", "alpha-thinking"]
)
def test_models_that_think_first_are_priced_in_full(server: ChatServer, model: str) -> None:
    """What they think is written too, and no form bounds it."""
    prices = {f"lab:{model}": {"prompt_price": 1.0, "completion_price": 1.0}}
    moa.configure(providers={"lab": {"base_url": server.base_url}}, aggregator=f"lab:{model}", models=prices)
    estimate = ROWS.moa.estimate.classify("text", LABELS, pipeline="single")
    assert (estimate.completion_tokens, estimate.by_form) == (2048 * len(ROWS), False)


def test_a_budget_still_sets_the_longest_answer_aside(server: ChatServer, lab: Lab) -> None:
    """A model that rambles in spite of the form is not cut, and cannot pass the budget."""
    rambling = "word " * 1500 + '{"label": "bug"}'
    server.on("z", Reply(rambling, usage={"prompt_tokens": 100, "completion_tokens": 1510, "total_tokens": 1610}))
    estimate = ROWS.moa.estimate.classify("text", LABELS, pipeline="single")
    with pytest.warns(match="not asked"):
        labels = ROWS.moa.classify("text", LABELS, pipeline="single", budget=0.008, progress=False)
    n_answered = server.count(status=200)
    assert estimate.cost is not None
    assert estimate.cost < n_answered * 1610e-6 <= 0.008
    assert labels.notna().sum() == n_answered
    assert {request.body["max_tokens"] for request in server.requests} == {2048}


def test_the_budget_to_agree_to_has_room_for_the_last_call(server: ChatServer, lab: Lab) -> None:
    """The one that the refusal names is enough for all rows, of which each sets ``max_tokens`` aside."""
    lab(ask_above=0.001)
    server.on("z", Reply('{"label": "bug"}'))
    with pytest.raises(SpendingNotAgreed, match=OF_FORM) as refused:
        ROWS.moa.classify("text", LABELS, pipeline="single", progress=False)
    budget = float(str(refused.value).rpartition("budget=")[2].split()[0])
    assert ROWS.moa.classify("text", LABELS, pipeline="single", budget=budget, progress=False).notna().all()


def test_an_estimate_is_one_line_of_text() -> None:
    """As text and as what a cell shows; what a pipeline's name hides is spelled out."""
    figures = Figures(n_calls=1, prompt_tokens=10, completion_tokens=20, priced=0.5)
    estimate = Estimate("evil\x1b[31m\u202e", figures, figures)
    assert repr(estimate) == str(estimate) == r"evil\u202e: 1 call, 10 tokens in, up to 20 out, at most $0.5000"
    assert not {"_repr_html_", "_repr_markdown_"} & {*dir(estimate)}


def test_a_plan_that_is_only_priced_needs_no_key() -> None:
    """Whoever wants to know a price may have no key yet; a run is refused before anything is sent."""
    cast = Cast({"aggregator": ("openai:gpt-4o-mini",)}, "")
    with contextlib.closing(Store(None)) as store:
        gateway, options = Gateway(Settings(), store), Options(pipeline="single")
        assert make_plan(options, Settings(), cast, gateway, keys=False).models == ("openai:gpt-4o-mini",)
        with pytest.raises(KeyRejected, match="OPENAI_API_KEY"):
            make_plan(options, Settings(), cast, gateway)
