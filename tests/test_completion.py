"""What Tab offers after ``%%moa`` and ``%moa``, in the shell of this process and in a real kernel."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from magics import (  # noqa: F401 - fixtures
    Notebook,
    in_front_end_fixture,
    notebook_fixture,
    server_fixture,
    shell_fixture,
)
from pydantic import BaseModel
from real_kernels import new_manager
from traitlets import TraitError

import moa_nb as moa
from moa_nb import settings
from moa_nb.engine import current
from moa_nb.notebook.arguments import COMMANDS, cell_parser
from moa_nb.notebook.magic import MoaMagics
from moa_nb.pipeline import presets
from moa_nb.providers import offline
from moa_nb.store.conversations import Turn
from moa_nb.testing import ChatServer


def completed(notebook: Notebook, text: str) -> list[str]:
    """Return the cell as it is after each completion at ``|``, in the order in which they are offered."""
    before, _, after = text.partition("|")
    with provisionalcompleter(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(notebook.shell.Completer.completions(before + after, len(before)))
    return [before[: one.start] + one.text + before[one.end :] for one in found]


def words(notebook: Notebook, text: str) -> list[str]:
    """Return what is offered at ``|``."""
    before = text.partition("|")[0]
    fragment = before.rpartition("\n")[2].split(" ")[-1]
    stem = before[: len(before) - len(fragment)]
    return [whole.removeprefix(stem) for whole in completed(notebook, text)]


# Options ----------------------------------------------------------------------------------------


def test_every_option_is_offered(notebook: Notebook) -> None:
    """After ``%%moa`` stand all options, in the order of the help, and nothing of Python's."""
    options = [option for action in cell_parser()._actions for option in action.option_strings]
    assert words(notebook, "%%moa |\nWhy?") == options
    assert words(notebook, "%%moa answer --max|") == ["--max-tokens"]


def test_an_option_that_was_given_is_not_offered_again(notebook: Notebook) -> None:
    """Under none of its names."""
    offered = words(notebook, "%%moa -p single -|\nWhy?")
    assert "--pipeline" not in offered
    assert "-p" not in offered
    assert "--models" in offered


def test_names_are_offered_where_they_belong(notebook: Notebook) -> None:
    """Pipelines after ``-p``, templates after ``-t``, formats after ``-f``, models after ``-m``, ``-a`` and ``--judge``."""
    assert words(notebook, "%%moa -p |") == list(presets.names())
    assert words(notebook, "%%moa --pipeline=sing|") == ["--pipeline=single"]
    assert "synthesize" in words(notebook, "%%moa -t syn|")
    assert words(notebook, "%%moa -f |") == ["panel", "markdown", "text", "json"]
    assert words(notebook, "%%moa --mode b|") == ["batch"]
    for option in ("-a", "--judge", "-m"):
        offered = words(notebook, f"%%moa {option} |")
        assert offered[:3] == ["lab:alpha", "lab:beta", "lab:gamma"]
        assert {f"offline:{name}" for name in offline.ALGORITHMS} <= set(offered)
        assert any(name.startswith("openai:") for name in offered)


def test_lists_are_completed_name_by_name(notebook: Notebook) -> None:
    """After a comma the next name is offered, and what stands before it stays."""
    assert completed(notebook, "%%moa -m lab:alpha,lab:b|\nWhy?") == ["%%moa -m lab:alpha,lab:beta"]
    assert "%%moa --compare single,moa-lite" in completed(notebook, "%%moa --compare single,moa-l|")


def test_variables_that_may_be_schemas(notebook: Notebook) -> None:
    """After ``--schema`` stand pydantic models and dicts."""
    notebook.variables.update(Review=type("Review", (BaseModel,), {}), Fields={"a": int}, number=3)
    assert words(notebook, "%%moa --schema |") == ["Fields", "Review"]


def test_chats_and_functions_by_their_names(notebook: Notebook) -> None:
    """What was made in this session is offered at once; a name of two words in quotes."""
    store = current().store(settings.current())
    for name in ("support", "two words"):
        store.add_turn(name, Turn("q", "a", "single", name, "", 1.0))

    @moa.agent("only-here")
    def shout(prompt: str) -> str:
        return prompt.upper()

    assert set(words(notebook, "%%moa --chat |")) == {"support", '"two words"'}
    assert words(notebook, "%moa reset sup|") == ["support"]
    assert words(notebook, "%%moa -m function:only|") == ["function:only-here"]


# The cell ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["%%moa\nWhy in {{ reg|", "%%moa answer -p single\nfirst\n{% if reg|", "\n%%moa\n{{ a }} and {{reg| }}"]
)
def test_variables_within_braces(notebook: Notebook, text: str) -> None:
    """Within ``{{ }}`` and ``{% %}`` the notebook's variables are offered, and Python's names are not."""
    notebook.variables.update(region="north", regions=[1], register=len, _reg=1)
    offered = [whole.rpartition(" ")[2].rpartition("{")[2] for whole in completed(notebook, text)]
    assert offered == ["region", "regions"]


def test_all_variables_within_empty_braces(notebook: Notebook) -> None:
    """Before a name is begun, all of the user's own values are there."""
    notebook.variables.update(region="north", notes="n")
    offered = completed(notebook, "%%moa\nWhy? {{ |")
    assert offered == ["%%moa\nWhy? {{ notes", "%%moa\nWhy? {{ region"]


@pytest.mark.parametrize(
    "text", ["%%moa\nregio|", "%%moa\n{{ region }} regio|", "%%moa\n{{ x.regio|", "regio|", "x = 1\nregio|"]
)
def test_elsewhere_nothing_of_ours_is_offered(notebook: Notebook, text: str) -> None:
    """In prose, after a dot and in other cells the matcher keeps out."""
    notebook.variables["region_of_ours"] = 1
    (matcher,) = notebook.shell.Completer.custom_matchers
    from IPython.core.completer import CompletionContext

    before = text.partition("|")[0]
    *above, line = before.split("\n")
    found = matcher(
        CompletionContext(token=line, full_text=before, cursor_position=len(line), cursor_line=len(above), limit=None)
    )
    assert found == {"completions": [], "suppress": False}


# Lines ------------------------------------------------------------------------------------------


def test_the_words_of_the_line(notebook: Notebook, server: ChatServer) -> None:
    """``%moa`` is followed by its words, and each by what it takes; nothing is asked."""
    assert words(notebook, "%moa |") == list(COMMANDS)
    assert words(notebook, "x = 1\n  %moa pipe|") == ["pipelines"]
    assert words(notebook, "%moa models l|")[0] == "lab"
    assert "synthesize" in words(notebook, "%moa templates synth|")
    assert words(notebook, "%moa cache |") == ["clear", "--older-than", "--model"]
    notebook.answer("-p single")
    n_requests = server.count()
    (run,) = [word for word in words(notebook, "%moa delete |") if not word.startswith("-")]
    assert run == notebook.variables["answer"].run_id
    assert (server.count(), server.model_listings) == (n_requests, 0)


def test_settings_that_cannot_be_read_break_no_completion(notebook: Notebook, tmp_path: Any) -> None:
    """While a file has a mistake, options are still offered, and models are not."""
    (tmp_path / "moa.toml").write_text("pipelin = 'single'")
    assert "--pipeline" in words(notebook, "%%moa --|")
    (tmp_path / "moa.toml").unlink()


# Coming and going -------------------------------------------------------------------------------


def test_loading_and_unloading(notebook: Notebook) -> None:
    """There is one matcher, however often the extension is loaded, and none once it is unloaded."""
    matchers = notebook.shell.Completer.custom_matchers
    notebook.run("%load_ext moa_nb")
    notebook.run("%reload_ext moa_nb")
    assert len(matchers) == 1
    notebook.run("%unload_ext moa_nb")
    assert matchers == []
    notebook.run("%load_ext moa_nb")
    assert words(notebook, "%%moa -p sing|") == ["single"]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """The client of a kernel with the extension loaded."""
    manager = new_manager()
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute_interactive("%load_ext moa_nb\nregion = 'north'", timeout=60, output_hook=lambda _: None)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("%%moa --pipe|\nWhy?", ["--pipeline"]),
        ("%%moa -m offline:lead,offline:text|", ["offline:textrank"]),
        ("%%moa\nWhy in {{ reg| }}", ["region"]),
        ("%moa pipe|", ["pipelines"]),
    ],
)
def test_a_front_end_gets_the_same(client: Any, text: str, offered: list[str]) -> None:
    """A kernel's reply to a request for completion holds our words alone, and where they go."""
    before, _, after = text.partition("|")
    reply = client.complete(before + after, len(before), reply=True, timeout=30)["content"]
    assert reply["matches"] == offered
    begun = before[reply["cursor_start"] : reply["cursor_end"]]
    assert offered[0].startswith(begun)
    assert begun


# %config ----------------------------------------------------------------------------------------


def test_config_sets_what_holds_for_the_session(notebook: Notebook, server: ChatServer) -> None:
    """``%config MoaMagics`` shows what can be set; the settings say that it was configured; ``None`` takes it back."""
    shown = notebook.run("%config MoaMagics").printed
    assert all(f"MoaMagics.{name}" in shown for name in ("pipeline", "budget", "format"))
    notebook.run("%config MoaMagics.pipeline = 'single'\n%config MoaMagics.budget = 2")
    listed = notebook.run("%moa settings").table.splitlines()
    for name, value in (("pipeline", "single"), ("budget", "2.0")):
        assert any(line.split() == [name, value, "configure"] for line in listed)
    assert notebook.answer().pipeline == "single"
    assert notebook.variables["answer"].budget == 2
    assert notebook.answer("-p moa-lite --budget 1").budget == 1
    notebook.run("%config MoaMagics.pipeline = None")
    assert notebook.answer().pipeline == "moa-lite"


def test_config_sets_the_form_of_answers(in_front_end: Notebook) -> None:
    """``-f`` comes before it."""
    in_front_end.run("%config MoaMagics.format = 'text'")
    assert [set(one) for one in in_front_end.ask().displays] == [{"text/plain"}]
    assert "application/json" in in_front_end.ask("-f json").displays[0]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [("pipeline", "singel", "did you mean 'single'"), ("budget", -1, "budget"), ("format", "yaml", "markdown")],
)
def test_a_mistake_in_config_changes_nothing(notebook: Notebook, name: str, value: object, right: str) -> None:
    """It is said in one line, and what held before holds."""
    magics = notebook.shell.magics_manager.registry["MoaMagics"]
    assert isinstance(magics, MoaMagics)
    before = getattr(magics, name)
    with pytest.raises(TraitError, match=right):
        setattr(magics, name, value)
    assert getattr(magics, name) == before
    assert notebook.answer("-p single").text
