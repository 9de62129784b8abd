"""The form of an answer, asked for by each format's own means: a JSON schema, any JSON object, or nothing.

The messages state the form too, so weaker means still bring an answer. What asks for it stands ahead of the messages
in a body: where the user gives such a field, ours is not added, and theirs stands behind them and is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import takewhile
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from moa_nb.chat import Request
from moa_nb.providers.shared import table

__all__ = ["SCHEMA", "generation_config", "output_config", "refused", "response_format", "weakened"]

SCHEMA = "schema"
"""The name of the means in a spelling: ``json_schema``, ``json_object``, or empty for none."""

_WEAKER: Mapping[str, str] = MappingProxyType({"json_schema": "json_object", "json_object": ""})

_JSON = {"responseMimeType": "application/json"}


class _Place(NamedTuple):
    """How a field asks for a form."""

    schema: str
    """The part that holds a schema."""
    any_object: Mapping[str, str]
    """The parts that ask for any JSON object; empty where the format has no such means."""


_PLACES: Mapping[str, _Place] = MappingProxyType(
    {
        "response_format": _Place("json_schema", {"type": "json_object"}),
        "output_config": _Place("format", {}),
        "generationConfig": _Place("responseJsonSchema", _JSON),
    }
)
"""The fields that ask for a form; some hold other things too."""

_MESSAGES = frozenset({"messages", "contents"})

_OWN_FORM = frozenset({"responsemimetype", "responseschema", "responsejsonschema"})
"""Parts of a Gemini config that ask for a form, without the signs that they may be written with."""

_ABOUT = re.compile(
    r"response.?(format|schema|json.?schema|mime.?type)|output.?(config|format)|structured.?output"
    r"|json.?(schema|object|mode)|json_validate_failed|(generate|valid|validate) json|word.{0,3}json"
    r"|\bschemas?\b|\bgrammar\b|guided.?(json|decoding)"
    # Words that say nothing, which Gemini and others have for a schema too.
    r"|request contains an invalid argument|^invalid params?\b",
    re.IGNORECASE,
)
"""Words about the form of an answer: a model or a server that cannot hold to one, or not to this one."""


# What is asked ----------------------------------------------------------------------------------


def response_format(request: Request) -> dict[str, Any]:
    """Return the fields of a chat completion that ask for the request's schema; none where it has none.

    >>> from moa_nb.chat import Schema
    >>> response_format(Request("lab:m", (), schema=Schema("row", "{}")))
    {'response_format': {'type': 'json_schema', 'json_schema': {'name': 'row', 'strict': True, 'schema': {}}}}
    """
    schema = request.schema
    if schema is None or "response_format" in dict(request.sampling.extra):
        return {}
    asked = {"name": schema.name, "strict": True, "schema": _read(schema.json)}
    return {"response_format": {"type": "json_schema", "json_schema": asked}}


def output_config(request: Request) -> dict[str, Any]:
    """Return the fields of an Anthropic message that ask for the request's schema, with what else the user configures.

    >>> from moa_nb.chat import Sampling, Schema
    >>> sampling = Sampling(extra=(("output_config", {"effort": "low"}),))
    >>> output_config(Request("lab:m", (), sampling, schema=Schema("row", "{}")))
    {'output_config': {'effort': 'low', 'format': {'type': 'json_schema', 'schema': {}}}}
    """
    extra = dict(request.sampling.extra)
    own = extra.get("output_config", {})
    if request.schema is None or not isinstance(own, Mapping) or "format" in own or "output_format" in extra:
        return {}
    return {"output_config": {**own, "format": {"type": "json_schema", "schema": _read(request.schema.json)}}}


def generation_config(request: Request) -> dict[str, Any]:
    """Return the parts of a Gemini config that ask for the request's schema; none where it has none.

    >>> from moa_nb.chat import Schema
    >>> generation_config(Request("lab:m", (), schema=Schema("row", "{}")))
    {'responseMimeType': 'application/json', 'responseJsonSchema': {}}
    """
    if request.schema is None:
        return {}
    own = dict(request.sampling.extra).get("generationConfig", {})
    if not isinstance(own, Mapping) or not _OWN_FORM.isdisjoint(str(part).replace("_", "").lower() for part in own):
        return {}
    return {**_JSON, "responseJsonSchema": _read(request.schema.json)}


@lru_cache(maxsize=64)
def _read(schema: str) -> Any:
    """Return what a schema's text says; read once for all calls of a run."""
    return orjson.loads(schema)


# What is refused --------------------------------------------------------------------------------


def refused(fields: Mapping[str, Any], message: str) -> dict[str, str]:
    """Return the spelling with weaker means than those of a body that ``message`` refuses; empty if there are none.

    >>> refused({"response_format": {"type": "json_object"}, "messages": []}, "response_format is not supported")
    {'schema': ''}
    """
    _, means = _asking(fields)
    return {SCHEMA: _WEAKER[means]} if means in _WEAKER and _ABOUT.search(message) else {}


def weakened(fields: dict[str, Any], means: str) -> dict[str, Any]:
    """Return a body that asks for the form by weaker means, those of a spelling; unchanged where it asks for none.

    >>> weakened({"output_config": {"format": {}, "effort": "low"}, "messages": []}, "json_object")
    {'output_config': {'effort': 'low'}, 'messages': []}
    """
    place, _ = _asking(fields)
    if not place or means not in _WEAKER.values():
        return fields
    schema, any_object = _PLACES[place]
    left = {part: value for part, value in fields[place].items() if part != schema and part not in any_object}
    asked = {**any_object, **left} if means else left
    changed = {**fields, place: asked}
    if not asked:
        del changed[place]
    return changed


def _asking(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return the field by which a body asks for a form, and the means; empty where none does but the user's own."""
    for place, value in takewhile(lambda field: field[0] not in _MESSAGES, fields.items()):
        if place in _PLACES:
            (schema, any_object), parts = _PLACES[place], table(value)
            if schema in parts:
                return place, "json_schema"
            if any_object and parts.items() >= any_object.items():
                return place, "json_object"
    return "", ""
