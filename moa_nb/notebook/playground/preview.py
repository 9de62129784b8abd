"""What a run would send, layer by layer, and what it would take. Nothing is sent."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from moa_nb import tokens
from moa_nb.chat import Completion, Message, Request
from moa_nb.engine import Estimate, Plan
from moa_nb.engine.forecast import make_estimate
from moa_nb.errors import MoaError, ServiceError, SetupError
from moa_nb.gateway import Gateway
from moa_nb.pipeline.agreement import agreement_of
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.layer import Outcome
from moa_nb.pipeline.record import CallRecord, RunRecord
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.pipeline.settling import finished

__all__ = ["Preview", "look"]


@dataclass(frozen=True)
class Preview:
    """One input through a pipeline, as far as the store knows its answers; from there on with placeholders."""

    layers: tuple[Layer, ...]
    """A call that is ``cached`` has its answer; the text of any other is a placeholder."""
    n_exact: int
    """So many of the layers have their prompts to the byte; those below quote answers that are still to come."""
    estimate: Estimate
    """What a run would take now."""
    result: Result | None
    """The whole run, where every answer is in the store; ``None`` where something would be asked."""

    @property
    def names(self) -> list[str]:
        """The layers by name."""
        return [layer.name for layer in self.layers]

    def tokens(self, call: Call) -> int:
        """Return about how many tokens the prompt of a call has."""
        return _count(call.prompt, call.model)

    def __str__(self) -> str:
        if self.result is not None:
            return f"{self.estimate.pipeline}: every answer is in the store; a run sends nothing"
        return str(self.estimate)


@functools.lru_cache(maxsize=512)
def _count(prompt: tuple[Message, ...], model: str) -> int:
    return tokens.count_prompt_tokens(prompt, model)


async def look(plan: Plan, task: Task, gateway: Gateway) -> Preview:
    """Return what a run of this plan would send.

    Raises:
        MoaError: a template cannot be rendered, or the input is too long.
    """
    known, n_exact = await _as_far_as_known(plan, task, gateway)
    estimate = await make_estimate(plan, task, gateway)
    assert estimate.result is not None
    is_over = all(call.ok for call in known.calls) and known.error is None
    if is_over:
        known = known.replace(agreement=agreement_of(known, task.form))
        return Preview(known.layers, len(known.layers), estimate, known)
    exact = known.layers[:n_exact]
    names = {layer.name for layer in exact}
    # The estimate goes the dearest way; as far as the real one is known, that is shown.
    filled = {layer.name: layer for layer in estimate.result.layers}
    shown = tuple(
        filled.get(layer.name, layer) if _is_alike(filled.get(layer.name), layer) else layer for layer in exact
    )
    rest = tuple(layer for layer in estimate.result.layers if layer.name not in names)
    return Preview((*shown, *rest), len(shown), estimate, None)


def _is_alike(filled: Layer | None, layer: Layer) -> bool:
    """Return whether the estimate asks the same in a layer: its calls then have placeholders for what is unknown."""
    return filled is not None and [call.prompt for call in filled.calls] == [call.prompt for call in layer.calls]


async def _as_far_as_known(plan: Plan, task: Task, gateway: Gateway) -> tuple[Result, int]:
    """Return the run as the store has it, and how many of its layers come before the first that is made up."""
    record = RunRecord(plan.pipeline.name, task.conversation)
    unknown = math.inf

    def remember(
        request: Request,
        on_end: Callable[[Outcome], None],  # noqa: ARG001 - what every ``complete`` is given
        *,
        layer: int,
        watch: CallRecord | None,  # noqa: ARG001
    ) -> Completion:
        nonlocal unknown
        found = gateway.known(request, bounded=plan.budget is not None)
        if found is None:
            unknown = min(unknown, layer)
            msg = "not asked yet"
            raise ServiceError(msg)
        return found

    ask = plan.ask(task, remember, record)
    try:
        final = finished(ask, await plan.strategy.run(task, plan.pipeline.params, ask))
    except SetupError:
        if unknown == math.inf:
            raise
        # It failed beyond what is known: the estimate goes there with placeholders, and says so if it is real.
        result = record.finish(error="not asked yet", stop_reason="failed")
    except MoaError as error:
        result = record.finish(error=str(error), stop_reason=error.kind, flags=ask.flags)
    else:
        result = record.finish(final.text, value=final.value, flags=ask.flags)
    until = len(record.layers) if unknown == math.inf else int(unknown) + 1
    return result, sum(bool(layer.calls) for layer in record.layers[:until])
