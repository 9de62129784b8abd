"""One door for every call: what is known is not asked, what is asked is counted, what fails is asked again."""

from __future__ import annotations

import asyncio
import copy
import functools
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import orjson

from moa_nb import tokens
from moa_nb.chat import Completion, Request
from moa_nb.errors import (
    BudgetExceeded,
    KeyRejected,
    MoaError,
    RowError,
    ServiceError,
    SetupError,
    UnknownName,
    nearest,
)
from moa_nb.gateway.budget import Budget
from moa_nb.gateway.http import Answer, Failed, Http, fault_of
from moa_nb.gateway.limits import Limiter, Priority
from moa_nb.gateway.prices import FREE, Price, price_of
from moa_nb.gateway.retry import Fault, FaultKind, RetryPolicy
from moa_nb.providers import functions
from moa_nb.providers.wire import WIRES, Wire, cause
from moa_nb.settings import Provider, Settings
from moa_nb.store import Store

__all__ = ["CacheMode", "Gateway", "Watch"]

CacheMode = Literal["use", "refresh", "off"]
"""``use`` answers from the store where it can; ``refresh`` asks and keeps; ``off`` asks and keeps nothing."""

_OK = 200

_MOST_REFUSALS = 6
"""Options of one model that are left out one after the other, before its word is taken for the last."""
_UNPAID = frozenset({"rate limit", "server", "unreachable", "moved", "final"})
"""Faults of calls that no service bills."""
_LONGEST_MESSAGE = 600
"""Characters of a service's own words that an error repeats."""


class Watch(Protocol):
    """Who wants to know how one call goes on. All methods return at once."""

    def sent(self, attempt: int) -> None:
        """The request went out."""

    def piece(self, text: str) -> None:
        """A piece of the answer came in."""

    def again(self, reason: str, wait_seconds: float) -> None:
        """The attempt failed and is repeated after a wait."""


@dataclass
class _Route:
    """What all calls to one model share."""

    provider: Provider
    model: str
    """The model's name at its provider."""
    wire: Wire
    url: str
    stream_url: str
    identity: bytes
    """What tells this endpoint from others in the cache's key."""
    limiter: Limiter
    price: Price | None
    refusals: list[str] = field(default_factory=list)
    """What the service said of options that it does not take; they are left out from then on."""
    keyed: tuple[str | None, dict[str, str]] | None = None
    """The latest key and the headers made with it."""


@dataclass
class _Flight:
    """One call that several callers wait for; it is cancelled when the last one leaves."""

    task: asyncio.Task[Completion]
    budget: Budget | None
    """What it is paid from."""
    waiters: int = 0


@dataclass
class _Call:
    """One call on its way through its attempts. Moments are those of the gateway's clock."""

    request: Request
    route: _Route
    body: bytes
    priority: Priority
    budget: Budget | None
    watch: Watch | None
    worst: float
    """The most dollars that an attempt can cost."""
    asked: float
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


class Gateway:
    """The way of a call on one event loop.

    Args:
        settings: limits, prices and providers.
        store: where completions are looked up and kept.
        http: the loop's connections; its own if ``None``, which ``close`` then closes.
        clock: seconds, never going back.
        sleep: waits for seconds.
        retry: when to ask again; from the settings if ``None``.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        http: Http | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.settings, self.store = settings, store
        self._clock, self._sleep = clock, sleep
        self._retry = retry or RetryPolicy(seconds=settings.retry_seconds)
        self._shared_http = http
        self._own_http: Http | None = None
        self._routes: dict[str, _Route] = {}
        self._flights: dict[bytes, _Flight] = {}
        self._kept: set[bytes] = set()
        """Flights whose answer somebody wants to keep."""
        self._answering: set[str] = set()
        """Base URLs that have answered in this session."""
        self.verified: set[str] = set()
        """Models that have given an answer in this session, so that their setup is right."""

    @property
    def _http(self) -> Http:
        if self._shared_http is not None:
            return self._shared_http
        if self._own_http is None:
            self._own_http = Http()
        return self._own_http

    async def close(self) -> None:
        """Return once every connection of its own is closed."""
        http, self._own_http = self._own_http, None
        if http is not None:
            await http.close()

    # The stations of a call -------------------------------------------------------------------

    async def complete(
        self,
        request: Request,
        *,
        priority: Priority = (0, 0),
        budget: Budget | None = None,
        cache: CacheMode = "use",
        watch: Watch | None = None,
    ) -> Completion:
        """Return the completion of a request, from the cache, from an equal call in flight, or asked now.

        Raises:
            SetupError: key, model or address are wrong.
            RowError: the service refuses this request.
            ServiceError: it went on failing.
            BudgetExceeded: the request was not sent.
        """
        route = self.route(request.model)
        body = self._body(request, route)
        key = cut_key = self._key(request, route, body)
        if budget is not None and request.sampling.max_tokens is None:
            # Without a ceiling on the answer there is none on its price. It is no part of the question: only an
            # answer that it cut off is kept apart.
            request = self._bounded(request)
            body = self._body(request, route)
            cut_key = self._key(request, route, body)
        if key is None or cut_key is None:
            return await self._ask(request, route, body, priority, budget, watch)
        if cache == "use":
            known = self.store.get(key) or (self.store.get(cut_key) if cut_key != key else None)
            if known is not None:
                return known
        if cache != "off":
            self._kept.add(key)
        while (flight := self._flights.get(key)) is not None and not flight.task.done():
            try:
                return replace(await self._join(key, flight), cached=True, attempts=0)
            except MoaError as error:
                if isinstance(error, BudgetExceeded) and flight.budget is not budget:
                    continue  # the other run's money is gone, not this one's
                raise copy.copy(error) from None  # each run writes its own result on it
        task = asyncio.get_running_loop().create_task(
            self._fly(key, cut_key, request, route, body, priority, budget, watch)
        )
        flight = self._flights[key] = _Flight(task, budget)
        task.add_done_callback(functools.partial(self._land, key, flight))
        return await self._join(key, flight)

    def known(self, request: Request, *, bounded: bool) -> Completion | None:
        """Return the completion that the store has of a request; ``None`` if it would be asked.

        Args:
            request: what would be asked.
            bounded: whether there is a budget, under which an answer that was cut off is as good as it gets.
        """
        route = self.route(request.model)
        for asked in (request, self._bounded(request)) if bounded else (request,):
            key = self._key(asked, route, self._body(asked, route))
            completion = None if key is None else self.store.get(key)
            if completion is not None:
                return completion
        return None

    def _bounded(self, request: Request) -> Request:
        """Return the request with a ceiling on the answer, where it has none."""
        if request.sampling.max_tokens is not None:
            return request
        return replace(request, sampling=replace(request.sampling, max_tokens=self.settings.max_tokens))

    async def _fly(
        self,
        key: bytes,
        cut_key: bytes,
        request: Request,
        route: _Route,
        body: bytes,
        priority: Priority,
        budget: Budget | None,
        watch: Watch | None,
    ) -> Completion:
        completion = await self._ask(request, route, body, priority, budget, watch)
        if key in self._kept and completion.text.strip():
            await self.store.put(cut_key if completion.finish_reason == "length" else key, completion)
        return completion

    async def _join(self, key: bytes, flight: _Flight) -> Completion:
        """Return what the flight brings; the last one to be cancelled takes it down."""
        flight.waiters += 1
        try:
            await asyncio.wait((flight.task,))
        except asyncio.CancelledError:
            if flight.waiters == 1 and not flight.task.done():
                # Nobody may board what is about to be cancelled.
                self._land(key, flight, None)
                flight.task.cancel()
                # The connection is closed only once the task has seen its cancellation.
                await asyncio.wait((flight.task,))
            raise
        finally:
            flight.waiters -= 1
        return flight.task.result()

    def _land(self, key: bytes, flight: _Flight, task: asyncio.Task[Completion] | None) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
            self._kept.discard(key)
        if task is not None and not task.cancelled():
            task.exception()  # looked at, though nobody may be left to hear of it

    async def _ask(
        self,
        request: Request,
        route: _Route,
        body: bytes,
        priority: Priority,
        budget: Budget | None,
        watch: Watch | None,
    ) -> Completion:
        if route.provider.name == "offline":
            return await self._ask_offline(request)
        if route.provider.name == "function":
            return await self._ask_function(request, route, priority)
        return await self._ask_service(request, route, body, priority, budget, watch)

    async def _ask_offline(self, request: Request) -> Completion:
        from moa_nb.providers import offline

        started = self._clock()
        completion = await asyncio.to_thread(offline.answer, request)
        self.verified.add(request.model)
        return replace(completion, seconds=self._clock() - started, cost=0.0)

    async def _ask_function(self, request: Request, route: _Route, priority: Priority) -> Completion:
        await route.limiter.acquire(priority)
        started = self._clock()
        try:
            completion = await functions.answer(request, asyncio.to_thread)
        finally:
            route.limiter.release()
        self.verified.add(request.model)
        return replace(completion, seconds=self._clock() - started)

    async def _ask_service(
        self,
        request: Request,
        route: _Route,
        body: bytes,
        priority: Priority,
        budget: Budget | None,
        watch: Watch | None,
    ) -> Completion:
        worst = self._worst(request, route, body) if budget else 0.0
        call = _Call(request, route, body, priority, budget, watch, worst, asked=self._clock())
        while True:
            outcome = await self._try(call)
            if isinstance(outcome, Completion):
                return outcome
            if (
                outcome.status == 400
                and outcome.message not in route.refusals
                and self._can_mend(call, outcome.message)
            ):
                route.refusals.append(outcome.message)
                continue
            wait_seconds = await self._wait_after(call, outcome)
            if watch:
                watch.again(outcome.message, wait_seconds)
            await self._sleep(wait_seconds)

    def _can_mend(self, call: _Call, message: str) -> bool:
        """Return whether leaving out what ``message`` refuses gives another body."""
        sent = self._sent(call.route, call.body, is_streamed=call.watch is not None)
        return len(call.route.refusals) < _MOST_REFUSALS and call.route.wire.mended(sent, message) is not None

    def _sent(self, route: _Route, body: bytes, *, is_streamed: bool) -> bytes:
        """Return the bytes that go out: streamed or not, without what the model refused before."""
        sent = route.wire.streamed(body) if is_streamed else body
        for message in route.refusals:
            sent = route.wire.mended(sent, message) or sent
        return sent

    async def _try(self, call: _Call) -> Completion | Fault:
        """Return what one attempt brings, once the budget and the limits let it go out."""
        route, budget = call.route, call.budget
        headers = self._headers(route)
        reserved = await budget.reserve(call.worst, call.priority) if budget else 0.0
        paid: float | None = 0.0
        try:
            await route.limiter.acquire(call.priority)
            try:
                call.began = began = self._clock()
                if call.fault is None:
                    call.sent = began
                remaining = self.settings.deadline - (began - call.sent)
                if call.fault is not None and remaining <= 0:
                    raise await self._error(route, call.fault, call.attempts, is_late=True)
                call.attempts += 1
                if call.watch:
                    call.watch.sent(call.attempts)
                paid = None
                seconds = min(self.settings.timeout, remaining)
                completion, first = await self._attempt(route, headers, call.body, seconds, call.watch)
                completion = self._account(call.request, route, completion)
                paid = None if completion.usage.estimated else completion.cost
                route.limiter.answered()
                self._answering.add(route.provider.base_url)
                self.verified.add(call.request.model)
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
                    pause = min(fault.retry_after_seconds or 0.0, self.settings.deadline)
                    route.limiter.refused(pause, self._clock() - began)
                return fault
            finally:
                route.limiter.release()
        finally:
            if budget:
                budget.settle(reserved, paid)

    async def _wait_after(self, call: _Call, fault: Fault) -> float:
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
            raise await self._error(call.route, fault, call.attempts)
        if now + decision.wait_seconds - call.sent > self.settings.deadline:
            raise await self._error(call.route, fault, call.attempts, is_late=True)
        if fault.retry_after_seconds:
            call.patience += decision.wait_seconds
        return decision.wait_seconds

    async def _attempt(
        self,
        route: _Route,
        headers: dict[str, str],
        body: bytes,
        seconds: float,
        watch: Watch | None,
    ) -> tuple[Completion, float | None]:
        """Return the completion of one request, and when its first piece came."""
        first: float | None = None
        if watch is None:
            answer: Answer | None = await self._http.post(
                route.url, headers, self._sent(route, body, is_streamed=False), seconds
            )
        else:
            stream = route.wire.new_stream()

            def on_events(events: list[bytes]) -> bool:
                nonlocal first
                piece = stream.feed(events)
                if piece:
                    if first is None:
                        first = self._clock()
                    watch.piece(piece)
                return stream.is_over

            sent = self._sent(route, body, is_streamed=True)
            answer = await self._http.stream(route.stream_url, headers, sent, seconds, on_events)
            if answer is None:
                name = route.provider.name
                if stream.error is not None:
                    # What was written before it may be billed, though nobody says so.
                    kind: FaultKind = "disconnected" if stream.has_begun else "server"
                    raise Failed(Fault(kind, f"{name} broke off: {_said(route.wire, stream.error, headers)}"))
                if not stream.is_whole:
                    raise Failed(Fault("disconnected", f"{name} broke off in the middle of the answer"))
                return stream.completion(), first
        assert answer is not None
        if answer.status != _OK:
            raise Failed(_fault(route.wire, answer, headers))
        try:
            return route.wire.parse(answer.body), first
        except ValueError:
            said = _said(route.wire, answer.body, headers)
            raise Failed(Fault("malformed", f"{route.provider.name} sent no answer but: {said:.200}")) from None

    # What all calls to a model share ----------------------------------------------------------

    def route(self, model: str) -> _Route:
        """Return where calls to a model go.

        Raises:
            UnknownName: no such provider, or no such offline agent or function.
        """
        found = self._routes.get(model)
        if found is None:
            found = self._routes[model] = self._new_route(model)
        return found

    def _new_route(self, model: str) -> _Route:
        provider = self.settings.provider(model)
        name = model.partition(":")[2]
        identity = provider.base_url.encode()
        if provider.name == "offline":
            from moa_nb.providers import offline

            if name not in offline.ALGORITHMS:
                msg = f"no offline agent {name!r}; {nearest(name, offline.ALGORITHMS)}"
                raise UnknownName(msg)
            identity = offline.VERSION.encode()
        limiter = Limiter(provider.concurrency or self.settings.concurrency, clock=self._clock, sleep=self._sleep)
        price = price_of(model, provider, self.settings.models.get(model))
        wire = WIRES[provider.wire]
        url, stream_url = (wire.url(provider.base_url, name, streamed) for streamed in (False, True))
        return _Route(provider, name, wire, url, stream_url, identity, limiter, price)

    def price(self, model: str) -> Price | None:
        """Return the price rule of a model; ``None`` when nobody knows it."""
        return self.route(model).price

    def _headers(self, route: _Route) -> dict[str, str]:
        key = route.provider.key()
        if route.keyed is None or route.keyed[0] != key:
            route.keyed = (key, {"Content-Type": "application/json", **_authorized(route.provider, key)})
        return route.keyed[1]

    def _body(self, request: Request, route: _Route) -> bytes:
        if route.provider.name not in {"offline", "function"}:
            try:
                return route.wire.body(request, route.model)
            except TypeError as error:
                msg = f"a parameter of {request.model} cannot be sent as JSON: {error}"
                raise SetupError(msg) from None
        parts = [
            [message.to_dict() for message in request.messages],
            request.references,
            request.material,
            request.sampling.max_tokens,
            request.sampling.temperature,
        ]
        try:
            return orjson.dumps(parts)
        except TypeError:
            return repr(parts).encode("utf-8", "backslashreplace")

    def _key(self, request: Request, route: _Route, body: bytes) -> bytes | None:
        """Return the digest that equal calls share; ``None`` where answers must not be shared."""
        identity = route.identity
        if route.provider.name == "function":
            version = functions.of(request).version
            if version is None:
                return None
            identity = version.encode()
        digest = hashlib.blake2b(digest_size=16)
        head = f"{route.provider.name}\0{route.model}\0{request.sample}\0".encode()
        if route.provider.name not in {"offline", "function"}:
            head = f"{route.wire.name}\0{route.model}\0{request.sample}\0".encode()
        digest.update(head + identity + b"\0" + body)
        return digest.digest()

    # Tokens and dollars -----------------------------------------------------------------------

    def _account(self, request: Request, route: _Route, completion: Completion) -> Completion:
        usage = completion.usage
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            prompt, written = usage.prompt_tokens, usage.completion_tokens
            if prompt is None:
                prompt = sum(tokens.count_tokens(message.content) for message in request.messages)
            if written is None:
                written = tokens.count_tokens(completion.text) + tokens.count_tokens(completion.reasoning or "")
            usage = replace(usage, prompt_tokens=prompt, completion_tokens=written, estimated=True)
        cost = None if route.price is None else route.price.cost(usage)
        return replace(completion, usage=usage, cost=cost)

    def _worst(self, request: Request, route: _Route, body: bytes) -> float:
        if route.price is None:
            raise SetupError(no_price(request.model))
        if route.price is FREE:
            return 0.0
        extra = dict(request.sampling.extra)
        ceilings = (request.sampling.max_tokens, extra.get("max_tokens"), extra.get("max_completion_tokens"))
        most = max((ceiling for ceiling in ceilings if isinstance(ceiling, int)), default=self.settings.max_tokens)
        answers = extra.get("n")
        # No tokenizer makes more tokens of a text than it has bytes.
        return route.price.worst(len(body), most * (answers if isinstance(answers, int) else 1))

    # Errors -----------------------------------------------------------------------------------

    async def _error(
        self,
        route: _Route,
        fault: Fault,
        attempts: int,
        *,
        is_late: bool = False,
    ) -> MoaError:
        provider, status, said = route.provider, fault.status, fault.message
        tries = f" ({attempts} tries)" if attempts > 1 else ""
        error: MoaError
        if fault.kind == "unreachable":
            msg = f"{provider.name}: {said}{tries}; start it, or mend providers.{provider.name}.base_url"
            never = provider.base_url not in self._answering
            error = SetupError(msg) if never else ServiceError(msg)
        elif fault.kind == "moved":
            error = SetupError(
                f"{provider.name} does not answer at its address ({status}): {said}; mend providers.{provider.name}.base_url"
            )
        elif fault.cause == "key":
            where = (
                f"check the variable {provider.key_env}"
                if provider.key_env
                else f"name its variable as providers.{provider.name}.key_env"
            )
            error = KeyRejected(f"{provider.name} refuses the key ({status}): {said}; {where}")
        elif fault.cause == "payment":
            error = SetupError(f"{provider.name} wants payment ({status}): {said}")
        elif fault.cause == "model":
            error = UnknownName(f"{provider.name} has no {route.model!r} ({status}): {said}; {await self._near(route)}")
        elif fault.kind == "final" and status is None:
            error = SetupError(f"{provider.name}: {said}")
        elif fault.cause == "option":
            error = SetupError(f"{provider.name} does not take an option for {route.model!r} ({status}): {said}")
        elif fault.kind == "final":
            error = RowError(f"{provider.name} refuses the request ({status}): {said}")
        elif is_late:
            error = ServiceError(f"{provider.name}: {said}{tries}; the call's {self.settings.deadline:g} s are over")
        else:
            code = f" ({status})" if status else ""
            error = ServiceError(f"{provider.name} goes on failing{code}: {said}{tries}")
        error.attempts = attempts
        return error

    async def _near(self, route: _Route) -> str:
        try:
            names = await self.list_models(route.provider)
        except MoaError:
            return f"and it lists no models: mend providers.{route.provider.name}.base_url, which often ends in /v1"
        return nearest(route.model, names)

    async def list_models(self, provider: Provider) -> list[str]:
        """Return the names of the models that a service lists.

        Raises:
            ServiceError: it lists none.
        """
        wire = WIRES[provider.wire]
        headers = _authorized(provider, provider.key())
        try:
            answer = await self._http.get(wire.models_url(provider.base_url), headers, seconds=10)
            if answer.status == _OK:
                return wire.models(answer.body)
            said = _said(wire, answer.body, headers) or f"status {answer.status}"
        except (Failed, ValueError, TypeError) as error:
            said = _without_keys(str(error), headers)
        msg = f"{provider.name} lists no models: {said}"
        raise ServiceError(msg)

    async def get(self, url: str, seconds: float) -> Answer | None:
        """Return the answer to a GET, or ``None`` if there is none in time."""
        try:
            return await self._http.get(url, {}, seconds)
        except Failed:
            return None


def no_price(model: str) -> str:
    """Return the line that says what to do about a model without a price under a budget."""
    return (
        f"a budget needs prices, and none is known for {model}: set prompt_price and completion_price"
        f' under [models."{model}"] in moa.toml, or run without a budget'
    )


def _authorized(provider: Provider, key: str | None) -> dict[str, str]:
    return {**provider.headers, **WIRES[provider.wire].headers(key)}


def _fault(wire: Wire, answer: Answer, headers: Mapping[str, str]) -> Fault:
    """Return what an answer with an error status means."""
    said = _said(wire, answer.body, headers) or f"status {answer.status}"
    fault = fault_of(answer, said, cause(answer.status, *wire.said(answer.body)))
    waits = [fault.retry_after_seconds, wire.retry_after(answer.body)]
    if fault.kind in {"rate limit", "server"}:
        # Where header and body contradict each other, the later moment is the safe one.
        fault = replace(fault, retry_after_seconds=max((wait for wait in waits if wait is not None), default=None))
    return fault


def _said(wire: Wire, body: bytes, headers: Mapping[str, str]) -> str:
    """Return what a service said, as far as people may read it."""
    message, code = wire.said(body)
    if code and code not in message:
        message = f"{message} [{code}]" if message else code
    return _shortened(_without_keys(message, headers))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)


def _without_keys(text: str, headers: Mapping[str, str]) -> str:
    """Return the text without the keys that were sent; before it is shortened, which could leave half of one."""
    for name, value in headers.items():
        key = value.removeprefix("Bearer ").strip()
        if not key or not _SECRET_HEADER.search(name):
            continue
        text = text.replace(key, "[key]")
        # Some services echo the key with its middle starred out; its ends are still secret.
        if len(key) > 8 and key[:4] in text:
            words = (
                "[key]" if key[:4] in word and ("*" in word or "..." in word or "…" in word) else word
                for word in text.split(" ")
            )
            text = " ".join(words)
    return text
