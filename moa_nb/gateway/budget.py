"""A ceiling on what a run may take: the worst case is set aside before a call and settled after it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Literal

from moa_nb.errors import BudgetExceeded
from moa_nb.gateway.limits import Priority
from moa_nb.money import dollars

__all__ = ["Budget", "Unit"]

Unit = Literal["dollars", "calls", "tokens"]
"""What a budget counts."""

_ROUNDING = 1e-12


class Budget:
    """Dollars, calls or tokens that a run may take, shared by all its calls.

    ``reserve`` waits while other calls in flight may still give something back, and refuses when
    nothing can. What comes back goes to earlier rows first, so that rows are finished and not only
    begun when the money ends. A call that was cut off and never reported stays at its reservation:
    ``spent`` is then an upper bound.
    """

    def __init__(self, limit: float, unit: Unit = "dollars") -> None:
        self.limit, self.unit = limit, unit
        self.spent = 0.0
        """What is settled, unreported calls at their worst case."""
        self.unreported = 0.0
        """The part of ``spent`` that no service reported."""
        self.reserved = 0.0
        self.alone = asyncio.Lock()
        """Held by a call of which nobody knows whether it costs anything."""
        self._queue: list[tuple[Priority, int, float, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def left(self) -> float:
        """What is neither spent nor set aside."""
        return self.limit - self.spent - self.reserved

    def said(self, amount: float) -> str:
        """Return an amount with its unit.

        >>> Budget(20, "calls").said(3), Budget(20, "calls").said(1)
        ('3 calls', '1 call')
        """
        if self.unit == "dollars":
            return f"${dollars(amount)}"
        count = f"{amount:,.0f}"
        return f"{count} {self.unit[:-1] if count == '1' else self.unit}"

    def try_reserve(self, amount: float, priority: Priority) -> bool:
        """Return whether ``amount`` is set aside at once, no earlier row waiting for it."""
        if amount <= 0:
            return True
        if not self._fits(amount) or (self._queue and self._queue[0][0] < priority):
            return False
        self.reserved += amount
        return True

    async def reserve(self, amount: float, priority: Priority = (0, 0)) -> float:
        """Return ``amount``, set aside.

        Raises:
            BudgetExceeded: it does not fit, whatever the calls in flight give back.
        """
        if self.try_reserve(amount, priority):
            return max(amount, 0.0)
        if self._never_fits(amount):
            raise self._refusal(amount)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._order), amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(amount)
            raise
        return amount

    def settle(self, reserved: float, paid: float | None) -> None:
        """Return nothing; a reservation becomes what was paid, or is spent whole where that is unknown."""
        if paid is None:
            self.unreported += reserved
        self.spent += reserved if paid is None else paid
        self._give_back(reserved)

    def _give_back(self, amount: float) -> None:
        self.reserved = max(self.reserved - amount, 0.0)
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

    def _fits(self, amount: float) -> bool:
        return amount <= self.left + _ROUNDING

    def _never_fits(self, amount: float) -> bool:
        return amount > self.limit - self.spent + _ROUNDING

    def _refusal(self, amount: float) -> BudgetExceeded:
        return BudgetExceeded(
            f"the next call could {'cost' if self.unit == 'dollars' else 'take'} {self.said(amount)}, and of the budget of"
            f" {self.said(self.limit)} only {self.said(max(self.limit - self.spent, 0))} is left; run again with a"
            " higher budget to go on from here",
        )
