"""Who won each pair, by each judge and by people: one form for verdicts, ratings and labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.evaluation.points import settled

__all__ = ["PEOPLE", "labelled", "of_ratings", "of_verdicts", "rated"]

PEOPLE = "people"
"""Who says what labels say."""

_COLUMNS = ["row", "one", "other", "judge", "points", "flipped"]
_TIES = frozenset({"tie", "both", "c", "equal"})


def of_verdicts(judgements: pd.DataFrame, pipelines: Sequence[str]) -> pd.DataFrame:
    """Return a line for each pair that a judge saw: ``row``, ``one``, ``other``, ``judge``, ``points``, ``flipped``.

    ``one`` comes before ``other`` among ``pipelines``; ``points`` are of ``one``: 1, 0.5, 0, or missing where a verdict
    could not be read. ``flipped``: whether the winner changed with the order; missing where it was never exchanged,
    or a verdict could not be read.
    """
    lines = settled(judgements)
    place = {name: at for at, name in enumerate(pipelines)}
    turned = (lines["first"].map(place) > lines["second"].map(place)).to_numpy(dtype=bool)
    points = lines["points"].to_numpy(dtype=float, na_value=np.nan)
    is_swapped = lines["orders"].to_numpy() > 1
    first, second = lines["first"].to_numpy(dtype=object), lines["second"].to_numpy(dtype=object)
    return pd.DataFrame(
        {
            "row": lines["row"].to_numpy(),
            "one": np.where(turned, second, first),
            "other": np.where(turned, first, second),
            "judge": lines["judge"].to_numpy(dtype=object),
            "points": np.where(turned, 1 - points, points),
            "flipped": np.where(is_swapped & ~np.isnan(points), lines["flipped"].to_numpy(float), np.nan),
        },
        columns=_COLUMNS,
    )


def rated(judgements: pd.DataFrame) -> pd.DataFrame:
    """Return each answer's rating by each judge: ``row``, ``pipeline``, ``judge``, ``rating``, the mean of its turns."""
    known = judgements.assign(rating=pd.to_numeric(judgements["rating"]).astype("float64"))
    return known.groupby(["row", "pipeline", "judge"], sort=False)["rating"].mean().reset_index()


def of_ratings(ratings: pd.DataFrame, pipelines: Sequence[str]) -> pd.DataFrame:
    """Return the pairs that ratings decide, as ``of_verdicts`` does: the higher one wins."""
    wide = ratings.pivot_table(index=["row", "judge"], columns="pipeline", values="rating", sort=False)
    parts = []
    for one, other in combinations([name for name in pipelines if name in wide], 2):
        points: pd.Series[Any] = (wide[one] - wide[other]).map(np.sign).add(1).div(2)
        parts.append(points.dropna().rename("points").reset_index().assign(one=one, other=other, flipped=np.nan))
    return pd.concat(parts, ignore_index=True)[_COLUMNS] if parts else _nothing()


def labelled(labels: Any, answers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return what people say: the pairs as ``of_verdicts`` has them, and their ratings where they rated.

    Raises:
        SetupError: labels of other rows, or that name no pipeline.
    """
    pipelines = [str(name) for name in answers.columns]
    if isinstance(labels, pd.DataFrame) and "verdict" in labels:
        return _of_people(of_verdicts(labels.assign(judge=labels.get("judge", PEOPLE)), pipelines)), None
    if isinstance(labels, pd.DataFrame) and "rating" in labels:
        ratings = rated(labels.assign(judge=PEOPLE))
        return of_ratings(ratings, pipelines), ratings
    given = labels if isinstance(labels, pd.DataFrame) else pd.Series(labels)
    if isinstance(labels, pd.Series | pd.DataFrame) and not labels.index.equals(answers.index):
        raise SetupError("the labels are not of the answers' rows: their index differs")
    if len(given) != len(answers):
        raise SetupError(f"{len(given)} labels for {len(answers)} rows of answers")
    if isinstance(given, pd.DataFrame):
        return _of_scores(given, pipelines)
    if pd.api.types.is_numeric_dtype(given) and len(pipelines) == 1:
        return _of_scores(given.to_frame(pipelines[0]), pipelines)
    return _of_winners(given.tolist(), pipelines), None


def _of_people(lines: pd.DataFrame) -> pd.DataFrame:
    """Return what most people say of each pair, where several were asked."""
    mean = lines.groupby(["row", "one", "other"], sort=False)["points"].mean().dropna()
    points = mean.sub(0.5).map(np.sign).add(1).div(2)
    return points.rename("points").reset_index().assign(judge=PEOPLE, flipped=np.nan)[_COLUMNS]


def _of_scores(scores: pd.DataFrame, pipelines: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    unknown = [str(name) for name in scores.columns if str(name) not in pipelines]
    if unknown:
        raise UnknownName(f"labels have a column {unknown[0]!r}, no pipeline; {nearest(unknown[0], pipelines)}")
    try:
        long = scores.reset_index(drop=True).rename_axis("row").rename(columns=str).astype("Float64")
    except (TypeError, ValueError) as error:
        raise SetupError(f"labels with a column a pipeline are numbers, the higher the better: {error}") from error
    ratings = long.reset_index().melt("row", var_name="pipeline", value_name="rating").assign(judge=PEOPLE)
    ratings = rated(ratings)
    return of_ratings(ratings, pipelines), ratings


def _of_winners(winners: Sequence[Any], pipelines: Sequence[str]) -> pd.DataFrame:
    lines = []
    for row, winner in enumerate(winners):
        if winner is None or pd.isna(winner):
            continue
        name = str(winner)
        is_tie = name not in pipelines and name.lower() in _TIES
        if not is_tie and name not in pipelines:
            raise UnknownName(f"label {name!r} of row {row} is no pipeline; {nearest(name, [*pipelines, 'tie'])}")
        for one, other in combinations(pipelines, 2):
            if is_tie or name in {one, other}:
                lines.append((row, one, other, PEOPLE, 0.5 if is_tie else float(name == one), np.nan))
    return pd.DataFrame(lines, columns=_COLUMNS) if lines else _nothing()


def _nothing() -> pd.DataFrame:
    dtypes: dict[str, Any] = {
        "row": "int64",
        "one": object,
        "other": object,
        "judge": object,
        "points": float,
        "flipped": float,
    }
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})
