"""A call to a service: asked within the budget and the limits, as often as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from moa_nb.chat import Completion, Request, Usage
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


@dataclass(slots=True)
class Call:
    """One call on its way. Moments are those of the gateway's clock."""

    request: Request
    route: Route
    body: bytes
    priority: Priority
    budget: Budget | None
    watch: Watch | None
    key: bytes | None
    """What equal calls share; ``None`` where answers must not be shared."""
    cut_key: bytes | None
    """Where an answer is kept that the budget's own ceiling cut off."""
    worst: float = 0.0
    """The most that an attempt can take of the budget."""
    tokens: int = 0
    """About what an attempt takes of the service's tokens a minute."""
    asked: float = 0.0
    sent: float = 0.0
    """When the first attempt went out."""
    began: float = 0.0
    """When the latest attempt went out."""
    sent_body: bytes = b""
    """What the latest attempt sent."""
    attempts: int = 0
    unreported: int = 0
    """Attempts that may be billed though nobody reported them."""
    fault: Fault | None = None
    """What ended the latest attempt."""
    failing_since: float = 0.0
    patience: float = 0.0
    """Seconds that the service asked to wait."""


class Attempts:
    """Asks services on one event loop.

    Args:
        settings: timeouts, deadlines, and whether stragglers are asked once more.
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
        route = call.route
        if call.budget is not None:
            call.worst = _worst(call, call.budget)
        call.tokens = len(call.body) // 4 + (call.request.sampling.max_tokens or 0)
        call.asked = self._clock()
        attempt = self._hedged if self._settings.hedge and call.watch is None else self._try
        try:
            while True:
                outcome = await attempt(call)
                if isinstance(outcome, Completion):
                    # The overtaken twin of a hedged attempt is counted only now.
                    return replace(outcome, unreported=call.unreported) if call.unreported else outcome
                is_streamed = call.watch is not None
                if outcome.status in {400, 422} and route.learn(
                    outcome.message, call.sent_body, call.body, is_streamed=is_streamed
                ):
                    continue
                wait_seconds = await self._wait_after(call, outcome)
                if call.watch is not None:
                    call.watch.again(outcome.message, wait_seconds)
                await self._sleep(wait_seconds)
        except MoaError as error:
            error.unreported = call.unreported
            raise

    async def _try(self, call: Call) -> Completion | Fault:
        """Return what one attempt brings, once the budget and the limits let it go out."""
        route, budget, limiter = call.route, call.budget, call.route.limiter
        headers = route.headers(self._clock())
        if budget is not None and not budget.try_reserve(call.worst, call.priority):
            await budget.reserve(call.worst, call.priority)
        paid: float | None = 0.0
        try:
            if not limiter.try_acquire(call.tokens):
                await limiter.acquire(call.priority, call.tokens)
            try:
                began = call.began = self._clock()
                if not call.attempts:
                    call.sent = began
                remaining = self._settings.deadline - (began - call.sent)
                if call.fault is not None and remaining <= 0:
                    raise await self._error(call, call.fault, is_late=True)
                call.attempts += 1
                if call.watch is not None:
                    call.watch.sent(call.attempts)
                paid = None
                completion, first, answer_headers = await self._once(
                    call, headers, min(self._settings.timeout, remaining)
                )
                usage, cost = route.accounted(call.request, completion)
                if budget is not None and (completion.cost is not None or not usage.estimated):
                    paid = _paid(budget, usage, cost)
                now = self._clock()
                limiter.answered(now - began, usage.total_tokens, answer_headers)
                route.seconds.append(now - began)
                self._answering.add(route.base_url)
                # In full: ``replace`` takes twice as long.
                return Completion(
                    completion.text,
                    completion.model,
                    completion.finish_reason,
                    usage,
                    cost,
                    now - call.asked,
                    None if first is None else first - call.asked,
                    call.sent - call.asked,
                    call.attempts,
                    reasoning=completion.reasoning,
                    note=completion.note,
                )
            except Failed as failed:
                fault = failed.fault
                if fault.kind in _UNPAID:
                    paid = 0.0
                else:
                    call.unreported += 1
                if fault.kind == "rate limit":
                    # Longer than a call may take, nobody would wait for.
                    pause = min(fault.retry_after_seconds or 0.0, self._settings.deadline)
                    limiter.refused(pause, self._clock() - began)
                return fault
            except asyncio.CancelledError:
                call.unreported += 1
                raise
            finally:
                limiter.release()
        finally:
            if budget is not None:
                budget.settle(call.worst, paid)

    async def _hedged(self, call: Call) -> Completion | Fault:
        """Return what the quicker of two attempts brings; the second one goes out when the first is late.

        (Dean and Barroso 2013, "The Tail at Scale", hedged requests: after the 95th percentile of what calls
        take, so that about one in twenty is asked twice.)
        """
        began_with = call.attempts
        tasks = [asyncio.ensure_future(self._try(call))]
        try:
            while not tasks[0].done():
                late = call.route.late_seconds
                if late is not None and call.attempts > began_with:
                    late -= self._clock() - call.began
                    if late <= 0:
                        tasks.append(asyncio.ensure_future(self._try(call)))
                        break
                await asyncio.wait(tasks, timeout=late)
            return await _first_answer(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _once(
        self, call: Call, headers: dict[str, str], seconds: float
    ) -> tuple[Completion, float | None, Mapping[str, str]]:
        """Return the completion of one request, when its first piece came, and the headers above it."""
        route, watch = call.route, call.watch
        sent = call.sent_body = route.sent(call.body, is_streamed=watch is not None)
        carrier = route.wire.bridge or self._http()
        if watch is None:
            answer = await carrier.post(route.url, headers, sent, seconds)
            return _parsed(route, answer, headers), None, answer.headers
        first: float | None = None
        stream = route.wire.new_stream()

        def on_events(events: list[bytes]) -> bool:
            nonlocal first
            piece = _fed(route, stream, events)
            if piece:
                if first is None:
                    first = self._clock()
                watch.piece(piece)
            return stream.is_over

        answer = await carrier.stream(route.stream_url, headers, sent, seconds, on_events)
        if not answer.is_stream:
            return _parsed(route, answer, headers), first, answer.headers
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
        return stream.completion(), first, answer.headers

    async def _wait_after(self, call: Call, fault: Fault) -> float:
        """Return the seconds until the call is asked again.

        Raises:
            MoaError: it is not.
        """
        base_url = call.route.base_url
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
            ever_answered=route.base_url in self._answering,
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
        carrier = wire.bridge or self._http()
        url: str | None = wire.models_url(provider.base_url)
        names: set[str] = set()
        try:
            while url is not None:
                answer = await carrier.get(url, headers, seconds=10)
                if answer.status != 200:
                    break
                names.update(wire.models(answer.body))
                url = wire.next_page(url, answer.body)
            else:
                return sorted(names)
            words = said(wire, answer.body, headers) or f"status {answer.status}"
        except (Failed, ValueError, TypeError) as error:
            words = without_keys(str(error), headers)
        msg = f"{provider.name} lists no models: {words}"
        raise ServiceError(msg)


async def _first_answer(tasks: Collection[asyncio.Task[Completion | Fault]]) -> Completion | Fault:
    """Return the first completion, or what the last of the tasks brings where there is none.

    Raises:
        MoaError: each of them does.
    """
    pending: set[asyncio.Task[Completion | Fault]] = set(tasks)
    fault: Fault | None = None
    error: MoaError | None = None
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            try:
                outcome = task.result()
            except MoaError as raised:
                error = raised
                continue
            if isinstance(outcome, Completion):
                return outcome
            fault = outcome
    if fault is not None:
        return fault
    assert error is not None
    raise error


def _worst(call: Call, budget: Budget) -> float:
    """Return the most that one attempt can take of a budget."""
    match budget.unit:
        case "dollars":
            return call.route.worst(call.request, call.body)
        case "tokens":
            return sum(call.route.most_tokens(call.request, call.body))
        case "calls":
            return 1


def _paid(budget: Budget, usage: Usage, cost: float | None) -> float | None:
    """Return what a served attempt took of a budget; ``None`` where the service did not say."""
    match budget.unit:
        case "dollars":
            return cost
        case "tokens":
            return usage.total_tokens
        case "calls":
            return 1


def _parsed(route: Route, answer: Answer, headers: dict[str, str]) -> Completion:
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
