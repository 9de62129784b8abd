"""A form: read from what a model wrote, checked, and told to models and services."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from moa_nb.chat import Schema
from moa_nb.errors import SetupError
from moa_nb.pipeline.forms import fields, shown
from moa_nb.pipeline.forms.declared import model_of
from moa_nb.pipeline.parse import parser, structured

__all__ = ["Form", "form"]

_MOST_MISTAKES = 5
"""That are told at once."""

_LONGEST = 60
"""Characters of a name, of 64 that services take."""


@dataclass(frozen=True, eq=False)
class Form:
    """What an answer must be: one JSON object, whose fields a pydantic model knows.

    A filled form is a dict of plain JSON values by field, dates as texts.
    """

    model: type[BaseModel]

    @functools.cached_property
    def json_schema(self) -> dict[str, Any]:
        """The model's JSON schema, with its bounds."""
        schema = self.model.model_json_schema()
        if "$ref" not in schema:
            return schema
        # A model that holds itself: services want the root to be the object.
        root: dict[str, Any] = schema["$defs"][schema["$ref"].rpartition("/")[2]]
        return {**root, "$defs": schema["$defs"]}

    @functools.cached_property
    def schema(self) -> Schema | None:
        """What services hold the answer to; ``None`` where no service takes such a schema."""
        plain = shown.plain(self.json_schema)
        if plain is None:
            return None
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", self.model.__name__)[:_LONGEST] or "answer"
        return Schema(name, orjson.dumps(plain).decode())

    @functools.cached_property
    def said(self) -> str:
        """The fields in words, a line each."""
        return shown.in_words(self.json_schema)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The fields' names."""
        return tuple(self.json_schema["properties"])

    @functools.cached_property
    def measures(self) -> Mapping[str, fields.Measure]:
        """How agreement on each field is measured."""
        return {name: fields.measure_of(node, self.resolved) for name, node in self.json_schema["properties"].items()}

    def resolved(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a node of the JSON schema, or what it refers to."""
        while "$ref" in node:
            node = self.json_schema["$defs"][node["$ref"].rpartition("/")[2]]
        return node

    # Reading ----------------------------------------------------------------------------------

    def read(self, text: str) -> dict[str, Any] | None:
        """Return the filled form that a text holds; ``None`` if it holds none that is whole and right.

        A form of one field may also be filled in by its value alone.
        """
        found = self._read(text)
        return found if isinstance(found, dict) else None

    def mistakes(self, text: str) -> str:
        """Return in one line what is wrong with a text that cannot be read, for its writer."""
        found = self._read(text)
        return found if isinstance(found, str) else "nothing"

    def _read(self, text: str) -> dict[str, Any] | str:
        """Return the filled form, or what is wrong."""
        try:
            said = orjson.loads(text)  # nearly all answers
        except ValueError:
            said = structured(text, self.names if len(self.names) == 1 else ())
        wrong = "there is no JSON object in the answer"
        if isinstance(said, dict):
            checked = self.check(said)
            if isinstance(checked, dict):
                return checked
            wrong = checked
        elif said is not None and not isinstance(said, str):
            wrong = "the answer is not one JSON object"
        alone = self._alone(said if isinstance(said, str) else text) if not isinstance(said, dict) else None
        return wrong if alone is None else alone

    def check(self, said: Mapping[str, Any]) -> dict[str, Any] | str:
        """Return what was said as a filled form, or what is wrong with it."""
        try:
            made = self.model.model_validate(self._mended(said))
        except ValidationError as error:
            return "; ".join(map(_told, error.errors(include_url=False)[:_MOST_MISTAKES]))
        except Exception as error:  # a validator may be anybody's code
            return f"{type(error).__name__}: {error}"
        filled: dict[str, Any] = made.model_dump(mode="json", by_alias=True)
        return filled

    def _mended(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields with what is plainly meant: labels as they are spelt, defaults where null stands for them."""
        mended = dict(said)
        for name, meant in self._labels.items():
            value = mended.get(name)
            if isinstance(value, str):
                mended[name] = meant.get(_folded(value), value)
            elif isinstance(value, list):
                mended[name] = [meant.get(_folded(one), one) if isinstance(one, str) else one for one in value]
        for name in self._left_out:
            if name in mended and mended[name] is None:
                del mended[name]
        return mended

    @functools.cached_property
    def _labels(self) -> dict[str, dict[str, Any]]:
        """The labels of the fields that take only some, by how they are compared."""
        found = {}
        for name, node in self.json_schema["properties"].items():
            labels = self._choices(node)
            if labels:
                found[name] = {_folded(label): label for label in labels if isinstance(label, str)}
        return found

    def _choices(self, node: Mapping[str, Any]) -> list[Any]:
        node = self.resolved(node)
        for branch in node.get("anyOf", ()):
            if choices := self._choices(branch):
                return choices
        if node.get("type") == "array":
            return self._choices(node.get("items", {}))
        return list(node.get("enum", [node["const"]] if "const" in node else []))

    @functools.cached_property
    def _left_out(self) -> list[str]:
        """The fields that may be left out and may not be null: services without such a thing say null."""
        required = self.json_schema.get("required", ())
        return [
            name
            for name, node in self.json_schema["properties"].items()
            if name not in required and "null" not in json.dumps(self.resolved(node))
        ]

    @functools.cached_property
    def _alone_parser(self) -> Any:
        """What reads the value of the only field from plain words; ``None`` where nothing does."""
        if len(self.names) != 1:
            return None
        node = self.resolved(self.json_schema["properties"][self.names[0]])
        labels = self._choices(node)
        if labels and all(isinstance(label, str) for label in labels):
            try:
                return parser(("labels:" if node.get("type") == "array" else "label:") + "|".join(labels))
            except SetupError:
                return None
        return {"integer": parser("number"), "number": parser("number"), "boolean": parser("boolean")}.get(
            str(node.get("type"))
        )

    def _alone(self, text: str) -> dict[str, Any] | None:
        if self._alone_parser is None:
            return None
        value = self._alone_parser(text)
        checked = None if value is None else self.check({self.names[0]: value})
        return checked if isinstance(checked, dict) else None

    # Several ----------------------------------------------------------------------------------

    def agreed(self, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the fields on which all of several filled forms agree."""
        return fields.agreed(values, self.names)

    def voted(self, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the form in which each field is what most of several say."""
        return fields.voted(values, self.names)

    def agreement(self, values: Sequence[Mapping[str, Any] | None]) -> float:
        """Return how far several filled forms agree, in [0, 1]; ``None`` is one that could not be read."""
        return fields.agreement_of(values, self.measures)

    # As data ----------------------------------------------------------------------------------

    def text(self, value: Mapping[str, Any]) -> str:
        """Return a filled form as JSON text."""
        return json.dumps(value, ensure_ascii=False)

    def to_record(self) -> dict[str, Any]:
        """Return the form as plain data, from which ``form`` makes it again; validators of one's own are not in it."""
        return self.json_schema


def form(schema: Any) -> Form:
    """Return the form of a declaration: a pydantic model, a dict of names to types, a JSON schema or a form.

    Raises:
        SetupError: it is none of these, or cannot be told as a JSON schema.

    >>> review = form({"mood": ["good", "bad"], "price": float | None})
    >>> review.read('I think: {"mood": "Good", "price": "9.50"}')
    {'mood': 'good', 'price': 9.5}
    >>> review.mistakes('{"mood": "fine"}')
    "mood: Input should be 'good' or 'bad'; price: Field required"
    """
    if isinstance(schema, Form):
        return schema
    made = Form(model_of(schema))
    try:
        made.json_schema  # noqa: B018 - fails here, not in the middle of a run
    except Exception as error:  # pydantic has several kinds for it
        first = str(error).splitlines()[0]
        msg = f"the schema cannot be told as a JSON schema: {first}"
        raise SetupError(msg) from None
    return made


def _folded(text: str) -> str:
    return " ".join(re.sub(r"[-_]", " ", text).casefold().split())


def _told(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}" if place else str(error["msg"])
