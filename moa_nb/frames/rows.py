"""A frame's rows as tasks: checked before anything is sent, rendered one at a time."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from moa_nb import templating
from moa_nb.chat import Message
from moa_nb.engine.plan import prompt_template
from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.pipeline.ask import Task
from moa_nb.settings import fence_secret

__all__ = ["MissingPolicy", "Rows"]

MissingPolicy = Literal["skip", "pass", "raise"]


@dataclass(frozen=True)
class Rows:
    """The texts of a frame, and how each becomes a prompt. ``task(i)`` is the i-th row's."""

    index: pd.Index[Any]
    name: Hashable
    """The name of the resulting Series; ``None`` for a template over several columns."""
    columns: dict[str, pd.Series[Any]]
    """The columns that are used, by the name that the template knows."""
    template: templating.Template | None
    instruction: str | None
    everything: pd.DataFrame | None
    """The frame, where a template asks for ``row``."""
    missing: tuple[bool, ...]
    """Whether the row lacks a text that is used."""
    na: MissingPolicy

    @classmethod
    def of(
        cls,
        data: pd.DataFrame | pd.Series[Any],
        column: str | None,
        *,
        instruction: str | None,
        template: str | None,
        na: MissingPolicy,
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
        if isinstance(data, pd.Series):
            return cls._of_series(data, column, instruction, template, na)
        if column is None and template is None:
            known = ", ".join(map(str, data.columns))
            msg = f"which column? Give its name (there are: {known}) or a template"
            raise SetupError(msg)
        known_columns = {str(name): position for position, name in enumerate(data.columns)}
        used: dict[str, pd.Series[Any]] = {}
        if column is not None:
            used["text"] = _column(data, column)
        parsed = None if template is None else prompt_template(template)
        everything = None
        if parsed is not None:
            parsed.check([*known_columns, *used, "row"])
            for name in parsed.variables & set(known_columns):
                used[name] = data.iloc[:, known_columns[name]]
            everything = data if "row" in parsed.variables else None
        return cls._checked(data.index, column, used, parsed, instruction, everything, na)

    @classmethod
    def _of_series(
        cls,
        data: pd.Series[Any],
        column: str | None,
        instruction: str | None,
        template: str | None,
        na: MissingPolicy,
    ) -> Rows:
        if column is not None and column != data.name:
            msg = f"a Series has no column {column!r}: leave the column out"
            raise SetupError(msg)
        parsed = None if template is None else prompt_template(template)
        used = {"text": data}
        if parsed is not None:
            own = {} if data.name is None else {str(data.name): data}
            parsed.check([*own, "text"])
            used = {name: data for name in parsed.variables & {*own, "text"}}
        return cls._checked(data.index, data.name, used, parsed, instruction, None, na)

    @classmethod
    def _checked(
        cls,
        index: pd.Index[Any],
        name: Hashable,
        used: dict[str, pd.Series[Any]],
        template: templating.Template | None,
        instruction: str | None,
        everything: pd.DataFrame | None,
        na: MissingPolicy,
    ) -> Rows:
        missing = [False] * len(index)
        for series in used.values():
            missing = [one or bool(other) for one, other in zip(missing, series.isna(), strict=True)]
        if na == "raise" and any(missing):
            where = missing.index(True)
            msg = f"{sum(missing)} rows have no text, the first at {index[where]!r}: na='skip' leaves them missing"
            raise SetupError(msg)
        return cls(index, name, used, template, instruction, everything, tuple(missing), na)

    def __len__(self) -> int:
        return len(self.index)

    def task(self, position: int) -> Task | None:
        """Return the task of a row; ``None`` when it has no text and is to be left missing.

        Raises:
            TemplateError: the template fails on this row's values.
        """
        if self.missing[position] and self.na == "skip":
            return None
        values = {name: _value(series.iloc[position]) for name, series in self.columns.items()}
        if self.template is not None:
            if self.everything is not None:
                values["row"] = {str(name): _value(value) for name, value in self.everything.iloc[position].items()}
            texts = [value for value in values.values() if isinstance(value, str)]
            prompt, material = self.template.render(values), max(texts, key=len, default=None)
        elif self.instruction is not None:
            text = str(values["text"])
            mark = templating.fence([self.instruction, text], fence_secret())
            wrap = templating.load("instruct")
            prompt, material = wrap.render({"instruction": self.instruction, "text": text, "fence": mark}), text
        else:
            prompt, material = str(values["text"]), None
        if not prompt.strip():
            return None
        return Task((Message("user", prompt),), material)


def _column(data: pd.DataFrame, column: str) -> pd.Series[Any]:
    if column not in data.columns:
        msg = f"the frame has no column {column!r}; {nearest(str(column), map(str, data.columns))}"
        raise UnknownName(msg)
    found = data[column]
    if isinstance(found, pd.DataFrame):
        msg = f"the frame has {found.shape[1]} columns named {column!r}: rename one"
        raise SetupError(msg)
    return found


def _value(value: Any) -> Any:
    """Return a cell as a template should see it: missing ones as empty text."""
    if isinstance(value, str):
        return value
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    return value
