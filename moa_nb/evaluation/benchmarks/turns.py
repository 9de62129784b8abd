"""What a frame says turn by turn: the user's messages, and the right answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.evaluation.contestants import column_of
from moa_nb.plain import quoted

__all__ = ["listed", "rights_of"]


def listed(data: pd.DataFrame, columns: Any) -> list[list[str]]:
    """Return each row's texts, from several columns or from one of lists; what is missing ends a row's.

    Raises:
        SetupError: no such column, or something in it that is no text.
    """
    rows: Iterable[Any]
    if isinstance(columns, list):
        if not columns:
            msg = "turns: name the columns with the user's messages, in order"
            raise SetupError(msg)
        rows = zip(*(column_of(data, name) for name in columns), strict=True)
    else:
        rows = column_of(data, columns)
    return [[*_until_missing(row)] for row in rows]


def _until_missing(row: Any) -> Iterator[str]:
    for one in _several(row):
        text = _text(one)
        if text is None:
            return
        yield text


def rights_of(data: pd.DataFrame, columns: Any, n_turns: int) -> list[list[str | None]]:
    """Return the right answers turn by turn; ``None`` where there is none."""
    if columns is None:
        return [[None] * len(data) for _ in range(n_turns)]
    by_row: list[Any]
    if isinstance(columns, list):
        by_row = [*zip(*(column_of(data, name) for name in columns), strict=True)]
    else:
        by_row = [*column_of(data, columns)]
    texts = [[*map(_text, _several(row))] for row in by_row]
    return [[row[turn] if turn < len(row) else None for row in texts] for turn in range(n_turns)]


def _several(row: Any) -> Sequence[Any]:
    return [row] if pd.api.types.is_scalar(row) else row if isinstance(row, Sequence) else [*row]


def _text(cell: Any) -> str | None:
    """Return what a cell says, numbers as they are written; ``None`` where it is missing or blank.

    Raises:
        SetupError: it is no text.
    """
    if not pd.api.types.is_scalar(cell):
        msg = f"turns and right answers are texts, or lists of them, not {quoted(cell)}"
        raise SetupError(msg)
    text = "" if pd.isna(cell) else str(cell)
    return text if text.strip() else None
