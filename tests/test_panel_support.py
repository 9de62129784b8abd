"""Where sentences come from, and how an answer was decided: found by words alone, and never invented."""

from __future__ import annotations

import functools
import gzip
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import PIPELINES, Models, configured, pipeline
from test_panels import HOSTILE, PANEL_TAGS, Tags, assert_harmless

import moa_nb as moa
from moa_nb.chat import Message, Request, Usage
from moa_nb.panels import html, text
from moa_nb.panels.accounts import Account
from moa_nb.panels.bundle import bundle
from moa_nb.panels.decisions import accounts_of
from moa_nb.panels.markdown import Mark, passages, to_html
from moa_nb.panels.support import Source, Support, support_of
from moa_nb.panels.view import view_of
from moa_nb.pipeline.agreement import agreement_of, proposals
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.testing import ChatServer

DATA = Path(__file__).parents[2] / "shared" / "data"
ATTRIBUTES = {
    "style",
    "href",
    "title",
    "target",
    "rel",
    "start",
    "class",
    "colspan",
    "role",
    "aria-label",
    "aria-hidden",
}

ALPHA = "The March price change met a support backlog. Who waited more than five days left at twice the rate of others."
BETA = "- the March price change met a backlog in support\n- discounts in April came too late to matter"
GAMMA = "A backlog in support met the price change of March. It hit 41 % of small accounts."
ANSWER = (
    "The **March price change** met a support backlog. Those who waited more than five days left at twice the rate. "
    "Discounts in April came too late to matter. Competitors cut their prices by 12 % in May."
)


def told(*answers: str, final: str = "", names: Sequence[str] = ("alpha", "beta", "gamma"), **changes: Any) -> Result:
    """Return a run in which some proposers answered, and an aggregator if there is a ``final`` answer."""
    calls = tuple(Call(name, f"lab:{name}", text=answer) for name, answer in zip(names, answers, strict=False))
    layers = (Layer("layer 1", calls), *([Layer("layer 2", (Call("z", "lab:z", text=final),))] if final else ()))
    return Result(final or answers[0], "moa-lite", layers).replace(**changes)


def words_of(result: Result) -> list[str]:
    """Return what stands in small type after each sentence."""
    support = support_of(result)
    return [] if support is None else [support.words(sentence) for sentence in support.sentences]


@functools.cache
def rows(path: str) -> list[dict[str, Any]]:
    """Return the recorded rows of a file of the shared data."""
    if not (DATA / path).is_file():
        pytest.skip(f"no recorded data at {DATA / path}")
    with gzip.open(DATA / path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def answers_of(model: str) -> dict[int, str]:
    """Return a model's first answer to each question of MT-Bench."""
    return {row["question_id"]: row["choices"][0]["turns"][0] for row in rows(f"mt_bench/answers_{model}.jsonl.gz")}


# Who says a sentence ----------------------------------------------------------------------------


def test_each_sentence_says_who_says_it() -> None:
    """All, several, one by name, none; in the order of the answer."""
    assert words_of(told(ALPHA, BETA, GAMMA, final=ANSWER)) == ["3 of 3", "only alpha", "only beta", "no proposal"]


@pytest.mark.parametrize(
    ("sentence", "is_said"),
    [
        ("In the north churn rose by 12 % in March.", True),
        ("Churn rose 12 % in the north.", True),
        ("Churn rose by 13 % in the north in March.", False),
        ("Churn did not rise by 12 % in the north in March.", False),
        ("Support was not slow in the three weeks before Easter.", True),
        ("Support was not slow in the 3 weeks before Easter.", True),
        ("Support was slow in the three weeks before Easter.", False),
        ("Support was not slow in the four weeks before Easter.", False),
        ("Sales reached 1,200 units and churn rose.", True),
        ("Sales reached 1200 units.", True),
        ("Sales reached 12000 units.", False),
        ("The south has other customers, who stay for longer.", False),
    ],
)
def test_another_number_or_a_not_is_another_claim(sentence: str, *, is_said: bool) -> None:
    """The words may stand in another order and shape; numbers and negations must be there."""
    source = Source(
        "Churn rose by 12 % in the north in March. Sales reached 1,200 units.\n\n"
        "Support was not slow in the three weeks before Easter.",
        "en",
    )
    assert source.says(sentence) is is_said


def test_what_claims_nothing_has_no_mark() -> None:
    """Headings, code, what announces a list, and sentences of too few words are left alone."""
    final = f"# Why churn rose in the north\n\nHere are the reasons for it all:\n\n- {ALPHA}\n\n```\nchurn = 1\n```\n\nI hope so."
    support = support_of(told(ALPHA, BETA, final=final))
    assert support is not None
    assert [sentence.by is not None for sentence in support.sentences] == [True, True, False]


@pytest.mark.parametrize(
    "result",
    [
        told(ALPHA, final=ANSWER),
        told(ALPHA, BETA, final=ANSWER, value={"label": "bug"}),
        told(ALPHA, " ", final=ANSWER),
        Result(
            ANSWER,
            "cascade",
            (Layer("tier 1", (Call("a", "m", text=ALPHA),)), Layer("tier 2", (Call("b", "m", text=BETA),))),
        ),
    ],
    ids=["one proposal", "fields", "an empty one", "tiers"],
)
def test_without_two_proposals_or_prose_nothing_is_marked(result: Result) -> None:
    """There is nothing to compare, and nothing is said."""
    assert support_of(result) is None


def test_verdicts_and_failures_are_no_proposals() -> None:
    """What stands aside, and what failed, does not count among those that could have said it."""
    run = told(ALPHA, BETA, GAMMA, final=ANSWER)
    first, last = run.layers
    calls = (first.calls[0], first.calls[1], Call("gamma", "lab:gamma", text=GAMMA, error="cut"))
    verdicts = Layer("verdicts", (Call("j", "lab:j", text=ANSWER), Call("j", "lab:j", text=ANSWER)), aside=True)
    assert words_of(run.replace(layers=(Layer("layer 1", calls), verdicts, last)))[0] == "2 of 2"


CHECKS = Layer("check", (Call("c", "lab:c", text="Nothing to object."), Call("c", "lab:c", text="Nothing to object.")))
"""Calls of somebody's own strategy that are no answers, though it does not say so."""


def test_the_siblings_of_the_answer_are_its_proposals() -> None:
    """Where one of several drafts was taken, the drafts are compared, whoever was asked after them."""
    run = told(ALPHA, BETA)
    run = run.replace(layers=(*run.layers, CHECKS))
    assert [call.agent for call in proposals(run)] == ["alpha", "beta"]
    assert agreement_of(run) == agreement_of(told(ALPHA, BETA))
    support = support_of(run)
    assert support is not None
    assert support.word_for_word == "alpha"
    assert "in none" not in support.summary()


def test_where_an_answer_comes_from_is_not_guessed() -> None:
    """Where nobody's text or value is the answer, nobody proposed it; a vote's are those with values."""
    run = told(ALPHA, BETA)
    unknown = run.replace(text="A text of a strategy's own making, which no call gave.", layers=(*run.layers, CHECKS))
    assert proposals(unknown) == ()
    assert agreement_of(unknown) is None
    assert support_of(unknown) is None
    votes = Layer("votes", tuple(Call(name, "m", text=f"I say {name}", value={"label": name}) for name in "ab"))
    made = run.replace(text='{"label": "b or a"}', value={"label": "b or a"}, layers=(*run.layers, votes, CHECKS))
    assert proposals(made) == votes.calls
    failed = run.replace(text="", error="nobody answered")
    assert proposals(failed) == run.layers[0].calls


def test_what_came_after_the_answer_is_no_proposal() -> None:
    """Of a single draft that several checked there is nothing to compare with."""
    draft = Layer("draft", (Call("w", "lab:w", text=ALPHA),))
    run = Result(ALPHA, "own", (draft, CHECKS))
    assert proposals(run) == draft.calls
    assert agreement_of(run) is None
    assert support_of(run) is None


def test_an_answer_that_is_a_proposal_says_whose() -> None:
    """Word for word, and who else says it."""
    support = support_of(told(ALPHA, BETA, GAMMA))
    assert support is not None
    assert support.word_for_word == "alpha"
    assert support.summary().startswith("the answer of alpha, word for word; 2 sentences: 1 in all 3 proposals")


@pytest.mark.parametrize("model", ["gpt-4", "vicuna-7b-v1.3"])
def test_what_a_consensus_picks_is_found_in_its_sources(model: str) -> None:
    """Every sentence of ``offline:consensus`` over extracts of real answers is found in one of them."""
    from moa_nb.providers.offline import answer

    n = 0
    for said in list(answers_of(model).values())[:40]:
        question = (Message("user", f"Summarize:\n\n{said}"),)
        extracts = [
            answer(Request(f"offline:{name}", question, material=said)).text
            for name in ("textrank", "lexrank", "lsa", "lead")
        ]
        final = answer(Request("offline:consensus", question, material=said, references=tuple(extracts))).text
        support = support_of(told(*extracts, final=final, names=("textrank", "lexrank", "lsa", "lead")))
        marked = [] if support is None else [one for one in support.sentences if one.by is not None]
        assert [one.text for one in marked if not one.by] == []
        n += len(marked)
    assert n > 80


def test_what_answers_another_question_is_not_found() -> None:
    """Of real sentences at most one in a hundred is found in answers to another question; many in those to the same."""
    models = [answers_of(model) for model in ("claude-v1", "vicuna-7b-v1.3", "vicuna-13b-v1.3", "vicuna-33b-v1.3")]
    final = answers_of("gpt-4")
    questions = sorted(final)
    same = other = total = 0
    for at, question in enumerate(questions):
        another = questions[(at + 11) % len(questions)]
        for near, asked in ((True, question), (False, another)):
            run = told(*(model[asked] for model in models), final=final[question], names=("a", "b", "c", "d"))
            support = support_of(run)
            by = [one.by for one in support.sentences if one.by is not None] if support else []
            found = sum(map(bool, by))
            same, other = (same + found, other) if near else (same, other + found)
            total += near * len(by)
    assert total > 500
    assert other / total < 0.01
    assert same / total > 0.35


@given(st.text(max_size=300), st.lists(st.text(max_size=300), min_size=2, max_size=4))
@settings(deadline=None)
def test_no_text_breaks_the_comparison(final: str, answers: list[str]) -> None:
    """Whatever is said, each mark stands within its passage and names proposals that there are."""
    run = told(*answers, final=final or "x", names="abcd")
    support = support_of(run)
    if support is not None:
        parts = passages(run.text)
        for sentence in support.sentences:
            assert 0 < sentence.end <= len(parts[sentence.passage][0])
            assert set(sentence.by or ()) <= set(range(len(support.agents)))
    assert_harmless(html.panel(view_of(run)), PANEL_TAGS, ATTRIBUTES)


# Marks in a text --------------------------------------------------------------------------------


def test_a_mark_stands_after_its_sentence() -> None:
    """After the emphasis that ends with it, before the next one, in paragraphs and items, not in code or tables."""
    said = "**One is so.** Two is [not](https://x.org).\n\n```\nOne.\n```\n\n| a |\n|---|\n| One. |\n\n- three is *so*"
    assert passages(said) == [("One is so. Two is not.", False), ("three is so", True)]
    marks = (Mark(0, 10, "M1", "#111111"), Mark(0, 22, "M2", "#111111"), Mark(1, 11, "M3", "#111111", "who"))
    page = to_html(said, marks=marks)
    assert re.search(r"<strong>One is so\.</strong>(?:\s|&nbsp;)<span[^>]*>M1</span> Two is", page)
    assert re.search(r"not</a>\.(?:\s|&nbsp;)<span[^>]*>M2</span></div>", page)
    assert re.search(r'<em>so</em>(?:\s|&nbsp;)<span[^>]*title="who"[^>]*>M3</span>', page)
    assert Tags(re.sub(r"(?:\s|&nbsp;)<span[^>]*>M\d</span>", "", page)).text == Tags(to_html(said)).text


def test_names_in_marks_are_harmless() -> None:
    """An agent may have any name."""
    run = told(ALPHA, BETA, BETA, final=ANSWER, names=(HOSTILE, "<b>", '"x" onclick=alert(1)'))
    shown = bundle(run)
    assert_harmless(shown["text/html"], PANEL_TAGS, ATTRIBUTES)
    assert "only &lt;script&gt;" in shown["text/html"]


def test_every_form_says_where_it_comes_from() -> None:
    """The panel after each sentence; Markdown and plain text in lines below."""
    run = told(ALPHA, BETA, GAMMA, final=ANSWER)
    shown = bundle(run)
    words = Tags(shown["text/html"]).text
    assert "met a support backlog. 3 of 3 Those who waited" in words
    assert "May. no proposal 4 sentences: 1 in all 3 proposals, 2 in only one, 1 in none" in words
    for form in ("text/markdown", "text/plain"):
        assert "4 sentences: 1 in all 3 proposals" in shown[form]
        assert re.search(r"no proposal: Competitors cut their prices by 12 % in May\.", shown[form])
    assert "3 of 3" not in shown["text/plain"].splitlines()[0], "the answer itself can be copied"


# How it was decided -----------------------------------------------------------------------------


def said_by(account: Account) -> list[list[str]]:
    """Return the words of an account's lines."""
    return [[cell.text for cell in entry.cells] for entry in account.entries]


def valued(*values: Any, name: str = "samples") -> Layer:
    """Return a layer in which each agent's answer has a value."""
    return Layer(
        name,
        tuple(Call("abcdefgh"[at], "lab:m", text=f"It is {value}.", value=value) for at, value in enumerate(values)),
    )


def test_a_vote_shows_who_voted_what() -> None:
    """The heaviest first, the winner marked, who could not be read named."""
    (account,) = accounts_of(Result("It is 42.", "vote", (valued(41, 42, "42.0", None),), value=42))
    assert account.words == "they disagree: 2 of 4 say 42"
    assert said_by(account) == [["42", "", "2 of 4", "b, c"], ["41", "", "1 of 4", "a"], ["no vote", "", "1 of 4", "d"]]
    assert [entry.is_chosen for entry in account.entries] == [True, False, False]
    (account,) = accounts_of(Result("It is 42.", "vote", (valued(42, 42),), value=42))
    assert (account.words, account.entries) == ("all 2 say 42", ())


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (("The answer is 42.", "So the answer is 42.", "Answer: 41"), "42 (alpha, beta), 41 (gamma)"),
        (("Yes, it rose.", "**No.** It fell.", "yes"), "yes (alpha, gamma), no (beta)"),
        (("The answer is 42.", "Answer: 42"), None),
        (("It rose by 42 % in 2024.", "It rose by 41 % in 2023."), None),
        (("Yes, it rose.", "It rose."), None),
        (("No one knows it.", "Yes, it rose."), None),
    ],
)
def test_free_texts_disagree_only_where_each_states_an_answer(answers: tuple[str, ...], words: str | None) -> None:
    """Numbers that are said to be the answer, yes and no; else nothing is claimed."""
    assert [one.words for one in accounts_of(told(*answers, final="So."))] == ([] if words is None else [words])


def test_stated_numbers_of_real_answers_are_read_right() -> None:
    """Where a real pair of solutions is said to disagree, one of them is wrong, but for a few in a hundred."""
    said = both_right = 0
    for row in rows("gsm8k_six_models/first_660.jsonl.gz"):
        one, other = row["mixtral-8x7b-instruct"], row["gpt-4-1106-preview"]
        run = told(one["solution"], other["solution"], final="So.", conversation=(Message("user", row["question"]),))
        if accounts_of(run):
            said += 1
            both_right += one["is_correct"] and other["is_correct"]
    assert said > 150
    assert both_right / said < 0.03


def judged(verdicts: Iterable[Any], *, n: int = 3, judges: int = 1) -> Result:
    """Return a run whose judge said so of each pair, or answer, in the order in which they are asked."""
    answers = tuple(Call("abc"[at], "lab:m", text=f"{'abc'[at]} it is.") for at in range(n))
    said = list(verdicts)
    calls = tuple(
        Call(f"j{at * judges // len(said)}", "lab:j", text=str(one), value=one) for at, one in enumerate(said)
    )
    return Result(answers[0].text, "judge", (Layer("answers", answers), Layer("verdicts", calls, aside=True)))


def test_verdicts_show_who_won_and_which_flipped() -> None:
    """(0,1) is decided by place, 0 beats 2 in both orders, 1 and 2 tie."""
    run = judged(["A", "A", "A", "C", "B", "C"])
    (account,) = accounts_of(run)
    assert (
        account.words
        == "by j0, each pair in both orders; 1 of 3 pairs flipped when the answers changed places, and count as ties"
    )
    assert said_by(account) == [
        ["a", "", "flipped", "won", "0.75"],
        ["b", "flipped", "", "tie", "0.50"],
        ["c", "lost", "tie", "", "0.25"],
    ]
    assert [entry.is_chosen for entry in account.entries] == [True, False, False]
    abouts = [call.note for call in view_of(run).layers[1].calls]
    assert abouts == ["a or b: a", "a or c: a", "b or a: b", "b or c: a tie", "c or a: a", "c or b: a tie"]


def test_several_judges_and_one_order_are_shown_as_such() -> None:
    """Counts of what each judge said; without a second order nothing can flip."""
    (account,) = accounts_of(judged(["A", "A", "A", "B", "A", None], judges=2))
    assert account.words == "the mean of 2 judges, each pair in one order"
    assert said_by(account)[0] == ["a", "", "1 won, 1 lost", "2 won", "0.75"]
    assert said_by(account)[1][3] == "1 won, 1 unread"


def test_ratings_are_shown_with_their_mean() -> None:
    """A column a judge where there are several, and a dash for what could not be read."""
    (account,) = accounts_of(judged([7, None, 9, 8, 6, 9], judges=2))
    assert account.heads == ("", "j0", "j1", "rating")
    assert said_by(account) == [["a", "7", "8", "7.5"], ["b", "\N{EN DASH}", "6", "6"], ["c", "9", "9", "9"]]
    run = judged([7, None, 9])
    assert [call.note for call in view_of(run).layers[1].calls] == ["a: 7", "b", "c: 9"]


def test_of_equal_answers_one_is_the_answer() -> None:
    """That which the judge liked best."""
    run = judged([7, 5, 9])
    answers = tuple(replace(call, text="The same.") for call in run.layers[0].calls)
    same = run.replace(text="The same.", layers=(Layer("answers", answers), run.layers[1]))
    assert [entry.is_chosen for entry in accounts_of(same)[0].entries] == [False, False, True]


def test_a_critique_says_whose_answer_it_is_about(server: ChatServer) -> None:
    """Each agent criticizes all; where their number does not tell of whom, nothing is said."""
    configured(server)
    Models(accept=False).serve(server)
    run = moa.run("Why did the mill close?", pipeline=pipeline("attention-moa"))
    view = view_of(run)
    (critiques, revisions) = (
        layer for layer in view.layers if layer.name in {"layer 1: critiques", "layer 1: revisions"}
    )
    assert [call.note for call in critiques.calls] == ["a", "b", "c"] * 3
    assert revisions.caption == "each writes its answer again, with what the others say of it"
    fewer = tuple(replace(one, calls=one.calls[:-1]) if one.name == "layer 1: critiques" else one for one in run.layers)
    assert {call.note for call in view_of(run.replace(layers=fewer)).layers[1].calls} == {None}


def test_verdicts_whose_pairs_are_not_known_are_not_guessed() -> None:
    """Where the numbers, or the prompts, do not fit, there is no table."""
    assert accounts_of(judged(["A", "B", "A", "B"])) == ()
    run = judged(["A", "B"], n=2)
    first, second = run.layers
    wrong = tuple(
        Call(one.agent, one.model, (Message("user", "another pair"),), one.text, value=one.value)
        for one in second.calls
    )
    assert accounts_of(run.replace(layers=(first, Layer("verdicts", wrong, aside=True)))) == ()


def test_tiers_show_what_the_gate_saw() -> None:
    """Each tier with its score, whether it was accepted, and which one stands."""
    layers = (
        Layer("tier 1", (Call("small", "lab:s", text="It is 40."),)),
        Layer("tier 1: score", (Call("judge", "lab:j", text="[[0.35]]", value=0.35),), aside=True),
        Layer("tier 2", (Call("middle", "lab:m", error="cut"),)),
        Layer("tier 3", (Call("strong", "lab:t", text="It is 42."),)),
    )
    account = accounts_of(Result("It is 42.", "cascade", layers, accepted=False))[0]
    assert account.words == "it went on to tier 3"
    assert said_by(account) == [
        ["tier 1", "small", "score 0.35", "not accepted, went on"],
        ["tier 2", "middle", "", "failed"],
        ["tier 3", "strong", "", "stands, and nothing accepted it"],
    ]
    account = accounts_of(Result("It is 40.", "cascade", layers[:2], accepted=True))[0]
    assert (account.words, said_by(account)[0][3]) == ("the first tier's answer stands", "accepted")


def test_checks_of_a_tier_are_counted() -> None:
    """The share of the verdicts that could be read."""
    checks = tuple(
        Call(f"small {at}", "lab:s", text="x", value=one) for at, one in enumerate((True, True, False, None))
    )
    layers = (Layer("tier 1", (Call("small", "lab:s", text="It."),)), Layer("tier 1: verification", checks, aside=True))
    assert said_by(accounts_of(Result("It.", "automix", layers))[0])[0][2] == "2 of 3 checks say it is correct"


def test_rounds_show_who_changed() -> None:
    """By value where there is one, by likeness of the texts else."""
    layers = (valued(41, 42, name="round 1"), valued(42, 42, name="round 2"))
    *_, account = accounts_of(Result("It is 42.", "debate", layers, value=42, converged=True))
    assert account.words == "1 of 2 changed the answer; they agree in the end"
    assert said_by(account) == [["a", "41", "42"], ["b", "42", "42"]]
    texts = [(ALPHA, BETA), (ALPHA, f"{BETA}\n- small accounts were hit hardest by far")]
    free = tuple(
        Layer(f"round {number}", tuple(Call(name, "lab:m", text=one) for name, one in zip("ab", said, strict=True)))
        for number, said in enumerate(texts, start=1)
    )
    (account,) = accounts_of(Result(ALPHA, "debate", free))
    assert said_by(account)[0] == ["a", "answered", "the same"]
    assert re.fullmatch(r"\d\d % alike", said_by(account)[1][2])


def test_a_form_is_shown_field_by_field() -> None:
    """The value, who said what, and how many say so; in place of its JSON."""
    values = [{"label": "bug", "stars": 2}, {"label": "praise", "stars": 2.0}, {"label": "bug", "stars": 2}]
    final = {"label": "bug", "stars": 2}
    calls = tuple(Call(name, "lab:m", text=json.dumps(one), value=one) for name, one in zip("abc", values, strict=True))
    layers = (Layer("layer 1", calls), Layer("layer 2", (Call("z", "lab:z", text=json.dumps(final), value=final),)))
    run = Result(json.dumps(final), "moa-lite", layers, value=final)
    (account,) = accounts_of(run)
    assert account.words == "all 3 proposals agree on 1 of 2 fields"
    assert said_by(account) == [["label", "bug", "bug (a, c); praise (b)", "2 of 3"], ["stars", "2", "", "3 of 3"]]
    words = Tags(html.panel(view_of(run))).text
    assert "who said what" in words.partition("Layer 1")[0]
    assert "{" not in words.partition("Layer 1")[0]
    long = run.replace(value={"label": "x " * 2000})
    assert "{" in Tags(html.panel(view_of(long))).text.partition("Layer 1")[0]


def test_a_kept_record_tells_the_same(server: ChatServer) -> None:
    """What comes back from the store as plain data is shown as it was."""
    configured(server)
    Models(accept=False).serve(server)
    run = moa.run("Why did the mill close?", pipeline=pipeline("smoa"))
    kept = Result.from_record(json.loads(json.dumps(run.to_record(), default=vars)))
    assert accounts_of(kept) == accounts_of(run)
    assert any(account.title == "Moderation" for account in accounts_of(run))
    assert view_of(kept).layers[-1].caption == "the aggregator reads 2 answers", "those that the moderator let through"


VALUES = st.one_of(
    st.none(),
    st.sampled_from(
        ["A", "B", "C", "", "strong", 0.4, 7, 42, True, False, float("nan"), [1], {"keep": [0, "x"], "end": 1}]
    ),
    st.text(max_size=5),
)
NAMES = st.sampled_from(
    [
        *("answers", "verdicts", "samples", "choice", "round 1", "round 2", "round 2: moderation", "tier 1", "tier 2"),
        *("tier 1: score", "tier 1: verification", "routing", "answer", "base", "oracle", "layer 2: residual"),
        *("tier 1 › debate › round 1", "answers › a › samples", "layer 1"),
    ],
)
LAYERS = st.builds(
    lambda name, values, aside: replace(valued(*values, name=name), aside=aside),
    NAMES,
    st.lists(VALUES, min_size=1, max_size=7),
    st.booleans(),
)


@given(st.lists(LAYERS, max_size=5), VALUES)
@settings(deadline=None, max_examples=200)
def test_no_record_breaks_the_panel(layers: list[Layer], value: Any) -> None:
    """Whatever a strategy of somebody's own calls its layers, and reads from its calls, there is a panel."""
    run = Result("It is 42.", "own", tuple(layers), value)
    shown = bundle(run)
    assert_harmless(shown["text/html"], PANEL_TAGS, ATTRIBUTES)


EXPECTED = {
    "judge": "Ratings",
    "judge-pairwise": "Verdicts",
    "pairs in one order": "Verdicts",
    "rank-and-fuse": "Verdicts",
    "cascade": "Cascade",
    "automix": "Cascade",
    "three tiers": "Cascade",
    "consistency-cascade": "Cascade",
    "a cascade of pipelines": "Cascade",
    "debate": "Rounds",
    "debate of numbers": "Vote",
    "votes of numbers": "Vote",
    "smoa": "Moderation",
    "route": "Route",
    "universal-self-consistency": "Choice",
    "pyramid": "Base and oracle",
}


@pytest.mark.parametrize("accept", [True, False], ids=["agreeing", "differing"])
@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_strategy_shows_itself(server: ChatServer, name: str, *, accept: bool) -> None:
    """Its real run has a panel in every form, harmless, with the account that is its own."""
    configured(server)
    Models(accept).serve(server)
    run = moa.run("How many eggs are left of 16 when 9 are eaten?", pipeline=pipeline(name))
    view = view_of(run)
    assert len(view.calls) == run.n_calls
    if name in EXPECTED:
        assert EXPECTED[name] in {account.title for account in view.accounts}
    shown = bundle(run)
    assert_harmless(shown["text/html"], PANEL_TAGS, ATTRIBUTES)
    words = Tags(shown["text/html"]).text
    for account in view.accounts:
        assert account.title in words
        assert account.title in shown["text/markdown"]
    assert len(shown["text/plain"].splitlines()) <= 40


# Size -------------------------------------------------------------------------------------------


def test_thirty_agents_with_long_answers_stay_readable() -> None:
    """Thirty proposals of 100 kB and an answer of as much keep to the size, whole rows and marks included."""
    paragraph = " ".join(f"Reason {number} is that {ALPHA} {GAMMA}" for number in range(40))
    long = "\n\n".join([paragraph] * 12)[:100_000]
    calls = tuple(
        Call(f"agent {at}", "lab:m", text=long[at * 60 :], usage=Usage(10, 20), cost=0.001) for at in range(30)
    )
    run = Result(long, "moa", (Layer("layer 1", calls), Layer("layer 2", (Call("z", "lab:z", text=long),))))
    page = html.panel(view_of(run))
    assert len(page.encode()) <= html.MAX_BYTES
    assert page.count("agent ") >= 30
    assert "30 of 30" in page
    assert "only the beginnings were compared" in page
    assert len(text.markdown(view_of(run))) < 60_000


def test_the_summary_says_what_the_marks_say() -> None:
    """The counts of all marks together are those of the sentences."""
    support = support_of(told(ALPHA, BETA, GAMMA, final=ANSWER))
    assert isinstance(support, Support)
    assert [support.words(one) for one in support.apart()] == ["no proposal", "only alpha", "only beta"]
