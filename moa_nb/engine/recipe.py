"""What a run was made of, apart from its rows: enough to make it again from the store, whatever is configured meanwhile."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from moa_nb import templating
from moa_nb.engine.ingredients import Unkeepable, digest, identity, ingredients, keys, providers
from moa_nb.engine.plan import Plan
from moa_nb.errors import MoaError, PipelineError, SetupError, UnknownName
from moa_nb.gateway import Budget, Gateway
from moa_nb.gateway.budget import Unit
from moa_nb.options import CacheMode, Mode
from moa_nb.pipeline import presets
from moa_nb.pipeline.fitting import Room
from moa_nb.pipeline.spec import Pipeline, Resolver
from moa_nb.pipeline.strategies import find
from moa_nb.providers import functions
from moa_nb.settings import ProviderSettings, Settings, fence_secret
from moa_nb.store import Store

__all__ = ["Recipe"]


class Recipe(BaseModel):
    """A plan as plain data: all that its requests, and so the keys of their answers, depend on beside the rows.

    No API key is in it, nor the secret of the fences.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    """The package's."""
    why: str
    """Why these models answered."""
    reason: str | None = None
    """Why the run cannot be made again, in half a line; ``None``: it can, and what follows is there."""
    pipeline: str = ""
    """The name of the one that ran, as it was with the options of the call."""
    pipelines: Mapping[str, str] = {}
    """That one and those within it by name, as TOML."""
    roles: Mapping[str, tuple[str, ...]] = {}
    providers: Mapping[str, tuple[Literal["openai", "anthropic", "gemini"], str]] = {}
    """By name, how it speaks and where; for the offline agents, their version."""
    contexts: Mapping[str, int | None] = {}
    """The tokens that each model can read and write."""
    functions: Mapping[str, str] = {}
    """The versions of the Python functions that answer, by name."""
    templates: Mapping[str, str] = {}
    """The sources of all prompt templates by file, since nobody knows which ones a strategy will use."""
    max_tokens: int = 1
    references: Literal["trim", "summarize"] = "trim"
    max_ref_chars: int | None = None
    budget: tuple[float, Unit] | None = None
    cache: CacheMode = "use"
    mode: Mode = "live"
    fences: str = ""
    """What tells the secret of the fences from another."""
    form: Any = None
    """What each row's answer must be, as JSON data; ``None``: free text."""

    @classmethod
    def of(cls, plan: Plan, *, form: Any = None) -> Recipe:
        """Return the recipe of a plan; where no file can hold it, one that has nothing but the ``reason``.

        Args:
            plan: of the run that begins.
            form: JSON data of what each row's answer must be.
        """
        bare = cls(version=_version(), why=plan.why)
        try:
            recipe = bare.model_copy(update=ingredients(plan, form))
        except (PipelineError, Unkeepable) as error:
            return bare.model_copy(update={"reason": str(error)})
        text = json.dumps(recipe.to_record(), ensure_ascii=False)
        for provider in providers(plan).values():
            if any(key in text for key in keys(provider)):
                reason = f"what it was made of holds the key of {provider.name}, and keys are not kept"
                return bare.model_copy(update={"reason": reason})
        return recipe

    def to_record(self) -> dict[str, Any]:
        """Return the recipe as JSON data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_record(cls, record: Any) -> Recipe:
        """Return the recipe of a record.

        Raises:
            SetupError: it is none, or one of a later version.
        """
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            msg = f"the recipe of this run cannot be read: {where or 'all of it'}: {error.errors()[0]['msg']}"
            version = record.get("version") if isinstance(record, dict) else None
            if isinstance(version, str) and version != _version():
                msg += f" (moa-nb {version:.20} wrote it, this is {_version()})"
            raise SetupError(msg) from None

    def plan(self, settings: Settings, store: Store) -> Plan:
        """Return a plan whose requests are those of the run, for ``replay``; nothing is to be sent under it.

        Args:
            settings: those of today; what the requests depend on is replaced.
            store: where the answers are.

        Raises:
            SetupError: the run cannot be made again, or needs a strategy or a function that nobody has registered in
                this session.
        """
        if self.reason is not None:
            msg = f"this run cannot be made again: {self.reason}"
            raise SetupError(msg)
        for name in self.functions:
            if name not in functions.registered():
                msg = f"this run asked the function {name!r}, which is not registered in this session: run the cell with its @moa.agent({name!r}) again"
                raise SetupError(msg)
        pipelines = {name: _read(name, text) for name, text in self.pipelines.items()}
        if self.pipeline not in pipelines:
            msg = "the recipe of this run cannot be read: it has no pipeline"
            raise SetupError(msg)
        pipeline = pipelines[self.pipeline]
        gateway = self._gateway(settings, store)
        resolve = Resolver(self.roles)
        lookup = functools.partial(_kept_or_named, pipelines)
        agents = tuple(agent for agent in resolve(presets.all_agents(pipeline, lookup)) if agent.pipeline is None)
        return Plan(
            settings=gateway.settings,
            pipeline=pipeline,
            resolve=resolve,
            why=self.why,
            cache=self.cache,
            mode=self.mode,
            budget=None if self.budget is None else Budget(*self.budget),
            load=templating.Shelf(self.templates).load,
            models=tuple(dict.fromkeys(agent.model for agent in agents)),
            gateway=gateway,
            strategy=find(pipeline.strategy),
            pipelines=lookup,
            secret=fence_secret(),
            agents=agents,
            room=Room(
                lambda model: self.contexts[model] if model in self.contexts else gateway.context(model),
                self.max_tokens,
                self.references,
                self.max_ref_chars,
            ),
        )

    def _gateway(self, settings: Settings, store: Store) -> Gateway:
        """Return a gateway that looks answers up under the keys of the run."""
        providers = {
            name: ProviderSettings.model_construct(wire=wire, base_url=where, headers={})
            for name, (wire, where) in self.providers.items()
            if name != "offline"
        }
        changes = {
            "providers": {**settings.providers, **providers},
            "max_tokens": self.max_tokens,
            "references": self.references,
            "max_ref_chars": self.max_ref_chars,
        }
        gateway = Gateway(settings.model_copy(update=changes), store)
        for model in self.contexts:
            known = self.providers.get(model.partition(":")[0])
            if known is not None:
                gateway.route(model).identity = known[1].encode()
        return gateway

    def remarks(self, settings: Settings) -> tuple[str, ...]:
        """Return what is not as it was, a line each: addresses, versions, the secret of the fences."""
        return tuple(self._remarks(settings))

    def _remarks(self, settings: Settings) -> Iterator[str]:
        if self.version != _version():
            yield f"made with moa-nb {self.version}, looked at with {_version()}"
        for name, (_, was) in self.providers.items():
            try:
                now = identity(settings.provider(f"{name}:any"))
            except MoaError:
                now = ""
            if now == was:
                continue
            if name == "offline":
                yield f"the offline agents were of version {was}, and are of {now} now"
            else:
                yield f"the answers of {name} came from {was}; it is {f'at {now}' if now else 'not configured'} now"
        for name, version in self.functions.items():
            today = functions.find(name).version if name in functions.registered() else version
            if today != version:
                yield f"function {name!r} was of version {version}, and is of {today} now: its answers are not found"
        if self.fences and self.fences != digest(fence_secret()):
            yield "the secret of the fences (fence.key) is another one now: answers that read other texts are not found"


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("moa-nb")
    except importlib.metadata.PackageNotFoundError:  # a folder on the path, not installed
        return "?"


# Made again -------------------------------------------------------------------------------------


def _read(name: str, text: str) -> Pipeline:
    """Return a pipeline of a recipe.

    Raises:
        SetupError: it needs a strategy that nobody has registered, or cannot be read.
    """
    try:
        data = tomllib.loads(text)
        strategy = data.get("strategy", "layers")
        find(strategy)
    except tomllib.TOMLDecodeError as error:
        msg = f"the pipeline {name!r} of this run cannot be read: {error}"
        raise SetupError(msg) from None
    except UnknownName:
        msg = f"this run used the strategy {strategy!r}, which is not registered in this session: run the cell with its @moa.strategy({strategy!r}, ...) again"
        raise SetupError(msg) from None
    return Pipeline(name=name, source=f"the pipeline {name!r} of this run", **data)


def _kept_or_named(pipelines: Mapping[str, Pipeline], name: str) -> Pipeline:
    # A strategy that makes agents as it goes may name a pipeline that no parameter names.
    return pipelines[name] if name in pipelines else presets.load(name)
