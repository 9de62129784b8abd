"""What judges are shown: two answers to one question in both orders, or one answer to be rated."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from moa_nb import templating
from moa_nb.chat import Message
from moa_nb.pipeline.candidate import Task
from moa_nb.settings import fence_secret

__all__ = ["Answers", "Asked", "Contests", "Conversations", "Exhibit", "Ratings", "contenders"]

Asked = Sequence[tuple[Message, ...] | None]
"""The conversation that each row's answers answer; ``None`` where nothing was asked."""

Answers = Mapping[str, Sequence[str | None]]
"""By pipeline each row's answer; ``None`` where it has none."""


@dataclass(frozen=True)
class Exhibit:
    """How answers are shown to a judge: a template of ``templates/prompts/``, which quotes them as ``references``."""

    template: str
    references: Sequence[str | None] | None = None
    """Each row's right answer; ``None`` where nobody knows it."""
    says: Mapping[str, Any] = field(default_factory=dict)
    """What else the template may use."""
    secret: bytes = field(default_factory=fence_secret, repr=False)

    def task(self, row: int, asked: tuple[Message, ...], answers: Sequence[str], **says: Any) -> Task:
        """Return the question to a judge."""
        right = "" if self.references is None else (self.references[row] or "").strip()
        texts = [*(message.content for message in asked), *answers, *([right] if right else [])]
        shown = {
            **self.says,
            **says,
            "conversation": [{"role": message.role, "content": message.content} for message in asked],
            "references": list(answers),
            "reference_answer": right,
            # In whatever order answers are shown, the mark is the same: swapped pairs differ in nothing else.
            "fence": templating.fence(sorted(texts), self.secret),
        }
        values = {"keys": [*shown["skills"]]} if "skills" in shown else {}
        return Task((Message("user", self._loaded.render(shown)),), values=values)

    @cached_property
    def _loaded(self) -> templating.Template:
        return templating.load(self.template)


@dataclass(frozen=True)
class Contests:
    """Every two answers of each row, in both orders. Equal answers are a tie that nobody is asked about."""

    asked: Asked
    answers: Answers
    pairs: Sequence[tuple[str, str]]
    exhibit: Exhibit
    name: Hashable = None
    told_apart: bool = False
    """Whether equal answers are taken for unlike ones, as an estimate must that knows only their length."""

    @cached_property
    def index(self) -> pd.Index[Any]:
        """The row, counted from 0, and both pipelines of each contest."""
        return _index(len(self.asked), self.pairs, ["first", "second"])

    def __len__(self) -> int:
        return len(self.asked) * len(self.pairs)

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return both orders of a contest; nothing where an answer is missing, or they are equal."""
        row, pair = divmod(position, len(self.pairs))
        asked = self.asked[row]
        one, other = (self.answers[name][row] for name in self.pairs[pair])
        if asked is None or one is None or other is None or (one == other and not self.told_apart):
            return ()
        return self.exhibit.task(row, asked, [one, other]), self.exhibit.task(row, asked, [other, one])


@dataclass(frozen=True)
class Ratings:
    """Each answer of each row, to be rated alone."""

    asked: Mapping[str, Asked]
    """By pipeline, since what a later turn answers is each pipeline's own conversation."""
    answers: Answers
    exhibit: Exhibit
    name: Hashable = None
    says: Sequence[Mapping[str, Any]] | None = None
    """What the template may use of each row besides."""

    @property
    def _n_rows(self) -> int:
        return len(next(iter(self.answers.values()), ()))

    @cached_property
    def index(self) -> pd.Index[Any]:
        """The row, counted from 0, and the pipeline of each answer."""
        return _index(self._n_rows, [(name,) for name in self.answers], ["pipeline"])

    def __len__(self) -> int:
        return self._n_rows * len(self.answers)

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return the question about one answer; nothing where it is missing."""
        row, place = divmod(position, len(self.answers))
        name = [*self.answers][place]
        asked, answer = self.asked[name][row], self.answers[name][row]
        if asked is None or answer is None:
            return ()
        return (self.exhibit.task(row, asked, [answer], **(self.says[row] if self.says else {})),)


@dataclass(frozen=True)
class Conversations:
    """Conversations whose last message a pipeline answers."""

    asked: Asked
    index: pd.Index[Any]
    name: Hashable = None

    def __len__(self) -> int:
        return len(self.asked)

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return a row's question; nothing where it has none."""
        asked = self.asked[position]
        return () if asked is None else (Task(asked),)


def _index(n_rows: int, places: Sequence[tuple[str, ...]], names: Sequence[str]) -> pd.MultiIndex:
    """Return each row with each of the places, made of their numbers: there may be a million of them."""
    levels: list[Any] = [range(n_rows)]
    codes: list[Any] = [np.repeat(np.arange(n_rows), len(places))]
    for at in range(len(names)):  # by names: before anybody has answered there are no places
        numbers, known = pd.factorize(np.array([place[at] for place in places], dtype=object))
        levels.append(known)
        codes.append(np.tile(numbers, n_rows))
    return pd.MultiIndex(levels, codes, names=["row", *names])


def contenders(pipelines: Sequence[str], baseline: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield the pairs that are compared: every two, or each with the baseline.

    >>> [*contenders(["single", "moa", "debate"], baseline="single")]
    [('moa', 'single'), ('debate', 'single')]
    """
    if baseline is None:
        yield from combinations(pipelines, 2)
    else:
        yield from ((name, baseline) for name in pipelines if name != baseline)
