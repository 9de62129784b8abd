"""Completions as bytes: those of one block are one small JSON array, compressed together."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import orjson

from moa_nb.chat import Completion, Usage

try:
    # The same format in a quarter of the time.
    from isal.isal_zlib import compress as _deflate
except ImportError:
    _deflate = zlib.compress

__all__ = ["blocks", "completion", "pack", "repack", "unpack"]

_T = TypeVar("_T")

_MOST, _LONGEST = 8, 65536
"""Completions of a block, and characters: one that is looked up costs the unpacking of its whole block."""

_SMALL = 600
"""Bytes below which compressing costs more than it saves."""


def blocks(items: Sequence[tuple[_T, Completion]]) -> Iterator[list[tuple[_T, Completion]]]:
    """Return ``items`` in pieces that are each fit for a block."""
    block: list[tuple[_T, Completion]] = []
    length = 0
    for item in items:
        block.append(item)
        length += len(item[1].text)
        if len(block) == _MOST or length >= _LONGEST:
            yield block
            block, length = [], 0
    if block:
        yield block


def pack(completions: Iterable[Completion]) -> bytes:
    """Return completions as bytes; the cost of each is what it took when it was asked."""
    return _compress([_fields(one) for one in completions])


def repack(records: Sequence[Any]) -> bytes:
    """Return what ``unpack`` returned, or a part of it, as bytes again."""
    return _compress(records)


def unpack(data: bytes) -> list[Any]:
    """Return the records of a block, each for ``completion`` to read.

    Raises:
        ValueError: the bytes are damaged.
    """
    try:
        return [*orjson.loads(data if data[:1] == b"[" else zlib.decompress(data))]
    except (zlib.error, ValueError, TypeError) as error:
        msg = "a damaged block"
        raise ValueError(msg) from error


def completion(record: Any, key: bytes) -> Completion:
    """Return the completion of a record, marked as cached and with its key.

    Raises:
        ValueError: it is no record.
    """
    try:
        text, model, finish_reason, usage, cost, seconds, reasoning, note = record
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
            key=key,
        )
    except (ValueError, TypeError) as error:
        msg = "a damaged completion"
        raise ValueError(msg) from error


def _fields(completion: Completion) -> list[Any]:
    usage = completion.usage
    return [
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


def _compress(records: Sequence[Any]) -> bytes:
    try:
        data = orjson.dumps(records)
    except TypeError:
        # Half of a surrogate pair, from a function that answered with broken text.
        data = json.dumps(records, ensure_ascii=False).encode("utf-8", "replace")
    return data if len(data) < _SMALL else _deflate(data, 1)
