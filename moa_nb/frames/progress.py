"""How far a run over rows is, as figures and in a few words."""

from __future__ import annotations

from dataclasses import dataclass

from moa_nb.gateway.budget import Budget, Unit
from moa_nb.money import dollars

__all__ = ["Progress", "Spent"]


@dataclass(frozen=True)
class Spent:
    """How far a budget is used up.

    >>> str(Spent(limit=200, unit="calls", amount=50, unreported=2))
    '25 % of a budget of 200 calls (2 calls of it as reserved, never reported)'
    """

    limit: float
    unit: Unit
    amount: float
    """What is settled; calls that no service reported count as much as was reserved for them."""
    unreported: float
    """The part of ``amount`` that no service reported."""

    @classmethod
    def of(cls, budget: Budget) -> Spent:
        """Return how far a budget is used up now."""
        return cls(budget.limit, budget.unit, budget.spent, budget.unreported)

    @property
    def share(self) -> float:
        """The part of the budget that is used up, in [0, 1]."""
        return self.amount / self.limit if self.limit else 1.0

    def __str__(self) -> str:
        said = Budget(self.limit, self.unit).said
        reserved = f" ({said(self.unreported)} of it as reserved, never reported)" if self.unreported else ""
        return f"{100 * self.share:.0f} % of a budget of {said(self.limit)}{reserved}"


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    rows: int
    done: int
    """Rows that are over: answered, failed, skipped or duplicates."""
    failed: int
    skipped: int
    cached_calls: int
    calls: int
    cost: float | None
    """Dollars so far; ``None`` where a price is not known."""
    seconds: float
    unreported: int = 0
    """Attempts that may be billed though no service reported them: then ``cost`` is 'at least'."""
    budget: Spent | None = None
    """``None`` for a run without one."""

    @property
    def projected_cost(self) -> float | None:
        """Dollars for all rows, if they go on as they began; ``None`` before the first, or unpriced."""
        if self.cost is None or not self.done:
            return None
        return self.cost / self.done * self.rows

    @property
    def figures(self) -> str:
        """Failures, cached calls, dollars and budget in a few words."""
        parts = [f"{self.failed} failed"] if self.failed else []
        if self.cached_calls:
            parts.append(f"{self.cached_calls} of {self.calls} calls cached")
        at_least = "at least " if self.unreported else ""
        parts.append("unknown cost" if self.cost is None else f"{at_least}${dollars(self.cost)}")
        if self.projected_cost is not None and self.done < self.rows:
            parts.append(f"${dollars(self.projected_cost)} in the end")
        if self.budget is not None:
            parts.append(str(self.budget))
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{self.done} of {self.rows} rows, {self.figures}"
