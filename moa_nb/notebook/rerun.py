"""A finished run once more: asked anew from a layer on, or with another model in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

from moa_nb.engine import Engine, Plan
from moa_nb.engine.engine import new_run_id
from moa_nb.errors import SetupError
from moa_nb.gateway import Budget, Gateway
from moa_nb.gateway.route import no_price
from moa_nb.options import CacheMode
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.spec import Agent, Resolver

__all__ = ["AGGREGATOR", "from_layer", "places", "run_again", "with_model"]

AGGREGATOR = "$aggregator"
"""The place of whoever fills this role, whatever else that model does in the run."""


def places(plan: Plan, result: Result) -> list[tuple[str, str]]:
    """Return where another model can answer: the place as ``with_model`` takes it, and what it is called."""
    has_role = "aggregator" in plan.pipeline.roles and bool(result.layers)
    who = result.layers[-1].calls[0] if has_role else None
    found = [] if who is None else [(AGGREGATOR, f"aggregator ({who.model})")]
    for call in result.calls:
        is_aggregator = who is not None and call.agent == who.agent and call in result.layers[-1].calls
        if not is_aggregator and not any(place == call.agent for place, _ in found):
            found.append((call.agent, call.agent if call.agent == call.model else f"{call.agent} ({call.model})"))
    return found


def from_layer(plan: Plan, layer: int) -> Plan:
    """Return the plan of a run whose layers before ``layer``, counted from 0, come from the store.

    That one and those after it are asked anew, and the new answers are kept. Where the run kept nothing, all are asked.
    """
    # It stands for the gateway of one run, and passes on whatever else is asked of it.
    gateway = cast("Gateway", _Anew(plan.gateway, layer))
    return replace(plan, gateway=gateway, budget=_afresh(plan.budget))


def with_model(plan: Plan, place: str, model: str) -> Plan:
    """Return the plan of a run in which ``model`` answers at ``place``; who is asked as before answers from the store.

    Raises:
        SetupError: the model, its key or, under a budget in dollars, its price is not known.
    """
    if not model.strip():
        msg = "name a model, as in openai:gpt-4o-mini"
        raise SetupError(msg)
    model = model.strip()
    route = plan.gateway.route(model)
    if route.provider.name != "function":
        route.provider.key()
    if plan.budget is not None and plan.budget.unit == "dollars" and plan.gateway.price(model) is None:
        raise SetupError(no_price(model))
    return replace(
        plan,
        # Called in the same way; of its kind there is no other.
        resolve=cast("Resolver", _Placed(plan.resolve, place, model)),
        models=(*plan.models, model),
        agents=(*plan.agents, Agent(model=model)),
        budget=_afresh(plan.budget),
        cache=_from_store(plan.cache),
    )


async def run_again(engine: Engine, plan: Plan, task: Task, begun: Callable[[RunRecord], None]) -> Result:
    """Return the result of a plan on the same input; the store remembers it as any run.

    Args:
        engine: who runs it.
        plan: as ``from_layer`` or ``with_model`` made it.
        task: the input.
        begun: given the record as soon as there is one.

    Raises:
        MoaError: there is no answer; its ``result`` has what was finished.
    """
    record = engine.new_record(plan, task, new_run_id())
    begun(record)
    return await engine.answer_and_keep(plan, task, record, kind="cell")


def _afresh(budget: Budget | None) -> Budget | None:
    """Return a budget of the same size, of which nothing is spent."""
    return None if budget is None else Budget(budget.limit, budget.unit)


def _from_store(cache: CacheMode) -> CacheMode:
    return "off" if cache == "off" else "use"


class _Anew:
    """A gateway for which the store has nothing from a layer on."""

    def __init__(self, gateway: Gateway, layer: int) -> None:
        self._gateway, self._layer = gateway, layer

    def begin(self, request: Any, on_end: Any, *, priority: Any, cache: CacheMode, **more: Any) -> Any:
        # A call's place among those that wait is its row, and its layer with a sign.
        is_new = abs(priority[1]) >= self._layer and cache != "off"
        mode: CacheMode = "refresh" if is_new else _from_store(cache)
        return self._gateway.begin(request, on_end, priority=priority, cache=mode, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)


class _Placed:
    """A resolver that puts a model in one place."""

    def __init__(self, resolve: Callable[[Iterable[Agent]], list[Agent]], place: str, model: str) -> None:
        self._resolve, self._place = resolve, place
        self._new = {"model": model, "name": Agent(model=model).label, "function": None, "pipeline": None}

    def __call__(self, agents: Iterable[Agent]) -> list[Agent]:
        declared = list(agents)
        if self._place == AGGREGATOR:
            # The role's own name gives way to the model's.
            return self._resolve(
                [agent.changed(**self._new) if agent.model == AGGREGATOR else agent for agent in declared]
            )
        if [agent.model for agent in declared] == [AGGREGATOR]:
            return self._resolve(declared)
        return [
            agent.changed(**self._new) if agent.label == self._place else agent for agent in self._resolve(declared)
        ]
