"""How sure a mean is: intervals that cover, tests whose p-values mean what they say, and what few rows cannot say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_nb.errors import SetupError
from moa_nb.evaluation import Evaluation, statistics
from moa_nb.evaluation.statistics import Interval, holm, interval, paired, said

SCORES = st.lists(st.one_of(st.none(), st.floats(-10, 10).map(lambda value: round(value, 3))), max_size=30)


# Intervals --------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Fewer resamples: a simulation needs many intervals, not fine ones."""
    monkeypatch.setattr(statistics, "_RESAMPLES", 1000)


@pytest.mark.parametrize("n", [8, 50])
def test_intervals_of_normal_values_cover_the_mean(quick, n) -> None:
    """Of 1,000 samples about 95 % have an interval with the true mean in it, small samples too."""
    generator = np.random.default_rng(1)
    samples = generator.normal(3.0, 2.0, size=(1000, n))
    found = [interval(sample, seed=seed) for seed, sample in enumerate(samples)]
    assert np.mean([one.low <= 3.0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_intervals_of_shares_cover_the_share(quick, share) -> None:
    """Wins and losses of 50 rows give intervals that hold the true share about 95 times in 100."""
    generator = np.random.default_rng(2)
    samples = generator.binomial(1, share, size=(1000, 50))
    found = [interval(sample, seed=seed) for seed, sample in enumerate(samples)]
    assert np.mean([one.low <= share <= one.high for one in found]) == pytest.approx(0.95, abs=0.025)


def test_two_ways_to_resample_agree() -> None:
    """Drawing rows and drawing how often each kind of value comes give the same interval."""
    few = np.tile([0.0, 0.5, 1.0, 1.0], 50)
    nudged = few + np.linspace(0, 1e-9, len(few))
    ours, theirs = interval(few), interval(nudged)
    assert ours.low == pytest.approx(theirs.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.high, abs=0.006)


def test_an_interval_agrees_with_scipy() -> None:
    """For many rows the widening is nothing, and the interval is that of scipy's percentile bootstrap."""
    scipy = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(3).exponential(size=2000)
    theirs = scipy.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, batch=100, rng=4)
    ours = interval(values)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.004)


def test_student_quantiles_agree_with_scipy() -> None:
    """The expansion of Student's t is close enough from two degrees of freedom on."""
    scipy = pytest.importorskip("scipy.stats")
    for freedom, within in ((2, 0.06), (3, 0.005), (7, 0.001), (50, 0.001)):
        assert statistics._t(0.975, freedom) == pytest.approx(scipy.t.ppf(0.975, freedom), rel=within)


@settings(deadline=None)
@given(SCORES)
def test_an_interval_stays_among_the_values(values) -> None:
    """Whatever the values: the interval is inside their range and around their mean, or there is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_RESAMPLES", 200)
        found = interval(values)
    there = [value for value in values if value is not None]
    assert found.n == len(there)
    if len(set(there)) < 2:
        assert (found.low, found.high) == (None, None)
    else:
        assert min(there) - 1e-9 <= found.low <= found.high <= max(there) + 1e-9
    assert found.mean == (pytest.approx(math.fsum(there) / len(there)) if there else None)


@pytest.mark.parametrize(
    ("values", "mean", "n"), [([], None, 0), ([None, math.nan], None, 0), ([0.4], 0.4, 1), ([1, 1, 1], 1.0, 3)]
)
def test_no_interval_where_none_can_be_had(values, mean, n) -> None:
    """No value, one value, values all alike: the mean and no interval."""
    assert interval(values) == Interval(mean, None, None, n)


def test_a_hundred_thousand_rows() -> None:
    """As many rows as a frame has are resampled in blocks: narrow, and around the mean."""
    values = np.random.default_rng(5).normal(size=100_000)
    found = interval(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(100_000), rel=0.03)


@pytest.mark.parametrize(
    "values",
    [
        [True, False, None, True],
        pd.Series([1, 0, None, 1], dtype="Float64"),
        pd.Series([True, False, None, True], dtype="boolean"),
        np.array([1.0, 0.0, np.nan, 1.0]),
        pd.Series([1, 0, None, 1], index=["a", "a", "b", "b"], dtype=object),
    ],
    ids=["list", "Float64", "boolean", "array", "object"],
)
def test_lists_arrays_and_columns_are_alike(values) -> None:
    """Whatever holds the scores, they are the same scores, and stay as they are."""
    before = list(values)
    assert interval(values) == interval([1.0, 0.0, 1.0])
    assert list(map(str, values)) == list(map(str, before))


@pytest.mark.parametrize("values", [["good", 1], [math.inf, 1.0], [object()]])
def test_what_is_no_score_is_an_error_of_one_line(values) -> None:
    """Text, infinity and objects are refused in one line."""
    with pytest.raises(SetupError, match="scores have to be") as caught:
        interval(values)
    assert "\n" not in str(caught.value)


def test_a_confidence_is_a_share() -> None:
    """95 is no confidence, 0.95 is; a greater one gives a wider interval."""
    with pytest.raises(SetupError, match=r"as 0\.95 is, not 95"):
        interval([1, 2], confidence=95)
    values = list(range(20))
    assert interval(values, confidence=0.99).high > interval(values, confidence=0.8).high


def test_the_same_seed_gives_the_same_interval() -> None:
    """Nothing is left to chance from one run to the next."""
    values = np.random.default_rng(6).normal(size=40)
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values, seed=2)


# Paired tests -----------------------------------------------------------------------------------


def test_all_flips_agree_with_scipy() -> None:
    """Up to thirteen unequal rows the p-value is exact, as scipy's is; rows that are equal change nothing."""
    scipy = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(7)
    for n in (2, 5, 9, 12):
        a, b = generator.integers(0, 3, n) / 2, generator.normal(size=n)
        theirs = scipy.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples")
        ours = paired(np.append(a, [1, 1, 1]), np.append(b, [1, 1, 1]))
        assert ours.p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_random_flips_agree_with_scipy() -> None:
    """Beyond thirteen the p-value is as near to scipy's as two drawings are."""
    scipy = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(8)
    a, b = generator.normal(0.3, size=60), generator.normal(size=60)
    theirs = scipy.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True, rng=9
    )
    assert paired(a, b).p == pytest.approx(theirs.pvalue, abs=0.02)


@pytest.mark.parametrize("n", [12, 40])
def test_without_a_difference_all_p_values_are_as_likely(quick, n) -> None:
    """Of 1,000 pairs that do not differ, 5 % have p up to 0.05, 20 % up to 0.2, and half up to 0.5."""
    generator = np.random.default_rng(10)
    ps = [paired(*generator.normal(size=(2, n)), seed=seed).p for seed in range(1000)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(ps) <= level) == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 1000))


@settings(deadline=None)
@given(SCORES, st.randoms())
def test_turning_a_pair_round_turns_the_difference_round(values, random) -> None:
    """Who comes first matters to nothing but the sign; a row that one lacks is left out."""
    other = list(values)
    random.shuffle(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_RESAMPLES", 200)
        there, back = paired(values, other), paired(other, values)
    assert there.n == back.n == sum(None not in both for both in zip(values, other, strict=True))
    assert there.p == back.p
    if there.difference is not None:
        assert there.difference == pytest.approx(-back.difference, abs=1e-12)
        assert 0 < there.p <= 1


def test_rows_have_to_be_the_same() -> None:
    """Other labels or another number of rows are refused."""
    with pytest.raises(SetupError, match="their labels differ"):
        paired(pd.Series([1, 2], index=["a", "b"]), pd.Series([1, 2], index=["b", "a"]))
    with pytest.raises(SetupError, match="2 values and 1"):
        paired([1, 2], [1])


def test_noise_of_floats_is_no_difference() -> None:
    """Equal scores that were added up differently are equal."""
    assert paired([0.1 + 0.2] * 4, [0.3] * 4).n_unequal == 0


# Several tests ----------------------------------------------------------------------------------


def test_holm_as_by_hand() -> None:
    """Smallest first, each times the number that is left, never below the one before, never above 1."""
    assert holm([0.2, 0.01, 0.03, 0.6]) == pytest.approx([0.4, 0.04, 0.09, 0.6])
    assert holm([]) == []
    assert holm([None, 0.7, 0.9]) == [None, 1.0, 1.0]


def test_a_missing_p_does_not_count_however_it_is_missing() -> None:
    """NaN and NA are no tests, and what is no p-value is refused."""
    assert holm([math.nan, 0.01, 0.02]) == [None, 0.02, 0.02]
    assert holm(pd.Series([pd.NA, 0.01], dtype="Float64")) == [None, 0.01]
    for nonsense in ([1.5], [-0.1], ["a"]):
        with pytest.raises(SetupError):
            holm(nonsense)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_lies_between_none_and_bonferroni(ps) -> None:
    """A corrected p is never below its own and never above all tests' worth of it, and keeps the order."""
    corrected = holm(ps)
    for p, adjusted in zip(ps, corrected, strict=True):
        assert p <= adjusted <= max(p, min(1.0, p * len(ps))) + 1e-12 or adjusted in corrected
    assert [adjusted for _, adjusted in sorted(zip(ps, corrected, strict=True))] == sorted(corrected)


# What few rows cannot say -----------------------------------------------------------------------


def test_a_difference_that_can_be_detected_is_seen_four_times_in_five(quick) -> None:
    """With the true difference at what 24 rows can detect, about 80 % of the runs show it."""
    generator = np.random.default_rng(11)
    detectable = np.mean([paired(generator.normal(size=24), np.zeros(24)).detectable for _ in range(100)])
    shown = [paired(generator.normal(detectable, size=24), np.zeros(24), seed=seed).is_shown for seed in range(500)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)


def test_the_rows_that_are_needed_are_enough_four_times_in_five(quick) -> None:
    """With as many rows as are asked for, about 80 % of the runs show the difference."""
    generator = np.random.default_rng(12)
    seen = dataclasses.replace(paired([1, 0, 1], [0, 0, 0]), difference=0.4, spread=1.0)
    assert seen.rows_needed == 51
    shown = [paired(generator.normal(0.4, size=51), np.zeros(51), seed=seed).is_shown for seed in range(500)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)


def test_what_is_said() -> None:
    """A difference with its interval, the better first; or what it would take; or that nothing can be had."""
    ten, none = [1.0] * 9 + [0.0], [0.0] * 10
    assert said(paired(ten, none), "moa", "single") == "moa is better than single by 0.90 [0.60, 1.00]"
    assert said(paired(none, ten), "moa", "single") == "single is better than moa by 0.90 [0.60, 1.00]"
    assert said(paired([1.0] * 8, [0.0] * 8), "a", "b") == "a is better than b by 1.00"
    assert said(paired([1] * 5, [0] * 5), "a", "b") == "5 rows cannot show a difference between a and b, whatever it is"
    assert said(paired([1], [0]), "a", "b") == "1 row cannot show a difference between a and b, whatever it is"
    assert said(paired([1], [1]), "a", "b") == "a and b are equal on the one row that both have"
    assert said(paired(ten, ten), "a", "b") == "a and b are equal on all 10 rows that both have"
    assert said(paired([None], [1]), "a", "b") == "no row has both a and b"
    unsaid = said(paired([1, 0] * 12, [0, 0, 1] * 8), "a", "b")
    assert unsaid.startswith("no difference between a and b that 24 rows can show: it would have to be about 0.")
    assert unsaid.endswith("or take about 140 rows")


ANSWERS = pd.DataFrame({"a": ["x", "y", None], "b": ["p", None, None]})


@pytest.mark.parametrize(
    ("verdicts", "unsaid"),
    [
        ([None, None], "no row has a readable verdict on a and b"),
        (["A", "A"], "a and b are equal on the one row that both have"),
    ],
)
def test_what_no_judge_could_say_is_not_put_on_the_answers(verdicts, unsaid) -> None:
    """Where both have answered, it is the verdicts that are missing."""
    lines = [(0, "a", "b", "j", verdicts[0]), (0, "b", "a", "j", verdicts[1])]
    said_of = pd.DataFrame(lines, columns=["row", "first", "second", "judge", "verdict"])
    assert Evaluation(ANSWERS, "points", said_of).unsaid == (unsaid,)


def test_what_no_measure_could_say_is_not_put_on_the_answers() -> None:
    """Ratings that could not be read and values that are missing are named; so are answers that are missing."""
    lines = [(0, "a", "j", None), (0, "b", "j", None), (1, "a", "j", 7)]
    rated = pd.DataFrame(lines, columns=["row", "pipeline", "judge", "rating"])
    assert Evaluation(ANSWERS, "rating", rated).unsaid == ("no row has a readable rating of both a and b",)
    values = pd.DataFrame({"a": [1.0, 1.0, None], "b": [None, None, None]}, dtype="float64")
    assert Evaluation(ANSWERS, "exact", measured=values).unsaid == ("no row has exact of both a and b",)
    apart = pd.DataFrame({"a": ["x", None], "b": [None, "y"]})
    assert Evaluation(apart, "exact", measured=values.head(2)).unsaid == ("no row has both a and b",)
    both = ANSWERS.fillna("z")
    equal = pd.DataFrame({"a": [1.0, 1.0, None], "b": [1.0, None, None]})
    unsaid = ("a and b are equal on the one row that could be compared",)
    assert Evaluation(both, "exact", measured=equal).unsaid == unsaid


def test_a_corrected_p_takes_a_difference_back() -> None:
    """What one test shows, the same test among ten may not."""
    seen = paired([1, 1, 1, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0])
    assert seen.is_shown
    assert "no difference" in said(dataclasses.replace(seen, p=holm([seen.p, *[0.5] * 9])[0]))


def test_numbers_are_written_for_readers() -> None:
    """Two decimals, small ones by their digits, and p never 0."""
    assert repr(interval([0.25, 0.75] * 20)) == "0.50 [0.42, 0.57], 40 rows"
    assert repr(interval([])) == "unknown, 0 rows"
    many = np.random.default_rng(13).normal(5, 1, 200)
    assert "p < 0.001, 200 rows" in repr(paired(many, np.zeros(200)))
