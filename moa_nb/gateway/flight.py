"""Single flight: equal calls under way are one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moa_nb.chat import Completion
from moa_nb.gateway.attempts import Call

__all__ = ["Flight", "Flights", "Outcome", "Ticket"]

Outcome = Completion | BaseException
"""What a flight brings."""


class Ticket:
    """One passenger's right to what a flight brings; ``leave`` gives it back."""

    __slots__ = ("flight", "moved", "on_end")

    def __init__(self, flight: Flight, on_end: Callable[[Outcome], None]) -> None:
        self.flight, self.on_end = flight, on_end
        self.moved: Ticket | None = None
        """Its passenger's place on a later flight, where this one was of no use."""
        flight.tickets.append(self)

    @property
    def unreported(self) -> int:
        """How many of the flight's attempts may be billed though nobody reported them."""
        return self.moved.unreported if self.moved is not None else self.flight.call.unreported

    def leave(self) -> asyncio.Task[None] | None:
        """Return the flight's task if this was its last passenger, so that it is now cancelled; else ``None``."""
        if self.moved is not None:
            return self.moved.leave()
        flight = self.flight
        if self not in flight.tickets:
            return None
        flight.tickets.remove(self)
        return None if flight.tickets else flight.cancel()


class Flight:
    """One call that several callers wait for; it is cancelled when the last one leaves."""

    __slots__ = ("_flights", "call", "is_kept", "key", "task", "tickets")

    def __init__(self, flights: dict[bytes, Flight], call: Call) -> None:
        self._flights, self.call = flights, call
        key = self.key = call.key
        self.tickets: list[Ticket] = []
        self.is_kept = False
        """Whether somebody wants its answer in the store."""
        self.task: asyncio.Task[None] | None = None
        if key is not None:
            flights[key] = self

    def cancel(self) -> asyncio.Task[None] | None:
        """Return its task, which is about to end; nobody may board it any more."""
        if self.task is None or self.task.done():
            return None  # it was answered, and is only being written down
        self._leave_board()
        self.task.cancel()
        return self.task

    def _leave_board(self) -> None:
        if self.key is not None and self._flights.get(self.key) is self:
            del self._flights[self.key]

    def land(self, outcome: Outcome) -> None:
        """Return nothing; every passenger has what came of it."""
        self._leave_board()
        tickets, self.tickets = self.tickets, []
        for ticket in tickets:
            ticket.on_end(outcome)


class Flights:
    """The calls under way, by the key that equal ones share."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}

    def under_way(self, key: bytes | None) -> Flight | None:
        """Return the flight of a key that can be boarded; ``None`` if there is none."""
        return None if key is None else self._flights.get(key)

    def new(self, call: Call) -> Flight:
        """Return a flight that others can board under the call's key; nobody can where it has none."""
        return Flight(self._flights, call)
