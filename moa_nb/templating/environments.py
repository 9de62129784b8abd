"""Jinja set up twice: for prompts, in a sandbox and with nothing escaped; for panels, with everything escaped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jinja2

from moa_nb.templating.folders import read, root
from moa_nb.templating.sandbox import Sandbox
from moa_nb.templating.text import to_text

__all__ = ["MissingVariable", "globals_of", "is_jinjas", "panel_environment", "prompt_environment"]


class MissingVariable(Exception):
    """A template used a name, or an attribute of a value, that is not there."""

    def __init__(self, name: str, owner: object) -> None:
        super().__init__(name)
        self.name, self.owner = name, owner


class _Strict(jinja2.StrictUndefined):
    @property
    def _undefined_message(self) -> str:
        # Asked for exactly when the hole is used: the one place that knows its name.
        raise MissingVariable(str(self._undefined_name), self._undefined_obj)


@functools.cache
def prompt_environment() -> jinja2.Environment:
    """Return the environment of prompts: a sandbox, nothing escaped, the templates that hold now to include."""
    return Sandbox(
        undefined=_Strict,
        finalize=to_text,
        keep_trailing_newline=False,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        loader=jinja2.FunctionLoader(_include),
    )


def _include(name: str) -> tuple[str, str, Callable[[], bool]] | None:
    found = _find_included(name)
    # Asked before each use, so that an edited file or another folder counts at once.
    return None if found is None else (*found, lambda: _find_included(name) == found)


def _find_included(name: str) -> tuple[str, str] | None:
    return read("prompts", f"{name}.jinja") or read("prompts", name)


def is_jinjas(name: str) -> bool:
    """Return whether Jinja itself has something of this name, such as ``range``."""
    return name in prompt_environment().globals


@functools.lru_cache(maxsize=8)
def globals_of(environment: jinja2.Environment) -> dict[str, Any]:
    """Return what Jinja itself gives every template of an environment."""
    return dict(environment.globals)


@functools.cache
def panel_environment() -> jinja2.Environment:
    """Return the environment of what people see: everything escaped, templates from ``templates/``."""
    return jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_shipped),
    )


def _shipped(name: str) -> str | None:
    # Panels are ours alone: a template from the working folder must not decide what is shown unescaped.
    found = root().joinpath(*name.split("/"))
    return found.read_text("utf-8") if found.is_file() else None
