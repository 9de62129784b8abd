"""What a server answers: texts, faults, silences, and how long they take."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Self, TypeAlias


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
