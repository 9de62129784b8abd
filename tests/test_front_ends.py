"""The front ends and kernels in which people run notebooks, as one table; each line of it is driven for real.

Screenshots of what is in a browser are in ``tests/output/front-ends``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import nbclassic
import nbconvert
import nbformat
import pytest
from front_ends import everything, kernels
from front_ends.everything import (
    ANSWERS,
    ASKED,
    BACKGROUND,
    ENDING,
    FAILS,
    FORM,
    HANGS,
    LAST_WORDS,
    RESULT,
    ROWS,
    START,
)
from front_ends.kernels import NEWEST
from front_ends.pages import Classic, LabPage, Notebook7
from front_ends.programs import Terminal, by_nbclient, by_papermill, completed
from lab import OUTPUT, Lab, Reader, browser
from markdown_it import MarkdownIt
from test_kernel import KEY, environment

from moa_nb.notebook.controls import asset
from moa_nb.testing import ChatServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

LIVE = "the live panel"
LINE = "its first line"
NOTHING = "nothing"


class Line(NamedTuple):
    """A line of the table."""

    front_end: str
    kernel: str
    running: str
    """What is shown of a cell while it runs."""
    buttons: bool
    """Whether there are any below a finished run, and they work."""


# fmt: off
MATRIX = (
    #    front end                      ipykernel  while it runs  buttons
    Line("JupyterLab",                  "6.31",    LIVE,          True),
    Line("JupyterLab, dark",            "7.3",     LIVE,          True),
    Line("JupyterLab",                  NEWEST,    LIVE,          True),
    Line("JupyterLab without widgets",  NEWEST,    LINE,          False),
    Line("Notebook 7",                  "6.31",    LIVE,          True),
    Line("Notebook 7",                  "7.3",     LIVE,          True),
    Line("Notebook 7",                  NEWEST,    LIVE,          True),
    Line("nbclassic",                   "6.31",    LIVE,          True),
    Line("nbclassic",                   "7.3",     LIVE,          True),
    Line("nbclassic",                   NEWEST,    LIVE,          True),
    Line("nbclient",                    "6.31",    NOTHING,       False),
    Line("nbclient",                    "7.3",     NOTHING,       False),
    Line("nbclient",                    NEWEST,    NOTHING,       False),
    Line("papermill",                   "6.31",    NOTHING,       False),
    Line("papermill",                   "7.3",     NOTHING,       False),
    Line("papermill",                   NEWEST,    NOTHING,       False),
    Line("IPython in a terminal",       "none",    NOTHING,       False),
)
"""Where the notebook of ``front_ends.everything`` is run.

When a cell is over, what stays is the same everywhere: a static panel, in a terminal its text.
"""

REOPENED = (
    # front end       trusted
    ("JupyterLab",    True),
    ("JupyterLab",    False),
    ("Notebook 7",    True),
    ("Notebook 7",    False),
    ("nbclassic",     True),
    ("nbclassic",     False),
)
"""Where a saved notebook is opened again whose kernel is gone: all panels are complete, no button is left."""
# fmt: on

PAGES = {"JupyterLab": LabPage, "Notebook 7": Notebook7, "nbclassic": Classic}
IN_PAGES = [line for line in MATRIX if line.front_end.partition(",")[0].removesuffix(" without widgets") in PAGES]
IN_PROGRAMS = [line for line in MATRIX if line.front_end in {"nbclient", "papermill"}]


def name_of(line: Line) -> str:
    """Return a line's name, as in those of its tests and files."""
    return re.sub(r"\W+", "-", f"{line.front_end} {line.kernel}".lower())


@dataclass
class Place:
    """Where the lines of the table are driven, each once."""

    server: ChatServer
    folder: Path
    ran: dict[str, nbformat.NotebookNode] = field(default_factory=dict)
    """The notebooks as they were saved, by the name of their line."""
    said: dict[str, str] = field(default_factory=dict)
    """What programs said."""
    looked_at: set[str] = field(default_factory=set)
    """The lines in which somebody looks at the first panel while it lives."""

    def run_by_program(self, line: Line) -> nbformat.NotebookNode:
        """Return the notebook as a program leaves it."""
        name = name_of(line)
        if name not in self.ran:
            made = everything.notebook(self.server, name, line.kernel, ending=FAILS)
            run = {"nbclient": by_nbclient, "papermill": by_papermill}[line.front_end]
            self.ran[name], self.said[name] = run(made, line.kernel, self.folder / name)
        return copy.deepcopy(self.ran[name])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that answers, and a folder."""
    with ChatServer(key=KEY) as server:
        place = Place(server, tmp_path_factory.mktemp("front-ends"))
        everything.script(server, place.looked_at)
        yield place


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser of these tests."""
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def lab(chromium: Browser, place: Place) -> Iterator[Lab]:
    """One server for all pages, with all kernels."""
    assert chromium
    (place.folder / "home").mkdir()
    started = Lab(place.folder / "lab", environment(place.folder / "home"))
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def saved(place: Place) -> nbformat.NotebookNode:
    """A notebook as nbclient saves it, which keeps the state of widgets."""
    return place.run_by_program(Line("nbclient", NEWEST, NOTHING, buttons=False))


# Pages -------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("line", IN_PAGES, ids=name_of)
def test_in_a_page(line: Line, place: Place, lab: Lab, chromium: Browser) -> None:
    """A panel lives while its cell runs and is static afterwards; its buttons work; ■ and mistakes are one line."""
    saved = visited(line, place, lab, chromium)
    everything.check_saved(saved, kernels.VERSIONS[line.kernel] or version("ipykernel"), "KeyboardInterrupt: stopped")
    everything.check_panel(everything.code(saved)[BACKGROUND])


def visited(line: Line, place: Place, lab: Lab, chromium: Browser) -> nbformat.NotebookNode:
    """Return the notebook as it was saved by somebody who ran it in a page, and pressed what there is to press."""
    name = name_of(line)
    if name not in place.ran:
        lab.set(
            "@jupyterlab/apputils-extension/themes", {"theme": f"JupyterLab {'Dark' if 'dark' in name else 'Light'}"}
        )
        lab.show_widgets("without widgets" not in line.front_end)
        lab.offer_kernel(line.kernel, kernels.spec(line.kernel))
        lab.write(f"{name}.ipynb", everything.notebook(place.server, name, line.kernel, ending=HANGS))
        page = page_of(line.front_end, lab, chromium)
        try:
            with kernels.knocked(line.kernel, lab.runtime):
                drive(line, page, place.looked_at)
            page.save()
            page.until(lambda: lab.read(f"{name}.ipynb").cells[ENDING].outputs)
        finally:
            page.close()
            lab.end_kernels()
            lab.show_widgets(True)
        place.ran[name] = lab.read(f"{name}.ipynb")
    return copy.deepcopy(place.ran[name])


def page_of(front_end: str, lab: Lab, chromium: Browser) -> LabPage:
    """Return an empty page for a front end."""
    return next(page for name, page in PAGES.items() if front_end.startswith(name))(chromium, lab)


def drive(line: Line, page: LabPage, looked_at: set[str]) -> None:
    """Run the notebook, look while it runs, interrupt its last cell, and press the buttons of a run that is over."""
    name = name_of(line)
    page.open(f"{name}.ipynb")
    page.wait_for_kernel()
    looked_at.add(name)
    page.run_all()
    running = "2 of 3 answered; ■ stops it" if line.running == LIVE else "moa-lite running"
    page.until(lambda: running in page.says(ASKED), 180)
    assert bool(page.output(ASKED).locator(page.widgets).count()) == (line.running == LIVE)
    page.shot(f"front-ends/{name}-running")
    looked_at.remove(name)
    page.until(lambda: "single running" in page.says(ENDING), 180)
    page.interrupt()
    page.until(page.is_idle)
    page.until(lambda: "KeyboardInterrupt: stopped" in page.says(ENDING))
    for cell in ANSWERS:
        page.until(lambda cell=cell: LAST_WORDS in page.says(cell) and "moa-lite done" in page.says(cell))
        page.until(lambda cell=cell: page.output(cell).locator(page.widgets).count() == 0)
    if line.running == LIVE:
        page.until(lambda: "32/32" in page.says(ROWS))
    if line.buttons:
        press(page)
    else:
        assert page.page.locator(".moa-controls").count() == 0
    page.whole(name)
    assert page.outside == []
    assert page.dialogs == []


def press(page: LabPage) -> None:
    """Copy an answer, type where letters are commands of the notebook's, and ask again from the second layer on.

    The focus stays in the field: from there the notebook is saved.
    """
    form = page.output(FORM)
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    form.locator("button", has_text="Copy answer").click()
    page.until(lambda: "copied" in page.says(FORM))
    assert LAST_WORDS in page.page.evaluate("navigator.clipboard.readText()")
    n_cells = page.page.locator(page.cells).count()
    field = form.locator(".moa-controls input[type=text]")
    field.click()
    page.page.keyboard.type("bddax")
    assert field.input_value() == "bddax"
    assert page.page.locator(page.cells).count() == n_cells
    form.locator(".moa-controls select").first.select_option("1")
    form.locator("button", has_text="Re-run").first.click()
    page.until(lambda: "from layer 2: $" in page.says(FORM))
    assert page.says(FORM).count("moa-lite done") == 2
    field.focus()


# Programs ----------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("line", IN_PROGRAMS, ids=name_of)
def test_by_a_program(line: Line, place: Place) -> None:
    """What nbclient and papermill leave has every panel; the cell that fails ends it, and nothing is warned of."""
    saved = place.run_by_program(line)
    everything.check_saved(saved, kernels.VERSIONS[line.kernel] or version("ipykernel"), "UsageError: lab refuses")
    assert "moa-controls" not in nbformat.writes(saved)
    assert "Warning" not in place.said[name_of(line)]
    assert "Task was destroyed" not in place.said[name_of(line)]


@pytest.mark.kernel
def test_a_bar_leaves_its_text(saved: nbformat.NotebookNode) -> None:
    """The bar of a frame's run is a widget while it goes on; in the file there is its last line."""
    assert everything.with_widgets(saved) == []
    (bar,) = everything.code(saved)[ROWS].outputs
    assert "32/32" in bar.data["text/plain"]


@pytest.mark.kernel
def test_a_background_run_is_over_in_the_file(place: Place) -> None:
    """Where the last cell takes a background run's result, a program leaves the static panel, not one that runs."""
    made = everything.notebook(place.server, "a notebook that ends soon", NEWEST, ending=FAILS)
    made.cells = [made.cells[number] for number in (START, BACKGROUND, RESULT)]
    ran, _ = by_nbclient(made, NEWEST, place.folder / "ends-soon", fails=False)
    everything.check_panel(ran.cells[1])


@pytest.mark.kernel
def test_in_a_terminal(place: Place) -> None:
    """IPython prints text: the panel's, a bar, one line for a mistake and for an interrupt; never HTML. Tab completes."""
    terminal = Terminal(place.folder / "terminal")
    try:
        start, *asked = everything.sources(place.server, "a terminal", ending=HANGS)
        for line in start.splitlines():
            terminal.run(line)
        said = [terminal.run(source) for source in asked[: ENDING - 1]]
        terminal.start(asked[ENDING - 1])
        waiting = f"{HANGS}, in a terminal"
        assert place.server.wait_until(
            lambda: any(waiting in str(one.body) for one in place.server.requests), seconds=60
        )
        said.append(terminal.interrupt())
        assert "4" in terminal.run("2 + 2")
    finally:
        terminal.close()
    answered, last, rows, report, background, result, mistake, stopped = said
    for text in (answered, last):
        assert LAST_WORDS in text
        assert "moa-lite: done" in text
    assert "32/32" in rows
    assert "32 rows: 32 done" in report
    assert LAST_WORDS not in background
    assert LAST_WORDS in result
    assert "UsageError: no provider 'nobody'" in mistake
    assert "KeyboardInterrupt: stopped" in stopped
    whole = "".join(said)
    assert not re.search(r"<(div|table|details|span|HTML)|Traceback|object at 0x|\x1b\[\d*m", whole)
    assert completed(place.folder / "completing", "%%moa --pip", "eline")


# What is made of a saved notebook ----------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize(("front_end", "trusted"), REOPENED)
def test_reopened(front_end: str, trusted: bool, place: Place, lab: Lab, chromium: Browser) -> None:
    """In a page without the kernel that made it, all panels are there, open, and have no buttons."""
    line = Line(front_end, NEWEST, LIVE, buttons=True)
    saved = visited(line, place, lab, chromium)
    name = name_of(line)
    if not trusted:
        # One more cell, and the server's signature does not fit it.
        name += "-untrusted"
        saved.cells.append(nbformat.v4.new_markdown_cell("from somebody else"))
        lab.write(f"{name}.ipynb", saved)
    lab.set("@jupyterlab/apputils-extension/themes", {"theme": "JupyterLab Light"})
    page = page_of(front_end, lab, chromium)
    try:
        page.open(f"{name}.ipynb")
        for cell in ANSWERS:
            page.until(lambda cell=cell: LAST_WORDS in page.says(cell) and "moa-lite done" in page.says(cell))
            assert page.output(cell).locator(page.widgets).count() == 0
        page.until(lambda: "from layer 2: $" in page.says(FORM))
        page.until(lambda: "KeyboardInterrupt: stopped" in page.says(ENDING))
        assert page.page.locator(".moa-controls").count() == 0
        opening = page.output(ASKED).locator("details").first
        heading = opening.locator("summary").first
        assert heading.evaluate("row => getComputedStyle(row).display") == "list-item"  # only then it has its triangle
        heading.click()
        assert opening.evaluate("row => row.open")
        page.whole(f"{name}-reopened")
        assert page.outside == []
    finally:
        page.close()
        lab.end_kernels()


@pytest.mark.browser
def test_what_opens_is_seen_to_open(chromium: Browser) -> None:
    """The playground's rows have their triangle under nbclassic's style too, which takes it from all others."""
    style = Path(nbclassic.__file__).parent / "static" / "style" / "style.min.css"
    opens = "<details><summary>layer 1</summary>alpha</details>"
    reader = Reader(chromium, None)
    try:
        reader.page.set_content(
            f"<style>{style.read_text('utf-8')}</style><style>{asset('playground/playground.css')}</style>"
            f'{opens}<div class="moa-playground moa-fields">{opens}</div>'
        )
        shown = "all => all.map(one => getComputedStyle(one).display)"
        assert reader.page.locator("summary").evaluate_all(shown) == ["block", "list-item"]
    finally:
        reader.close()


WIDE = """() => [...document.querySelectorAll('.jp-OutputArea-output')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 200))"""
"""The outputs of which something would be beyond the edge of the paper."""


@pytest.mark.browser
def test_exported_to_html_and_printed(saved: nbformat.NotebookNode, chromium: Browser, tmp_path: Path) -> None:
    """Nbconvert's page shows the panels, and prints them within the width of the paper, on a few pages of PDF."""
    file = tmp_path / "exported.html"
    file.write_text(nbconvert.HTMLExporter().from_notebook_node(saved)[0], "utf-8")
    reader = Reader(chromium, None)
    try:
        page = reader.page
        page.goto(file.as_uri())
        reader.until(lambda: reader.text.count(LAST_WORDS) >= len(ANSWERS))
        reader.shot("front-ends/exported-html")
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 794, "height": 1123})  # A4, at 96 pixels an inch
        assert reader.text.count(LAST_WORDS) >= len(ANSWERS)
        assert "UsageError: no provider 'nobody'" in reader.text
        assert page.evaluate(WIDE) == []
        reader.shot("front-ends/exported-print")
        printed = page.pdf(format="A4", print_background=True)
        (OUTPUT / "front-ends" / "exported.pdf").write_bytes(printed)
        assert printed.startswith(b"%PDF")
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 9
    finally:
        reader.close()


@pytest.mark.kernel
def test_exported_to_markdown(saved: nbformat.NotebookNode) -> None:
    """Nbconvert's Markdown has each answer and each report, and what is in their texts asks for nothing."""
    text, resources = nbconvert.MarkdownExporter().from_notebook_node(saved)
    (OUTPUT / "front-ends").mkdir(parents=True, exist_ok=True)
    (OUTPUT / "front-ends" / "exported.md").write_text(text, "utf-8")
    assert text.count(LAST_WORDS) >= len(ANSWERS)
    assert "32 done" in text
    assert resources["outputs"] == {}
    page = MarkdownIt("commonmark", {"html": True}).render(text)
    assert page.count(LAST_WORDS) >= len(ANSWERS)
    assert "evil.example" in page
    assert re.findall(r"<(?:img|script)|href=.https://evil", page) == []
