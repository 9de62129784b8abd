"""How a form is shown: as a plain JSON schema to services, in words to models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from moa_nb.pipeline.forms.schema import Node, branches_of, is_nullable

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
    "date-time": "a date and time as YYYY-MM-DDTHH:MM:SS, with its offset such as Z or +02:00 where that is known",
    "time": "a time as HH:MM:SS",
    "duration": "a duration as ISO 8601 writes it, such as P1DT2H30M",
    "email": "an e-mail address",
    "uri": "a URL",
    "uuid": "a UUID",
}

_KEPT = frozenset({"type", "properties", "required", "items", "enum", "anyOf", "description"})
"""The keywords that every service takes; bounds are checked here, and said to the model in words."""


# To services -------------------------------------------------------------------------------------


def plain(schema: Node) -> dict[str, Any] | None:
    """Return a JSON schema as services that hold to it want one: each field required, no other allowed, no bounds.

    A field that may be left out may be null instead. ``None`` where it cannot be told so: fields of any name, or of
    any kind, or what holds itself.

    >>> plain({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "default": 1}}})["required"]
    ['n']
    """
    try:
        return _plain(schema)
    except _Untold:
        return None


class _Untold(Exception):
    """The schema says something that services take no schema for."""


def _plain(node: Any) -> dict[str, Any]:
    if not isinstance(node, Mapping) or not _KEPT.intersection(node) - {"description"}:
        raise _Untold
    kept = {key: value for key, value in node.items() if key in _KEPT}
    if "items" in kept:
        kept["items"] = _plain(node["items"])
    elif node.get("type") == "array":
        raise _Untold
    if "anyOf" in kept:
        kept["anyOf"] = [_plain(one) for one in node["anyOf"]]
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


def _nullable(node: dict[str, Any]) -> dict[str, Any]:
    if is_nullable(node):
        return node
    about = {"description": node.pop("description")} if "description" in node else {}
    branches = node["anyOf"] if [*node] == ["anyOf"] else [node]
    return {"anyOf": [*branches, {"type": "null"}], **about}


# To models ---------------------------------------------------------------------------------------


def in_words(schema: Node) -> str:
    """Return the fields of an object, a line each, as a model is told them.

    >>> print(in_words({"type": "object", "properties": {
    ...     "mood": {"enum": ["good", "bad"], "type": "string", "description": "of the writer"},
    ...     "price": {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}], "default": None},
    ... }, "required": ["mood"]}))
    - "mood": one of "good", "bad" (of the writer)
    - "price": a number, at least 0, or null
    """
    return "\n".join(_Told(schema).fields(schema, 0))


class _Told:
    """Tells a schema; what holds itself is told once."""

    def __init__(self, root: Node) -> None:
        self._definitions: Mapping[str, Node] = root.get("$defs", {})
        self._told: set[str] = set()

    def fields(self, node: Node, depth: int) -> Iterator[str]:
        """Yield a line for each field of an object, and below it those of what it holds."""
        required = node.get("required", ())
        for name, inner in node.get("properties", {}).items():
            said = _said(inner)
            if name not in required and not is_nullable(inner):
                said += ", or null"
            yield from self._within(f"{_quoted(name)}: {said}{_about(inner)}", inner, depth)

    def _within(self, said: str, node: Node, depth: int) -> Iterator[str]:
        """Yield what was said of a node, with the fields of the objects in it."""
        line = "  " * depth + f"- {said}"
        objects = [*_objects(node)]
        if len(objects) != 1:
            yield line + (", with one of these sets of fields:" if objects else "")
            for number, one in enumerate(objects, start=1):
                yield from self._within(str(one.get("title") or f"set {number}"), one, depth + 1)
            return
        (one,) = objects
        if "$ref" in one:
            name = one["$ref"].rpartition("/")[2]
            one = self._definitions[name]
            title = str(one.get("title") or name)
            if name in self._told:
                yield line + f", with the fields of {title} again"
                return
            self._told.add(name)
            line += f", {title}"
        yield line + ", with these fields:"
        yield from self.fields(one, depth + 1)


def _objects(node: Node) -> Iterator[Node]:
    """Yield the objects that a node may hold: itself, a list's entries, one of several."""
    for one in branches_of(node):
        if one.get("properties") or "$ref" in one:
            yield one
        for inner in ("items", "additionalProperties"):
            if isinstance(one.get(inner), Mapping):
                yield from _objects(one[inner])


def _said(node: Node) -> str:
    kinds = list(dict.fromkeys(_kind(one) for one in branches_of(node)))
    if is_nullable(node):
        kinds.append("null")
    return ", or ".join([", ".join(kinds[:-1]), kinds[-1]]) if len(kinds) > 1 else kinds[0]


def _kind(node: Node) -> str:
    """Return what a node holds where it is one thing."""
    if "enum" in node:
        known = [_quoted(one) for one in node["enum"] if one is not None]
        return ("one of " if len(known) > 1 else "") + ", ".join(known)
    kind = str(node.get("type"))
    if "$ref" in node:
        return _NAMES["object"]
    if kind == "array" and node.get("prefixItems"):
        return "a list of these in their order: " + "; ".join(map(_said, node["prefixItems"]))
    if kind == "array":
        of = f", each {_said(node['items'])}" if node.get("items") else ""
        once = ", none twice" if node.get("uniqueItems") else ""
        return f"a list{of}{once}{_bounds(node, 'minItems', 'maxItems', 'entries')}"
    if kind == "object" and isinstance(node.get("additionalProperties"), Mapping):
        return f"an object of any names, each with {_said(node['additionalProperties'])}"
    if kind == "string":
        pattern = f", that matches the regular expression {node['pattern']}" if "pattern" in node else ""
        said = _FORMATS.get(node.get("format", ""), _NAMES["string"])
        return said + _bounds(node, "minLength", "maxLength", "characters") + pattern
    return _NAMES.get(kind, "any value") + _range(node)


def _range(node: Node) -> str:
    words = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    low, high, above, below = (_number(node.get(word)) for word in words)
    step = f", a multiple of {node['multipleOf']}" if "multipleOf" in node else ""
    if low is not None and high is not None:
        return f" from {low} to {high}{step}"
    said = f", at least {low}" if low is not None else f", above {above}" if above is not None else ""
    return said + (f", at most {high}" if high is not None else f", below {below}" if below is not None else "") + step


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bounds(node: Node, least: str, most: str, unit: str) -> str:
    low, high = node.get(least), node.get(most)
    if low is not None and high is not None:
        return f", {low} to {high} {unit}" if low != high else f", {low} {unit}"
    return f", at least {low} {unit}" if low is not None else f", at most {high} {unit}" if high is not None else ""


def _about(node: Node) -> str:
    about = " ".join(str(node.get("description") or "").split())
    return f" ({about})" if about else ""


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
