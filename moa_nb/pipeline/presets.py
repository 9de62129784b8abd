"""Pipelines by name: the project's TOML files, then the user's, then ours."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator

from moa_nb import templating
from moa_nb.errors import PipelineError, UnknownName, nearest
from moa_nb.pipeline.spec import Agent, Pipeline

__all__ = ["all_agents", "load", "names", "within"]

_DEEPEST = 5
"""Pipelines within pipelines, beyond which nobody could foresee a price."""


def names() -> dict[str, str]:
    """Return the names of all pipelines with their place: project, user or built-in."""
    return templating.names("pipelines", ".toml")


def load(pipeline: str | Pipeline) -> Pipeline:
    """Return the pipeline of a name; a ``Pipeline`` comes back as it is.

    Raises:
        UnknownName: there is none; the message names the nearest.
        PipelineError: its file does not make sense.

    >>> load("moa").strategy
    'layers'
    """
    if isinstance(pipeline, Pipeline):
        return pipeline
    found = templating.read("pipelines", f"{pipeline}.toml")
    if found is None:
        msg = f"no pipeline {pipeline!r}; {nearest(pipeline, names())}"
        raise UnknownName(msg)
    text, where = found
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"{where} is not valid TOML: {error}"
        raise PipelineError(msg) from None
    for reserved in ("name", "source"):
        if reserved in data:
            msg = f"{where}: unknown key {reserved!r}; a pipeline is named by its file"
            raise PipelineError(msg)
    return Pipeline(name=pipeline, source=where, **data)


def within(pipeline: Pipeline, find: Callable[[str], Pipeline] = load) -> tuple[Pipeline, ...]:
    """Return the pipeline itself, and those that are agents of it or of one of them.

    Raises:
        PipelineError: a pipeline is an agent of itself, or they go too deep.
        UnknownName: an agent names a pipeline that is not there.
    """
    return tuple(_within(pipeline, find, (pipeline.name,)))


def all_agents(pipeline: Pipeline, find: Callable[[str], Pipeline] = load) -> tuple[Agent, ...]:
    """Return every agent that may be asked, those of pipelines within this one included; raises what ``within`` does."""
    return tuple(agent for one in within(pipeline, find) for agent in one.params.agents())


def _within(pipeline: Pipeline, find: Callable[[str], Pipeline], path: tuple[str, ...]) -> Iterator[Pipeline]:
    yield pipeline
    for agent in pipeline.params.agents():
        if agent.pipeline is None:
            continue
        way = " > ".join((*path, agent.pipeline))
        if agent.pipeline in path:
            msg = f"pipeline {path[0]!r} goes in a circle: {way}"
            raise PipelineError(msg)
        if len(path) >= _DEEPEST:
            msg = f"pipelines may be {_DEEPEST} deep, and this goes further: {way}"
            raise PipelineError(msg)
        try:
            inner = find(agent.pipeline)
        except UnknownName as error:
            msg = f"{error} (a model is named provider:model, as in 'openai:gpt-4o-mini')"
            raise UnknownName(msg) from None
        yield from _within(inner, find, (*path, agent.pipeline))
