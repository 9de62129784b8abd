"""MT-Bench (Zheng et al. 2023, arXiv 2306.05685): ratings from 1 to 10 of two turns, and pairs, from what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from moa_nb.errors import SetupError
from moa_nb.evaluation.points import settled
from moa_nb.pipeline.parse import rating
from moa_nb.plain import quoted

__all__ = ["mt_mean", "mt_table", "mt_winrates"]

Judgements = pd.DataFrame | Sequence[Mapping[str, Any]]

_CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""Of questions 81 to 160, ten each."""


def mt_mean(judgements: Judgements) -> pd.DataFrame:
    """Return the MT-Bench score of each model: the mean of its readable ratings, over questions and turns alike.

    A row a model, the best first: ``mean``, one column a turn (``turn 1``, ``turn 2``: the mean of that turn), ``n``
    readable ratings, ``n_unparsed`` those that could not be read. An unreadable one is in no mean: neither as a
    number nor silently, as the count says. A model with no readable rating has missing means.

    ``judgements`` are ratings as they were recorded (``pipeline``, ``turn``, ``rating``), or FastChat's: ``model``,
    ``turn``, and ``judgment``, the judge's text, which is read again, or ``score`` alone, where -1 is unreadable.
    What is not from 1 to 10 is unreadable too. Without a turn all are of turn 1.

    Raises:
        SetupError: no rating, score or text to be read, or nothing that says who was rated.

    >>> said = [("moa", 1, 9), ("moa", 2, 8), ("single", 1, 7), ("single", 2, None)]
    >>> mt_mean(pd.DataFrame(said, columns=["pipeline", "turn", "rating"]))
            mean  turn 1  turn 2  n  n_unparsed
    moa      8.5     9.0     8.0  2           0
    single   7.0     7.0    <NA>  1           1
    """
    frame = _ratings(judgements)
    by_model = frame.groupby("pipeline", sort=False)["rating"]
    turns = frame.pivot_table(index="pipeline", columns="turn", values="rating", aggfunc="mean", dropna=False)
    turns.columns = pd.Index([f"turn {turn}" for turn in turns.columns])
    counts = pd.DataFrame({"n": by_model.count(), "n_unparsed": by_model.size() - by_model.count()})
    means = by_model.mean().rename("mean").to_frame().join(turns).join(counts)
    return means.rename_axis(index=None).sort_values("mean", ascending=False, kind="stable", na_position="last")


def mt_table(judgements: Judgements) -> pd.DataFrame:
    """Return the mean ratings by category: a row a category, columns by model and turn, and over both turns.

    The columns have two levels: the model, then ``turn 1``, ``turn 2`` and ``mean``. Categories stand in the column
    ``category``; where there is none, they are known of MT-Bench's own questions by ``question_id``, 81 to 160.
    ``mt_mean`` says what is read; the last row, ``all``, is over all categories.

    Raises:
        SetupError: as ``mt_mean``, or no category is known.

    >>> said = [(81, "m", 1, 9), (81, "m", 2, 8), (111, "m", 1, 4), (111, "m", 2, -1)]
    >>> mt_table(pd.DataFrame(said, columns=["question_id", "model", "turn", "score"]))["m"]
             turn 1  turn 2  mean
    writing     9.0     8.0   8.5
    math        4.0    <NA>   4.0
    all         6.5     8.0   7.0
    """
    frame = _ratings(judgements)
    if "category" not in frame:
        raise SetupError("no category is known: add the column 'category', or question_id from 81 to 160")
    if not len(frame):
        return pd.DataFrame()
    if (frame["category"] == "all").any():
        raise SetupError("a category is called 'all', as the row over all categories is: give it another name")
    whole = pd.concat([frame, frame.assign(category="all")])
    turn = "turn " + whole["turn"].astype(str)
    parts = pd.concat([whole.assign(turn=turn), whole.assign(turn="mean")])
    table = parts.pivot_table(
        index="category", columns=["pipeline", "turn"], values="rating", aggfunc="mean", dropna=False, observed=True
    )
    known = [*_CATEGORIES, *sorted({*frame["category"].dropna()} - {*_CATEGORIES}), "all"]
    columns = [(model, part) for model in frame["pipeline"].unique() for part in [*sorted({*turn}), "mean"]]
    table = table.reindex([one for one in known if one in table.index], columns=pd.MultiIndex.from_tuples(columns))
    table.index.name = None
    return table


def mt_winrates(judgements: Judgements) -> pd.DataFrame:
    """Return how each model fares in pairs: a row a model, the best first, over all pairs that it was part of.

    ``wins``, ``ties``, ``losses``, ``n_unparsed`` (pairs with a verdict that could not be read, in no rate),
    ``win_rate``, ``loss_rate`` and ``win_rate_adjusted``, in which a tie is half a win; 0 to 1. A pair asked in both
    orders counts once: the same winner twice wins, all else is a tie.

    ``judgements`` are pairs as they were recorded (``row``, ``first``, ``second``, ``verdict``, also ``turn`` and
    ``judge``), or FastChat's (``question_id``, ``model_1``, ``model_2``, ``g1_winner``, ``g2_winner``).

    Raises:
        SetupError: a column is missing.

    >>> games = [(81, "a", "b", "model_1", "model_1"), (82, "a", "b", "model_1", "model_2"), (83, "a", "b", "error", "tie")]
    >>> games = pd.DataFrame(games, columns=["question_id", "model_1", "model_2", "g1_winner", "g2_winner"])
    >>> mt_winrates(games)[["wins", "ties", "losses", "n_unparsed", "win_rate_adjusted"]]
       wins  ties  losses  n_unparsed  win_rate_adjusted
    a     1     1       0           1               0.75
    b     0     1       1           1               0.25
    """
    frame = _frame(judgements)
    if "g1_winner" in frame:
        frame = _as_shown(frame)
    _need(frame, "row", "first", "second", "verdict")
    frame = frame.assign(row=pd.factorize(frame["row"])[0])  # whatever questions are called
    counts: dict[str, dict[str, int]] = {}
    lines = settled(frame)
    for one, other, won in zip(lines["first"], lines["second"], lines["points"], strict=True):
        for model, share in ((one, won), (other, 1 - won)):
            tally = counts.setdefault(model, dict.fromkeys(("wins", "ties", "losses", "n_unparsed"), 0))
            what = "n_unparsed" if pd.isna(share) else {1.0: "wins", 0.5: "ties", 0.0: "losses"}[float(share)]
            tally[what] += 1
    table = pd.DataFrame.from_dict(counts, orient="index", columns=["wins", "ties", "losses", "n_unparsed"])
    n = table[["wins", "ties", "losses"]].sum(axis=1).astype("Float64").where(lambda total: total > 0)
    table["win_rate"], table["loss_rate"] = table["wins"] / n, table["losses"] / n
    table["win_rate_adjusted"] = (table["wins"] + table["ties"] / 2) / n
    return table.sort_values("win_rate_adjusted", ascending=False, kind="stable")


def _ratings(judgements: Judgements) -> pd.DataFrame:
    """Return the columns pipeline, turn, rating (missing where unreadable) and, where it is known, category."""
    frame = _frame(judgements)
    who = next((name for name in ("pipeline", "model") if name in frame), None)
    if who is None:
        raise SetupError("ratings need the column 'pipeline' (or 'model'): who was rated")
    if "rating" in frame:
        values = frame["rating"]
    elif "judgment" in frame:
        values = frame["judgment"].map(lambda text: rating(text) if isinstance(text, str) else None)
    elif "score" in frame:
        values = frame["score"]
    else:
        raise SetupError("ratings need the column 'rating', or FastChat's 'judgment' or 'score'")
    ratings = pd.to_numeric(values, errors="coerce").astype("Float64")
    read = pd.DataFrame(
        {
            "pipeline": frame[who],
            "turn": [*map(_turn, frame["turn"])] if "turn" in frame else 1,
            "rating": ratings.where(ratings.between(1, 10)),
        }
    )
    if "category" in frame:
        read["category"] = frame["category"]
    elif "question_id" in frame and frame["question_id"].between(81, 160).all():
        read["category"] = [_CATEGORIES[(number - 81) // 10] for number in frame["question_id"]]
    return read


def _frame(judgements: Judgements) -> pd.DataFrame:
    try:
        frame = pd.DataFrame(judgements)
    except (TypeError, ValueError):
        raise SetupError(f"judgements are a DataFrame or a list of records, not {quoted(judgements, 40)}") from None
    if frame.columns.duplicated().any():
        raise SetupError(f"judgements have two columns {frame.columns[frame.columns.duplicated()][0]!r}: rename one")
    return frame


def _turn(said: Any) -> Any:
    """Return a turn: the first where none is said, and 2 for the 2.0 that columns with gaps have."""
    return 1 if pd.isna(said) else int(said) if isinstance(said, float) and said.is_integer() else said


def _as_shown(games: pd.DataFrame) -> pd.DataFrame:
    """Return FastChat's pairs as lines: in the first game model_1 is A, in the second it is B."""
    _need(games, "question_id", "model_1", "model_2", "g1_winner", "g2_winner")
    shared = games.drop(columns=["row", "first", "second", "verdict"], errors="ignore").rename(
        columns={"question_id": "row"}
    )
    first = games["g1_winner"].map({"model_1": "A", "model_2": "B", "tie": "C"})
    second = games["g2_winner"].map({"model_1": "B", "model_2": "A", "tie": "C"})
    return pd.concat(
        [
            shared.assign(first=games["model_1"], second=games["model_2"], verdict=first),
            shared.assign(first=games["model_2"], second=games["model_1"], verdict=second),
        ]
    )


def _need(frame: pd.DataFrame, *names: str) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise SetupError(f"these judgements of pairs lack {', '.join(map(repr, missing))}")
