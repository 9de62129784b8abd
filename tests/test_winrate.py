"""Win rates: the figures of AlpacaEval 2.0, what length control must and must not do, and verdicts as preferences.

The expected figures of the fits were computed once with AlpacaEval's own code on the same made-up rows.
"""

from __future__ import annotations

import math
import sys
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_nb.errors import SetupError, UnknownName
from moa_nb.evaluation import Evaluation
from moa_nb.evaluation.benchmarks.preferences import preferences_of
from moa_nb.evaluation.benchmarks.winrate import WinRate, lc_winrate, winrate, winrate_of

SHARES = st.floats(0, 1, allow_nan=False)
VERDICTS = st.sampled_from(["A", "B", "C", None])


def rows(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shares of a win that length and quality both decide, and the two lengths."""
    rng = np.random.default_rng(seed)
    lengths, baseline = rng.integers(50, 3000, n), rng.integers(50, 2500, n)
    share = 1 / (1 + np.exp(-((lengths - baseline) / 800 + rng.normal(-0.5, 1, n))))
    return share, lengths, baseline


def asked(*lines: tuple[object, ...]) -> pd.DataFrame:
    """Return verdicts as they are recorded."""
    return pd.DataFrame(lines, columns=["row", "first", "second", "judge", "verdict"])


# Raw --------------------------------------------------------------------------------------------


def test_a_win_rate_is_the_mean_preference() -> None:
    """1 is the baseline's, 2 the model's, 1.5 and 0 a draw; what is missing is counted and in no mean."""
    rates = winrate([2, 2, 1, 1.5, 0, 1.75, None, math.nan, pd.NA])
    assert (rates.n, rates.n_wins, rates.n_losses, rates.n_draws, rates.n_unreadable) == (6, 3, 1, 2, 3)
    assert rates.win_rate == pytest.approx(100 * (1 + 1 + 0 + 0.5 + 0.5 + 0.75) / 6)
    assert rates.discrete_win_rate == pytest.approx(100 * (3 + 1) / 6)
    assert rates.standard_error == pytest.approx(100 * pd.Series([1, 1, 0, 0.5, 0.5, 0.75]).sem())


def test_a_share_of_points_says_so() -> None:
    """With the scale from 0 to 1 a 0 is a loss; without it, a share is an error that names the scale."""
    assert winrate([0, 0, 1, 0.5], scale=(0, 1)).win_rate == pytest.approx(37.5)
    with pytest.raises(SetupError, match=r"0\.5 in row 1 is not in \(1, 2\); is it scale=\(0, 1\)\?"):
        winrate([1, 0.5])
    with pytest.raises(SetupError, match=r"with scale=\(0, 1\) from 0 to 1"):
        winrate([1, 5], scale=(1, 5))
    with pytest.raises(SetupError, match="column of numbers"):
        winrate(["yes"])  # type: ignore[list-item]


def test_wins_and_losses_are_not_taken_for_draws_unsaid() -> None:
    """Truth values are no preferences from 1 to 2; zeros and ones could be, and that they were taken for it is said."""
    with pytest.raises(SetupError, match=r"wins and losses: say scale=\(0, 1\)"):
        winrate([True, False])
    assert winrate(pd.Series([True, True, False]), scale=(0, 1)).n_wins == 2
    assert "scale=(0, 1)" in winrate([0, 1, 1, None]).warnings[0]
    assert winrate([0, 1, 2]).warnings == winrate([0, 1], scale=[0, 1]).warnings == ()
    told = lc_winrate([0, 1] * 20, lengths=[900, 100, 300, 5] * 10, baseline_lengths=[500] * 40)
    assert "scale=(0, 1)" in told.warnings[0]


def test_a_column_is_one_of_finite_numbers() -> None:
    """A frame is no column, whatever its own columns are called; nothing is infinite; a length is not below zero."""
    for table in (pd.DataFrame({1: [2.0, 2.0]}), {1: 2}):
        with pytest.raises(SetupError, match="take one of its columns"):
            winrate(table)
    with pytest.raises(SetupError, match="one is infinite"):
        lc_winrate([1, 2] * 20, [math.inf] * 40, [5] * 40)
    with pytest.raises(SetupError, match="0 or more, not -3"):
        lc_winrate([1, 2] * 20, [-3] * 40, [5] * 40)
    with pytest.raises(SetupError, match="scale=3"):
        winrate([1], scale=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("preferences", [[], [None, math.nan], pd.Series([pd.NA], dtype="Float64")])
def test_nothing_readable_is_missing(preferences) -> None:
    """No figure is made of nothing, raw or controlled."""
    rates = winrate(preferences)
    assert (rates.win_rate, rates.standard_error, rates.discrete_win_rate, rates.n) == (None, None, None, 0)
    controlled = lc_winrate(preferences, [1] * len(preferences), [2] * len(preferences))
    assert (controlled.length_controlled_winrate, controlled.lc_interval) == (None, None)
    assert controlled.warnings == ("no preference could be read",)
    assert str(rates) == f"no readable preference ({len(preferences)} unreadable)"


def test_one_preference_has_no_error() -> None:
    """One row is a rate without a standard error."""
    assert (winrate([2]).win_rate, winrate([2]).standard_error) == (100, None)


@settings(deadline=None)
@given(st.lists(SHARES, min_size=2))
def test_exchanging_the_two_mirrors_the_rate(shares: list[float]) -> None:
    """What the model wins the baseline loses."""
    there, back = winrate(shares, scale=(0, 1)), winrate([1 - share for share in shares], scale=(0, 1))
    assert there.win_rate == pytest.approx(100 - (back.win_rate or 0), abs=1e-9)
    assert there.standard_error == pytest.approx(back.standard_error, abs=1e-9)


# Length control ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "rate", "error"),
    [("minimal", 38.5907, None), ("noreg", 38.9032, 1.05937), ("v1", 40.6746, 0.819283)],
)
def test_the_fit_is_that_of_alpacaeval(form: str, rate: float, error: float | None) -> None:
    """Each of its three forms gives what its own code gives, for lengths and for texts."""
    at = np.arange(200)
    lengths, baseline, hard = (at * 7919) % 2600 + 100, (at * 104729) % 1900 + 200, np.sin(at)
    share = 1 / (1 + np.exp(-((lengths - baseline) / 700 - hard + np.cos(3 * at) - 0.6)))
    gamed = pd.concat(
        pd.DataFrame(
            {
                "preference": 1 / (1 + np.exp(-sign * 1.5 * np.cos(5 * at))),
                "std_delta_len": sign * ((at * 31) % 97 - 48) / 28,
                "instruction_difficulty": hard,
            }
        )
        for sign in (1, -1)
    )
    more = {"minimal": {}, "noreg": {"difficulty": hard}, "v1": {"difficulty": hard, "gamed": gamed}}[form]
    for one, other in ((lengths, baseline), (["m" * n for n in lengths], ["b" * n for n in baseline])):
        rates = lc_winrate(1 + share, one, other, **more)
        # Which rows make a fold depends on numpy's release, and with it the strength of the penalty.
        assert rates.length_controlled_winrate == pytest.approx(rate, abs=0.1)
        assert rates.lc_standard_error == (error and pytest.approx(error, abs=0.01))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(30, 120), st.sampled_from(["soft", "hard", "draws"]))
def test_exchanging_the_two_mirrors_the_controlled_rate(seed: int, n: int, kind: str) -> None:
    """The baseline at equal length wins what the model does not, within a point."""
    share, lengths, baseline = rows(seed, n)
    share = {"soft": share, "hard": share.round(), "draws": (2 * share).round() / 2}[kind]
    there, back = lc_winrate(1 + share, lengths, baseline), lc_winrate(2 - share, baseline, lengths)
    assert there.length_controlled_winrate == pytest.approx(100 - (back.length_controlled_winrate or 0), abs=1)
    assert there.win_rate == pytest.approx(winrate(1 + share).win_rate)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 4), st.floats(-1000, 1000))
def test_where_only_length_matters_half_is_won_at_equal_length(seed: int, strength: float, longer: float) -> None:
    """A judge that sees nothing but length makes a raw rate far from 50, and a controlled one within 3 of it."""
    rng = np.random.default_rng(seed)
    lengths, baseline = rng.integers(1000, 4000, 300) + longer, rng.integers(1000, 4000, 300)
    share = 1 / (1 + np.exp(-strength * (lengths - baseline) / (lengths - baseline).std()))
    rates = lc_winrate(share, lengths, baseline, scale=(0, 1))
    assert rates.length_controlled_winrate == pytest.approx(50, abs=3)
    if longer > 800:
        assert rates.win_rate > 53


def test_a_judge_that_takes_the_longer_answer_every_time_says_nothing_else() -> None:
    """A perfect step leaves nothing to fit: it is 50, and said; so with the shorter answer."""
    _, lengths, baseline = rows(0, 60)
    longer = np.sign(lengths - baseline) / 2 + 0.5
    assert winrate(longer, scale=(0, 1)).win_rate > 55
    rates = lc_winrate(longer, lengths, baseline, scale=(0, 1))
    assert (rates.length_controlled_winrate, *rates.warnings) == (
        50,
        "the longer answer wins every time: the judge saw nothing else",
    )
    shorter = lc_winrate(1 - longer, lengths, baseline, scale=(0, 1))
    assert (shorter.length_controlled_winrate, shorter.warnings[0][:19]) == (50, "the shorter answer ")


def test_where_length_does_not_matter_control_changes_little() -> None:
    """Quality alone decides: the controlled rate is the raw one within 3 points, inside its own interval."""
    rng = np.random.default_rng(1)
    share, lengths, baseline = rng.beta(3, 2, 400), rng.integers(50, 3000, 400), rng.integers(50, 3000, 400)
    rates = lc_winrate(1 + share, lengths, baseline)
    assert rates.length_controlled_winrate == pytest.approx(rates.win_rate, abs=3)
    low, high = rates.lc_interval
    assert low < rates.length_controlled_winrate < high
    assert high - low == pytest.approx(2 * 1.96 * rates.standard_error, rel=0.2)
    assert rates.warnings == ()


def test_equal_lengths_leave_the_raw_figure() -> None:
    """Where length cannot tell anything, nothing is made of it; where it differs by the same everywhere, that is said."""
    share, lengths, _ = rows(2, 40)
    same = lc_winrate(1 + share, lengths, lengths)
    assert (same.length_controlled_winrate, same.warnings) == (winrate(1 + share).win_rate, ())
    further = lc_winrate(1 + share, lengths + 100, lengths)
    assert further.length_controlled_winrate == same.win_rate
    assert further.warnings == ("all answers differ from the baseline's by the same length: the raw figure stands",)


@pytest.mark.parametrize(("preference", "expected"), [(2, 100), (1, 0), (1.5, 50), (0, 50)])
def test_unanimous_preferences_stay_what_they_are(preference: float, expected: float) -> None:
    """Who wins every time wins at equal length too, however long the answers."""
    _, lengths, baseline = rows(3, 50)
    rates = lc_winrate([preference] * 50, lengths, baseline)
    assert rates.length_controlled_winrate == pytest.approx(expected, abs=0.01)


def test_one_loss_among_wins_does_not_turn_the_figure(capfd: pytest.CaptureFixture[str]) -> None:
    """A fold in which all are wins is fitted all the same, without a word on the terminal."""
    _, lengths, baseline = rows(4, 60)
    rates = lc_winrate([2] * 59 + [1], lengths, baseline)
    assert rates.length_controlled_winrate > 90
    assert capfd.readouterr() == ("", "")


def test_the_baselines_own_answers_are_half() -> None:
    """Identical texts give 50 whatever a judge said of them."""
    answers = [f"answer {n}" for n in range(40)]
    rates = lc_winrate([1.9] * 40, answers, answers)
    assert rates.length_controlled_winrate == 50
    assert rates.win_rate == pytest.approx(90)
    assert "the answers are the baseline's own" in rates.warnings


def test_a_model_that_always_says_the_same_is_flagged() -> None:
    """By its texts, over half of the rows being one; by its lengths where there are no texts."""
    share, _, baseline = rows(5, 40)
    texts = ["As an AI, I win."] * 30 + [f"{n:04}" * n for n in range(1, 11)]
    assert lc_winrate(1 + share, texts, baseline).warnings[0] == "one and the same answer is given to 30 of 40 rows"
    assert "all 40 answers have the same length" in lc_winrate(1 + share, [16] * 40, baseline).warnings[0]
    assert not any("same answer" in one for one in lc_winrate(1 + share, texts[20:] * 2, baseline).warnings)


def test_a_large_change_is_said() -> None:
    """More than 10 points and a quarter of the room: the figure may be a failure of the fit."""
    _, lengths, baseline = rows(6, 200)
    lengths = lengths + 4000
    share = 1 / (1 + np.exp(-(lengths - baseline - 2000) / 400))
    rates = lc_winrate(1 + share, lengths, baseline)
    assert abs(rates.length_controlled_winrate - rates.win_rate) > 30
    assert rates.warnings[-1].startswith("length control moves ")


def test_too_few_rows_are_refused() -> None:
    """29 readable rows say nothing of length; 30 do; the unreadable do not count."""
    share, lengths, baseline = rows(7, 31)
    share[[0, 1]] = math.nan
    with pytest.raises(SetupError, match="needs 30 readable rows, here are 29"):
        lc_winrate(1 + share, lengths, baseline)
    share[0] = 0.5
    assert lc_winrate(1 + share, lengths, baseline).n == 30


def test_rows_without_a_length_are_out_of_the_control_alone() -> None:
    """A missing length takes its row out of the fit, not out of the raw rate."""
    share, lengths, baseline = rows(8, 60)
    missing = [None, *lengths[1:].tolist()]
    rates = lc_winrate(1 + share, missing, baseline)
    assert rates.n == 60
    assert rates.length_controlled_winrate == pytest.approx(
        lc_winrate(1 + share[1:], lengths[1:], baseline[1:]).length_controlled_winrate
    )


def test_instructions_keep_their_rows_in_one_fold() -> None:
    """Repeated rows of one instruction do not vouch for each other; fewer than five instructions are refused."""
    share, lengths, baseline = rows(9, 60)
    keyed = lc_winrate(1 + share, lengths, baseline, instructions=[f"q{n % 12}" for n in range(60)])
    assert 0 < keyed.length_controlled_winrate < 100
    with pytest.raises(SetupError, match="5 different instructions"):
        lc_winrate(1 + share, lengths, baseline, instructions=["a", "b", "c"] * 20)


def test_columns_have_to_match() -> None:
    """Another length, another index, a gamed frame without its columns: each is one line."""
    share, lengths, baseline = rows(10, 40)
    with pytest.raises(SetupError, match="40 preferences, but a column of 39 rows"):
        lc_winrate(1 + share, lengths[1:], baseline)
    with pytest.raises(SetupError, match="different indexes"):
        lc_winrate(pd.Series(1 + share), pd.Series(lengths, index=range(1, 41)), baseline)
    with pytest.raises(SetupError, match="different indexes"):
        lc_winrate(list(1 + share), pd.Series(lengths, index=range(1, 41)), pd.Series(baseline))
    with pytest.raises(SetupError, match="needs difficulty="):
        lc_winrate(1 + share, lengths, baseline, gamed=pd.DataFrame())
    with pytest.raises(SetupError, match="gamed= has no column 'std_delta_len'"):
        frame = pd.DataFrame({"preference": [0.5], "delta_len": [1.0]})
        lc_winrate(1 + share, lengths, baseline, difficulty=[0.0] * 40, gamed=frame)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the extra; the raw rate needs nothing."""
    share, lengths, baseline = rows(11, 40)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(SetupError, match=r'pip install "moa-nb\[evaluation\]"'):
        lc_winrate(1 + share, lengths, baseline)
    assert winrate(1 + share).n == 40


# From verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "swapped", "expected"),
    [
        ("A", "B", 2),
        ("B", "A", 1),
        ("A", "A", 1.5),
        ("C", "C", 1.5),
        ("C", "B", 1.5),
        (None, "B", None),
        ("A", None, None),
    ],
)
def test_both_orders_are_settled(forward: str | None, swapped: str | None, expected: float | None) -> None:
    """The same winner twice wins, all else is a draw, and what could not be read is missing."""
    judgements = asked((0, "moa", "single", "j", forward), (0, "single", "moa", "j", swapped))
    preference = preferences_of(judgements, "moa", "single", 1)[0]
    assert preference == expected or (expected is None and math.isnan(preference))


def test_one_order_counts_as_it_is_and_judges_are_averaged() -> None:
    """Row 0 in the other order alone, row 1 by two judges of whom one abstains, row 2 by two, row 3 not at all."""
    judgements = asked(
        (0, "single", "moa", "j", "B"),
        (1, "moa", "single", "j", "A"),
        (1, "moa", "single", "k", None),
        (2, "moa", "single", "j", "A"),
        (2, "moa", "single", "k", "B"),
        (2, "moa", "other", "k", "B"),
    )
    assert preferences_of(judgements, "moa", "single", 4).tolist()[:3] == [2, 2, 1.5]
    assert winrate(preferences_of(judgements, "moa", "single", 4)).n_unreadable == 1


@settings(deadline=None)
@given(st.lists(st.tuples(VERDICTS, VERDICTS), min_size=1, max_size=12))
def test_the_baseline_gets_what_the_model_does_not(said: list[tuple[str | None, str | None]]) -> None:
    """Verdicts as preferences add up, whoever is asked about."""
    lines = [
        line for row, (one, two) in enumerate(said) for line in ((row, "m", "b", "j", one), (row, "b", "m", "j", two))
    ]
    mine, theirs = (preferences_of(asked(*lines), *names, len(said)) for names in (("m", "b"), ("b", "m")))
    assert (mine + theirs).dropna().eq(3).all()
    assert (mine.isna() == theirs.isna()).all()


def test_a_win_rate_of_recorded_judgements() -> None:
    """Answers and verdicts make both figures; with few rows the raw one stands and that is said."""
    answers = pd.DataFrame(
        {
            "moa": [f"long answer {'x' * n}" for n in range(40)],
            "single": [f"answer {'y' * (n % 7)}" for n in range(40)],
        },
        dtype="str",
    )
    lines = [
        (row, *pair, "j", "A" if (pair[0] == "moa") == (row % 4 > 0) else "B")
        for row, pair in product(range(40), (("moa", "single"), ("single", "moa")))
    ]
    rates = winrate_of(asked(*lines), answers, "moa", "single")
    assert (rates.win_rate, rates.n_wins, rates.n_losses) == (75, 30, 10)
    assert rates.length_controlled_winrate is not None
    few = winrate_of(asked(*lines[:20]), answers, "moa", "single")
    assert (few.n, few.length_controlled_winrate) == (10, None)
    assert few.warnings == ("10 readable rows are too few to control for length: 30 are needed",)
    assert winrate_of(asked(*lines), answers, "moa", "single", length_controlled=False).lc_interval is None


def test_an_evaluation_has_the_win_rate_of_its_judgements() -> None:
    """Whoever is the baseline: the one that is named, the evaluation's, or the only other one; else it is asked for."""
    answers = pd.DataFrame(
        {
            "moa": [f"long answer {'x' * n}" for n in range(40)],
            "single": [f"answer {'y' * max(0, n % 7 - 4)}" for n in range(40)],
            "other": ["z" * (n % 5) for n in range(40)],
        },
        dtype="str",
    )
    judgements = asked(
        *(
            (row, *pair, "j", "A" if (pair[0] == "moa") == (row % 4 > 0) else "B")
            for row, pair in product(range(40), permutations(answers, 2))
        )
    )
    rates = winrate_of(judgements, answers, "moa", "single")
    assert (rates.win_rate, rates.warnings) == (75, ())
    two = judgements[(judgements["first"] != "other") & (judgements["second"] != "other")]
    alone = Evaluation(answers[["moa", "single"]], "points", two)
    assert alone.length_controlled("moa") == rates
    assert alone.length_controlled("single") == winrate_of(judgements, answers, "single", "moa")
    three = Evaluation(answers, "points", judgements)
    assert three.length_controlled("moa", "single") == rates
    with pytest.raises(SetupError, match="baseline= one of single, other"):
        three.length_controlled("moa")
    against_all = judgements[(judgements["first"] == "single") | (judgements["second"] == "single")]
    assert Evaluation(answers, "points", against_all, baseline="single").length_controlled("moa") == rates
    with pytest.raises(SetupError, match="needs 30 readable rows"):
        Evaluation(answers.head(20), "points", judgements[judgements["row"] < 20]).length_controlled("moa", "single")


def test_pipelines_may_go_by_numbers() -> None:
    """Names that are numbers are found among the answers and the judgements; a wrong one is told the others."""
    answers = pd.DataFrame({1: ["a", "b"], 2: ["c", "d"]})
    judgements = asked((0, 1, 2, "j", "A"), (0, 2, 1, "j", "B"), (1, 1, 2, "j", "B"))
    assert winrate_of(judgements, answers, 1, 2, length_controlled=False).win_rate == 50  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="no answers of 3; there are: 1, 2"):
        winrate_of(judgements, answers, 3, 2)  # type: ignore[arg-type]


def test_judgements_of_other_rows_are_refused() -> None:
    """A row beyond the answers, or between two of them, is no row; a table of another form is told what it lacks."""
    answers = pd.DataFrame({"a": ["x"], "b": ["y"]})
    with pytest.raises(SetupError, match="rows 0 to 7, and there are 1 rows"):
        winrate_of(asked((0, "a", "b", "j", "A"), (7, "a", "b", "j", "A")), answers, "a", "b")
    for row in (0.5, None, "0"):
        with pytest.raises(SetupError, match="'row' of judgements has whole numbers"):
            winrate_of(asked((row, "a", "b", "j", "A")), answers, "a", "b")
    with pytest.raises(SetupError, match="lack 'first'"):
        winrate_of(asked((0, "a", "b", "j", "A")).drop(columns="first"), answers, "a", "b")


def test_both_orders_are_one_pair_whoever_is_said_to_have_judged() -> None:
    """A judge whose name is missing is one judge; a pair that is judged again counts again."""
    for judge in (None, math.nan, pd.NA, ["gpt-4", "pair-v2"]):
        twice = asked((0, "a", "b", judge, "A"), (0, "b", "a", judge, "A"))
        twice["judge"] = [judge, float("nan") if isinstance(judge, float) else judge]
        assert preferences_of(twice, "a", "b", 1).tolist() == [1.5]
    again = asked(*[(0, *pair, "j", verdict) for verdict in "AC" for pair in (("a", "b"), ("b", "a"))])
    assert preferences_of(again.replace({"verdict": {"A": "B"}}), "a", "b", 1).tolist() == [1.5]
    lines = [(0, "a", "b", "j", "A"), (0, "b", "a", "j", "B"), (0, "a", "b", "j", "C"), (0, "b", "a", "j", "C")]
    assert preferences_of(asked(*lines), "a", "b", 1).tolist() == [1.75]


def test_a_wrong_name_gets_the_right_one() -> None:
    """The nearest name of a column, or of who was judged, is said."""
    answers = pd.DataFrame({"moa": ["x"], "single": ["y"], "other": ["z"]})
    judgements = asked((0, "moa", "single", "j", "A"))
    with pytest.raises(UnknownName, match="no answers of 'singel'; did you mean 'single'"):
        winrate_of(judgements, answers, "moa", "singel")
    with pytest.raises(UnknownName, match="no judgement of 'other'"):
        winrate_of(judgements, answers, "moa", "other")


def test_a_win_rate_reads_in_one_line() -> None:
    """Its text is what an analyst writes down."""
    rates = WinRate(
        win_rate=61.25, standard_error=1.5, discrete_win_rate=60, n=9, n_wins=5, n_losses=3, n_draws=1, n_unreadable=2
    )
    assert str(rates) == "61.2% ± 1.5 (9 rows, 1 draws, 2 unreadable)"
