"""Python functions as agents: whatever takes a prompt and returns a text."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import math
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from moa_nb.chat import Completion, Request, Usage
from moa_nb.errors import MoaError, RowError, SetupError, UnknownName, nearest
from moa_nb.plain import quoted
from moa_nb.providers.shared import dumps

__all__ = [
    "NO_TOKENS",
    "Function",
    "agent",
    "answer",
    "call",
    "declared_cost",
    "find",
    "in_daemon_thread",
    "name_of",
    "of",
    "registered",
    "registration",
]

NO_TOKENS = Usage(0, 0)
"""What a text takes: itself, and no other usage, tells an answer that reports nothing."""

_registered: dict[str, Function] = {}


@dataclass(frozen=True)
class Function:
    """A function under a name, and the version under which its answers may be kept."""

    name: str
    call: Callable[..., Any]
    version: str | None = None
    """Answers are cached only under a version; ``None``: called every time."""
    cost: float | None = None
    """The most dollars that a call takes; ``None``: nobody said."""


def agent(
    name: str | None = None, *, version: str | None = None, cost: float | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that makes a function known as ``function:NAME``.

    The function takes the prompt, and by name whatever else it wants: ``messages``, ``references``
    (the answers of earlier agents), ``prompt``, ``request``. It returns a text, or a ``Completion``. It may be
    ``async``. Its answers are kept only under a ``version``, which you change with the function; two functions that
    are made alike need two names.

    A text costs nothing and takes no tokens. A function that asks paid models itself returns a ``Completion`` with its
    cost and usage, and says as ``cost`` the most dollars that one call takes: under a budget that much is set aside
    before each call, and becomes what was reported, or stays where nothing was. Without ``cost`` no budget in dollars
    can hold what is known only afterwards: under one, functions of which nothing is known are called one at a time,
    and the first that returns a ``Completion`` ends the run with a ``SetupError``, as does a call that took more than
    was set aside. In tokens, ``max_tokens`` and the length of the prompt are set aside, as for a model.

    Where fields are asked for, it can take their JSON schema, a dict, as ``schema``, and may return them as they are:
    a dict, a list, a number, a bool, ``None``, a dataclass or a pydantic model.

    >>> @agent("shout")
    ... def shout(prompt):
    ...     return prompt.upper()
    >>> find("shout").call("hello")
    'HELLO'

    Raises:
        SetupError: ``cost`` is no number of dollars, or the function was given in place of a name.
    """
    if callable(name):
        called = getattr(name, "__name__", type(name).__name__)
        msg = f"moa.agent is called with a name: write it as @moa.agent({called!r})"
        raise SetupError(msg)
    if cost is not None and not (isinstance(cost, int | float) and 0 <= cost < math.inf):
        msg = f"cost is the most dollars of a call, such as 0.01, not {quoted(cost, 40)}"
        raise SetupError(msg)

    def register(call: Callable[..., Any]) -> Callable[..., Any]:
        known = Function(name or str(getattr(call, "__name__", "function")), call, version, cost)
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
        meant = nearest(name, registered())
        msg = (
            f"no function {name!r}; {meant}{'' if meant.endswith('?') else '.'} Register one with @moa.agent({name!r})"
        )
        raise UnknownName(msg) from None


def declared_cost(name: str) -> float | None:
    """Return the most dollars that a call of a registered function takes; ``None`` where nobody said."""
    known = _registered.get(name)
    return None if known is None else known.cost


def registration(call: Callable[..., Any]) -> Function | None:
    """Return what a function is registered as; ``None`` if it is not."""
    # Copied: a cell may be registering another one while a run goes on.
    return next((known for known in [*_registered.values()] if known.call is call), None)


def name_of(call: Callable[..., Any]) -> str | None:
    """Return the name that a function is registered under; ``None`` if it is not."""
    known = registration(call)
    return None if known is None else known.name


def of(request: Request) -> Function:
    """Return the function that answers a request: the one it carries, or the registered one."""
    name = request.model.partition(":")[2]
    if request.function is None:
        return find(name)
    return registration(request.function) or Function(name, request.function)


async def answer(request: Request, run_in_thread: Callable[..., Awaitable[Any]]) -> Completion:
    """Return what the function answers; a sync one runs in a thread, so that it blocks nobody.

    A call that says nothing of its cost takes what was declared. A text takes no tokens.

    Raises:
        RowError: it raised, or returned something that is not a text, nor JSON where the request has a schema.
        SetupError: it takes something else than a prompt.
    """
    function = of(request)
    value = await _guarded(function, _call(function, request, run_in_thread))
    if isinstance(value, Completion):
        return value if value.cost is not None else replace(value, cost=function.cost)
    text = value if isinstance(value, str) else _text(function, value, request)
    return Completion(text, request.model, "stop", NO_TOKENS, cost=function.cost or 0.0)


def _text(function: Function, value: Any, request: Request) -> str:
    """Return what a function returned as JSON, for a request that asks for that.

    Raises:
        RowError: it does not, or there is no JSON for it.
    """
    if request.schema is None:
        msg = f"function {function.name!r} returned {type(value).__name__}; an agent returns a text"
        raise RowError(msg)
    from pydantic_core import to_jsonable_python

    try:
        return dumps(to_jsonable_python(value, fallback=_plain)).decode()
    except (TypeError, ValueError) as error:
        msg = f"function {function.name!r} returned {type(value).__name__}, which is no JSON: {error}"
        raise RowError(msg) from None


def _plain(value: Any) -> Any:
    """Return numpy's numbers and arrays as Python's.

    Raises:
        TypeError: it is none of them.
    """
    to_list = getattr(value, "tolist", None)
    if not callable(to_list):
        raise TypeError(type(value).__name__)
    return to_list()


async def call(function: str | Callable[..., Any], *arguments: Any, **offered: Any) -> Any:
    """Return what a function, or the registered one of a name, returns; a sync one runs in a thread of its own.

    Args:
        function: such as a router or a scorer in a pipeline's parameters.
        *arguments: what it gets.
        **offered: what it gets besides if it takes it by name.

    Raises:
        RowError: it raised.
        UnknownName: no function has that name.
    """
    if isinstance(function, str):
        known = find(function)
    else:
        known = registration(function) or Function(getattr(function, "__name__", type(function).__name__), function)
    named = {name: offered[name] for name in _taken(known.call) if name in offered}
    return await _guarded(known, _run(known.call, arguments, named, in_daemon_thread))


async def _guarded(function: Function, answering: Awaitable[Any]) -> Any:
    """Return what the function returns.

    Raises:
        RowError: it raised.
    """
    try:
        return await answering
    except (MoaError, GeneratorExit):
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _raised(function, error) from error  # its own affair: nobody cancelled the run
    except BaseException as error:  # an agent that exits must not take the engine with it
        raise _raised(function, error) from error


async def _call(function: Function, request: Request, run_in_thread: Callable[..., Awaitable[Any]]) -> Any:
    users = [message.content for message in request.messages if message.role == "user"]
    offered = {
        "prompt": users[-1] if users else "",
        "messages": request.messages,
        "references": request.references,
        "request": request,
    }
    if request.schema is not None:
        offered["schema"] = orjson.loads(request.schema.json)
    wanted = _taken(function.call)
    named = {name: offered[name] for name in wanted if name in offered}
    positional = () if wanted and wanted[0] in offered else (offered["prompt"],)
    try:
        return await _run(function.call, positional, named, run_in_thread)
    except TypeError as error:
        if _takes(function.call, positional, named):
            raise
        msg = (
            f"function {function.name!r} cannot be called as an agent: {' '.join(str(error).split())}; it gets the prompt,"
            " and by name messages, references or request"
        )
        raise SetupError(msg) from error


def _takes(call: Callable[..., Any], positional: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether a function can be called so; ``True`` where it does not say."""
    try:
        inspect.signature(call).bind(*positional, **named)
    except ValueError:
        return True  # some builtins
    except TypeError:
        return False
    return True


def _taken(call: Callable[..., Any]) -> list[str]:
    """Return the names of what a function takes."""
    try:
        return list(inspect.signature(call).parameters)
    except (ValueError, TypeError):
        return []  # some builtins do not say it


async def _run(
    call: Callable[..., Any],
    positional: tuple[Any, ...],
    named: dict[str, Any],
    run_in_thread: Callable[..., Awaitable[Any]],
) -> Any:
    if inspect.iscoroutinefunction(call):
        return await call(*positional, **named)

    def outcome() -> tuple[Any, BaseException | None]:
        # A future cannot carry every exception (StopIteration), so none is left to it.
        try:
            return call(*positional, **named), None
        except BaseException as error:
            return None, error

    value, error = await run_in_thread(outcome)
    if error is not None:
        raise error
    return await value if inspect.isawaitable(value) else value


async def in_daemon_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what ``call`` returns in a thread of its own, which the interpreter's end does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return  # nobody waits any more
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def work() -> None:
        value, error = None, None
        try:
            value = context.run(call, *arguments)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="moa-function", daemon=True).start()
    return await done


def _raised(function: Function, error: BaseException) -> RowError:
    said = f": {' '.join(str(error).split())}" if str(error) else ""
    return RowError(f"function {function.name!r} raised {type(error).__name__}{said}")
