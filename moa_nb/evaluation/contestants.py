"""Who is compared: pipelines that are still to run, runs, and answers that are there already."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Sized
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from moa_nb.errors import MoaError, SetupError, UnknownName, nearest
from moa_nb.frames import report as reports
from moa_nb.frames.run import FrameRun
from moa_nb.frames.texts import series
from moa_nb.options import RunOptions, refuse_unknown
from moa_nb.pipeline import presets
from moa_nb.pipeline.spec import Pipeline
from moa_nb.plain import quoted

__all__ = ["Contestant", "column_of", "named", "on", "own", "refuse", "refuse_idle", "taken", "texts"]

_KNOWN = ("cost", "seconds", "prompt_tokens", "completion_tokens")
"""What a frame of answers may say of each row beside the answer."""

_ROLES = {"models": "proposers", "aggregator": "aggregator"}
"""The options that fill a role, which not every pipeline has."""

Contestant: TypeAlias = "str | Pipeline | FrameRun | pd.Series[Any] | pd.DataFrame"
"""A pipeline, a run of one over the same rows, or answers that are there already: a Series, or a frame with the column
``answer`` and, where they are known, ``cost``, ``seconds``, ``prompt_tokens`` and ``completion_tokens``."""


def named(pipelines: Any) -> dict[str, Contestant]:
    """Return the contestants by name.

    Raises:
        SetupError: they are none, or two have one name.
    """
    if not isinstance(pipelines, Mapping | Iterable):
        msg = f"pipelines are a list such as ['single', 'moa'], or a mapping of your own names, not {quoted(pipelines)}"
        raise SetupError(msg)
    if isinstance(pipelines, Mapping):
        named = {
            str(name): one.called(str(name)) if isinstance(one, Pipeline) else one for name, one in pipelines.items()
        }
        _refuse_twins(named, pipelines)
    elif isinstance(pipelines, str | Pipeline):
        named = {_name(pipelines): pipelines}
    else:
        listed = list(pipelines)
        if not all(isinstance(one, str | Pipeline) for one in listed):
            msg = "pipelines are names or Pipelines; runs and answers need a name: {'mine': df['my_answer']}"
            raise SetupError(msg)
        named = {_name(one): one for one in listed}
        _refuse_twins(named, listed)
    for name, one in named.items():
        if not isinstance(one, str | Pipeline | FrameRun | pd.Series | pd.DataFrame):
            msg = f"{quoted(name)} is a pipeline, a run or a Series of answers, not {type(one).__name__}"
            raise SetupError(msg)
    return named


def _refuse_twins(named: Mapping[str, Any], given: Sized) -> None:
    if len(named) < len(given):
        msg = "two pipelines have one name: give them names of your own, {'warm': ..., 'cold': ...}"
        raise SetupError(msg)


def _name(pipeline: str | Pipeline) -> str:
    return pipeline if isinstance(pipeline, str) else pipeline.name


def on(one: Contestant, name: str, whole: pd.Index[Any], drawn: np.ndarray[Any, Any]) -> Contestant:
    """Return a contestant on the rows that were drawn.

    Raises:
        SetupError: it is of other rows.
    """
    if isinstance(one, str | Pipeline):
        return one
    if isinstance(one, pd.DataFrame) and ("answer" not in one or one.columns.duplicated().any()):
        msg = f"{name!r}: a frame of answers has one column 'answer', and may have one of each of {', '.join(_KNOWN)}"
        raise SetupError(msg)
    if isinstance(one, pd.DataFrame):
        for column in one.columns[one.columns.isin(_KNOWN)]:
            if not pd.api.types.is_numeric_dtype(one.dtypes[column]):
                msg = f"{name!r}: the column {column!r} has numbers, not {one.dtypes[column]}"
                raise SetupError(msg)
    index: pd.Index[Any] = one.costs.index if isinstance(one, FrameRun) else one.index
    if not index.equals(whole):
        msg = f"{name!r} has other rows than the frame: their labels differ"
        raise SetupError(msg)
    if isinstance(one, FrameRun):
        if len(drawn) < len(whole):
            msg = f"{name!r} ran over all rows: leave sample= out, or give its values, {{{name!r}: run.values}}"
            raise SetupError(msg)
        return one
    return one.iloc[drawn]


def texts(one: Contestant, rows: pd.Index[Any], said: str | None = None) -> pd.Series[Any]:
    """Return a contestant's answers as texts; ``said`` for all rows of one that is still to run.

    Raises:
        SetupError: a run has several columns.
    """
    if isinstance(one, str | Pipeline):
        return series([said] * len(rows), rows)
    values: Any = one["answer"] if isinstance(one, pd.DataFrame) else one
    if isinstance(one, FrameRun):
        values = one.wait().partial
    if isinstance(values, pd.DataFrame):
        msg = "a run of extract has several columns: give one of them as answers, {'mine': run.values['field']}"
        raise SetupError(msg)
    return series([None if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)], rows)


def taken(one: Contestant, run: FrameRun | None) -> dict[str, Any]:
    """Return what a contestant took; what is not known is missing."""
    if run is not None:
        # Not ``run.report``, which would look for each row's agreement first.
        report = reports.report(run._execution.outcomes, run.costs.index)  # noqa: SLF001 - as above
        is_asked = report["n_calls"] > 0
        is_timed = is_asked & (report["n_cached"] == 0)
        n_answered = int((report["state"].isin(["done", "duplicate"])).sum())
        total = _total(run, report) if is_asked.any() else None
        return {
            "cost": None if total is None or not n_answered else total / n_answered,
            "total_cost": total,
            "seconds": report.loc[is_timed, "seconds"].median() if is_timed.any() else None,
            "prompt_tokens": report.loc[is_asked, "prompt_tokens"].mean(),
            "completion_tokens": report.loc[is_asked, "completion_tokens"].mean(),
            "estimated": _is_estimated(run, np.flatnonzero(is_asked)),
            "calls": int(report["n_calls"].sum()),
            "failed": int((report["state"] == "failed").sum()),
            "degraded": int(report["degraded"].fillna(value=False).sum()),
        }
    if isinstance(one, pd.DataFrame):
        known = {name: one[name].mean() for name in _KNOWN if name in one}
        if "cost" in one:
            known["total_cost"] = one["cost"].sum()
        if "seconds" in one:
            known["seconds"] = one["seconds"].median()
        return known
    return {}


def _is_estimated(run: FrameRun, asked: np.ndarray[Any, Any]) -> bool:
    """Return whether tokens of a run are estimates, some of them at least: those of its calls, or of one stored row's."""
    if run._execution.tally.estimated:  # noqa: SLF001 - as above
        return True
    try:
        return len(asked) > 0 and run.trace(int(asked[0])).usage.estimated
    except MoaError:  # nothing of it is kept
        return False


def _total(run: FrameRun, report: pd.DataFrame) -> float | None:
    """Return the dollars of all rows; ``None`` where they are not known."""
    if int(run.by_model["calls"].sum()) >= int(report["n_calls"].sum()):
        return run.full_cost
    # Of an earlier session's run, and of rows before a retry, what was paid is known, but not what the store once took.
    is_known = not report["n_cached"].any() and report.loc[report["n_calls"] > 0, "cost"].notna().all()
    return float(report["cost"].sum()) if is_known else None


def refuse(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Return nothing if a function takes all options.

    Raises:
        UnknownOption: it does not know one.
        SetupError: it is ``pipeline``, of which there are several.
    """
    refuse_unknown(function, options)
    if options.get("pipeline") is not None:
        msg = "which pipelines? Name them in pipelines=, all that are to be compared"
        raise SetupError(msg)


def own(options: RunOptions, pipeline: str | Pipeline) -> RunOptions:
    """Return the options of one pipeline's run: who fills a role only where the pipeline has it."""
    roles = presets.load(pipeline).roles
    left_out = {option for option, role in _ROLES.items() if role not in roles}
    mine: Any = {name: value for name, value in options.items() if name not in left_out}
    return mine | {"pipeline": pipeline}  # type: ignore[no-any-return]  # the same keys, fewer of them


def refuse_idle(options: RunOptions, runs: Sequence[RunOptions]) -> None:
    """Return nothing if each option that fills a role fills one in some run.

    Raises:
        SetupError: one of them has nothing to fill.
    """
    for option, role in _ROLES.items():
        if options.get(option) is not None and runs and not any(option in one for one in runs):
            msg = f"none of these pipelines asks for ${role}, so {option!r} has nothing to fill"
            raise SetupError(msg)


def column_of(data: pd.DataFrame, name: Hashable) -> pd.Series[Any]:
    """Return a column.

    Raises:
        SetupError: there is none.
    """
    if not isinstance(data, pd.DataFrame):
        msg = f"a benchmark takes a DataFrame, a row a conversation, not {type(data).__name__}"
        raise SetupError(msg)
    if name not in data.columns:
        msg = f"the frame has no column {name!r}; {nearest(str(name), map(str, data.columns))}"
        raise UnknownName(msg)
    found = data[name]
    if isinstance(found, pd.DataFrame):
        msg = f"the frame has {found.shape[1]} columns named {name!r}: rename one"
        raise SetupError(msg)
    return found
