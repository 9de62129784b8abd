"""What runs a notebook, or a session, without a page: nbclient, papermill, and IPython in a terminal."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pexpect
import pytest
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from real_kernels import new_manager
from test_kernel import environment

from front_ends import kernels

__all__ = ["Terminal", "by_nbclient", "by_papermill", "completed"]


def by_nbclient(
    notebook: nbformat.NotebookNode, kernel: str, folder: Path, *, fails: bool = True
) -> tuple[nbformat.NotebookNode, str]:
    """Return the notebook as nbclient leaves it, and what its kernel said; its last cell fails, unless said otherwise."""
    (folder / "home").mkdir(parents=True)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.km = new_manager()
    client.km._kernel_spec = KernelSpec(**kernels.spec(kernel))
    client.km.connection_file = str(folder / "kernel-1.json")
    with (folder / "said").open("w+") as said, kernels.knocked(kernel, folder):
        with pytest.raises(CellExecutionError) if fails else nullcontext():
            client.execute(env=environment(folder / "home"), stdout=said, stderr=said)
        said.seek(0)
        return notebook, said.read()


def by_papermill(notebook: nbformat.NotebookNode, kernel: str, folder: Path) -> tuple[nbformat.NotebookNode, str]:
    """Return the notebook as papermill leaves it, and what it said; its last cell fails, and so does papermill."""
    for name in ("home", "jupyter"):
        (folder / name).mkdir(parents=True)
    kernels.put(folder / "jupyter", kernel)
    nbformat.write(notebook, folder / "given.ipynb")
    places = {f"JUPYTER_{name}_DIR": str(folder / "jupyter") for name in ("CONFIG", "DATA", "RUNTIME")}
    with kernels.knocked(kernel, folder / "jupyter"):
        ran = subprocess.run(
            [sys.executable, "-m", "papermill", "--no-progress-bar", "given.ipynb", "ran.ipynb"],
            cwd=folder,
            env={**environment(folder / "home"), **places},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert ran.returncode == 1, ran.stderr
    assert "PapermillExecutionError" in ran.stderr
    return nbformat.read(folder / "ran.ipynb", as_version=4), ran.stdout + ran.stderr


class Terminal:
    """IPython in a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "home").mkdir(parents=True)
        options = ["--no-banner", "--simple-prompt", "--colors=nocolor", "--no-confirm-exit"]
        self._child = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", *options],
            cwd=str(folder),
            env={**environment(folder / "home"), "TERM": "dumb"},
            encoding="utf-8",
            timeout=180,
            dimensions=(60, 160),
            echo=False,
        )
        self._number = 0
        self._wait()

    def _wait(self) -> str:
        self._number += 1
        self._child.expect_exact(f"In [{self._number}]: ")
        return str(self._child.before)

    def run(self, source: str) -> str:
        """Return what a cell prints."""
        self.start(source)
        return self._wait()

    def start(self, source: str) -> None:
        """Type a cell, and return at once."""
        for line in source.splitlines():
            self._child.sendline(line)
        if "\n" in source:
            self._child.sendline("\n")  # two empty lines end a cell magic

    def interrupt(self) -> str:
        """Return what a cell prints that is interrupted by the keyboard."""
        self._child.sendintr()
        return self._wait()

    def close(self) -> None:
        """End it."""
        self._child.close(force=True)


def completed(folder: Path, line: str, rest: str) -> bool:
    """Return whether IPython in a terminal, where Tab is pressed after a line, writes its rest."""
    (folder / "home").mkdir(parents=True)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--no-banner", "--colors=nocolor", "--no-confirm-exit", "--ext=moa_nb"],
        cwd=str(folder),
        # Nobody answers where the cursor is.
        env={**environment(folder / "home"), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        encoding="utf-8",
        timeout=180,
        dimensions=(60, 160),
    )
    try:
        child.expect(r"In \[")
        child.send(line)
        child.expect_exact(line[-3:])
        child.send("\t")
        return child.expect_exact([rest, pexpect.TIMEOUT, pexpect.EOF]) == 0
    finally:
        child.close(force=True)
