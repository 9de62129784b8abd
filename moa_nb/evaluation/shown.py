"""An evaluation as its panel shows it: the same figures, and nothing that is not in them."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import pandas as pd

from moa_nb.evaluation.contests import contenders
from moa_nb.evaluation.front import front
from moa_nb.panels.evaluation.view import DifferenceView, EvaluationView, JudgeView, PairView, PipelineView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moa_nb.evaluation.evaluation import Evaluation
    from moa_nb.frames.run import FrameRun

__all__ = ["view_of"]


def view_of(found: Evaluation) -> EvaluationView:
    """Return what is shown of an evaluation."""
    judging = found.judging
    paid = [_paid(run) for run in found.runs.values()]
    is_metric = found.measured is not None
    return EvaluationView(
        column=found.column or "answers",
        rows=len(found.answers),
        pipelines=tuple(_pipelines(found)),
        measure="metric" if is_metric else "share" if found.unit == "points" else "rating",
        metric=found.unit if is_metric else "",
        baseline="" if found.baseline is None else str(found.baseline),
        reservations=found.reservations,
        pairs=tuple(_pairs(found)),
        differences=tuple(_differences(found)),
        judges=tuple(_judges(found)),
        unsaid=found.unsaid,
        answers_cost=None if None in paid else sum(one for one in paid if one is not None),
        answers_saved=sum(run.saved for run in found.runs.values()),
        judging_cost=0.0 if judging is None else _paid(judging),
        judging_saved=0.0 if judging is None else judging.saved,
        judging_calls=0 if judging is None else judging.progress.calls,
        judging_cached=0 if judging is None else judging.progress.cached_calls,
        cost_is_at_least=any(
            run.progress.unreported > 0 for run in [*found.runs.values(), *([judging] if judging else [])]
        ),
        seconds=sum(run.progress.seconds for run in [*found.runs.values(), *([judging] if judging else [])]) or None,
    )


def _paid(run: FrameRun) -> float | None:
    return run.progress.cost


def _pipelines(found: Evaluation) -> Iterator[PipelineView]:
    table = found.table
    estimated = _estimated(found.figures)
    is_quick = front(table["seconds"].tolist(), table["quality"].tolist())
    for name, is_on_time_front in zip(table.index, is_quick, strict=True):
        row = {column: None if pd.isna(value) else value for column, value in table.loc[name].items()}
        run = found.runs.get(name)
        yield PipelineView(
            name=str(name),
            quality=row["quality"],
            low=row["low"],
            high=row["high"],
            n_judged=int(row["n"] or 0),
            cost_per_row=row["cost"],
            cost=row["total_cost"],
            cost_is_at_least=run is not None and run.progress.unreported > 0,
            seconds_per_row=row["seconds"],
            prompt_tokens_per_row=row["prompt_tokens"],
            completion_tokens_per_row=row["completion_tokens"],
            estimated=name in estimated,
            n_calls=None if row["calls"] is None else int(row["calls"]),
            n_failed=found.n_missing[name],
            n_degraded=int(row["degraded"] or 0),
            on_cost_front=bool(row["on_front"]),
            on_time_front=is_on_time_front,
        )


def _estimated(figures: pd.DataFrame | None) -> set[str]:
    """Return the pipelines of which some tokens are estimates."""
    if figures is None or "estimated" not in figures:
        return set()
    return set(figures.index[figures["estimated"].isin([True])])


def _pairs(found: Evaluation) -> Iterator[PairView]:
    for one, other in combinations(found.pipelines, 2):
        better = found.better(one, other)
        if len(better):
            yield PairView(str(one), str(other), float(better.mean()), len(better), int((better == 0.5).sum()))


def _differences(found: Evaluation) -> Iterator[DifferenceView]:
    tests = found.tests
    n_tests = int(tests["p"].count())
    for one, other in contenders(found.pipelines, found.baseline):
        test: Any = tests.loc[(one, other)]
        if pd.isna(test["difference"]):
            continue
        low, high, p = (None if pd.isna(test[name]) else float(test[name]) for name in ("low", "high", "p"))
        raw = found.paired(one, other).p
        yield DifferenceView(
            str(one), str(other), float(test["difference"]), low, high, raw, int(test["n"]), p if n_tests > 1 else None
        )


def _judges(found: Evaluation) -> Iterator[JudgeView]:
    if found.judgements is None:
        return
    findings = {(one.judge, one.measure): one for one in found.judge().findings}
    if not len(found.judgements):
        return
    judges = found.judgements["judge"].map(str)
    for judge in dict.fromkeys(judges):

        def seen(measure: str, judge: str = judge) -> tuple[float | None, int]:
            finding = findings.get((judge, measure))
            return (None, 0) if finding is None else (finding.value, finding.n)

        n_unreadable = found.judgements.loc[judges == judge, found.word].isna().sum()
        flips, n_swapped = seen("flips")
        longer, n_unequal = seen("longer wins")
        own, n_own = seen("own answers")
        yield JudgeView(
            model=judge,
            n_verdicts=int((judges == judge).sum()),
            n_unreadable=int(n_unreadable),
            flip_rate=flips,
            n_swapped=n_swapped,
            first_wins=seen("first place")[0],
            longer_wins=longer,
            n_unequal=n_unequal,
            own_wins=own,
            n_own=n_own,
        )
