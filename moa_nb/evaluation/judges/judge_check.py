"""How far judges can be trusted, from what they said: their places, lengths, own answers, agreement. No call is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.evaluation.judges import biases
from moa_nb.evaluation.judges.agreement import agreements
from moa_nb.evaluation.judges.findings import Finding
from moa_nb.evaluation.judges.outcomes import labelled, of_ratings, of_verdicts, rated
from moa_nb.evaluation.points import whole
from moa_nb.panels.tables import TableDisplay, table

__all__ = ["JudgeCheck", "is_of_pairs", "judge_check"]

_ORDER = ("worrying", "unsaid", "fine")


@dataclass(frozen=True, slots=True, repr=False)
class JudgeCheck:
    """What was found about judges, the worrying first in what it shows."""

    findings: tuple[Finding, ...]

    @property
    def worrying(self) -> tuple[str, ...]:
        """What speaks against the judges, a sentence each."""
        return self._said("worrying")

    @property
    def fine(self) -> tuple[str, ...]:
        """What speaks for them."""
        return self._said("fine")

    @property
    def unsaid(self) -> tuple[str, ...]:
        """What these judgements cannot say."""
        return self._said("unsaid")

    def to_frame(self) -> pd.DataFrame:
        """Return a line for each finding: ``judge``, ``measure``, ``value``, ``low``, ``high``, ``n``, ``verdict``, ``said``."""
        names = ("judge", "measure", "value", "low", "high", "n", "verdict")
        columns = {name: [getattr(one, name) for one in self.findings] for name in names}
        frame = pd.DataFrame({**columns, "said": [one.sentence for one in self.findings]})
        return frame.astype({"value": "Float64", "low": "Float64", "high": "Float64", "n": "int64"})

    def _said(self, verdict: str) -> tuple[str, ...]:
        return tuple(one.sentence for one in self.findings if one.verdict == verdict)

    def _table(self) -> TableDisplay:
        counts = {verdict: len(self._said(verdict)) for verdict in _ORDER}
        rows = [(verdict, sentence) for verdict in _ORDER for sentence in self._said(verdict)]
        caption = f"The judges: {counts['worrying']} worrying, {counts['unsaid']} cannot be said, {counts['fine']} fine"
        return table(rows, ("", "what the judgements say"), caption)

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _repr_markdown_(self) -> str:
        return self._table()._repr_markdown_()

    def __repr__(self) -> str:
        return repr(self._table())


def judge_check(
    judgements: pd.DataFrame,
    answers: pd.DataFrame,
    *,
    labels: Any = None,
    makers: Mapping[str, Sequence[str]] | None = None,
) -> JudgeCheck:
    """Return how far the judges of recorded judgements can be trusted.

    Of verdicts on pairs and of ratings (each two answers of a row that one judge rated are a pair): the share that
    could not be read; how often the winner changes with the order, and the first place wins; how often the longer
    answer wins, and what length does between equally strong pipelines; how often a judge prefers answers of its own
    model or family, and how far beyond what others and people say of the same pairs; agreement between judges, and
    with people. Intervals hold rows together, since one row's pairs are no independent cases. A finding is *fine* if
    its whole interval does no harm (flips up to 20 %, a place at 40 to 60 %, length at odds of 1/1.5 to 1.5, kappa from 0.4, alpha from
    0.667), *worrying* if none of it is, and *unsaid* in between.

    Args:
        judgements: ``row``, ``first``, ``second``, ``judge``, ``verdict``; or ``row``, ``pipeline``, ``judge``,
            ``rating``, whose turns are averaged.
        answers: a column a pipeline; ``row`` counts its rows from 0.
        labels: what people say. For each row the better pipeline's name, ``"tie"`` or missing; or their scores, a
            column a pipeline; or a table like ``judgements``, of whose people the majority counts.
        makers: the models that wrote each pipeline's answers; ``None`` is not known.

    Raises:
        SetupError: judgements or labels of another form, rows or pipelines.

    >>> answers = pd.DataFrame({"a": ["long answer"] * 12, "b": ["short"] * 12})
    >>> orders = [(row, *pair, "lab:z", "A") for row in range(12) for pair in (("a", "b"), ("b", "a"))]
    >>> said = pd.DataFrame(orders, columns=["row", "first", "second", "judge", "verdict"])
    >>> judge_check(said, answers).worrying
    ('lab:z names another winner in the other order in 100% [76%, 100%] of 12 pairs', ...)
    """
    pipelines = [str(name) for name in answers.columns]
    texts = answers.set_axis(pipelines, axis=1)
    named = judgements.columns.intersection(["first", "second", "pipeline"])
    judgements = judgements.assign(**{name: judgements[name].map(str) for name in named})
    is_pairwise = is_of_pairs(judgements, pipelines, len(answers))
    judgements = judgements.assign(judge=judgements["judge"].map(str))
    ratings = None if is_pairwise else rated(judgements)
    outcomes = of_verdicts(judgements, pipelines) if ratings is None else of_ratings(ratings, pipelines)
    people, people_ratings = (None, None) if labels is None else labelled(labels, texts)
    everyone = outcomes if people is None else _joined(outcomes, people)
    if ratings is not None and people_ratings is not None:
        ratings = _joined(ratings, people_ratings)
    findings: list[Finding] = []
    for judge in dict.fromkeys(judgements["judge"]):
        own = judgements[judgements["judge"] == judge]
        findings += _of_judge(judge, own, outcomes[outcomes["judge"] == judge], everyone, texts, makers)
    return JudgeCheck((*findings, *agreements(everyone, ratings)))


def _of_judge(
    judge: str,
    judgements: pd.DataFrame,
    outcomes: pd.DataFrame,
    everyone: pd.DataFrame,
    answers: pd.DataFrame,
    makers: Mapping[str, Sequence[str]] | None,
) -> Iterator[Finding]:
    is_pairwise = "verdict" in judgements
    yield from biases.unreadable(judge, judgements["verdict" if is_pairwise else "rating"])
    if is_pairwise:
        yield from biases.places(judge, judgements, outcomes)
    if answers.shape[1] > 1:
        yield from biases.length(judge, outcomes, answers)
        yield from biases.own_answers(judge, outcomes, everyone, makers, list(answers.columns))


def _joined(judges: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    parts = [part for part in (judges, people) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else judges


def is_of_pairs(judgements: pd.DataFrame, pipelines: Sequence[str], n_rows: int) -> bool:
    """Return whether the judgements are on pairs.

    Raises:
        SetupError: they are of neither form, or of other rows or pipelines.
    """
    pairs, alone = ["row", "first", "second", "judge", "verdict"], ["row", "pipeline", "judge", "rating"]
    is_pairwise = judgements.columns.isin(pairs).sum() == len(pairs)
    if not is_pairwise and judgements.columns.isin(alone).sum() != len(alone):
        raise SetupError(f"judgements have the columns {', '.join(pairs)}; or, if they are ratings, {', '.join(alone)}")
    for column in ("first", "second") if is_pairwise else ("pipeline",):
        for name in judgements[column].unique():
            if name not in pipelines:
                raise UnknownName(
                    f"judgements are of {name!r}, no column of the answers; {nearest(str(name), map(str, pipelines))}"
                )
    if not all(pd.api.types.is_scalar(one) and not pd.isna(one) for one in judgements["judge"]):
        raise SetupError("the column 'judge' of judgements has the name of each judge: somewhere there is none")
    if not is_pairwise:
        try:
            pd.to_numeric(judgements["rating"])
        except (TypeError, ValueError) as error:
            raise SetupError(f"the column 'rating' of judgements has numbers: {error}") from error
    rows = whole(judgements["row"], "row")
    if len(rows) and not (rows.min() >= 0 and rows.max() < n_rows):
        said = f"judgements are of rows {rows.min()} to {rows.max()}, and there are {n_rows} rows of answers"
        raise SetupError(f"{said}: a row is its position, counted from 0")
    return bool(is_pairwise)
