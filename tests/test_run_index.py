"""An index goes to the disk and comes back: the same labels, names and dtype, or it says what is a text now."""

from __future__ import annotations

import datetime as dt
import uuid
import zoneinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from moa_nb.engine.values import kinds_as_text, pack_value, unpack_value
from moa_nb.errors import SetupError
from moa_nb.frames.index import labels_as_text, pack_index, unpack_index

ZONES = ["Europe/Berlin", "UTC", "America/St_Johns", "Asia/Kathmandu"]

NAMES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.text(max_size=5), st.integers(), st.tuples(st.text(max_size=2), st.integers())
)

STAMPS = st.one_of(
    st.none(),
    st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)).map(lambda at: at.replace(fold=0)),  # noqa: DTZ001 - zones are drawn apart
)

LABELS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=4),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.dates(),
    st.uuids(),
    st.timedeltas(),
    st.tuples(st.integers(), st.text(max_size=2)),
    st.frozensets(st.integers(), max_size=1),
    st.complex_numbers(),
    st.datetimes(timezones=st.none() | st.sampled_from([zoneinfo.ZoneInfo(zone) for zone in ZONES] + [dt.UTC])),
    st.times(),
)


def multi(parts: tuple[list[Any], list[Any], list[Any]]) -> pd.Index[Any]:
    """An index of two levels, the first with missing labels."""
    first, second, names = parts
    n = min(len(first), len(second))
    return pd.MultiIndex.from_arrays([first[:n], second[:n]], names=names)


INDEXES: st.SearchStrategy[pd.Index[Any]] = st.one_of(
    st.builds(
        lambda start, n, step, name: pd.RangeIndex(start, start + n * step, step, name=name),
        st.integers(-9, 9),
        st.integers(0, 9),
        st.sampled_from([-3, 1, 2]),
        NAMES,
    ),
    st.builds(lambda values, name: pd.Index(values, name=name), st.lists(st.floats()), NAMES),
    st.builds(
        lambda values, kind, name: pd.Index(np.array(values, dtype=kind), name=name),
        st.lists(st.integers(0, 100)),
        st.sampled_from(["int8", "uint16", "int64", "uint64", "float32", "bool", "complex128"]),
        NAMES,
    ),
    st.builds(lambda values, name: pd.Index(values, dtype="object", name=name), st.lists(st.text(max_size=4)), NAMES),
    st.builds(
        lambda values, kind, name: pd.Index(values, dtype=kind, name=name),
        st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
        st.sampled_from(["string", "string[python]"] + ["str"] * (int(pd.__version__.partition(".")[0]) >= 3)),
        NAMES,
    ),
    st.builds(
        lambda values, kind: pd.Index(values, dtype=kind),
        st.lists(st.none() | st.integers(0, 1)),
        st.sampled_from(["Int64", "UInt8", "Float64", "boolean"]),
    ),
    st.builds(
        lambda values, zone, unit, name: (
            pd.DatetimeIndex(values, name=name).tz_localize("UTC").tz_convert(zone).as_unit(unit)
        ),
        st.lists(STAMPS),
        st.sampled_from([*ZONES, None, dt.timezone(dt.timedelta(hours=5, minutes=30))]),
        st.sampled_from(["s", "ms", "us", "ns"]),
        NAMES,
    ),
    st.builds(
        lambda n, every: pd.date_range("2024-01-31", periods=n, freq=every), st.integers(0, 9), st.sampled_from("DhWB")
    ),
    st.builds(
        lambda values, unit: pd.TimedeltaIndex(values).as_unit(unit),
        st.lists(st.none() | st.timedeltas(dt.timedelta(-9999), dt.timedelta(9999))),
        st.sampled_from(["s", "ns"]),
    ),
    st.builds(
        lambda n, every, name: pd.period_range("2023-11", periods=n, freq=every, name=name).insert(0, pd.NaT),
        st.integers(0, 9),
        st.sampled_from(["M", "D", "Q-NOV", "h"]),
        NAMES,
    ),
    st.builds(
        lambda n, closed: pd.interval_range(0, n, closed=closed).repeat(2),
        st.integers(0, 5),
        st.sampled_from(["left", "right", "both", "neither"]),
    ),
    st.builds(
        lambda values, ordered, name: pd.CategoricalIndex(values, ["b", "a", "c"], ordered=ordered, name=name),
        st.lists(st.sampled_from(["a", "b", None])),
        st.booleans(),
        NAMES,
    ),
    st.builds(
        multi,
        st.tuples(
            st.lists(st.none() | st.text(max_size=2), max_size=6),
            st.lists(STAMPS, max_size=6),
            st.lists(NAMES, min_size=2, max_size=2),
        ),
    ),
)


def again(data: Any) -> Any:
    """What is left of JSON data on the disk."""
    return orjson.loads(orjson.dumps(data))


@hypothesis_settings(deadline=None, max_examples=300)
@given(index=INDEXES)
def test_an_index_comes_back(index: pd.Index[Any]) -> None:
    """Labels, order, names, dtype, step: all of it, whatever the kind."""
    packed = again(pack_index(index))
    found = unpack_index(packed)
    pd.testing.assert_index_equal(found, index, exact=True)
    assert found.names == index.names
    assert list(map(type, found.names)) == list(map(type, index.names))
    assert getattr(found, "freq", None) == getattr(index, "freq", None)
    assert labels_as_text(packed) is None


def test_labels_of_a_dtype_that_no_text_names_come_back_as_objects() -> None:
    """Decimals of pyarrow are such: their labels are kept, whatever holds them."""
    arrow = pytest.importorskip("pyarrow")
    index = pd.Index([Decimal("1.50"), Decimal("2.25")], dtype=pd.ArrowDtype(arrow.decimal128(10, 2)), name="price")
    found = unpack_index(again(pack_index(index)))
    assert found.tolist() == index.tolist()
    assert (found.dtype, found.name) == ("object", "price")


@hypothesis_settings(deadline=None, max_examples=300)
@given(labels=st.lists(LABELS))
def test_labels_of_any_type_come_back(labels: list[Any]) -> None:
    """An object index holds what it held, each label of the type that it was."""
    index = pd.Index([*labels, *labels], dtype="object", tupleize_cols=False)
    found = unpack_index(again(pack_index(index)))
    assert [(type(label), repr(label)) for label in found] == [(type(label), repr(label)) for label in index]


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.1),
        np.int8(-3),
        np.bool_(True),
        np.str_("x"),
        np.datetime64("2024-01-31T12:00", "m"),
        pd.Timestamp("2024-03-31 01:59:59.123456789", tz="Europe/Berlin"),
        pd.Timestamp("2024-10-27 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timedelta("1 days 00:00:00.000000001"),
        pd.Period("2024Q1", freq="Q-NOV"),
        pd.Interval(pd.Timestamp("2024-01-01"), pd.Timestamp("2024-02-01"), closed="left"),
        pd.NaT,
        pd.NA,
        -0.0,
        {"a": [1, (2, {3})], None: float("-inf"), 4: b"\xff"},
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        Decimal("1E+10"),
        Fraction(1, 3),
        uuid.UUID(int=7),
        {"text": ["a", "b"]},
    ],
    ids=repr,
)
def test_a_value_comes_back(value: Any) -> None:
    """As it was, to the type and the last digit."""
    packed = again(pack_value(value))
    found = unpack_value(packed)
    assert (type(found), repr(found)) == (type(value), repr(value))
    assert kinds_as_text(packed) == []


def test_what_nobody_knows_is_text_and_says_so() -> None:
    """A label of a type that is not known is its text; the others are what they were."""
    index = pd.Index([1, PurePosixPath("a/b"), (dt.timezone(dt.timedelta(0), "here"),)], dtype="object")
    packed = again(pack_index(index))
    assert unpack_index(packed).tolist() == [1, "a/b", ("here",)]
    assert labels_as_text(packed) == ("labels of the type datetime.timezone, pathlib.PurePosixPath come back as text")


@pytest.mark.parametrize("data", [None, 3, {}, {"kind": "new"}, {"kind": "range"}, {"kind": "numbers", "name": 1}, []])
def test_foreign_data_is_one_line(data: Any) -> None:
    """What no index was made into is refused, with no traceback into pandas."""
    with pytest.raises(SetupError, match="the index of this run cannot be read") as raised:
        unpack_index(data)
    assert "\n" not in str(raised.value)


@given(
    data=st.recursive(st.none() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of))
)
def test_foreign_values_are_refused(data: Any) -> None:
    """Whatever JSON stands there: a value comes of it, or one kind of error."""
    said = ""
    try:
        unpack_value(data)
    except ValueError as error:
        said = str(error)
    assert "\n" not in said
