"""Keys taken out of texts that people read: whole, in part, starred, or in another spelling."""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

__all__ = ["HIDDEN", "is_secret", "secrets", "without"]

HIDDEN = "[key]"
"""What stands in a key's place."""

_PIECE = 8
"""So many characters of a key in a row are taken out, wherever in the key they stand."""

_END = 3
"""So many characters at the start or the end of a key are taken out where they stand beside stars."""

_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)

_SCHEME = re.compile(r"(?:bearer|basic|token|api-?key)\s+", re.IGNORECASE)

_ESCAPED = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+"  # in an address
    r"|(?:\\u[0-9A-Fa-f]{4})+|\\[\"/\\]"  # in JSON
    r"|&(?:#\d+|#x[0-9A-Fa-f]+|\w+);"  # in HTML
)

_STARS = re.compile(r"(?:(?:\*+|\.{3,}|…|•+|[xX]{4,})[-_ ]?)*(?:\*+|\.{3,}|…|•+|[xX]{4,})")
_REACH = 80
"""Characters beside stars that are looked at."""


def is_secret(header: str) -> bool:
    """Return whether a header of that name may hold a key.

    >>> is_secret("x-api-key"), is_secret("Content-Type")
    (True, False)
    """
    return _SECRET_HEADER.search(header) is not None


def secrets(headers: Mapping[str, str]) -> list[str]:
    """Return the keys that a request's headers carry.

    >>> secrets({"Authorization": "Bearer sk-1", "Content-Type": "application/json"})
    ['sk-1']
    """
    return [
        _SCHEME.sub("", value, count=1).strip() for name, value in headers.items() if value.strip() and is_secret(name)
    ]


def without(text: str, keys: Iterable[str]) -> str:
    """Return the text without these keys, in whatever part or spelling it has them.

    >>> without("no key sk-12345678 here, nor sk-1****678", ["sk-12345678"])
    'no key [key] here, nor [key]'
    """
    known = [key for key in keys if key]
    if not known or not text:
        return text
    spans = [span for key in known for span in _found(text, key)]
    if _ESCAPED.search(text):
        plain, places = _plain(text)
        spans += [(places[start][0], places[stop - 1][1]) for key in known for start, stop in _found(plain, key)]
    pieces, end = [], 0
    for start, stop in _merged(sorted(spans)):
        pieces += [text[end:start], HIDDEN]
        end = stop
    return "".join([*pieces, text[end:]])


def _found(plain: str, key: str) -> Iterator[tuple[int, int]]:
    """Yield where a text has a key or a part of it."""
    grams = _grams(key)
    size = min(len(key), _PIECE)
    for start in range(len(plain) - size + 1):
        if plain[start : start + size] in grams:
            yield start, start + size
    if len(key) > _PIECE:
        for stars in _STARS.finditer(plain):
            yield from _beside(plain, stars, key)


def _beside(plain: str, stars: re.Match[str], key: str) -> Iterator[tuple[int, int]]:
    """Yield the place of a key whose start, middle or end is starred out."""
    start, stop = stars.span()
    before, after = plain[max(start - _REACH, 0) : start], plain[stop : stop + _REACH]
    left, right = before.removesuffix(" "), after.removeprefix(" ")
    sizes = range(min(_REACH, len(key)), 0, -1)
    head = next((size for size in sizes if left.endswith(key[:size])), 0)
    tail = next((size for size in sizes if right.startswith(key[-size:])), 0)
    if max(head, tail) >= _END:
        # A space beside the stars belongs to what is taken out only where something of the key stands behind it.
        first = start - head - (len(before) - len(left) if head else 0)
        yield first, stop + tail + (len(after) - len(right) if tail else 0)


@functools.lru_cache(maxsize=64)
def _grams(key: str) -> frozenset[str]:
    """Return the pieces of a key that give it away: it alone if it is short, else all of some length."""
    if len(key) < _PIECE:
        return frozenset({key})
    return frozenset(form[start : start + _PIECE] for form in _forms(key) for start in range(len(form) - _PIECE + 1))


def _forms(key: str) -> Iterator[str]:
    """Yield the key, what it says if it is base64 of a user and a password, and what base64 makes of it."""
    yield key
    try:
        yield from base64.b64decode(key, validate=True).decode().split(":", 1)
    except (binascii.Error, ValueError):
        pass
    for before in range(3):
        # What stands before the key moves its bits; the characters that are made of other bits too are left out.
        coded = base64.b64encode(b"\0" * before + key.encode()).decode().rstrip("=")
        whole = coded[(0, 2, 3)[before] : (before + len(key.encode())) * 8 // 6]
        yield whole
        yield whole.replace("+", "-").replace("/", "_")


def _plain(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the text with its escapes undone, and where each character came from."""
    pieces: list[str] = []
    places: list[tuple[int, int]] = []
    end = 0
    for escaped in _ESCAPED.finditer(text):
        start, stop = escaped.span()
        meant = _meant(escaped[0])
        pieces += [text[end:start], meant]
        places += [(place, place + 1) for place in range(end, start)] + [(start, stop)] * len(meant)
        end = stop
    places += [(place, place + 1) for place in range(end, len(text))]
    return "".join([*pieces, text[end:]]), places


def _meant(escaped: str) -> str:
    if escaped[0] == "%":
        return unquote(escaped, errors="replace")
    if escaped[0] == "&":
        return html.unescape(escaped)
    meant: str = json.loads(f'"{escaped}"')
    return meant


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield sorted spans, those that overlap or touch as one."""
    start, stop = -1, -1
    for first, last in spans:
        if first > stop:
            if stop >= 0:
                yield start, stop
            start, stop = first, last
        stop = max(stop, last)
    if stop >= 0:
        yield start, stop
