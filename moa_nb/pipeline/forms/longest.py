"""How long a filled form can become, where that is known: labels, booleans, numbers, dates, and lists of so many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from moa_nb.pipeline.forms.schema import Node, choices_of

__all__ = ["longest"]

_PLAIN: Mapping[str, int] = {"null": 4, "boolean": 5, "integer": 20, "number": 25}
"""Bytes of a value; of numbers those that a double can tell apart."""

_FORMATS: Mapping[str, int] = {"date": 12, "date-time": 37, "time": 23, "uuid": 38}
"""Bytes of a text of a format, with its quotes."""


def longest(schema: Node) -> int | None:
    """Return the bytes of the longest JSON that fills in a schema, without white space; ``None`` where nothing bounds it.

    Free text is never bounded: its ``maxLength`` is checked here, and no service holds to it.

    >>> longest({"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}, "sure": {"type": "boolean"}}})
    29
    >>> longest({"type": "string"})
    """
    if "anyOf" in schema:
        return _most(map(longest, schema["anyOf"]))
    if "enum" in schema:
        return max(_bytes(one) for one in schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        fields: Mapping[str, Node] = schema.get("properties") or {}
        if not fields or isinstance(schema.get("additionalProperties"), Mapping):
            return None
        # Each with its name, a colon and a comma.
        return _sum((_bytes(name) + 2, longest(node)) for name, node in fields.items())
    if kind == "array":
        return _list(schema)
    if kind == "string":
        return _FORMATS.get(schema.get("format", ""))
    return _PLAIN.get(str(kind))


def _list(schema: Node) -> int | None:
    if schema.get("prefixItems"):
        return _sum((1, longest(node)) for node in schema["prefixItems"])
    items = schema.get("items") or {}
    choices = choices_of(items) if items and schema.get("uniqueItems") else []
    if choices:
        return _sum((1, _bytes(one)) for one in choices)
    most, each = schema.get("maxItems"), longest(items) if items else None
    return None if most is None or each is None else 2 + most * (each + 1)


def _sum(parts: Iterable[tuple[int, int | None]]) -> int | None:
    """Return the bytes of parts within brackets; ``None`` where nothing bounds one of them."""
    total = 2
    for own, inner in parts:
        if inner is None:
            return None
        total += own + inner
    return total


def _most(several: Iterable[int | None]) -> int | None:
    known = [*several]
    return None if None in known else max(one for one in known if one is not None)


def _bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
