"""Pipelines by name: the project's TOML files, then the user's, then ours."""

from __future__ import annotations

import tomllib

from moa_nb import templating
from moa_nb.errors import PipelineError, UnknownName, nearest
from moa_nb.pipeline.spec import Pipeline

__all__ = ["load", "names"]


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
