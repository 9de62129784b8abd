"""Python functions as agents: whatever takes a prompt and returns a text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moa_nb.chat import Completion, Request
from moa_nb.errors import MoaError, RowError, UnknownName, nearest

__all__ = ["Function", "agent", "answer", "find", "registered"]

_registered: dict[str, Function] = {}


@dataclass(frozen=True)
class Function:
    """A function under a name, and the version under which its answers may be kept."""

    name: str
    call: Callable[..., Any]
    version: str | None = None
    """Answers are cached only under a version; ``None``: called every time."""


def agent(name: str | None = None, *, version: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that makes a function known as ``function:NAME``.

    The function takes the prompt, and by name whatever else it wants: ``messages``, ``references``
    (the answers of earlier agents), ``request``. It returns a text, or a ``Completion``. It may be
    ``async``. Its answers are kept only under a ``version``, which you change with the function.

    >>> @agent("shout")
    ... def shout(prompt):
    ...     return prompt.upper()
    >>> find("shout").call("hello")
    'HELLO'
    """

    def register(call: Callable[..., Any]) -> Callable[..., Any]:
        known = Function(name or str(getattr(call, "__name__", "function")), call, version)
        _registered[known.name] = known
        return call

    return register


def registered() -> list[str]:
    """Return the names of the registered functions."""
    return sorted(_registered)


def find(name: str) -> Function:
    """Return the registered function of a name.

    Raises:
        UnknownName: there is none.
    """
    try:
        return _registered[name]
    except KeyError:
        msg = f"no function {name!r}; {nearest(name, _registered)} Register one with @moa.agent({name!r})"
        raise UnknownName(msg) from None


def of(request: Request) -> Function:
    """Return the function that answers a request: the one it carries, or the registered one."""
    name = request.model.partition(":")[2]
    if request.function is None:
        return find(name)
    known = _registered.get(name)
    return known if known and known.call is request.function else Function(name, request.function)


async def answer(request: Request, run_in_thread: Callable[..., Any]) -> Completion:
    """Return what the function answers; a sync one runs in a thread, so that it blocks nobody.

    Raises:
        RowError: it raised, or returned something that is not a text.
    """
    function = of(request)
    offered = {"messages": request.messages, "references": request.references, "request": request}
    users = [message.content for message in request.messages if message.role == "user"]
    prompt = users[-1] if users else ""
    try:
        wanted = inspect.signature(function.call).parameters
        named = {name: offered[name] for name in wanted if name in offered}
        positional = () if wanted and next(iter(wanted)) in offered else (prompt,)
        if inspect.iscoroutinefunction(function.call):
            value = await function.call(*positional, **named)
        else:
            value = await run_in_thread(function.call, *positional, **named)
            if inspect.isawaitable(value):
                value = await value
    except MoaError:
        raise
    except Exception as error:
        msg = f"function {function.name!r} raised {type(error).__name__}: {error}"
        raise RowError(msg) from error
    if isinstance(value, Completion):
        return value
    if not isinstance(value, str):
        msg = f"function {function.name!r} returned {type(value).__name__}; an agent returns a text"
        raise RowError(msg)
    return Completion(text=value, model=request.model, finish_reason="stop", cost=0.0)
