"""A pipeline on some inputs, with whatever templates it is given: looked at, priced, run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from moa_nb import settings as configuration
from moa_nb.engine import Estimate, Plan, current
from moa_nb.engine.plan import Options
from moa_nb.errors import MoaError, UnknownName, gravest
from moa_nb.frames.questions import digest_of
from moa_nb.frames.rows import Questions
from moa_nb.frames.sample import Sample
from moa_nb.frames.spending import agree, forecast
from moa_nb.frames.verbs import Synthesize
from moa_nb.notebook.playground.drafts import Draft
from moa_nb.notebook.playground.inputs import Inputs
from moa_nb.notebook.playground.preview import Preview, look
from moa_nb.notebook.playground.trial import Tried
from moa_nb.pipeline.result import Result
from moa_nb.store import Store

__all__ = ["Bench", "Rows"]

Rows = int | Sequence[int]
"""As many of the first that have something to ask, or those at these positions."""


class Bench:
    """Everything about a playground that does not change when a template is edited. Its coroutines run on the engine's loop.

    Args:
        inputs: what is asked about.
        options: of its runs.
    """

    def __init__(self, inputs: Inputs, options: Options) -> None:
        self.inputs = inputs
        self.engine = current()
        self._options = options
        self._plan: Plan | None = None

    @property
    def pipeline(self) -> str:
        """The pipeline's name, once a plan was made."""
        assert self._plan is not None
        return self._plan.pipeline.name

    @property
    def store(self) -> Store:
        """Where versions and answers are."""
        return self.engine.store(configuration.current())

    async def planned(self, draft: Draft, *, fresh: bool = False) -> Plan:
        """Return the plan with a draft's templates; ``fresh``: with whatever changed besides, and a budget of its own.

        Raises:
            SetupError: something is wrong or missing; nothing was sent.
        """
        if fresh or self._plan is None or self._plan.settings is not configuration.current():
            self._plan = await self.engine.plan(self._options, keys=fresh)
        return replace(self._plan, load=draft.load, gateway=self.engine.gateway(self._plan.settings))

    async def first_row(self, draft: Draft) -> int:
        """Return the position of the first row that has something to ask; 0 where none has."""
        await self.planned(draft)
        return next(iter(Sample.first(self.inputs.questions(draft), 1).positions), 0)

    async def look(self, draft: Draft, row: int) -> Preview:
        """Return what a run on a row would send; nothing is sent.

        Raises:
            MoaError: a template cannot be used, or the row cannot be asked.
        """
        plan = await self.planned(draft)
        return await look(plan, self.inputs.task(self.inputs.questions(draft), row), plan.gateway)

    async def forecast(self, draft: Draft, rows: Rows) -> Estimate:
        """Return what runs on several rows would take at most."""
        plan = await self.planned(draft)
        sample = _sample(self.inputs.questions(draft), rows)
        return await forecast(plan, Synthesize(), sample, range(len(sample)), digest_of(plan), plan.gateway)

    async def run(self, draft: Draft, row: int) -> Result:
        """Return the run of a row; what the store knows is not asked again."""
        plan = await self.planned(draft, fresh=True)
        task = self.inputs.task(self.inputs.questions(draft), row)
        record = self.engine.new_record(plan, task)
        return await self.engine.answer_and_keep(plan, task, record, kind="playground")

    async def rows(self, draft: Draft, rows: Rows, *, ask: bool) -> list[Tried]:
        """Return several rows, each run on its own; without ``ask``, as far as the store has them.

        Raises:
            SpendingNotAgreed: it would take more than ``ask_above``, and there is no budget.
            SetupError: no row can be asked.
        """
        plan = await self.planned(draft, fresh=ask)
        sample = _sample(self.inputs.questions(draft), rows)
        if ask and self._options.budget is None and plan.settings.budget is None:
            await agree(plan, Synthesize(), sample, range(len(sample)), digest_of(plan), plan.gateway)
        try:
            async with asyncio.TaskGroup() as group:
                tried = [group.create_task(self._row(plan, sample, number, ask=ask)) for number in range(len(sample))]
        except BaseExceptionGroup as failed:
            raise gravest(failed) from None
        return [one.result() for one in tried]

    async def _row(self, plan: Plan, sample: Sample, number: int, *, ask: bool) -> Tried:
        position = sample.positions[number]
        label = self.inputs.label(position)
        try:
            task = self.inputs.task(sample.questions, position)
        except MoaError as error:  # this row's text is missing, or the template fails on its values
            return Tried(position, label, None, None, str(error))
        try:
            if not ask:
                return Tried(position, label, (await look(plan, task, plan.gateway)).result, None)
            record = self.engine.new_record(plan, task)
            result = await self.engine.answer_and_keep(plan, task, record, kind="playground")
        except MoaError as error:
            if ask and error.kind == "setup":
                raise
            return Tried(position, label, error.result, None, str(error))
        return Tried(position, label, result, None)


def _sample(questions: Questions, rows: Rows) -> Sample:
    if isinstance(rows, int):
        return Sample.first(questions, rows)
    for row in rows:
        if not 0 <= row < len(questions):
            msg = f"no row {row}: there are {len(questions)}, from 0 on"
            raise UnknownName(msg)
    return Sample(questions, tuple(rows))
