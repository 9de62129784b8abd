"""One verb for all partitions: checked where it is spoken, and carried to where the rows are."""

from __future__ import annotations

import functools
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from moa_nb.engine import current
from moa_nb.engine.roles import Cast
from moa_nb.errors import SetupError
from moa_nb.frames.accessor import Verbs
from moa_nb.frames.dask import treasury
from moa_nb.frames.dask.purse import Purse
from moa_nb.frames.dask.shares import has_rates, keyed, packed, share, unpacked
from moa_nb.frames.execution import Execution
from moa_nb.gateway import Budget
from moa_nb.gateway.budget import Unit
from moa_nb.pipeline import presets
from moa_nb.plain import quoted
from moa_nb.providers import functions
from moa_nb.settings import Settings

__all__ = ["Assignment", "answers", "spoken", "this_process", "worker_here"]

_PATIENCE = 0.25
"""Seconds after which a partition asks again for a seat."""


def this_process() -> str:
    """Return what tells this process from others."""
    return f"{socket.gethostname()} {os.getpid()}"


@dataclass(eq=False)
class Assignment:
    """One verb with its words, as every partition is to do it. No key travels with it."""

    verb: str
    args: tuple[Any, ...]
    words: Mapping[str, Any]
    settings: Settings
    """Those that held when the verb was spoken."""
    cast: Cast
    functions: tuple[functions.Function, ...]
    """The registered ones that it asks."""
    n_partitions: int
    workers: int | None
    """Processes that share the limits; ``None``: those of the cluster, or this one."""
    limit: float | None
    """Of all partitions together; ``None`` for no budget."""
    unit: Unit
    keyed: tuple[str, ...] = ()
    """Providers whose key stays behind."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    home: str = field(default_factory=this_process)
    """Where it was spoken."""

    def __post_init__(self) -> None:
        self.budget = None if self.limit is None else Budget(self.limit, self.unit)
        """Of the partitions that are done in one process without a scheduler."""

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "settings"}
        return _arrived, (packed(self.settings), values)

    def __dask_tokenize__(self) -> str:
        return self.id

    @classmethod
    def of(
        cls,
        empty: pd.DataFrame | pd.Series[Any],
        verb: str,
        args: tuple[Any, ...],
        words: Mapping[str, Any],
        *,
        n_partitions: int,
        workers: int | None,
    ) -> tuple[Assignment, pd.DataFrame | pd.Series[Any]]:
        """Return a verb for all partitions, and what one without rows comes to. Nothing is sent.

        Args:
            empty: the columns, without rows.
            verb: its name.
            args: as it was spoken.
            words: likewise.
            n_partitions: of the frame.
            workers: processes that share the limits; ``None``: those of the cluster, or this one.

        Raises:
            SetupError: a word, column, template, model, key or price is wrong, or a limit cannot be shared.
        """
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            msg = f"workers is the number of processes that share the limits, 1 or more, not {quoted(workers)}"
            raise SetupError(msg)
        words = _portable(words)
        engine = current()
        execution = spoken(empty, verb, args, words)
        who = engine.finish(engine.who_answers())
        engine.finish(execution.estimate())
        plan = execution.plan
        assert plan is not None
        asked = {model.partition(":")[0] for model in plan.models}
        own = [model.partition(":")[2] for model in plan.models if model.startswith("function:")]
        assignment = cls(
            verb,
            args,
            words,
            plan.settings,
            who,
            tuple(functions.find(name) for name in own if name in functions.registered()),
            n_partitions,
            workers,
            None if plan.budget is None else plan.budget.limit,
            "dollars" if plan.budget is None else plan.budget.unit,
            tuple(name for name in keyed(plan.settings) if name in asked),
        )
        share(plan.settings, workers or 1)
        return assignment, answers(execution)

    def check_journey(self, n_processes: int) -> None:
        """Return nothing if other processes can do this.

        Raises:
            SetupError: a key or a function cannot come along, or a limit cannot be shared by so many.
        """
        self._refuse_keys()
        share(self.settings, self.workers or n_processes)
        import cloudpickle  # type: ignore[import-untyped,unused-ignore]  # it says nothing of its types

        try:
            cloudpickle.dumps(self)
        except Exception as error:  # whatever stands in a function's way
            msg = (
                f"this cannot be sent to the workers ({type(error).__name__}: {error}): put functions and schemas into a"
                " module that the workers can import"
            )
            raise SetupError(msg) from error

    def _refuse_keys(self) -> None:
        if self.keyed:
            name = self.keyed[0]
            msg = (
                f"the key of {name!r} was given to moa.configure and is not sent to other processes: name its variable as"
                f" providers.{name}.key_env, and set that variable on the workers"
            )
            raise SetupError(msg)

    # What one partition may take --------------------------------------------------------------

    @contextmanager
    def turn(self) -> Iterator[tuple[Settings, Budget | None]]:
        """Return a block in which a partition has its share: settings, and a budget where there is one.

        Raises:
            SetupError: nobody here can say what its share is, or a key stayed behind.
        """
        worker = worker_here()
        if worker is None:
            if self.home != this_process():
                msg = (
                    "dask's own processes cannot share limits and a budget: start a cluster with"
                    " dask.distributed.Client(), or compute with scheduler='threads'"
                )
                raise SetupError(msg)
            yield share(self.settings, self.workers or 1), self.budget
            return
        process = treasury.process_of(worker.address, worker.id)
        if self.home != this_process():
            self._refuse_keys()
        attempt = uuid.uuid4().hex
        rates = has_rates(self.settings)
        asked = treasury.Asked(self.id, attempt, process, self.workers, self.limit, rates)
        from distributed import get_client

        client: Any = get_client()
        more = functools.partial(client.run_on_scheduler, treasury.more, asked)
        budget = None if self.limit is None else Purse(self.limit, self.unit, more)
        while (n_processes := client.run_on_scheduler(treasury.ask, asked)) is None:
            time.sleep(_PATIENCE)
        try:
            yield share(self.settings, n_processes), budget
        finally:
            spent = 0.0 if budget is None else budget.spent + budget.reserved
            client.run_on_scheduler(treasury.settle, self.id, attempt, spent)


def spoken(
    data: pd.DataFrame | pd.Series[Any], verb: str, args: tuple[Any, ...], words: Mapping[str, Any]
) -> Execution:
    """Return what a verb comes to on these rows, before it begins."""

    def begin(kind: Any, questions: Any, options: Any, *, on_error: Any, progress: Any) -> Execution:  # noqa: ARG001 - nobody looks on
        return Execution(kind, questions, options, on_error=on_error)

    execution: Execution = getattr(Verbs[Any, Any](data, begin), verb)(*args, **words)
    return execution


def answers(execution: Execution) -> pd.DataFrame | pd.Series[Any]:
    """Return what users get of the rows that are over, as the verb gives it."""
    questions = execution.questions
    found: pd.DataFrame | pd.Series[Any] = execution.verb.values(
        execution.outcomes.texts, questions.index, questions.name
    )
    return found


def _portable(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words of a verb as another process understands them: registered functions and pipelines not by chance."""
    said = dict(words)
    models = said.get("models")
    if callable(models):
        said["models"] = _by_name(models)
    elif models is not None and not isinstance(models, str | Mapping):
        said["models"] = [_by_name(model) for model in models]
    if callable(said.get("aggregator")):
        said["aggregator"] = _by_name(said["aggregator"])
    if isinstance(said.get("pipeline"), str):
        said["pipeline"] = presets.load(said["pipeline"])
    return said


def _by_name(model: Any) -> Any:
    known = functions.registration(model) if callable(model) else None
    return model if known is None else f"function:{known.name}"


def _arrived(settings: bytes, values: Mapping[str, Any]) -> Assignment:
    return Assignment(settings=unpacked(settings), **values)


def worker_here() -> Any:
    """Return dask's worker that this runs in; ``None`` where there is none."""
    try:
        from distributed import get_worker
    except ImportError:
        return None
    try:
        return get_worker()
    except ValueError:
        return None
