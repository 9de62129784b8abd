"""A run over a frame: started, watched, stopped, asked again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import time
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from moa_nb.engine import Engine, Estimate, Plan, collector, current
from moa_nb.engine.engine import new_run_id
from moa_nb.engine.loop import Job
from moa_nb.engine.plan import Options
from moa_nb.engine.replay import replay
from moa_nb.errors import MoaError, RowError, SetupError, TemplateError, UnknownName
from moa_nb.frames import report as reports
from moa_nb.frames.outcome import Outcome, Outcomes
from moa_nb.frames.progress import Progress
from moa_nb.frames.questions import Digest, digest_of
from moa_nb.frames.rows import Rows
from moa_nb.frames.scheduler import run_rows
from moa_nb.frames.spending import agree, forecast
from moa_nb.gateway import Gateway
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.result import Result
from moa_nb.providers import functions
from moa_nb.store.runs import RunRow

if TYPE_CHECKING:
    from moa_nb.frames.accessor import OnError
    from moa_nb.options import RunOptions

__all__ = ["FrameRun", "RowsFailed"]

State = Literal["waiting", "running", "done", "stopped", "failed"]

_MOST_KEPT = 1000
"""Results with failures that are kept whole; of further ones only the outcome."""

_PACKAGE = str(Path(__file__).parents[1])


class RowsFailed(UserWarning):
    """Some rows have no answer; their errors are in the run's report."""


class FrameRun:
    """One pipeline over the rows of a frame. Everything it hands out is aligned with the frame's index.

    ``df.moa.start.synthesize(...)`` returns one at once; after a plain verb it is ``moa.last()``.
    """

    def __init__(self, rows: Rows, options: RunOptions, *, on_error: OnError = "null") -> None:
        if on_error not in {"null", "raise"}:
            msg = f"on_error is 'null' or 'raise', not {on_error!r}"
            raise SetupError(msg)
        self.id = new_run_id()
        self.state: State = "waiting"
        """``done`` when all rows are over, ``stopped`` by the user or the budget, ``failed`` by an error."""
        self._rows, self._options, self._on_error = rows, options, on_error
        self._checked = Options(**options)
        self._engine: Engine = current()
        self._outcomes = Outcomes(len(rows))
        self._tally = reports.Tally()
        self._kept: dict[int, Result] = {}
        """Rows whose calls the store does not have: failed ones, and all when nothing is kept."""
        self._asked: set[str] = set()
        """Models to which a call went out in this run."""
        self._plan: Plan | None = None
        self._digest: Digest | None = None
        """As the plan wants it."""
        self._tail = len(rows)
        """The rows from here on go layer by layer."""
        self._job: Job[None] | None = None
        self._over_budget: MoaError | None = None
        self._error: MoaError | None = None
        self._has_warned = False
        self._began = time.time()
        self._ended: float | None = None

    # Going through the rows -------------------------------------------------------------------

    def start(self) -> FrameRun:
        """Return the run itself, going on in the background."""
        self._engine.latest = self
        self._job = self._engine.start(self._go())
        return self

    def finish(self, *, progress: bool | None = None) -> pd.Series[Any]:
        """Return the values when all rows are over.

        Raises:
            MoaError: what ended the run early.
            KeyboardInterrupt: the user interrupted; ``partial`` has what is finished.
        """
        from moa_nb.frames.bar import Bar

        self._engine.latest = self
        try:
            with Bar(self, shown=progress) as bar:
                self._engine.finish(self._go(), bar.update)
        finally:
            self._ended = self._ended or time.time()
        self._warn()
        return self.partial

    async def _go(self) -> None:
        self.state = "running"
        try:
            self._plan = plan = await self._engine.plan(self._checked)
            self._digest = digest_of(plan)
            gateway = self._engine.gateway(plan.settings)
            await self._agree(plan, gateway)
            # Twice the places: rows wait for their layers, and who is waiting shows the limiter what fewer would do.
            window = 2 * max((gateway.route(model).limiter.most for model in plan.models), default=1)
            if plan.budget is None:
                self._tail = _tail([*self._outcomes.open], window)
            collector.slow_down()  # from row to row as well
            try:
                await run_rows(
                    self._outcomes.open,
                    self._one,
                    window=window,
                    is_proven=lambda: (gateway.verified | self._asked).issuperset(plan.models),
                )
            finally:
                collector.resume()
            if self._over_budget is not None:
                for position in self._outcomes.open:
                    self._outcomes.settle(position, Outcome.unfinished(None, self._over_budget))
                if self._on_error == "raise":
                    raise self._over_budget
            self.state = "done" if self._over_budget is None else "stopped"
        except asyncio.CancelledError:
            self.state = "stopped"
            raise
        except MoaError as error:
            self.state, self._error = "failed", error
            raise
        finally:
            if self.state == "running":
                self.state = "failed"
            self._ended = time.time()
            if self._plan is not None:
                self._engine.store(self._plan.settings).add_run(
                    self._row(self._plan), self._tally.ledger(), None, bytes(self._tally.keys)
                )

    async def _agree(self, plan: Plan, gateway: Gateway) -> None:
        """Return nothing if the run may spend what it would.

        Raises:
            SpendingNotAgreed: nobody said how much, and it would be more than may be spent unasked.
        """
        is_said = self._checked.budget is not None or plan.settings.budget is not None
        prices = [gateway.price(model) for model in plan.models]
        if is_said or all(price is not None and price.source == "free" for price in prices):
            return
        await agree(plan, self._rows, self._outcomes.open, digest_of(plan), gateway)

    async def _one(self, position: int) -> bool:
        """Return whether a row sent anything; its outcome is settled."""
        assert self._plan is not None
        assert self._digest is not None
        try:
            task = self._rows.task(position)
            question = b"" if task is None else self._digest(task)
        except TemplateError as error:
            # The template parses and its columns exist: what fails here is this row's value.
            return self._end(position, RowError(str(error)))
        except MoaError:
            raise
        except Exception as error:  # whatever a cell's own text or a filter may raise
            return self._end(position, RowError(f"{type(error).__name__}: {error}"))
        if task is None:
            self._outcomes.settle(position, Outcome(None, "skipped"))
            return False
        if not self._outcomes.lead(question, position):
            return False
        if self._over_budget is not None:
            await self._remember(position, task)
            return False
        return await self._ask(self._plan, task, position)

    async def _ask(self, plan: Plan, task: Task, position: int) -> bool:
        record = self._engine.new_record(plan, task, self.id)
        try:
            is_last = position >= self._tail
            row = self._tail if is_last else position
            result = await self._engine.answer(plan, task, record, row=row, is_early_first=is_last)
        except asyncio.CancelledError:
            # What its calls took was paid for, though there is no answer.
            self._count(position, record.result)
            self._outcomes.settle(position, Outcome.unfinished(record.result))
            raise
        except MoaError as error:
            return self._end(position, error)
        except Exception as error:  # one odd row must not cost the others theirs
            failure = RowError(f"{type(error).__name__}: {error}")
            failure.result = record.finish(error=str(failure), stop_reason="row")
            return self._end(position, failure)
        sent = self._count(position, result)
        self._outcomes.settle(position, Outcome.of(result))
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
            self._outcomes.settle(position, Outcome.unfinished(error.result, error))
            return sent
        self._outcomes.settle(position, Outcome.failed(error))
        if error.kind == "setup" or self._on_error == "raise":
            raise error
        return sent

    async def _remember(self, position: int, task: Task) -> None:
        """Settle a row when the budget is used up: from the store, if all of its answers are there."""
        assert self._plan is not None
        if self._plan.cache != "use":
            return
        result = await replay(self._plan, task, self._engine.gateway(self._plan.settings))
        if result.error is None and all(call.cached for call in result.calls):
            self._count(position, result)
            self._outcomes.settle(position, Outcome.of(result))

    def _count(self, position: int, result: Result | None) -> bool:
        """Return whether a row's calls sent anything; they are counted, and kept where the store does not have them."""
        if result is None:
            return False
        assert self._plan is not None
        sent = self._tally.add(result)
        self._asked |= sent
        has_failed = result.degraded and not all(call.ok for call in result.calls)
        if self._keeps_all(self._plan) or (has_failed and len(self._kept) < _MOST_KEPT):
            self._kept[position] = result
        return bool(sent)

    def _keeps_all(self, plan: Plan) -> bool:
        """Return whether the store has nothing to make results from again."""
        return plan.cache == "off" or any(map(_is_forgotten, plan.models))

    def estimate(self) -> Estimate:
        """Return what the run would take at most; nothing is sent."""

        async def look() -> Estimate:
            plan = await self._engine.plan(self._checked)
            gateway = self._engine.gateway(plan.settings)
            return await forecast(plan, self._rows, self._outcomes.open, digest_of(plan), gateway)

        return self._engine.finish(look())

    # Watching and stopping --------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the run is, now."""
        seconds = (self._ended or time.time()) - self._began
        return self._outcomes.progress(seconds, None if self._plan is None else self._plan.budget)

    @property
    def done(self) -> bool:
        """Whether the run is over, one way or the other."""
        return self._ended is not None if self._job is None else self._job.done

    def stop(self) -> None:
        """Return at once; calls in flight are cancelled, what is finished stays."""
        if self._job is not None:
            self._job.cancel()
            if self.state == "waiting":
                self.state = "stopped"

    def wait(self) -> FrameRun:
        """Return the run itself when it is over; a run that was stopped is over too.

        Raises:
            MoaError: what ended it early.
            KeyboardInterrupt: the user interrupted, which stops the run.
        """
        if self._job is not None:
            try:
                self._job.wait()
            except (asyncio.CancelledError, concurrent.futures.CancelledError):
                pass  # stopped
            self._engine.complain()
            self._warn()
        return self

    def __await__(self) -> Generator[Any, None, pd.Series[Any]]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> pd.Series[Any]:
        """Return the values when the run is over; cancelling the wait stops the run, as awaiting a task does."""
        if self._job is not None:
            try:
                await self._job.wait_async()
            except asyncio.CancelledError:
                waiter = asyncio.current_task()
                if waiter is not None and waiter.cancelling():
                    raise
            self._engine.complain()
            self._warn()
        return self.partial

    def _warn(self) -> None:
        """Warn once of rows without an answer, at the line of the user that waited for them."""
        errors = self._outcomes.errors
        if self._has_warned or not errors or self._on_error != "null":
            return
        self._has_warned = True
        n_failed, n_rows = self._outcomes.n_failed, len(self._rows)
        n_left = sum(kind == "budget" for kind, _ in errors.values())
        parts = [f"{n_failed} of {n_rows} rows have no answer"] if n_failed else []
        if n_left:
            parts.append(f"{n_left} of {n_rows} rows were not asked or not finished")
        text = f"{', '.join(parts)} (see moa.last().errors); the first: {errors[min(errors)][1]}"
        warnings.warn(text, RowsFailed, stacklevel=_levels_to_user())

    # What came of it --------------------------------------------------------------------------

    @property
    def partial(self) -> pd.Series[Any]:
        """The answers so far; missing where there is none yet."""
        return self._outcomes.texts.series(self._rows.index, self._rows.name)

    @property
    def values(self) -> pd.Series[Any]:
        """The answers, when all rows are over."""
        return self.wait().partial

    @property
    def report(self) -> pd.DataFrame:
        """A row for each row: state, calls, tokens, dollars, seconds, cached, degraded, error."""
        return reports.report(self._outcomes, self._rows.index)

    @property
    def by_model(self) -> pd.DataFrame:
        """A row for each layer and model: calls, tokens, dollars, mean seconds of a call."""
        return self._tally.frame()

    @property
    def costs(self) -> pd.Series[Any]:
        """Dollars for each row; missing where a price is not known or the row was not asked."""
        return self.report["cost"]

    @property
    def errors(self) -> pd.Series[Any]:
        """Why a row has no answer; missing where it has one."""
        return self.report["error"]

    @property
    def layers(self) -> pd.DataFrame:
        """Each agent's answer for each row, a column for each layer and agent; from the store, nothing is sent."""
        positions = range(len(self._rows))

        async def said() -> list[dict[tuple[str, str], str | None]]:
            return [
                {} if (result := await self._recall(position)) is None else reports.said(result)
                for position in positions
            ]

        return reports.layer_texts(self._engine.finish(said()), self._rows.index)

    def trace(self, position: int) -> Result:
        """Return one row's run with all its layers, from the store; nothing is sent.

        Args:
            position: which row, counted from 0.

        Raises:
            UnknownName: there is no such row, or it was not asked.
        """
        if not -len(self._rows) <= position < len(self._rows):
            msg = f"no row {position}: there are {len(self._rows)}, counted from 0"
            raise UnknownName(msg)
        position %= len(self._rows)
        result = self._engine.finish(self._recall(position))
        if result is None:
            outcome = self._outcomes[position]
            msg = (
                f"row {position} has no calls: {'not asked yet' if outcome is None else outcome.error or outcome.state}"
            )
            raise UnknownName(msg)
        return result

    async def _recall(self, position: int) -> Result | None:
        """Return a row's run: kept here, or made again from the store; ``None`` where nothing was asked."""
        outcome = self._outcomes[position]
        if outcome is None or self._plan is None or self._digest is None or outcome.state in {"skipped", "not asked"}:
            return None
        try:
            task = self._rows.task(position)
        except TemplateError:
            return None
        if task is None:
            return None
        leader = self._outcomes.leader(self._digest(task), position)
        if leader in self._kept:
            return self._kept[leader]
        # The strategy is deterministic and its requests are byte-identical: what it asked is in the store.
        return await replay(self._plan, task, self._engine.gateway(self._plan.settings))

    def retry(self) -> FrameRun:
        """Return a run that is already started, over the rows without an answer; the others stay as they are.

        Raises:
            SetupError: this run still goes on.
        """
        if not self.done:
            msg = "this run still goes on: wait() for it, or stop() it, and then retry"
            raise SetupError(msg)
        again = FrameRun(self._rows, self._options, on_error=self._on_error)
        again._plan, again._digest = self._plan, self._digest
        again._outcomes = self._outcomes.answered()
        again._kept = {position: result for position, result in self._kept.items() if again._outcomes[position]}
        return again.start()

    def _row(self, plan: Plan) -> RunRow:
        return RunRow(
            id=self.id,
            at=self._began,
            kind="frame",
            pipeline=plan.pipeline.name,
            state=self.state,
            title=f"{len(self._rows)} rows of {self._rows.name or 'a template'}",
            calls=self._outcomes.n_calls,
            cached=self._outcomes.n_cached,
            failed=self._outcomes.n_failed,
            prompt_tokens=self._tally.prompt_tokens,
            completion_tokens=self._tally.completion_tokens,
            cost=self._outcomes.cost,
            saved=self._tally.saved,
            seconds=self.progress.seconds,
        )

    def __repr__(self) -> str:
        why = f" ({self._error})" if self._error else ""
        return f"<FrameRun {self.id}, {self.state}{why}: {self.progress}>"


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


def _levels_to_user() -> int:
    """Return the ``stacklevel`` that makes a warning of the caller point at the first line outside this package."""
    frame, level = sys._getframe(1), 1  # noqa: SLF001 - what ``warnings`` itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
