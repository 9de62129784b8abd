"""A run over a frame: started, watched, stopped, asked again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from moa_nb.engine import Estimate
from moa_nb.engine.loop import Job
from moa_nb.errors import SetupError, UnknownName
from moa_nb.frames import report as reports
from moa_nb.frames.execution import Execution, State
from moa_nb.frames.progress import Progress
from moa_nb.frames.rows import Questions
from moa_nb.frames.verbs import Verb
from moa_nb.pipeline.result import Result
from moa_nb.plain import quoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from moa_nb.frames.accessor import OnError
    from moa_nb.frames.training import Exported, ExportFormat, ProvenancePlace
    from moa_nb.options import RunOptions

__all__ = ["FrameRun", "RowsFailed"]

_MOST_COMPARED = 4000
"""Rows whose agreement is found only to show a run: about a second. Of more it is found when somebody asks for it."""

_PACKAGE = str(Path(__file__).parents[1])


class RowsFailed(UserWarning):
    """Some rows have no answer; their errors are in the run's report."""


class FrameRun:
    """One verb over the rows of a frame. Everything it hands out is aligned with the frame's index.

    ``df.moa.start.synthesize(...)`` returns one at once; after a plain verb it is ``moa.last()``.

    Args:
        execution: what goes through the rows.
        errors_at: where users find its errors, for what a warning says.
    """

    def __init__(self, execution: Execution, *, errors_at: str = "moa.last().errors") -> None:
        self._execution = execution
        self._errors_at = errors_at
        self._engine = execution.engine
        self._job: Job[None] | None = None
        self._has_warned = False

    @classmethod
    def of(cls, verb: Verb, questions: Questions, options: RunOptions, *, on_error: OnError = "null") -> FrameRun:
        """Return a run that is still to begin.

        Raises:
            SetupError: an option makes no sense.
        """
        return cls(Execution(verb, questions, options, on_error=on_error))

    @property
    def id(self) -> str:
        """Its name in ``moa.runs()``."""
        return self._execution.id

    @property
    def state(self) -> State:
        """``waiting``, ``running``, ``done`` (all rows are over), ``stopped`` (by the user or the budget) or ``failed``."""
        state = self._execution.state
        return "stopped" if state == "waiting" and self.done else state  # before it had begun

    # Going through the rows -------------------------------------------------------------------

    def start(self) -> FrameRun:
        """Return the run itself, going on in the background."""
        self._engine.latest = self
        self._job = self._engine.start(self._execution.go())
        return self

    def finish(self, *, progress: bool | None = None) -> Any:
        """Return the values when all rows are over.

        Raises:
            MoaError: what ended the run early.
            KeyboardInterrupt: the user interrupted; ``partial`` has what is finished.
        """
        from moa_nb.frames.bar import Bar

        self._engine.latest = self
        try:
            with Bar(self, shown=progress) as bar:
                self._engine.finish(self._execution.go(), bar.update)
        finally:
            self._execution.ended = self._execution.ended or time.time()
        self._warn()
        return self.partial

    def estimate(self) -> Estimate:
        """Return what the run would take at most; nothing is sent."""
        return self._engine.finish(self._execution.estimate())

    # Watching and stopping --------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the run is, now."""
        plan = self._execution.plan
        return self._execution.outcomes.progress(self._execution.seconds, None if plan is None else plan.budget)

    @property
    def done(self) -> bool:
        """Whether the run is over, one way or the other."""
        return self._execution.ended is not None if self._job is None else self._job.done

    def stop(self) -> None:
        """Return at once; calls in flight are cancelled, what is finished stays.

        A batch that is under way is not cancelled at the service: it is paid for, and running again picks it up.
        """
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
            except (asyncio.CancelledError, concurrent.futures.CancelledError):
                pass  # stopped
            self._engine.complain()
            self._warn()
        return self

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> Any:
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
        outcomes = self._execution.outcomes
        errors = outcomes.errors
        if self._has_warned or not errors or self._execution.on_error != "null":
            return
        self._has_warned = True
        n_failed, n_rows = outcomes.n_failed, len(outcomes)
        n_left = sum(kind == "budget" for kind, _ in errors.values())
        parts = [f"{n_failed} of {n_rows} rows have no answer"] if n_failed else []
        if n_left:
            parts.append(f"{n_left} of {n_rows} rows were not asked or not finished")
        text = f"{', '.join(parts)} (see {self._errors_at}); the first: {errors[min(errors)][1]}"
        warnings.warn(text, RowsFailed, stacklevel=_levels_to_user())

    # What came of it --------------------------------------------------------------------------

    @property
    def partial(self) -> Any:
        """The answers so far, as the verb returns them; missing where there is none yet."""
        execution = self._execution
        return execution.verb.values(execution.outcomes.texts, self._index, execution.questions.name)

    @property
    def _index(self) -> pd.Index[Any]:
        return self._execution.questions.index

    @property
    def values(self) -> Any:
        """The answers as the verb returns them, a Series or a DataFrame, when all rows are over."""
        return self.wait().partial

    @property
    def report(self) -> pd.DataFrame:
        """A row for each row: state, calls, tokens, dollars, seconds, cached, degraded, agreement, error."""
        self._compare()
        return reports.report(self._execution.outcomes, self._index)

    @property
    def by_model(self) -> pd.DataFrame:
        """A row for each layer and model: calls, tokens, dollars, mean seconds of a call."""
        return self._execution.tally.frame()

    @property
    def costs(self) -> pd.Series[Any]:
        """Dollars for each row; missing where a price is not known or the row was not asked."""
        return reports.column(self._execution.outcomes, "cost", self._index)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that its rows may ask; empty before it has begun."""
        plan = self._execution.plan
        return () if plan is None else plan.models

    @property
    def saved(self) -> float:
        """Dollars that answers from the store once took."""
        return self._execution.tally.saved

    @property
    def full_cost(self) -> float | None:
        """Dollars that the rows take where nothing is in the store yet; ``None`` where a price is not known."""
        return self._execution.full_cost

    @property
    def errors(self) -> pd.Series[Any]:
        """Why a row has no answer; missing where it has one."""
        return reports.errors(self._execution.outcomes, self._index)

    @property
    def agreement(self) -> pd.Series[Any]:
        """How far each row's agents agree, in [0, 1]; missing where one answered alone. It takes no call.

        Vote share for labels, spread for numbers, likeness for texts; several fields count alike.
        """
        self._compare()
        return reports.column(self._execution.outcomes, "agreement", self._index)

    def _compare(self, most: int | None = None) -> None:
        """Find how far each row's agents agree, if that is still open; not of more rows than ``most``."""
        n_open = sum(1 for _ in self._execution.outcomes.uncompared("done"))
        if n_open and (most is None or n_open <= most):
            self._engine.finish(self._execution.find_agreement())

    def review(self, below: float = 0.6) -> pd.DataFrame:
        """Return the rows that a person should look at, the least agreed on first; no call is made for it.

        Args:
            below: rows whose agents agree less than this, in [0, 1]; degraded and failed rows are there in any case.

        A row has its position, its agreement, why it is there, the answer, and what each proposer said.

        Raises:
            SetupError: ``below`` is no number.
        """
        if not isinstance(below, Real):
            msg = f"below is a number from 0 to 1, not {quoted(below, 40)}"
            raise SetupError(msg)
        self._compare()
        execution = self._execution

        async def look() -> pd.DataFrame:
            places = reports.doubtful(execution.outcomes, below)
            results = [await execution.recall(place) for place in places]
            return reports.review(execution.outcomes, self._index, places, results, execution.verb.form)

        return self._engine.finish(look())

    @property
    def layers(self) -> pd.DataFrame:
        """Each agent's answer for each row, a column for each layer and agent; from the store, nothing is sent."""
        execution = self._execution

        async def said() -> list[dict[tuple[str, str], str | None]]:
            return [
                {} if (result := await execution.recall(position)) is None else reports.said(result)
                for position in range(len(execution.outcomes))
            ]

        return reports.layer_texts(self._engine.finish(said()), self._index)

    def trace(self, position: int) -> Result:
        """Return one row's run with all its layers, from the store; nothing is sent.

        Args:
            position: which row, counted from 0.

        Raises:
            UnknownName: there is no such row, or it was not asked.
        """
        n_rows = len(self._execution.outcomes)
        if not isinstance(position, Integral) or not -n_rows <= position < n_rows:
            found = self._index.get_indexer_for(pd.Index([position]))
            where = f"; the label {position!r} is at {found[0]}" if len(found) and found[0] >= 0 else ""
            msg = f"no row {position!r}: there are {n_rows}, counted from 0{where}"
            raise UnknownName(msg)
        position = int(position) % n_rows
        if self._execution.why_not is not None:
            msg = f"this run cannot be made again: {self._execution.why_not}"
            raise SetupError(msg)
        result = self._engine.finish(self._execution.recall(position))
        if result is None:
            outcome = self._execution.outcomes[position]
            msg = (
                f"row {position} has no calls: {'not asked yet' if outcome is None else outcome.error or outcome.state}"
            )
            raise UnknownName(msg)
        return result

    def traces(self) -> Iterator[Result]:
        """Yield the run of each row that was asked, in order, from the store; nothing is sent."""
        execution = self._execution
        for position in range(len(execution.outcomes)):
            result = self._engine.finish(execution.recall(position))
            if result is not None:
                yield result

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: ExportFormat = "chat",  # noqa: A002 - what users call it
        judge: str | Callable[..., object] | None = None,
        budget: float | str | None = None,
        min_agreement: float | None = None,
        min_score: float | None = None,
        skip_degraded: bool = True,
        provenance: ProvenancePlace | None = None,
        overwrite: bool = False,
    ) -> Exported:
        """Return what was written to ``path``: the answered rows as training data, JSON lines in UTF-8.

        Prompts that differ only in case and white space count once: the row that agrees most stands, of equals the first.

        Args:
            path: the file; its folder has to be there.
            format: ``chat`` (``messages``); ``preference`` (``prompt``, ``chosen``, ``rejected``, as TRL has them);
                ``openai-preference`` (``input``, ``preferred_output``, ``non_preferred_output``).
            judge: who says whether the answer is better than each proposal, asked in both orders; ``None``: the run's
                own verdicts count, where its pipeline judges.
            budget: what the judge may take; ``None``: what may be spent unasked.
            min_agreement: rows whose agents agree less, or of which nobody knows, are left out.
            min_score: answers that the run's judges rate lower (1 to 10), or not at all, are left out.
            skip_degraded: whether degraded answers are left out.
            provenance: ``inline``, under that name in each line, or ``beside``, line by line in
                ``NAME.provenance.jsonl``; ``None``: inline, of ``openai-preference`` beside.
            overwrite: whether a file that is there is replaced.

        Raises:
            SetupError: an option that makes no sense here, a file that is there already, or no row is left.
            SpendingNotAgreed: nobody gave a budget, and the judge would take more than may be spent unasked.
        """
        from moa_nb.frames.training import ExportRow, export

        execution = self._execution
        if execution.verb.kind == "prefer":
            msg = "prefer asks each row two questions, which are no example to learn from: export a run of synthesize"
            raise SetupError(msg)
        if execution.plan is None:
            msg = "this run has asked nothing yet: wait() for it, and then export"
            raise SetupError(msg)
        agreement = self.agreement.tolist()

        async def rows() -> AsyncIterator[ExportRow]:
            for position, label in enumerate(self._index):
                result = await execution.recall(position)
                if result is not None:
                    agreed = agreement[position]
                    yield ExportRow(position, label, result, None if pd.isna(agreed) else agreed)

        return self._engine.finish(
            export(
                path,
                rows(),
                run_id=self.id,
                pipeline=execution.plan.pipeline,
                engine=self._engine,
                format=format,
                judge=judge,
                budget=budget,
                min_agreement=min_agreement,
                min_score=min_score,
                skip_degraded=skip_degraded,
                provenance=provenance,
                overwrite=overwrite,
            )
        )

    def plot(self) -> Figure:
        """Return the report as a matplotlib figure of four small panels, for slides.

        Raises:
            SetupError: matplotlib is not installed.
        """
        from moa_nb.frames.figures import view_of_run
        from moa_nb.frames.plot import plot

        if self.done:
            self._compare(_MOST_COMPARED)
        return plot(view_of_run(self._execution))

    def show(self) -> None:
        """Show the report below the current cell, as it is now; print it where there is no notebook."""
        from moa_nb.notebook.display import show

        show(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        from moa_nb.frames.figures import view_of_run
        from moa_nb.panels.frame_report import bundle

        if self.done:
            self._compare(_MOST_COMPARED)
        return bundle(view_of_run(self._execution))

    def retry(self) -> FrameRun:
        """Return a run that is already started, over the rows without an answer; the others stay as they are.

        Raises:
            SetupError: this run still goes on.
        """
        if not self.done:
            msg = "this run still goes on: wait() for it, or stop() it, and then retry"
            raise SetupError(msg)
        return FrameRun(self._execution.again()).start()

    def __getstate__(self) -> dict[str, Any]:
        """Raise: a run belongs to the process that asks."""
        msg = (
            f"a run can be neither pickled nor copied: keep run.values and run.report, or moa.recall({self.id!r}) later"
        )
        raise TypeError(msg)

    def __repr__(self) -> str:
        why = f" ({self._execution.error})" if self._execution.error else ""
        return f"<FrameRun {self.id}, {self.state}{why}: {self.progress}>"


def _levels_to_user() -> int:
    """Return the ``stacklevel`` that makes a warning of the caller point at the first line outside this package."""
    frame, level = sys._getframe(1), 1  # noqa: SLF001 - what ``warnings`` itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
