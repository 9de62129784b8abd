"""Filled forms as columns: each field in the pandas type that was asked for, missing where there is none."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd

from moa_nb.frames.texts import Texts, series
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.forms.schema import Node, choices_of, only_kind

__all__ = ["Nested", "frame"]

Nested = Literal["object", "arrow"]
"""Whether lists and objects are Python's own, or Arrow's."""

_NULLABLE: Mapping[str, str] = {"integer": "Int64", "number": "Float64", "boolean": "boolean"}


def frame(form: Form, texts: Texts, index: pd.Index[Any], *, nested: Nested = "object") -> pd.DataFrame:
    """Return a column for each field of the filled forms that ``texts`` hold as JSON.

    Texts are ``str``, labels categories with all that are allowed, numbers and booleans nullable, dates
    ``datetime64[us]``, in UTC where one has a zone; decimals, lists and objects are Python's own, lists and objects
    Arrow's with ``nested="arrow"``. What such a column cannot hold, as a number of more than 64 bits, makes it Python's.
    """
    properties = form.json_schema["properties"]
    fields: dict[str, list[Any]] = {name: [] for name in properties}
    known: dict[str, Any] = {}
    for text in texts:  # one form at a time: of many rows all forms at once would be more than the frame
        filled = {} if text is None else json.loads(text)
        for name, values in fields.items():
            value = filled.get(name)
            # Labels come again and again: each is kept once.
            values.append(known.setdefault(value, value) if isinstance(value, str) else value)
    made = [_column(node, fields.pop(name), nested) for name, node in properties.items()]
    # With its dtype named, a column of objects that happen to be texts stays one of objects.
    cells = [pd.Series(values, index=index, dtype=values.dtype) for values in made]
    table = pd.DataFrame(dict(enumerate(cells)), index=index)
    table.columns = pd.Index(list(form.names))
    return table


def _column(node: Node, values: Sequence[Any], nested: Nested) -> Any:
    """Return the cells of a field."""
    kind, labels = only_kind(node), choices_of(node)
    of = kind.get("type")
    try:
        if of == "boolean":
            return pd.array(values, dtype="boolean")
        if labels:
            return pd.Categorical(values, categories=labels)
        if kind.get("format") == "decimal":
            return _objects([None if one is None else Decimal(one) for one in values])
        if of in _NULLABLE:
            return pd.array(values, dtype=_NULLABLE[str(of)])  # type: ignore[call-overload]  # a dtype by name
        if of == "string" and kind.get("format") in {"date", "date-time"}:
            return _dates(values)
    except (OverflowError, TypeError, ValueError):
        return _objects(values)
    if of == "string":
        return series(values, pd.RangeIndex(len(values))).array
    return _in_arrow(kind, values) if nested == "arrow" else _objects(values)


def _objects(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    made = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # at once, lists of one length would be taken for a table
        made[place] = value
    return made


def _dates(values: Sequence[Any]) -> pd.DatetimeIndex:
    moments = [None if value is None else dt.datetime.fromisoformat(value) for value in values]
    has_zone = any(moment is not None and moment.tzinfo is not None for moment in moments)
    plain = [
        moment if moment is None or moment.tzinfo is None else moment.astimezone(dt.UTC).replace(tzinfo=None)
        for moment in moments
    ]
    made = pd.DatetimeIndex(np.array(plain, dtype="datetime64[us]"))
    return made.tz_localize("UTC") if has_zone else made


# Arrow -------------------------------------------------------------------------------------------


def _in_arrow(node: Node, values: Sequence[Any]) -> Any:
    """Return values as Arrow's, of the type that was asked for; Python's own where Arrow has none for them."""
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]  # it says nothing of its types

    kind = _arrow_type(node)
    try:
        return _objects(values) if kind is None else pd.arrays.ArrowExtensionArray(pa.array(values, type=kind))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return _objects(values)


def _arrow_type(node: Any) -> Any:
    """Return Arrow's type for a node of a JSON schema; ``None`` where it has none."""
    import pyarrow as pa

    node = only_kind(node)
    plain = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    if node.get("format") == "decimal":
        return pa.string()
    if node.get("type") in plain:
        return plain[node["type"]]
    if node.get("type") == "array" and "items" in node:
        inner = _arrow_type(node["items"])
        return None if inner is None else pa.list_(inner)
    if node.get("properties"):
        fields = {name: _arrow_type(one) for name, one in node["properties"].items()}
        return None if None in fields.values() else pa.struct(list(fields.items()))
    return None
