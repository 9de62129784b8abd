"""What runs left behind, as the tables that a replay needs: what gates saw, how good answers were, what they took."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from moa_nb.engine import current
from moa_nb.errors import MoaError, SetupError, UnknownName
from moa_nb.evaluation.calibration.gates import CLOSED
from moa_nb.evaluation.metrics import scores as measured
from moa_nb.frames.run import FrameRun
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.parse import parser
from moa_nb.pipeline.result import Call, Result
from moa_nb.pipeline.routing import is_function
from moa_nb.pipeline.similarity import medoid
from moa_nb.pipeline.spec import Agent, Pipeline
from moa_nb.pipeline.strategies.automix import confidence
from moa_nb.pipeline.vote import agreement, plurality
from moa_nb.providers import functions

__all__ = ["given_scores", "logged"]


@dataclass
class _Row:
    """What was logged of one row, tier by tier."""

    answers: list[str | None] = field(default_factory=list)
    costs: list[float | None] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)


def logged(
    runs: FrameRun | Mapping[str, FrameRun],
    pipeline: Pipeline,
    *,
    reference: Any = None,
    metric: Any = "exact",
    quality: pd.DataFrame | None = None,
    scores: Any = None,
) -> tuple[Any, pd.DataFrame, pd.DataFrame | None]:
    """Return scores, quality and costs, as ``Replay`` takes them; see ``Replay.of``.

    Raises:
        SetupError: something that is needed was not logged.
    """
    if isinstance(runs, Mapping):
        names, index, rows = _of_tiers(runs)
        if scores is None:
            scores = _scored(pipeline, index, rows, runs)
    else:
        names, index, rows = _of_pipeline(runs, pipeline)
        if scores is None:
            scores = pd.DataFrame([row.scores for row in rows], index=index, columns=names[:-1], dtype="Float64")
    answers, costs = (
        pd.DataFrame([getattr(row, what) for row in rows], index=index, columns=names, dtype=dtype)
        for what, dtype in (("answers", "object"), ("costs", "Float64"))
    )
    if quality is None:
        quality = measured(answers, reference, metric)
    elif len(quality.columns) != len(names):
        msg = f"quality has a column for each tier ({', '.join(names)}), not {len(quality.columns)}"
        raise SetupError(msg)
    # Nobody knows the price of a tier that answered and never says what it took.
    is_unknown = (answers.notna() & costs.isna()).any() & costs.isna().all()
    known = None if is_unknown.any() else costs
    quality = quality.set_axis(names, axis=1)
    return scores, quality, known


# A run for each tier ----------------------------------------------------------------------------


def _of_tiers(runs: Mapping[str, FrameRun]) -> tuple[list[str], pd.Index[Any], list[_Row]]:
    indexes = [run.costs.index for run in runs.values()]
    if not indexes or any(not index.equals(indexes[0]) for index in indexes):
        msg = "log each tier over the same rows: {name: run}, all of one frame"
        raise SetupError(msg)
    rows = [_Row() for _ in indexes[0]]
    for run in runs.values():
        for row, result in zip(rows, _results(run), strict=True):
            row.answers.append(None if result is None or result.error is not None else result.text)
            row.costs.append(None if result is None else _taken(result.calls))
    return [*runs], indexes[0], rows


def _scored(pipeline: Pipeline, index: pd.Index[Any], rows: Sequence[_Row], runs: Mapping[str, FrameRun]) -> Any:
    """Return what a scorer that is a function says of each tier's answer but the last."""
    scorer = getattr(pipeline.params, "scorer", None)
    if not isinstance(scorer, Agent) or not is_function(scorer):
        seen = {
            "route": "what its router says of each row: frame['question'].map(router.word)",
            "cascade": "a column for each tier but the last",
        }.get(pipeline.strategy, "a column for each gate")
        how = "" if pipeline.strategy == "route" else f"; or log one run of it with {CLOSED[pipeline.strategy]}"
        msg = f"these runs do not say what the gates of {pipeline.strategy!r} see: pass scores=, {seen}{how}"
        raise SetupError(msg)
    questions = [None if result is None else _question(result) for result in _results(next(iter(runs.values())))]
    table = [
        [_said(scorer, question, answer) for answer in row.answers[:-1]]
        for row, question in zip(rows, questions, strict=True)
    ]
    return pd.DataFrame(table, index=index, columns=[*runs][:-1], dtype="Float64")


def given_scores(pipeline: Pipeline, *, is_scoring_paid: bool) -> Iterator[str]:
    """Yield what has to be known of thresholds on scores that were given: another scorer's would need others."""
    scorer = getattr(pipeline.params, "scorer", None)
    if not isinstance(scorer, Agent) or is_function(scorer):
        return
    yield (
        f"The thresholds fit the scores that were given, but the pipeline asks {scorer.pipeline or scorer.model} for a "
        "score. If a function of yours made them, calibrate the pipeline that has it: "
        "pipeline=moa.Pipeline(strategy='cascade', scorer=function)."
    )
    if not is_scoring_paid:
        yield "What it takes to score the answers is in none of these costs."


# One run of the pipeline ------------------------------------------------------------------------


def _of_pipeline(run: FrameRun, pipeline: Pipeline) -> tuple[list[str], pd.Index[Any], list[_Row]]:
    if pipeline.strategy not in CLOSED:
        msg = f"one run of {pipeline.strategy!r} asks one tier a row: log each tier over the sample, {{name: run}}"
        raise SetupError(msg)
    params: Any = pipeline.params
    names = ["base", "oracle"] if pipeline.strategy == "pyramid" else _names(params.tiers)
    read: Callable[[Result, Any, int], _Row] = {
        "cascade": _cascade,
        "automix": _automix,
        "consistency-cascade": _consistency,
        "pyramid": _pyramid,
    }[pipeline.strategy]
    results = _results(run)
    rows = [_Row() if result is None else read(result, params, len(names)) for result in results]
    n_early = 0
    for row, result in zip(rows, results, strict=True):
        n_seen = len(row.answers)
        agrees = pipeline.strategy in {"consistency-cascade", "pyramid"} and any(one == 1 for one in row.scores)
        n_early += result is not None and result.error is None and n_seen < len(names) and not agrees
        for column, size in ((row.answers, len(names)), (row.costs, len(names)), (row.scores, len(names) - 1)):
            column.extend([None] * (size - len(column)))
    if n_early:
        msg = (
            f"{n_early} of {len(rows)} rows stopped before the last tier, whose answers are unknown: log a run with "
            f"{CLOSED[pipeline.strategy]}, or each tier by its own verb, {{name: run}}"
        )
        raise SetupError(msg)
    return names, run.costs.index, rows


def _cascade(result: Result, params: Any, n_tiers: int) -> _Row:
    row = _tiers(result, n_tiers)
    question = _question(result)
    for number, answer in enumerate(row.answers[: n_tiers - 1], start=1):
        calls = _calls(result, f"tier {number}: score")
        if is_function(params.scorer):
            row.scores.append(_said(params.scorer, question, answer))
        else:
            value = calls[0].value if calls and calls[0].ok else None
            row.scores.append(None if value is None else float(value))
    return row


def _automix(result: Result, _: Any, n_tiers: int) -> _Row:
    row = _tiers(result, n_tiers)
    for number, answer in enumerate(row.answers[: n_tiers - 1], start=1):
        verdicts = [call.value if call.ok else None for call in _calls(result, f"tier {number}: verification")]
        read = answer is not None and any(verdict is not None for verdict in verdicts)
        row.scores.append(confidence(verdicts) if read else None)
    return row


def _consistency(result: Result, params: Any, n_tiers: int) -> _Row:
    row = _Row()
    for number in range(1, n_tiers + 1):
        calls = _calls(result, f"tier {number}")
        if not calls:
            break
        row.costs.append(_taken(calls))
        if number == n_tiers:
            row.answers.append(_text(calls[0]))
            break
        values = _values(calls, params.answer)
        vote = plurality(values)
        row.answers.append(_winner(calls, vote.winner))
        row.scores.append(vote.share_of_all if any(call.ok for call in calls) else None)
    return row


def _pyramid(result: Result, params: Any, _: int) -> _Row:
    base, oracle = _calls(result, "base"), _calls(result, "oracle")
    values = _values(base, params.answer)
    texts = [call.text for call in base if call.ok]
    if params.by == "vote":
        at = plurality(values).winner
    else:
        at = medoid([None if value is None else str(value) for value in values])
    row = _Row([_winner(base, at)], [_taken(base)])
    if params.router is None:
        row.scores.append(agreement(values, params.by) if texts else None)
    else:
        row.scores.append(_said(params.router, _question(result), texts) if texts else None)
    if oracle:
        row.answers.append(_text(oracle[0]))
        row.costs.append(_taken(oracle))
    return row


def _tiers(result: Result, n_tiers: int) -> _Row:
    """Return the answers of single agents tier by tier, each with what it and looking at it took."""
    row = _Row()
    for number in range(1, n_tiers + 1):
        calls = _calls(result, f"tier {number}")
        if not calls:
            break
        row.answers.append(_text(calls[0]))
        looks = [call for look in ("score", "verification") for call in _calls(result, f"tier {number}: {look}")]
        row.costs.append(_taken([*calls, *looks]))
    return row


# Calls ------------------------------------------------------------------------------------------


def _results(run: FrameRun) -> list[Result | None]:
    """Return each row's run, ``None`` of a row that was not asked."""
    run.wait()
    found: list[Result | None] = []
    for position in range(len(run.costs)):
        try:
            found.append(run.trace(position))
        except UnknownName:  # it has no calls
            found.append(None)
    return found


def _calls(result: Result, name: str) -> tuple[Call, ...]:
    """Return the calls of a layer; none where there is no such layer.

    Raises:
        SetupError: the layer is a pipeline, whose answer is not recorded apart from its calls.
    """
    if any(layer.name.startswith(f"{name} › ") for layer in result.layers):
        msg = f"{name} is a pipeline of its own: log each tier by its own verb, {{name: run}}"
        raise SetupError(msg)
    return next((layer.calls for layer in result.layers if layer.name == name), ())


def _text(call: Call) -> str | None:
    return call.text if call.ok else None


def _winner(calls: Sequence[Call], at: int | None) -> str | None:
    """Return the answer that stands: the winner's, or else the first there is."""
    return calls[at].text if at is not None else next((call.text for call in calls if call.ok), None)


def _values(calls: Sequence[Call], answer: Any) -> list[Any]:
    """Return what is read of each answer, ``None`` where there is none."""
    read = parser(answer)
    return [read(call.text) if call.ok else None for call in calls]


def _taken(calls: Sequence[Call]) -> float | None:
    """Return what calls take in dollars when each is paid; ``None`` where a price is not known."""
    total = 0.0
    for call in calls:
        if call.cost is None and not call.ok:
            continue  # nothing came, and nothing is known to be billed
        if call.cost is None or call.saved is None:
            return None
        total += call.cost + call.saved
    return total


def _question(result: Result) -> str:
    return Task(result.conversation).question


def _said(function: Agent, *arguments: Any) -> float | None:
    """Return the number that a function of the pipeline says; ``None`` where it fails, as in the pipeline itself."""
    if None in arguments:
        return None
    called: Awaitable[Any] = functions.call(function.function or function.model.partition(":")[2], *arguments)

    async def say() -> Any:
        return await called

    try:
        return float(current().finish(say()))
    except (MoaError, TypeError, ValueError) as error:
        if isinstance(error, UnknownName):
            raise
        return None


def _names(agents: Sequence[Agent]) -> list[str]:
    """Return a name for each tier, unlike the others."""
    labels = [agent.label.removeprefix("$") for agent in agents]
    return [f"{label} {at}" if labels.count(label) > 1 else label for at, label in enumerate(labels, start=1)]
