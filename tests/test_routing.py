"""Routers alone: rules, columns, labelled examples, thresholds."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

import moa_nb as moa
from moa_nb.chat import Message
from moa_nb.errors import UnknownName
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.routing import Column, Nearest, Rule, past, ruled


def task(question: str, **values: Any) -> Task:
    """The task of a row."""
    return Task((Message("user", question),), values=values)


EXAMPLES = [
    ("Prove that the square root of two is irrational", "strong"),
    ("Prove that there are infinitely many primes", "strong"),
    ("What is the capital of France", "small"),
    ("What is the capital of Peru", "small"),
]


# Rules and columns ------------------------------------------------------------------------------


def test_the_first_rule_that_holds_says_the_way() -> None:
    """Later ones are not heard, and without any it is the first way, below every threshold."""
    rules = [Rule(to="code", matches="def |class "), Rule(to="strong", longer=20)]
    assert ruled(rules, task("def f(x): ... what is it for?")) == "code"
    assert ruled(rules, task("a question that is long")) == "strong"
    assert past(float(ruled(rules, task("short")) or 0), [0.0, 0.5]) == 0


@pytest.mark.parametrize(
    ("rule", "cell", "holds"),
    [
        ({"equals": "high"}, "high", True),
        ({"equals": "high"}, "low", False),
        ({"equals": 3}, 3.0, True),
        ({"at_least": 3}, 3, True),
        ({"at_least": 3}, 2.9, False),
        ({"at_least": 3}, "three", False),
        ({"matches": "^EU"}, "EU-west", True),
        ({"longer": 3}, "four", True),
        ({"longer": 4}, "four", False),
        ({"matches": "w", "longer": 9}, "EU-west", False),
        ({}, math.nan, False),
        ({}, None, False),
        ({"at_least": 0}, pd.NA, False),
    ],
)
def test_a_rule_over_a_column(rule: dict[str, Any], cell: Any, holds: bool) -> None:
    """All that is said has to hold, and nothing holds of a missing cell."""
    assert Rule(to="strong", column="tier", **rule).holds("?", {"tier": cell}) is holds


def test_a_column_that_is_not_there_is_a_mistake() -> None:
    """It stops the run, and the nearest name is said."""
    with pytest.raises(UnknownName, match="did you mean 'priority'"):
        Column(column="priorty").word(task("?", priority=1))
    with pytest.raises(UnknownName, match="there are none"):
        Rule(to="strong", column="tier").holds("?", {})


@pytest.mark.parametrize(
    ("cell", "word"),
    [("strong", "strong"), (0.4, 0.4), (2, 2), (True, True), (None, None), (math.nan, None), (pd.NA, None)],
)
def test_a_column_says_a_way_or_a_score(cell: Any, word: Any) -> None:
    """A missing cell says nothing."""
    assert Column(column="difficulty").word(task("?", difficulty=cell)) == word


def test_numpys_scalars_are_numbers() -> None:
    """As they come out of a frame."""
    cells = pd.DataFrame({"hard": [True], "score": [0.25]}).iloc[0]
    assert Column(column="hard").word(task("?", hard=cells["hard"])) is True
    series = pd.Series([1.5], dtype="float32")
    assert Column(column="score").word(task("?", score=series.iloc[0])) == 1.5


# Labelled examples ------------------------------------------------------------------------------


def test_the_nearest_examples_say_the_way() -> None:
    """By the words and neighbours that they share with the question, the heaviest label wins."""
    router = Nearest(examples=EXAMPLES, k=3)
    assert router.word("Prove that there is no largest prime") == "strong"
    assert router.word("What is the capital of Chad?") == "small"


def test_numbers_as_labels_are_a_score() -> None:
    """The mean of the neighbours, weighted by likeness: in [0, 1] for 0 and 1."""
    router = Nearest(examples=[(text, float(label == "strong")) for text, label in EXAMPLES], k=4)
    hard, easy = router.word("Prove that e is irrational"), router.word("What is the capital of Chad")
    assert isinstance(hard, float)
    assert isinstance(easy, float)
    assert 0 <= easy < 0.5 < hard <= 1


def test_a_question_like_no_example_is_not_decided() -> None:
    """No example weighs anything, so the fallback will be gone."""
    assert Nearest(examples=EXAMPLES).word("zzz") is None


def test_examples_come_from_a_frame() -> None:
    """Rows without text or label are left out; a column that is not there is a mistake."""
    frame = pd.DataFrame({"q": ["Prove it", None, "Say hello", "Sing"], "needs": [1, 1, 0, None]})
    router = Nearest.of(frame, "q", "needs", k=1)
    assert router.examples == (("Prove it", 1.0), ("Say hello", 0.0))
    assert router.word("please prove it") == 1.0
    with pytest.raises(UnknownName, match="did you mean 'needs'"):
        Nearest.of(frame, "q", "need")


def test_a_function_may_give_the_vectors() -> None:
    """The examples' once for all, a question's each time; likeness is the cosine."""
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> list[list[float]]:
        asked.append(texts)
        return [[float(len(text)), 1.0, 0.0] if "ove" in text else [0.0, 0.0, float(len(text))] for text in texts]

    router = Nearest.of(pd.DataFrame(EXAMPLES, columns=["q", "way"]), "q", "way", k=2, embed=embed)
    assert router.word("I love it") == "strong"
    assert router.word("hello") == "small"
    assert [len(texts) for texts in asked] == [4, 1, 1]


# Thresholds -------------------------------------------------------------------------------------


def test_a_score_at_the_threshold_is_past_it() -> None:
    """.2, .5 and .8 with threshold .5 are weak, strong, strong; with two thresholds there are three ways."""
    assert [past(score, [0.5]) for score in (0.2, 0.5, 0.8)] == [0, 1, 1]
    assert [past(score, [0.3, 0.6]) for score in (0.1, 0.3, 0.59, 0.6)] == [0, 1, 1, 2]


def test_thresholds_on_scores_of_ones_own_say_that_the_pipeline_asks_another_scorer() -> None:
    """The note is in the calibration and what it shows; with the function that made the scores there is none."""
    frame = pd.DataFrame({"text": [f"Mill {at} is loud. It broke." for at in range(24)]})
    tiers = {"small": "offline:lead", "strong": "offline:textrank"}
    runs = {
        name: frame.moa.start.synthesize("text", pipeline=moa.Pipeline(layers=[[model]]), progress=False)
        for name, model in tiers.items()
    }

    def scorer(question: str, answer: str) -> float:
        return len(answer) % 2

    mine = moa.Pipeline(strategy="cascade", tiers=list(tiers.values()), scorer=scorer)
    scores = pd.Series([at % 2 for at in range(24)], dtype="float64")
    for recipe, is_told in (("cascade", True), (mine, False)):
        replay = moa.Replay.of(runs, recipe, scores=scores, metric=len)
        for one in (replay, replay.take(range(22))):
            found = one.calibrate(max_strong_share=1.0)
            assert any("asks $judge for a score" in note for note in found.notes) is is_told
            assert any("score the answers is in none of these costs" in note for note in found.notes) is is_told
            assert ("scorer=function" in repr(found)) is is_told
    logged = moa.Replay.of(runs, mine, metric=len)
    assert logged.calibrate(max_strong_share=1.0).notes == ()
