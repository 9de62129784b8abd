"""A pipeline as data: who is asked, in which layers, with which sampling. Frozen, and never code."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from moa_nb.chat import Sampling
from moa_nb.errors import PipelineError, nearest
from moa_nb.plain import quoted
from moa_nb.settings import ROLES

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass  # it has no public name

    from moa_nb.pipeline.explain import Explanation
    from moa_nb.pipeline.toml import NameOf
else:
    ModelMetaclass = type(BaseModel)

__all__ = ["Agent", "Agents", "Layer", "OneAgent", "Params", "Pipeline", "Resolver", "Roles", "resolve", "sampled"]

Roles = Mapping[str, tuple[str | Callable[..., Any], ...]]
"""Model ids, or Python functions, by role; one for every role but ``proposers``."""

_MOST_DECLARATIONS = 1000

_NAMELESS = "custom"
"""What a pipeline is called that was given no name."""

_SAMPLING = ("temperature", "max_tokens", "top_p", "seed", "stop")


_RESERVED = ("model", "messages", "contents", "stream", "stream_options")
"""Fields of a request that say who is asked what, and how the answer comes."""


class _Spoken(ModelMetaclass):
    """What is wrong with a part that is built by hand is one line; within a pipeline, the pipeline says it."""

    def __call__(self, *args: Any, **values: Any) -> Any:
        kind = cast("type[BaseModel]", self)
        if args:
            example = f"{self.__name__}({next(iter(kind.model_fields), '')}=...)"
            msg = f"{self.__name__} takes each value by its name, as in {example}, not {quoted(args[0])} alone"
            raise PipelineError(msg)
        try:
            return super().__call__(**values)
        except ValidationError as error:
            raise PipelineError(_say(error, self.__name__, kind)) from None


class _Strict(BaseModel, metaclass=_Spoken):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Agent(_Strict):
    """A model in a role, with its sampling and its template.

    >>> Agent(model="openai:gpt-4o-mini", temperature=0.7).label
    'gpt-4o-mini'
    """

    model: str = ""
    """``provider:model``, or a role such as ``$proposers``."""
    name: str | None = None
    """How panels and reports call it; the model's own name if ``None``."""
    system: str | None = None
    """A system prompt of its own, before the user's."""
    template: str | None = None
    """The template that quotes the references; ``synthesize`` if nobody says another."""
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    samples: int | None = Field(None, ge=1, le=1000)
    """How many independent answers it gives."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of the request, as the service spells them."""
    function: Callable[..., Any] | None = None
    """The Python function that answers instead of a model."""
    pipeline: str | None = None
    """The name of the pipeline that answers instead of a model."""

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        """Return the fields of an agent that is written as a model id, a role, a pipeline's name or a function."""
        if isinstance(value, str) and ":" not in value and not value.startswith("$"):
            return {"pipeline": value}
        is_player = isinstance(value, str) or (callable(value) and not isinstance(value, type | BaseModel))
        return _player(value) if is_player else value

    @model_validator(mode="after")
    def _somebody_answers(self) -> Agent:
        if not self.model and self.function is None and self.pipeline is None:
            msg = "an agent needs a model, such as 'openai:gpt-4o-mini' or '$proposers'"
            raise ValueError(msg)
        if self.model.startswith("$") and self.model[1:] not in ROLES:
            msg = f"no role {self.model!r}; {nearest(self.model[1:], ROLES)}"
            raise ValueError(msg)
        for name in _RESERVED:
            if name in self.extra:
                msg = f"extra may not hold {name!r}: it would replace what is asked and priced"
                raise ValueError(msg)
        return self

    @functools.cached_property
    def sampling(self) -> Sampling:
        """How its answers are drawn."""
        return Sampling(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
            extra=tuple(sorted(self.extra.items())),
        )

    @property
    def label(self) -> str:
        """Its name, or its model's without provider and folder."""
        return self.name or self.pipeline or self.model.partition(":")[2].rpartition("/")[2] or self.model

    def stated(self) -> dict[str, Any]:
        """Return what was said of it, as ``Agent(**stated)`` takes it."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def changed(self, **values: Any) -> Agent:
        """Return a copy with other values."""
        copy = self.model_copy(update=values)
        copy.__dict__.pop("sampling", None)  # made of the old values
        return copy

    def under(self, layer: Layer) -> Agent:
        """Return the agent with what its layer says where it says nothing itself."""
        inherited = {
            key: getattr(layer, key)
            for key in (*_SAMPLING, "template", "samples")
            if getattr(self, key) is None and getattr(layer, key) is not None
        }
        return self.changed(**inherited) if inherited else self


def _player(model: str | Callable[..., Any]) -> dict[str, Any]:
    """Return the fields of an agent that say who answers."""
    if isinstance(model, str):
        return {"model": model}
    return {"model": f"function:{getattr(model, '__name__', type(model).__name__)}", "function": model}


def _as_agents(value: Any) -> Any:
    if isinstance(value, str | Mapping | Agent) or callable(value):
        return [value]
    return list(value) if isinstance(value, Iterable) else value


def _is_one(agent: Agent) -> Agent:
    if agent.model == "$proposers" or (agent.samples or 1) != 1:
        msg = "exactly one agent answers here, once: name one model, and no samples"
        raise ValueError(msg)
    return agent


OneAgent = Annotated[Agent, AfterValidator(_is_one)]
"""One agent as users write it: a role, a model id, a pipeline's name, a function or a table."""

Agents = Annotated[tuple[Agent, ...], BeforeValidator(_as_agents), Field(min_length=1)]
"""Agents as users write them: roles, model ids, functions or tables, one or several."""


class Layer(_Strict):
    """Agents that are asked at the same time; what is set here holds for each that says nothing else."""

    agents: Agents
    name: str | None = None
    min_ok: int = Field(1, ge=1)
    """How many must answer for the run to go on."""
    patience: float | None = Field(None, gt=0)
    """Seconds after which the run goes on without who is late, once ``min_ok`` have answered; ``None``: it waits."""
    template: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    samples: int | None = Field(None, ge=1, le=1000)

    @functools.cached_property
    def members(self) -> tuple[Agent, ...]:
        """Its agents, with what the layer says for all."""
        return tuple(agent.under(self) for agent in self.agents)


class Params(_Strict):
    """What one strategy takes: a strategy's own parameters are the fields of a subclass.

    A field for one agent is an ``Agent``, one for several a ``tuple[Agent, ...]``; both are written as users write
    agents: a role, a model id, a pipeline's name, a function, a table. No field is needed for their sampling.

    >>> class Relay(Params):
    ...     writer: Agent = Agent(model="$aggregator")
    ...     critics: tuple[Agent, ...] = (Agent(model="$proposers"),)
    >>> [agent.label for agent in Relay(critics="offline:lead").agents()]
    ['$aggregator', 'lead']
    """

    @model_validator(mode="before")
    @classmethod
    def _several_may_be_one(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        several = [name for name, field in cls.model_fields.items() if field.annotation == tuple[Agent, ...]]
        return {**data, **{name: _as_agents(data[name]) for name in several if name in data}}

    @model_validator(mode="after")
    def _one_is_one(self) -> Params:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Agent):
                try:
                    _is_one(value)
                except ValueError as error:
                    msg = f"{name}: {error}"
                    raise ValueError(msg) from None
        return self

    def agents(self) -> tuple[Agent, ...]:
        """Return every agent that may be asked: those of its fields, one or several each."""
        found: list[Agent] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            found += [value] if isinstance(value, Agent) else _only_agents(value)
        return tuple(found)

    def judging(self) -> tuple[Agent, ...]:
        """Return the agents whose answer is a judgement, which agents that only pick sentences cannot give."""
        return ()

    @property
    def uses_columns(self) -> bool:
        """Whether an answer may depend on columns that the prompt does not hold; then equal prompts are not equal rows."""
        return False

    def override(self, *, temperature: float | None = None, max_tokens: int | None = None, **others: Any) -> Self:
        """Return the parameters with the options of one call; sampling holds for every agent.

        Raises:
            PipelineError: the strategy has no such option.
        """
        for name, value in others.items():
            if value is not None:
                msg = f"this pipeline takes no {name!r}"
                raise PipelineError(msg)
        wanted = {"temperature": temperature, "max_tokens": max_tokens}
        changes = {name: value for name, value in wanted.items() if value is not None}
        return self._each_agent(lambda agent: Agent.model_validate({**agent.stated(), **changes})) if changes else self

    def having(self, **values: Any) -> Self:
        """Return a copy with other values, checked as the first ones were; ``None`` leaves one as it is."""
        wanted = {name: value for name, value in values.items() if value is not None}
        return type(self).model_validate({**dict(self), **wanted}) if wanted else self

    def _each_agent(self, change: Callable[[Agent], Agent]) -> Self:
        """Return a copy with every agent changed."""
        update: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Agent):
                update[name] = change(value)
            elif _only_agents(value):
                update[name] = tuple(change(agent) for agent in value)
        return self.model_copy(update=update)


def sampled(agents: Iterable[Agent], samples: int | None) -> list[dict[str, Any]] | None:
    """Return what agents are with another number of samples each, for ``Params.having``; ``None`` leaves them alone."""
    return None if samples is None else [{**agent.stated(), "samples": samples} for agent in agents]


def _only_agents(value: Any) -> list[Agent]:
    """Return the agents that a field holds; none where it holds something else."""
    is_several = isinstance(value, tuple) and all(isinstance(one, Agent) for one in value)
    return list(value) if is_several else []


class Pipeline:
    """A named recipe: a strategy and its parameters. Immutable; ``override`` returns a new one.

    Args:
        strategy: who is asked when; ``layers`` unless said otherwise.
        name: how results call it.
        description: one line for lists.
        **params: what the strategy takes; for ``layers`` it is ``layers=[[...], [...]]``.

    Raises:
        PipelineError: an unknown strategy or parameter; the message names the nearest.

    >>> Pipeline(layers=[["offline:textrank", "offline:lead"], ["offline:consensus"]]).name
    'custom'
    """

    def __init__(
        self, *, strategy: str = "layers", name: str = _NAMELESS, description: str = "", source: str = "", **params: Any
    ) -> None:
        from moa_nb.pipeline.strategies import find

        self.name, self.description, self.strategy = name, description, strategy
        self.source = source
        kind = find(strategy).params
        try:
            self.params = kind.model_validate(params)
        except ValidationError as error:
            raise PipelineError(_say(error, source or f"pipeline {name!r}", kind)) from None

    def called(self, name: str) -> Pipeline:
        """Return it under a name, if it has none of its own.

        >>> Pipeline(layers=[["offline:lead"]]).called("first sentences").name
        'first sentences'
        """
        return self._with(name=name) if self.name == _NAMELESS else self

    def override(self, **changes: Any) -> Pipeline:
        """Return a copy with the options of one call: samples, layers, temperature, max_tokens, template."""
        wanted = {key: value for key, value in changes.items() if value is not None}
        if not wanted:
            return self
        try:
            return self._with(params=self.params.override(**wanted))
        except ValidationError as error:
            raise PipelineError(_say(error, f"pipeline {self.name!r}", type(self.params))) from None

    def _with(self, **changes: Any) -> Pipeline:
        copy = object.__new__(Pipeline)
        copy.__dict__.update(self.__dict__, **changes)
        return copy

    def to_toml(self) -> str:
        """Return the text of a file in ``templates/pipelines/`` that loads to an equal pipeline.

        Raises:
            PipelineError: it holds what no file can, such as a function that has no name of its own.

        >>> print(Pipeline(layers=[["openai:gpt-4o-mini", "$strong"], ["$aggregator"]]).to_toml())
        strategy = "layers"
        <BLANKLINE>
        [[layers]]
        agents = ["openai:gpt-4o-mini", "$strong"]
        <BLANKLINE>
        [[layers]]
        agents = ["$aggregator"]
        <BLANKLINE>
        """
        from moa_nb.engine.present import registered_name
        from moa_nb.pipeline.toml import written

        return written(self, registered_name)

    def explain(self) -> Explanation:
        """Return a picture of its layers: who is asked, who sees what, at most how many calls. Nobody is asked.

        Roles are filled as a run would fill them now; no key is needed.

        Raises:
            PipelineError: its agents go in a circle, or its strategy cannot be walked without answers.
            UnknownName: an agent names a pipeline that is not there.
        """
        from moa_nb.engine.present import explained

        return explained(self)

    @property
    def roles(self) -> frozenset[str]:
        """The roles that its agents name, those of pipelines within it included."""
        from moa_nb.pipeline.presets import all_agents

        return frozenset(agent.model[1:] for agent in all_agents(self) if agent.model.startswith("$"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and (self.strategy, self.params) == (other.strategy, other.params)

    __hash__ = None  # type: ignore[assignment]  # holds mappings

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}: {self.strategy}>"


class Resolver:
    """Resolves the agents of one run's roles; each declaration once, however many rows ask it.

    Args:
        roles: who fills them.
        name_of: the name under which a function is registered; ``None``: they go by ``__name__``.
    """

    def __init__(self, roles: Roles, name_of: NameOf | None = None) -> None:
        self._roles, self._name_of = roles, name_of
        self._known: dict[tuple[int, ...], tuple[list[Agent], list[Agent]]] = {}

    def __call__(self, agents: Iterable[Agent]) -> list[Agent]:
        """Return one agent for each answer that is asked for; see ``resolve``."""
        declared = list(agents)
        # By identity, which is quick; they are kept, so that their identities stay their own.
        key = tuple(map(id, declared))
        known = self._known.get(key)
        if known is None:
            if len(self._known) > _MOST_DECLARATIONS:
                self._known.clear()  # of a strategy that makes agents as it goes
            known = self._known[key] = (declared, resolve(declared, self._roles, self._name_of))
        return known[1]


def resolve(agents: Iterable[Agent], roles: Roles, name_of: NameOf | None = None) -> list[Agent]:
    """Return one agent for each answer that is asked for: roles filled, samples counted out, names unlike.

    Functions go by the name that they are registered under, by which their answers are kept.

    Raises:
        PipelineError: a role that nobody fills, or something that is no agent.
    """
    asked: list[Agent] = []
    for agent in agents:
        if not isinstance(agent, Agent):
            msg = f"strategies ask a moa.Agent, such as a field of their parameters, or moa.Agent(model=…), not {quoted(agent)}"
            raise PipelineError(msg)
        models: tuple[str | Callable[..., Any], ...] = (agent.model,)
        if agent.model.startswith("$"):
            models = roles.get(agent.model[1:], ())
            if not models:
                msg = f"nobody fills the role {agent.model}: set {agent.model[1:]} in moa.toml or with moa.configure"
                raise PipelineError(msg)
        for model in models:
            filled = agent if model == agent.model else agent.changed(**_player(model))
            known = None if name_of is None or filled.function is None else name_of(filled.function)
            if known is not None and filled.model != f"function:{known}":
                filled = filled.changed(model=f"function:{known}")
            asked.extend([filled] * (agent.samples or 1))
    counts: dict[str, int] = {}
    labels = [agent.label for agent in asked]
    named = []
    totals = Counter(labels)
    for agent, label in zip(asked, labels, strict=True):
        counts[label] = counts.get(label, 0) + 1
        name = f"{label} {counts[label]}" if totals[label] > 1 else label
        named.append(agent.changed(name=name, samples=None))
    return named


def _say(error: ValidationError, source: str, kind: type[BaseModel]) -> str:
    errors = error.errors()
    # A misspelt key is also missing under its right name.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = (
            set(Agent.model_fields) | set(Layer.model_fields)
            if "." in path
            else {*kind.model_fields, *(("strategy", "description") if issubclass(kind, Params) else ())}
        )
        return f"{source}: unknown key {path!r}; {nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"{source}: {path!r} is missing"
    message = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    return f"{source}: {path}: {message}" if path else f"{source}: {message}"
