"""A judge that says, row by row, whether an answer is better than the proposals that it was made of."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import replace
from typing import Protocol, Self, TypeVar

from moa_nb.engine import Engine, Plan
from moa_nb.engine.engine import new_run_id
from moa_nb.engine.plan import Options
from moa_nb.errors import MoaError, SpendingNotAgreed, Unanswered, gravest
from moa_nb.frames.report import Tally
from moa_nb.frames.training.preferences import Pair
from moa_nb.gateway import Budget
from moa_nb.pipeline.agreement import proposals
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.result import Call, Result
from moa_nb.pipeline.spec import Pipeline
from moa_nb.pipeline.strategies import Strategy
from moa_nb.pipeline.strategies.judge import Judge, compare
from moa_nb.store.runs import RunRow

__all__ = ["Judging"]


class _Row(Protocol):
    @property
    def position(self) -> int: ...
    @property
    def result(self) -> Result: ...


_R = TypeVar("_R", bound=_Row)


class Judging:
    """A judge that is asked, row by row, whether the answer is better than each proposal. Counts what that takes.

    The proposals are the answers that were put together last. Each is compared with the answer in both orders; only
    where the judge names the answer both times is it preferred. Verdicts are cached like all calls.
    """

    def __init__(self, engine: Engine, plan: Plan, title: str, *, is_agreed: bool) -> None:
        self.id = new_run_id()
        self.tally = Tally()
        self._engine, self._plan, self._title, self._is_agreed = engine, plan, title, is_agreed
        self._began = time.time()

    @classmethod
    async def begin(
        cls, engine: Engine, judge: str | Callable[..., object], budget: float | str | None = None, *, title: str
    ) -> Self:
        """Return a judge that can be asked: its name, key and price are checked, and nothing is sent.

        Where nobody gives a budget, it may take what may be spent unasked.

        Raises:
            SetupError: something is wrong or missing.
        """
        pipeline = Pipeline(strategy="judge", name="judge", method="pairwise", proposers=[judge], judges=[judge])
        plan = await engine.plan(Options(pipeline=pipeline, temperature=0, budget=budget))
        is_agreed = budget is not None or plan.settings.budget is not None
        return cls(engine, plan if is_agreed else replace(plan, budget=_unasked(plan)), title, is_agreed=is_agreed)

    async def each(self, rows: AsyncIterable[_R]) -> AsyncGenerator[tuple[_R, list[Pair] | None]]:
        """Yield each row, in order, with its pairs; ``None`` where the budget was used up.

        As many rows are in flight as keep the judge busy. The first one that asks goes ahead alone, so that a wrong
        key ends it all before a second row is sent.

        Raises:
            SpendingNotAgreed: it would take more than may be spent unasked.
            SetupError: the judge cannot be asked.
        """
        window = 2 * max((self._plan.gateway.route(model).limiter.most for model in self._plan.models), default=1)
        going: deque[tuple[_R, asyncio.Task[list[Pair] | None]]] = deque()
        try:
            async for row in rows:
                going.append((row, asyncio.create_task(self._pairs(row.position, row.result))))
                while len(going) >= (window if self.tally.counts else 1):
                    yield going[0][0], await going[0][1]
                    going.popleft()
            while going:
                yield going[0][0], await going[0][1]
                going.popleft()
        finally:
            for _, task in going:
                task.cancel()
            await asyncio.gather(*(task for _, task in going), return_exceptions=True)

    async def _pairs(self, position: int, result: Result) -> list[Pair] | None:
        answer, others = _contenders(result)
        if not others:
            return []
        own = _candidate(answer)

        async def preferred(task: Task, params: Judge, ask: Ask) -> Candidate:  # noqa: ARG001 - as strategies are called
            # All at once, so that the calls of earlier rows go first: pairs of a row that is not finished are lost.
            try:
                async with asyncio.TaskGroup() as group:
                    compared = [
                        group.create_task(compare(ask, params.judges, [own, _candidate(one)])) for one in others
                    ]
            except BaseExceptionGroup as raised:
                raise gravest(raised) from None
            # Of two, whoever is named in both orders has all the points.
            return replace(own, value=[any(ranking.scores[0] == 1 for ranking in one.result()) for one in compared])

        plan = replace(self._plan, strategy=Strategy("judge", Judge, preferred))
        task = Task(result.conversation)
        record = self._engine.new_record(plan, task, self.id)
        try:
            judged = await self._engine.answer(plan, task, record, row=position)
        except Unanswered:
            return []  # more than the judge can read
        finally:
            if record.result is not None:
                self.tally.add(record.result)
        if any(call.error_kind == "budget" for call in judged.calls):
            if self._is_agreed:
                return None
            assert self._plan.budget is not None
            limit = self._plan.budget.said(self._plan.budget.limit)
            msg = (
                f"judging takes more than the {limit} that may be spent unasked: pass budget= to agree; the verdicts"
                " so far are kept"
            )
            raise SpendingNotAgreed(msg)
        judges = tuple(dict.fromkeys(call.model for call in judged.calls))
        won = zip(others, judged.value, strict=True)
        return [Pair(answer, other, judges, "pairwise, both orders") for other, is_worse in won if is_worse]

    @property
    def n_calls(self) -> int:
        """How many verdicts were asked for, cached ones included."""
        return sum(count.calls for count in self.tally.counts.values())

    @property
    def cost(self) -> float | None:
        """Dollars paid for verdicts; ``None`` where a price is not known."""
        counts = self.tally.counts.values()
        return None if any(count.unpriced for count in counts) else float(sum(count.cost for count in counts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Write what was asked into the store's ledger, as a run of its own."""
        if not self.tally.counts:
            return
        is_ours = kind is not None and issubclass(kind, MoaError)
        counts = self.tally.counts.values()
        row = RunRow(
            id=self.id,
            at=self._began,
            kind="frame",
            pipeline=self._plan.pipeline.name,
            state="done" if kind is None else "failed" if is_ours else "stopped",
            title=self._title,
            calls=self.n_calls,
            cached=sum(count.cached for count in counts),
            failed=sum(count.failed for count in counts),
            prompt_tokens=self.tally.prompt_tokens,
            completion_tokens=self.tally.completion_tokens,
            cost=self.cost,
            saved=self.tally.saved,
            seconds=time.time() - self._began,
        )
        self._engine.store(self._plan.settings).add_run(row, self.tally.ledger(), None, bytes(self.tally.keys))


def _unasked(plan: Plan) -> Budget | None:
    """Return the budget of what nobody agreed to; ``None`` where it costs nothing."""
    prices = [plan.gateway.price(model) for model in plan.models]
    if None in prices:
        return Budget(plan.settings.ask_above_calls, "calls")
    is_free = all(price is not None and price.source == "free" for price in prices)
    return None if is_free else Budget(plan.settings.ask_above, "dollars")


def _contenders(result: Result) -> tuple[Call, list[Call]]:
    """Return the call that gave the answer, and the proposals that say something else, equal ones once."""
    answers = [call for layer in result.layers if not layer.aside for call in layer.calls if call.ok]
    given = (call for call in reversed(answers) if call.text.strip() == result.text)
    others: dict[str, Call] = {}
    for call in proposals(result):
        if call.ok:
            others.setdefault(call.text.strip(), call)
    others.pop(result.text, None)
    # An answer that was put together, such as a form, is no single agent's.
    return next(given, Call("", "", text=result.text)), list(others.values())


def _candidate(call: Call) -> Candidate:
    return Candidate(call.text.strip(), call.agent)
