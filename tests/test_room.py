"""Prompts that fit: against a server with a real limit on the context, nobody is paid in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import moa_nb as moa
from moa_nb.errors import RowError
from moa_nb.testing import ChatServer, Reply
from moa_nb.tokens import count_prompt_tokens

Lab = Callable[..., None]

CONTEXT = 2000
LONG = "The mill stood by the river. " * 400
"""About 2,800 tokens."""


def strict(server: ChatServer, answer: str = "joined") -> None:
    """The aggregator refuses what does not fit its context, as services do."""

    def reply(body: dict[str, Any]) -> Reply:
        from moa_nb.chat import Message

        messages = [Message(message["role"], message["content"]) for message in body["messages"]]
        prompt = count_prompt_tokens(messages, "openai:gpt-4o")
        return Reply.too_long(CONTEXT) if prompt + body.get("max_tokens", 0) > CONTEXT else Reply(answer)

    server.on("z", reply)


def small(lab: Lab, **values: Any) -> None:
    """The aggregator can read 2,000 tokens."""
    price = {"prompt_price": 1.0, "completion_price": 1.0}
    lab(
        models={**{f"lab:{name}": price for name in "abc"}, "lab:z": {**price, "context": CONTEXT}},
        max_tokens=300,
        **values,
    )


def test_long_references_are_shortened_fairly(server: ChatServer, lab: Lab) -> None:
    """The short one stays whole, the long ones share what is left; the result says so, and nothing is refused."""
    small(lab)
    strict(server)
    server.on("a", LONG).on("b", "A short answer.").on("c", LONG)
    result = moa.run("Why?", pipeline="moa-lite", max_tokens=300)
    (seen,) = server.asked("z")
    assert seen.text_of("system").count("left out here") == 2
    assert "2. A short answer." in seen.text_of("system")
    assert (result.text, result.degraded) == ("joined", True)
    assert any("2 of 3 answers shortened" in note and "2,000 tokens" in note for note in result.notes)
    assert server.count(status=400) == 0


def test_what_fits_is_left_alone(server: ChatServer, lab: Lab) -> None:
    """No mark, no note."""
    small(lab)
    strict(server)
    result = moa.run("Why?", pipeline="moa-lite")
    assert (result.degraded, result.notes) == (False, ())


def test_long_references_are_summarized_by_a_call_each(server: ChatServer, lab: Lab) -> None:
    """With ``references = "summarize"`` the aggregator's model shortens each long one first; its calls are in the record."""
    small(lab, references="summarize")

    def reply(body: dict[str, Any]) -> Reply:
        if "shorter version" not in body["messages"][-1]["content"]:
            return Reply("joined")
        return Reply("in short") if len(str(body)) < 4 * CONTEXT else Reply.too_long(CONTEXT)

    server.on("a", LONG).on("b", "A short answer.").on("c", LONG).on("z", reply)
    result = moa.run("Why?", pipeline="moa-lite", max_tokens=300)
    assert [layer.name for layer in result.layers] == ["layer 1", "layer 2: shortened", "layer 2"]
    last = server.asked("z")[-1].text_of("system")
    assert ("1. in short" in last, "2. A short answer." in last, "3. in short" in last) == (True, True, True)
    assert result.n_calls == 6
    assert result.degraded


def test_a_summary_that_fails_leaves_the_trimmed_text(server: ChatServer, lab: Lab) -> None:
    """The run goes on with what can be cut here."""
    small(lab, references="summarize", retry_seconds=0.1)

    def reply(body: dict[str, Any]) -> Reply:
        return Reply.bad_request() if "shorter version" in body["messages"][-1]["content"] else Reply("joined")

    server.on("a", LONG).on("b", LONG).on("c", LONG).on("z", reply)
    result = moa.run("Why?", pipeline="moa-lite", max_tokens=300)
    assert result.text == "joined"
    assert server.asked("z")[-1].text_of("system").count("left out here") == 3


def test_shortening_is_priced(server: ChatServer, lab: Lab) -> None:
    """The estimate counts the summaries' calls, and is not below what the run then takes."""
    small(lab, references="summarize")
    estimate = moa.estimate("Why?", pipeline="moa-lite", max_tokens=900)
    assert estimate.high.n_calls == 7
    assert estimate.low.n_calls == 4


def test_a_question_that_does_not_fit_costs_nothing(server: ChatServer, lab: Lab) -> None:
    """Before the proposers are paid one line says which model cannot read it."""
    small(lab)
    with pytest.raises(
        RowError, match=r"lab:z has a context of 2,000 tokens, too small for about [\d,]+ of the prompt"
    ):
        moa.run(LONG, pipeline="moa-lite")
    assert server.count() == 0


def test_a_single_reference_may_be_capped(server: ChatServer, lab: Lab) -> None:
    """``max_ref_chars`` holds even where nobody knows the context: a 100 kB answer does not drown the others."""
    lab(max_ref_chars=1000)
    server.on("a", "long " * 20_000)
    result = moa.run("Why?", pipeline="moa-lite")
    assert len(server.asked("z")[0].text_of("system")) < 4000
    assert result.degraded
    assert any("max_ref_chars = 1,000" in note for note in result.notes)


def test_the_second_run_is_byte_identical(server: ChatServer, lab: Lab) -> None:
    """What is shortened is shortened the same way."""
    small(lab)
    server.on("a", LONG).on("b", LONG).on("c", LONG)
    for _ in range(2):
        moa.run("Why?", pipeline="moa-lite", max_tokens=300, cache="refresh")
    one, two = server.asked("z")
    assert one.body == two.body
