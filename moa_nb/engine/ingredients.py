"""What a plan's requests depend on, read off it as plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from moa_nb import templating
from moa_nb.engine.plan import Plan
from moa_nb.errors import MoaError, PipelineError
from moa_nb.pipeline import presets
from moa_nb.pipeline.spec import Agent
from moa_nb.providers import functions
from moa_nb.providers.secrecy import secrets
from moa_nb.settings import ROLES, Provider

__all__ = ["Unkeepable", "digest", "identity", "ingredients", "keys", "providers"]

_PROMPTS = "prompts"

_SHORTEST_KEY = 8
"""Characters that a key has at least: ``none`` and the like, which local servers are given, stand in many texts."""


class Unkeepable(Exception):
    """No file can hold it."""


def ingredients(plan: Plan, form: Any) -> dict[str, Any]:
    """Return what a recipe has beside its reason.

    Raises:
        Unkeepable: no file can hold some of it, or the store does not hold the answers.
        PipelineError: likewise, of a pipeline.
    """
    if plan.cache == "off":
        msg = "cache='off' kept no answers"
        raise Unkeepable(msg)
    settings, budget = plan.settings, plan.budget
    return {
        "pipeline": plan.pipeline.name,
        "pipelines": {one.name: one.to_toml() for one in presets.within(plan.pipeline, plan.pipelines)},
        "roles": {role: players for role in ROLES if (players := tuple(_players(plan, role)))},
        "functions": dict(_functions(plan)),
        "providers": {name: (one.wire, _open_identity(one)) for name, one in providers(plan).items()},
        "contexts": {model: plan.gateway.context(model) for model in plan.models},
        "templates": dict(_templates()),
        "max_tokens": settings.max_tokens,
        "references": settings.references,
        "max_ref_chars": settings.max_ref_chars,
        "budget": None if budget is None else (budget.limit, budget.unit),
        "cache": plan.cache,
        "mode": plan.mode,
        "fences": digest(plan.secret),
        "form": form,
    }


def _players(plan: Plan, role: str) -> Iterator[str]:
    """Return the models that fill a role; none where nobody does."""
    try:
        agents = plan.resolve([Agent(model=f"${role}")])
    except PipelineError:
        return
    for agent in agents:
        yield agent.model if agent.function is None else f"function:{_registered(agent.function).name}"


def _functions(plan: Plan) -> Iterator[tuple[str, str]]:
    """Return the functions that answer, with their versions."""
    for agent in plan.agents:
        provider, _, name = agent.model.partition(":")
        if provider != "function":
            continue
        known = functions.find(name) if agent.function is None else _registered(agent.function)
        if known.version is None:
            msg = f"the answers of the function {known.name!r} are not kept: it has no version (@moa.agent({known.name!r}, version='1'))"
            raise Unkeepable(msg)
        yield known.name, known.version


def _registered(call: Callable[..., Any]) -> functions.Function:
    known = functions.registration(call)
    if known is None:
        name = getattr(call, "__name__", type(call).__name__)
        msg = f"the function {name!r} has no name that a file could hold: register it with @moa.agent({name!r}, version='1')"
        raise Unkeepable(msg)
    return known


def providers(plan: Plan) -> dict[str, Provider]:
    """Return the providers of a plan by name, functions apart."""
    found = (plan.gateway.route(model).provider for model in plan.models)
    return {provider.name: provider for provider in found if provider.name != "function"}


def identity(provider: Provider) -> str:
    """Return what tells the answers of a provider from those of another of its name."""
    if provider.name == "offline":
        from moa_nb.providers import offline

        return offline.VERSION
    return provider.base_url


def _open_identity(provider: Provider) -> str:
    parts = urlsplit(provider.base_url)
    if "@" in parts.netloc or parts.query:
        msg = f"the address of {provider.name} may hold a key, and keys are not kept"
        raise Unkeepable(msg)
    return identity(provider)


def keys(provider: Provider) -> list[str]:
    """Return the keys that a provider is asked with, as far as they lie somewhere."""
    found = secrets(provider.headers)
    if not (provider.settings and callable(provider.settings.key)):
        try:
            found.append(provider.key() or "")
        except MoaError:
            pass  # there is none
    return [key for key in found if len(key) >= _SHORTEST_KEY]


def _templates() -> Iterator[tuple[str, str]]:
    for file in templating.names(_PROMPTS, ""):
        try:
            found = templating.read(_PROMPTS, file)
        except MoaError:
            continue  # no template: it is no text
        if found is not None:
            yield file, found[0]


def digest(secret: bytes) -> str:
    """Return what tells one secret of the fences from another, and not what it is."""
    return hashlib.blake2b(b"recipe", key=secret[:64], digest_size=8).hexdigest()
