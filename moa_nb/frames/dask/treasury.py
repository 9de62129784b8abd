"""What all processes may take together: seats for processes, money for partitions. One a scheduler."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

__all__ = ["Asked", "Ledger", "Treasury", "ask", "more", "n_processes", "process_of", "settle"]

_MINUTE = 60.0
"""Seconds for which a rate remembers."""

_SLICES = 4
"""Partitions that run at the same time could take so much of what is left so often: little is lost with a process."""


class Asked(NamedTuple):
    """What a partition asks before it begins."""

    work: str
    """What all partitions of one verb share."""
    attempt: str
    """This partition, this time: one that is done again is another."""
    process: str
    workers: int | None
    """Processes that share the limits; ``None``: as many as there are when the first partition begins."""
    limit: float | None
    """The budget of all partitions; ``None`` where there is none."""
    has_rates: bool
    """Whether something is limited per minute."""


@dataclass
class Ledger:
    """A budget over the partitions of one verb.

    A partition is given a little when it needs it, and gives back what it did not take when it is done. One whose
    process is gone has taken all that it was given: nobody can say better.

    >>> ledger = Ledger(limit=1.0)
    >>> ledger.more("one", "p1", needed=0.5, n_slots=2), ledger.more("two", "p2", needed=0.01, n_slots=2)
    (0.5, 0.0625)
    >>> ledger.settle("one", 0.1)
    >>> ledger.bury({"p1"})
    >>> ledger.left
    0.8375
    """

    limit: float
    spent: float = 0.0
    given: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By attempt, its process and what it may take."""

    @property
    def left(self) -> float:
        """What is neither spent nor given."""
        return max(self.limit - self.spent - sum(amount for _, amount in self.given.values()), 0.0)

    def more(self, attempt: str, process: str, needed: float, n_slots: int) -> float:
        """Return what an attempt may take besides.

        Args:
            attempt: its name.
            process: where it runs.
            needed: by its next call.
            n_slots: partitions that may run at the same time.
        """
        left = self.left
        amount = min(max(needed, left / (_SLICES * max(n_slots, 1))), left)
        self.given[attempt] = (process, self.given.get(attempt, (process, 0.0))[1] + amount)
        return amount

    def settle(self, attempt: str, spent: float) -> None:
        """Return nothing; an attempt is over. What is told of one that was buried changes nothing."""
        if self.given.pop(attempt, None) is not None:
            self.spent += spent

    def bury(self, living: set[str]) -> None:
        """Return nothing; what was given to processes that are gone is spent."""
        for attempt, (process, amount) in [*self.given.items()]:
            if process not in living:
                del self.given[attempt]
                self.spent += amount


@dataclass
class _Seat:
    """A process at work, with one part of the limits."""

    attempts: set[str] = field(default_factory=set)
    idle_since: float = 0.0
    holds: float = 0.0
    """Seconds for which nobody else may have it, since a rate remembers what went out."""


class Treasury:
    """Seats and ledgers. All is done by the scheduler's own thread, one thing after the other."""

    def __init__(self) -> None:
        self._seats: dict[tuple[str, int], _Seat] = {}
        """By process, and among how many the limits are divided."""
        self._ledgers: dict[str, Ledger] = {}
        self._n_processes: dict[str, int] = {}

    def ask(self, asked: Asked, living: Mapping[str, int], now: float) -> int | None:
        """Return among how many processes the limits are divided, and begin; ``None``: all seats are taken, ask again.

        Args:
            asked: by it.
            living: the threads of each process.
            now: seconds, never going back.
        """
        self._bury(set(living), now)
        n = self._n_processes.setdefault(asked.work, asked.workers or max(len(living), 1))
        seat = self._seats.get((asked.process, n))
        if seat is None:
            taken = sum((Fraction(1, parts) for _, parts in self._seats), Fraction(1, n))
            if taken > 1:
                return None
            seat = self._seats[asked.process, n] = _Seat()
        seat.attempts.add(asked.attempt)
        if asked.has_rates:
            seat.holds = _MINUTE
        if asked.limit is not None:
            self._ledgers.setdefault(asked.work, Ledger(asked.limit))
        return n

    def more(self, asked: Asked, needed: float, living: Mapping[str, int], now: float) -> float:
        """Return what a partition that has begun may take of the budget besides."""
        self._bury(set(living), now)
        if asked.process not in living:
            return 0.0  # taken for dead, though it is not
        return self._ledgers[asked.work].more(asked.attempt, asked.process, needed, sum(living.values()))

    def settle(self, work: str, attempt: str, spent: float, now: float) -> None:
        """Return nothing; an attempt is over, and its seat is free if it was the last there."""
        for seat in self._seats.values():
            if attempt in seat.attempts:
                seat.attempts.remove(attempt)
                seat.idle_since = now
        if work in self._ledgers:
            self._ledgers[work].settle(attempt, spent)

    def _bury(self, living: set[str], now: float) -> None:
        """Return nothing; processes that are gone lose their seats and what they were granted."""
        for ledger in self._ledgers.values():
            ledger.bury(living)
        for key, seat in [*self._seats.items()]:
            if seat.attempts and key[0] not in living:
                seat.attempts.clear()
                seat.idle_since = now
            if not seat.attempts and now - seat.idle_since >= seat.holds:
                del self._seats[key]


# On the scheduler --------------------------------------------------------------------------------


def ask(asked: Asked, dask_scheduler: Any = None) -> int | None:
    """Return among how many processes the limits are divided; ``None``: wait. Run by the scheduler."""
    return _treasury(dask_scheduler).ask(asked, _living(dask_scheduler), time.monotonic())


def more(asked: Asked, needed: float, dask_scheduler: Any = None) -> float:
    """Return what a partition may take besides; run by the scheduler."""
    return _treasury(dask_scheduler).more(asked, needed, _living(dask_scheduler), time.monotonic())


def n_processes(dask_scheduler: Any = None) -> int:
    """Return how many processes would share the limits now, at least one; run by the scheduler."""
    return max(len(_living(dask_scheduler)), 1)


def settle(work: str, attempt: str, spent: float, dask_scheduler: Any = None) -> None:
    """Return nothing; a partition is over; run by the scheduler."""
    _treasury(dask_scheduler).settle(work, attempt, spent, time.monotonic())


def process_of(address: str, server: str) -> str:
    """Return what tells a worker's process from others: those within the scheduler's own are one.

    >>> process_of("inproc://10.0.0.1/7/8", "Worker-1"), process_of("tcp://10.0.0.1:9", "Worker-2")
    ('inproc', 'Worker-2')
    """
    return "inproc" if address.startswith("inproc:") else server


def _living(scheduler: Any) -> dict[str, int]:
    """Return the threads of each process."""
    living: dict[str, int] = {}
    for worker in scheduler.workers.values():
        process = process_of(worker.address, worker.server_id)
        living[process] = living.get(process, 0) + worker.nthreads
    return living


def _treasury(scheduler: Any) -> Treasury:
    found: Treasury = scheduler.extensions.setdefault("moa_nb", Treasury())
    return found
