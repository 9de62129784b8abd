"""One exchange with a service: a request goes out, an answer is read, plain or as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from moa_nb.chat import Completion
from moa_nb.gateway.http import Failed, Http
from moa_nb.gateway.refusal import fault_from, said
from moa_nb.gateway.retry import Fault, FaultKind
from moa_nb.gateway.route import Route
from moa_nb.providers.wire import Answer, Stream

__all__ = ["Exchange", "Watch", "exchange", "parsed"]


class Watch(Protocol):
    """Who wants to know how one call goes on. All methods return at once."""

    def sent(self, attempt: int) -> None:
        """The request went out."""

    def piece(self, text: str) -> None:
        """A piece of the answer came in."""

    def again(self, reason: str, wait_seconds: float) -> None:
        """The attempt failed and is repeated after a wait."""


class Exchange(NamedTuple):
    """What came back."""

    completion: Completion
    first_at: float | None
    """The moment of the first piece; ``None`` when not streamed."""
    headers: Mapping[str, str]


async def exchange(
    http: Callable[[], Http],
    route: Route,
    body: bytes,
    headers: dict[str, str],
    seconds: float,
    watch: Watch | None,
    clock: Callable[[], float],
) -> Exchange:
    """Return what a service answers to one request; streamed where somebody watches.

    Raises:
        Failed: it gave no whole answer within ``seconds``.
    """
    carrier = route.wire.bridge or http()
    if watch is None:
        answer = await carrier.post(route.url, headers, body, seconds)
        return Exchange(parsed(route, answer, headers), None, answer.headers)
    first: float | None = None
    stream = route.wire.new_stream()

    def on_events(events: list[bytes]) -> bool:
        nonlocal first
        piece = _fed(route, stream, events)
        if piece:
            if first is None:
                first = clock()
            watch.piece(piece)
        return stream.is_over

    answer = await carrier.stream(route.stream_url, headers, body, seconds, on_events)
    if not answer.is_stream:
        return Exchange(parsed(route, answer, headers), first, answer.headers)
    name = route.provider.name
    if stream.error is not None:
        status = None if stream.has_begun else route.wire.status(stream.error)
        if status is not None:
            raise Failed(fault_from(route.wire, Answer(status, answer.headers, stream.error), headers))
        # What was written before it may be billed, though nobody says so.
        kind: FaultKind = "disconnected" if stream.has_begun else "server"
        raise Failed(Fault(kind, f"{name} broke off: {said(route.wire, stream.error, headers)}"))
    if not stream.is_whole:
        raise Failed(Fault("disconnected", f"{name} broke off in the middle of the answer"))
    return Exchange(stream.completion(), first, answer.headers)


def parsed(route: Route, answer: Answer, headers: dict[str, str]) -> Completion:
    """Return the completion of a whole answer.

    Raises:
        Failed: it is an error, or no answer at all.
    """
    if answer.status != 200:
        raise Failed(fault_from(route.wire, answer, headers))
    name = route.provider.name
    try:
        return route.wire.parse(answer.body)
    except ValueError:
        if "html" in answer.headers.get("Content-Type", "").lower():
            raise Failed(Fault("web page", f"{name} sent a web page, not an answer")) from None
        status = route.wire.status(answer.body)
        if status is not None:
            # The error of a service behind it, sent as an answer that went well.
            raise Failed(fault_from(route.wire, answer._replace(status=status), headers)) from None
        words = said(route.wire, answer.body, headers)
        raise Failed(Fault("malformed", f"{name} sent no answer but: {words:.200}")) from None


def _fed(route: Route, stream: Stream, events: list[bytes]) -> str:
    try:
        return stream.feed(events)
    except ValueError:
        raise Failed(Fault("malformed", f"{route.provider.name} sent something that is not JSON")) from None
