"""What a service says when it does not answer, in one line that says what to do, and never a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from moa_nb.errors import KeyRejected, MoaError, RowError, ServiceError, SetupError, UnknownName
from moa_nb.gateway.http import Answer, fault_of
from moa_nb.gateway.retry import Fault
from moa_nb.gateway.route import Route
from moa_nb.plain import one_line
from moa_nb.providers.refusals import overflow
from moa_nb.providers.secrecy import secrets, without
from moa_nb.providers.wire import Wire, cause

__all__ = ["error_of", "fault_from", "said", "without_keys"]

_LONGEST_MESSAGE = 600
"""Characters of a service's own words that an error repeats."""

_LONGEST_READ = 20 * _LONGEST_MESSAGE
"""Characters that are looked through for keys: some services repeat all that they were sent."""


def fault_from(wire: Wire, answer: Answer, headers: Mapping[str, str]) -> Fault:
    """Return what an answer with an error status means."""
    words = said(wire, answer.body, headers) or f"status {answer.status}"
    fault = fault_of(answer, words, cause(answer.status, *wire.said(answer.body)))
    waits = [fault.retry_after_seconds, wire.retry_after(answer.body)]
    if fault.kind in {"rate limit", "server"}:
        # Where header and body contradict each other, the later moment is the safe one.
        fault = replace(fault, retry_after_seconds=max((wait for wait in waits if wait is not None), default=None))
    return fault


def error_of(
    route: Route, fault: Fault, attempts: int, *, ever_answered: bool, near: str, late_after: float | None
) -> MoaError:
    """Return the error that a call ends with.

    Args:
        route: where it went.
        fault: what ended the last attempt.
        attempts: how many there were.
        ever_answered: whether the server has answered anybody in this session.
        near: half a sentence on the models that there are.
        late_after: the call's seconds, if these are what is over.
    """
    error = _error(route, fault, f" ({attempts} tries)" if attempts > 1 else "", ever_answered, near, late_after)
    error.attempts = attempts
    return error


def _error(
    route: Route, fault: Fault, tries: str, ever_answered: bool, near: str, late_after: float | None
) -> MoaError:
    provider, status, words = route.provider, fault.status, fault.message
    name = provider.name
    if fault.kind in {"unreachable", "moved"} or (fault.kind == "web page" and not ever_answered):
        return _address_error(name, fault, tries, ever_answered)
    if fault.cause == "key":
        return KeyRejected(f"{name} refuses the key ({status}): {words}; {_key_advice(route, fault)}")
    if fault.cause == "payment":
        return SetupError(f"{name} wants payment ({status}): {words}")
    if fault.cause == "model":
        return UnknownName(f"{name} has no {route.model!r} ({status}): {words}; {near}")
    if fault.kind == "final" and status is None:
        return SetupError(f"{name}: {words}")
    if fault.cause == "option":
        return SetupError(f"{name} does not take an option for {route.model!r} ({status}): {words}")
    if fault.cause == "context":
        return RowError(f"{name}: too long for {route.model!r} ({status}){_lengths(words)}: {words}; shorten it")
    if fault.kind == "final":
        return RowError(f"{name} refuses the request ({status}): {words}")
    if late_after is not None:
        return ServiceError(f"{name}: {words}{tries}; the call's {late_after:g} s are over")
    code = f" ({status})" if status else ""
    return ServiceError(f"{name} goes on failing{code}: {words}{tries}")


def _key_advice(route: Route, fault: Fault) -> str:
    variable = route.provider.key_env
    if route.wire.bridge is not None:
        return f"{route.provider.name} reads its keys from the environment, by its own names"
    if not variable:
        return f"name its variable as providers.{route.provider.name}.key_env"
    return f"check the variable {variable}" if fault.status != 403 else f"see what the key in {variable} may do"


def _lengths(words: str) -> str:
    """Return how long the request was and how long it may be, as far as the service says."""
    context, prompt = overflow(words)
    said = (f"it has {prompt:,} tokens" if prompt else "", f"{context:,} fit" if context else "")
    return "".join(f", {part}" for part in said if part)


def _address_error(name: str, fault: Fault, tries: str, ever_answered: bool) -> MoaError:
    """Return the error of a call whose address is likely wrong."""
    words, mend = fault.message, f"mend providers.{name}.base_url"
    if fault.kind == "moved":
        return SetupError(f"{name} does not answer at its address ({fault.status}): {words}; {mend}")
    if fault.kind == "web page":
        return SetupError(f"{words}{tries}; {mend} (it often ends in /v1)")
    msg = f"{name}: {words}{tries}; start it, or {mend}"
    return ServiceError(msg) if ever_answered else SetupError(msg)


def said(wire: Wire, body: bytes, headers: Mapping[str, str]) -> str:
    """Return what a service said, as far as people may read it."""
    message, code = wire.said(body)
    if code and code not in message:
        message = f"{message} [{code}]" if message else code
    # Cleaned first: a key that is broken up by such characters would not be found.
    text = without_keys(one_line(message[:_LONGEST_READ]), headers)
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def without_keys(text: str, headers: Mapping[str, str]) -> str:
    """Return the text without the keys that were sent; before it is shortened, which could leave half of one."""
    return without(text, secrets(headers))
