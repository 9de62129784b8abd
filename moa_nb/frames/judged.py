"""What judges make of answers that stand there already: verdicts or ratings, in each order that they are shown."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from moa_nb.frames.texts import Texts
from moa_nb.frames.verbs import Answer, Verb, joined, side_by_side
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.result import Result

__all__ = ["Judged", "Words"]

Words = list[list[Any]]
"""For each order what each judge says; ``None`` where that could not be read, empty where it did not answer."""

_ORDERS = ("", "swapped › ")


@dataclass(frozen=True)
class Judged(Verb):
    """What a jury says of each question; one of a pair is asked in both orders, since judges favour places."""

    kind: ClassVar[str] = "judge"

    async def answer(self, tasks: Sequence[Task], ask: Answer) -> Result:
        """Return what each judge says in each order; the order that was given comes last, as what others look at."""
        parts = await side_by_side(_ORDERS[: len(tasks)], tasks, ask)
        words = [part.value for _, _, part in parts]
        return joined(parts[::-1], json.dumps(words), words).replace(conversation=parts[0][2].conversation)

    def values(self, texts: Texts, index: pd.Index[Any], name: Hashable) -> pd.Series[Any]:
        """Return the words of each question; missing where nobody was asked, or answered."""
        said: list[Words | None] = [None if text is None else json.loads(text) for text in texts]
        return pd.Series(said, index=index, name=name, dtype=object)

    def about(self, name: Hashable) -> str:
        """Return what is judged."""
        return "answers" if name is None else f"answers to {name}"
