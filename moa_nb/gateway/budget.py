"""A ceiling in dollars: the worst case is set aside before a call and settled after it."""

from __future__ import annotations

import asyncio
from collections import deque

from moa_nb.errors import BudgetExceeded

__all__ = ["Budget"]

_ROUNDING = 1e-12


class Budget:
    """Dollars that a run may cost, shared by all its calls.

    ``reserve`` waits while other calls in flight may still give something back, and refuses when
    nothing can. A call that was cut off and never reported stays at its reservation: ``spent`` is
    then an upper bound and ``at_least`` what is known.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent = 0.0
        """Dollars settled, unreported calls at their worst case."""
        self.unreported = 0.0
        """The part of ``spent`` that no service reported."""
        self.reserved = 0.0
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    @property
    def left(self) -> float:
        """Dollars that are neither spent nor set aside."""
        return self.limit - self.spent - self.reserved

    async def reserve(self, dollars: float) -> float:
        """Return ``dollars``, set aside.

        Raises:
            BudgetExceeded: they do not fit, whatever the calls in flight give back.
        """
        while dollars > self.left + _ROUNDING:
            if self.reserved <= _ROUNDING or dollars > self.limit - self.spent + _ROUNDING:
                msg = (
                    f"the next call could cost ${dollars:.4f}, and of the budget of ${self.limit:.4f} only"
                    f" ${max(self.limit - self.spent, 0):.4f} is left; run again with a higher budget to go on from here"
                )
                raise BudgetExceeded(msg)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((dollars, turn))
            await turn
        self.reserved += dollars
        return dollars

    def settle(self, reserved: float, paid: float | None) -> None:
        """Return nothing; a reservation becomes what was paid, or is spent whole where that is unknown."""
        self.reserved = max(self.reserved - reserved, 0.0)
        if paid is None:
            self.unreported += reserved
        self.spent += reserved if paid is None else paid
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
