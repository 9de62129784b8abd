"""From what a user declares to a pydantic model: a model, a dict of names to types, or a JSON schema."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import re
import uuid
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Annotated, Any, ForwardRef, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import SchemaError

from moa_nb.errors import SetupError, nearest
from moa_nb.pipeline.forms.schema import NO_FIELDS
from moa_nb.plain import quoted

__all__ = ["model_of"]

_TYPES: Mapping[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}

_FORMATS: Mapping[str, Any] = {
    "date": dt.date,
    "date-time": dt.datetime,
    "time": dt.time,
    "duration": dt.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
}

_BOUNDS: Mapping[str, Mapping[str, str]] = {
    "string": {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"},
    "array": {"minItems": "min_length", "maxItems": "max_length"},
    "number": {
        "minimum": "ge",
        "maximum": "le",
        "exclusiveMinimum": "gt",
        "exclusiveMaximum": "lt",
        "multipleOf": "multiple_of",
    },
}

_WORDS = frozenset(
    {"title", "description", "default", "examples", "$comment", "$schema", "$id", "$defs", "definitions"}
    | {"deprecated", "readOnly", "writeOnly", "discriminator", "contentEncoding", "contentMediaType"}
)
"""Keywords that say nothing of what is allowed."""

_KNOWN = frozenset({*_WORDS, *(word for bounds in _BOUNDS.values() for word in bounds)})
_KNOWN |= {"type", "format", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "items", "prefixItems"}
_KNOWN |= {"properties", "required", "additionalProperties", "uniqueItems"}

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
            f" object, not {quoted(schema, 80)}"
        )
        raise SetupError(msg)
    return made


def _is_json_schema(schema: Mapping[str, Any]) -> bool:
    """Return whether it is one, and no dict of types with such names."""
    properties = schema.get("properties")
    is_object = isinstance(properties, Mapping) and all(isinstance(one, Mapping) for one in properties.values())
    return is_object or isinstance(schema.get("type"), str) or "$schema" in schema


# A dict of types --------------------------------------------------------------------------------


def _from_types(types: Mapping[str, Any], name: str) -> type[BaseModel]:
    if not types:
        raise SetupError(NO_FIELDS.format(name))
    fields: dict[str, tuple[Any, dict[str, Any]]] = {}
    for field, declared in types.items():
        if not isinstance(field, str) or not field.strip():
            msg = f"a field's name is a text, not {field!r}"
            raise SetupError(msg)
        kind, about = declared if isinstance(declared, tuple) and len(declared) == 2 else (declared, None)
        fields[field] = (_kind(kind, field), {"description": about})
    return _made(name, fields)


def _kind(kind: Any, field: str) -> Any:
    """Return the type of a field: a dict is an object, a list of texts one of them, a list of one other thing such a list.

    Raises:
        SetupError: it is no type.
    """
    if isinstance(kind, Mapping):
        return _from_types(kind, _title(field))
    if isinstance(kind, list) and kind and all(isinstance(one, str) for one in kind):
        return Literal[tuple(kind)]
    if isinstance(kind, list) and len(kind) == 1:
        return list[_kind(kind[0], field)]  # type: ignore[misc]  # made at run time
    if kind is None or isinstance(kind, str | list | tuple | int | float | FunctionType):
        msg = f"the type of field {field!r} is {quoted(kind)}, and should be a type such as float, or a list of labels"
        raise SetupError(msg)
    return kind


def _title(field: str) -> str:
    return re.sub(r"\W+", "", field.title()) or "Fields"


def _made(name: str, fields: dict[str, tuple[Any, dict[str, Any]]], about: str | None = None) -> type[BaseModel]:
    """Return a model whose fields may have any name: those that Python has no name for are aliases."""
    wanted: dict[str, Any] = {}
    for place, (field, (kind, info)) in enumerate(fields.items()):
        is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", field) and not hasattr(BaseModel, field)
        if is_plain and not re.fullmatch(r"field_\d+", field):
            wanted[field] = (kind, Field(**info))
        else:
            wanted[f"field_{place}"] = (kind, Field(**info, alias=field))
    config = ConfigDict(extra="ignore", protected_namespaces=(), validate_default=True, regex_engine="python-re")
    try:
        return create_model(re.sub(r"\W+", "_", name) or "Fields", __config__=config, __doc__=about, **wanted)
    except (PydanticUserError, SchemaError, TypeError, ValueError, NameError) as error:
        said = " ".join(str(error).split())
        if isinstance(error, PydanticSchemaGenerationError):
            said = said.partition(". Set ")[0] + "; take a plain type such as float, str, list[str] or datetime.date"
        msg = f"the schema cannot be used: {said:.200}"
        raise SetupError(msg) from None


# JSON schema ------------------------------------------------------------------------------------


def _from_json_schema(schema: Mapping[str, Any]) -> type[BaseModel]:
    made = _Reader(schema).model(str(schema.get("title") or "Fields"))
    if made is None:
        msg = 'a JSON schema here is one of an object: {"type": "object", "properties": {...}}'
        raise SetupError(msg)
    return made


class _Reader:
    """Reads one JSON schema; its definitions become models once each."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._known: dict[str, Any] = {}
        """What references stand for; a name while that is still being made."""
        self._named: dict[str, Any] = {}
        """What those names stand for."""
        self._models: list[type[BaseModel]] = []

    def model(self, name: str) -> type[BaseModel] | None:
        """Return the model that the whole schema stands for; ``None`` where that is no object with fields.

        Raises:
            SetupError: it uses what cannot be told as a type.
        """
        made = self.kind(self._schema, name, 0)
        for one in self._models:
            one.model_rebuild(_types_namespace=self._named)
        return made if isinstance(made, type) and issubclass(made, BaseModel) else None

    def kind(self, node: Any, name: str, depth: int) -> Any:
        """Return the type that a node of the schema stands for.

        Raises:
            SetupError: it uses what cannot be told as a type.
        """
        if node is True:
            return Any
        if not isinstance(node, Mapping):
            msg = f"the JSON schema at {name!r} is {quoted(node, 40)}, and should be an object"
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
            ("const", lambda node, name, _depth: _one_of([node["const"]], name)),
            ("enum", lambda node, name, _depth: _one_of(node["enum"], name)),
            ("anyOf", self._any),
            ("oneOf", lambda node, name, depth: self._any({"anyOf": node["oneOf"]}, name, depth)),
            ("allOf", self._all),
            ("properties", self._object),
            ("type", self._typed),
        )

    def _referred(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        reference = str(node["$ref"])
        if reference not in self._known:
            place: Any = self._schema
            for part in reference.removeprefix("#/").split("/"):
                place = place.get(part) if isinstance(place, Mapping) else None
            stands_for = f"Definition{len(self._known)}"
            self._known[reference] = ForwardRef(stands_for)
            self._known[reference] = self._named[stands_for] = self.kind(place, name, depth)
        return self._known[reference]

    def _any(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        return _either([self.kind(one, name, depth) for one in node["anyOf"]])

    def _all(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        if len(node["allOf"]) != 1:
            msg = f"the JSON schema joins several at {name!r} with 'allOf', which is not known here: write them as one"
            raise SetupError(msg)
        return self.kind(node["allOf"][0], name, depth)

    def _object(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        kinds = node.get("type", "object")
        if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
            raise _no_type(kinds, name)
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
        made = _made(str(node.get("title") or _title(name)), fields, node.get("description"))
        self._models.append(made)
        return made

    def _typed(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
        return _either([self._one_type(kind, node, name, depth) for kind in kinds])

    def _one_type(self, kind: str, node: Mapping[str, Any], name: str, depth: int) -> Any:
        found: Any
        if kind == "array":
            found = self._list(node, name, depth)
        elif kind == "object":
            values = node.get("additionalProperties")
            found = dict[str, self.kind(values, name, depth) if isinstance(values, Mapping) else Any]  # type: ignore[misc]  # made at run time
        elif kind in _TYPES:
            found = _FORMATS.get(node.get("format", ""), _TYPES[kind]) if kind in {"string", "number"} else _TYPES[kind]
        else:
            raise _no_type(kind, name)
        bounds = (
            _BOUNDS.get("number" if kind == "integer" else kind, {})
            if found in {str, int, float, decimal.Decimal} or kind == "array"
            else {}
        )
        said = {ours: node[theirs] for theirs, ours in bounds.items() if theirs in node}
        return Annotated[found, Field(**said)] if said else found

    def _list(self, node: Mapping[str, Any], name: str, depth: int) -> Any:
        if node.get("prefixItems"):
            return tuple[tuple(self.kind(one, name, depth) for one in node["prefixItems"])]  # type: ignore[misc]  # made at run time
        items = node.get("items", {})
        inner = self.kind(items, name, depth)
        is_set = node.get("uniqueItems") and ("enum" in items or items.get("type") in _TYPES)
        return set[inner] if is_set else list[inner]  # type: ignore[valid-type]  # made at run time


def _no_type(kind: Any, name: str) -> SetupError:
    known = [*_TYPES, "array", "object"]
    return SetupError(f"the JSON schema has the type {kind!r} at {name!r}; {nearest(str(kind), known)}")


def _or_none(kind: Any) -> Any:
    return _either([kind, None])


def _either(kinds: list[Any]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007 - of as many as there are


def _one_of(values: Any, name: str) -> Any:
    if not isinstance(values, list) or not values or not all(isinstance(one, str | int | None) for one in values):
        msg = f"the JSON schema allows {quoted(values)} at {name!r}: labels are texts, whole numbers or booleans"
        raise SetupError(msg)
    return Literal[tuple(values)]
