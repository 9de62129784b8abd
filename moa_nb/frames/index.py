"""A frame's index as JSON data and back, so that what came of its rows can be laid beside them in another kernel."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.engine.values import kinds_as_text, pack_value, pack_zone, unpack_value, unpack_zone
from moa_nb.errors import SetupError

__all__ = ["labels_as_text", "pack_index", "unpack_index"]


def pack_index(index: pd.Index[Any]) -> Any:
    """Return an index as JSON data, its names and its dtype included.

    >>> unpack_index(pack_index(pd.Index(["a", "a", None], name="id"))).tolist()[:2]
    ['a', 'a']
    """
    for kind, write in _WRITERS.items():
        if isinstance(index, kind):
            try:
                return write(index)
            except ValueError:
                break  # a time zone that nobody else knows
    return _of_labels(index)


def unpack_index(data: Any) -> pd.Index[Any]:
    """Return the index that ``pack_index`` was given; labels that could not be told exactly are texts.

    Raises:
        SetupError: it is nothing that ``pack_index`` makes.
    """
    try:
        return _READERS[data["kind"]](data)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        msg = f"the index of this run cannot be read: {type(error).__name__}: {error}"
        raise SetupError(msg) from None


def labels_as_text(data: Any) -> str | None:
    """Return the line that says which labels come back as text; ``None`` where all are what they were.

    >>> labels_as_text(pack_index(pd.Index([print, 1])))
    'labels of the type builtins.builtin_function_or_method come back as text'
    """
    kinds = kinds_as_text(data)
    return f"labels of the type {', '.join(kinds)} come back as text" if kinds else None


def _name(data: Any) -> Any:
    name = unpack_value(data["name"])
    hash(name)
    return name


def _named(index: pd.Index[Any], data: Any) -> pd.Index[Any]:
    return index.rename(_name(data))


def _of_array(values: np.ndarray[Any, Any]) -> list[str]:
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return [values.dtype.str, base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()]


def _array(data: list[str]) -> np.ndarray[Any, Any]:
    kind, raw = data
    # A copy, of this machine's byte order, which pandas may write to.
    return np.frombuffer(base64.b64decode(raw), dtype=np.dtype(kind)).astype(np.dtype(kind).newbyteorder("="))


# Each kind --------------------------------------------------------------------------------------


def _of_range(index: pd.RangeIndex) -> Any:
    return {"kind": "range", "name": pack_value(index.name), "range": [index.start, index.stop, index.step]}


def _range(data: Any) -> pd.Index[Any]:
    start, stop, step = data["range"]
    return pd.RangeIndex(start, stop, step, name=_name(data))


def _of_multi(index: pd.MultiIndex) -> Any:
    return {
        "kind": "multi",
        "names": [pack_value(name) for name in index.names],
        "levels": [pack_index(level) for level in index.levels],
        "codes": [_of_array(np.asarray(codes)) for codes in index.codes],
    }


def _multi(data: Any) -> pd.Index[Any]:
    levels: Any = [unpack_index(level) for level in data["levels"]]
    codes: Any = [_array(codes) for codes in data["codes"]]
    return pd.MultiIndex(
        levels=levels,
        codes=codes,
        names=[unpack_value(name) for name in data["names"]],
    )


def _of_categories(index: pd.CategoricalIndex[Any]) -> Any:
    return {
        "kind": "categories",
        "name": pack_value(index.name),
        "categories": pack_index(index.categories),
        "codes": _of_array(np.asarray(index.codes)),
        "ordered": bool(index.ordered),
    }


def _categories(data: Any) -> pd.Index[Any]:
    labels = unpack_index(data["categories"])
    values = pd.Categorical.from_codes(_array(data["codes"]), categories=labels, ordered=data["ordered"])
    return pd.CategoricalIndex(values, name=_name(data))


def _of_times(index: pd.DatetimeIndex) -> Any:
    return {
        "kind": "times",
        "name": pack_value(index.name),
        "zone": pack_zone(index.tz),
        "values": _of_array(index.tz_localize(None).to_numpy() if index.tz is None else _in_utc(index)),
        "every": index.freqstr,
    }


def _in_utc(index: pd.DatetimeIndex) -> np.ndarray[Any, Any]:
    return index.tz_convert("UTC").tz_localize(None).to_numpy()


def _times(data: Any) -> pd.Index[Any]:
    index = pd.DatetimeIndex(_array(data["values"]))
    if data["zone"] is not None:
        index = index.tz_localize("UTC").tz_convert(unpack_zone(data["zone"]))
    return _named(_every(index, data), data)


def _of_durations(index: pd.TimedeltaIndex) -> Any:
    return {
        "kind": "durations",
        "name": pack_value(index.name),
        "values": _of_array(index.to_numpy()),
        "every": index.freqstr,
    }


def _durations(data: Any) -> pd.Index[Any]:
    return _named(_every(pd.TimedeltaIndex(_array(data["values"])), data), data)


def _every(index: Any, data: Any) -> Any:
    if data["every"] is not None:
        try:
            index.freq = data["every"]
        except (ValueError, TypeError):
            pass  # a step of one's own: the labels are what they were
    return index


def _of_periods(index: pd.PeriodIndex) -> Any:
    return {
        "kind": "periods",
        "name": pack_value(index.name),
        "ordinals": _of_array(index.asi8),
        "every": index.freqstr,
    }


def _periods(data: Any) -> pd.Index[Any]:
    # Not every version of the types knows it.
    made: Any = pd.PeriodIndex
    return _named(made.from_ordinals(_array(data["ordinals"]), freq=data["every"]), data)


def _of_intervals(index: pd.IntervalIndex[Any]) -> Any:
    return {
        "kind": "intervals",
        "name": pack_value(index.name),
        "left": pack_index(pd.Index(index.left)),
        "right": pack_index(pd.Index(index.right)),
        "closed": index.closed,
    }


def _intervals(data: Any) -> pd.Index[Any]:
    sides = unpack_index(data["left"]), unpack_index(data["right"])
    return pd.IntervalIndex.from_arrays(*sides, closed=data["closed"], name=_name(data))


def _of_labels(index: pd.Index[Any]) -> Any:
    """Return labels of any other dtype: numbers as they lie in memory, anything else one by one."""
    name = pack_value(index.name)
    if isinstance(index.dtype, np.dtype) and index.dtype.kind in "biufc":
        return {"kind": "numbers", "name": name, "values": _of_array(index.to_numpy())}
    return {
        "kind": "labels",
        "name": name,
        "dtype": _dtype_name(index.dtype),
        "values": [pack_value(label) for label in index.tolist()],
    }


def _numbers(data: Any) -> pd.Index[Any]:
    return _named(pd.Index(_array(data["values"])), data)


def _labels(data: Any) -> pd.Index[Any]:
    values = [unpack_value(label) for label in data["values"]]
    if data["dtype"] != "object":
        try:
            return _named(pd.Index(values, dtype=data["dtype"]), data)
        except (ValueError, TypeError, ImportError):
            pass  # a dtype of a package that is not here
    return _named(pd.Index(values, dtype="object", tupleize_cols=False), data)


def _dtype_name(dtype: Any) -> str:
    """Return the name under which pandas makes a dtype; where there is none the labels are plain objects."""
    is_missing_number = isinstance(getattr(dtype, "na_value", None), float)
    if isinstance(dtype, pd.StringDtype):
        return "str" if is_missing_number else f"string[{dtype.storage}]"
    try:
        return str(dtype) if pd.api.types.pandas_dtype(str(dtype)) == dtype else "object"
    except (TypeError, ValueError, NotImplementedError):
        return "object"


_WRITERS: dict[type, Callable[[Any], Any]] = {
    pd.RangeIndex: _of_range,
    pd.MultiIndex: _of_multi,
    pd.CategoricalIndex: _of_categories,
    pd.DatetimeIndex: _of_times,
    pd.TimedeltaIndex: _of_durations,
    pd.PeriodIndex: _of_periods,
    pd.IntervalIndex: _of_intervals,
}

_READERS: dict[str, Callable[[Any], pd.Index[Any]]] = {
    "range": _range,
    "multi": _multi,
    "categories": _categories,
    "times": _times,
    "durations": _durations,
    "periods": _periods,
    "intervals": _intervals,
    "numbers": _numbers,
    "labels": _labels,
}
