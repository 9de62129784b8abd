"""What takes something back from an evaluation's figures: answers and verdicts that are missing, few rows, odd judges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moa_nb.evaluation.contests import contenders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moa_nb.evaluation.evaluation import Evaluation

__all__ = ["reservations"]

_FEW = 30
"""Rows below which shares and intervals mean little."""


def reservations(found: Evaluation) -> Iterator[str]:
    """Yield a sentence for each."""
    yield from found.notes
    yield from _unanswered(found)
    least = int(found.table["n"].min())
    if 0 < least < _FEW:
        rows = "1 row is" if least == 1 else f"{least} rows are"
        yield f"{rows} few: intervals from fewer than {_FEW} are rough"
    if found.judgements is None:
        return
    yield from _unjudged(found, found.judgements)
    worrying = [one for one in found.judge().findings if one.verdict == "worrying"]
    yield from (one.sentence for one in worrying)
    if found.n_unreadable and all(one.measure != "unreadable" for one in worrying):
        lines = f"{found.n_unreadable:,} of {len(found.judgements):,} {found.word}s"
        yield f"{lines} could not be read, and count for nobody"


def _unanswered(found: Evaluation) -> Iterator[str]:
    n_asked = max(found.n_missing[name] + int(found.answers[name].notna().sum()) for name in found.pipelines)
    # Who has no answer is no opponent, so the others' points there are of other comparisons than elsewhere.
    is_round_robin = found.unit == "points" and found.baseline is None and len(found.pipelines) > 2
    there = "; the others are compared without it there" if is_round_robin else ""
    for name, n_missing in found.n_missing.items():
        if n_missing:
            yield f"{name} has no answer to {n_missing:,} of {n_asked:,} rows, which its quality leaves out{there}"


def _unjudged(found: Evaluation, judgements: pd.DataFrame) -> Iterator[str]:
    """Yield how much of what was to be judged has no word of any judge, or not of all of them."""
    judged = _places(found, judgements).assign(judge=judgements["judge"].to_numpy()).drop_duplicates()
    n_wanted, n_judged = _n_to_judge(found), len(judged.drop(columns="judge").drop_duplicates())
    what = "pairs of unlike answers" if found.unit == "points" else "answers"
    if n_judged < n_wanted:
        yield f"{n_wanted - n_judged:,} of {n_wanted:,} {what} were not judged, and count for nobody"
    by_judge = judged.groupby("judge", sort=False).size()
    fewer = [f"{judge} {n:,}" for judge, n in by_judge.items() if n < n_judged]
    if fewer:
        yield f"not every judge judged all of the {n_judged:,} {what}: {', '.join(fewer)}"


def _places(found: Evaluation, judgements: pd.DataFrame) -> pd.DataFrame:
    """Return what each judgement is on, by numbers: its row, and its pipelines in their order."""
    names = ["first", "second"] if found.unit == "points" else ["pipeline"]
    numbers = [pd.Index(found.pipelines).get_indexer(pd.Index(judgements[name])) for name in names]
    places = [judgements["row"].to_numpy(), np.minimum.reduce(numbers), np.maximum.reduce(numbers)]
    return pd.DataFrame(dict(zip(("row", "one", "other"), places, strict=True)))


def _n_to_judge(found: Evaluation) -> int:
    """Return how many pairs of unlike answers there are, or answers to rate."""
    if found.unit != "points":
        return int(found.answers.notna().to_numpy().sum())
    pairs = ((found.answers[one], found.answers[other]) for one, other in contenders(found.pipelines, found.baseline))
    return sum(int((one.notna() & other.notna() & (one != other).fillna(value=False)).sum()) for one, other in pairs)
