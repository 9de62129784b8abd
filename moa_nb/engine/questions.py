"""The questions of a run's rows as bytes, a stretch of rows together; kept while the run goes on, read one stretch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from moa_nb.chat import Message
from moa_nb.engine.values import pack_value, unpack_value
from moa_nb.errors import SetupError
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.forms import Form
from moa_nb.store import Store
from moa_nb.store.recipes import pack, unpack

__all__ = ["STRETCH", "QuestionKeeper", "QuestionReader", "pack_questions", "unpack_questions"]

STRETCH = 256
"""Rows whose questions are compressed together: one that is looked up costs the unpacking of all."""

_SOON = 0.2
"""Seconds after which the questions of a stretch that is not whole are kept."""

_Row = Sequence[Task] | None


def pack_questions(rows: Sequence[_Row], *, columns: bool = False) -> bytes:
    """Return the questions of rows as bytes.

    Args:
        rows: the tasks of each; ``None`` for a row that asks nothing.
        columns: whether ``Task.values`` are kept as well, for pipelines that look at them.

    >>> task = Task((Message("user", "Shorten this: a long text"),), material="a long text")
    >>> unpack_questions(pack_questions([[task], None])) == [[task], None]
    True
    """
    return pack([None if tasks is None else [_packed(task, columns) for task in tasks] for tasks in rows])


def unpack_questions(data: bytes, *, form: Form | None = None) -> list[list[Task] | None]:
    """Return the tasks of each row, as ``pack_questions`` was given them.

    Args:
        data: what it made.
        form: what their answers must be; a recipe says it once for all rows.

    Raises:
        SetupError: the bytes are damaged, or were made by something else.
    """
    try:
        return [
            None if tasks is None else [_unpacked(task, form) for task in _listed(tasks)]
            for tasks in _listed(unpack(data))
        ]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        msg = f"the questions of this run cannot be read: {error}"
        raise SetupError(msg) from None


def _listed(data: Any) -> list[Any]:
    if not isinstance(data, list):
        msg = f"{type(data).__name__} where there should be a list"
        raise TypeError(msg)
    return data


def _packed(task: Task, columns: bool) -> Any:
    """Return a task as JSON data; one that is a text and nothing else, as most are, is that text."""
    conversation, material = task.conversation, task.material
    is_text = len(conversation) == 1 and conversation[0].role == "user"
    said: Any = conversation[0].content if is_text else [[message.role, message.content] for message in conversation]
    values = [[pack_value(name), pack_value(value)] for name, value in task.values.items()] if columns else []
    if is_text and material is None and task.reference_answer is None and not values:
        return said
    return [said, None if material is None else _placed(material, conversation), task.reference_answer, values]


def _placed(material: str, conversation: Sequence[Message]) -> Any:
    """Return where a text stands in a conversation: message, start and length; itself where it stands nowhere."""
    for number in range(len(conversation) - 1, -1, -1):
        start = conversation[number].content.find(material)
        if start >= 0:
            return [number, start, len(material)]
    return material


def _unpacked(data: Any, form: Form | None) -> Task:
    if isinstance(data, str):
        return Task((Message("user", data),), form=form)
    said, material, reference_answer, values = _listed(data)
    conversation = (
        (Message("user", said),) if isinstance(said, str) else tuple(Message(role, content) for role, content in said)
    )
    if isinstance(material, list):
        number, start, length = material
        material = conversation[number].content[start : start + length]
    columns = {unpack_value(name): unpack_value(value) for name, value in values}
    return Task(conversation, material, columns, reference_answer, form)


def _packed_over(rows: Sequence[_Row], columns: bool, known: bytes | None) -> bytes:
    """Return the questions of rows as bytes; of a row that asks nothing now, those that are kept already."""
    if known is not None:
        rows = [was if now is None else now for now, was in zip(rows, unpack_questions(known), strict=False)]
    return pack_questions(rows, columns=columns)


class QuestionKeeper:
    """Keeps the questions of a run as its rows begin, a stretch at a time, off the loop that asks them.

    Args:
        store: where.
        run_id: the run, whose recipe is kept already.
        n_rows: how many rows it has.
        columns: whether ``Task.values`` are kept as well.
        earlier: the run of the same rows that this one goes on from: what it asked, and this one does not ask again, is
            kept as its own.
        loop: on which rows are added; ``None``: only whole stretches are kept before the end.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        n_rows: int,
        *,
        columns: bool = False,
        earlier: str | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._store, self._run_id, self._n_rows, self._columns = store, run_id, n_rows, columns
        if earlier is not None:
            store.copy_questions(earlier, run_id)
        self._open: dict[int, list[_Row]] = {}
        self._left: dict[int, int] = {}
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def add(self, position: int, tasks: _Row) -> None:
        """Return nothing; keep what a row asks, once the rows around it are there too. Each row is added once."""
        number, place = divmod(position, STRETCH)
        rows = self._open.get(number)
        if rows is None:
            size = min(STRETCH, self._n_rows - number * STRETCH)
            rows = self._open[number] = [None] * size
            self._left[number] = size
        if self._columns and tasks is not None:
            # Read now: a row of a frame is not to be looked into by two threads.
            tasks = [replace(task, values=dict(task.values)) for task in tasks]
        rows[place] = tasks
        self._left[number] -= 1
        if not self._left[number]:
            self._keep(number, self._open.pop(number))
        elif self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(_SOON, self._keep_open)

    def _keep_open(self) -> None:
        """Keep what has been added so far, for whoever looks at a run that was killed."""
        self._timer = None
        for number, rows in self._open.items():
            self._keep(number, [*rows])

    def close(self) -> None:
        """Return nothing; keep what has been added of stretches that are not whole. To be called when the run ends."""
        if self._timer is not None:
            self._timer.cancel()
        for number in sorted(self._open):
            self._keep(number, self._open.pop(number))

    def _keep(self, number: int, rows: list[_Row]) -> None:
        self._store.keep_questions(self._run_id, number * STRETCH, partial(_packed_over, rows, self._columns))


class QuestionReader:
    """Reads the questions of a run that the store kept; the latest stretch is remembered, since rows are looked at in order.

    Args:
        store: where.
        run_id: the run.
        form: what its answers must be.
    """

    def __init__(self, store: Store, run_id: str, *, form: Form | None = None) -> None:
        self._store, self._run_id, self._form = store, run_id, form
        self._first = 0
        self._rows: list[list[Task] | None] = []

    def tasks(self, position: int) -> list[Task] | None:
        """Return what a row asked; ``None`` where it asked nothing, or nothing is kept of it.

        Raises:
            SetupError: what is kept is damaged.
        """
        if not self._first <= position < self._first + len(self._rows):
            found = self._store.questions(self._run_id, position)
            if found is None:
                return None
            self._first, self._rows = found.first, unpack_questions(found.data, form=self._form)
        place = position - self._first
        return self._rows[place] if place < len(self._rows) else None
