"""A finished run again, from what the store has of it. Nothing is sent."""

from __future__ import annotations

from collections.abc import Callable

from moa_nb.chat import Completion, Request
from moa_nb.engine.plan import Plan
from moa_nb.errors import MoaError, ServiceError
from moa_nb.gateway import Gateway
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.layer import Outcome
from moa_nb.pipeline.record import CallRecord, RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.settling import finished

__all__ = ["replay"]


async def replay(plan: Plan, task: Task, gateway: Gateway) -> Result:
    """Return the run as it was, call by call; an answer that the store no longer has is an error in it."""
    record = RunRecord(plan.pipeline.name, task.conversation)

    def remember(
        request: Request,
        on_end: Callable[[Outcome], None],  # noqa: ARG001 - what every ``complete`` is given
        *,
        layer: int,  # noqa: ARG001
        watch: CallRecord | None,  # noqa: ARG001
    ) -> Completion:
        known = gateway.known(request, bounded=plan.budget is not None)
        if known is None:
            msg = "this answer is not in the store"
            raise ServiceError(msg)
        return known

    try:
        ask = plan.ask(task, remember, record)
    except MoaError as error:  # it was more than an agent can read
        return record.finish(error=str(error), stop_reason=error.kind)
    try:
        final = finished(ask, await plan.strategy.run(task, plan.pipeline.params, ask))
    except MoaError as error:
        return record.finish(error=str(error), stop_reason=error.kind, flags=ask.flags)
    return record.finish(final.text, value=final.value, flags=ask.flags)
