"""What a reader sees in JupyterLab, in a real browser: live panels, saved panels, buttons, the playground."""

from __future__ import annotations

import copy
import threading
from base64 import b64decode
from collections.abc import Iterator
from typing import TYPE_CHECKING

import nbformat
import pytest
from hostile.families import HOSTILE
from lab import OUTPUT, Lab, Reader, browser
from test_kernel import STATIC, WIDGET, environment, setup

from moa_nb.testing import ChatServer, Reply

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REASONS = (
    "Churn rose because prices went up in March and the **support queue** doubled. The notes name three reasons:\n\n"
    "1. the price change\n2. slow answers from support\n3. a competitor's offer\n"
)
LAST_WORDS = "In one sentence: it was the price."

PRESSED = "[data-commandlinker-command^='notebook:'], #bad-link, a[href^='javascript']"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser of these tests."""
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def _server() -> Iterator[ChatServer]:
    with ChatServer() as started:
        yield started


@pytest.fixture(scope="module")
def _lab(chromium: Browser, _server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    assert chromium
    assert _server
    folder = tmp_path_factory.mktemp("lab")
    started = Lab(folder, environment(folder / "home"))
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def server(_server: ChatServer) -> ChatServer:
    """The server, whose models take their time and stream."""
    _server.on("alpha", Reply(REASONS, token_delay=0.01))
    _server.on("beta", Reply(REASONS + REASONS, token_delay=0.02))
    _server.on("gamma", Reply(REASONS + LAST_WORDS, token_delay=0.06))
    return _server


@pytest.fixture
def lab(_lab: Lab) -> Iterator[Lab]:
    """JupyterLab in its light theme, without kernels."""
    _lab.set("@jupyterlab/apputils-extension/themes", {"theme": "JupyterLab Light"})
    yield _lab
    _lab.end_kernels()


@pytest.fixture
def reader(lab: Lab, chromium: Browser) -> Iterator[Reader]:
    """A page of this test's own."""
    opened = Reader(chromium, lab)
    yield opened
    opened.close()


def notebook_of(*sources: str) -> nbformat.NotebookNode:
    """Return a notebook of code cells."""
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in sources], metadata={"kernelspec": kernel}
    )


def untrusted(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook as somebody else's: the server's signature does not fit it."""
    changed = copy.deepcopy(notebook)
    changed.cells.append(nbformat.v4.new_markdown_cell("from somebody else"))
    return changed


class Growing(list[str]):
    """The pieces of an answer that goes on until it has been seen growing, however long that takes."""

    def __init__(self) -> None:
        super().__init__([*(f"{word} " for word in REASONS.split(" ")), LAST_WORDS])
        self.is_seen = threading.Event()

    def __iter__(self) -> Iterator[str]:
        *words, last = super().__iter__()
        yield from words
        while not self.is_seen.is_set():
            yield "and on "
        yield last


BARS = """(cell) => [...document.querySelectorAll('.jp-CodeCell')[cell].querySelectorAll('td div div')]
    .map(e => [e.getBoundingClientRect().width, getComputedStyle(e).backgroundColor])
    .filter(([width, colour]) => width > 3 && colour === 'rgb(74, 127, 181)').length"""


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_a_panel_lives_and_then_stays(
    reader: Reader, lab: Lab, server: ChatServer, chromium: Browser, theme: str
) -> None:
    """The panel is seen growing, becomes static, opens, and is complete in the saved file, trusted or not."""
    lab.set("@jupyterlab/apputils-extension/themes", {"theme": f"JupyterLab {theme}"})
    name = f"panel-{theme.lower()}"
    growing = Growing()
    server.on("gamma", Reply(REASONS + LAST_WORDS, chunks=growing, token_delay=0.1))
    lab.write(f"{name}.ipynb", notebook_of(setup(server), f"%%moa --budget 0.5\nWhy did churn rise, in {theme}?"))
    reader.open(f"{name}.ipynb")
    reader.wait_for_kernel()
    reader.run_all()

    panel = reader.page.locator(".jp-CodeCell").nth(1)
    check_growing(reader, panel, f"{name}-running")
    growing.is_seen.set()

    # It stays.
    reader.until_done()
    reader.until(lambda: "moa-lite done" in panel.inner_text() and LAST_WORDS in panel.inner_text())
    assert panel.locator(".jupyter-widgets").count() == 0
    assert reader.page.evaluate(BARS, 1) >= 3

    # It opens, by mouse and by keyboard.
    rows = panel.locator("details")
    rows.nth(0).locator("summary").first.click()
    assert rows.nth(0).evaluate("row => row.open")
    prompts = rows.nth(0).locator("details summary")
    prompts.first.focus()
    reader.page.keyboard.press("Enter")
    assert f"Why did churn rise, in {theme}?" in rows.nth(0).inner_text()
    reader.shot(f"{name}-opened", whole=True)
    reader.save()

    # It is in the file.
    saved = lab.read(f"{name}.ipynb")
    (output,) = saved.cells[1].outputs
    assert set(output.data) == STATIC
    assert WIDGET not in nbformat.writes(saved)
    lab.end_kernels()
    lab.write(f"{name}-untrusted.ipynb", untrusted(saved))
    for file in (name, f"{name}-untrusted"):
        again = Reader(chromium, lab)
        try:
            again.open(f"{file}.ipynb")
            check_reopened(again)
            again.shot(f"{file}-reopened", whole=True)
        finally:
            again.close()
    assert reader.outside == []


LOOK = "cell => [cell.innerText.length, cell.getBoundingClientRect().height, cell.innerText.includes('answered; ■ stops it')]"
"""A cell at one moment: the length of its text, its height, and whether it runs."""


def check_growing(reader: Reader, panel: Locator, shot: str) -> None:
    """Check that a running panel's text grows while its height keeps still."""
    reader.until(lambda: "Layer 2" in panel.inner_text() and "answered; ■ stops it" in panel.inner_text())
    reader.until(lambda: "Churn rose" in panel.inner_text().partition("Layer 1")[0])
    lengths, heights = [], []
    while len(set(lengths)) < 8:
        length, height, is_running = panel.evaluate(LOOK)
        assert is_running, "it was over before it was seen growing"
        lengths.append(length)
        heights.append(height)
        reader.page.wait_for_timeout(50)
    reader.shot(shot)
    assert lengths[-1] > lengths[0]
    assert max(heights) - min(heights) < 2


def check_reopened(reader: Reader) -> None:
    """Check that a saved panel is all there: text, figures, bars, rows that open."""
    panel = reader.page.locator(".jp-CodeCell").nth(1)
    reader.until(lambda: all(words in panel.inner_text() for words in (LAST_WORDS, "moa-lite done", "$0.00")))
    assert "Error displaying widget" not in reader.text
    assert reader.page.evaluate(BARS, 1) >= 3
    panel.locator("details summary").first.click()
    assert panel.locator("details").first.evaluate("row => row.open")
    assert reader.outside == []


def test_the_stop_button_stops(reader: Reader, lab: Lab, server: ChatServer) -> None:
    """■ in Lab ends the run, the panel says so, and the cells below do not run."""
    server.on("beta", Reply.hanging())
    lab.write("stop.ipynb", notebook_of(setup(server), "%%moa\nstopped in the browser", "print('must not run')"))
    reader.open("stop.ipynb")
    reader.wait_for_kernel()
    reader.run_all()
    panel = reader.page.locator(".jp-CodeCell").nth(1)
    reader.until(lambda: "1 of 2 answered; ■ stops it" in panel.inner_text())
    reader.interrupt()
    reader.until_done()
    reader.until(lambda: server.in_flight == 0)
    reader.until(lambda: "KeyboardInterrupt: stopped; 1 finished" in panel.inner_text())
    reader.until(lambda: "stopped" in panel.inner_text().partition("KeyboardInterrupt")[0])
    assert "Traceback" not in panel.inner_text()
    reader.shot("stopped", whole=True)
    assert reader.outputs(2).count() == 0


BOXES = """() => [...document.querySelectorAll('.jp-CodeCell')[1].querySelectorAll('.jp-OutputArea-output *')]
    .map(e => e.getBoundingClientRect()).map(box => [box.x, box.width, box.height])"""
"""Where everything in an output stands, and how large it is, in pixels as CSS counts them."""


def test_pipelines_side_by_side_and_completion(reader: Reader, lab: Lab, server: ChatServer) -> None:
    """A comparison grows, stays, and is as large on a fine screen; after ``%%moa`` Tab finds options and pipelines."""
    server.on(
        "gamma",
        lambda body: Reply(REASONS * 3 + LAST_WORDS, token_delay=0.1) if len(body["messages"]) > 1 else REASONS,
    )
    question = "%%moa --compare single,moa-lite\nWhy did churn rise, side by side?"
    lab.write("compare.ipynb", notebook_of(setup(server), question, ""))
    reader.open("compare.ipynb")
    reader.wait_for_kernel()
    reader.run_all()
    panel = reader.page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")
    reader.until(lambda: "1 of 2 pipelines answered; ■ stops it" in panel.inner_text())
    reader.until(lambda: panel.inner_text().count("Churn rose") == 2)
    reader.shot("compare-running")
    reader.until_done()
    reader.until(lambda: "2 pipelines for $" in panel.inner_text() and LAST_WORDS in panel.inner_text())
    reader.shot("compare")

    coarse = reader.page.evaluate(BOXES)
    metrics = {"width": 1280, "height": 900, "deviceScaleFactor": 2, "mobile": False}
    screen = reader.page.context.new_cdp_session(reader.page)
    screen.send("Emulation.setDeviceMetricsOverride", metrics)
    reader.until(lambda: reader.page.evaluate("devicePixelRatio") == 2)
    fine = reader.page.evaluate(BOXES)
    picture = b64decode(screen.send("Page.captureScreenshot")["data"])  # another would set the screen back
    (OUTPUT / "compare-fine.png").write_bytes(picture)
    assert int.from_bytes(picture[16:20], "big") == 2560  # the width that a PNG's head says
    assert len(fine) == len(coarse)
    # Text is as wide as whole pixels allow, of which there are twice as many.
    assert [pair for pair in zip(coarse, fine, strict=True) if pytest.approx(pair[0], abs=2, rel=0.02) != pair[1]] == []
    screen.send("Emulation.clearDeviceMetricsOverride")

    cell = reader.page.locator(".jp-CodeCell").nth(2).locator(".cm-content")
    offered = reader.page.locator(".jp-Completer-item")
    cell.click()
    reader.page.keyboard.type("%%moa --pip")
    reader.page.keyboard.press("Tab")
    reader.until(lambda: "--pipeline" in reader.page.locator(".jp-Completer").inner_text())
    assert offered.count() == 1
    reader.page.keyboard.press("Enter")
    reader.until(lambda: "%%moa --pipeline" in cell.inner_text())
    reader.page.keyboard.type(" moa")
    reader.page.keyboard.press("Tab")
    reader.until(lambda: offered.count() > 1)
    reader.shot("completion")
    names = offered.locator(".jp-Completer-match").all_inner_texts()
    assert "moa-lite" in names
    assert all(name.startswith("moa") for name in names)


def open_and_press(reader: Reader) -> None:
    """Open everything that opens, and press everything that a hostile text may want pressed."""
    reader.page.evaluate("() => document.querySelectorAll('details').forEach(row => row.open = true)")
    reader.page.evaluate(
        "(hostile) => document.querySelectorAll('.jp-OutputArea-output a, .jp-OutputArea-output button').forEach("
        "e => { if (e.matches(hostile)) e.click() })",
        PRESSED,
    )
    reader.page.wait_for_timeout(300)


LOOSE = """() => [...document.querySelectorAll('.jp-OutputArea-output *')]
    .filter(e => ['fixed', 'absolute', 'sticky'].includes(getComputedStyle(e).position)).map(e => e.outerHTML.slice(0, 200))"""
"""The elements that could cover something else."""


REPORT = "from IPython.display import display\nfrom moa_nb.frames.figures import view_of_run\nfrom moa_nb.panels.frame_report import bundle\n"


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_a_report_and_a_preview_stay_readable_and_harmless(
    reader: Reader, lab: Lab, server: ChatServer, chromium: Browser, theme: str
) -> None:
    """A frame's report and preview, hostile text in all of it, are shown whole, keep inside the page, and stay so reopened."""
    lab.set("@jupyterlab/apputils-extension/themes", {"theme": f"JupyterLab {theme}"})
    for model in ("alpha", "beta"):
        server.on(model, HOSTILE)
    server.on("gamma", lambda body: Reply.bad_request(HOSTILE) if "row 2" in str(body["messages"]) else HOSTILE)
    rows = (
        f"evil = {HOSTILE!r} + 'y' * 3000\n"
        f"df = pd.DataFrame({{evil: [f'{theme} row {{n}} ' + evil for n in range(5)]}}, index=pd.Index([evil] * 5, name=evil))\n"
        "import warnings; warnings.simplefilter('ignore')"
    )
    report = REPORT + "display(bundle(view_of_run(moa.last()._execution)), raw=True)"
    run = "df.moa.synthesize(evil, progress=False, budget='999 calls')\nmoa.last().agreement;"
    name = f"report-{theme.lower()}"
    preview = "df.moa.preview.synthesize(evil, progress=False)"
    lab.write(f"{name}.ipynb", notebook_of(setup(server), rows, run, report, preview))
    reader.open(f"{name}.ipynb")
    reader.wait_for_kernel()
    reader.run_all()
    reader.until_done()
    check_report(reader)
    reader.shot(name, whole=True)
    reader.save()
    lab.end_kernels()
    lab.write(f"{name}-untrusted.ipynb", untrusted(lab.read(f"{name}.ipynb")))
    again = Reader(chromium, lab)
    try:
        again.open(f"{name}-untrusted.ipynb")
        again.until(lambda: "all rows would take" in again.text)
        check_report(again)
        again.shot(f"{name}-reopened", whole=True)
    finally:
        again.close()


def check_report(reader: Reader) -> None:
    """Check that a report and a preview are all there, with bars, inside the page, and that nothing in them acts."""
    cells = reader.page.locator(".jp-CodeCell")
    text = cells.nth(3).locator(".jp-Cell-outputArea").inner_text()
    heads = ("Cost by layer and model", "Seconds a row", "Agreement", "Failures by kind", "Values", "the first error")
    assert [head for head in heads if head not in text] == []
    assert "onerror=" in text
    assert reader.page.evaluate(BARS, 3) >= 3
    asked = cells.nth(4).locator(".jp-Cell-outputArea")
    assert "all rows would take" in asked.inner_text()
    prompt = asked.locator("details").first
    assert prompt.locator("pre").first.is_hidden()
    prompt.locator("summary").click()
    assert "row 0" in prompt.locator("pre").first.inner_text()
    wide = "() => [...document.querySelectorAll('.jp-OutputArea-output')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert reader.page.evaluate(wide) == 0
    open_and_press(reader)
    assert reader.set_by_script() is None
    assert reader.outside == []
    assert reader.dialogs == []
    assert reader.page.evaluate(LOOSE) == []


PRESSING = (
    "from moa_nb.engine.engine import current\nfrom moa_nb.engine.task import make_task\nfrom moa_nb.engine.plan import Options\n"
    "from moa_nb.notebook.background import start_in_background\nfrom moa_nb.notebook.form import LiveForm\n"
    "engine = current()\n"
    "def made(text): return engine.finish(engine.plan(Options())), make_task(text)"
)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_what_is_below_a_panel_can_be_pressed(  # noqa: PLR0915 - one visit to the page, looked at from all sides
    reader: Reader, lab: Lab, server: ChatServer, chromium: Browser, theme: str
) -> None:
    """A background run is stopped, a finished one asked again and copied, a hostile row opened; the file has no widget."""
    lab.set("@jupyterlab/apputils-extension/themes", {"theme": f"JupyterLab {theme}"})
    stuck = f"stuck in {theme}"
    answers = iter([Reply(REASONS + LAST_WORDS), Reply("Because of the **price**.")])
    server.on("beta", REASONS)
    server.on("gamma", lambda body: Reply.hanging() if stuck in str(body["messages"]) else next(answers))
    server.on("delta", lambda body: Reply.bad_request(HOSTILE) if "row 1" in str(body["messages"]) else HOSTILE)
    name = f"pressed-{theme.lower()}"
    sources = [
        setup(server),
        PRESSING,
        f"run = start_in_background(engine, *made({stuck!r})); print('at once')",
        f"asked = made('Why, in {theme}?')\nLiveForm(start_in_background(engine, *asked, shown=False).result, *asked).show()",
        (
            f"rows = pd.Series([f'{theme} row {{n}}' for n in range(3)], index=[{HOSTILE!r}] * 3)\n"
            "rows.moa.start.synthesize(pipeline='single', aggregator='lab:delta').show()"
        ),
    ]
    lab.write(f"{name}.ipynb", notebook_of(*sources))
    reader.open(f"{name}.ipynb")
    reader.wait_for_kernel()
    reader.run_all()
    cells = reader.page.locator(".jp-CodeCell")
    running, form, frame = (cells.nth(number).locator(".jp-Cell-outputArea") for number in (2, 3, 4))

    # A cell that has returned, and a button that stops its run.
    reader.until(lambda: "at once" in running.inner_text() and server.in_flight == 1)
    reader.until(lambda: "Layer 2" in running.inner_text() and "in the background" in running.inner_text())
    reader.until_done()
    reader.shot(f"{name}-running")
    running.locator("button", has_text="Stop").click()
    reader.until(lambda: "stopped" in running.inner_text() and running.locator("button").count() == 0)
    assert server.wait_until(lambda: server.in_flight == 0, seconds=60)

    # A finished run: copied, and asked again from its second layer on.
    reader.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    n_before = server.count("beta")
    form.locator("button", has_text="Copy answer").click()
    reader.until(lambda: "copied" in form.inner_text())
    assert reader.page.evaluate("navigator.clipboard.readText()").strip()
    form.locator("select").first.select_option("1")
    form.locator("button", has_text="Re-run").first.click()
    reader.until(lambda: "from layer 2: $" in form.inner_text())
    reader.until(lambda: LAST_WORDS in form.inner_text() and "Because of the price." in form.inner_text())
    assert server.count("beta") == n_before

    # Any row's layers, harmless.
    reader.until(lambda: frame.locator("button.row").count() == 3)
    frame.locator("button.row", has_text="done").first.click()
    reader.until(lambda: "hostile-text-was-shown" in frame.locator(".panel").inner_text())
    open_and_press(reader)
    assert reader.set_by_script() is None
    reader.shot(f"{name}-asked-again", whole=True)

    # Saved from a button, and reopened without a kernel.
    form.locator("button").first.focus()
    reader.save()
    saved = lab.read(f"{name}.ipynb")
    assert [len(cell.outputs) for cell in saved.cells[2:]] == [2, 1, 1]
    assert set(saved.cells[3].outputs[0].data) == STATIC
    assert WIDGET not in nbformat.writes(saved)
    lab.end_kernels()
    again = Reader(chromium, lab)
    try:
        again.open(f"{name}.ipynb")
        again.until(lambda: "from layer 2: $" in again.text)
        assert "Error displaying widget" not in again.text
        assert LAST_WORDS in again.text
        assert again.page.locator(".moa-controls").count() == 0
        again.shot(f"{name}-reopened", whole=True)
    finally:
        again.close()
    assert reader.outside == again.outside == []
    assert reader.dialogs == []


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_a_playground_is_edited_run_and_left_behind(
    reader: Reader, lab: Lab, server: ChatServer, chromium: Browser, theme: str
) -> None:
    """Prompts follow the keys, mistakes are marked, a run asks from the edit down, and the saved file has no widget."""
    lab.set("@jupyterlab/apputils-extension/themes", {"theme": f"JupyterLab {theme}"})
    for model in ("alpha", "beta", "gamma"):
        server.on(model, lambda body: f"{body['model']} of {len(str(body['messages']))}: {HOSTILE}")
    name = f"playground-{theme.lower()}"
    rows = f"df = pd.DataFrame({{'review': ['{theme} one', {HOSTILE!r}, None]}})"
    lab.write(f"{name}.ipynb", notebook_of(setup(server), f"{rows}\npg = moa.Playground(df, 'review', 'moa-lite')\npg"))
    reader.open(f"{name}.ipynb")
    reader.wait_for_kernel()
    reader.run_all()
    editor = reader.page.locator(".moa-playground")
    editor.wait_for()
    check_editing(reader, editor, server)
    reader.shot(name, whole=True)
    check_harmless(reader)

    # The file has the static form, and that is what stays when the kernel is gone.
    saved = left_behind(reader, lab, f"{name}.ipynb")
    (output,) = saved.cells[1].outputs
    assert set(output.data) == STATIC
    assert WIDGET not in nbformat.writes(saved)
    reader.menu("Kernel", "kernelmenu:restart")
    reader.page.locator(".jp-Dialog .jp-mod-accept").click()
    reader.until(lambda: editor.count() == 0)
    lab.end_kernels()
    again = Reader(chromium, lab)
    try:
        again.open(f"{name}.ipynb")
        cell = again.page.locator(".jp-CodeCell").nth(1)
        again.until(lambda: "be kind to all of them!" in cell.inner_text())
        assert "Error displaying widget" not in again.text
        again.shot(f"{name}-reopened", whole=True)
        check_harmless(again)
    finally:
        again.close()


def left_behind(reader: Reader, lab: Lab, name: str) -> nbformat.NotebookNode:
    """Return a playground's notebook as soon as its file has what was typed last."""
    saved: nbformat.NotebookNode = nbformat.v4.new_notebook()

    def has_all() -> bool:
        nonlocal saved
        reader.page.keyboard.press("Control+s")  # which does nothing where nothing has changed
        try:
            saved = lab.read(name)
        except nbformat.reader.NotJSONError:  # it is just being written
            return False
        said = "".join(output.data["text/plain"] for output in saved.cells[1].outputs)
        return "be kind to all of them!" in said and "referenses" not in said

    reader.until(has_all)
    return saved


def check_editing(reader: Reader, editor: Locator, server: ChatServer) -> None:
    """Check that a playground runs, follows the keys, marks mistakes, compares and copies, by mouse and by keyboard."""
    result, prompts, source = editor.locator(".result"), editor.locator(".prompts"), editor.locator("textarea.source")
    reader.until(lambda: "not asked yet" in prompts.inner_text())
    editor.locator("button", has_text="Run").click()
    reader.until(lambda: "3 calls sent" in result.inner_text())
    source.click()
    editor.evaluate("editor => { editor.parentElement.dataset.earlier = 'yes' }")
    reader.page.keyboard.press("Control+End")
    reader.page.keyboard.type(" be kind to all of them")
    reader.until(lambda: "be kind to all of them" in prompts.inner_text())
    assert "(2 more cached)" in editor.locator(".figures").inner_text()

    # The static form follows, and whoever types is not disturbed.
    reader.until(lambda: not editor.evaluate("editor => 'earlier' in editor.parentElement.dataset"))
    n_asked = server.count()
    reader.page.keyboard.type("!")
    reader.page.keyboard.press("Control+Enter")
    reader.until(lambda: "1 call sent, 2 from the store" in result.inner_text())
    assert server.count() == n_asked + 1

    # A mistake stands at its line.
    mistake = "\n{{ referenses }}"
    reader.page.keyboard.type(mistake)
    reader.until(lambda: "did you mean 'references'?" in editor.locator(".mistakes").inner_text())
    assert "bad" in str(editor.locator(".line").last.get_attribute("class"))
    assert editor.locator(".line.bad").count() == 1
    for _ in mistake:
        reader.page.keyboard.press("Backspace")

    editor.locator("button", has_text="Compare").focus()
    reader.page.keyboard.press("Enter")
    reader.until(lambda: "be kind to all of them!" in result.locator("ins").first.inner_text())
    editor.locator("button", has_text="Side by side").click()
    reader.until(lambda: result.locator("tbody tr").count() == 2)
    editor.locator("button", has_text="Copy as Python").click()
    reader.until(lambda: "moa-lite" in result.locator("textarea").input_value())


def check_harmless(reader: Reader) -> None:
    """Check that hostile text did nothing."""
    open_and_press(reader)
    assert reader.set_by_script() is None
    assert reader.outside == []
    assert reader.dialogs == []
    assert reader.page.locator(".jp-OutputArea-output img, .jp-OutputArea-output script").count() == 0
