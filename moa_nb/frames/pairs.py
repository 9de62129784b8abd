"""Pairs: which of two columns is better, row by row, asked in both orders."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from moa_nb.chat import Message
from moa_nb.errors import SetupError
from moa_nb.frames.cells import Column, Frame, Row
from moa_nb.frames.rows import Asking, MissingPolicy, check_missing
from moa_nb.frames.texts import Texts
from moa_nb.frames.verbs import Answer, Field, Verb, joined, side_by_side
from moa_nb.pipeline.agreement import proposals
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.result import Call, Result
from moa_nb.pipeline.vote import agreement
from moa_nb.settings import fence_secret

__all__ = ["TIE", "Pairs", "Prefer"]

TIE = "tie"
"""The category where neither is better."""

_SWAPPED: Mapping[str, str] = {"A": "B", "B": "A", TIE: TIE}


@dataclass(frozen=True)
class Prefer(Verb):
    """Which of two texts is better: each pair is asked in both orders, since judges favour places."""

    kind: ClassVar[str] = "prefer"

    names: tuple[Any, Any] = ("A", "B")
    """What the columns are called."""

    async def answer(self, tasks: Sequence[Task], ask: Answer) -> Result:
        """Return the same winner of both orders; anything else is a tie (Zheng et al. 2023, arXiv 2306.05685)."""
        assert self.form is not None
        parts = await side_by_side(["", "swapped › "][: len(tasks)], tasks, ask)
        # Equal texts are asked once: their two orders are the same question.
        first, second = parts[0][2], parts[-1][2]
        given, swapped = (part.value["better"] if part.value else None for part in (first, second))
        if given is None or swapped is None:
            return joined(parts)  # nobody was asked: an estimate
        is_sure = given == _SWAPPED[swapped]
        said = {"better": given if is_sure else TIE}
        # In the second order the letters stand for the other text.
        votes = [_voted(call) for call in proposals(first)]
        votes += [_SWAPPED.get(str(_voted(call))) for call in proposals(second)]
        notes = [] if is_sure else ["decided by place, and so a tie"]
        # The order that was given comes last, as what others look at.
        result = joined(parts[::-1], self.form.text(said), said, notes=notes, agreement=agreement(votes))
        return result.replace(conversation=first.conversation)

    def values(self, texts: Texts, index: pd.Index[Any], name: Hashable) -> pd.Series[Any]:
        """Return the name of the better column, or ``tie``, as categories."""
        said = Field(self.form).values(texts, index, name)
        return said.cat.rename_categories({"A": self.names[0], "B": self.names[1]})

    def about(self, name: Hashable) -> str:  # noqa: ARG002 - both columns have one
        """Return what is asked about: both columns."""
        return " and ".join(map(str, self.names))

    def to_record(self) -> dict[str, Any]:
        """Return the verb as plain data."""
        return {**super().to_record(), "names": list(self.names)}


def _voted(call: Call) -> str | None:
    return call.value["better"] if call.ok and call.value else None


@dataclass(frozen=True)
class Pairs:
    """Two columns of a frame, as questions which of two texts is better."""

    frame: Frame
    first: Column
    second: Column
    question: Column | None
    """What both answer; ``None`` where nothing is asked."""
    asking: Asking
    na: MissingPolicy
    form: Form
    secret: bytes
    name: Hashable = None

    @classmethod
    def of(
        cls,
        data: pd.DataFrame | pd.Series[Any],
        a: Hashable,
        b: Hashable,
        *,
        question: Hashable,
        asking: Asking,
        na: MissingPolicy,
        form: Form,
    ) -> Pairs:
        """Return the pairs of a frame.

        Raises:
            SetupError: no such column, twice the same, or missing text with ``na="raise"``.
        """
        if isinstance(data, pd.Series):
            msg = "two columns are compared, and a Series has one: take the frame, df.moa.prefer('a', 'b')"
            raise SetupError(msg)
        frame = Frame(data)
        first, second = frame.named(a), frame.named(b)
        if a == b:
            msg = f"two columns are compared, and {a!r} is one: name another"
            raise SetupError(msg)
        if TIE in (a, b):
            msg = f"a column called {TIE!r} could not be told from a tie: rename it"
            raise SetupError(msg)
        about = None if question is None else frame.named(question)
        pairs = cls(frame, first, second, about, asking, na, form, fence_secret())
        check_missing(pairs.first.lacking | pairs.second.lacking, na, frame.index)
        return pairs

    @property
    def index(self) -> pd.Index[Any]:
        """The frame's."""
        return self.frame.index

    def __len__(self) -> int:
        return len(self.index)

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return the question in both orders, of equal texts once; none where a text is missing, and is to be left so."""
        columns = [self.first, self.second, *([] if self.question is None else [self.question])]
        if self.na != "pass" and any(column.lacking[position] for column in columns):
            return ()
        texts = str(self.first[position]), str(self.second[position])
        n_blank = sum(not text.strip() for text in texts)
        if n_blank == len(texts) or (n_blank and self.na != "pass"):
            return ()
        about = {} if self.question is None else {"question": str(self.question[position])}
        return tuple(
            Task(
                (Message("user", self.asking.of(self.secret, first=one, second=other, **about)),),
                values=Row(self.frame, position),
                form=self.form,
            )
            for one, other in dict.fromkeys([texts, texts[::-1]])
        )
