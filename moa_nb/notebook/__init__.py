"""The notebook: ``%%moa`` and ``%moa``, and the panel while it runs. The only importer of IPython and ipywidgets."""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

from moa_nb.engine.engine import current, stop
from moa_nb.errors import MoaError

__all__ = ["load", "unload"]


def load(shell: InteractiveShell) -> None:
    """Register the magics, and say in one line what they will use; loading again changes nothing."""
    from moa_nb.notebook.completion import offer
    from moa_nb.notebook.magic import MoaMagics

    offer(shell)
    if "moa" not in shell.magics_manager.magics["cell"]:
        shell.register_magics(MoaMagics)
    try:
        engine = current()
        print(f"moa-nb: {engine.finish(engine.who_answers()).why}")  # noqa: T201 - the one line of the extension
    except MoaError as error:
        print(f"moa-nb: {error}")  # noqa: T201


def unload(shell: InteractiveShell) -> None:
    """Take the magics back and end the engine: its thread, its connections, its open file."""
    from moa_nb.notebook.completion import withdraw

    withdraw(shell)
    manager = shell.magics_manager
    for kind in ("line", "cell"):
        manager.magics[kind].pop("moa", None)
    magics = manager.registry.pop("MoaMagics", None)
    if magics in shell.configurables:
        shell.configurables.remove(magics)
    stop()
