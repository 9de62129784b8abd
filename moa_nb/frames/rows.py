"""A frame's rows as tasks: checked before anything is sent, rendered one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, ItemsView, Iterator, Mapping, ValuesView
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from moa_nb import templating
from moa_nb.chat import Message
from moa_nb.engine.plan import prompt_template
from moa_nb.errors import SetupError, TemplateError, UnknownName, nearest
from moa_nb.pipeline.candidate import Task
from moa_nb.settings import fence_secret

__all__ = ["MissingPolicy", "Rows"]

MissingPolicy = Literal["skip", "pass", "raise"]

_Mask = np.ndarray[Any, np.dtype[np.bool_]]

_WRITES_TO_COPIES = int(pd.__version__.partition(".")[0]) >= 3
"""Whether a shallow copy stays as it is when its frame is changed later."""

_STRETCH = 1024
"""Rows whose cells are converted together."""


@dataclass(frozen=True)
class Rows:
    """The texts of a frame, and how each becomes a prompt. ``task(i)`` is the i-th row's.

    What the rows say is settled when they are made: a frame that is changed while a run goes on does
    not change the run.
    """

    index: pd.Index[Any]
    name: Hashable
    """The name of the resulting Series; ``None`` for a template over several columns."""
    na: MissingPolicy
    lacking: _Mask
    """Whether a row lacks a value that is used."""
    prompt: Callable[[int], _Prompt]
    """What a row says."""
    frame: _Frame
    """All columns, for pipelines that look at them."""
    reference: _Column | None
    """The reference answers; ``None`` where there are none."""

    @classmethod
    def of(
        cls,
        data: pd.DataFrame | pd.Series[Any],
        column: Hashable,
        *,
        instruction: str | None,
        template: str | None,
        na: MissingPolicy,
        reference: Hashable = None,
    ) -> Rows:
        """Return the rows of a frame or a series.

        Raises:
            SetupError: no such column, a template that does not fit, or missing text with ``na="raise"``.
        """
        if na not in {"skip", "pass", "raise"}:
            msg = f"na is 'skip', 'pass' or 'raise', not {na!r}"
            raise SetupError(msg)
        if instruction is not None and template is not None:
            msg = "give an instruction or a template, not both: a template has room for the instruction"
            raise SetupError(msg)
        if instruction is not None and not instruction.strip():
            msg = "the instruction is empty: leave it out to send each text as it is"
            raise SetupError(msg)
        if isinstance(data, pd.Series) and column is not None and column != data.name:
            msg = f"a Series has no column {column!r}: leave the column out"
            raise SetupError(msg)
        if isinstance(data, pd.Series) and reference is not None:
            msg = "a Series has no column with reference answers: take the frame, and name both columns"
            raise SetupError(msg)
        data = data.copy(deep=not _WRITES_TO_COPIES)
        frame = _Frame(data)
        text = frame.text if column is None else frame.named(column)
        name = data.name if isinstance(data, pd.Series) else column
        prompt: Callable[[int], _Prompt]
        if template is not None:
            prompt, lacking = _templated(frame, text, prompt_template(template), len(data.index))
        elif text is None:
            msg = f"which column? Give its name (there are: {', '.join(frame.names)}) or a template"
            raise SetupError(msg)
        else:
            lacking = text.lacking
            prompt = _AsItIs(text)
            if instruction is not None:
                prompt = _Instructed(text, instruction, templating.load("instruct"), fence_secret())
        answers = None if reference is None else frame.named(reference)
        return cls(data.index, name, na, lacking, prompt, frame, answers)

    def __post_init__(self) -> None:
        if self.na == "raise" and self.lacking.any():
            first = self.index[int(np.argmax(self.lacking))]
            msg = f"{int(self.lacking.sum())} rows have no text, the first at {first!r}: na='skip' leaves them missing"
            raise SetupError(msg)

    def __len__(self) -> int:
        return len(self.index)

    def task(self, position: int) -> Task | None:
        """Return the task of a row; ``None`` when it has no text and is to be left missing.

        Raises:
            TemplateError: the template fails on this row's values.
            UnknownName: the template takes a column from ``row`` that is not there.
            SetupError: with ``na="raise"``, the row lacks a value that only its own branch of the template uses.
        """
        if self.na == "skip" and self.lacking[position]:
            return None
        said = self.prompt(position)
        if said.lacks and self.na == "raise":
            msg = f"row {self.index[position]!r} has no text: na='skip' leaves it missing"
            raise SetupError(msg)
        if (
            not said.text
            or said.text.isspace()
            or (self.na != "pass" and said.is_empty)
            or (self.na == "skip" and said.lacks)
        ):
            return None
        return Task(
            (Message("user", said.text),), said.material, _Row(self.frame, position), self._reference_answer(position)
        )

    def _reference_answer(self, position: int) -> str | None:
        if self.reference is None or self.reference.lacking[position]:
            return None
        return str(self.reference[position])


# What a row says ---------------------------------------------------------------------------------


class _Prompt(NamedTuple):
    """A row's prompt."""

    text: str
    """Blank: there is nothing to ask."""
    material: str | None = None
    """What the text is about, where it is known apart from an instruction."""
    is_empty: bool = False
    """There is an instruction, but nothing to work on."""
    lacks: bool = False
    """A value that was looked up is missing."""
    columns: tuple[_Column, ...] = ()
    """What was looked up in ``row``."""


@dataclass(frozen=True)
class _AsItIs:
    """The row's text alone."""

    text: _Column

    def __call__(self, position: int) -> _Prompt:
        return _Prompt(str(self.text[position]))


@dataclass(frozen=True)
class _Instructed:
    """An instruction, and below it the row's text between marks that its author cannot guess."""

    text: _Column
    instruction: str
    template: templating.Template
    secret: bytes

    def __call__(self, position: int) -> _Prompt:
        text = str(self.text[position])
        fence = templating.fence([self.instruction, text], self.secret)
        values = {"instruction": self.instruction, "text": text, "fence": fence}
        return _Prompt(self.template.render(values), text, is_empty=not text.strip())


@dataclass(frozen=True)
class _Templated:
    """A template over the row's columns."""

    template: templating.Template
    columns: Mapping[str, _Column]
    frame: _Frame | None
    """What ``row`` looks into; ``None`` where the template does not use it."""

    def __call__(self, position: int) -> _Prompt:
        values: dict[str, Any] = {name: column[position] for name, column in self.columns.items()}
        seen, absent = dict(values), list[str]()
        if self.frame is None:
            return _Prompt(self.template.render(values), _longest(values))
        values["row"] = _Watched(self.frame, position, seen, absent)
        try:
            text = self.template.render(values)
        except TemplateError:
            if absent:
                raise self.frame.unknown(absent[-1]) from None
            raise
        columns = tuple(self.frame[name] for name in seen if name not in self.columns)
        return _Prompt(text, _longest(seen), lacks=any(column.lacking[position] for column in columns), columns=columns)


def _templated(
    frame: _Frame, text: _Column | None, template: templating.Template, n_rows: int
) -> tuple[_Templated, _Mask]:
    """Return what rows say by a template, and which of them lack a value that it uses.

    Raises:
        TemplateError: it uses a variable that no column is named like.
    """
    own = {"row"} if frame.has_row else set()
    template.check([*frame.names, *({"text"} if text is not None else ()), *own])
    used = {} if text is None else {"text": text}
    for variable in template.variables & set(frame.names) - own - set(used):
        used[variable] = frame[variable]
    lacking = np.zeros(n_rows, dtype=bool)
    for one in used.values():
        lacking = lacking | one.lacking
    prompt = _Templated(template, used, frame if "row" in template.variables & own else None)
    return prompt, _with_row(prompt, lacking)


def _with_row(prompt: _Templated, lacking: _Mask) -> _Mask:
    """Return which rows lack a value, the columns included that the template takes from ``row``.

    Raises:
        UnknownName: there is no such column.
    """
    if prompt.frame is None or lacking.all():
        return lacking
    try:
        said = prompt(int(np.argmin(lacking)))
    except TemplateError:
        # Its variables exist: what fails is the value of this row, and says nothing of the others.
        return lacking
    for column in said.columns:
        lacking = lacking | column.lacking
    return lacking


def _longest(values: Mapping[str, Any]) -> str | None:
    return max((value for value in values.values() if isinstance(value, str)), key=len, default=None)


class _Row(Mapping[str, Any]):
    """One row by column name, read when it is looked into; ``None`` for a missing cell.

    All it has beside a mapping is private: in a template ``row.any_name`` is a column.
    """

    def __init__(self, frame: _Frame, position: int) -> None:
        self._frame, self._position = frame, position

    def __getitem__(self, name: object) -> Any:
        if name not in self._frame.names:
            raise KeyError(name)
        return self._cell(str(name))

    def __contains__(self, name: object) -> bool:
        return name in self._frame.names

    def _cell(self, name: str) -> Any:
        column = self._frame[name]
        return None if column.lacking[self._position] else column[self._position]

    def _all(self) -> dict[str, Any]:
        return {name: self._cell(name) for name in self}

    # Going over all columns is not a look-up: one empty column must not leave every row out.
    def items(self) -> ItemsView[str, Any]:
        return self._all().items()

    def values(self) -> ValuesView[Any]:
        return self._all().values()

    def __iter__(self) -> Iterator[str]:
        return iter(self._frame.unique)

    def __len__(self) -> int:
        return len(self._frame.unique)

    def __repr__(self) -> str:
        return repr(self._all())


class _Watched(_Row):
    """One row as ``row`` in a template, where a missing cell is empty text.

    Args:
        frame: the columns.
        position: which row.
        seen: keeps what was looked up by name.
        absent: keeps the names that were looked up and are not there.
    """

    def __init__(self, frame: _Frame, position: int, seen: dict[str, Any], absent: list[str]) -> None:
        super().__init__(frame, position)
        self._seen, self._absent = seen, absent

    def __getitem__(self, name: object) -> Any:
        key = str(name)
        if key not in self._frame.names:
            self._absent.append(key)
            raise KeyError(key)
        self._seen[key] = value = self._cell(key)
        return value

    def _cell(self, name: str) -> Any:
        return self._frame[name][self._position]

    def __iter__(self) -> Iterator[str]:
        return iter(self._frame.names)  # one that several columns have is refused


# Columns and cells -------------------------------------------------------------------------------


class _Frame:
    """The columns of a frame or a series by the names that templates know."""

    def __init__(self, data: pd.DataFrame | pd.Series[Any]) -> None:
        self._data = data
        self.has_row = isinstance(data, pd.DataFrame)
        labels = list(data.columns) if isinstance(data, pd.DataFrame) else [] if data.name is None else [data.name]
        self._counts = Counter(map(str, labels))
        self.names = {str(label): position for position, label in enumerate(labels)}
        """Where each name stands; templates know every name as a text."""
        self.unique = [name for name in self.names if self._counts[name] == 1]
        self._columns: dict[str, _Column] = {}

    @property
    def text(self) -> _Column | None:
        """A series' own texts."""
        return _Column(self._data) if isinstance(self._data, pd.Series) else None

    def named(self, column: Hashable) -> _Column:
        """Return a column by its label.

        Raises:
            SetupError: there is none, or there are several.
        """
        if isinstance(self._data, pd.Series):
            return _Column(self._data)
        try:
            is_there = column in self._data.columns
        except TypeError:
            msg = f"one column is asked at a time, not {column!r}: a template takes several"
            raise SetupError(msg) from None
        if not is_there:
            raise self.unknown(str(column))
        found = self._data[column]
        if isinstance(found, pd.DataFrame):
            msg = f"the frame has {found.shape[1]} columns named {column!r}: rename one"
            raise SetupError(msg)
        return _Column(found)

    def __getitem__(self, name: str) -> _Column:
        known = self._columns.get(name)
        if known is None:
            if self._counts[name] > 1:
                msg = f"the frame has {self._counts[name]} columns named {name!r}: rename one"
                raise SetupError(msg)
            data = self._data
            series = data if isinstance(data, pd.Series) else data.iloc[:, self.names[name]]
            known = self._columns[name] = _Column(series)
        return known

    def unknown(self, name: str) -> UnknownName:
        """Return the error of a name that no column has."""
        return UnknownName(f"the frame has no column {name!r}; {nearest(name, self.names)}")


@dataclass
class _Column:
    """A column's cells as templates see them: Python values, missing ones as empty text.

    They are converted a stretch of rows at a time, since rows are asked for in order and a whole
    column of Python objects may take more memory than the frame.
    """

    series: pd.Series[Any]
    lacking: _Mask = field(init=False)
    """Whether a cell is missing."""
    _latest: tuple[int, list[Any]] = field(init=False, default=(-1, []), repr=False)

    def __post_init__(self) -> None:
        self.lacking = self.series.isna().to_numpy(dtype=bool)

    def __getitem__(self, position: int) -> Any:
        stretch, offset = divmod(position, _STRETCH)
        number, cells = self._latest
        if number != stretch:
            cells = self._stretch(stretch * _STRETCH)
            self._latest = (stretch, cells)
        return cells[offset]

    def _stretch(self, start: int) -> list[Any]:
        part = self.series.array[start : start + _STRETCH]
        cells = part.to_numpy().tolist() if isinstance(part, pd.arrays.NumpyExtensionArray) else part.tolist()
        lacking = self.lacking[start : start + _STRETCH]
        return (
            ["" if missing else cell for cell, missing in zip(cells, lacking, strict=True)] if lacking.any() else cells
        )
