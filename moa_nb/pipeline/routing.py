"""Routers: what says, before any answer, which way a question goes.

A router's word is a score, which thresholds turn into a way, or a way's name. Those here ask nobody; a model that
classifies and Python functions are asked by the ``route`` strategy.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from moa_nb.errors import RowError, UnknownName, nearest
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.similarity import similarity
from moa_nb.pipeline.spec import Agent
from moa_nb.pipeline.vote import plurality

__all__ = ["Column", "Nearest", "Rule", "Word", "called", "is_function", "past", "ruled"]

Word = float | str | None
"""What a router says: a score, or a way's name; ``None`` where it has nothing to say."""


class _Router(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Rule(_Router):
    """A way, and what has to hold for a question to go there: all that is said.

    >>> rule = Rule(to="strong", matches="(?i)^prove", longer=10)
    >>> rule.holds("Prove that it halts.", {}), rule.holds("Prove it.", {})
    (True, False)
    """

    to: str
    """The way's name."""
    column: str | None = None
    """The column of the row that it is about; ``None``: the question."""
    matches: str | None = None
    """A regular expression that is found in it."""
    longer: int | None = None
    """Characters that it is longer than."""
    equals: Any = None
    """What it is."""
    at_least: float | None = None
    """A number that it reaches."""

    @field_validator("matches")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            msg = f"{pattern!r} is no regular expression: {error}"
            raise ValueError(msg) from None
        return pattern

    def holds(self, question: str, values: Mapping[str, Any]) -> bool:
        """Return whether all of it holds; nothing holds of a missing cell.

        Raises:
            UnknownName: the row has no such column.
        """
        cell = question if self.column is None else _cell(values, self.column)
        return cell is not None and (
            (self.matches is None or re.search(self.matches, str(cell)) is not None)
            and (self.longer is None or len(str(cell)) > self.longer)
            and (self.equals is None or bool(cell == self.equals))
            and (self.at_least is None or (isinstance(cell, Real) and float(cell) >= self.at_least))
        )


def ruled(rules: Sequence[Rule], task: Task) -> Word:
    """Return the way of the first rule that holds; without one a score below every threshold: the first way.

    >>> from moa_nb.chat import conversation
    >>> ruled([Rule(to="strong", longer=20)], Task(conversation("Prove that it always halts.")))
    'strong'
    """
    return next((rule.to for rule in rules if rule.holds(task.question, task.values)), -math.inf)


class Column(_Router):
    """The row itself says it, in a column: a way's name, or a score."""

    column: str

    def word(self, task: Task) -> Word:
        """Return the cell; ``None`` where it is missing.

        Raises:
            UnknownName: the row has no such column.
        """
        cell = _cell(task.values, self.column)
        return cell if cell is None or isinstance(cell, int | float) else str(cell)


class Nearest(_Router):
    """The labelled examples that are most like a question say it: k nearest neighbours, weighted by likeness.

    Labels are ways' names, of which the heaviest wins, or numbers, such as 1 where the strong model was needed, of
    which the weighted mean is the score. Likeness is ``similarity`` (words and neighbours), or with ``embed`` the
    cosine of vectors.

    >>> router = Nearest(examples=[("Prove the lemma", "strong"), ("Say hello", "small")], k=1)
    >>> router.word("Prove this theorem")
    'strong'
    """

    examples: tuple[tuple[str, float | str], ...] = Field(min_length=1)
    """Questions, each with its label."""
    k: int = Field(5, ge=1)
    """How many of them are heard."""
    embed: Callable[[list[str]], Sequence[Sequence[float]]] | None = None
    """Returns a vector for each text; ``None``: texts are compared word by word, which asks nobody."""
    vectors: tuple[tuple[float, ...], ...] = ()
    """Those of the examples; ``of`` asks for them once."""

    @classmethod
    def of(
        cls, frame: Any, text: str, label: str, *, k: int = 5, embed: Callable[[list[str]], Any] | None = None
    ) -> Self:
        """Return the router of a labelled DataFrame; rows without text or label are left out.

        Args:
            frame: the examples.
            text: the column of their questions.
            label: the column of their labels.
            k: how many neighbours are heard.
            embed: returns a vector for each of a list of texts; called here once for all examples, and then for
                each question in a thread of its own.

        Raises:
            UnknownName: there is no such column.
        """
        columns = {str(name): name for name in frame.columns}
        texts, labels = ([_missing(cell) for cell in frame[_cell(columns, name)]] for name in (text, label))
        examples = [
            (str(one), float(said) if isinstance(said, Real) else str(said))
            for one, said in zip(texts, labels, strict=True)
            if one is not None and said is not None
        ]
        vectors = () if embed is None else embed([one for one, _ in examples])
        return cls(examples=tuple(examples), k=k, embed=embed, vectors=tuple(tuple(map(float, one)) for one in vectors))

    def word(self, question: str) -> Word:
        """Return the score or the way's name; ``None`` if the question is like no example."""
        if self.embed is None:
            alike = [similarity(question, text) for text, _ in self.examples]
        else:
            vectors = self.vectors or self.embed([text for text, _ in self.examples])
            (vector,) = self.embed([question])
            alike = [_cosine(vector, other) for other in vectors]
        near = sorted(range(len(alike)), key=lambda at: -alike[at])[: self.k]
        weights = [max(0.0, alike[at]) for at in near]
        labels = [self.examples[at][1] for at in near]
        total = math.fsum(weights)
        if not total:
            return None
        scores = [label for label in labels if not isinstance(label, str)]
        if len(scores) == len(labels):
            return math.fsum(map(math.prod, zip(weights, scores, strict=True))) / total
        winner = plurality([str(label) for label in labels], weights=weights).value
        return None if winner is None else str(winner)


def past(score: float, thresholds: Sequence[float]) -> int:
    """Return how many of the rising ``thresholds`` a score reaches: the way that it goes, from 0.

    >>> [past(score, [0.5]) for score in (0.2, 0.5, 0.8)]
    [0, 1, 1]
    """
    return bisect.bisect_right(thresholds, score)


# Python functions in parameters ------------------------------------------------------------------


def is_function(agent: Agent) -> bool:
    """Return whether a declared router or scorer is a Python function, given or registered, and no model."""
    return agent.function is not None or agent.model.startswith("function:")


async def called(ask: Ask, agent: Agent, *arguments: Any, **offered: Any) -> Any:
    """Return what the Python function of a declared router or scorer says of the arguments.

    Of what is ``offered`` it gets what it takes by name. An estimate calls nobody's code: ``None``.

    Raises:
        RowError: it raised.
    """
    if ask.choices is not None:
        return None
    if ask.call is None:
        msg = f"nobody calls functions here, such as {agent.label!r}"
        raise RowError(msg)
    return await ask.call(agent.function or agent.model.partition(":")[2], *arguments, **offered)


# Rows --------------------------------------------------------------------------------------------


def _cell(values: Mapping[str, Any], column: str) -> Any:
    if column not in values:
        msg = f"the router reads a column {column!r} that is not there; {nearest(column, values)}"
        raise UnknownName(msg)
    return _missing(values[column])


def _missing(cell: Any) -> Any:
    """Return a cell, ``None`` for each way of saying that it is missing."""
    cell = cell.item() if hasattr(cell, "item") and not getattr(cell, "shape", None) else cell  # NumPy's, as Python's
    try:
        return None if cell is None or bool(cell != cell) else cell  # noqa: PLR0124 - what is missing differs from itself
    except (TypeError, ValueError):  # pandas' NA, which neither differs nor does not
        return None


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return math.fsum(map(math.prod, zip(one, other, strict=True))) / lengths if lengths else 0.0
