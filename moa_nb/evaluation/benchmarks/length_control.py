"""The logistic model that takes the length of the answers out of preferences (Dubois et al. 2024, section 3)."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from moa_nb.errors import SetupError, nearest

__all__ = ["LengthControl", "control"]

Floats = npt.NDArray[np.float64]

_STRENGTHS = np.logspace(-4, 4, 10)
_FOLDS = 5
_SEED = 123
_TRACE = 1e-9
_GAMED_WEIGHT = 0.2 / 2
"""Of each line of the two gamed baselines."""


@dataclass(frozen=True, slots=True)
class LengthControl:
    """Preferences as they would be at equal length."""

    predicted: Floats
    """The share of a win, 0 to 1, a row an instruction."""
    interval: tuple[float, float]
    """Where their mean lies with 95 % confidence: robust standard errors of the weights, the penalty left aside."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """What the model is fitted to, a line a preference."""

    terms: Floats
    """A column a term; the first is that of the length, the last the constant."""
    share: Floats
    weight: Floats
    group: npt.NDArray[np.int64]
    """The instruction: its lines stay in one fold."""


def control(
    share: Floats,
    difference: Floats,
    group: npt.NDArray[np.int64],
    *,
    difficulty: Floats | None = None,
    gamed: pd.DataFrame | None = None,
) -> LengthControl:
    """Return the preferences as the model predicts them for a difference of zero.

    ``share`` is of a win, 0 to 1, ``nan`` where it is missing: such a row has its prediction, but no part in the fit.
    ``difference`` is the baseline's length less the model's, not the same in all rows. The ``gamed`` rows stand before
    the others in the fit, each an instruction of its own, and are no part of the interval.

    Raises:
        SetupError: no scikit-learn, fewer than five instructions, or ``gamed`` without its columns or ``difficulty``.
    """
    if gamed is not None and difficulty is None:
        raise SetupError("gamed= needs difficulty=: the gamed rows have that term too")
    columns = [np.tanh(difference / difference.std(ddof=1)), difficulty, np.ones_like(difference)]
    terms = np.column_stack([column for column in columns if column is not None])
    known = ~np.isnan(share)
    lines = _Lines(terms[known], share[known], np.ones(known.sum()), group[known])
    weights = _fit(lines if gamed is None else _together(_gamed(gamed), lines))
    terms[:, 0] = 0
    predicted, fitted = _logistic(terms @ weights), _logistic(lines.terms @ weights)
    slope = (predicted * (1 - predicted)) @ terms / len(terms)
    bread = np.linalg.pinv(lines.terms.T * (fitted * (1 - fitted)) @ lines.terms)
    meat = lines.terms.T * (lines.share - fitted) ** 2 @ lines.terms
    error = 1.96 * float(np.sqrt(max(slope @ bread @ meat @ bread @ slope, 0.0)))
    middle = float(predicted.mean())
    return LengthControl(predicted, (max(middle - error, 0.0), min(middle + error, 1.0)))


def _gamed(frame: pd.DataFrame) -> _Lines:
    columns = ["preference", "std_delta_len", "instruction_difficulty"]
    for name in columns:
        if name not in frame:
            msg = f"gamed= has no column {name!r}; {nearest(name, map(str, frame.columns))}"
            raise SetupError(msg)
    share, length, difficulty = frame[columns].astype(float).dropna().to_numpy().T
    terms = np.column_stack([np.tanh(length), difficulty, np.zeros_like(length)])
    return _Lines(terms, share, np.full_like(share, _GAMED_WEIGHT), np.arange(len(share)))


def _together(gamed: _Lines, lines: _Lines) -> _Lines:
    after = replace(lines, group=lines.group + len(gamed.group))
    pairs = ((getattr(gamed, name), getattr(after, name)) for name in ("terms", "share", "weight", "group"))
    return _Lines(*(np.concatenate(pair) for pair in pairs))


def _fit(lines: _Lines) -> Floats:
    """Return the weights of the terms: each line is a win with its share, and a loss with the rest of it.

    As scikit-learn's LogisticRegressionCV would find them, whose options changed their names from release to release.
    Which instructions make a fold depends on numpy's release too, and the second digit after the point with it.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GroupKFold
    except ImportError:
        raise SetupError('length control needs scikit-learn: pip install "moa-nb[evaluation]"') from None
    if len(np.unique(lines.group)) < _FOLDS:
        msg = f"length control needs {_FOLDS} different instructions, one a fold"
        raise SetupError(msg)
    # From 1.8 on the kind of penalty is said as a ratio.
    is_ratio = inspect.signature(LogisticRegression).parameters["penalty"].default == "deprecated"
    lasso: dict[str, Any] = {"l1_ratio": 1.0} if is_ratio else {"penalty": "l1"}
    n = len(lines.share)
    terms, is_win = np.concatenate([lines.terms] * 2), np.repeat([1, 0], n)
    share, own, group = (np.tile(column, 2) for column in (lines.share, lines.weight, lines.group))
    weight = np.where(is_win, share, 1 - share) * own

    def regression(where: Any, strength: float, chance: Any) -> Any:
        part, label = weight[where], is_win[where]
        if not part[label == 0].any() or not part[label == 1].any():
            part = part.clip(_TRACE)  # lines of no weight are dropped, and with them a label
        model = LogisticRegression(C=strength, solver="liblinear", fit_intercept=False, random_state=chance, **lasso)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of the weakest penalties: good enough to be compared
            return model.fit(terms[where], label, sample_weight=part)

    losses = np.zeros(len(_STRENGTHS))
    for train, test in GroupKFold(_FOLDS).split(terms, groups=group):
        chance = np.random.RandomState(_SEED)  # one for all strengths of a fold
        for at, strength in enumerate(_STRENGTHS):
            win = regression(train, strength, chance).predict_proba(terms[test])[:, 1].clip(1e-15, 1 - 1e-15)
            entropy = share[test] * np.log(win) + (1 - share[test]) * np.log(1 - win)
            losses[at] -= np.mean(own[test] * entropy)
    weights: Floats = regression(slice(None), _STRENGTHS[losses.argmin()], _SEED).coef_[0]
    return weights


def _logistic(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))
