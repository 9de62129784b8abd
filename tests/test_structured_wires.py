"""The form of an answer, asked for by each service's own means, and by weaker ones where those are refused."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import moa_nb as moa
from moa_nb.chat import Completion, Message, Request, Sampling, Schema
from moa_nb.errors import MoaError, RowError
from moa_nb.gateway import Gateway
from moa_nb.gateway.limits import Limiter
from moa_nb.gateway.route import Route, make_route
from moa_nb.providers.wire import WIRES
from moa_nb.settings import Settings, current, services
from moa_nb.store import Store
from moa_nb.testing import ChatServer, Clock, Reply

T = TypeVar("T")

FORM = {
    "type": "object",
    "properties": {"seed": {"type": "integer"}, "mood": {"anyOf": [{"enum": ["good", "bad"]}, {"type": "null"}]}},
    "required": ["seed", "mood"],
    "additionalProperties": False,
}
SCHEMA = Schema("row", json.dumps(FORM, separators=(",", ":")))
ASKED = {"type": "json_schema", "json_schema": {"name": "row", "strict": True, "schema": FORM}}
ANSWER = '{"seed": 7, "mood": null}'
TALK = (Message("system", "Answer with JSON."), Message("user", "Why?"))
SAMPLING = Sampling(temperature=0.7, max_tokens=64, seed=7)


def request(model: str = "lab:a", *, sampling: Sampling = SAMPLING, sample: int = 0, **extra: Any) -> Request:
    """One that has a schema; ``extra`` are further fields of its body."""
    drawn = replace(sampling, extra=tuple(sorted(extra.items())))
    return Request(model, TALK, drawn, sample, schema=SCHEMA)


def run(work: Callable[[Gateway], Coroutine[Any, Any, T]], *, store: Path | None = None) -> T:
    """What becomes of a gateway's work."""

    async def go() -> T:
        clock = Clock()
        gateway = Gateway(current(), Store(store), clock=clock.time, sleep=clock.sleep)
        try:
            return await work(gateway)
        finally:
            await gateway.close()
            gateway.store.close()

    return asyncio.run(go())


def ask(*asked: Request, watch: Any = None) -> list[Completion]:
    """What comes of requests, one after the other."""

    async def each(gateway: Gateway) -> list[Completion]:
        return [await gateway.complete(one, watch=watch) for one in asked]

    return run(each)


def route(model: str, settings: Settings | None = None) -> Route:
    """The way to a model."""
    clock = Clock()
    return make_route(model, settings or current(), lambda *_args, **_named: Limiter(8, clock=clock.time), clock.time)


def forms(server: ChatServer) -> list[Any]:
    """What each request that arrived asked for; ``None`` where it asked for no form."""
    return [(body.get("response_format") or {}).get("type") for body in (asked.body for asked in server.requests)]


# What is sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai", "litellm"])
def test_openai_asks_for_a_strict_schema(name: str) -> None:
    """The schema goes out whole, in the order of its fields, beside what else is asked."""
    body = json.loads(WIRES[name].body(request(), "m"))
    assert body["response_format"] == ASKED
    assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["seed", "mood"]
    assert (body["model"], body["temperature"], body["seed"], len(body["messages"])) == ("m", 0.7, 7, 2)


def test_anthropic_configures_its_output() -> None:
    """The format needs no header, and stands beside what the user configures."""
    body = json.loads(WIRES["anthropic"].body(request(output_config={"effort": "low"}), "m"))
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": FORM}}
    assert WIRES["anthropic"].headers("k").keys() == {"x-api-key", "anthropic-version"}


def test_gemini_names_the_type_and_the_schema() -> None:
    """Both stand in the config, beside the sampling and what the user adds to it."""
    body = json.loads(WIRES["gemini"].body(request(generationConfig={"candidateCount": 1}), "m"))
    assert body["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": FORM,
        "temperature": 0.7,
        "maxOutputTokens": 64,
        "seed": 7,
        "candidateCount": 1,
    }


OWN: list[tuple[str, dict[str, Any]]] = [
    ("openai", {"response_format": ASKED}),
    ("openai", {"response_format": {"type": "json_object"}}),
    ("litellm", {"response_format": {"type": "regex", "regex": "a"}}),
    ("anthropic", {"output_config": {"format": {"type": "json_schema", "schema": {}}}}),
    ("anthropic", {"output_format": {"type": "json_schema", "schema": {}}}),
    ("gemini", {"generationConfig": {"responseMimeType": "text/x.enum", "responseSchema": {}}}),
    ("gemini", {"generationConfig": {"response_json_schema": {}, "responseMimeType": "application/json"}}),
]


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLING])
@pytest.mark.parametrize(("name", "own"), OWN)
def test_the_user_s_own_field_wins(name: str, own: dict[str, Any], sampling: Sampling) -> None:
    """What the user asks for is sent as it is, schema or not, and never by weaker means."""
    wire = WIRES[name]
    body = wire.body(request(sampling=sampling, **own), "m")
    plain = wire.body(replace(request(sampling=sampling, **own), schema=None), "m")
    assert body == plain
    assert json.loads(body).items() >= own.items() or name == "gemini"
    assert wire.refused(body, "response_format: json_schema is bad, so are JSON mode and any schema") == {}
    assert json.loads(wire.spelt(body, {"schema": ""})) == json.loads(body)


PLAIN = {
    "openai": b'{"model":"m","messages":[{"role":"system","content":"Answer with JSON."},'
    b'{"role":"user","content":"Why?"}],"temperature":0.7,"max_tokens":64,"seed":7,"user":"u"}',
    "anthropic": b'{"model":"m","max_tokens":64,"system":"Answer with JSON.",'
    b'"messages":[{"role":"user","content":"Why?"}],"temperature":0.7,"user":"u"}',
    "gemini": b'{"systemInstruction":{"parts":[{"text":"Answer with JSON."}]},'
    b'"contents":[{"role":"user","parts":[{"text":"Why?"}]}],'
    b'"generationConfig":{"temperature":0.7,"maxOutputTokens":64,"seed":7},"user":"u"}',
}


@pytest.mark.parametrize("name", PLAIN)
def test_bodies_without_a_schema(name: str) -> None:
    """They are what they always were, byte for byte: kept answers are found by them."""
    assert WIRES[name].body(replace(request(user="u"), schema=None), "m") == PLAIN[name]


extras = st.dictionaries(st.sampled_from(["user", "top_k", "n"]), st.integers(1, 9)).map(
    lambda extra: tuple(sorted(extra.items()))
)
samplings = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 9999),
    top_p=st.none() | st.floats(0.01, 1),
    stop=st.none() | st.just(("END",)),
    extra=extras,
)


@pytest.mark.parametrize("name", WIRES)
@given(sampling=samplings, text=st.text(max_size=20))
def test_the_weakest_means_is_none(name: str, sampling: Sampling, text: str) -> None:
    """Whatever else is asked, without its means the request is the one that has no schema."""
    wire = WIRES[name]
    asked = Request("lab:m", (Message("user", text),), sampling, schema=SCHEMA)
    body = wire.body(asked, "m")
    plain = wire.body(replace(asked, schema=None), "m")
    assert json.loads(wire.spelt(body, {"schema": ""})) == json.loads(plain)
    assert json.loads(wire.spelt(plain, {"schema": ""})) == json.loads(plain)
    assert json.loads(wire.spelt(body, {"schema": "json_schema"})) == json.loads(body)
    half = wire.spelt(body, {"schema": "json_object"})
    assert wire.spelt(half, {"schema": ""}) == wire.spelt(body, {"schema": ""})
    assert SCHEMA.json.encode() not in half


# What is refused --------------------------------------------------------------------------------

REFUSALS = [
    (
        400,
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
    ),
    (400, "Invalid schema for response_format 'row': In context=('properties', 'seed'), 'minimum' is not permitted."),
    (400, "This model does not support response format `json_schema`."),
    (400, "response_format` does not support streaming"),
    (400, "Failed to generate JSON. Please adjust your prompt. See 'failed_generation' for more details."),
    (400, "This response_format type is unavailable now"),
    (
        422,
        "Failed to deserialize the JSON body: response_format.type `json_schema` is unavailable now at line 1 column 90",
    ),
    (400, "The response_format parameter is unsupported at the moment. Leave it unset."),
    (400, "'response_format.type' must be 'json_object' or 'text'"),
    (400, "The parameter `response_format.type` specified in the request are not valid: invalid value: `json_schema`"),
    (400, "Unsupported JSON schema fields: {'minItems', 'items'}"),
    (400, '"stream=true" with structured outputs is currently not supported for reasoning models.'),
    (400, "The provided JSON schema contains features not supported by xgrammar."),
    (400, 'response_format type must be one of "text" or "json_object", but got: json_schema'),
    (400, "Failed to initialize samplers: failed to parse grammar"),
    (400, 'invalid format: expected "json" or a JSON schema'),
    (400, "bedrock does not support parameters: ['response_format'], for model=amazon.titan-text"),
]


@pytest.mark.parametrize(("status", "words"), REFUSALS)
def test_a_refused_schema_is_asked_for_as_an_object(
    server: ChatServer, lab: Callable[..., None], status: int, words: str
) -> None:
    """In whatever words a service refuses, it is asked again for any object, and from then on at once."""

    def reply(body: dict[str, Any]) -> Reply:
        refused = body["response_format"]["type"] == "json_schema"
        return Reply(status=status, error=words) if refused else Reply(ANSWER)

    server.on("a", reply)
    assert [completion.text for completion in ask(request(), request(sample=1))] == [ANSWER, ANSWER]
    assert forms(server) == ["json_schema", "json_object", "json_object"]
    assert all(asked.body["seed"] == SAMPLING.seed for asked in server.requests)


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported parameter: 'response_format'",
        "'response_format.type' must be 'json_schema' or 'text'",
        "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        '[{"type":"extra_forbidden","loc":["body","response_format"],"msg":"Extra inputs are not permitted"}]',
    ],
)
def test_an_object_that_is_refused_too_is_not_asked_for(
    server: ChatServer, lab: Callable[..., None], words: str
) -> None:
    """What is left is the prompt, which states the form; the route remembers it."""
    server.on("a", lambda body: Reply(status=400, error=words) if "response_format" in body else Reply(ANSWER))
    assert [completion.text for completion in ask(request(), request(sample=1))] == [ANSWER, ANSWER]
    assert forms(server) == ["json_schema", "json_object", None, None]
    assert server.requests[-1].content == WIRES["openai"].body(replace(request(), schema=None), "a")


def test_calls_at_the_same_moment_learn_together(server: ChatServer, lab: Callable[..., None]) -> None:
    """Refusals that come late do no harm."""
    words = "response_format is not supported"
    server.on("a", lambda body: Reply(status=400, error=words) if "response_format" in body else Reply(ANSWER))

    async def at_once(gateway: Gateway) -> list[str]:
        asked = [gateway.complete(request(sample=number)) for number in range(12)]
        return [completion.text for completion in await asyncio.gather(*asked)]

    assert run(at_once) == [ANSWER] * 12


def test_other_refusals_leave_the_schema(server: ChatServer, lab: Callable[..., None]) -> None:
    """A field that is not taken is left out alone; what is wrong with a text is the row's error."""
    server.on(
        "a",
        lambda body: Reply(status=400, error="Unsupported parameter: 'seed'") if "seed" in body else Reply(ANSWER),
    ).on("b", Reply.too_long())
    assert ask(request())[0].text == ANSWER
    with pytest.raises(RowError, match=r"too long"):
        ask(request("lab:b"))
    assert forms(server) == ["json_schema"] * 3


def test_the_user_s_own_field_is_refused_for_good(server: ChatServer, lab: Callable[..., None]) -> None:
    """It is an option of the user's, and the error says so."""
    server.on("a", Reply(status=400, error="'response_format' of type 'json_schema' is not supported"))
    with pytest.raises(MoaError, match=r"does not take an option"):
        ask(request(response_format=ASKED))
    assert server.count() == 1


def test_what_is_learned_changes_no_key(server: ChatServer, lab: Callable[..., None], tmp_path: Path) -> None:
    """An answer that came by weaker means is found by a session that has not learned them."""
    server.on("a", lambda body: Reply(status=400, error="no json_schema") if "response_format" in body else ANSWER)
    store = tmp_path / "store.sqlite"
    first = run(lambda gateway: gateway.complete(request()), store=store)
    again = run(lambda gateway: gateway.complete(request()), store=store)
    assert (first.cached, again.cached, again.text, again.key) == (False, True, ANSWER, first.key)
    assert server.count(status=200) == 1


def test_known_services_are_not_asked_for_what_they_lack(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call is spent on learning what the list of services says."""
    for name, model, form in [
        ("deepseek", "deepseek-chat", "json_object"),
        ("groq", "llama-3.1-8b-instant", "json_object"),
        ("groq", "openai/gpt-oss-20b", "json_schema"),
        ("openai", "gpt-4.1-mini", "json_schema"),
        ("together", "m", "json_schema"),
    ]:
        service = services()[name]
        monkeypatch.setitem(services(), name, replace(service, base_url=server.base_url))
        assert service.key_env
        monkeypatch.setenv(service.key_env, f"sk-{name}-0123456789")
        ask(request(f"{name}:{model}"))
        assert forms(server) == [form]
        server.clear()


class Watching:
    """Wants a stream, and keeps its pieces."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def sent(self, attempt: int) -> None:
        """Nothing to do."""

    def piece(self, text: str) -> None:
        """Keep a piece of the answer."""
        self.pieces.append(text)

    def again(self, reason: str, wait_seconds: float) -> None:
        """Nothing to do."""


def test_streams(server: ChatServer, lab: Callable[..., None]) -> None:
    """A watched answer has its form too, and a refusal is asked around before its first piece."""
    server.on(
        "a",
        lambda body: (
            Reply(status=400, error="response_format` does not support streaming")
            if body["response_format"]["type"] == "json_schema"
            else Reply(ANSWER)
        ),
    )
    watch = Watching()
    (completion,) = ask(request(), watch=watch)
    assert completion.text == "".join(watch.pieces) == ANSWER
    assert [asked.body["stream"] for asked in server.requests] == [True, True]


def test_a_refusal_within_an_answer(server: ChatServer, lab: Callable[..., None]) -> None:
    """A model that will not answer says so in words of its own, which are the text."""
    message = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    server.on("a", Reply(body=json.dumps({"model": "a", "choices": [choice]}).encode()))
    (completion,) = ask(request())
    assert (completion.text, completion.finish_reason) == ("I can't help with that.", "refusal")


@pytest.mark.skipif(find_spec("litellm") is None, reason="litellm is not installed")
@pytest.mark.filterwarnings("ignore")
def test_litellm_passes_the_schema_on(server: ChatServer) -> None:
    """It is an argument as any other, and a refusal is read as that of a service is."""
    words = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
    server.on(
        "a",
        lambda body: Reply.bad_request(words) if body["response_format"]["type"] == "json_schema" else Reply(ANSWER),
    )
    (completion,) = ask(request("litellm:openai/a", api_base=server.base_url, api_key="sk-litellm-0123456789"))
    assert completion.text == ANSWER
    assert server.requests[0].body["response_format"] == ASKED
    assert server.requests[1].body["response_format"] == {"type": "json_object"}


# The other formats, over real HTTP --------------------------------------------------------------


def serving(wire: str, answer: Callable[[dict[str, Any]], tuple[int, Any]], *asked: Request) -> tuple[list[str], Any]:
    """What a server of another format makes of requests, and the bodies that it saw."""
    seen: list[dict[str, Any]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append(await request.json())
        status, body = answer(seen[-1])
        return web.json_response(body, status=status)

    async def go() -> list[str]:
        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        settings = Settings.model_validate({"providers": {"lab": {"base_url": base_url, "wire": wire}}})
        clock = Clock()
        gateway = Gateway(settings, Store(None), clock=clock.time, sleep=clock.sleep)
        try:
            return [(await gateway.complete(one)).text for one in asked]
        finally:
            await gateway.close()
            await runner.cleanup()

    return asyncio.run(go()), seen


@pytest.mark.parametrize(
    "words",
    [
        "'claude-3-haiku-20240307' does not support output format.",
        "output_config: Extra inputs are not permitted",
        "output_config.format: Extra inputs are not permitted",
        "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
        "The compiled grammar is too large, which would cause performance issues. Simplify your tool schemas",
        "invalid params",
    ],
)
def test_anthropic_refuses(words: str) -> None:
    """The format is left out, once and for all; what else is configured stays."""
    refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": words}}
    answer = {"type": "message", "model": "c", "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn"}

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return (400, refusal) if "format" in body["output_config"] else (200, answer)

    asked = [request(output_config={"effort": "low"}, sample=number) for number in range(2)]
    texts, seen = serving("anthropic", reply, *asked)
    assert texts == [ANSWER, ANSWER]
    assert [sorted(body["output_config"]) for body in seen] == [["effort", "format"], ["effort"], ["effort"]]


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ("responseMimeType", "JSON mode is not enabled for models/gemma-3-27b-it"),
        ("responseMimeType", "Tool use with a response mime type: 'application/json' is unsupported"),
        (
            "responseJsonSchema",
            "Invalid JSON payload received. Unknown name \"responseJsonSchema\" at 'generation_config': Cannot find field.",
        ),
        ("responseJsonSchema", "The specified schema produces a constraint that has too many states for serving."),
        ("responseJsonSchema", "Request contains an invalid argument."),
    ],
)
def test_gemini_refuses(refused: str, words: str) -> None:
    """The schema is left out first, then the type; the sampling stays."""
    refusal = {"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}
    answer = {"candidates": [{"content": {"parts": [{"text": ANSWER}]}, "finishReason": "STOP"}]}

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return (400, refusal) if refused in body["generationConfig"] else (200, answer)

    texts, seen = serving("gemini", reply, request(), request(sample=1))
    assert texts == [ANSWER, ANSWER]
    left = [sorted(body["generationConfig"].keys() & {"responseMimeType", "responseJsonSchema"}) for body in seen]
    steps = [["responseJsonSchema", "responseMimeType"], ["responseMimeType"], []]
    needed = steps if refused == "responseMimeType" else steps[:2]
    assert left == [*needed, needed[-1]]
    assert all(body["generationConfig"]["seed"] == SAMPLING.seed for body in seen)


# Python functions -------------------------------------------------------------------------------


class Row(BaseModel):
    """A row as pydantic has it."""

    seed: int
    mood: str | None = None


@dataclasses.dataclass
class Plain:
    """A row as a dataclass."""

    seed: int
    mood: str | None = None


def function(call: Callable[..., Any], schema: Schema | None = SCHEMA) -> str:
    """What a function's answer is."""
    asked = Request("function:f", TALK, schema=schema, function=call)
    return ask(asked)[0].text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"seed": 7, "mood": None}, '{"seed":7,"mood":null}'),
        (Row(seed=7), '{"seed":7,"mood":null}'),
        (Plain(7, "good"), '{"seed":7,"mood":"good"}'),
        ({"rows": [Row(seed=1), Plain(2)]}, '{"rows":[{"seed":1,"mood":null},{"seed":2,"mood":null}]}'),
        ([1, 2.5], "[1,2.5]"),
        (7, "7"),
        (True, "true"),
        (None, "null"),
        (float("nan"), "null"),
        ({"seed": np.int64(7), "all": np.array([1.5])}, '{"seed":7,"all":[1.5]}'),
        ({"mood": "\ud83d"}, '{"mood":"?"}'),
        (ANSWER, ANSWER),
        ("free text", "free text"),
    ],
)
def test_a_function_returns_fields(value: object, text: str) -> None:
    """Whatever JSON can say becomes JSON; a text stays as it is."""
    assert function(lambda _prompt: value) == text


def test_a_function_takes_the_schema() -> None:
    """By name, as a dict; where there is none it is not given."""

    def fields(prompt: str, schema: Mapping[str, Any] | None = None) -> dict[str, Any] | str:
        return dict.fromkeys(schema["required"], prompt) if schema else "none"

    async def later(schema: Mapping[str, Any]) -> Any:
        return schema

    assert function(fields) == '{"seed":"Why?","mood":"Why?"}'
    assert function(fields, schema=None) == "none"
    assert json.loads(function(later)) == FORM


@pytest.mark.parametrize("value", [object(), {"x": object()}, b"\xff"])
def test_what_a_function_cannot_return(value: object) -> None:
    """Something that is no JSON is one row's error, in one line."""
    with pytest.raises(RowError, match=r"^function 'f' returned \w+, which is no JSON: .+") as caught:
        function(lambda _prompt: value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [{"seed": 7}, 7, None])
def test_without_a_schema_a_function_returns_a_text(value: object) -> None:
    """As ever."""
    with pytest.raises(RowError, match=r"an agent returns a text"):
        function(lambda _prompt: value, schema=None)


# The cache's key --------------------------------------------------------------------------------


def test_keys_of_agents_that_are_no_services() -> None:
    """A schema tells two requests apart; without one the key is what it always was."""

    @moa.agent("keyed", version="1")
    def keyed(prompt: str) -> str:
        return prompt

    for model in ("offline:textrank", "function:keyed"):
        way = route(model)
        plain = Request(model, TALK, SAMPLING, references=("r",), material="m")
        turns = [message.to_dict() for message in TALK]
        body = way.body(plain)
        assert body == orjson.dumps([turns, ["r"], "m", 64, 0.7])
        others = [replace(plain, schema=schema) for schema in (SCHEMA, replace(SCHEMA, json="{}"))]
        keys = {way.key(one, way.body(one)) for one in (plain, *others)}
        assert len(keys) == 3
        assert None not in keys


def test_keys_of_services(lab: Callable[..., None]) -> None:
    """The schema is part of the body, so it is part of the key; what was learned is not."""
    way = route("lab:a")
    body = way.body(request())
    key = way.key(request(), body)
    assert key != way.key(request(), way.body(replace(request(), schema=None)))
    sent = way.sent(body, is_streamed=False)
    assert way.learn("response_format is not supported", sent, body, is_streamed=False)
    assert way.sent(body, is_streamed=False) != sent
    assert way.body(request()) == body
    assert way.key(request(), way.body(request())) == key
