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
from moa_nb.plain import quoted

if TYPE_CHECKING:
    from moa_nb.frames.rows import Questions
    from moa_nb.gateway import Budget

__all__ = ["Judge", "judging", "names", "ratings", "shared", "verdicts"]

Judge: TypeAlias = "str | Agent | Callable[..., object]"
"""A model or a pipeline's name, an ``Agent`` with its sampling, or a Python function of the prompt."""

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
    several = [*judges] if isinstance(judges, list | tuple) else [judges]
    if not several:
        msg = "judge: name a model, or several"
        raise SetupError(msg)
    for one in several:
        if not (isinstance(one, str | Agent) or callable(one)) or one == "":
            msg = f"a judge is a model, an Agent, a pipeline's name or a function, or a list of them, not {quoted(one)}"
            raise SetupError(msg)
    panel = [one if isinstance(one, Agent) else Agent.model_validate(one) for one in several]
    calm = [one if one.temperature is not None else one.model_copy(update={"temperature": 0}) for one in panel]
    pipeline = Pipeline(strategy="jury", name="jury", judges=calm, reads=reads)
    return Execution(Judged(), questions, {**options, "pipeline": pipeline}, purse=purse, is_agreed=True)


def shared(options: RunOptions) -> RunOptions:
    """Return the options that judges have in common with those they judge."""
    return {name: options[name] for name in _SHARED if name in options}  # type: ignore[return-value, literal-required]  # some of them


def verdicts(run: Execution) -> pd.DataFrame:
    """Return a line for each verdict on a pair: ``row``, ``first`` (shown as A), ``second``, ``judge``, ``verdict``."""
    lines = [
        (row, *pair, judge, word)
        for (row, one, other), judge, words in _said(run)
        for pair, word in zip(((one, other), (other, one)), words, strict=True)
    ]
    return table(lines, ["row", "first", "second", "judge", "verdict"])


def ratings(run: Execution, reads: str = "rating") -> pd.DataFrame:
    """Return a line for each answer and judge: ``row``, ``pipeline``, ``judge``, and under ``reads`` what was read."""
    lines = [(row, name, judge, word) for (row, name), judge, (word,) in _said(run)]
    return table(lines, ["row", "pipeline", "judge", reads])


def _said(run: Execution) -> Iterator[tuple[Any, str, tuple[Any, ...]]]:
    """Yield what each judge says of each contest, a word an order; one who did not answer in both has judged nothing."""
    judges = names(run)
    for place, text in zip(run.questions.index, run.outcomes.texts, strict=True):
        for judge, *words in [] if text is None else zip(judges, *json.loads(text), strict=True):
            if "" not in words:
                yield place, judge, tuple(words)


def names(run: Execution) -> list[str]:
    """Return a name for each judge: its model, or pipeline, numbered where one judges twice."""
    assert run.plan is not None
    agents = run.plan.resolve(run.plan.pipeline.params.judging())
    counts: dict[str, int] = {}
    names = []
    for model in (agent.pipeline or agent.model for agent in agents):
        counts[model] = counts.get(model, 0) + 1
        names.append(model if counts[model] == 1 else f"{model} #{counts[model]}")
    return names
