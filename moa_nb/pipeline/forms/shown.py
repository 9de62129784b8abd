"""How a form is shown: as a plain JSON schema to services, in words to models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["in_words", "plain"]

_NAMES: Mapping[str, str] = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}

_FORMATS: Mapping[str, str] = {
    "date": "a date as YYYY-MM-DD",
    "date-time": "a date and time as YYYY-MM-DDTHH:MM:SS",
    "time": "a time as HH:MM:SS",
    "email": "an e-mail address",
    "uri": "a URL",
    "uuid": "a UUID",
}

_KEPT = frozenset({"type", "properties", "required", "items", "enum", "anyOf", "$ref", "$defs", "description"})
"""The keywords that every service takes; bounds are checked here, and said to the model in words."""

_DEEPEST = 6
"""Levels that are told in words; what lies deeper is in the schema."""


def plain(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a JSON schema as services that hold to it want one: each field required, no other allowed, no bounds.

    A field that may be left out may be null instead. ``None`` where it cannot be told so: fields of any name, or of
    any kind.

    >>> plain({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "default": 1}}})["required"]
    ['n']
    """
    try:
        return _plain(schema)
    except _Untold:
        return None


class _Untold(Exception):
    """The schema says something that services take no schema for."""


def _plain(node: Mapping[str, Any]) -> dict[str, Any]:
    node = _unwrapped(node)
    if not _KEPT.intersection(node) - {"description"}:
        raise _Untold
    kept = {key: value for key, value in node.items() if key in _KEPT}
    if "items" in kept:
        kept["items"] = _plain(node["items"])
    elif node.get("type") == "array":
        raise _Untold
    if "anyOf" in kept:
        kept["anyOf"] = [_plain(one) for one in node["anyOf"]]
    if "$defs" in kept:
        kept["$defs"] = {name: _plain(one) for name, one in node["$defs"].items()}
    if node.get("type") == "object":
        properties = node.get("properties")
        if not properties:
            raise _Untold
        required = node.get("required", ())
        kept["properties"] = {
            name: _plain(one) if name in required else _nullable(_plain(one)) for name, one in properties.items()
        }
        kept["required"] = list(properties)
        kept["additionalProperties"] = False
    return kept


def _unwrapped(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a node with what pydantic writes in other words: a constant as the only choice, one of one as itself."""
    if "const" in node:
        return {**node, "enum": [node["const"]]}
    if "oneOf" in node:
        return {**node, "anyOf": node["oneOf"]}
    if len(node.get("allOf", ())) == 1:
        return {**node, **node["allOf"][0]}
    return node


def _nullable(node: dict[str, Any]) -> dict[str, Any]:
    if any(one.get("type") == "null" for one in node.get("anyOf", ())):
        return node
    about = {"description": node.pop("description")} if "description" in node else {}
    return {"anyOf": [node, {"type": "null"}], **about}


def in_words(schema: Mapping[str, Any]) -> str:
    """Return the fields of an object, a line each, as a model is told them.

    >>> print(in_words({"type": "object", "properties": {
    ...     "mood": {"enum": ["good", "bad"], "type": "string", "description": "of the writer"},
    ...     "price": {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}], "default": None},
    ... }, "required": ["mood"]}))
    - "mood": one of "good", "bad" (of the writer)
    - "price": a number, at least 0, or null
    """
    return "\n".join(_lines(schema, schema, 0))


def _lines(node: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Iterator[str]:
    required = node.get("required", ())
    for name, inner in node.get("properties", {}).items():
        about = inner.get("description")
        said = _said(inner, root)
        if name not in required and "null" not in said:
            said += ", or null"
        within = _object_in(inner, root) if depth < _DEEPEST else None
        yield (
            "  " * depth
            + f"- {json.dumps(name, ensure_ascii=False)}: {said}"
            + (f" ({about})" if about else "")
            + (", with these fields:" if within is not None else "")
        )
        if within is not None:
            yield from _lines(within, root, depth + 1)


def _resolved(node: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    node = _unwrapped(node)
    if "$ref" in node:
        return _resolved(root.get("$defs", {}).get(node["$ref"].rpartition("/")[2], {}), root)
    return node


def _object_in(node: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the object that a field holds, alone or as a list's items; ``None`` if it holds none."""
    node = _resolved(node, root)
    if node.get("properties"):
        return node
    parts = [*node.get("anyOf", ()), *([node["items"]] if "items" in node else [])]
    return next((found for part in parts if (found := _object_in(part, root)) is not None), None)


def _said(node: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    node = _resolved(node, root)
    if "enum" in node:
        return "one of " + ", ".join(json.dumps(one, ensure_ascii=False) for one in node["enum"])
    if "anyOf" in node:
        parts = [_said(one, root) for one in node["anyOf"]]
        return ", or ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
    kind = node.get("type")
    if kind == "array":
        of = f", each {_said(node['items'], root)}" if node.get("items") else ""
        return f"a list{of}{_bounds(node, 'minItems', 'maxItems', 'entries')}"
    if isinstance(kind, list):
        return " or ".join(_NAMES.get(one, one) for one in kind)
    if kind == "string" and node.get("format") in _FORMATS:
        return _FORMATS[node["format"]]
    said = _NAMES.get(str(kind), "any value")
    if kind == "string":
        return said + _bounds(node, "minLength", "maxLength", "characters")
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f"{said} from {low:g} to {high:g}"
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    said += f", at least {low:g}" if low is not None else f", above {above:g}" if above is not None else ""
    return said + (f", at most {high:g}" if high is not None else f", below {below:g}" if below is not None else "")


def _bounds(node: Mapping[str, Any], least: str, most: str, unit: str) -> str:
    low, high = node.get(least), node.get(most)
    if low is not None and high is not None:
        return f", {low} to {high} {unit}"
    return f", at least {low} {unit}" if low is not None else f", at most {high} {unit}" if high is not None else ""
