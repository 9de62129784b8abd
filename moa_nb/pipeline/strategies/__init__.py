"""Strategies: small async functions that say who is asked when, and who sees what. One file each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from moa_nb.errors import UnknownName, nearest
from moa_nb.pipeline.ask import Ask, Candidate, Task
from moa_nb.pipeline.spec import Params

__all__ = ["Strategy", "find", "names", "strategy"]

_Run = Callable[[Task, Any, Ask], Awaitable[Candidate]]


@dataclass(frozen=True)
class Strategy:
    """A strategy under its name, with the parameters it takes."""

    name: str
    params: type[Params]
    run: _Run


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


def _load() -> None:
    from moa_nb.pipeline.strategies import layers  # noqa: F401 - registers itself
