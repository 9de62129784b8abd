"""Single flight: equal calls under way are one call."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from moa_nb.chat import Completion
from moa_nb.gateway.budget import Budget

__all__ = ["Flight", "Flights"]


@dataclass
class Flight:
    """One call that several callers wait for; it is cancelled when the last one leaves."""

    task: asyncio.Task[Completion]
    budget: Budget | None
    """What it is paid from."""
    waiters: int = 0


class Flights:
    """The calls under way, by the key that equal ones share."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}
        self._kept: set[bytes] = set()

    def keep(self, key: bytes) -> None:
        """Remember that somebody wants this flight's answer in the store."""
        self._kept.add(key)

    def is_kept(self, key: bytes) -> bool:
        """Return whether somebody wants this flight's answer in the store."""
        return key in self._kept

    def under_way(self, key: bytes) -> Flight | None:
        """Return the flight of a key; ``None`` if there is none that can be boarded."""
        flight = self._flights.get(key)
        return None if flight is None or flight.task.done() else flight

    def start(self, key: bytes, asking: Coroutine[Any, Any, Completion], budget: Budget | None) -> Flight:
        """Return the new flight of a key."""
        task = asyncio.get_running_loop().create_task(asking)
        flight = self._flights[key] = Flight(task, budget)
        task.add_done_callback(lambda done: self._land(key, flight, done))
        return flight

    async def join(self, key: bytes, flight: Flight) -> Completion:
        """Return what the flight brings; the last one to be cancelled takes it down."""
        flight.waiters += 1
        try:
            await asyncio.wait((flight.task,))
        except asyncio.CancelledError:
            if flight.waiters == 1 and not flight.task.done():
                # Nobody may board what is about to be cancelled.
                self._land(key, flight, None)
                flight.task.cancel()
                # The connection is closed only once the task has seen its cancellation.
                await asyncio.wait((flight.task,))
            raise
        finally:
            flight.waiters -= 1
        return flight.task.result()

    def _land(self, key: bytes, flight: Flight, task: asyncio.Task[Completion] | None) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
            self._kept.discard(key)
        if task is not None and not task.cancelled():
            task.exception()  # looked at, though nobody may be left to hear of it
