"""One budget for several runs: planned together, priced together, agreed to once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from moa_nb.engine import Estimate, current
from moa_nb.engine.forecast import Figures, price
from moa_nb.engine.plan import Options, Plan
from moa_nb.errors import SpendingNotAgreed
from moa_nb.frames.execution import Execution
from moa_nb.frames.run import FrameRun
from moa_nb.gateway import Budget
from moa_nb.options import RunOptions

__all__ = ["Purse", "longest", "together"]

_SPARE = 1.05
"""What is asked for beside the estimate: attempts that fail, prompts that were counted short."""


@dataclass(frozen=True)
class Purse:
    """What several runs may take."""

    plans: Sequence[Plan] = ()
    budget: Budget | None = None
    """Of all of them; ``None`` where nobody gave one."""

    @classmethod
    def of(cls, runs: Sequence[RunOptions], *, keys: bool = True) -> Purse:
        """Return the purse of runs with these options: all are planned, so that what is wrong is said before anything is sent.

        Without ``keys`` they are only to be priced, for which nobody needs one.

        Raises:
            SetupError: something is wrong or missing.
        """
        engine = current()

        async def planned() -> list[Plan]:
            return [await engine.plan(Options(**options), keys=keys) for options in runs]

        plans = engine.finish(planned())
        return cls(plans, next((plan.budget for plan in plans if plan.budget is not None), None))

    @property
    def is_kept(self) -> bool:
        """Whether what is answered is there when the same is asked again."""
        return all(plan.cache == "use" and plan.settings.store != "none" for plan in self.plans)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold for as long as its runs go on; whoever interrupts them is told what becomes of it."""
        try:
            yield
        except KeyboardInterrupt as stopped:
            if self.plans and self.is_kept:
                stopped.add_note("What was answered and judged is kept: do the same again, and only the rest is asked.")
            raise

    def cut_short(self, run: FrameRun, what: str) -> Iterator[str]:
        """Yield a sentence if a run ended before all of what it was to come to."""
        progress = run.progress
        if run.state == "stopped":
            again = ", and only the rest is asked" if self.is_kept else ""
            left = f"{progress.rows - progress.done:,} of {progress.rows:,}"
            yield f"the budget ended before {left} {what}: do the same again with a larger one{again}"

    @property
    def is_free_or_agreed(self) -> bool:
        """Whether nobody needs to ask what it takes."""
        prices = [plan.gateway.price(model) for plan in self.plans for model in plan.models]
        is_said = self.budget is not None or any(plan.settings.budget is not None for plan in self.plans)
        return is_said or all(one is not None and one.source == "free" for one in prices)

    def agree(self, found: Estimate) -> None:
        """Return nothing if so much may be spent unasked.

        Raises:
            SpendingNotAgreed: with the estimate, and the ``budget=`` to pass.
        """
        settings = self.plans[0].settings
        if found.n_unpriced <= settings.ask_above_calls and found.high.priced <= settings.ask_above:
            return
        if found.cost is None:
            wanted = f'"{math.ceil(found.n_calls * _SPARE)} calls"'
            limit = f"ask_above_calls ({settings.ask_above_calls})"
        else:
            wanted = f"{math.ceil(found.cost * _SPARE * 100) / 100:g}"
            limit = f"ask_above (${settings.ask_above:.2f})"
        msg = f"{found}: more than {limit}; pass budget={wanted} to agree, or ask fewer rows"
        raise SpendingNotAgreed(msg)


def together(name: str, parts: Sequence[Estimate]) -> Estimate:
    """Return the sum of estimates."""
    low, high = (sum((getattr(one, end) for one in parts), Figures()) for end in ("low", "high"))
    at_least, by_form = (any(getattr(one, name) for one in parts) for name in ("at_least", "by_form"))
    return Estimate(name, low, high, at_least=at_least, by_form=by_form)


async def longest(run: Execution) -> str | None:
    """Return the longest answer that a planned run's rows may have, as estimates write it; ``None`` where none asks."""
    assert run.plan is not None
    for position in range(len(run.questions)):
        tasks = run.questions.tasks(position)
        if tasks:
            found = (await price(run.plan, tasks[0], run.plan.gateway)).result
            return None if found is None else found.text
    return None
