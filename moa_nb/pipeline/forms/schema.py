"""The JSON schema of a pydantic model, in the few words that the rest of this room knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, RootModel
from pydantic.json_schema import GenerateJsonSchema

from moa_nb.errors import SetupError

__all__ = ["NO_FIELDS", "Node", "branches_of", "choices_of", "is_nullable", "only_kind", "schema_of"]

NO_FIELDS = "the schema {!r} has no fields: there is nothing to fill in"

Node = Mapping[str, Any]
"""A JSON schema, or a part of one."""


class _Written(GenerateJsonSchema):
    """Decimals are numbers here: in JSON that is how people and models write them."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as pydantic declares it

    def decimal_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a decimal."""
        written: dict[str, Any] = {"type": "number", "format": "decimal"}
        bounds = {key: float(one) if isinstance(one, Decimal) else one for key, one in schema.items()}
        self.update_with_validations(written, bounds, self.ValidationsMapping.numeric)
        return written


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model: an object whose definitions stand where they are used.

    What refers to itself alone stays in ``$defs``. A constant is an ``enum`` of one, ``oneOf`` is ``anyOf``.

    Raises:
        SetupError: it is no object with fields, or names one differently when it is read and when it is written.
    """
    written = model.model_json_schema(schema_generator=_Written)
    definitions = written.get("$defs", {})
    root = definitions[_name(written["$ref"])] if "$ref" in written else written
    if issubclass(model, RootModel) or not root.get("properties"):
        raise SetupError(NO_FIELDS.format(model.__name__))
    _check_names(model, written)
    inlined = _Inlined(definitions)
    schema = inlined.of(root)
    kept: dict[str, Any] = {}
    while missing := inlined.used - kept.keys():
        for name in sorted(missing):
            kept[name] = inlined.of(definitions[name])
    return {**schema, "$defs": kept} if kept else schema


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _check_names(model: type[BaseModel], read: Node) -> None:
    written = model.model_json_schema(mode="serialization", schema_generator=_Written)
    unlike = sorted(set(_names(read)) - set(_names(written)))
    if unlike:
        msg = f"the schema reads a field as {unlike[0]!r} and writes it otherwise: give it one name, with alias="
        raise SetupError(msg)


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, inner in node.items():
            if key == "properties":
                yield from inner
                yield from _names([*inner.values()])
            elif key not in {"default", "examples", "enum", "const"}:
                yield from _names(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _names(inner)


class _Inlined:
    """Puts definitions in the place of references to them, but those that are within themselves."""

    def __init__(self, definitions: Mapping[str, Node]) -> None:
        self._definitions = definitions
        self._endless = {name for name in definitions if name in self._within(definitions[name], set())}
        self.used: set[str] = set()
        """Definitions that something still refers to."""

    def _within(self, node: Any, found: set[str]) -> set[str]:
        """Return the names of all that a node refers to, and what that refers to."""
        if isinstance(node, Mapping) and isinstance(node.get("$ref"), str) and _name(node["$ref"]) not in found:
            found.add(_name(node["$ref"]))
            self._within(self._definitions[_name(node["$ref"])], found)
        for inner in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
            self._within(inner, found)
        return found

    def of(self, node: Any) -> Any:
        """Return a node without the references that can be spared."""
        if not isinstance(node, Mapping):
            return node
        if "$ref" in node:
            name = _name(node["$ref"])
            if name in self._endless:
                self.used.add(name)
                return dict(node)
            return self.of({**self._definitions[name], **_without(node, "$ref")})
        if len(node.get("allOf", ())) == 1:
            return self.of({**node["allOf"][0], **_without(node, "allOf")})
        found: dict[str, Any] = {}
        for key, inner in _without(node, "$defs", "discriminator").items():
            if key == "const":
                found["enum"] = [inner]
            elif key in {"anyOf", "oneOf", "prefixItems"}:
                found["anyOf" if key == "oneOf" else key] = [self.of(one) for one in inner]
            elif key in {"properties", "patternProperties"}:
                found[key] = {name: self.of(one) for name, one in inner.items()}
            elif key in {"items", "additionalProperties"}:
                found[key] = self.of(inner)
            else:
                found[key] = inner
        return found


def _without(node: Node, *keys: str) -> dict[str, Any]:
    return {key: inner for key, inner in node.items() if key not in keys}


# What a node says --------------------------------------------------------------------------------


def branches_of(node: Node) -> list[Node]:
    """Return what a node may be, but for null: its branches, or itself."""
    found = [inner for one in node["anyOf"] for inner in branches_of(one)] if "anyOf" in node else [node]
    return [one for one in found if one.get("type") != "null"]


def is_nullable(node: Node) -> bool:
    """Return whether a node may be null."""
    if "anyOf" in node:
        return any(map(is_nullable, node["anyOf"]))
    return node.get("type") == "null" or None in node.get("enum", ())


def only_kind(node: Node) -> Node:
    """Return the only branch of a node where it holds something; of numbers the wider kind; else the node itself.

    >>> only_kind({"anyOf": [{"type": "integer"}, {"type": "null"}]})
    {'type': 'integer'}
    """
    branches = branches_of(node)
    if len(branches) == 1:
        return branches[0]
    kinds = {one.get("type") for one in branches}
    is_plain = not any("enum" in one or "format" in one for one in branches)
    if kinds == {"integer", "number"} and is_plain:
        return {"type": "number"}
    return {"type": "string"} if kinds == {"string"} else node


def choices_of(node: Node) -> list[Any]:
    """Return the values that are all that a node may be, but for null; none where it may be others.

    >>> choices_of({"anyOf": [{"enum": ["a", None]}, {"type": "null"}]})
    ['a']
    """
    branches = branches_of(node)
    if not all("enum" in one for one in branches):
        return []
    return [value for one in branches for value in one["enum"] if value is not None]
