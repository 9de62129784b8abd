"""The report of a run over rows while it goes on: its figures, its latest rows, and any row's layers when it is pressed."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import numpy as np

from moa_nb.engine import current
from moa_nb.errors import MoaError
from moa_nb.frames import FrameRun
from moa_nb.frames.figures import view_of_run
from moa_nb.frames.outcome import STATES
from moa_nb.notebook.controls import Controls, Part
from moa_nb.notebook.publisher import follow, publish
from moa_nb.panels import html
from moa_nb.panels.frame_report import bundle
from moa_nb.panels.markdown import first_line
from moa_nb.panels.view import view_of
from moa_nb.plain import to_plain

__all__ = ["FramePanel"]

_LATEST = 6
"""Rows that are listed, those that ended last."""
_LINE = 160


class FramePanel:
    """Shows a run over rows below the current cell: drawn anew about twice a second until it is over."""

    def __init__(self, run: FrameRun) -> None:
        self._run, self._execution = run, run._execution  # noqa: SLF001 - its own panel
        n_rows = len(self._execution.outcomes)
        parts: list[Part] = [
            {"kind": "button", "do": "stop", "label": "Stop", "hint": "finished rows stay", "when": "busy"},
            {"kind": "number", "name": "position", "label": "row", "max": max(0, n_rows - 1)},
            {"kind": "button", "do": "open", "label": "Show its layers", "hint": "from the store", "when": "always"},
        ]
        self._seen = np.zeros(n_rows, dtype=bool)
        self._latest: deque[int] = deque(maxlen=_LATEST)
        self._opened: int | None = None
        """The row that was pressed last."""
        self._controls = Controls(parts, self.press)

    def show(self) -> None:
        """Return nothing; show the report, and keep it up to date until the run is over."""
        # What the widget is told in its first moments a page may miss: rows are listed from the first update on, and
        # there is one also where the run is over by now.
        self._controls.show(self._report())
        follow(current(), self._follow())

    async def _follow(self) -> None:
        await publish(self._draw, self._controls.update, self._controls.update, lambda: self._run.done)
        if self._run.state == "done":
            await self._execution.find_agreement()
            self._controls.update(await asyncio.to_thread(self._draw))

    # What the browser says: on any thread -----------------------------------------------------

    def press(self, do: str, values: dict[str, Any]) -> None:
        """Return at once; stop the run, or show a row's layers.

        Args:
            do: ``stop``, ``open`` (the row of the field ``position``) or ``row`` (that of ``row``).
            values: of the fields, and the row that was pressed.
        """
        if do == "stop":
            self._say("stopping …")
            self._run.stop()
            return
        number = values.get("row") if do == "row" else values.get("position")
        text = str(number)
        if not text.isdecimal() or int(text) >= len(self._execution.outcomes):
            self._say(f"rows are counted from 0 to {len(self._execution.outcomes) - 1}")
            return
        self._opened = int(text)
        current().start(self._open(self._opened))

    async def _open(self, position: int) -> None:
        """Show a row's layers below the report; they are no part of what is saved."""
        execution = self._execution
        why = execution.why_not
        result = None
        try:
            result = await execution.recall(position) if why is None else None
        except MoaError as error:
            why = str(error)
        if position != self._opened:
            return  # another one was pressed meanwhile, whose layers may have been there sooner
        if result is None:
            outcome = execution.outcomes[position]
            why = why or ("not over yet" if outcome is None else outcome.error or outcome.state)
            self._say(f"row {position} has no calls to show: {why}")
            return
        self._controls.widget.panel = html.panel(view_of(result))
        self._say(f"row {position}")

    def _say(self, text: str) -> None:
        self._controls.say(text, busy=not self._run.done)
        if self._run.done:
            # It may have ended while that was said, and the last drawing is over by now.
            self._controls.say(text)

    # What is shown ----------------------------------------------------------------------------

    def _draw(self) -> dict[str, Any]:
        """Return the report as it is now, by media type; the buttons follow."""
        execution = self._execution
        is_settled = execution.outcomes.states != 0
        self._latest.extend(np.flatnonzero(is_settled & ~self._seen)[-_LATEST:].tolist())
        self._seen |= is_settled
        rows = [self._row(position) for position in reversed(self._latest)]
        if self._controls.widget.rows != rows:
            self._controls.widget.rows = rows
        if self._controls.widget.status["busy"] == self._run.done:
            self._say("")
        return self._report()

    def _report(self) -> dict[str, Any]:
        return bundle(view_of_run(self._execution))

    def _row(self, position: int) -> dict[str, Any]:
        outcome = self._execution.outcomes[position]
        text = "" if outcome is None else outcome.text or outcome.error or ""
        return {
            "position": position,
            "label": to_plain(str(position)),
            "state": STATES[self._execution.outcomes.states[position]],
            "text": first_line(text, _LINE) if text else "",
        }
