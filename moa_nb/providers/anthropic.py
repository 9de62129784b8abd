"""Anthropic messages: the system's words apart from the turns, answers in blocks.

Pure: a ``Request`` becomes the bytes of a body, bytes become a ``Completion``. The format knows no
``seed``; one that a request carries is not sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from moa_nb.chat import Completion, Request, Usage
from moa_nb.providers.shared import count, dumps, loads, loads_all, name, table, temperature, turns
from moa_nb.providers.structured import output_config

__all__ = ["MAX_TOKENS", "PATH", "VERSION", "Stream", "body", "headers", "parse", "streamed"]

PATH = "/messages"
"""Below the provider's ``base_url``."""

VERSION = "2023-06-01"
"""Of the format; a header of every request."""

MAX_TOKENS = 4096
"""The most tokens of an answer where the request sets no bound: the format wants one."""

_HOTTEST = 1.0
"""Temperatures above this are refused, so it is sent in their place."""

_FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
"""Reasons to stop, in our words; others, such as ``refusal``, stay as they are."""

_PIECES = {"text": "text", "thinking": "thinking", "text_delta": "text", "thinking_delta": "thinking"}
"""The kinds of blocks and deltas that hold words, and the field in which they hold them."""

_THOUGHT = "thinking"


def headers(key: str | None, header: str | None = None) -> dict[str, str]:
    """Return the headers that carry the key and the format's version."""
    return {"anthropic-version": VERSION, **({header or "x-api-key": key} if key else {})}


def body(request: Request, model: str) -> bytes:
    """Return the request's body for ``model``; equal requests give equal bytes.

    Raises:
        TypeError: an extra field that is not JSON.
    """
    sampling, form = request.sampling, output_config(request)
    fields: dict[str, Any] = {"model": model, "max_tokens": sampling.max_tokens or MAX_TOKENS, **form}
    system = [message.content for message in request.messages if message.role == "system"]
    if system:
        fields["system"] = "\n\n".join(system)
    fields["messages"] = [{"role": role, "content": content} for role, content in turns(request.messages)]
    if sampling.temperature is not None:
        fields["temperature"] = temperature(sampling.temperature, _HOTTEST)
    if sampling.top_p is not None:
        fields["top_p"] = sampling.top_p
    if sampling.stop:
        fields["stop_sequences"] = sampling.stop
    fields.update(sampling.extra)
    fields.update(form)  # which has what the user configures beside it
    return dumps(fields)


def streamed(body: bytes) -> bytes:
    """Return the same body, asking for a stream."""
    return body[:-1] + b',"stream":true}'


def parse(data: bytes) -> Completion:
    """Return the completion of a whole answer.

    Raises:
        ValueError: it is not a message.
    """
    answer = loads(data)
    content = table(answer).get("content")
    if not isinstance(content, list):
        msg = "no content in the answer"
        raise ValueError(msg)  # noqa: TRY004 - whatever is wrong with an answer is one kind of error
    pieces = [_piece(block) for block in content]
    return _completion(pieces, answer.get("stop_reason"), table(answer.get("usage")), answer.get("model"))


class Stream:
    """Collects the events of a streamed answer.

    ``feed`` returns the new piece of text, ``completion`` what has come together.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[bool, str]] = []
        self._stopped: Any = None
        self._usage: dict[str, Any] = {}
        self._model: str | None = None
        self.is_over = False
        """Whether the service said that nothing more comes."""
        self.error: bytes | None = None
        """An error that came in the middle of the stream, as ``said`` reads it."""

    def feed(self, events: Sequence[bytes]) -> str:
        """Return the text that these events add; empty where they add none.

        Raises:
            ValueError: they are not JSON.
        """
        return "".join(map(self._take, loads_all(events)))

    def _take(self, event: Any) -> str:
        event = table(event)
        kind = name(event.get("type"))
        if kind in {"content_block_delta", "content_block_start"}:
            thought, text = piece = _piece(event.get("delta") or event.get("content_block"))
            if text:
                self._pieces.append(piece)
            return "" if thought else text
        if kind == "message_start":
            message = table(event.get("message"))
            self._model = self._model or name(message.get("model"))
            self._count(message.get("usage"))
        elif kind == "message_delta":
            self._stopped = table(event.get("delta")).get("stop_reason") or self._stopped
            self._count(event.get("usage"))
        elif kind == "message_stop":
            self.is_over = True
        elif event.get("error") and not self.is_whole:
            self.error = orjson.dumps(event)
        return ""

    def _count(self, usage: Any) -> None:
        # Each report says the sum so far, but may leave out what it said before.
        self._usage.update({field: value for field, value in table(usage).items() if value is not None})

    @property
    def has_begun(self) -> bool:
        """Whether there is some of the answer already."""
        return bool(self._pieces)

    @property
    def is_whole(self) -> bool:
        """Whether the service said that the answer is finished."""
        return self._stopped is not None or self.is_over

    def completion(self) -> Completion:
        """Return what has come together."""
        return _completion(self._pieces, self._stopped, self._usage, self._model)


def _piece(block: Any) -> tuple[bool, str]:
    """Return whether a block or a delta is a thought, and its words; tools and signatures have none."""
    block = table(block)
    field = _PIECES.get(name(block.get("type")))
    return field == _THOUGHT, name(block.get(field)) if field else ""


def _completion(pieces: Iterable[tuple[bool, str]], stopped: Any, usage: Mapping[str, Any], model: Any) -> Completion:
    pieces = list(pieces)
    reason = str(stopped) if stopped else None
    return Completion(
        text="".join(text for thought, text in pieces if not thought),
        reasoning="".join(text for thought, text in pieces if thought) or None,
        finish_reason=_FINISHED.get(reason, reason) if reason else None,
        usage=_usage(usage),
        model=name(model),
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    fresh = count(usage.get("input_tokens"))
    cached, written = count(usage.get("cache_read_input_tokens")), count(usage.get("cache_creation_input_tokens"))
    return Usage(
        # Apart from each other in the report, but all of them are the prompt.
        prompt_tokens=None if fresh is None else fresh + (cached or 0) + (written or 0),
        completion_tokens=count(usage.get("output_tokens")),
        cached_prompt_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=count(table(usage.get("output_tokens_details")).get("thinking_tokens")),
    )
