"""Strategies: small async functions that say who is asked when, and who sees what. One file each."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from moa_nb.errors import MoaError, PipelineError, UnknownName, nearest
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.spec import Params
from moa_nb.plain import quoted

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
        return str(self.run.__module__).startswith("moa_nb.")


_registry: dict[str, Strategy] = {}

_NOT_FIELDS = frozenset({"strategy", "name", "description", "source"})
"""What a pipeline says of itself beside its parameters."""


def strategy(name: str, *, params: type[Params]) -> Callable[[_Run], _Run]:
    """Return a decorator that makes an async function known as a strategy; one of the same name is replaced.

    It is called with the task, its parameters and ``ask``, and returns the final candidate. Whatever depends on an
    answer is decided through ``ask.decide``, so that the price of each way can be found.

    Raises:
        PipelineError: the function is not async or takes something else, ``params`` is no subclass of ``Params``, or
            the name is one of ours.

    >>> @strategy("relay", params=Params)
    ... def relay(task, params, ask):
    ...     return ask.one("first leg", params.runner)
    Traceback (most recent call last):
    moa_nb.errors.PipelineError: strategy 'relay' is not async: write it as `async def relay(task, params, ask)`
    """

    def register(run: _Run) -> _Run:
        known = Strategy(name, params, run)
        _check(known)
        _registry[name] = known if known.is_ours else Strategy(name, params, _with_an_answer(known))
        return run

    return register


def _check(made: Strategy) -> None:
    called = getattr(made.run, "__name__", "run")
    if not isinstance(made.name, str) or not made.name.strip():
        msg = f"a strategy has a name, as in @moa.strategy('relay', params=Relay), not {quoted(made.name)}"
        raise PipelineError(msg)
    if not (isinstance(made.params, type) and issubclass(made.params, Params)):
        msg = f"strategy {made.name!r}: params is a subclass of moa.Params, not {quoted(made.params)}"
        raise PipelineError(msg)
    if not made.params.__pydantic_complete__ and made.params.model_rebuild(raise_errors=False) is not True:
        msg = f"strategy {made.name!r}: {made.params.__name__} has annotations that name nothing known where it stands"
        raise PipelineError(msg)
    if taken := _NOT_FIELDS.intersection(made.params.model_fields):
        msg = f"strategy {made.name!r}: a parameter cannot be called {min(taken)!r}, which a pipeline says of itself"
        raise PipelineError(msg)
    form = f"write it as `async def {called}(task, params, ask)`"
    if not inspect.iscoroutinefunction(made.run):
        msg = f"strategy {made.name!r} is not async: {form}"
        raise PipelineError(msg)
    try:
        inspect.signature(made.run).bind(*"123")
    except TypeError:
        msg = f"strategy {made.name!r} takes {inspect.signature(made.run)}: {form}"
        raise PipelineError(msg) from None
    if not made.is_ours:
        _load_ours()
        if made.name in _registry and _registry[made.name].is_ours:
            msg = f"there is a strategy {made.name!r} in moa_nb: choose another name"
            raise PipelineError(msg)


def _with_an_answer(made: Strategy) -> _Run:
    """Return somebody's function, which then returns a candidate or raises; without answers, what to do."""

    @functools.wraps(made.run)
    async def run(task: Task, params: Any, ask: Ask) -> Candidate:
        try:
            answer = await made.run(task, params, ask)
        except Exception as error:
            if ask.choices is None or isinstance(error, MoaError):
                raise
            said = " ".join(str(error).split())[:80]
            mend = "let a value be None, and branch through ask.decide"
            if "'coroutine' object" in said:
                mend = "write await before ask.one, ask.layer and ask.each"
            msg = (
                f"strategy {made.name!r} breaks on answers that say nothing, with which it is priced"
                f" ({type(error).__name__}: {said}): {mend}"
            )
            raise PipelineError(msg) from error
        if not isinstance(answer, Candidate):
            is_coming = inspect.iscoroutine(answer)
            if is_coming:
                answer.close()  # or Python warns of it too, later and elsewhere
            msg = (
                f"strategy {made.name!r} returned {type(answer).__name__}: it returns a Candidate, as"
                f" {'`await ask.one(...)`' if is_coming else 'ask.one'} gives one"
            )
            raise PipelineError(msg)
        return answer

    return run


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
def _load_ours() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


@functools.cache
def _load() -> None:
    """Return once every strategy of this package, and of packages that bring some, is registered."""
    _load_ours()
    for entry in importlib.metadata.entry_points(group="moa_nb.strategies"):
        try:
            entry.load()
        except Exception as error:  # somebody else's package must not take ours with it
            text = f"the strategies of {entry.value} cannot be loaded: {type(error).__name__}: {error}"
            warnings.warn(text, stacklevel=2)
