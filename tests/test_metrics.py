"""Metrics: equal, of that number, of the same words, or as a function says; and what becomes of missing answers."""

from __future__ import annotations

import functools
import gzip
import math
import operator
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_nb.errors import SetupError
from moa_nb.evaluation import metrics
from moa_nb.evaluation.metrics import metric_of, scores

DATA = Path(__file__).parents[2] / "shared" / "data"
NAMES = ["exact", "numeric", "numeric:1%", "contains", "rouge1", "rouge2", "rougeL"]


def scored(metric, answer, reference=None):
    """Return the score of one answer."""
    return metric_of(metric)(answer, reference)


# By name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("Paris", "paris", True),
        ("  the  Seine\n", "The Seine", True),
        ("**Paris.**", "Paris", True),
        ("“Paris”", "Paris", True),
        ("18.", 18, True),
        ("18", 18.0, True),
        ("18", np.int64(18), True),
        ("0.5", np.float64(0.5), True),
        (".5", "0.5", True),
        ("**.5**", 0.5, True),
        ("18", Decimal(18), True),
        ("1,000", 1000, True),
        ("True", True, True),
        ("true.", np.True_, True),
        ("1", True, False),
        ("C#", "C", False),
        ("-5", "5", False),
        ("It is Paris", "Paris", False),
        ("", "Paris", False),
        ("Lyon", ["Lutetia", None, "Lyon"], True),
        ("Lyon", {"Lutetia", "Paris"}, False),
        ("Ⅳ", "IV", True),
    ],
)
def test_exact(answer, reference, same) -> None:
    """Case, spaces and what stands round an answer do not count; numbers count by value; everything else does."""
    assert scored("exact", answer, reference) == float(same)


@pytest.mark.parametrize(
    ("answer", "reference", "stands"),
    [
        ("It is PARIS.", "Paris", True),
        ("A party", "art", False),
        ("art", "art", True),
        ("It is 1,000 euros", 1000, True),
        ("It is 18.5", 18, False),
        ("between GPT-4 and 3", "4", False),
        ("答案是巴黎。", "巴黎", True),
        ("She writes C++ daily", "C++", True),
        ("anything", "", False),
        ("New\nYork it is", "new york", True),
        ("a.c", "a.c", True),
        ("abc", "a.c", False),
    ],
)
def test_contains(answer, reference, stands) -> None:
    """The reference has to stand in the answer as words, or as a number of that value."""
    assert scored("contains", answer, reference) == float(stands)


@pytest.mark.parametrize(
    ("metric", "answer", "reference", "right"),
    [
        ("numeric", "16 - 7 = 9 at $2 are $18. The answer is **$18.00**", 18, True),
        ("numeric", "#### 1,234", "The answer: 1234", True),
        ("numeric", "a third is 0.333", 1 / 3, False),
        ("numeric:0.01", "a third is 0.333", 1 / 3, True),
        ("numeric:0.01", "1.01", 1, True),
        ("numeric:0.01", "1.02", 1, False),
        ("numeric:5%", "about 105", 100, True),
        ("numeric:5%", "about 106", 100, False),
        ("numeric:5%", "-105", -100, True),
        ("numeric", "I do not know", 18, False),
        ("numeric", "3 to 4", 3, False),
        ("numeric", "7", [5, 7], True),
    ],
)
def test_numeric(metric, answer, reference, right) -> None:
    """The number that an answer ends up with counts, within the tolerance; no number is wrong."""
    assert scored(metric, answer, reference) == float(right)


def test_rouge_as_by_hand() -> None:
    """Two of three words in common, one of two pairs, two in order."""
    assert scored("rouge1", "the cat sat", "the cat ran") == pytest.approx(2 / 3)
    assert scored("rouge2", "the cat sat", "the cat ran") == pytest.approx(1 / 2)
    assert scored("rougeL", "cat the sat", "the cat sat") == pytest.approx(2 / 3)
    assert scored("rougel", "same", "same") == scored("rouge1", "same", "same") == 1
    assert scored("rouge2", "same", "same") == scored("rouge1", "", "x") == 0


ASCII = st.text(st.characters(max_codepoint=127), max_size=60)


@settings(deadline=None)
@given(ASCII, ASCII)
def test_rouge_is_that_of_the_library(answer, reference) -> None:
    """On texts of plain letters every score is the library's own."""
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, answer)
    for name in ("rouge1", "rouge2", "rougeL"):
        assert scored(name, answer, reference) == theirs[name].fmeasure


def test_rouge_reads_every_script() -> None:
    """Words with accents are whole, and Chinese, Greek and Cyrillic count, where the library sees nothing."""
    assert scored("rouge1", "Schöne Grüße", "schöne grüße") == 1
    assert scored("rouge1", "Schöne", "Schon e") == 0
    assert scored("rouge1", "巴黎很美", "巴黎很大") == pytest.approx(3 / 4)
    assert scored("rougeL", "привет мир", "привет всем") == pytest.approx(1 / 2)


def test_rouge_of_recorded_summaries() -> None:
    """Over abstracts with summaries by people, scores are the library's, but for the few with other letters."""
    file = DATA / "text_tables" / "scitldr_test.csv.gz"
    if not file.exists():
        pytest.skip("the recorded data are not here")
    from rouge_score.rouge_scorer import RougeScorer

    with gzip.open(file) as lines:
        frame = pd.read_csv(lines).iloc[:200]
    texts, summaries = frame.iloc[:, -2].astype(str), frame.iloc[:, -1].astype(str)
    ours = scores(texts.to_frame("abstract"), summaries, "rougeL")["abstract"]
    scorer = RougeScorer(["rougeL"])
    theirs = [scorer.score(right, text)["rougeL"].fmeasure for text, right in zip(texts, summaries, strict=True)]
    plain = texts.map(str.isascii) & summaries.map(str.isascii)
    assert plain.sum() > 100
    assert ours[plain].tolist() == pd.Series(theirs, index=frame.index)[plain].tolist()
    assert np.abs(ours.to_numpy(float) - theirs).max() < 0.05


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.text(max_size=40), st.one_of(st.text(max_size=40), st.integers(), st.booleans()))
def test_a_named_metric_is_between_0_and_1(name, answer, reference) -> None:
    """Whatever the texts, a score of a named metric is a share."""
    score = scored(name, answer, reference)
    assert isinstance(score, float)
    assert 0 <= score <= 1


@settings(deadline=None)
@given(st.sampled_from(["exact", "contains", "rouge1", "rougeL"]), st.text("abcé 19.,!", min_size=1, max_size=30))
def test_an_answer_is_as_good_as_can_be_against_itself(name, text) -> None:
    """What is equal is right by every metric that finds a word in it."""
    if any(character.isalnum() for character in text):
        assert scored(name, text, text) == pytest.approx(1)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("exakt", "did you mean 'exact'"),
        ("rouge3", "did you mean 'rouge"),
        ("exact:1", "no metric 'exact:1'"),
        ("numeric:near", "'near' is neither"),
        ("numeric:-1", "'-1' is neither"),
        ("numeric:nan", "'nan' is neither"),
        (3, "no metric 3"),
    ],
)
def test_an_unknown_metric_names_the_nearest(metric, says) -> None:
    """A name that nothing has is one line with what there is."""
    with pytest.raises(SetupError, match=says) as caught:
        metric_of(metric)
    assert "\n" not in str(caught.value)


def test_rouge_without_its_library_says_what_to_install(monkeypatch) -> None:
    """Where rouge-score is absent, one line names the extra that has it."""
    metrics._rouge.cache_clear()
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(SetupError, match=r'needs rouge-score: pip install "moa-nb\[evaluation\]"'):
        metric_of("rouge1")


# Functions --------------------------------------------------------------------------------------


def _with_row(answer, row):
    return answer == row["city"]


def _with_all(answer, reference, row):
    return len(answer) + len(reference) + len(row)


def _with_keywords(answer, *, row, reference):
    return f"{answer}{reference}{len(row)}".count("a")


def _with_defaults(answer, limit=3):
    return len(answer) <= limit


def _with_gold(answer, gold, weight=2):
    return weight * (answer == gold)


def _with_optional(answer, reference="bb"):
    return answer == reference


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (len, 2.0),
        (operator.eq, 0.0),
        (_with_row, 1.0),
        (_with_all, 5.0),
        (_with_keywords, 2.0),
        (_with_defaults, 1.0),
        (_with_gold, 0.0),
        (_with_optional, 0.0),
        (functools.partial(_with_defaults, limit=1), 0.0),
        (lambda answer: np.float32(0.25), 0.25),
        (lambda answer: Decimal("0.5"), 0.5),
        (lambda answer: np.True_, 1.0),
        (lambda answer: None, None),
        (lambda answer: math.nan, None),
        (lambda answer: pd.NA, None),
        (lambda *texts: len(texts[0]), "takes no answer"),
    ],
)
def test_a_function_gets_what_its_signature_asks_for(function, expected) -> None:
    """An answer; an answer and a reference answer; a row where a parameter is named so; defaults are left alone."""
    rows = pd.DataFrame({"city": ["aa"], "n": [1]})
    if isinstance(expected, str):
        with pytest.raises(SetupError, match=expected):
            metric_of(function)
        return
    found = scores(pd.DataFrame({"moa": ["aa"]}), ["b"], function, rows=rows)["moa"].iloc[0]
    assert (None if pd.isna(found) else found) == expected


def test_a_function_gets_its_reference_as_it_is() -> None:
    """A list in a cell reaches the function as a list; a row whose reference is missing is not asked about."""
    seen = []
    found = scores(pd.DataFrame({"moa": ["a", "b"]}), [["x", "y"], None], lambda answer, right: seen.append(right) or 1)
    assert seen == [["x", "y"]]
    assert found["moa"].isna().tolist() == [False, True]


async def _waiting(answer):
    return 1


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: 1, "takes no answer"),
        (lambda answer, right, other: 1, "an answer, a reference answer and a row, and nothing else"),
        (_waiting, "is async"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_at_once(function, says) -> None:
    """What asks for something else is refused before any answer is scored."""
    with pytest.raises(SetupError, match=says):
        metric_of(function)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda answer: 1 / len(answer), "ZeroDivisionError: "),
        (lambda answer: "0.5", "it returned '0.5', which is no number"),
        (lambda answer: math.inf, "an infinite number"),
    ],
)
def test_a_function_that_fails_names_the_row(function, says) -> None:
    """One line: the metric, the row, the pipeline and what went wrong; the cause is kept."""
    frame = pd.DataFrame({"moa": [""]}, index=["ticket 7"])
    with pytest.raises(SetupError, match="failed on row 'ticket 7' of 'moa': ") as caught:
        scores(frame, metric=function)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


# Frames -----------------------------------------------------------------------------------------


def test_scores_are_aligned_with_the_answers() -> None:
    """Index, duplicates and levels included, columns and their order; Float64; the answers stay as they are."""
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)], names=["k", "n"])
    answers = pd.DataFrame({"moa": ["4", None, "x"], 7: ["5", "5", None]}, index=index, dtype="str")
    before = answers.copy()
    found = scores(answers, pd.Series([4, 5, None], index=index))
    pd.testing.assert_frame_equal(
        found, pd.DataFrame({"moa": [1, pd.NA, pd.NA], 7: [0, 1, pd.NA]}, index=index, dtype="Float64")
    )
    pd.testing.assert_frame_equal(answers, before)


def test_missing_answers_are_missing_or_0() -> None:
    """By default a missing answer has no score; as 0 where that is asked for, but never without a reference answer."""
    answers = pd.DataFrame({"moa": ["4", None, None]})
    assert scores(answers, [4, 5, None])["moa"].tolist() == [1, pd.NA, pd.NA]
    assert scores(answers, [4, 5, None], missing="zero")["moa"].tolist() == [1, 0, pd.NA]
    assert scores(answers, metric=lambda answer: 1, missing="zero")["moa"].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "compares with reference answers"),
        ({"reference": [None, None]}, "compares with reference answers"),
        ({"reference": ["a"]}, "1 reference answers for 2 rows"),
        ({"reference": pd.Series(["a", "b"], index=[1, 0])}, "their labels differ"),
        ({"reference": ["4", "none"], "metric": "numeric"}, "reference answer of row 1 has no number: 'none'"),
        ({"metric": _with_row}, "reads the row"),
        ({"metric": len, "missing": "nought"}, "neither 'leave' nor 'zero'"),
    ],
)
def test_what_a_metric_lacks_is_said_at_once(given, says) -> None:
    """A reference of other rows, none, or one without a number: one line, before anything is scored."""
    with pytest.raises(SetupError, match=says):
        scores(pd.DataFrame({"moa": ["4", "5"]}), **given)


def test_what_a_metric_lacks_is_known_before_any_answer() -> None:
    """``check`` needs the references alone, so it comes before the first call that costs anything."""
    metric_of("numeric").check(pd.Series(["4", None]))
    with pytest.raises(SetupError, match="row 'b' has no number"):
        metric_of("numeric").check(pd.Series(["4", "?"], index=["a", "b"]))


def test_no_rows_have_no_scores() -> None:
    """An empty frame gives an empty frame of the same columns."""
    found = scores(pd.DataFrame({"moa": []}, dtype="str"), [])
    assert found.shape == (0, 1)
    assert found["moa"].dtype == "Float64"
