"""What is pressed below a panel: runs once more, runs in the background, the rows of a frame."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from real_kernels import new_manager
from test_kernel import KEY, RUN, STATIC, WIDGET, Cell, Kernel, environment, running, setup

import moa_nb as moa
from moa_nb.engine.engine import current
from moa_nb.engine.plan import Options, Plan
from moa_nb.engine.task import make_task
from moa_nb.errors import MoaError, SetupError
from moa_nb.notebook.background import start_in_background
from moa_nb.notebook.form import LiveForm
from moa_nb.notebook.frame_live import FramePanel
from moa_nb.notebook.publisher import publish
from moa_nb.notebook.rerun import AGGREGATOR, places
from moa_nb.panels.figures import dollars
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.result import Result
from moa_nb.testing import ChatServer, Reply

QUESTION = "Why did churn rise?"
Asked = tuple[Result, Plan, Task]


@pytest.fixture
def asked(server: ChatServer, lab: Callable[..., None]) -> Callable[..., Asked]:
    """Runs a question; called with options."""
    assert lab
    for name in "abcz":
        server.on(name, *(f"{name} says {n}" for n in range(9)))

    def ask(**options: Any) -> Asked:
        engine = current()
        task = make_task(QUESTION)
        plan = engine.finish(engine.plan(Options(**options)))
        result = engine.finish(engine.answer_and_keep(plan, task, engine.new_record(plan, task), kind="cell"))
        return result, plan, task

    return ask


def pressed(server: ChatServer, form: LiveForm, do: str, **values: Any) -> Result | None:
    """Return what pressing a button of a form brought."""
    before = len(form.reruns)
    form.press(do, values)
    assert server.wait_until(lambda: not form.busy, seconds=60)
    return form.reruns[-1].result if len(form.reruns) > before else None


def counts(server: ChatServer) -> list[int]:
    """Return how often each model was asked."""
    return [server.count(name) for name in "abcz"]


# Once more --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_from_a_layer_on_all_is_asked_anew(server: ChatServer, asked: Callable[..., Asked], layer: int) -> None:
    """Earlier layers come from the store; the layer itself and those after it are asked again, and kept."""
    first, plan, task = asked(layers=3, pipeline="moa")
    n_before = server.count()
    form = LiveForm(first, plan, task)
    again = pressed(server, form, "layer", layer=str(layer))
    assert again is not None
    cached = [{call.cached for call in one.calls} for one in again.layers]
    assert cached == [{number < layer} for number in range(3)]
    assert server.count() - n_before == sum(len(one.calls) for one in again.layers[layer:])
    assert again.text != first.text
    # What was asked anew is what the store now has.
    n_now = server.count()
    engine = current()
    kept = engine.finish(engine.answer_and_keep(plan, task, engine.new_record(plan, task), kind="cell"))
    assert kept.text == again.text
    assert server.count() == n_now


def test_a_run_that_kept_nothing_is_asked_whole(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """With ``cache="off"`` there is nothing to go on from, and nothing is kept now either."""
    first, plan, task = asked(cache="off")
    assert pressed(server, LiveForm(first, plan, task), "layer", layer="1") is not None
    assert counts(server) == [2, 2, 2, 2]


def test_another_aggregator(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """Only the aggregator is asked, though its model is a proposer too; the proposals are the same."""
    first, plan, task = asked()
    form = LiveForm(first, plan, task)
    again = pressed(server, form, "model", place=AGGREGATOR, model="lab:a")
    assert again is not None
    assert [call.model for call in again.layers[-1].calls] == ["lab:a"]
    assert [call.text for call in again.layers[0].calls] == [call.text for call in first.layers[0].calls]
    assert counts(server) == [2, 1, 1, 1]
    # Which of two is dearer does not hang on what the store answered: both did the same.
    dearer = f"${dollars(first.cost)} → ${dollars((again.cost or 0) + (again.saved or 0))}"
    shown = form.bundle()["text/plain"]
    assert dearer in shown
    assert f"4 calls, 3 cached: ${dollars(again.cost)} paid now" in shown
    assert again.cost is not None
    assert first.cost is not None
    assert again.cost < first.cost


def test_another_proposer(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """The new proposer and whoever reads it are asked; the other proposers are not."""
    server.on("d", "d says so")
    first, plan, task = asked()
    assert dict(places(plan, first)) == {AGGREGATOR: "aggregator (lab:z)", **{n: f"{n} (lab:{n})" for n in "abc"}}
    again = pressed(server, LiveForm(first, plan, task), "model", place="b", model=" lab:d ")
    assert again is not None
    assert [call.model for call in again.layers[0].calls] == ["lab:a", "lab:d", "lab:c"]
    assert counts(server) == [1, 1, 1, 2]
    assert server.count("d") == 1
    assert moa.last() is again


def test_a_model_that_plays_two_parts_changes_in_one(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """Where the aggregator proposes too, each place has a name of its own."""
    first, plan, task = asked(aggregator="lab:a")
    assert [place for place, _ in places(plan, first)] == [AGGREGATOR, "a", "b", "c"]
    again = pressed(server, LiveForm(first, plan, task), "model", place="a", model="lab:z")
    assert again is not None
    assert [call.model for call in again.calls] == ["lab:z", "lab:b", "lab:c", "lab:a"]


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [("nobody:x", {}, "nobody"), ("", {}, "name a model"), ("lab:unpriced", {"budget": 1.0}, "a budget needs prices")],
)
def test_a_model_that_cannot_be_asked_is_one_line(
    server: ChatServer, asked: Callable[..., Asked], model: str, options: dict[str, Any], words: str
) -> None:
    """What is wrong stands beside the buttons, and nothing is sent."""
    first, plan, task = asked(**options)
    n_before = server.count()
    form = LiveForm(first, plan, task)
    assert pressed(server, form, "model", place=AGGREGATOR, model=model) is None
    assert words in form._controls.widget.status["text"]
    assert form._controls.widget.status["busy"] is False
    assert server.count() == n_before


def test_a_budget_is_whole_again(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """A run once more may take what the first one might, not what that one left."""
    first, plan, task = asked(budget="4 calls")
    again = pressed(server, LiveForm(first, plan, task), "layer", layer="0")
    assert again is not None
    assert again.error is None


def test_what_came_stands_below_with_what_differs(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """The output has both panels, the difference word by word, and the provenance of both; no widget."""
    first, plan, task = asked()
    form = LiveForm(first, plan, task)
    assert set(form.bundle()) == STATIC
    for _ in range(4):
        pressed(server, form, "layer", layer="1")
    shown = form.bundle()
    assert set(shown) == STATIC
    html = shown["text/html"]
    assert html.index("z says 0") < html.index(form._controls.place) < html.index("z says 4")
    assert "from layer 2" in html
    assert "z says 1" not in html.partition(form._controls.place)[2].replace("z says 0", "")
    assert "1 earlier re-run in moa.runs()" in shown["text/plain"]
    assert "[-0-]{+4+}" in shown["text/plain"]
    assert [one["text"] for one in shown[RUN]["reruns"]] == ["z says 2", "z says 3", "z says 4"]
    json.dumps(shown[RUN], allow_nan=False)


def test_a_run_that_fails_is_shown_too(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """When asking again fails, its panel says so, and the form goes on."""
    first, plan, task = asked()
    server.on("z", Reply.bad_request("no more"))
    form = LiveForm(first, plan, task)
    failed = pressed(server, form, "layer", layer="1")
    assert failed is not None
    assert failed.error is not None
    assert "no more" in form.bundle()["text/html"]
    server.on("z", "back again")
    again = pressed(server, form, "layer", layer="1")
    assert again is not None
    assert again.text == "back again"


def test_buttons_may_be_pressed_on_any_thread(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """Pressed on eight threads at once, one run begins; Stop ends it and closes its connection."""
    first, plan, task = asked()
    server.on("z", Reply.hanging())
    form = LiveForm(first, plan, task)
    threads = [threading.Thread(target=form.press, args=("layer", {"layer": "1"})) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.wait_until(lambda: server.count("z") == 2, seconds=60)
    form.press("stop", {})
    assert server.wait_until(lambda: not form.busy and server.in_flight == 0, seconds=60)
    assert server.count("z") == 2
    assert form.reruns[-1].result.stop_reason == "stopped"
    assert "stopped" in form._controls.widget.status["text"]


def test_nonsense_from_a_page_does_nothing(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """Messages that no button sends are left alone."""
    first, plan, task = asked()
    n_before = server.count()
    form = LiveForm(first, plan, task)
    for message in (None, {}, {"do": 3}, {"do": "rm"}, {"do": "stop", "values": "x"}):
        form._controls._receive(None, message, [])
    LiveForm(first).press("layer", {"layer": "0"})
    assert not form.busy
    assert server.count() == n_before


# In the background, without a front end ---------------------------------------------------------


def test_a_background_run_returns_at_once(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """The handle is there while the service is silent; stopped, it has what was finished, and the store keeps it."""
    _, plan, _ = asked()
    server.on("z", Reply.hanging())
    run = start_in_background(current(), plan, make_task("in the background"))
    assert not run.done
    assert server.wait_until(lambda: server.in_flight == 1 and server.count("z") == 2, seconds=60)
    assert "running" in repr(run)
    run.stop()
    assert run.result.stop_reason == "stopped"
    assert run.done
    assert [call.ok for call in run.result.calls] == [True, True, True, False]
    server.on("z", "at last")
    before = counts(server)
    again = start_in_background(current(), plan, make_task("in the background"))
    assert again.result.text == "at last"
    assert counts(server) == [*before[:3], before[3] + 1]
    assert set(again._repr_mimebundle_()) == STATIC


def test_an_error_is_raised_where_the_result_is_asked_for(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """A background run that fails says nothing by itself; ``result`` raises what happened."""
    _, plan, _ = asked()
    server.on("z", Reply.refused_key())
    run = start_in_background(current(), plan, make_task("refused"))
    with pytest.raises(MoaError):
        _ = run.result
    assert run.record.result is not None
    assert run.record.result.error is not None


# The rows of a frame ----------------------------------------------------------------------------


def test_a_frames_panel_lists_its_latest_rows_and_opens_any(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """Rows that ended last are listed; a pressed one's panel is shown, out of the store; others say why not."""
    assert asked
    n_rows = 9
    server.on("a", lambda body: Reply.bad_request("bad row") if "row 8" in str(body["messages"]) else "fine")
    run = pd.Series([*(f"row {n}" for n in range(n_rows)), None]).moa.start.synthesize(
        pipeline="single", models=None, aggregator="lab:a"
    )
    panel = FramePanel(run)
    with pytest.warns(moa.frames.run.RowsFailed):
        run.wait()
    shown = panel._draw()
    assert set(shown) == STATIC
    assert [one["run_id"] for one in shown[RUN]["frame_runs"]] == [run.id]
    assert "row 1" not in json.dumps(shown[RUN])
    rows = panel._controls.widget.rows
    assert [row["position"] for row in rows] == [9, 8, 7, 6, 5, 4]
    assert [row["state"] for row in rows[:3]] == ["skipped", "failed", "done"]
    assert "bad row" in rows[1]["text"]
    n_before = server.count()
    panel.press("row", {"row": 3})
    assert server.wait_until(lambda: "fine" in panel._controls.widget.panel, seconds=60)
    panel.press("open", {"position": "9"})
    assert server.wait_until(lambda: "skipped" in panel._controls.widget.status["text"], seconds=60)
    panel.press("open", {"position": "77"})
    assert "0 to 9" in panel._controls.widget.status["text"]
    assert server.count() == n_before


def test_a_frames_panel_has_what_was_pressed_last(server: ChatServer, asked: Callable[..., Asked]) -> None:
    """A row whose layers come after those of the next one pressed is not shown; what ends while it is spoken of is over."""
    assert asked
    server.on("a", lambda body: Reply.hanging() if "row 2" in str(body["messages"]) else "fine")
    run = pd.Series([f"row {n}" for n in range(3)]).moa.start.synthesize(pipeline="single", aggregator="lab:a")
    panel = FramePanel(run)
    controls, recall, held, came = panel._controls, run._execution.recall, threading.Event(), threading.Event()

    async def slowly(position: int) -> Result | None:
        result = await recall(position)
        if position == 0:
            while not held.is_set():
                await asyncio.sleep(0.002)
            came.set()
        return result

    assert server.wait_until(lambda: run.progress.done == 2, seconds=60)
    run._execution.recall = slowly
    for position in (0, 1):
        panel.press("row", {"row": position})
    assert server.wait_until(lambda: controls.widget.status["text"] == "row 1", seconds=60)
    held.set()
    assert came.wait(60)
    current().finish(asyncio.sleep(0))  # a turn of the loop later
    assert controls.widget.status["text"] == "row 1"

    panel._draw()
    assert controls.widget.status["busy"]
    say = controls.say

    def late(text: str, *, busy: bool = False) -> None:
        if busy:
            run.stop()
            assert server.wait_until(lambda: run.done, seconds=60)
            panel._draw()
        say(text, busy=busy)

    controls.say = late  # type: ignore[method-assign]  # what happens between two statements
    panel.press("open", {"position": "77"})
    assert "0 to 2" in controls.widget.status["text"]
    assert not controls.widget.status["busy"]


# In a kernel ------------------------------------------------------------------------------------


class Page(Kernel):
    """A kernel and a page that also sees widgets, and can press."""

    @classmethod
    def of(cls, kernel: Kernel) -> Page:
        """Return a page on a kernel that runs."""
        page = cls(kernel.manager, kernel.client)
        page.cells = kernel.cells
        page.comms, page.n_bytes = [], 0
        return page

    comms: list[dict[str, Any]]
    n_bytes: int
    """Of updates and widgets, as they go over the wire."""

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["msg_type"]
        if kind in {"update_display_data", "display_data", "comm_open", "comm_msg"}:
            self.n_bytes += len(json.dumps(message["content"]))
        if kind == "comm_open":
            self.comms.append(message["content"])
        super()._take(message)

    def press(self, do: str, **values: Any) -> None:
        """Press a button of the latest panel."""
        comm = next(one for one in reversed(self.comms) if "mark" in one["data"]["state"])
        data = {"method": "custom", "content": {"do": do, "values": values}}
        message = self.client.session.msg("comm_msg", {"comm_id": comm["comm_id"], "data": data})
        self.client.shell_channel.send(message)

    def until(self, condition: Callable[[], object]) -> None:
        """Return when the condition holds; what the kernel sends is read meanwhile."""
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, [cell.outputs for cell in self.cells.values()]
            self.read(0.05)


START = (
    "from moa_nb.engine.engine import current\nfrom moa_nb.engine.task import make_task\nfrom moa_nb.engine.plan import Options\n"
    "from moa_nb.notebook.background import start_in_background\nimport time\n"
    "def start(text, **options):\n"
    "    engine = current()\n"
    "    return start_in_background(engine, engine.finish(engine.plan(Options(**options))), make_task(text))"
)


@pytest.fixture(scope="module")
def _served() -> Iterator[ChatServer]:
    with ChatServer(key=KEY) as started:
        yield started


@pytest.fixture(scope="module")
def _page(_served: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with running(tmp_path_factory.mktemp("page"), _served) as kernel:
        page = Page.of(kernel)
        page.run(START).ok()
        yield page


@pytest.fixture
def served(_served: ChatServer) -> ChatServer:
    """The server of the kernel, its three models answering."""
    assert _served.wait_until(lambda: _served.in_flight == 0, seconds=60)
    _served.clear()
    for name in ("alpha", "beta", "gamma"):
        _served.on(name, f"answer of {name}")
    return _served


@pytest.fixture
def page(_page: Page, served: ChatServer) -> Page:
    """The page that these tests share."""
    assert served
    _page.n_bytes = 0
    return _page


def html_of(cell: Cell) -> str:
    """Return what the one panel of a cell shows now."""
    (panel,) = cell.panels
    html: str = panel["text/html"]
    return html


@pytest.mark.kernel
def test_a_panel_follows_while_other_cells_run(page: Page, served: ChatServer, tmp_path: Path) -> None:
    """The cell is over at once; its panel changes while another cell blocks the kernel, and ends static in its own cell."""
    is_running = threading.Event()
    served.on("alpha", lambda body: "answer of alpha" if is_running.wait(60) else "nobody has looked")
    served.on("gamma", Reply("word " * 60, token_delay=0.02))
    first = page.run("run = start('follow me')").ok()
    assert "running" in html_of(first)
    seen = tmp_path / "seen"
    blocking = page.start(f"import os\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)\nprint('slept')")
    is_running.set()
    page.until(lambda: "word word" in html_of(first))
    page.until(lambda: "moa-lite</b>" in html_of(first) and set(first.panels[0]) == STATIC)
    assert not blocking.idle
    seen.touch()
    page.wait(blocking).ok()
    assert blocking.text == "slept\n"
    assert [output["type"] for output in first.outputs] == ["display_data"]
    assert "moa-controls" not in html_of(first)
    assert "answer of alpha" in html_of(first)
    assert page.run("run.done, run.result.text.count('word')").ok().text == "(True, 60)"
    assert page.run("(await start('awaited')).n_calls").ok().text == "3"


@pytest.mark.kernel
def test_the_panels_stop_stops(page: Page, served: ChatServer) -> None:
    """Stop in the panel works once the cell has returned; what was answered stays."""
    served.on("gamma", Reply.hanging())
    first = page.run("run = start('stop me')").ok()
    page.until(lambda: served.in_flight == 1 and served.count("gamma") == 1)
    page.press("stop")
    page.until(lambda: served.in_flight == 0 and set(first.panels[0]) == STATIC)
    assert "stopped" in html_of(first)
    assert "answer of alpha" in html_of(first)
    assert page.run("run.result.stop_reason").ok().text == "'stopped'"
    served.on("gamma", "then")
    assert page.run("start('stop me').result.text").ok().text == "'then'"
    assert served.count("alpha") == 1


@pytest.mark.kernel
def test_an_error_stands_in_its_own_panel(page: Page, served: ChatServer) -> None:
    """A background run that fails prints nothing into any cell; its panel says why."""
    served.on("gamma", Reply.bad_request("not today"))
    first = page.run("run = start('fail')").ok()
    other = page.run("time.sleep(1); 'fine'").ok()
    page.until(lambda: "not today" in html_of(first))
    assert other.text == "'fine'"
    assert [output["type"] for output in (*first.outputs, *other.outputs)] == ["display_data", "execute_result"]
    assert "not today" in page.run("run.result").error


@pytest.mark.kernel
def test_six_agents_cost_few_bytes(page: Page, served: ChatServer) -> None:
    """A background run of six agents with answers of 2 kB sends some 35 kB a second, and its last panel."""
    for name in ("alpha", "beta", "gamma"):
        served.on(name, Reply("ten chars " * 200, token_delay=0.005))
    models = ["lab:alpha", "lab:beta"] * 2 + ["lab:alpha"]
    first = page.run(f"run = start('six', models={models})").ok()
    page.until(lambda: set(first.panels[0]) == STATIC)
    n_calls, seconds = page.run("print(run.result.n_calls, run.result.seconds)").ok().text.split()
    assert n_calls == "6"
    assert page.n_bytes < 120_000 + 35_000 * float(seconds)


@pytest.mark.kernel
def test_a_form_in_a_kernel_asks_again(page: Page, served: ChatServer) -> None:
    """Pressed in a page, a form's output in its own cell gets the new panel; nothing is printed elsewhere."""
    served.on("gamma", "the first word", "the second word")
    source = (
        "from moa_nb.notebook.form import LiveForm\nengine = current(); task = make_task('once more')\n"
        "plan = engine.finish(engine.plan(Options()))\nform = LiveForm(start('once more').result, plan, task); form.show()"
    )
    page.run(source).ok()
    cell = page.run("form.show()").ok()
    assert set(cell.panels[0]) == STATIC
    page.press("layer", layer="1")
    page.until(lambda: "second" in html_of(cell))
    assert "first" in html_of(cell)
    assert served.count("alpha") == 1
    assert page.run("'fine'").ok().text == "'fine'"


@pytest.mark.kernel
def test_a_frames_panel_follows_and_stops(page: Page, served: ChatServer) -> None:
    """``run.show()`` of a run over rows follows it: figures change, Stop stops, the report stays."""
    served.on("gamma", lambda body: Reply.hanging() if "stuck" in str(body["messages"]) else "fine")
    cell = page.run(
        "rows = pd.Series([f'row {n}' + (' stuck' if n > 7 else '') for n in range(12)])\n"
        "frame = rows.moa.start.synthesize(pipeline='single'); frame.show()"
    ).ok()
    page.until(lambda: "8 done" in html_of(cell))
    page.press("stop")
    page.until(lambda: "stopped" in html_of(cell) and set(cell.panels[0]) == STATIC)
    assert served.wait_until(lambda: served.in_flight == 0, seconds=60)
    assert [output["type"] for output in cell.outputs] == ["display_data"]


@pytest.mark.kernel
def test_run_by_a_program_panels_are_static(served: ChatServer, tmp_path: Path) -> None:
    """Executed by nbclient there are no buttons: the file holds static panels, each in its cell, and no widget."""
    served.on("gamma", Reply("streamed " * 20, token_delay=0.02))
    sources = [
        setup(served),
        START + "\nrun = start('saved')",
        "run.result.show()",
        "%moa last",
        "frame = pd.Series(['a', 'b']).moa.start.synthesize(pipeline='single').wait(); frame.show()",
        "time.sleep(0.5)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(
        notebook, timeout=300, startup_timeout=300, iopub_timeout=60, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.km = new_manager()
    client.execute(env=environment(tmp_path / "home"))
    for cell in notebook.cells[1:4]:
        (output,) = cell.outputs
        assert set(output.data) == STATIC
        assert "streamed streamed" in output.data["text/html"]
    (report,) = notebook.cells[4].outputs
    assert "2 done" in report.data["text/html"]
    saved = nbformat.writes(notebook)
    assert WIDGET not in saved
    assert "moa-controls" not in saved
    assert not notebook.metadata.get("widgets")


def test_what_is_wrong_with_a_model_is_said_before_anything_is_sent(asked: Callable[..., Asked]) -> None:
    """A place for a model that no provider has is refused by the plan itself."""
    from moa_nb.notebook.rerun import with_model

    _, plan, _ = asked()
    with pytest.raises(SetupError, match="nobody"):
        with_model(plan, AGGREGATOR, "nobody:x")


def test_a_panel_that_cannot_be_drawn_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Drawing that fails is in the log once, however often it fails, and what draws again is shown."""
    fails = iter([True, True, False])
    shown: list[dict[str, Any]] = []

    def draw() -> dict[str, Any]:
        if next(fails):
            raise ValueError("no such view")
        return {"text/html": "<div>done</div>"}

    async def follow() -> None:
        await publish(draw, shown.append, shown.append, lambda: bool(shown))

    with caplog.at_level("WARNING", "moa_nb"):
        asyncio.run(asyncio.wait_for(follow(), 30))
    assert [record.message for record in caplog.records] == [
        "a panel cannot be drawn, its run goes on: ValueError: no such view",
    ]
    assert shown[0] == {"text/html": "<div>done</div>"}


def test_two_drawings_never_overlap() -> None:
    """An engine that ends while a panel is being drawn draws the last one after that."""
    begun, goes_on, drawing, overlapped = threading.Event(), threading.Event(), threading.Lock(), []

    def draw() -> dict[str, Any]:
        is_alone = drawing.acquire(blocking=False)
        overlapped.append(not is_alone)
        begun.set()
        goes_on.wait(60 if len(overlapped) == 1 else 0)
        if is_alone:
            drawing.release()
        return {"text/html": "<div></div>"}

    async def end() -> None:
        following = asyncio.create_task(publish(draw, shown.append, shown.append, begun.is_set))
        await asyncio.to_thread(begun.wait, 60)
        following.cancel()
        threading.Timer(0.2, goes_on.set).start()
        await asyncio.wait([following])

    shown: list[dict[str, Any]] = []
    asyncio.run(asyncio.wait_for(end(), 120))
    assert overlapped == [False, False]
    assert len(shown) == 1
