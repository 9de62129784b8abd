"""Verdicts of judges on pairs: both orders settled into one outcome, all outcomes into a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

__all__ = ["Outcome", "Ranking", "pairs", "rank", "rank_by_verdicts", "settle"]

_POINTS = {"A": 1.0, "B": 0.0, "C": 0.5}
_SWAPPED = {"A": "B", "B": "A", "C": "C"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a judge makes of a pair."""

    points: float | None
    """Of the first of the pair: 1 for a win, 0.5 for a tie, 0 for a loss; ``None`` if a verdict could not be read."""
    position_conflict: bool = False
    """Whether the judge chose the same place twice, so that another order would have had another winner."""
    n_unparsed: int = 0
    """How many of the two verdicts could not be read."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates by their scores."""

    scores: tuple[float | None, ...]
    """One a candidate, in their order; ``None`` where there is none."""
    ranks: tuple[int, ...]
    """One a candidate, 1 for the best; equals share the best rank: 1, 1, 3."""
    order: tuple[int, ...]
    """The candidates' positions, the best first, equals in their order: ``order[:3]`` are the three best."""
    n_unparsed: int = 0
    """How many verdicts, or scores, could not be read."""
    n_conflicts: int = 0
    """How many pairs the judge decided by place."""

    @property
    def best(self) -> int | None:
        """The position of the best candidate, the earliest of equals; ``None`` if no candidate has a score."""
        return self.order[0] if self.order and self.scores[self.order[0]] is not None else None


def pairs(n: int, *, swap: bool = True) -> list[tuple[int, int]]:
    """Return the pairs that a round robin of ``n`` candidates judges: (shown first, shown second).

    With ``swap`` each pair in both orders, n(n-1) in all, since judges favour places; without it half of them.

    >>> pairs(3, swap=False)
    [(0, 1), (0, 2), (1, 2)]
    """
    return list(permutations(range(n), 2) if swap else combinations(range(n), 2))


def settle(first: str | None, swapped: str | None) -> Outcome:
    """Return the outcome of a pair from its two verdicts, ``swapped`` being that with the answers exchanged.

    "A" is for the answer shown first, "B" for the second, "C" a tie. The same winner twice wins; a tie in either,
    or two winners, is a tie (Zheng et al. 2023, arXiv 2306.05685, section 3.4). A verdict that could not be
    read (``None``, or no such letter) leaves the pair undecided.

    >>> settle("A", "B").points, settle("A", "A"), settle("C", "A").points, settle(None, "A").n_unparsed
    (1.0, Outcome(points=0.5, position_conflict=True, n_unparsed=0), 0.5, 1)
    """
    here, there = _POINTS.get(first or ""), _POINTS.get(_SWAPPED.get(swapped or "", ""))
    if here is None or there is None:
        return Outcome(None, n_unparsed=(here is None) + (there is None))
    return Outcome(here if here == there else 0.5, position_conflict=first == swapped != "C")


def rank(scores: Sequence[float | None]) -> Ranking:
    """Return the candidates by score, the highest first; who has none (``None``, ``nan``) comes last.

    >>> rank([7, None, 9, 7]).ranks, rank([7, None, 9, 7]).order
    ((2, 4, 1, 2), (2, 0, 3, 1))
    """
    known = tuple(None if score is None or score != score else score for score in scores)  # noqa: PLR0124 - nan is not itself
    n_unparsed = known.count(None)
    height = [float("-inf") if score is None else float(score) for score in known]
    order = tuple(sorted(range(len(known)), key=lambda at: (known[at] is None, -height[at], at)))
    above: dict[tuple[bool, float], int] = {}
    for place, at in enumerate(order, start=1):
        above.setdefault((known[at] is None, height[at]), place)
    ranks = tuple(above[known[at] is None, height[at]] for at in range(len(known)))
    return Ranking(known, ranks, order, n_unparsed)


def rank_by_verdicts(n: int, verdicts: Mapping[tuple[int, int], str | None]) -> Ranking:
    """Return ``n`` candidates by the share of points each takes from the others (Copeland): a win 1, a tie a half.

    ``verdicts`` has the letter of each pair as it was shown, ``None`` where it could not be read: ``(0, 1): "A"``
    is for 0. A pair in both orders is settled; one in a single order counts as it is. An undecided pair, or one
    that was never judged, gives either a half: it moves nobody. One candidate alone has a half.

    >>> table = {(0, 1): "B", (1, 0): "A", (0, 2): "A", (2, 0): "A", (1, 2): "A", (2, 1): None}
    >>> ranking = rank_by_verdicts(3, table)
    >>> ranking.scores, ranking.best, ranking.n_unparsed, ranking.n_conflicts
    ((0.25, 0.75, 0.5), 1, 1, 1)
    """
    points = [0.0] * n
    n_unparsed = n_conflicts = 0
    for one, other in combinations(range(n), 2):
        outcome = _outcome(verdicts, one, other)
        n_unparsed += outcome.n_unparsed
        n_conflicts += outcome.position_conflict
        taken = 0.5 if outcome.points is None else outcome.points
        points[one] += taken
        points[other] += 1 - taken
    ranking = rank([total / (n - 1) if n > 1 else 0.5 for total in points])
    return Ranking(ranking.scores, ranking.ranks, ranking.order, n_unparsed, n_conflicts)


def _outcome(verdicts: Mapping[tuple[int, int], str | None], one: int, other: int) -> Outcome:
    asked = [pair in verdicts for pair in ((one, other), (other, one))]
    if all(asked):
        return settle(verdicts[one, other], verdicts[other, one])
    if not any(asked):
        return Outcome(None)
    letter = verdicts[one, other] if asked[0] else _SWAPPED.get(verdicts[other, one] or "")
    points = _POINTS.get(letter or "")
    return Outcome(points, n_unparsed=int(points is None))
