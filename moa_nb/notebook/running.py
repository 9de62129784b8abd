"""One cell's run: the panel while it goes on, and what stands there when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from IPython.display import display

from moa_nb.engine.engine import Engine
from moa_nb.engine.forecast import Estimate, make_estimate
from moa_nb.engine.plan import Plan
from moa_nb.errors import MoaError
from moa_nb.notebook.display import has_front_end, show_as
from moa_nb.notebook.live import LivePanel
from moa_nb.panels.figures import count
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result

__all__ = ["Interrupted", "estimated", "run", "show_estimate", "stopped"]


class Interrupted(KeyboardInterrupt):
    """The user stopped the cell; shown as one line, and the cells that wait do not run."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


def stopped(records: Iterable[RunRecord]) -> Interrupted:
    """Return what a stopped cell raises: how much of it is kept."""
    calls = [call.call for record in records for layer in record.layers for call in layer.calls]
    n_done = sum(call is not None and call.ok for call in calls)
    kept = f"; {count(n_done, 'finished call')} kept: run the cell again to go on from there" if n_done else ""
    return Interrupted(f"stopped{kept}")


def run(
    engine: Engine,
    plan: Plan,
    task: Task,
    *,
    form: str,
    notes: Iterable[str] = (),
    keep: Callable[[Result], Result] | None = None,
) -> Result:
    """Return the result of a pipeline, shown below the cell while it runs and when it is over.

    Args:
        engine: runs it.
        plan: who is asked, and how.
        task: the input.
        form: how it is shown: ``panel``, ``markdown``, ``text``, ``json`` or ``quiet``.
        notes: what a reader must know before it is answered.
        keep: called with the result before it is shown; returns what is shown.

    Raises:
        Interrupted: the user stopped it; what is finished is kept.
        MoaError: there is no answer.
    """
    record = engine.new_record(plan, task)
    for note in notes:
        record.note(note)
    panel = LivePanel(record) if form == "panel" and has_front_end() else None

    async def running() -> Result:
        # On the kernel's own loop the connections of the planning are closed by now.
        here = replace(plan, gateway=engine.gateway(plan.settings))
        result = await engine.answer_and_keep(here, task, record, kind="cell", watched=panel is not None)
        if keep is not None:
            engine.latest = result = keep(result)
        return result

    try:
        result = engine.finish(running(), panel.update if panel else None)
        if panel:
            panel.finish(result)
    except KeyboardInterrupt:  # which may come when the run is just over
        if panel:
            _leave(panel, record.result or record.finish(error="stopped", stop_reason="stopped"))
        raise stopped([record]) from None
    except MoaError as error:
        if panel:
            _leave(panel, record.result or record.finish(error=str(error), stop_reason=error.kind))
        raise
    if panel is None and form != "quiet":
        show_as(result, form)
    return result


def _leave(panel: LivePanel, result: Result) -> None:
    """Return when the static panel stands there: who presses ■ twice must not save one that lives."""
    try:
        panel.finish(result)
    except KeyboardInterrupt:
        _leave(panel, result)


def estimated(engine: Engine, plan: Plan, task: Task) -> Estimate:
    """Return what a run would take; nothing is sent."""

    async def look() -> Any:
        return await make_estimate(plan, task, engine.gateway(plan.settings))

    estimate: Estimate = engine.finish(look())
    return estimate


def show_estimate(estimate: Estimate) -> None:
    """Show what a run would send and take."""
    from moa_nb.panels.dry_run import bundle

    shown = bundle(estimate)
    if has_front_end():
        display(shown, raw=True)
    else:
        print(shown["text/plain"])  # noqa: T201 - a terminal has nothing else
