"""Small tables for listings: models, costs, settings."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moa_nb.panels.figures import UNKNOWN
from moa_nb.panels.markdown import inline_markdown
from moa_nb.panels.room import brief, cut
from moa_nb.panels.templates import macros

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TableDisplay", "table"]

_CELL = 4000
"""Characters of a cell that are shown."""


@dataclass(frozen=True, slots=True, repr=False)
class TableDisplay:
    """A table that shows itself in a notebook, in Markdown and in a terminal; every cell is escaped."""

    headers: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    """As many cells in each as there are headers."""
    caption: str | None = None

    def _repr_html_(self) -> str:
        aligns = self._aligns
        rows = [[_Cell(_written(cell), align) for cell, align in zip(row, aligns, strict=True)] for row in self.rows]
        headers = [_Cell(brief(header), align) for header, align in zip(self.headers, aligns, strict=True)]
        return str(macros("table").listing(headers, rows, None if self.caption is None else cut(self.caption, _CELL)))

    def _repr_markdown_(self) -> str:
        lines = [_markdown_row([*map(brief, self.headers)])]
        lines.append("| " + " | ".join("---:" if align == "right" else "---" for align in self._aligns) + " |")
        lines += [_markdown_row([_written(cell) for cell in row]) for row in self.rows]
        caption = f"**{inline_markdown(cut(self.caption, _CELL))}**\n\n" if self.caption else ""
        return caption + "\n".join(lines)

    def __repr__(self) -> str:
        cells = [[" ".join(brief(header).split()) for header in self.headers]]
        cells += [[" ".join(_written(cell).split()) for cell in row] for row in self.rows]
        widths = [max(_width(row[place]) for row in cells) for place in range(len(self.headers))]
        lines = ["  ".join(map(_padded, row, widths, self._aligns)).rstrip() for row in cells]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([cut(self.caption, _CELL), *lines] if self.caption else lines)

    @property
    def _aligns(self) -> tuple[str, ...]:
        """Right for a column of numbers, else left."""
        return tuple(
            "right"
            if self.rows and all(_align(row[place]) == "right" or row[place] in (None, UNKNOWN) for row in self.rows)
            else "left"
            for place in range(len(self.headers))
        )


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], caption: str | None = None) -> TableDisplay:
    """Return ``rows`` under ``headers`` as a table that displays itself; short rows are filled up.

    >>> table([("alpha", 3)], ["agent", "calls"])
    agent  calls
    -----  -----
    alpha      3
    """
    filled = tuple((*row, *[""] * (len(headers) - len(row)))[: len(headers)] for row in rows)
    return TableDisplay(tuple(map(str, headers)), filled, caption)


@dataclass(frozen=True, slots=True)
class _Cell:
    text: str
    align: str


_FIGURE = re.compile(r"[≈≥<]?\$?[\d.,]+( %| s| kB| MB)?")


def _align(cell: object) -> str:
    if isinstance(cell, str):
        return "right" if _FIGURE.fullmatch(cell) else "left"
    return "right" if isinstance(cell, int | float) and not isinstance(cell, bool) else "left"


def _written(cell: object) -> str:
    if cell is None:
        return UNKNOWN
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.6g}" if isinstance(cell, float) else cut(str(cell), _CELL)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(inline_markdown, cells)) + " |"


def _width(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes: some characters take two, some none."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _padded(text: str, width: int, align: str) -> str:
    filling = " " * (width - _width(text))
    return filling + text if align == "right" else text + filling
