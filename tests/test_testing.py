"""The fakes that every other test leans on: the scripted chat server and the clock."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import pytest

from moa_nb import testing
from moa_nb.testing import ChatServer, Clock, Recorded, Reply, lognormal, read_log

if TYPE_CHECKING:
    from pathlib import Path

Events = list[Any]
T = TypeVar("T")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server without a script."""
    with ChatServer() as server:
        yield server


def question(model: str = "alpha", text: str = "How are you", **fields: Any) -> dict[str, Any]:
    """A request's body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


async def post(
    session: aiohttp.ClientSession, server: ChatServer, body: object = None, **options: Any
) -> tuple[int, bytes, Any]:
    """Status, body and headers of one answer."""
    body = question() if body is None else body
    async with session.post(server.base_url + "/chat/completions", json=body, **options) as response:
        return response.status, await response.read(), response.headers


def in_session(work: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, T]]) -> T:
    """What ``work`` returns, given a client session."""

    async def run() -> T:
        async with aiohttp.ClientSession() as session:
            return await work(session)

    return asyncio.run(run())


def ask(server: ChatServer, body: object = None, **options: Any) -> tuple[int, Any, Any]:
    """Status, parsed body and headers of one answer on a connection of its own."""
    status, content, headers = in_session(lambda session: post(session, server, body, **options))
    return status, json.loads(content), headers


def text(server: ChatServer, body: object = None) -> Any:
    """The text of one answer."""
    return ask(server, body)[1]["choices"][0]["message"]["content"]


def stream(server: ChatServer, **fields: Any) -> Events:
    """The parsed events of one streamed answer, ``[DONE]`` as it is."""
    body = question(stream=True, **fields)
    _, content, _ = in_session(lambda session: post(session, server, body))
    lines = [line[6:] for line in content.decode().split("\n\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def deltas(events: Events, name: str = "content") -> list[Any]:
    """The non-empty pieces that a stream's events carry."""
    found = [event["choices"][0]["delta"].get(name) for event in events if event != "[DONE]" and event.get("choices")]
    return [piece for piece in found if piece]


class TestAnswers:
    """Scripts, and what becomes of them on the wire."""

    def test_default(self, server: ChatServer) -> None:
        """Without a script, any model gives its deterministic answer with usage."""
        status, answer, headers = ask(server, question("some/model"))

        assert status == 200
        assert headers["Content-Type"] == "application/json"
        assert answer["model"] == "some/model"
        assert answer["choices"] == [
            {"index": 0, "message": {"role": "assistant", "content": "answer of some/model"}, "finish_reason": "stop"}
        ]
        assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}

    def test_script_in_order(self, server: ChatServer) -> None:
        """Replies are consumed in order, and the last one repeats."""
        server.on("alpha", "one", Reply("two"), lambda body: f"to {body['messages'][0]['content']}")

        assert [text(server) for _ in range(4)] == ["one", "two", "to How are you", "to How are you"]

    def test_script_ends(self, server: ChatServer) -> None:
        """Without repeat_last, the star's script and then the default follow."""
        server.on("alpha", "one", repeat_last=False).on("*", "any", repeat_last=False)

        assert [text(server) for _ in range(3)] == ["one", "any", "answer of alpha"]

    def test_star_yields_to_the_name(self, server: ChatServer) -> None:
        """The star answers only for models without a script of their own."""
        server.on("*", "any").on("beta", "beta's")

        assert [text(server, question(model)) for model in ("alpha", "beta")] == ["any", "beta's"]

    def test_no_reply(self, server: ChatServer) -> None:
        """An empty script is a mistake."""
        with pytest.raises(ValueError, match="at least one"):
            server.on("alpha")

    def test_failing_function(self) -> None:
        """A function that raises is answered with a 500, and its error ends the with block."""

        def fail(body: dict[str, Any]) -> str:
            raise LookupError(body["model"])

        with pytest.raises(LookupError, match="alpha"), ChatServer().on("alpha", fail) as server:
            assert ask(server)[0] == 500

    def test_fields(self, server: ChatServer) -> None:
        """Reasoning, finish reason, usage, model and headers are sent as given."""
        usage = {"prompt_tokens": 7, "completion_tokens": 0}
        server.on(
            "alpha",
            Reply("cut", reasoning="hm", finish_reason="length", usage=usage, model="alpha-2", headers={"X-Id": "9"}),
        )
        _, answer, headers = ask(server)

        assert answer["choices"][0]["message"]["reasoning_content"] == "hm"
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"] == usage
        assert answer["model"] == "alpha-2"
        assert headers["X-Id"] == "9"

    def test_reasoning_is_counted(self, server: ChatServer) -> None:
        """Counted usage has the reasoning's words as a part of the completion."""
        server.on("alpha", Reply("two words", reasoning="three more words"))
        usage = ask(server)[1]["usage"]

        assert usage["completion_tokens"] == 5
        assert usage["completion_tokens_details"] == {"reasoning_tokens": 3}

    def test_no_usage(self, server: ChatServer) -> None:
        """Usage can be left out."""
        server.on("alpha", Reply("x", usage=None))

        assert "usage" not in ask(server)[1]

    def test_odd_contents(self, server: ChatServer) -> None:
        """Content can be null, a list of parts, empty, or half a surrogate pair."""
        server.on("alpha", Reply(content_null=True), Reply("x", content_as_list=True), "", "a\ud83d")

        assert [text(server) for _ in range(4)] == [None, [{"type": "text", "text": "x"}], "", "a\ud83d"]

    @pytest.mark.parametrize(
        ("reply", "status", "code"),
        [
            (Reply.rate_limited(), 429, "rate_limit_exceeded"),
            (Reply.out_of_credit(), 429, "insufficient_quota"),
            (Reply.fault(), 500, "server_error"),
            (Reply.fault(503), 503, "server_error"),
            (Reply.overloaded(), 529, "overloaded"),
            (Reply.refused_key(), 401, "invalid_api_key"),
            (Reply.no_such_model(), 404, "model_not_found"),
            (Reply.too_long(), 400, "context_length_exceeded"),
            (Reply.bad_request("no"), 400, "invalid_request"),
        ],
    )
    def test_errors(self, server: ChatServer, reply: Reply, status: int, code: str) -> None:
        """The named errors have their status and code, streamed or not."""
        server.on("alpha", reply)
        for streamed in (False, True):
            got, answer, _ = ask(server, question(stream=streamed))
            assert (got, answer["error"]["code"]) == (status, code)
        assert server.count(status=status) == 2

    def test_retry_after(self, server: ChatServer) -> None:
        """Retry-After is a number of seconds, or any text."""
        server.on("alpha", Reply.rate_limited(retry_after=1.5), Reply.rate_limited("soon"), Reply.overloaded(2))

        assert [ask(server)[2]["Retry-After"] for _ in range(3)] == ["1.5", "soon", "2"]

    def test_raw_bodies(self, server: ChatServer) -> None:
        """A malformed body and a proxy's page arrive byte for byte."""
        server.on("alpha", Reply.malformed(b"{nope"), Reply.bad_gateway())

        async def both(session: aiohttp.ClientSession) -> None:
            assert (await post(session, server))[:2] == (200, b"{nope")
            status, page, headers = await post(session, server)
            assert (status, headers["Content-Type"]) == (502, "text/html")
            assert b"<h1>" in page

        in_session(both)

    def test_named_answers(self) -> None:
        """The named answers carry their finish reason or tags."""
        assert Reply.truncated("x").finish_reason == "length"
        assert Reply.filtered().finish_reason == "content_filter"
        assert Reply.thinking("x", "hm").text == "<think>\nhm\n</think>\n\nx"

    def test_not_a_chat_request(self, server: ChatServer) -> None:
        """What names no model is a 400, and another path a 404."""
        assert ask(server, [1])[0] == 400
        assert ask(server, {"messages": []})[0] == 400

        async def elsewhere(session: aiohttp.ClientSession) -> int:
            async with session.get(server.base_url + "/elsewhere") as response:
                return response.status

        assert in_session(elsewhere) == 404
        assert [record.body for record in server.requests] == [{}, {}]


class TestStreams:
    """Server-sent events."""

    def test_whole(self, server: ChatServer) -> None:
        """The pieces are the text, a finish reason and [DONE] follow, and usage only when asked."""
        server.on("alpha", "one two  three\n")
        events = stream(server)

        assert deltas(events) == ["one", " two", "  three\n"]
        assert deltas(events, "role") == ["assistant"]
        assert events[-2]["choices"][0]["finish_reason"] == "stop"
        assert events[-1] == "[DONE]"
        assert not any("usage" in event for event in events[:-1])

    @pytest.mark.parametrize("text", ["", "  ", "\n", " a", "a b c", "a b c d\n\n", "é ü"])
    @pytest.mark.parametrize("words", [1, 2, 100])
    def test_nothing_is_lost(self, server: ChatServer, text: str, words: int) -> None:
        """However the words are grouped, the pieces join to the text."""
        server.on("alpha", Reply(text, chunks=words))

        assert "".join(deltas(stream(server))) == text

    def test_usage_places(self, server: ChatServer) -> None:
        """Usage comes in its own chunk, in the last one, unasked, or never."""
        asked = {"include_usage": True}
        own = stream(server, stream_options=asked)
        server.on("alpha", *[Reply("x", stream_usage=place) for place in ("last", "own_chunk", "none")])
        last, unasked, never = stream(server), stream(server), stream(server, stream_options=asked)

        assert (own[-2]["choices"], own[-2]["usage"]["prompt_tokens"]) == ([], 3)
        assert (last[-2]["choices"][0]["finish_reason"], last[-2]["usage"]["completion_tokens"]) == ("stop", 1)
        assert unasked[-2]["choices"] == []
        assert not any("usage" in event for event in never[:-1])

    def test_explicit_chunks_and_reasoning(self, server: ChatServer) -> None:
        """Explicit pieces are sent as they are, after the reasoning."""
        server.on("alpha", Reply(chunks=["a", "b c"], reasoning="x y"), Reply("", content_null=True))
        events = stream(server)

        assert deltas(events) == ["a", "b c"]
        assert deltas(events, "reasoning_content") == ["x", " y"]
        assert deltas(stream(server)) == []

    def test_comments_and_small_writes(self, server: ChatServer) -> None:
        """Comment lines and writes of one byte leave the events whole."""
        server.on("alpha", Reply("zwölf Türen", comments=["still here"], write_size=1))
        _, content, headers = in_session(lambda session: post(session, server, question(stream=True)))

        assert headers["Content-Type"] == "text/event-stream"
        assert content.startswith(b": still here\n\ndata: {")
        assert deltas(stream(server)) == ["zwölf", " Türen"]

    def test_plain_json(self, server: ChatServer) -> None:
        """A service that does not stream answers with JSON."""
        server.on("alpha", Reply("x", plain_json_to_stream=True))

        assert text(server, question(stream=True)) == "x"

    def test_error_event(self, server: ChatServer) -> None:
        """An error can come as an event after the text."""
        server.on("alpha", Reply("half an", error="It broke"))
        events = stream(server)

        assert deltas(events) == ["half", " an"]
        assert events[-1]["error"]["message"] == "It broke"

    def test_cut(self, server: ChatServer) -> None:
        """A stream is cut after exactly so many text events."""
        server.on("alpha", Reply.cut("a b c d", after=2))

        async def read(session: aiohttp.ClientSession) -> bytes:
            content = b""
            async with session.post(server.base_url + "/chat/completions", json=question(stream=True)) as response:
                with pytest.raises(aiohttp.ClientPayloadError):
                    async for part in response.content.iter_any():
                        content += part
            return content

        content = in_session(read)
        assert content.count(b"data: ") == 3
        assert b'" b"' in content
        assert server.requests[0].dropped
        assert server.wait_until(lambda: server.in_flight == 0)
        assert server.requests[0].closed_at is None

    def test_delays(self, server: ChatServer) -> None:
        """The first byte waits for the delay, each further event for the token delay."""
        server.on("alpha", Reply("a b", delay=0.05, token_delay=0.02))
        began = time.monotonic()
        stream(server)

        assert time.monotonic() - began >= 0.05 + 4 * 0.02


class TestFaults:
    """Connections that end before the answer does."""

    def test_reset(self, server: ChatServer) -> None:
        """A reset is a connection error without an answer."""
        server.on("alpha", Reply.dropped(), "fine")

        async def twice(session: aiohttp.ClientSession) -> int:
            with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
                await post(session, server)
            return (await post(session, server))[0]

        assert in_session(twice) == 200
        first = server.requests[0]
        assert (first.status, first.dropped, first.closed_at) == (None, True, None)

    @pytest.mark.parametrize("after", [0, 10])
    def test_cut_body(self, server: ChatServer, after: int) -> None:
        """A plain body is cut after so many bytes."""
        server.on("alpha", Reply.cut("a long answer", after=after))

        with pytest.raises(aiohttp.ClientPayloadError):
            ask(server)

    @pytest.mark.parametrize(
        "reply",
        [
            Reply.hanging(),
            Reply("late", delay=600),
            Reply("a b c", token_delay=600),
            Reply("a b c", hang=True, cut_after=1),
        ],
    )
    def test_client_closes(self, server: ChatServer, reply: Reply) -> None:
        """A client that gives up is noticed, in whatever the server was doing, and long before it would have answered."""
        server.on("alpha", reply)
        closing: list[float] = []

        async def give_up(session: aiohttp.ClientSession) -> None:
            asking = asyncio.create_task(post(session, server, question(stream=True)))
            assert await asyncio.to_thread(server.wait_until, lambda: server.count("alpha"), seconds=60)
            await asyncio.sleep(0.1)
            closing.append(time.monotonic())
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

        in_session(give_up)
        record = server.requests[0]
        assert server.wait_until(lambda: record.finished, seconds=60)
        assert record.closed_at is not None
        assert 0 <= record.closed_at - closing[0] < 200
        assert server.wait_until(lambda: server.in_flight == 0, seconds=60)

    def test_client_closes_a_flowing_stream(self, server: ChatServer) -> None:
        """A client that leaves while events flow without pause is noticed too."""
        server.on("alpha", Reply(chunks=["x" * 1000] * 100_000))

        async def leave(session: aiohttp.ClientSession) -> None:
            async with session.post(server.base_url + "/chat/completions", json=question(stream=True)) as response:
                await response.content.readany()

        in_session(leave)
        assert server.wait_until(lambda: server.requests[0].finished, seconds=60)
        assert server.requests[0].closed_at is not None


class TestRecords:
    """What the server saw."""

    def test_fields(self, server: ChatServer) -> None:
        """A record has the body, the bytes, the headers and the times."""
        before = time.monotonic(), time.time()
        body = {
            "model": "alpha",
            "messages": [
                {"role": "system", "content": "Be brief"},
                {"role": "user", "content": "One"},
                {"role": "user", "content": [{"type": "text", "text": "Two"}]},
            ],
        }
        ask(server, body, headers={"X-Mark": "7"})
        (record,) = server.requests

        assert record.body == body
        assert json.loads(record.content) == body
        assert record.headers["x-mark"] == "7"
        assert record.messages == body["messages"]
        assert (record.text_of("system"), record.text_of("user"), record.text_of("tool")) == (
            "Be brief",
            "One\nTwo",
            "",
        )
        assert (record.model, record.status, record.dropped, record.closed_at) == ("alpha", 200, False, None)
        assert record.started is not None
        assert record.finished is not None
        assert before[0] <= record.arrived <= record.started <= record.finished <= time.monotonic()
        assert record.finished_unix is not None
        assert before[1] <= record.arrived_unix <= record.finished_unix <= time.time()
        assert record.seconds == record.finished - record.arrived

    def test_in_flight(self, server: ChatServer) -> None:
        """A record without its finish is in flight."""
        record = Recorded({}, b"", {}, "alpha", 1.0, 2.0)

        assert (record.seconds, record.finished_unix, record.messages) == (None, None, [])
        assert server.in_flight == 0

    def test_counts(self, server: ChatServer) -> None:
        """Requests are counted in all, by model and by status, and forgotten on demand."""
        for model in ("alpha", "beta", "alpha"):
            ask(server, question(model))

        assert (server.count(), server.count("alpha"), server.count("alpha", status=429)) == (3, 2, 0)
        assert [record.model for record in server.asked("beta")] == ["beta"]
        assert server.max_in_flight == 1
        server.clear()
        assert (server.requests, server.max_in_flight) == ([], 0)

    def test_max_in_flight(self, server: ChatServer) -> None:
        """Requests side by side are seen as such."""
        server.on("*", Reply.hanging())

        async def side_by_side(session: aiohttp.ClientSession) -> None:
            tasks = [asyncio.create_task(post(session, server)) for _ in range(5)]
            assert await asyncio.to_thread(server.wait_until, lambda: server.count("alpha") == 5, seconds=60)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        in_session(side_by_side)
        assert server.max_in_flight == 5

    def test_megabytes(self, server: ChatServer) -> None:
        """Bodies of several megabytes go both ways."""
        server.on("alpha", lambda body: str(body["messages"][0]["content"]))
        body = io.BytesIO(json.dumps(question(text="x" * 3_000_000)).encode())

        async def echo(session: aiohttp.ClientSession) -> int:
            async with session.post(server.base_url + "/chat/completions", data=body) as response:
                return len(await response.read())

        assert in_session(echo) > 3_000_000
        assert len(server.requests[0].text_of("user")) == 3_000_000

    def test_wait_until(self, server: ChatServer) -> None:
        """Waiting ends with the condition, or with the time."""
        assert server.wait_until(lambda: True)
        assert not server.wait_until(lambda: False, seconds=0.01)


class TestOptions:
    """A service with a key, models, limits and latency."""

    def test_models(self) -> None:
        """The listing has the given and the scripted models, and is no chat request."""
        with ChatServer(models=["alpha"], key="right").on("beta", "x").on("*", "y") as server:

            async def listing(session: aiohttp.ClientSession, key: str) -> tuple[int, Any]:
                headers = {"Authorization": f"Bearer {key}"}
                async with session.get(server.base_url + "/models", headers=headers) as response:
                    return response.status, await response.json()

            status, listed = in_session(lambda session: listing(session, "right"))
            assert (status, [model["id"] for model in listed["data"]]) == (200, ["alpha", "beta"])
            assert in_session(lambda session: listing(session, "wrong"))[0] == 401
            assert (server.model_listings, server.requests) == (2, [])

    def test_key(self) -> None:
        """Another key than the right one is refused, by a message that repeats it."""
        with ChatServer(key="right") as server:
            status, answer, _ = ask(server, headers={"Authorization": "Bearer sk-wrong"})
            assert status == 401
            assert "sk-wrong" in answer["error"]["message"]
            assert ask(server)[0] == 401
            assert ask(server, headers={"Authorization": "Bearer right"})[0] == 200

    def test_capacity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Requests above the capacity get a 429 that says when to come back, and use up no reply."""
        clock = Clock()
        monkeypatch.setattr("moa_nb.testing.server.time", SimpleNamespace(monotonic=clock.time, time=time.time))
        with ChatServer(capacity=20, burst=2).on("alpha", "one", "two", "three") as server:

            async def burst(session: aiohttp.ClientSession) -> None:
                first = [await post(session, server) for _ in range(3)]
                assert [status for status, _, _ in first] == [200, 200, 429]
                wait = float(first[2][2]["Retry-After"])
                assert 0 < wait <= 0.05
                clock.advance(wait / 2)
                assert (await post(session, server))[0] == 429
                clock.advance(wait / 2)
                assert b"three" in (await post(session, server))[1]

            in_session(burst)

    def test_max_concurrency(self) -> None:
        """Requests beyond the slots wait, and their start tells how long."""
        with ChatServer(max_concurrency=2).on("alpha", Reply.hanging()) as server:

            def started(model: str) -> list[float]:
                return [record.started for record in server.asked(model) if record.started is not None]

            async def until(condition: Callable[[], object]) -> None:
                assert await asyncio.to_thread(server.wait_until, condition, seconds=60)

            async def side_by_side(session: aiohttp.ClientSession) -> float:
                first = [asyncio.create_task(post(session, server)) for _ in range(2)]
                await until(lambda: len(started("alpha")) == 2)
                later = [asyncio.create_task(post(session, server, question("beta"))) for _ in range(2)]
                await until(lambda: server.count("beta") == 2)
                let_go = time.monotonic()
                for task in first:
                    task.cancel()
                await asyncio.wait([*first, *later])
                return let_go

            let_go = in_session(side_by_side)
            assert max(started("alpha")) < let_go < min(started("beta"))
            assert len(started("beta")) == 2

    def test_latency(self) -> None:
        """Latency can be drawn; the same seed draws the same."""
        drawn: list[float] = []

        def draw(rng: random.Random) -> float:
            drawn.append(rng.random() / 100)
            return drawn[-1]

        for _ in range(2):
            with ChatServer(latency=draw, seed=7) as server:
                ask(server)
        assert drawn[0] == drawn[1]
        assert statistics.median(map(lognormal(0.2), [random.Random(seed) for seed in range(999)])) == pytest.approx(
            0.2, rel=0.1
        )


class TestLife:
    """Starting and stopping."""

    def test_stops_with_requests_in_flight(self) -> None:
        """Stopping ends hanging answers at once, joins the thread, and blames no client."""
        before = set(threading.enumerate())
        server = ChatServer().on("alpha", Reply.hanging()).start()

        async def cut_off(session: aiohttp.ClientSession) -> float:
            task = asyncio.create_task(post(session, server))
            while not server.count("alpha"):
                await asyncio.sleep(0.005)
            began = time.monotonic()
            await asyncio.to_thread(server.stop)
            with pytest.raises(aiohttp.ClientError):
                await task
            return time.monotonic() - began

        assert in_session(cut_off) < 30  # whoever waits for handlers to end by themselves waits a minute, or for ever
        assert set(threading.enumerate()) <= before
        assert server.requests[0].closed_at is None
        server.stop()

    def test_leaves_nothing_open(self) -> None:
        """Answers, cuts, resets and idle connections leave no open socket behind."""
        with ChatServer().on("alpha", Reply.dropped(), Reply.cut("x", 3), "fine") as server:
            idle = socket.create_connection(("127.0.0.1", server.port))
            for _ in range(2):
                with pytest.raises(aiohttp.ClientError):
                    ask(server)
            ask(server)
        assert idle.recv(1) == b""
        idle.close()
        gc.collect()

    def test_connections_of_the_last_moment(self) -> None:
        """A connection that is accepted while the server stops is closed like the others."""
        late: list[socket.socket] = []

        def meanwhile(_: object) -> str:
            late.extend(socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(10))
            stopping.start()
            time.sleep(0.05)
            return "just in time"

        server = ChatServer().on("alpha", meanwhile).start()
        stopping = threading.Thread(target=server.stop)
        assert text(server) == "just in time"
        stopping.join()
        for connection in late:
            with connection, contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b""
        gc.collect()

    def test_a_client_that_does_not_read(self) -> None:
        """What a client leaves unread does not keep its connection open."""
        body = b'{"model": "alpha"}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: lab\r\nContent-Length: %d\r\n\r\n" % len(body)
        with (
            ChatServer().on("alpha", Reply("word " * 4_000_000, usage=None)) as server,
            socket.create_connection(("127.0.0.1", server.port)) as idle,
        ):
            idle.sendall(head + body)
            assert server.wait_until(lambda: server.count(status=200), seconds=60)
            began = time.monotonic()
            server.stop()
            assert time.monotonic() - began < 30  # what is unread is never read: it would wait for ever
        gc.collect()

    def test_port_taken(self, server: ChatServer) -> None:
        """A port that is taken is an error of the caller, and the server can be started again elsewhere."""
        other = ChatServer(port=server.port)
        with pytest.raises(OSError, match="address"):
            other.start()
        other.port = 0
        with other:
            assert text(other) == "answer of alpha"
            with pytest.raises(RuntimeError, match="already"):
                other.start()

    def test_restart_on_the_same_port(self) -> None:
        """A server that was stopped comes back where it was."""
        server = ChatServer()
        with server:
            address = server.base_url
            ask(server)
        with server:
            assert server.base_url == address
            assert ask(server)[0] == 200

    def test_error_in_the_block(self) -> None:
        """An error inside the block is the one that is seen."""
        with pytest.raises(KeyError), ChatServer().on("alpha", lambda _: f"{1 / 0}") as server:
            ask(server)
            raise KeyError


class TestProcess:
    """The server as a process of its own."""

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """A server process."""
        command = [sys.executable, "-W", "error", "-m", "moa_nb.testing", "--port", "0", *arguments]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def at(self, process: subprocess.Popen[str]) -> ChatServer:
        """A stand-in that knows the process's address."""
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        return ChatServer(port=int(address.removesuffix("/v1").rsplit(":", 1)[1]))

    def test_script_and_log(self, tmp_path: Path) -> None:
        """It answers by its script, logs each request at once without the key, and ends with its input."""
        script, log = tmp_path / "script.json", tmp_path / "log.jsonl"
        replies = ["one", {"kind": "rate_limited", "retry_after": 3}, {"text": "two", "usage": None}, {"body": "raw"}]
        options = {"latency": {"median": 0.001}, "models": ["m"]}
        script.write_text(json.dumps({"options": options, "replies": {"alpha": replies, "beta": "b"}}))
        with self.spawn("--script", str(script), "--log", str(log), "--exit-with-stdin") as process:
            server = self.at(process)
            assert text(server) == "one"
            assert read_log(log)[0].text_of("user") == "How are you"
            assert ask(server)[2]["Retry-After"] == "3"
            assert "usage" not in ask(server, headers={"Authorization": "Bearer secret"})[1]
            assert in_session(lambda session: post(session, server))[1] == b"raw"
            assert text(server, question("beta")) == "b"
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        records = read_log(log)
        assert [record.status for record in records] == [200, 429, 200, 200, 200]
        assert all(record.finished and record.finished >= record.arrived for record in records)
        assert records[0].headers["content-type"] == "application/json"
        assert b"secret" not in log.read_bytes()

    def test_sigterm(self) -> None:
        """It ends by itself on SIGTERM, also with an answer hanging."""
        with self.spawn("--latency", "60", "--exit-with-stdin") as process:
            server = self.at(process)
            with pytest.raises(TimeoutError):
                ask(server, timeout=aiohttp.ClientTimeout(total=0.1))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""

    def test_unknown_kind(self, tmp_path: Path) -> None:
        """A kind that no reply has is refused by name."""
        script = tmp_path / "script.json"
        script.write_text('{"replies": {"alpha": {"kind": "gone"}}}')
        with self.spawn("--script", str(script)) as process:
            assert process.wait(60) != 0
            assert process.stderr is not None
            assert "rate_limited" in process.stderr.read()

    def test_log_with_an_unfinished_line(self, tmp_path: Path) -> None:
        """Reading a log leaves out a line that is still being written."""
        log = tmp_path / "log.jsonl"
        with ChatServer(log=log) as server:
            ask(server)
        with log.open("a") as file:
            file.write('{"model": "al')

        assert [record.model for record in read_log(log)] == ["alpha"]


class TestClock:
    """Time that passes at once."""

    def test_sleeps(self) -> None:
        """Sleeping passes the time and is remembered; no real time passes."""
        clock = Clock(100)
        began = time.monotonic()
        asyncio.run(clock.sleep(3600))
        asyncio.run(clock.sleep(-1))
        clock.advance(5)

        assert clock.time() == 3705
        assert clock.sleeps == [3600, -1]
        assert time.monotonic() - began < 60

    def test_side_by_side(self) -> None:
        """Sleeps side by side overlap, and wake in the order of their times."""
        clock = Clock()
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, *sleeps: float) -> None:
            for seconds in sleeps:
                await clock.sleep(seconds)
                woken.append((name, clock.time()))

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(sleeper("long", 10))
                group.create_task(sleeper("short", 1, 2))
                group.create_task(sleeper("middle", 5))

        asyncio.run(run())
        assert woken == [("short", 1), ("short", 3), ("middle", 5), ("long", 10)]

    def test_cancelled(self) -> None:
        """A sleep that is cancelled holds nobody up."""
        clock = Clock()

        async def run() -> None:
            sleeper = asyncio.create_task(clock.sleep(1))
            await asyncio.sleep(0)
            sleeper.cancel()
            await clock.sleep(10)

        asyncio.run(run())
        assert clock.time() == 10


def test_public_names() -> None:
    """The list of public names is sorted, and each is there with a docstring."""
    assert testing.__all__ == sorted(testing.__all__)
    assert all(hasattr(testing, name) for name in testing.__all__)
