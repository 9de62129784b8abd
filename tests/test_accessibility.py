"""Whether everybody can read and use what is shown in JupyterLab: contrast, keyboard, names, narrow columns."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from lab import Lab, Reader, browser
from test_browser import notebook_of
from test_kernel import environment, setup

from moa_nb.testing import ChatServer, Reply

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, Locator

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[1] / "examples"

SOURCES = {
    "panel": "%%moa first\nSummarize these notes for the board in five bullet points.\n\n{{ notes }}",
    "degraded": (
        "moa.run('Why did churn rise?', pipeline=moa.Pipeline(\n"
        "    layers=[['lab:alpha', 'lab:beta', 'offline:textrank'], ['lab:beta']])).show()"
    ),
    "debate": "%%moa -p debate\nWhich of these decisions cost money?\n\n{{ notes }}",
    "vote": "%%moa -p self-consistency\nHow many tickets were there? {{ notes }}",
    "report": (
        "def support(request):\n"
        "    if 'crack' in request.material:\n"
        "        raise ValueError('no answer about cracks')\n"
        "    return request.material[:80]\n"
        "run = reviews.moa.start.synthesize('review', pipeline=moa.Pipeline(layers=[[support, 'offline:textrank'],\n"
        "    ['offline:consensus']]))\n"
        "run.show()"
    ),
    "failures": "reviews.moa.start.synthesize('review', pipeline=moa.Pipeline(layers=[[support]])).show()",
    "preview": "reviews.moa.preview.synthesize('review', instruction='Summarize in one sentence', progress=False)",
    "playground": "pg = moa.Playground(reviews, 'review', 'moa-lite')\npg",
    "comparison": "%%moa --compare single,moa-lite,self-moa\nWhich of these decisions cost money?\n\n{{ notes }}",
    "chat": "%%moa --chat support\nWhat did support do?\n\n{{ notes }}",
    "chat again": "%%moa --chat support\nAnd what did it cost?\n\n{{ notes }}",
    "chats": "%moa chats",
    "difference": "moa.difference(first, moa.run(notes, template='In one sentence: {{ text }}', pipeline='single'))",
    "dry run": "%%moa --dry-run -p moa\nWhich of these decisions cost money?\n\n{{ notes }}",
    "where": "%moa where",
    "background": (
        "from moa_nb.engine.engine import current\nfrom moa_nb.engine.task import make_task\nfrom moa_nb.engine.plan import Options\n"
        "from moa_nb.notebook.background import start_in_background\nengine = current()\n"
        "waiting = moa.Pipeline(name='waiting', layers=[['lab:alpha', 'lab:beta', 'lab:gamma'], ['lab:beta']])\n"
        "goes_on = start_in_background(engine, engine.finish(engine.plan(Options(pipeline=waiting))), make_task('Why?'))"
    ),
    "running": "moa.configure(proposers=['lab:alpha', 'lab:beta', 'lab:gamma'], aggregator='lab:beta')\n"
    "get_ipython().run_cell_magic('moa', '', 'Why not?')",
}
"""Everything that is shown, by what it is."""

SHOWN = [*SOURCES]

BEGIN = """from pathlib import Path
notes = Path('notes.md').read_text(encoding='utf-8')
reviews = pd.read_csv('reviews.csv', index_col='id').head(12)
import warnings; warnings.simplefilter('ignore')
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser of these tests."""
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str]]:
    """JupyterLab, and the first cell of its notebooks: a server of which one model fails and one never ends."""
    folder = tmp_path_factory.mktemp("lab")
    with ChatServer() as server:
        server.on("alpha", Reply.bad_request("no such thing"))
        server.on(
            "beta", Reply("Because prices went up in **March**, and the support queue doubled.", token_delay=0.01)
        )
        server.on("gamma", Reply.hanging())
        lab = Lab(folder, environment(folder / "home"))
        try:
            for name in ("notes.md", "reviews.csv"):
                shutil.copy(EXAMPLES / name, lab.root)
            yield lab, f"{setup(server, proposers=(), aggregator=None)}\n{BEGIN}"
        finally:
            lab.stop()


@pytest.fixture(scope="module")
def visited(chromium: Browser, served: tuple[Lab, str]) -> Iterator[Reader]:
    """A page on which everything is shown at once, two runs of it going on."""
    lab, begin = served
    lab.write("all.ipynb", notebook_of(begin, *SOURCES.values()))
    reader = Reader(chromium, lab)
    try:
        reader.open("all.ipynb")
        reader.wait_for_kernel()
        reader.run_all()
        reader.until(lambda: "answered; ■ stops it" in part(reader, "running").inner_text() or failed(reader), 300)
        assert failed(reader) == []
        yield reader
    finally:
        reader.close()


def failed(reader: Reader) -> list[str]:
    """Return what cells say that failed."""
    return reader.page.locator(".jp-OutputArea-output[data-mime-type*='stderr']").all_inner_texts()


def part(reader: Reader, name: str) -> Locator:
    """Return the outputs of what is called so."""
    return reader.page.locator(".jp-CodeCell").nth(1 + SHOWN.index(name)).locator(".jp-Cell-outputArea")


LOOK = """() => {
  const colour = (text) => {
    let m = text.match(/^rgba?\\(([^)]*)\\)/);
    if (m) { const [r, g, b, a = 1] = m[1].split(/[ ,/]+/).filter(Boolean).map(Number); return [r / 255, g / 255, b / 255, a]; }
    m = text.match(/^color\\(srgb ([^)]*)\\)/);
    if (m) { const [r, g, b, a = 1] = m[1].split(/[ /]+/).filter(Boolean).map(Number); return [r, g, b, a]; }
    throw new Error(`a colour nobody can read: ${text}`);
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((part, at) => part * a + below[at] * (1 - a));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const chain = (element) => {
    const found = [];
    for (let one = element; one; one = one.parentElement) found.unshift(getComputedStyle(one));
    return found;
  };
  // What is seen where `last` is painted in the innermost element, and what is seen beside it.
  const seen = (styles, last) => {
    const paint = (at, below) => {
      if (at === styles.length) return last ? over(last, below) : below;
      const inner = paint(at + 1, over(colour(styles[at].backgroundColor), below));
      const opacity = Number(styles[at].opacity);
      return inner.map((part, place) => part * opacity + below[place] * (1 - opacity));
    };
    return paint(0, [1, 1, 1]);
  };
  const offenders = [];
  let worst = 99, count = 0;
  const judge = (what, styles, painted, least, element) => {
    const found = contrast(seen(styles, painted), seen(styles, null));
    count += 1;
    if (least === 4.5) worst = Math.min(worst, found);
    if (found < least) offenders.push(`${found.toFixed(2)} < ${least}: ${what}: ${element.outerHTML.slice(0, 160)}`);
  };
  const isShown = (element) => {
    const box = element.getBoundingClientRect();
    return element.checkVisibility({ visibilityProperty: true }) && box.width > 1 && box.height > 1;
  };
  for (const output of document.querySelectorAll('.jp-CodeCell .jp-OutputArea-output')) {
    if (output.dataset.mimeType?.startsWith('application/vnd.jupyter.std')) continue; // printed, not ours
    const walker = document.createTreeWalker(output, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (!node.data.trim() || !isShown(element) || element.closest(':disabled, [aria-disabled="true"], datalist, option, style')) continue;
      const styles = chain(element), own = styles.at(-1);
      const size = parseFloat(own.fontSize), isLarge = size >= 24 || (size >= 18.66 && Number(own.fontWeight) >= 700);
      // A sign is no text: it has to be told apart, not read.
      const isSign = /^[●○▸▾·\\s]+$/.test(node.data);
      judge(node.data.trim().slice(0, 40), styles, colour(own.color), isSign || isLarge ? 3 : 4.5, element);
    }
    for (const element of output.querySelectorAll('*')) {
      if (!isShown(element) || element.closest(':disabled, [aria-disabled="true"]')) continue;
      const styles = chain(element), own = styles.at(-1);
      if (element.matches('input, textarea:not(.source), select')) {
        judge('field', styles, colour(own.color), 4.5, element);
        if (element.placeholder) judge('placeholder', styles, colour(getComputedStyle(element, '::placeholder').color), 4.5, element);
      }
      if (element.matches('input, textarea:not(.source), select, button:not(.row)')) {
        judge('border', chain(element.parentElement), colour(own.borderTopColor), 3, element);
      }
      const before = getComputedStyle(element, '::before');
      if (element.matches('.line')) judge('line number', [...styles, before], colour(before.color), 4.5, element);
      const isBar = !element.childNodes.length && element.matches('td div, [data-bar]') && colour(own.backgroundColor)[3] > 0.3;
      if (isBar) {
        const [r, g, b, a] = colour(own.backgroundColor);
        judge('bar', chain(element.parentElement), [r, g, b, a * Number(own.opacity)], 3, element);
      }
    }
  }
  return { offenders, worst, count };
}"""


def open_all(reader: Reader) -> None:
    """Open whatever opens."""
    reader.page.evaluate("() => document.querySelectorAll('.jp-CodeCell details').forEach(one => one.open = true)")


def show_in(reader: Reader, theme: str) -> None:
    """Change JupyterLab's theme, while everything stays alive."""
    page = reader.page
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Settings$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).first.hover()
    page.locator("li.lm-Menu-item[data-command='apputils:change-theme']", has_text=f"JupyterLab {theme}").first.click()
    reader.until(lambda: page.locator(f"body[data-jp-theme-name='JupyterLab {theme}']").count() == 1)
    page.wait_for_timeout(300)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_everything_can_be_read(visited: Reader, theme: str) -> None:
    """Each text has a contrast of 4.5 to what is behind it, each bar and each edge of a field one of 3."""
    show_in(visited, theme)
    open_all(visited)
    looked = visited.page.evaluate(LOOK)
    assert looked["count"] > 1000
    assert looked["offenders"] == []


def test_everything_is_readable_in_the_systems_own_colours(visited: Reader) -> None:
    """Where the system chooses the colours, all text is read, and the bars keep theirs."""
    visited.page.emulate_media(forced_colors="active")
    try:
        open_all(visited)
        assert visited.page.evaluate(LOOK)["offenders"] == []
        bars = part(visited, "panel").locator("td > div > div[style*='#4a7fb5']")
        assert bars.first.evaluate("bar => getComputedStyle(bar).backgroundColor") == "rgb(74, 127, 181)"
    finally:
        visited.page.emulate_media(forced_colors="none")


NAMED = {"button", "textbox", "combobox", "spinbutton", "link", "region", "DisclosureTriangle"}
"""What has to be called something to be of use to who hears it."""


def heard(cdp: CDPSession, outputs: Locator) -> list[tuple[str, str]]:
    """Return role and name of all that is heard of some outputs."""
    outputs.evaluate("outputs => { window.__heard = outputs }")
    element = cdp.send("Runtime.evaluate", {"expression": "window.__heard"})["result"]["objectId"]
    nodes = cdp.send("Accessibility.queryAXTree", {"objectId": element})["nodes"]
    said = [
        (str(node["role"]["value"]), str(node.get("name", {}).get("value", "")))
        for node in nodes
        if not node["ignored"]
    ]
    return [(role, name.strip()) for role, name in said]


def test_everything_has_a_name(visited: Reader) -> None:
    """No button, field, link or summary is without a name, no table without heads, and each bar is said in words."""
    cdp = visited.page.context.new_cdp_session(visited.page)
    said = {name: heard(cdp, part(visited, name)) for name in SHOWN}
    assert [(name, role) for name, all_ in said.items() for role, called in all_ if role in NAMED and not called] == []
    assert ("button", "Re-run with it") in said["degraded"]
    assert ("textbox", "template source") in said["playground"]
    assert ("table", "calls") in said["panel"]
    assert ("table", "Cost by layer and model") in said["report"]
    assert sum(role == "status" for role, _ in said["playground"]) == 2
    assert any(re.search(r"from \d.* s, answered after", called) for _, called in said["panel"])
    summaries = [called for role, called in said["degraded"] if role == "DisclosureTriangle"]
    assert "alpha: failed · lab refuses the request (400): no such thing [invalid_request]" in summaries
    without_heads = """() => [...document.querySelectorAll('.jp-CodeCell .jp-OutputArea-output table:not([role=presentation])')]
        .filter((table) => !table.querySelector('th, [role$=header]')).map((table) => table.outerHTML.slice(0, 200))"""
    assert visited.page.evaluate(without_heads) == []
    without_name = "() => [...document.querySelectorAll('[role=table]:not([aria-label])')].length"
    assert visited.page.evaluate(without_name) == 0


FOCUSABLE = """(outputs) => [...outputs.querySelectorAll('summary, button, select, input, textarea, [tabindex="0"]')]
    .filter((one) => one.checkVisibility() && !one.disabled)"""
HELD = """(outputs) => {
  const held = document.activeElement, ring = (held.closest('.code') ?? held);
  return [window.__focusable.indexOf(held), getComputedStyle(ring).outlineStyle !== 'none' && held.matches(':focus-visible')];
}"""


@pytest.mark.parametrize("name", ["panel", "degraded", "report", "playground", "background"])
def test_the_keyboard_reaches_everything(visited: Reader, name: str) -> None:
    """Tab goes through all that can be pressed or filled in, in its order and visibly, and leads out again."""
    outputs = part(visited, name)
    visited.page.evaluate("() => document.querySelectorAll('.jp-CodeCell details').forEach(one => one.open = false)")

    def is_walked_through() -> bool:
        count = outputs.evaluate(
            f"(outputs) => {{ window.__focusable = ({FOCUSABLE})(outputs); window.__focusable[0].focus(); return window.__focusable.length }}"
        )
        held = []
        for _ in range(count):
            held.append(tuple(outputs.evaluate(HELD)))
            visited.page.keyboard.press("Tab")
        left = outputs.evaluate(HELD)[0] == -1
        return count > 0 and left and held == [(place, True) for place in range(count)]

    visited.until(is_walked_through)  # a panel that still grows may be drawn anew between two keys


def test_what_opens_is_opened_by_a_key(visited: Reader) -> None:
    """Enter opens a row of a panel and of a report, Space closes it again, and the focus stays where it was."""
    row = part(visited, "panel").locator("details").first
    row.evaluate("row => { row.open = false }")
    row.locator("summary").first.focus()
    visited.page.keyboard.press("Enter")
    visited.until(lambda: row.evaluate("row => row.open"))
    visited.page.keyboard.press("Space")
    visited.until(lambda: not row.evaluate("row => row.open"))


@pytest.mark.parametrize(
    ("name", "held"),
    [("degraded", "button"), ("playground", "button.main"), ("playground", "textarea.source"), ("degraded", "input")],
)
def test_keys_are_the_fields_own(visited: Reader, name: str, held: str) -> None:
    """Letters, Enter and arrows on our buttons and in our fields do nothing to the notebook; Ctrl+S saves it."""
    page = visited.page
    n_cells = page.locator(".jp-CodeCell").count()
    field = part(visited, name).locator(held).first
    field.focus()
    page.keyboard.press("Control+End")
    for key in ("b", "d", "d", "x", "ArrowDown"):
        page.keyboard.press(key)
    assert page.locator(".jp-CodeCell").count() == n_cells
    assert field.evaluate("field => field === document.activeElement")
    if held == "textarea.source":
        assert field.input_value().endswith("bddx")
        for _ in "bddx":
            page.keyboard.press("Backspace")
    page.keyboard.press("Escape")
    visited.save()
    page.keyboard.press("Tab")
    assert not field.evaluate("field => field === document.activeElement")


WIDE = """(outputs) => [...outputs.querySelectorAll('.jp-OutputArea-output')]
    .filter((output) => output.scrollWidth > output.clientWidth + 1).map((output) => [output.clientWidth, output.scrollWidth])"""


BREAKING = """() => [...document.querySelectorAll('.jp-OutputArea-output details pre, .jp-OutputArea-output td')]
    .filter((one) => { const style = getComputedStyle(one); return style.wordBreak !== 'normal' || style.overflowWrap === 'anywhere' })
    .map((one) => one.textContent.slice(0, 40))"""
"""The texts of <pre> and of cells whose words the page may break anywhere, as JupyterLab does by itself."""


@pytest.mark.parametrize("width", [320, 480])
def test_a_narrow_column_is_enough(visited: Reader, width: int) -> None:
    """Where there is little room nothing sticks out but what scrolls by itself, and words stay whole."""
    open_all(visited)
    resize = "(width) => { for (const one of document.querySelectorAll('.jp-OutputArea-output')) { one.style.width = width; one.style.flex = width && 'none' } }"
    visited.page.evaluate(resize, f"{width}px")
    try:
        visited.page.wait_for_timeout(200)
        assert {name: wide for name in SHOWN if (wide := part(visited, name).evaluate(WIDE))} == {}
        assert visited.page.evaluate(BREAKING) == []
    finally:
        visited.page.evaluate(resize, "")


def test_a_kernel_that_is_gone_is_noticed(chromium: Browser, served: tuple[Lab, str]) -> None:
    """A panel says that its kernel is gone, or that there is no news from it; what is saved says of when it is."""
    lab, begin = served
    lab.write("gone.ipynb", notebook_of(begin, SOURCES["background"]))
    idle = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
    reader = Reader(chromium, lab)
    try:
        reader.page.clock.install()
        reader.open("gone.ipynb")
        running = reader.page.locator(".jp-CodeCell").nth(1).locator(".jp-Cell-outputArea")
        reader.until(lambda: lab.kernels_of("gone.ipynb"), 180)
        reader.page.wait_for_selector(idle, state="attached")
        reader.run_all()
        reader.until(lambda: "in the background, as of 20" in running.inner_text(), 180)
        running.locator("button", has_text="Stop").focus()
        reader.menu("Kernel", "kernelmenu:restart")
        reader.page.locator(".jp-Dialog .jp-mod-accept").click()
        reader.until(lambda: "the kernel has gone" in running.inner_text())
        assert running.locator("button").count() == 0

        # One that says nothing any more may be gone: a kernel that JupyterLab starts anew by itself says nothing of it.
        reader.page.wait_for_selector(idle, state="attached")
        reader.run_all()
        reader.until(
            lambda: "in the background, as of 20" in running.inner_text() and running.locator("button").count(), 180
        )
        (kernel,) = lab.kernels_of("gone.ipynb")
        commands = {one: " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])}
        (process,) = [one for one, command in commands.items() if kernel["id"] in command]
        process.suspend()
        reader.page.clock.fast_forward(100_000)
        reader.until(lambda: "no news from the kernel" in running.inner_text())
        process.kill()
    finally:
        reader.close()
