"""From what a user declares to a pydantic model: a model, a dict of names to types, or a JSON schema."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import operator
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError

from moa_nb.errors import SetupError, nearest

__all__ = ["model_of"]

_TYPES: Mapping[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}

_FORMATS: Mapping[str, Any] = {
    "date": dt.date,
    "date-time": dt.datetime,
    "time": dt.time,
    "decimal": decimal.Decimal,
}

_BOUNDS: Mapping[str, str] = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}

_WORDS = frozenset(
    {"title", "description", "default", "examples", "$comment", "$schema", "$id", "$defs", "definitions"}
)
"""Keywords that say nothing of what is allowed."""

_KNOWN = frozenset({*_WORDS, *_BOUNDS, "type", "format", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "items"})
_KNOWN |= {"properties", "required", "additionalProperties", "uniqueItems", "discriminator"}

_DEEPEST = 50
"""Levels of a JSON schema: more would be one that refers to itself without end."""


def model_of(schema: Any) -> type[BaseModel]:
    """Return the pydantic model of a declaration.

    Args:
        schema: a pydantic model; a dict of names to types, such as ``{"price": float, "parts": list[str]}``, in which
            a dict is an object within it and a pair is a type with a description; or a JSON schema of an object.

    Raises:
        SetupError: it is none of these, or uses what cannot be filled in.

    >>> sorted(model_of({"price": float | None, "mood": Literal["good", "bad"]}).model_fields)
    ['mood', 'price']
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        made = schema
    elif isinstance(schema, Mapping) and _is_json_schema(schema):
        made = _from_json_schema(schema)
    elif isinstance(schema, Mapping):
        made = _from_types(schema, "Fields")
    else:
        msg = (
            "a schema is a pydantic model, a dict of names to types such as {'price': float}, or a JSON schema of an"
            f" object, not {schema!r:.80}"
        )
        raise SetupError(msg)
    if not made.model_fields:
        msg = "the schema has no fields: there is nothing to fill in"
        raise SetupError(msg)
    return made


def _is_json_schema(schema: Mapping[str, Any]) -> bool:
    return isinstance(schema.get("type"), str) or "$schema" in schema or isinstance(schema.get("properties"), Mapping)


# A dict of types --------------------------------------------------------------------------------


def _from_types(types: Mapping[str, Any], name: str) -> type[BaseModel]:
    fields: dict[str, tuple[Any, dict[str, Any]]] = {}
    for field, declared in types.items():
        if not isinstance(field, str) or not field.strip():
            msg = f"a field's name is a text, not {field!r}"
            raise SetupError(msg)
        kind, about = declared if isinstance(declared, tuple) and len(declared) == 2 else (declared, None)
        if isinstance(kind, Mapping):
            kind = _from_types(kind, field.title().replace(" ", ""))
        elif isinstance(kind, list) and kind and all(isinstance(one, str) for one in kind):
            kind = Literal[tuple(kind)]
        fields[field] = (kind, {"description": about})
    return _made(name, fields)


def _made(name: str, fields: dict[str, tuple[Any, dict[str, Any]]], about: str | None = None) -> type[BaseModel]:
    """Return a model whose fields may have any name: those that Python has no name for are aliases."""
    wanted: dict[str, Any] = {}
    for place, (field, (kind, info)) in enumerate(fields.items()):
        is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", field) and not hasattr(BaseModel, field)
        if is_plain:
            wanted[field] = (kind, Field(**info))
        else:
            wanted[f"field_{place}"] = (kind, Field(**info, alias=field))
    try:
        return create_model(
            re.sub(r"\W+", "_", name) or "Fields", __config__=ConfigDict(extra="ignore"), __doc__=about, **wanted
        )
    except (PydanticUserError, TypeError, ValueError, NameError) as error:
        first = str(error).splitlines()[0]
        msg = f"the schema cannot be used: {first}"
        raise SetupError(msg) from None


# JSON schema ------------------------------------------------------------------------------------


def _from_json_schema(schema: Mapping[str, Any]) -> type[BaseModel]:
    made = _Reader(schema).kind(schema, str(schema.get("title") or "Fields"), 0)
    if not (isinstance(made, type) and issubclass(made, BaseModel)):
        msg = 'a JSON schema here is one of an object: {"type": "object", "properties": {...}}'
        raise SetupError(msg)
    return made


class _Reader:
    """Reads one JSON schema; its definitions become models once each."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema

    def kind(self, node: Any, name: str, depth: int) -> Any:
        """Return the type that a node of the schema stands for.

        Raises:
            SetupError: it uses what cannot be told as a type.
        """
        if not isinstance(node, Mapping):
            msg = f"the JSON schema at {name!r} is {node!r:.40}, and should be an object"
            raise SetupError(msg)
        if depth > _DEEPEST:
            msg = f"the JSON schema refers to itself at {name!r}: write such a schema as a pydantic model"
            raise SetupError(msg)
        for keyword in node:
            if keyword not in _KNOWN:
                msg = (
                    f"the JSON schema uses {keyword!r} at {name!r}, which is not known here; {nearest(keyword, _KNOWN)}"
                )
                raise SetupError(msg)
        read = next((read for keyword, read in self._readers if keyword in node), None)
        return Any if read is None else read(node, name, depth + 1)

    @functools.cached_property
    def _readers(self) -> tuple[tuple[str, Callable[[Any, str, int], Any]], ...]:
        return (
            ("$ref", self._referred),
            ("const", lambda node, _name, _depth: Literal[node["const"]]),
            ("enum", lambda node, _name, _depth: Literal[tuple(node["enum"])]),
            ("anyOf", self._any),
            ("oneOf", lambda node, name, depth: self._any({"anyOf": node["oneOf"]}, name, depth)),
            ("allOf", self._all),
            ("properties", self._object),
            ("type", self._typed),
        )

    def _referred(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        place: Any = self._schema
        for part in str(node["$ref"]).removeprefix("#/").split("/"):
            place = place.get(part) if isinstance(place, Mapping) else None
        return self.kind(place, name, depth)

    def _any(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        return functools.reduce(operator.or_, [self.kind(one, name, depth) for one in node["anyOf"]])

    def _all(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        if len(node["allOf"]) != 1:
            msg = f"the JSON schema joins several at {name!r} with 'allOf', which is not known here: write them as one"
            raise SetupError(msg)
        return self.kind(node["allOf"][0], name, depth)

    def _object(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        required = node.get("required", ())
        fields: dict[str, tuple[Any, dict[str, Any]]] = {}
        for field, inner in node["properties"].items():
            kind = self.kind(inner, field, depth)
            info = {"description": inner.get("description")}
            if field in required:
                fields[field] = (kind, info)
            else:
                default = inner.get("default")
                fields[field] = (kind if default is not None else _or_none(kind), {**info, "default": default})
        return _made(str(node.get("title") or name.title()), fields, node.get("description"))

    def _typed(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
        return functools.reduce(operator.or_, [self._one_type(kind, node, name, depth) for kind in kinds])

    def _one_type(self, kind: str, node: Mapping[str, Any], name: str, depth: int) -> Any:
        found: Any
        if kind == "array":
            inner = self.kind(node.get("items", {}), name, depth)
            found = list[inner]  # type: ignore[valid-type]  # made at run time
        elif kind == "object":
            values = node.get("additionalProperties")
            found = dict[str, self.kind(values, name, depth) if isinstance(values, Mapping) else Any]  # type: ignore[misc]  # made at run time
        elif kind in _TYPES:
            found = _FORMATS.get(node.get("format", ""), str) if kind == "string" else _TYPES[kind]
        else:
            msg = (
                f"the JSON schema has the type {kind!r} at {name!r}; {nearest(str(kind), [*_TYPES, 'array', 'object'])}"
            )
            raise SetupError(msg)
        bounds = {ours: node[theirs] for theirs, ours in _BOUNDS.items() if theirs in node} if kind != "null" else {}
        return Annotated[found, Field(**bounds)] if bounds else found


def _or_none(kind: Any) -> Any:
    return kind | None
