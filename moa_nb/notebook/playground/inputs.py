"""What a playground asks about: one text, or the rows of a frame, through the template that makes their prompts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moa_nb.engine.task import make_task
from moa_nb.errors import SetupError, UnknownName
from moa_nb.frames.rows import Asking, Questions, Rows
from moa_nb.notebook.playground.drafts import Draft, file_of
from moa_nb.panels.markdown import first_line
from moa_nb.pipeline.candidate import Task

__all__ = ["INPUT", "Inputs"]

INPUT = "input template"
"""The name of a template that was given as source."""

_LABEL = 60


@dataclass(frozen=True)
class _Text:
    """A single text as a run's only row."""

    text: str
    template: str | None

    @property
    def index(self) -> pd.Index[Any]:
        return pd.RangeIndex(1)

    @property
    def name(self) -> Hashable:
        return None

    def __len__(self) -> int:
        return 1

    def tasks(self, position: int) -> tuple[Task, ...]:  # noqa: ARG002 - it has one
        return (make_task(self.text, self.template),)


@dataclass(frozen=True)
class Inputs:
    """One text, or the rows of a frame or a series."""

    data: str | pd.DataFrame | pd.Series[Any]
    column: Hashable
    template: str | None
    """Jinja source, or a template's name, that makes the prompts; ``None``: texts go out as they are."""
    instruction: str | None

    @classmethod
    def of(
        cls,
        data: Any,
        column: Hashable = None,
        template: str | None = None,
        instruction: str | None = None,
    ) -> Inputs:
        """Return the inputs of these data.

        Raises:
            SetupError: they are neither a text nor a frame, or options do not go together.
        """
        if isinstance(data, str):
            if column is not None:
                msg = f"a text has no column {column!r}: name the pipeline with pipeline=, as in Playground(text, pipeline='moa')"
                raise SetupError(msg)
            if instruction is not None:
                msg = "a text stands for itself: write the instruction into it; instruction= is for the rows of a frame"
                raise SetupError(msg)
            # As in a cell, whose last line ends with its text.
            data = data.rstrip("\n")
        elif not isinstance(data, pd.DataFrame | pd.Series):
            msg = f"a playground takes a text, a DataFrame or a Series, not {type(data).__name__}"
            raise SetupError(msg)
        if template is not None and instruction is not None:
            msg = "give an instruction or a template, not both: a template has room for the instruction"
            raise SetupError(msg)
        return cls(data, column, template, instruction)

    @property
    def is_text(self) -> bool:
        """Whether there is one text alone."""
        return isinstance(self.data, str)

    @property
    def own(self) -> str | None:
        """The name of the template that makes the prompts; ``None`` where texts go out as they are."""
        if self.instruction is not None:
            return "instruct"
        if self.template is None:
            return None
        return INPUT if _is_source(self.template) else self.template

    @property
    def sources(self) -> Mapping[str, str]:
        """What it brings along: a template that was given as source, by file."""
        return {file_of(INPUT): self.template} if self.template is not None and self.own == INPUT else {}

    def questions(self, draft: Draft) -> Questions:
        """Return what is asked of each row, with the templates of a draft.

        Raises:
            SetupError: there is no such column, or the template does not fit.
        """
        own = self.own
        if own is None:
            source = None
        else:
            source = draft.sources.get(file_of(own))
            if source is None:
                draft.load(own)  # says what is wrong
            draft.load(own)
        if isinstance(self.data, str):
            return _Text(self.data, None if source is None else _as_source(source))
        if self.instruction is not None:
            asking = Asking(draft.load("instruct"), {"instruction": self.instruction})
            return Rows.of(self.data, self.column, asking=asking)
        return Rows.of(self.data, self.column, template=None if source is None else _as_source(source))

    def task(self, questions: Questions, position: int) -> Task:
        """Return what is asked of a row.

        Raises:
            UnknownName: there is no such row.
            SetupError: it has no text, or the template fails on it.
        """
        if not 0 <= position < len(questions):
            msg = f"no row {position}: there are {len(questions)}, from 0 on"
            raise UnknownName(msg)
        tasks = questions.tasks(position)
        if not tasks:
            lacks = "has no text" if self.column is not None else "lacks a value that its template uses"
            msg = f"row {questions.index[position]!r} {lacks}: it would be left missing; choose another"
            raise SetupError(msg)
        return tasks[0]

    def label(self, position: int) -> str:
        """Return what a row is called: its label and how its text begins."""
        if isinstance(self.data, str):
            return first_line(self.data, _LABEL)
        if not 0 <= position < len(self.data):
            return ""
        row: Any = self.data.iloc[position]
        if isinstance(self.data, pd.DataFrame):
            row = (
                row[self.column]
                if self.column is not None
                else ", ".join(str(cell) for cell in row if not (pd.api.types.is_scalar(cell) and pd.isna(cell)))
            )
        return f"{self.data.index[position]}: {first_line(str(row), _LABEL)}"


def _is_source(text: str) -> bool:
    return "{" in text or any(character.isspace() for character in text)


def _as_source(text: str) -> str:
    # A single word would be taken for a template's name; Jinja leaves out the last line's end.
    return text if _is_source(text) else f"{text}\n"
