"""The calls of one layer under way: begun together, each recorded, waited for as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from moa_nb.chat import Completion
from moa_nb.errors import MoaError, RowError, ServiceError
from moa_nb.pipeline.candidate import Candidate
from moa_nb.pipeline.record import CallRecord

__all__ = ["Again", "Answer", "Begin", "Coming", "LayerCalls", "Outcome", "Parse", "Ticket"]

Outcome = Completion | Candidate | BaseException
"""What comes of a call; a candidate where a whole pipeline answered."""

Answer = Candidate | MoaError
"""What a strategy is told of a call."""

Parse = Callable[[str], Any]
"""Reads a value from an answer; ``None`` where there is none."""


class Ticket(Protocol):
    """The right to an answer that is still to come."""

    @property
    def unreported(self) -> int:
        """How many attempts may be billed though nobody reported them; known once the task is over."""

    def leave(self) -> asyncio.Task[Any] | None:
        """Return the task that is now being cancelled, if nobody else waits for its answer; else ``None``."""


Begin = Callable[[Callable[[Outcome], None]], Completion | Ticket]
"""Begins a call: returns its completion at once, or a ticket and tells later."""

Again = Callable[[str, Callable[[Outcome], None]], Completion | Ticket]
"""Begins a call in place of an answer that could not be read, given its text."""


class Coming:
    """The ticket of a coroutine that answers; its own calls say what of them was not reported."""

    unreported = 0

    def __init__(self, answer: Callable[[], Coroutine[Any, Any, Candidate]], on_end: Callable[[Outcome], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(answer())
        self._task.add_done_callback(lambda task: on_end(_outcome(task)))

    def leave(self) -> asyncio.Task[Any] | None:
        """Return the task, which is now being cancelled."""
        return self._task if self._task.cancel() else None


def _outcome(task: asyncio.Task[Candidate]) -> Outcome:
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception() or task.result()


class LayerCalls:
    """The calls of one layer.

    Args:
        parse: reads each answer's value; one that cannot be read is asked for once more.
        candidate: makes what strategies see of an answer.
        min_ok: how many must have answered for the layer to go on without who is late.
        may_repeat: whether what cannot be read is asked for again.
    """

    def __init__(
        self, parse: Parse | None, candidate: Callable[..., Candidate], *, min_ok: int, may_repeat: bool
    ) -> None:
        self._parse, self._candidate = parse, candidate
        self._min_ok, self._may_repeat = max(min_ok, 1), may_repeat
        self._answers: list[Answer | None] = []
        self._records: list[CallRecord | None] = []
        self._tickets: dict[int, Ticket] = {}
        self._failure: BaseException | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._is_late = False
        self.n_unparsed = 0
        """Answers whose value could not be read."""

    def begin(self, record: CallRecord | None, begin: Begin, again: Again | None = None) -> None:
        """Return nothing; a call of this layer has begun.

        Args:
            record: where it is written down; ``None`` where a whole pipeline answers, which has its own.
            begin: asks.
            again: asks for another answer, if the first cannot be read.
        """
        place = len(self._answers)
        self._answers.append(None)
        self._records.append(record)
        if self._failure is None:
            self._ask(place, begin, again)

    def _ask(self, place: int, begin: Begin, again: Again | None) -> None:
        on_end = partial(self._land, place, again)
        try:
            begun = begin(on_end)
        except MoaError as error:
            on_end(error)
            return
        if isinstance(begun, Completion):
            on_end(begun)
        else:
            self._tickets[place] = begun

    async def over(self, patience: float | None) -> list[Answer]:
        """Return what came of each call, in the order in which they began.

        Raises:
            SetupError: of one of them, at once; the others are cancelled.
        """
        if self._tickets and self._failure is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = None if patience is None else loop.call_later(patience, self._lose_patience)
            try:
                await self._waiting
            except BaseException:
                await self._leave(None)
                raise
            finally:
                if timer is not None:
                    timer.cancel()
        if self._failure is not None:
            await self._leave(None)
            raise self._failure
        if self._tickets:
            await self._leave(ServiceError(f"no answer within the {patience:g} s that the layer waits"))
        return [answer for answer in self._answers if answer is not None]

    # What comes in ----------------------------------------------------------------------------

    def _land(self, place: int, again: Again | None, outcome: Outcome) -> None:
        self._tickets.pop(place, None)
        record, earlier = self._records[place], self._answers[place]
        answer: Answer | None
        if isinstance(outcome, Completion):
            assert record is not None
            error, value, text = no_answer(outcome), None, outcome.text.strip()
            if error is None and self._parse is not None:
                value = self._parse(text)
            record.answered(outcome, error, value)
            answer = earlier or error
            if error is None:
                found = self._candidate(text, record.agent, outcome.finish_reason, value, record.prompt)
                answer = self._readable(place, again, record, found)
            if answer is None:
                return  # asked once more
        elif isinstance(outcome, Candidate):
            answer = outcome if self._parse is None else replace(outcome, value=self._parse(outcome.text))
            self.n_unparsed += self._parse is not None and answer.value is None
        elif isinstance(outcome, MoaError) and outcome.kind != "setup":
            if record is not None:
                record.failed(outcome)
            answer = earlier or outcome
        else:
            if record is not None and isinstance(outcome, MoaError):
                record.failed(outcome)
            self._fail(outcome)
            return
        if earlier is not None and answer is earlier:
            self.n_unparsed += 1  # still better than none
        self._answers[place] = answer
        self._look()

    def _readable(self, place: int, again: Again | None, record: CallRecord, found: Candidate) -> Candidate | None:
        """Return the answer; ``None`` if its value could not be read and it is asked for once more."""
        if self._parse is None or found.value is not None:
            return found
        if again is None or not self._may_repeat:
            self.n_unparsed += 1
            return found
        self._answers[place] = found
        record.repeat()
        self._ask(place, partial(again, found.text), None)
        return None

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _look(self) -> None:
        """Let the layer go on, if nobody is waited for any more."""
        if self._waiting is None or self._waiting.done():
            return
        n_ok = sum(isinstance(answer, Candidate) for answer in self._answers) if self._is_late else 0
        if not self._tickets or (self._is_late and n_ok >= self._min_ok):
            self._waiting.set_result(None)

    def _lose_patience(self) -> None:
        self._is_late = True
        self._look()

    async def _leave(self, why: ServiceError | None) -> None:
        """Return once the calls that nobody waits for any more are closed."""
        tickets, self._tickets = self._tickets, {}
        ending = [task for ticket in tickets.values() if (task := ticket.leave()) is not None]
        if ending:
            # Closed only once whoever was asked has seen that nobody waits any more.
            await asyncio.wait(ending)
        for place, ticket in tickets.items():
            record = self._records[place]
            if record is not None:
                record.unreported = ticket.unreported
                if why is not None:
                    record.failed(why)
            if why is None or self._answers[place] is not None:
                self.n_unparsed += why is not None
            else:
                self._answers[place] = why


def no_answer(completion: Completion) -> RowError | None:
    """Return why a completion is no answer; ``None`` if it is one."""
    if completion.text.strip():
        return None
    if completion.finish_reason == "length":
        return RowError("the answer was cut off before it began: allow more max_tokens")
    if completion.finish_reason == "content_filter":
        return RowError("the service's content filter withheld the answer")
    if completion.reasoning:
        return RowError("the model thought but did not answer: allow more max_tokens")
    return RowError("the model answered with an empty text")
