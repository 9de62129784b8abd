"""Hostile text in every place where text is shown: nothing runs, nothing is fetched, nothing breaks the page."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pandas as pd
import pytest
from hostile.detectors import HARMS, Strict, hidden, live_in_markdown
from hostile.families import FAMILIES, HOST, HOSTILE, Family, control, sentinel
from hostile.places import PLACES, Forms, answering, configure, in_folder
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lab import OUTPUT, Lab, Reader, browser
from magics import (  # noqa: F401 - fixtures
    Notebook,
    in_front_end_fixture,
    notebook_fixture,
    server_fixture,
    shell_fixture,
)
from test_browser import notebook_of as notebook_with
from test_browser import open_and_press, untrusted
from test_kernel import environment

import moa_nb as moa
from moa_nb.errors import TemplateError
from moa_nb.panels.markdown import to_html, to_markdown
from moa_nb.plain import to_plain
from moa_nb.templating import parse
from moa_nb.testing import ChatServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MOST = 1_500_000
"""Characters that one form of one display may have."""

WHOLE = {"run", "frame", "playground", "form", "compared"}
"""Places that take their time: they are given a family's payloads in one text, the others each payload alone as well."""


# Read by a strict parser --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def echo() -> Iterator[ChatServer]:
    """A server that says what it is asked."""
    with ChatServer() as started:
        answering(started)
        yield started


def check(forms: Forms) -> None:
    """Fail on what is not ours, on what a terminal would obey, on what hides, and on what is endless."""
    for kind, text in forms.items():
        if not isinstance(text, str):
            continue
        assert len(text) < MOST, kind
        if kind == "text/html":
            Strict(text)
        if kind == "text/markdown":
            assert live_in_markdown(rendered(text)) == []
        if kind != "error":
            assert hidden(text) is None


def rendered(markdown: str) -> str:
    """Return what a reader of Markdown makes of it that lets HTML through."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


@pytest.mark.parametrize("place", PLACES)
def test_every_family_is_text_in_every_place(place: str, echo: ChatServer) -> None:
    """In no form does a place have a tag, an attribute, an address, an escape or an override that is not our own."""
    configure(echo.base_url)
    for name, family in FAMILIES.items():
        alone = () if place in WHOLE else family.payloads
        for evil in (*alone, family.text(name)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a store cannot keep half of a character, that rows failed
                shown = list(PLACES[place](evil))
            for forms in shown:
                try:
                    check(forms)
                except AssertionError as error:
                    raise AssertionError(f"{place}, {name}, {evil[:80]!r}: {str(error)[:300]}") from None
        assert any(sentinel(name) in str(forms.get("text/html", "")) for forms in shown), (place, name)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_careless_page_would_be_noticed(name: str) -> None:
    """What these tests look for is there when a payload is shown as it is, so a place that let it through would fail."""
    from jinja2 import Environment

    family = FAMILIES[name]
    for payload in family.payloads:
        if family.harms & {"coloured", "turned", "invisible", "unwritable"} and hidden(_unentitled(payload)):
            continue
        if "rendered" in family.harms:
            assert _rendered_by(Environment(), payload) != payload
            continue
        page = control(family, payload).replace("<!doctype html><meta charset=utf-8>", "")
        with pytest.raises(AssertionError):
            check({"text/html": page, "text/markdown": _as_markdown(family, payload, page)})
            assert not family.harms & {"typeset", "overflows"}


def _unentitled(text: str) -> str:
    from html import unescape

    return unescape(text) + "".join(chr(int(code, 0)) for code in ("0x1b",) if "&#27;" in text)


def _rendered_by(jinja: Any, payload: str) -> str:
    from jinja2 import TemplateError as JinjasError

    try:
        return str(jinja.from_string(payload).render())
    except (JinjasError, TypeError):
        return ""  # it ran, and failed


def _as_markdown(family: Family, payload: str, page: str) -> str:
    return payload if family.careless.__name__ == "_markdown" else page


PAYLOADS = [payload[:300] for family in FAMILIES.values() for payload in family.payloads]


@given(
    st.lists(st.sampled_from(PAYLOADS) | st.sampled_from(["\n", "\n\n", "`", "**", "> ", "| ", " ", "\\"])).map("".join)
)
@example("a" + ("\u0301" * 8 + "**") * 9)
@example("&#8238;&#27;[31m&#xe0041;")
@hypothesis_settings(deadline=None, max_examples=150)
def test_no_mixture_gets_through(said: str) -> None:
    """Payloads one after the other, cut and nested, make nothing that none of them makes alone."""
    check({"text/html": to_html(said), "text/markdown": to_markdown(said), "text/plain": to_plain(said)})


@pytest.mark.parametrize("name", FAMILIES)
def test_an_exported_report_takes_no_family_for_markup(name: str) -> None:
    """What nbconvert makes of our Markdown has no tag, handler or address of a payload's."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    family = FAMILIES[name]
    for payload in (*(payload[:3000] for payload in family.payloads), family.text(name)[:9000]):
        found = live_in_markdown(markdown2html_mistune(to_markdown(payload)))
        assert [one for one in found if one[-1] != "id"] == []  # the exporter's own, on headings


# Data are no templates ----------------------------------------------------------------------------

INJECTIONS = FAMILIES["templates"].payloads


@pytest.mark.parametrize("evil", INJECTIONS)
def test_data_are_never_rendered(evil: str, echo: ChatServer) -> None:
    """Cells, column names, instructions, variables and answers go out to the letter, whatever braces they have."""
    configure(echo.base_url, aggregator="lab:delta")
    echo.clear()
    frame = pd.DataFrame({evil: [evil], "plain": [evil]}, index=[evil])
    frame.moa.synthesize(evil, pipeline="single", progress=False)
    frame.moa.synthesize("plain", instruction=evil, pipeline="single", progress=False)
    frame.moa.synthesize(template="Reply to {{ plain }}, {{ row['plain'] }}!", pipeline="single", progress=False)
    moa.run(f"a text with {evil}", pipeline="moa-lite")
    said = [str(turn["content"]) for record in echo.requests for turn in record.body["messages"]]
    assert said[0] == evil
    assert sum(evil in text for text in said) == len(said)
    assert f"Reply to {evil}, {evil}!" in said


@pytest.mark.parametrize("evil", INJECTIONS)
def test_names_are_never_rendered(evil: str, in_front_end: Notebook) -> None:
    """A pipeline's and a chat's name and a variable's value are no templates; a mistake in them is one line."""
    in_front_end.variables["evil"] = evil
    shown = in_front_end.ask("-p single", "Look at {{ evil }}")
    assert shown.error is None
    quoted = "'" + evil.replace("'", "`") + "'"
    assert "49" not in in_front_end.ask(f"-p {quoted}").said
    assert in_front_end.ask(f"--chat {quoted} -p single").error is None
    assert evil.replace("'", "`") in in_front_end.run("%moa chats").table


REACHING = (
    "{{ ''.__class__ }}",
    "{{ x.__init__ }}",
    "{{ x['__class__'] }}",
    "{{ x|attr('__class__') }}",
    "{{ '{0.__class__}'.format(x) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self.__init__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ row.__init__ }}",
    "{{ config }}",
    "{{ fence }}",
    "{{ (1).__class__.__base__.__subclasses__() }}",
    "{% for x in ().__class__.__mro__ %}{{ x }}{% endfor %}",
    "{% include '../../../../etc/passwd' %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends '\u202eevil' %}",
)


@pytest.mark.parametrize("source", REACHING)
def test_a_template_reaches_nothing_of_ours(source: str) -> None:
    """A template of the user's own that reaches for attributes, files or our variables is refused in one line."""
    with pytest.raises(TemplateError) as refused:
        parse(source).render({"x": "text", "row": {"a": 1}})
    said = str(refused.value)
    assert "\n" not in said
    assert hidden(said) is None
    assert not any(secret in said for secret in ("object at 0x", "<class", "root:", "built-in"))


def test_a_hostile_project_is_listed_and_refused_harmlessly(in_front_end: Notebook) -> None:
    """Names and texts of somebody else's templates and pipelines are text in listings, in what is printed and in errors."""
    texts = [family.payloads[0] for family in FAMILIES.values()]
    known = in_folder(Path.cwd(), texts)
    assert len(known) > 2 * len(FAMILIES) - 10
    for command in ("%moa templates", "%moa pipelines", "%moa where", "%moa settings"):
        shown = in_front_end.run(command)
        if shown.error is not None:  # a template that does not parse is named
            assert hidden(str(shown.error)) is None
            assert "\n" not in str(shown.error)
        for forms in shown.displays:
            check(forms)
        assert hidden(shown.printed) is None
    for name in known:
        for command in ("templates", *(["edit"] if name in known[:4] else [])):
            in_front_end.variables["asked"] = f"{command} {name!r}"
            shown = in_front_end.run("get_ipython().run_line_magic('moa', asked)")
            for forms in shown.displays:
                check(forms)
            if shown.error is None:
                assert hidden(shown.printed) is None, name
            else:
                assert hidden(str(shown.error)) is None, name
                assert "\n" not in str(shown.error)


# Seen in a browser --------------------------------------------------------------------------------

IN_A_PAGE = frozenset(
    {"ran", "fetched", "covers", "hides", "odd-link", "overflows", "turned", "restructured", "invisible"}
)
"""What a plain page shows; mathematics and commands need JupyterLab."""

OUTPUTS = ".jp-OutputArea-output"

PANELS = f"{OUTPUTS}:not([data-mime-type^='text/plain'], [data-mime-type*='jupyter.std'], [data-mime-type*='error'])"
"""All outputs but plain text, in which JupyterLab itself makes links of whatever looks like an address."""

SHORT = [name for name in FAMILIES if name not in {"large", "markdown"}]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser of these tests."""
    (OUTPUT / "hostile").mkdir(parents=True, exist_ok=True)
    with browser() as started:
        yield started


@pytest.mark.browser
@pytest.mark.slow
def test_every_payload_does_harm_where_it_is_let_through(chromium: Browser) -> None:
    """Each payload of each family, shown as it is, does in this browser what its family says, and it is noticed."""
    reader = Reader(chromium, None)
    reader.page.set_default_timeout(5000)
    shown = {"page": ""}
    reader.page.route(
        "https://shown.example/**",
        lambda route: route.fulfill(body=shown["page"].encode("utf-8", "replace"), content_type="text/html"),
    )
    missed = []
    for name, family in FAMILIES.items():
        if not family.harms & IN_A_PAGE or name in {"commands", "mathematics"}:
            continue
        for payload in family.payloads:
            reader.outside.clear()
            shown["page"] = control(family, payload)
            _go(reader)
            if not _comes(reader, family.harms):
                missed.append((name, payload[:100]))
    reader.close()
    assert missed == []


def _go(reader: Reader) -> None:
    """Open the page; the one before it may be about to leave for elsewhere."""
    for _ in range(10):
        with contextlib.suppress(Exception):
            reader.page.goto("about:blank")
            reader.page.goto("https://shown.example/", wait_until="commit")
            return
    pytest.fail(f"the page cannot be opened from {reader.page.url}")


def _comes(reader: Reader, wanted: frozenset[str]) -> bool:
    """Return whether a page shows one of its harms within ten seconds, pressed and pointed at if need be."""
    for step in range(200):
        try:
            if reader.outside and "fetched" in wanted:
                return True
            harms = set(reader.page.evaluate(HARMS, "body")[0])
            if not reader.page.evaluate("() => document.getElementById('after')?.checkVisibility() ?? false"):
                harms.add("hides")
            if harms & wanted:
                return True
            if step == 2:
                reader.page.mouse.move(40, 40)
                reader.page.evaluate("() => document.querySelectorAll('a, button').forEach(e => e.click?.())")
                reader.page.evaluate(
                    "() => document.querySelectorAll('svg a').forEach(e => e.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true})))"
                )
        except Exception as error:  # the page is just being left
            if "Execution context" not in str(error) and "navigat" not in str(error):
                raise
        reader.page.wait_for_timeout(50)
    return False


@pytest.fixture(scope="module")
def lab(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab of these tests' own."""
    assert chromium
    folder = tmp_path_factory.mktemp("lab")
    started = Lab(folder, environment(folder / "home"))
    try:
        yield started
    finally:
        started.stop()


def live_cells(address: str) -> list[str]:
    """Return cells that show hostile text as it comes: growing panels, buttons, an editor, listings, errors."""
    return [
        (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import warnings; warnings.simplefilter('ignore')\n"
            "import moa_nb as moa, pandas as pd\n"
            "from IPython.display import display\n"
            "from hostile.families import FAMILIES\nfrom hostile import places\n"
            f"places.configure({address!r})\n"
            f"texts = {{name: FAMILIES[name].text(name) for name in FAMILIES}}\n"
            f"short = '\\n\\n'.join(texts[name] for name in {SHORT!r} if name != 'broken')\n"
            "short = 'question:' + short\n"
            "def show(place):\n"
            "    for evil in (short, texts['large'], texts['markdown']):\n"
            "        for forms in places.PLACES[place](evil):\n"
            "            forms.pop('error', None)\n"
            "            if forms: display(forms, raw=True)\n"
            "%load_ext moa_nb"
        ),
        "%%moa -p moa-lite\n{{ short }}",
        "%%moa -p single -f markdown\n{{ short }} again",
        "%%moa --dry-run\n{{ short }}",
        "%%moa --compare single,moa-lite\n{{ short }} compared",
        "%%moa --chat <img/src=x/onerror=window.__xss=1> -p single\n{{ short }} chatted",
        "%moa chats",
        "%moa models lab",
        "%%moa -b -p moa-lite\n{{ short }} later",
        "moa.last().show()",
        (
            "rows = pd.DataFrame({short[:300]: [short] * 3}, index=[short[:200]] * 3)\n"
            "run = rows.moa.start.synthesize(short[:300], pipeline='single', aggregator='lab:delta'); run.show()"
        ),
        "moa.Playground(rows, short[:300], pipeline='moa-lite')",
        "rows.moa.estimate.synthesize(short[:300], pipeline=moa.Pipeline(name=short[:2000], layers=[['$aggregator']]))",
        "moa.configure(proposers=('lab:' + short[:500], 'lab:alpha'))",
        "%%moa\nnames",
        "%%moa -p '<img src=x onerror=window.__xss=1>'\nwrong",
        "%%moa -p single -a lab:beta\n{{ short }} fails",
    ]


@pytest.fixture(scope="module")
def visited(lab: Lab, echo: ChatServer, chromium: Browser) -> nbformat.NotebookNode:
    """A notebook of hostile text in every place, run and looked at in JupyterLab."""
    echo.on("<script>window.__xss=1</script>", "listed").on("\x1b[31mred\u202e", "listed")
    live = live_cells(echo.base_url)
    notebook = notebook_with(*live, *(f"show({place!r})" for place in PLACES))
    for cell in notebook.cells:
        cell.metadata["tags"] = ["raises-exception"]
    lab.write("hostile.ipynb", notebook)
    reader = Reader(chromium, lab)
    try:
        reader.open("hostile.ipynb")
        reader.wait_for_kernel()
        reader.run_all()
        last = reader.page.locator(".jp-CodeCell .jp-InputPrompt").last
        reader.until(lambda: last.inner_text().strip("[]: ").isdecimal(), 600)
        reader.until(lambda: reader.page.locator(".moa-playground").count() == 1)
        reader.until(lambda: reader.page.locator(".moa-controls button.row").count() == 3)
        reader.until(lambda: _row_is_open(reader))
        reader.page.locator(".moa-playground button", has_text="Run").first.click()
        reader.page.wait_for_timeout(1500)
        reader.shot("hostile/live-closed", whole=True)
        judge(reader, cells=len(notebook.cells))
        reader.shot("hostile/live", whole=True)
        reader.menu("File", "docmanager:save")
        reader.until(lambda: _is_saved(lab))
    finally:
        reader.close()
        lab.end_kernels()
    return lab.read("hostile.ipynb")


def _is_saved(lab: Lab) -> bool:
    """Return whether the notebook's outputs are in its file, which may just be being written."""
    try:
        return sum(len(cell.outputs) for cell in lab.read("hostile.ipynb").cells) > 60
    except nbformat.reader.NotJSONError:
        return False


def _row_is_open(reader: Reader) -> bool:
    """Return whether a row's layers are shown below a frame's report; press it until they are."""
    if reader.page.locator(".moa-controls .panel div").count() > 3:
        return True
    reader.page.locator(".moa-controls button.row").first.click()
    reader.page.wait_for_timeout(700)
    return False


QUIET = {0, 6, 7, 10, 13, 14, 15}
"""Cells that have no room for the words by which a family is known: they show names."""


def judge(reader: Reader, *, cells: int, shown: bool = True) -> None:
    """Open and press everything, and fail on any harm, and where a family was not shown."""
    open_and_press(reader)
    reader.page.evaluate(
        "(root) => document.querySelectorAll(`${root} :is(a[href^=java], button)`).forEach("
        "e => { if (!e.closest('.moa-controls, .moa-playground')) e.click() })",
        OUTPUTS,
    )
    reader.page.wait_for_timeout(300)
    harms, where = reader.page.evaluate(HARMS, PANELS)
    assert (harms, where) == ([], [])
    assert reader.set_by_script() is None
    assert [address for address in reader.outside if HOST in address or "shown.example" in address] == []
    assert reader.dialogs == []
    foreign = (
        "script, iframe, object, svg, math, form, base, meta, link, style, img, video, audio, embed, dialog, template"
    )
    theirs = reader.page.locator(f"{OUTPUTS} :is({foreign})")
    assert theirs.count() == 0, theirs.first.evaluate("e => e.outerHTML.slice(0, 200)")
    if shown:
        for number in set(range(cells)) - QUIET:
            area = reader.page.locator(".jp-CodeCell").nth(number).locator(".jp-Cell-outputArea")
            reader.until(lambda area=area: any(words in area.inner_text() for words in ("onerror=", "shown-")))


@pytest.mark.browser
@pytest.mark.slow
def test_nothing_happens_in_jupyterlab(visited: nbformat.NotebookNode) -> None:
    """With everything shown, growing, opened and pressed, nothing ran; the saved file has static panels alone."""
    for cell in visited.cells:
        for output in cell.outputs:
            if html := output.get("data", {}).get("text/html"):
                Strict(html)
            if markdown := output.get("data", {}).get("text/markdown"):
                assert live_in_markdown(rendered(markdown)) == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
def test_nothing_happens_in_a_reopened_notebook(
    visited: nbformat.NotebookNode, lab: Lab, chromium: Browser, trusted: bool
) -> None:
    """The saved notebook is as harmless without its kernel, trusted or not."""
    name = "hostile" if trusted else "hostile-untrusted"
    if not trusted:
        lab.write(f"{name}.ipynb", untrusted(visited))
    reader = Reader(chromium, lab)
    try:
        reader.open(f"{name}.ipynb")
        reader.until(lambda: reader.page.locator(OUTPUTS).count() > 60)
        reader.page.wait_for_timeout(1000)
        judge(reader, cells=len(visited.cells))
        reader.shot(f"hostile/{'trusted' if trusted else 'untrusted'}", whole=True)
    finally:
        reader.close()
        lab.end_kernels()


def exported(folder: Path, notebook: nbformat.NotebookNode) -> Path:
    """Return the page that nbconvert makes of a notebook."""
    nbformat.write(notebook, folder / "exported.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "exported.ipynb"]
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True, env={**os.environ, "JUPYTER_CONFIG_DIR": str(folder)}
    )
    return folder / "exported.html"


@pytest.mark.browser
@pytest.mark.slow
def test_nothing_happens_in_an_export(visited: nbformat.NotebookNode, chromium: Browser, tmp_path: Path) -> None:
    """The HTML that nbconvert makes of the notebook is harmless, with its panels and with their Markdown in their place."""
    as_markdown = nbformat.from_dict({**visited})
    bare = [
        nbformat.v4.new_output("display_data", {"text/markdown": output["data"]["text/markdown"]})
        for cell in visited.cells
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    reader = Reader(chromium, None)
    try:
        for name in ("panels", "markdown"):
            folder = tmp_path / name
            folder.mkdir()
            if name == "markdown":
                as_markdown = notebook_with("shown")
                as_markdown.cells[0].outputs = bare
            reader.page.goto(exported(folder, as_markdown).as_uri())
            reader.page.wait_for_timeout(1000)
            open_and_press(reader)
            harms, where = reader.page.evaluate(HARMS, OUTPUTS)
            # The exporter's own: links to its headings, and a table that is as wide as it is.
            expected = set() if name == "panels" else {"restructured", "odd-link", "overflows"}
            assert set(harms) - {"coloured", *expected} == set(), where
            assert reader.set_by_script() is None
            assert [address for address in reader.outside if HOST in address] == []
            assert reader.dialogs == []
            reader.page.screenshot(path=OUTPUT / "hostile" / f"exported-{name}.png")
    finally:
        reader.close()


@pytest.mark.browser
@pytest.mark.slow
def test_jupyterlab_would_notice(lab: Lab, chromium: Browser, tmp_path: Path) -> None:
    """Shown as they are, in JupyterLab and in an export: mathematics is typeset, a command is offered, a terminal is coloured."""
    everything = HOSTILE.replace("http-equiv='refresh'", "name='refresh'")
    gentle = (FAMILIES["mathematics"].payloads[2], FAMILIES["commands"].payloads[0], FAMILIES["addresses"].payloads[0])
    for name, unsafe in (("gentle", gentle), ("everything", (everything,))):
        sources = [f"from IPython.display import HTML\nHTML({text!r})" for text in unsafe]
        lab.write(f"{name}.ipynb", notebook_with(*sources, f"print({FAMILIES['controls'].payloads[0]!r})"))
        reader = Reader(chromium, lab)
        try:
            reader.open(f"{name}.ipynb")
            reader.wait_for_kernel()
            reader.run_all()
            if name == "gentle":
                seen = {"typeset", "command", "coloured", "odd-link"}
                reader.until(lambda: seen <= set(reader.page.evaluate(HARMS, OUTPUTS)[0]))  # noqa: B023 - at once
            else:
                reader.until(lambda: reader.set_by_script() is not None)  # noqa: B023
                reader.until(lambda: any(HOST in address for address in reader.outside))  # noqa: B023
        finally:
            reader.close()
            lab.end_kernels()
    notebook = notebook_with("shown")
    html: Any = nbformat.v4.new_output("display_data", {"text/html": everything})
    notebook.cells[0].outputs = [html]
    page = Reader(chromium, None)
    try:
        page.page.goto(exported(tmp_path, notebook).as_uri(), wait_until="commit")
        page.until(lambda: page.set_by_script() is not None and any(HOST in url for url in page.outside))
    finally:
        page.close()
