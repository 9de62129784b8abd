"""A call to a service: asked within the budget and the limits, as often as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from moa_nb.chat import Completion, Request
from moa_nb.errors import MoaError, ServiceError, nearest
from moa_nb.gateway.budget import Budget
from moa_nb.gateway.exchange import Exchange, Watch, exchange
from moa_nb.gateway.hedge import hedged
from moa_nb.gateway.http import Failed, Http
from moa_nb.gateway.limits import OutOfOrder, Priority
from moa_nb.gateway.prices import FREE
from moa_nb.gateway.refusal import error_of, said, without_keys
from moa_nb.gateway.retry import Fault, RetryPolicy
from moa_nb.gateway.route import Route, authorized
from moa_nb.options import Mode
from moa_nb.providers.wire import WIRES
from moa_nb.settings import Provider, Settings
from moa_nb.store import Store

__all__ = ["UNPAID", "Attempts", "Call", "Watch", "paid_of", "worst_of"]

UNPAID = frozenset({"rate limit", "server", "unreachable", "moved", "final"})
"""Faults of calls that no service bills."""

_SLOWER = 2.0
"""How many times ``retry_seconds`` a call may be held back besides, while its service is out of order."""

_OUT_OF_ORDER = frozenset({"server", "disconnected", "timeout", "unreachable"})
"""Faults that, one after the other, make an outage."""


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
    mode: Mode = "live"
    uses_kept: bool = False
    """Whether an answer of the store will do."""
    is_kept: bool = False
    """Whether its answer is in the store already."""
    worst: float = 0.0
    """The most that an attempt can take of the budget."""
    tokens: int = 0
    """About what an attempt takes of the service's tokens a minute."""
    asked: float = 0.0
    sent: float = 0.0
    """When the first attempt went out."""
    began: float = 0.0
    """When the latest attempt went out; of two at once, the second."""
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
    slowed: float = 0.0
    """Seconds for which it was held back here, so that a service that fails is not hammered."""

    def kept(self, store: Store) -> Completion | None:
        """Return the answer that the store has by now; ``None`` if it has none, or none of the store will do."""
        if not self.uses_kept or self.key is None or self.cut_key is None:
            return None
        return store.get(self.key) or (store.get(self.cut_key) if self.cut_key != self.key else None)

    def may_be_billed(self) -> None:
        """Return nothing; an attempt went out, and nobody will say what it took."""
        self.unreported += self.route.price is not FREE


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
            call.worst = worst_of(call, call.budget)
        call.tokens = len(call.body) // 4 + (call.request.sampling.max_tokens or 0)
        call.asked = self._clock()
        is_hedged = self._settings.hedge and call.watch is None
        try:
            while True:
                outcome = await (hedged(self._try, call, self._clock) if is_hedged else self._try(call))
                if isinstance(outcome, Completion):
                    # The overtaken twin of a hedged attempt is counted only now.
                    return replace(outcome, unreported=call.unreported) if call.unreported else outcome
                is_streamed = call.watch is not None
                if outcome.status in {400, 422, 500} and route.learn(
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
                await self._acquire(call)
            try:
                began = self._clock()
                seconds = await self._left(call, began)
                paid = None
                body = call.sent_body = route.sent(call.body, is_streamed=call.watch is not None)
                answered = await exchange(self._http, route, body, headers, seconds, call.watch, self._clock)
                completion = self._served(call, answered, began)
                is_said = answered.completion.cost is not None or not completion.usage.estimated
                paid = paid_of(budget, completion) if budget is not None and is_said else None
                return completion  # noqa: TRY300 - an ``else`` would be outside of what must be settled
            except Failed as failed:
                paid = self._faulted(call, failed.fault, began)
                return failed.fault
            except asyncio.CancelledError:
                call.may_be_billed()
                raise
            finally:
                limiter.release()
        finally:
            if budget is not None:
                budget.settle(call.worst, paid)

    async def _acquire(self, call: Call) -> None:
        """Return once the service's limits let the call go out.

        Raises:
            MoaError: the service has been out of order for too long, or for what is left of the call's own time.
        """
        limiter, began = call.route.limiter, self._clock()
        try:
            if call.fault is None:
                await limiter.acquire(call.priority, call.tokens)
                return
            left = self._longest - (began - call.failing_since - call.patience)
            async with asyncio.timeout(max(left, 0.0)):
                await limiter.acquire(call.priority, call.tokens)
            call.slowed += self._clock() - began
        except (OutOfOrder, TimeoutError):
            fault = call.fault or call.route.fault
            assert fault is not None
            raise await self.error(call, fault) from None

    @property
    def _longest(self) -> float:
        """The most seconds for which a call that meets faults is asked again, those included for which it is held back."""
        return self._retry.seconds * (1 + _SLOWER)

    async def _left(self, call: Call, began: float) -> float:
        """Return the seconds that an attempt may take, which begins now.

        Raises:
            MoaError: the call's deadline is over.
        """
        call.began = began
        if not call.attempts:
            call.sent = began
            call.route.retries.asked()
        remaining = self._settings.deadline - (began - call.sent)
        if call.fault is not None and remaining <= 0:
            raise await self.error(call, call.fault, is_late=True)
        call.attempts += 1
        if call.watch is not None:
            call.watch.sent(call.attempts)
        return min(self._settings.timeout, remaining)

    def _served(self, call: Call, answered: Exchange, began: float) -> Completion:
        """Return the completion of an attempt that began then, with what it took."""
        route, completion, now = call.route, answered.completion, self._clock()
        usage, cost = route.accounted(call.request, completion)
        route.limiter.answered(now - began, usage.total_tokens, answered.headers, expected=call.tokens)
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
            None if answered.first_at is None else answered.first_at - call.asked,
            call.sent - call.asked,
            call.attempts,
            reasoning=completion.reasoning,
            key=call.cut_key if completion.finish_reason == "length" else call.key,
            note=completion.note,
        )

    def _faulted(self, call: Call, fault: Fault, began: float) -> float | None:
        """Return what a failed attempt took of a budget: nothing, or ``None`` where it may be billed."""
        limiter, seconds = call.route.limiter, self._clock() - began
        if fault.kind == "rate limit":
            # Longer than a call may take, nobody would wait for.
            asked = fault.retry_after_seconds
            limiter.refused(None if asked is None else min(asked, self._settings.deadline), seconds, fault.headers)
        elif fault.kind in _OUT_OF_ORDER:
            call.route.fault = fault
            limiter.faulted(seconds)
            if limiter.failing_seconds >= self._longest:
                limiter.give_up()
        if fault.kind in UNPAID:
            return 0.0
        call.may_be_billed()
        return None

    async def _wait_after(self, call: Call, fault: Fault) -> float:
        """Return the seconds until the call is asked again.

        Raises:
            MoaError: it is not.
        """
        base_url = call.route.base_url
        if fault.status is not None:
            self._answering.add(base_url)
        now = self._clock()
        if call.fault is None:
            # A long answer that breaks off at last is asked for again; one that hung has held the others up enough.
            call.failing_since = call.began if fault.kind == "timeout" else now
        call.fault = fault
        decision = self._retry.decide(
            fault,
            attempt=call.attempts,
            failing_seconds=now - call.failing_since - call.patience - min(call.slowed, _SLOWER * self._retry.seconds),
            ever_answered=base_url in self._answering,
        )
        if decision.wait_seconds is None:
            raise await self.error(call, fault)
        if now + decision.wait_seconds - call.sent > self._settings.deadline:
            raise await self.error(call, fault, is_late=True)
        if fault.retry_after_seconds:
            call.patience += decision.wait_seconds
        if fault.kind == "rate limit":
            return decision.wait_seconds  # the limiter slows these
        slowed = max(call.route.retries.wait_seconds() - decision.wait_seconds, 0.0)
        call.slowed += slowed
        return decision.wait_seconds + slowed

    def answered(self, base_url: str) -> None:
        """Return nothing; a server is there, so that its silence later on is not a wrong address."""
        self._answering.add(base_url)

    def ever_answered(self, base_url: str) -> bool:
        """Return whether a server has answered anybody in this session."""
        return base_url in self._answering

    async def error(self, call: Call, fault: Fault, *, is_late: bool = False) -> MoaError:
        """Return the error that a call ends with."""
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


def worst_of(call: Call, budget: Budget) -> float:
    """Return the most that one attempt can take of a budget."""
    match budget.unit:
        case "dollars":
            return call.route.worst(call.request, call.body)
        case "tokens":
            return sum(call.route.most_tokens(call.request, call.body))
        case "calls":
            return 1


def paid_of(budget: Budget, completion: Completion) -> float | None:
    """Return what a served attempt took of a budget; ``None`` where the service did not say."""
    match budget.unit:
        case "dollars":
            return completion.cost
        case "tokens":
            return completion.usage.total_tokens
        case "calls":
            return 1
