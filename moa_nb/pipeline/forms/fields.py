"""Several filled forms become one: field by field, what they agree on, what most say, and how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from moa_nb.errors import PipelineError
from moa_nb.pipeline.forms.schema import Node, choices_of, only_kind
from moa_nb.pipeline.vote import agreement, plurality, unanimous

__all__ = ["Measure", "agreed", "agreement_of", "measure_of", "voted"]

Fields = Mapping[str, Any]
"""A filled form: plain values by field."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How the agreement on one field is measured."""

    by: Literal["vote", "spread", "text", "fields"]
    scale: float | None = None
    """From the least to the greatest number that is allowed; ``None`` where nothing bounds it."""
    inner: Mapping[str, Measure] | None = None
    """Those of an object's own fields."""


def measure_of(node: Node) -> Measure:
    """Return how agreement on a field of this JSON schema is measured.

    Free text by likeness, unbounded or bounded numbers by their spread, objects field by field, all else by votes.
    """
    kind = only_kind(node)
    if choices_of(node):
        return Measure("vote")
    if kind.get("type") == "object" and kind.get("properties"):
        return Measure("fields", inner={name: measure_of(one) for name, one in kind["properties"].items()})
    if kind.get("type") in {"integer", "number"}:
        low, high = kind.get("minimum"), kind.get("maximum")
        return Measure("spread", None if low is None or high is None or high <= low else float(high - low))
    if kind.get("type") == "string" and "format" not in kind and "pattern" not in kind:
        return Measure("text")
    return Measure("vote")


def agreed(values: Sequence[Fields], names: Sequence[str]) -> dict[str, Any]:
    """Return the fields on which all of several forms agree, as the first of them has it; one alone agrees on nothing.

    >>> agreed([{"mood": "good", "price": 9}, {"mood": "Good", "price": 8}], ["mood", "price"])
    {'mood': 'good'}
    """
    if len(values) < 2:
        return {}
    found = {}
    for name in names:
        said = [value.get(name) for value in values]
        # That a field is empty can be agreed on, which votes know as an abstention.
        if all(one is None for one in said) or unanimous(said):
            found[name] = said[0]
    return found


def voted(values: Sequence[Fields], names: Sequence[str]) -> dict[str, Any]:
    """Return the form in which each field is what most say, the earliest of equals; empty only where most leave it so.

    >>> voted([{"n": 1, "m": None}, {"n": 2, "m": None}, {"n": 2, "m": "x"}], ["n", "m"])
    {'n': 2, 'm': None}
    """
    found = {}
    for name in names:
        said = [value.get(name) for value in values]
        n_empty = said.count(None)
        vote = plurality(said)
        most = max((ballot.weight for ballot in vote.ballots), default=0)
        found[name] = None if n_empty > most else vote.value
    return found


def agreement_of(values: Sequence[Fields | None], measures: Mapping[str, Measure]) -> float:
    """Return how far filled forms agree, in [0, 1]: the mean over their fields; ``None`` agrees with nothing.

    >>> agreement_of([{"mood": "good"}, {"mood": "bad"}, None], {"mood": Measure("vote")})
    0.3333333333333333
    """
    return fmean(_of_field(name, values, measure) for name, measure in measures.items()) if measures else 0.0


def _of_field(name: str, values: Sequence[Fields | None], measure: Measure) -> float:
    said = [value.get(name) for value in values if value is not None]
    n_empty = said.count(None)
    if said and (n_empty == len(said) or unanimous(said)):
        return len(said) / len(values)
    unread = [None] * (len(values) - len(said))
    # Those that leave the field empty agree with each other.
    return max(_measured([*said, *unread], measure), n_empty / len(values)) if values else 0.0


def _measured(said: Sequence[Any], measure: Measure) -> float:
    if measure.by == "fields":
        return agreement_of([one if isinstance(one, Mapping) else None for one in said], measure.inner or {})
    try:
        return agreement(said, measure.by, scale=measure.scale)
    except (OverflowError, PipelineError):  # numbers that nothing can be measured with
        return agreement(said)
