"""The extension in a real kernel: interrupts, queued cells, threads, a killed kernel, what is saved."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any
from urllib.request import Request, urlopen

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from real_kernels import new_manager

from moa_nb.settings import services
from moa_nb.testing import ChatServer, Reply

pytestmark = pytest.mark.kernel

KEY = "sk-kernel-0123456789abcdef"
RUN = "application/vnd.moa.run+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
STATIC = {"text/html", "text/markdown", "text/plain", RUN}
CLOSED_WITHIN = 0.3
"""Seconds from the interrupt until the server must see its connections closed, on a machine that has time for it.

Three threads of two processes, one after the other, have a part in it: each may wait for its turn as long as another did,
and what another process missed is not known here. So the quickest of a few counts.
"""


@dataclass
class Cell:
    """One cell as a front end has it: its outputs with all updates in, and the kernel's reply."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    live: str = ""
    """What its widgets were told, one thing after the other."""
    reply: dict[str, Any] = field(default_factory=dict)
    idle: bool = False

    @property
    def panels(self) -> list[dict[str, Any]]:
        """The media of each display."""
        return [output["data"] for output in self.outputs if output["type"] == "display_data"]

    @property
    def text(self) -> str:
        """What was printed, and the plain text of the cell's value."""
        printed = [output["text"] for output in self.outputs if output["type"] == "stream"]
        values = [output["data"]["text/plain"] for output in self.outputs if output["type"] == "execute_result"]
        return "".join(printed + values)

    @property
    def error(self) -> str:
        """The name and text of what the cell raised."""
        assert self.reply["status"] == "error", (self.reply, self.outputs)
        return f"{self.reply['ename']}: {self.reply['evalue']}"

    def ok(self) -> Cell:
        """Return the cell, which must have raised nothing."""
        assert self.reply["status"] == "ok", (self.reply, self.outputs)
        return self


class Kernel:
    """A kernel and its front end."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client
        self.cells: dict[str, Cell] = {}
        self._by_display: dict[str, list[dict[str, Any]]] = {}

    def start(self, source: str) -> Cell:
        """Return a cell that the kernel was sent and may still be running."""
        cell = Cell()
        self.cells[self.client.execute(source)] = cell
        return cell

    def wait(self, cell: Cell, seconds: float = 120) -> Cell:
        """Return the cell when it is over."""
        end = time.monotonic() + seconds
        while not (cell.idle and cell.reply):
            assert time.monotonic() < end, f"the cell is not over: {cell}"
            self.read(0.1)
        return cell

    def run(self, source: str, seconds: float = 120) -> Cell:
        """Return a cell that was run."""
        return self.wait(self.start(source), seconds)

    def read(self, seconds: float = 0.0) -> None:
        """Take in what the kernel has sent."""
        try:
            self._take(self.client.get_iopub_msg(timeout=seconds))
            while True:
                self._take(self.client.get_iopub_msg(timeout=0))
        except Empty:
            pass
        try:
            while True:
                reply = self.client.get_shell_msg(timeout=0)
                if (cell := self.cells.get(reply["parent_header"].get("msg_id"))) and reply[
                    "msg_type"
                ] == "execute_reply":
                    cell.reply = reply["content"]
                    cell.idle = cell.idle or reply["content"]["status"] == "aborted"
        except Empty:
            pass

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "update_display_data":
            for output in self._by_display[content["transient"]["display_id"]]:
                output.setdefault("first", output["data"])
                output["data"] = content["data"]
            return
        cell = self.cells.get(message["parent_header"].get("msg_id"))
        if cell is None:
            return
        if kind == "status":
            cell.idle = cell.idle or content["execution_state"] == "idle"
        elif kind in {"comm_open", "comm_msg"}:
            cell.live += json.dumps(content["data"])
        elif kind in {"display_data", "execute_result", "stream", "error"}:
            output = {"type": kind, **content}
            cell.outputs.append(output)
            if display_id := content.get("transient", {}).get("display_id"):
                self._by_display.setdefault(display_id, []).append(output)

    def interrupt(self) -> float:
        """Return the moment at which the kernel was interrupted."""
        now = time.monotonic()
        self.manager.interrupt_kernel()
        return now


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a kernel that sees no key and no settings of this user."""
    keys = {service.key_env for service in services().values()}
    kept = {name: value for name, value in os.environ.items() if name not in keys and not name.startswith("MOA_NB_")}
    return {**kept, "MOA_NB_HOME": str(home), "LAB_KEY": KEY, "IPYTHONDIR": str(home / "ipython")}


@contextmanager
def running(folder: Path, server: ChatServer, **settings: Any) -> Iterator[Kernel]:
    """Yield a kernel with the extension loaded and the server configured."""
    manager = new_manager()
    folder.mkdir(parents=True, exist_ok=True)
    manager.start_kernel(env=environment(folder / "home"), cwd=str(folder))
    client = manager.client()
    assert isinstance(client, BlockingKernelClient)
    client.start_channels()
    try:
        client.wait_for_ready(timeout=180)
        kernel = Kernel(manager, client)
        kernel.run(setup(server, **settings)).ok()
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        manager.context.destroy()


def setup(server: ChatServer, **settings: Any) -> str:
    """Return the first cell: the server is ``lab``, with three models at known prices."""
    prices = {"prompt_price": 1.0, "completion_price": 2.0}
    values = {
        "providers": {"lab": {"base_url": server.base_url, "key_env": "LAB_KEY"}},
        "models": {f"lab:{name}": prices for name in ("alpha", "beta", "gamma")},
        "proposers": ["lab:alpha", "lab:beta"],
        "aggregator": "lab:gamma",
        **settings,
    }
    return f"import moa_nb as moa, pandas as pd\nmoa.configure(**{values!r})\n%load_ext moa_nb"


@pytest.fixture(scope="module")
def _server() -> Iterator[ChatServer]:
    with ChatServer(key=KEY) as started:
        yield started


@pytest.fixture(scope="module")
def _kernel(_server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running(tmp_path_factory.mktemp("kernel"), _server) as started:
        yield started


@pytest.fixture
def server(_server: ChatServer) -> ChatServer:
    """The server, with nothing recorded and its three models answering."""
    assert _server.wait_until(lambda: _server.in_flight == 0, seconds=60)
    _server.clear()
    for name in ("alpha", "beta", "gamma"):
        _server.on(name, f"answer of {name}")
    return _server


@pytest.fixture
def kernel(_kernel: Kernel, server: ChatServer) -> Kernel:
    """The kernel that these tests share; each asks texts of its own."""
    assert server
    return _kernel


def meanwhile(kernel: Kernel, server: ChatServer, condition: Callable[[], object]) -> None:
    """Return when the condition holds; the front end goes on reading."""

    def holds() -> object:
        kernel.read()
        return condition()

    assert server.wait_until(holds, seconds=120)


@pytest.fixture(scope="module")
def late() -> Iterator[Callable[[float], float]]:
    """Tells for how many seconds since a moment this machine was too busy to give a thread its turn in time."""
    over, turns = threading.Event(), []

    def watch() -> None:
        before = time.monotonic()
        while not over.wait(0.01):
            now = time.monotonic()
            turns.append((now, now - before - 0.01))
            before = now

    thread = threading.Thread(target=watch)
    thread.start()
    yield lambda moment: sum(missed for at, missed in turns if at >= moment and missed > 0.02)
    over.set()
    thread.join()


def interrupted(
    kernel: Kernel,
    server: ChatServer,
    late: Callable[[float], float],
    source: str,
    ready: Callable[[Cell], object],
    *,
    n_open: int = 1,
    idle_seconds: float = 0.0,
) -> Cell:
    """Return the cell that was interrupted when it was ready; it, or one like it, closes what it has open at once.

    Args:
        kernel: runs it.
        server: has its requests.
        late: how long this machine was too busy.
        source: of the cell; what stands for ``{turn}`` makes each ask a text of its own.
        ready: whether its open requests are there.
        n_open: how many these are.
        idle_seconds: how long it waits for them before it is interrupted.
    """
    cells, slowest = list[Cell](), list[float]()
    while len(cells) < 5:
        n_before = server.count()
        cell = kernel.start(source.replace("{turn}", str(len(cells))))
        meanwhile(kernel, server, partial(ready, cell))
        time.sleep(idle_seconds)
        moment = kernel.interrupt()
        cells.append(kernel.wait(cell))
        assert server.wait_until(lambda: server.in_flight == 0, seconds=60)
        ends = [record.closed_at for record in server.requests[n_before:]]
        closed = [end - moment for end in ends if end is not None]
        assert len(closed) == n_open
        assert min(closed) >= 0
        slowest.append(max(closed))
        if slowest[-1] < CLOSED_WITHIN + 3 * late(moment):
            return cells[0]
    raise AssertionError(f"not closed at once: {slowest}")


# ■ ----------------------------------------------------------------------------------------------


def test_an_interrupt_closes_what_is_open_and_keeps_what_is_done(
    kernel: Kernel, server: ChatServer, late: Callable[[float], float]
) -> None:
    """■ in a ``%%moa`` closes its connections at once; the cell raises; running it again asks only what is missing."""
    server.on("beta", Reply.hanging())
    source = "%%moa\ninterrupted question {turn}"
    cell = interrupted(
        kernel, server, late, source, lambda cell: "1 of 2 answered" in cell.live and server.in_flight == 1
    )
    assert "1 finished" in cell.error
    assert "\n" not in cell.reply["evalue"]
    assert len(cell.reply["traceback"]) == 1
    (panel,) = cell.panels
    assert set(panel) == STATIC
    assert "stopped" in panel["text/html"]
    server.on("beta", "back again")
    assert "back again" in kernel.run(source.replace("{turn}", "0")).ok().panels[0]["text/html"]
    asked = [record.model for record in server.requests if "interrupted question 0" in record.text_of("user")]
    assert sorted(asked) == ["alpha", "beta", "beta", "gamma"]


def test_an_interrupt_in_a_stream_closes_it(kernel: Kernel, server: ChatServer, late: Callable[[float], float]) -> None:
    """■ while an answer is being written closes the stream."""
    server.on("gamma", Reply("word " * 400, token_delay=0.05))
    source = "%%moa -p single\nstreamed and stopped {turn}"
    cell = interrupted(kernel, server, late, source, lambda cell: "word word" in cell.live)
    assert "word word" in cell.panels[0]["text/html"]


def test_an_interrupt_of_a_frame_keeps_its_rows(
    kernel: Kernel, server: ChatServer, late: Callable[[float], float]
) -> None:
    """■ in a verb closes its connections; the finished rows are in ``moa.last().partial`` and are not asked again."""
    server.on("gamma", lambda body: Reply.hanging() if "stuck" in str(body["messages"]) else "fine")
    kernel.run("texts = pd.Series([f'row {n}' + (' stuck' if n % 4 == 3 else '') for n in range(12)])").ok()
    source = "out = texts.moa.synthesize(pipeline='single', progress=True)"
    cell = interrupted(
        kernel, server, late, source, lambda cell: "9/12" in cell.live and server.in_flight == 3, n_open=3
    )
    assert cell.error.startswith("KeyboardInterrupt")
    assert kernel.run("moa.last().partial.notna().sum()").ok().text in {"9", "np.int64(9)"}
    server.on("gamma", "fine too")
    n_before = server.count()
    assert "12" in kernel.run(source + "\nout.notna().sum()").ok().text
    assert server.count() - n_before == 3
    assert sum("stuck" not in record.text_of("user") for record in server.requests) == 9


def test_an_interrupt_aborts_the_cells_that_wait(kernel: Kernel, server: ChatServer) -> None:
    """Run All stops at the cell that was interrupted; the next cell works."""
    server.on("gamma", Reply.hanging())
    first = kernel.start("%%moa -p single\nhangs, others wait")
    second = kernel.start("print('must not run')")
    meanwhile(kernel, server, lambda: server.count() == 1)
    time.sleep(3)  # the other cell has come by then, of which nobody is told
    kernel.interrupt()
    kernel.wait(first)
    kernel.wait(second)
    assert second.reply["status"] == "aborted"
    assert second.outputs == []
    assert kernel.run("print('works')").ok().text == "works\n"


def test_an_error_aborts_the_cells_that_wait(kernel: Kernel, server: ChatServer) -> None:
    """A run that fails raises, so that Run All stops there."""
    server.on("gamma", Reply.bad_request("no such thing", delay=3.0))  # the other cell has come by then
    first = kernel.start("%%moa -p single\nfails, others wait")
    second = kernel.start("print('must not run')")
    assert kernel.wait(first).error.startswith("UsageError: ")
    assert kernel.wait(second).reply["status"] == "aborted"
    assert kernel.run("1 + 1").ok().text == "2"


def test_awaiting_at_the_top_works(kernel: Kernel, server: ChatServer) -> None:
    """``await moa.arun(...)`` in a cell returns the result."""
    assert "answer of gamma" in kernel.run("(await moa.arun('awaited')).text").ok().text
    assert server.count() == 3


def test_awaiting_at_the_top_can_be_interrupted(
    kernel: Kernel, server: ChatServer, late: Callable[[float], float]
) -> None:
    """■ in an idle ``await`` is noticed at once."""
    server.on("gamma", Reply.hanging())
    source = "await moa.arun('awaited and stopped {turn}', pipeline='single')"
    cell = interrupted(kernel, server, late, source, lambda _: server.in_flight == 1, idle_seconds=0.3)
    assert cell.reply["status"] == "error"
    assert kernel.run("2 + 2").ok().text == "4"


# What is shown ----------------------------------------------------------------------------------


def test_the_panel_is_live_and_then_static(kernel: Kernel, server: ChatServer) -> None:
    """While it runs the cell has a widget with a fallback; afterwards the same display is complete without one."""
    server.on("gamma", Reply("slowly " * 12, token_delay=0.05))
    cell = kernel.start("%%moa\nlive, then static")
    kernel.wait(cell)
    (output,) = cell.outputs
    assert output["type"] == "display_data"
    live, panel = output["first"], output["data"]
    assert WIDGET in live
    assert "running" in live["text/html"]
    assert "running" in live["text/plain"]
    assert set(panel) == STATIC
    assert "slowly slowly" in panel["text/html"]


def test_the_live_panel_is_small(kernel: Kernel, server: ChatServer) -> None:
    """A streamed answer sends few updates of bounded size, whatever its length."""
    server.on("gamma", Reply("token " * 600, token_delay=0.004))
    sizes = kernel.run(
        "from ipywidgets import Widget\n"
        "sizes, made, old = [], set(), Widget.send_state\n"
        "def count(self, key=None):\n"
        "    made.add(self.model_id)\n"
        "    sizes.append(sum(len(str(value)) for value in self.get_state(key).values()))\n"
        "    return old(self, key)\n"
        "Widget.send_state = count\n"
        "get_ipython().run_cell_magic('moa', '', 'how many bytes')\n"
        "Widget.send_state = old\n"
        "print(len(sizes), sum(sizes), len(made), moa.last().seconds)"
    ).ok()
    n_sent, n_bytes, n_widgets, seconds = map(float, sizes.text.split())
    assert n_widgets <= 16
    assert n_sent <= 10 * (seconds + 1) * 8
    assert n_bytes < 20 * (seconds + 1) * len("token " * 600)


def test_pipelines_grow_side_by_side(kernel: Kernel, server: ChatServer) -> None:
    """``--compare`` shows each answer as it comes, the end of it alone; ■ closes what is open, what is answered stays."""
    long = " ".join(f"w{number}" for number in range(20_000))
    server.on(
        "gamma", lambda body: Reply(long, token_delay=0.002) if len(body["messages"]) > 1 else "short and **done**"
    )
    kernel.run(
        "from IPython.display import DisplayHandle\nsizes, told = [], DisplayHandle.update\n"
        "def count(self, shown, **options):\n    sizes.append(len(shown['text/html']))\n    told(self, shown, **options)\n"
        "DisplayHandle.update = count"
    ).ok()
    cell = kernel.start("%%moa --compare single,moa-lite\nside by side, and stopped")

    def is_long() -> object:  # whichever of its ends is drawn
        page = cell.panels[0]["text/html"] if cell.panels else ""
        return "1 of 2 pipelines answered" in page and re.search(r"\bw([2-9]|1\d)\d{3}\b", page)

    meanwhile(kernel, server, is_long)
    kernel.interrupt()
    assert "stopped; 3 finished calls kept" in kernel.wait(cell).error
    assert server.wait_until(lambda: server.in_flight == 0, seconds=60)
    (panel,) = cell.panels
    for said in ("<strong>done</strong>", "1 of 2 pipelines answered", "No answer. stopped"):
        assert said in panel["text/html"]
    assert "■" not in panel["text/html"]
    largest, n_drawn = map(int, kernel.run("DisplayHandle.update = told\nprint(max(sizes), len(sizes))").text.split())
    assert largest < 8000
    assert n_drawn > 3


def test_outputs_of_two_cells_do_not_mix(kernel: Kernel, server: ChatServer) -> None:
    """Cells that follow each other, and a run in the background, each show in their own place."""
    server.on(
        "gamma", lambda body: Reply("one " * 8 if "first" in str(body["messages"]) else "two " * 8, token_delay=0.03)
    )
    kernel.run("job = pd.Series(['background a', 'background b']).moa.start.synthesize(pipeline='single')").ok()
    cells = [
        kernel.start("%%moa -p single\nfirst cell"),
        kernel.start("%%moa -p single\nsecond cell"),
        kernel.start("print(3)"),
    ]
    for cell in cells:
        kernel.wait(cell)
    first, second, third = cells
    assert "one one" in first.panels[0]["text/plain"]
    assert "two two" in second.panels[0]["text/plain"]
    assert [len(cell.outputs) for cell in cells] == [1, 1, 1]
    assert third.text == "3\n"
    assert "2" in kernel.run("job.values.notna().sum()").ok().text


# Other callers ----------------------------------------------------------------------------------


def test_a_widgets_callback_may_ask(kernel: Kernel, server: ChatServer) -> None:
    """``moa.run`` works in a button's callback, clicked from a cell and from the front end."""
    kernel.run(
        "import ipywidgets\nbutton, got = ipywidgets.Button(), []\n"
        "button.on_click(lambda _: got.append(moa.run(f'clicked {len(got)}', pipeline='single').text))\n"
        "button.click()"
    ).ok()
    model_id = kernel.run("print(button.model_id)").ok().text.strip()
    click = {"comm_id": model_id, "data": {"method": "custom", "content": {"event": "click"}}}
    kernel.client.shell_channel.send(kernel.client.session.msg("comm_msg", click))
    meanwhile(kernel, server, lambda: server.count(status=200) == 2)
    assert kernel.run("got").ok().text == "['answer of gamma', 'answer of gamma']"


def test_a_thread_may_ask(kernel: Kernel, server: ChatServer) -> None:
    """``moa.run`` and a verb work from a thread of the kernel."""
    source = (
        "import threading\ngot = []\n"
        "def ask():\n"
        "    got.append(moa.run('from a thread', pipeline='single').text)\n"
        "    got.extend(pd.Series(['and a row']).moa.synthesize(pipeline='single', progress=False))\n"
        "thread = threading.Thread(target=ask); thread.start(); thread.join()\ngot"
    )
    assert kernel.run(source).ok().text == "['answer of gamma', 'answer of gamma']"
    assert server.count() == 2


def test_local_variables_of_a_function(kernel: Kernel, server: ChatServer) -> None:
    """A magic called in a function fills in that function's variables."""
    source = "def f(where):\n    get_ipython().run_cell_magic('moa', '-p single -q', 'local {{ where }}')\nf('here')"
    kernel.run(source).ok()
    assert server.requests[0].text_of("user") == "local here"


# Kernels of their own ---------------------------------------------------------------------------


def test_the_kernels_own_loop(server: ChatServer, tmp_path: Path, late: Callable[[float], float]) -> None:
    """With ``loop = 'kernel'`` cells and functions run on the kernel's loop, said once; an interrupt stops them."""
    with running(tmp_path, server, loop="kernel") as kernel:
        warned = kernel.run("print(moa.run('on the loop', pipeline='single').text)").ok().text
        assert "answer of gamma" in warned
        cell = kernel.run("%%moa\nwith a panel").ok()
        assert set(cell.panels[-1]) == STATIC
        assert "answer of gamma" in kernel.run("(await moa.arun('and awaited')).text").ok().text
        server.on("gamma", Reply.hanging())
        source = "%%moa -p single\nstopped on the loop {turn}"
        cell = interrupted(kernel, server, late, source, lambda _: server.in_flight == 1, idle_seconds=0.3)
        assert cell.reply["status"] == "error"
        server.on("gamma", "goes on")
        assert "goes on" in kernel.run("moa.run('after it', pipeline='single').text").ok().text


def test_a_killed_kernel_loses_nothing_that_was_kept(server: ChatServer, tmp_path: Path) -> None:
    """After ``kill -9`` in the middle of 200 rows a new kernel asks only for what was not committed."""
    turns = itertools.count()
    # However late it is killed, it is in the middle.
    server.on("gamma", lambda _: Reply("fine", delay=0.03) if next(turns) < 150 else Reply.hanging())
    settings: dict[str, Any] = {"concurrency": 8}
    source = (
        "texts = pd.Series([f'text {n} to keep' for n in range(200)])\n"
        "out = texts.moa.synthesize(pipeline='single', progress=False)\nprint(out.notna().sum())"
    )

    def n_kept() -> int:
        with closing(sqlite3.connect(tmp_path / "home" / "store.sqlite")) as store:
            return int(store.execute("SELECT CAST(TOTAL(n) AS INTEGER) FROM blocks").fetchone()[0])

    with running(tmp_path, server, **settings) as kernel:
        kernel.start(source)
        meanwhile(kernel, server, lambda: server.count(status=200) >= 80 and n_kept() >= 80 - 2 * 8)
        pid = kernel.manager.provisioner.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for _ in range(3):  # whoever comes now is served after all that the killed kernel sent
            urlopen(Request(f"{server.base_url}/models", headers={"Authorization": f"Bearer {KEY}"})).close()
        assert server.wait_until(lambda: server.in_flight == 0, seconds=60)
    server.on("gamma", Reply("fine"))
    n_answered, n_first, n_before = server.count(status=200), server.count(), n_kept()
    assert n_first < 200
    assert n_before <= n_answered
    with running(tmp_path, server, **settings) as kernel:
        assert kernel.run(source).ok().text == "200\n"
    assert server.count() - n_first == 200 - n_before


# What is saved ----------------------------------------------------------------------------------


def test_a_notebook_runs_without_a_front_end(server: ChatServer, tmp_path: Path) -> None:
    """Executed by nbclient, a cell's saved output is one static display; no widget and no key is in the file."""
    server.on("beta", Reply("streamed " * 10, token_delay=0.02))
    server.on("delta", Reply.refused_key())
    sources = [
        setup(server),
        "%%moa answer\nsaved without a front end",
        "print(answer.text)",
        "%%moa -m lab:delta -a lab:gamma\nrefused",
        "%moa settings",
        "df = pd.DataFrame({'text': ['a', 'b']})\ndf.moa.synthesize('text', pipeline='single')",
        "moa.last().report",
        "raise RuntimeError('the end')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, timeout=300, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}})
    client.km = new_manager()  # given later, it is still the client's own, which ends it
    client.execute(env=environment(tmp_path / "home"))
    assert client.kc is None
    first, asked, printed, refused, *_ = notebook.cells
    assert [output.output_type for output in first.outputs] == ["stream"]
    (output,) = asked.outputs
    assert output.output_type == "display_data"
    assert set(output.data) == STATIC
    assert "answer of gamma" in output.data["text/html"]
    assert "answer of gamma" in output.data["text/markdown"]
    json.dumps(output.data[RUN], allow_nan=False)
    assert printed.outputs[0].text == "answer of gamma\n"
    assert [output.output_type for output in refused.outputs] == ["display_data", "stream"]
    assert refused.outputs[1].text.startswith("UsageError: ")
    assert refused.outputs[1].text.count("\n") == 1
    saved = nbformat.writes(notebook)
    assert KEY not in saved
    assert WIDGET not in saved
    states = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    assert "streamed" not in json.dumps(states)
    assert len(json.dumps(states)) < 40_000
