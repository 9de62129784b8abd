"""Self-consistency over real HTTP: samples, votes, abstentions, and what becomes of each fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.errors import BudgetExceeded, KeyRejected, PipelineError, RowError
from moa_nb.testing import ChatServer, Reply
from moa_nb.tokens import count_tokens

Lab = Callable[..., None]

QUESTION = "How many looms did the mill have?"


def sampled(n: int, **params: Any) -> moa.Pipeline:
    """The pipeline with ``n`` samples that are read as numbers."""
    proposer = {"model": "lab:z", "temperature": 0.7, "samples": n}
    return moa.Pipeline(strategy="self-consistency", **{"proposers": proposer, "answer": "number", **params})


# Samples and votes ------------------------------------------------------------------------------


def test_what_cannot_be_read_abstains(server: ChatServer, lab: Lab) -> None:
    """7, 7, 9, None, 7: 7 wins with 3 of the 4 that could be read, of 5 calls; the one is asked for once more."""
    server.on("z", "Answer: 7", "Answer: 7.0", "Answer: 9", "No idea.", "Answer: 7", "Still none.")
    result = moa.run(QUESTION, pipeline=sampled(5))
    assert (result.value, result.n_calls, result.n_unparsed) == (7, 5, 1)
    assert result.notes == ("3 of 4 answers agree, 1 could not be read",)
    assert (server.count(), sum(call.repeats for call in result.calls)) == (6, 1)
    assert [layer.name for layer in result.layers] == ["samples"]


@pytest.mark.parametrize("cache", ["use", "off"])
def test_samples_are_equal_requests_and_never_one_answer_of_the_cache(server: ChatServer, lab: Lab, cache: Any) -> None:
    """Five calls, not served from the cache, at the declared temperature; a second run asks none of them again."""
    server.on("z", *(f"Answer: {n}" for n in (7, 7, 9, 8, 7)))
    first = moa.run(QUESTION, pipeline=sampled(5), cache=cache)
    assert len({record.content for record in server.requests}) == 1
    assert {record.body["temperature"] for record in server.requests} == {0.7}
    assert (server.count(), first.value) == (5, 7)
    assert not any(call.cached for call in first.calls)
    again = moa.run(QUESTION, pipeline=sampled(5))
    if cache == "use":
        assert (server.count(), again.text, again.value) == (5, first.text, 7)


def test_the_answer_is_the_earliest_of_those_that_won_word_for_word(server: ChatServer, lab: Lab) -> None:
    """The text is not rewritten, and thoughts are no part of it."""
    server.on("z", "Answer: 1", Reply.thinking("It had  two.\nAnswer: 2", "Answer: 3"), "Answer: 2")
    result = moa.run(QUESTION, pipeline=sampled(3))
    assert (result.value, result.text) in {(2, "It had  two.\nAnswer: 2"), (2, "Answer: 2")}
    winners = [call.text for call in result.calls if call.text.endswith("2")]
    assert result.text == winners[0].strip()


def test_the_preset_draws_nine_samples_and_takes_the_one_most_like_the_others(server: ChatServer, lab: Lab) -> None:
    """Of free text; the aggregator's model sees the bare conversation."""
    server.on("z", "Cats sleep.", *(["The mill had forty looms."] * 3), *(f"{n} dogs bark." for n in range(5)))
    result = moa.run(QUESTION, pipeline="self-consistency")
    assert (server.count(), result.n_calls, result.value, result.degraded) == (9, 9, None, False)
    assert result.text.endswith("dogs bark.")
    assert server.requests[0].body["messages"] == [{"role": "user", "content": QUESTION}]


def test_a_form_is_told_and_earlier_turns_are_kept(server: ChatServer, lab: Lab) -> None:
    """The opening stands in place of the user's latest message."""
    server.on("z", "Answer: yes")
    turns = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "Which mill?"},
        {"role": "assistant", "content": "The one at the river."},
        {"role": "user", "content": QUESTION},
    ]
    result = moa.run(turns, pipeline=sampled(3, answer="boolean"))
    for record in server.requests:
        assert record.messages[:3] == turns[:3]
        assert record.messages[3]["content"].startswith(QUESTION)
    assert (result.value, result.notes) == (True, ())


def test_a_template_of_the_sampled_agent_asks_the_question(server: ChatServer, lab: Lab) -> None:
    """It stands in place of the user's latest message, with a form of the answer or without."""
    server.on("z", "Answer: 7")
    proposer = {"model": "lab:z", "samples": 2, "template": "debate/revise"}
    for answer in ("number", None):
        server.clear()
        moa.run(QUESTION, pipeline=sampled(2, proposers=proposer, answer=answer), cache="off")
        assert server.requests[0].messages[-1]["content"].startswith("Check your answer once more")


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=1, max_size=8))
def test_the_value_is_always_one_of_the_commonest(server: ChatServer, lab: Lab, numbers: list[int | None]) -> None:
    """Whatever is answered: the vote is the plurality of what could be read, and every abstention is counted."""
    texts = ["dunno" if number is None else f"Answer: {number}" for number in numbers]
    server.clear()
    server.on("z", *texts, "dunno")
    result = moa.run(QUESTION, pipeline=sampled(len(numbers)), cache="off")
    counts = Counter(number for number in numbers if number is not None)
    commonest = {number for number, count in counts.items() if count == max(counts.values())} or {None}
    assert result.value in commonest
    assert result.n_unparsed == numbers.count(None)
    assert result.text in texts


# Faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [Reply.too_long(), Reply.bad_request(), Reply(""), Reply(" \n"), Reply(content_null=True), Reply.filtered()],
    ids=["400 context", "400", "empty", "whitespace", "null", "filtered"],
)
def test_a_failed_sample_is_just_one_fewer(server: ChatServer, lab: Lab, fault: Reply) -> None:
    """The others vote, and the result is degraded."""
    server.on("z", "Answer: 7", fault, "Answer: 7", "Answer: 9")
    result = moa.run(QUESTION, pipeline=sampled(4))
    assert (result.value, result.layers[0].n_ok, result.degraded) == (7, 3, True)
    assert "2 of 3 answers agree" in result.notes


def test_a_hanging_sample_does_not_hold_the_run_and_faults_that_end_are_none(server: ChatServer, lab: Lab) -> None:
    """Past its time it is dropped; a 500 and a 429 are asked again."""
    lab(timeout=3.0, retry_seconds=0.3)
    replies = (Reply.hanging(), Reply.fault(500), Reply.rate_limited(retry_after=0.05))
    server.on("z", *replies, "Answer: 7", "Answer: 7", "Answer: 7")
    result = moa.run(QUESTION, pipeline=sampled(4))
    assert (result.value, result.layers[0].n_ok, result.degraded) == (7, 3, True)


def test_without_any_sample_there_is_no_answer(server: ChatServer, lab: Lab) -> None:
    """The error is theirs."""
    server.on("z", Reply.too_long())
    with pytest.raises(RowError, match="maximum context length"):
        moa.run(QUESTION, pipeline=sampled(3))
    assert server.count() == 3


def test_a_refused_key_ends_it_at_once(server: ChatServer, lab: Lab) -> None:
    """Whatever the others do."""
    server.on("z", Reply.refused_key())
    with pytest.raises(KeyRejected):
        moa.run(QUESTION, pipeline=sampled(3))


def test_a_budget_that_ends_among_the_samples_lets_those_vote_that_were_paid(server: ChatServer, lab: Lab) -> None:
    """Three of five."""
    server.on("z", "Answer: 7")
    result = moa.run(QUESTION, pipeline=sampled(5), budget="3 calls")
    assert (server.count(), result.value, result.degraded) == (3, 7, True)
    with pytest.raises(BudgetExceeded):
        moa.run(QUESTION, pipeline=sampled(5), budget="0 calls", cache="off")


def test_a_cut_off_sample_votes_and_is_flagged(server: ChatServer, lab: Lab) -> None:
    """``finish_reason`` length degrades the result."""
    server.on("z", Reply.truncated("Answer: 7"), "Answer: 7")
    result = moa.run(QUESTION, pipeline=sampled(2))
    assert (result.value, result.degraded) == (7, True)


def test_nothing_that_can_be_read_is_no_value(server: ChatServer, lab: Lab) -> None:
    """Never a right one: ``None``, with one of the answers as its text."""
    server.on("z", "Who knows {{ 7 * 7 }}?")
    result = moa.run(f"{QUESTION} {{{{ 6 * 6 }}}}", pipeline=moa.Pipeline(strategy="self-consistency", answer="choice"))
    assert (result.value, result.text, result.degraded, result.n_unparsed) == (None, "Who knows {{ 7 * 7 }}?", True, 9)
    assert server.requests[0].messages[0]["content"].startswith(f"{QUESTION} {{{{ 6 * 6 }}}}")


def test_two_runs_send_byte_identical_requests(server: ChatServer, lab: Lab) -> None:
    """All of them."""
    server.on("z", "Answer: 7")
    for _ in range(2):
        moa.run(QUESTION, pipeline=sampled(4), cache="off")
    assert len({record.content for record in server.requests}) == 1


# Parameters and price ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"samples": 3}, "unknown key 'samples'"),
        ({"answer": "choise"}, "did you mean 'choice'"),
        ({"answer": ["bug", "Bug"]}, "each label once"),
        ({"tie": "second"}, "no rule 'second' for ties"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], words: str) -> None:
    """In one line, before anything is sent."""
    with pytest.raises(PipelineError, match=words):
        moa.Pipeline(strategy="self-consistency", **params)


def test_a_model_is_enough_and_samples_can_be_said(server: ChatServer, lab: Lab) -> None:
    """``proposers="lab:a"`` is sampled 9 times; ``samples`` of a run changes that, 0 is refused."""
    recipe = moa.Pipeline(strategy="self-consistency", proposers="lab:a", answer="number")
    server.on("a", "Answer: 7")
    assert moa.estimate(QUESTION, pipeline=recipe).n_calls == 9
    result = moa.run(QUESTION, pipeline=recipe, samples=3, temperature=0.3, max_tokens=9)
    assert (result.n_calls, result.value) == (3, 7)
    assert {(record.body["temperature"], record.body["max_tokens"]) for record in server.requests} == {(0.3, 9)}
    with pytest.raises(PipelineError, match="samples"):
        moa.run(QUESTION, pipeline=recipe, samples=0)
    with pytest.raises(PipelineError, match="takes no 'layers'"):
        moa.run(QUESTION, pipeline=recipe, layers=2)


def test_an_estimate_is_near_the_cost_of_answers_at_full_length(server: ChatServer, lab: Lab) -> None:
    """At most half as much again."""
    lab(max_tokens=200)

    def answer(body: dict[str, Any]) -> Reply:
        prompt = sum(count_tokens(message["content"]) for message in body["messages"])
        return Reply("mill " * 199 + "7", usage={"prompt_tokens": prompt, "completion_tokens": 200})

    server.on("z", answer)
    estimate = moa.estimate(QUESTION, pipeline=sampled(9))
    result = moa.run(QUESTION, pipeline=sampled(9))
    assert estimate.low.n_calls == estimate.high.n_calls == result.n_calls == 9
    assert not estimate.at_least
    assert 0.95 <= (estimate.cost or 0) / (result.cost or 1) <= 1.5  # a mark is 10 tokens, more or less
