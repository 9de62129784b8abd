"""What came of a comparison: quality with its interval, price, time, and how sure all of it is. No call is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.evaluation.contests import contenders
from moa_nb.evaluation.front import front
from moa_nb.evaluation.points import points_of, settled, table
from moa_nb.evaluation.reservations import reservations
from moa_nb.evaluation.statistics import Paired, holm, interval, said
from moa_nb.evaluation.statistics import paired as compared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from moa_nb.evaluation.benchmarks.winrate import WinRate
    from moa_nb.evaluation.judges.judge_check import JudgeCheck
    from moa_nb.frames.run import FrameRun

__all__ = ["Evaluation"]

_FIGURES: Mapping[str, Any] = {
    "cost": "Float64",
    "total_cost": "Float64",
    "seconds": "Float64",
    "prompt_tokens": "Float64",
    "completion_tokens": "Float64",
    "calls": "Int64",
    "failed": "Int64",
    "degraded": "Int64",
}
"""What each pipeline took; dollars, seconds and tokens are of a row, ``total_cost`` is of all."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Several pipelines' answers to the same rows, and how good they are.

    All that it says is computed from ``answers``, ``judgements`` or ``measured``, and ``figures``: keep these three
    and the same evaluation can be made again, without a call.
    """

    answers: pd.DataFrame
    """Each row's answers, a column a pipeline; missing where it has none. Its index is the frame's."""
    unit: str
    """What quality is: ``points`` (share of comparisons won, a tie is a half), ``rating`` (1 to 10), or a metric's name."""
    judgements: pd.DataFrame | None = None
    """A line for each verdict (``row``, ``first``, ``second``, ``judge``, ``verdict``) or rating (``row``, ``pipeline``,
    ``judge``, ``rating``); ``None`` where nobody judged."""
    measured: pd.DataFrame | None = None
    """Each answer's metric, like ``answers``; ``None`` where none was asked for."""
    figures: pd.DataFrame | None = None
    """What each pipeline took; ``None`` where nobody knows."""
    baseline: str | None = None
    """The pipeline that all others are compared with; ``None``: every two are compared."""
    column: str = ""
    judging: FrameRun | None = field(default=None, repr=False)
    """The run of the judges, with its costs, errors and traces; ``None`` where nobody judged now."""
    runs: Mapping[str, FrameRun] = field(default_factory=dict, repr=False)
    """Each pipeline's run, where it ran now."""
    notes: Sequence[str] = ()
    """What else a reader must know, a sentence each; the first of the ``reservations``."""

    def __post_init__(self) -> None:
        """Refuse what nothing could be computed from.

        Raises:
            SetupError: no measure, or two of them; a baseline that is no pipeline; judgements of another form, or of rows
                or pipelines that are not among the answers.
        """
        if (self.judgements is None) == (self.measured is None):
            msg = "an evaluation has judgements or a metric's values: one of them"
            raise SetupError(msg)
        if self.baseline is not None and self.baseline not in self.pipelines:
            msg = (
                f"the baseline is one of the pipelines, not {self.baseline!r}; {nearest(self.baseline, self.pipelines)}"
            )
            raise UnknownName(msg)
        if self.judgements is not None and len(self.judgements.columns):
            from moa_nb.evaluation.judges.judge_check import is_of_pairs

            if is_of_pairs(self.judgements, self.pipelines, len(self.answers)) != (self.unit == "points"):
                msg = f"quality is 'points' of verdicts on pairs, and 'rating' of ratings: {self.unit!r} does not fit"
                raise SetupError(msg)

    @property
    def pipelines(self) -> list[str]:
        """Their names, in the order in which they were given."""
        return list(self.answers.columns)

    # Quality ----------------------------------------------------------------------------------

    @cached_property
    def points(self) -> pd.DataFrame:
        """A line for each pair that a judge saw, and each pair of equal answers, which is a tie of no judge.

        ``row``, ``first``, ``second``, ``judge``, ``points`` of the first (missing where unreadable), ``flipped``,
        ``orders``.
        """
        if self.judgements is None or "verdict" not in self.judgements:
            msg = f"no pairs were compared here: quality is {self.unit}"
            raise SetupError(msg)
        equal = [
            (row, first, second, None, 0.5, False, 0)
            for first, second in contenders(self.pipelines, self.baseline)
            for row in np.flatnonzero((self.answers[first] == self.answers[second]).fillna(False).to_numpy(dtype=bool))
        ]
        ties = table(equal, ["row", "first", "second", "judge", "points", "flipped", "orders"])
        lines = [part for part in (settled(self.judgements), ties) if len(part)]
        return pd.concat(lines, ignore_index=True) if lines else ties

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Each row's quality by pipeline, with the frame's index; missing where nothing is known.

        Of pairs it is the mean of a pipeline's points in that row, of ratings the judges' mean.
        """
        if self.measured is not None:
            return self.measured.astype("Float64")
        assert self.judgements is not None
        if self.unit == "points":
            one, other = self.points, self.points.assign(points=1 - self.points["points"])
            names = {"first": "second", "second": "first"}
            lines = pd.concat([one, other.rename(columns=names)]).rename(columns={"first": "pipeline"})
            value = "points"
        else:
            lines, value = self.judgements.assign(rating=pd.to_numeric(self.judgements["rating"])), "rating"
        means = lines.groupby(["row", "pipeline"])[value].mean().unstack("pipeline")  # noqa: PD010 - names as columns
        found = means.reindex(index=range(len(self.answers)), columns=self.pipelines).astype("Float64")
        if self.baseline is not None and self.unit == "points":
            is_known = found.drop(columns=self.baseline).notna().any(axis=1)
            found[self.baseline] = pd.Series(0.5, index=found.index, dtype="Float64").where(is_known)
        found.index, found.columns.name = self.answers.index, None
        return found

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each pipeline: quality with its 95 % bootstrap interval over rows, and what it takes.

        ``n`` rows have a quality. ``cost`` (dollars), ``seconds`` (median), ``prompt_tokens`` and
        ``completion_tokens`` are of one row, as if nothing had been in the store; missing where unknown. ``on_front``:
        no other is better and no dearer.
        """
        around = {name: interval(self.scores[name]) for name in self.pipelines}
        numbers = {
            "quality": [around[name].mean for name in self.pipelines],
            "low": [around[name].low for name in self.pipelines],
            "high": [around[name].high for name in self.pipelines],
        }
        made = pd.DataFrame(numbers, index=pd.Index(self.pipelines, name="pipeline"), dtype="Float64")
        made["n"] = pd.array([around[name].n for name in self.pipelines], dtype="Int64")
        known = pd.DataFrame(index=made.index) if self.figures is None else self.figures.reindex(made.index)
        for name, dtype in _FIGURES.items():
            made[name] = known[name].astype(dtype) if name in known else pd.array([pd.NA] * len(made), dtype=dtype)
        made["on_front"] = front(made["cost"].tolist(), made["quality"].tolist())
        return made

    # Between pipelines ------------------------------------------------------------------------

    @cached_property
    def wins(self) -> pd.DataFrame:
        """The share of rows in which the row's pipeline is better than the column's, a tie a half; missing if none was seen."""
        found = pd.DataFrame(index=self.pipelines, columns=self.pipelines, dtype="Float64")
        for one, other in combinations(self.pipelines, 2):
            better = self.better(one, other)
            if len(better):
                found.loc[one, other] = float(better.mean())
                found.loc[other, one] = 1 - float(better.mean())
        return found

    def better(self, one: str, other: str) -> np.ndarray[Any, Any]:
        """Return for each row that has both how far the first is better: 1, 0.5 or 0, or the judges' mean of it.

        Raises:
            UnknownName: one of them is no pipeline.
        """
        self._know(one, other)
        if self.unit == "points":
            return points_of(self.points, one, other).dropna().to_numpy(dtype=float)
        both = self.scores[[one, other]].dropna()
        sign: np.ndarray[Any, Any] = np.sign(both[one].to_numpy(dtype=float) - both[other].to_numpy(dtype=float))
        return (sign + 1) / 2

    @cached_property
    def tests(self) -> pd.DataFrame:
        """A row for each pair of pipelines: the paired difference with its interval, p corrected by Holm, and in words.

        Of points, ``difference`` is the share of rows won less that of rows lost, of what was judged between the two.
        """
        pairs = list(contenders(self.pipelines, self.baseline))
        seen = [self.paired(one, other) for one, other in pairs]
        seen = [replace(one, p=p) for one, p in zip(seen, holm([one.p for one in seen]), strict=True)]
        numbers = ("difference", "low", "high", "p")
        made = pd.DataFrame(
            {name: pd.array([getattr(one, name) for one in seen], dtype="Float64") for name in numbers},
            index=pd.MultiIndex.from_tuples(pairs, names=["one", "other"]),
        )
        made["n"] = pd.array([one.n for one in seen], dtype="Int64")
        made["is_shown"] = [one.is_shown for one in seen]
        made["said"] = [self._said(test, *pair) for test, pair in zip(seen, pairs, strict=True)]
        return made

    def _said(self, test: Paired, one: str, other: str) -> str:
        """Return what a test says, or why there is none: answers are missing, or what was to be said of them."""
        n_both = int(self.answers[[one, other]].notna().all(axis=1).sum())
        if test.n or not n_both:
            return said(test, one, other, rows="that both have" if test.n == n_both else "that could be compared")
        if self.measured is not None:
            return f"no row has {self.unit} of both {one} and {other}"
        return f"no row has a readable {self.word} {'on' if self.unit == 'points' else 'of both'} {one} and {other}"

    def paired(self, one: str, other: str) -> Paired:
        """Return how far the first is better than the second, on the rows that both have; p is not corrected.

        Raises:
            UnknownName: one of them is no pipeline.
        """
        if (one, other) not in self._seen:
            self._know(one, other)
            scores: Any = self.scores[one], self.scores[other]
            if self.unit == "points":
                points = points_of(self.points, one, other)
                scores = points, 1 - points
            self._seen[one, other] = compared(*scores)
        return self._seen[one, other]

    @cached_property
    def _seen(self) -> dict[tuple[str, str], Paired]:
        return {}

    def _know(self, *names: str) -> None:
        for name in names:
            if name not in self.answers.columns:
                msg = f"no pipeline {name!r} was compared; {nearest(name, self.pipelines)}"
                raise UnknownName(msg)

    # The judges -------------------------------------------------------------------------------

    @property
    def n_missing(self) -> dict[str, int]:
        """How many rows each pipeline has no answer to, of those that some pipeline has one to; or failed on, if more."""
        is_asked = self.answers.notna().any(axis=1)
        failed = self.table["failed"].fillna(0)
        return {
            name: max(int((is_asked & self.answers[name].isna()).sum()), int(failed[name])) for name in self.pipelines
        }

    @property
    def flip_rate(self) -> float | None:
        """The share of readable pairs whose winner changed with the order; ``None`` without pairs in both orders."""
        if self.unit != "points":
            return None
        seen = self.points[(self.points["orders"] == 2) & self.points["points"].notna()]
        return float(seen["flipped"].mean()) if len(seen) else None

    @property
    def n_unreadable(self) -> int:
        """How many verdicts or ratings could not be read."""
        if self.judgements is None:
            return 0
        return int(self.judgements[self.word].isna().sum())

    @property
    def word(self) -> str:
        """The column of the judgements with what judges said: ``verdict`` or ``rating``."""
        return "verdict" if self.unit == "points" else "rating"

    def judge(
        self, *, labels: pd.Series[Any] | None = None, makers: Mapping[str, Sequence[str]] | None = None
    ) -> JudgeCheck:
        """Return how far the judges can be trusted: flips, length, their own, agreement with each other and with people.

        Args:
            labels: what people say, by row, as ``judge_check`` takes it.
            makers: the models that wrote each pipeline's answers; those that ran here are known.

        Raises:
            SetupError: nobody judged.
        """
        if self.judgements is None:
            msg = f"nobody judged here: quality is {self.unit}"
            raise SetupError(msg)
        return self._checked if labels is None and not makers else self._check(labels, makers)

    @cached_property
    def _checked(self) -> JudgeCheck:
        return self._check()

    def _check(self, labels: Any = None, makers: Mapping[str, Sequence[str]] | None = None) -> JudgeCheck:
        from moa_nb.evaluation.judges.judge_check import judge_check

        assert self.judgements is not None
        return judge_check(self.judgements, self.answers, labels=labels, makers=makers or self._makers or None)

    @property
    def _makers(self) -> dict[str, Sequence[str]]:
        made = {name: run.models for name, run in self.runs.items()}
        return {name: models for name, models in made.items() if models}

    def length_controlled(self, model: str, baseline: str | None = None) -> WinRate:
        """Return a pipeline's win rate against another as if its answers were as long (AlpacaEval 2.0's minimal form).

        Args:
            model: the pipeline.
            baseline: the other; ``None``: the evaluation's baseline, or the only other one.

        Raises:
            SetupError: fewer than 30 rows, or which other is meant is not said.
        """
        from moa_nb.evaluation.benchmarks.winrate import lc_winrate

        others = [name for name in self.pipelines if name != model]
        against = (
            baseline or (self.baseline if self.baseline != model else None) or (others[0] if len(others) == 1 else None)
        )
        if against is None or model not in self.pipelines or against not in self.pipelines:
            msg = f"say which two are meant: baseline= one of {', '.join(others)}"
            raise SetupError(msg)
        points = points_of(self.points, model, against).dropna()
        rows = points.index.to_numpy()
        one, other = (self.answers[name].iloc[rows].tolist() for name in (model, against))
        return lc_winrate(1 + points.to_numpy(dtype=float), one, other)

    # What is said of it -----------------------------------------------------------------------

    @cached_property
    def reservations(self) -> tuple[str, ...]:
        """What takes something back from the figures, a sentence each; empty where nothing does."""
        return tuple(reservations(self))

    @cached_property
    def unsaid(self) -> tuple[str, ...]:
        """What these rows cannot say, a sentence each; empty where nothing needs to be."""
        sentences = list(self.tests.loc[~self.tests["is_shown"], "said"])
        unpriced = [] if self.figures is None else list(self.table.index[self.table["cost"].isna()])
        if unpriced:
            verb = "costs" if len(unpriced) == 1 else "cost"
            sentences.append(f"what {', '.join(unpriced)} {verb} is not known")
        return tuple(sentences)

    def plot(self, against: Literal["cost", "seconds"] = "cost") -> Figure:
        """Return quality over dollars, or seconds, of a row as a matplotlib figure, its Pareto front marked.

        Raises:
            SetupError: matplotlib is not installed.
        """
        from moa_nb.evaluation.picture import picture

        return picture(self.table, against=against, measure=self.unit)

    def show(self) -> None:
        """Show it below the current cell; print it where there is no notebook."""
        from moa_nb.notebook.display import show

        show(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        from moa_nb.evaluation.shown import view_of
        from moa_nb.frames.figures import view_of_run
        from moa_nb.panels.evaluation import bundle
        from moa_nb.panels.provenance import MIME_TYPE, frame_records

        runs = [*self.runs.values(), *([self.judging] if self.judging is not None else [])]
        views = [view_of_run(run._execution) for run in runs]  # noqa: SLF001 - what a report shows, without the report
        return bundle(view_of(self)) | ({MIME_TYPE: frame_records(views)} if views else {})

    def __repr__(self) -> str:
        found = (
            f"{name} {'unknown' if pd.isna(quality) else format(quality, '.3f')}"
            for name, quality in self.table["quality"].items()
        )
        return f"<Evaluation of {len(self.answers):,} rows, {self.unit}: {', '.join(found)}>"
