"""Route: a router says which one agent answers, before any of them is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from moa_nb.errors import Unanswered, nearest
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.parse import parser
from moa_nb.pipeline.routing import Column, Nearest, Rule, Word, called, is_function, past, ruled
from moa_nb.pipeline.spec import Agent, Agents, OneAgent, Params
from moa_nb.pipeline.strategies import strategy

__all__ = ["Route", "route"]


def _as_router(value: Any) -> Any:
    """Return the router that a value declares; what is wrong with it is said of its own kind alone."""
    kind: Any = OneAgent
    if isinstance(value, list | tuple):
        kind = tuple[Rule, ...]
    elif isinstance(value, Mapping) and not {"model", "pipeline", "function"} & set(value):
        kind = Nearest if "examples" in value else Column
    elif isinstance(value, Column | Nearest):
        return value
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        found = error.errors()
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = Rule if kind == tuple[Rule, ...] else Agent if kind is OneAgent else kind
            msg = f"unknown key {key!r}; {nearest(str(first['loc'][-1]), known.model_fields)}"
        else:
            msg = f"{key}: " * bool(key) + first["msg"].removeprefix("Value error, ")
        raise ValueError(msg) from None


class Route(Params):
    """The ways, from the weakest to the strongest, and who says which one a question goes.

    A way goes by its agent's name, or else by its role (``small``), its model or its pipeline.
    """

    ways: Agents = (Agent(model="$small"), Agent(model="$strong"))
    """Who may answer: one agent each, in the order of the thresholds."""
    router: Annotated[tuple[Rule, ...] | Column | Nearest | Agent, BeforeValidator(_as_router)] = Agent(
        model="$small", temperature=0
    )
    """Rules, of which the first that holds counts; ``{column = ...}``; labelled examples (``Nearest.of``); a Python
    function of the question, or of the question and the row's values, sync or async; or a model that classifies."""
    thresholds: tuple[float, ...] | None = None
    """Scores from which the next way is gone (>=), rising, one fewer than ways; evenly spread over [0, 1] if ``None``."""
    about: Mapping[str, str] = Field(default_factory=dict)
    """What each way is for, by its name: a model that classifies reads it."""
    fallback: str | None = None
    """The way that is gone when the router fails, and once more when the chosen agent does; the last if ``None``."""

    @model_validator(mode="after")
    def _fits(self) -> Route:
        for agent in self.ways:
            if agent.model == "$proposers" or (agent.samples or 1) != 1:
                msg = "a way is one agent, asked once: name each of them"
                raise ValueError(msg)
        if self.router == ():
            msg = "router has no rules: give at least one, such as {longer = 500, to = 'strong'}"
            raise ValueError(msg)
        names = self.names
        if len({*names}) < len(names):
            msg = f"two ways go by one name ({', '.join(names)}): give their agents a name"
            raise ValueError(msg)
        for name in self._named():
            if name not in names:
                msg = f"no way {name!r}; {nearest(name, names)}"
                raise ValueError(msg)
        limits = self.limits
        if len(limits) != len(self.ways) - 1 or list(limits) != sorted(limits):
            msg = f"thresholds rise, and there is one fewer than ways: {len(self.ways) - 1}, not {list(limits)}"
            raise ValueError(msg)
        return self

    def _named(self) -> tuple[str, ...]:
        """Return the names of ways that other parameters use."""
        router = self.router
        labels: tuple[Any, ...] = ()
        if isinstance(router, tuple):
            labels = tuple(rule.to for rule in router)
        elif isinstance(router, Nearest):
            labels = tuple(label for _, label in router.examples if isinstance(label, str))
        return (*labels, *self.about, *([] if self.fallback is None else [self.fallback]))

    @property
    def names(self) -> tuple[str, ...]:
        """What each way goes by."""
        return tuple(agent.name or agent.model.removeprefix("$") or agent.label for agent in self.ways)

    @property
    def limits(self) -> tuple[float, ...]:
        """The thresholds that hold."""
        n_ways = len(self.ways)
        return self.thresholds if self.thresholds is not None else tuple(at / n_ways for at in range(1, n_ways))

    @property
    def uses_columns(self) -> bool:
        """Whether the way of a question may depend on the row's other columns."""
        if isinstance(self.router, tuple):
            return any(rule.column is not None for rule in self.router)
        return isinstance(self.router, Column) or (isinstance(self.router, Agent) and is_function(self.router))

    def judging(self) -> tuple[Agent, ...]:
        """Return the model that classifies, if one does."""
        return (self.router,) if isinstance(self.router, Agent) else ()


@strategy("route", params=Route)
async def route(task: Task, params: Route, ask: Ask) -> Candidate:
    """RouteLLM (Ong et al. 2024, arXiv 2406.18665, section 2): the strong model if the score reaches the threshold.

    One agent answers each question, whatever the number of ways; a router that is a model takes one call more. As
    there, only the latest message is looked at, by a model what was said before it too. What the paper lacks is the
    way when something fails: the declared fallback, once, and the result says so. The default router is a model that
    classifies, which needs no labelled data and is not one of the paper's.
    """
    ways = ask.agents(params.ways)
    last = params.names.index(params.fallback) if params.fallback is not None else len(ways) - 1
    at = await _way(task, params, ask)
    if at is None:
        ask.flag(f"the router chose no way: the fallback {params.names[last]!r} answers", degraded=True)
        at = last
    try:
        return await ask.one("answer", ways[at])
    except Unanswered:
        if at == last:
            raise
    ask.flag(f"{params.names[at]!r} failed: the fallback {params.names[last]!r} answers", degraded=True)
    return await ask.one("fallback", ways[last])


async def _way(task: Task, params: Route, ask: Ask) -> int | None:
    """Return which way the question goes, from 0; ``None`` if the router cannot say."""
    word: Word = None
    try:
        word = await _word(task, params, ask)
    except Unanswered as error:
        ask.flag(f"the router failed: {error}", degraded=True)
    at = _place(word, params)
    if at is not None:
        ask.flag(f"the router said {word}: {params.names[at]!r} answers")
    chosen = ask.choose("way", len(params.ways), at or 0)
    return None if at is None and ask.choices is None else chosen


async def _word(task: Task, params: Route, ask: Ask) -> Word:
    """Return what the router says; an estimate goes each way whatever it would be."""
    router = params.router
    if isinstance(router, Agent) and not is_function(router):
        return await _classified(params, router, ask)
    if ask.choices is not None:
        return None
    if isinstance(router, tuple):
        return ruled(router, task)
    if isinstance(router, Column):
        return router.word(task)
    if isinstance(router, Nearest):
        router = Agent(model="function:nearest", function=router.word)
    word: Word = await called(ask, router, task.question, values=task.values)
    return word


async def _classified(params: Route, router: Agent, ask: Ask) -> Word:
    """Return the name of the way that a model classifies the question for."""
    values = {"ways": [{"name": name, "about": params.about.get(name, "")} for name in params.names]}
    said = await ask.one(
        "routing",
        router,
        template="route/classify",
        place="alone",
        values=values,
        parse=parser(params.names),
        aside=True,
    )
    return None if said.value is None else str(said.value)


def _place(word: Word, params: Route) -> int | None:
    """Return the place of the way that a router's word means; ``None`` if it means none."""
    if isinstance(word, str):
        return params.names.index(word) if word in params.names else None
    if not isinstance(word, Real) or math.isnan(word):
        return None
    return past(float(word), params.limits)
