"""Going through the rows of a frame: each through its pipeline, each settled, all counted."""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from moa_nb.engine import Engine, Estimate, Plan, collector, current
from moa_nb.engine.engine import new_run_id
from moa_nb.engine.plan import Options
from moa_nb.engine.questions import QuestionKeeper
from moa_nb.engine.recipe import Recipe
from moa_nb.engine.replay import replay
from moa_nb.engine.values import pack_value
from moa_nb.errors import MoaError, RowError, SetupError, TemplateError
from moa_nb.frames.index import pack_index
from moa_nb.frames.outcome import STATES, Outcome, Outcomes
from moa_nb.frames.questions import Digest, digest_of, uses_columns
from moa_nb.frames.report import Tally
from moa_nb.frames.rows import Questions
from moa_nb.frames.scheduler import run_rows
from moa_nb.frames.spending import agree, forecast
from moa_nb.frames.verbs import Verb, joined
from moa_nb.pipeline.agreement import agreement_of
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.providers import functions
from moa_nb.store.recipes import pack_rows
from moa_nb.store.runs import RunRow

if TYPE_CHECKING:
    from moa_nb.frames.accessor import OnError
    from moa_nb.gateway import Budget, Gateway
    from moa_nb.options import RunOptions

__all__ = ["Execution", "State"]

State = Literal["waiting", "running", "done", "stopped", "failed"]

_MOST_KEPT = 1000
"""Results with failures that are kept whole; of further ones only the outcome."""

_BATCH_ROWS = 20_000
"""Rows that wait for batches together; each takes about 25 KiB meanwhile."""

_UNHURRIED_SECONDS = 0.5
"""A row that took longer has waited for its service: how far its agents agree is then found at no cost of time."""


class Execution:
    """One verb over the rows of a frame, as it goes on and as it ended. The engine's thread writes, any other may read."""

    def __init__(
        self,
        verb: Verb,
        questions: Questions,
        options: RunOptions,
        *,
        on_error: OnError = "null",
        purse: Budget | None = None,
        is_agreed: bool = False,
    ) -> None:
        if on_error not in {"null", "raise"}:
            msg = f"on_error is 'null' or 'raise', not {on_error!r}"
            raise SetupError(msg)
        self.id = new_run_id()
        self.state: State = "waiting"
        """``done`` when all rows are over, ``stopped`` by the user or the budget, ``failed`` by an error."""
        self.verb, self.questions, self.options, self.on_error = verb, questions, options, on_error
        self.outcomes = Outcomes(len(questions))
        self.tally = Tally()
        self.began = time.time()
        self.ended: float | None = None
        self.error: MoaError | None = None
        """What ended it early."""
        self.plan: Plan | None = None
        """``None`` until it is made."""
        self.engine: Engine = current()
        self._checked = Options(**options)
        self._purse = purse
        """A budget that it shares with other runs; ``None``: its own."""
        self._is_agreed = is_agreed
        """Whether somebody has agreed already to what it takes."""
        self._kept: dict[int, Result] = {}
        """Rows whose calls the store does not have: failed ones, and all when nothing is kept."""
        self._asked: set[str] = set()
        """Models to which a call went out in this run."""
        self._digest: Digest | None = None
        """As the plan wants it."""
        self._tail = len(questions)
        """The rows from here on go layer by layer."""
        self._over_budget: MoaError | None = None
        self.is_over = False
        """Whether it is of an earlier session, and is only looked at."""
        self.why_not: str | None = None
        """Why the rows of such a run cannot be made again; ``None``: they can."""
        self.keeps_all = False
        """Whether all results are kept as they were, with what they took: for a few rows that are shown whole."""
        self._recipe: Recipe | None = None
        self._keeper: QuestionKeeper | None = None
        """Keeps what the rows ask, for those who look at the run tomorrow."""
        self._earlier: str | None = None
        """The run over the same rows that this one goes on from."""
        # In the thread that speaks: pandas changes filters of warnings for a moment, and all threads share one set.
        self._index = pack_index(questions.index)

    @property
    def seconds(self) -> float:
        """How long it has taken until now, or until its end."""
        return max((self.ended or time.time()) - self.began, 0.0)  # a clock may be set back

    @property
    def full_cost(self) -> float | None:
        """Dollars paid and, for what the store answered, once paid; ``None`` where a price is not known."""
        total = 0.0
        for (_, model), count in list(self.tally.counts.items()):
            is_free_or_priced = self.plan is not None and self.plan.gateway.price(model) is not None
            if count.unpriced or (count.cached and not count.saved and not is_free_or_priced):
                return None
            total += count.cost + count.saved
        return total

    @classmethod
    def over(cls, row: RunRow, verb: Verb, questions: Questions) -> Execution:
        """Return a run of an earlier session; its outcomes are still to be set, or restored."""
        execution = cls(verb, questions, {})
        execution.id, execution.began, execution.ended = row.id, row.at, row.at + row.seconds
        execution.state = row.state if row.state in get_args(State) else "stopped"  # type: ignore[assignment]  # just checked
        execution.is_over = True
        return execution

    def again(self) -> Execution:
        """Return the same over the rows that have no answer; the others stay as they are.

        Raises:
            SetupError: it is of an earlier session.
        """
        if self.is_over:
            msg = (
                "this run is of an earlier session: run its verb again on the frame, and only what is missing is asked"
            )
            raise SetupError(msg)
        new = Execution(self.verb, self.questions, self.options, on_error=self.on_error)
        new.plan, new._digest, new._earlier = self.plan, self._digest, self.id
        new.outcomes = self.outcomes.answered()
        new._kept = {position: result for position, result in self._kept.items() if new.outcomes[position]}
        return new

    # All rows ---------------------------------------------------------------------------------

    async def go(self) -> None:
        """Return when all rows are over.

        Raises:
            MoaError: what ended it early.
        """
        self.state = "running"
        try:
            plan, gateway = await self._prepare()
            await self._agree(plan, gateway)
            self._keep_beginning(plan)
            # Twice the places: rows wait for their layers, and who is waiting shows the limiter what fewer would do.
            window = 2 * max((gateway.route(model).limiter.most for model in plan.models), default=1)
            in_batches = plan.mode == "batch"
            if in_batches:  # all rows wait for the same batch
                window = min(_BATCH_ROWS, sum(1 for _ in self.outcomes.open))
            elif plan.budget is None:
                self._tail = _tail([*self.outcomes.open], window)
            collector.slow_down()  # from row to row as well
            try:
                await run_rows(
                    self.outcomes.open,
                    self._one,
                    window=window,
                    is_proven=lambda: in_batches or (gateway.verified | self._asked).issuperset(plan.models),
                )
            finally:
                collector.resume()
            if self._over_budget is not None:
                for position in self.outcomes.open:
                    self.outcomes.settle(position, Outcome.unfinished(None, self._over_budget))
                if self.on_error == "raise":
                    raise self._over_budget
            self.state = "done" if self._over_budget is None else "stopped"
        except asyncio.CancelledError:
            self.state = "stopped"
            raise
        except MoaError as error:
            self.state, self.error = "failed", error
            raise
        finally:
            if self.state == "running":
                self.state = "failed"
            self.ended = time.time()
            if self.plan is not None:
                self._keep_end(self.plan)

    async def _prepare(self, *, keys: bool = True) -> tuple[Plan, Gateway]:
        """Return the checked plan, for which the questions are then fit, and where it asks."""
        plan = await self.engine.plan(self._checked, self.verb.form, keys=keys)
        self.plan = plan = plan if self._purse is None else replace(plan, budget=self._purse)
        self._digest = digest_of(plan)
        self.verb, self.questions = self.verb.fitted(self.questions, plan)
        return plan, self.engine.gateway(plan.settings)

    async def _agree(self, plan: Plan, gateway: Gateway) -> None:
        """Return nothing if the run may spend what it would.

        Raises:
            SpendingNotAgreed: nobody said how much, and it would be more than may be spent unasked.
        """
        is_said = self._is_agreed or self._checked.budget is not None or plan.settings.budget is not None
        prices = [gateway.price(model) for model in plan.models]
        if is_said or all(price is not None and price.source == "free" for price in prices):
            return
        await agree(plan, self.verb, self.questions, self.outcomes.open, digest_of(plan), gateway)

    async def estimate(self) -> Estimate:
        """Return what the run would take at most; nothing is sent, and no key is needed."""
        plan, gateway = await self._prepare(keys=False)
        return await forecast(plan, self.verb, self.questions, self.outcomes.open, digest_of(plan), gateway)

    # One row ----------------------------------------------------------------------------------

    async def _one(self, position: int) -> bool:
        """Return whether a row sent anything; its outcome is settled."""
        assert self.plan is not None
        assert self._digest is not None
        try:
            tasks = self.questions.tasks(position)
            question = self._digest(tasks)
            if self._keeper is not None:
                self._keeper.add(position, tasks or None)
        except TemplateError as error:
            # The template parses and its columns exist: what fails here is this row's value.
            return self._end(position, RowError(str(error)))
        except MoaError:
            raise
        except Exception as error:  # whatever a cell's own text or a filter may raise
            return self._end(position, RowError(f"{type(error).__name__}: {error}"))
        if not tasks:
            self.outcomes.settle(position, Outcome(None, "skipped"))
            return False
        if not self.outcomes.lead(question, position):
            return False
        if self._over_budget is not None:
            await self._remember(position, tasks)
            return False
        return await self._ask(self.plan, tasks, position)

    async def _ask(self, plan: Plan, tasks: Sequence[Task], position: int) -> bool:
        records: list[RunRecord] = []
        is_last = position >= self._tail
        row = self._tail if is_last else position

        def answer(task: Task) -> Coroutine[Any, Any, Result]:
            record = self.engine.new_record(plan, task, self.id)
            records.append(record)
            return self.engine.answer(plan, task, record, row=row, is_early_first=is_last)

        try:
            result = await self.verb.answer(tasks, answer)
        except asyncio.CancelledError:
            # What its calls took was paid for, though there is no answer.
            unfinished = _so_far(records)
            self._count(position, unfinished)
            self.outcomes.settle(position, Outcome.unfinished(unfinished))
            raise
        except MoaError as error:
            return self._end(position, error)
        except Exception as error:  # one odd row must not cost the others theirs
            failure = RowError(f"{type(error).__name__}: {error}")
            failure.result = _so_far(records)
            return self._end(position, failure)
        sent = self._count(position, result)
        self.outcomes.settle(position, Outcome.of(result, self._agreement(result)))
        return sent

    def _end(self, position: int, error: MoaError) -> bool:
        """Return whether a row that ends in an error sent anything.

        Raises:
            MoaError: the error ends the whole run.
        """
        sent = self._count(position, error.result)
        if error.kind == "budget":
            # Others may still finish with what is left; the run ends when none can begin.
            self._over_budget = error
            self.outcomes.settle(position, Outcome.unfinished(error.result, error))
            return sent
        self.outcomes.settle(position, Outcome.failed(error))
        if error.kind == "setup" or self.on_error == "raise":
            raise error
        return sent

    def _agreement(self, result: Result) -> float | None:
        """Return how far the agents of a row agree, where that is quickly found; free text is compared when it is asked."""
        form = self.verb.form
        is_quick = form is not None or result.agreement is not None or result.seconds > _UNHURRIED_SECONDS
        return agreement_of(result, form) if is_quick else None

    async def _remember(self, position: int, tasks: Sequence[Task]) -> None:
        """Settle a row when the budget is used up: from the store, if all of its answers are there."""
        assert self.plan is not None
        if self.plan.cache != "use":
            return
        result = await self._replayed(self.plan, tasks)
        if result.error is None and all(call.cached for call in result.calls):
            self._count(position, result)
            self.outcomes.settle(position, Outcome.of(result, self._agreement(result)))

    def _count(self, position: int, result: Result | None) -> bool:
        """Return whether a row's calls sent anything; they are counted, and kept where the store does not have them."""
        if result is None:
            return False
        assert self.plan is not None
        sent = self.tally.add(result)
        self._asked |= sent
        has_failed = result.degraded and not all(call.ok for call in result.calls)
        if self._keeps_all(self.plan) or (has_failed and len(self._kept) < _MOST_KEPT):
            self._kept[position] = result
        return bool(sent)

    def _keeps_all(self, plan: Plan) -> bool:
        """Return whether the store has nothing to make results from again."""
        return self.keeps_all or plan.cache == "off" or any(map(_is_forgotten, plan.models))

    # Afterwards -------------------------------------------------------------------------------

    async def recall(self, position: int) -> Result | None:
        """Return a row's run: kept here, or made again from the store; ``None`` where nothing was asked."""
        outcome = self.outcomes[position]
        if outcome is None or self.plan is None or self._digest is None or outcome.state in {"skipped", "not asked"}:
            return None
        try:
            tasks = self.questions.tasks(position)
        except TemplateError:
            return None
        if not tasks:
            return None
        leader = self.outcomes.leader(self._digest(tasks), position)
        if leader in self._kept:
            return self._kept[leader]
        return await self._replayed(self.plan, tasks)

    async def _replayed(self, plan: Plan, tasks: Sequence[Task]) -> Result:
        """Return a row's run as the store has it; what is not there is an error in it."""

        # The strategy is deterministic and its requests are byte-identical: what it asked is in the store.
        async def answer(task: Task) -> Result:
            return await replay(plan, task, plan.gateway)

        try:
            return await self.verb.answer(tasks, answer)
        except MoaError as error:
            if error.result is None:
                raise
            return error.result

    async def restore(
        self, plan: Plan, columns: Mapping[str, array[Any]], errors: Mapping[int, tuple[str | None, str]]
    ) -> None:
        """Return when the answers of an earlier run are there again; of one that was killed, those that had come."""
        self.plan, self._digest = plan, digest_of(plan)
        texts: list[str | None] = [None] * len(columns["states"])
        answered: dict[int, Result] = {}
        for position, number in enumerate(columns["states"]):
            if STATES[number] not in {"done", "duplicate", ""}:
                continue
            tasks = self.questions.tasks(position)
            result = await self._replayed(plan, tasks) if tasks else None
            if result is not None and result.error is None:
                texts[position] = result.text
                if not number:
                    answered[position] = result
        self.outcomes = Outcomes.of(columns, errors, texts)
        for position, result in answered.items():
            self.outcomes.settle(position, Outcome.of(result, self._agreement(result)))

    async def find_agreement(self) -> None:
        """Return when it is known of each answered row how far its agents agree."""
        digest = self._digest
        if digest is None:
            return
        known: dict[bytes, float | None] = {}
        for position in [*self.outcomes.uncompared("done")]:
            result = await self.recall(position)
            found = None if result is None else agreement_of(result, self.verb.form)
            self.outcomes.compare(position, found)
            known[digest(self.questions.tasks(position))] = found
        for position in [*self.outcomes.uncompared("duplicate")] if known else ():
            self.outcomes.compare(position, known.get(digest(self.questions.tasks(position))))

    # For tomorrow -----------------------------------------------------------------------------

    def _keep_beginning(self, plan: Plan) -> None:
        """Return nothing; keep that the run goes on, and what it is made of."""
        store = self.engine.store(plan.settings)
        store.add_run(self._row(plan), [], None)
        self._recipe = Recipe.of(plan, form=self.verb.to_record())
        store.keep_recipe(self.id, self._recipe.to_record())
        store.finish_recipe(self.id, self._packed)
        self._keeper = QuestionKeeper(
            store,
            self.id,
            len(self.questions),
            columns=uses_columns(plan),
            earlier=self._earlier,
            loop=asyncio.get_running_loop(),
        )

    def _keep_end(self, plan: Plan) -> None:
        """Return nothing; keep how the run and its rows ended."""
        store = self.engine.store(plan.settings)
        if self._keeper is not None:
            self._keeper.close()
            store.finish_recipe(self.id, self._packed)
        store.add_run(self._row(plan), self.tally.ledger(), None, bytes(self.tally.keys))

    def _packed(self) -> bytes:
        """Return how the rows stand, as the store keeps it: their texts only where they cannot be found again."""
        header = {
            "index": self._index,
            "name": pack_value(self.questions.name),
            "errors": [[position, *error] for position, error in dict(self.outcomes.errors).items()],
            "texts": [*self.outcomes.texts] if self._recipe is not None and self._recipe.reason is not None else None,
        }
        return pack_rows(header, self.outcomes.columns)

    def _row(self, plan: Plan) -> RunRow:
        what = "groups" if self.verb.kind == "summarize" else "rows"
        return RunRow(
            id=self.id,
            at=self.began,
            kind="frame",
            pipeline=plan.pipeline.name,
            state=self.state,
            title=f"{self.verb.called}: {len(self.questions)} {what} of {self.verb.about(self.questions.name)}",
            calls=self.outcomes.n_calls,
            cached=self.outcomes.n_cached,
            failed=self.outcomes.n_failed,
            prompt_tokens=self.tally.prompt_tokens,
            completion_tokens=self.tally.completion_tokens,
            cost=self.outcomes.cost,
            saved=self.tally.saved,
            seconds=self.seconds,
        )


def _so_far(records: Sequence[RunRecord]) -> Result | None:
    """Return what the tasks of a row have come to; ``None`` before the first."""
    for record in records:
        if record.result is None:
            record.finish(error="stopped", stop_reason="stopped")
    results = [record.result for record in records if record.result is not None]
    return joined([("", 0.0, result) for result in results]) if len(results) > 1 else results[0] if results else None


def _tail(positions: list[int], window: int) -> int:
    """Return the first of the last rows, which go layer by layer: so all places are taken until nearly the end.

    It is never more than half of the rows, so that the first ones are soon finished. A run under a budget has none:
    what is left of the money is to finish rows.
    """
    n_last = min(window, len(positions) // 2)
    return positions[-n_last] if n_last else sys.maxsize


def _is_forgotten(model: str) -> bool:
    """Return whether the store keeps no answers of a model: a function without a version."""
    provider, _, name = model.partition(":")
    return provider == "function" and (name not in functions.registered() or functions.find(name).version is None)
