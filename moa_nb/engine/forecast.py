"""The price of a run before it runs: its own strategy, with an ``ask`` that answers nothing."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from moa_nb import tokens
from moa_nb.chat import Completion, Request, Usage
from moa_nb.engine.plan import Plan
from moa_nb.gateway import Gateway
from moa_nb.pipeline.ask import Ask, Task
from moa_nb.pipeline.record import CallRecord, RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.strategies import find
from moa_nb.settings import fence_secret

__all__ = ["Estimate", "make_estimate"]

_FILLING = re.compile(r"(?: ~){8,}")


@dataclass(frozen=True)
class Estimate:
    """What a run takes at most: calls to pay for, tokens, dollars."""

    pipeline: str
    n_calls: int
    """Calls that would be sent; cached answers are not."""
    n_cached: int
    prompt_tokens: int
    completion_tokens: int
    """At ``max_tokens`` each."""
    cost: float | None
    """Dollars; ``None`` where a model's price is not known."""
    n_unpriced: int
    """Calls of unknown price."""
    result: Result | None = None
    """The run with its rendered prompts, answers left open; ``None`` for a frame."""

    def __str__(self) -> str:
        if self.cost is None:
            cost = f"{self.n_unpriced} of them of unknown price"
        else:
            cost = f"at most ${self.cost:.4f}" if self.cost else "free"
        cached = f" ({self.n_cached} more cached)" if self.n_cached else ""
        return (
            f"{self.pipeline}: {self.n_calls} calls{cached}, {self.prompt_tokens:,} tokens in,"
            f" up to {self.completion_tokens:,} out, {cost}"
        )

    def _repr_markdown_(self) -> str:
        return str(self)


async def make_estimate(plan: Plan, task: Task, gateway: Gateway) -> Estimate:
    """Return what ``task`` would take; nothing is sent, and what the cache has is free."""
    record = RunRecord(plan.pipeline.name, task.conversation)
    count = functools.cache(tokens.count_tokens)  # agents of one layer quote the same long texts

    async def answer_nothing(request: Request, *, layer: int, watch: CallRecord | None) -> Completion:  # noqa: ARG001
        known = gateway.known(request, bounded=plan.budget is not None) if plan.cache == "use" else None
        return known or _filler(request, plan, gateway, count)

    ask = Ask(task, plan.resolve, answer_nothing, record, fence_secret(), ceiling=plan.ceiling, load=plan.load)
    final = await find(plan.pipeline.strategy).run(task, plan.pipeline.params, ask)
    result = record.finish(final.text)
    asked = [call for call in result.calls if not call.cached]
    n_unpriced = sum(call.cost is None for call in asked)
    return Estimate(
        plan.pipeline.name,
        n_calls=len(asked),
        n_cached=len(result.calls) - len(asked),
        prompt_tokens=sum(call.usage.prompt_tokens or 0 for call in asked),
        completion_tokens=sum(call.usage.completion_tokens or 0 for call in asked),
        cost=None if n_unpriced else sum(call.cost or 0.0 for call in asked),
        n_unpriced=n_unpriced,
        result=_shown(result),
    )


def _filler(request: Request, plan: Plan, gateway: Gateway, count: Callable[[str], int]) -> Completion:
    """Return an answer of full length that says nothing, with what it would cost."""
    most = request.sampling.max_tokens or plan.settings.max_tokens
    prompt = sum(count(message.content) for message in request.messages)
    provider, _, name = request.model.partition(":")
    if provider == "offline":
        # Sentences of the prompt cannot be more than the prompt.
        most = min(most, prompt)
    usage = Usage(prompt, most, estimated=True)
    price = gateway.price(request.model)
    return Completion(
        text=f"[the answer of {name}, up to {most} tokens]" + " ~" * max(most - 12, 0),
        model=request.model,
        usage=usage,
        cost=None if price is None else price.cost(usage),
        attempts=0,
    )


def _shown(result: Result) -> Result:
    """Return the result with the filling of its answers left out of the prompts that quote them."""

    @functools.cache
    def short(text: str) -> str:
        return _FILLING.sub("", text)

    layers = tuple(
        replace(
            layer,
            calls=tuple(
                replace(
                    call,
                    text=short(call.text),
                    prompt=tuple(replace(message, content=short(message.content)) for message in call.prompt),
                )
                for call in layer.calls
            ),
        )
        for layer in result.layers
    )
    return result.replace(text=short(result.text), layers=layers)
