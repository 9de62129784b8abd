"""MT-Bench: the published scores from the recorded judgements, and what counts as a rating or a win."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_nb.errors import SetupError
from moa_nb.evaluation.benchmarks.ratings import mt_mean, mt_table, mt_winrates

RECORDED = Path(__file__).parents[2] / "shared" / "data" / "mt_bench"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded judgements at {RECORDED}")
STRONG, WEAK = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"


@pytest.fixture(scope="module")
def judgements() -> pd.DataFrame:
    """The 320 recorded judgements of two models."""
    return pd.read_json(RECORDED / "judgements_routellm.jsonl.gz", lines=True)


def ratings(*lines: tuple[object, ...]) -> pd.DataFrame:
    """Return ratings as they are recorded."""
    return pd.DataFrame(lines, columns=["pipeline", "turn", "category", "rating"])


def games(*lines: tuple[str, str]) -> pd.DataFrame:
    """Return FastChat's pairs of the models a and b: the winners of both games."""
    frame = pd.DataFrame(lines, columns=["g1_winner", "g2_winner"]).assign(model_1="a", model_2="b", turn=1)
    return frame.assign(question_id=range(81, 81 + len(frame)))


# Recorded ---------------------------------------------------------------------------------------


@recorded
def test_the_published_scores_come_from_the_recorded_judgements(judgements: pd.DataFrame) -> None:
    """9.23 and 8.34, the judge's words read again, all 320 of them."""
    means = mt_mean(judgements)
    assert means.index.tolist() == [STRONG, WEAK]
    assert means["mean"].round(2).tolist() == [9.23, 8.34]
    assert means[["n", "n_unparsed"]].to_numpy().tolist() == [[160, 0], [160, 0]]
    assert means.loc[STRONG, ["turn 1", "turn 2"]].tolist() == [9.40625, 9.05]


@recorded
def test_the_words_say_what_was_recorded(judgements: pd.DataFrame) -> None:
    """Reading the judge's words and taking the recorded scores are the same; so is a list of records."""
    by_words, by_score = mt_mean(judgements), mt_mean(judgements.drop(columns="judgment"))
    pd.testing.assert_frame_equal(by_words, by_score)
    pd.testing.assert_frame_equal(by_words, mt_mean(judgements.to_dict("records")))


@recorded
def test_the_table_has_the_benchmarks_categories(judgements: pd.DataFrame) -> None:
    """The categories known by number are those of the questions' file, and the last row is the score."""
    questions = pd.read_json(RECORDED / "question.jsonl.gz", lines=True)
    named = judgements.merge(questions[["question_id", "category"]], on="question_id")
    table = mt_table(judgements)
    pd.testing.assert_frame_equal(table, mt_table(named))
    assert table.index.tolist() == [*questions["category"].drop_duplicates(), "all"]
    assert table.loc["all", (WEAK, "mean")] == mt_mean(judgements).loc[WEAK, "mean"]
    assert table[STRONG].columns.tolist() == ["turn 1", "turn 2", "mean"]
    coding = named[(named["category"] == "coding") & (named["model"] == WEAK) & (named["turn"] == 2)]
    assert table.loc["coding", (WEAK, "turn 2")] == pytest.approx(coding["score"].mean())


# Ratings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, np.nan, -1, 0, 11, 85, "no"])
def test_what_is_no_rating_is_counted_and_in_no_mean(value: object) -> None:
    """Nothing, FastChat's -1 and what is out of the range move no figure but the count."""
    means = mt_mean(ratings(("m", 1, "math", 8), ("m", 2, "math", value)))
    assert means.loc["m", ["mean", "n", "n_unparsed"]].tolist() == [8, 1, 1]
    assert pd.isna(means.loc["m", "turn 2"])


def test_the_judges_words_are_read() -> None:
    """The last mark counts, a quoted one does not, and an error text is unreadable."""
    said = ["Unlike a [[10]], it errs. Rating: [[4]]", "$ERROR$", "Rating: [[11]]", None]
    means = mt_mean([{"model": "m", "turn": 1, "judgment": text, "score": 9} for text in said])
    assert means.loc["m", ["mean", "n", "n_unparsed"]].tolist() == [4, 1, 3]


def test_a_model_that_nobody_could_rate_is_there_without_a_mean() -> None:
    """It stands last, with its count."""
    means = mt_mean(ratings(("bad", 1, "math", None), ("good", 1, "math", 3)))
    assert means.index.tolist() == ["good", "bad"]
    assert pd.isna(means.loc["bad", "mean"])
    assert means.loc["bad", "n_unparsed"] == 1


def test_ratings_without_turns_are_of_the_first() -> None:
    """A frame of single questions has one turn; own categories stand in their order."""
    frame = ratings(("m", 1, "law", 6), ("m", 1, "art", 8)).drop(columns="turn")
    assert mt_mean(frame).columns.tolist() == ["mean", "turn 1", "n", "n_unparsed"]
    assert mt_table(frame)[("m", "mean")].to_dict() == {"art": 8, "law": 6, "all": 7}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1, 2]), st.integers(-1, 12)), min_size=1))
def test_the_score_is_the_mean_of_all_that_can_be_read(lines: list[tuple[str, int, int]]) -> None:
    """Over questions and turns alike: no mean of means, and every line is either read or counted."""
    means = mt_mean(ratings(*((who, turn, "math", value) for who, turn, value in lines)))
    for who in {who for who, _, _ in lines}:
        read = [value for one, _, value in lines if one == who and 1 <= value <= 10]
        row = means.loc[who]
        assert row["n"] + row["n_unparsed"] == sum(one == who for one, _, _ in lines)
        assert row["n"] == len(read)
        assert pd.isna(row["mean"]) if not read else row["mean"] == pytest.approx(np.mean(read))


def test_what_cannot_be_read_at_all_is_one_line() -> None:
    """The column that is missing is named."""
    with pytest.raises(SetupError, match="'pipeline'"):
        mt_mean(pd.DataFrame({"rating": [1]}))
    with pytest.raises(SetupError, match="'rating'"):
        mt_mean(pd.DataFrame({"model": ["m"]}))
    with pytest.raises(SetupError, match="'category'"):
        mt_table(pd.DataFrame({"model": ["m"], "rating": [1], "question_id": [7]}))
    with pytest.raises(SetupError, match="a list of records, not 'ratings'"):
        mt_mean("ratings")  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="two columns 'rating'"):
        mt_mean(pd.DataFrame([["m", 1, 2]], columns=["model", "rating", "rating"]))
    with pytest.raises(SetupError, match="a category is called 'all'"):
        mt_table(ratings(("m", 1, "all", 5)))
    assert mt_table(ratings()).empty
    with pytest.raises(SetupError, match="lack 'row', 'verdict'"):
        mt_winrates(pd.DataFrame({"first": ["a"], "second": ["b"]}))


def test_turns_that_a_gap_made_floats_are_turns() -> None:
    """2.0 is turn 2, and who says no turn means the first."""
    lines = ratings(("m", 1, "math", 5), ("m", 2, "math", 8), ("m", None, "math", 7))
    assert mt_mean(lines).loc["m", ["turn 1", "turn 2", "mean"]].tolist() == pytest.approx([6, 8, 20 / 3])
    assert mt_table(lines)["m"].columns.tolist() == ["turn 1", "turn 2", "mean"]


# Pairs ------------------------------------------------------------------------------------------


def test_a_pair_in_both_orders_counts_once() -> None:
    """The same winner twice wins; a tie in either game, or two winners, is a tie; an error is counted apart."""
    played = games(
        ("model_1", "model_1"), ("model_2", "model_2"), ("tie", "model_1"), ("model_1", "model_2"), ("error", "tie")
    )
    table = mt_winrates(played)
    assert table.loc["a", ["wins", "ties", "losses", "n_unparsed"]].tolist() == [1, 2, 1, 1]
    assert table.loc["a", ["win_rate", "loss_rate", "win_rate_adjusted"]].tolist() == [0.25, 0.25, 0.5]


def test_games_as_fastchat_writes_them() -> None:
    """Its judges are lists of the model and the prompt, and its questions may go by any name."""
    played = games(("model_1", "model_1"), ("model_1", "model_2")).assign(question_id=["eighty-one", None])
    played["judge"] = [["gpt-4", "pair-v2"]] * 2
    assert mt_winrates(played).loc["a", ["wins", "ties"]].tolist() == [1, 1]
    assert mt_winrates(played.assign(judge=np.nan)).loc["a", ["wins", "ties"]].tolist() == [1, 1]


def test_recorded_verdicts_are_pairs_too() -> None:
    """Our own form gives what FastChat's gives, turn by turn."""
    lines = [(0, 1, "a", "b", "A"), (0, 1, "b", "a", "B"), (0, 2, "a", "b", "A"), (0, 2, "b", "a", "A")]
    table = mt_winrates(pd.DataFrame(lines, columns=["row", "turn", "first", "second", "verdict"]))
    assert table.loc["a", ["wins", "ties", "win_rate_adjusted"]].tolist() == [1, 1, 0.75]
    assert table.loc["b", ["ties", "losses", "win_rate_adjusted"]].tolist() == [1, 1, 0.25]


def test_models_without_a_readable_pair_have_no_rate() -> None:
    """Nothing is divided by zero."""
    table = mt_winrates(games(("error", "error")))
    assert table["n_unparsed"].tolist() == [1, 1]
    assert table[["win_rate", "win_rate_adjusted"]].isna().all(axis=None)
