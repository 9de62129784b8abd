"""A frame's rows as tasks: checked before anything is sent, rendered one at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd

from moa_nb import templating
from moa_nb.chat import Message
from moa_nb.engine.plan import prompt_template
from moa_nb.errors import SetupError, TemplateError
from moa_nb.frames.cells import Column, Frame, Mask, Row, Watched
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.forms import Form
from moa_nb.settings import fence_secret

__all__ = ["Asking", "MissingPolicy", "Questions", "Rows", "check_missing"]

MissingPolicy = Literal["skip", "pass", "raise"]


class Questions(Protocol):
    """What a run asks: for each position of an index the tasks that are known before anything is answered."""

    @property
    def index(self) -> pd.Index[Any]:
        """Of what the run hands out."""

    @property
    def name(self) -> Hashable:
        """The name of the resulting Series; ``None`` where it has none."""

    def __len__(self) -> int: ...

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return what is asked at a position; nothing where there is no text, and it is to be left missing.

        Raises:
            TemplateError: a template fails on what stands there.
            SetupError: something is missing that may not be.
        """


@dataclass(frozen=True)
class Asking:
    """What is asked of a text: a prompt template that quotes it as ``text``, and what else the template says."""

    template: templating.Template
    says: Mapping[str, Any]

    @classmethod
    def named(cls, name: str, **says: Any) -> Asking:
        """Return the asking of one of the templates of ``templates/prompts/``."""
        return cls(templating.load(name), says)

    def of(self, secret: bytes, **texts: str) -> str:
        """Return the prompt that quotes these texts, between marks that their authors cannot guess."""
        own = [value for value in self.says.values() if isinstance(value, str)]
        # In whatever order texts are shown, the mark is the same: swapped pairs differ in nothing else.
        fence = templating.fence(sorted([*own, *texts.values()]), secret)
        return self.template.render({**self.says, **texts, "fence": fence})


@dataclass(frozen=True)
class Rows:
    """The texts of a frame, and how each becomes a prompt. ``task(i)`` is the i-th row's."""

    index: pd.Index[Any]
    name: Hashable
    """The name of the resulting Series; ``None`` for a template over several columns."""
    na: MissingPolicy
    lacking: Mask
    """Whether a row lacks a value that is used."""
    prompt: Callable[[int], _Prompt]
    """What a row says."""
    frame: Frame
    """All columns, for pipelines that look at them."""
    reference: Column | None = None
    """The reference answers; ``None`` where there are none."""
    form: Form | None = None
    """What each answer must be; ``None``: free text."""

    @classmethod
    def of(
        cls,
        data: pd.DataFrame | pd.Series[Any],
        column: Hashable,
        *,
        template: str | None = None,
        asking: Asking | None = None,
        na: MissingPolicy = "skip",
        reference: Hashable = None,
        form: Form | None = None,
    ) -> Rows:
        """Return the rows of a frame or a series: a column's texts, or a template's over the columns.

        Raises:
            SetupError: no such column, a template that does not fit, or missing text with ``na="raise"``.
        """
        if isinstance(data, pd.Series) and column is not None and column != data.name:
            msg = f"a Series has no column {column!r}: leave the column out"
            raise SetupError(msg)
        if isinstance(data, pd.Series) and reference is not None:
            msg = "a Series has no column with reference answers: take the frame, and name both columns"
            raise SetupError(msg)
        frame = Frame(data)
        text = frame.text if column is None else frame.named(column)
        name = data.name if isinstance(data, pd.Series) else column
        prompt: Callable[[int], _Prompt]
        if template is not None:
            prompt, lacking = _templated(frame, text, prompt_template(template), len(frame.index))
        elif text is None:
            msg = f"which column? Give its name (there are: {', '.join(frame.names)}) or a template"
            raise SetupError(msg)
        else:
            prompt, lacking = _AsItIs(text), text.lacking
        if asking is not None:
            prompt = _Asked(prompt, asking, fence_secret())
        check_missing(lacking, na, frame.index)
        answers = None if reference is None else frame.named(reference)
        return cls(frame.index, name, na, lacking, prompt, frame, answers, form)

    def __len__(self) -> int:
        return len(self.index)

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return the row's only task; none when it is to be left missing."""
        task = self.task(position)
        return () if task is None else (task,)

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
            (Message("user", said.text),),
            said.material,
            Row(self.frame, position),
            self._reference_answer(position),
            self.form,
        )

    def _reference_answer(self, position: int) -> str | None:
        if self.reference is None or self.reference.lacking[position]:
            return None
        return str(self.reference[position])


def check_missing(lacking: Mask, na: MissingPolicy, index: pd.Index[Any]) -> None:
    """Return nothing if what rows lack may be missing.

    Raises:
        SetupError: no such policy, or missing text with ``na="raise"``.
    """
    if na not in {"skip", "pass", "raise"}:
        msg = f"na is 'skip', 'pass' or 'raise', not {na!r}"
        raise SetupError(msg)
    if na == "raise" and lacking.any():
        first = index[int(np.argmax(lacking))]
        n_lacking = int(lacking.sum())
        rows = "1 row has no text," if n_lacking == 1 else f"{n_lacking} rows have no text, the first"
        msg = f"{rows} at {first!r}: na='skip' leaves {'it' if n_lacking == 1 else 'them'} missing"
        raise SetupError(msg)


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
    columns: tuple[Column, ...] = ()
    """What was looked up in ``row``."""


@dataclass(frozen=True)
class _AsItIs:
    """The row's text alone."""

    text: Column

    def __call__(self, position: int) -> _Prompt:
        return _Prompt(str(self.text[position]))


@dataclass(frozen=True)
class _Asked:
    """What is asked of the row's text, which stands below it between marks."""

    said: Callable[[int], _Prompt]
    asking: Asking
    secret: bytes

    def __call__(self, position: int) -> _Prompt:
        said = self.said(position)
        prompt = self.asking.of(self.secret, text=said.text)
        return said._replace(text=prompt, material=said.text, is_empty=not said.text.strip())


@dataclass(frozen=True)
class _Templated:
    """A template over the row's columns."""

    template: templating.Template
    columns: Mapping[str, Column]
    frame: Frame | None
    """What ``row`` looks into; ``None`` where the template does not use it."""

    def __call__(self, position: int) -> _Prompt:
        values: dict[str, Any] = {name: column[position] for name, column in self.columns.items()}
        seen, absent = dict(values), list[str]()
        if self.frame is None:
            return _Prompt(self.template.render(values), _longest(values))
        values["row"] = Watched(self.frame, position, seen, absent)
        try:
            text = self.template.render(values)
        except TemplateError:
            if absent:
                raise self.frame.unknown(absent[-1]) from None
            raise
        columns = tuple(self.frame[name] for name in seen if name not in self.columns)
        return _Prompt(text, _longest(seen), lacks=any(column.lacking[position] for column in columns), columns=columns)


def _templated(
    frame: Frame, text: Column | None, template: templating.Template, n_rows: int
) -> tuple[_Templated, Mask]:
    """Return what rows say by a template, and which of them lack a value that it uses.

    Raises:
        TemplateError: it uses a variable that no column is named like, or no column at all.
    """
    own = {"row"} if frame.has_row else set()
    known = [*frame.names, *({"text"} if text is not None else ()), *own]
    template.check(known)
    if known and template.variables.isdisjoint(known) and "{%" not in template.source:  # an include may use some
        example = "text" if text is not None else next(filter(str.isidentifier, frame.unique), "column")
        msg = f"template {template.name!r} says the same of every row: put in what differs, as in {{{{ {example} }}}}"
        raise TemplateError(msg)
    used = {} if text is None else {"text": text}
    for variable in template.variables & set(frame.names) - own - set(used):
        used[variable] = frame[variable]
    lacking = np.zeros(n_rows, dtype=bool)
    for one in used.values():
        lacking = lacking | one.lacking
    prompt = _Templated(template, used, frame if "row" in template.variables & own else None)
    return prompt, _with_row(prompt, lacking)


def _with_row(prompt: _Templated, lacking: Mask) -> Mask:
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
