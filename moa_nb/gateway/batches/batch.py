"""One batch, from the moment before it is handed in to the moment when all its answers are kept."""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from moa_nb.chat import Completion
from moa_nb.errors import MoaError, ServiceError
from moa_nb.gateway.attempts import Attempts
from moa_nb.gateway.batches.answers import answers, keep
from moa_nb.gateway.batches.seats import Seat, Seats
from moa_nb.gateway.batches.service import BatchService
from moa_nb.gateway.http import Failed
from moa_nb.gateway.refusal import fault_from
from moa_nb.gateway.retry import Fault
from moa_nb.providers.batches import BatchState
from moa_nb.store import Store
from moa_nb.store.batches import BatchRow

__all__ = ["Batch"]

FIRST_PAUSE, PAUSES_GROW, LONGEST_PAUSE = 5.0, 1.5, 60.0
"""Seconds between two looks at a batch, and by what each pause is longer than the one before."""

SUBMIT_SECONDS = 600.0
"""For how long a batch is handed in again to a service that meets faults."""

DAY_SECONDS = 86_400.0
"""For how long a service may be out of reach that has a batch: as long as it may take for it."""

LATE_SECONDS = 15.0
"""How long after its time is over a request to make a batch may still make one."""

_LOOKS = 3
"""Looks in a row that find no such batch, before it is believed."""

_UNCERTAIN = frozenset({"disconnected", "timeout", "server", "malformed", "web page"})
"""Faults after which a batch may have been made."""

_OF_ALL = frozenset({"key", "payment", "model"})
"""What is wrong for all requests of a batch, and is said once."""


class Batch:
    """The calls of one batch. It goes on at the service whatever happens here.

    Args:
        service: who works through it.
        store: where it is written down, and its answers.
        attempts: makes the errors of calls.
        seats: who waits for it, by the key of what is sent.
        row: as the store has it, where an earlier process or another one has handed it in.
        ended: called when nobody looks after it any more; may be called twice.
    """

    def __init__(
        self,
        service: BatchService,
        store: Store,
        attempts: Attempts,
        seats: Mapping[bytes, list[Seat]],
        row: BatchRow | None,
        ended: Callable[[Batch], None],
    ) -> None:
        self.service, self.row = service, row
        self.is_crowded = False
        """Whether the service would have had too much under way with it."""
        self._store, self._attempts, self._ended = store, attempts, ended
        self._seats = Seats()
        self._task: asyncio.Task[None] | None = None
        for key, some in seats.items():
            for seat in some:
                self.join(seat, key)

    @property
    def n_requests(self) -> int:
        """How many requests it has."""
        return len(self._seats) if self.row is None else len(self.row.keys)

    def join(self, seat: Seat, key: bytes) -> None:
        """Return nothing; a call waits for the answer that this batch has under a key."""
        self._seats.add(seat, key)
        seat.batch = self
        if self.row is not None:
            seat.sent(self.service.now())

    def leave(self, seat: Seat) -> None:
        """Return nothing; when nobody waits any more, nobody looks at the batch any more. It is not cancelled."""
        self._seats.remove(seat)
        if not self._seats and self._task is not None:
            self._task.cancel()
            self._ended(self)  # at once, so that nobody joins it now

    def end(self, outcome: Fault | MoaError | None) -> None:
        """Return nothing; all calls that still wait end with this."""
        for seat in self._seats.all():
            seat.end(outcome)

    # Handing in -------------------------------------------------------------------------------

    async def submit(self) -> None:
        """Return once the service has the batch and the store its id.

        Raises:
            MoaError: the service does not take it.
        """
        base_url, api = self.service.route.base_url, self.service.api
        calls = self._seats.calls()
        for call in calls.values():
            call.sent_body = call.route.sent(call.body, is_streamed=False)
        lines = [api.line(key.hex(), call.sent_body) for key, call in calls.items()]
        keys = tuple((key, call.key or key) for key, call in calls.items())
        patiently = functools.partial(
            self.service.patiently, seconds=SUBMIT_SECONDS, ever_answered=self._attempts.ever_answered(base_url)
        )
        try:
            file = await patiently(lambda: self.service.upload(lines))
            await patiently(lambda: self._create(lines, file, keys))
        except Failed as failed:
            raise await self._error(failed.fault) from None
        self._attempts.answered(base_url)

    async def _create(self, lines: list[bytes], file: str, keys: tuple[tuple[bytes, bytes], ...]) -> None:
        """Return once the batch is made, and written down before and after.

        Raises:
            Failed: it was not made.
            ServiceError: it cannot be written down.
        """
        if not self._seats:
            return  # all have left meanwhile
        seconds = self.service.submit_seconds(lines)
        now = time.time()
        mark = secrets.token_hex(16)
        row = BatchRow(mark, now, now + seconds + LATE_SECONDS, self.service.model, None, keys)
        is_written = self._store.add_batch(row)
        if is_written is None:
            msg = (
                "the store cannot be written, and a batch is written down before it is paid for: leave mode='batch' out"
            )
            raise ServiceError(msg)
        if not is_written:
            self.end(None)  # another process was quicker: they wait for its batch
            return
        if any(call.kept(self._store) for call in self._seats.calls().values()):
            self._store.close_batch(row.mark)
            self.end(None)  # another process had a batch of them, and its answers came after these calls had looked
            return
        self.row = row
        for seat in self._seats.all():
            seat.sent(self.service.now())
        try:
            self._named(row, await self.service.create(lines, file, mark))
        except Failed as failed:
            batch = await self._found(row) if failed.fault.kind in _UNCERTAIN else None
            if batch is None:
                self._not_taken(row)
                self.row = None
                raise
            self._named(row, batch)

    def _named(self, row: BatchRow, batch: str) -> None:
        self._store.give_batch_id(row.mark, batch)
        self.row = replace(row, batch=batch)

    def _not_taken(self, row: BatchRow) -> None:
        """Return nothing; none of the batch was done, and none of it is billed."""
        self._store.close_batch(row.mark)
        for seat in self._seats.all():
            seat.is_sent = False

    async def _found(self, row: BatchRow) -> str | None:
        """Return the id of a batch of which only the store knows; ``None`` when it is certain that there is none.

        Raises:
            Failed: the service does not say.
        """
        pause = FIRST_PAUSE
        while True:
            known = self._store.batch(row.mark)
            if known is None or known.batch is not None:
                return None if known is None else known.batch  # another process has found out
            seconds = row.until - time.time()
            look = functools.partial(self.service.find, row, self._store.batch_ids())
            search = await self.service.patiently(look, DAY_SECONDS)
            if search.found is not None or (seconds < 0 and not search.is_open):
                return search.found
            await self.service.sleep(pause if search.is_open else min(pause, max(seconds, 0.0) + 0.1))
            pause = min(pause * PAUSES_GROW, LONGEST_PAUSE)

    # Waiting ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Return nothing; from now on somebody looks after the batch, if anybody waits for it."""
        if self._seats:
            self._task = asyncio.get_running_loop().create_task(self._go())
        else:
            self._ended(self)

    async def _go(self) -> None:
        outcome: Fault | MoaError | None = None
        try:
            outcome = await self._over()
        except MoaError as error:
            outcome = error
        except Failed as failed:
            outcome = await self._error(failed.fault)
        except Exception as error:  # whatever it is, nobody may wait for ever
            outcome = ServiceError(f"{self.service.route.provider.name}: the batch could not be read: {error}")
        finally:
            self._ended(self)
        self.end(outcome)

    async def _over(self) -> Fault | None:
        """Return, when the batch is over, what becomes of the calls that it did not answer.

        Raises:
            Failed: the service does not say how it stands.
            MoaError: it did not take the batch.
        """
        row = self.row
        assert row is not None
        if row.batch is None:
            batch = await self._found(row)
            if batch is None:
                self._not_taken(row)
                return None
            self._named(row, batch)
        else:
            batch = row.batch
        state = await self._ended_state(batch)
        name = self.service.route.provider.name
        if state is None:
            self._store.close_batch(row.mark)
            return Fault("server", f"{name} no longer knows the batch")
        if state.refusal is None:
            await self._deliver(state, row)
            return Fault("server", f"{name} ended the batch before this was answered")
        self._not_taken(row)
        fault = fault_from(self.service.route.wire, state.refusal, self.service.headers)
        if fault.kind == "final":
            raise await self._error(fault)
        self.is_crowded = self.n_requests > 1
        return None if self.is_crowded else fault

    async def _ended_state(self, batch: str) -> BatchState | None:
        """Return how the batch ended, when it has; ``None`` where the service does not know it.

        Raises:
            Failed: the service does not say.
        """
        pause, n_unknown = FIRST_PAUSE, 0
        while True:
            try:
                state = await self.service.patiently(lambda: self.service.look(batch), DAY_SECONDS)
            except Failed as failed:
                n_unknown += 1
                if failed.fault.status != 404:
                    raise
                if n_unknown == _LOOKS:
                    return None
            else:
                n_unknown = 0
                if state.is_over:
                    return state
            await self.service.sleep(pause)
            pause = min(pause * PAUSES_GROW, LONGEST_PAUSE)

    async def _deliver(self, state: BatchState, row: BatchRow) -> None:
        """Return once every answer is on disk and handed on; in between nobody needs to find the batch any more.

        Raises:
            Failed: the service does not give the results.
        """
        outcomes = await answers(self.service, state, row, self._seats, DAY_SECONDS)
        completions = [outcome for outcome in outcomes.values() if isinstance(outcome, Completion)]
        await keep(self._store, [one for one in completions if one.text.strip()], row.model)
        self._store.close_batch(row.mark)
        errors: dict[str | None, MoaError] = {}
        for key, outcome in outcomes.items():
            for seat in self._seats.of(key):
                if isinstance(outcome, Completion):
                    seat.call.is_kept = True
                    seat.end(outcome)
                elif outcome.cause in _OF_ALL:
                    if outcome.cause not in errors:
                        errors[outcome.cause] = await self._attempts.error(seat.call, outcome)
                    seat.is_sent = False
                    seat.end(errors[outcome.cause])
                else:
                    seat.end(outcome)

    async def _error(self, fault: Fault) -> MoaError:
        """Return the error of all calls of the batch."""
        call = next(iter(self._seats.calls().values()), None)
        if call is None:
            return ServiceError(f"{self.service.route.provider.name}: {fault.message}")
        return await self._attempts.error(call, fault)
