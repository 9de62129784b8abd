"""``%%moa`` and ``%moa`` in an IPython shell of this process: options, variables, mistakes, what they show."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from magics import (  # noqa: F401 - fixtures
    KEY,
    RUN,
    Notebook,
    in_front_end_fixture,
    notebook_fixture,
    server_fixture,
    shell_fixture,
)
from test_panels import ATTRIBUTES, HOSTILE, PANEL_TAGS, assert_harmless

import moa_nb as moa
from moa_nb import settings
from moa_nb.engine import engine as engine_room
from moa_nb.notebook.arguments import COMMANDS, cell_parser
from moa_nb.testing import ChatServer, Reply

# The cell ---------------------------------------------------------------------------------------


def test_the_cell_asks_the_default_pipeline(notebook: Notebook, server: ChatServer) -> None:
    """Two proposers and the aggregator are asked; in a terminal the panel is printed."""
    shown = notebook.ask()
    assert shown.error is None
    assert [record.model for record in server.requests[2:]] == ["gamma"]
    assert {record.model for record in server.requests[:2]} == {"alpha", "beta"}
    assert "The final answer." in shown.printed
    assert "moa-lite" in shown.printed
    assert shown.displays == []


def test_the_cells_text_is_what_is_asked(notebook: Notebook, server: ChatServer) -> None:
    """A proposer gets the text of the cell and nothing of the line."""
    notebook.answer("-p single", "Why? ünïcode\n\n  indented $HOME {x} % # !")
    assert server.requests[0].text_of("user") == "Why? ünïcode\n\n  indented $HOME {x} % # !"


def test_the_result_is_whole(notebook: Notebook) -> None:
    """The named result has text, layers, prompts, usage, cost, seconds and flags, and becomes a frame."""
    result = notebook.answer("--budget 1")
    assert result.text == "The **final** answer."
    assert [len(layer.calls) for layer in result.layers] == [2, 1]
    assert result.layers[0].calls[0].prompt[-1].content == "Why did churn rise?"
    assert "answer of alpha" in result.layers[1].calls[0].prompt[0].content
    assert result.usage.prompt_tokens == sum(call.usage.prompt_tokens or 0 for call in result.calls)
    assert result.usage.prompt_tokens
    assert result.cost is not None
    assert 0 < result.cost < 1
    assert result.seconds > 0
    assert (result.degraded, result.converged, result.accepted, result.stop_reason, result.n_unparsed) == (
        False,
        None,
        None,
        "done",
        0,
    )
    frame = result.to_frame()
    assert frame["agent"].tolist() == ["alpha", "beta", "gamma"]
    assert frame["text"].tolist() == ["answer of alpha", "answer of beta", "The **final** answer."]
    assert moa.last() is result


def test_the_result_shows_itself_again(notebook: Notebook) -> None:
    """``show()`` prints in a terminal and displays one static bundle in a front end."""
    notebook.answer()
    shown = notebook.run("answer.show()")
    assert "The final answer." in shown.printed
    notebook.shell.kernel = object()
    (display,) = notebook.run("answer.show()").displays
    assert set(display) == {"text/html", "text/markdown", "text/plain", RUN}


def test_a_front_end_gets_one_panel(in_front_end: Notebook) -> None:
    """The live panel is shown once and the static one takes its place, without a widget."""
    shown = in_front_end.ask()
    first, *updates = shown.displays
    assert "application/vnd.jupyter.widget-view+json" in first
    assert {"text/html", "text/plain"} <= set(first)
    assert set(updates[-1]) == {"text/html", "text/markdown", "text/plain", RUN}
    assert len(updates) == 1
    assert shown.printed == ""


def test_pipelines_side_by_side_are_harmless_while_they_grow(in_front_end: Notebook, server: ChatServer) -> None:
    """No text of an answer or an error, on its way or finished, becomes a tag, handler or address."""
    server.on(
        "gamma", lambda body: Reply(f"so far {HOSTILE}", token_delay=0.3) if len(body["messages"]) > 1 else HOSTILE
    )
    shown = in_front_end.ask("--compare single,moa-lite")
    growing = [display["text/html"] for display in shown.displays[1:-1]]
    assert any("so far" in page for page in growing)
    for page in growing:
        assert_harmless(page, PANEL_TAGS | {"th"}, ATTRIBUTES | {"class", "colspan"})


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_of_a_comparison_that_is_just_over(
    in_front_end: Notebook, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Whoever presses ■ while the comparison is made, and once more, leaves what was answered, and nothing that runs."""
    from moa_nb.notebook import comparing, comparing_live

    interrupts = iter([True] * times)

    def interrupted(function: Any) -> Any:
        def called(*given: Any, **options: Any) -> Any:
            if given[-1] in {"panel", ""} and next(interrupts, False):
                raise KeyboardInterrupt
            return function(*given, **options)

        return called

    monkeypatch.setattr(comparing, "_form_of", interrupted(comparing._form_of))
    monkeypatch.setattr(comparing_live.LiveComparison, "_draw", interrupted(comparing_live.LiveComparison._draw))
    shown = in_front_end.ask("--compare single,moa-lite")
    assert str(shown.error).startswith("stopped; 4 finished calls kept")
    last = shown.displays[-1]["text/html"]
    assert "2 of 2 pipelines answered" in last
    assert "■" not in last


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_of_what_is_just_over_leaves_a_static_panel(
    in_front_end: Notebook, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Whoever presses ■ while the last panel is made, and once more, saves no live one; what was answered is kept."""
    from moa_nb.notebook import live

    drawn, interrupts = live.bundle, iter([True] * times)

    def bundle(result: moa.Result) -> dict[str, Any]:
        if next(interrupts, False):
            raise KeyboardInterrupt
        return drawn(result)

    monkeypatch.setattr(live, "bundle", bundle)
    shown = in_front_end.ask("-p single")
    assert str(shown.error) == "stopped; 1 finished call kept: run the cell again to go on from there"
    assert set(shown.displays[-1]) == {"text/html", "text/markdown", "text/plain", RUN}


def test_no_widget_stays_behind(in_front_end: Notebook) -> None:
    """When the panel is static, its widgets are closed."""
    import ipywidgets

    before = set(ipywidgets.widget._instances) if hasattr(ipywidgets, "widget") else set()
    in_front_end.ask()
    from ipywidgets.widgets import widget

    assert set(widget._instances) - before == set()


# Options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-p", "--pipeline"])
def test_a_pipeline_by_name(notebook: Notebook, server: ChatServer, option: str) -> None:
    """``-p`` takes a pipeline by its name."""
    assert notebook.answer(f"{option} single").pipeline == "single"
    assert server.count() == 1


@pytest.mark.parametrize("option", ["-m", "--models"])
def test_models_by_name(notebook: Notebook, server: ChatServer, option: str) -> None:
    """``-m`` says who proposes."""
    notebook.answer(f"{option} lab:alpha,lab:delta,lab:eps")
    assert [server.count(name) for name in ("alpha", "beta", "delta", "eps", "gamma")] == [1, 0, 1, 1, 1]


@pytest.mark.parametrize("option", ["-a", "--aggregator"])
def test_an_aggregator_by_name(notebook: Notebook, server: ChatServer, option: str) -> None:
    """``-a`` says who writes the answer."""
    assert notebook.answer(f"{option} lab:delta").text == "answer of delta"
    assert server.count("gamma") == 0


@pytest.mark.parametrize("option", ["-n", "--samples"])
def test_samples(notebook: Notebook, server: ChatServer, option: str) -> None:
    """``-n`` answers of each proposer are as many requests."""
    assert len(notebook.answer(f"{option} 3").layers[0].calls) == 6
    assert (server.count("alpha"), server.count("gamma")) == (3, 1)


@pytest.mark.parametrize("option", ["-l", "--layers"])
def test_layers(notebook: Notebook, server: ChatServer, option: str) -> None:
    """``-l`` counts the aggregator's layer."""
    assert [len(layer.calls) for layer in notebook.answer(f"{option} 3").layers] == [2, 2, 1]
    assert server.count() == 5


@pytest.mark.parametrize("option", ["-T", "--temperature"])
def test_temperature(notebook: Notebook, server: ChatServer, option: str) -> None:
    """``-T`` reaches each request."""
    notebook.answer(f"{option} 0.25")
    assert {record.body["temperature"] for record in server.requests} == {0.25}


def test_max_tokens(notebook: Notebook, server: ChatServer) -> None:
    """``--max-tokens`` reaches each request, under whichever of its two names."""
    notebook.answer("--max-tokens 77")
    assert {
        record.body.get("max_tokens") or record.body.get("max_completion_tokens") for record in server.requests
    } == {77}


def test_a_template_in_quotes(notebook: Notebook, server: ChatServer) -> None:
    """``-t`` takes Jinja source with spaces; the notebook's variables are there too."""
    notebook.variables["tone"] = "politely"
    notebook.answer("-p single -t 'Reply {{ tone }} to: {{ text }}'", "I want {{ tone }} money")
    assert server.requests[0].text_of("user") == "Reply politely to: I want politely money"


def test_a_template_by_name(notebook: Notebook, server: ChatServer, tmp_path: Path) -> None:
    """``-t`` takes the name of a template of the project."""
    (tmp_path / "templates" / "prompts").mkdir(parents=True)
    (tmp_path / "templates" / "prompts" / "brief.jinja").write_text("In one line: {{ text }}")
    notebook.answer("-p single --template brief", "why?")
    assert server.requests[0].text_of("user") == "In one line: why?"


def test_a_budget_that_holds(notebook: Notebook, server: ChatServer) -> None:
    """A budget that the first call could pass sends nothing and raises in one line."""
    shown = notebook.ask("--budget 0.0000001")
    assert "budget" in shown.said.lower() or "$" in shown.said
    assert server.count() == 0


def test_a_dry_run_sends_nothing(notebook: Notebook, server: ChatServer) -> None:
    """``--dry-run`` shows prompts, calls, tokens and dollars, and sends nothing."""
    shown = notebook.ask("answer --dry-run")
    assert shown.error is None
    assert server.count() == 0
    assert "nothing was sent" in shown.printed
    assert "3 calls" in shown.printed
    assert "at most $" in shown.printed
    assert "Why did churn rise?" in shown.printed
    assert "answer" not in notebook.variables


def test_a_dry_run_in_a_front_end(in_front_end: Notebook, server: ChatServer) -> None:
    """``--dry-run`` displays one static bundle whose prompts are escaped."""
    (display,) = in_front_end.ask("--dry-run", "<img src=x onerror=alert(1)>").displays
    assert {"text/html", "text/plain"} <= set(display)
    assert "<img" not in display["text/html"]
    assert "&lt;img" in display["text/html"]
    assert server.count() == 0


def test_equal_cells_are_asked_once(notebook: Notebook, server: ChatServer) -> None:
    """A second run is answered from the store; ``--refresh`` asks again and keeps, ``--no-cache`` asks and keeps nothing."""
    notebook.answer("-p single")
    assert notebook.answer("-p single").calls[0].cached
    assert server.count() == 1
    server.on("gamma", "fresh")
    assert notebook.answer("-p single --refresh").text == "fresh"
    assert notebook.answer("-p single").text == "fresh"
    assert server.count() == 2
    server.on("gamma", "never kept")
    assert notebook.answer("-p single --no-cache").text == "never kept"
    assert notebook.answer("-p single").text == "fresh"
    assert server.count() == 3


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_shows_nothing(in_front_end: Notebook, option: str) -> None:
    """``-q`` leaves the result in its variable and shows nothing."""
    shown = in_front_end.ask(f"answer {option}")
    assert (shown.displays, shown.printed, shown.error) == ([], "", None)
    assert in_front_end.variables["answer"].text == "The **final** answer."


@pytest.mark.parametrize(
    ("form", "types"),
    [
        ("text", {"text/plain"}),
        ("markdown", {"text/plain", "text/html", "text/markdown"}),
        ("json", {"text/plain", "application/json"}),
    ],
)
def test_other_forms_of_the_answer(in_front_end: Notebook, form: str, types: set[str]) -> None:
    """``-f`` shows the answer alone as text or Markdown, or the run's record as JSON."""
    (display,) = in_front_end.ask(f"-f {form}").displays
    assert set(display) == types
    if form == "markdown":
        assert "<strong>final</strong>" in display["text/html"]
    if form == "json":
        json.dumps(display["application/json"], allow_nan=False)
    else:
        assert "final" in display["text/plain"]


@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_other_forms_in_a_terminal(notebook: Notebook, form: str) -> None:
    """Without a front end each form is printed: text as it came, the record as JSON."""
    printed = notebook.ask(f"-f {form}").printed
    if form == "json":
        assert json.loads(printed)["pipeline"] == "moa-lite"
    else:
        assert "final" in printed


# Variables --------------------------------------------------------------------------------------


def test_variables_are_filled_in_once(notebook: Notebook, server: ChatServer) -> None:
    """What a variable holds is text: its braces are sent as they are and reach no other variable."""
    notebook.variables.update(secret="hunter2", review="great {{ secret }} {secret} {% if x %} {{ 7 * 7 }}")
    notebook.answer("-p single", "Summarize: {{ review }}")
    assert server.requests[0].text_of("user") == "Summarize: great {{ secret }} {secret} {% if x %} {{ 7 * 7 }}"
    assert b"hunter2" not in server.requests[0].content


def test_frames_become_tables(notebook: Notebook, server: ChatServer) -> None:
    """DataFrames and Series stand in the prompt as Markdown tables."""
    notebook.variables["sales"] = pd.DataFrame({"region": ["N", "S"], "sum": [3, 4]})
    notebook.variables["series"] = pd.Series([1, 2], name="n")
    notebook.answer("-p single", "{{ sales }}\n\n{{ series }}")
    sent = server.requests[0].text_of("user")
    assert "|  | region | sum |" in sent
    assert "| 1 | S | 4 |" in sent
    assert "| 1 | 2 |" in sent


def test_functions_see_their_own_variables(notebook: Notebook, server: ChatServer) -> None:
    """A magic inside a function fills in the function's variables before the notebook's."""
    notebook.variables["region"] = "global"
    source = (
        "def inside(region):\n"
        "    get_ipython().run_cell_magic('moa', '-p single -q', 'Why in {{ region }}?')\n"
        "inside('local')\n"
    )
    assert notebook.run(source).error is None
    assert server.requests[0].text_of("user") == "Why in local?"


def test_the_line_is_left_alone(notebook: Notebook, server: ChatServer) -> None:
    """IPython expands neither ``{x}`` nor ``$x`` in the line."""
    notebook.variables["x"] = "EXPANDED"
    notebook.answer("-p single -t '{x} $x {{ text }}'", "hello")
    assert server.requests[0].text_of("user") == "{x} $x hello"


def test_an_unknown_variable_is_named(notebook: Notebook, server: ChatServer) -> None:
    """A variable that is not there is said with the nearest that is."""
    notebook.variables["customer_notes"] = "n"
    said = notebook.ask("", "Use {{ costumer_notes }}").said
    assert "costumer_notes" in said
    assert "did you mean 'customer_notes'?" in said
    assert server.count() == 0


@pytest.mark.parametrize(
    ("text", "line"), [("one\ntwo {{ }} three", 2), ("{% if x %} no end", 1), ("\nfunction f() {{ return {} }}", 2)]
)
def test_braces_that_are_no_template(notebook: Notebook, server: ChatServer, text: str, line: int) -> None:
    """Braces that are not Jinja are said with their line and with ``--raw``."""
    said = notebook.ask("", text).said
    assert f"line {line}" in said
    assert "--raw" in said
    assert server.count() == 0


def test_raw_braces(notebook: Notebook, server: ChatServer) -> None:
    """With ``--raw`` braces are text."""
    notebook.answer("-p single --raw", '{{ not_there }} {"a": 1} {% x %} {#')
    assert server.requests[0].text_of("user") == '{{ not_there }} {"a": 1} {% x %} {#'


def test_single_braces_need_nothing(notebook: Notebook, server: ChatServer) -> None:
    """JSON, CSS and dicts in a question are sent as they are."""
    notebook.answer("-p single", 'Explain {"a": {"b": 1}} and f(){return x}')
    assert server.requests[0].text_of("user") == 'Explain {"a": {"b": 1}} and f(){return x}'


# Mistakes ---------------------------------------------------------------------------------------

MISTAKES = {
    "--budgt 1": "did you mean '--budget'?",
    "--pipe single": "--pipeline",  # no abbreviations
    "--max 3": "--max-tokens",
    "-p singel": "did you mean 'single'?",
    "-m alpha": "provider:model",
    "-m lap:alpha": "did you mean 'lab'?",
    "-a lab": "provider:model",
    "-n 0": "whole number from 1",
    "-n many": "whole number from 1",
    "-l 2.5": "whole number from 1",
    "-T 3": "between 0 and 2",
    "-T warm": "not a number",
    "--budget -1": "--budget",
    "--budget nan": "not a number",
    "--budget 200 calls": "in quotes: --budget '200 calls'",
    "--budget 'two calls'": "a budget is dollars",
    "--max-tokens 0": "whole number",
    "-t no_such_template": "no template 'no_such_template'",
    "-t '{{ text'": "line 1",
    "-t '{{ text }} {{ tonne }}'": "tonne",
    "-f yaml": "markdown",
    "--no-cache --refresh": "choose one",
    "two names": "one too many",
    "class": "cannot be a variable",
    "a-b": "cannot be a variable",
    "-t 'open": "quote is not closed",
    "-p": "expected one argument",
    **{word: f"{word!r} is a word of %moa" for word in COMMANDS},
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_costs_nothing(notebook: Notebook, server: ChatServer, line: str) -> None:
    """Each mistake in the options is one line with what would be right, and nothing is sent."""
    assert MISTAKES[line] in notebook.ask(line).said
    assert server.count() == 0


def test_a_mistake_shows_no_traceback(notebook: Notebook) -> None:
    """What is printed of a mistake is its one line."""
    printed = notebook.ask("--budgt 1").printed.strip()
    assert printed.startswith("UsageError: ")
    assert "\n" not in printed


def test_an_empty_cell(notebook: Notebook, server: ChatServer) -> None:
    """A cell without text says where the question goes."""
    assert "empty" in notebook.ask("", "   \n").said
    assert server.count() == 0


def test_a_variable_that_renders_to_nothing(notebook: Notebook, server: ChatServer) -> None:
    """A text that is empty once its variables are filled in is not sent."""
    notebook.variables["notes"] = "  "
    assert "empty" in notebook.ask("", "{{ notes }}").said
    assert server.count() == 0


def test_a_failed_run_raises_in_one_line(in_front_end: Notebook, server: ChatServer) -> None:
    """A refused key is one line that names what to do and not the key; the panel says it too."""
    server.on("gamma", Reply.refused_key())
    shown = in_front_end.ask("-p single")
    assert KEY not in shown.said
    assert "LAB_KEY" in shown.said
    final = shown.displays[-1]
    assert "No answer." in final["text/html"]
    assert KEY not in json.dumps(shown.displays)


# Lines ------------------------------------------------------------------------------------------


def test_the_line_alone_is_the_help(notebook: Notebook) -> None:
    """``%moa`` alone shows every option and every word."""
    printed = notebook.run("%moa").printed
    assert all(option in printed for option in ("--pipeline", "--max-tokens", "--dry-run", "--raw", "--format"))
    assert all(word in printed for word in COMMANDS)


def test_the_question_mark_is_the_help(notebook: Notebook) -> None:
    """The docstring that ``%%moa?`` shows names every option."""
    shown = notebook.shell.magics_manager.magics["cell"]["moa"].__doc__
    for option in ("-p", "-m", "-a", "-n", "-l", "-T", "--max-tokens", "-t", "--budget", "--dry-run", "--no-cache"):
        assert option in shown
    for option in ("--refresh", "-q", "--raw", "-f", *COMMANDS):
        assert option in shown


def test_pipelines_are_listed(notebook: Notebook) -> None:
    """``%moa pipelines`` lists each with what it does, and marks the default."""
    listed = notebook.run("%moa pipelines").table
    for name in ("single", "moa-lite (default)", "self-moa"):
        assert name in listed


def test_models_are_listed(notebook: Notebook) -> None:
    """``%moa models`` says who plays which role at what price."""
    listed = notebook.run("%moa models").table
    assert "lab:alpha" in listed
    assert "$1.00 in, $2.00 out per million tokens" in listed


def test_a_providers_models_are_listed(notebook: Notebook, server: ChatServer) -> None:
    """``%moa models PROVIDER`` asks the provider what it offers."""
    listed = notebook.run("%moa models lab").table
    assert all(f"lab:{name}" in listed for name in ("alpha", "beta", "gamma"))
    assert (server.model_listings, server.count()) == (1, 0)


def test_offline_models_are_listed(notebook: Notebook) -> None:
    """``%moa models offline`` lists the agents that need nothing."""
    assert "offline:textrank" in notebook.run("%moa models offline").table


def test_settings_are_listed(notebook: Notebook) -> None:
    """``%moa settings`` shows each value and where it came from, and no key."""
    listed = notebook.run("%moa settings").table
    assert "lab:alpha, lab:beta" in listed
    assert "configure" in listed
    assert "built-in" in listed
    assert KEY not in listed


def test_costs_are_listed(notebook: Notebook) -> None:
    """``%moa costs`` sums what was paid by model, cached answers apart."""
    assert "nothing has been asked yet" in notebook.run("%moa costs").table
    notebook.answer("-p single")
    notebook.answer("-p single")
    listed = notebook.run("%moa costs").table
    assert "lab:gamma" in listed
    assert "$0.000" in listed


def test_templates_are_listed(notebook: Notebook) -> None:
    """``%moa templates`` lists them; with a name it prints the text."""
    assert "synthesize" in notebook.run("%moa templates").table
    printed = notebook.run("%moa templates synthesize").printed
    assert "{%" in printed or "{{" in printed
    assert "synthesize" in printed


def test_check_asks_for_one_token(notebook: Notebook, server: ChatServer) -> None:
    """``%moa check`` asks each model once for one token, and says which does not answer."""
    server.on("beta", Reply.no_such_model())
    listed = notebook.run("%moa check").table
    assert "answers as" in listed
    assert "beta" in listed
    assert [server.count(name) for name in ("alpha", "beta", "gamma")] == [1, 1, 1]
    assert {
        record.body.get("max_tokens") or record.body.get("max_completion_tokens") for record in server.requests
    } == {1}


def test_where_says_what_goes_where(notebook: Notebook, server: ChatServer) -> None:
    """``%moa where`` names the address of each model and the file that keeps the answers; nothing is sent."""
    listed = notebook.run("%moa where").table
    assert server.base_url in listed
    assert "store.sqlite" in listed
    assert server.count() == 0


def test_the_last_run_is_shown_again(in_front_end: Notebook) -> None:
    """``%moa last`` shows the last panel again; before any run it says so."""
    assert "nothing has run" in in_front_end.run("%moa last").said
    in_front_end.ask("-q")
    (display,) = in_front_end.run("%moa last").displays
    assert RUN in display


def test_the_last_frame_run_is_its_report(in_front_end: Notebook) -> None:
    """After a frame run ``%moa last`` shows its report."""
    in_front_end.variables["texts"] = pd.Series(["a", "b"])
    done = in_front_end.run("import moa_nb\nout = texts.moa.synthesize(pipeline='single', progress=False)")
    assert done.error is None
    (display,) = in_front_end.run("%moa last").displays
    assert "2 rows: 2 done" in display["text/plain"]


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("pipelnes", "did you mean 'pipelines'?"),
        ("Why did churn rise", "%%moa"),
        ("where there", "takes nothing more"),
        ("models lab beta", "takes one name more"),
        ("models lap", "did you mean 'lab'?"),
        ("templates synthesise", "did you mean 'synthesize'?"),
    ],
)
def test_a_wrong_word_is_named(notebook: Notebook, server: ChatServer, line: str, right: str) -> None:
    """A wrong word after ``%moa`` is one line with the nearest right one."""
    assert right in notebook.run(f"%moa {line}").said
    assert server.count() == 0


# Coming and going -------------------------------------------------------------------------------


def _threads() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("moa-nb") and "server" not in thread.name
    ]


def test_loading_twice_changes_nothing(notebook: Notebook) -> None:
    """``%load_ext`` a second time and ``%reload_ext`` leave one working magic."""
    assert notebook.run("%load_ext moa_nb").error is None
    reloaded = notebook.run("%reload_ext moa_nb")
    assert reloaded.error is None
    assert notebook.answer("-p single").text == "The **final** answer."
    assert len([name for name in notebook.shell.magics_manager.registry if "Moa" in name]) == 1


def test_unloading_leaves_nothing(notebook: Notebook, server: ChatServer) -> None:
    """After ``%unload_ext`` the magics are gone and no thread lives; loading again works."""
    notebook.answer("-p single")
    assert _threads()
    assert notebook.run("%unload_ext moa_nb").error is None
    # Whoever stops the engine waits two seconds for its thread, and a busy machine may let that one come later.
    assert server.wait_until(lambda: _threads() == [], seconds=60), _threads()
    manager = notebook.shell.magics_manager
    assert "moa" not in manager.magics["cell"]
    assert "moa" not in manager.magics["line"]
    assert not [name for name in manager.registry if "Moa" in name]
    assert not [one for one in notebook.shell.configurables if "Moa" in type(one).__name__]
    assert notebook.run("%load_ext moa_nb").error is None
    assert notebook.answer("-p single").calls[0].cached


def test_loading_says_one_line(notebook: Notebook) -> None:
    """Loading says in one line what will be used."""
    notebook.run("%unload_ext moa_nb")
    printed = notebook.run("%load_ext moa_nb").printed
    assert printed == "moa-nb: uses lab:alpha, lab:beta, lab:gamma (configured)\n"


def test_loading_with_wrong_settings_works(notebook: Notebook, tmp_path: Path) -> None:
    """A mistake in the settings is said in one line, and the magics are there to use once it is fixed."""
    notebook.run("%unload_ext moa_nb")
    (tmp_path / "moa.toml").write_text("pipelin = 'single'")
    printed = notebook.run("%load_ext moa_nb").printed
    assert "did you mean 'pipeline'?" in printed
    assert printed.count("\n") == 1
    (tmp_path / "moa.toml").write_text("pipeline = 'single'")
    assert notebook.answer().pipeline == "single"


def test_a_hint_names_only_the_users_own_variables(notebook: Notebook) -> None:
    """Not what IPython put there, in the cell and in a template around it."""
    notebook.variables["mine"] = 3
    for said in (notebook.ask(text="{{ Inn }}").said, notebook.ask("-t '{{ text }}{{ Inn }}'").said):
        assert "'In'" not in said
        assert "get_ipython" not in said
        assert "mine" in said


def test_a_known_service_on_another_host_is_named(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's file that sends a known key elsewhere is seen in what says who answers and where."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings.reset()
    Path("moa.toml").write_text(
        '[providers.openai]\nbase_url = "https://other.example/v1"\nkey_env = "OPENAI_API_KEY"', "utf-8"
    )
    assert "other.example" in notebook.run("%moa where").table
    made = engine_room.current()

    def why() -> str:
        async def ask() -> str:
            configured = settings.current()
            return (await made.cast(configured, made.gateway(configured))).why

        return made.finish(ask())

    assert why().startswith("uses openai at other.example (OPENAI_API_KEY is set)")
    moa.configure(proposers="openai:gpt-4o-mini")
    assert why() == "uses openai:gpt-4o-mini, openai at other.example (configured)"


# Being read -------------------------------------------------------------------------------------


def test_the_help_names_every_option_and_word(notebook: Notebook) -> None:
    """``%moa`` alone and the docstring of ``%%moa?`` keep up with the parser."""
    printed = notebook.run("%moa").printed
    shown = notebook.shell.magics_manager.magics["cell"]["moa"].__doc__
    for action in cell_parser()._actions:
        for option in action.option_strings:
            assert option in printed
        assert not action.option_strings or any(option in shown for option in action.option_strings)
    assert all(word in shown for word in COMMANDS)


def test_a_batch_is_asked_for(notebook: Notebook, server: ChatServer) -> None:
    """``--mode batch`` hands the calls in where the service has a Batch API; elsewhere it is one line."""
    assert "Batch API" in notebook.ask("-p single --mode batch").said
    assert server.count() == 0


def test_an_error_in_a_cell_of_python_is_the_users_own_lines(notebook: Notebook) -> None:
    """Not the way through this package: the line of the cell, for a function of the user's its own too, and the message."""
    shown = notebook.run("import moa_nb as moa\nmoa.run('Why?', pipeline='singel')")
    assert shown.printed.strip().splitlines() == [
        "line 2: moa.run('Why?', pipeline='singel')",
        "UnknownName: no pipeline 'singel'; did you mean 'single'?",
    ]
    shown = notebook.run(
        "def broken(prompt):\n    return 1 / 0\n\nmoa.run('Why?', pipeline='single', aggregator=broken)"
    )
    assert shown.printed.strip().splitlines() == [
        "line 4: moa.run('Why?', pipeline='single', aggregator=broken)",
        "line 2 of broken: return 1 / 0",
        "ZeroDivisionError: division by zero",
        "RowError: function 'broken' raised ZeroDivisionError: division by zero",
    ]
