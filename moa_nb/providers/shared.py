"""What the wire formats share: turns, temperatures, and JSON as services really send it and broken columns hold it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from moa_nb.chat import Message

__all__ = [
    "COLD",
    "Answer",
    "count",
    "dollars",
    "dumps",
    "loads",
    "loads_all",
    "name",
    "page",
    "table",
    "temperature",
    "turns",
]

COLD = 1e-4
"""Temperatures up to this are sent as exactly 0, as the reference implementation of MoA does."""


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_stream: bool = False
    """Whether it was a stream, whose events went elsewhere: ``body`` is empty."""


def dumps(fields: Any) -> bytes:
    r"""Return what is sent as bytes of JSON, the same for equal fields in equal order.

    Raises:
        TypeError: a field that is not JSON.

    >>> dumps({"text": "a\ud83d"})
    b'{"text":"a?"}'
    """
    try:
        return orjson.dumps(fields)
    except TypeError:
        # A lone surrogate, as broken text columns have them: it cannot be sent, so it is replaced.
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def loads(data: bytes) -> Any:
    """Return what JSON says; broken characters are replaced, since what is left is still an answer.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        lenient = json.loads(data.decode("utf-8", "replace"))
        return orjson.loads(json.dumps(lenient, ensure_ascii=False).encode("utf-8", "replace"))


def loads_all(events: Sequence[bytes]) -> list[Any]:
    """Return what each event says; one array is read faster than its events one by one.

    Raises:
        ValueError: one of them is not JSON.
    """
    found = loads(b"[" + b",".join(events) + b"]")
    assert isinstance(found, list)
    return found


def count(value: Any) -> int | None:
    """Return a number of tokens; ``None`` where there is no sensible one.

    >>> count(3), count(True), count("3"), count(-1)
    (3, None, None, None)
    """
    return value if type(value) is int and value >= 0 else None


def dollars(value: Any) -> float | None:
    """Return a sum of money; ``None`` where there is no sensible one.

    >>> dollars(0.25), dollars(0), dollars(-1), dollars(float("nan")), dollars("1")
    (0.25, 0.0, None, None, None)
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < float("inf") else None


def page(url: str, field: str, value: str) -> str:
    """Return the address of another page of a list.

    >>> page("https://lab.example/models?limit=9&after_id=a", "after_id", "b/c")
    'https://lab.example/models?limit=9&after_id=b%2Fc'
    """
    address, _, query = url.partition("?")
    parts = [part for part in query.split("&") if part and not part.startswith(f"{field}=")]
    return f"{address}?" + "&".join([*parts, f"{field}={quote(value, safe='')}"])


def table(value: Any) -> dict[str, Any]:
    """Return a JSON object; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def name(value: Any) -> str:
    """Return a text; an empty one in place of anything else."""
    return value if isinstance(value, str) else ""


def temperature(asked: float, most: float = 2.0) -> float:
    """Return a temperature that a service takes: 0 for a very low one, ``most`` for one above it.

    >>> temperature(1e-9), temperature(0.7), temperature(1.3, most=1.0)
    (0, 0.7, 1.0)
    """
    return 0 if asked <= COLD else min(asked, most)


def turns(messages: Iterable[Message]) -> list[tuple[str, str]]:
    r"""Return role and text of each turn without the system's, the words of one speaker in a row as one turn.

    >>> turns([Message("system", "Be brief."), Message("user", "One"), Message("user", "Two")])
    [('user', 'One\n\nTwo')]
    """
    merged: list[tuple[str, str]] = []
    for message in messages:
        if message.role == "system":
            continue
        if merged and merged[-1][0] == message.role:
            merged[-1] = (message.role, f"{merged[-1][1]}\n\n{message.content}")
        else:
            merged.append((message.role, message.content))
    return merged
