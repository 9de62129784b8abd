"""A few rows of many: what a preview asks."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.errors import MoaError
from moa_nb.frames.groups import Room
from moa_nb.frames.rows import Questions
from moa_nb.pipeline.candidate import Task

__all__ = ["Sample"]

_NEAR = 1000
"""Rows among which those that differ are looked for."""


@dataclass(frozen=True)
class Sample:
    """Some of the rows of a run, by their positions."""

    questions: Any
    positions: tuple[int, ...]

    @classmethod
    def first(cls, questions: Questions, n: int) -> Sample:
        """Return the first ``n`` rows that have something to ask; one that asks what another asks only for want of others."""
        found: list[int] = []
        again: list[int] = []
        asked: list[list[Any]] = []
        for position in range(len(questions)):
            if len(found) == n or (position >= _NEAR and len(found) + len(again) >= n):
                break
            try:
                says = [task.conversation for task in questions.tasks(position)]
            except MoaError:
                found.append(position)  # it fails, which is worth seeing
                continue
            if says in asked:
                again.append(position)
            elif says:
                asked.append(says)
                found.append(position)
        return cls(questions, tuple(sorted([*found, *again[: n - len(found)]])))

    @property
    def index(self) -> pd.Index[Any]:
        """Of these rows."""
        index: pd.Index[Any] = self.questions.index
        return index.take(np.array(self.positions, dtype=int))

    @property
    def name(self) -> Hashable:
        """The name of the resulting Series."""
        name: Hashable = self.questions.name
        return name

    def __len__(self) -> int:
        return len(self.positions)

    def within(self, room: Room) -> Sample:
        """Return the same rows in prompts that have room for so much material, where they are groups."""
        return Sample(self.questions.within(room), self.positions)

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return what is asked at a position among these rows."""
        tasks: tuple[Task, ...] = self.questions.tasks(self.positions[position])
        return tasks
