"""Win rates against a baseline as AlpacaEval 2.0 defines them: raw, and with the length of the answers controlled."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.evaluation.benchmarks.length_control import control
from moa_nb.evaluation.benchmarks.preferences import Column, Floats, numbers, preferences_of, shares

__all__ = ["WinRate", "lc_winrate", "winrate", "winrate_of"]

_FEWEST = 30
"""Fewer readable rows say nothing of what length does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often a model is preferred to a baseline. Percentages are of the readable rows; ``None`` is not known."""

    win_rate: float | None
    """The mean preference in percent, a draw counting a half; above 50 the model is preferred."""
    standard_error: float | None
    """Of ``win_rate``, in points of percent; ``None`` with fewer than two readable rows."""
    discrete_win_rate: float | None
    """As ``win_rate``, with every preference rounded to a win, a draw or a loss."""
    n: int
    """Readable rows: wins, losses and draws."""
    n_wins: int
    n_losses: int
    n_draws: int
    n_unreadable: int
    """Rows left out since their preference is missing."""
    length_controlled_winrate: float | None = None
    """What ``win_rate`` would be were the answers as long as the baseline's; ``None`` where it was not asked for."""
    lc_standard_error: float | None = None
    """The spread of the predicted preferences over the instructions, as the leaderboard prints it; ``None`` without
    ``difficulty``, where all are predicted alike. It is no measure of what other rows would give: see ``lc_interval``."""
    lc_interval: tuple[float, float] | None = None
    """Where ``length_controlled_winrate`` lies with 95 % confidence (robust standard errors of the model's weights)."""
    warnings: tuple[str, ...] = ()
    """What should be looked at before these figures are believed."""

    def __str__(self) -> str:
        """Return the figures in one line."""
        if self.win_rate is None:
            return f"no readable preference ({self.n_unreadable} unreadable)"
        error = "" if self.standard_error is None else f" ± {self.standard_error:.1f}"
        controlled = self.length_controlled_winrate
        lengths = "" if controlled is None else f", {controlled:.1f}% at equal length"
        return f"{self.win_rate:.1f}%{error}{lengths} ({self.n} rows, {self.n_draws} draws, {self.n_unreadable} unreadable)"


def winrate(preferences: Column, *, scale: tuple[float, float] = (1, 2)) -> WinRate:
    """Return how often a model is preferred to a baseline (AlpacaEval 2.0: Dubois et al. 2024, arXiv 2404.04475).

    A preference runs from 1 (the baseline's answer is better) to 2 (the model's); 1.5 is a draw, and so is 0, as
    older annotations write it. With ``scale=(0, 1)`` it is a share of points: 0 a loss, 0.5 a draw, 1 a win.
    Missing ones (``None``, ``nan``) are left out and counted; with none left, all figures are ``None``.

    Raises:
        SetupError: a preference outside its scale, or another scale.

    >>> print(winrate([2, 1.9, 1.5, None]))
    80.0% ± 15.3 (3 rows, 1 draws, 1 unreadable)
    >>> winrate([1, 0.5, 0], scale=(0, 1)).win_rate
    50.0
    """
    share = shares(preferences, scale)
    known = share[~np.isnan(share)]
    n, draws, wins = len(known), int((known == 0.5).sum()), int((known > 0.5).sum())
    return WinRate(
        win_rate=float(known.mean() * 100) if n else None,
        standard_error=_standard_error(known),
        discrete_win_rate=(wins + draws / 2) / n * 100 if n else None,
        n=n,
        n_wins=wins,
        n_losses=n - wins - draws,
        n_draws=draws,
        n_unreadable=len(share) - n,
        warnings=_misread(preferences, scale),
    )


def lc_winrate(
    preferences: Column,
    lengths: Column,
    baseline_lengths: Column,
    *,
    difficulty: Column | None = None,
    gamed: pd.DataFrame | None = None,
    instructions: Column | None = None,
    scale: tuple[float, float] = (1, 2),
) -> WinRate:
    """Return the win rate with its length-controlled figure: what it would be at the baseline's length.

    A logistic model of the preference is fitted, and asked again with the difference of lengths set to zero (Dubois
    et al. 2024, section 3). Its terms: tanh of the difference over its standard deviation, and a constant. This is
    AlpacaEval's ``length_controlled_minimal``, which any frame allows. ``difficulty`` adds its term
    (``length_controlled_noreg``), ``gamed`` the pull towards no effect (``length_controlled_v1``, the leaderboard's);
    both are published for AlpacaEval's own 805 instructions. On its recorded annotations of 58 models each form is
    what its own code computes from the same rows. The minimal form is not the leaderboard's figure: over the 57 models
    listed there it lies 6.5 points from it on average, mostly above, and farthest where a weak model writes little.

    ``lengths`` are characters, or the answers themselves. ``difficulty`` is one number a row; ``gamed`` has the
    columns ``preference`` (0 to 1), ``std_delta_len`` and ``instruction_difficulty``. Rows of one key in
    ``instructions`` stay in one fold of the cross-validation; without it each row is an instruction.

    Where all differences of length are equal, or all preferences are wins, or losses, the raw figure stands. Where
    the longer answer wins every time (or the shorter), and where the answers are the baseline's own, it is 50 by
    definition. With no readable preference the figures are ``None``. ``warnings`` says so, and where one answer is
    given to more than half of the rows, and where control moves the figure by more than 10 points and a quarter of
    what there was to win or to lose.

    Raises:
        SetupError: fewer than 30 readable rows, columns that do not match, no scikit-learn.

    >>> print(lc_winrate([1.9, 1.3] * 20, lengths=[900, 100] * 20, baseline_lengths=[500] * 40))
    60.0% ± 4.8, 66.3% at equal length (40 rows, 0 draws, 0 unreadable)
    """
    _check_rows(preferences, lengths, baseline_lengths, difficulty, instructions)
    raw, share = winrate(preferences, scale=scale), shares(preferences, scale)
    if not raw.n:
        return replace(raw, warnings=("no preference could be read",))
    length, baseline = _characters(lengths), _characters(baseline_lengths)
    hard = np.zeros_like(length) if difficulty is None else numbers(difficulty)
    usable = ~np.isnan(baseline - length + hard)
    n_known = np.count_nonzero(usable & ~np.isnan(share))
    if n_known < _FEWEST:
        msg = f"length control needs {_FEWEST} readable rows, here are {n_known}: judge more rows, or use winrate"
        raise SetupError(msg)
    found = (*raw.warnings, *_repeated(lengths, length))
    difference = (baseline - length)[usable]
    if _is_baseline(lengths, baseline_lengths):
        found = (*found, "the answers are the baseline's own")
        return replace(raw, length_controlled_winrate=50.0, warnings=found)
    settled = _settled(raw.win_rate, difference, share[usable])
    if settled is not None:
        return replace(raw, length_controlled_winrate=settled[0], warnings=(*found, *settled[1:]))
    keys = np.arange(len(share)) if instructions is None else pd.factorize(np.asarray(instructions, dtype=object))[0]
    equal = control(
        share[usable],
        difference,
        keys[usable],
        difficulty=None if difficulty is None else hard[usable],
        gamed=gamed,
    )
    controlled = float(equal.predicted.mean() * 100)
    return replace(
        raw,
        length_controlled_winrate=controlled,
        lc_standard_error=None if difficulty is None else _standard_error(equal.predicted),
        lc_interval=(equal.interval[0] * 100, equal.interval[1] * 100),
        warnings=(*found, *_moved(raw.win_rate or 0.0, controlled)),
    )


def winrate_of(
    judgements: pd.DataFrame, answers: pd.DataFrame, model: str, baseline: str, *, length_controlled: bool = True
) -> WinRate:
    """Return the win rate of one pipeline over another from recorded judgements of their answers.

    ``answers`` has a column a pipeline and a row a row of the frame; `preferences_of` says how verdicts become
    preferences. With fewer than 30 readable rows the raw figure is returned with a warning.

    Raises:
        UnknownName: ``answers`` has no such column, or nobody of that name was judged.
        SetupError: length control without scikit-learn.

    >>> answers = pd.DataFrame({"moa": ["Paris.", "Rome."], "single": ["Paris!", "Rom"]})
    >>> asked = pd.DataFrame([(0, "moa", "single", "j", "A")], columns=["row", "first", "second", "judge", "verdict"])
    >>> winrate_of(asked, answers, "moa", "single", length_controlled=False).win_rate
    100.0
    """
    for name in (model, baseline):
        if name not in answers:
            raise UnknownName(f"no answers of {name!r}; {nearest(name, map(str, answers.columns))}")
    preferences = preferences_of(judgements, model, baseline, len(answers))
    raw, both = winrate(preferences), (list(answers[model]), list(answers[baseline]))
    if length_controlled and (raw.n >= _FEWEST or not raw.n):
        return lc_winrate(preferences, *both)
    found = _repeated(both[0], _characters(both[0]))
    few = f"{raw.n} readable rows are too few to control for length: {_FEWEST} are needed"
    return replace(raw, warnings=(*found, few) if length_controlled else found)


def _misread(preferences: Column, scale: tuple[float, float]) -> tuple[str, ...]:
    """Return a warning where shares of a win are likely to have been taken for preferences from 1 to 2."""
    if tuple(scale) == (0, 1) or {*numbers(preferences)[~np.isnan(numbers(preferences))]} != {0.0, 1.0}:
        return ()
    return ("every preference is 0 or 1, which are a draw and a loss: if they are losses and wins, say scale=(0, 1)",)


def _standard_error(share: Floats) -> float | None:
    return float(share.std(ddof=1) / np.sqrt(len(share)) * 100) if len(share) > 1 else None


def _characters(answers: Column) -> Floats:
    """Return the length of each answer, or the lengths as they are given."""
    lengths = numbers([len(one) if isinstance(one, str) else one for one in answers])
    if (lengths < 0).any():
        raise SetupError(f"a length is 0 or more, not {lengths[lengths < 0][0]:g}")
    return lengths


def _check_rows(preferences: Column, *others: Column | None) -> None:
    indexes = [one.index for one in (preferences, *others) if isinstance(one, pd.Series)]
    if any(not index.equals(indexes[0]) for index in indexes):
        raise SetupError("the columns have different indexes: take them from one frame, or pass lists")
    for other in others:
        if other is not None and len(other) != len(preferences):
            raise SetupError(f"{len(preferences)} preferences, but a column of {len(other)} rows beside them")


def _is_baseline(answers: Column, baseline: Column) -> bool:
    """Return whether texts are given, and the same."""
    pairs = [(one, other) for one, other in zip(answers, baseline, strict=True) if isinstance(one, str)]
    return bool(pairs) and all(isinstance(other, str) and one == other for one, other in pairs)


def _settled(raw: float | None, difference: Floats, share: Floats) -> tuple[float | None, *tuple[str, ...]] | None:
    """Return the figure where there is nothing to fit, and what is to be said of it; ``None`` where there is."""
    known = ~np.isnan(share)
    won, longer = share[known], np.sign(-difference[known]) / 2
    if (difference == difference[0]).all():
        note = "all answers differ from the baseline's by the same length: the raw figure stands"
        return (raw, note) if difference[0] else (raw,)
    if won[0] in {0, 1} and (won == won[0]).all():
        return raw, f"every preference is a {'win' if won[0] else 'loss'}: the raw figure stands"
    for what, sign in (("longer", 1), ("shorter", -1)):
        if (won == 0.5 + sign * longer).all():
            return 50.0, f"the {what} answer wins every time: the judge saw nothing else"
    return None


def _repeated(answers: Column, length: Floats) -> tuple[str, ...]:
    """Return what is to be said of a model that gives the same answer again and again."""
    texts = Counter(one for one in answers if isinstance(one, str))
    if texts:
        count, of = texts.most_common(1)[0][1], texts.total()
        return (f"one and the same answer is given to {count} of {of} rows",) if of > 1 and count > of / 2 else ()
    known = length[~np.isnan(length)]
    if len(known) > 1 and (known == known[0]).all():
        return (f"all {len(known)} answers have the same length: are they one answer?",)
    return ()


def _moved(raw: float, controlled: float) -> tuple[str, ...]:
    """Return a warning where control moves the figure by over 10 points and a quarter of the room it had."""
    room = raw if controlled < raw else 100 - raw
    if abs(controlled - raw) <= max(10, room / 4):
        return ()
    return (f"length control moves {raw:.1f}% to {controlled:.1f}%: it may have failed",)
