"""Filled forms as columns: each field in the pandas type that was asked for, missing where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson
import pandas as pd

from moa_nb.frames.texts import Texts, series
from moa_nb.pipeline.forms import Form

__all__ = ["Nested", "frame"]

Nested = Literal["object", "arrow"]
"""Whether lists and objects are Python's own, or Arrow's."""

_NULLABLE: Mapping[str, str] = {"integer": "Int64", "number": "Float64", "boolean": "boolean"}


def frame(form: Form, texts: Texts, index: pd.Index[Any], *, nested: Nested = "object") -> pd.DataFrame:
    """Return a column for each field of the filled forms that ``texts`` hold as JSON.

    Texts are ``str``, labels categories with all that are allowed, numbers and booleans nullable, dates
    ``datetime64``; lists and objects are Python's own, or Arrow's with ``nested="arrow"``.
    """
    filled = [None if text is None else orjson.loads(text) for text in texts]
    properties = form.json_schema["properties"]
    made = [
        _column(form, node, [None if one is None else one.get(name) for one in filled], index, nested)
        for name, node in properties.items()
    ]
    table = pd.DataFrame(dict(enumerate(made)), index=index)
    table.columns = pd.Index(list(properties))
    return table


def _column(
    form: Form, node: Mapping[str, Any], values: Sequence[Any], index: pd.Index[Any], nested: Nested
) -> pd.Series[Any]:
    node = _one_kind(form, node)
    kind, labels = node.get("type"), node.get("enum", [node["const"]] if "const" in node else None)
    if labels is not None:
        return pd.Series(pd.Categorical(values, categories=[one for one in labels if one is not None]), index=index)
    if kind in _NULLABLE:
        try:
            return pd.Series(pd.array(values, dtype=_NULLABLE[str(kind)]), index=index)  # type: ignore[call-overload]  # a dtype by name
        except (OverflowError, TypeError, ValueError):
            return pd.Series(values, index=index, dtype=object)  # a whole number beyond 64 bits
    if kind == "string" and node.get("format") in {"date", "date-time"}:
        return _dates(values, index)
    if kind == "string":
        return series(values, index)
    if nested == "arrow":
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]  # it says nothing of its types

        return pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, from_pandas=True)), index=index)
    return pd.Series(values, index=index, dtype=object)


def _one_kind(form: Form, node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the node that says what a field holds where it holds something."""
    node = form.resolved(node)
    branches = [form.resolved(one) for one in node.get("anyOf", ())]
    branches = [one for one in branches if one.get("type") != "null"]
    if len(branches) == 1:
        return _one_kind(form, branches[0])
    if {one.get("type") for one in branches} == {"integer", "number"}:
        return {"type": "number"}
    return node


def _dates(values: Sequence[Any], index: pd.Index[Any]) -> pd.Series[Any]:
    has_zone = any(isinstance(value, str) and value[10:].endswith(("Z", "+00:00")) for value in values)
    try:
        made = pd.to_datetime(pd.Series(values, dtype=object), format="ISO8601", utc=has_zone)
    except (ValueError, TypeError):
        try:
            made = pd.to_datetime(pd.Series(values, dtype=object), format="ISO8601", utc=True)
        except (ValueError, TypeError):  # years that no timestamp holds
            return series(values, index)
    return pd.Series(made.array, index=index)
