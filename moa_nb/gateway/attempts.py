"""A call to a service: asked within the budget and the limits, as often as it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from moa_nb.chat import Completion, Request
from moa_nb.errors import MoaError, ServiceError, nearest
from moa_nb.gateway.budget import Budget
from moa_nb.gateway.http import Answer, Failed, Http
from moa_nb.gateway.limits import Priority
from moa_nb.gateway.refusal import error_of, fault_from, said, without_keys
from moa_nb.gateway.retry import Fault, FaultKind, RetryPolicy
from moa_nb.gateway.route import Route, authorized
from moa_nb.providers.wire import WIRES, Stream
from moa_nb.settings import Provider, Settings

__all__ = ["Attempts", "Call", "Watch"]

_UNPAID = frozenset({"rate limit", "server", "unreachable", "moved", "final"})
"""Faults of calls that no service bills."""


class Watch(Protocol):
    """Who wants to know how one call goes on. All methods return at once."""

    def sent(self, attempt: int) -> None:
        """The request went out."""

    def piece(self, text: str) -> None:
        """A piece of the answer came in."""

    def again(self, reason: str, wait_seconds: float) -> None:
        """The attempt failed and is repeated after a wait."""


@dataclass
class Call:
    """One call on its way. Moments are those of the gateway's clock."""

    request: Request
    route: Route
    body: bytes
    priority: Priority
    budget: Budget | None
    watch: Watch | None
    worst: float = 0.0
    """The most dollars that an attempt can cost."""
    asked: float = 0.0
    sent: float = 0.0
    """When the first attempt went out."""
    began: float = 0.0
    """When the latest attempt went out."""
    attempts: int = 0
    fault: Fault | None = None
    """What ended the latest attempt."""
    failing_since: float = 0.0
    patience: float = 0.0
    """Seconds that the service asked to wait."""


class Attempts:
    """Asks services on one event loop.

    Args:
        settings: timeouts and deadlines.
        http: gives the loop's connections.
        retry: when to ask again.
        clock: seconds, never going back.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        settings: Settings,
        http: Callable[[], Http],
        retry: RetryPolicy,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._settings, self._http, self._retry = settings, http, retry
        self._clock, self._sleep = clock, sleep
        self._answering: set[str] = set()
        """Base URLs that have answered in this session."""

    async def ask(self, call: Call) -> Completion:
        """Return the service's completion.

        Raises:
            MoaError: there is none.
        """
        call.worst = call.route.worst(call.request, call.body) if call.budget else 0.0
        call.asked = self._clock()
        while True:
            outcome = await self._try(call)
            if isinstance(outcome, Completion):
                return outcome
            is_streamed = call.watch is not None
            if outcome.status == 400 and call.route.learn(outcome.message, call.body, is_streamed=is_streamed):
                continue
            wait_seconds = await self._wait_after(call, outcome)
            if call.watch:
                call.watch.again(outcome.message, wait_seconds)
            await self._sleep(wait_seconds)

    async def _try(self, call: Call) -> Completion | Fault:
        """Return what one attempt brings, once the budget and the limits let it go out."""
        route, budget = call.route, call.budget
        headers = route.headers()
        reserved = await budget.reserve(call.worst, call.priority) if budget else 0.0
        paid: float | None = 0.0
        try:
            await route.limiter.acquire(call.priority)
            try:
                call.began = began = self._clock()
                if call.fault is None:
                    call.sent = began
                remaining = self._settings.deadline - (began - call.sent)
                if call.fault is not None and remaining <= 0:
                    raise await self._error(call, call.fault, is_late=True)
                call.attempts += 1
                if call.watch:
                    call.watch.sent(call.attempts)
                paid = None
                completion, first = await self._once(call, headers, min(self._settings.timeout, remaining))
                completion = route.accounted(call.request, completion)
                paid = None if completion.usage.estimated else completion.cost
                route.limiter.answered()
                self._answering.add(route.provider.base_url)
                return replace(
                    completion,
                    seconds=self._clock() - call.asked,
                    queued_seconds=call.sent - call.asked,
                    first_token_seconds=None if first is None else first - call.asked,
                    attempts=call.attempts,
                )
            except Failed as failed:
                fault = failed.fault
                if fault.kind in _UNPAID:
                    paid = 0.0
                if fault.kind == "rate limit":
                    # Longer than a call may take, nobody would wait for.
                    pause = min(fault.retry_after_seconds or 0.0, self._settings.deadline)
                    route.limiter.refused(pause, self._clock() - began)
                return fault
            finally:
                route.limiter.release()
        finally:
            if budget:
                budget.settle(reserved, paid)

    async def _once(self, call: Call, headers: dict[str, str], seconds: float) -> tuple[Completion, float | None]:
        """Return the completion of one request, and when its first piece came."""
        route, watch = call.route, call.watch
        first: float | None = None
        sent = route.sent(call.body, is_streamed=watch is not None)
        if watch is None:
            answer: Answer | None = await self._http().post(route.url, headers, sent, seconds)
        else:
            stream = route.wire.new_stream()

            def on_events(events: list[bytes]) -> bool:
                nonlocal first
                piece = _fed(route, stream, events)
                if piece:
                    if first is None:
                        first = self._clock()
                    watch.piece(piece)
                return stream.is_over

            answer = await self._http().stream(route.stream_url, headers, sent, seconds, on_events)
            if answer is None:
                name = route.provider.name
                if stream.error is not None:
                    # What was written before it may be billed, though nobody says so.
                    kind: FaultKind = "disconnected" if stream.has_begun else "server"
                    raise Failed(Fault(kind, f"{name} broke off: {said(route.wire, stream.error, headers)}"))
                if not stream.is_whole:
                    raise Failed(Fault("disconnected", f"{name} broke off in the middle of the answer"))
                return stream.completion(), first
        assert answer is not None
        return _parsed(route, answer, headers), first

    async def _wait_after(self, call: Call, fault: Fault) -> float:
        """Return the seconds until the call is asked again.

        Raises:
            MoaError: it is not.
        """
        base_url = call.route.provider.base_url
        if fault.status is not None:
            self._answering.add(base_url)
        if call.fault is None:
            call.failing_since = call.began
        call.fault = fault
        now = self._clock()
        decision = self._retry.decide(
            fault,
            attempt=call.attempts,
            failing_seconds=now - call.failing_since - call.patience,
            ever_answered=base_url in self._answering,
        )
        if decision.wait_seconds is None:
            raise await self._error(call, fault)
        if now + decision.wait_seconds - call.sent > self._settings.deadline:
            raise await self._error(call, fault, is_late=True)
        if fault.retry_after_seconds:
            call.patience += decision.wait_seconds
        return decision.wait_seconds

    async def _error(self, call: Call, fault: Fault, *, is_late: bool = False) -> MoaError:
        route = call.route
        return error_of(
            route,
            fault,
            call.attempts,
            ever_answered=route.provider.base_url in self._answering,
            near=await self._near(route) if fault.cause == "model" else "",
            late_after=self._settings.deadline if is_late else None,
        )

    async def _near(self, route: Route) -> str:
        try:
            names = await self.list_models(route.provider)
        except MoaError:
            return f"and it lists no models: mend providers.{route.provider.name}.base_url, which often ends in /v1"
        if route.model in names:
            return "it is listed, but this key may not use it"
        return nearest(route.model, names)

    async def list_models(self, provider: Provider) -> list[str]:
        """Return the names of the models that a service lists.

        Raises:
            ServiceError: it lists none.
        """
        wire = WIRES[provider.wire]
        headers = authorized(provider, provider.key())
        try:
            answer = await self._http().get(wire.models_url(provider.base_url), headers, seconds=10)
            if answer.status == 200:
                return wire.models(answer.body)
            words = said(wire, answer.body, headers) or f"status {answer.status}"
        except (Failed, ValueError, TypeError) as error:
            words = without_keys(str(error), headers)
        msg = f"{provider.name} lists no models: {words}"
        raise ServiceError(msg)


def _parsed(route: Route, answer: Answer, headers: dict[str, str]) -> Completion:
    if answer.status != 200:
        raise Failed(fault_from(route.wire, answer, headers))
    name = route.provider.name
    try:
        return route.wire.parse(answer.body)
    except ValueError:
        if "html" in answer.headers.get("Content-Type", "").lower():
            raise Failed(Fault("web page", f"{name} sent a web page, not an answer")) from None
        words = said(route.wire, answer.body, headers)
        raise Failed(Fault("malformed", f"{name} sent no answer but: {words:.200}")) from None


def _fed(route: Route, stream: Stream, events: list[bytes]) -> str:
    try:
        return stream.feed(events)
    except ValueError:
        raise Failed(Fault("malformed", f"{route.provider.name} sent something that is not JSON")) from None
