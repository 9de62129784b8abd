"""FLASK: the prompt has the wanted rubrics and no others, the judge's object is read strictly, the table divides by nothing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_nb import templating
from moa_nb.errors import SetupError, UnknownName
from moa_nb.evaluation.benchmarks.skills import SKILLS, flask_table, rubrics, skills, skills_of

WANTED = ("factuality", "readability", "completeness")
NAMES = st.lists(st.sampled_from(sorted(SKILLS)), min_size=1, unique=True)


def prompt(wanted: object, *, answer: str = "ANSWER", reference_answer: str = "") -> str:
    """Return what a judge is sent."""
    values = {
        "skills": rubrics(wanted),
        "conversation": [{"role": "user", "content": "QUESTION {{ x }}"}],
        "references": [answer],
        "reference_answer": reference_answer,
        "fence": "MARK",
    }
    return templating.load("judge/skills").render(values)


def told(*lines: tuple[object, object, object]) -> pd.DataFrame:
    """Return judgements as they are recorded."""
    return pd.DataFrame(lines, columns=["pipeline", "wanted", "ratings"])


# Rubrics ----------------------------------------------------------------------------------------


def test_twelve_skills_have_a_question_and_five_lines() -> None:
    """Each scale runs from 1 to 5 and no line stands twice."""
    assert len(SKILLS) == 12
    for question, *scale in SKILLS.values():
        assert question.endswith("?")
        assert [line[:3] for line in scale] == [f"{level}: " for level in range(1, 6)]
    lines = [line for rubric in SKILLS.values() for line in rubric]
    assert len({*lines}) == len(lines)


def test_skills_are_named_in_a_list_or_with_commas() -> None:
    """The paper's longer names are known, each skill counts once, and a wrong name gets the right one."""
    assert skills_of(["Factuality", "factuality", "Commonsense Understanding"]) == ("factuality", "commonsense")
    assert skills_of("logical_efficiency, conciseness,") == ("efficiency", "conciseness")
    with pytest.raises(UnknownName, match="no skill 'readable'; did you mean 'readability'"):
        skills_of("readable")
    with pytest.raises(SetupError, match="name the skills to rate by"):
        skills_of([])


@settings(deadline=None)
@given(NAMES)
def test_a_prompt_has_exactly_the_wanted_rubrics(wanted: list[str]) -> None:
    """Every line of the row's skills stands in it once, and none of another skill."""
    lines = prompt(wanted).splitlines()
    for name, rubric in SKILLS.items():
        for line in (name, *rubric):
            assert lines.count(line) == (name in wanted)


def test_a_prompt_quotes_what_is_judged_as_material() -> None:
    """Question, right answer and answer stand between marks, braces and all; without a right answer none is spoken of."""
    text = prompt(WANTED, reference_answer="GOLD")
    assert "[MARK]\nuser: QUESTION {{ x }}\n[MARK]" in text
    assert "[MARK]\nGOLD\n[MARK]" in text
    assert text.endswith("[MARK]\nANSWER\n[MARK]")
    assert "right answer" not in prompt(WANTED)
    assert text.index("Comment on each skill") < text.index("[MARK]")


# What a judge says ------------------------------------------------------------------------------


def test_the_last_object_has_exactly_the_wanted_skills() -> None:
    """Comments and examples before it, skills that nobody wanted and the spelling of names do not matter."""
    said = 'As in {"factuality": 1}. Well:\n```json\n{"Readability": 5, "wit": 9, "FACTUALITY": 3, "completeness": 4.0}\n```'
    assert skills(said, WANTED) == {"factuality": 3, "readability": 5, "completeness": 4}
    assert list(skills(said, WANTED) or ()) == list(WANTED)
    assert skills({"logical correctness": "4"}, "correctness") == {"correctness": 4}


@pytest.mark.parametrize("word", ["N/A", "n/a", "NA", " Not applicable "])
def test_a_skill_may_not_apply(word: str) -> None:
    """It is there, without a number."""
    assert skills(json.dumps({"readability": word}), ["readability"]) == {"readability": None}


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Very good.",
        "{'readability': 4}",
        '{"readability": 4',
        '{"factuality": 4}',
        '{"readability": 0}',
        '{"readability": 6}',
        '{"readability": -1}',
        '{"readability": true}',
        '{"readability": null}',
        '{"readability": "good"}',
        '{"readability": "8/10"}',
        '{"readability": [4]}',
        "[4]",
        '{"readability": 4} {}',
        None,
    ],
)
def test_what_is_malformed_is_nothing(said: str | None) -> None:
    """No object, no such skill, no number, or one beyond the scale: the judge is to be asked again."""
    assert skills(said, ["readability"]) is None


@settings(deadline=None)
@given(st.text(), NAMES, st.data())
def test_what_was_written_is_read(before: str, wanted: list[str], data: st.DataObject) -> None:
    """Any comments before the object: the ratings come back as they were written."""
    given_ratings = {name: data.draw(st.sampled_from([1, 2, 3, 4, 5, "N/A"])) for name in wanted}
    read = skills(before.translate({ord(mark): None for mark in '{}[]"`'}) + "\n" + json.dumps(given_ratings), wanted)
    assert read == {name: None if value == "N/A" else value for name, value in given_ratings.items()}


# The table --------------------------------------------------------------------------------------


def test_what_does_not_apply_is_in_no_mean() -> None:
    """Means are of numbers alone; what did not apply and what could not be read are counted apart."""
    table = flask_table(
        told(
            ("moa", WANTED, {"factuality": 4, "readability": None, "completeness": 2}),
            ("moa", WANTED, {"factuality": 5, "readability": 3, "completeness": 1}),
            ("moa", "factuality", None),
            ("single", "readability", {"readability": None}),
        )
    )
    assert table["moa"].loc["factuality"].tolist() == [4.5, 2, 0, 1]
    assert table["moa"].loc["readability"].tolist() == [3, 1, 1, 0]
    assert table["single"].loc["readability"].tolist()[1:] == [0, 1, 0]
    assert table.columns.tolist() == [
        (name, part) for name in ("moa", "single") for part in ("mean", "n", "n_na", "n_unparsed")
    ]


def test_a_skill_that_was_never_rated_has_no_mean() -> None:
    """All twelve are there, and nothing is divided by zero."""
    table = flask_table(told(("moa", ["factuality"], None)))["moa"]
    assert table.index.tolist() == list(SKILLS)
    assert table["mean"].isna().all()
    assert (table["n"].sum(), table["n_unparsed"].sum()) == (0, 1)
    assert flask_table(told()).index.tolist() == list(SKILLS)


def test_ratings_from_elsewhere_are_read_again() -> None:
    """A judge's text, names in another case, "N/A", and what is beyond the scale; a row has to name its skills."""
    table = flask_table(
        told(
            ("moa", ["factuality"], '{"Factuality": 4}'),
            ("moa", ["factuality"], {"Factuality": "2"}),
            ("moa", ["factuality"], {"factuality": 9}),
            ("moa", ["factuality"], {"factuality": True}),
            ("moa", ["factuality"], {"factuality": "N/A"}),
            ("moa", ["factuality"], {"factuality": float("nan")}),
            ("moa", ["factuality"], float("nan")),
        )
    )
    assert table["moa"].loc["factuality"].tolist() == [3, 2, 2, 3]
    assert skills({"factuality": np.int64(4)}, ["factuality"]) == {"factuality": 4}
    for nothing in (None, float("nan"), []):
        with pytest.raises(SetupError, match="name the skills"):
            flask_table(told(("moa", nothing, None)))


def test_a_table_needs_its_columns() -> None:
    """The one that is missing is named."""
    with pytest.raises(SetupError, match="lack the column 'wanted'"):
        flask_table(pd.DataFrame({"pipeline": ["moa"], "ratings": [None]}))
