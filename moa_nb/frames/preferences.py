"""Which of two answers a judge prefers: read back from a run that judged its own, or asked of a judge now."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Protocol, Self, TypeVar

from moa_nb.engine import Engine, Plan
from moa_nb.engine.engine import new_run_id
from moa_nb.engine.plan import Options
from moa_nb.errors import MoaError, SpendingNotAgreed, Unanswered, gravest
from moa_nb.frames.report import Tally
from moa_nb.gateway import Budget
from moa_nb.pipeline.agreement import proposals
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.result import Call, Result
from moa_nb.pipeline.spec import Pipeline
from moa_nb.pipeline.strategies import Strategy
from moa_nb.pipeline.strategies.judge import Judge, compare
from moa_nb.pipeline.verdicts import pairs, rank, rank_by_verdicts
from moa_nb.store.runs import RunRow

__all__ = ["Judging", "Pair", "gives_scores", "judges_itself", "own_pairs", "own_score"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, of which a judge prefers the first."""

    chosen: Call
    rejected: Call
    judges: tuple[str, ...]
    """The models that judged."""
    method: str
    """How: ``pointwise`` or ``pairwise``, the latter also in how many orders."""


# What a run judged itself ------------------------------------------------------------------------


def judges_itself(pipeline: Pipeline) -> bool:
    """Return whether a pipeline judges its own answers, so that a run of it has preferences already."""
    return isinstance(pipeline.params, Judge)


def gives_scores(pipeline: Pipeline) -> bool:
    """Return whether a pipeline's judges rate its answers."""
    return isinstance(pipeline.params, Judge) and pipeline.params.method == "pointwise"


def own_score(result: Result, pipeline: Pipeline) -> float | None:
    """Return the rating of the answer, 1 to 10, the mean of all judges; ``None`` where the run gave it none."""
    judged = _Judged.of(result, pipeline) if gives_scores(pipeline) else None
    return None if judged is None else judged.scores[judged.best]


def own_pairs(result: Result, pipeline: Pipeline) -> list[Pair]:
    """Return the winner against each answer that lost, as the run's own judges have it.

    Pointwise an answer lost that was rated lower; pairwise one that lost to the winner in both orders, where both
    were judged. Of several judges it is their mean that counts. Equals, and what could not be read, make no pair.
    """
    judged = _Judged.of(result, pipeline)
    return [] if judged is None else judged.pairs()


@dataclass(frozen=True)
class _Judged:
    """The answers and verdicts of a run with the strategy ``judge``."""

    params: Judge
    answers: list[Call]
    tables: list[list[Call]]
    """Each judge's verdicts, one for each answer or pair that it was shown."""
    best: int
    """The winner's place among the answers."""

    @classmethod
    def of(cls, result: Result, pipeline: Pipeline) -> _Judged | None:
        """Return what was judged; ``None`` where nothing was, or the record does not tell what."""
        params = pipeline.params
        layers = {layer.name: layer.calls for layer in result.layers}
        if not isinstance(params, Judge) or not {"answers", "verdicts"} <= layers.keys():
            return None
        if any(agent.pipeline is not None for agent in params.agents()):
            return None  # its answer, or verdict, stands in layers of its own
        answers = [call for call in layers["answers"] if call.ok]
        n_shown = len(answers) if params.method == "pointwise" else len(pairs(len(answers), swap=params.swap))
        verdicts = list(layers["verdicts"])
        best = next((at for at, call in enumerate(answers) if call.text.strip() == result.text), None)
        if best is None or not n_shown or len(verdicts) % n_shown:
            return None
        tables = [verdicts[start : start + n_shown] for start in range(0, len(verdicts), n_shown)]
        found = cls(params, answers, tables, best)
        ranked = rank(found.scores).best if params.method == "pointwise" else best
        return found if ranked is None else replace(found, best=ranked)

    @property
    def scores(self) -> list[float | None]:
        """The rating of each answer."""
        return [_mean([call.value for call in calls if call.ok]) for calls in zip(*self.tables, strict=True)]

    def pairs(self) -> list[Pair]:
        """Return the winner against each answer that lost."""
        points = self._rated() if self.params.method == "pointwise" else self._compared()
        orders = ", both orders" if self.params.swap else ", one order"
        method = self.params.method + (orders if self.params.method == "pairwise" else "")
        judges = tuple(dict.fromkeys(call.model for table in self.tables for call in table))
        winner = self.answers[self.best]
        return [
            Pair(winner, answer, judges, method)
            for answer, taken in zip(self.answers, points, strict=True)
            if taken > 0.5
        ]

    def _rated(self) -> list[float]:
        """Return for each answer 1 where the winner is rated higher."""
        scores = self.scores
        top = scores[self.best]
        return [float(top is not None and score is not None and score < top) for score in scores]

    def _compared(self) -> list[float]:
        """Return for each answer the points that the winner takes from it: the mean of all judges."""
        shown = pairs(len(self.answers), swap=self.params.swap)
        tables = [dict(zip(shown, (call.value for call in table), strict=True)) for table in self.tables]
        return [
            0.5 if other == self.best else fmean(_points(table, self.best, other) for table in tables)
            for other in range(len(self.answers))
        ]


def _points(table: dict[tuple[int, int], str | None], one: int, other: int) -> float:
    """Return what an answer takes from another by one judge's verdicts: a half where they decide nothing."""
    places = {(0, 1): (one, other), (1, 0): (other, one)}
    verdicts = {pair: table[shown] for pair, shown in places.items() if shown in table}
    return rank_by_verdicts(2, verdicts).scores[0] or 0.0


def _mean(ratings: list[float | None]) -> float | None:
    known = [rating for rating in ratings if rating is not None]
    return float(fmean(known)) if known else None


# Asking a judge ----------------------------------------------------------------------------------


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
