"""Whatever the frame: every verb's answers stand on their rows, and the frame is what it was."""

from __future__ import annotations

import copy
import datetime as dt
import io
import itertools
import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.frames import cells as cells_module
from moa_nb.frames import texts as texts_module
from moa_nb.frames.run import FrameRun, RowsFailed

IS_NEW = int(pd.__version__.partition(".")[0]) >= 3
HAS_ARROW = find_spec("pyarrow") is not None
TEXT = "str" if IS_NEW else "string"
LABELS = ["praise", "bug", "billing", "other"]

# An agent whose answer is a function of the text --------------------------------------------------

heard: list[tuple[str, ...]] = []
"""The texts of each call, in the order of arrival."""


def facts(number: int) -> dict[str, Any]:
    """What is known of a text, by the names of fields."""
    return {
        "label": LABELS[number % 3],
        "labels": LABELS[: number % 4],
        "holds": number % 2 == 0,
        "count": number,
        "share": None if number % 3 else number / 4,
        "is_odd": bool(number % 2),
        "mood": [None, "low", "high"][number % 3],
        "word": f"word {number}",
        "day": f"2024-01-0{number + 1}",
        "tags": ["tag"] * (number % 3),
        "maker": {"name": f"maker {number}"},
    }


@moa.agent("clerk", version="1")
def clerk(prompt: str, schema: Mapping[str, Any] | None = None) -> Any:
    """Answer from the numbers of the texts: ``<ok 3/7>`` is number 3; a ``bad`` text is too much for it."""
    texts = re.findall(r"<(ok|bad) (\d)/\d+>", prompt)
    heard.append(tuple(f"{kind} {number}" for kind, number in texts))
    if any(kind == "bad" for kind, _ in texts):
        raise ValueError("too much")
    numbers = [int(number) for _, number in texts]
    wanted = {} if schema is None else schema["properties"]
    if not wanted:
        return "answer " + " ".join(map(str, numbers))
    if "score" in wanted:
        return {"score": scored(numbers[0]) if wanted["score"]["type"] == "integer" else numbers[0] / 8}
    if "better" in wanted:
        return {"better": "A" if numbers[0] > numbers[1] else "B" if numbers[0] < numbers[1] else "tie"}
    return {name: value for name, value in facts(numbers[0]).items() if name in wanted}


def scored(number: int) -> int:
    """The clerk's mark for a text, from 1 to 10."""
    return number + 1


OPTIONS: dict[str, Any] = {"pipeline": "single", "aggregator": "function:clerk", "progress": False}


@dataclass(frozen=True)
class Said:
    """A verb with what is said to it, and what must come of it."""

    verb: str
    says: Mapping[str, Any]
    wanted: Callable[[int], Any]
    """The cell of a text's number; of ``extract`` a dict of them."""
    dtype: Any

    def __call__(self, data: Any, *column: Hashable, **options: Any) -> Any:
        """Return what comes of it."""
        return getattr(data.moa, self.verb)(*column, **self.says, **OPTIONS, **options)


SCHEMA = {
    "count": int,
    "share": float | None,
    "is_odd": bool,
    "mood": Literal["low", "high"] | None,
    "word": str,
    "day": dt.date,
    "tags": list[str],
    "maker": {"name": str},
}
VERBS = {
    "synthesize": Said("synthesize", {"instruction": "Say"}, lambda number: f"answer {number}", TEXT),
    "extract": Said(
        "extract",
        {"schema": SCHEMA},
        lambda number: {
            name: pd.Timestamp(value) if name == "day" else value
            for name, value in facts(number).items()
            if name in SCHEMA
        },
        {"count": "Int64", "share": "Float64", "is_odd": "boolean", "mood": pd.CategoricalDtype(["low", "high"])}
        | {"word": TEXT, "tags": "object", "maker": "object"},
    ),
    "classify": Said(
        "classify", {"labels": LABELS}, lambda number: facts(number)["label"], pd.CategoricalDtype(LABELS)
    ),
    "classify multi": Said(
        "classify", {"labels": LABELS, "multi": True}, lambda number: facts(number)["labels"], "object"
    ),
    "score": Said("score", {"criterion": "how urgent"}, scored, "Int64"),
    "score of floats": Said(
        "score", {"criterion": "how urgent", "scale": (0.0, 1.0)}, lambda number: number / 8, "Float64"
    ),
    "filter": Said("filter", {"condition": "it is even"}, lambda number: number % 2 == 0, "boolean"),
}

# Frames as people have them -----------------------------------------------------------------------

TEXT_DTYPES = ["object", "category", "string[python]", *(["str"] if IS_NEW else [])]
if HAS_ARROW:
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]  # it says nothing of its types

    TEXT_DTYPES += ["string[pyarrow]", pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.large_string())]

LAYOUTS: list[Any] = [
    ["a", "q", "b", "r", "g"],
    [7, 0, "b", 1, -1],
    pd.MultiIndex.from_tuples([("t", "a"), ("t", "q"), ("u", "a"), ("u", "q"), ("v", 1)], names=["part", None]),
    ["d", "q", "d", "r", "g"],
    pd.date_range("2024-01-01", periods=5),
    pd.CategoricalIndex(["a", "q", "b", "r", "g"], name="column"),
]
"""Column labels; the texts are the second and the fourth column, and the last one groups the rows."""

serial = itertools.count()
"""Each example has texts of its own, which no example before it has asked."""


def indexes(n: int) -> st.SearchStrategy[pd.Index[Any]]:
    """Indexes of n rows, of any kind."""

    def of(labels: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
        return st.lists(labels, min_size=n, max_size=n)

    small, letters = st.integers(-1, 1), st.sampled_from(["a", "b", ""])
    days = st.sampled_from([pd.Timestamp("2024-03-31 01:00"), pd.Timestamp("2024-10-27 03:00"), pd.NaT])
    pairs = of(st.tuples(letters, small))
    kinds = [
        st.just(pd.RangeIndex(3, 3 + 2 * n, 2, name="id")),
        of(small).map(lambda labels: pd.Index(labels, dtype="int64", name=0)),
        of(letters).map(lambda labels: pd.Index(labels, dtype=TEXT)),
        of(st.one_of(small, letters, st.none())).map(lambda labels: pd.Index(labels, dtype=object)),
        pairs.map(lambda labels: pd.MultiIndex.from_arrays([[a for a, _ in labels], [b for _, b in labels]])),
        pairs.map(
            lambda labels: pd.MultiIndex.from_arrays(
                [pd.Categorical([a for a, _ in labels], categories=["b", "a", "", "z"]), [b for _, b in labels]],
                names=["letter", ("of", "two")],
            )
        ),
        st.just(pd.date_range("2024-01-01", periods=n, freq="D", name="day")),
        of(days).map(lambda labels: pd.DatetimeIndex(labels, tz="Europe/Berlin")),
        of(letters).map(lambda labels: pd.CategoricalIndex(labels, categories=["b", "", "z", "a"], ordered=True)),
        of(st.sampled_from([0.5, np.nan, -0.0])).map(lambda labels: pd.Index(labels, dtype="float64")),
        of(st.one_of(small, st.none())).map(lambda labels: pd.Index(pd.array(labels, dtype="Int64"), name="n")),
        st.just(pd.period_range("2024-01", periods=n, freq="M")),
        st.just(pd.interval_range(0, n) if n else pd.IntervalIndex.from_breaks([0])[:0]),
        st.just(pd.timedelta_range("1h", periods=n)),
    ]
    return st.one_of(kinds)


class Thing:
    """An object that nobody copies unseen."""

    __hash__ = None  # type: ignore[assignment]  # as lists have none

    def __deepcopy__(self, memo: object) -> Thing:
        raise AssertionError("a cell was copied")


def others(n: int) -> list[Any]:
    """Columns of n rows of every dtype, which no verb looks at."""
    several = range(n)
    columns: list[Any] = [
        pd.array([None if i % 3 == 1 else i for i in several], dtype="Int64"),
        pd.Categorical([["x", "y", None][i % 3] for i in several], categories=["z", "y", "x"], ordered=True),
        pd.date_range("2024-03-30", periods=n, freq="D", tz="Europe/Berlin"),
        pd.to_timedelta([f"{i}h" for i in several]),
        pd.period_range("2024-01", periods=n, freq="Q"),
        pd.arrays.SparseArray([0.0, *[1.0] * n][:n], fill_value=0.0),
        np.array([1.5, np.nan, np.inf, -0.0, *[0.0] * n][:n]),
        np.arange(n, dtype="int8"),
        np.array([1j * i for i in several], dtype="complex64"),
        np.array([True, False] * n, dtype=bool)[:n],
        pd.array([[True, None, False][i % 3] for i in several], dtype="boolean"),
        pd.Series([[[i], {"k": {i}}, None, Decimal(i), Thing()][i % 5] for i in several], dtype=object).array,
        pd.array([["é", None][i % 2] for i in several], dtype="string[python]"),
    ]
    if HAS_ARROW:
        columns.append(pd.array([[i] for i in several], dtype=pd.ArrowDtype(pa.list_(pa.int64()))))
        columns.append(pd.array([Decimal(i) for i in several], dtype=pd.ArrowDtype(pa.decimal128(9, 2))))
    return columns


def groups(n: int) -> st.SearchStrategy[Any]:
    """Columns of n rows to group by, missing groups and categories without rows among them."""
    letters = st.lists(st.sampled_from(["x", "y", None]), min_size=n, max_size=n)
    numbers = st.lists(st.sampled_from([1, 2, None]), min_size=n, max_size=n)
    return st.one_of(
        letters.map(lambda labels: np.array(labels, dtype=object)),
        letters.map(lambda labels: pd.array(labels, dtype=TEXT)),
        letters.map(lambda labels: pd.Categorical(labels, categories=["z", "y", "x"], ordered=True)),
        numbers.map(lambda labels: np.array(labels, dtype="float64")),
        numbers.map(lambda labels: pd.array(labels, dtype="Int64")),
        numbers.map(lambda labels: pd.to_datetime([label and f"2024-01-0{label}" for label in labels], utc=True)),
    )


@dataclass(frozen=True)
class Sample:
    """A frame, and what stands in its columns of texts."""

    frame: pd.DataFrame
    kinds: Sequence[Sequence[tuple[str, int]]]
    """For each of both columns and each row: ``ok``, ``bad``, ``missing`` or ``blank``, and a number."""
    labels: tuple[Any, Any]
    """What these columns are called."""

    def wanted(self, cell: Callable[[int], Any]) -> list[Any]:
        """Return what must come of the first one, row by row."""
        return [cell(number) if kind == "ok" else None for kind, number in self.kinds[0]]


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Frames of none to six rows, with any index, columns and dtypes."""
    n = draw(st.sampled_from([0, 1, 3, 6]))
    example = next(serial)
    row = st.tuples(st.sampled_from(["ok", "ok", "ok", "bad", "missing", "blank"]), st.integers(0, 4))
    kinds = [draw(st.lists(row, min_size=n, max_size=n)) for _ in range(2)]
    around = draw(
        st.sampled_from(["{}", " {}\n", "{{{{ x }}}} {} {{% raw %}}", "„é語\U0001f600“ {}", "</text> [a] {}"])
    )
    texts = [
        [
            draw(st.sampled_from([None, np.nan, pd.NA, pd.NaT]))
            if kind == "missing"
            else (" \n" if kind == "blank" else around.format(f"<{kind} {number}/{example}>"))
            for kind, number in column
        ]
        for column in kinds
    ]
    columns: list[Any] = []
    for cells in texts:
        dtype = draw(st.sampled_from(TEXT_DTYPES))
        exact = cells if dtype == "object" else [cell if isinstance(cell, str) else None for cell in cells]
        columns.append(pd.Series(exact, dtype=dtype).array)
    first, second = draw(st.sampled_from(others(n))), draw(st.sampled_from(others(n)))
    made = dict(enumerate([first, columns[0], second, columns[1], draw(groups(n))]))
    frame = pd.DataFrame(made, index=draw(indexes(n)))
    frame.columns = pd.Index(draw(st.sampled_from(LAYOUTS)))
    frame.attrs = {"source": {"file": "x.csv"}}
    if frame.index.is_unique and frame.columns.is_unique:
        frame.flags.allows_duplicate_labels = False
    return Sample(frame, kinds, (frame.columns[1], frame.columns[3]))


@contextmanager
def untouched(frame: pd.DataFrame) -> Iterator[None]:
    """Hold that a frame is afterwards what it was: values, dtypes, labels, attrs, flags, and the very same objects."""

    def things() -> list[int]:
        return [id(cell) for _, column in frame.items() if column.dtype == object for cell in column]

    before, attrs, flags, own = frame.copy(), copy.deepcopy(frame.attrs), frame.flags.allows_duplicate_labels, things()
    shared = [column.copy() for _, column in frame.items()]
    heard.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RowsFailed)
        yield
    for (_, column), known in zip(frame.items(), shared, strict=True):
        pd.testing.assert_series_equal(column, known)
    same_index(frame.index, before.index)
    same_index(frame.columns, before.columns)
    assert (frame.attrs, frame.flags.allows_duplicate_labels, things()) == (attrs, flags, own)


def same_index(index: pd.Index[Any], wanted: pd.Index[Any]) -> None:
    """Hold that two indexes are the same: labels, kind, dtype, names, categories, time zone and step."""
    pd.testing.assert_index_equal(index, wanted, exact=True)
    assert index.names == wanted.names
    assert getattr(index, "freq", None) == getattr(wanted, "freq", None)


def cells(made: Any) -> list[Any]:
    """Cells as Python has them, ``None`` where they are missing; of a frame a dict for each row, ``None`` if all are."""
    if isinstance(made, pd.DataFrame):
        columns = [cells(made.iloc[:, place]) for place in range(made.shape[1])]
        rows = [dict(zip(made.columns, row, strict=True)) for row in zip(*columns, strict=True)]
        return [None if all(cell is None for cell in row.values()) else row for row in rows]
    return [None if is_missing else cell for cell, is_missing in zip(made, made.isna(), strict=True)]


def has_dtype(made: Any, dtype: Any) -> None:
    """Hold that what came out has the dtype that was promised, of a frame in each column."""
    if isinstance(made, pd.DataFrame):
        kinds = {name: str(made[name].dtype) for name in dtype}
        assert kinds == {name: str(pd.api.types.pandas_dtype(kind)) for name, kind in dtype.items()}
        assert made["mood"].dtype == dtype["mood"]
        assert made["day"].dtype.kind == "M"
    else:
        assert made.dtype == dtype


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read and moved two at a time, so that a few of them are several stretches."""
    monkeypatch.setattr(cells_module, "_STRETCH", 2)
    monkeypatch.setattr(texts_module, "_STRETCH", 2)


def last() -> FrameRun:
    """The last run, which was a frame's."""
    run = moa.last()
    assert isinstance(run, FrameRun)
    return run


checked = hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


# What comes of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("said", VERBS.values(), ids=VERBS)
@checked
@given(sample=samples(), as_series=st.booleans())
def test_every_verb_answers_row_by_row(said: Said, sample: Sample, as_series: bool) -> None:
    """Answers stand on their rows with the frame's index, in the promised dtype; equal texts are asked once, and only
    the failed ones again.
    """
    frame, (label, _) = sample.frame, sample.labels
    data, column = (frame[label], ()) if as_series else (frame, (label,))
    with untouched(frame):
        made = said(data, *column)
        asked = sorted(heard)
        run = last()
        review = run.review()
        heard.clear()
        again = said(data, *column)
    assert cells(made) == sample.wanted(said.wanted)
    has_dtype(made, said.dtype)
    if isinstance(made, pd.DataFrame):
        assert list(made.columns) == list(SCHEMA)
    else:
        assert made.name == label
    assert not made.attrs
    for part in (made, run.partial, run.report, run.costs, run.errors, run.layers):
        same_index(part.index, frame.index)
    pd.testing.assert_index_equal(review.index, frame.index.take(review["position"].to_list()))
    assert run.errors.notna().to_list() == [kind == "bad" for kind, _ in sample.kinds[0]]
    assert run.report["error_kind"].dropna().isin(["row"]).all()
    texts = {f"{kind} {number}" for kind, number in sample.kinds[0] if kind in {"ok", "bad"}}
    assert asked == sorted((text,) for text in texts)
    assert set(heard) == {(text,) for text in texts if text.startswith("bad")}
    assert cells(again) == cells(made)


@checked
@given(sample=samples())
def test_the_better_of_two_columns_is_named_row_by_row(sample: Sample) -> None:
    """``prefer`` names one of both columns or a tie, with all three as categories; each pair is asked in both orders."""
    frame, labels = sample.frame, sample.labels
    with untouched(frame):
        made = frame.moa.prefer(*labels, **OPTIONS)
    pairs = list(zip(*sample.kinds, strict=True))
    is_whole = [{first, second} <= {"ok", "bad"} for (first, _), (second, _) in pairs]
    is_good = [first == second == "ok" for (first, _), (second, _) in pairs]
    better = [labels[0] if one > other else labels[1] if one < other else "tie" for (_, one), (_, other) in pairs]
    assert cells(made) == [name if good else None for name, good in zip(better, is_good, strict=True)]
    assert made.cat.categories.to_list() == [*labels, "tie"]
    assert made.name is None
    same_index(made.index, frame.index)
    assert last().errors.notna().to_list() == [a and not b for a, b in zip(is_whole, is_good, strict=True)]
    texts = {
        tuple(f"{kind} {number}" for kind, number in pair) for pair, whole in zip(pairs, is_whole, strict=True) if whole
    }
    orders = texts | {(second, first) for first, second in texts}
    assert sorted(heard) == sorted(orders)


@checked
@given(sample=samples(), how=st.sampled_from(["column", "list", "series", "two", "function", "nothing"]))
def test_a_group_is_told_of_once(sample: Sample, how: str) -> None:
    """``summarize`` has the groups that ``groupby`` has, and each is asked with its own texts in their order."""
    frame, (label, _) = sample.frame, sample.labels
    by = frame.columns[4]
    keys: Any = {
        "column": by,
        "list": [by],
        "series": frame[by],
        "two": [by, np.arange(len(frame)) % 2],
        "function": str,
        "nothing": None,
    }[how]
    if how == "nothing":
        index, numbers = pd.Index(["all"]), [0] * len(frame)
    else:
        grouped = frame.groupby(keys[0] if how == "list" else keys, dropna=False, observed=True)
        index, numbers = grouped.size().index, grouped.ngroup().to_list()
    with untouched(frame):
        made = frame.moa.summarize(label, by=keys, **OPTIONS)
    wanted: list[Any] = []
    for group in range(len(index)):
        texts = [
            row
            for row, number in zip(sample.kinds[0], numbers, strict=True)
            if number == group and row[0] in {"ok", "bad"}
        ]
        is_bad = any(kind == "bad" for kind, _ in texts)
        wanted.append(" ".join(["answer", *(str(number) for _, number in texts)]) if texts and not is_bad else None)
    assert cells(made) == wanted
    assert (made.dtype, made.name) == (TEXT, label)
    pd.testing.assert_index_equal(made.index, index)
    assert len(heard) == len(set(heard))


# What can be done with it -------------------------------------------------------------------------


@pytest.mark.parametrize("said", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize("index", [["a", "a", "b", "c"], [0, 1, 2, 3]], ids=["labels", "numbers"])
def test_what_comes_out_is_a_column_like_any_other(said: Said, index: list[Any]) -> None:
    """It can be assigned, joined, grouped by, sorted by its rows, and written to files and read again."""
    frame = pd.DataFrame({"q": [f"<{text}/{next(serial)}>" for text in ("ok 1", "bad 2", "ok 0", "ok 3")]}, index=index)
    frame.loc[index[3], "q"] = None
    with pytest.warns(RowsFailed):
        made = said(frame, "q")
    wanted = [said.wanted(1), None, said.wanted(0), None]
    assert cells(made) == wanted
    table = made if isinstance(made, pd.DataFrame) else made.to_frame("made")
    known = cells(table)
    assigned = frame.assign(**{name: table[name] for name in table})
    copied = frame.copy()
    for name in table:
        copied[name] = table[name]
    for whole in (assigned, copied, pd.concat([frame, table], axis=1)):
        pd.testing.assert_frame_equal(whole[[*table]], table)
    twice = pd.concat([table, table])
    assert cells(twice) == known * 2
    assert (twice.dtypes == table.dtypes).all()
    read = pd.read_csv(io.StringIO(table.to_csv()), index_col=0)
    pd.testing.assert_frame_equal(read.isna(), table.isna(), check_index_type=False)
    if HAS_ARROW:
        plain = table.reset_index(drop=True)
        for write, read_again in ((plain.to_parquet, pd.read_parquet), (plain.to_feather, pd.read_feather)):
            file = io.BytesIO()
            write(file)
            read = read_again(io.BytesIO(file.getvalue()))
            assert (read.dtypes == plain.dtypes).all()
            assert [listed(row) for row in cells(read)] == [listed(row) for row in known]


def listed(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """A row with its lists as Python's: files give arrays."""
    return row and {name: list(cell) if isinstance(cell, np.ndarray) else cell for name, cell in row.items()}
