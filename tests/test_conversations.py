"""Conversations in every preset: each model knows what was said before, and takes the aggregated answer for it."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import PIPELINES, Models, configured, is_control, pipeline

import moa_nb as moa
from moa_nb.pipeline import presets
from moa_nb.testing import ChatServer, Recorded, Reply

TURNS = [
    {"role": "system", "content": "SYSTEM-0: be brief."},
    {"role": "user", "content": "FIRST-1: who built the mill?"},
    {"role": "assistant", "content": "SECOND-2: the miller's 7 sons {{ did }}."},
    {"role": "user", "content": "THIRD-3: and who sold it?"},
    {"role": "assistant", "content": "FOURTH-4: the bank."},
    {"role": "user", "content": "FIFTH-5: why?"},
]
WORDS = [turn["content"].partition(":")[0] for turn in TURNS]


@pytest.fixture(autouse=True)
def _configured(server: ChatServer) -> None:
    """The models of every role."""
    configured(server)


def whole(record: Recorded) -> str:
    """All text of a request's messages."""
    return "\n".join(str(message["content"]) for message in record.messages)


@pytest.mark.parametrize("accept", [True, False], ids=["accepting", "rejecting"])
@pytest.mark.parametrize("name", PIPELINES)
def test_every_prompt_holds_the_whole_conversation_in_its_order(server: ChatServer, name: str, accept: bool) -> None:
    """As turns, unchanged, or quoted word for word by whoever judges; nothing of it twice."""
    Models(accept).serve(server)
    turns = [dict(turn) for turn in TURNS]
    result = moa.run(turns, pipeline=pipeline(name))
    assert turns == TURNS
    assert result.n_calls == server.count() > 0
    for record in server.requests:
        text = whole(record)
        places = [text.find(word) for word in WORDS[1:]]
        assert -1 not in places
        assert places == sorted(places)
        for turn in TURNS[1:-1]:
            assert text.count(turn["content"]) == 1
        if record.messages[0]["role"] == "system":  # beside the conversation
            assert record.messages[0]["content"].count(TURNS[0]["content"]) == 1
            roles = [message["role"] for message in record.messages]
            assert roles.count("system") == 1
            assert record.messages[1:5] == TURNS[1:5]
            assert record.messages[5]["content"].startswith(TURNS[5]["content"])
            assert set(roles[6:]) <= {"user", "assistant"}  # a debate's own turns
        else:
            assert is_control(text) or "criti" in text or "colleague" in text


@pytest.mark.parametrize("name", presets.names())
def test_who_answers_first_sees_the_turns_as_they_are(server: ChatServer, name: str) -> None:
    """Nothing is added to the bare conversation but how to state or work out the answer."""
    Models(accept=True).serve(server)
    result = moa.run(TURNS, pipeline=name)
    first = [call for call in result.layers[0].calls if not is_control("\n".join(turn.content for turn in call.prompt))]
    for call in first:
        assert [turn.to_dict() for turn in call.prompt][1:] == TURNS[1:]
        assert TURNS[0]["content"] in call.prompt[0].content  # after an agent's own role, if it has one


@pytest.mark.parametrize("name", PIPELINES)
def test_the_next_turn_knows_the_aggregated_answer_and_nobodys_own(server: ChatServer, name: str) -> None:
    """A second turn holds the first one's answer as the assistant's, and no other text of it."""
    models = Models(accept=False)
    said: list[str] = []

    def marked(body: dict[str, Any]) -> Reply:
        reply = models(body)
        prompt = "\n".join(str(message["content"]) for message in body["messages"])
        if is_control(prompt) and "improved:" not in reply.text:
            return reply
        said.append(f"SAID-{len(said)}-END")
        return Reply(f"{reply.text.partition('Answer:')[0]}\n\n{said[-1]}\nAnswer: {len(said)}")

    server.on("*", marked)
    first = moa.run("Who built the mill?", pipeline=pipeline(name))
    earlier, n_first = set(said), server.count()
    final = {mark for mark in earlier if mark in first.text}
    assert len(final) == 1
    turns = [
        {"role": "user", "content": "Who built the mill?"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And who sold it?"},
    ]
    second = moa.run(turns, pipeline=pipeline(name))
    assert second.text != first.text
    for record in server.requests[n_first:]:
        held = {mark for mark in earlier if mark in whole(record)}
        assert held == final
        assert whole(record).count(next(iter(final))) == 1


def test_a_conversation_is_priced_with_what_was_said_before(server: ChatServer) -> None:
    """Earlier turns are tokens of every prompt that holds them."""
    long = [{"role": "user", "content": "word " * 500}, {"role": "assistant", "content": "Yes."}, TURNS[-1]]
    for name in presets.names():
        bare = moa.estimate(TURNS[-1:], pipeline=name)
        more = moa.estimate(long, pipeline=name)
        assert more.low.prompt_tokens >= bare.low.prompt_tokens + 500 * bare.low.n_calls
    assert server.requests == []
