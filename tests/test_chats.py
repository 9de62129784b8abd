"""Chats in cells: what goes out with each turn, what is kept, and what becomes of a chat when cells run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from magics import (  # noqa: F401 - fixtures
    KEY,
    RUN,
    Notebook,
    Shown,
    in_front_end_fixture,
    notebook_fixture,
    server_fixture,
    shell_fixture,
)
from markdown_it import MarkdownIt
from real_kernels import new_manager
from scripted import Models
from test_panels import HOSTILE, MARKDOWN_TAGS, PANEL_TAGS, RENDERED_TAGS, assert_harmless

import moa_nb as moa
from moa_nb import settings
from moa_nb.engine import current
from moa_nb.engine import engine as engine_room
from moa_nb.errors import SetupError, UnknownName
from moa_nb.notebook.chats import CellChat
from moa_nb.panels.chat import MAX_CHARACTERS, ChatDisplay, EarlierTurns
from moa_nb.pipeline import presets
from moa_nb.store import Store
from moa_nb.store.conversations import Turn
from moa_nb.testing import ChatServer, Reply

FIRST, SECOND, THIRD = "Who built the mill?", "And who sold it?", "Why?"


def turn(question: str, answer: str = "Nobody.", *, run: str = "r1", cell: str = "", at: float = 1.0) -> Turn:
    """Return a turn as the store keeps it."""
    return Turn(question, answer, "single", run, cell, at)


def store() -> Store:
    """Return the store of this session."""
    return current().store(settings.current())


def asked(chat: str = "support") -> list[str]:
    """Return the questions of a chat."""
    return [one["content"] for one in moa.messages(chat) if one["role"] == "user"]


class Cells:
    """A front end's cells, each under its id, of a notebook whose chat is asked with one pipeline."""

    def __init__(self, notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notebook = notebook
        self.running = ""
        self.outputs: dict[str, list[dict[str, Any]]] = {}
        parent = property(lambda _: lambda: {"metadata": {"cellId": self.running}})
        monkeypatch.setattr(type(notebook.shell), "get_parent", parent, raising=False)

    def run(self, cell: str, question: str, line: str = "-p single") -> moa.Result:
        """Return the result of the cell with this id."""
        shown = self.show(cell, f"%%moa answer --chat support {line}\n{question}")
        assert shown.error is None, shown.error
        result = self.notebook.variables["answer"]
        assert isinstance(result, moa.Result)
        return result

    def show(self, cell: str, source: str) -> Shown:
        """Return what the cell leaves, which takes the place of what it left before."""
        self.running = cell
        shown = self.notebook.run(source)
        self.outputs[cell] = shown.displays
        return shown

    def save(self, path: Path) -> Path:
        """Return the notebook's file."""
        return saved(path, *self.outputs.values())


def saved(path: Path, *cells: Sequence[dict[str, Any]]) -> Path:
    """Return the file of a notebook whose cells show these."""
    made = [
        nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", data=data) for data in shown])
        for shown in cells
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what goes to another machine, whose store is empty."""

    def go() -> None:
        engine_room.stop()
        monkeypatch.setenv("MOA_NB_HOME", str(tmp_path / "elsewhere"))
        assert store().chats() == []

    return go


@pytest.fixture
def cells(in_front_end: Notebook, monkeypatch: pytest.MonkeyPatch) -> Cells:
    """Return the cells of a front end that sends their ids."""
    return Cells(in_front_end, monkeypatch)


# What goes out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets.names())
def test_each_turn_goes_out_with_what_was_said_before(notebook: Notebook, server: ChatServer, name: str) -> None:
    """Whatever the pipeline, each prompt of the second turn holds the first question and its answer, in order."""
    Models(accept=True).serve(server)
    first = notebook.answer(f"--chat support -p {name}", FIRST)
    n_first = server.count()
    second = notebook.answer(f"--chat support -p {name}", SECOND)
    assert [one.content for one in second.conversation] == [FIRST, first.text, SECOND]
    later = server.requests[n_first:]
    assert later
    for record in later:
        said = "\n".join(str(message["content"]) for message in record.messages)
        assert -1 < said.find(FIRST) < said.rfind(SECOND)
        assert first.text in said
    assert asked() == [FIRST, SECOND]


def test_variables_templates_and_forms_are_part_of_a_turn(notebook: Notebook, server: ChatServer) -> None:
    """What was said is the rendered question; the words that ask for a form stand only in its own turn."""
    server.on("gamma", '{"price": 3}')
    notebook.variables.update(region="the north", Fields={"price": float})
    notebook.answer("--chat support -p single -t 'Briefly: {{ text }}'", "Why in {{ region }}?")
    filled = notebook.answer("--chat support -p single --schema Fields", "And the price?")
    assert filled.value == {"price": 3}
    assert "price" in server.requests[-1].text_of("user").partition("And the price?")[2]
    assert asked() == ["Briefly: Why in the north?", "And the price?"]


def test_oldest_turns_are_left_out_where_not_all_fit(notebook: Notebook, server: ChatServer) -> None:
    """What no longer fits the smallest context goes, whole turns from the beginning on, and the result says so."""
    moa.configure(models={"lab:gamma": {"context": 4000}}, max_tokens=500)
    for n in range(8):
        store().add_turn("support", turn(f"question {n}", "word " * 400, run=f"r{n}"))
    result = notebook.answer("--chat support -p single", "last question")
    sent = server.requests[-1].messages
    n_sent = (len(sent) - 1) // 2
    assert 0 < n_sent < 8
    assert [one["content"] for one in sent[::2]] == [*(f"question {n}" for n in range(8 - n_sent, 8)), "last question"]
    assert any(f"first {8 - n_sent} turns did not go out" in note and "4,000" in note for note in result.notes)
    assert len(asked()) == 9


def test_a_dry_run_shows_the_conversation_and_keeps_nothing(notebook: Notebook, server: ChatServer) -> None:
    """``--dry-run`` renders the prompt with what was said before."""
    store().add_turn("support", turn(FIRST, "The miller."))
    shown = notebook.ask("--chat support --dry-run", SECOND)
    assert shown.error is None
    assert "The miller." in shown.printed
    assert asked() == [FIRST]
    assert server.count() == 0


# What is kept -----------------------------------------------------------------------------------


def test_a_chat_is_there_in_another_kernel(notebook: Notebook, server: ChatServer, tmp_path: Path) -> None:
    """Another process reads the messages, and goes on with them."""
    server.on("gamma", "The miller.")
    notebook.answer("--chat support -p single", FIRST)
    program = "import json, moa_nb as moa; print(json.dumps(moa.messages('support')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [
        {"role": "user", "content": FIRST},
        {"role": "assistant", "content": "The miller."},
    ]
    engine_room.stop()
    assert [one.content for one in notebook.answer("--chat support -p single", SECOND).conversation][:2] == [
        FIRST,
        "The miller.",
    ]


def test_messages_go_into_other_runs(notebook: Notebook, server: ChatServer) -> None:
    """``moa.run`` takes them, and the chat stays as it was; an unknown chat is named with the nearest."""
    notebook.answer("--chat support -p single", FIRST)
    before = moa.messages("support")
    moa.run([*before, {"role": "user", "content": "And in short?"}], pipeline="single")
    assert len(server.requests[-1].messages) == 3
    assert moa.messages("support") == before
    with pytest.raises(UnknownName, match="did you mean 'support'"):
        moa.messages("suport")


def test_no_half_turn_is_kept(notebook: Notebook, server: ChatServer) -> None:
    """A run that fails, one whose answer is empty and one that is stopped leave the chat as it was."""
    notebook.answer("--chat support -p single", FIRST)
    server.on("gamma", Reply.refused_key())
    assert notebook.ask("--chat support -p single", SECOND).said
    server.on("gamma", "")
    notebook.ask("--chat support -p single", SECOND)

    def stopping(body: dict[str, Any]) -> Reply:
        os.kill(os.getpid(), signal.SIGINT)
        return Reply(hang=True)

    server.on("gamma", stopping)
    stopped = notebook.ask("--chat support -p single", SECOND)
    assert isinstance(stopped.error, KeyboardInterrupt)
    assert asked() == [FIRST]


def test_two_cells_of_one_chat_at_once_lose_no_turn(notebook: Notebook, server: ChatServer, tmp_path: Path) -> None:
    """What another kernel adds while a cell waits stays, before the cell's own turn; the result says that it came between."""
    notebook.answer("--chat support -p single", FIRST)

    def meanwhile(body: dict[str, Any]) -> str:
        other = Store(tmp_path / "home" / "store.sqlite")
        other.add_turn("support", turn("another cell's", run="other"))
        other.close()
        return "late"

    server.on("gamma", meanwhile)
    result = notebook.answer("--chat support -p single", SECOND)
    assert asked() == [FIRST, "another cell's", SECOND]
    assert any("knows nothing of 1 turn" in note for note in result.notes)
    assert moa.last() is result


def test_turns_that_are_written_at_once_are_all_kept(tmp_path: Path) -> None:
    """Several connections add to one chat, and no turn is lost or doubled."""
    stores = [Store(tmp_path / "store.sqlite") for _ in range(4)]

    def add(number: int) -> None:
        for n in range(20):
            stores[number].add_turn("support", turn("q", run=f"{number}-{n}"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = [one.run for one in stores[0].turns("support")]
    assert sorted(runs) == sorted(f"{number}-{n}" for number in range(4) for n in range(20))
    for number in range(4):
        assert [run for run in runs if run.startswith(f"{number}-")] == [f"{number}-{n}" for n in range(20)]
    assert [one.complaint() for one in stores] == [None] * 4
    for one in stores:
        one.close()


def test_a_deleted_run_takes_its_turn_along(notebook: Notebook) -> None:
    """``%moa delete RUN`` deletes what it said in a chat too; so does the age after which nothing is kept."""
    result = notebook.answer("--chat support -p single", FIRST)
    notebook.answer("--chat support -p single", SECOND)
    assert notebook.run(f"%moa delete {result.run_id}").error is None
    assert asked() == [SECOND]
    store().add_turn("old", turn("long ago", run="r9", at=time.time() - 90_000))
    store().forget_older_than(86_400)
    assert [row.name for row in store().chats()] == ["support"]


def test_without_a_store_on_disk_a_chat_lives_as_long_as_the_session(notebook: Notebook, tmp_path: Path) -> None:
    """``store="none"`` keeps a chat in memory."""
    moa.configure(store="none")
    notebook.answer("--chat support -p single", FIRST)
    notebook.answer("--chat support -p single", SECOND)
    assert asked() == [FIRST, SECOND]
    engine_room.stop()
    with pytest.raises(UnknownName):
        moa.messages("support")


def test_broken_characters_cost_no_turn(tmp_path: Path) -> None:
    """Half of a character, in a name or a text, is replaced and not refused."""
    kept = Store(tmp_path / "store.sqlite")
    kept.add_turn("a\ud800", turn("b\ud800", "c\ud800"))
    assert [(one.question, one.answer) for one in kept.turns("a\ud800")] == [("b\ufffd", "c\ufffd")]
    assert kept.complaint() is None
    kept.close()


# Cells that run again ---------------------------------------------------------------------------


def test_an_unchanged_cell_goes_back_to_its_turn(cells: Cells, server: ChatServer) -> None:
    """Run again, it asks with what was said before it, is answered from the cache, and leaves out the turns after it."""
    for cell, question in (("c1", FIRST), ("c2", SECOND), ("c3", THIRD)):
        cells.run(cell, question)
    n_requests = server.count()
    again = cells.run("c2", SECOND)
    assert again.calls[0].cached
    assert [one.content for one in again.conversation][::2] == [FIRST, SECOND]
    assert any("its 1 later turn is left out" in note for note in again.notes)
    assert asked() == [FIRST, SECOND]
    assert server.count() == n_requests
    server.on("gamma", "Another answer.")
    assert cells.run("c2", SECOND, "-p single --refresh").text == "Another answer."
    assert moa.messages("support")[-1]["content"] == "Another answer."
    assert len(asked()) == 2


def test_running_all_cells_gives_the_same_conversation(cells: Cells, server: ChatServer) -> None:
    """Also where one question is asked twice: the same turns, in the same order, and nothing is sent."""
    script = (("c1", FIRST), ("c2", "Go on."), ("c3", "Go on."), ("c4", THIRD))
    server.on("gamma", lambda body: f"answer after {len(body['messages'])} messages")
    for cell, question in script:
        cells.run(cell, question)
    before, n_requests = moa.messages("support"), server.count()
    assert len(before) == 8
    engine_room.stop()
    for cell, question in script:
        cells.run(cell, question)
    assert moa.messages("support") == before
    assert server.count() == n_requests


def test_a_changed_cell_asks_anew(cells: Cells) -> None:
    """Whoever types each question into the same cell has a conversation."""
    for question in (FIRST, SECOND, THIRD):
        cells.run("c1", question)
    assert asked() == [FIRST, SECOND, THIRD]


def test_a_cell_that_fails_again_keeps_its_earlier_turn(cells: Cells, server: ChatServer) -> None:
    """Only an answer takes a turn's place."""
    cells.run("c1", FIRST)
    cells.run("c2", SECOND)
    server.on("gamma", Reply.refused_key())
    cells.running = "c1"
    assert cells.notebook.ask("--chat support -p single --refresh", FIRST).error is not None
    assert asked() == [FIRST, SECOND]


def test_cells_without_ids_are_known_by_their_number(in_front_end: Notebook) -> None:
    """A notebook that runs without a front end, from the start in a new kernel, repeats its conversation too."""
    in_front_end.shell.execution_count = 5
    for _ in range(2):
        for number, question in enumerate((FIRST, "Go on.", "Go on.")):
            in_front_end.shell.execution_count = 5 + number
            in_front_end.answer("--chat support -p single", question)
        assert asked() == [FIRST, "Go on.", "Go on."]


def test_in_a_terminal_every_input_is_a_new_one(notebook: Notebook) -> None:
    """The same question twice is two turns."""
    for _ in range(2):
        notebook.answer("--chat support -p single", "Go on.")
    assert asked() == ["Go on.", "Go on."]


def test_a_cells_place_is_that_of_its_latest_turn() -> None:
    """Where a cell has several turns of the same question, its last one is repeated."""
    kept = Store(None)
    for run, cell in (("r1", "c1"), ("r2", "c1"), ("r3", "c2")):
        kept.add_turn("support", turn("q", run=run, cell=cell))
    chat = CellChat.open(kept, "support", "q", "c1")
    assert ([one.run for one in chat.before], [one.run for one in chat.after]) == (["r1"], ["r2", "r3"])
    kept.close()


# What is shown ----------------------------------------------------------------------------------


def test_an_answer_shows_what_it_follows(in_front_end: Notebook) -> None:
    """Above the panel stands which turn it is, with the earlier ones in a line each; other forms show the answer alone."""
    in_front_end.answer("--chat support -p single", FIRST)
    earlier, *_, panel = in_front_end.ask("--chat support -p single", SECOND).displays
    assert earlier["text/plain"] == "support: turn 2, after 1 turn"
    assert FIRST in earlier["text/html"]
    assert "The <strong>final</strong> answer." in panel["text/html"]
    (only,) = in_front_end.ask("--chat support -p single -f text", THIRD).displays
    assert only.pop(RUN)["chat"]["name"] == "support"
    assert only == {"text/plain": "The **final** answer."}


def test_chats_are_listed_shown_and_forgotten(notebook: Notebook) -> None:
    """``%moa chats`` lists, with a name it shows, ``%moa reset`` forgets; the runs stay."""
    assert "no chats yet" in notebook.run("%moa chats").table
    notebook.answer("--chat support -p single", FIRST)
    notebook.answer("--chat 'two words' -p single", SECOND)
    listed = notebook.run("%moa chats").table
    assert listed.index("two words") < listed.index("support")
    whole = notebook.run("%moa chats support").table
    assert f"> {FIRST}" in whole
    assert "The **final** answer." in whole
    (forgotten,) = notebook.run("%moa reset 'two words'").displays
    assert "two words is forgotten, 1 turn" in forgotten["text/plain"]
    assert [row.name for row in store().chats()] == ["support"]
    assert len(moa.runs()) == 2


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("%moa chats suport", "did you mean 'support'?"),
        ("%moa reset suport", "did you mean 'support'?"),
        ("%moa reset", "takes the name of the chat"),
        ("%moa chats a b", "takes one name more"),
    ],
)
def test_a_wrong_chat_is_named(notebook: Notebook, line: str, right: str) -> None:
    """A mistake is one line with the nearest right name."""
    store().add_turn("support", turn(FIRST))
    assert right in notebook.run(line).said
    assert asked() == [FIRST]


def test_a_hostile_chat_is_harmless_in_every_form() -> None:
    """Neither a name nor a question nor an answer becomes a tag, a handler or an address."""
    turns = (turn(HOSTILE, HOSTILE), turn("# not a heading\n\n- nor a list", "fine"))
    for display in (ChatDisplay(HOSTILE, turns), EarlierTurns(HOSTILE, turns)):
        assert_harmless(
            display._repr_html_(), PANEL_TAGS | MARKDOWN_TAGS, {"style", "class", "href", "title", "rel", "target"}
        )
        rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(display._repr_markdown_())
        assert_harmless(rendered, RENDERED_TAGS, {"style", "class", "href", "title"})
        assert not any(sign in repr(display) for sign in "\x00\x1b\u202e\ud800")


def test_a_long_chat_is_cut_at_its_beginning_and_says_so() -> None:
    """The latest turns are shown, and where the others are is said."""
    turns = tuple(turn(f"question {n}", "x" * 9_000, run=f"r{n}") for n in range(30))
    page = ChatDisplay("support", turns)._repr_html_()
    assert len(page) < 2 * MAX_CHARACTERS
    assert "question 29" in page
    assert "question 0<" not in page
    assert "moa.messages(&#39;support&#39;)" in page


# In files ---------------------------------------------------------------------------------------


def test_a_chat_comes_back_from_its_notebook(
    cells: Cells, server: ChatServer, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    """On another machine every turn is there as it was, and its cells are known; nothing is said more than once a run."""
    server.on("gamma", lambda body: f"answer after {len(body['messages'])} messages")
    cells.run("c1", FIRST)
    cells.run("c2", SECOND, "-p moa-lite")
    cells.run("c2", "And who sold it then?")
    cells.run("c3", THIRD, "-p single -f markdown")
    server.on("gamma", '{"price": 3}')
    cells.notebook.variables["Fields"] = {"price": float}
    cells.run("c4", "And the price?", "-p single --schema Fields")
    before, path = store().turns("support"), cells.save(tmp_path / "x.ipynb")
    assert KEY not in path.read_text("utf-8")
    runs = moa.from_notebook(path)
    chats = json.dumps([run.chat for run in runs])
    assert [chats.count(text) for text in (FIRST, "answer after", "And the price?")] == [0, 0, 1]
    assert runs[-1].chat is not None
    assert [one["run"] for one in runs[-1].chat["turns"]] == [one.run for one in before]
    elsewhere()
    assert moa.restore_chats(path) == {"support": "put back, 5 turns"}
    assert store().turns("support") == before
    assert asked() == [FIRST, SECOND, "And who sold it then?", THIRD, "And the price?"]
    assert moa.restore_chats(path) == {"support": "is here already, 5 turns"}
    again = cells.run("c3", THIRD)
    assert [one.content for one in again.conversation][::2] == [FIRST, SECOND, "And who sold it then?", THIRD]
    assert len(asked()) == 4


def test_a_chat_comes_back_as_it_last_was(cells: Cells, tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    """A cell that went back to its turn left out the later ones, whose outputs still stand; a forgotten chat is gone."""
    for cell, question in (("c1", FIRST), ("c2", SECOND), ("c3", THIRD)):
        cells.run(cell, question)
    cells.run("c2", SECOND)
    path = cells.save(tmp_path / "x.ipynb")
    cells.show("c4", "%moa reset support")
    forgotten = cells.save(tmp_path / "forgotten.ipynb")
    cells.run("c3", THIRD)
    begun = cells.save(tmp_path / "begun.ipynb")
    elsewhere()
    assert moa.restore_chats(forgotten) == {}
    assert moa.restore_chats(path) == {"support": "put back, 2 turns"}
    assert asked() == [FIRST, SECOND]
    assert "is another from turn 1 on" in moa.restore_chats(begun)["support"]
    assert moa.restore_chats(begun, overwrite=True) == {"support": "put back, 1 turn for the 2 that were here"}
    assert asked() == [THIRD]


@pytest.mark.parametrize(
    ("here", "said", "then"),
    [
        ([FIRST], "goes on, 1 turn more than the 1 that were here", [FIRST, SECOND]),
        ([FIRST, SECOND, THIRD], "left as it is, since here it goes on for 1 turn more; overwrite=True takes", None),
        ([FIRST, THIRD], "left as it is, since here it is another from turn 2 on; overwrite=True takes", None),
    ],
)
def test_what_the_store_has_stays_unless_told(
    cells: Cells, tmp_path: Path, elsewhere: Callable[[], None], here: list[str], said: str, then: list[str] | None
) -> None:
    """The notebook adds to a chat that it goes on from; any other stays as it is, and a line says so."""
    for cell, question in (("c1", FIRST), ("c2", SECOND)):
        cells.run(cell, question)
    path = cells.save(tmp_path / "x.ipynb")
    elsewhere()
    for number, question in enumerate(here):
        store().add_turn("support", turn(question, "The **final** answer.", run=f"r{number}"))
    kept = store().turns("support")
    assert moa.restore_chats(path)["support"].startswith(said)
    assert asked() == (then or here)
    assert store().turns("support")[: len(kept)] == kept
    moa.restore_chats(path, overwrite=True)
    assert asked() == [FIRST, SECOND]


def test_turns_that_did_not_go_out_come_back_from_their_own_cells(
    cells: Cells, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    """What no longer fitted the context is in the outputs of earlier cells; what is in none is counted."""
    moa.configure(models={"lab:gamma": {"context": 4000}}, max_tokens=500)
    for number in range(8):
        cells.run(f"c{number}", f"question {number} {'word ' * 400}")
    before, path = store().turns("support"), cells.save(tmp_path / "x.ipynb")
    del cells.outputs["c0"], cells.outputs["c1"]
    parts = saved(tmp_path / "parts.ipynb", cells.outputs["c7"])
    elsewhere()
    n_gone = 8 - len(moa.from_notebook(parts)[0].conversation) // 2 - 1
    assert moa.restore_chats(parts) == {"support": f"put back, {8 - n_gone} turns; {n_gone} turns not in the notebook"}
    assert store().turns("support") == before[n_gone:]
    moa.restore_chats(path, overwrite=True)
    assert store().turns("support") == before
    assert moa.restore_chats(parts) == {"support": "is here already, 8 turns"}


def test_an_answer_that_was_cut_is_said(
    cells: Cells, server: ChatServer, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    """An answer that no output holds whole comes back as far as it goes; a later turn's conversation has it whole."""
    server.on("gamma", "word " * 60_000)
    cells.run("c1", FIRST)
    first = cells.save(tmp_path / "first.ipynb")
    server.on("gamma", "Yes.")
    cells.run("c2", SECOND)
    both, whole = cells.save(tmp_path / "both.ipynb"), moa.messages("support")
    elsewhere()
    assert moa.restore_chats(first) == {"support": "put back, 1 turn; 1 answer cut when it was saved"}
    moa.restore_chats(both, overwrite=True)
    assert moa.messages("support") == whole


@pytest.mark.parametrize(
    "change",
    [
        {"chat": 3},
        {"chat": {"name": "support"}},
        {"chat": {"name": "support", "turns": []}},
        {"chat": {"name": "\x1b[2J", "turns": [{"run": "r", "pipeline": "p", "cell": "", "at": 1}]}},
        {"chat": {"name": "support", "turns": [{"run": "r", "pipeline": "p", "cell": "", "at": float("nan")}]}},
        {"chat": {"name": "support", "turns": [{"run": "r", "pipeline": "p", "cell": "", "at": -(10**400)}]}},
        {"chat": {"name": "support", "turns": [{"run": 3, "pipeline": "p", "cell": "", "at": 1}]}},
        {"conversation": []},
        {"conversation": [{"role": "user", "content": 3}]},
        {"text": 3},
        {"forgotten": 3},
    ],
)
def test_a_chat_that_was_changed_by_hand_is_said(cells: Cells, tmp_path: Path, change: dict[str, Any]) -> None:
    """A record that is not as ours are is an error that names the file, and nothing is put back."""
    cells.run("c1", FIRST)
    cells.outputs["c1"][-1][RUN] |= change
    path = cells.save(tmp_path / "x.ipynb")
    store().forget_chat("support")
    with pytest.raises(SetupError, match=r"x\.ipynb holds a chat that cannot be read"):
        moa.restore_chats(path)
    assert store().chats() == []


def test_a_hostile_chat_comes_back_as_text(cells: Cells, server: ChatServer, tmp_path: Path) -> None:
    """Braces are not filled in, times to come are now, and what is written out is harmless."""
    server.on("gamma", HOSTILE)
    cells.run("c1", HOSTILE + " {{ secret }}", "-p single --raw")
    cells.outputs["c1"][-1][RUN]["chat"]["turns"][0]["at"] = 10**400
    before, path = moa.messages("support"), cells.save(tmp_path / "x.ipynb")
    store().forget_chat("support")
    assert moa.restore_chats(path) == {"support": "put back, 1 turn"}
    assert moa.messages("support") == before
    assert "support" in cells.notebook.run("%moa chats").table
    page = moa.export_chat("support", tmp_path / "x.md").read_text("utf-8")
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert_harmless(rendered, RENDERED_TAGS | {"h1"}, {"style", "class", "href", "title"})
    (line,) = moa.export_chat("support", tmp_path / "x.jsonl").read_bytes().splitlines()
    assert json.loads(line) == {"messages": moa.messages("support")}


def test_a_chat_is_written_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As messages or as a page, by the file's ending, whole however long; a file that is there stays unless told."""
    store().add_turn("the mill", turn(FIRST, "The *miller*."))
    store().add_turn("the mill", turn(SECOND, "word " * 30_000 + "end", run="r2"))
    lines = moa.export_chat("the mill", tmp_path / "mill.jsonl")
    assert [json.loads(line) for line in lines.read_text("utf-8").splitlines()] == [
        {"messages": moa.messages("the mill")}
    ]
    page = moa.export_chat("the mill", str(tmp_path / "mill.MD")).read_text("utf-8")
    assert page.startswith(f"# the mill\n\n> {FIRST}\n\nThe *miller*.\n\n> {SECOND}\n\nword word")
    assert page.endswith("word end\n")
    with pytest.raises(SetupError, match=r"mill\.jsonl is there already: pass overwrite=True"):
        moa.export_chat("the mill", lines)
    store().add_turn("the mill", turn(THIRD, run="r3"))
    moa.export_chat("the mill", lines, overwrite=True)
    assert len(json.loads(lines.read_text("utf-8"))["messages"]) == 6
    with pytest.raises(SetupError, match=r"\.jsonl \(messages\) or \.md \(to be read\), not to 'mill\.txt'"):
        moa.export_chat("the mill", tmp_path / "mill.txt")
    with pytest.raises(UnknownName, match="did you mean 'the mill'"):
        moa.export_chat("the mil", tmp_path / "mil.md")
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_file()) == ["mill.MD", "mill.jsonl"]


@pytest.mark.kernel
def test_a_kernel_knows_its_cells(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    """What a front end sends with a cell as its id is what the chat knows it by; what it saves brings the chat back."""
    shown: dict[str, dict[str, Any]] = {}
    (tmp_path / "moa.toml").write_text('proposers = ["offline:lead"]\naggregator = "offline:lead"')
    manager = new_manager()
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        question = "Summarize in a sentence: The mill closed. The town bought it."
        for cell, source in (
            ("c0", "%load_ext moa_nb"),
            *((cell, f"%%moa --chat support -p single\n{question}") for cell in ("c1", "c2", "c1")),
        ):
            content = {
                "code": source,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
            }
            message = client.session.msg("execute_request", content, metadata={"cellId": cell})
            client.shell_channel.send(message)
            asking = message["header"]["msg_id"]
            while (reply := client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != asking:
                pass
            assert reply["content"]["status"] == "ok", reply
            shown[cell] = {}
            is_over = False
            while not is_over:
                told = client.get_iopub_msg(timeout=60)
                said = told["content"]
                if told["msg_type"] in {"display_data", "update_display_data"}:
                    shown[cell][said["transient"].get("display_id", told["msg_id"])] = said["data"]
                is_over = said.get("execution_state") == "idle" and told["parent_header"].get("msg_id") == asking
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    kept = Store(tmp_path / "home" / "store.sqlite")
    turns = kept.turns("support")
    assert [one.cell for one in turns] == ["c1"]
    kept.close()
    path = saved(tmp_path / "x.ipynb", *(list(displays.values()) for displays in shown.values()))
    elsewhere()
    assert moa.restore_chats(path) == {"support": "put back, 1 turn"}
    assert store().turns("support") == turns
