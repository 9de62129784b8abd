"""Judges asked, and what they say as a table that everything can be computed from again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.evaluation.points import table
from moa_nb.frames.execution import Execution
from moa_nb.frames.judged import Judged
from moa_nb.options import RunOptions
from moa_nb.pipeline.spec import Agent, Pipeline
from moa_nb.pipeline.strategies.jury import Jury

if TYPE_CHECKING:
    from moa_nb.frames.rows import Questions
    from moa_nb.gateway import Budget

__all__ = ["Judge", "judging", "ratings", "shared", "verdicts"]

Judge: TypeAlias = "str | Agent | Callable[..., object]"
"""A model, with its sampling if it is an ``Agent``, or a Python function of the prompt."""

_SHARED = ("budget", "cache", "mode")


def judging(
    judges: Judge | Sequence[Judge],
    reads: str,
    questions: Questions,
    options: RunOptions,
    *,
    purse: Budget | None = None,
) -> Execution:
    """Return a run that asks judges, at temperature 0 where they do not say another.

    Raises:
        SetupError: that is no judge.
    """
    several = [judges] if isinstance(judges, str | Agent) or callable(judges) else list(judges)
    if not several:
        msg = "judge: name a model, or several"
        raise SetupError(msg)
    panel = Jury(judges=several).judges
    calm = [one if one.temperature is not None else one.model_copy(update={"temperature": 0}) for one in panel]
    pipeline = Pipeline(strategy="jury", name="jury", judges=calm, reads=reads)
    return Execution(Judged(), questions, {**options, "pipeline": pipeline}, purse=purse)


def shared(options: RunOptions) -> RunOptions:
    """Return the options that judges have in common with those they judge."""
    return {name: options[name] for name in _SHARED if name in options}  # type: ignore[return-value, literal-required]  # some of them


def verdicts(run: Execution) -> pd.DataFrame:
    """Return a line for each verdict on a pair: ``row``, ``first`` (shown as A), ``second``, ``judge``, ``verdict``."""
    lines = [
        (row, *((one, other) if order == 0 else (other, one)), judge, word)
        for (row, one, other), order, judge, word in _words(run)
    ]
    return table(lines, ["row", "first", "second", "judge", "verdict"])


def ratings(run: Execution, reads: str = "rating") -> pd.DataFrame:
    """Return a line for each answer and judge: ``row``, ``pipeline``, ``judge``, and under ``reads`` what was read."""
    lines = [(row, name, judge, word) for (row, name), _, judge, word in _words(run)]
    return table(lines, ["row", "pipeline", "judge", reads])


def _words(run: Execution) -> Iterator[tuple[Any, int, str, Any]]:
    """Yield what each judge says in each order: the contest, the order, the judge, its word."""
    assert run.plan is not None
    judges = _names([agent.model for agent in run.plan.agents])
    for place, text in zip(run.questions.index, run.outcomes.texts, strict=True):
        for order, words in enumerate([] if text is None else json.loads(text)):
            for judge, word in zip(judges, words, strict=True):
                yield place, order, judge, word


def _names(models: Sequence[str]) -> list[str]:
    """Return a name for each judge: its model, numbered where one judges twice."""
    counts: dict[str, int] = {}
    names = []
    for model in models:
        counts[model] = counts.get(model, 0) + 1
        names.append(model if counts[model] == 1 else f"{model} #{counts[model]}")
    return names
