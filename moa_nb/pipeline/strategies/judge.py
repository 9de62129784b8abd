"""Judge: several answers, of which the one that a judge thinks best is the answer, word for word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, Literal, Self

from moa_nb.errors import Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question, Task
from moa_nb.pipeline.layer import Parse
from moa_nb.pipeline.parse import rating, verdict
from moa_nb.pipeline.spec import Agent, Agents, Params, sampled
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.verdicts import Ranking, pairs, rank, rank_by_verdicts
from moa_nb.pipeline.voting import most_alike

__all__ = ["Judge", "compare", "judge"]

_Scores = list[float | None]


class Judge(Params):
    """Who answers, who judges, and how."""

    proposers: Agents = (Agent(model="$proposers", temperature=0.7),)
    """Who answers."""
    judges: Agents = (Agent(model="$judge", temperature=0),)
    """Who judges: one, or several whose scores are averaged. A ``template`` of a judge is its rubric; it quotes one
    answer, or two, as ``references``."""
    method: Literal["pointwise", "pairwise"] = "pointwise"
    """Whether each answer gets a rating from 1 to 10, or each is compared with each other one."""
    swap: bool = True
    """Whether pairs are judged in both orders, since judges favour places; without it half as many are."""
    reference_answer: str | None = None
    """A right answer, which judges are shown to judge by; ``None``: there is none."""

    def override(self, *, samples: int | None = None, **others: Any) -> Self:
        """Return the parameters with another number of answers from each proposer, or other sampling."""
        changed = super().override(**others)
        return changed.having(proposers=sampled(changed.proposers, samples))

    def judging(self) -> tuple[Agent, ...]:
        """Return who judges."""
        return self.judges


@strategy("judge", params=Judge)
async def judge(task: Task, params: Judge, ask: Ask) -> Candidate:
    """LLM-as-a-judge (Zheng et al. 2023, arXiv 2306.05685, sections 3.1 and 3.4), as best of n: argmax of the scores.

    Pointwise each of n answers is rated alone, n calls more; pairwise every two are compared in both orders, n(n-1)
    calls more, the same winner twice wins and anything else is a tie. The whole conversation is judged, with the eye
    on its last turn, and by a right answer where one is known. What cannot be read abstains. Equals: the earlier one.
    """
    answers = await ask.layer("answers", params.proposers)
    if len(answers) == 1:
        return answers[0]
    score = _rated if params.method == "pointwise" else _compared
    scores = await score(params, ask, answers)
    best = rank(scores).best
    if best is None:
        ask.flag("no answer could be judged: the one that is most like the others stands", degraded=True)
        return most_alike(answers)
    said = ["none" if score is None else f"{score:.3g}" for score in scores]
    ask.flag(f"scores: {', '.join(f'{one.agent} {how}' for one, how in zip(answers, said, strict=True))}")
    return answers[best]


async def _rated(params: Judge, ask: Ask, answers: Sequence[Candidate]) -> _Scores:
    """Return each answer's rating from 1 to 10, the mean of all judges; ``None`` where there is none."""
    shown = [[answer] for answer in answers]
    tables = await _judged(ask, params.judges, shown, "judge/rate", rating, params.reference_answer)
    return [_mean(ratings) for ratings in zip(*tables, strict=True)]


async def _compared(params: Judge, ask: Ask, answers: Sequence[Candidate]) -> _Scores:
    """Return the share of points that each answer takes from the others, the mean of all judges that could be read."""
    rankings = await compare(ask, params.judges, answers, swap=params.swap, reference_answer=params.reference_answer)
    return [_mean(ranking.scores[at] for ranking in rankings) for at in range(len(answers))]


async def compare(
    ask: Ask,
    judges: Sequence[Agent],
    answers: Sequence[Candidate],
    *,
    swap: bool = True,
    reference_answer: str | None = None,
) -> list[Ranking]:
    """Return each judge's ranking of the answers, from verdicts on every two; who could not be read gives none.

    Args:
        ask: the door to the judges.
        judges: who compares.
        answers: what is compared.
        swap: whether pairs are judged in both orders, since judges favour places.
        reference_answer: a right answer that judges are shown; the task's own comes first.
    """
    shown = pairs(len(answers), swap=swap)
    if not shown:
        return []
    tables = await _judged(
        ask, judges, [[answers[a], answers[b]] for a, b in shown], "judge/compare", verdict, reference_answer
    )
    read = [table for table in tables if any(table)]
    rankings = [rank_by_verdicts(len(answers), dict(zip(shown, table, strict=True))) for table in read]
    n_conflicts = sum(ranking.n_conflicts for ranking in rankings)
    if n_conflicts:
        ask.flag(f"decided by place, and so a tie: {n_conflicts} of {len(shown) // 2 * len(tables)} pairs")
    return rankings


async def _judged(
    ask: Ask,
    judges: Sequence[Agent],
    shown: Sequence[Sequence[Candidate]],
    template: str,
    parse: Parse,
    reference_answer: str | None,
) -> list[list[Any]]:
    """Return what each judge makes of each of the answers, or pairs, that are shown; ``None`` where that is nothing."""
    values = {"reference_answer": (ask.task.reference_answer or reference_answer or "").strip()}
    questions = [
        Question(one, see=see, template=template, place="alone", values=values)
        for one in ask.agents(judges)
        for see in shown
    ]
    said: Sequence[Candidate | None]
    try:
        said = await ask.each("verdicts", questions, parse=parse, aside=True)
    except Unanswered as error:
        ask.flag(f"no verdict: {error}", degraded=True)
        said = [None] * len(questions)
    made = [None if one is None else one.value for one in said]
    return [made[start : start + len(shown)] for start in range(0, len(made), len(shown))]


def _mean(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return fmean(known) if known else None
