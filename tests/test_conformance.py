"""Every recorded exchange is read as a person reads it: text, thoughts, reason to stop, tokens, kind of error.

The expectations were written from the bodies before any of them was parsed here. The exchanges themselves are
not part of the project; where their folder is absent, these tests are skipped.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web
from pydantic import SecretStr

from moa_nb.chat import Completion, Message, Request, Usage
from moa_nb.errors import MoaError
from moa_nb.gateway import Gateway
from moa_nb.gateway.events import Events
from moa_nb.providers.refusals import overflow
from moa_nb.providers.wire import KINDS, WIRES, Wire, cause
from moa_nb.settings import ProviderSettings, Settings
from moa_nb.store import Store
from moa_nb.testing import Clock

EXCHANGES = Path(__file__).parents[2] / "shared" / "data" / "http_exchanges" / "exchanges"
EXPECTATIONS = Path(__file__).with_name("conformance") / "expectations.jsonl"
API_WIRES = {
    "chat_completions": "openai",
    "anthropic_messages": "anthropic",
    "gemini_generate": "gemini",
    "gemini_stream": "gemini",
}
HOP_HEADERS = {"connection", "content-length", "content-encoding", "date", "keep-alive", "server", "transfer-encoding"}
"""What each server writes itself."""
KEY = "sk-loopback-000000000000"

T = TypeVar("T")

pytestmark = pytest.mark.skipif(not EXCHANGES.is_dir(), reason=f"no recorded exchanges at {EXCHANGES}")


@dataclass(frozen=True)
class Exchange:
    """One recorded answer and what it means."""

    id: str
    wire: Wire
    is_streamed: bool
    status: int
    headers: dict[str, str]
    body: bytes
    expected: dict[str, Any]


@functools.cache
def exchange(id_: str) -> Exchange:
    """One exchange by its id."""
    recorded = json.loads((EXCHANGES / f"{id_}.json").read_text("utf-8"))
    response = recorded["response"]
    return Exchange(
        id=id_,
        wire=WIRES[API_WIRES[recorded["api"]]],
        is_streamed=recorded["stream"],
        status=response["status"],
        headers={name: str(value) for name, value in response["headers"].items() if name.lower() not in HOP_HEADERS},
        body=response["body_text"].encode(),
        expected=expectations()[id_],
    )


@functools.cache
def expectations() -> dict[str, dict[str, Any]]:
    """What each exchange means, by its id."""
    lines = EXPECTATIONS.read_text("utf-8").splitlines()
    return {entry["id"]: entry for entry in map(json.loads, lines)}


def ids(outcome: str, *, streamed: bool | None = None) -> list[str]:
    """The exchanges with that outcome; the ids say which are streamed."""
    chosen = [id_ for id_, expected in expectations().items() if expected["outcome"] == outcome]
    return chosen if streamed is None else [id_ for id_ in chosen if ("_stream_" in id_) is streamed]


# Cuts -------------------------------------------------------------------------------------------


def in_one(body: bytes) -> Iterator[bytes]:
    """The body as it is."""
    yield body


def in_bytes(body: bytes) -> Iterator[bytes]:
    """The body, byte by byte."""
    return (body[place : place + 1] for place in range(len(body)))


def at_random(body: bytes) -> Iterator[bytes]:
    """The body in pieces of 1 to 700 bytes, the same on every run."""
    sizes = random.Random(len(body))
    place = 0
    while place < len(body):
        end = place + sizes.randint(1, sizes.choice((3, 40, 700)))
        yield body[place:end]
        place = end


def in_characters(body: bytes) -> Iterator[bytes]:
    """The body, cut in the middle of each character of several bytes and of each line end of two."""
    inside = [place for place, byte in enumerate(body) if byte & 0xC0 == 0x80 or body[place - 1 : place + 1] == b"\r\n"]
    for start, end in zip([0, *inside], [*inside, len(body)], strict=True):
        yield body[start:end]


CUTS: list[Callable[[bytes], Iterator[bytes]]] = [in_one, in_bytes, at_random, in_characters]


# Comparing --------------------------------------------------------------------------------------


def digest(text: str | None) -> str | None:
    """What an expectation holds in place of a text."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def seen(completion: Completion) -> dict[str, Any]:
    """A completion as an expectation is written, without its tokens."""
    text, thought = completion.text, completion.reasoning
    return {
        "text_length": len(text),
        "text_sha256": digest(text),
        "reasoning_length": None if thought is None else len(thought),
        "reasoning_sha256": digest(thought),
        "finish_reason": completion.finish_reason,
        "model": completion.model,
    }


def check(completion: Completion, recorded: Exchange) -> None:
    """Hold a completion against what its exchange means."""
    found = seen(completion)
    assert found == {name: recorded.expected[name] for name in found}


def run(work: Callable[[], Any]) -> Any:
    """What the coroutine function returns."""
    return asyncio.run(work())


# The formats alone ------------------------------------------------------------------------------


def test_every_exchange_has_its_expectation() -> None:
    """The expectations and the recorded exchanges are the same set."""
    assert sorted(expectations()) == sorted(file.stem for file in EXCHANGES.glob("*.json"))
    assert {exchange(id_).wire.name for id_ in expectations()} == set(API_WIRES.values())


def test_some_streams_have_characters_to_cut() -> None:
    """The cuts inside characters and line ends are made at all."""
    bodies = [exchange(id_).body for id_ in ids("completion", streamed=True)]
    assert sum(not body.isascii() for body in bodies) >= 2
    assert sum(b"\r\n" in body for body in bodies) >= 2


@pytest.mark.parametrize("id_", ids("completion", streamed=False))
def test_whole_answers(id_: str) -> None:
    """A whole answer is read right, tokens included."""
    recorded = exchange(id_)
    completion = recorded.wire.parse(recorded.body)
    check(completion, recorded)
    assert completion.usage == Usage(**recorded.expected["usage"])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("id_", ids("completion", streamed=True))
def test_streamed_answers(id_: str, cut: Callable[[bytes], Iterator[bytes]]) -> None:
    """A stream is read right however it is cut."""
    recorded = exchange(id_)
    stream, events = recorded.wire.new_stream(), Events()
    text = "".join([stream.feed(events.feed(piece)) for piece in cut(recorded.body)]) + stream.feed(events.rest())
    completion = stream.completion()
    assert stream.error is None
    assert stream.is_whole
    assert text == completion.text
    check(completion, recorded)
    assert completion.usage == Usage(**recorded.expected["usage"])


COSTS = {
    "157": 0.00031413,
    "159": 0.000235,
    "160": 0.000234,
    "164": 0.00333825,
    "165": 0.000837,
    "166": 0.000669,
    "167": 0.0,
    "170": 0.00502,
    "171": 0.00503,
    "173": 0.00501,
}
"""What the services say that an answer cost, by the number of its exchange; the others say nothing."""


@pytest.mark.parametrize("id_", ids("completion"))
def test_costs(id_: str) -> None:
    """The dollars that a service reports are read, and no others are made up."""
    recorded = exchange(id_)
    if recorded.is_streamed:
        stream, events = recorded.wire.new_stream(), Events()
        stream.feed(events.feed(recorded.body) + events.rest())
        completion = stream.completion()
    else:
        completion = recorded.wire.parse(recorded.body)
    assert completion.cost == COSTS.get(id_[:3])


LENGTHS = {"002": (200_000, 3_333_404), "043": (None, None), "046": (1_048_576, 1_250_074)}
"""How much fits and how much was sent, where an exchange ended for its length."""


@pytest.mark.parametrize("id_", ids("error"))
def test_lengths(id_: str) -> None:
    """A request that is too long is told from every other refusal, with its length where the service says it."""
    recorded = exchange(id_)
    message, code = recorded.wire.said(recorded.body)
    is_too_long = cause(recorded.status, message, code) == "context"
    assert (overflow(message) if is_too_long else None) == LENGTHS.get(id_[:3])


@pytest.mark.parametrize("id_", ids("error"))
def test_errors(id_: str) -> None:
    """An error's body says what is wrong, and never passes for an answer."""
    recorded = exchange(id_)
    message, code = recorded.wire.said(recorded.body)
    assert recorded.expected["phrase"] in message
    assert recorded.status == recorded.expected["status"]
    assert KINDS[cause(recorded.status, message, code)] == recorded.expected["kind"]
    assert recorded.wire.retry_after(recorded.body) == pytest.approx(recorded.expected["retry_after"])
    with pytest.raises(ValueError, match=r"."):
        recorded.wire.parse(recorded.body)


# The real client --------------------------------------------------------------------------------


@dataclass
class Playback:
    """A loopback server that answers every question with one recorded answer."""

    recorded: Exchange
    cut: Callable[[bytes], Iterator[bytes]] = in_one
    asked: list[web.BaseRequest] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The recorded answer; a list of models to whoever asks for that."""
        if request.method == "GET":
            return web.json_response({"data": [{"id": "listed"}], "models": [{"name": "models/listed"}]})
        self.asked.append(request)
        self.bodies.append(await request.read())
        response = web.StreamResponse(status=self.recorded.status, headers=self.recorded.headers)
        await response.prepare(request)
        for piece in self.cut(self.recorded.body):
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def ask(self, *, watch: Watcher | None) -> Completion:
        """What the real client makes of it."""
        runner = web.ServerRunner(web.Server(self.answer))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            clock = Clock()
            provider = settings_of(self.recorded.wire, f"http://127.0.0.1:{self.port}/v1")
            settings = Settings(providers={"lab": provider}, deadline=60, retry_seconds=5)
            gateway = Gateway(settings, Store(None), clock=clock.time, sleep=clock.sleep)
            try:
                request = Request("lab:alpha", (Message("system", "Be brief."), Message("user", "Why?")))
                return await gateway.complete(request, watch=watch, cache="off")
            finally:
                await gateway.close()
        finally:
            await runner.cleanup()


@dataclass
class Watcher:
    """Collects what a watched call shows."""

    pieces: list[str] = field(default_factory=list)

    def sent(self, attempt: int) -> None:
        """Nothing to do."""

    def piece(self, text: str) -> None:
        """Keep a piece of the answer."""
        self.pieces.append(text)

    def again(self, reason: str, wait_seconds: float) -> None:
        """Nothing to do."""


def settings_of(wire: Wire, base_url: str) -> ProviderSettings:
    """Return a provider that speaks this format."""
    fields: dict[str, Any] = {"wire": wire.name, "base_url": base_url, "key": SecretStr(KEY)}
    return ProviderSettings(**fields)


def check_asked(played: Playback, *, streamed: bool) -> None:
    """Hold what the client sent against its format."""
    wire = played.recorded.wire
    url = wire.url(f"http://127.0.0.1:{played.port}/v1", "alpha", streamed)
    request = Request("lab:alpha", (Message("system", "Be brief."), Message("user", "Why?")))
    body = wire.streamed(wire.body(request, "alpha")) if streamed else wire.body(request, "alpha")
    message, _ = wire.said(played.recorded.body)
    for number, (asked, sent) in enumerate(zip(played.asked, played.bodies, strict=True)):
        assert url.endswith(asked.path_qs)
        assert {name: asked.headers.get(name) for name in wire.headers(KEY)} == wire.headers(KEY)
        # What the service refuses is left out when it is asked again.
        assert sent == (wire.spelt(body, wire.refused(body, message)) if number else body)


def check_client(played: Playback, watch: Watcher | None) -> None:
    """Ask through the client and hold what comes against the expectation."""
    completion = run(functools.partial(played.ask, watch=watch))
    check(completion, played.recorded)
    expected = Usage(**played.recorded.expected["usage"])
    unknown = [name for name in ("prompt_tokens", "completion_tokens") if getattr(expected, name) is None]
    # What no service reported is estimated, and says so.
    assert completion.usage.estimated is bool(unknown)
    for name in (
        "prompt_tokens",
        "completion_tokens",
        "cached_prompt_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
    ):
        assert name in unknown or getattr(completion.usage, name) == getattr(expected, name)
    assert completion.attempts == 1
    check_asked(played, streamed=watch is not None)


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("id_", ids("completion", streamed=False))
def test_client_whole_answers(id_: str, is_watched: bool) -> None:
    """Whole answers come through the client as they are, to a request for a stream too."""
    check_client(Playback(exchange(id_)), Watcher() if is_watched else None)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("id_", ids("completion", streamed=True))
def test_client_streams(id_: str, cut: Callable[[bytes], Iterator[bytes]]) -> None:
    """Streams come through the client as they are, however they are cut, and are shown piece by piece."""
    watch = Watcher()
    check_client(Playback(exchange(id_), cut), watch)
    assert digest("".join(watch.pieces)) == exchange(id_).expected["text_sha256"]


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("id_", ids("error"))
def test_client_errors(id_: str, is_watched: bool) -> None:
    """Errors come through the client with their kind, the service's own words and never the key."""
    recorded = exchange(id_)
    played = Playback(recorded)
    with pytest.raises(MoaError) as caught:
        run(functools.partial(played.ask, watch=Watcher() if is_watched else None))
    error = caught.value
    assert error.kind == recorded.expected["kind"]
    assert recorded.expected["phrase"] in str(error)
    assert KEY not in str(error)
    assert "\n" not in str(error)
    is_asked_again = error.kind == "service"
    assert is_asked_again or str(recorded.status) in str(error)
    # Where a system's words are refused, they are put into the first turn and asked once more.
    is_mended = "messages[0].role" in str(error)
    assert (error.attempts > 1) is (is_asked_again or is_mended)
    assert len(played.asked) == error.attempts
    check_asked(played, streamed=is_watched)
