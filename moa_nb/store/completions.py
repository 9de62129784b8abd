"""Completions as bytes: a small JSON array, compressed where that helps."""

from __future__ import annotations

import json
import zlib

import orjson

from moa_nb.chat import Completion, Usage

__all__ = ["pack", "unpack"]

_SMALL = 600
"""Bytes below which compressing costs more than it saves."""


def pack(completion: Completion) -> bytes:
    """Return the completion as bytes; its cost is what it took when it was asked."""
    usage = completion.usage
    fields = [
        completion.text,
        completion.model,
        completion.finish_reason,
        [
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_prompt_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            usage.estimated,
        ],
        completion.cost,
        completion.seconds,
        completion.reasoning,
        completion.note,
    ]
    try:
        data = orjson.dumps(fields)
    except TypeError:
        # Half of a surrogate pair, from a function that answered with broken text.
        data = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
    return data if len(data) < _SMALL else zlib.compress(data, 1)


def unpack(value: bytes) -> Completion:
    """Return the completion that ``pack`` made bytes of, marked as cached.

    Raises:
        ValueError: the bytes are damaged.
    """
    try:
        data = value if value[:1] == b"[" else zlib.decompress(value)
        text, model, finish_reason, usage, cost, seconds, reasoning, note = orjson.loads(data)
        return Completion(
            text=text,
            model=model,
            finish_reason=finish_reason,
            usage=Usage(*usage),
            cost=cost,
            seconds=seconds,
            attempts=0,
            cached=True,
            reasoning=reasoning,
            note=note,
        )
    except (zlib.error, ValueError, TypeError) as error:
        msg = "a damaged completion"
        raise ValueError(msg) from error
