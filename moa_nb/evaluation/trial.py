"""A comparison from its words to its evaluation: checked, priced, agreed to, run, judged."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from moa_nb.engine import Estimate, current
from moa_nb.errors import MoaError, SetupError, UnknownName, nearest
from moa_nb.evaluation import judging
from moa_nb.evaluation.contestants import Contestant, column_of, named, on, own, refuse_idle, taken, texts
from moa_nb.evaluation.contests import Asked, Contests, Exhibit, Ratings, contenders
from moa_nb.evaluation.evaluation import Evaluation
from moa_nb.evaluation.judging import Judge
from moa_nb.evaluation.metrics import Metric, metric_of
from moa_nb.evaluation.metrics import scores as measured
from moa_nb.evaluation.spending import Purse, longest, together
from moa_nb.frames import spoken
from moa_nb.frames.execution import Execution
from moa_nb.frames.rows import MissingPolicy, Questions
from moa_nb.frames.run import FrameRun
from moa_nb.frames.texts import series
from moa_nb.frames.verbs import Verb
from moa_nb.options import RunOptions
from moa_nb.pipeline.spec import Pipeline
from moa_nb.plain import quoted

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Method", "Trial"]

Method = Literal["pairwise", "rating"]

_MOST_REPEATED = 0.05
"""The share of rows that may ask what others ask before it is said."""


@dataclass
class Trial:
    """A comparison whose parts are checked; nothing is sent yet."""

    rows: pd.Index[Any]
    asked: Asked
    contestants: dict[str, Contestant]
    """As they were given, on the rows that were drawn."""
    verb: Verb | None
    questions: Questions | None
    judge: Judge | Sequence[Judge] | None
    metric: Metric | None
    references: pd.Series[Any] | None
    """The right answers; ``None``: nobody knows them."""
    frame: pd.DataFrame | None
    """The rows as they were given, for metrics that read them."""
    is_pairwise: bool
    baseline: str | None
    options: RunOptions
    column: str = ""
    purse: Purse = field(default_factory=Purse)

    @classmethod
    def of(
        cls,
        data: pd.DataFrame | pd.Series[Any],
        column: Hashable,
        pipelines: Sequence[str | Pipeline] | Mapping[str, Contestant],
        *,
        judge: Judge | Sequence[Judge] | None = None,
        reference: Hashable | pd.Series[Any] = None,
        metric: str | Callable[..., Any] | None = None,
        method: Method | None = None,
        baseline: str | None = None,
        instruction: str | None = None,
        template: str | None = None,
        sample: int | None = None,
        seed: int = 0,
        na: MissingPolicy = "skip",
        keys: bool = True,
        **options: Unpack[RunOptions],
    ) -> Trial:
        """Return a comparison that can be run; without ``keys`` it can only be priced.

        Raises:
            SetupError: something is wrong or missing.
        """
        if not isinstance(data, pd.DataFrame | pd.Series):
            msg = f"compare takes a DataFrame or a Series of texts, not {type(data).__name__}"
            raise SetupError(msg)
        contestants = named(pipelines)
        measure = None if metric is None else metric_of(metric)
        is_pairwise = _check(judge, measure, method, reference, baseline, contestants)
        whole: pd.Index[Any] = data.index
        drawn = _drawn(len(whole), sample, seed)
        references = _references(data, reference)
        rows = data.iloc[drawn] if isinstance(data, pd.DataFrame) else None
        if references is not None:
            references = references.iloc[drawn]
        if measure is not None:
            measure.check(references, rows)
        verb, questions = None, None
        if judge is not None or any(isinstance(one, str | Pipeline) for one in contestants.values()):
            verb, questions = spoken.synthesize(
                data.iloc[drawn], column, instruction=instruction, template=template, na=na, reference=None
            )
        trial = cls(
            whole.take(drawn),
            [None] * len(drawn) if questions is None else _asked(questions),
            {name: on(one, name, whole, drawn) for name, one in contestants.items()},
            verb,
            questions,
            judge,
            measure,
            references,
            rows,
            is_pairwise,
            baseline,
            options,
            "" if column is None else str(column),
        )
        trial.purse = Purse.of(trial._all_options(), keys=keys)
        return trial

    def _all_options(self) -> list[RunOptions]:
        made: list[RunOptions] = [
            own(self.options, one) for one in self.contestants.values() if isinstance(one, str | Pipeline)
        ]
        refuse_idle(self.options, made)
        if self.judge is not None:
            made.append(self._judging(self._blank()).options)
        return made

    # What it would take -----------------------------------------------------------------------

    def estimate(self) -> Estimate:
        """Return what all runs would take; nothing is sent."""
        engine = current()
        runs = {name: self._run(one) for name, one in self.contestants.items() if isinstance(one, str | Pipeline)}
        found = [engine.finish(run.estimate()) for run in runs.values()]
        if self.judge is not None:
            answers = self._blank()
            for name, one in self.contestants.items():
                said = engine.finish(longest(runs[name])) if name in runs else None
                answers[name] = texts(one, self.rows, said)
            found.append(engine.finish(self._judging(answers, told_apart=bool(runs)).estimate()))
        names = ", ".join(self.contestants) + ("" if self.judge is None else ", judged")
        return together(names, found)

    # Running ----------------------------------------------------------------------------------

    def run(self, progress: bool | None = None) -> Evaluation:
        """Return the evaluation, when all have answered and were judged."""
        if not self.purse.is_free_or_agreed:
            self.purse.agree(self.estimate())
        with self.purse.open():
            return self._run_all(progress)

    def _run_all(self, progress: bool | None) -> Evaluation:
        answers = self._blank()
        runs: dict[str, FrameRun] = {}
        notes = [*_repeated(self.asked)]
        for name, one in self.contestants.items():
            if isinstance(one, str | Pipeline):
                runs[name] = FrameRun(self._run(one), errors_at=f"the result's .runs[{name!r}].errors")
                answers[name] = runs[name].finish(progress=progress)
                notes += self.purse.cut_short(runs[name], f"rows were answered by {name}")
            else:
                answers[name] = texts(one, self.rows)
                if isinstance(one, FrameRun):
                    runs[name] = one
        found = Evaluation(
            answers=answers,
            unit="points" if self.is_pairwise else "rating" if self.metric is None else self.metric.name,
            judgements=pd.DataFrame() if self.metric is None else None,
            measured=None if self.metric is None else measured(answers, self.references, self.metric, rows=self.frame),
            figures=pd.DataFrame(
                [taken(one, runs.get(name)) for name, one in self.contestants.items()], index=list(answers)
            ),
            baseline=self.baseline,
            column=self.column,
            runs=runs,
            notes=notes,
        )
        if self.judge is None:
            return found
        execution = self._judging(answers)
        run = FrameRun(execution, errors_at="the result's .judging.errors")
        run.finish(progress=progress)
        said = judging.verdicts(execution) if self.is_pairwise else judging.ratings(execution)
        notes += self.purse.cut_short(run, "pairs were judged" if self.is_pairwise else "answers were rated")
        heard = set(said["judge"])
        if heard:
            silent = [judge for judge in judging.names(execution) if judge not in heard]
            notes += [f"{judge} judged nothing: the traces of .judging say why" for judge in silent]
        return replace(found, judgements=said, judging=run, notes=notes)

    def _blank(self) -> pd.DataFrame:
        return pd.DataFrame(
            {name: series([None] * len(self.rows), self.rows) for name in self.contestants}, index=self.rows
        )

    def _run(self, pipeline: str | Pipeline) -> Execution:
        assert self.verb is not None
        assert self.questions is not None
        return Execution(
            self.verb,
            self.questions,
            own(self.options, pipeline),
            purse=self.purse.budget,
            is_agreed=True,
        )

    def _judging(self, answers: pd.DataFrame, *, told_apart: bool = False) -> Execution:
        """Return the run of the judges; ``told_apart`` takes equal answers for unlike ones, as an estimate must."""
        assert self.judge is not None
        right = None if self.references is None else [*map(_right, self.references)]
        said = {name: [text if isinstance(text, str) else None for text in answers[name]] for name in self.contestants}
        questions: Questions
        if self.is_pairwise:
            pairs = [*contenders([*said], self.baseline)]
            questions = Contests(
                self.asked, said, pairs, Exhibit("judge/compare", right), self.column or None, told_apart
            )
        else:
            questions = Ratings(
                dict.fromkeys(said, self.asked), said, Exhibit("judge/rate", right), self.column or None
            )
        return judging.judging(
            self.judge,
            "verdict" if self.is_pairwise else "rating",
            questions,
            judging.shared(self.options),
            purse=self.purse.budget,
        )


def _check(
    judge: Any, metric: Metric | None, method: Any, reference: Any, baseline: Any, contestants: Mapping[str, Any]
) -> bool:
    """Return whether answers are compared in pairs.

    Raises:
        SetupError: what was said does not go together.
    """
    if (judge is None) == (metric is None):
        msg = "how good are the answers? Name a judge (a model) or a metric, and not both"
        raise SetupError(msg)
    if method not in {None, "pairwise", "rating"}:
        msg = f"method is 'pairwise' or 'rating', not {quoted(method)}"
        raise SetupError(msg)
    if metric is not None and method is not None:
        msg = "method says how a judge judges: leave it out, or name a judge"
        raise SetupError(msg)
    if baseline is not None and not (isinstance(baseline, str) and baseline in contestants):
        msg = f"the baseline is one of the pipelines, not {baseline!r}; {nearest(str(baseline), contestants)}"
        raise UnknownName(msg)
    is_pairwise = judge is not None and (method or ("rating" if reference is not None else "pairwise")) == "pairwise"
    if len(contestants) < (2 if is_pairwise else 1):
        msg = "compare what? Name two pipelines or more, such as ['single', 'moa']"
        raise SetupError(msg)
    return is_pairwise


def _drawn(n: int, sample: int | None, seed: int) -> np.ndarray[Any, Any]:
    """Return the rows that are looked at, in their order."""
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, Integral) or sample < 1):
        msg = f"a sample is 1 row or more, not {quoted(sample)}"
        raise SetupError(msg)
    if sample is None or sample >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size=sample, replace=False))


def _references(data: Any, reference: Any) -> pd.Series[Any] | None:
    """Return the right answers.

    Raises:
        SetupError: no such column, or a Series with other labels.
    """
    if reference is None:
        return None
    if isinstance(reference, pd.Series):
        if not reference.index.equals(data.index):
            msg = "reference has other rows than the frame: their labels differ"
            raise SetupError(msg)
        return reference
    if isinstance(data, pd.Series):
        msg = "a Series has no column with right answers: give them as a Series, or take the frame"
        raise SetupError(msg)
    if not isinstance(reference, Hashable):
        msg = f"reference is a column's name or a Series of right answers, not {type(reference).__name__}"
        raise SetupError(msg)
    return column_of(data, reference)


def _asked(questions: Questions) -> Asked:
    """Return what each row asks; nothing where it has no text, or its template fails."""

    def one(position: int) -> Any:
        try:
            tasks = questions.tasks(position)
        except MoaError:
            return None
        return tasks[0].conversation if tasks else None

    return [one(position) for position in range(len(questions))]


def _repeated(asked: Asked) -> Iterator[str]:
    """Yield a sentence if many rows ask the same: they are answered and judged once, and are no units of their own."""
    known = [one for one in asked if one is not None]
    n_again = len(known) - len({tuple((message.role, message.content) for message in one) for one in known})
    if n_again > _MOST_REPEATED * len(known):
        yield (
            f"{n_again:,} of {len(known):,} rows ask what another row asks:"
            " they count as rows of their own, so intervals and tests look surer than they are"
        )


def _right(reference: Any) -> str | None:
    """Return a right answer as judges are shown it, several of them with a stroke between; ``None`` where there is none."""
    several = reference if isinstance(reference, list | tuple | set | np.ndarray) else [reference]
    return " / ".join(str(one) for one in several if not pd.isna(one)) or None
