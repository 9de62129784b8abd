"""The calls that wait for a batch."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moa_nb.chat import Completion
from moa_nb.errors import MoaError
from moa_nb.gateway.attempts import Call
from moa_nb.gateway.retry import Fault

if TYPE_CHECKING:
    from moa_nb.gateway.batches.batch import Batch

__all__ = ["Outcome", "Seat", "Seats"]

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

    def sent(self, now: float) -> None:
        """Return nothing; from now on the service may have it."""
        call = self.call
        self.is_sent, call.sent = True, now
        if not call.sent_body:
            call.sent_body = call.route.sent(call.body, is_streamed=False)
        if call.watch is not None:
            call.watch.sent(call.attempts + 1)

    def end(self, outcome: Outcome | MoaError) -> None:
        """Return nothing; who waits has what came of it, if anybody still does."""
        if self.outcome.done():
            return
        if isinstance(outcome, MoaError):
            self.outcome.set_exception(copy.copy(outcome))  # each run writes its own result on it
        else:
            self.outcome.set_result(outcome)


class Seats:
    """Seats by the key of what is sent; equal requests are one."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, list[Seat]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, seat: Seat, key: bytes) -> None:
        """Return nothing; a call waits for the answer under this key."""
        self._by_key.setdefault(key, []).append(seat)
        seat.place = key

    def remove(self, seat: Seat) -> None:
        """Return nothing; a call waits no more."""
        some = self._by_key.get(seat.place, [])
        if seat in some:
            some.remove(seat)
            if not some:
                del self._by_key[seat.place]

    def of(self, key: bytes) -> list[Seat]:
        """Return who waits for the answer under a key."""
        return list(self._by_key.get(key, ()))

    def all(self) -> list[Seat]:
        """Return all who wait."""
        return [seat for some in self._by_key.values() for seat in some]

    def calls(self) -> dict[bytes, Call]:
        """Return one call for each key."""
        return {key: some[0].call for key, some in self._by_key.items()}
