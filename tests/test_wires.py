"""The wire formats as pure functions: what is sent, and what is made of whatever comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_nb.chat import Completion, Message, Request, Sampling, Usage
from moa_nb.providers import anthropic
from moa_nb.providers.wire import KINDS, WIRES, Cause, below, cause

NAMES = ["anthropic", "gemini", "openai"]
TALK = (
    Message("system", "Be brief."),
    Message("user", "One"),
    Message("user", "Two"),
    Message("assistant", "Three"),
    Message("user", "Four"),
    Message("system", "Be kind."),
)
SAMPLING = Sampling(temperature=1.3, max_tokens=64, top_p=0.9, seed=7, stop=("END",), extra=(("user", "u1"),))
FULL = Request("lab:m", TALK, SAMPLING)
BARE = Request("lab:m", (Message("user", "Why?"),))


def dumped(value: object) -> bytes:
    """JSON as a service writes it."""
    return json.dumps(value, ensure_ascii=False).encode()


def fed(name: str, events: Sequence[object]) -> Any:
    """A stream that has taken these events, one at a time."""
    stream = WIRES[name].new_stream()
    for event in events:
        stream.feed([event if isinstance(event, bytes) else dumped(event)])
    return stream


# What is sent -----------------------------------------------------------------------------------


def test_openai_body() -> None:
    """Messages go as they are, sampling under the names of chat completions."""
    assert json.loads(WIRES["openai"].body(FULL, "m")) == {
        "model": "m",
        "messages": [{"role": message.role, "content": message.content} for message in TALK],
        "temperature": 1.3,
        "max_tokens": 64,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "user": "u1",
    }


def test_anthropic_body() -> None:
    """The system's words stand apart, one speaker's turns in a row are one, and the temperature is bounded."""
    assert json.loads(WIRES["anthropic"].body(FULL, "m")) == {
        "model": "m",
        "max_tokens": 64,
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": "One\n\nTwo"},
            {"role": "assistant", "content": "Three"},
            {"role": "user", "content": "Four"},
        ],
        "temperature": 1.0,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "user": "u1",
    }


def test_gemini_body() -> None:
    """Turns are made of parts, the assistant is the model, and sampling has a table of its own."""
    assert json.loads(WIRES["gemini"].body(FULL, "m")) == {
        "systemInstruction": {"parts": [{"text": "Be brief.\n\nBe kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "One\n\nTwo"}]},
            {"role": "model", "parts": [{"text": "Three"}]},
            {"role": "user", "parts": [{"text": "Four"}]},
        ],
        "generationConfig": {
            "temperature": 1.3,
            "maxOutputTokens": 64,
            "topP": 0.9,
            "seed": 7,
            "stopSequences": ["END"],
        },
        "user": "u1",
    }


def test_bare_bodies() -> None:
    """What nobody asked for is not sent; only Anthropic needs a bound, and has a stated one."""
    turn = {"role": "user", "content": "Why?"}
    bodies = {name: json.loads(WIRES[name].body(BARE, "m")) for name in NAMES}
    assert bodies == {
        "openai": {"model": "m", "messages": [turn]},
        "anthropic": {"model": "m", "messages": [turn], "max_tokens": anthropic.MAX_TOKENS},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]},
    }
    assert anthropic.MAX_TOKENS == 4096


def test_gemini_extras_join_the_config() -> None:
    """An extra table is added to the one that is there, and wins over it."""
    extra = (("generationConfig", {"temperature": 0.5, "thinkingConfig": {"thinkingBudget": 0}}),)
    request = Request("lab:m", BARE.messages, Sampling(temperature=1, seed=3, extra=extra))
    config = json.loads(WIRES["gemini"].body(request, "m"))["generationConfig"]
    assert config == {"temperature": 0.5, "seed": 3, "thinkingConfig": {"thinkingBudget": 0}}


@pytest.mark.parametrize("name", NAMES)
def test_cold_is_zero(name: str) -> None:
    """A temperature that is nearly 0 is sent as 0."""
    body = WIRES[name].body(Request("lab:m", BARE.messages, Sampling(temperature=1e-9)), "m")
    assert b'"temperature":0}' in body or body.endswith(b'"temperature":0}}')


@pytest.mark.parametrize("name", NAMES)
def test_extras_that_are_not_json(name: str) -> None:
    """What cannot be written is an error that the gateway can explain."""
    with pytest.raises(TypeError):
        WIRES[name].body(Request("lab:m", BARE.messages, Sampling(extra=(("x", object()),))), "m")


texts = st.text(st.characters(codec=None, categories=None), max_size=20)
samplings = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 10_000),
    top_p=st.none() | st.floats(0.01, 1),
    seed=st.none() | st.integers(0, 2**31),
    stop=st.none() | st.lists(texts, max_size=2).map(tuple),
)
messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts)
requests = st.builds(Request, st.just("lab:m"), st.lists(messages, min_size=1, max_size=5).map(tuple), samplings)


@pytest.mark.parametrize("name", NAMES)
@given(request=requests)
def test_equal_requests_are_equal_bytes(name: str, request: Request) -> None:
    """Whatever the texts, half surrogates included, the body is JSON and the same each time, streamed too."""
    wire = WIRES[name]
    body = wire.body(request, "m")
    again = Request(
        request.model, tuple(Message(turn.role, turn.content) for turn in request.messages), request.sampling
    )
    assert body == wire.body(again, "m")
    whole, streamed = json.loads(body), json.loads(wire.streamed(body))
    assert streamed.items() >= whole.items()
    assert bool(streamed.get("stream")) is (name != "gemini")


def test_urls() -> None:
    """Each format has its place below the base URL, whose query is kept."""
    base = "https://lab.example/v1"
    assert WIRES["openai"].url(base, "m", True) == f"{base}/chat/completions"
    assert WIRES["anthropic"].url(base + "/", "m", False) == f"{base}/messages"
    assert WIRES["gemini"].url(base, "gemini-x", False) == f"{base}/models/gemini-x:generateContent"
    assert WIRES["gemini"].url(base, "gemini-x", True) == f"{base}/models/gemini-x:streamGenerateContent?alt=sse"
    assert WIRES["gemini"].url(base, "tunedModels/mine", False) == f"{base}/tunedModels/mine:generateContent"
    assert WIRES["gemini"].url(base + "?a=b", "x", True) == f"{base}/models/x:streamGenerateContent?alt=sse&a=b"
    assert below(base + "?api-version=1", "/x") == f"{base}/x?api-version=1"
    assert [WIRES[name].models_url(base) for name in NAMES] == [
        f"{base}/models?limit=1000",
        f"{base}/models?pageSize=1000",
        f"{base}/models",
    ]


def test_headers() -> None:
    """Each format has its header for the key; without a key there is none."""
    assert {name: WIRES[name].headers("k") for name in NAMES} == {
        "openai": {"Authorization": "Bearer k"},
        "anthropic": {"x-api-key": "k", "anthropic-version": anthropic.VERSION},
        "gemini": {"x-goog-api-key": "k"},
    }
    assert {name: WIRES[name].headers(None) for name in NAMES} == {
        "openai": {},
        "anthropic": {"anthropic-version": anthropic.VERSION},
        "gemini": {},
    }


# Whole answers ----------------------------------------------------------------------------------


def anthropic_answer(*content: dict[str, Any], stop_reason: str | None = "end_turn", **usage: Any) -> bytes:
    """A message as Anthropic sends it."""
    return dumped({"type": "message", "model": "c-1", "content": content, "stop_reason": stop_reason, "usage": usage})


def gemini_answer(*parts: dict[str, Any], reason: str | None = "STOP", **usage: Any) -> dict[str, Any]:
    """A response as Gemini sends it."""
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": reason}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "g-1"}


def openai_answer(message: dict[str, Any], reason: str | None = "stop", **usage: Any) -> bytes:
    """A chat completion."""
    return dumped(
        {"model": "o-1", "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage}
    )


def test_anthropic_blocks() -> None:
    """Texts are joined, thoughts are kept apart, tools and hidden thoughts are left out."""
    body = anthropic_answer(
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Yes", "citations": [{"cited_text": "no"}]},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "text", "text": ", so."},
        input_tokens=5,
        cache_read_input_tokens=100,
        cache_creation_input_tokens=20,
        output_tokens=9,
        output_tokens_details={"thinking_tokens": 4},
    )
    assert WIRES["anthropic"].parse(body) == Completion(
        "Yes, so.", model="c-1", finish_reason="stop", reasoning="Hm.", usage=Usage(125, 9, 100, 20, 4)
    )


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "refusal"),
        ("pause_turn", "pause_turn"),
        (None, None),
    ],
)
def test_anthropic_reasons(said: str | None, means: str | None) -> None:
    """The reasons to stop come in our words, others as they are; an answer may be empty."""
    completion = WIRES["anthropic"].parse(anthropic_answer(stop_reason=said))
    assert (completion.finish_reason, completion.text, completion.usage) == (means, "", Usage())


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "malformed_function_call"),
        (None, None),
    ],
)
def test_gemini_reasons(said: str | None, means: str | None) -> None:
    """As for Anthropic; a candidate may lack its content."""
    answer = {"candidates": [{"finishReason": said}]}
    completion = WIRES["gemini"].parse(dumped(answer))
    assert (completion.finish_reason, completion.text, completion.usage) == (means, "", Usage())


def test_gemini_parts() -> None:
    """Thoughts are kept apart and counted with the answer; what tools brought in is part of the prompt."""
    body = gemini_answer(
        {"text": "Hm.", "thought": True},
        {"text": "Yes", "thoughtSignature": "x"},
        {"inlineData": {"data": "x"}},
        {"text": ", so."},
        promptTokenCount=10,
        toolUsePromptTokenCount=3,
        candidatesTokenCount=4,
        thoughtsTokenCount=6,
        cachedContentTokenCount=8,
    )
    assert WIRES["gemini"].parse(dumped(body)) == Completion(
        "Yes, so.", model="g-1", finish_reason="stop", reasoning="Hm.", usage=Usage(13, 10, 8, None, 6)
    )


def test_gemini_list() -> None:
    """A stream that came as one list is read as one answer."""
    assert WIRES["gemini"].parse(dumped(STREAMS["gemini"])) == TOLD["gemini"]


def test_gemini_calls_only() -> None:
    """A call of a function in place of a text is not an answer that stopped."""
    body = gemini_answer({"functionCall": {"name": "f", "args": {}}})
    assert WIRES["gemini"].parse(dumped(body)).finish_reason == "tool_calls"


def test_gemini_blocked_prompt() -> None:
    """A blocked prompt is an answer without text that says why."""
    body = dumped({"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "too rude"}})
    completion = WIRES["gemini"].parse(body)
    assert (completion.text, completion.finish_reason) == ("", "content_filter")
    assert completion.note == "the service blocked the prompt (SAFETY): too rude"


def test_openai_dialects() -> None:
    """Refusals, lists of parts, other words for the end, and tokens under other names."""
    parse = WIRES["openai"].parse
    refused = parse(openai_answer({"content": None, "refusal": "No."}))
    assert (refused.text, refused.finish_reason) == ("No.", "refusal")
    listed = parse(
        openai_answer(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                    {"type": "text", "text": "Yes"},
                ]
            }
        )
    )
    assert (listed.text, listed.reasoning) == ("Yes", "Hm.")
    assert parse(openai_answer({"content": "x"}, "eos")).finish_reason == "stop"
    assert parse(openai_answer({"content": "x"}, "model_length")).finish_reason == "length"
    assert parse(openai_answer({"content": "<think>Hm.</think>Yes"})).reasoning == "Hm."
    cached = openai_answer(
        {"content": "x"},
        prompt_tokens=9,
        completion_tokens=2,
        prompt_tokens_details={"cached_tokens": 3, "cache_write_tokens": 4},
    )
    assert parse(cached).usage == Usage(9, 2, 3, 4)
    apart = openai_answer(
        {"content": "x"},
        prompt_tokens=9,
        completion_tokens=2,
        total_tokens=16,
        completion_tokens_details={"reasoning_tokens": 5},
    )
    assert parse(apart).usage == Usage(9, 7, reasoning_tokens=5)


JUNK = [b"", b"<html>no</html>", b"null", b"[]", b"{}", b'"x"', b"7", b'{"error":{"message":"no"}}', b'{"choices":[]}']


@pytest.mark.parametrize("body", JUNK)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_answer(name: str, body: bytes) -> None:
    """Anything that is not an answer is one kind of error, and has a message to show."""
    wire = WIRES[name]
    with pytest.raises(ValueError, match=r".*"):
        wire.parse(body)
    message, code = wire.said(body)
    assert isinstance(message, str)
    assert isinstance(code, str)
    assert wire.retry_after(body) is None


fields = st.sampled_from(
    [
        *("choices", "message", "delta", "content", "refusal", "reasoning", "usage", "finish_reason", "model", "index"),
        *("type", "text", "thinking", "stop_reason", "input_tokens", "output_tokens", "content_block", "error"),
        *("candidates", "parts", "thought", "finishReason", "usageMetadata", "promptFeedback", "blockReason"),
        *("promptTokenCount", "details", "retryDelay", "code", "status", "data", "models", "name", "id", "x_groq"),
        *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details", "total_tokens"),
        *("response_format", "json_schema", "output_config", "format", "generationConfig", "responseJsonSchema"),
    ]
)
words = st.sampled_from(
    ["content_block_delta", "message_start", "message_delta", "text", "text_delta", "STOP", "1s", ""]
)
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | words
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=5), max_leaves=25
)


@pytest.mark.parametrize("name", NAMES)
@given(tree=trees)
def test_strange_answers(name: str, tree: object) -> None:
    """Whatever JSON comes, it is a completion or that one kind of error, never another."""
    wire, data = WIRES[name], dumped(tree)
    stream = wire.new_stream()
    for read in (wire.parse, lambda data: stream.feed([data]), wire.models):
        try:
            read(data)
        except ValueError:
            pass
    completion = stream.completion()
    assert isinstance(completion.text, str)
    assert isinstance(completion.model, str)
    wire.said(data)
    wire.retry_after(data)
    wire.next_page("https://lab.example/models", data)
    wire.status(data)
    wire.refused(data, "unsupported parameter: 'temperature', system role, developer instruction is not enabled")
    wire.refused(data, "json_schema is not supported")
    wire.spelt(data, {"system": "", "max_tokens": "", "model": "name", "schema": "json_object"})
    wire.spelt(data, {"schema": ""})


# Streams ----------------------------------------------------------------------------------------


def piece(kind: str, text: str, index: int = 0) -> dict[str, Any]:
    """A delta of Anthropic's."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", kind: text}}


def chunk(reason: str | None = None, *, index: int = 0, **delta: Any) -> dict[str, Any]:
    """A chunk of a chat completion."""
    return {"model": "o-1", "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}


STREAMS: dict[str, list[Any]] = {
    "openai": [
        {"model": "", "choices": [], "prompt_filter_results": []},
        chunk(role="assistant", content="", reasoning_content="Hm"),
        chunk(reasoning_content="."),
        chunk(content="Yé"),
        chunk(content="other", index=1),
        chunk(content=[{"type": "text", "text": "s 😀"}]),
        chunk("length", content="!"),
        chunk("stop", index=1),
        {"model": "o-1", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}},
        b"[DONE]",
    ],
    "anthropic": [
        {
            "type": "message_start",
            "message": {
                "model": "c-1",
                "content": [],
                "usage": {
                    "input_tokens": 3,
                    "cache_read_input_tokens": 4,
                    "cache_creation_input_tokens": 0,
                    "output_tokens": 1,
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "ping"},
        piece("thinking", "Hm"),
        piece("thinking", "."),
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "Y"}},
        piece("text", "és 😀", 1),
        {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{"}},
        piece("text", "!", 1),
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ],
    "gemini": [
        gemini_answer({"text": "Hm.", "thought": True}, reason=None, promptTokenCount=7),
        gemini_answer({"text": "Yé"}, reason=None, promptTokenCount=7, candidatesTokenCount=1, thoughtsTokenCount=1),
        gemini_answer({"text": "s 😀"}, {"text": "!"}, reason=None),
        gemini_answer({"text": ""}, reason="MAX_TOKENS", candidatesTokenCount=4, thoughtsTokenCount=1),
    ],
}
TOLD = {
    "openai": Completion("Yés 😀!", model="o-1", finish_reason="length", reasoning="Hm.", usage=Usage(7, 5)),
    "anthropic": Completion("Yés 😀!", model="c-1", finish_reason="length", reasoning="Hm.", usage=Usage(7, 5, 4, 0)),
    "gemini": Completion(
        "Yés 😀!", model="g-1", finish_reason="length", reasoning="Hm.", usage=Usage(7, 5, reasoning_tokens=1)
    ),
}


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_streams_however_they_are_split(name: str, data: st.DataObject) -> None:
    """The events of a stream make the same completion, whichever of them come together."""
    events = [event if isinstance(event, bytes) else dumped(event) for event in STREAMS[name]]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=len(events))))
    stream = WIRES[name].new_stream()
    text = "".join(stream.feed(events[start:end]) for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True))
    assert stream.is_whole
    assert stream.has_begun
    assert stream.error is None
    assert text == "Yés 😀!"
    assert stream.completion() == TOLD[name]


@pytest.mark.parametrize("name", NAMES)
def test_streams_that_end_early(name: str) -> None:
    """A stream is whole once it says how the answer ended, and no event earlier."""
    for length in range(len(STREAMS[name])):
        stream = fed(name, STREAMS[name][:length])
        told = {"openai": 7, "anthropic": 13, "gemini": 4}[name]
        assert stream.is_whole is (length >= told)
        assert not stream.is_over or stream.is_whole


ERRORS: dict[str, Any] = {
    "openai": {"error": {"message": "no more", "code": "server_error"}},
    "anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "no more"}},
    "gemini": {"error": {"code": 503, "message": "no more", "status": "UNAVAILABLE"}},
}


@pytest.mark.parametrize("name", NAMES)
def test_errors_in_streams(name: str) -> None:
    """An error before the end is kept as it came; after the end it takes nothing from the answer."""
    early = fed(name, [*STREAMS[name][:2], ERRORS[name]])
    assert not early.is_whole
    message, code = WIRES[name].said(early.error)
    assert message == "no more"
    assert code in {"server_error", "overloaded_error", "UNAVAILABLE"}
    late = fed(name, [*STREAMS[name], ERRORS[name]])
    assert late.error is None
    assert late.completion() == TOLD[name]


def test_openai_streams_of_others() -> None:
    """Refusals, the text so far beside each delta, usage in a corner, and an upstream that broke off."""
    refused = fed("openai", [chunk(content=None, refusal="No"), chunk(refusal="."), chunk("stop")])
    assert (refused.completion().text, refused.completion().finish_reason) == ("No.", "refusal")
    so_far = chunk(content="b")
    so_far["choices"][0]["message"] = {"content": "ab"}
    end: dict[str, Any] = {
        "choices": [{"index": 0, "delta": {}, "message": {"content": "ab"}, "finish_reason": "stop"}]
    }
    end["x_groq"] = {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    stream = fed("openai", [chunk(content="a"), so_far, end])
    assert stream.completion().text == "ab"
    assert stream.completion().usage == Usage(1, 2)
    broken = fed("openai", [chunk(content="a"), chunk("error")])
    assert broken.error is not None
    assert not broken.is_whole


# What services say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "code", "means"),
    [
        (401, "whatever", "", "key"),
        (403, "no access", "", "key"),
        (403, "input was flagged by moderation", "", "input"),
        (400, "API key not valid. Please pass a valid one.", "API_KEY_INVALID", "key"),
        (400, "Your credit balance is too low", "invalid_request_error", "payment"),
        (402, "pay first", "", "payment"),
        (429, "quota exceeded", "insufficient_quota", "payment"),
        (429, "You exceeded your current quota", "RESOURCE_EXHAUSTED", "service"),
        (529, "Overloaded", "overloaded_error", "service"),
        (500, "api key service is down", "", "service"),
        (404, "it is not supported for generateContent", "NOT_FOUND", "model"),
        (400, "lab/x is not a valid model ID", "400", "model"),
        (400, "Unsupported value: 'temperature' does not support 0.7", "unsupported_value", "option"),
        (400, "max_tokens: 9 > 8, which is the maximum allowed", "invalid_request_error", "option"),
        (400, "This model's maximum context length is 8192 tokens", "", "context"),
        (413, "too many tokens", "", "context"),
        (413, "request too large", "", "input"),
        (400, "something about this text", "", "input"),
    ],
)
def test_causes(status: int, message: str, code: str, means: Cause) -> None:
    """What is wrong is told by status, code and words, in that order."""
    assert cause(status, message, code) == means
    assert means in KINDS


def test_codes() -> None:
    """The most telling code of each format is found."""
    reasons = {
        "error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}
    }
    assert WIRES["gemini"].said(dumped([reasons])) == ("m", "API_KEY_INVALID")
    assert WIRES["anthropic"].said(dumped(ERRORS["anthropic"])) == ("no more", "overloaded_error")


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"message": "m", "details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "34s"}]}}, 34),
        ({"error": {"message": "Please retry in 48.9s.", "details": [{"retryDelay": "48s"}]}}, 48.9),
        ({"error": {"message": "Rate limit reached. Please try again in 6m0.5s."}}, 360.5),
        ({"error": {"message": "Please try again in 20ms."}}, 0.02),
        ({"error": {"message": "Please try again later."}}, None),
        ([{"error": {"message": "m", "details": [{"retryDelay": "2.5s"}]}}], 2.5),
        ({"error": {"message": "m", "details": [{"retryDelay": "soon"}]}}, None),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_waits(name: str, body: object, seconds: float | None) -> None:
    """A wait is read from the details or the message, the longer of both."""
    assert WIRES[name].retry_after(dumped(body)) == (None if seconds is None else pytest.approx(seconds))


def test_models() -> None:
    """The names of models come sorted; what cannot answer is left out where the service says so."""
    assert WIRES["openai"].models(b'{"data": [{"id": "b"}, {"id": "a"}, {}]}') == ["a", "b"]
    assert WIRES["openai"].models(b'[{"id": "b"}, {"name": "a"}]') == ["a", "b"]
    assert WIRES["anthropic"].models(b'{"data": [{"type": "model", "id": "c-1"}]}') == ["c-1"]
    listed = {
        "models": [
            {"name": "models/g-2", "supportedGenerationMethods": ["generateContent"]},
            {"name": "models/embed", "supportedGenerationMethods": ["embedContent"]},
            {"name": "models/g-1"},
        ]
    }
    assert WIRES["gemini"].models(dumped(listed)) == ["g-1", "g-2"]


# What can be left out ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message", "lost", "gained"),
    [
        (
            "openai",
            "Unsupported parameter: 'max_tokens' is not supported",
            {"max_tokens"},
            {"max_completion_tokens": 64},
        ),
        ("openai", "Unsupported value: 'temperature' does not support 1.3", {"temperature"}, {}),
        ("anthropic", "`temperature` and `top_p` cannot both be specified for this model", {"top_p"}, {}),
        ("anthropic", "`temperature` is deprecated for this model", {"temperature"}, {}),
    ],
)
def test_refused(name: str, message: str, lost: set[str], gained: dict[str, Any]) -> None:
    """What a model refuses is left out or renamed, and nothing else changes."""
    wire = WIRES[name]
    body = wire.body(FULL, "m")
    before, after = json.loads(body), json.loads(wire.spelt(body, wire.refused(body, message)))
    assert before.keys() - after.keys() == lost
    assert after == {**{field: value for field, value in before.items() if field not in lost}, **gained}


@pytest.mark.parametrize(
    ("name", "message", "becomes"),
    [
        (
            "openai",
            "Unsupported value: 'messages[0].role' does not support 'system'",
            {"model": "m", "messages": [{"role": "user", "content": "Be brief.\n\nWhy?"}]},
        ),
        (
            "gemini",
            "Developer instruction is not enabled for it",
            {"contents": [{"role": "user", "parts": [{"text": "Be brief."}, {"text": "Why?"}]}]},
        ),
    ],
)
def test_refused_system(name: str, message: str, becomes: object) -> None:
    """The words of a system that a model does not take go ahead of the first turn."""
    wire = WIRES[name]
    body = wire.body(Request("lab:m", (Message("system", "Be brief."), Message("user", "Why?"))), "m")
    assert wire.refused(body, message) == {"system": ""}
    assert json.loads(wire.spelt(body, {"system": ""})) == becomes


@pytest.mark.parametrize(
    "message", ["prompt is too long", "Unsupported parameter: 'stop' is not supported", "temperature must be below 2"]
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_never_left_out(name: str, message: str) -> None:
    """What the user asked for on purpose is never left out, nor is anything that was not refused."""
    assert WIRES[name].refused(WIRES[name].body(FULL, "m"), message) == {}
