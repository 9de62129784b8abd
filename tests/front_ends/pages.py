"""Front ends in a browser: JupyterLab, Notebook 7 and nbclassic, all of one server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import Reader

if TYPE_CHECKING:
    from playwright.sync_api import Locator

__all__ = ["Classic", "LabPage", "Notebook7"]


class LabPage(Reader):
    """A notebook in JupyterLab."""

    under = "doc/tree"
    cells = ".jp-CodeCell"
    prompts = ".jp-InputPrompt"
    area = ".jp-Cell-outputArea"
    widgets = ".jupyter-widgets"
    loaded = ".jp-Notebook .jp-Cell"

    def open(self, name: str) -> None:
        """Open a notebook, and wait for its cells."""
        assert self._lab is not None
        self._name = name
        self.page.goto(self._lab.url(name, self.under))
        self.page.wait_for_selector(self.loaded)

    def output(self, cell: int) -> Locator:
        """Return what stands below the code cell with this number, from 0."""
        return self.page.locator(self.cells).nth(cell).locator(self.area)

    def says(self, cell: int) -> str:
        """Return the text below a cell."""
        return "\n".join(self.output(cell).all_inner_texts())

    def whole(self, name: str) -> None:
        """Take a screenshot that has the whole notebook."""
        self.page.set_viewport_size({"width": 1280, "height": 5000})
        self.page.locator(self.cells).first.scroll_into_view_if_needed()
        self.page.wait_for_timeout(300)
        height = self.page.evaluate(
            "cells => Math.max(...[...document.querySelectorAll(cells)].map(e => e.getBoundingClientRect().bottom))",
            self.cells,
        )
        self.page.set_viewport_size({"width": 1280, "height": min(int(height) + 60, 5000)})
        self.shot(f"front-ends/{name}")

    def is_idle(self) -> bool:
        """Return whether no cell runs or waits."""
        return "[*]" not in " ".join(self.page.locator(self.prompts).all_inner_texts())


class Notebook7(LabPage):
    """A notebook in Notebook 7."""

    under = "notebooks"


class Classic(LabPage):
    """A notebook in nbclassic, whose page is another one altogether."""

    under = "nbclassic/notebooks"
    cells = ".code_cell"
    prompts = ".input_prompt"
    area = ".output"
    loaded = "#notebook-container .cell"

    def wait_for_kernel(self) -> None:
        """Return when the notebook's kernel is idle."""
        self.page.wait_for_selector("#kernel_indicator_icon.kernel_idle_icon", state="attached", timeout=180_000)

    def run_all(self) -> None:
        """Run all cells through the menu, and return as soon as they wait for their turn."""
        self.page.locator("#celllink").click()
        self.page.locator("#run_all_cells").click()
        self.until(lambda: not self.is_idle())

    def interrupt(self) -> None:
        """Interrupt the kernel through the menu."""
        self.page.locator("#kernellink").click()
        self.page.locator("#int_kernel").click()
