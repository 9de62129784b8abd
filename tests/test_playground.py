"""The playground: what it shows is what is sent, an edit is asked from its layer down, versions stay."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from test_kernel import KEY, running
from traitlets.config import Config

import moa_nb as moa
from moa_nb.engine import current
from moa_nb.errors import MoaError, SetupError, SpendingNotAgreed, TemplateError, UnknownName
from moa_nb.notebook.playground import Playground, edit, static
from moa_nb.notebook.playground.drafts import Draft
from moa_nb.notebook.playground.preview import Preview
from moa_nb.panels.provenance import MIME_TYPE
from moa_nb.testing import ChatServer, Reply

QUESTION = "Why did churn rise?"

FRAME = pd.DataFrame({"review": ["a good bag", "a bad zip", None, "so so"]}, index=["w", "x", "y", "z"])


@pytest.fixture
def served(server: ChatServer, lab: Callable[..., None]) -> ChatServer:
    """The server, whose answers tell what was asked: equal questions get equal answers, others do not."""
    server.on("*", lambda body: f"{body['model']} read {len(json.dumps(body['messages']))} characters")
    return server


def bodies(server: ChatServer, since: int = 0) -> Counter[bytes]:
    """Return the bytes of the requests, in whatever order they arrived."""
    return Counter(record.content for record in server.requests[since:])


def other(playground: Playground, template: str = "synthesize") -> str:
    """Return the template's source with another first word."""
    return playground.source(template).replace("You are given", "Here are", 1)


# What is asked ------------------------------------------------------------------------------------


def test_an_edit_is_asked_from_its_layer_down(served: ChatServer) -> None:
    """Three proposers and an aggregator are asked once; after an edit of the aggregator's template it alone is."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    playground.run()
    assert served.count() == 4
    playground.edit("synthesize", other(playground))
    assert playground.estimate().n_calls == 1
    playground.run()
    assert (served.count(), served.requests[-1].model) == (5, "z")
    playground.run()
    assert served.count() == 5


def test_an_edit_over_rows_is_asked_from_its_layer_down(served: ChatServer) -> None:
    """Over n rows an edit of the aggregator's template takes n requests; rows without text take none."""
    playground = Playground(FRAME, "review", "moa-lite")
    playground.sample(10)
    assert served.count() == 3 * 4
    playground.edit("synthesize", other(playground))
    trial = playground.sample(10)
    assert served.count() == 3 * 4 + 3
    assert [record.model for record in served.requests[-3:]] == ["z"] * 3
    assert [row.label for row in trial.rows] == ["w: a good bag", "x: a bad zip", "z: so so"]


def test_the_prompts_shown_are_the_prompts_sent(served: ChatServer) -> None:
    """What the preview shows of a layer whose references are known is what the server then gets, to the byte."""
    playground = Playground(FRAME, "review", "moa-lite", instruction="Summarize in a line")
    playground.template = "instruct"
    first = playground.prompts()
    playground.template = "synthesize"
    playground.run()
    playground.edit("synthesize", other(playground))
    (shown,) = playground.prompts()
    assert playground.preview().n_exact == 2
    playground.run()
    sent = {record.model: record.messages for record in served.requests}
    assert [turn.to_dict() for turn in shown.prompt] == sent["z"]
    assert [turn.to_dict() for turn in first[0].prompt] == sent["a"]


def test_prompts_below_unknown_answers_have_placeholders_and_say_so(served: ChatServer) -> None:
    """Before anything was asked the aggregator's prompt quotes placeholders, and the playground says so; nothing is sent."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    preview = playground.preview()
    assert (preview.names, preview.n_exact, preview.result) == (["layer 1", "layer 2"], 1, None)
    assert "[the answer of a, up to" in playground.prompt("layer 2")
    assert preview.estimate.n_calls == 4
    for text in (str(preview), static.bundle(playground)["text/plain"], static.bundle(playground)["text/html"]):
        assert str(preview.estimate) in text
        assert re.search(r"moa-lite: 4 calls, [\d,]+ tokens in, up to [\d,]+ out, at most \$0\.\d+", text)
    assert "placeholders" in static.bundle(playground)["text/plain"]
    assert served.count() == 0


def test_a_run_that_is_known_goes_its_real_way(served: ChatServer) -> None:
    """Once all is asked a cascade's preview shows the layers that ran, not the dearest that could."""
    served.on("*", "The answer is 7")
    playground = Playground("What is 3 + 4?", pipeline="consistency-cascade")
    assert len(playground.preview().layers) > 1
    assert playground.preview().result is None
    result = playground.run()
    preview = playground.preview()
    assert preview.names == [layer.name for layer in result.layers]
    assert preview.result is not None
    assert preview.result.text == result.text
    assert "sends nothing" in str(preview)


def test_saved_templates_are_what_cells_and_frames_then_use(served: ChatServer) -> None:
    """After saving, plain runs and verbs send the bytes that the playground sent; before, nobody else sees the edit."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    rows = Playground(FRAME, "review", "moa-lite", instruction="Summarize")
    for one in (playground, rows):
        one.edit("synthesize", other(one))
    began = served.count()
    playground.run()
    rows.sample(10)
    shown = bodies(served, began)
    moa.run(QUESTION, pipeline="moa-lite")
    assert served.requests[-1].content not in shown
    (file,) = playground.save()
    assert (file, playground.edited) == (Path("templates/prompts/synthesize.jinja").absolute(), {})
    assert rows.edited == {}
    began = served.count()
    moa.run(QUESTION, pipeline="moa-lite", cache="refresh")
    FRAME.moa.synthesize("review", instruction="Summarize", pipeline="moa-lite", cache="refresh", progress=False)
    assert bodies(served, began) == shown


def test_the_file_is_saved_beside_the_settings(served: ChatServer, tmp_path: Path) -> None:
    """In a folder below the project's, the template goes where the project's templates are."""
    (tmp_path / "work" / "moa.toml").write_text("")
    below = tmp_path / "work" / "notebooks"
    below.mkdir()
    os.chdir(below)
    playground = Playground(QUESTION, pipeline="moa-lite")
    playground.edit("synthesize", other(playground))
    assert playground.save() == [tmp_path / "work" / "templates" / "prompts" / "synthesize.jinja"]
    assert "Path('../templates/prompts/synthesize.jinja')" not in playground.as_python()
    playground.edit("synthesize", other(playground).replace("Here", "There"))
    assert "Path('../templates/prompts/synthesize.jinja')" in playground.as_python()


def test_a_budget_holds_for_each_run(served: ChatServer) -> None:
    """The budget is one run's: four calls fit, again and again, and a fifth does not."""
    playground = Playground(QUESTION, pipeline="moa-lite", budget="4 calls")
    for number in range(3):
        playground.edit("synthesize", f"{other(playground)} {number}")
        assert playground.run().error is None
    with pytest.raises(MoaError, match="budget"):
        Playground("another", pipeline="moa-lite", budget="3 calls").run()


def test_rows_are_not_asked_by_surprise(served: ChatServer, lab: Callable[..., None]) -> None:
    """Over rows, what would take more than was agreed is not begun."""
    lab(ask_above=0.000001)
    playground = Playground(FRAME, "review", "moa-lite")
    with pytest.raises(SpendingNotAgreed, match="budget="):
        playground.sample(3)
    assert served.count() == 0


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("a\n\n{% if %}", 3, "Expected an expression"),
        ("a\n{{ references", 2, "end of print statement"),
        ("a\nb\n{{ referenses }}", 3, "did you mean 'references'?"),
        ("a\n{% for one in references %}\n{{ one.nothing }}\n{% endfor %}", 3, "has no 'nothing'"),
        ("a\n{{ references.append(1) }}", 2, "may not"),
        ("a\n{% include 'nowhere' %}", 2, "which is not there"),
    ],
)
def test_a_mistake_is_said_at_its_line(served: ChatServer, source: str, line: int, says: str) -> None:
    """What does not parse and what cannot be rendered is said with its line, and nothing is sent."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    playground.edit("synthesize", source)
    (found,) = playground.check()
    assert (found.template, found.line) == ("synthesize", line)
    assert says in found.text
    with pytest.raises(TemplateError):
        playground.preview()
    with pytest.raises(TemplateError):
        playground.save()
    playground.reset()
    assert playground.check() == []
    assert served.count() == 0


def test_a_mistake_in_an_included_template_is_said_there(served: ChatServer) -> None:
    """A template that is included can be edited, and its mistakes are its own."""
    folder = Path("templates/prompts")
    folder.mkdir(parents=True)
    (folder / "manners.jinja").write_text("Be brief.\nBe kind.")
    playground = Playground(QUESTION, pipeline="moa-lite")
    playground.edit("synthesize", "{% include 'manners' %}\n{{ references | join }}")
    assert playground.check() == []
    assert playground.templates == ["synthesize", "manners"]
    playground.edit("manners", "Be brief.\n{{ tone }}")
    (found,) = playground.check()
    assert (found.template, found.line) == ("manners", 2)
    playground.edit("manners", "Be long.")
    assert playground.prompt().startswith("[system]\nBe long.")


def test_wrong_names_are_answered_in_one_line(served: ChatServer) -> None:
    """Templates, layers, agents, versions, rows and options that are not there name the nearest that is."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    for ask, error, says in (
        (lambda: playground.edit("synthesise", ""), UnknownName, "did you mean 'synthesize'?"),
        (lambda: playground.prompt("layer 9"), UnknownName, "did you mean 'layer"),
        (lambda: playground.prompt(agent="q"), UnknownName, "no agent 'q'"),
        (lambda: playground.restore("best"), UnknownName, "no version 'best'"),
        (lambda: playground.run(7), UnknownName, "no row 7: there are 1"),
        (lambda: playground.keep("as saved"), SetupError, "cannot be a version's name"),
        (playground.save, SetupError, "nothing to save"),
        (lambda: Playground(QUESTION, "moa-lite"), SetupError, "pipeline="),
        (lambda: Playground(17), SetupError, "not int"),
        (lambda: Playground(QUESTION, cache="off"), SetupError, "leave cache"),
        (lambda: Playground(QUESTION, pipline="moa"), TypeError, "did you mean 'pipeline'?"),
        (lambda: Playground(FRAME, "reviews"), UnknownName, "did you mean 'review'?"),
    ):
        with pytest.raises(error, match=says.replace("?", r"\?")):
            ask()
    assert served.count() == 0


# Versions -----------------------------------------------------------------------------------------


def test_versions_are_kept_with_names_and_come_back(served: ChatServer) -> None:
    """Each run keeps a version; the same templates are kept once; a name is one version's; restoring edits to it."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    playground.run()
    playground.run()
    playground.edit("synthesize", "first {{ references }}")
    kept = playground.keep("best")
    playground.run()
    playground.edit("synthesize", "second {{ references }}")
    playground.run()
    assert [one.name for one in playground.versions] == [None, "best", None]
    assert playground.keep("best").id == playground.versions[-1].id
    assert [one.name for one in playground.versions] == [None, None, "best"]
    playground.restore(kept.id)
    assert playground.edited == {"synthesize": "first {{ references }}"}
    playground.restore(playground.versions[0])
    assert playground.edited == {}
    playground.forget("best")
    assert len(playground.versions) == 2


def test_versions_outlive_the_kernel(served: ChatServer) -> None:
    """Another process finds the versions, with their names, and what they were."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    playground.edit("synthesize", "Blend {{ references }}\nwell: ärger 语")
    playground.keep("blend")
    program = f"""
import moa_nb as moa
from moa_nb.notebook.playground import Playground
moa.configure(proposers=["lab:a", "lab:b", "lab:c"], aggregator="lab:z", providers={{"lab": {{"base_url": {served.base_url!r}}}}})
playground = Playground({QUESTION!r}, pipeline="moa-lite")
playground.restore("blend")
print(ascii(playground.source("synthesize")), playground.difference("as saved", "blend").before)
assert not Playground({QUESTION!r}, pipeline="self-moa").versions
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == f"{playground.source()!a} as saved"


def test_a_version_is_what_it_was_though_the_files_change(served: ChatServer) -> None:
    """A version keeps the templates themselves, not what differed from files that have changed since."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    original = playground.source()
    before = playground.keep("before")
    playground.edit("synthesize", "new {{ references }}")
    playground.save()
    assert playground.edited == {}
    playground.restore(before)
    assert playground.edited == {"synthesize": original}


def test_any_two_versions_are_compared_word_by_word(served: ChatServer) -> None:
    """Templates, prompts and outputs of two versions differ where they differ; of one that did not run there is no output."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    playground.run()
    playground.keep("one")
    playground.edit("synthesize", playground.source().replace("Weigh each", "Weigh well each"))
    found = playground.difference("one")
    assert (found.before, found.after, found.missing) == ("one", "as edited", ("as edited",))
    for pieces in (found.templates["synthesize"], found.prompts["layer 2 · z"]):
        assert [(kind, text.strip()) for kind, text in pieces if kind != "same"] == [("added", "well")]
    assert found.outputs == {}
    result = playground.run()
    found = playground.difference("one")
    assert found.missing == ()
    said = found.outputs["answer"]
    assert "".join(text for kind, text in said if kind != "removed") == result.text
    assert {kind for kind, _ in said} == {"same", "removed", "added"}
    assert "well" in str(found)
    assert playground.difference("one", "one").parts == []


# Rows side by side ---------------------------------------------------------------------------------


def test_rows_stand_side_by_side_with_agreement_and_cost(served: ChatServer) -> None:
    """A trial has each row's answers under both versions, how alike they are, the agents' agreement and the dollars."""
    playground = Playground(FRAME, "review", "moa-lite")
    playground.sample(2)
    playground.edit("synthesize", other(playground))
    served.on("z", "quite another answer")
    trial = playground.sample(2)
    assert (trial.against, trial.version) == ("as saved", "as edited")
    for row in trial.rows:
        assert (row.text, row.before is not None, row.error) == ("quite another answer", True, None)
        assert row.alike == 0.0
        assert row.agreement is not None
        assert 0 < row.agreement < 1
        assert row.cost is not None
        assert row.cost > 0
    assert trial.cost == pytest.approx(sum(row.cost or 0 for row in trial.rows))
    assert list(trial.to_frame()["label"]) == ["w: a good bag", "x: a bad zip"]
    assert "quite another answer" in repr(trial)
    assert set(trial._repr_mimebundle_()) == {"text/html", "text/markdown", "text/plain", MIME_TYPE}
    both = Playground(FRAME.iloc[::-1], "review", "self-moa")
    both.edit("synthesize", other(both))
    assert all(row.before is not None for row in both.sample([0], both=True).rows)


def test_a_row_that_fails_is_one_row(served: ChatServer) -> None:
    """A row that cannot be answered says why; the others have their answers."""
    served.on("*", lambda body: Reply.bad_request("too odd") if "bad zip" in str(body) else "fine")
    trial = Playground(FRAME, "review", "moa-lite").sample([0, 1, 2])
    assert [row.text for row in trial.rows] == ["fine", None, None]
    assert "too odd" in str(trial.rows[1].error)
    assert "no text" in str(trial.rows[2].error)


# The template that makes the prompts ---------------------------------------------------------------


def test_the_template_over_a_rows_columns_is_edited_too(served: ChatServer) -> None:
    """A template given as source can be edited, is sent as shown, and gets a name when it is saved."""
    playground = Playground(FRAME, pipeline="single", template="Reply to {{ review }}")
    assert playground.templates == ["input template"]
    playground.edit("input template", "Answer kindly:\n{{ reviev }}")
    assert playground.check()[0].text.endswith("did you mean 'review'?")
    playground.edit("input template", "Answer kindly:\n{{ review }}")
    assert playground.prompt() == "[user]\nAnswer kindly:\na good bag"
    playground.run()
    with pytest.raises(SetupError, match="name='reply'"):
        playground.save()
    playground.save("input template", name="answers/kindly")
    assert playground.templates == ["answers/kindly"]
    n_asked = served.count()
    FRAME[:1].moa.synthesize(template="answers/kindly", pipeline="single", progress=False)
    assert served.count() == n_asked
    assert "template='answers/kindly'" in playground.as_python()
    playground.edit("answers/kindly", "oneword{{review}}")
    assert playground.prompt() == "[user]\noneworda good bag"


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../b", " ", "a\\b"])
def test_a_file_is_saved_among_the_templates_or_not_at_all(served: ChatServer, name: str) -> None:
    """A name that leads elsewhere is refused."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    with pytest.raises(SetupError, match="cannot be a template's name"):
        playground.save("synthesize", name=name)


# Taken along --------------------------------------------------------------------------------------


@pytest.fixture
def notebook() -> Iterator[InteractiveShell]:
    """IPython in this process, with the extension loaded."""
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    moa.load_ipython_extension(shell)
    yield shell
    moa.unload_ipython_extension(shell)
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("text", [QUESTION, "A {{ brace }} and {% tag %}\nin two lines", "ends in a line\n"])
def test_a_copied_cell_asks_the_same(served: ChatServer, notebook: InteractiveShell, text: str) -> None:
    """The cell that is copied sends the bytes that the playground sent: run after it, nothing is asked."""
    playground = Playground(text, pipeline="moa-lite", temperature=0.5, models=["lab:a", "lab:b"], samples=2)
    playground.run()
    n_asked = served.count()
    cell = playground.as_cell()
    assert cell.startswith("%%moa -p moa-lite")
    notebook.run_cell(f"{cell}\n", store_history=False).raise_error()
    assert served.count() == n_asked
    assert isinstance(moa.last(), moa.Result)


def test_a_cell_cannot_hold_what_is_not_saved(served: ChatServer) -> None:
    """While a template is edited a cell would not find it, and the playground says what to do."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    playground.edit("synthesize", other(playground))
    with pytest.raises(SetupError, match="save first"):
        playground.as_cell()
    playground.save()
    assert playground.as_cell() == f"%%moa -p moa-lite\n{QUESTION}"


def test_copied_python_asks_the_same_anywhere(served: ChatServer, tmp_path: Path) -> None:
    """The Python that is copied brings the edited template along: in another folder, too, all its answers are known."""
    playground = Playground(FRAME, "review", "moa-lite", instruction='Say "it" in \\ a\nline')
    playground.edit("synthesize", 'Blend """all""" of them\n{{ references }}\n\\n')
    playground.sample(10)
    n_asked = served.count()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = playground.as_python()
    os.chdir(elsewhere)
    space: dict[str, Any] = {"df": FRAME.copy()}
    exec(program, space)
    assert served.count() == n_asked
    assert space["df"]["answer"].notna().sum() == 3
    assert (elsewhere / "templates" / "prompts" / "synthesize.jinja").is_file()


def test_edit_opens_a_pipeline_that_uses_the_template(served: ChatServer) -> None:
    """``%moa edit`` takes the default pipeline if it uses the template, else one that does, on the last text."""
    assert edit("synthesize").template == "synthesize"
    moa.run("What did I ask?", pipeline="single")
    playground = edit("debate/revise")
    assert (playground.template, playground.inputs.data) == ("debate/revise", "What did I ask?")
    assert "debate/revise" in playground.templates
    with pytest.raises(UnknownName, match="did you mean 'synthesize'"):
        edit("synthesise")
    with pytest.raises(SetupError, match="rows/score"):
        edit("rows/score")


# Shown --------------------------------------------------------------------------------------------


def test_the_static_form_is_complete_and_harmless(served: ChatServer) -> None:
    """Without a front end there is the template, its prompts, the answers and the versions, all of it escaped."""
    evil = "<img src=x onerror=alert(1)></pre><script>1</script>"
    served.on("*", evil)
    playground = Playground(f"{QUESTION} {evil}", pipeline="moa-lite")
    playground.edit("synthesize", f"{evil} {{{{ references }}}}")
    playground.keep(evil)
    playground.run()
    shown = static.bundle(playground)
    assert set(shown) == {"text/html", "text/markdown", "text/plain"}
    for part in (QUESTION, "layer 2", "every answer is in the store", "from the store"):
        assert part in shown["text/html"]
        assert part in shown["text/plain"]
    assert "<img" not in shown["text/html"]
    assert "<script" not in shown["text/html"]
    assert shown["text/markdown"].startswith("```")
    playground.edit("synthesize", "{% if %}")
    assert "line 1" in static.bundle(playground)["text/html"]


@pytest.mark.kernel
def test_without_a_front_end_there_is_the_static_form(tmp_path: Path) -> None:
    """In a kernel that nobody looks at, the output is the static form, and no widget; code goes on from there."""
    with ChatServer(key=KEY) as server, running(tmp_path / "kernel", server) as kernel:
        cell = kernel.run(f"pg = moa.Playground({QUESTION!r}, pipeline='moa-lite')\npg").ok()
        (panel,) = cell.panels
        assert set(panel) == {"text/html", "text/markdown", "text/plain"}
        assert "placeholders" in panel["text/plain"]
        kernel.run("pg.run()").ok()
        end = time.monotonic() + 60
        while "every answer is in the store" not in panel["text/plain"]:
            assert time.monotonic() < end, panel["text/plain"]
            kernel.read(0.1)
            (panel,) = cell.panels


def settled(playground: Playground, holds: Callable[[], object]) -> None:
    """Return when the editor has come to show what is expected of it."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, playground._editor.widget.seen
        time.sleep(0.005)


def test_the_editor_answers_the_latest_edit(served: ChatServer) -> None:
    """Of many edits the last one is shown, and those before it that came too late are not."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    editor = playground.open_editor(lambda _: None)
    look = {"do": "look", "template": "synthesize", "layer": "layer 2", "row": 0}
    for serial in range(1, 40):
        editor._receive(None, {**look, "serial": serial, "source": f"number {serial} {{{{ references }}}}"}, [])
    editor._receive(None, {**look, "serial": 7, "source": "too late"}, [])
    settled(playground, lambda: editor.widget.seen.get("serial") == 39)
    assert editor.widget.seen["prompts"][0]["messages"][0]["text"].startswith("number 39 ")
    assert playground.source().startswith("number 39 ")
    editor._receive(None, {**look, "serial": 40, "source": "a\n{{ nobody }}"}, [])
    settled(playground, lambda: editor.widget.seen["mistakes"])
    assert [one["line"] for one in editor.widget.seen["mistakes"]] == [2]


def test_the_editor_does_what_its_buttons_say(served: ChatServer) -> None:
    """Run, rows, keep, compare, restore, copy, save and reset do what the methods do, and what fails is said."""
    playground = Playground(FRAME, "review", "moa-lite")
    editor = playground.open_editor(lambda _: None)

    def press(**message: Any) -> str:
        editor._receive(None, message, [])
        settled(playground, lambda: (editor._job is None or editor._job.done) and not editor.widget.status["busy"])
        return str(editor.widget.status["text"])

    assert press(do="run") == "done"
    assert editor.widget.shown["parts"][0]["name"] == "answer"
    playground.edit("synthesize", other(playground))
    assert editor.widget.draft["source"] == playground.source()
    assert "save first" in press(do="copy", form="cell")
    assert press(do="keep", name="best") == "kept as best"
    assert "best" in editor.widget.state["versions"]
    press(do="sample", rows=2, against="as saved")
    assert [row[0] for row in editor.widget.shown["cells"]] == ["w: a good bag", "x: a bad zip"]
    press(do="compare", before="as saved", after="best")
    assert editor.widget.shown["parts"][0]["name"] == "template · synthesize"
    assert press(do="reset") == "as the files have them"
    assert playground.edited == {}
    press(do="restore", version="best")
    assert press(do="save", name="").startswith("saved: templates")
    press(do="copy", form="python")
    assert editor.widget.shown["code"] == playground.as_python()
    assert "no version" in press(do="restore", version="nothing")
    editor._receive(None, {"do": "unheard of"}, [])
    editor._receive(None, "no message at all", [])


def test_an_earlier_look_that_takes_longer_is_not_shown(served: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two edits from code the second one's prompts are shown, though the first one's come after them."""
    playground = Playground(QUESTION, pipeline="moa-lite")
    editor = playground.open_editor(lambda _: None)
    look, begun, held, came = playground.look, threading.Event(), threading.Event(), threading.Event()

    async def slowly(draft: Draft, row: int | None = None) -> Preview:
        seen = await look(draft, row)
        if draft.sources["synthesize.jinja"].startswith("first"):
            begun.set()
            while not held.is_set():
                await asyncio.sleep(0.002)
            came.set()
        return seen

    monkeypatch.setattr(playground, "look", slowly)
    playground.edit("synthesize", "first {{ references }}")
    assert begun.wait(60)  # a look takes the sources as they are when it begins
    playground.edit("synthesize", "second {{ references }}")

    def shown() -> str:
        return str([prompt["messages"][0]["text"] for prompt in editor.widget.seen.get("prompts", ())])

    settled(playground, lambda: "second" in shown())
    held.set()
    assert came.wait(60)
    current().finish(asyncio.sleep(0))  # a turn of the loop later
    assert "second" in shown()
    assert served.count() == 0


def test_the_editor_stops(served: ChatServer) -> None:
    """Stop ends what runs, whatever else was pressed meanwhile; what was answered is kept."""
    served.on("z", Reply.hanging())
    playground = Playground(QUESTION, pipeline="moa-lite")
    editor = playground.open_editor(lambda _: None)
    editor._receive(None, {"do": "run"}, [])
    assert served.wait_until(lambda: served.count("z") == 1, seconds=60)
    editor._receive(None, {"do": "keep", "name": "best"}, [])
    assert editor.widget.status == {"text": "kept as best", "busy": True}
    editor._receive(None, {"do": "stop"}, [])
    settled(playground, lambda: not editor.widget.status["busy"])
    assert editor.widget.status["text"].startswith("stopped")
    assert served.wait_until(lambda: served.in_flight == 0, seconds=60)
    assert playground.estimate().n_calls == 1


def test_what_the_browser_gets_is_small(served: ChatServer) -> None:
    """The editor's script and styles stay below 25 kB, and fetch nothing."""
    from moa_nb.notebook.playground.widget import _Widget

    assert len(_Widget._esm.encode()) + len(_Widget._css.encode()) < 25_000
    for word in ("http", "import(", "fetch(", "innerHTML", "eval("):
        assert word not in _Widget._esm + _Widget._css


@pytest.mark.parametrize(
    ("texts", "asked"),
    [("abac", [0, 1, 3]), ("aaab", [0, 1, 3]), ("aa", [0, 1]), ("abc", [0, 1, 2]), ("aaaa", [0, 1, 2])],
)
def test_a_few_rows_differ_where_they_can(texts: str, asked: list[int]) -> None:
    """Of rows that ask the same the first is tried, and others only where too few ask something else."""

    def said(prompt: str) -> str:
        return prompt

    pipeline = moa.Pipeline(layers=[[said]])
    preview = pd.Series(list(texts)).moa.preview.synthesize(pipeline=pipeline, progress=False)
    assert preview.run.report.index.tolist() == asked


# Words ---------------------------------------------------------------------------------------------


def test_a_template_given_as_source_has_one_name(served: ChatServer) -> None:
    """What is wrong with it is said of the input template, with its line, as the editor calls it."""
    assert served
    playground = Playground(QUESTION, pipeline="single", template="Say {{ text }}")
    for source, line in (("Say\n{{ txt }}", 2), ("{{ text.a.b }}", 1), ("Say {{ text", 1)):
        playground.edit("input template", source)
        (wrong,) = playground.check()
        assert (wrong.template, wrong.line) == ("input template", line)
        assert "'input template'" in wrong.text
        assert "'text'," not in wrong.text
        assert wrong.text in bundle_of(playground)
    with pytest.raises(TemplateError, match="input template"):
        playground.save("input template", name="never")
    named = Playground(QUESTION, pipeline="single", template="instruct")
    assert named.check()[0].template == "instruct"


def bundle_of(playground: Playground) -> str:
    """Return the playground as text."""
    return str(static.bundle(playground)["text/plain"])


def test_a_template_given_as_source_was_not_saved(served: ChatServer) -> None:
    """It is compared with what was given; as soon as another template is edited, with what the files have."""
    assert served
    playground = Playground(QUESTION, pipeline="moa-lite", template="Say {{ text }}")
    playground.edit("input template", "Do say {{ text }}")
    for before in ("as saved", "as given"):
        found = playground.difference(before)
        assert (found.before, found.after) == ("as given", "as edited")
    trial = playground.sample(1)
    assert (trial.against, trial.version) == ("as given", "as edited")
    playground.edit("synthesize", other(playground))
    assert playground.difference().before == "as saved"
