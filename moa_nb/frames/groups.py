"""Groups: one text about many, read in parts and gathered where they are too long to be read at once."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from moa_nb import templating
from moa_nb.chat import Message
from moa_nb.engine import Plan
from moa_nb.errors import SetupError, nearest
from moa_nb.frames.cells import Column, Frame
from moa_nb.frames.rows import Asking, MissingPolicy, check_missing
from moa_nb.frames.verbs import Answer, Part, Verb, joined, side_by_side
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.context import trimmed
from moa_nb.pipeline.result import Result
from moa_nb.plain import quoted
from moa_nb.settings import fence_secret
from moa_nb.tokens import count_tokens, estimate_error

__all__ = ["ALL", "Groups", "Room", "Summarize", "packed", "pieces"]

ALL = "all"
"""The only group where nothing says how to group."""

_READABLE = 6000
"""Tokens of material in one prompt where nobody knows what the models can read."""

_LEAST = 200
"""Tokens of material in one prompt; with less room there is nothing to summarize."""

_OWN_WORDS = 1000
"""Tokens that the words of the templates may have, and the marks between the texts."""

_MARK = 12
"""Tokens of the mark before each text."""

_CHARACTERS = 16
"""Of a token at the most, in a text whose tokens are worth counting; of longer ones a piece is shorter than it might be."""

_END = re.compile(r"\n\s*\n|[.!?…][\"'”’)\]]*\s+|[。！？]|\s+")
"""Where a text may be cut."""


@dataclass(frozen=True)
class Room:
    """How much material one prompt may have."""

    tokens: int
    model: str | None = None
    """Whose tokens they are; ``None`` where nobody knows what the models can read."""

    @classmethod
    def of(cls, plan: Plan, instruction: str) -> Room:
        """Return what the smallest context leaves beside the instruction and the answers.

        An agent of a later layer reads the answers of the layer before it too; a quarter of the context is the
        material's in any case, since answers can be shortened and material cannot.
        """
        rooms = [
            cls._of(plan, model, answer)
            for model, answer in {(agent.model, agent.max_tokens or plan.settings.max_tokens) for agent in plan.agents}
        ]
        least = min(rooms, key=lambda room: room.tokens, default=cls(_READABLE))
        return replace(least, tokens=max(least.tokens - least.count(instruction), _LEAST))

    @classmethod
    def _of(cls, plan: Plan, model: str, answer: int) -> Room:
        context = plan.gateway.context(model)
        if context is None:
            return cls(_READABLE)
        left = max(context - len(plan.agents) * answer - _OWN_WORDS, context // 4)
        return cls(int(left / (1 + estimate_error(model))), model)

    def count(self, text: str) -> int:
        """Return about how many of its tokens a text has."""
        return count_tokens(text, self.model)


@dataclass(frozen=True)
class Summarize(Verb):
    """One text for each group. Where a group is read in parts, their summaries are gathered, as often as it takes."""

    kind: ClassVar[str] = "summarize"

    instruction: str = "Summarize the texts."
    tokens: int = _READABLE
    """Of material in one prompt."""
    counted_for: str | None = None
    """Whose tokens they are."""

    async def answer(self, tasks: Sequence[Task], ask: Answer) -> Result:
        """Return the summary of a group: of its only part, or gathered from those of its parts."""
        prefixes = [f"part {number} › " for number in range(1, len(tasks) + 1)] if len(tasks) > 1 else [""]
        parts: list[Part] = await side_by_side(prefixes, tasks, ask)
        latest, level = parts, 0
        notes: list[str] = []
        while len(latest) > 1:
            level += 1
            summaries = self._readable([result.text for _, _, result in latest], notes)
            gathered = [_task(self.asking, texts) for texts in packed(summaries, self.room)]
            names = [f"gathered {level}.{number} › " for number in range(1, len(gathered) + 1)]
            latest = await side_by_side(names if len(gathered) > 1 else ["gathered › "], gathered, ask, before=parts)
            parts = [*parts, *latest]
        result = joined(parts, notes=notes) if len(parts) > 1 else parts[0][2]
        return result.replace(degraded=True) if notes else result

    def _readable(self, summaries: Sequence[str], notes: list[str]) -> list[str]:
        """Return summaries of which each two can be read at once, so that gathering them comes to an end."""
        half = self.tokens // 2 - _MARK
        short = [trimmed([summary], half, self.room.count)[0] for summary in summaries]
        n_cut = sum(one is not other for one, other in zip(short, summaries, strict=True))
        if n_cut:
            notes.append(f"{n_cut} of {len(short)} summaries were shortened to {half:,} tokens, to be read together")
        return short

    @property
    def room(self) -> Room:
        """How much one prompt may have."""
        return Room(self.tokens, self.counted_for)

    @property
    def asking(self) -> Asking:
        """How summaries are gathered."""
        return Asking.named("rows/gather", instruction=self.instruction)

    def fitted(self, questions: Any, plan: Plan) -> tuple[Summarize, Groups]:
        """Return the verb and its groups in prompts that each agent of the plan can read."""
        room = Room.of(plan, self.instruction)
        return replace(self, tokens=room.tokens, counted_for=room.model), questions.within(room)

    def to_record(self) -> dict[str, Any]:
        """Return the verb as plain data."""
        own = {"instruction": self.instruction, "tokens": self.tokens, "counted_for": self.counted_for}
        return {**super().to_record(), **own}


@dataclass(frozen=True)
class Groups:
    """The texts of a column by group, as questions for one text about each group. Every row is read once."""

    index: pd.Index[Any]
    """The groups."""
    name: Hashable
    text: Column
    members: tuple[np.ndarray[Any, Any], ...]
    """The positions of each group's rows, in order."""
    instruction: str
    room: Room = Room(_READABLE)
    _packed: dict[int, tuple[Task, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        data: pd.DataFrame | pd.Series[Any],
        column: Hashable,
        *,
        by: Any,
        instruction: str,
        na: MissingPolicy,
    ) -> Groups:
        """Return the groups of a frame or a series.

        Args:
            data: the rows.
            column: the column with the texts.
            by: what ``groupby`` takes; ``None``: all rows are one group. Rows whose group is missing are one of their own.
            instruction: what to do with the texts of a group.
            na: whether texts may be missing.

        Raises:
            SetupError: no such column, or missing text with ``na="raise"``.
        """
        if not instruction.strip():
            msg = "the instruction is empty: leave it out to have the texts summarized"
            raise SetupError(msg)
        if isinstance(data, pd.Series) and column is not None and column != data.name:
            msg = f"a Series has no column {column!r}: leave the column out"
            raise SetupError(msg)
        frame = Frame(data)
        text = frame.text if column is None else frame.named(column)
        if text is None:
            msg = f"which column? Give its name (there are: {', '.join(frame.names)})"
            raise SetupError(msg)
        check_missing(text.lacking, na, data.index)
        name = data.name if isinstance(data, pd.Series) else column
        index, members = _grouped(data, by)
        return cls(index, name, text, members, instruction)

    def __len__(self) -> int:
        return len(self.index)

    def within(self, room: Room) -> Groups:
        """Return the same groups in prompts that have room for so much material."""
        return replace(self, room=room, _packed={})

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return a task for each part of a group; none where it has no text."""
        known = self._packed.get(position)
        if known is None:
            texts = (str(self.text[row]) for row in self.members[position] if not self.text.lacking[row])
            parts = list(packed([text for text in texts if text.strip()], self.room))
            asking = Asking.named("rows/summarize", instruction=self.instruction, part=len(parts) > 1)
            known = tuple(_task(asking, part) for part in parts)
            self._packed[position] = known
        return known


def _task(asking: Asking, texts: Sequence[str]) -> Task:
    fence = templating.fence([asking.says["instruction"], *texts], fence_secret())
    prompt = asking.template.render({**asking.says, "texts": texts, "fence": fence})
    return Task((Message("user", prompt),), "\n\n".join(texts))


def _grouped(data: pd.DataFrame | pd.Series[Any], by: Any) -> tuple[pd.Index[Any], tuple[np.ndarray[Any, Any], ...]]:
    """Return the groups in their order, and the positions of each one's rows."""
    if by is None:
        return pd.Index([ALL]), (np.arange(len(data.index)),)
    try:
        grouped = data.groupby(by, dropna=False, observed=True)
        numbers, index = grouped.ngroup().to_numpy(), grouped.size().index
    except KeyError as error:
        names = data.columns if isinstance(data, pd.DataFrame) else data.index.names
        msg = f"the rows cannot be grouped by {quoted(by)}; {nearest(str(error.args[0]), map(str, names))}"
        raise SetupError(msg) from None
    except (ValueError, TypeError) as error:
        msg = f"the rows cannot be grouped by {quoted(by)}: {error}"
        raise SetupError(msg) from None
    rows = np.argsort(numbers, kind="stable")
    return index, tuple(np.split(rows, np.searchsorted(numbers[rows], np.arange(len(index))))[1:])


# Parts -------------------------------------------------------------------------------------------


def packed(texts: Iterable[str], room: Room) -> Iterator[list[str]]:
    """Yield texts in parts that fit a room, in their order, each once; one that is longer in pieces.

    >>> list(packed(["one two", "three", "four"], Room(30)))
    [['one two', 'three'], ['four']]
    """
    part: list[str] = []
    left = room.tokens
    for text in texts:
        for piece in pieces(text, replace(room, tokens=room.tokens - _MARK)):
            size = room.count(piece) + _MARK
            if part and size > left:
                yield part
                part, left = [], room.tokens
            part.append(piece)
            left -= size
    if part:
        yield part


def pieces(text: str, room: Room) -> Iterator[str]:
    """Yield a text, in pieces that fit a room where it is longer; nothing of it is lost but white space.

    They end where a paragraph, a sentence or a word ends, if there is such an end in the last quarter.
    """
    longest = room.tokens * _CHARACTERS
    while len(text) > longest or room.count(text) > room.tokens:
        n = _longest(text[:longest], room)
        ends = [match.end() for match in _END.finditer(text, n - n // 4, n)]
        best = max(ends, default=n)
        if piece := text[:best].rstrip():
            yield piece
        text = text[best:].lstrip()
    if text:
        yield text


def _longest(text: str, room: Room) -> int:
    """Return the most characters of a beginning of ``text`` that fit; one at least."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if room.count(text[:middle]) <= room.tokens else (low, middle - 1)
    return low
