"""A ceiling in dollars: the worst case is set aside before a call and settled after it."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from moa_nb.errors import BudgetExceeded
from moa_nb.gateway.limits import Priority

__all__ = ["Budget"]

_ROUNDING = 1e-12


class Budget:
    """Dollars that a run may cost, shared by all its calls.

    ``reserve`` waits while other calls in flight may still give something back, and refuses when
    nothing can. What comes back goes to earlier rows first, so that rows are finished and not only
    begun when the money ends. A call that was cut off and never reported stays at its reservation:
    ``spent`` is then an upper bound.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent = 0.0
        """Dollars settled, unreported calls at their worst case."""
        self.unreported = 0.0
        """The part of ``spent`` that no service reported."""
        self.reserved = 0.0
        self._queue: list[tuple[Priority, int, float, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def left(self) -> float:
        """Dollars that are neither spent nor set aside."""
        return self.limit - self.spent - self.reserved

    async def reserve(self, dollars: float, priority: Priority = (0, 0)) -> float:
        """Return ``dollars``, set aside.

        Raises:
            BudgetExceeded: they do not fit, whatever the calls in flight give back.
        """
        if dollars <= 0:
            return 0.0
        if self._fits(dollars) and not (self._queue and self._queue[0][0] < priority):
            self.reserved += dollars
            return dollars
        if self._never_fits(dollars):
            raise self._refusal(dollars)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._order), dollars, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(dollars)
            raise
        return dollars

    def settle(self, reserved: float, paid: float | None) -> None:
        """Return nothing; a reservation becomes what was paid, or is spent whole where that is unknown."""
        if paid is None:
            self.unreported += reserved
        self.spent += reserved if paid is None else paid
        self._give_back(reserved)

    def _give_back(self, dollars: float) -> None:
        self.reserved = max(self.reserved - dollars, 0.0)
        while self._queue:
            _, _, wanted, turn = self._queue[0]
            if not turn.done():
                if self._fits(wanted):
                    self.reserved += wanted
                    turn.set_result(None)
                elif self._never_fits(wanted):
                    turn.set_exception(self._refusal(wanted))
                else:
                    return
            heapq.heappop(self._queue)

    def _fits(self, dollars: float) -> bool:
        return dollars <= self.left + _ROUNDING

    def _never_fits(self, dollars: float) -> bool:
        return dollars > self.limit - self.spent + _ROUNDING

    def _refusal(self, dollars: float) -> BudgetExceeded:
        return BudgetExceeded(
            f"the next call could cost ${dollars:.4f}, and of the budget of ${self.limit:.4f} only"
            f" ${max(self.limit - self.spent, 0):.4f} is left; run again with a higher budget to go on from here",
        )
