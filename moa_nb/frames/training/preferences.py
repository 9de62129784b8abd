"""Which of its own answers a run prefers: its judges' verdicts, read back from its record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

from moa_nb.pipeline.result import Call, Result
from moa_nb.pipeline.spec import Pipeline
from moa_nb.pipeline.strategies.judge import Judge
from moa_nb.pipeline.verdicts import pairs, rank, rank_by_verdicts

__all__ = ["Pair", "gives_scores", "judges_itself", "own_pairs", "own_score"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, of which a judge prefers the first."""

    chosen: Call
    rejected: Call
    judges: tuple[str, ...]
    """The models that judged."""
    method: str
    """How: ``pointwise`` or ``pairwise``, the latter also in how many orders."""


def judges_itself(pipeline: Pipeline) -> bool:
    """Return whether a pipeline judges its own answers, so that a run of it has preferences already."""
    return isinstance(pipeline.params, Judge)


def gives_scores(pipeline: Pipeline) -> bool:
    """Return whether a pipeline's judges rate its answers."""
    return isinstance(pipeline.params, Judge) and pipeline.params.method == "pointwise"


def own_score(result: Result, pipeline: Pipeline) -> float | None:
    """Return the rating of the answer, 1 to 10, the mean of all judges; ``None`` where the run gave it none."""
    judged = _Judged.of(result, pipeline) if gives_scores(pipeline) else None
    return None if judged is None else judged.scores[judged.best]


def own_pairs(result: Result, pipeline: Pipeline) -> list[Pair]:
    """Return the winner against each answer that lost, as the run's own judges have it.

    Pointwise an answer lost that was rated lower; pairwise one that lost to the winner in both orders, where both
    were judged. Of several judges it is their mean that counts. Equals, and what could not be read, make no pair.
    """
    judged = _Judged.of(result, pipeline)
    return [] if judged is None else judged.pairs()


@dataclass(frozen=True)
class _Judged:
    """The answers and verdicts of a run with the strategy ``judge``."""

    params: Judge
    answers: list[Call]
    tables: list[list[Call]]
    """Each judge's verdicts, one for each answer or pair that it was shown."""
    best: int
    """The winner's place among the answers."""

    @classmethod
    def of(cls, result: Result, pipeline: Pipeline) -> _Judged | None:
        """Return what was judged; ``None`` where nothing was, or the record does not tell what."""
        params = pipeline.params
        layers = {layer.name: layer.calls for layer in result.layers}
        if not isinstance(params, Judge) or not {"answers", "verdicts"} <= layers.keys():
            return None
        if any(agent.pipeline is not None for agent in params.agents()):
            return None  # its answer, or verdict, stands in layers of its own
        answers = [call for call in layers["answers"] if call.ok]
        n_shown = len(answers) if params.method == "pointwise" else len(pairs(len(answers), swap=params.swap))
        verdicts = list(layers["verdicts"])
        best = next((at for at, call in enumerate(answers) if call.text.strip() == result.text), None)
        if best is None or not n_shown or len(verdicts) % n_shown:
            return None
        tables = [verdicts[start : start + n_shown] for start in range(0, len(verdicts), n_shown)]
        found = cls(params, answers, tables, best)
        ranked = rank(found.scores).best if params.method == "pointwise" else best
        return found if ranked is None else replace(found, best=ranked)

    @property
    def scores(self) -> list[float | None]:
        """The rating of each answer."""
        return [_mean([call.value for call in calls if call.ok]) for calls in zip(*self.tables, strict=True)]

    def pairs(self) -> list[Pair]:
        """Return the winner against each answer that lost."""
        points = self._rated() if self.params.method == "pointwise" else self._compared()
        orders = ", both orders" if self.params.swap else ", one order"
        method = self.params.method + (orders if self.params.method == "pairwise" else "")
        judges = tuple(dict.fromkeys(call.model for table in self.tables for call in table))
        winner = self.answers[self.best]
        return [
            Pair(winner, answer, judges, method)
            for answer, taken in zip(self.answers, points, strict=True)
            if taken > 0.5
        ]

    def _rated(self) -> list[float]:
        """Return for each answer 1 where the winner is rated higher."""
        scores = self.scores
        top = scores[self.best]
        return [float(top is not None and score is not None and score < top) for score in scores]

    def _compared(self) -> list[float]:
        """Return for each answer the points that the winner takes from it: the mean of all judges."""
        shown = pairs(len(self.answers), swap=self.params.swap)
        tables = [dict(zip(shown, (call.value for call in table), strict=True)) for table in self.tables]
        return [
            0.5 if other == self.best else fmean(_points(table, self.best, other) for table in tables)
            for other in range(len(self.answers))
        ]


def _points(table: dict[tuple[int, int], str | None], one: int, other: int) -> float:
    """Return what an answer takes from another by one judge's verdicts: a half where they decide nothing."""
    places = {(0, 1): (one, other), (1, 0): (other, one)}
    verdicts = {pair: table[shown] for pair, shown in places.items() if shown in table}
    return rank_by_verdicts(2, verdicts).scores[0] or 0.0


def _mean(ratings: list[float | None]) -> float | None:
    known = [rating for rating in ratings if rating is not None]
    return float(fmean(known)) if known else None
