"""One door for every call: what is known is not asked, what is asked is counted, what fails is asked again."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import orjson

from moa_nb import tokens
from moa_nb.chat import Completion, Request, Usage
from moa_nb.errors import KeyRejected, MoaError, RowError, ServiceError, SetupError, UnknownName, nearest
from moa_nb.gateway.budget import Budget
from moa_nb.gateway.http import Answer, Failed, Http, fault_of
from moa_nb.gateway.limits import Limiter, Priority
from moa_nb.gateway.prices import FREE, Price, price_of
from moa_nb.gateway.retry import Fault, RetryDecision, RetryPolicy
from moa_nb.providers import functions, openai_chat
from moa_nb.settings import Provider, Settings
from moa_nb.store import Store

__all__ = ["CacheMode", "Gateway", "Watch"]

CacheMode = Literal["use", "refresh", "off"]
"""``use`` answers from the store where it can; ``refresh`` asks and keeps; ``off`` asks and keeps nothing."""

_OK = 200


class Watch(Protocol):
    """Who wants to know how one call goes on. All methods return at once."""

    def sent(self, attempt: int) -> None:
        """The request went out."""

    def piece(self, text: str) -> None:
        """A piece of the answer came in."""

    def again(self, reason: str, wait_seconds: float) -> None:
        """The attempt failed and is repeated after a wait."""


@dataclass(frozen=True)
class _Route:
    """What all calls to one model share."""

    provider: Provider
    model: str
    """The model's name at its provider."""
    url: str
    identity: bytes
    """What tells this endpoint from others in the cache's key."""
    limiter: Limiter
    price: Price | None


class _Flight:
    """One call that several callers wait for; it is cancelled when the last one leaves."""

    def __init__(self, task: asyncio.Task[Completion]) -> None:
        self.task = task
        self.waiters = 0

    async def join(self) -> Completion:
        self.waiters += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self.waiters == 1 and not self.task.done():
                self.task.cancel()
                # The connection is closed only once the task has seen its cancellation.
                await asyncio.wait([self.task])
            raise
        finally:
            self.waiters -= 1


class Gateway:
    """The way of a call on one event loop.

    Args:
        settings: limits, prices and providers.
        store: where completions are looked up and kept.
        clock: seconds, never going back.
        sleep: waits for seconds.
        retry: when to ask again; from the settings if ``None``.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.settings, self.store = settings, store
        self._clock, self._sleep = clock, sleep
        self._retry = retry or RetryPolicy(seconds=settings.retry_seconds)
        self._http: Http | None = None
        self._routes: dict[str, _Route] = {}
        self._flights: dict[bytes, _Flight] = {}
        self._answering: set[str] = set()
        """Base URLs that have answered in this session."""
        self.verified: set[str] = set()
        """Models that have given an answer in this session, so that their setup is right."""

    async def close(self) -> None:
        """Return once every connection is closed."""
        if self._http is not None:
            await self._http.close()
            self._http = None

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
        key = self._key(request, route, body)
        if key is None:
            return await self._ask(request, route, body, priority, budget, watch)
        if cache == "use":
            known = self.store.get(key)
            if known is not None:
                return known
        flight = self._flights.get(key)
        if flight is not None:
            shared = await flight.join()
            return replace(shared, cached=True, attempts=0)
        task = asyncio.get_running_loop().create_task(self._fly(key, request, route, body, priority, budget, cache, watch))
        flight = self._flights[key] = _Flight(task)
        return await flight.join()

    def known(self, request: Request) -> Completion | None:
        """Return the completion that the store has of a request; ``None`` if it would be asked."""
        route = self.route(request.model)
        key = self._key(request, route, self._body(request, route))
        return None if key is None else self.store.get(key)

    async def _fly(
        self,
        key: bytes,
        request: Request,
        route: _Route,
        body: bytes,
        priority: Priority,
        budget: Budget | None,
        cache: CacheMode,
        watch: Watch | None,
    ) -> Completion:
        try:
            completion = await self._ask(request, route, body, priority, budget, watch)
            if cache != "off" and completion.text.strip():
                await self.store.put(key, completion)
            return completion
        finally:
            del self._flights[key]

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
        asked = self._clock()
        sent = failing_since = None
        attempt, patience = 0, 0.0
        headers = self._headers(route)
        worst = self._worst(request, route, body) if budget else 0.0
        while True:
            attempt += 1
            reserved = await budget.reserve(worst) if budget else 0.0
            paid: float | None = 0.0
            try:
                await route.limiter.acquire(priority)
                began = self._clock()
                sent = began if sent is None else sent
                try:
                    if watch:
                        watch.sent(attempt)
                    paid = None
                    remaining = self.settings.deadline - (began - sent)
                    completion, first = await self._attempt(route, headers, body, min(self.settings.timeout, remaining), watch)
                    completion = self._account(request, route, completion)
                    paid = completion.cost
                    route.limiter.answered()
                    self._answering.add(route.provider.base_url)
                    self.verified.add(request.model)
                    now = self._clock()
                    return replace(
                        completion,
                        seconds=now - asked,
                        queued_seconds=sent - asked,
                        first_token_seconds=None if first is None else first - asked,
                        attempts=attempt,
                    )
                except Failed as failed:
                    fault = failed.fault
                    if fault.kind in {"rate limit", "server", "unreachable", "final"}:
                        paid = 0.0
                    if fault.status is not None:
                        self._answering.add(route.provider.base_url)
                    if fault.kind == "rate limit":
                        route.limiter.refused(fault.retry_after_seconds, self._clock() - began)
                finally:
                    route.limiter.release()
            finally:
                if budget:
                    budget.settle(reserved, paid)
            now = self._clock()
            failing_since = began if failing_since is None else failing_since
            decision = self._retry.decide(
                fault,
                attempt=attempt,
                failing_seconds=now - failing_since - patience,
                ever_answered=route.provider.base_url in self._answering,
            )
            if decision.wait_seconds is None or now + decision.wait_seconds - sent > self.settings.deadline:
                raise await self._error(request, route, headers, fault, attempt, decision)
            if fault.retry_after_seconds:
                patience += decision.wait_seconds
            if watch:
                watch.again(fault.message, decision.wait_seconds)
            await self._sleep(decision.wait_seconds)

    async def _attempt(
        self,
        route: _Route,
        headers: dict[str, str],
        body: bytes,
        timeout: float,
        watch: Watch | None,
    ) -> tuple[Completion, float | None]:
        """Return the completion of one request, and when its first piece came."""
        if self._http is None:
            self._http = Http()
        first: float | None = None
        if watch is None:
            answer: Answer | None = await self._http.post(route.url, headers, body, timeout)
        else:
            stream = openai_chat.Stream()

            def on_event(event: Any) -> None:
                nonlocal first
                piece = stream.feed(event)
                if piece:
                    if first is None:
                        first = self._clock()
                    watch.piece(piece)

            answer = await self._http.stream(route.url, headers, openai_chat.streamed(body), timeout, on_event)
            if answer is None:
                if stream.error is not None:
                    message, _ = openai_chat.said(orjson.dumps(stream.error))
                    raise Failed(Fault("server", f"{route.provider.name} broke off: {message}"))
                if not stream.is_whole:
                    raise Failed(Fault("disconnected", f"{route.provider.name} broke off in the middle of the answer"))
                return stream.completion(), first
        assert answer is not None
        if answer.status != _OK:
            raise Failed(fault_of(answer, _said(answer)))
        try:
            return openai_chat.parse(answer.body), first
        except ValueError:
            message, _ = openai_chat.said(answer.body)
            raise Failed(Fault("malformed", f"{route.provider.name} sent no answer but: {message:.200}")) from None

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
        return _Route(provider, name, provider.base_url + openai_chat.PATH, identity, limiter, price)

    def price(self, model: str) -> Price | None:
        """Return the price rule of a model; ``None`` when nobody knows it."""
        return self.route(model).price

    def _headers(self, route: _Route) -> dict[str, str]:
        headers = {"Content-Type": "application/json", **route.provider.headers}
        key = route.provider.key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _body(self, request: Request, route: _Route) -> bytes:
        if route.provider.name not in {"offline", "function"}:
            return openai_chat.body(request, route.model)
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
            head = f"openai\0{request.sample}\0".encode()
        digest.update(head + identity + b"\0" + body)
        return digest.digest()

    # Tokens and dollars -----------------------------------------------------------------------

    def _account(self, request: Request, route: _Route, completion: Completion) -> Completion:
        usage = completion.usage
        if usage.prompt_tokens is None and usage.completion_tokens is None:
            prompt = sum(tokens.count_tokens(message.content) for message in request.messages)
            usage = Usage(prompt, tokens.count_tokens(completion.text), estimated=True)
        cost = None if route.price is None else route.price.cost(usage)
        return replace(completion, usage=usage, cost=cost)

    def _worst(self, request: Request, route: _Route, body: bytes) -> float:
        if route.price is None:
            raise SetupError(no_price(request.model))
        if route.price is FREE:
            return 0.0
        most = request.sampling.max_tokens or self.settings.max_tokens
        # No tokenizer makes more tokens of a text than it has bytes.
        return route.price.worst(len(body), most)

    # Errors -----------------------------------------------------------------------------------

    async def _error(
        self,
        request: Request,
        route: _Route,
        headers: dict[str, str],
        fault: Fault,
        attempts: int,
        decision: RetryDecision,
    ) -> MoaError:
        provider, status = route.provider, fault.status
        said = _without_key(fault.message, headers)
        tries = f" ({attempts} tries)" if attempts > 1 else ""
        error: MoaError
        if fault.kind == "unreachable":
            msg = f"{provider.name}: {said}{tries}; start it, or mend providers.{provider.name}.base_url"
            never = provider.base_url not in self._answering
            error = SetupError(msg) if never else ServiceError(msg)
        elif status in {401, 403}:
            where = f"check the variable {provider.key_env}" if provider.key_env else f"name its variable as providers.{provider.name}.key_env"
            error = KeyRejected(f"{provider.name} refuses the key ({status}): {said}; {where}")
        elif status in {402, 429} and ("quota" in said.lower() or "balance" in said.lower() or status == 402):
            error = SetupError(f"{provider.name} wants payment ({status}): {said}")
        elif status == 404:
            error = UnknownName(f"{provider.name} has no {route.model!r} (404): {said}; {await self._near(route, headers)}")
        elif fault.kind == "final" and status is None:
            error = SetupError(f"{provider.name}: {said}")
        elif fault.kind == "final":
            error = RowError(f"{provider.name} refuses the request ({status}): {said}")
        elif decision.wait_seconds is not None:
            error = ServiceError(f"{provider.name}: {said}{tries}; the call's {self.settings.deadline:g} s are over")
        else:
            code = f" ({status})" if status else ""
            error = ServiceError(f"{provider.name} goes on failing{code}: {said}{tries}")
        error.attempts = attempts
        return error

    async def _near(self, route: _Route, headers: dict[str, str]) -> str:
        try:
            names = await self.list_models(route.provider, headers)
        except MoaError:
            return f"and it lists no models: mend providers.{route.provider.name}.base_url, which often ends in /v1"
        return nearest(route.model, names)

    async def list_models(self, provider: Provider, headers: dict[str, str] | None = None) -> list[str]:
        """Return the names of the models that a service lists.

        Raises:
            ServiceError: it lists none.
        """
        if self._http is None:
            self._http = Http()
        if headers is None:
            key = provider.key()
            headers = {**provider.headers, **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            answer = await self._http.get(provider.base_url + "/models", headers, timeout=10)
            if answer.status == _OK:
                listed = orjson.loads(answer.body)
                entries = (listed.get("data") or listed.get("models") or []) if isinstance(listed, dict) else listed
                return sorted({str(entry.get("id") or entry.get("name")) for entry in entries if isinstance(entry, dict)})
            said = _without_key(_said(answer), headers)
        except (Failed, ValueError) as error:
            said = str(error)
        msg = f"{provider.name} lists no models: {said}"
        raise ServiceError(msg)

    async def get(self, url: str, timeout: float) -> Answer | None:
        """Return the answer to a GET, or ``None`` if there is none in time."""
        if self._http is None:
            self._http = Http()
        try:
            return await self._http.get(url, {}, timeout)
        except Failed:
            return None


def no_price(model: str) -> str:
    """Return the line that says what to do about a model without a price under a budget."""
    return (
        f"a budget needs prices, and none is known for {model}: set prompt_price and completion_price"
        f' under [models."{model}"] in moa.toml, or run without a budget'
    )


def _said(answer: Answer) -> str:
    message, code = openai_chat.said(answer.body)
    if code and code not in message:
        message = f"{message} [{code}]" if message else code
    return message or f"status {answer.status}"


def _without_key(text: str, headers: dict[str, str]) -> str:
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    if key:
        text = text.replace(key, "[key]")
        # Some services echo the key with its middle starred out; its ends are still secret.
        if len(key) > 8:
            text = " ".join("[key]" if word.startswith(key[:4]) and "*" in word else word for word in text.split(" "))
    return text
