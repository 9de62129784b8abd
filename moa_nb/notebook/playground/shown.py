"""A playground below its cell: the static form, and the editor in its place where a front end is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from moa_nb.notebook.display import has_front_end
from moa_nb.notebook.playground import static
from moa_nb.panels import provenance

if TYPE_CHECKING:
    from moa_nb.notebook.playground.workbench import Playground

__all__ = ["show"]


def show(playground: Playground) -> None:
    """Show a playground below the current cell; print it where there is no notebook."""
    if not has_front_end():
        print(static.bundle(playground)["text/plain"])  # noqa: T201 - a terminal has nothing else
        return
    if _is_apart():
        # There an output cannot reach the page: the widget's own view is the editor.
        display(_with_run(playground, static.bundle(playground)), raw=True)
        display(playground.widget)
        return
    handle: DisplayHandle | None = None

    def refresh(bundle: dict[str, Any]) -> None:
        if handle is not None:
            handle.update(_with_run(playground, bundle), raw=True)

    mark = playground.open_editor(refresh).widget.mark
    handle = display(_with_run(playground, static.bundle(playground, mark)), raw=True, display_id=True)


def _with_run(playground: Playground, bundle: dict[str, Any]) -> dict[str, Any]:
    """Return what is shown with the record of the latest run, as a cell's panel has it."""
    return (
        bundle if playground.latest is None else {**bundle, provenance.MIME_TYPE: provenance.record(playground.latest)}
    )


def _is_apart() -> bool:
    """Return whether the front end keeps each output in a frame of its own, as VS Code and Colab do."""
    shell = get_ipython()
    return "google.colab" in sys.modules or (shell is not None and "__vsc_ipynb_file__" in shell.user_ns)
