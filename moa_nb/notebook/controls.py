"""Buttons below a panel: one widget that stands in a marked place of a static output while the kernel lives.

The notebook's output is HTML with an empty element of a class of its own; the widget's model, which no output
shows, finds that element in the page. So what is saved holds a panel and no widget.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any

import anywidget
import traitlets
from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from moa_nb.notebook.display import Output

__all__ = ["Controls", "Part", "asset"]

Part = dict[str, Any]
"""A control: its ``kind`` (``button``, ``copy``, ``choice``, ``text``, ``number``), its ``label``, and what the kind needs."""

_MOST_ALIVE = 12
"""Panels whose buttons work; those of earlier ones are taken away."""


def asset(name: str) -> str:
    """Return a script or a style sheet of this room, with what all buttons and fields have in common before it."""
    folder = files(__package__)
    shared = folder.joinpath(f"fields.{name.rpartition('.')[2]}")
    return f"{shared.read_text('utf-8')}\n{folder.joinpath(name).read_text('utf-8')}"


class _Widget(anywidget.AnyWidget):
    """What the browser has."""

    _esm = asset("controls.js")
    _css = asset("controls.css")

    mark = traitlets.Unicode().tag(sync=True)
    """The class of the element in which it stands."""
    parts: Any = traitlets.List().tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)
    """What the buttons that copy take, by field."""
    status = traitlets.Dict({"busy": False, "text": ""}).tag(sync=True)
    rows: Any = traitlets.List().tag(sync=True)
    """Rows to press: position, label, state, text."""
    panel = traitlets.Unicode().tag(sync=True)
    """A finished panel as safe HTML; it is not saved."""


_alive: list[Controls] = []


class Controls(Output):
    """An output with buttons below it.

    Args:
        parts: the controls, in order.
        pressed: called on any thread with what a button does and the values of all fields.
    """

    def __init__(self, parts: list[Part], pressed: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__()
        self._pressed = pressed
        self._n_presses = 0
        """Part of what is said, so that each press is answered, if with the same words."""
        self.widget = _Widget(mark=f"moa-controls-{secrets.token_hex(8)}", parts=parts)
        self.widget.on_msg(self._receive)
        self._view: DisplayHandle | None = None
        _alive.append(self)
        while len(_alive) > _MOST_ALIVE:
            _alive[0].close()

    @property
    def place(self) -> str:
        """The HTML of the element in which the buttons stand; without them it takes no room."""
        return f'<div class="{self.widget.mark}"></div>'

    def show(self, shown: dict[str, Any]) -> None:
        """Return nothing; show a bundle below the current cell; the buttons follow it unless it has their place."""
        super().show(self._placed(shown))
        if _is_apart():
            # There an output cannot be found from the page: the widget's own view has the buttons.
            self._view = display(self.widget, display_id=True)

    def update(self, shown: dict[str, Any]) -> None:
        """Return nothing; show another bundle in the same place, from any thread."""
        super().update(self._placed(shown))

    def finish(self, shown: dict[str, Any]) -> None:
        """Return nothing; show the last bundle, without buttons."""
        super().finish(shown)
        if self._view is not None:
            self._view.update({"text/plain": ""}, raw=True)
        self.close()

    def say(self, text: str, *, busy: bool = False) -> None:
        """Return nothing; say how it stands, beside the buttons."""
        status = {"busy": busy, "text": text, "presses": self._n_presses}
        if self.widget.status != status:
            self.widget.status = status

    def close(self) -> None:
        """Return nothing; the buttons go, the output stays."""
        with suppress(ValueError):  # closed before
            _alive.remove(self)
        self.widget.close()

    def _placed(self, shown: dict[str, Any]) -> dict[str, Any]:
        html = shown["text/html"]
        return shown if self.place in html else {**shown, "text/html": html + self.place}

    def _receive(self, widget: Any, message: Any, buffers: Any) -> None:  # noqa: ARG002 - what ipywidgets passes
        if isinstance(message, dict) and isinstance(message.get("do"), str):
            self._n_presses += 1
            values = message.get("values")
            self._pressed(message["do"], {**(values if isinstance(values, dict) else {}), "row": message.get("row")})


def _is_apart() -> bool:
    """Return whether the front end keeps each output in a frame of its own, as VS Code and Colab do."""
    shell = get_ipython()
    return "google.colab" in sys.modules or (shell is not None and "__vsc_ipynb_file__" in shell.user_ns)
