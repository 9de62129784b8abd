"""A frame's cells as templates see them: by column and row, read when they are looked into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, ItemsView, Iterator, Mapping, ValuesView
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.plain import quoted

__all__ = ["Column", "Frame", "Mask", "Row", "Watched"]

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_WRITES_TO_COPIES = int(pd.__version__.partition(".")[0]) >= 3
"""Whether a shallow copy stays as it is when its frame is changed later."""

_STRETCH = 1024
"""Rows whose cells are converted together."""

_MASKED = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)


class Frame:
    """The columns of a frame or a series by the names that templates know.

    What they say is settled when it is made: a frame that is changed while a run goes on does not change the run.
    """

    def __init__(self, data: pd.DataFrame | pd.Series[Any]) -> None:
        self._data = data = data.copy(deep=not _WRITES_TO_COPIES)
        self.index: pd.Index[Any] = data.index
        self.has_row = isinstance(data, pd.DataFrame)
        labels = list(data.columns) if isinstance(data, pd.DataFrame) else [] if data.name is None else [data.name]
        self._counts = Counter(map(str, labels))
        self.names = {str(label): position for position, label in enumerate(labels)}
        """Where each name stands; templates know every name as a text."""
        self.unique = [name for name in self.names if self._counts[name] == 1]
        self._columns: dict[str, Column] = {}

    @property
    def text(self) -> Column | None:
        """A series' own texts."""
        return Column(self._data) if isinstance(self._data, pd.Series) else None

    def named(self, column: Hashable) -> Column:
        """Return a column by its label.

        Raises:
            SetupError: there is none, or there are several.
        """
        if isinstance(self._data, pd.Series):
            return Column(self._data)
        try:
            is_there = column in self._data.columns
        except TypeError:
            if isinstance(column, pd.Series):
                msg = f"a column is given by its name, not as a Series: {quoted(column.name)}"
            else:
                msg = f"one column is asked at a time, not {quoted(column)}: a template takes several"
            raise SetupError(msg) from None
        if not is_there:
            raise self.unknown(str(column))
        found = self._data[column]
        if isinstance(found, pd.DataFrame):
            mend = "rename one"
            if self._data.columns.nlevels > 1:
                mend = f"give the whole name, as in {self._data.columns[self._data.columns.get_loc(column)][0]!r}"
            msg = f"the frame has {found.shape[1]} columns named {column!r}: {mend}"
            raise SetupError(msg)
        return Column(found)

    def __getitem__(self, name: str) -> Column:
        known = self._columns.get(name)
        if known is None:
            if self._counts[name] > 1:
                msg = f"the frame has {self._counts[name]} columns named {name!r}: rename one"
                raise SetupError(msg)
            data = self._data
            series = data if isinstance(data, pd.Series) else data.iloc[:, self.names[name]]
            known = self._columns[name] = Column(series)
        return known

    def unknown(self, name: str) -> UnknownName:
        """Return the error of a name that no column has."""
        return UnknownName(f"the frame has no column {name!r}; {nearest(name, self.names)}")


@dataclass
class Column:
    """A column's cells as templates see them: Python values, missing ones as empty text.

    They are converted a stretch of rows at a time, since rows are asked for in order and a whole
    column of Python objects may take more memory than the frame.
    """

    series: pd.Series[Any]
    lacking: Mask = field(init=False)
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
        if isinstance(part, pd.arrays.NumpyExtensionArray):
            cells = part.to_numpy().tolist()
        elif isinstance(part, _MASKED):
            # Their own list changes filters of warnings for a moment, and all threads share one set.
            scalars: Any = part
            cells = [cell if cell is pd.NA else cell.item() for cell in scalars]
        else:
            cells = part.tolist()
        lacking = self.lacking[start : start + _STRETCH]
        return (
            ["" if missing else cell for cell, missing in zip(cells, lacking, strict=True)] if lacking.any() else cells
        )


class Row(Mapping[str, Any]):
    """One row by column name, read when it is looked into; ``None`` for a missing cell.

    All it has beside a mapping is private: in a template ``row.any_name`` is a column.
    """

    def __init__(self, frame: Frame, position: int) -> None:
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
        """Return all columns with their cells."""
        return self._all().items()

    def values(self) -> ValuesView[Any]:
        """Return all cells."""
        return self._all().values()

    def __iter__(self) -> Iterator[str]:
        return iter(self._frame.unique)

    def __len__(self) -> int:
        return len(self._frame.unique)

    def __repr__(self) -> str:
        return repr(self._all())


class Watched(Row):
    """One row as ``row`` in a template, where a missing cell is empty text.

    Args:
        frame: the columns.
        position: which row.
        seen: keeps what was looked up by name.
        absent: keeps the names that were looked up and are not there.
    """

    def __init__(self, frame: Frame, position: int, seen: dict[str, Any], absent: list[str]) -> None:
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
