"""A run that goes on after its cell: its panel follows in the cell that started it, and has a button that stops it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Generator
from dataclasses import replace
from datetime import datetime
from typing import Any

from moa_nb.engine import Engine, Plan
from moa_nb.engine.loop import Job
from moa_nb.errors import MoaError
from moa_nb.notebook.controls import Controls, Part
from moa_nb.notebook.display import Output, has_front_end, is_somebody_there
from moa_nb.notebook.live import scale_of
from moa_nb.notebook.publisher import follow, publish
from moa_nb.panels import html, text
from moa_nb.panels.bundle import bundle
from moa_nb.panels.live import view_of_record
from moa_nb.panels.markdown import first_line
from moa_nb.panels.view import CallView
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result

__all__ = ["BackgroundRun", "start_in_background"]

_FIRST_LINE = 140
_MOST_ROWS = 24
"""Calls of a layer that are shown while it goes on."""


class BackgroundRun:
    """A run that goes on while other cells run. Made by ``start_in_background``."""

    def __init__(self, engine: Engine, record: RunRecord, job: Job[Result]) -> None:
        self._engine, self.record, self._job = engine, record, job
        self.panel: Job[None] | None = None
        """What keeps its panel up to date; ``None`` where it has none."""

    @property
    def done(self) -> bool:
        """Whether it is over, one way or the other."""
        return self._job.done

    def stop(self) -> None:
        """Return at once; calls in flight are cancelled, answers that came in stay in the store."""
        self._job.cancel()

    @property
    def result(self) -> Result:
        """The run when it is over; one that was stopped has what was finished.

        Raises:
            MoaError: there is no answer; ``error.result`` has what was finished.
            KeyboardInterrupt: the user interrupted, which stops the run.
        """
        try:
            result = self._job.wait()
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            result = self._stopped()
        finally:
            if self.panel is not None and not is_somebody_there():
                # A program may save the notebook as soon as this cell ends: the panel ends first.
                self.panel.wait()
        self._engine.complain()
        return result

    def __await__(self) -> Generator[Any, None, Result]:
        return self._wait().__await__()

    async def _wait(self) -> Result:
        """Return the result; cancelling the wait stops the run, as awaiting a task does."""
        try:
            result = await self._job.wait_async()
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if waiter is not None and waiter.cancelling():
                raise
            result = self._stopped()
        if self.panel is not None and not is_somebody_there():
            await self.panel.wait_async()
        self._engine.complain()
        return result

    def _stopped(self) -> Result:
        return self.record.result or self.record.finish(error="stopped", stop_reason="stopped")

    def bundle(self) -> dict[str, Any]:
        """Return the panel as it should be now, by media type."""
        return _going_on(self.record) if self.record.result is None else bundle(self.record.result)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        return self.bundle()

    def __repr__(self) -> str:
        result = self.record.result
        state = f"running, {self.record.seconds():.1f} s" if result is None else result.error or result.stop_reason
        return f"<BackgroundRun of {self.record.pipeline!r}: {state}>"


def start_in_background(engine: Engine, plan: Plan, task: Task, *, shown: bool = True) -> BackgroundRun:
    """Return a run that has begun, at once; its panel stands below the current cell and follows it to its end.

    Args:
        engine: who runs it.
        plan: how.
        task: on what.
        shown: whether there is a panel; without a front end there is none.
    """
    record = engine.new_record(plan, task)
    is_seen = shown and has_front_end()

    async def running() -> Result:
        here = replace(plan, gateway=engine.gateway(plan.settings))
        try:
            return await engine.answer_and_keep(here, task, record, kind="cell", watched=is_seen)
        except BaseException as error:
            # What fails before the first call leaves nothing behind that could be shown.
            if record.result is None:
                is_stop = isinstance(error, asyncio.CancelledError)
                kind = error.kind if isinstance(error, MoaError) else "stopped" if is_stop else "failed"
                record.finish(error="stopped" if is_stop else str(error), stop_reason=kind)
            raise

    run = BackgroundRun(engine, record, engine.start(running()))
    if is_seen:
        _show(engine, run)
    return run


def _show(engine: Engine, run: BackgroundRun) -> None:
    """Return nothing; show a run below the current cell, and have the panel follow it to its end."""

    def press(do: str, values: dict[str, Any]) -> None:  # noqa: ARG001 - there are no fields
        if do == "stop" and not run.done:
            output.say("stopping …", busy=True)
            run.stop()

    stop: Part = {"kind": "button", "do": "stop", "label": "Stop", "hint": "what is answered stays", "when": "busy"}
    output = Controls([stop], press) if is_somebody_there() else Output()
    output.say("goes on while other cells run", busy=True)
    output.show(run.bundle())
    run.panel = follow(engine, publish(run.bundle, output.update, output.finish, lambda: run.done))


def _going_on(record: RunRecord) -> dict[str, Any]:
    """Return a run that goes on, by media type: of finished answers the first line, of the latest its end."""
    # Should the kernel end before the run does, the panel as it was last stays in the notebook.
    view = replace(view_of_record(record), seen_at=f"{datetime.now():%Y-%m-%d %H:%M:%S}")  # noqa: DTZ005 - the reader's clock
    parts = [html.header(view)]
    if view.text:
        parts.append(html.answer(view))
    scale = scale_of(view.seconds)
    if view.layers:
        parts.append(html.axis(scale))
    for layer in view.layers:
        parts.append(html.layer_heading(layer))
        parts += [html.row(_brief(call), scale, opens=False) for call in layer.calls[:_MOST_ROWS]]
    box = "padding:.6em .9em .7em;margin:.2em 0;border:1px solid #88888855;border-radius:.45em;max-width:988px;box-sizing:border-box"
    return {
        "text/html": f'<div style="{box}">{"".join(parts)}</div>',
        "text/plain": text.plain(view),
    }


def _brief(call: CallView) -> CallView:
    if not call.is_over:
        return call
    return replace(call, text=first_line(call.text, _FIRST_LINE), prompt=(), reasoning=None)
