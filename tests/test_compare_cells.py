"""``%%moa --compare``: pipelines side by side, under one budget, judged if asked; and differences word by word."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magics import (  # noqa: F401 - fixtures
    KEY,
    RUN,
    Notebook,
    in_front_end_fixture,
    notebook_fixture,
    server_fixture,
    shell_fixture,
)
from markdown_it import MarkdownIt
from test_panels import ATTRIBUTES, HOSTILE, PANEL_TAGS, RENDERED_TAGS, Tags, assert_harmless, churn, hostile

import moa_nb as moa
from moa_nb import settings
from moa_nb.engine import current
from moa_nb.panels.comparison import Comparison
from moa_nb.panels.difference import difference, to_html, to_markdown, to_words
from moa_nb.testing import ChatServer, Reply

# What differs -----------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from(["a", "the", "mill", "Mill", ",", ".", "\n", " ", "  ", "磨", "坊", "x_1", "**", "é"]), max_size=60
)
TEXTS = WORDS.map("".join) | WORDS.map(" ".join) | st.text(max_size=80)


@given(TEXTS, TEXTS)
def test_a_difference_holds_both_texts(one: str, other: str) -> None:
    """What stays and goes is the one text, what stays and comes the other; no stretch is empty or stands beside its like."""
    parts = difference(one, other)
    assert "".join(text for kind, text in parts if kind != "added") == one
    assert "".join(text for kind, text in parts if kind != "removed") == other
    assert all(text for _, text in parts)
    assert all(here[0] != there[0] for here, there in pairwise(parts))


@given(TEXTS)
def test_equal_texts_differ_in_nothing(said: str) -> None:
    """A text and itself are one stretch that stays."""
    assert difference(said, said) == ([("same", said)] if said else [])


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("It is fast.", "It is slow.", "It is [-fast-]{+slow+}."),
        ("a b c d", "a x y d", "a [-b c-]{+x y+} d"),
        ("**big** news", "big news", "[-**-]big[-**-] news"),
        ("磨坊五月关闭", "磨坊六月关闭", "磨坊[-五-]{+六+}月关闭"),
        ("one\ntwo", "one\ntwo\nthree", "one\ntwo{+\nthree+}"),
        ("", "all of it", "{+all of it+}"),
    ],
)
def test_words_are_marked_whole(one: str, other: str, told: str) -> None:
    """Words are not taken apart, and changes on both sides of a blank read as one."""
    assert to_words(difference(one, other)) == told


@given(TEXTS | st.just(HOSTILE), TEXTS | st.just(HOSTILE))
def test_marks_are_all_that_a_difference_adds(one: str, other: str) -> None:
    """In HTML it is the marks and escaped text; as Markdown no text of it becomes a tag."""
    parts = difference(one, other)
    page = to_html(parts)
    assert_harmless(page, {"ins", "del"}, {"style"})
    rendered = MarkdownIt("commonmark", {"html": True}).enable("strikethrough").render(to_markdown(parts))
    assert_harmless(rendered, RENDERED_TAGS | {"s"}, ATTRIBUTES)


@pytest.mark.parametrize("n_words", [90, 120, 2_000])
def test_long_texts_are_compared_too(n_words: int) -> None:
    """Texts too long for a comparison word by word are compared by lines, and both are still whole."""
    words = random.Random(n_words)
    lines = [" ".join(words.choices([f"w{n}" for n in range(n_words)], k=12)) for _ in range(2_000)]
    other = [*lines[:700], "something else", *lines[701:]]
    parts = difference("\n".join(lines), "\n".join(other))
    assert [kind for kind, _ in parts] == ["same", "removed", "added", "same"]
    assert parts[2][1] == "something else\n"


# Side by side -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _answers(server: ChatServer) -> None:
    server.on("alpha", "The mill closed in May.")
    server.on("beta", "The mill shut in June.")


def test_pipelines_answer_side_by_side(notebook: Notebook, server: ChatServer) -> None:
    """Each gives a result under its name, in the order in which they were named, with all figures in a frame."""
    shown = notebook.ask("both --compare single,moa-lite --budget 1")
    assert shown.error is None
    both = notebook.variables["both"]
    assert list(both) == ["single", "moa-lite"]
    assert [result.n_calls for result in both.values()] == [1, 3]
    assert both["moa-lite"].agreement is not None
    frame = both.to_frame()
    assert frame["calls"].tolist() == [1, 3]
    assert frame["completion_tokens"].sum() == sum(result.usage.completion_tokens for result in both.values())
    for word in (
        "2 pipelines for $",
        "whose answers are 100 % alike",
        "--- single ---",
        "word for word the answer of single",
        "moa-lite",
    ):
        assert word in shown.printed
    assert {row.pipeline for row in current().store(settings.current()).runs()} == {"single", "moa-lite"}
    assert moa.last() is both["moa-lite"]


def test_they_run_at_the_same_time(notebook: Notebook, server: ChatServer, meet: Callable[..., None]) -> None:
    """No pipeline waits for another: all first calls are in flight together."""
    moa.configure(timeout=60.0, retry_seconds=0.0)
    meet(3)  # nobody is answered before the first calls of both are here
    assert notebook.ask("both --compare single,moa-lite").error is None
    assert not any(result.degraded for result in notebook.variables["both"].values())
    assert server.max_in_flight >= 3


def test_a_call_that_two_pipelines_share_is_asked_once_and_counts_for_each(
    notebook: Notebook, server: ChatServer
) -> None:
    """Equal questions are one request; each pipeline's dollars are what it takes alone, and what was paid is less."""
    notebook.ask("both --compare moa-lite,moa")
    both = notebook.variables["both"]
    assert server.count("alpha") == 2  # the second layer of moa asks anew
    frame = both.to_frame()
    assert both.cost < frame["cost"].sum()
    alone = notebook.answer("-p moa --no-cache")
    assert frame["cost"]["moa"] == pytest.approx(alone.cost, rel=0.1)


def test_one_budget_holds_for_all(notebook: Notebook, server: ChatServer) -> None:
    """What one pipeline spends is gone for the others and for the judge: all together never pass it."""
    price = {"prompt_price": 0.0, "completion_price": 1000.0}
    moa.configure(models={f"lab:{name}": price for name in ("alpha", "beta", "gamma")})
    shown = notebook.ask("some --compare single,moa-lite,self-moa --judge lab:beta --max-tokens 10 --budget 0.02")
    assert shown.error is None
    some = notebook.variables["some"]
    assert 0 < some.cost <= 0.02
    assert any(result.error and "budget" in result.error for result in some.values())
    assert "No answer." in shown.printed


def test_a_pipeline_that_fails_stands_beside_the_others(in_front_end: Notebook, server: ChatServer) -> None:
    """Its error is shown in its column; only where none answers the cell fails, in one line."""
    server.on("alpha", Reply.refused_key())
    server.on("beta", Reply.refused_key())
    shown = in_front_end.ask("both --compare single,moa-lite")
    assert shown.error is None
    page = shown.displays[-1]["text/html"]
    assert "The <strong>final</strong> answer." in page
    assert "No answer." in page
    assert in_front_end.variables["both"]["moa-lite"].error
    server.on("gamma", Reply.refused_key())
    failed = in_front_end.ask("--compare single,moa-lite --refresh")
    assert "LAB_KEY" in failed.said
    assert KEY not in json.dumps([shown.displays, failed.displays])


def test_a_judge_compares_every_two_in_both_orders(notebook: Notebook, server: ChatServer) -> None:
    """Who is named in both orders has the point; a judge that favours a place gives half of it to each."""

    def judge(body: dict[str, Any]) -> str:
        text = str(body["messages"])
        return "[[A]]" if text.find("in June") < text.find("in May") else "[[B]]"

    server.on("judge", judge)
    line = "both --compare single,moa-lite -m lab:alpha --judge lab:judge"
    moa.configure(models={"lab:judge": {"prompt_price": 1.0, "completion_price": 1.0}}, aggregator="lab:beta")
    server.on("beta", lambda body: "shut in June" if len(body["messages"]) == 1 else "closed in May")
    notebook.ask(line.replace(" -m lab:alpha", ""))
    both = notebook.variables["both"]
    assert both.points == {"single": 1.0, "moa-lite": 0.0}
    assert [record.body["temperature"] for record in server.requests if record.model == "judge"] == [0, 0]
    assert both.judged is not None
    assert both.cost == pytest.approx(sum(one.cost for one in both.values()) + both.judged.cost)
    server.on("judge", "[[A]]")
    notebook.ask(f"{line.replace(' -m lab:alpha', '')} --refresh")
    assert notebook.variables["both"].points == {"single": 0.5, "moa-lite": 0.5}
    assert "judged by lab:judge" in repr(notebook.variables["both"])


def test_a_reference_is_shown_to_the_judge_alone(notebook: Notebook, server: ChatServer) -> None:
    """``--reference`` with its variables goes to who judges, and to nobody who answers."""
    notebook.variables["gold"] = "It burnt down."
    server.on("gamma", lambda body: "one" if len(body["messages"]) == 1 else "two")
    server.on("judge", "[[A]]")
    moa.configure(models={"lab:judge": {"prompt_price": 1.0, "completion_price": 1.0}})
    notebook.ask("both --compare single,moa-lite --judge lab:judge --reference 'Right: {{ gold }}'")
    assert server.count("judge") == 2
    for record in server.requests:
        assert ("Right: It burnt down." in str(record.messages)) == (record.model == "judge")
    server.on("*", "[[5]]")
    assert notebook.ask("-p judge --reference 'Right: {{ gold }}'").error is None
    assert "Right: It burnt down." in str(server.requests[-1].messages)


def test_equal_answers_need_no_judge(notebook: Notebook, server: ChatServer) -> None:
    """Where all say the same, nobody is asked who is better."""
    notebook.ask("both --compare single,moa-lite --judge lab:judge")
    assert server.count("judge") == 0
    assert notebook.variables["both"].points == {}


def test_a_judge_that_fails_leaves_the_answers(notebook: Notebook, server: ChatServer) -> None:
    """The answers were paid for: they are shown, without points, and why is said."""
    server.on("gamma", lambda body: "one" if len(body["messages"]) == 1 else "two")
    server.on("judge", Reply.refused_key())
    shown = notebook.ask("both --compare single,moa-lite --judge lab:judge")
    assert shown.error is None
    assert notebook.variables["both"].points == {"single": None, "moa-lite": None}
    assert "judge: " in shown.printed


# What is shown ----------------------------------------------------------------------------------


def test_a_line_says_how_far_they_are_and_the_table_takes_its_place(in_front_end: Notebook) -> None:
    """One display, updated: in the end a static bundle with every form and the provenance of all runs."""
    shown = in_front_end.ask("--compare single,moa-lite")
    first, *_, last = shown.displays
    assert first["text/plain"] == "single: begins; moa-lite: begins"
    assert set(last) == {"text/html", "text/markdown", "text/plain", RUN}
    assert [run["pipeline"] for run in last[RUN]["runs"]] == ["single", "moa-lite"]
    assert shown.printed == ""


@pytest.mark.parametrize(("form", "kinds"), [("text", {"text/plain"}), ("json", {"application/json", "text/plain"})])
def test_other_forms_of_a_comparison(in_front_end: Notebook, form: str, kinds: set[str]) -> None:
    """``-f`` and ``-q`` hold here too, and the result shows itself again."""
    assert set(in_front_end.ask(f"both --compare single,moa-lite -f {form}").displays[-1]) == kinds
    assert in_front_end.ask("both --compare single,moa-lite -q").displays == []
    (again,) = in_front_end.run("both").displays or [in_front_end.variables["both"]._repr_mimebundle_()]
    assert RUN in again


def test_a_stopped_comparison_says_what_is_kept(notebook: Notebook, server: ChatServer) -> None:
    """■ ends all pipelines; finished calls are answered from the cache when the cell runs again."""
    kept = current().store(settings.current())

    def press() -> None:  # once one of them is over, and the other waits for its last call
        if server.wait_until(lambda: server.count() == 4 and len(kept.runs()) == 1, seconds=60):
            os.kill(os.getpid(), signal.SIGINT)

    server.on("gamma", lambda body: Reply("done") if len(body["messages"]) == 1 else Reply.hanging())
    pressing = threading.Thread(target=press)
    pressing.start()
    shown = notebook.ask("both --compare single,moa-lite")
    pressing.join()
    assert isinstance(shown.error, KeyboardInterrupt)
    assert "finished calls kept" in str(shown.error)
    assert server.wait_until(lambda: server.in_flight == 0)
    server.on("gamma", "final")
    n_before = server.count()
    assert notebook.ask("both --compare single,moa-lite").error is None
    assert server.count() - n_before == 1


def test_a_dry_run_prices_each(notebook: Notebook, server: ChatServer) -> None:
    """``--dry-run`` lists calls, tokens and dollars of each pipeline, and sends nothing."""
    listed = notebook.ask("--compare single,moa-lite --dry-run").table
    assert "nothing was sent" in listed
    assert [line.split()[:2] for line in listed.splitlines()[3:]] == [["single", "1"], ["moa-lite", "3"]]
    assert server.count() == 0


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("--compare single", "two pipelines or more"),
        ("--compare single,single", "each once"),
        ("--compare single,moa-lit", "did you mean 'moa-lite'?"),
        ("--compare single,moa -p moa", "leave -p and --chat out"),
        ("--compare single,moa --chat x", "leave -p and --chat out"),
        ("--judge lab:beta", "--compare"),
        ("--compare single,moa --judge beta", "provider:model"),
        ("--compare single,moa --judge offline:lead", "offline:lead"),
        ("--reference right", "has none"),
        ("-p judge --reference '{{ rigt }}'", "rigt"),
        ("--schema Fields", "no variable 'Fields'"),
        ("--schema number", "schema"),
        ("--mode fast", "batch"),
        ("--mode batch", "Batch API"),
        ("--chat ''", "cannot be a chat's name"),
    ],
)
def test_a_mistake_costs_nothing(notebook: Notebook, server: ChatServer, line: str, right: str) -> None:
    """Each is one line with what would be right, and nothing is sent."""
    notebook.variables["number"] = 3
    assert right in notebook.ask(line).said
    assert server.count() == 0


def test_a_schema_is_filled_in(notebook: Notebook, server: ChatServer) -> None:
    """``--schema`` takes a variable; the result has the value, in one pipeline and side by side."""
    server.on("*", '{"price": 3, "mood": "good"}')
    for name in ("alpha", "beta", "gamma"):
        server.on(name, '{"price": 3, "mood": "good"}')
    notebook.variables["Fields"] = {"price": float, "mood": str}
    assert notebook.answer("--schema Fields -p single").value == {"price": 3, "mood": "good"}
    notebook.ask("both --compare single,moa-lite --schema Fields")
    assert [result.value["mood"] for result in notebook.variables["both"].values()] == ["good", "good"]
    assert "did you mean 'Fields'?" in notebook.ask("--schema Field").said


def test_a_hostile_comparison_is_harmless_in_every_form() -> None:
    """No text of any result becomes a tag, handler or address."""
    made = Comparison(
        {HOSTILE: hostile(), "moa": churn(), "b": hostile().replace(text=HOSTILE + "!")}, {HOSTILE: 0.5}, hostile()
    )
    shown = made.bundle()
    assert_harmless(shown["text/html"], PANEL_TAGS | {"ins", "del", "th"}, ATTRIBUTES | {"class", "colspan"})
    rendered = (
        MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(shown["text/markdown"])
    )
    assert_harmless(rendered, RENDERED_TAGS, ATTRIBUTES)
    assert not any(sign in shown["text/plain"] for sign in "\x00\x1b\u202e\ud800")
    json.dumps(shown[RUN], allow_nan=False, ensure_ascii=False).encode()


def test_the_figures_stand_in_every_form() -> None:
    """Calls, cached ones, tokens, dollars, seconds and points of each pipeline are in one line of the table."""
    made = Comparison({"one": churn(), "other": churn(seconds=12.3, text="Rain.")}, {"one": 1.0, "other": 0.0})
    shown = made.bundle()
    for text in (Tags(shown["text/html"]).text, shown["text/markdown"], shown["text/plain"]):
        line = re.sub(r"[|\s]+", " ", text)
        assert " one 5 1 2,140 890 0.0123 6.4 – 1.00 other 5 1 2,140 890 0.0123 12.3 – 0.00 " in line
    assert made.to_frame()["seconds"].to_dict() == {"one": 6.4, "other": 12.3}


def test_a_strictly_sanitised_comparison_still_reads() -> None:
    """An export that knows no marks shows all words."""
    from nbconvert.filters.strings import clean_html

    made = Comparison({"one": churn(), "other": churn(text="Churn rose because of **the weather**.")})
    shown = Tags(clean_html(made.bundle()["text/html"])).text  # type: ignore[no-untyped-call]
    assert "Churn rose because of the weather" in shown
    assert "41 %" in shown


def test_a_large_comparison_is_cut() -> None:
    """However long the answers, the page stays small enough for a notebook, and says that it was cut."""
    made = Comparison({name: churn(text=f"{name} " * 60_000) for name in ("a", "b", "c")})
    shown = made.bundle()
    assert len(shown["text/html"]) < 400_000
    assert "more characters" in shown["text/html"]
