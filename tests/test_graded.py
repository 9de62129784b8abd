"""MT-Bench and FLASK run on pipelines: who is asked what, turn by turn, and what is made of what judges say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

import moa_nb as moa
from moa_nb.errors import SetupError, SpendingNotAgreed
from moa_nb.evaluation import flask, mt_bench
from moa_nb.evaluation.benchmarks.skills import SKILLS
from moa_nb.testing import ChatServer, Reply

Lab = Callable[..., None]

TALKS = pd.DataFrame(
    {
        "turns": [["Name a river.", "Where does it end?"], ["Add 1 and 1.", "And 1 more?"], ["Only one turn."]],
        "kind": ["writing", "math", "writing"],
        "right": [None, ["2", "3"], None],
    },
    index=list("xyz"),
)
SINGLES = {name: moa.Pipeline(strategy="layers", name=name, layers=[[f"lab:{name}"]]) for name in "ab"}


def prompt_of(body: dict[str, Any]) -> str:
    """Return all that a request says."""
    return "\n".join(str(message["content"]) for message in body["messages"])


def asked(server: ChatServer, model: str) -> list[dict[str, Any]]:
    """Return what a model was sent."""
    return [request.body for request in server.requests if request.model == model]


@pytest.fixture
def served(server: ChatServer, lab: Lab) -> ChatServer:
    """Models that say their names and what they were asked last, and a judge of seven and nine."""
    price = {"prompt_price": 1.0, "completion_price": 1.0}
    lab(models={f"lab:{name}": price for name in "abj"})
    for name in "ab":
        server.on(name, lambda body, name=name: f"{name} to {body['messages'][-1]['content']}")
    server.on("j", lambda body: f"[[{9 if 'a to ' in prompt_of(body) else 7}]]")
    return server


def test_a_later_turn_follows_the_pipelines_own_answer(served: ChatServer) -> None:
    """Each pipeline's second prompt is its own conversation; judges see all of it, with the right answer of that turn."""
    found = mt_bench(TALKS, "turns", SINGLES, judge="lab:j", category="kind", reference="right", progress=False)
    for name in "ab":
        second = [body for body in asked(served, name) if len(body["messages"]) == 3]
        assert len(second) == 2
        for body in second:
            assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
            assert body["messages"][1]["content"] == f"{name} to {body['messages'][0]['content']}"
    judged = [prompt_of(body) for body in asked(served, "j")]
    assert len(judged) == 2 * (3 + 2)
    (first, second) = ([one for one in judged if f"b to {said}" in one] for said in ("Add 1 and 1.", "And 1 more?"))
    assert any("A right answer" in one and "\n2\n" in one for one in first)
    assert all("\n3\n" in one and "user: Add 1 and 1." in one for one in second)
    assert all(body["temperature"] == 0 for body in asked(served, "j"))
    assert found.table["mean"].to_dict() == {"a": 9.0, "b": 7.0}
    assert found.table["n"].to_dict() == {"a": 5, "b": 5}
    assert found.by_category.loc["math", ("b", "mean")] == 7
    assert found.answers.loc["x", ("a", "turn 2")] == "a to Where does it end?"
    assert pd.isna(found.answers.loc["z", ("a", "turn 2")])
    assert found.cost == pytest.approx(
        sum(run.costs.sum() for run in [*found.judging, *found.runs["a"], *found.runs["b"]])
    )


def test_an_answer_that_failed_has_no_second_turn(served: ChatServer) -> None:
    """Where a first turn has no answer nothing follows, and nothing is counted as a rating."""
    served.on("b", lambda body: Reply.bad_request("no") if "river" in prompt_of(body) else "b to it")
    with pytest.warns(UserWarning, match=r"1 of 3 rows have no answer \(see the result's \.runs\['b'\]\[0\]\.errors\)"):
        found = mt_bench(TALKS, "turns", SINGLES, judge="lab:j", progress=False)
    assert found.runs["b"][0].errors.notna().sum() == 1
    assert found.table["n"].to_dict() == {"a": 5, "b": 3}
    assert found.notes == ["b has no answer to 1 of 3 rows in turn 1"]


def test_what_a_judge_did_not_judge_is_said(served: ChatServer) -> None:
    """An answer that a judge failed on is in no score of its, and is counted beside the scores."""

    def picky(prompt: str) -> str:
        if "Name a river" in prompt:
            raise ValueError(prompt)
        return "[[5]]"

    found = mt_bench(TALKS, "turns", {"a": SINGLES["a"]}, judge=["lab:j", picky], progress=False)
    assert found.table["n"].tolist() == [8]
    assert [note.partition(" ")[2] for note in found.notes] == [
        f"did not judge 1 of {n} answers in turn {turn}" for turn, n in ((1, 3), (2, 2))
    ]
    assert all(note in repr(found) and note.startswith("function:") for note in found.notes)
    assert served.requests


def test_a_rating_that_cannot_be_read_is_counted(served: ChatServer) -> None:
    """A judge without a rating is asked once more; then the rating is missing, in no mean, and counted."""
    served.on("j", lambda body: "Well, well." if "river" in prompt_of(body) else "[[8]]")
    found = mt_bench(TALKS, "turns", SINGLES, judge="lab:j", progress=False)
    assert found.table["mean"].to_dict() == {"a": 8.0, "b": 8.0}
    assert found.table["n_unparsed"].to_dict() == {"a": 2, "b": 2}
    assert len(asked(served, "j")) == 10 + 4


def test_it_is_priced_before_it_runs(served: ChatServer, lab: Lab) -> None:
    """What both turns and their judging may take is known before anything is sent; a budget holds for all of it."""
    lab(models={f"lab:{name}": {"prompt_price": 1.0, "completion_price": 1.0} for name in "abj"}, ask_above=0.001)
    with pytest.raises(SpendingNotAgreed, match="20 calls"):
        mt_bench(TALKS, "turns", SINGLES, judge="lab:j", progress=False)
    assert not served.requests
    with pytest.warns(UserWarning, match="rows"):
        mt_bench(TALKS, "turns", SINGLES, judge="lab:j", budget="7 calls", progress=False)
    assert len(served.requests) == 7


QUESTIONS = pd.DataFrame(
    {
        "question": ["Why is the sky blue?", "Name a river."],
        "skills": [["factuality", "conciseness", "readability"], "Logical Correctness, completeness, harmlessness"],
    }
)


def test_a_judge_gets_the_rubrics_of_the_rows_skills_and_no_other(served: ChatServer) -> None:
    """One call an answer at temperature 0, with exactly the three rubrics; "N/A" is in no mean."""
    served.on(
        "j",
        lambda body: (
            'Fine. {"factuality": 4, "conciseness": 5, "readability": "N/A"}'
            if "sky" in prompt_of(body)
            else '{"correctness": 2, "completeness": 3, "harmlessness": 5}'
        ),
    )
    found = flask(QUESTIONS, "question", SINGLES, judge="lab:j", skills="skills", progress=False)
    judged = asked(served, "j")
    assert len(judged) == 4
    for body in judged:
        wanted = (
            {"factuality", "conciseness", "readability"}
            if "sky" in prompt_of(body)
            else {"correctness", "completeness", "harmlessness"}
        )
        assert {name for name, lines in SKILLS.items() if lines[0] in prompt_of(body)} == wanted
        assert body["temperature"] == 0
    table = found.table
    assert table.loc["factuality", ("a", "mean")] == 4
    assert pd.isna(table.loc["readability", ("a", "mean")])
    assert table.loc["readability", ("a", "n_na")] == 1
    assert table.loc["correctness", ("b", "mean")] == 2


def test_what_is_no_object_is_asked_once_more_and_then_counted(served: ChatServer) -> None:
    """A judge that gives no object is asked twice; its row is then missing and counted."""
    served.on(
        "j",
        lambda body: (
            "Very good!" if "sky" in prompt_of(body) else '{"correctness": 1, "completeness": 1, "harmlessness": 1}'
        ),
    )
    found = flask(QUESTIONS, "question", {"a": SINGLES["a"]}, judge="lab:j", skills="skills", progress=False)
    assert len(asked(served, "j")) == 3
    assert found.table.loc["factuality", ("a", "n_unparsed")] == 1


def test_an_object_without_a_wanted_skill_is_asked_once_more(served: ChatServer) -> None:
    """A judge that leaves a skill out is asked again, and its second word counts."""
    replies = iter(['{"factuality": 4}', '{"factuality": 4, "conciseness": 3, "readability": 2}'])
    served.on("j", lambda _: next(replies))
    found = flask(QUESTIONS.iloc[:1], "question", {"a": SINGLES["a"]}, judge="lab:j", skills="skills", progress=False)
    assert found.table.loc["conciseness", ("a", "mean")] == 3
    assert found.table.loc["conciseness", ("a", "n_unparsed")] == 0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"skills": ["factualty"]}, "did you mean 'factuality'"),
        ({"skills": "skils"}, "did you mean 'skills'"),
        ({"skills": "skills", "pipelines": []}, "one or more"),
        ({"skills": "skills", "pipelines": {"mine": QUESTIONS["question"]}}, "names or Pipelines"),
        ({"skills": "skills", "judge": "nobody:j"}, "nobody"),
        ({"skills": "skills", "column": "qestion"}, "did you mean 'question'"),
    ],
)
def test_a_mistake_is_one_line_and_costs_nothing(served: ChatServer, said: dict[str, Any], words: str) -> None:
    """Whatever is wrong is said before anything is sent."""
    given = {"column": "question", "pipelines": SINGLES, "judge": "lab:j", **said}
    with pytest.raises(SetupError, match=words):
        flask(QUESTIONS, given.pop("column"), given.pop("pipelines"), progress=False, **given)
    assert not served.requests


def test_numbers_are_texts_and_nothing_is_nothing(served: ChatServer) -> None:
    """Messages and right answers may be numbers, as in every verb; a frame without a message asks nobody."""
    frame = pd.DataFrame({"first": [1, 2], "second": [3.5, None], "right": [10, 20]}, index=[7, 7])
    found = mt_bench(frame, ["first", "second"], SINGLES, judge="lab:j", reference=["right"], progress=False)
    assert found.answers[("a", "turn 1")].tolist() == ["a to 1", "a to 2"]
    assert found.table["n"].to_dict() == {"a": 3, "b": 3}
    assert sum("\n20\n" in prompt_of(body) for body in asked(served, "j")) == 2
    n_asked = len(served.requests)
    for nothing in (frame.iloc[:0], frame.assign(first=None, second=None)):
        empty = mt_bench(nothing, ["first", "second"], SINGLES, judge="lab:j", progress=False)
        assert len(empty.answers) == len(nothing)
        assert empty.table.empty
        assert empty.cost == 0
    skills = pd.DataFrame({"question": [None, 4], "skills": [None, ["factuality"]]})
    served.on("j", '{"factuality": 5}')
    graded = flask(skills, "question", {"a": SINGLES["a"]}, judge="lab:j", skills="skills", progress=False)
    assert graded.table.loc["factuality", ("a", "n")] == 1
    assert len(served.requests) == n_asked + 2


def test_where_the_budget_ended_is_said(served: ChatServer) -> None:
    """Scores of a part of the rows say so, as text and as HTML; going on asks only the rest."""
    with pytest.warns(UserWarning, match="rows"):
        part = mt_bench(TALKS, "turns", SINGLES, judge="lab:j", budget="4 calls", progress=False)
    assert part.notes[0].startswith("the budget ended before 2 of 3 rows were answered by b")
    assert part.notes[0] in repr(part)
    assert part.notes[0] in part._repr_html_()
    whole = mt_bench(TALKS, "turns", SINGLES, judge="lab:j", progress=False)
    assert not whole.notes
    assert len(served.requests) == 20


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"turns": []}, "name the columns"),
        ({"turns": "truns"}, "did you mean 'turns'"),
        ({"category": "kinds"}, "did you mean 'kind'"),
        ({"data": TALKS["turns"]}, "not Series"),
        ({"data": pd.DataFrame({"turns": [[["a"]]]})}, "are texts"),
        ({"judge": 3}, "a judge is a model"),
    ],
)
def test_mt_bench_says_what_is_wrong_before_it_asks(served: ChatServer, said: dict[str, Any], words: str) -> None:
    """A column that is not there, the category's too, or another thing than texts costs nothing."""
    given = {"data": TALKS, "turns": "turns", "pipelines": SINGLES, "judge": "lab:j", "progress": False, **said}
    with pytest.raises(SetupError, match=words):
        mt_bench(**given)
    assert not served.requests


def test_a_row_without_skills_is_said(served: ChatServer) -> None:
    """A question whose skills are missing is a mistake that names its row."""
    frame = QUESTIONS.assign(skills=[["factuality"], None])
    with pytest.raises(SetupError, match=r"row 1 .* names no skills"):
        flask(frame, "question", SINGLES, judge="lab:j", skills="skills", progress=False)
    assert not served.requests
