"""What differs from service to service: data about them, what they bill, how they refuse, where they echo a key."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from aiohttp import web
from hypothesis import assume, given
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.chat import Completion, Message, Request, Sampling, Usage
from moa_nb.errors import MoaError, RowError, SettingsError
from moa_nb.gateway import Gateway
from moa_nb.gateway.prices import price_of
from moa_nb.gateway.refusal import said, without_keys
from moa_nb.providers.refusals import Overflow, cause, overflow
from moa_nb.providers.secrecy import HIDDEN, secrets, without
from moa_nb.providers.wire import WIRES
from moa_nb.settings import ModelSettings, Settings, current, services
from moa_nb.store import Store
from moa_nb.testing import ChatServer, Clock, Reply

T = TypeVar("T")

SAMPLING = Sampling(temperature=0.7, max_tokens=64, top_p=0.9, seed=7)
TALK = (Message("system", "Be brief."), Message("user", "Why?"))


def ask(model: str, *, settings: Settings | None = None, watch: Any = None) -> Completion:
    """What the gateway makes of one question."""

    async def go() -> Completion:
        clock = Clock()
        gateway = Gateway(settings or current(), Store(None), clock=clock.time, sleep=clock.sleep)
        try:
            return await gateway.complete(Request(model, TALK, SAMPLING), watch=watch)
        finally:
            await gateway.close()

    return asyncio.run(go())


class Watching:
    """Wants a stream, and keeps nothing of it."""

    def sent(self, attempt: int) -> None:
        """Nothing to do."""

    def piece(self, text: str) -> None:
        """Nothing to do."""

    def again(self, reason: str, wait_seconds: float) -> None:
        """Nothing to do."""


@pytest.fixture
def at_home(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Called with a service's name: the server is that service from now on, and its key is known."""

    def move(name: str) -> None:
        service = services()[name]
        monkeypatch.setitem(services(), name, replace(service, base_url=server.base_url))
        if service.key_env:
            monkeypatch.setenv(service.key_env, f"sk-{name}-0123456789")

    return move


# What is known of services ----------------------------------------------------------------------


def test_the_order_of_services() -> None:
    """Those with a key come first, in the order that is stated; then what needs neither; servers here come last."""
    names = list(services())
    with_keys = [name for name, service in services().items() if service.key_env]
    local = [name for name, service in services().items() if service.local]
    assert names == [*with_keys, "litellm", *local]
    assert with_keys == [
        *("openai", "anthropic", "gemini", "openrouter", "together", "groq", "mistral", "deepseek"),
        *("xai", "cerebras", "fireworks", "perplexity", "huggingface", "azure"),
    ]


@pytest.mark.parametrize("name", services())
def test_default_models_are_priced(name: str) -> None:
    """A service has all its default models or none, and each of them has a known price."""
    service = services()[name]
    roles = service.roles()
    has_defaults = [bool(models) for models in roles.values()]
    assert all(has_defaults) or not any(has_defaults)
    assert all(has_defaults) is bool(service.key_env and name not in {"huggingface", "azure"})
    for model in {model for models in roles.values() for model in models}:
        price = price_of(model, Settings().provider(model), None)
        assert price is not None
        assert price.worst(1000, 1000) > 0


@pytest.mark.parametrize("name", services())
def test_services_speak_a_known_format(name: str) -> None:
    """The data name formats that there are, and fields by their names in those."""
    service = services()[name]
    assert service.wire in WIRES
    spellings = [service.fields, *service.models.values()]
    fields = {"max_tokens", "temperature", "top_p", "seed", "stream_options", "system", "schema"}
    assert all(spelling.keys() <= fields for spelling in spellings)
    assert all(spelling.get("schema", "") in {"json_object", ""} for spelling in spellings)


@pytest.mark.parametrize(
    ("model", "spelling"),
    [
        ("openai:gpt-4.1", {"max_tokens": "max_completion_tokens"}),
        ("openai:o3-mini", {"max_tokens": "max_completion_tokens", "temperature": "", "top_p": ""}),
        ("openai:gpt-5-mini", {"max_tokens": "max_completion_tokens", "temperature": "", "top_p": ""}),
        ("openai:gpt-5-chat-latest", {"max_tokens": "max_completion_tokens"}),
        ("openai:openai-omni", {"max_tokens": "max_completion_tokens"}),
        ("azure:gpt-5-mini", {"max_tokens": "max_completion_tokens"}),
        ("azure:mine", {}),
        ("gemini:gemma-3-27b-it", {"system": "", "schema": ""}),
        ("mistral:mistral-small-latest", {"seed": "random_seed", "stream_options": ""}),
        ("groq:openai/gpt-oss-20b", {}),
        ("groq:llama-3.3-70b-versatile", {"schema": "json_object"}),
        ("deepseek:deepseek-chat", {"schema": "json_object"}),
    ],
)
def test_spellings(model: str, spelling: dict[str, str]) -> None:
    """A service's own names of fields are found by the model's name."""
    assert spelling_of(model, Settings()) == spelling


def spelling_of(model: str, settings: Settings) -> dict[str, str]:
    """The spelling of a ``provider:model``."""
    return settings.provider(model).spelling(model.partition(":")[2])


def test_another_server_under_a_service_s_name_is_sent_what_the_format_says() -> None:
    """Such a server may not know the service's names, and would answer without a bound."""
    moved = Settings.model_validate({"providers": {"openai": {"base_url": "http://127.0.0.1:9/v1"}}})
    assert spelling_of("openai:gpt-4.1", moved) == {}
    named = Settings.model_validate({"providers": {"openai": {"base_url": "https://api.openai.com/v1/"}}})
    assert spelling_of("openai:gpt-4.1", named) == {"max_tokens": "max_completion_tokens"}


def test_an_address_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's address comes from its variable, or from the settings; without either the line names both."""
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(SettingsError, match=r"AZURE_OPENAI_ENDPOINT.*providers\.azure\.base_url"):
        _ = Settings().provider("azure:mine").base_url
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://lab.openai.azure.com/")
    assert Settings().provider("azure:mine").base_url == "https://lab.openai.azure.com/openai/v1"
    own = Settings.model_validate({"providers": {"azure": {"base_url": "https://lab.example/openai/v1"}}})
    assert own.provider("azure:mine").base_url == "https://lab.example/openai/v1"
    assert own.provider("azure:mine").key_env == "AZURE_OPENAI_API_KEY"


def test_the_key_of_a_service_stays_with_it() -> None:
    """An address in the settings does not inherit the key of the service whose name it takes."""
    moved = Settings.model_validate({"providers": {"openai": {"base_url": "https://elsewhere.example/v1"}}})
    assert moved.provider("openai:gpt-4.1").key_env is None


# What is sent to them ---------------------------------------------------------------------------


def test_reasoning_models_are_asked_once(server: ChatServer, at_home: Callable[[str], None]) -> None:
    """What a model is known to refuse is not sent, so no call is spent on learning it."""
    at_home("openai")
    ask("openai:o3-mini")
    (asked,) = server.requests
    assert asked.body["max_completion_tokens"] == SAMPLING.max_tokens
    assert not {"max_tokens", "temperature", "top_p"} & asked.body.keys()
    assert asked.body["seed"] == SAMPLING.seed


def test_mistral_s_fields(server: ChatServer, at_home: Callable[[str], None]) -> None:
    """Its seed has another name, and it does not know the options of streams."""
    at_home("mistral")
    ask("mistral:m", watch=Watching())
    (asked,) = server.requests
    assert asked.body["random_seed"] == SAMPLING.seed
    assert asked.body["stream"] is True
    assert not {"seed", "stream_options"} & asked.body.keys()


def test_azure_s_key(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key stands in the header that the service wants, and in no other."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.base_url.removesuffix("/v1"))
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-0123456789")
    ask("azure:mine")
    (asked,) = server.requests
    assert asked.headers["api-key"] == "azure-0123456789"
    assert "Authorization" not in asked.headers


def picky(body: dict[str, Any]) -> Reply:
    """Refuses one after the other: seed, top_p, then the name of the bound, with the status of a validation."""
    for field in ("seed", "top_p", "max_tokens"):
        if field in body:
            return Reply(status=422, error=f"Extra inputs are not permitted: {field}")
    return Reply("at last")


def test_what_is_refused_is_learned_once(server: ChatServer, lab: Callable[..., None]) -> None:
    """Each refusal is asked around, and the next call to the model knows them all."""
    server.on("a", picky)
    settings = current()

    async def go() -> list[str]:
        gateway = Gateway(settings, Store(None))
        try:
            texts = [(await gateway.complete(Request("lab:a", TALK, SAMPLING, sample=n))).text for n in range(2)]
        finally:
            await gateway.close()
        return texts

    assert asyncio.run(go()) == ["at last", "at last"]
    assert server.count(status=422) == 3
    assert server.count(status=200) == 2
    assert server.requests[-1].body["max_completion_tokens"] == SAMPLING.max_tokens


def test_refusals_at_the_same_moment(server: ChatServer, lab: Callable[..., None]) -> None:
    """Calls that were under way when another one learned go on with what it learned."""
    server.on("a", picky)
    settings = current()

    async def go() -> list[str]:
        gateway = Gateway(settings, Store(None))
        try:
            asked = [gateway.complete(Request("lab:a", TALK, SAMPLING, sample=n)) for n in range(8)]
            return [completion.text for completion in await asyncio.gather(*asked)]
        finally:
            await gateway.close()

    assert asyncio.run(go()) == ["at last"] * 8


def test_a_model_that_refuses_both_names_is_not_asked_for_ever(
    server: ChatServer,
    lab: Callable[..., None],
) -> None:
    """Where neither name of a field will do, the service's word is taken for the last."""
    server.on(
        "a",
        lambda body: Reply(
            status=400,
            error=f"{next(field for field in body if field.endswith('tokens'))} is not supported",
        ),
    )
    with pytest.raises(MoaError, match=r"is not supported"):
        ask("lab:a")
    assert server.count() == 3


# What they bill ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 0.25}, 0.25),
        ({"cost": 0}, 0.0),
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, 0.21),
        ({"cost": 0.01, "is_byok": True, "cost_details": {}}, None),
        ({"cost": 0.3, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.3}}, 0.3),
        ({"cost": {"input_tokens_cost": 1, "request_cost": 0.005, "total_cost": 0.006}}, 0.006),
        ({"cost_in_usd_ticks": 37_756_000}, 0.0037756),
        ({"cost_in_usd_ticks": 0}, None),
        ({"cost": "0.2"}, None),
        ({"cost": -1}, None),
        ({"cost": True}, None),
        ({}, None),
    ],
)
def test_reported_dollars(usage: dict[str, Any], cost: float | None) -> None:
    """A service's own figure is read in its own unit, whole or streamed; what makes no sense is no figure."""
    wire = WIRES["openai"]
    counted = {"prompt_tokens": 1, "completion_tokens": 1, **usage}
    choice = {"index": 0, "finish_reason": "stop"}
    whole = {"choices": [{**choice, "message": {"content": "x"}}], "usage": counted}
    stream = wire.new_stream()
    stream.feed([json.dumps({"choices": [{**choice, "delta": {"content": "x"}}]}).encode()])
    stream.feed([json.dumps({"choices": [], "usage": counted}).encode()])
    for completion in (wire.parse(json.dumps(whole).encode()), stream.completion()):
        assert completion.cost == (None if cost is None else pytest.approx(cost))


def test_the_service_s_figure_counts(server: ChatServer, lab: Callable[..., None]) -> None:
    """Where a service says what an answer cost, that is its cost, whatever the list of prices says."""
    server.on("a", Reply("x", usage={"prompt_tokens": 10, "completion_tokens": 10, "cost": 0.125}))
    assert ask("lab:a").cost == 0.125


tokens = st.none() | st.integers(0, 10**7)
usages = st.builds(Usage, tokens, tokens, tokens, tokens, tokens)
MODELS = ["xai:grok-4.3", "xai:grok-4-1-fast-non-reasoning", "anthropic:claude-haiku-4-5", "perplexity:sonar", "lab:x"]


@pytest.mark.parametrize("model", MODELS)
@given(usage=usages)
def test_costs_make_sense(model: str, usage: Usage) -> None:
    """Whatever a service reports, even more cached than sent, the cost is a number that its worst case bounds."""
    configured = ModelSettings(prompt_price=3, completion_price=15, cached_prompt_price=0.3)
    settings = Settings.model_validate({"providers": {"lab": {"base_url": "http://127.0.0.1:9"}}})
    price = price_of(model, settings.provider(model), configured if model == "lab:x" else None)
    assert price is not None
    cost = price.cost(usage)
    if usage.prompt_tokens is None and usage.completion_tokens is None:
        assert cost is None
        return
    assert cost is not None
    assert math.isfinite(cost)
    assert 0 <= cost <= price.worst(usage.prompt_tokens or 0, usage.completion_tokens or 0) * (1 + 1e-9)


def test_prices_behind_a_router() -> None:
    """A router's model is priced as the service that its name ends in; without one nobody knows."""
    of = Settings().provider
    named, bare, wrong = (f"huggingface:openai/gpt-oss-20b{end}" for end in (":groq", "", ":nobody"))
    assert price_of(named, of(named), None) is not None
    assert price_of(bare, of(bare), None) is None
    assert price_of(wrong, of(wrong), None) is None


# How they refuse --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "means"),
    [
        (
            {"error": {"code": 403, "message": "no", "metadata": {"reasons": ["violence"], "flagged_input": "…"}}},
            "input",
        ),
        ({"error": {"code": 403, "message": "The model requires moderation. Your input was flagged."}}, "input"),
        (
            {
                "code": "The caller does not have permission to execute the specified operation",
                "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
            },
            "input",
        ),
        ({"code": "permission-denied", "error": "Access to the chat endpoint is denied"}, "key"),
        ({"error": {"message": "Your organization must be verified", "type": "permission_error"}}, "key"),
        ({"error": {"message": "Country, region, or territory not supported"}}, "key"),
    ],
)
def test_403(body: dict[str, Any], means: str) -> None:
    """A text that a service does not want is one row's matter; a key that may not is everybody's."""
    assert cause(403, *WIRES["openai"].said(json.dumps(body).encode())) == means


def test_a_flagged_text_is_one_row_s_matter(server: ChatServer, lab: Callable[..., None]) -> None:
    """The run goes on after a 403 that is about the text, and stops at one that is about the key."""
    server.on("a", Reply(status=403, error="Your input was flagged")).on("b", Reply(status=403, error="Forbidden"))
    with pytest.raises(RowError, match=r"flagged"):
        ask("lab:a")
    with pytest.raises(MoaError, match=r"Forbidden") as caught:
        ask("lab:b")
    assert caught.value.kind == "setup"


@pytest.mark.parametrize("is_watched", [False, True])
def test_an_error_sent_as_an_answer_that_went_well(
    server: ChatServer,
    lab: Callable[..., None],
    is_watched: bool,
) -> None:
    """The status that such a body says itself decides: a flagged text is not asked again."""
    error = {"error": {"message": "Your input was flagged", "code": 403}}
    if is_watched:
        headers = {"Content-Type": "text/event-stream"}
        server.on("a", Reply(body=b"data: " + json.dumps(error).encode() + b"\n\n", headers=headers))
    else:
        server.on("a", Reply(body=json.dumps(error).encode()))
    with pytest.raises(RowError, match=r"flagged"):
        ask("lab:a", watch=Watching() if is_watched else None)
    assert server.count() == 1


def test_what_the_service_behind_a_router_said() -> None:
    """A router's empty words are followed by those of the service behind it, which tell what is wrong."""
    raw = json.dumps({"error": {"message": "This model's maximum context length is 8192 tokens.", "code": "x"}})
    body = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}
    message, code = WIRES["openai"].said(json.dumps(body).encode())
    assert message == "Provider returned error: This model's maximum context length is 8192 tokens."
    assert cause(400, message, code) == "context"


@pytest.mark.parametrize(
    ("message", "context", "prompt"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 10010 tokens.",
            8192,
            10010,
        ),
        (
            (
                "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (112946 in the"
                " messages, 10000 in the completion). Please reduce the length of the messages."
            ),
            16384,
            112946,
        ),
        (
            (
                "This endpoint's maximum context length is 131072 tokens. However, you requested about 200000 tokens"
                " (199000 of text input, 1000 in the output)."
            ),
            131072,
            199000,
        ),
        ("input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000", 200_000, 199_000),
        ("Prompt contains 66385 tokens, too large for model with 32768 maximum context length", 32768, 66385),
        (
            "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
            8192,
            9000,
        ),
        ("This model's maximum prompt length is 131072 but the request contains 200000 tokens.", 131072, 200_000),
        ("The prompt is too long: 200000, model maximum context length: 131071", 131071, 200_000),
        (
            (
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097."
                " Given: 5013 `inputs` tokens and 128 `max_new_tokens`"
            ),
            4097,
            5013,
        ),
        ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", 4096, 5000),
        ("the request exceeds the available context size. try increasing the context size", None, None),
        (
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is 4096"
                " tokens and your request has 300 input tokens (4000 > 4096 - 300)."
            ),
            4096,
            300,
        ),
    ],
)
def test_phrasings_of_a_length(message: str, context: int | None, prompt: int | None) -> None:
    """However a service says that a text is too long, it is that, with the numbers that it names."""
    assert cause(400, message) == "context"
    assert overflow(message) == Overflow(context, prompt)


def test_a_bound_that_no_text_leaves_room_for() -> None:
    """An answer that may be longer than the whole context is an option of every request, not this text's length."""
    message = "max_tokens is too large: 9000. This model's maximum context length is 4096 tokens"
    assert cause(400, message) == "option"


def test_the_line_says_how_long_the_context_is(server: ChatServer, lab: Callable[..., None]) -> None:
    """Both lengths and what to do, before the service's own words."""
    server.on("a", Reply(status=400, error="prompt is too long: 3333404 tokens > 200000 maximum"))
    with pytest.raises(RowError) as caught:
        ask("lab:a")
    assert str(caught.value) == (
        "lab: too long for 'a' (400), it has 3,333,404 tokens, 200,000 fit:"
        " prompt is too long: 3333404 tokens > 200000 maximum [invalid_request_error]; shorten it"
    )


def test_a_service_that_broke_off_gave_no_answer() -> None:
    """A reason to stop that is a failure is none, whole or streamed."""
    wire = WIRES["openai"]
    for reason in ("error", "insufficient_system_resource"):
        body = {"choices": [{"message": {"content": "half"}, "finish_reason": reason}]}
        with pytest.raises(ValueError, match=r"error"):
            wire.parse(json.dumps(body).encode())
        stream = wire.new_stream()
        stream.feed([json.dumps({"choices": [{"delta": {"content": "half"}, "finish_reason": reason}]}).encode()])
        assert stream.error is not None
        assert not stream.is_whole


# What they list ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "url", "listed", "following"),
    [
        (
            "gemini",
            "https://g/models?pageSize=1000",
            {"nextPageToken": "a/b"},
            "https://g/models?pageSize=1000&pageToken=a%2Fb",
        ),
        ("gemini", "https://g/models?x=1&pageToken=a", {"nextPageToken": "b"}, "https://g/models?x=1&pageToken=b"),
        ("gemini", "https://g/models?pageToken=a&x=1", {"nextPageToken": "b"}, "https://g/models?x=1&pageToken=b"),
        ("gemini", "https://g/models", {"models": []}, None),
        (
            "anthropic",
            "https://c/models?limit=9",
            {"has_more": True, "last_id": "m"},
            "https://c/models?limit=9&after_id=m",
        ),
        ("anthropic", "https://c/models?limit=9", {"has_more": False, "last_id": "m"}, None),
        ("openai", "https://o/models", {"data": []}, None),
    ],
)
def test_pages_of_models(name: str, url: str, listed: dict[str, Any], following: str | None) -> None:
    """Where a list goes on is found in what was listed."""
    assert WIRES[name].next_page(url, json.dumps(listed).encode()) == following


def test_a_long_list_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of all pages come as one sorted list, each page asked for with the key."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    asked = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append((request.query_string, request.headers["x-goog-api-key"]))
        number = int(request.query.get("pageToken", 0))
        listed: dict[str, Any] = {"models": [{"name": f"models/m-{9 - number}"}]}
        return web.json_response({**listed, "nextPageToken": str(number + 1)} if number < 2 else listed)

    async def go() -> list[str]:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1beta"
        monkeypatch.setitem(services(), "gemini", replace(services()["gemini"], base_url=base_url))
        gateway = Gateway(Settings(), Store(None))
        try:
            return await gateway.list_models(Settings().provider("gemini:x"))
        finally:
            await gateway.close()
            await runner.cleanup()

    assert asyncio.run(go()) == ["m-7", "m-8", "m-9"]
    assert asked == [
        ("pageSize=1000", KEY),
        ("pageSize=1000&pageToken=1", KEY),
        ("pageSize=1000&pageToken=2", KEY),
    ]


# Where a key is echoed --------------------------------------------------------------------------

KEY = "sk-proj-Ab3/xY+9_q-Zz0.Kk7=W"
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60)


def shapes(key: str) -> Iterator[str]:
    """A key as services echo it."""
    yield key
    yield quote(key, safe="")
    yield quote(key)
    yield "".join(f"%{ord(one):02x}" for one in key)
    yield json.dumps(key)
    yield json.dumps(key).replace("/", "\\/")
    yield "".join(f"\\u{ord(one):04x}" for one in key)
    yield "".join(f"&#{ord(one)};" for one in key)
    for user in ("", "u", "me", "user"):
        yield base64.b64encode(f"{user}:{key}".encode()).decode()
    yield base64.b64encode(f"{key}:".encode()).decode()
    yield base64.urlsafe_b64encode(key.encode()).decode()
    yield f"'{key}'."
    yield key[: len(key) // 2 + 4]


def leaked(text: str, key: str) -> bool:
    """Whether a text has eight characters of a key in a row, in whatever spelling."""
    pieces = [key[start : start + 8] for start in range(len(key) - 7)]
    spelled = [quote(piece, safe="") for piece in pieces] + [json.dumps(piece)[1:-1] for piece in pieces]
    return any(piece in text for piece in [*pieces, *spelled])


@given(key=keys, before=st.text(max_size=30), after=st.text(max_size=30), data=st.data())
def test_an_echoed_key_is_taken_out(key: str, before: str, after: str, data: st.DataObject) -> None:
    """In whatever shape a service echoes the key, and in whatever words, it does not come through."""
    shape = data.draw(st.sampled_from(list(shapes(key))))
    assume(not leaked(before, key))
    assume(not leaked(after, key))
    shown = without_keys(f"{before} {shape} {after}", {"Authorization": f"Bearer {key}"})
    assert not leaked(shown, key)
    assert shape not in shown
    assert HIDDEN in shown


@pytest.mark.parametrize("mask", ["*", "****", "...", "…", "••••", "xxxx", " ... "])
@pytest.mark.parametrize(("first", "last"), [(8, 4), (3, 4), (0, 4), (8, 0), (4, 3)])
def test_a_starred_key_is_taken_out(mask: str, first: int, last: int) -> None:
    """What a service leaves of a key beside its stars is taken out too, and the words around it stay."""
    starred = KEY[:first] + mask + (KEY[-last:] if last else "")
    shown = without(f"Your key: {starred.strip()}, is wrong. See https://x.example/keys", [KEY])
    assert KEY[:first] not in shown or not first
    assert KEY[-last:] not in shown or not last
    assert shown.startswith("Your key: [key]")
    assert shown.endswith("is wrong. See https://x.example/keys")


def test_words_that_are_no_key_stay() -> None:
    """Stars and dots in other words are left alone, and so is a text without a key."""
    words = "**bold** wait... what? 2*3=6 and %20 &amp; \\u00e9, sk-live keys start otherwise"
    assert without(words, ["pk-0123456789abcdef"]) == words
    assert without(words, []) == words
    assert without("x marks it", ["x"]) == "[key] marks it"


def test_every_header_that_may_hold_a_key_is_looked_at() -> None:
    """Schemes are no part of a key, and a pair of user and password is known in the clear too."""
    pair = base64.b64encode(b"analyst:hunter2-hunter2").decode()
    headers = {"Authorization": f"Basic {pair}", "api-key": KEY, "X-Trace": "visible", "Cookie": "a=b; c=d"}
    assert secrets(headers) == [pair, KEY, "a=b; c=d"]
    shown = without(f"{pair} of hunter2-hunter2 with {KEY} and visible", secrets(headers))
    assert shown == "[key] of [key] with [key] and visible"


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini"])
def test_bodies_that_echo_a_key(name: str) -> None:
    """Through whole JSON, cut JSON and a web page, a service's message comes without the key."""
    wire = WIRES[name]
    headers = wire.headers(KEY)
    whole = json.dumps({"error": {"message": f"bad key {KEY}", "code": KEY}}).replace("/", "\\/")
    for body in (whole, whole[:-4], f"<html><b>bad key {quote(KEY)}</b></html>", f'{{"detail":[{{"input":"{KEY}"}}]}}'):
        shown = said(wire, body.encode(), headers)
        assert not leaked(shown, KEY)
        assert HIDDEN in shown


def test_a_key_never_comes_back_in_an_error(server: ChatServer) -> None:
    """Nor in the error that the user sees, whatever the service does with it."""
    moa.configure(providers={"lab": {"base_url": server.base_url, "key": KEY}})
    server.on("a", Reply(status=400, error="no: {key} " + quote(KEY, safe="")))
    with pytest.raises(MoaError) as caught:
        ask("lab:a")
    assert not leaked(str(caught.value), KEY)
