"""A picture of a pipeline: who is asked, who sees what, how many calls; and it asks nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import moa_nb as moa
from moa_nb.engine import current
from moa_nb.errors import PipelineError, UnknownName
from moa_nb.notebook import listings
from moa_nb.pipeline import presets, strategies
from moa_nb.pipeline.explain import Step
from moa_nb.testing import ChatServer

Lab = Callable[..., None]


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    strategies.names()
    known = dict(strategies._registry)
    yield
    strategies._registry.clear()
    strategies._registry.update(known)


def step(pipeline: str | moa.Pipeline, name: str) -> Step:
    """One layer of a pipeline's picture."""
    return next(step for step in presets.load(pipeline).explain().steps if step.name == name)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_has_a_picture_that_counts_as_the_estimate_does(server: ChatServer, lab: Lab, name: str) -> None:
    """Calls at least and at most are those of ``moa.estimate``, and nobody is asked."""
    picture, estimate = presets.load(name).explain(), moa.estimate("Why did the mill close?", pipeline=name)
    assert picture.n_calls == (estimate.low.n_calls, estimate.high.n_calls)
    assert not picture.at_least
    assert all(step.sees for step in picture.steps)
    assert server.requests == []


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_has_a_picture_with_nothing_configured(name: str) -> None:
    """No key, no server, no settings."""
    assert presets.load(name).explain().steps


def test_layers_see_all_answers_of_the_one_before(lab: Lab) -> None:
    """Mixture-of-Agents as text."""
    lines = str(presets.load("moa").explain()).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "moa (layers): 7 calls for one text",
        "layer 1 a, b, c 3 sees the conversation",
        "layer 2 a, b, c 3 sees the conversation; all 3 from layer 1",
        "layer 3 z 1 sees the conversation; all 3 from layer 2",
    ]


def test_who_sees_whose_answer_comes_from_the_prompts_themselves(lab: Lab) -> None:
    """Critiques see their own answer and one other, windows what is in them, a router's way one of two."""
    assert step("attention-moa", "layer 1: critiques").sees[1] == "1 to 2 of 3 from layer 1: answers"
    assert step("attention-moa", "layer 1: revisions").sees[1:] == (
        "1 of 3 from layer 1: answers",
        "3 of 9 from layer 1: critiques",
    )
    assert step("self-moa-seq", "fold 2").sees[1:] == ("5 of 16 from samples", "the one from fold 1")
    assert step("self-consistency", "samples").asked == "z × 9"
    lab(small="lab:a", strong="lab:b")
    assert step("route", "answer").asked == "a or b"


def test_layers_that_may_not_come_say_so(lab: Lab) -> None:
    """A cascade's last tier is 0 to 1 call; the layers of all ways stand in their order."""
    picture = presets.load("cascade").explain()
    assert [(step.name, step.n_calls) for step in picture.steps] == [
        ("tier 1", (1, 1)),
        ("tier 1: score", (1, 1)),
        ("tier 2", (0, 1)),
    ]
    assert picture.calls == "2 to 3"
    rounds = [step.name for step in presets.load("smoa").explain().steps]
    assert rounds == ["round 1", "round 1: moderation", "round 2", "round 2: moderation", "synthesis"]


def test_the_layers_of_a_pipeline_within_are_in_the_picture(lab: Lab) -> None:
    """Each under the layer and the agent that it belongs to."""
    picture = moa.Pipeline(layers=[["moa-lite", "lab:c"], ["lab:z"]]).explain()
    assert [step.name for step in picture.steps] == [
        "layer 1",
        "layer 1 › moa-lite › layer 1",
        "layer 1 › moa-lite › layer 2",
        "layer 2",
    ]
    assert picture.steps[-1].sees[1:] == ("the one from layer 1", "the one from layer 1 › moa-lite › layer 2")


def test_a_strategy_of_ones_own_has_a_picture_too(lab: Lab) -> None:
    """One that branches past ``ask.decide`` is 'at least'."""

    class Pair(moa.Params):
        writer: moa.Agent = moa.Agent(model="$aggregator")
        readers: tuple[moa.Agent, ...] = (moa.Agent(model="$proposers"),)

    @moa.strategy("pair", params=Pair)
    async def pair(task: moa.Task, params: Pair, ask: moa.Ask) -> moa.Candidate:
        draft = await ask.one("draft", params.writer)
        if "certain" in draft.text:
            return draft
        notes = await ask.layer("notes", params.readers, see=[draft])
        return await ask.one("final", params.writer, see=[draft, *notes])

    picture = moa.Pipeline(strategy="pair").explain()
    assert (picture.n_calls, picture.calls) == ((5, 5), "at least 5")
    assert picture.steps[-1].sees[1:] == ("the one from draft", "all 3 from notes")


def test_a_strategy_that_breaks_on_answers_that_say_nothing_is_named(lab: Lab) -> None:
    """In one line, with what to do."""

    @moa.strategy("fragile", params=moa.Params)
    async def fragile(task: moa.Task, params: moa.Params, ask: moa.Ask) -> moa.Candidate:
        answer = await ask.one("answer", moa.Agent(model="lab:a"))
        assert int(answer.text)
        return answer

    fragile_one = moa.Pipeline(strategy="fragile")
    for price in (fragile_one.explain, lambda: moa.estimate("Why?", pipeline=fragile_one)):
        with pytest.raises(
            PipelineError, match=r"strategy 'fragile' breaks on .* \(ValueError: .* through ask\.decide"
        ):
            price()


def test_a_picture_needs_no_row(lab: Lab) -> None:
    """A router that reads a column goes the way of a row in which it is missing."""
    for router in ({"column": "hard"}, [{"column": "hard", "equals": True, "to": "strong"}]):
        picture = moa.Pipeline(strategy="route", router=router).explain()
        assert picture.n_calls == (1, 1)


def test_circles_and_names_that_are_not_there_are_errors(lab: Lab) -> None:
    """Before anything is walked."""
    with pytest.raises(UnknownName, match="did you mean 'moa-lite'"):
        moa.Pipeline(layers=["moa-lit"]).explain()


def test_a_picture_shows_itself_in_a_notebook(lab: Lab) -> None:
    """Text, Markdown and HTML; names are escaped."""
    evil = moa.Pipeline(layers=[[{"model": "lab:a", "name": "<b>|x"}], "lab:z"], name="<i>")
    shown: Any = evil.explain()._repr_mimebundle_()
    assert {*shown} == {"text/plain", "text/markdown", "text/html"}
    assert "<b>" not in shown["text/html"]
    assert "<i>" not in shown["text/html"]
    assert "<b>" not in shown["text/markdown"]
    assert "all 1" not in shown["text/plain"]


def test_a_picture_is_drawn_inside_a_running_loop_too(lab: Lab) -> None:
    """As in a notebook's cell."""

    async def cell() -> str:
        return presets.load("moa-lite").explain().calls

    assert asyncio.run(cell()) == "4"


def test_the_list_of_pipelines_says_how_many_calls_each_takes(lab: Lab) -> None:
    """With those who answer now; a file that makes no sense says so in its place."""
    file = Path("templates/pipelines/broken.toml")
    file.parent.mkdir(parents=True)
    file.write_text('strategy = "nonsense"', "utf-8")
    engine = current()
    listed = engine.finish(listings.pipelines(engine))
    calls = {str(row[0]).removesuffix(" (default)"): row[2] for row in listed.rows}
    assert {*calls} == {*presets.names()}
    assert (calls["moa"], calls["cascade"], calls["broken"]) == ("7", "2 to 3", "")
    lab(proposers=["lab:a", "lab:b"])
    again = engine.finish(listings.pipelines(engine))
    assert {str(row[0]): row[2] for row in again.rows}["moa"] == "5"
