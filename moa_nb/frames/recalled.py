"""Runs of earlier sessions: made again from the store, their rows' traces included. Nothing is sent."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moa_nb import settings as configuration
from moa_nb.engine import Engine, current
from moa_nb.engine.questions import QuestionReader
from moa_nb.engine.recipe import Recipe
from moa_nb.engine.values import unpack_value
from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.frames.execution import Execution
from moa_nb.frames.groups import Summarize
from moa_nb.frames.index import unpack_index
from moa_nb.frames.judged import Judged
from moa_nb.frames.outcome import Outcomes
from moa_nb.frames.pairs import Prefer
from moa_nb.frames.run import FrameRun
from moa_nb.frames.verbs import Extract, Field, Synthesize, Verb
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.forms import form
from moa_nb.pipeline.result import Result
from moa_nb.store import RunRow, Store

__all__ = ["recall"]

_VERBS: dict[str, type[Verb]] = {verb.kind: verb for verb in (Synthesize, Extract, Field, Prefer, Summarize, Judged)}


def recall(run_id: str) -> Result | FrameRun:
    """Return a run of ``moa.runs()``, of this session or an earlier one, from the store; nothing is sent.

    A run over a frame has its report, values, layers, agreement and traces, though the frame is gone. What it asked is
    asked again by the same verb on the same frame: ``retry()`` is for runs of this session.

    Raises:
        UnknownName: there is no such run; the message names the nearest.
        SetupError: it cannot be made again, and why.

    >>> from moa_nb import run
    >>> text = "The mill closed in May. Forty people lost their work. The town bought the mill."
    >>> asked = run("Summarize in one sentence: " + text, models=["offline:lead"], aggregator="offline:consensus")
    >>> recall(asked.run_id).text
    'The mill closed in May.'
    """
    engine = current()
    store = engine.store(configuration.current())
    row = store.run(run_id) if isinstance(run_id, str) else None
    if row is None:
        msg = f"no run {run_id!r}; {nearest(run_id, [known.id for known in store.runs(1000)])}"
        raise UnknownName(msg)
    if row.kind == "frame":
        return _frame_run(engine, store, row)
    record = store.run_record(run_id)
    if record is None:
        msg = f"of run {run_id} only its figures are kept, which moa.runs() lists"
        raise SetupError(msg)
    return Result.from_record(record)


def _frame_run(engine: Engine, store: Store, row: RunRow) -> FrameRun:
    kept, rows = store.recipe(row.id), store.run_rows(row.id)
    if kept is None or rows is None:
        msg = f"of run {row.id} only its figures are kept, which moa.runs() lists"
        raise SetupError(msg)
    recipe = Recipe.from_record(kept)
    header, columns = rows
    try:
        verb = _verb(recipe.form)
        index = unpack_index(header["index"])
        errors = {position: (kind, error) for position, kind, error in header["errors"]}
        asked = _Asked(index, unpack_value(header["name"]), QuestionReader(store, row.id, form=verb.form))
        execution = Execution.over(row, verb, asked)
        if recipe.reason is None:
            engine.finish(_restore(execution, recipe, store, columns, errors))
        else:
            execution.why_not = recipe.reason
            execution.outcomes = Outcomes.of(columns, errors, header["texts"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"what is kept of run {row.id} cannot be read: {type(error).__name__}: {error}"
        raise SetupError(msg) from None
    return FrameRun(execution)


async def _restore(execution: Execution, recipe: Recipe, store: Store, columns: Any, errors: Any) -> None:
    # On the engine's loop, where gateways are made.
    await execution.restore(recipe.plan(configuration.current(), store), columns, errors)


def _verb(record: Any) -> Verb:
    """Return the verb that ``Verb.to_record`` made plain data of."""
    said = dict(record)
    kind = _VERBS[said.pop("verb")]
    wanted = said.pop("form")
    if "names" in said:
        said["names"] = tuple(said["names"])
    return kind(form=None if wanted is None else form(wanted), **said)


@dataclass(frozen=True)
class _Asked:
    """What the rows of a run asked, as the store has it."""

    index: pd.Index[Any]
    name: Hashable
    kept: QuestionReader

    def __len__(self) -> int:
        return len(self.index)

    def tasks(self, position: int) -> tuple[Task, ...]:
        """Return what a row asked; nothing where it asked nothing."""
        return tuple(self.kept.tasks(position) or ())
