"""Reports people read: the figures of a run over rows, the same in pandas, in HTML, in Markdown, in text and in a picture."""

# ruff: noqa: PD011 - a run's ``values`` are its own

from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings
from dataclasses import fields, replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_panels import ATTRIBUTES, HOSTILE, PANEL_TAGS, RENDERED_TAGS, TEXTS, Tags, assert_harmless

import moa_nb as moa
from moa_nb.errors import SetupError
from moa_nb.frames.figures import _edges, _latency, view_of_run
from moa_nb.frames.plot import plot
from moa_nb.frames.run import FrameRun, RowsFailed
from moa_nb.panels import figures
from moa_nb.panels.frame_preview import PreviewedRow, PreviewView
from moa_nb.panels.frame_preview import bundle as preview_bundle
from moa_nb.panels.frame_report import bundle
from moa_nb.panels.frame_report.view import AgreementView, FailureView, LatencyView, ModelView, ReportView, RowView
from moa_nb.panels.frame_report.words import bare, duration, ranges
from moa_nb.panels.markdown import to_html
from moa_nb.panels.provenance import MIME_TYPE
from moa_nb.panels.view import view_of
from moa_nb.testing import ChatServer, Reply

PRICES = {"alpha": 3.0, "beta": 0.7, "judge": 11.0}

FORMS = {"text/html", "text/markdown", "text/plain", MIME_TYPE}


def use(server: ChatServer, **values: Any) -> None:
    """Make the server the lab of this test: two proposers and a judge, each with a price of its own."""
    settings: dict[str, Any] = {
        "providers": {"lab": {"base_url": server.base_url}},
        "models": {
            f"lab:{name}": {"prompt_price": price, "completion_price": 3 * price} for name, price in PRICES.items()
        },
        "proposers": ["lab:alpha", "lab:beta"],
        "aggregator": "lab:judge",
        "ask_above": 100.0,
        **values,
    }
    moa.configure(**settings)


WORDS = "the price went up in March and support was slow when customers asked why so they left for a rival"


def answer(body: dict[str, Any]) -> Reply:
    """Return other words for other rows and models; some rows are refused, some models fail."""
    said = " ".join(str(message["content"]) for message in body["messages"])
    number = int(re.findall(r"#(\d+)", said)[-1])
    if number % 10 == 3:
        return Reply.bad_request("**no** <b>such</b>\nquestion")
    if number % 10 == 4 and body["model"] == "beta":
        return Reply.too_long()
    start = number % 5 if body["model"] == "alpha" else 0
    return Reply(" ".join(WORDS.split()[start : start + 3 + number % 7]))


def frame(n: int = 30) -> pd.DataFrame:
    """Return rows of which every seventh has no text and the last repeats one before."""
    texts: list[str | None] = [None if number % 7 == 6 else f"Why #{number}?" for number in range(n)]
    texts[-1] = texts[1]
    return pd.DataFrame({"q": texts}, index=pd.Index([f"row {number}" for number in range(n)], name="customer"))


def last() -> FrameRun:
    """Return the last run, which was a frame's."""
    run = moa.last()
    assert isinstance(run, FrameRun)
    return run


def view_of_last() -> ReportView:
    """Return what the last run's report shows."""
    return view_of_run(last()._execution)


@pytest.fixture
def run(server: ChatServer) -> FrameRun:
    """A finished run of which a third was in the cache before, and some rows failed."""
    server.on("*", answer)
    use(server)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RowsFailed)
        frame().head(10).moa.synthesize("q", progress=False)
        frame().moa.synthesize("q", budget=5.0, progress=False)
    assert last().agreement.notna().any()
    return last()


OWN = ATTRIBUTES | {"class", "open", "colspan"}
"""The attributes of reports and panels."""


def words(page: str) -> str:
    """Return what a page says, in order."""
    return Tags(page).text


# The figures --------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_report(run: FrameRun) -> None:
    """Every figure of the view is what pandas makes of ``run.report`` and ``run.by_model``, to the last digit."""
    view, report, by_model, progress = view_of_last(), run.report, run.by_model, run.progress
    assert dict(view.states) == report["state"].value_counts().loc[lambda n: n > 0].to_dict()
    assert view.rows == len(report)
    assert view.n_over == progress.done
    assert view.degraded == int((report["degraded"] & (report["state"] == "done")).sum()) > 0
    assert (view.calls, view.cached) == (report["n_calls"].sum(), report["n_cached"].sum())
    assert (view.calls, view.cached) == (by_model["calls"].sum(), by_model["cached"].sum())
    assert view.cached > 0
    assert (view.prompt_tokens, view.completion_tokens) == (
        by_model["prompt_tokens"].sum(),
        by_model["completion_tokens"].sum(),
    )
    assert view.cost == progress.cost
    assert view.cost is not None
    assert math.isclose(view.cost, report["cost"].sum(), rel_tol=1e-12)
    assert math.isclose(view.cost, by_model["cost"].sum(), rel_tol=1e-12)
    assert (view.unsent, view.earlier_calls) == (0, 0)
    assert (view.seconds, view.rows_per_second) == (progress.seconds, progress.done / progress.seconds)

    shown = pd.DataFrame([{field.name: getattr(one, field.name) for field in fields(one)} for one in view.models])
    assert not shown.pop("estimated").any()
    pd.testing.assert_frame_equal(shown.astype({"cost": "Float64"}), by_model, check_exact=True)

    done = report[report["state"] == "done"]
    asked, cached = done[done["n_calls"] > done["n_cached"]], done[done["n_calls"] == done["n_cached"]]
    assert view.latency is not None
    assert view.latency.n_rows == len(asked) > 0
    assert view.latency.median == asked["seconds"].median()
    assert view.latency.p95 == asked["seconds"].quantile(0.95)
    assert view.latency.longest == asked["seconds"].max()
    assert (view.cached_rows, view.cached_seconds) == (len(cached), cached["seconds"].median())
    assert view.cached_rows > 0

    known = report["agreement"].dropna()
    assert view.agreement is not None
    assert view.agreement.n_rows == len(known)
    assert view.agreement.n_below == (known < 0.6).sum() > 0
    assert sum(view.agreement.counts[:6]) == view.agreement.n_below
    is_lacking = report["state"].isin(["done", "duplicate"]) & report["agreement"].isna()
    assert view.agreement.n_uncompared == is_lacking.sum()

    failed = report.dropna(subset="error")
    assert {one.kind: one.n_rows for one in view.failures} == failed["error_kind"].value_counts().to_dict()
    assert [(one.label, one.error) for one in view.failures] == [
        (group.index[0], group["error"].iloc[0]) for _, group in failed.groupby("error_kind")
    ]

    head = run.values.head(5)
    assert [row.label for row in view.head] == list(head.index)
    assert [row.values for row in view.head] == [(None if pd.isna(value) else value,) for value in head]
    assert [row.state for row in view.head] == report["state"].head(5).to_list()


def test_every_form_says_the_same_figures(run: FrameRun) -> None:
    """HTML, Markdown and plain text have the header, each model's dollars, both percentiles, and what to look at."""
    view, shown = view_of_last(), bundle(view_of_last())
    assert set(shown) == FORMS
    assert view.latency is not None
    assert view.agreement is not None
    assert view.cost is not None
    page = words(shown["text/html"])
    for text, sign in ((page, "$"), (shown["text/markdown"], "USD "), (shown["text/plain"], "$")):
        assert f"{sign}{figures.dollars(run.progress.cost)}" in text
        assert f"{view.calls:,} calls" in text
        for name, number in run.report["state"].value_counts().items():
            assert f"{number} {name}" in text
        for one in run.by_model.itertuples():
            assert figures.dollars(float(one.cost)) in text
            assert one.model in text
            assert f"{one.prompt_tokens:,} → {one.completion_tokens:,}" in text
        assert f"median {duration(view.latency.median)}, p95 {duration(view.latency.p95)}" in text
        assert f"{view.agreement.n_below} of {view.agreement.n_rows} rows below 0.6" in text
        assert "run.review(below=0.6)" in text.replace("\\", "")
        assert "of a budget of" in text
        assert view.failures[0].label in text
        assert "no" in text
    assert f"({view.degraded} degraded)" in page
    assert "customer" in page
    assert str(run.values.iloc[0]) in page


@pytest.mark.parametrize(
    ("pace", "said"), [(1234.4, "1,234 rows/s"), (9.94, "9.9 rows/s"), (0.25, "0.25 rows/s"), (None, None)]
)
def test_the_header_says_how_many_rows_a_second(pace: float | None, said: str | None) -> None:
    """Few are said with their fractions; where some were over before, nothing is said."""
    page = words(bundle(replace(made(), rows_per_second=pace))["text/html"])
    assert re.findall(r"[\d.,]+ rows/s", page) == ([] if said is None else [said])


def test_the_notebook_shows_one_page_and_a_terminal_few_lines(run: FrameRun) -> None:
    """The HTML of some rows is below 60 kB and keeps to what sanitisers know; the text is below 25 short lines."""
    shown = bundle(view_of_last())
    assert len(shown["text/html"].encode()) < 60_000
    assert_harmless(shown["text/html"], PANEL_TAGS, OWN)
    assert "<svg" not in shown["text/html"]
    lines = shown["text/plain"].split("\n")
    assert len(lines) < 25
    assert max(map(len, lines)) < 220


def test_a_strictly_sanitised_report_still_reads(run: FrameRun) -> None:
    """Where a page loses all its styles, every bar's number stands beside its range."""
    bare_page = re.sub(r' style="[^"]*"', "", bundle(view_of_last())["text/html"])
    view = view_of_last()
    assert view.latency is not None
    said = words(bare_page)
    for label, number in zip(ranges(view.latency), view.latency.counts, strict=True):
        assert f"{label} s {number}" in said


# Honest where it is not known ---------------------------------------------------------------------


def test_an_unknown_price_is_unknown_in_every_form(server: ChatServer) -> None:
    """Where a price is not known, no form says a number for the whole, and the priced part is its least."""
    server.on("*", "an answer")
    models = {f"lab:{name}": {"prompt_price": 1.0, "completion_price": 1.0} for name in ("alpha", "judge")}
    use(server, models=models)
    frame(4).moa.synthesize("q", progress=False)
    view = view_of_last()
    assert view.cost is None
    assert [one.cost is None for one in view.models] == [one.model == "lab:beta" for one in view.models]
    shown = bundle(view)
    for text in (words(shown["text/html"]), shown["text/markdown"], shown["text/plain"]):
        assert "unknown cost" in text
        assert "no known price" in text
    known = sum(one.cost or 0 for one in view.models)
    assert f"≥{figures.dollars(known)}" in words(shown["text/html"])


def test_tokens_that_nobody_counted_are_unknown() -> None:
    """Where no tokens are known, none are said; where some are not, the others are 'at least'."""
    for number, said in ((0, "unknown"), (12, "at least 12")):
        shown = bundle(replace(made(), tokens_are_at_least=True, prompt_tokens=number, completion_tokens=0))
        assert f"{said} in unknown out" in words(shown["text/html"])
        assert f"{said} tokens in" in shown["text/plain"]


def test_tokens_that_were_estimated_say_so() -> None:
    """Of agents that report none, such as the offline ones; those of services stand as they were told."""
    pd.Series(["The mill closed in May. Forty people lost their work."]).moa.synthesize(
        instruction="In one sentence", pipeline="single", aggregator="offline:lead", progress=False
    )
    run = moa.last()
    assert isinstance(run, FrameRun)
    (one,) = run.by_model.to_dict("records")
    flow = f"≈{one['prompt_tokens']} → ≈{one['completion_tokens']}"
    report = bundle(view_of_run(run._execution))
    for kind in sorted(FORMS - {MIME_TYPE}):
        assert flow in (words(report[kind]) if kind == "text/html" else report[kind])
        assert f"≈{one['prompt_tokens']}" in report[kind].replace(flow, "")
    again = moa.recall(run.id)
    assert isinstance(again, FrameRun)
    recalled = bundle(view_of_run(again._execution))["text/plain"]
    assert f"≈{one['prompt_tokens']} tokens in, ≈{one['completion_tokens']} out" in recalled


def test_a_cost_that_may_be_higher_is_at_least() -> None:
    """A run with attempts that were never reported says 'at least' with its dollars."""
    view = replace(made(), cost=0.5, cost_is_at_least=True)
    shown = bundle(view)
    assert "at least $0.5000" in words(shown["text/html"])
    assert "at least USD 0.5000" in shown["text/markdown"]
    assert "at least $0.5000" in shown["text/plain"]


def test_a_run_that_goes_on_says_how_far_it_is(server: ChatServer) -> None:
    """While rows are still to come, the report counts them, projects the dollars, and is as harmless as later."""
    server.on("*", answer)
    server.on("judge", lambda body: Reply("held", hang=True) if "#5" in str(body["messages"]) else answer(body))
    use(server)
    started = frame(7).moa.start.synthesize("q")
    assert server.wait_until(lambda: started.progress.done == 6)
    view = view_of_run(started._execution)
    assert (view.state, view.n_over, dict(view.states)["still to come"]) == ("running", 6, 1)
    assert view.projected_cost == started.progress.projected_cost
    shown = bundle(view)
    for text in (words(shown["text/html"]), shown["text/markdown"], shown["text/plain"]):
        assert "running, 6 of 7 rows" in text
        assert "1 still to come" in text
        assert "in the end" in text
    started.stop()
    with pytest.warns(RowsFailed):
        started.wait()
    assert view_of_run(started._execution).state == "stopped"
    assert dict(view_of_run(started._execution).states).get("still to come") is None


def test_a_run_that_has_not_begun_shows_itself(server: ChatServer) -> None:
    """Before the first row there is nothing to show but the rows."""
    use(server)
    from moa_nb.frames import spoken

    verb, rows = spoken.synthesize(frame(3), "q", instruction=None, template=None, na="skip", reference=None)
    view = view_of_run(FrameRun.of(verb, rows, {})._execution)
    assert (view.state, view.n_over, view.models, view.latency) == ("waiting", 0, (), None)
    shown = bundle(view)
    assert "not begun" in words(shown["text/html"])
    assert "3 still to come" in shown["text/plain"]
    for form in ("text/html", "text/markdown", "text/plain"):
        assert "agree" not in shown[form].lower(), "nothing to agree on"


def test_a_second_run_over_the_failed_rows_says_what_was_before(run: FrameRun, server: ChatServer) -> None:
    """Calls of an earlier run are in the report, and said to be; calls and dollars of the header are the new run's."""
    server.on("*", "now they answer")
    again = run.retry().wait()
    view = view_of_run(again._execution)
    assert view.calls == again.progress.calls == again.by_model["calls"].sum()
    assert view.earlier_calls == again.report["n_calls"].sum() - view.calls > 0
    assert "of an earlier run" in words(bundle(view)["text/html"])
    assert view.rows_per_second is None


def test_a_run_of_an_earlier_session_says_what_was_not_kept(run: FrameRun) -> None:
    """A recalled run shows its rows' figures, and says that those of layers and models are gone."""
    from moa_nb.engine import engine

    before = view_of_last()
    engine.stop()
    again = moa.recall(run.id)
    assert isinstance(again, FrameRun)
    view = view_of_run(again._execution)
    assert (view.calls, view.cached, view.states) == (before.calls, before.cached, before.states)
    assert view.cost == pytest.approx(before.cost, rel=1e-12)  # added up in another order
    assert view.latency == before.latency
    assert view.prompt_tokens == again.report["prompt_tokens"].sum() > 0
    assert (view.models, view.unsent) == ((), 0)
    assert "are not kept" in words(bundle(view)["text/html"])


def test_an_error_that_ends_the_run_stands_in_its_report(server: ChatServer) -> None:
    """A refused key is on top of the report, with the state."""
    server.on("*", Reply.refused_key())
    use(server)
    with pytest.raises(moa.MoaError) as raised:
        frame(3).moa.synthesize("q", progress=False)
    shown = bundle(view_of_last())
    assert view_of_last().state == "failed"
    assert bare(str(raised.value), 80).rstrip("…") in words(shown["text/html"])
    assert "ended by an error" in shown["text/plain"]


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("classify", {"labels": ["bug", "praise"]}),
        ("score", {"criterion": "how angry"}),
        ("extract", {"schema": {"price": float, "mood": str}}),
    ],
)
def test_typed_verbs_show_their_columns(server: ChatServer, verb: str, said: dict[str, Any]) -> None:
    """Labels, numbers and fields are shown as what the verb returns, under its own name."""
    server.on("*", '{"label": "bug", "score": 3, "price": 2.5, "mood": "low"}')
    use(server)
    values = getattr(frame(4).moa, verb)("q", **said, progress=False, pipeline="single", aggregator="lab:judge")
    view = view_of_last()
    assert view.verb == verb
    table = values if isinstance(values, pd.DataFrame) else values.to_frame("answer")
    assert view.columns == tuple(table.columns)
    assert [row.values for row in view.head] == [
        tuple(None if pd.isna(cell) else str(cell) for cell in row) for row in table.itertuples(index=False)
    ]


def test_groups_and_pairs_show_themselves(server: ChatServer) -> None:
    """A summary's report counts groups, a preference's rows; labels of several levels stand side by side."""
    server.on("*", '{"better": "A"}')
    use(server)
    index = pd.MultiIndex.from_product([["u", "v"], [1, 2]], names=["k", None])
    rows = pd.DataFrame({"q": ["a", "b", "c", "d"], "b": ["e", "f", "g", "h"], "p": list("xyxy")}, index=index)
    rows.moa.summarize("q", by="p", progress=False)
    view = view_of_last()
    assert (view.verb, view.noun, view.rows, view.index) == ("summarize", "group", 2, "p")
    assert "2 groups: 2 done" in bundle(view)["text/plain"]
    preview = rows.moa.preview.summarize("q", by="p", progress=False)
    assert "all groups would take" in preview._repr_mimebundle_()["text/plain"]
    chosen = rows.moa.prefer("q", "b", progress=False)
    view = view_of_last()
    assert (view.verb, view.noun, view.index) == ("prefer", "row", "k")
    assert [row.label for row in view.head] == ["u, 1", "u, 2", "v, 1", "v, 2"]
    assert [row.values for row in view.head] == [(value,) for value in chosen]


def test_what_the_budget_kept_back_is_said(server: ChatServer) -> None:
    """A run that its budget ended says how far that was used up, which rows have no answer, and which calls never went out."""
    server.on("*", answer)
    use(server)
    with pytest.warns(RowsFailed):
        frame(6).moa.synthesize("q", budget="7 calls", progress=False)
    view, run = view_of_last(), last()
    assert view.state == "stopped"
    assert view.calls - view.unsent == run.by_model["calls"].sum()
    assert {one.kind: one.n_rows for one in view.failures} == run.report["error_kind"].value_counts().to_dict()
    assert "budget" in {one.kind for one in view.failures}
    shown = bundle(view)
    for text in (words(shown["text/html"]), shown["text/markdown"], shown["text/plain"]):
        assert "of a budget of 7 calls" in text
        assert f"{dict(view.states)['not asked']} not asked" in text


# Bars ---------------------------------------------------------------------------------------------

SECONDS = st.lists(st.floats(0, 1e5), min_size=1, max_size=60)


@given(SECONDS)
@hypothesis_settings(deadline=None)
def test_every_row_is_in_one_bar(seconds: list[float]) -> None:
    """Whatever the durations, each is counted once, there are few bars, and the percentiles lie in bars with rows around."""
    import numpy as np

    latency = _latency(np.array(seconds))
    assert latency is not None
    assert latency.n_rows == len(seconds)
    assert 1 <= len(latency.counts) == len(latency.edges) <= 12
    assert latency.edges[0] <= min(seconds) + 1e-9
    assert len(ranges(latency)) == len(latency.counts)
    assert float(ranges(latency)[-1].split(" to ")[1].replace(",", "")) >= max(seconds)
    assert 0 <= latency.bar_of(latency.median) <= latency.bar_of(latency.p95) < len(latency.counts)


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_bars_begin_at_round_numbers(low: float, high: float) -> None:
    """Bars are as wide as 1, 2 or 5 times a power of ten."""
    edges, step = _edges(min(low, high), max(low, high))
    assert re.fullmatch(r"[125](\.0+)?e[+-]\d+", f"{step:e}")
    assert list(edges) == sorted(set(edges))


def test_six_tenths_are_not_below_six_tenths() -> None:
    """The bars on the doubtful side hold just those rows that ``review`` counts as below."""
    from moa_nb.frames.figures import _agreement
    from moa_nb.frames.outcome import Outcome, Outcomes

    outcomes = Outcomes(4)
    for position, agreement in enumerate((0.6, 3 / 5, 0.1 + 0.5 - 2**-53, 1.0)):
        outcomes.settle(position, Outcome("a", "done", 2, agreement=agreement))
    view = _agreement(outcomes, outcomes.states)
    assert view is not None
    assert view.n_below == sum(view.counts[:6]) == 1
    assert view.counts[9] == 1


# Hostile text -------------------------------------------------------------------------------------

LONG = "x" * 30_000


def made(said: str = "said", *, n: int = 3) -> ReportView:
    """Return a view in which everything that can be text is ``said``, and there are ``n`` of everything."""
    row = RowView(said, "done", (said,) * n)
    return ReportView(
        verb=said,
        column=said,
        pipeline=said,
        state="failed",
        rows=100,
        states=(("done", 60), ("failed", 30), ("not asked", 10)),
        calls=9,
        cost=0.01,
        seconds=2.0,
        error=said,
        budget="10 % of a budget of $5.0000",
        models=(ModelView(said, said, 5, 1, 1, 10, 20, 0.01, 0.5),) * n,
        latency=LatencyView((0.0, 0.5), 0.5, (3, 4), 0.4, 0.9, 1.7),
        cached_rows=2,
        cached_seconds=0.0,
        agreement=AgreementView((0, 0, 1, 0, 0, 2, 3, 0, 0, 9), 3, 5),
        failures=(FailureView(said, 30, said, said),) * n,
        index=said,
        columns=(said,) * n,
        head=(row,) * min(n, 5),
    )


def previewed(said: str) -> PreviewView:
    """Return a preview of two rows, one of which failed, full of ``said``."""
    from test_panels import churn

    panel = view_of(churn(text=said, pipeline=said))
    rows = (
        PreviewedRow(RowView(said, "done", (said,)), None, panel),
        PreviewedRow(RowView(said, "failed", (None,)), said, None),
    )
    return PreviewView(said, 100, said, "$0.01", (said,), rows)


HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("said", [HOSTILE, LONG, HOSTILE * 200, "a|b\n\n# c\n| d |", "$x$ \\(y\\)", "\u202eabc\u2066"])
def test_hostile_text_is_inert_in_every_form(said: str) -> None:
    """Tags, Markdown, escapes, overrides and huge lines in every name, label, value and error do nothing and break nothing."""
    for shown in (bundle(made(said)), preview_bundle(previewed(said))):
        tags = PANEL_TAGS | RENDERED_TAGS
        assert_harmless(shown["text/html"], tags, OWN)
        assert shown["text/html"].count("<div") == shown["text/html"].count("</div>")
        assert shown["text/html"].count("<table") == shown["text/html"].count("</table>")
        assert not HIDDEN.search(shown["text/html"])
        assert not HIDDEN.search(shown["text/plain"])
        rendered = to_html(shown["text/markdown"])
        assert_harmless(rendered, RENDERED_TAGS | PANEL_TAGS, OWN)
    shown = bundle(made(said))
    assert max(map(len, shown["text/plain"].split("\n"))) < 700
    # A table keeps its lines: as many as there are rows, whatever stands in the cells.
    plain = bundle(made("plain"))["text/markdown"]
    assert shown["text/markdown"].count("\n|") == plain.count("\n|")


@given(TEXTS)
@hypothesis_settings(deadline=None, max_examples=60)
def test_any_text_is_inert_in_a_report(said: str) -> None:
    """Whatever names, labels, values and errors are, the report has its own tags alone."""
    shown = bundle(made(said))
    own = Tags(bundle(made("plain"))["text/html"])
    seen = Tags(shown["text/html"])
    assert_harmless(shown["text/html"], PANEL_TAGS, OWN)
    assert sorted(set(seen.tags)) == sorted(set(own.tags))
    assert not HIDDEN.search(shown["text/plain"])


def test_a_large_report_keeps_to_its_size_and_says_what_it_left_out() -> None:
    """Hundreds of models, kinds and columns with long hostile names stay below 300 kB, and the rest is counted."""
    shown = bundle(made('"<&>' * 5000, n=500))
    assert len(shown["text/html"].encode()) < 300_000
    said = words(shown["text/html"])
    assert "470 more lines in run.by_model" in said
    assert "494 more columns" in said
    assert len(shown["text/markdown"]) < 100_000
    assert len(shown["text/plain"].split("\n")) < 25


def test_hostile_rows_over_the_wire_are_inert(server: ChatServer) -> None:
    """Hostile texts, labels and columns of a real run come through all of it unharmed and harmless."""
    evil = HOSTILE.replace("\ud800", "")  # Arrow holds no half of a pair
    server.on("*", evil)
    server.on("beta", Reply.bad_request("<script>alert(1)</script>\x1b[31m"))
    use(server)
    hostile = pd.DataFrame({evil: [evil, "<b>x</b>"]}, index=pd.Index(["<i>a</i>", evil], name=evil))
    hostile.moa.synthesize(evil, progress=False)
    preview = hostile.moa.preview.synthesize(evil, progress=False)
    for shown in (bundle(view_of_last()), preview._repr_mimebundle_()):
        assert_harmless(shown["text/html"], PANEL_TAGS | RENDERED_TAGS, OWN)
        assert "<script" not in shown["text/html"]
        assert not HIDDEN.search(shown["text/plain"])


# A preview ----------------------------------------------------------------------------------------


def test_a_preview_shows_all_that_was_said_and_sent(server: ChatServer) -> None:
    """Each row has its label, its value, its panel, and each prompt once, one click away; the estimate is on top."""
    server.on("*", answer)
    use(server)
    preview = frame().moa.preview.synthesize("q", instruction="Say why.", progress=False)
    shown = preview._repr_mimebundle_()
    assert set(shown) == FORMS
    page = words(shown["text/html"])
    assert "preview of 3 of 30 rows" in page
    assert page.index(str(preview.estimate)) < page.index("row 0")
    assert "these took" in page
    for label, value in preview.values.items():
        assert label in page
        assert str(value) in page
    for result in preview.results:
        for call in result.calls:
            for message in call.prompt:
                assert " ".join(message.content.split()) in page
    # No prompt lies inside something that is closed itself.
    outer = re.split(r"<details open>.*?</table></div></div></details>", shown["text/html"], flags=re.DOTALL)
    assert sum(part.count("<summary") for part in outer) == sum(
        len({call.prompt for call in result.calls}) for result in preview.results
    )
    assert "USD" in shown["text/markdown"]
    assert "row 1" in shown["text/plain"]


def test_a_preview_shows_a_row_that_cannot_be_asked(server: ChatServer) -> None:
    """A row that fails before anything is sent has its error, and the others keep their own panels."""
    server.on("*", answer)
    use(server)
    rows = pd.DataFrame({"q": ["#1", "#2"], "n": [0, 2]})
    with pytest.warns(RowsFailed):
        preview = rows.moa.preview.synthesize(template="{{ 6 // n }} {{ q }}", progress=False)
    page = words(preview._repr_mimebundle_()["text/html"])
    assert "ZeroDivisionError" in page or "division" in page
    assert str(preview.values.iloc[1]) in page


# A picture ----------------------------------------------------------------------------------------


def test_the_picture_has_four_panels_and_the_same_figures(run: FrameRun) -> None:
    """The figure's bars are as long as the report's figures, and it shows itself as PNG."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    view = view_of_last()
    figure = plot(view)
    costs, seconds, agreement, failures = figure.axes
    assert f"${figures.dollars(run.progress.cost)}" in figure.get_suptitle()
    assert "moa-lite" in figure.get_suptitle()
    assert [bar.get_width() for bar in costs.patches] == run.by_model["cost"].to_list()
    assert view.latency is not None
    assert view.agreement is not None
    assert [bar.get_height() for bar in seconds.patches] == list(view.latency.counts)
    assert [bar.get_height() for bar in agreement.patches] == list(view.agreement.counts)
    assert [bar.get_width() for bar in failures.patches] == [one.n_rows for one in view.failures]
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]  # ours, beyond a Figure's


@pytest.mark.parametrize("said", ["$x^", "\\frac{", "a_b$c$", LONG, "<b>x</b>\n\x1b[31m"])
def test_a_picture_takes_names_as_names(said: str) -> None:
    """Signs of formulas in names are drawn as they are, and nothing is too long to be drawn."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    figure = plot(made(said))
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]  # as above


def test_a_picture_of_nothing_says_so() -> None:
    """A run without calls has four panels that say that there is nothing."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib, which is not installed")
    empty = replace(made(), models=(), latency=None, agreement=None, failures=())
    figure = plot(empty)
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [
        ["no calls"],
        ["nothing was sent and answered"],
        ["no rows compared"],
        ["none"],
    ]
    figure._repr_png_()  # type: ignore[attr-defined]  # as above


def test_without_matplotlib_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where matplotlib is not installed, the error names it and how to get it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SetupError, match="pip install matplotlib"):
        plot(made())


def test_reports_load_no_plotting_library() -> None:
    """The report, its HTML and the picture's module leave matplotlib unloaded until a picture is drawn."""
    program = (
        "import sys, moa_nb.frames.figures, moa_nb.frames.plot, moa_nb.panels.frame_report\n"
        "assert not [name for name in sys.modules if name.startswith(('matplotlib', 'IPython'))]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
