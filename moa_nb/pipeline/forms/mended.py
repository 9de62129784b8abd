"""What a model plainly meant, though it wrote it otherwise: labels in other letters, null as text, a field left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moa_nb.pipeline.forms.schema import Node, branches_of, choices_of, is_nullable

__all__ = ["mender"]

Mender = Callable[[Any], Any]
"""Returns a value, mended where that is plain."""

_NOTHING = frozenset({"", "null", "none", "n/a", "na", "nan"})
"""What is written for null where no text is asked for."""


def mender(schema: Node) -> Mender:
    """Return what mends the values of a JSON schema, made once for all of them.

    >>> mend = mender({"properties": {"mood": {"enum": ["good", "bad"]}, "n": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}})
    >>> mend({"Mood": "GOOD", "n": "null"})
    {'mood': 'good', 'n': None}
    """
    return _Menders(schema.get("$defs", {})).of(schema) or _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


class _Menders:
    def __init__(self, definitions: Mapping[str, Node]) -> None:
        self._definitions = definitions
        self._known: dict[str, Mender] = {}

    def of(self, node: Node) -> Mender | None:
        """Return what mends a node's values; ``None`` where nothing can be plainer."""
        if "$ref" in node:
            return self._defined(node["$ref"].rpartition("/")[2])
        if choices := choices_of(node):
            one = _Choice(choices)
            return _or_null(one, _NOTHING - one.words) if is_nullable(node) else one
        branches = branches_of(node)
        inner = self._of_one(branches[0]) if len(branches) == 1 else None
        if not is_nullable(node):
            return inner
        is_text = any(one.get("type") == "string" and "format" not in one for one in branches)
        return _or_null(inner, frozenset({"null"}) if is_text else _NOTHING)

    def _of_one(self, node: Node) -> Mender | None:
        if "$ref" in node or "anyOf" in node:
            return self.of(node)
        if "properties" in node:
            return self._of_object(node)
        if "items" not in node:
            return None
        each = self.of(node["items"])
        return None if each is None else _Entries(each)

    def _defined(self, name: str) -> Mender:
        """Return what mends the values of a definition, which may hold itself."""
        if name not in self._known:
            self._known[name] = known = _Defined()
            known.mend = self.of(self._definitions[name]) or _as_it_is
        return self._known[name]

    def _of_object(self, node: Node) -> Mender:
        properties, required = node["properties"], node.get("required", ())
        return _Object(
            menders={name: made for name, one in properties.items() if (made := self.of(one)) is not None},
            empty=[name for name, one in properties.items() if is_nullable(one) and name in required],
            absent=[name for name, one in properties.items() if not is_nullable(one) and name not in required],
            names=frozenset(properties),
            spelt={_folded(name): name for name in properties},
        )


class _Defined:
    """What mends the values of a definition, once it is known."""

    mend: Mender = staticmethod(_as_it_is)

    def __call__(self, value: Any) -> Any:
        return self.mend(value)


@dataclass(frozen=True)
class _Object:
    """An object with known fields."""

    menders: Mapping[str, Mender]
    empty: Sequence[str]
    """Fields that may be null, which is what they are where they are left out."""
    absent: Sequence[str]
    """Fields that may be left out, which they are where they are null: services that want each field have it so."""
    names: frozenset[str]
    spelt: Mapping[str, str]
    """How fields are spelt, by how they are compared."""

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        mended = dict(value) if value.keys() <= self.names else self._renamed(value)
        for name, mend in self.menders.items():
            if name in mended:
                mended[name] = mend(mended[name])
        for name in self.absent:
            if name in mended and mended[name] is None:
                del mended[name]
        for name in self.empty:
            mended.setdefault(name, None)
        return mended

    def _renamed(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields as they are spelt; what is spelt right comes first."""
        found: dict[str, Any] = {}
        for said, inner in value.items():
            name = said if said in self.names else self.spelt.get(_folded(said), said)
            if name == said or name not in value:
                found[name] = inner
        return found


class _Choice:
    """One of some values, however its case, its spaces or its type came out."""

    def __init__(self, choices: list[Any]) -> None:
        self._choices = choices
        known: dict[str, Any] = {}
        twice = set()
        for choice in choices:
            for said in _sayings(choice):
                twice |= {said} if said in known and known[said] is not choice else set()
                known.setdefault(said, choice)
        # What may mean two of them means neither.
        self._known = {said: choice for said, choice in known.items() if said not in twice}
        self.words = frozenset(known)

    def __call__(self, value: Any) -> Any:
        if any(value == choice and type(value) is type(choice) for choice in self._choices):
            return value
        if not isinstance(value, str | bool | int | float):
            return value
        return next((self._known[said] for said in _sayings(value) if said in self._known), value)

    def several(self, text: str) -> list[Any]:
        """Return what a text says where a list is asked for."""
        if _folded(text) in _NOTHING - self.words:
            return []
        whole = self(text)
        return [whole] if whole in self._choices else [self(part) for part in re.split(r"[,;\n]", text)]


class _Entries:
    """A list, whose entries are mended; of choices also a single one, or several in a text."""

    def __init__(self, each: Mender) -> None:
        self._each = each

    def __call__(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._each(one) for one in value]
        if isinstance(value, str) and isinstance(self._each, _Choice):
            return self._each.several(value)
        return value


def _or_null(inner: Mender | None, words: frozenset[str]) -> Mender:
    """Return what mends a value that may be null, for which these words stand too."""

    def mend(value: Any) -> Any:
        if isinstance(value, str) and _folded(value) in words:
            return None
        return value if inner is None else inner(value)

    return mend


def _sayings(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("true", "yes") if value else ("false", "no")
    is_whole = isinstance(value, float) and value.is_integer()
    return (_folded(str(int(value) if is_whole else value)),)


def _folded(text: str) -> str:
    return " ".join(re.sub(r"[-_]", " ", text).casefold().split())
