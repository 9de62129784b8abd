"""Chats in cells: what goes out with each turn, what is kept, and what becomes of a chat when cells run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from magics import (  # noqa: F401 - fixtures
    Notebook,
    in_front_end_fixture,
    notebook_fixture,
    server_fixture,
    shell_fixture,
)
from markdown_it import MarkdownIt
from scripted import Models
from test_panels import HOSTILE, MARKDOWN_TAGS, PANEL_TAGS, RENDERED_TAGS, assert_harmless

import moa_nb as moa
from moa_nb import settings
from moa_nb.engine import current
from moa_nb.engine import engine as engine_room
from moa_nb.errors import UnknownName
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
        parent = property(lambda _: lambda: {"metadata": {"cellId": self.running}})
        monkeypatch.setattr(type(notebook.shell), "get_parent", parent, raising=False)

    def run(self, cell: str, question: str, line: str = "-p single") -> moa.Result:
        """Return the result of the cell with this id."""
        self.running = cell
        return self.notebook.answer(f"--chat support {line}", question)


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
    assert [(one.question, one.answer) for one in kept.turns("a\ud800")] == [("b?", "c?")]
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
    assert "two words is forgotten, 1 turn" in notebook.run("%moa reset 'two words'").printed
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


@pytest.mark.kernel
def test_a_kernel_knows_its_cells(tmp_path: Path) -> None:
    """What a front end sends with a cell as its id is what the chat knows it by."""
    (tmp_path / "moa.toml").write_text('proposers = ["offline:lead"]\naggregator = "offline:lead"')
    manager = KernelManager()
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
            while (reply := client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != message["header"][
                "msg_id"
            ]:
                pass
            assert reply["content"]["status"] == "ok", reply
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    kept = Store(tmp_path / "home" / "store.sqlite")
    assert [one.cell for one in kept.turns("support")] == ["c1"]
    kept.close()
