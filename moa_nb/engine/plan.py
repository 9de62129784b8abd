"""A run's options, checked before anything is sent: pipeline, roles, templates, keys, prices."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, get_args

from moa_nb import templating
from moa_nb.engine.roles import Cast
from moa_nb.errors import PipelineError, SetupError, nearest
from moa_nb.gateway import Budget, Gateway
from moa_nb.gateway.budget import Unit
from moa_nb.gateway.route import no_price
from moa_nb.options import CacheMode, Mode
from moa_nb.pipeline import presets
from moa_nb.pipeline.ask import Ask, Complete
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.fitting import Room
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.prompt import quoting
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.spec import Agent, Pipeline, Resolver, Roles
from moa_nb.pipeline.strategies import Strategy, find
from moa_nb.plain import quoted
from moa_nb.providers import functions
from moa_nb.settings import Settings, fence_secret

__all__ = ["Options", "Plan", "prompt_template"]

_MOST_CALLS = 10_000
"""Calls for one input, beyond which somebody has mistyped."""


@dataclass(frozen=True)
class Options:
    """What one call may say over the settings. ``None``: as the settings or the pipeline say."""

    pipeline: str | Pipeline | None = None
    models: Sequence[str | Callable[..., object]] | None = None
    """Who fills ``$proposers``."""
    aggregator: str | None = None
    samples: int | None = None
    layers: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    budget: float | str | None = None
    """Dollars for the whole run (``math.inf`` agrees to any), or a text: ``"200 calls"``, ``"50k tokens"``."""
    cache: CacheMode = "use"
    mode: Mode = "live"

    def __post_init__(self) -> None:
        """Refuse what is of the wrong type, whoever wrote it.

        Raises:
            SetupError: naming the option and what it takes.
        """
        models = self.models
        if models is not None and not (isinstance(models, str) or callable(models)):
            is_list = isinstance(models, Iterable) and not isinstance(models, bytes | Mapping)
            # Listed once, so that a generator is not used up by looking at it.
            object.__setattr__(self, "models", tuple(models) if is_list else models)
            if not is_list or not all(isinstance(model, str) or callable(model) for model in self.models or ()):
                raise _wrong("models", "a list of 'provider:model' or functions", models)
        if self.pipeline is not None and not isinstance(self.pipeline, str | Pipeline):
            raise _wrong("pipeline", "a name or a Pipeline", self.pipeline)
        if self.aggregator is not None and not (isinstance(self.aggregator, str) or callable(self.aggregator)):
            raise _wrong("aggregator", "a 'provider:model'", self.aggregator)
        for name, kind, what in _NUMBERS:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                raise _wrong(name, what, value)
        for name, known in _WORDS.items():
            word = getattr(self, name)
            if word not in known:
                msg = f"{name} cannot be {quoted(word, 80)}; {nearest(str(word), known)}"
                raise SetupError(msg)


_WORDS: dict[str, tuple[str, ...]] = {"cache": get_args(CacheMode), "mode": get_args(Mode)}

_NUMBERS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("samples", Integral, "a whole number"),
    ("layers", Integral, "a whole number"),
    ("max_tokens", Integral, "a whole number"),
    ("temperature", Real, "a number"),
    ("budget", (Real, str), "dollars as a number, or a text such as '200 calls'"),
)


def _wrong(option: str, what: str, value: object) -> SetupError:
    return SetupError(f"{option} takes {what}, not {quoted(value, 80)}")


@dataclass
class Plan:
    """A checked run: everything that is the same for each of its inputs."""

    settings: Settings
    pipeline: Pipeline
    resolve: Resolver
    """Who is asked for a declaration of agents."""
    why: str
    cache: CacheMode
    mode: Mode
    budget: Budget | None
    load: Callable[[str], templating.Template]
    models: tuple[str, ...]
    """Every model that may be asked."""
    gateway: Gateway
    """Where it asks; kept alive with its limits for as long as somebody runs this plan."""
    strategy: Strategy
    pipelines: Callable[[str], Pipeline]
    secret: bytes
    """The key of the fences."""
    agents: tuple[Agent, ...]
    """Every agent that may be asked, those of pipelines within this one included."""
    room: Room
    """How much the models can read."""

    def ask(self, task: Task, complete: Complete, record: RunRecord, **more: Any) -> Ask:
        """Return the door to models for one input.

        Raises:
            RowError: it is more than one of the agents can read.
        """
        self.room.check(task, self.agents)
        return Ask(
            task,
            self.resolve,
            complete,
            record,
            self.secret,
            ceiling=self.ceiling,
            call=self.gateway.call,
            load=self.load,
            pipelines=self.pipelines,
            room=self.room,
            **more,
        )

    @property
    def ceiling(self) -> int | None:
        """What each request carries whose agent says nothing: a ceiling only where there is a budget."""
        return self.settings.max_tokens if self.budget else None


def make_plan(
    options: Options,
    settings: Settings,
    cast: Cast,
    gateway: Gateway,
    form: Form | None = None,
    *,
    keys: bool = True,
) -> Plan:
    """Return the plan of a run, whose answers fill in a ``form`` where there is one; nothing is sent.

    Without ``keys`` it is only to be priced, for which nobody needs one.

    Raises:
        SetupError: a name, key, template, option or price is wrong or missing.
    """
    pipeline = presets.load(options.pipeline or settings.pipeline).override(
        samples=options.samples,
        layers=options.layers,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    roles: dict[str, tuple[str | Callable[..., object], ...]] = dict(cast.roles)
    if options.models is not None:
        roles["proposers"] = _proposers(options.models)
        _fills(pipeline, "proposers", "models")
        if options.aggregator is None and cast.is_offline and not all(map(_is_offline, roles["proposers"])):
            # Offline consensus would only pick sentences from what these models wrote.
            roles["aggregator"] = roles["proposers"][:1]
    if options.aggregator:
        roles["aggregator"] = (options.aggregator,)
        _fills(pipeline, "aggregator", "aggregator")
    pipelines = functools.cache(presets.load)
    declared = presets.all_agents(pipeline, pipelines)
    _refuse_too_many(declared, roles)
    resolve = Resolver(roles, functions.name_of)
    agents = [agent for agent in resolve(declared) if agent.pipeline is None]
    models = tuple(dict.fromkeys(agent.model for agent in agents))
    for one in presets.within(pipeline, pipelines):
        _refuse_sentences(one, resolve)
    if form is not None:
        _refuse_offline(models)
    load = functools.cache(templating.load)
    for name in dict.fromkeys(agent.template or "synthesize" for agent in agents):
        # Rendered once on nothing: what is wrong with it shows before anything is paid.
        load(name).render(quoting(["…"] * 2, "0", "…", "…"))
    for agent in agents:
        if agent.function is None:
            _check_model(agent.model, gateway, keys=keys)
    if options.mode == "batch":
        _check_batches(options, settings, models, gateway)
    budget = _budget(settings.budget if options.budget is None else options.budget, models, gateway)
    return Plan(
        settings,
        pipeline,
        resolve,
        cast.why,
        options.cache,
        options.mode,
        budget,
        load,
        models,
        gateway,
        find(pipeline.strategy),
        pipelines,
        fence_secret(),
        tuple(agents),
        Room(gateway.context, settings.max_tokens, settings.references, settings.max_ref_chars),
    )


def _check_batches(options: Options, settings: Settings, models: Sequence[str], gateway: Gateway) -> None:
    """Return nothing if batches can be made, and found again by another session.

    Raises:
        SetupError: they cannot.
    """
    if options.cache == "off" or settings.store == "none":
        what = "cache='off'" if options.cache == "off" else "store='none'"
        msg = f"mode='batch' finds its answers again in the store, which {what} leaves out: leave one of the two out"
        raise SetupError(msg)
    if not any(map(gateway.has_batches, models)):
        msg = (
            f"mode='batch' needs a service with a Batch API, and none of {', '.join(models)} is at one: take models of"
            " openai or anthropic, or leave mode='batch' out"
        )
        raise SetupError(msg)


def _refuse_sentences(pipeline: Pipeline, resolve: Resolver) -> None:
    """Return nothing unless a judge would be an agent that only picks sentences from the text."""
    for declared in pipeline.params.judging():
        for agent in resolve([declared]):
            if _is_offline(agent.model):
                role = declared.model if declared.model.startswith("$") else "it"
                msg = (
                    f"pipeline {pipeline.name!r} asks for a judgement, and {agent.model} only picks sentences from your"
                    f" text: name a model or a function for {role}, or take a pipeline without judges, such as moa-lite"
                )
                raise SetupError(msg)


def _refuse_offline(models: Iterable[str]) -> None:
    """Return nothing unless an agent that only picks sentences from the text were to fill in a form."""
    for model in models:
        if _is_offline(model):
            msg = (
                f"{model} only picks sentences from your text, and can fill in no form: name models or functions, as in"
                " models=['openai:gpt-4o-mini']; synthesize and summarize work offline"
            )
            raise SetupError(msg)


def _refuse_too_many(agents: Iterable[Agent], roles: Roles) -> None:
    n_calls = sum(
        (agent.samples or 1) * (len(roles.get(agent.model[1:], ())) if agent.model.startswith("$") else 1)
        for agent in agents
    )
    if n_calls > _MOST_CALLS:
        msg = f"this pipeline makes {n_calls:,} calls for one input, and {_MOST_CALLS:,} are the most: fewer samples, models or layers"
        raise SetupError(msg)


def _proposers(
    models: str | Callable[..., object] | Sequence[str | Callable[..., object]],
) -> tuple[str | Callable[..., object], ...]:
    listed = (models,) if isinstance(models, str) or callable(models) else tuple(models)
    if not listed:
        msg = "models is empty: name at least one, as in models=['openai:gpt-4o-mini']"
        raise PipelineError(msg)
    return listed


def _is_offline(model: str | Callable[..., object]) -> bool:
    return isinstance(model, str) and model.startswith("offline:")


def _budget(limit: float | str | None, models: Iterable[str], gateway: Gateway) -> Budget | None:
    """Return the budget that was asked for: dollars as a number, or a text with its unit.

    Raises:
        SetupError: it makes no sense, or counts dollars where a price is not known.
    """
    if limit is None:
        return None
    amount, unit = _amount(limit)
    if math.isinf(amount) and amount > 0:
        return None
    if not amount >= 0:
        msg = f"a budget is 0 or more, not {limit}"
        raise SetupError(msg)
    for model in models if unit == "dollars" else ():
        if gateway.price(model) is None:
            raise SetupError(no_price(model))
    return Budget(amount, unit)


_BUDGET = re.compile(
    r"\s*(?P<dollar>\$)?\s*(?P<number>\d[\d_,]*(?:\.\d+)?|\.\d+|inf)\s*(?P<factor>[kKmM])?\s*(?P<unit>dollars?|usd|calls?|tokens?)?\s*",
    re.IGNORECASE,
)

_FACTORS = {"": 1, "k": 1e3, "m": 1e6}


def _amount(limit: float | str) -> tuple[float, Unit]:
    """Return how much of what.

    >>> _amount("200 calls")
    (200.0, 'calls')
    """
    if not isinstance(limit, str):
        return float(limit), "dollars"
    found = _BUDGET.fullmatch(limit)
    unit = (found["unit"] or "dollars").lower().rstrip("s") if found else ""
    if found is None or (found["dollar"] and unit not in {"dollar", "usd"}):
        msg = f"a budget is dollars (0.5), calls ('200 calls') or tokens ('50k tokens'), not {quoted(limit, 40)}"
        raise SetupError(msg)
    amount = float(found["number"].replace("_", "").replace(",", "")) * _FACTORS[(found["factor"] or "").lower()]
    return amount, {"call": "calls", "token": "tokens"}.get(unit, "dollars")  # type: ignore[return-value]  # one of the three


def _fills(pipeline: Pipeline, role: str, option: str) -> None:
    if role not in pipeline.roles:
        msg = f"pipeline {pipeline.name!r} asks for no ${role}, so {option!r} has nothing to fill"
        raise PipelineError(msg)


def _check_model(model: str, gateway: Gateway, *, keys: bool) -> None:
    route = gateway.route(model)
    if route.provider.name == "function":
        functions.find(route.model)
    elif keys:
        route.provider.key()


def prompt_template(text: str) -> templating.Template:
    """Return a template given as Jinja source or as a template's name.

    Raises:
        UnknownName: a plain word that names no template.
        TemplateError: source that does not parse.
    """
    is_source = "{" in text or any(character.isspace() for character in text)
    return templating.parse(text) if is_source else templating.load(text)
