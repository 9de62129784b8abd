"""Runs read back from saved notebooks, and what two runs differ in."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nbclient import NotebookClient
from real_kernels import new_manager
from test_panels import ANSWER, ATTRIBUTES, PANEL_TAGS, RENDERED_TAGS, assert_harmless, churn, hostile

import moa_nb as moa
from moa_nb.chat import Message, Usage
from moa_nb.errors import SetupError
from moa_nb.panels.bundle import bundle
from moa_nb.panels.comparison import Comparison
from moa_nb.panels.provenance import MIME_TYPE, record, result_of
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.testing import ChatServer, Reply

KEY = "sk-provenance-0123456789abcdef"


def saved(path: Path, *bundles: dict[str, Any]) -> Path:
    """Return a notebook file whose only cell shows these."""
    outputs = [nbformat.v4.new_output("display_data", data=data) for data in bundles]
    cell = nbformat.v4.new_code_cell("%%moa", outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("text"), cell]), path)
    return path


def without_prompts(result: Result) -> Result:
    """Return a run as far as a record goes."""
    layers = tuple(
        replace(
            layer,
            calls=tuple(
                replace(
                    call,
                    prompt=(),
                    reasoning=None,
                    key=None,
                    # In a notebook's file the names stand in the order of the alphabet.
                    parameters=tuple(
                        sorted((name, "…" if name == "api_key" else value) for name, value in call.parameters)
                    ),
                )
                for call in layer.calls
            ),
        )
        for layer in result.layers
    )
    turns = tuple(turn for turn in result.conversation if turn.role != "system")
    return result.replace(layers=layers, conversation=turns)


# The record -------------------------------------------------------------------------------------


def test_a_record_becomes_the_run_again() -> None:
    """All but prompts, keys, thoughts and system messages is there: texts, figures, flags, layers."""
    judged = Layer("verdicts", (Call("judge", "lab:j", text="[[A]]", value="A", repeats=1, unreported=2),), aside=True)
    run = churn(agreement=0.5, converged=True, value={"price": 3}, stop_reason="stable", n_unparsed=2)
    run = run.replace(layers=(*run.layers, judged), notes=("a note",))
    made = result_of(json.loads(json.dumps(record(run), sort_keys=True)))
    assert made == without_prompts(run)
    assert made.cost == run.cost
    assert made.usage == run.usage
    assert [layer.aside for layer in made.layers] == [False, False, True]


@given(
    st.builds(
        Call,
        agent=st.text(max_size=8),
        model=st.text(max_size=8),
        text=st.text(max_size=40),
        usage=st.builds(Usage, st.none() | st.integers(0, 9), st.none() | st.integers(0, 9)),
        cost=st.none() | st.floats(0, 9),
        cached=st.booleans(),
        error=st.none() | st.text(max_size=8),
        value=st.none() | st.booleans() | st.integers() | st.dictionaries(st.sampled_from("ab"), st.text(max_size=5)),
    ),
)
def test_any_call_comes_back(call: Call) -> None:
    """Whatever a call holds, its record can be saved as JSON and becomes the same call."""
    run = Result(call.text, "p", (Layer("layer 1", (call,)),))
    written = json.dumps(record(run), allow_nan=False, ensure_ascii=False)
    made = result_of(json.loads(written))
    assert made.calls[0] == (call if "\ufffd" not in written else made.calls[0])


def test_what_is_cut_is_said() -> None:
    """A text that did not fit is marked with its length, a value is left out, and the run that is read back says both."""
    long = churn(text="x" * 500_000, value=["y" * 500_000])
    made = result_of(record(long))
    assert made.value is None
    assert any(note.startswith("the answer was cut when it was saved") and "of 500,000" in note for note in made.notes)
    assert any("value of the answer was left out" in note for note in made.notes)
    assert len(json.dumps(record(long))) < 250_000


# Notebooks --------------------------------------------------------------------------------------


def test_runs_are_read_from_a_saved_notebook(tmp_path: Path) -> None:
    """In the order of the cells, those side by side and those that buttons began too, each once."""
    other = churn(run_id="run-2", pipeline="single")
    third = churn(run_id="run-3", pipeline="moa")
    both = Comparison({"single": other, "moa": third})
    again = {**record(third), "reruns": [record(churn(run_id="run-4")), record(other)]}
    shown = (bundle(churn()), {"text/plain": "x"}, both.bundle(), bundle(churn()), {MIME_TYPE: again})
    runs = moa.from_notebook(str(saved(tmp_path / "x.ipynb", *shown)))
    assert [run.run_id for run in runs] == ["run-1", "run-2", "run-3", "run-4"]
    assert runs.frame_runs == ()
    assert runs[0] == without_prompts(churn())
    assert runs[0].to_frame()["agent"].tolist() == ["alpha", "beta", "gamma", "delta", "aggregator"]
    assert ANSWER.split("\n")[0] in bundle(runs[0])["text/markdown"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "[1]", '{"cells": 3}', '{"cells": [3]}', '{"worksheets": []}', "\x00"]
)
def test_a_file_that_is_no_notebook_is_said(tmp_path: Path, text: str) -> None:
    """Likewise one that is not there, and one whose runs were changed by hand: one line, no traceback of ours."""
    path = tmp_path / "x.ipynb"
    path.write_text(text)
    with pytest.raises(SetupError, match=r"x\.ipynb is no notebook"):
        moa.from_notebook(path)
    with pytest.raises(SetupError, match="cannot be read"):
        moa.from_notebook(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [{}]},
        {"layers": 3},
        {"layers": [{"name": "x", "calls": [{"agent": "a"}]}]},
        {"conversation": [3]},
        {"frame_runs": [{"run_id": "x"}]},
        {"frame_runs": {"run_id": "x"}},
        {"frame_runs": 3},
    ],
)
def test_a_run_that_was_changed_by_hand_is_said(tmp_path: Path, change: dict[str, Any]) -> None:
    """A record that has not what a record has is an error that names the file."""
    path = saved(tmp_path / "x.ipynb", {MIME_TYPE: record(churn()) | change})
    with pytest.raises(SetupError, match="holds a run that cannot be read"):
        moa.from_notebook(path)


def test_a_notebook_without_runs_has_none(tmp_path: Path) -> None:
    """Other outputs are left alone, also those of other programs under a like name."""
    path = saved(tmp_path / "x.ipynb", {"text/plain": "x"}, {MIME_TYPE: {"something": "else"}})
    assert moa.from_notebook(path) == []


ROWS = pd.DataFrame(
    {
        "q": ["The mill closed in May. Forty lost their work.", "Rain fell for weeks. The crops failed.", None],
        "told": ["The mill closed in May.", "Rain fell.", "Nothing."],
    }
)


def test_what_is_shown_of_rows_is_read_back(tmp_path: Path) -> None:
    """Each row of a preview, of a trial and of two traces is a run of its own; a comparison's runs have their figures."""
    lead = {"pipeline": "single", "aggregator": "offline:lead", "progress": False}
    preview = ROWS.moa.preview.synthesize("q", **lead)
    trial = moa.Playground(ROWS, "q", pipeline="single", aggregator="offline:textrank").sample(2)
    compared = moa.compare(
        ROWS, "q", ["single", "self-moa"], reference="told", metric="exact", aggregator="offline:lead", progress=False
    )
    traces = [preview.run.trace(position) for position in (1, 0)]
    shown = [one._repr_mimebundle_() for one in (preview, *traces, trial, compared)]
    runs = moa.from_notebook(saved(tmp_path / "x.ipynb", *shown))
    texts = [*ROWS["q"].dropna()] * 2
    assert [run.conversation[-1].content for run in runs] == texts
    assert [run.text for run in runs[:2]] == [result.text for result in preview.results]
    assert [run.calls[0].model for run in runs] == ["offline:lead"] * 2 + ["offline:textrank"] * 2
    assert {run.run_id for run in runs[:2]} == {preview.run.id}
    asked = [preview.run, *compared.runs.values()]
    assert [run.run_id for run in runs.frame_runs] == [run.id for run in asked]
    assert [(run.pipeline, run.rows) for run in runs.frame_runs] == [("single", 2), ("single", 3), ("self-moa", 3)]


def test_an_evaluation_of_tables_alone_has_no_run() -> None:
    """It was computed from what somebody kept, and nobody was asked for it."""
    told = pd.DataFrame({"a": ["x", "y"], "b": ["x", "z"]})
    made = moa.Evaluation(told, unit="exact", measured=(told == "x").astype(float))
    assert MIME_TYPE not in made._repr_mimebundle_()


@pytest.mark.kernel
def test_a_notebook_that_ran_holds_its_runs_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers, what buttons and a playground asked, a chat, a comparison, a refused key: all is there, the key is nowhere."""
    with ChatServer(models=["alpha", "beta", "gamma"], key=KEY) as server:
        server.on("gamma", "The **final** answer.").on("delta", Reply.refused_key())
        prices = "".join(
            f'[models."lab:{name}"]\nprompt_price = 1.0\ncompletion_price = 2.0\n'
            for name in ("alpha", "beta", "gamma")
        )
        (tmp_path / "moa.toml").write_text(
            'proposers = ["lab:alpha", "lab:beta"]\naggregator = "lab:gamma"\n'
            f'[providers.lab]\nbase_url = "{server.base_url}"\nkey_env = "LAB_KEY"\n{prices}'
        )
        monkeypatch.setenv("LAB_KEY", KEY)
        sources = [
            "%load_ext moa_nb",
            "%%moa answer -p moa-lite\nWhy did churn rise?",
            "%%moa --chat support -p single\nWho built the mill?",
            "%%moa --compare single,self-moa\nWhy?",
            "%%moa -p single -a lab:delta\nAnd now?",
            "answer",
            "from moa_nb.notebook.form import live_form\nform = live_form(answer)\nform.press('layer', {'layer': '1'})",
            "form._job.wait()\ndisplay(form.bundle(), raw=True)",
            "import moa_nb as moa, pandas as pd\ntried = moa.Playground('Who owns the mill?', pipeline='single')\ntried.run()\ntried",
            "pd.Series(['A row of text.'] * 2, name='q').moa.synthesize(pipeline='single');",
            "from moa_nb.notebook.frame_live import FramePanel\ndisplay(FramePanel(moa.last())._draw(), raw=True)",
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        client = NotebookClient(
            notebook,
            timeout=300,
            startup_timeout=180,
            allow_errors=True,
            resources={"metadata": {"path": str(tmp_path)}},
        )
        client.km = new_manager()  # given later, it is still the client's own, which ends it
        client.execute(env=os.environ.copy())
        path = tmp_path / "x.ipynb"
        nbformat.write(notebook, path)
    text = path.read_text("utf-8")
    assert KEY not in text
    assert "final" in text
    runs = moa.from_notebook(path)
    assert [(run.pipeline, run.error is None) for run in runs] == [
        ("moa-lite", True),
        ("single", True),
        ("single", True),
        ("self-moa", True),
        ("single", False),
        ("moa-lite", True),
        ("single", True),
    ]
    assert runs[0].text == "The **final** answer."
    assert [turn.content for turn in runs[1].conversation] == ["Who built the mill?"]
    assert (runs[0].cost or 0) > 0
    assert runs[0].agreement is not None
    again, tried = runs[-2:]
    assert [{call.cached for call in layer.calls} for layer in again.layers] == [{True}, {False}]
    assert [turn.content for turn in tried.conversation] == ["Who owns the mill?"]

    # Of a run over rows the file has the id and the figures, of its rows what the report shows.
    (rows,) = runs.frame_runs
    assert (rows.verb, rows.column, rows.pipeline, rows.state) == ("synthesize", "q", "single", "done")
    assert (rows.rows, rows.states, rows.calls) == (2, {"done": 1, "duplicate": 1}, 1)
    assert rows.cost == sum(model["cost"] for model in rows.models)
    assert rows.cost
    assert f"over rows: moa.recall('{rows.run_id}')" in repr(runs)
    assert "row of text" not in json.dumps(notebook.cells[-1].outputs[0].data[MIME_TYPE])


# Differences ------------------------------------------------------------------------------------


def test_only_results_are_compared() -> None:
    """The name of a run is none."""
    with pytest.raises(SetupError, match=r"compares two results, .* not '20261123-081500-a1b2c3'"):
        moa.difference(churn(), "20261123-081500-a1b2c3")  # type: ignore[arg-type]  # as users do


def test_equal_runs_differ_in_nothing() -> None:
    """Also when one of them was read back from a notebook."""
    made = moa.difference(churn(), result_of(record(churn())))
    assert made.same_answer
    assert made.changes == ()
    assert "asked alike" in repr(made)


def test_every_difference_is_named() -> None:
    """Question, pipeline, model, parameters, template, answers, tokens, dollars, seconds: each with both sides."""
    one = churn()
    aggregator = one.layers[1].calls[0]
    other_call = replace(
        aggregator,
        model="lab:f",
        parameters=(("temperature", 0.2), ("api_key", "sk-other")),
        template_digest="cd34",
        text="Because of the weather.",
        usage=Usage(900, 10),
        cost=0.5,
    )
    other = one.replace(
        text="Because of the weather.",
        pipeline="moa",
        layers=(one.layers[0], Layer("layer 2", (other_call,))),
        conversation=(Message("user", "Why now?"),),
        seconds=9.0,
        degraded=False,
        budget=None,
    )
    made = moa.difference(one, other)
    changes = {what: (here, there) for what, here, there in made.changes}
    assert changes["pipeline"] == ("moa-lite", "moa")
    assert changes["layer 2, aggregator"] == ("lab:e", "lab:f")
    assert changes["layer 2, aggregator: temperature"] == ("0.7", "0.2")
    assert changes["layer 2, aggregator: template"] == ("synthesize (ab12)", "synthesize (cd34)")
    assert changes["tokens out"] == ("890", "593")
    assert changes["seconds"] == ("6.4", "9.0")
    assert changes["budget"] == ("$0.0500", "–")
    assert changes["degraded"] == ("True", "False")
    assert {"question", "dollars", "tokens in", "layer 2, aggregator: answer"} <= set(changes)
    assert not [what for what in changes if "layer 1" in what or "api_key" in what]
    assert "sk-" not in repr(made)
    assert not made.same_answer
    assert "".join(text for kind, text in made.answer if kind != "removed") == other.text


def test_calls_that_only_one_run_has_are_named() -> None:
    """A layer more, and agents of one name, are told apart."""
    twice = Layer("layer 1", (Call("a", "lab:a", text="x"), Call("a", "lab:a", text="y")))
    made = moa.difference(Result("x", "p", (twice,)), Result("x", "p", (Layer("layer 1", twice.calls[:1]),)))
    assert ("layer 1, a (2)", "lab:a", "–") in made.changes
    assert ("calls", "2", "1") in made.changes


def test_a_difference_of_hostile_runs_is_harmless() -> None:
    """In HTML and Markdown no text of either run becomes a tag, handler or address."""
    made = moa.difference(hostile(), churn())
    assert_harmless(made._repr_html_(), PANEL_TAGS | {"ins", "del", "th"}, ATTRIBUTES | {"class"})
    rendered = (
        MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(made._repr_markdown_())
    )
    assert_harmless(rendered, RENDERED_TAGS, ATTRIBUTES)
    assert not any(sign in repr(made) for sign in "\x00\x1b\u202e\ud800")
