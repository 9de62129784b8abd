"""What comes of a row's answers: a text, typed columns, a choice. What is asked is the rows' affair."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pandas as pd

from moa_nb.engine import Plan
from moa_nb.errors import MoaError, gravest
from moa_nb.frames import columns
from moa_nb.frames.texts import Texts
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.result import Result

__all__ = ["Answer", "Extract", "Field", "Part", "Synthesize", "Verb", "joined", "side_by_side"]

Answer = Callable[[Task], Awaitable[Result]]
"""Runs the pipeline on one task."""

Part = tuple[str, float, Result]
"""One of a row's results: what its layers' names begin with, the seconds after which it began, and itself."""


@dataclass(frozen=True)
class Verb:
    """A verb of the accessor, without its data."""

    kind: ClassVar[str] = ""

    form: Form | None = None
    """What each answer must be; ``None``: free text."""

    @property
    def called(self) -> str:
        """The accessor's word for it."""
        return self.kind

    def about(self, name: Hashable) -> str:
        """Return what is asked about, in a word: the column of this name."""
        return "a template" if name is None else str(name)

    async def answer(self, tasks: Sequence[Task], ask: Answer) -> Result:
        """Return the result of one row.

        Args:
            tasks: what is asked, as far as it is known before anything is answered.
            ask: runs the pipeline.

        Raises:
            MoaError: there is none; its ``result`` has what was finished.
        """
        return await ask(tasks[0])

    def fitted(self, questions: Any, plan: Plan) -> tuple[Verb, Any]:  # noqa: ARG002 - for those that ask in parts
        """Return the verb and its questions as this plan can ask them."""
        return self, questions

    def values(self, texts: Texts, index: pd.Index[Any], name: Hashable) -> Any:
        """Return what users get of the rows' answers, aligned with ``index``; missing where there is none."""
        return texts.series(index, name)

    def to_record(self) -> dict[str, Any]:
        """Return the verb as plain data, from which ``from_record`` makes it again."""
        return {"verb": self.kind, "form": None if self.form is None else self.form.to_record()}


@dataclass(frozen=True)
class Synthesize(Verb):
    """A text for each row."""

    kind: ClassVar[str] = "synthesize"


@dataclass(frozen=True)
class Extract(Verb):
    """A column for each field of a form."""

    kind: ClassVar[str] = "extract"

    nested: columns.Nested = "object"

    def values(self, texts: Texts, index: pd.Index[Any], name: Hashable) -> pd.DataFrame:  # noqa: ARG002 - every verb's
        """Return a column for each field, in the type that was asked for."""
        assert self.form is not None
        return columns.frame(self.form, texts, index, nested=self.nested)

    def to_record(self) -> dict[str, Any]:
        """Return the verb as plain data."""
        return {**super().to_record(), "nested": self.nested}


@dataclass(frozen=True)
class Field(Verb):
    """The only field of a form: labels, a number, yes or no."""

    kind: ClassVar[str] = "field"

    word: str = "field"
    """``classify``, ``score`` or ``filter``."""

    @property
    def called(self) -> str:
        """The accessor's word for it."""
        return self.word

    def values(self, texts: Texts, index: pd.Index[Any], name: Hashable) -> pd.Series[Any]:
        """Return the field as a Series of its type."""
        assert self.form is not None
        found: pd.Series[Any] = columns.frame(self.form, texts, index).iloc[:, 0]
        found.name = name
        return found

    def to_record(self) -> dict[str, Any]:
        """Return the verb as plain data."""
        return {**super().to_record(), "word": self.word}


async def side_by_side(
    prefixes: Sequence[str], tasks: Sequence[Task], ask: Answer, *, before: Sequence[Part] = ()
) -> list[Part]:
    """Return the results of tasks that are asked at the same time, after those ``before``.

    Args:
        prefixes: what the names of each one's layers begin with.
        tasks: what is asked.
        ask: runs the pipeline.
        before: what the row has so far.

    Raises:
        MoaError: of one of them, once all are over; its ``result`` has what the whole row took.
    """
    began = max((at + result.seconds for _, at, result in before), default=0.0)
    outcomes = await asyncio.gather(*map(ask, tasks), return_exceptions=True)
    parts = []
    for prefix, outcome in zip(prefixes, outcomes, strict=True):
        found = outcome.result if isinstance(outcome, MoaError) else outcome
        if isinstance(found, Result):
            parts.append((prefix, began, found))
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if failures:
        failure = gravest(BaseExceptionGroup("", failures))
        if isinstance(failure, MoaError) and parts:
            failure.result = joined([*before, *parts])
        raise failure
    return parts


def joined(
    parts: Sequence[Part],
    text: str | None = None,
    value: Any = None,
    *,
    notes: Sequence[str] = (),
    agreement: float | None = None,
) -> Result:
    """Return several results as one: all their layers, and the last one's text unless another is given.

    Args:
        parts: of one row.
        text: the answer.
        value: what was read from it.
        notes: what a reader must know besides.
        agreement: how far all of them agree; ``None``: as their last layer says.
    """
    results = [result for _, _, result in parts]
    layers = tuple(
        replace(
            layer,
            name=prefix + layer.name,
            calls=tuple(replace(call, started=call.started + began) for call in layer.calls) if began else layer.calls,
        )
        for prefix, began, result in parts
        for layer in result.layers
    )
    last = results[-1]
    return last.replace(
        text=last.text if text is None else text,
        value=value,
        layers=layers,
        seconds=max(began + result.seconds for _, began, result in parts),
        degraded=any(result.degraded for result in results),
        agreement=agreement,
        n_unparsed=sum(result.n_unparsed for result in results),
        notes=tuple(dict.fromkeys([*(note for result in results for note in result.notes), *notes])),
        error=next((result.error for result in results if result.error is not None), None),
        conversation=results[0].conversation,
    )
