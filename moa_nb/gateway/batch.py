"""One batch, from the moment before it is handed in to the moment when all its answers are kept."""

from __future__ import annotations

import asyncio
import copy
import functools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moa_nb.chat import Completion
from moa_nb.errors import MoaError, ServiceError
from moa_nb.gateway.attempts import Attempts, Call
from moa_nb.gateway.batch_service import BatchService
from moa_nb.gateway.exchange import parsed
from moa_nb.gateway.http import Answer, Failed
from moa_nb.gateway.refusal import fault_from
from moa_nb.gateway.retry import Fault
from moa_nb.providers.batches import HALF, BatchState
from moa_nb.store import Store
from moa_nb.store.batches import BatchRow

__all__ = ["Batch", "Outcome", "Seat"]

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

_YIELD = 200
"""Answers that are read before others on the loop have their turn."""

Outcome = Completion | Fault | None
"""What a batch brings a call; ``None``: nothing was done for it, and it can be handed in again."""


@dataclass(slots=True, eq=False)
class Seat:
    """One call that waits for a batch, or for its answer in one."""

    call: Call
    outcome: asyncio.Future[Outcome]
    batch: Batch | None = None
    """The one that it is in."""
    place: bytes = b""
    """Under which key it is there."""
    is_sent: bool = False
    """Whether the service may have it."""

    @property
    def key(self) -> bytes:
        """The digest of what is sent; ``custom_id`` in hexadecimal."""
        assert self.call.cut_key is not None  # only calls to services have seats
        return self.call.cut_key

    def end(self, outcome: Outcome | MoaError) -> None:
        """Return nothing; who waits has what came of it, if anybody still does."""
        if self.outcome.done():
            return
        if isinstance(outcome, MoaError):
            self.outcome.set_exception(copy.copy(outcome))  # each run writes its own result on it
        else:
            self.outcome.set_result(outcome)


class Batch:
    """The seats of one batch. It goes on at the service whatever happens here.

    Args:
        service: who works through it.
        store: where it is written down, and its answers.
        attempts: makes the errors of calls.
        seats: who waits for it, by the key of what is sent; equal requests are one.
        row: as the store has it, where an earlier process or another one has handed it in.
        ended: called when nobody needs to look after it any more.
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
        self._store, self._attempts, self._ended = store, attempts, ended
        self._seats: dict[bytes, list[Seat]] = {}
        self._task: asyncio.Task[None] | None = None
        self.is_crowded = False
        """Whether the service would have had too much under way with it."""
        for key, some in seats.items():
            for seat in some:
                self.join(seat, key)

    @property
    def n_requests(self) -> int:
        """How many requests it has."""
        return len(self._seats) if self.row is None else len(self.row.keys)

    def join(self, seat: Seat, key: bytes) -> None:
        """Return nothing; a call waits for the answer that this batch has under a key."""
        self._seats.setdefault(key, []).append(seat)
        seat.batch, seat.place = self, key
        if self.row is not None:
            self._sent(seat)

    def leave(self, seat: Seat) -> None:
        """Return nothing; when nobody waits any more, nobody looks at the batch any more. It is not cancelled."""
        some = self._seats.get(seat.place, [])
        if seat in some:
            some.remove(seat)
            if not some:
                del self._seats[seat.place]
        if not self._seats and self._task is not None:
            self._task.cancel()

    def _sent(self, seat: Seat) -> None:
        seat.is_sent = True
        seat.call.sent = self.service.now()
        if seat.call.watch is not None:
            seat.call.watch.sent(seat.call.attempts + 1)

    def end(self, outcome: Fault | MoaError | None) -> None:
        """Return nothing; all calls that still wait end with this."""
        for seat in self._all():
            seat.end(outcome)

    def _all(self) -> list[Seat]:
        return [seat for some in self._seats.values() for seat in some]

    # Handing in -------------------------------------------------------------------------------

    async def submit(self) -> None:
        """Return once the service has the batch and the store its id.

        Raises:
            MoaError: the service does not take it.
        """
        base_url, api = self.service.route.base_url, self.service.api
        calls = {key: some[0].call for key, some in self._seats.items()}
        for call in calls.values():
            call.sent_body = call.route.sent(call.body, is_streamed=False)
        lines = [api.line(key.hex(), call.sent_body) for key, call in calls.items()]
        keys = tuple((key, call.key or key) for key, call in calls.items())
        try:
            ever_answered = self._attempts.ever_answered(base_url)
            file = await self.service.patiently(
                lambda: self.service.upload(lines), SUBMIT_SECONDS, ever_answered=ever_answered
            )
            await self.service.patiently(
                lambda: self._create(lines, file, keys), SUBMIT_SECONDS, ever_answered=ever_answered
            )
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
        seconds = self.service.submit_seconds(sum(map(len, lines)))
        now = time.time()
        mark = secrets.token_hex(16)
        row = BatchRow(mark, now, now + seconds + LATE_SECONDS, self.service.model, None, keys)
        self._must(self._store.add_batch(row))
        self.row = row
        for seat in self._all():
            self._sent(seat)
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
        for seat in self._all():
            seat.is_sent = False

    def _must(self, is_written: bool) -> None:
        if not is_written:
            msg = "the store cannot be written, and a batch must be written down before it is paid for; leave mode='batch' out"
            raise ServiceError(msg)

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
            is_late = time.time() > row.until
            look = functools.partial(self.service.find, row, self._store.batch_ids())
            search = await self.service.patiently(look, DAY_SECONDS)
            if search.found is not None or (is_late and not search.is_open):
                return search.found
            await self.service.sleep(pause if search.is_open else min(pause, max(row.until - time.time(), 0.0) + 0.1))
            pause = min(pause * PAUSES_GROW, LONGEST_PAUSE)

    # Waiting ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Return nothing; from now on somebody looks after the batch."""
        if not self._seats:
            self._ended(self)  # all have left while it was handed in
            return
        self._task = asyncio.get_running_loop().create_task(self._go())

    async def _go(self) -> None:
        outcome: Fault | MoaError | None = None
        try:
            outcome = await self._watch()
        except MoaError as error:
            outcome = error
        except Failed as failed:
            outcome = await self._error(failed.fault)
        except Exception as error:  # whatever it is, nobody may wait for ever
            outcome = ServiceError(f"{self.service.route.provider.name}: the batch could not be read: {error}")
        finally:
            self._ended(self)
        self.end(outcome)

    async def _watch(self) -> Fault | None:
        """Return what becomes of the calls that the batch did not answer.

        Raises:
            Failed: the service does not say how it stands.
        """
        row = self.row
        assert row is not None
        if row.batch is None:
            batch = await self._found(row)
            if batch is None:
                self._not_taken(row)
                return None
            self._named(row, batch)
        state = await self._over()
        if state is None:
            self._store.close_batch(row.mark)
            return Fault("server", f"{self.service.route.provider.name} no longer knows the batch")
        if state.refusal is not None:
            self._not_taken(row)
            fault = fault_from(self.service.route.wire, state.refusal, self.service.headers)
            self.is_crowded = fault.kind == "rate limit" and self.n_requests > 1
            if fault.kind == "final":
                raise await self._error(fault)
            return None if self.is_crowded else fault
        await self._deliver(state)
        return Fault("server", "the batch came to its end before this was answered")

    async def _over(self) -> BatchState | None:
        """Return how the batch ended; ``None`` where the service does not know it.

        Raises:
            Failed: the service does not say.
        """
        assert self.row is not None
        batch = self.row.batch
        assert batch is not None
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

    # What came back ---------------------------------------------------------------------------

    async def _deliver(self, state: BatchState) -> None:
        """Return once every answer is on disk and handed on, the row closed in between.

        Raises:
            Failed: the service does not give the results.
        """
        row = self.row
        assert row is not None
        outcomes = await self._outcomes(state, row)
        completions = [outcome for outcome in outcomes.values() if isinstance(outcome, Completion)]
        await self._keep([one for one in completions if one.text.strip()], row.model)
        self._store.close_batch(row.mark)
        errors: dict[str | None, MoaError] = {}
        for key, outcome in outcomes.items():
            for seat in list(self._seats.get(key, ())):
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

    async def _outcomes(self, state: BatchState, row: BatchRow) -> dict[bytes, Completion | Fault]:
        """Return what the batch has for each of its requests; those that it did not answer are left out."""
        asked, headers = dict(row.keys), self.service.headers
        outcomes: dict[bytes, Completion | Fault] = {}
        for path in state.paths:
            fetch = functools.partial(self.service.results, path)
            for custom_id, answer in await self.service.patiently(fetch, DAY_SECONDS):
                key = _key(custom_id)
                if answer is None or key not in asked:
                    continue
                outcomes[key] = self._outcome(answer, headers, (key, asked[key]), row.at)
                if len(outcomes) % _YIELD == 0:
                    await asyncio.sleep(0)
        return outcomes

    def _outcome(
        self, answer: Answer, headers: dict[str, str], keys: tuple[bytes, bytes], at: float
    ) -> Completion | Fault:
        """Return what one request brought, at the price of a batch."""
        route = self.service.route
        sent, asked = keys
        try:
            completion = parsed(route, answer, headers)
        except Failed as failed:
            return failed.fault
        usage, cost = completion.usage, completion.cost
        if cost is None:
            some = self._seats.get(sent)
            if some:
                usage, cost = route.accounted(some[0].call.request, completion)
            elif route.price is not None and usage.prompt_tokens is not None and usage.completion_tokens is not None:
                cost = route.price.cost(usage)
            cost = None if cost is None else cost * HALF
        key = sent if completion.finish_reason == "length" else asked
        return replace(completion, usage=usage, cost=cost, seconds=max(time.time() - at, 0.0), key=key)

    async def _keep(self, completions: Sequence[Completion], model: str) -> None:
        """Return once all of them are committed."""
        if not completions:
            return
        left = len(completions)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def kept() -> None:
            nonlocal left
            left -= 1
            if not left and not done.done():
                done.set_result(None)

        for completion in completions:
            assert completion.key is not None  # given just above
            self._store.put_soon(completion.key, completion, kept, model)
        await done

    async def _error(self, fault: Fault) -> MoaError:
        some = next(iter(self._seats.values()), None)
        if some is None:
            return ServiceError(f"{self.service.route.provider.name}: {fault.message}")
        return await self._attempts.error(some[0].call, fault)


def _key(custom_id: str) -> bytes:
    try:
        return bytes.fromhex(custom_id)
    except ValueError:
        return b""
