"""What judges favour besides quality: a place, length, their own answers (Zheng et al. 2023, arXiv 2306.05685)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.evaluation.judges.findings import Finding, share
from moa_nb.evaluation.statistics import Interval, figure, paired
from moa_nb.tokens.families import family_of

__all__ = ["length", "own_answers", "places", "unreadable"]

_FLIPS = (0.0, 0.2)
_EVEN = (0.4, 0.6)
"""Of a share that would be a half without any preference."""
_ODDS = (1 / 1.5, 1.5)
_EXCESS = (-0.1, 0.1)
_UNREADABLE = (0.0, 0.05)

Makers = Mapping[str, Iterable[str]]


def unreadable(judge: str, words: pd.Series[Any]) -> Iterator[Finding]:
    """Yield the share of verdicts or ratings that could not be read."""
    missing = words.isna().to_numpy()
    n, value = len(missing), float(missing.mean())
    said = f"{judge}: {int(missing.sum()):,} of {_count(n, 'judgement')} could not be read"
    # What could not be read is counted, not estimated.
    yield Finding(judge, "unreadable", said, value, value, value, n, _UNREADABLE)


def places(judge: str, judgements: pd.DataFrame, outcomes: pd.DataFrame) -> Iterator[Finding]:
    """Yield how often the winner changes with the order, and how often the answer shown first is preferred.

    Both of the pairs that were shown in both orders: only there has neither place the better answers.
    """
    both = outcomes[outcomes["flipped"].notna()]
    if both.empty:
        yield Finding(judge, "flips", f"{judge} saw no pair in both orders: what the order does to it cannot be said")
        return
    flips = share(both["flipped"].to_numpy(), both["row"].to_numpy())
    said = f"{judge} names another winner in the other order in {_percent(flips)} of {_count(flips.n, 'pair')}"
    yield _finding(judge, "flips", said, flips, _FLIPS)
    keys = {(row, frozenset(pair)) for row, *pair in both[["row", "one", "other"]].itertuples(index=False)}
    shown = [
        (row, verdict == "A")
        for row, first, second, verdict in judgements[["row", "first", "second", "verdict"]].itertuples(index=False)
        if (row, frozenset((first, second))) in keys and isinstance(verdict, str) and verdict in {"A", "B"}
    ]
    if shown:
        rows, firsts = (np.array(column) for column in zip(*shown, strict=True))
        seen = share(firsts, rows)
        said = f"{judge} prefers the answer shown first in {_percent(seen)} of {_count(seen.n, 'verdict')}"
        yield _finding(judge, "first place", said, seen, _EVEN)


def length(judge: str, outcomes: pd.DataFrame, answers: pd.DataFrame) -> Iterator[Finding]:
    """Yield how often the longer answer wins, and what length does between equally strong pipelines.

    The second needs scikit-learn: odds for an answer twice as long, from a Bradley-Terry model of the pipelines with
    the ratio of lengths as a covariate (logistic regression, ridge, C = 1), with errors that allow for rows.
    """
    decided = outcomes[outcomes["points"].isin([0.0, 1.0])]
    characters = {name: answers[name].astype("string").str.len().to_numpy(float, na_value=np.nan) for name in answers}
    ratio = np.array(
        [
            np.log2(max(characters[one][row], 1) / max(characters[other][row], 1))
            for row, one, other in decided[["row", "one", "other"]].itertuples(index=False)
        ],
        dtype=float,
    )
    unequal = ~np.isnan(ratio) & (ratio != 0)
    decided, ratio = decided[unequal], ratio[unequal]
    if decided.empty:
        yield Finding(
            judge, "longer wins", f"{judge} decided no pair of unequal length: whether it likes length cannot be said"
        )
        return
    wins, rows = decided["points"].to_numpy(), decided["row"].to_numpy()
    seen = share((ratio > 0) == (wins == 1), rows)
    said = f"with {judge} the longer answer wins {_percent(seen)} of {_count(seen.n, 'decided pair')} (it may also be better)"
    odds = _odds(decided, ratio)
    # Where the odds tell length from quality, the share alone is no reproach: the better one may be longer.
    longer = _finding(judge, "longer wins", said, seen, _EVEN)
    yield longer if odds is None or longer.verdict != "worrying" else replace(longer, tolerated=None)
    if odds is not None:
        around = f"{_times(odds.mean)} [{_times(odds.low)}, {_times(odds.high)}]"
        said = f"with {judge}, of equally strong pipelines, twice the length has {around} times the odds to win"
        yield _finding(judge, "odds of twice the length", said, odds, _ODDS)
    elif find_spec("sklearn") is None:
        said = f'what length does with {judge} beside quality needs scikit-learn: pip install "moa-nb[evaluation]"'
        yield Finding(judge, "odds of twice the length", said)


def _times(odds: float | None) -> str:
    """Return odds as they are written; where length decides nearly all, how many times cannot be known."""
    assert odds is not None
    return "over 100" if odds > 100 else "under 0.01" if odds < 0.01 else figure(odds)


def own_answers(
    judge: str, outcomes: pd.DataFrame, everyone: pd.DataFrame, makers: Makers | None, names: Iterable[str]
) -> Iterator[Finding]:
    """Yield how often a judge prefers answers of its own model or family, or how far beyond others on the same pairs.

    ``everyone`` has the outcomes of all judges, and of people. Only pairs of which one answer is the judge's own count.
    """
    if makers is None:
        said = f"who wrote the answers is not known, so whether {judge} prefers its own cannot be said: pass makers="
        yield Finding(judge, "own answers", said)
        return
    own = {name: any(_related(judge, model) for model in makers.get(name, ())) for name in names}
    mixed = _of_own(outcomes, own)
    if mixed.empty:
        return
    decided = mixed[mixed["points"] != 0.5]
    seen = share(decided["points"].to_numpy(), decided["row"].to_numpy())
    others = _of_own(everyone[[not _related(judge, other) for other in everyone["judge"]]], own)
    beside = others.groupby(["row", "one", "other"])["points"].mean().rename("theirs")
    same = mixed.merge(beside.reset_index(), on=["row", "one", "other"])
    wins = f"{judge} decided no pair with one answer of its own model or family"
    if seen.n:
        wins = f"{judge} prefers answers of its own model or family in {_percent(seen)} of {_count(seen.n, 'decided pair')}"
    if same.empty:
        said = f"{wins}, and nobody else judged them: whether they are better cannot be said"
        yield _finding(judge, "own answers", said, seen, None)
        return
    means = same.groupby("row")[["points", "theirs"]].mean()
    beyond = paired(means["points"], means["theirs"])
    around = "" if beyond.low is None else f" [{beyond.low:+.0%}, {beyond.high:+.0%}]"
    said = f"{wins}: in {_count(beyond.n, 'row')} it gives them {beyond.difference:+.0%}{around} of the points"
    # Where it is the same in all rows, that is as sure as their number.
    low, high = (beyond.difference, beyond.difference) if beyond.low is None else (beyond.low, beyond.high)
    excess = Interval(beyond.difference, low, high, beyond.n)
    yield _finding(judge, "own answers, beyond others", f"{said} beyond what others do", excess, _EXCESS)


def _of_own(outcomes: pd.DataFrame, own: Mapping[str, bool]) -> pd.DataFrame:
    """Return the pairs of which one answer alone is the judge's own, with the points of that one."""
    first = outcomes["one"].map(own).to_numpy(dtype=bool)
    second = outcomes["other"].map(own).to_numpy(dtype=bool)
    points = np.where(first, outcomes["points"], 1 - outcomes["points"])
    mixed: pd.DataFrame = outcomes.assign(points=points)[(first != second) & ~np.isnan(points)]
    return mixed


def _related(judge: str, model: str) -> bool:
    """Return whether two models are one, or of one family."""
    ours, theirs = _bare(judge), _bare(model)
    families = [family_of(name).name.partition(" ")[0].strip(",") for name in (ours, theirs)]
    return ours == theirs or (families[0] == families[1] and families[0] not in {"unknown", "no"})


def _bare(model: str) -> str:
    """Return a model id as the families know it: a judge that was asked twice has a number behind it."""
    name = re.sub(r" #\d+$", "", model)
    return name if ":" in name else f":{name}"


def _odds(decided: pd.DataFrame, ratio: np.ndarray[Any, Any]) -> Interval | None:
    """Return the odds of an answer twice as long; ``None`` without scikit-learn, or of too few pairs."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        return None
    if len(decided) < 10:
        return None
    names = sorted({*decided["one"], *decided["other"]})
    strengths = [
        (decided["one"] == name).to_numpy(float) - (decided["other"] == name).to_numpy(float) for name in names
    ]
    terms, wins = np.column_stack([*strengths, ratio]), decided["points"].to_numpy()
    # Each pair stands in it both ways round, so that neither side is the first.
    model = LogisticRegression(fit_intercept=False, solver="newton-cholesky", max_iter=1000)
    model.fit(np.vstack([terms, -terms]), np.concatenate([wins, 1 - wins]), np.full(2 * len(terms), 0.5))
    weights = model.coef_[0]
    chance = 1 / (1 + np.exp(-terms @ weights))
    bread = np.linalg.inv((terms * (chance * (1 - chance))[:, None]).T @ terms + np.eye(len(weights)))
    _, group = np.unique(decided["row"], return_inverse=True)
    pulls = np.zeros((int(group.max()) + 1, len(weights)))
    np.add.at(pulls, group, terms * (wins - chance)[:, None])
    error = float(np.sqrt((bread @ pulls.T @ pulls @ bread)[-1, -1]))
    weight = float(weights[-1])
    low, high = np.exp([weight - 1.959964 * error, weight + 1.959964 * error])
    return Interval(float(np.exp(weight)), float(low), float(high), len(decided))


def _finding(judge: str, measure: str, said: str, seen: Interval, tolerated: tuple[float, float] | None) -> Finding:
    return Finding(judge, measure, said, seen.mean, seen.low, seen.high, seen.n, tolerated)


def _percent(seen: Interval) -> str:
    return f"{seen.mean:.0%} [{seen.low:.0%}, {seen.high:.0%}]"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
