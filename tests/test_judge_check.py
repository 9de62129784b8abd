"""Judges checked from what they said: places, lengths, own answers, agreement with each other and with people."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_nb.errors import SetupError, UnknownName
from moa_nb.evaluation import Evaluation
from moa_nb.evaluation.judges.agreement import _quick_kappa, alpha, kappa
from moa_nb.evaluation.judges.biases import _related
from moa_nb.evaluation.judges.findings import Finding, resampled, share
from moa_nb.evaluation.judges.judge_check import JudgeCheck, judge_check

DATA = Path(__file__).parents[2] / "shared" / "data" / "mt_bench"
COLUMNS = ["row", "first", "second", "judge", "verdict"]


def verdicts(*lines, judge="lab:z"):
    """Return judgements from (row, first, second, verdict)."""
    return pd.DataFrame([(*line[:3], judge, line[3]) for line in lines], columns=COLUMNS)


def judged(answers, decide, judge="lab:z", seed=0):
    """Return what a judge says of every two answers, in both orders: ``decide(chance, row, first, second)`` is A, B or C."""
    chance = np.random.default_rng(seed)
    lines = []
    for row in range(len(answers)):
        for one, other in combinations(answers.columns, 2):
            lines += [(row, *pair, decide(chance, row, *pair)) for pair in ((one, other), (other, one))]
    return verdicts(*lines, judge=judge)


def texts(n=60, seed=1, **lengths):
    """Return answers whose lengths in characters scatter about those given."""
    chance = np.random.default_rng(seed)
    return pd.DataFrame(
        {name: ["x" * int(1 + chance.gamma(4, about / 4)) for _ in range(n)] for name, about in lengths.items()}
    )


def found(check, measure, judge="lab:z"):
    """Return one finding."""
    return next(one for one in check.findings if (one.measure, one.judge) == (measure, judge))


# Places -----------------------------------------------------------------------------------------


def test_flips_and_first_places_by_hand() -> None:
    """Of three pairs in both orders one flips; of five A and B three are A; what was shown once is left out."""
    said = verdicts(
        (0, "a", "b", "A"), (0, "b", "a", "B"),  # a wins
        (1, "a", "b", "A"), (1, "b", "a", "A"),  # the first place wins
        (2, "b", "a", "C"), (2, "a", "b", "B"),  # a tie in one
        (3, "a", "b", "A"),  # shown once
        (4, "a", "b", None), (4, "b", "a", "A"),  # not to be read
    )  # fmt: skip
    check = judge_check(said, texts(5, a=20, b=30))
    flips, first = found(check, "flips"), found(check, "first place")
    assert (flips.value, flips.n) == (pytest.approx(1 / 3), 3)
    assert (first.value, first.n) == (3 / 5, 5)
    unread = found(check, "unreadable")
    assert (unread.value, unread.n) == (pytest.approx(1 / 9), 9)
    assert "1 of 9 judgements could not be read" in unread.said


def test_a_judge_of_places_is_caught() -> None:
    """Who always prefers the first place flips every pair, and both findings say so; length cannot be judged then."""
    answers = texts(40, a=50, b=60)
    check = judge_check(judged(answers, lambda *_: "A"), answers)
    assert found(check, "flips").verdict == found(check, "first place").verdict == "worrying"
    assert found(check, "flips").value == found(check, "first place").value == 1
    assert any("no pair of unequal length" in sentence for sentence in check.unsaid)


def test_a_steady_judge_is_fine() -> None:
    """Who decides by the row alone flips nothing, and favours neither place nor length."""
    answers = texts(300, a=100, b=100)
    check = judge_check(judged(answers, lambda _, row, first, __: "AB"[(first == "a") ^ (row % 2)]), answers)
    for measure in ("unreadable", "flips", "first place", "longer wins", "odds of twice the length"):
        assert found(check, measure).verdict == "fine", measure
    assert not check.worrying


def test_one_order_says_nothing_of_places() -> None:
    """Where no pair was exchanged, what the order does is said to be unsaid."""
    check = judge_check(verdicts(*[(row, "a", "b", "A") for row in range(20)]), texts(20, a=9, b=9))
    assert found(check, "flips").value is None
    assert "cannot be said" in found(check, "flips").sentence


# Length -----------------------------------------------------------------------------------------


def test_a_judge_of_length_is_caught() -> None:
    """Who takes the longer answer eight times in ten is found to, by the share and by the odds."""
    answers = texts(200, a=100, b=100, c=100)

    def decide(chance, row, first, second):
        is_longer = len(answers[first].iloc[row]) > len(answers[second].iloc[row])
        return "AB"[is_longer ^ ((row * 7 + len(answers[first].iloc[row]) + len(answers[second].iloc[row])) % 10 >= 2)]

    check = judge_check(judged(answers, decide), answers)
    longer, odds = found(check, "longer wins"), found(check, "odds of twice the length")
    assert longer.value == pytest.approx(0.8, abs=0.05)
    assert odds.verdict == "worrying"
    assert odds.value > 2


def test_a_better_pipeline_that_is_longer_is_no_preference_for_length() -> None:
    """Where one pipeline is better and longer, the longer wins, but not for its length: the odds are even."""
    answers = texts(300, short=100, long=200)
    chance = np.random.default_rng(5)
    better = chance.random(300) < 0.8
    check = judge_check(
        judged(answers, lambda _, row, first, __: "BA"[(first == "long") == bool(better[row])]), answers
    )
    assert found(check, "longer wins").verdict == "unsaid"
    odds = found(check, "odds of twice the length")
    assert odds.low < 1 < odds.high


def test_length_without_its_library(monkeypatch) -> None:
    """Without scikit-learn the share is there, the odds are not, and agreement names what to install."""
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    answers = texts(30, a=100, b=100)
    said = judged(answers, lambda _, row, first, __: "AB"[(first == "a") ^ (row % 2)])
    check = judge_check(said, answers, labels=["a"] * 30)
    assert found(check, "longer wins").value is not None
    assert "odds of twice the length" not in check.to_frame()["measure"].tolist()
    assert 'agreement needs scikit-learn: pip install "moa-nb[evaluation]"' in check.unsaid


# Own answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "model", "related"),
    [
        ("openai:gpt-4o", "openai:gpt-4o", True),
        ("gpt-4", "openai:gpt-4o-mini", True),
        ("anthropic:claude-3-5-haiku", "openrouter:anthropic/claude-sonnet-4.5", True),
        ("ollama:llama3.2:3b", "together:meta-llama/Llama-2-7b", True),
        ("openai:gpt-4o #2", "openai:gpt-4o", True),
        ("lab:a", "lab:a", True),
        ("lab:a", "lab:b", False),
        ("offline:lead", "offline:textrank", False),
        ("openai:gpt-4o", "mistral:mistral-large", False),
    ],
)
def test_models_of_one_family(judge, model, related) -> None:
    """One model, or one family whatever the provider; models that nobody knows are related to themselves alone."""
    assert _related(judge, model) is related


def test_a_judge_of_its_own_is_caught_by_another() -> None:
    """Who gives its own answers nine in ten where another judge gives a half prefers them by about 40 points in 100."""
    answers = texts(200, mine=100, theirs=100)
    own = np.random.default_rng(2).random(200) < 0.9
    even = np.random.default_rng(3).random(200) < 0.5
    both = pd.concat(
        [
            judged(answers, lambda _, row, first, __: "BA"[(first == "mine") == bool(own[row])], "openai:gpt-4o"),
            judged(
                answers, lambda _, row, first, __: "BA"[(first == "mine") == bool(even[row])], "anthropic:claude-opus-4"
            ),
        ]
    )
    makers = {"mine": ["openai:gpt-4o-mini"], "theirs": ["lab:a"]}
    check = judge_check(both, answers, makers=makers)
    excess = found(check, "own answers, beyond others", "openai:gpt-4o")
    assert excess.value == pytest.approx(own.mean() - even.mean())
    assert excess.verdict == "worrying"
    own_of = check.to_frame().query("measure.str.startswith('own answers')")
    assert own_of["judge"].tolist() == ["openai:gpt-4o"]


def test_people_are_another_judge() -> None:
    """Where people prefer the same answers, a judge that prefers its own is not alone with it."""
    answers = texts(120, mine=100, theirs=100)
    said = judged(answers, lambda _, row, first, __: "BA"[(first == "mine") == (row % 4 != 0)], "lab:z")
    labels = ["theirs" if row % 4 == 0 else "mine" for row in range(120)]
    alone = judge_check(said, answers, makers={"mine": ["lab:z"]})
    assert "nobody else judged them" in found(alone, "own answers").said
    assert found(alone, "own answers").value == pytest.approx(0.75)
    check = judge_check(said, answers, makers={"mine": ["lab:z"]}, labels=labels)
    assert found(check, "own answers, beyond others").value == 0
    assert found(check, "own answers, beyond others").verdict == "fine"
    assert found(check, "kappa with people").value == pytest.approx(1)
    compared, makers = Evaluation(answers, "points", said), {"mine": ["lab:z"]}
    assert compared.judge(labels=labels, makers=makers).findings == check.findings
    assert compared.judge(makers=makers).findings == alone.findings
    assert found(compared.judge(labels=labels), "kappa with people").value == pytest.approx(1)
    assert "kappa with people" not in compared.judge().to_frame()["measure"].tolist()


def test_who_wrote_is_asked_for() -> None:
    """Without ``makers`` the preference is unsaid; with makers that are no judge there is nothing to say."""
    answers = texts(20, a=9, b=9)
    said = judged(answers, lambda *_: "A")
    assert any("pass makers=" in sentence for sentence in judge_check(said, answers).unsaid)
    check = judge_check(said, answers, makers={"a": ["lab:a"], "b": []})
    assert not any("own" in one.measure for one in check.findings)


# Agreement --------------------------------------------------------------------------------------


def test_alpha_of_the_example_of_its_author() -> None:
    """Krippendorff's own example of four coders and missing values: nominal 0.743, interval 0.849."""
    nan = math.nan
    table = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    assert alpha(table, "nominal") == pytest.approx(0.743, abs=0.001)
    assert alpha(table, "interval") == pytest.approx(0.849, abs=0.001)


def test_kappa_by_hand() -> None:
    """Cohen: 20 yes-yes, 15 no-no, 5 and 10 between: 0.7 agree, 0.5 by chance, kappa 0.4."""
    a = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    b = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert kappa(a, b) == pytest.approx(0.4)
    assert math.isnan(kappa(np.ones(4), np.ones(4)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20))
def test_the_quick_kappa_is_the_library_s(pairs) -> None:
    """What resamples are measured by is what is reported, and undefined where that is."""
    a, b = np.array(pairs).T
    assert _quick_kappa(a, b) == pytest.approx(kappa(a, b), nan_ok=True)


def test_three_judges_agree_or_do_not() -> None:
    """Two who say the same agree, a third that draws lots does not, and alpha is of all three."""
    answers = texts(100, a=50, b=50)
    lots = np.random.default_rng(4).random(100) < 0.5
    same = lambda _, row, first, __: "BA"[(first == "a") == (row % 2)]  # noqa: E731 - twice the same judge
    said = pd.concat(
        [
            judged(answers, same, "lab:x"),
            judged(answers, same, "lab:y"),
            judged(answers, lambda _, row, first, __: "BA"[(first == "a") == bool(lots[row])], "lab:z"),
        ]
    )
    check = judge_check(said, answers)
    assert found(check, "kappa with lab:y", "lab:x").verdict == "fine"
    assert found(check, "kappa with lab:z", "lab:x").verdict == "worrying"
    everyone = found(check, "alpha of pairs", "all")
    assert everyone.verdict == "worrying"
    assert everyone.low < everyone.value < everyone.high


def test_labels_in_every_form_say_the_same() -> None:
    """Winners, scores, and a table of two people's verdicts give one agreement."""
    answers = texts(24, a=50, b=50)
    said = judged(answers, lambda _, row, first, __: "C" if row == 5 else "BA"[(first == "a") == (row % 3 > 0)])
    winners = pd.Series(["tie" if row == 4 else "ab"[row % 2] for row in range(24)])
    scores = pd.DataFrame({"a": winners.isin(["a", "tie"]) * 1.0, "b": winners.isin(["b", "tie"]) * 1.0})
    words = winners.map({"a": "A", "b": "B", "tie": "C"})
    lines = [(row, "a", "b", judge, word) for row, word in enumerate(words) for judge in ("p", "q")]
    people = pd.DataFrame(lines, columns=COLUMNS)
    findings = [
        found(judge_check(said, answers, labels=labels), "kappa with people")
        for labels in (winners, winners.tolist(), scores, people, people.drop(columns="judge"))
    ]
    assert len({(one.value, one.n, one.low, one.high) for one in findings}) == 1
    assert findings[0].n == 24
    assert "lab:z and people say the same of" in findings[0].said


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["a", "moa", "b"], "label 'moa' of row 1 is no pipeline"),
        (["a"], "1 labels for 3 rows"),
        (pd.Series(["a", "b", "a"], index=[7, 8, 9]), "their index differs"),
        (pd.DataFrame({"c": [1, 2, 3]}), "column 'c', no pipeline"),
        (pd.DataFrame({"a": ["x", "y", "z"]}), "are numbers, the higher the better"),
    ],
)
def test_labels_of_something_else(labels, says) -> None:
    """Labels that name no pipeline, or are of other rows, are one line."""
    answers = texts(3, a=5, b=5)
    with pytest.raises(SetupError, match=says) as caught:
        judge_check(judged(answers, lambda *_: "A"), answers, labels=labels)
    assert "\n" not in str(caught.value)


# Ratings ----------------------------------------------------------------------------------------


def test_ratings_are_checked_too() -> None:
    """Ratings decide pairs; two judges whose ratings are near agree; one that could not be read is counted."""
    answers = texts(80, a=50, b=100)
    chance = np.random.default_rng(6)
    quality = chance.integers(1, 10, size=(80, 2))
    lines = []
    for row in range(80):
        for place, name in enumerate("ab"):
            given = int(quality[row, place])
            lines += [(row, name, "lab:y", given, turn) for turn in (1, 2)]
            lines += [(row, name, "lab:z", None if row == 3 else min(10, given + 1), turn) for turn in (1, 2)]
    said = pd.DataFrame(lines, columns=["row", "pipeline", "judge", "rating", "turn"])
    people = pd.DataFrame(quality, columns=["a", "b"])
    check = judge_check(said, answers, labels=people)
    assert found(check, "unreadable").said.startswith("lab:z: 4 of 320 judgements")
    assert found(check, "alpha with lab:z", "lab:y").value > 0.9
    assert found(check, "alpha with people", "lab:y").value == pytest.approx(1)
    assert "0.0 apart on average in 160 ratings" in found(check, "alpha with people", "lab:y").said
    assert found(check, "kappa with people", "lab:y").value == pytest.approx(1)
    assert "flips" not in check.to_frame()["measure"].tolist()
    assert found(check, "longer wins").n == (quality[:, 0] != quality[:, 1]).sum() - (quality[3, 0] != quality[3, 1])


def test_ratings_of_one_pipeline() -> None:
    """One pipeline alone has no pairs; its ratings are still compared with people's, given as numbers."""
    said = pd.DataFrame(
        [(row, "a", "lab:z", row % 5) for row in range(30)], columns=["row", "pipeline", "judge", "rating"]
    )
    check = judge_check(said, texts(30, a=9), labels=pd.Series([row % 5 for row in range(30)]))
    assert [one.measure for one in check.findings] == ["unreadable", "alpha with people"]
    assert found(check, "alpha with people").value == 1


def test_recorded_ratings_of_gpt_4() -> None:
    """GPT-4's 320 recorded ratings of two models: its own family wins, and its odds of length come with their error."""
    file = DATA / "judgements_routellm.jsonl.gz"
    if not file.exists():
        pytest.skip("the recorded data are not here")
    with gzip.open(file, "rt") as lines:
        recorded = pd.DataFrame([json.loads(line) for line in lines])
    names = sorted(recorded["model"].unique())
    questions = {question: row for row, question in enumerate(sorted(recorded["question_id"].unique()))}
    answers = pd.DataFrame(index=range(len(questions)), columns=names, dtype=object)
    for one in recorded[recorded["turn"] == 2].itertuples():
        said = re.findall(
            r"### Assistant A:\n(.*?)(?=\n### User:|<\|The End of Assistant A)", one.user_prompt, re.DOTALL
        )
        answers.loc[questions[one.question_id], one.model] = "\n".join(said)
    assert answers.notna().all(axis=None)
    judgements = pd.DataFrame(
        {
            "row": recorded["question_id"].map(questions),
            "pipeline": recorded["model"],
            "judge": [judge[0] for judge in recorded["judge"]],
            "rating": recorded["score"].where(recorded["score"] >= 0),
            "turn": recorded["turn"],
        }
    )
    check = judge_check(judgements, answers, makers={name: [name] for name in names})
    means = judgements.pivot_table(index="row", columns="pipeline", values="rating")
    gpt, other = names
    decided = means[means[gpt] != means[other]]
    own = found(check, "own answers", "gpt-4")
    assert own.n == len(decided)
    assert own.value == pytest.approx((decided[gpt] > decided[other]).mean())
    longer = (answers[gpt].str.len() > answers[other].str.len()).loc[decided.index]
    assert found(check, "longer wins", "gpt-4").value == pytest.approx(
        (longer == (decided[gpt] > decided[other])).mean()
    )
    odds = found(check, "odds of twice the length", "gpt-4")
    assert odds.low < odds.value < odds.high


# Sureness ---------------------------------------------------------------------------------------


def test_shares_cover_where_rows_hold_together() -> None:
    """Ten pairs of a row that mostly go one way are worth few: intervals over 40 rows still cover about 95 %."""
    chance = np.random.default_rng(7)
    rows, covered = np.repeat(np.arange(40), 10), 0
    for _ in range(500):
        tendency = chance.beta(0.5, 0.5, size=40)
        seen = share(chance.random(400) < np.repeat(tendency, 10), rows)
        covered += seen.low <= 0.5 <= seen.high
    assert covered / 500 == pytest.approx(0.95, abs=0.03)


def test_independent_shares_are_wilson_intervals() -> None:
    """One pair a row gives Wilson's interval, of a row less: 3 of 10 is 0.10 to 0.62; none of 12 is up to 0.24."""
    seen = share(np.repeat([1, 0], [3, 7]), np.arange(10))
    assert (seen.low, seen.high) == (pytest.approx(0.102, abs=0.001), pytest.approx(0.618, abs=0.001))
    assert share(np.zeros(12), np.arange(12)).high == pytest.approx(0.2425, abs=0.0005)
    assert share(np.array([]), np.array([])).mean is None


def test_resampled_measures_cover() -> None:
    """The interval of a mean over resampled rows is about that of theory, and there is none where it is undefined."""
    values = np.random.default_rng(8).normal(size=200)
    low, high = resampled(lambda at: float(values[at].mean()), np.arange(200))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.2)
    assert resampled(lambda at: math.nan, np.arange(5)) == (None, None)


@pytest.mark.parametrize(
    ("low", "high", "n", "verdict"),
    [
        (0.0, 0.1, 50, "fine"),
        (0.3, 0.4, 50, "worrying"),
        (0.1, 0.3, 50, "unsaid"),
        (0.0, 0.1, 5, "unsaid"),
        (None, None, 50, "unsaid"),
    ],
)
def test_a_finding_is_judged_by_its_whole_interval(low, high, n, verdict) -> None:
    """Fine inside what is tolerated, worrying outside, and unsaid where the interval reaches both, or of few."""
    finding = Finding("lab:z", "flips", "it flips", 0.1, low, high, n, (0.0, 0.2))
    assert finding.verdict == verdict
    assert finding.sentence == ("it flips: too few to say whether it matters" if verdict == "unsaid" else "it flips")


LINES = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from([("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")]),
        st.sampled_from(["lab:y", "gpt-4o"]),
        st.sampled_from(["A", "B", "C", None]),
    ),
    max_size=40,
    unique_by=lambda line: line[:3],
)


def _shares(check):
    """Return the shares that were found."""
    names = {"flips", "first place", "longer wins", "own answers", "unreadable"}
    return {(one.judge, one.measure): one.value for one in check.findings if one.measure in names and one.n}


@settings(deadline=None, max_examples=25)
@given(LINES, st.lists(st.sampled_from(["a", "b", "c", "tie", None]), min_size=5, max_size=5))
def test_any_judgements_can_be_checked(lines, labels) -> None:
    """Whatever was said of whatever was answered: shares are shares, inside their intervals, and turning tables round changes none."""
    answers = pd.DataFrame({"a": ["one", None, "three", "", "five"], "b": ["x"] * 5, "c": [None] * 5})
    said = pd.DataFrame([(row, *pair, judge, word) for row, pair, judge, word in lines], columns=COLUMNS)
    makers = {"a": ["openai:gpt-4o"], "b": ["lab:y"], "c": []}
    check = judge_check(said, answers, labels=labels, makers=makers)
    for one in check.findings:
        if (one.judge, one.measure) in _shares(check):
            assert 0 <= one.low <= one.value <= one.high <= 1
    turned = judge_check(said.iloc[::-1], answers, labels=labels, makers=makers)
    assert _shares(turned) == pytest.approx(_shares(check))


# Forms ------------------------------------------------------------------------------------------


def test_what_is_shown() -> None:
    """A frame with typed columns, and a table in a notebook, in Markdown and in a terminal, the worrying first."""
    answers = texts(40, a=50, b=60)
    check = judge_check(judged(answers, lambda *_: "A", "<b>judge</b>"), answers)
    frame = check.to_frame()
    assert list(frame.columns) == ["judge", "measure", "value", "low", "high", "n", "verdict", "said"]
    assert frame["value"].dtype == "Float64"
    assert frame["verdict"].tolist().count("worrying") == len(check.worrying) == 2
    shown = repr(check)
    assert shown.startswith("The judges: 2 worrying, ")
    assert shown.index("worrying  ") < shown.index("unsaid  ")
    assert "<b>judge" not in check._repr_html_()
    assert "&lt;b&gt;judge" in check._repr_html_()
    assert check._repr_markdown_().count("\n") > len(frame)
    assert JudgeCheck(()).to_frame().empty


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"first": "c"}, "'c', no column of the answers"),
        ({"row": 3}, "rows 3 to 3, and there are 3 rows"),
        ({"row": -1}, "rows -1 to -1"),
        ({"row": 0.5}, "'row' of judgements has whole numbers, not 0.5"),
        ({"row": "0"}, "'row' of judgements has whole numbers, not '0'"),
        ({"row": None}, "'row' of judgements has whole numbers"),
        ({"judge": math.nan}, "'judge' of judgements has the name of each judge"),
        ({"judge": [["gpt-4", "pair-v2"]]}, "'judge' of judgements has the name of each judge"),
    ],
)
def test_judgements_of_something_else(change, says) -> None:
    """Other pipelines, other rows, another form: one line that says which."""
    answers = texts(3, a=5, b=5)
    with pytest.raises(SetupError, match=says):
        judge_check(verdicts((0, "a", "b", "A")).assign(**change), answers)
    with pytest.raises(SetupError, match="judgements have the columns row, first"):
        judge_check(pd.DataFrame({"row": [0]}), answers)
    with pytest.raises(SetupError, match="'rating' of judgements has numbers"):
        judge_check(pd.DataFrame({"row": [0], "pipeline": ["a"], "judge": ["j"], "rating": ["good"]}), answers)
    assert issubclass(UnknownName, SetupError)


def test_pipelines_may_go_by_numbers() -> None:
    """Names that are numbers in both tables are the same pipelines, to the check and to an evaluation."""
    answers = texts(20, a=5, b=9).set_axis([1, 2], axis=1)
    said = verdicts(*[(row, *pair, "A") for row in range(20) for pair in ((1, 2), (2, 1))])
    assert found(judge_check(said, answers), "flips").value == 1
    evaluation = Evaluation(answers, "points", said)
    assert evaluation.table["quality"].tolist() == [0.5, 0.5]
    assert evaluation.flip_rate == 1
    numbered = said.assign(judge=7)
    assert found(judge_check(numbered, answers), "flips", "7").value == 1
    assert "100" in Evaluation(answers, "points", numbered)._repr_mimebundle_()["text/plain"]


def test_ratings_may_be_written_as_text() -> None:
    """As a table that was read back from a file has them: a check and an evaluation read the same numbers."""
    lines = [(row, name, "j", rating) for row in range(3) for name, rating in (("a", "7"), ("b", None))]
    said = pd.DataFrame(lines, columns=["row", "pipeline", "judge", "rating"])
    quality = Evaluation(texts(3, a=5, b=5), "rating", said).table["quality"]
    assert quality["a"] == 7
    assert pd.isna(quality["b"])
