"""Fakes to test against: a scripted chat server that speaks real HTTP, and a clock that never waits.

    with ChatServer() as server:
        server.on("alpha", Reply.rate_limited(retry_after=0.1), "fine now")
        ...                         # point a provider at server.base_url
        assert server.count("alpha") == 2

It listens on loopback only. As a process of its own, so that it outlives its clients:

    python -m moa_nb.testing --port 0 --script replies.json --log requests.jsonl --exit-with-stdin
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import signal
import socket
import struct
import sys
import threading
import time
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeAlias

import orjson

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp import web

__all__ = ["Answer", "ChatServer", "Clock", "Recorded", "Reply", "lognormal", "read_log"]


# What the server answers ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the server, or one of the ways in which it does not answer.

    >>> Reply("a short answer", finish_reason="length").text
    'a short answer'
    >>> Reply.rate_limited(retry_after=2).headers
    {'Retry-After': '2'}
    """

    text: str = ""
    """The answer; empty is an answer too."""
    _: KW_ONLY
    reasoning: str | None = None
    """Goes out as ``message.reasoning_content``; ``None`` leaves the field away."""
    finish_reason: str | None = "stop"
    usage: Mapping[str, Any] | Literal["auto"] | None = "auto"
    """``"auto"`` counts words as tokens, ``None`` reports nothing, a dict goes out as it is."""
    model: str | None = None
    """The model that is said to have answered; ``None`` repeats the one asked for."""
    status: int = 200
    """The HTTP status; anything but 2xx answers with an error body, never with a stream."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent on top of the usual ones; a ``Content-Type`` here replaces the usual one."""
    body: bytes | None = None
    """Sent instead of everything that would be made from the other fields."""
    error: str | None = None
    """The message of an error body; ``{key}`` in it stands for the key that the client sent.

    With a 2xx status and a stream it is sent as an event after the text.
    """
    error_code: str | None = None
    """The ``code`` of the error body."""
    delay: float = 0.0
    """Seconds before the first byte."""
    token_delay: float = 0.0
    """Seconds between the events of a stream."""
    chunks: int | Sequence[str] = 1
    """How a streamed text is split: so many words an event, or exactly these pieces."""
    write_size: int | None = None
    """Bytes a write, so that events and characters arrive in parts; ``None`` writes whole events."""
    comments: Sequence[str] = ()
    """Comment lines (keep-alives) before each event of a stream."""
    stream_usage: Literal["asked", "own_chunk", "last", "none"] = "asked"
    """Where a stream reports usage: in a chunk of its own if ``stream_options.include_usage`` asks for it; in a
    chunk of its own, asked or not; in the chunk with the finish reason; nowhere."""
    plain_json_to_stream: bool = False
    """Answers with one JSON body although a stream was asked for."""
    hang: bool = False
    """Never answers, until the client closes; with ``cut_after``, what lies before the cut is sent first."""
    cut_after: int | None = None
    """The connection is closed after so many text events of a stream, or bytes of a plain body."""
    reset: bool = False
    """The connection is reset at once (after ``delay``), without an answer."""
    content_null: bool = False
    """``message.content`` is null."""
    content_as_list: bool = False
    """``message.content`` is a list of one text part."""

    @classmethod
    def rate_limited(cls, retry_after: float | str | None = None, **fields: Any) -> Self:
        """Return a 429; ``retry_after`` is in seconds, or a text that is sent as it is."""
        return cls(
            status=429, error="Too many requests", error_code="rate_limit_exceeded", **_after(retry_after), **fields
        )

    @classmethod
    def out_of_credit(cls) -> Self:
        """Return the 429 that no waiting cures: the account is empty."""
        return cls(status=429, error="The account has no credit left", error_code="insufficient_quota")

    @classmethod
    def fault(cls, status: int = 500, **fields: Any) -> Self:
        """Return a fault of the server: 500, 502, 503, ..."""
        return cls(status=status, error=f"The server failed ({status})", error_code="server_error", **fields)

    @classmethod
    def overloaded(cls, retry_after: float | str | None = None, **fields: Any) -> Self:
        """Return a 529: the service has too much to do."""
        return cls(
            status=529, error="The service is overloaded", error_code="overloaded", **_after(retry_after), **fields
        )

    @classmethod
    def bad_gateway(cls) -> Self:
        """Return a 502 with the HTML page of a proxy."""
        page = b"<html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>"
        return cls(status=502, body=page, headers={"Content-Type": "text/html"})

    @classmethod
    def refused_key(cls, status: int = 401) -> Self:
        """Return a 401 (or 403) whose message repeats the key that was sent."""
        return cls(status=status, error="The key {key} is not valid", error_code="invalid_api_key")

    @classmethod
    def no_such_model(cls) -> Self:
        """Return a 404 for a model that the service does not have."""
        return cls(status=404, error="There is no such model", error_code="model_not_found")

    @classmethod
    def too_long(cls, limit: int = 4096) -> Self:
        """Return a 400: the messages exceed the context, of ``limit`` tokens."""
        text = f"The messages are longer than this model's maximum context length of {limit} tokens"
        return cls(status=400, error=text, error_code="context_length_exceeded")

    @classmethod
    def bad_request(cls, message: str = "The request makes no sense", **fields: Any) -> Self:
        """Return a 400 that says ``message``."""
        return cls(status=400, error=message, error_code="invalid_request", **fields)

    @classmethod
    def malformed(cls, body: bytes = b'{"choices": [{"message": {"content": "an ans') -> Self:
        """Return a 200 whose body is not the JSON that it says it is."""
        return cls(body=body)

    @classmethod
    def hanging(cls) -> Self:
        """Return silence: the connection stays open and nothing comes."""
        return cls(hang=True)

    @classmethod
    def dropped(cls, delay: float = 0.0) -> Self:
        """Return a reset of the connection after ``delay`` seconds, without an answer."""
        return cls(reset=True, delay=delay)

    @classmethod
    def cut(cls, text: str, after: int, **fields: Any) -> Self:
        """Return an answer whose connection is closed ``after`` events of a stream or bytes of a body."""
        return cls(text, cut_after=after, **fields)

    @classmethod
    def truncated(cls, text: str, **fields: Any) -> Self:
        """Return an answer that stopped at its token limit."""
        return cls(text, finish_reason="length", **fields)

    @classmethod
    def filtered(cls, text: str = "") -> Self:
        """Return an answer that a content filter stopped."""
        return cls(text, finish_reason="content_filter")

    @classmethod
    def thinking(cls, text: str, thoughts: str, **fields: Any) -> Self:
        """Return an answer with its thoughts in ``<think>`` tags before it."""
        return cls(f"<think>\n{thoughts}\n</think>\n\n{text}", **fields)


Answer: TypeAlias = str | Reply | Callable[[dict[str, Any]], str | Reply]
"""What a script may hold: a text, a reply, or a function of the request's body that returns one."""

_NAMED_REPLIES = frozenset(name for name, member in vars(Reply).items() if isinstance(member, classmethod))


def _after(retry_after: float | str | None) -> dict[str, Any]:
    if retry_after is None:
        return {}
    value = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
    return {"headers": {"Retry-After": value}}


def lognormal(median: float, sigma: float = 0.5) -> Callable[[random.Random], float]:
    """Return a latency of ``median`` seconds that varies as services do: a few take much longer.

    >>> 0 < lognormal(0.2)(random.Random(1)) < 5
    True
    """
    mu = math.log(median)
    return lambda rng: rng.lognormvariate(mu, sigma)


# What the server saw ----------------------------------------------------------------------------


@dataclass(slots=True)
class Recorded:
    """One chat request that reached the server. Its later fields fill in while it is answered.

    Moments are seconds of ``time.monotonic()``, which all processes of one machine share.
    """

    body: dict[str, Any]
    """The request's JSON; empty where it was not a JSON object."""
    content: bytes
    """The body's bytes as they came; empty in a record that was read from a log."""
    headers: Mapping[str, str]
    """The request's headers; names are found in any case."""
    model: str
    arrived: float
    arrived_unix: float
    """``arrived``, as ``time.time()`` tells it."""
    started: float | None = None
    """When the answer began to be made: ``max_concurrency`` is the wait before."""
    finished: float | None = None
    """When the server was done with it, answered or not; ``None`` while in flight."""
    status: int | None = None
    """The HTTP status that was sent; ``None`` where none was."""
    closed_at: float | None = None
    """When the client closed the connection before it had its answer; ``None`` where it did not."""
    dropped: bool = False
    """The server closed the connection early, as the script said."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the request."""
        return list(self.body.get("messages") or ())

    @property
    def seconds(self) -> float | None:
        """Seconds from arrival to finish; ``None`` while in flight."""
        return None if self.finished is None else self.finished - self.arrived

    @property
    def finished_unix(self) -> float | None:
        """``finished``, as ``time.time()`` tells it."""
        return None if self.finished is None else self.arrived_unix + (self.finished - self.arrived)

    def text_of(self, role: str) -> str:
        """Return the text of all messages of ``role``, joined by line ends."""
        return "\n".join(_text(message) for message in self.messages if message.get("role") == role)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


_LOGGED = ("model", "status", "arrived", "arrived_unix", "started", "finished", "closed_at", "dropped", "body")


def read_log(path: str | os.PathLike[str]) -> list[Recorded]:
    """Return the requests that a server appended to its log, in the order in which they finished.

    The ``Authorization`` header is not in the log; a last line that is still being written is left out.
    """
    from multidict import CIMultiDict

    records = []
    for line in Path(path).read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            fields = _loads(line)
            fields["headers"] = CIMultiDict(fields["headers"])
            records.append(Recorded(content=b"", **fields))
    return records


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # half of a surrogate pair, which orjson does not write
        return json.dumps(value).encode()


def _loads(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:  # the same half, on its way in
        return json.loads(content)


# The server -------------------------------------------------------------------------------------


class ChatServer:
    """A server of OpenAI chat completions on loopback, in a thread of its own.

    Without a script it answers ``answer of MODEL`` for any model.

    >>> from urllib.request import Request, urlopen
    >>> with ChatServer() as server:
    ...     body = b'{"model": "alpha", "messages": [{"role": "user", "content": "Hello"}]}'
    ...     answer = urlopen(Request(server.base_url + "/chat/completions", body)).read()
    ...     server.asked("alpha")[0].text_of("user")
    'Hello'
    >>> json.loads(answer)["choices"][0]["message"]["content"]
    'answer of alpha'

    Args:
        port: where to listen; 0 finds a free port.
        models: what ``/v1/models`` lists, besides the models that have a script.
        key: the only key that is taken; ``None`` takes any.
        capacity: requests a second; those above get a 429 with ``Retry-After``.
        burst: requests that may come at once under ``capacity``; one second's worth by default.
        max_concurrency: answers in the making; further requests wait their turn.
        latency: seconds before each answer, or a function that draws them (see ``lognormal``).
        seed: of the random numbers that ``latency`` draws from.
        log: a file to which each finished request is appended as a line of JSON (see ``read_log``).
    """

    def __init__(
        self,
        *,
        port: int = 0,
        models: Sequence[str] = (),
        key: str | None = None,
        capacity: float | None = None,
        burst: float | None = None,
        max_concurrency: int | None = None,
        latency: float | Callable[[random.Random], float] = 0.0,
        seed: int = 0,
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        self.port = port
        """The port it listens on, once started."""
        self.model_listings = 0
        """How often ``/v1/models`` was asked."""
        self._models = tuple(models)
        self._authorization = None if key is None else f"Bearer {key}"
        self._bucket = None if capacity is None else _Bucket(capacity, burst)
        self._max_concurrency = max_concurrency
        self._slots: asyncio.Semaphore | None = None
        self._latency = latency
        self._rng = random.Random(seed)  # latencies, not secrets
        self._log_path = log
        self._log: IO[bytes] | None = None
        self._scripts: dict[str, _Script] = {}
        self._requests: list[Recorded] = []
        self._numbers = count(1)
        self._in_flight = 0
        self._max_in_flight = 0
        self._script_errors: list[Exception] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()

    # life ---------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Return the server, listening.

        Raises:
            OSError: the port is taken.
        """
        if self._thread is not None:
            msg = "this server has been started already"
            raise RuntimeError(msg)
        started = threading.Event()
        failure: list[BaseException] = []

        def serve() -> None:
            try:
                with asyncio.Runner() as runner:
                    runner.run(self._serve(started))
            except BaseException as error:  # handed to the thread that called start()
                failure.append(error)
            finally:
                started.set()

        self._stopping = False
        self._thread = threading.Thread(target=serve, name="moa-nb-chat-server", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            self._thread.join()
            self._thread = None
            raise failure[0]
        return self

    def stop(self) -> None:
        """Close every connection and wait until the server is gone. Stopping twice does no harm."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None  # start() returned
        assert self._stop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if error is None and self._script_errors:
            raise self._script_errors[0]

    async def _serve(self, started: threading.Event) -> None:
        from aiohttp import web

        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._slots = None if self._max_concurrency is None else asyncio.Semaphore(self._max_concurrency)
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self.port, backlog=4096)
            await site.start()
            self.port = runner.addresses[0][1]
            if self._log_path is not None:
                self._log = Path(self._log_path).open("ab", buffering=0)  # noqa: SIM115, ASYNC230
            started.set()
            await self._stop.wait()
        finally:
            self._stopping = True
            for task in tuple(self._tasks):
                task.cancel()
            await runner.cleanup()
            await asyncio.sleep(0)  # closed transports let go of their sockets
            await asyncio.sleep(0)
            if self._log is not None:
                self._log.close()
                self._log = None

    # what it answers ----------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """The address to give to a client, such as ``http://127.0.0.1:40123/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def models(self) -> list[str]:
        """What ``/v1/models`` lists: the given models, then those that have a script."""
        return list(dict.fromkeys((*self._models, *(model for model in self._scripts if model != "*"))))

    def on(self, model: str, *replies: Answer, repeat_last: bool = True) -> Self:
        """Return the server, which now answers ``model`` with ``replies``, one after the other.

        Args:
            model: the model's name; ``"*"`` stands for every model without a script of its own.
            replies: they take the place of an earlier script. A function is called with the request's body; what
                it raises is answered with a 500 and raised again at the end of the ``with`` block.
            repeat_last: the last reply goes on for ever; otherwise ``"*"`` or the default follows it.
        """
        if not replies:
            msg = f"what shall {model!r} answer? Give at least one reply"
            raise ValueError(msg)
        self._scripts[model] = _Script(replies, repeat_last=repeat_last)
        return self

    # what it saw --------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Recorded]:
        """The chat requests so far, in the order in which they arrived; a copy of the list."""
        return self._requests.copy()

    def asked(self, model: str) -> list[Recorded]:
        """Return the requests for ``model``."""
        return [record for record in self.requests if record.model == model]

    def count(self, model: str | None = None, *, status: int | None = None) -> int:
        """Return how many requests came: in all, for ``model``, and answered with ``status``."""
        return sum(
            (model is None or record.model == model) and (status is None or record.status == status)
            for record in self.requests
        )

    @property
    def in_flight(self) -> int:
        """Requests that have arrived and are not finished."""
        return self._in_flight

    @property
    def max_in_flight(self) -> int:
        """The most requests that were ever in flight together."""
        return self._max_in_flight

    def clear(self) -> None:
        """Forget the requests and the counts; scripts stay where they are."""
        self._requests = []
        self._max_in_flight = self._in_flight
        self.model_listings = 0

    def wait_until(self, condition: Callable[[], object], *, seconds: float = 5.0) -> bool:
        """Return True as soon as ``condition()`` holds, False when it does not within ``seconds``."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    # one request --------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.endswith("/chat/completions") and request.method == "POST":
            return await self._chat(request)
        if path.endswith("/models") and request.method == "GET":
            self.model_listings += 1
            if self._refuses(request):
                return _plain(401, _error_body(Reply.refused_key(), request))
            listed = [{"id": model, "object": "model", "owned_by": "moa-nb"} for model in self.models]
            return _plain(200, _dumps({"object": "list", "data": listed}))
        return _plain(404, _error_body(Reply(status=404, error=f"Nothing is served at {path}"), request))

    def _refuses(self, request: web.BaseRequest) -> bool:
        return self._authorization is not None and request.headers.get("Authorization") != self._authorization

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        record = Recorded({}, b"", request.headers, "", time.monotonic(), time.time())
        self._requests.append(record)
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        task = asyncio.current_task()
        assert task is not None  # a handler is a task
        self._tasks.add(task)
        try:
            return await self._answer(request, record)
        except (asyncio.CancelledError, ConnectionError):
            if not (record.dropped or self._stopping):
                record.closed_at = time.monotonic()
            raise
        finally:
            record.finished = time.monotonic()
            self._tasks.discard(task)
            self._in_flight -= 1
            if self._log is not None:
                self._log.write(_log_line(record))

    async def _answer(self, request: web.BaseRequest, record: Recorded) -> web.StreamResponse:
        record.content = await request.content.read()
        try:
            body = _loads(record.content)
            model = body["model"]
        except (ValueError, TypeError, KeyError):
            body = model = None
        if not isinstance(model, str):
            return _finish(record, request, Reply.bad_request("The body is not a JSON object that names a model"))
        record.body, record.model = body, model
        if self._refuses(request):
            return _finish(record, request, Reply.refused_key())
        if self._bucket is not None and (wait := self._bucket.take()):
            return _finish(record, request, Reply.rate_limited(f"{wait:.3f}"))
        if self._slots is None:
            return await self._respond(request, record, self._next_reply(model, body))
        async with self._slots:
            return await self._respond(request, record, self._next_reply(model, body))

    def _next_reply(self, model: str, body: dict[str, Any]) -> Reply:
        for name in (model, "*"):
            script = self._scripts.get(name)
            answer = None if script is None else script.take()
            if answer is None:
                continue
            if callable(answer):
                try:
                    answer = answer(body)
                except Exception as error:  # raised again at the end of the with block
                    self._script_errors.append(error)
                    return Reply.fault()
            return Reply(answer) if isinstance(answer, str) else answer
        return Reply(f"answer of {model}")

    async def _respond(self, request: web.BaseRequest, record: Recorded, reply: Reply) -> web.StreamResponse:
        record.started = time.monotonic()
        latency = self._latency(self._rng) if callable(self._latency) else self._latency
        if latency + reply.delay > 0:
            await asyncio.sleep(latency + reply.delay)
        if reply.hang and reply.cut_after is None:
            await _for_ever()
        if reply.reset:
            record.dropped = True
            _reset(request)
            await _until_gone()
        good = reply.body is None and 200 <= reply.status < 300  # what HTTP calls success
        if good and record.body.get("stream") and not reply.plain_json_to_stream:
            return await self._stream(request, record, reply)
        if reply.body is not None:
            content = reply.body
        elif good and reply.error is None:
            content = _completion_body(next(self._numbers), record, reply)
        else:
            content = _error_body(reply, request)
        record.status = reply.status
        if reply.cut_after is not None:
            _write_part(request, reply, content)
            await _part_or_drop(request, record, reply)
        return _plain(reply.status, content, reply.headers)

    async def _stream(self, request: web.BaseRequest, record: Recorded, reply: Reply) -> web.StreamResponse:
        from aiohttp import web

        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **reply.headers}
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(request)
        record.status = reply.status
        comments = b"".join(f": {comment}\n\n".encode() for comment in reply.comments)
        for place, event in enumerate(_events(next(self._numbers), record, reply, request)):
            # the first event only names the role, so n text events are n + 1 events
            if reply.cut_after is not None and place > reply.cut_after:
                return await _part_or_drop(request, record, reply)
            if place and reply.token_delay > 0:
                await asyncio.sleep(reply.token_delay)
            written = b"%sdata: %s\n\n" % (comments, event)
            if reply.write_size is None:
                await response.write(written)
                continue
            for offset in range(0, len(written), reply.write_size):
                await response.write(written[offset : offset + reply.write_size])
                await asyncio.sleep(0)
        if reply.cut_after is not None:
            return await _part_or_drop(request, record, reply)
        await response.write_eof()
        return response


class _Script:
    """The replies of one model, and how far they have been used."""

    def __init__(self, replies: Sequence[Answer], *, repeat_last: bool) -> None:
        self._replies = replies
        self._repeat_last = repeat_last
        self._used = 0

    def take(self) -> Answer | None:
        """Return the next reply; ``None`` when the script is over."""
        place = self._used
        if place >= len(self._replies):
            return self._replies[-1] if self._repeat_last else None
        self._used += 1
        return self._replies[place]


class _Bucket:
    """So many requests a second, and so many at once."""

    def __init__(self, rate: float, burst: float | None) -> None:
        self._rate = rate
        self._most = max(1.0, rate if burst is None else burst)
        self._left = self._most
        self._filled = time.monotonic()

    def take(self) -> float:
        """Return 0 and take one request's worth, or return the seconds until there is one."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return max(0.001, (1 - self._left) / self._rate)


# The wire ---------------------------------------------------------------------------------------


def _plain(status: int, content: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    from aiohttp import web

    if not headers:
        return web.Response(status=status, body=content, headers={"Content-Type": "application/json"})
    return web.Response(status=status, body=content, headers={"Content-Type": "application/json", **headers})


def _finish(record: Recorded, request: web.BaseRequest, reply: Reply) -> web.Response:
    record.started = time.monotonic()
    record.status = reply.status
    return _plain(reply.status, _error_body(reply, request), reply.headers)


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _error(reply: Reply, request: web.BaseRequest) -> dict[str, Any]:
    message = f"HTTP status {reply.status}" if reply.error is None else reply.error
    if "{key}" in message:
        message = message.replace("{key}", request.headers.get("Authorization", "").removeprefix("Bearer "))
    kind = _ERROR_TYPES.get(reply.status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": reply.error_code}}


def _error_body(reply: Reply, request: web.BaseRequest) -> bytes:
    return _dumps(_error(reply, request))


def _usage(record: Recorded, reply: Reply) -> dict[str, Any] | None:
    if reply.usage != "auto":
        return None if reply.usage is None else dict(reply.usage)
    prompt = sum(len(_text(message).split()) for message in record.messages)
    reasoning = len(reply.reasoning.split()) if reply.reasoning else 0
    completion = len(reply.text.split()) + reasoning
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def _completion_body(number: int, record: Recorded, reply: Reply) -> bytes:
    content: str | list[dict[str, str]] | None = reply.text
    if reply.content_null:
        content = None
    elif reply.content_as_list:
        content = [{"type": "text", "text": reply.text}]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    completion: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(record.arrived_unix),
        "model": reply.model or record.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
    }
    usage = _usage(record, reply)
    if usage is not None:
        completion["usage"] = usage
    return _dumps(completion)


def _events(number: int, record: Recorded, reply: Reply, request: web.BaseRequest) -> Iterator[bytes]:
    """Return the data of each event of a stream: role, reasoning, text, finish, usage, done."""
    head = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": int(record.arrived_unix),
        "model": reply.model or record.model,
    }
    start = _dumps(head)[:-1] + b',"choices":[{"index":0,"delta":'
    going_on = b',"finish_reason":null}]}'
    yield start + b'{"role":"assistant","content":""}' + going_on
    if reply.reasoning:
        for piece in _pieces(reply.reasoning, reply.chunks if isinstance(reply.chunks, int) else 1):
            yield start + _dumps({"reasoning_content": piece}) + going_on
    if reply.content_null:
        yield start + b'{"content":null}' + going_on
    else:
        for piece in _pieces(reply.text, reply.chunks):
            delta = [{"type": "text", "text": piece}] if reply.content_as_list else piece
            yield start + _dumps({"content": delta}) + going_on
    if reply.error is not None:
        yield _error_body(reply, request)
        return
    finish = start + b'{},"finish_reason":' + _dumps(reply.finish_reason) + b"}]"
    usage = None if reply.stream_usage == "none" else _usage(record, reply)
    if usage is not None and reply.stream_usage == "last":
        yield finish + b',"usage":' + _dumps(usage) + b"}"
    else:
        yield finish + b"}"
        asked = (record.body.get("stream_options") or {}).get("include_usage")
        if usage is not None and (asked or reply.stream_usage == "own_chunk"):
            yield _dumps({**head, "choices": [], "usage": usage})
    yield b"[DONE]"


def _pieces(text: str, chunks: int | Sequence[str]) -> Sequence[str]:
    if not isinstance(chunks, int):
        return chunks
    words = re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text)
    return ["".join(words[start : start + chunks]) for start in range(0, len(words), chunks)]


def _write_part(request: web.BaseRequest, reply: Reply, content: bytes) -> None:
    """Write the head of a whole answer, and the body up to the cut."""
    headers = {"Content-Type": "application/json", **reply.headers, "Content-Length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    transport = request.transport
    if transport is not None:
        transport.write(f"HTTP/1.1 {reply.status} Scripted\r\n{head}\r\n".encode() + content[: reply.cut_after])


async def _part_or_drop(request: web.BaseRequest, record: Recorded, reply: Reply) -> NoReturn:
    """Fall silent, or close the connection once what was written is out."""
    if reply.hang:
        await _for_ever()
    record.dropped = True
    if request.transport is not None:
        request.transport.close()
    await _until_gone()


def _reset(request: web.BaseRequest) -> None:
    transport = request.transport
    if transport is None:
        return
    peer = transport.get_extra_info("socket")
    if peer is not None:
        # closing without lingering sends a reset instead of a polite end
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


async def _for_ever() -> NoReturn:
    """Wait until the handler is cancelled, since the client closed or the server stops."""
    await asyncio.Event().wait()
    raise AssertionError


async def _until_gone() -> NoReturn:
    """Wait for the loop to notice that the connection is closed, which cancels the handler."""
    await asyncio.sleep(5)
    msg = "the connection was closed by the script"
    raise ConnectionResetError(msg)


def _log_line(record: Recorded) -> bytes:
    fields: dict[str, Any] = {name: getattr(record, name) for name in _LOGGED}
    fields["headers"] = {name: value for name, value in record.headers.items() if name.lower() != "authorization"}
    return _dumps(fields) + b"\n"


# Time -------------------------------------------------------------------------------------------


class Clock:
    """A clock for tests: whoever sleeps on it goes on at once, and the time has passed.

    Tasks that sleep side by side wake in the order of their times, and their sleeps overlap as real ones do.

    >>> clock = Clock()
    >>> asyncio.run(clock.sleep(60))
    >>> clock.time(), clock.sleeps
    (60.0, [60])
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        """The present, in seconds."""
        self.sleeps: list[float] = []
        """Every sleep that was asked for, in seconds, in the order of the calls."""
        self._wakes: list[tuple[float, int]] = []
        self._numbers = count()

    def time(self) -> float:
        """Return the present, in seconds; stands in for ``time.monotonic``."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass without waiting; stands in for ``asyncio.sleep``."""
        self.sleeps.append(seconds)
        wake = (self.now + max(0.0, seconds), next(self._numbers))
        insort(self._wakes, wake)
        try:
            await asyncio.sleep(0)  # others that are about to sleep get their chance
            await asyncio.sleep(0)
            while self._wakes[0] != wake:  # earlier sleepers go first; nothing waits for real
                await asyncio.sleep(0)
            self.now = max(self.now, wake[0])
        finally:
            self._wakes.remove(wake)


# A process of its own ---------------------------------------------------------------------------


def _scripted(answer: str | dict[str, Any]) -> str | Reply:
    """Return the reply that a script file holds: a text, or a table of a ``Reply``'s fields.

    A table with ``kind`` names one of the constructors of ``Reply``; the rest are its arguments.
    """
    if isinstance(answer, str):
        return answer
    fields = dict(answer)
    if isinstance(fields.get("body"), str):
        fields["body"] = fields["body"].encode()
    kind = fields.pop("kind", None)
    if kind is None:
        return Reply(**fields)
    if kind not in _NAMED_REPLIES:
        msg = f"no reply is called {kind!r}; there are: {', '.join(sorted(_NAMED_REPLIES))}"
        raise ValueError(msg)
    reply = getattr(Reply, kind)(**fields)
    assert isinstance(reply, Reply)
    return reply


def _from_script(script: Mapping[str, Any], **options: Any) -> ChatServer:
    """Return the server that a script file describes.

    ``{"options": {"latency": {"median": 0.2}}, "replies": {"alpha": ["first", {"kind": "fault"}]}}``
    """
    options = {**script.get("options", {}), **{name: value for name, value in options.items() if value is not None}}
    if isinstance(options.get("latency"), dict):
        options["latency"] = lognormal(**options["latency"])
    server = ChatServer(**options)
    for model, replies in script.get("replies", {}).items():
        server.on(model, *map(_scripted, replies if isinstance(replies, list) else [replies]))
    return server


def _main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m moa_nb.testing", description="A scripted chat server on loopback.")
    parser.add_argument("--port", type=int, help="where to listen; 0, the default, finds a free port")
    parser.add_argument("--script", type=Path, help='JSON: {"options": {}, "replies": {MODEL: [TEXT or TABLE]}}')
    parser.add_argument("--log", type=Path, help="append each finished request to this file, as a line of JSON")
    parser.add_argument("--key", help="the only key that is taken")
    parser.add_argument("--capacity", type=float, help="requests a second; the rest get a 429")
    parser.add_argument("--burst", type=float, help="requests at once under --capacity")
    parser.add_argument("--max-concurrency", type=int, help="answers in the making; the rest wait")
    parser.add_argument("--latency", type=float, help="seconds before each answer")
    parser.add_argument("--seed", type=int, help="of a latency that varies")
    parser.add_argument("--models", nargs="+", help="what /v1/models lists")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input closes")
    options = vars(parser.parse_args(arguments))
    script, exit_with_stdin = options.pop("script"), options.pop("exit_with_stdin")

    end = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: end.set())
    with _from_script({} if script is None else json.loads(script.read_text("utf-8")), **options) as server:
        print(server.base_url, flush=True)  # what the caller waits for
        if exit_with_stdin:
            threading.Thread(target=_wait_for_stdin, args=(end,), daemon=True).start()
        end.wait()


def _wait_for_stdin(end: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    end.set()


if __name__ == "__main__":
    _main()
