"""The other transport: calls that wait together, and go out together when nothing else moves.

A call in batch mode takes a seat. When every row waits (no live call of such a run is under way, and for a moment no
new call came) or a batch is full, all seats of one model become a batch. A strategy knows nothing of it: to each layer
of it, its answers only take longer.

A batch that is under way is paid work. Whoever stops waiting (an interrupt, ``stop``, the end of the process) leaves it
to the service; the store knows it, and a call that is asked again waits for it in place of being handed in again. The
deadline of a call and hedging do not apply here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

from moa_nb.chat import Completion
from moa_nb.errors import KeyRejected, MoaError, ServiceError
from moa_nb.gateway.attempts import UNPAID, Attempts, Call, paid_of, worst_of
from moa_nb.gateway.batches.batch import Batch
from moa_nb.gateway.batches.seats import Outcome, Seat
from moa_nb.gateway.batches.service import BatchService
from moa_nb.gateway.http import Http
from moa_nb.gateway.retry import Fault
from moa_nb.gateway.route import Route
from moa_nb.providers.batches import HALF, batch_api
from moa_nb.store import Store
from moa_nb.store.batches import BatchRow

__all__ = ["Batches"]

QUIET_SECONDS = 1.0
"""For how long no call may have come, before those that wait are all that there are."""

_MOST_BATCHES = 2
"""Of one call: what a batch did not answer is handed in once more."""

_Seats = dict[bytes, list[Seat]]


class Batches:
    """The calls that wait for a batch and the batches under way, on one event loop.

    Args:
        store: where batches and their answers are written down.
        attempts: makes the errors of calls.
        http: the loop's connections.
        clock: seconds, never going back.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        store: Store,
        attempts: Attempts,
        http: Callable[[], Http],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._store, self._attempts, self._http = store, attempts, http
        self._clock, self._sleep = clock, sleep
        self._services: dict[str, BatchService] = {}
        self._waiting: dict[BatchService, dict[Seat, None]] = {}
        self._under_way: dict[str, Batch] = {}
        """By their marks."""
        self._most: dict[BatchService, int] = {}
        """Requests of a batch, where the service said that more are too many at a time."""
        self._n_live = self._n_came = 0
        self._departures: asyncio.Task[None] | None = None

    def takes(self, route: Route) -> bool:
        """Return whether calls to a model can wait for a batch."""
        return batch_api(route.provider) is not None

    def wait_for(self, live: asyncio.Task[None]) -> None:
        """Return nothing; while this task of a call that goes out live is not done, more calls may come of it."""
        self._n_live += 1
        live.add_done_callback(self._landed)

    def _landed(self, _: asyncio.Task[None]) -> None:
        self._n_live -= 1
        self._n_came += 1

    async def ask(self, call: Call) -> Completion:
        """Return the completion that a batch brings; it is in the store already.

        Raises:
            MoaError: there is none.
        """
        call.asked = call.sent = self._clock()
        if call.budget is not None:
            call.worst = worst_of(call, call.budget) * (HALF if call.budget.unit == "dollars" else 1.0)
        try:
            while True:
                outcome = await self._ride(call)
                if outcome is None:
                    # Whoever had it under way may have the answer by now.
                    known = call.kept(self._store)
                    if known is None:
                        continue
                    call.is_kept = True
                    return replace(known, unreported=call.unreported)
                if isinstance(outcome, Fault) and outcome.status in {400, 422} and self._learns(call, outcome):
                    continue
                call.attempts += 1
                if isinstance(outcome, Completion):
                    now = self._clock()
                    return replace(
                        outcome,
                        seconds=now - call.asked,
                        queued_seconds=call.sent - call.asked,
                        attempts=call.attempts,
                        unreported=call.unreported,
                    )
                call.fault = outcome
                if outcome.kind in {"final", "moved"} or call.attempts >= _MOST_BATCHES:
                    raise await self._attempts.error(call, outcome)
                if call.watch is not None:
                    call.watch.again(outcome.message, 0.0)
        except MoaError as error:
            error.unreported = call.unreported
            raise

    def _learns(self, call: Call, fault: Fault) -> bool:
        return call.route.learn(fault.message, call.sent_body, call.body, is_streamed=False)

    async def _ride(self, call: Call) -> Outcome:
        """Return what one batch brings a call, once the budget lets it go out."""
        budget = call.budget
        if budget is not None:
            await budget.reserve(call.worst, call.priority)
        paid: float | None = 0.0
        seat = Seat(call, asyncio.get_running_loop().create_future())
        try:
            self._take(seat)
            outcome = await seat.outcome
            if isinstance(outcome, Completion):
                if budget is not None:
                    paid = None if outcome.usage.estimated else paid_of(budget, outcome)
            elif outcome is not None and outcome.kind not in UNPAID:
                paid = None
                call.may_be_billed()
            return outcome  # noqa: TRY300 - an ``else`` would be outside of what must be settled
        except BaseException:
            # It is paid for, and whoever asks again has the answer.
            if seat.is_sent:
                paid = None
                call.may_be_billed()
            raise
        finally:
            self._leave(seat)
            if budget is not None:
                budget.settle(call.worst, paid)

    # Seats ------------------------------------------------------------------------------------

    def _take(self, seat: Seat) -> None:
        self._n_came += 1
        self._waiting.setdefault(self._service(seat.call.route), {})[seat] = None
        if self._departures is None or self._departures.done():
            self._departures = asyncio.get_running_loop().create_task(self._depart_all())

    def _leave(self, seat: Seat) -> None:
        if seat.batch is not None:
            seat.batch.leave(seat)
        else:
            self._waiting.get(self._service(seat.call.route), {}).pop(seat, None)

    def _service(self, route: Route) -> BatchService:
        model = f"{route.provider.name}:{route.model}"
        found = self._services.get(model)
        if found is None:
            api = batch_api(route.provider)
            assert api is not None
            found = self._services[model] = BatchService(route, api, self._http, self._clock, self._sleep)
        return found

    # Departures -------------------------------------------------------------------------------

    async def _depart_all(self) -> None:
        """Return when no call waits for a batch to be made."""
        while any(self._waiting.values()):
            await self._quiet()
            await self._depart()

    async def _quiet(self) -> None:
        """Return when every row waits, or a batch is full."""
        while True:
            came = self._n_came
            await self._sleep(QUIET_SECONDS)
            if came == self._n_came and not self._n_live:
                return
            if any(len(seats) >= service.api.most_requests for service, seats in self._waiting.items()):
                return

    async def _depart(self) -> None:
        """Return once the calls that wait are in batches: those that are under way, or new ones."""
        waiting, self._waiting = self._waiting, {}
        try:
            rows: dict[bytes, tuple[BatchRow, bytes]] = {}
            for row in self._store.open_batches():
                for sent, asked in row.keys:
                    rows[asked] = rows[sent] = row, sent
            refused: dict[str, KeyRejected] = {}
            for service, seats in waiting.items():
                for chunk in self._chunks(service, self._left(seats, rows)):
                    await self._hand_in(Batch(service, self._store, self._attempts, chunk, None, self._ended), refused)
        except Exception as error:  # whatever it is, nobody may wait for ever
            failure = ServiceError(f"batches cannot be made: {error}")
            for seats in waiting.values():
                for seat in seats:
                    if seat.batch is None:
                        seat.end(failure)

    async def _hand_in(self, batch: Batch, refused: dict[str, KeyRejected]) -> None:
        """Return once the service has a batch, or its calls have the error; a key is refused once, not for each batch."""
        base_url = batch.service.route.base_url
        if base_url in refused:
            batch.end(refused[base_url])
            return
        try:
            await batch.submit()
        except MoaError as error:
            if isinstance(error, KeyRejected):
                refused[base_url] = error
            batch.end(error)
        except Exception as error:  # whatever it is, nobody may wait for ever
            batch.end(ServiceError(f"a batch cannot be made: {error}"))
        else:
            self._look_after(batch)

    def _left(self, seats: dict[Seat, None], rows: dict[bytes, tuple[BatchRow, bytes]]) -> _Seats:
        """Return the calls that are in no batch yet; the others wait for theirs from now on."""
        left: _Seats = {}
        for seat in seats:
            if seat.outcome.done():
                continue  # it has left meanwhile
            known = rows.get(seat.key) or rows.get(seat.call.key or b"")
            if known is None:
                left.setdefault(seat.key, []).append(seat)
                continue
            row, key = known
            batch = self._under_way.get(row.mark)
            if batch is None:
                service = self._service(seat.call.route)
                batch = Batch(service, self._store, self._attempts, {}, row, self._ended)
                batch.join(seat, key)
                self._look_after(batch)
            else:
                batch.join(seat, key)
        return left

    def _chunks(self, service: BatchService, seats: _Seats) -> Iterator[_Seats]:
        """Yield what fits into a batch each; what has to wait for another batch's end takes its seats again."""
        most = self._most.get(service)
        limit = min(service.api.most_requests, most or service.api.most_requests)
        if most is not None and any(batch.service is service for batch in self._under_way.values()):
            self._again(service, seats)
            return
        chunk: _Seats = {}
        size = 0
        while seats:
            key, some = next(iter(seats.items()))
            length = len(service.api.line(key.hex(), some[0].call.body)) + 1
            if chunk and (len(chunk) == limit or size + length > service.api.most_bytes):
                yield chunk
                if most is not None:
                    self._again(service, seats)
                    return
                chunk, size = {}, 0
            chunk[key] = [seat for seat in seats.pop(key) if not seat.outcome.done()]
            size += length
            if not chunk[key]:
                del chunk[key]
        if chunk:
            yield chunk

    def _again(self, service: BatchService, seats: _Seats) -> None:
        waiting = self._waiting.setdefault(service, {})
        waiting.update((seat, None) for some in seats.values() for seat in some)

    def _look_after(self, batch: Batch) -> None:
        if batch.row is not None:
            self._under_way[batch.row.mark] = batch
            batch.start()

    def _ended(self, batch: Batch) -> None:
        if batch.row is not None:
            self._under_way.pop(batch.row.mark, None)
        if batch.is_crowded:
            # Half of it, one at a time, until the service takes it.
            self._most[batch.service] = max(batch.n_requests // 2, 1)
