"""The figures of a run over rows, as its report shows them: the same numbers, drawn together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from moa_nb.frames.outcome import STATES, Outcomes
from moa_nb.frames.report import Tally
from moa_nb.frames.sample import Sample
from moa_nb.frames.texts import Texts
from moa_nb.panels.figures import count
from moa_nb.panels.frame_preview import PreviewedRow, PreviewView
from moa_nb.panels.frame_report.view import (
    BELOW,
    AgreementView,
    FailureView,
    LatencyView,
    ModelView,
    ReportView,
    RowView,
)
from moa_nb.panels.frame_report.words import cost_in_words, duration
from moa_nb.panels.view import view_of

if TYPE_CHECKING:
    from moa_nb.engine import Estimate
    from moa_nb.frames.execution import Execution
    from moa_nb.pipeline.result import Result

__all__ = ["previewed", "view_of_run"]

_HEAD = 5
"""Rows of which values are shown."""

_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Written out, so that a value of 0.6 is not below 0.6."""

_MOST_BARS, _SHORTEST_BAR = 10, 0.001


def view_of_run(execution: Execution) -> ReportView:
    """Return what is known of a run now; no call is made for it, and nothing is compared."""
    outcomes, tally = execution.outcomes, execution.tally
    states, n_calls, n_cached = outcomes.states, outcomes.column("n_calls"), outcomes.column("n_cached")
    is_done = states == STATES.index("done")
    seconds = outcomes.column("seconds")
    from_store = seconds[is_done & (n_calls > 0) & (n_cached == n_calls)]
    goes_on = _goes_on(execution)
    has_silent = bool((is_done & (n_calls > 0) & (outcomes.column("prompt_tokens") < 0)).any())
    # Read last, so that nothing seems to be of an earlier run but one row that is being settled.
    progress = outcomes.progress(execution.seconds, None if execution.plan is None else execution.plan.budget)
    earlier = int(n_calls.sum()) - progress.calls
    if earlier <= (int(n_calls.max(initial=0)) if goes_on else 0):
        earlier = 0
    models = tuple(_models(tally))
    is_recalled = not models and progress.calls > 0
    columns, head = _head(execution)
    return ReportView(
        verb=execution.verb.called,
        column="" if execution.questions.name is None else str(execution.questions.name),
        pipeline="" if execution.plan is None else execution.plan.pipeline.name,
        state=execution.state,
        rows=progress.rows,
        states=tuple(_states(states, goes_on=goes_on)),
        degraded=int((is_done & (outcomes.column("degraded") > 0)).sum()),
        noun=_noun(execution),
        calls=progress.calls,
        cached=progress.cached_calls,
        prompt_tokens=_tokens(outcomes, "prompt_tokens") if is_recalled else sum(one.prompt_tokens for one in models),
        completion_tokens=_tokens(outcomes, "completion_tokens")
        if is_recalled
        else sum(one.completion_tokens for one in models),
        # Of other models' tokens an earlier session has kept the sums alone.
        is_estimated_by_rows=is_recalled
        and execution.plan is not None
        and any(model.startswith("offline:") for model in execution.plan.models),
        tokens_are_at_least=has_silent or progress.unreported > 0,
        cost=progress.cost,
        cost_is_at_least=progress.unreported > 0,
        projected_cost=progress.projected_cost if goes_on else None,
        saved=tally.saved,
        budget=None if progress.budget is None else str(progress.budget),
        seconds=progress.seconds,
        rows_per_second=None if earlier or not progress.seconds else progress.done / progress.seconds,
        unsent=0 if goes_on or is_recalled else max(0, progress.calls - sum(model.calls for model in models)),
        earlier_calls=earlier,
        error=None if execution.error is None else str(execution.error),
        models=models,
        latency=_latency(seconds[is_done & (n_calls > n_cached)]),
        cached_rows=len(from_store),
        cached_seconds=float(np.median(from_store)) if len(from_store) else None,
        agreement=_agreement(outcomes, states),
        failures=tuple(_failures(outcomes, states, execution.questions.index)),
        index=_label(list(execution.questions.index.names)) if any(execution.questions.index.names) else "",
        columns=columns,
        head=head,
        run_id=execution.id,
    )


def previewed(execution: Execution, results: Sequence[Result], estimate: Estimate) -> PreviewView:
    """Return what is shown of a preview.

    Args:
        execution: of the finished run over its rows.
        results: of those rows that had something to ask, in order.
        estimate: what all rows would take.
    """
    left = iter(results)
    columns, head = _head(execution)
    rows = []
    for position, row in enumerate(head):
        outcome = execution.outcomes[position]
        was_asked = outcome is not None and (outcome.n_calls > 0 or outcome.state in {"done", "duplicate"})
        result = next(left, None) if was_asked else None
        error = None if outcome is None else outcome.error
        rows.append(PreviewedRow(row, error, None if result is None else view_of(result)))
    asked = execution.questions
    n_rows = len(asked.questions if isinstance(asked, Sample) else asked)
    return PreviewView(
        execution.verb.called, n_rows, str(estimate), _took(execution), columns, tuple(rows), _noun(execution)
    )


# Their parts -------------------------------------------------------------------------------------


def _noun(execution: Execution) -> str:
    return "group" if execution.verb.kind == "summarize" else "row"


def _took(execution: Execution) -> str:
    progress = execution.outcomes.progress(execution.seconds, None)
    cost = cost_in_words(progress.cost, at_least=progress.unreported > 0)
    cached = f" ({progress.cached_calls:,} cached)" if progress.cached_calls else ""
    return f"{cost}, {count(progress.calls, 'call')}{cached}, {duration(progress.seconds)}"


def _states(states: np.ndarray[Any, Any], *, goes_on: bool) -> Iterator[tuple[str, int]]:
    """Yield how many rows are in each state; those without one come last."""
    numbers = np.bincount(states, minlength=len(STATES)).tolist()
    if not goes_on:
        numbers[STATES.index("not asked")] += numbers[0]
        numbers[0] = 0
    order = ("done", "duplicate", "skipped", "failed", "stopped", "not asked", "")
    yield from ((name or "still to come", number) for name in order if (number := numbers[STATES.index(name)]))


def _tokens(outcomes: Outcomes, name: str) -> int:
    """Return the tokens of all rows, as the report has them."""
    numbers = outcomes.column(name)
    return int(numbers[numbers > 0].sum())


def _models(tally: Tally) -> Iterator[ModelView]:
    estimated = tally.estimated
    for row in tally.frame().to_dict("records"):
        cost = None if pd.isna(row["cost"]) else float(row["cost"])
        mean = float(row["mean_seconds"]) if row["calls"] > row["cached"] else None
        yield ModelView(
            **{**{str(name): value for name, value in row.items()}, "cost": cost, "mean_seconds": mean},
            estimated=(row["layer"], row["model"]) in estimated,
        )


def _latency(seconds: np.ndarray[Any, Any]) -> LatencyView | None:
    if not len(seconds):
        return None
    median, p95, nearly_all = np.quantile(seconds, [0.5, 0.95, 0.99]).tolist()
    edges, step = _edges(float(seconds.min()), nearly_all)
    places = np.maximum(np.searchsorted(edges, seconds, side="right") - 1, 0)  # an edge is rounded
    counts = np.bincount(places, minlength=len(edges)).tolist()
    return LatencyView(edges, step, tuple(counts), median, p95, float(seconds.max()))


def _edges(low: float, high: float) -> tuple[tuple[float, ...], float]:
    """Return where some ten bars begin, at round numbers, and how wide they are.

    >>> _edges(0.31, 1.3)
    ((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3), 0.1)
    """
    least = max((high - low) / _MOST_BARS, _SHORTEST_BAR)
    power = 10.0 ** math.floor(math.log10(least))
    # What is a hair above a round number, as 0.1 + 0.2 is, counts as that number.
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
    numbers = range(math.floor(low / step), math.floor(high / step) + 1)
    return tuple(round(number * step, 9) for number in numbers), step


def _agreement(outcomes: Outcomes, states: np.ndarray[Any, Any]) -> AgreementView | None:
    agreement = outcomes.column("agreement")
    known = agreement[agreement >= 0]
    is_answered = np.isin(states, [STATES.index("done"), STATES.index("duplicate")])
    n_unknown = int((is_answered & (agreement < 0)).sum())
    if not len(known):
        return None
    counts = np.bincount(np.searchsorted(_TENTHS, known, side="right"), minlength=10)
    return AgreementView(tuple(counts.tolist()), int((known < BELOW).sum()), n_unknown)


def _failures(outcomes: Outcomes, states: np.ndarray[Any, Any], index: pd.Index[Any]) -> Iterator[FailureView]:
    """Yield the kinds of errors with the first row of each, the commonest kind first."""
    errors = dict(outcomes.errors)  # the engine's thread may be adding meanwhile
    numbers = Counter(kind or "unknown" for kind, _ in errors.values())
    first: dict[str, int] = {}
    for position in sorted(errors):
        first.setdefault(errors[position][0] or "unknown", position)
    for kind, number in numbers.most_common():
        yield FailureView(kind, number, _label(index[first[kind]]), errors[first[kind]][1])
    silent = [int(place) for place in np.flatnonzero(states == STATES.index("failed")) if int(place) not in errors]
    if silent:
        yield FailureView("unknown", len(silent), _label(index[silent[0]]), "no reason was kept")


def _goes_on(execution: Execution) -> bool:
    return execution.state in {"waiting", "running"}


def _head(execution: Execution) -> tuple[tuple[str, ...], tuple[RowView, ...]]:
    """Return the names of what the verb returns, and the first rows."""
    outcomes, questions = execution.outcomes, execution.questions
    missing = "still to come" if _goes_on(execution) else "not asked"
    n_rows = min(_HEAD, len(outcomes))
    texts = Texts(n_rows)
    for position in range(n_rows):
        texts[position] = outcomes.texts[position]
    index = questions.index[:n_rows]
    values = execution.verb.values(texts, index, questions.name)
    table = values if isinstance(values, pd.DataFrame) else values.to_frame("answer")
    columns = [table.iloc[:, place].to_list() for place in range(table.shape[1])]
    rows = []
    for position in range(n_rows):
        state = STATES[outcomes.states[position]] or missing
        cells = tuple(_cell(column[position]) for column in columns)
        rows.append(RowView(_label(index[position]), state, cells))
    return tuple(map(str, table.columns)), tuple(rows)


def _label(label: Any) -> str:
    """Return an index's label as text.

    >>> _label(("north", 3)), _label([None])
    ('north, 3', '')
    """
    return ", ".join(str(part) for part in label if part is not None) if isinstance(label, tuple | list) else str(label)


def _cell(value: Any) -> str | None:
    is_missing = value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))
    return None if is_missing else str(value)
