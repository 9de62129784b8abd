"""A run over a frame: started, watched, stopped, asked again."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pandas as pd

from moa_nb.engine import Estimate, current
from moa_nb.engine.forecast import make_estimate
from moa_nb.engine.loop import Job
from moa_nb.engine.plan import Options, Plan
from moa_nb.engine.engine import Engine, new_run_id
from moa_nb.errors import MoaError, SetupError, SpendingNotAgreed, UnknownName
from moa_nb.frames.outcome import Outcome, Progress, Tally, as_row
from moa_nb.frames.rows import Rows
from moa_nb.frames.scheduler import run_rows
from moa_nb.pipeline.ask import Task
from moa_nb.pipeline.result import Result
from moa_nb.store.runs import RunRow

if TYPE_CHECKING:
    from moa_nb.engine.options import RunOptions
    from moa_nb.frames.accessor import OnError

__all__ = ["FrameRun", "RowsFailed"]

_SAMPLE = 100
"""Rows that an estimate renders; the others count like them."""


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
        self._rows, self._options, self._on_error = rows, options, on_error
        self._checked = Options(**options)
        self._outcomes: list[Outcome | None] = [None] * len(rows)
        self._results: dict[int, Result] = {}
        """Rows whose calls the store does not have: failed ones, and all when nothing is kept."""
        self._tally = Tally()
        self._leaders: dict[bytes, int] = {}
        self._followers: dict[int, list[int]] = {}
        self._plan: Plan | None = None
        self._job: Job[None] | None = None
        self._engine: Engine = current()
        self._began = time.time()
        self._ended: float | None = None
        self._over_budget: MoaError | None = None
        self._n_done = self._n_failed = self._n_skipped = self._n_calls = self._n_cached = 0
        self._cost: float | None = 0.0

    # Going through the rows -------------------------------------------------------------------

    def start(self) -> FrameRun:
        """Return the run itself, going on in the background."""
        self._engine.latest = self
        self._job = self._engine.start(self._go())
        return self

    def finish(self, *, progress: bool | None = None) -> pd.Series[Any]:
        """Return the values when all rows are over.

        Raises:
            KeyboardInterrupt: the user interrupted; ``partial`` has what is finished.
        """
        from moa_nb.frames.bar import Bar

        self._engine.latest = self
        with Bar(self, shown=progress) as bar:
            self._engine.finish(self._go(), bar.update)
        self._warn()
        return self.partial

    async def _go(self) -> None:
        try:
            self._plan = plan = await self._engine.plan(self._checked)
            gateway = self._engine.gateway(plan.settings)
            await self._ask_first(plan)
            await run_rows(
                (position for position, outcome in enumerate(self._outcomes) if outcome is None),
                self._one,
                window=2 * plan.settings.concurrency,
                is_verified=lambda: gateway.verified.issuperset(plan.models),
                may_go_on=lambda: self._over_budget is None,
            )
            if self._over_budget is not None and self._on_error == "raise":
                raise self._over_budget
        finally:
            self._ended = time.time()
            if self._plan is not None:
                self._engine.store(self._plan.settings).add_run(self._row(), self._tally.ledger(), None)

    async def _one(self, position: int) -> None:
        assert self._plan is not None
        if self._outcomes[position] is not None:
            return
        try:
            task = self._rows.task(position)
        except MoaError as error:
            # The template parses and its columns exist: what fails here is this row's value.
            self._settle(position, Outcome(None, "failed", error_kind="row", error=str(error)))
            return
        if task is None:
            self._settle(position, Outcome(None, "skipped"))
            return
        digest = _digest(task)
        leader = self._leaders.setdefault(digest, position)
        if leader != position:
            known = self._outcomes[leader]
            if known is None:
                self._followers.setdefault(leader, []).append(position)
            else:
                self._settle(position, known.as_duplicate())
            return
        record = self._engine.new_record(self._plan, task)
        try:
            result = await self._engine.answer(self._plan, task, record, row=position)
        except MoaError as error:
            self._fail(position, error)
            if error.kind == "setup" or (self._on_error == "raise" and error.kind != "budget"):
                raise
            return
        if self._plan.cache == "off":
            self._results[position] = result
        self._tally.add(result)
        self._settle(position, Outcome.of(result))

    def _fail(self, position: int, error: MoaError) -> None:
        if error.kind == "budget":
            self._over_budget = error
        if error.result is not None:
            self._tally.add(error.result)
            self._results[position] = error.result
        self._settle(position, Outcome.failed(error))

    def _settle(self, position: int, outcome: Outcome) -> None:
        self._outcomes[position] = outcome
        self._n_done += 1
        self._n_failed += outcome.error is not None
        self._n_skipped += outcome.state == "skipped"
        self._n_calls += outcome.n_calls
        self._n_cached += outcome.n_cached
        self._cost = None if self._cost is None or outcome.cost is None else self._cost + outcome.cost
        for follower in self._followers.pop(position, ()):
            self._settle(follower, outcome.as_duplicate())

    # Before spending --------------------------------------------------------------------------

    async def _ask_first(self, plan: Plan) -> None:
        """Return nothing if the run may spend what it would.

        Raises:
            SpendingNotAgreed: nobody said how much, and it would be more than ``ask_above``.
        """
        if self._checked.budget is not None or plan.settings.budget is not None:
            return
        if all((price := self._engine.gateway(plan.settings).price(model)) is not None and price.source == "free" for model in plan.models):
            return
        estimate = await self._estimate(plan)
        settings = plan.settings
        if estimate.cost is not None and estimate.cost > settings.ask_above:
            dollars = max(round(estimate.cost * 1.05, 2), 0.01)
            msg = f"{estimate}: more than ask_above (${settings.ask_above:.2f}); pass budget={dollars:g} to agree"
            raise SpendingNotAgreed(msg)
        if estimate.cost is None and estimate.n_unpriced > settings.ask_above_calls:
            msg = (
                f"{estimate}: more than ask_above_calls ({settings.ask_above_calls}); set the models' prices in moa.toml and pass"
                " a budget, or pass budget=float('inf') to agree to any"
            )
            raise SpendingNotAgreed(msg)

    def estimate(self) -> Estimate:
        """Return what the run would take at most; nothing is sent."""

        async def look() -> Estimate:
            return await self._estimate(await self._engine.plan(self._checked))

        return self._engine.finish(look())

    async def _estimate(self, plan: Plan) -> Estimate:
        gateway = self._engine.gateway(plan.settings)
        tasks: dict[bytes, Task] = {}
        for position, outcome in enumerate(self._outcomes):
            task = self._rows.task(position) if outcome is None else None
            if task is not None:
                tasks.setdefault(_digest(task), task)
            if position % 1000 == 0:
                await asyncio.sleep(0)
        different = list(tasks.values())
        step = max(len(different) / _SAMPLE, 1.0)
        sample = [different[math.floor(number * step)] for number in range(min(len(different), _SAMPLE))]
        parts = [await make_estimate(plan, task, gateway) for task in sample]
        times = len(different) / len(sample) if sample else 0.0
        costs = [part.cost for part in parts if part.cost is not None]
        n_unpriced = round(sum(part.n_unpriced for part in parts) * times)
        return Estimate(
            plan.pipeline.name,
            n_calls=round(sum(part.n_calls for part in parts) * times),
            n_cached=round(sum(part.n_cached for part in parts) * times),
            prompt_tokens=round(sum(part.prompt_tokens for part in parts) * times),
            completion_tokens=round(sum(part.completion_tokens for part in parts) * times),
            cost=None if n_unpriced else sum(costs) * times,
            n_unpriced=n_unpriced,
        )

    # Watching and stopping --------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the run is, now."""
        return Progress(
            rows=len(self._rows),
            done=self._n_done,
            failed=self._n_failed,
            skipped=self._n_skipped,
            cached_calls=self._n_cached,
            calls=self._n_calls,
            cost=self._cost,
            seconds=(self._ended or time.time()) - self._began,
        )

    @property
    def done(self) -> bool:
        """Whether the run is over, one way or the other."""
        return self._ended is not None and (self._job is None or self._job.done)

    def stop(self) -> None:
        """Return at once; calls in flight are cancelled, what is finished stays."""
        if self._job is not None:
            self._job.cancel()

    def wait(self) -> FrameRun:
        """Return the run itself when it is over; a run that was stopped is over too.

        Raises:
            MoaError: what ended it early.
            KeyboardInterrupt: the user interrupted, which stops the run.
        """
        if self._job is not None:
            try:
                self._job.wait()
            except asyncio.CancelledError:
                pass
            self._engine.complain()
            self._warn()
        return self

    def __await__(self) -> Generator[Any, None, pd.Series[Any]]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> pd.Series[Any]:
        if self._job is not None:
            try:
                await asyncio.shield(self._job.wait_async())
            except asyncio.CancelledError:
                if not self._job.done:
                    raise
            self._warn()
        return self.partial

    def _warn(self) -> None:
        if self._n_failed and self._on_error == "null":
            first = next(outcome.error for outcome in self._outcomes if outcome is not None and outcome.error)
            left = sum(outcome is None for outcome in self._outcomes)
            rest = f", {left} were not asked" if left else ""
            text = f"{self._n_failed} of {len(self._rows)} rows have no answer{rest} (see moa.last().errors); the first: {first}"
            warnings.warn(text, RowsFailed, stacklevel=5)

    # What came of it --------------------------------------------------------------------------

    @property
    def partial(self) -> pd.Series[Any]:
        """The answers so far; missing where there is none yet."""
        texts = [None if outcome is None else outcome.text for outcome in self._outcomes]
        return pd.Series(texts, index=self._rows.index, name=self._rows.name, dtype=_text_dtype())

    @property
    def values(self) -> pd.Series[Any]:
        """The answers, when all rows are over."""
        return self.wait().partial

    @property
    def report(self) -> pd.DataFrame:
        """A row for each row: state, calls, tokens, dollars, seconds, cached, degraded, error."""
        frame = pd.DataFrame([as_row(outcome) for outcome in self._outcomes], columns=list(as_row(None)))
        frame.index = self._rows.index
        return frame.astype(
            {
                "state": "category",
                "n_calls": "Int64",
                "prompt_tokens": "Int64",
                "completion_tokens": "Int64",
                "cost": "Float64",
                "seconds": "Float64",
                "n_cached": "Int64",
                "degraded": "boolean",
                "error_kind": _text_dtype(),
                "error": _text_dtype(),
            },
        )

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
        rows: list[dict[tuple[str, str], str | None]] = []
        for position, outcome in enumerate(self._outcomes):
            asked = outcome is not None and outcome.state in {"done", "failed", "duplicate"}
            result = self._trace(position) if asked else None
            rows.append(
                {}
                if result is None
                else {(layer.name, call.agent): call.text if call.ok else None for layer in result.layers for call in layer.calls},
            )
        columns = list(dict.fromkeys(column for row in rows for column in row))
        frame = pd.DataFrame([[row.get(column) for column in columns] for row in rows], index=self._rows.index, dtype=_text_dtype())
        frame.columns = pd.MultiIndex.from_tuples(columns, names=["layer", "agent"]) if columns else pd.Index([])
        return frame

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
        result = self._trace(position)
        if result is None:
            msg = f"row {position} was not asked: {as_row(self._outcomes[position])['state']}"
            raise UnknownName(msg)
        return result

    def _trace(self, position: int) -> Result | None:
        outcome = self._outcomes[position]
        if outcome is None or outcome.state == "skipped" or self._plan is None:
            return None
        task = self._rows.task(position)
        if task is None:
            return None
        leader = self._leaders.get(_digest(task), position)
        if leader in self._results:
            return self._results[leader]
        # The strategy is deterministic and its requests are byte-identical: what it asked is in the store.
        return self._engine.finish(self._replay(self._plan, task))

    async def _replay(self, plan: Plan, task: Task) -> Result:
        from moa_nb.engine.replay import replay

        return await replay(plan, task, self._engine.gateway(plan.settings))

    def retry(self) -> FrameRun:
        """Return a run that is already started, over the rows without an answer; the others stay as they are."""
        again = FrameRun(self._rows, self._options, on_error=self._on_error)
        for position, outcome in enumerate(self._outcomes):
            if outcome is not None and outcome.error is None:
                again._settle(position, outcome)
        again._results = {position: result for position, result in self._results.items() if again._outcomes[position] is not None}
        again._leaders = {digest: position for digest, position in self._leaders.items() if again._outcomes[position] is not None}
        again._n_calls = again._n_cached = 0
        again._cost = 0.0
        return again.start()

    def _row(self) -> RunRow:
        outcomes = [outcome for outcome in self._outcomes if outcome is not None]
        whole = len(outcomes) == len(self._outcomes)
        assert self._plan is not None
        return RunRow(
            id=self.id,
            at=self._began,
            kind="frame",
            pipeline=self._plan.pipeline.name,
            state="done" if whole else "stopped",
            title=f"{len(self._rows)} rows of {self._rows.name or 'a template'}",
            calls=self._n_calls,
            cached=self._n_cached,
            failed=self._n_failed,
            prompt_tokens=sum(outcome.prompt_tokens or 0 for outcome in outcomes),
            completion_tokens=sum(outcome.completion_tokens or 0 for outcome in outcomes),
            cost=self._cost,
            saved=None,
            seconds=time.time() - self._began,
        )

    def __repr__(self) -> str:
        state = "done" if self.done else "running"
        return f"<FrameRun {self.id}, {state}: {self.progress}>"


def _digest(task: Task) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for message in task.conversation:
        digest.update(message.content.encode("utf-8", "surrogatepass"))
    digest.update(b"\0" + (task.material or "").encode("utf-8", "surrogatepass"))
    return digest.digest()


def _text_dtype() -> Any:
    """Return the dtype of texts that pandas itself would choose: ``str`` from 3.0 on, ``string`` before."""
    return "str" if int(pd.__version__.partition(".")[0]) >= 3 else "string"
