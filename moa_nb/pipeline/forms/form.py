"""A form: read from what a model wrote, checked, and told to models and services."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from moa_nb.chat import Schema
from moa_nb.errors import SetupError
from moa_nb.pipeline.forms import fields, shown
from moa_nb.pipeline.forms.declared import model_of
from moa_nb.pipeline.forms.longest import longest
from moa_nb.pipeline.forms.mended import Mender, mender
from moa_nb.pipeline.forms.schema import choices_of, is_nullable, only_kind, schema_of
from moa_nb.pipeline.parse import Parser, boolean, label, labels, number, rating, structured

__all__ = ["Form", "form"]

_MOST_MISTAKES, _MOST_CHOICES = 5, 20
"""That are told at once."""

_LONGEST = 60
"""Characters of a name, of 64 that services take."""


@dataclass(frozen=True, eq=False)
class Form:
    """What an answer must be: one JSON object, whose fields a pydantic model knows.

    A filled form is a dict of plain JSON values by field, dates and decimals as texts.
    """

    model: type[BaseModel]

    @functools.cached_property
    def json_schema(self) -> dict[str, Any]:
        """The model's JSON schema, with its bounds; only what is within itself is referred to."""
        return schema_of(self.model)

    @functools.cached_property
    def schema(self) -> Schema | None:
        """What services hold the answer to; ``None`` where no service takes such a schema."""
        plain = shown.plain(self.json_schema)
        if plain is None:
            return None
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", self.model.__name__)[:_LONGEST] or "answer"
        return Schema(name, json.dumps(plain, ensure_ascii=False, separators=(",", ":")))

    @functools.cached_property
    def longest(self) -> int | None:
        """The bytes of the longest JSON that fills it in, without white space; ``None`` where a field is free text."""
        return longest(self.json_schema)

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
        return {name: fields.measure_of(node) for name, node in self.json_schema["properties"].items()}

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
        said = self._said(text)
        if isinstance(said, list) and len(said) == 1 and isinstance(said[0], Mapping):
            said = said[0]
        if isinstance(said, Mapping):
            return self.check(said)
        alone = self._alone(said, text)
        if alone is not None:
            return alone
        if isinstance(said, list):
            return "the answer is not one JSON object"
        choices = choices_of(self._only) if len(self.names) == 1 else []
        listed = f"; it should be one of {', '.join(map(str, choices[:_MOST_CHOICES]))}" if choices else ""
        return f"there is no JSON object in the answer{listed}"

    def _said(self, text: str) -> Any:
        """Return the JSON of a text: all of it, else the last object that has each field, else what it ends up with."""
        try:
            return from_json(text, allow_inf_nan=False)  # nearly all answers
        except (ValueError, TypeError):
            found = structured(text, self.names)
            return structured(text) if found is None else found

    def check(self, said: Mapping[str, Any]) -> dict[str, Any] | str:
        """Return what was said as a filled form, or what is wrong with it."""
        mended = self._mender(said)
        if not any(name in said or (name in mended and mended[name] is not None) for name in self.names):
            return f"none of the fields is there: {', '.join(self.names[:_MOST_MISTAKES])}"
        try:
            # As JSON, of which strict models take what they have no other form for, such as dates.
            made = self.model.model_validate_json(_dumps(mended))
            filled = from_json(made.model_dump_json(by_alias=True, warnings=False), allow_inf_nan=False)
        except ValidationError as error:
            return "; ".join(map(_told, error.errors(include_url=False)[:_MOST_MISTAKES]))
        except Exception as error:  # a validator may be anybody's code
            return " ".join(f"{type(error).__name__}: {error}".split())
        whole = {name: filled.get(name) for name in self.names}
        for name in self._filled:
            if whole[name] is None:
                return f"{name}: nothing finite stands there"
        for name, order in self._sets.items():
            if isinstance(whole[name], list):
                whole[name] = sorted(whole[name], key=order)
        return whole

    @functools.cached_property
    def _mender(self) -> Mender:
        return mender(self.json_schema)

    @functools.cached_property
    def _filled(self) -> list[str]:
        """The fields with numbers that are never null: no number is what JSON has no word for, such as infinity."""
        kinds = {name: (node, only_kind(node)) for name, node in self.json_schema["properties"].items()}
        return [name for name, (node, one) in kinds.items() if one.get("type") == "number" and not is_nullable(node)]

    @functools.cached_property
    def _sets(self) -> dict[str, Any]:
        """The fields with lists that have no order of their own, and in which they then stand: that of their labels."""
        found = {}
        for name, node in self.json_schema["properties"].items():
            one = only_kind(node)
            if one.get("uniqueItems"):
                places = {_dumps(choice): place for place, choice in enumerate(choices_of(one.get("items", {})))}
                found[name] = functools.partial(_placed, places)
        return found

    # A value alone ----------------------------------------------------------------------------

    def _alone(self, said: Any, text: str) -> dict[str, Any] | None:
        """Return the form of one field that a value alone fills in; ``None`` where it does not."""
        if len(self.names) > 1:
            return None
        if isinstance(said, list):
            value = said if only_kind(self._only).get("type") == "array" else None
        else:
            value = None if self._parser is None else self._parser(said if isinstance(said, str) else text)
        if isinstance(value, frozenset):
            value = [*value]
        checked = None if value is None else self.check({self.names[0]: value})
        return checked if isinstance(checked, dict) else None

    @property
    def _only(self) -> Mapping[str, Any]:
        node: Mapping[str, Any] = self.json_schema["properties"][self.names[0]]
        return node

    @functools.cached_property
    def _parser(self) -> Parser | None:
        """What reads the value of the only field from plain words; ``None`` where nothing does."""
        node = only_kind(self._only)
        is_list = node.get("type") == "array"
        choices = choices_of(node.get("items", {}) if is_list else self._only)
        kind = node.get("type")
        if choices and all(isinstance(choice, str) and choice.strip() for choice in choices):
            return functools.partial(labels if is_list else label, names=tuple(choices))
        if kind in {"integer", "number"}:
            low, high = node.get("minimum"), node.get("maximum")
            return number if low is None or high is None else functools.partial(rating, low=low, high=high)
        return boolean if kind == "boolean" else None

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
    "mood: Input should be 'good' or 'bad'"
    """
    if isinstance(schema, Form):
        return schema
    made = Form(model_of(schema))
    try:
        made.json_schema  # noqa: B018 - fails here, not in the middle of a run
    except SetupError:
        raise
    except Exception as error:  # pydantic has several kinds for it
        first = str(error).splitlines()[0]
        msg = f"the schema cannot be told as a JSON schema: {first}"
        raise SetupError(msg) from None
    return made


def _dumps(value: Any) -> bytes:
    # Half of a surrogate pair is no text: it is replaced, as in what pandas gets.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _placed(places: Mapping[bytes, int], value: Any) -> tuple[int, bytes]:
    written = _dumps(value)
    return places.get(written, len(places)), written


def _told(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    said = " ".join(str(error["msg"]).split())
    return f"{place}: {said}" if place else said
