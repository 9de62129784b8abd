"""The estimate of every strategy against what it then takes over HTTP: calls, layers, tokens, dollars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from scripted import PIPELINES, Models, configured, pipeline

import moa_nb as moa
from moa_nb.engine.forecast import Estimate
from moa_nb.pipeline import presets, strategies
from moa_nb.pipeline.result import Result
from moa_nb.testing import ChatServer

QUESTION = "Seven people went to the mill, and none came back. How many went? Say why you think so."
LENGTH = 80
"""Tokens of a full answer."""

MARKS = 1.0
"""What prompts may differ by: the marks between quoted texts are other digits for other texts, and so other tokens."""


@pytest.fixture(autouse=True)
def _configured(server: ChatServer) -> None:
    """The models of every role."""
    configured(server, max_tokens=LENGTH)


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    strategies.names()
    known = dict(strategies._registry)
    yield
    strategies._registry.clear()
    strategies._registry.update(known)


def test_no_strategy_is_forgotten() -> None:
    """Each has a preset, and so stands in the tests over all of them; a jury judges what it is shown, and answers nothing."""
    assert {presets.load(name).strategy for name in presets.names()} == {*strategies.names()} - {"jury"}


def assert_within(result: Result, estimate: Estimate) -> None:
    """Assert that a run took no less and no more than was said before."""
    low, high = estimate.low, estimate.high
    assert not estimate.at_least
    assert result.usage.prompt_tokens is not None
    assert result.usage.completion_tokens is not None
    assert result.cost is not None
    assert low.cost is not None
    assert high.cost is not None
    assert low.n_calls <= result.n_calls <= high.n_calls
    assert low.n_layers <= len(result.layers) <= high.n_layers
    assert low.prompt_tokens / MARKS <= result.usage.prompt_tokens <= high.prompt_tokens * MARKS
    assert low.completion_tokens <= result.usage.completion_tokens <= high.completion_tokens
    assert low.cost / MARKS <= result.cost <= high.cost * MARKS


@pytest.mark.parametrize("accept", [True, False], ids=["accepting", "rejecting"])
@pytest.mark.parametrize("tokens", [0, LENGTH], ids=["short", "full"])
@pytest.mark.parametrize("name", PIPELINES)
def test_what_a_run_takes_lies_within_its_estimate(server: ChatServer, name: str, accept: bool, tokens: int) -> None:
    """Whatever the answers are like; where all is accepted it is the least of calls, where nothing is, the most."""
    Models(accept, tokens).serve(server)
    estimate = moa.estimate(QUESTION, pipeline=pipeline(name))
    assert server.requests == []
    result = moa.run(QUESTION, pipeline=pipeline(name))
    assert result.n_calls == server.count()
    assert result.n_unparsed == 0
    assert_within(result, estimate)
    assert result.n_calls == (estimate.low if accept else estimate.high).n_calls


@pytest.mark.parametrize("name", PIPELINES)
def test_the_estimate_is_tight(server: ChatServer, name: str) -> None:
    """With answers of full length on the longest way, the most is at most one and a half times what it takes."""
    Models(accept=False, tokens=LENGTH).serve(server)
    estimate = moa.estimate(QUESTION, pipeline=pipeline(name))
    result = moa.run(QUESTION, pipeline=pipeline(name))
    assert result.cost
    assert estimate.cost is not None
    assert result.cost / MARKS <= estimate.cost <= 1.5 * result.cost


@pytest.mark.parametrize("name", PIPELINES)
def test_what_is_stored_costs_nothing(server: ChatServer, name: str) -> None:
    """After a run its own way is free, and the ways that were not gone are the rest."""
    Models(accept=False, tokens=LENGTH).serve(server)
    result = moa.run(QUESTION, pipeline=pipeline(name))
    estimate = moa.estimate(QUESTION, pipeline=pipeline(name))
    assert (estimate.low.n_calls, estimate.high.n_cached) == (0, result.n_calls)
    assert estimate.high.n_calls <= 1  # the end of a way that was not gone


@pytest.mark.parametrize("name", PIPELINES)
def test_a_frame_counts_each_text_once_and_what_is_stored_not_at_all(server: ChatServer, name: str) -> None:
    """Of six rows with an empty, an equal and a stored one three are priced."""
    Models(accept=False, tokens=LENGTH).serve(server)
    moa.run("Stored?", pipeline=pipeline(name))
    frame = pd.DataFrame({"text": ["One?", "Two?", None, "One?", "Stored?", "Three?"]}, index=list("zyxwvu"))
    options: Any = {"pipeline": pipeline(name)}
    estimate = frame.moa.estimate.synthesize("text", **options)
    single, stored = (moa.estimate(text, **options) for text in ("Two?", "Stored?"))
    assert estimate.low.n_calls == 3 * single.low.n_calls
    assert estimate.high.n_calls == 3 * single.high.n_calls + stored.high.n_calls
    assert estimate.n_cached == stored.n_cached
    assert estimate.cost == pytest.approx(3 * (single.cost or 0) + (stored.cost or 0), rel=0.1)
    server.clear()
    frame.moa.synthesize("text", **options, progress=False)
    assert 3 * single.low.n_calls <= server.count() <= 3 * single.high.n_calls


def test_a_strategy_that_branches_by_itself_is_at_least(server: ChatServer, registry: None) -> None:
    """In the estimate, in its text, in a frame's and in ``--dry-run``; one that asks ``ask.decide`` is not."""

    class Two(moa.Params):
        who: moa.Agent = moa.Agent(model="$small")

    @moa.strategy("by itself", params=Two)
    async def by_itself(task: moa.Task, params: Two, ask: moa.Ask) -> moa.Candidate:
        first = await ask.one("first", params.who)
        return first if "7" in first.text else await ask.one("second", params.who, see=[first])

    @moa.strategy("by decision", params=Two)
    async def by_decision(task: moa.Task, params: Two, ask: moa.Ask) -> moa.Candidate:
        first = await ask.one("first", params.who)
        return await ask.one("second", params.who, see=[first]) if ask.decide("more", "7" not in first.text) else first

    from moa_nb.panels.dry_run import bundle

    unforeseen = moa.estimate(QUESTION, pipeline=moa.Pipeline(strategy="by itself"))
    assert unforeseen.at_least
    assert "at least" in str(unforeseen)
    assert "at least" in bundle(unforeseen)["text/plain"]
    series: Any = pd.Series(["a", "b"])
    assert series.moa.estimate.synthesize(pipeline=moa.Pipeline(strategy="by itself")).at_least
    foreseen = moa.estimate(QUESTION, pipeline=moa.Pipeline(strategy="by decision"))
    assert (foreseen.at_least, foreseen.low.n_calls, foreseen.high.n_calls) == (False, 1, 2)


def test_least_and_most_are_shown(server: ChatServer) -> None:
    """In the text of an estimate, and in a dry run as text and as HTML; where they are one, once."""
    from moa_nb.panels.dry_run import bundle

    estimate = moa.estimate(QUESTION, pipeline="cascade")
    assert "2 to 3 calls" in str(estimate)
    shown = bundle(estimate)
    for text in shown.values():
        assert "2 to 3" in text
        assert f"≈{estimate.low.prompt_tokens:,} to ≈{estimate.high.prompt_tokens:,} tokens in" in text
        assert f"{estimate.low.completion_tokens:,} to {estimate.high.completion_tokens:,} out" in text
    assert "7 calls" in str(moa.estimate(QUESTION, pipeline="moa"))
