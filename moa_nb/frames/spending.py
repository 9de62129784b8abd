"""What the open rows of a run would take, and whether that was agreed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from moa_nb.engine.forecast import Estimate, Figures, make_estimate
from moa_nb.engine.plan import Plan
from moa_nb.errors import SpendingNotAgreed, Unanswered
from moa_nb.frames.rows import Rows
from moa_nb.gateway import Gateway
from moa_nb.pipeline.candidate import Task

__all__ = ["Spending", "forecast"]

_SAMPLE = 100
"""Rows whose calls are priced one by one; the others count like those of their length."""
_LONGEST = 20
"""So many of the sample are the longest rows, which may cost as much as all others together."""
_TURN = 256
"""Rows that are looked at before others on the loop have their turn."""


@dataclass(frozen=True)
class Spending:
    """What rows would take at most."""

    estimate: Estimate
    dearest: float
    """Dollars of the dearest row."""

    def agree(self, plan: Plan) -> None:
        """Return nothing if a run that nobody gave a budget may take this.

        Raises:
            SpendingNotAgreed: with the estimate, and the ``budget=`` to pass.
        """
        settings = plan.settings
        if self.estimate.n_unpriced > settings.ask_above_calls:
            msg = (
                f"{self.estimate}: more than ask_above_calls ({settings.ask_above_calls}); set the models' prices in"
                " moa.toml and pass a budget, or pass budget=float('inf') to agree to any"
            )
            raise SpendingNotAgreed(msg)
        if self.estimate.high.priced <= settings.ask_above:
            return
        above = f"more than ask_above (${settings.ask_above:.2f})"
        if self.estimate.cost is None:
            msg = (
                f"{self.estimate}, the others at most ${self.estimate.high.priced:.4f}: {above}; set the models' prices in moa.toml and"
                " pass a budget, or pass budget=float('inf') to agree to any"
            )
            raise SpendingNotAgreed(msg)
        # The last calls are only sent if their worst case still fits.
        dollars = math.ceil((self.estimate.high.priced * 1.05 + self.dearest) * 100) / 100
        msg = f"{self.estimate}: {above}; pass budget={dollars:g} to agree"
        raise SpendingNotAgreed(msg)


async def forecast(
    plan: Plan,
    rows: Rows,
    positions: Iterable[int],
    digest: Callable[[Task], bytes],
    gateway: Gateway,
) -> Spending:
    """Return what the rows at ``positions`` would take: equal ones count once, cached answers nothing.

    Every row is rendered, which is quick, and none is kept; of many, a sample is priced.
    """
    sizes: dict[bytes, tuple[int, int]] = {}
    for number, position in enumerate(positions, start=1):
        task = _task(rows, position)
        if task is not None:
            sizes.setdefault(digest(task), (-len(task.question), position))
        if number % _TURN == 0:
            await asyncio.sleep(0)
    parts: list[tuple[float, Estimate]] = []
    for position, weight in _sample([position for _, position in sorted(sizes.values())]):
        task = _task(rows, position)
        assert task is not None
        try:
            parts.append((weight, await make_estimate(plan, task, gateway)))
        except Unanswered:
            continue  # the row will fail of it without being sent
        await asyncio.sleep(0)
    return _together(plan.pipeline.name, parts)


def _task(rows: Rows, position: int) -> Task | None:
    try:
        return rows.task(position)
    except Exception:  # whatever it is, the row will fail of it without being sent
        return None


def _sample(positions: list[int]) -> Iterator[tuple[int, float]]:
    """Yield positions, the longest first, each with the number of rows that it stands for."""
    if len(positions) <= _SAMPLE:
        yield from ((position, 1.0) for position in positions)
        return
    yield from ((position, 1.0) for position in positions[:_LONGEST])
    others = positions[_LONGEST:]
    step = len(others) / (_SAMPLE - _LONGEST)
    yield from ((others[math.floor((number + 0.5) * step)], step) for number in range(_SAMPLE - _LONGEST))


def _together(pipeline: str, parts: list[tuple[float, Estimate]]) -> Spending:
    low = sum((part.low.times(weight) for weight, part in parts), Figures())
    high = sum((part.high.times(weight) for weight, part in parts), Figures())
    estimate = Estimate(pipeline, low.whole(), high.whole(), at_least=any(part.at_least for _, part in parts))
    return Spending(estimate, dearest=max((part.high.priced for _, part in parts), default=0.0))
