"""Budgets that count calls or tokens, for models whose price nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pandas as pd
import pytest

import moa_nb as moa
from moa_nb.errors import BudgetExceeded, SetupError
from moa_nb.testing import ChatServer, Reply

Lab = Callable[..., None]


@pytest.fixture
def unpriced(lab: Lab) -> None:
    """The same models without prices."""
    lab(models={})


@pytest.mark.parametrize(("budget", "n_rows"), [("3 calls", 3), ("1 call", 1), ("1k calls", 8)])
def test_a_budget_counts_calls(server: ChatServer, lab: Lab, unpriced: None, budget: str, n_rows: int) -> None:
    """No more are served than it says; the rows that are left say so, and a second run goes on from there."""
    frame = pd.DataFrame({"text": [f"Question {number}" for number in range(8)]})
    with pytest.warns(match="not asked") if n_rows < 8 else nullcontext():
        answers = frame.moa.synthesize("text", pipeline="single", budget=budget, progress=False)
    assert answers.notna().sum() == n_rows == server.count(status=200)
    again = frame.moa.synthesize("text", pipeline="single", budget="8 calls", progress=False)
    assert again.notna().all()
    assert server.count(status=200) == 8


def test_a_refused_call_takes_nothing_of_a_budget_of_calls(server: ChatServer, lab: Lab, unpriced: None) -> None:
    """Only what is served, or may have been, counts."""
    server.on("z", Reply.rate_limited(0.01), Reply.fault(500), Reply("yes"))
    assert moa.run("Why?", pipeline="single", budget="1 call").text == "yes"


def test_a_budget_counts_tokens_as_the_service_reports_them(server: ChatServer, lab: Lab, unpriced: None) -> None:
    """The worst case is set aside before a call, what was reported is settled after it."""
    server.on("z", Reply("yes", usage={"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}))
    frame = pd.DataFrame({"text": [f"Question {number}" for number in range(6)]})
    with pytest.warns(match="not asked"):
        run = frame.moa.start.synthesize("text", pipeline="single", max_tokens=50, budget="250 tokens").wait()
    spent = 30 * server.count(status=200)
    assert 100 < spent <= 250
    assert run.partial.notna().sum() == server.count(status=200)


def test_the_refusal_speaks_in_the_budgets_unit(server: ChatServer, lab: Lab, unpriced: None) -> None:
    """It says what the next call could take, and what is left."""
    with pytest.raises(
        BudgetExceeded, match=r"could take 2,\d\d\d tokens, and of the budget of 100 tokens only 100 tokens is left"
    ):
        moa.run("Why?", pipeline="single", budget="100 tokens")


@pytest.mark.parametrize("budget", ["5 cents", "many", "-3 calls", "$3 calls", "", "calls", "1e5 tokens"])
def test_a_budget_that_makes_no_sense_is_refused(server: ChatServer, lab: Lab, budget: str) -> None:
    """In one line that says what there is, before anything is sent."""
    with pytest.raises(SetupError, match="a budget is dollars"):
        moa.run("Why?", budget=budget)
    assert server.count() == 0


@pytest.mark.parametrize("budget", ["0.5", "$0.50", "0.5 dollars", " .5 USD", 0.5])
def test_dollars_may_be_spelled_out(server: ChatServer, lab: Lab, budget: str | float) -> None:
    """All of these are half a dollar."""
    assert moa.run("Why?", pipeline="single", budget=budget).budget == 0.5
