"""The scripted chat server: its life, its script, what it saw, and how it takes a request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from moa_nb.testing.recorded import Recorded, dumps, loads, log_line
from moa_nb.testing.reply import Answer, Reply

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp import web


class ChatServer:
    """A server of OpenAI chat completions on loopback, in a thread of its own.

    Without a script it answers ``answer of MODEL`` for any model.

    >>> import json
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
        self._slots: asyncio.Semaphore | contextlib.nullcontext[None] = contextlib.nullcontext()
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
        from moa_nb.testing.wire import Connections

        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self._max_concurrency is not None:
            self._slots = asyncio.Semaphore(self._max_concurrency)
        connections = Connections(self._handle)
        self.port = await connections.listen(self.port)
        try:
            if self._log_path is not None:
                self._log = Path(self._log_path).open("ab", buffering=0)  # noqa: SIM115, ASYNC230
            started.set()
            await self._stop.wait()
        finally:
            self._stopping = True
            await connections.close()
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

    def wait_until(self, condition: Callable[[], object], *, seconds: float = 30.0) -> bool:
        """Return True as soon as ``condition()`` holds, False when it does not within ``seconds``."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    # one request --------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        from moa_nb.testing import wire

        path = request.path
        if path.endswith("/chat/completions") and request.method == "POST":
            return await self._chat(request)
        if path.endswith("/models") and request.method == "GET":
            self.model_listings += 1
            if self._refuses(request):
                return wire.refuse(request, Reply.refused_key())
            listed = [{"id": model, "object": "model", "owned_by": "moa-nb"} for model in self.models]
            return wire.plain(dumps({"object": "list", "data": listed}))
        return wire.refuse(request, Reply(status=404, error=f"Nothing is served at {path}"))

    def _refuses(self, request: web.BaseRequest) -> bool:
        return self._authorization is not None and request.headers.get("Authorization") != self._authorization

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        # In this order: what comes between the two does not put the end of the request into the future.
        record = Recorded({}, b"", request.headers, "", arrived_unix=time.time(), arrived=time.monotonic())
        self._requests.append(record)
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        try:
            return await self._answer(request, record)
        except (asyncio.CancelledError, ConnectionError) as error:
            if self._stopping:
                raise asyncio.CancelledError from error  # nobody is left to retrieve another error
            if not record.dropped:
                record.closed_at = time.monotonic()
            raise
        finally:
            record.finished = time.monotonic()
            self._in_flight -= 1
            if self._log is not None:
                self._log.write(log_line(record))

    async def _answer(self, request: web.BaseRequest, record: Recorded) -> web.StreamResponse:
        from moa_nb.testing.wire import send

        record.content = await request.content.read()
        refusal = self._read(request, record)
        if refusal is not None:
            record.started = time.monotonic()
            return await send(request, record, refusal, self._numbers)
        async with self._slots:
            reply = self._next_reply(record)
            record.started = time.monotonic()
            latency = self._latency(self._rng) if callable(self._latency) else self._latency
            if latency + reply.delay > 0:
                await asyncio.sleep(latency + reply.delay)
            return await send(request, record, reply, self._numbers)

    def _read(self, request: web.BaseRequest, record: Recorded) -> Reply | None:
        """Fill in what was asked; return what it is refused with, if it is."""
        try:
            body = loads(record.content)
            model = body["model"]
        except (ValueError, TypeError, KeyError):
            body = model = None
        if not isinstance(model, str):
            return Reply.bad_request("The body is not a JSON object that names a model")
        record.body, record.model = body, model
        if self._refuses(request):
            return Reply.refused_key()
        if self._bucket is not None and (wait := self._bucket.take()):
            return Reply.rate_limited(f"{wait:.3f}")
        return None

    def _next_reply(self, record: Recorded) -> Reply:
        for name in (record.model, "*"):
            script = self._scripts.get(name)
            answer = None if script is None else script.take()
            if answer is None:
                continue
            if callable(answer):
                try:
                    answer = answer(record.body)
                except Exception as error:  # raised again at the end of the with block
                    self._script_errors.append(error)
                    return Reply.fault()
            return Reply(answer) if isinstance(answer, str) else answer
        return Reply(f"answer of {record.model}")


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
