"""A finished run again, from what the store has of it. Nothing is sent."""

from __future__ import annotations

from moa_nb.chat import Completion, Request
from moa_nb.engine.plan import Plan
from moa_nb.errors import MoaError, ServiceError
from moa_nb.gateway import Gateway
from moa_nb.pipeline.ask import Ask, Task
from moa_nb.pipeline.record import CallRecord, RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.strategies import find
from moa_nb.settings import fence_secret

__all__ = ["replay"]


async def replay(plan: Plan, task: Task, gateway: Gateway) -> Result:
    """Return the run as it was, call by call; an answer that the store no longer has is an error in it."""
    record = RunRecord(plan.pipeline.name, task.conversation)

    async def remember(request: Request, *, layer: int, watch: CallRecord | None) -> Completion:  # noqa: ARG001
        known = gateway.known(request, bounded=plan.budget is not None)
        if known is None:
            msg = "this answer is not in the store"
            raise ServiceError(msg)
        return known

    ask = Ask(task, plan.resolve, remember, record, fence_secret(), ceiling=plan.ceiling, load=plan.load)
    try:
        final = await find(plan.pipeline.strategy).run(task, plan.pipeline.params, ask)
    except MoaError as error:
        return record.finish(error=str(error), stop_reason=error.kind)
    return record.finish(final.text)
