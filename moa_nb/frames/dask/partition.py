"""One partition: its rows go through the verb, under the share of all limits that is theirs."""

from __future__ import annotations

import warnings
from typing import Any, cast

import pandas as pd

from moa_nb.engine import Engine, Estimate, Plan, current
from moa_nb.engine.forecast import Figures
from moa_nb.engine.plan import Options, make_plan
from moa_nb.errors import MoaError, SpendingNotAgreed
from moa_nb.frames.dask.assignment import Assignment, answers, spoken, this_process, worker_here
from moa_nb.frames.execution import Execution
from moa_nb.frames.run import RowsFailed
from moa_nb.gateway import Budget
from moa_nb.pipeline.forms import Form
from moa_nb.providers import functions
from moa_nb.settings import Settings

__all__ = ["estimated", "priced", "values"]


def values(data: pd.DataFrame | pd.Series[Any], assignment: Assignment) -> pd.DataFrame | pd.Series[Any]:
    """Return what the verb comes to for the rows of one partition.

    Raises:
        MoaError: what ended it early.
    """
    failure: MoaError | None = None
    with assignment.turn() as (settings, budget):
        execution = _execution(data, assignment, settings, budget)
        try:
            current().finish(execution.go())
        except SpendingNotAgreed as error:
            said = str(error).partition(": more than")[0]
            msg = (
                f"one of {assignment.n_partitions} partitions would take {said}: more than its share of ask_above; see"
                f" what all would take with .moa.estimate.{assignment.verb}(...), and pass a budget= for all of them"
            )
            failure = SpendingNotAgreed(msg)
        except MoaError as error:
            if assignment.home == this_process():
                raise
            failure = type(error)(*error.args)
    if failure is not None:
        # Raised here, it takes nothing along that would not survive the journey.
        raise failure
    _warn(execution)
    return answers(execution)


def priced(data: pd.DataFrame | pd.Series[Any], assignment: Assignment) -> Estimate:
    """Return what the verb would take for the rows of one partition; nothing is sent."""
    execution = _execution(data, assignment, assignment.settings, assignment.budget)
    return current().finish(execution.estimate())


def estimated(parts: list[Estimate]) -> Estimate:
    """Return what all partitions would take together."""
    low = sum((part.low for part in parts), Figures())
    high = sum((part.high for part in parts), Figures())
    at_least, by_form = (any(getattr(part, name) for part in parts) for name in ("at_least", "by_form"))
    return Estimate(parts[0].pipeline, low, high, at_least=at_least, by_form=by_form)


def _execution(
    data: pd.DataFrame | pd.Series[Any], assignment: Assignment, settings: Settings, budget: Budget | None
) -> Execution:
    """Return what goes through the rows of one partition."""
    for one in assignment.functions:
        functions.agent(one.name, version=one.version, cost=one.cost)(one.call)
    execution = spoken(data, assignment.verb, assignment.args, assignment.words)
    execution.engine = cast("Engine", _Under(assignment, settings, budget))
    return execution


class _Under:
    """The engine of this process, for one partition: under its share of the settings and of the budget."""

    def __init__(self, assignment: Assignment, settings: Settings, budget: Budget | None) -> None:
        self._assignment, self._settings, self._budget = assignment, settings, budget
        self._engine = current()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def gateway(self, settings: Settings) -> Any:  # noqa: ARG002 - what an engine is given
        """Return the gateway that all partitions of this process share."""
        return self._engine.gateway(self._settings)

    async def plan(self, options: Options, form: Form | None = None, *, keys: bool = True) -> Plan:
        """Return the plan of the partition."""
        settings, n_partitions = self._settings, self._assignment.n_partitions
        plan = make_plan(options, settings, self._assignment.cast, self._engine.gateway(settings), form, keys=keys)
        plan.budget = self._budget
        # What may be spent unasked is for all partitions together.
        plan.settings = settings.model_copy(
            update={
                "ask_above": settings.ask_above / n_partitions,
                "ask_above_calls": settings.ask_above_calls // n_partitions,
            }
        )
        return plan


def _warn(execution: Execution) -> None:
    """Warn of rows without an answer, where somebody reads it."""
    errors = execution.outcomes.errors
    if not errors:
        return
    text = f"{len(errors)} of {len(execution.outcomes)} rows of a partition have no answer; the first: {errors[min(errors)][1]}"
    if worker_here() is None:
        warnings.warn(text, RowsFailed, stacklevel=2)
    else:
        from distributed.worker import warn

        warn(text, RowsFailed)
