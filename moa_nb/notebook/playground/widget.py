"""The playground's editor: one widget, told what to show by the model and telling it what was typed.

Messages come on any thread, and what they ask for runs on the engine's loop; nobody waits for it. The notebook's
output is a static form that is kept up to date, and in whose place the editor stands while the kernel lives.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anywidget
import traitlets

from moa_nb.engine import current
from moa_nb.engine.loop import Job
from moa_nb.errors import MoaError
from moa_nb.notebook.controls import asset
from moa_nb.notebook.playground import scene, static
from moa_nb.notebook.playground.drafts import mistake
from moa_nb.notebook.playground.editing import EDITED, SAVED
from moa_nb.notebook.playground.workbench import Playground

__all__ = ["Editor"]

_STILL_SECONDS = 1.5
"""After the last change, how long until the static form follows."""

_MOST_ROWS = 50


class _Widget(anywidget.AnyWidget):
    """What the browser has."""

    _esm = asset("playground/playground.js")
    _css = asset("playground/playground.css")

    mark = traitlets.Unicode().tag(sync=True)
    """The class of the static form in whose place it stands."""
    state = traitlets.Dict().tag(sync=True)
    draft = traitlets.Dict().tag(sync=True)
    """What is set in the editor from outside."""
    seen = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)


class Editor:
    """Puts a playground and its widget together.

    Args:
        playground: what is edited.
        refresh: called with the static form, on the engine's thread, when it should follow.
    """

    def __init__(self, playground: Playground, refresh: Callable[[dict[str, Any]], None]) -> None:
        self._playground, self._refresh = playground, refresh
        self._engine = current()
        self._lock = threading.RLock()
        self._serial = 0
        """Of the latest edit."""
        self._looks = 0
        """How many have begun."""
        self._layer: str | None = None
        self._sets = 0
        self._is_busy = False
        self._job: Job[None] | None = None
        """What runs because of a button."""
        self._timer: asyncio.TimerHandle | None = None
        self._drawing: asyncio.Task[None] | None = None
        self._is_closed = False
        self.widget = _Widget(mark=f"moa-playground-{secrets.token_hex(8)}")
        self.widget.on_msg(self._receive)
        self.follow()

    def follow(self) -> None:
        """Return at once; the editor shows the playground as it is now, whatever was typed."""
        self._set_draft()
        self._show_latest()
        self._start(self._look(self._next()))

    # What the browser says --------------------------------------------------------------------

    def _receive(self, widget: Any, message: Any, buffers: Any) -> None:  # noqa: ARG002 - what ipywidgets passes
        do = message.get("do") if isinstance(message, dict) else None
        playground = self._playground
        if do == "look":
            self._typed(message)
        elif do == "stop":
            with self._lock:
                if self._job is not None:
                    self._job.cancel()
        elif do in {"choose", "reset", "restore", "keep", "save", "copy"}:
            try:
                said = getattr(self, f"_{do}")(message)
            except MoaError as error:
                said = str(error)
            self._say(said)
            if do != "copy":
                self.follow()
        elif do in {"run", "sample", "compare"}:
            with self._lock:
                if self._job is not None and not self._job.done:
                    return
                work = {"run": self._run, "sample": self._sample, "compare": self._compare}[do]
                row = playground.row
                self._job = self._engine.start(self._working(work(message, row)))

    def _typed(self, message: dict[str, Any]) -> None:
        playground = self._playground
        with self._lock:
            if int(message["serial"]) <= self._serial:
                return
            self._serial = int(message["serial"])
            self._layer = message.get("layer") or None
            playground.row = int(message.get("row", 0))
            template = message.get("template")
            if template in playground.templates:
                playground.template = template
                playground.editing.put(template, str(message.get("source", "")))
        self._start(self._look(self._serial, serial=self._serial))

    def _choose(self, message: dict[str, Any]) -> str:
        playground = self._playground
        with self._lock:
            if message["template"] in playground.templates:
                playground.template = message["template"]
            self._layer = None
        return ""

    def _reset(self, message: dict[str, Any]) -> str:  # noqa: ARG002 - it says nothing more
        self._playground.reset()
        return "as the files have them"

    def _restore(self, message: dict[str, Any]) -> str:
        self._playground.restore(message["version"])
        return f"edited to {message['version']}"

    def _keep(self, message: dict[str, Any]) -> str:
        return f"kept as {self._playground.keep(message.get('name', '').strip() or None).label}"

    def _save(self, message: dict[str, Any]) -> str:
        playground = self._playground
        own = playground.inputs.own
        name = message.get("name", "").strip() or None
        # Only the template that makes the prompts needs a name: the others have their files.
        needs_name = playground.template == own and own not in {None, "instruct"} and own not in scene.in_files()
        saved = (
            playground.save(playground.template, name=name) if needs_name and playground.template else playground.save()
        )
        return f"saved: {', '.join(scene.short(path) for path in saved)}"

    def _copy(self, message: dict[str, Any]) -> str:
        form = "cell" if message.get("form") == "cell" else "python"
        text = self._playground.as_cell() if form == "cell" else self._playground.as_python()
        self._sets += 1  # so that the same text can be copied again
        self.widget.shown = {"title": f"as {form}", "code": text, "copy": True, "n": self._sets}
        return ""

    # On the engine's loop ---------------------------------------------------------------------

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._engine.start(coroutine)

    def _next(self) -> int:
        with self._lock:
            return self._serial

    async def _look(self, of: int, serial: int = 0) -> None:
        """Show the prompts of an edit, unless there is a later one."""
        if of != self._serial:
            return
        self._looks += 1
        look = self._looks
        seen = await self._seen(serial)
        # Edits from code have no number, and where more is known a look takes longer than the one after it.
        if of != self._serial or look != self._looks:
            return
        self._show_state()
        self.widget.seen = seen
        self._settle()

    async def _seen(self, serial: int) -> dict[str, Any]:
        playground = self._playground
        try:
            preview = await playground.look(playground.editing.draft())
        except MoaError as error:
            return scene.mistaken([mistake(error, playground.inputs.own)], serial)
        try:
            layer = playground.layer_of(preview, self._layer)
        except MoaError:  # this row goes another way
            layer = playground.layer_of(preview, None)
        return scene.seen(playground, preview, layer, serial)

    async def _working(self, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        self._say("running …", busy=True)
        said = ""
        try:
            self._playground.shown = await work
            self._show_latest()
            said = self._playground.shown.get("status", "")
        except MoaError as error:
            said = str(error)
        except asyncio.CancelledError:
            said = "stopped; what was answered is kept"
        except Exception as error:  # a strategy or a function may be anybody's code
            said = f"{type(error).__name__}: {error}"
        finally:
            try:
                await self._look(self._serial)
            finally:
                # Last: as soon as the page hears it, another button may be pressed.
                self._say(said, busy=False)

    async def _run(self, message: dict[str, Any], row: int) -> dict[str, Any]:  # noqa: ARG002 - nothing more
        return scene.answered(await self._playground.arun(row))

    async def _sample(self, message: dict[str, Any], row: int) -> dict[str, Any]:  # noqa: ARG002 - the first ones
        rows = max(1, min(int(message.get("rows", 5)), _MOST_ROWS))
        against = message.get("against") or SAVED
        return scene.tried(await self._playground.asample(rows, against=SAVED if against == EDITED else against))

    async def _compare(self, message: dict[str, Any], row: int) -> dict[str, Any]:
        return scene.differing(await self._playground.adifference(message["before"], message["after"], row))

    # What two threads may set, each sets under the lock: the page has last what was last.

    def _say(self, text: str, *, busy: bool | None = None) -> None:
        """Return nothing; say how it stands; ``None``: whatever runs goes on."""
        with self._lock:
            self._is_busy = self._is_busy if busy is None else busy
            self.widget.status = {"text": text, "busy": self._is_busy}

    def _show_latest(self) -> None:
        with self._lock:
            self.widget.shown = self._playground.shown

    def _show_state(self) -> None:
        with self._lock:
            self.widget.state = scene.state(self._playground)

    def _set_draft(self) -> None:
        with self._lock:
            self._sets += 1
            self._show_state()
            self.widget.draft = {**scene.draft(self._playground), "n": self._sets}

    def _settle(self) -> None:
        """Return at once; the static form follows once nothing has changed for a while."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_STILL_SECONDS, self._begin_drawing)

    def _begin_drawing(self) -> None:
        self._drawing = asyncio.get_running_loop().create_task(self._draw())

    async def _draw(self) -> None:
        seen = await self._seen(0)
        if not self._is_closed:
            self._refresh(static.drawn(self._playground, seen, self.widget.mark))

    def close(self) -> None:
        """Return nothing; its place is left to the static form."""
        self._is_closed = True
        self.widget.close()
