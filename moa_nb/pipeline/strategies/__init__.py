"""Strategies: small async functions that say who is asked when, and who sees what. One file each."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from moa_nb.errors import UnknownName, nearest
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.spec import Params

__all__ = ["Strategy", "find", "names", "strategy"]

_Run = Callable[[Task, Any, Ask], Awaitable[Candidate]]


@dataclass(frozen=True)
class Strategy:
    """A strategy under its name, with the parameters it takes."""

    name: str
    params: type[Params]
    run: _Run

    @property
    def is_ours(self) -> bool:
        """Whether it comes with this package, and is known to take every branch through ``ask``."""
        return self.run.__module__.startswith("moa_nb.")


_registry: dict[str, Strategy] = {}


def strategy(name: str, *, params: type[Params]) -> Callable[[_Run], _Run]:
    """Return a decorator that makes an async function known as a strategy.

    It is called with the task, its parameters and ``ask``, and returns the final candidate.
    """

    def register(run: _Run) -> _Run:
        _registry[name] = Strategy(name, params, run)
        return run

    return register


def find(name: str) -> Strategy:
    """Return the strategy of a name.

    Raises:
        UnknownName: there is none; the message names the nearest.
    """
    _load()
    try:
        return _registry[name]
    except KeyError:
        msg = f"no strategy {name!r}; {nearest(name, _registry)}"
        raise UnknownName(msg) from None


def names() -> list[str]:
    """Return the names of all strategies."""
    _load()
    return sorted(_registry)


@functools.cache
def _load() -> None:
    """Return once every strategy of this package, and of packages that bring some, is registered."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    for entry in importlib.metadata.entry_points(group="moa_nb.strategies"):
        try:
            entry.load()
        except Exception as error:  # somebody else's package must not take ours with it
            text = f"the strategies of {entry.value} cannot be loaded: {type(error).__name__}: {error}"
            warnings.warn(text, stacklevel=2)
