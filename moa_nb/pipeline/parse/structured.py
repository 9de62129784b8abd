"""The JSON that a text holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from typing import Any, NoReturn

__all__ = ["structured"]

_DEEPEST = 100
"""More levels are no answer, and would overflow the stack of who reads them."""

_FENCED = re.compile(r"```[ \t]{0,4}(\w{0,20})[ \t]{0,4}\r?\n(.*?)```", re.DOTALL)
_OPENS = re.compile(r"[\[{]")
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*+"|\\.|[\[\]{}]')
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+")|,(?=\s*[}\]])')
_BEGINS = re.compile(r'\{\s*"|\[\s*[\[{"\d]')
"""How JSON begins; a bracket of prose that is never closed does not hide what follows."""

_PAIR = {"}": "{", "]": "["}


def structured(text: str, keys: Collection[str] = ()) -> Any:
    """Return the JSON object or array that the text ends up with, ``None`` where there is none.

    A fenced block is preferred to what stands around it; the last object with all of ``keys`` counts, else
    (without ``keys``) the last array. Prose around it is skipped, a comma before a closing bracket forgiven.
    Nothing else is repaired: what could be meant in two ways, such as single quotes, is no JSON.

    >>> structured('For example {"score": 1}. Mine: {"score": 8,} I hope [this] helps.')
    {'score': 8}
    >>> structured('{"keep": [1, 3], "end": false} {}', keys=["keep", "end"])
    {'keep': [1, 3], 'end': False}
    """
    fenced = [block for language, block in _FENCED.findall(text) if language.lower() in {"", "json", "json5", "jsonc"}]
    for part in (*reversed(fenced), text):
        values = list(_values(part))
        objects = [value for value in values if isinstance(value, dict) and all(key in value for key in keys)]
        arrays = [] if keys else [value for value in values if isinstance(value, list)]
        for found in (objects, arrays):
            if found:
                return found[-1]
    return None


def _values(text: str) -> Iterator[Any]:
    for start, end in _spans(text):
        source = text[start:end]
        for attempt in (source, _TRAILING_COMMA.sub(r"\1", source)):
            try:
                yield json.loads(attempt, parse_constant=_refuse, parse_float=_finite)
                break
            except ValueError:
                continue


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is no JSON"
    raise ValueError(msg)


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits)


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where the outermost balanced brackets are, in one pass; none where they are nested too deeply.

    What stands inside of JSON that is never closed, or not well, is a part of an answer, and no answer.
    """
    spans: list[tuple[int, int]] = []
    open_at: list[int] = []
    at = 0

    def give_up() -> None:
        broken = next((start for start in open_at if _BEGINS.match(text, start)), len(text))
        while spans and spans[-1][0] > broken:
            spans.pop()
        open_at.clear()

    while match := (_TOKEN if open_at else _OPENS).search(text, at):
        at = match.end()
        bracket = match[0]
        if bracket in "[{":
            open_at.append(match.start())
            if len(open_at) > _DEEPEST:
                return []
        elif bracket in _PAIR:
            start = open_at.pop()
            if text[start] != _PAIR[bracket]:
                open_at.append(start)
                give_up()
                continue
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, at))
    give_up()
    return spans
