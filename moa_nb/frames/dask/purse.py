"""The budget of one partition: filled from that of all of them, a little at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moa_nb.errors import BudgetExceeded
from moa_nb.gateway import Budget
from moa_nb.gateway.budget import Unit
from moa_nb.gateway.limits import Priority

__all__ = ["Purse"]

_ROUNDING = 1e-12


class Purse(Budget):
    """A budget whose limit grows as calls need it, as long as all partitions together have something left.

    Args:
        whole: the budget of all partitions.
        unit: what it counts.
        more: called in a thread with what is needed; returns what may be taken besides.

    >>> purse = Purse(3.0, "calls", lambda needed: 1.0 if needed <= 1 else 0.0)
    >>> asyncio.run(purse.reserve(1.0)), purse.limit
    (1.0, 1.0)
    """

    def __init__(self, whole: float, unit: Unit, more: Callable[[float], float]) -> None:
        super().__init__(0.0, unit)
        self._whole, self._more = whole, more
        self._filling = asyncio.Lock()

    async def reserve(self, amount: float, priority: Priority = (0, 0)) -> float:
        """Return ``amount``, set aside.

        Raises:
            BudgetExceeded: it does not fit, whatever the calls in flight of this partition give back.
        """
        while True:
            await self._fill(amount)
            try:
                return await super().reserve(amount, priority)
            except BudgetExceeded:
                # Others may have given something back while this call waited.
                if not await self._fill(amount):
                    msg = (
                        f"the next call could take {self.said(amount)}, and of the budget of {self.said(self._whole)} for"
                        " all partitions not so much is left; run again with a higher budget to go on from here"
                    )
                    raise BudgetExceeded(msg) from None

    async def _fill(self, amount: float) -> bool:
        """Return whether there is room for ``amount`` now."""
        async with self._filling:
            needed = amount - self.left
            if needed > _ROUNDING:
                self.limit += await asyncio.to_thread(self._more, needed)
            return amount - self.left <= _ROUNDING
