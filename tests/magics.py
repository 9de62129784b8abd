"""A shell of this process with the extension loaded, as tests of the magics use it: import its fixtures by name."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import moa_nb as moa
from moa_nb import settings
from moa_nb.engine import engine as engine_room
from moa_nb.pipeline.result import Result
from moa_nb.testing import ChatServer

__all__ = [
    "KEY",
    "RUN",
    "Notebook",
    "Shown",
    "in_front_end_fixture",
    "notebook_fixture",
    "server_fixture",
    "shell_fixture",
]

KEY = "sk-magic-0123456789abcdef"
RUN = "application/vnd.moa.run+json"


@dataclass
class Shown:
    """What one cell left: what it displayed, what it printed, what it raised."""

    displays: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""
    error: BaseException | None = None

    @property
    def said(self) -> str:
        """The text of the error, which must be one line."""
        assert isinstance(self.error, UsageError), f"no mistake was found: {self.error!r}; printed {self.printed!r}"
        text = str(self.error)
        assert "\n" not in text
        return text

    @property
    def table(self) -> str:
        """The only display's plain text."""
        assert self.error is None, self.error
        (only,) = self.displays
        assert {"text/html", "text/markdown"} <= set(only)
        return str(only["text/plain"])


class Notebook:
    """Runs cells in a shell, as a notebook or a terminal does."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell

    @property
    def variables(self) -> dict[str, Any]:
        """The notebook's variables."""
        return self.shell.user_ns

    def run(self, source: str) -> Shown:
        """Return what a cell leaves."""
        with capture_output() as captured:
            done = self.shell.run_cell(source)
        displays = [output.data for output in captured.outputs]
        return Shown(displays, captured.stdout + captured.stderr, done.error_in_exec or done.error_before_exec)

    def ask(self, line: str = "", text: str = "Why did churn rise?") -> Shown:
        """Return what ``%%moa`` with this line leaves."""
        return self.run(f"%%moa {line}\n{text}")

    def answer(self, line: str = "", text: str = "Why did churn rise?") -> Result:
        """Return the result of ``%%moa``, which must have one."""
        shown = self.ask(f"answer {line}", text)
        assert shown.error is None, shown.error
        result = self.variables["answer"]
        assert isinstance(result, Result)
        return result


@pytest.fixture(name="shell", scope="module")
def shell_fixture() -> Iterator[InteractiveShell]:
    """The shell of this process; ``get_ipython`` finds it."""
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor" if hasattr(InteractiveShell, "xmode_legacy") else "nocolor"
    made = InteractiveShell.instance(config=config)
    gc.collect()
    gc.freeze()  # as after the collection of the tests: each reset looks for garbage
    yield made
    made.restore_sys_module_state()
    InteractiveShell.clear_instance()


@pytest.fixture(name="server")
def server_fixture() -> Iterator[ChatServer]:
    """A server with three models and a key."""
    with ChatServer(models=["alpha", "beta", "gamma"], key=KEY) as running:
        running.on("gamma", "The **final** answer.")
        yield running


@pytest.fixture(name="notebook")
def notebook_fixture(
    shell: InteractiveShell, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Notebook]:
    """A terminal's shell with the extension loaded, and the server behind it."""
    for variable in ("OPENAI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOA_NB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAB_KEY", KEY)
    engine_room.stop()
    settings.reset()
    moa.configure(
        providers={"lab": {"base_url": server.base_url, "key_env": "LAB_KEY"}},
        models={f"lab:{name}": {"prompt_price": 1.0, "completion_price": 2.0} for name in ("alpha", "beta", "gamma")},
        proposers=["lab:alpha", "lab:beta"],
        aggregator="lab:gamma",
    )
    shell.reset(new_session=False, aggressive=False)
    notebook = Notebook(shell)
    assert notebook.run("%load_ext moa_nb").error is None
    yield notebook
    shell.run_line_magic("unload_ext", "moa_nb")
    shell.kernel = None
    settings.reset()
    engine_room.stop()


@pytest.fixture(name="in_front_end")
def in_front_end_fixture(notebook: Notebook) -> Notebook:
    """The same shell as a kernel has it: what is shown goes to a front end."""
    notebook.shell.kernel = object()
    return notebook
