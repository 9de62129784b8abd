"""Showing what is finished: in a notebook as a panel, in a terminal as text."""

from __future__ import annotations

import json
from typing import Any, Protocol

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from moa_nb.frames import FrameRun
from moa_nb.pipeline.result import Result
from moa_nb.plain import to_plain

__all__ = ["Output", "has_front_end", "is_somebody_there", "show", "show_as"]


def has_front_end() -> bool:
    """Return whether a notebook's front end shows what is displayed, rather than a terminal."""
    shell = get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


def is_somebody_there() -> bool:
    """Return whether somebody can press a button: not where notebooks are run by a program, as nbclient and papermill do.

    Those say of each cell that nobody can be asked for input.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


class Output:
    """One output of the cell that made it, which can be replaced from any thread, also when that cell is over."""

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None

    def show(self, shown: dict[str, Any]) -> None:
        """Return nothing; show a bundle below the current cell."""
        self._handle = display(shown, raw=True, display_id=True)

    def update(self, shown: dict[str, Any]) -> None:
        """Return nothing; show another bundle in the same place."""
        if self._handle is not None:
            self._handle.update(shown, raw=True)

    def finish(self, shown: dict[str, Any]) -> None:
        """Return nothing; show the last bundle."""
        Output.update(self, shown)

    def say(self, text: str, *, busy: bool = False) -> None:
        """Return nothing; a mere output has no place for what is said beside it."""


class Shown(Protocol):
    """What shows itself."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]: ...


def show(run: Shown) -> None:
    """Show a run's panel below the current cell, with buttons if somebody is there; print it where there is no notebook."""
    if has_front_end() and is_somebody_there():
        if isinstance(run, Result):
            from moa_nb.notebook.form import live_form

            live_form(run).show()
            return
        if isinstance(run, FrameRun):
            from moa_nb.notebook.frame_live import FramePanel

            FramePanel(run).show()
            return
    shown = run._repr_mimebundle_()
    if has_front_end():
        display(shown, raw=True)
    else:
        print(shown["text/plain"])  # noqa: T201 - a terminal has nothing else


def show_as(result: Result, form: str) -> None:
    """Show a run as ``panel``, as its answer alone in ``markdown`` or ``text``, or as its record in ``json``."""
    if form == "panel":
        show(result)
        return
    shown = _forms(result, form)
    if has_front_end():
        display(shown, raw=True)
    elif form == "json":
        print(json.dumps(shown["application/json"], ensure_ascii=False, indent=2))  # noqa: T201
    else:
        print(shown.get("text/markdown", shown["text/plain"]).rstrip("\n"))  # noqa: T201


def _forms(result: Result, form: str) -> dict[str, Any]:
    from moa_nb.panels import markdown, provenance
    from moa_nb.panels.templates import one_block

    shown: dict[str, Any] = {"text/plain": to_plain(result.text)}
    if form == "markdown":
        # Both classes tell MathJax to keep off, as in the panel: an answer about dollars is not mathematics.
        html = f'<div class="tex2jax_ignore mathjax_ignore">{markdown.to_html(result.text)}</div>'
        shown["text/html"] = one_block(html)
        shown["text/markdown"] = markdown.to_markdown(result.text)
    elif form == "json":
        shown["application/json"] = provenance.record(result)
    if result.chat is not None:
        # However its turns are shown, a saved notebook holds the chat.
        shown[provenance.MIME_TYPE] = provenance.record(result)
    return shown
