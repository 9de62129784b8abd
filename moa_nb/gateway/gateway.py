"""One door for every call: what is known is not asked, what is under way is not asked twice."""

from __future__ import annotations

import asyncio
import copy
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

from moa_nb.chat import Completion, Request
from moa_nb.errors import BudgetExceeded, MoaError, RowError
from moa_nb.gateway.attempts import Attempts, Call
from moa_nb.gateway.batches import Batches
from moa_nb.gateway.budget import Budget
from moa_nb.gateway.exchange import Watch
from moa_nb.gateway.flight import Flight, Flights, Outcome, Ticket
from moa_nb.gateway.functions import ask_function
from moa_nb.gateway.http import Answer, Failed, Http
from moa_nb.gateway.limits import Limiter, Priority
from moa_nb.gateway.prices import Price
from moa_nb.gateway.retry import RetryPolicy
from moa_nb.gateway.route import Route, make_route
from moa_nb.options import Mode
from moa_nb.providers import functions
from moa_nb.providers.batches import HALF
from moa_nb.settings import Provider, Settings
from moa_nb.store import Store

__all__ = ["CacheMode", "Gateway"]

CacheMode = Literal["use", "refresh", "off"]
"""``use`` answers from the store where it can; ``refresh`` asks and keeps; ``off`` asks and keeps nothing."""


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
        self._clock = clock
        self._shared_http = http
        self._own_http: Http | None = None
        self._make_limiter = functools.partial(Limiter, clock=clock, sleep=sleep)
        self._attempts = Attempts(
            settings,
            self._http,
            retry or RetryPolicy(seconds=settings.retry_seconds),
            clock=clock,
            sleep=sleep,
        )
        self._routes: dict[str, Route] = {}
        self._flights = Flights()
        self._batches = Batches(store, self._attempts, self._http, clock=clock, sleep=sleep)
        self.verified: set[str] = set()
        """Models that have given an answer in this session, so that their setup is right."""

    def _http(self) -> Http:
        if self._shared_http is not None:
            return self._shared_http
        if self._own_http is None:
            self._own_http = Http(self.settings.ca_file)
        return self._own_http

    async def close(self) -> None:
        """Return once every connection of its own is closed."""
        http, self._own_http = self._own_http, None
        if http is not None:
            await http.close()

    def route(self, model: str) -> Route:
        """Return where calls to a model go.

        Raises:
            UnknownName: no such provider, or no such offline agent.
        """
        found = self._routes.get(model)
        if found is None:
            # One, also where two threads ask for it first: with two, twice as many calls could be in flight.
            made = make_route(model, self.settings, self._make_limiter, self._clock)
            found = self._routes.setdefault(model, made)
        if found.provider.name == "function":
            found.reprice(self.settings.models.get(model))
        return found

    def price(self, model: str) -> Price | None:
        """Return the price rule of a model; ``None`` when nobody knows it."""
        return self.route(model).price

    def has_batches(self, model: str) -> bool:
        """Return whether calls to a model can go out in batches."""
        return self._batches.takes(self.route(model))

    def share(self, model: str, mode: Mode) -> float:
        """Return the part of the live price that a call takes."""
        return HALF if mode == "batch" and self.has_batches(model) else 1.0

    def context(self, model: str) -> int | None:
        """Return the tokens that a model can read and write; ``None`` when nobody knows."""
        return self.route(model).context

    # The stations of a call -------------------------------------------------------------------

    def begin(
        self,
        request: Request,
        on_end: Callable[[Outcome], None],
        *,
        priority: Priority = (0, 0),
        budget: Budget | None = None,
        cache: CacheMode = "use",
        watch: Watch | None = None,
        mode: Mode = "live",
    ) -> Completion | Ticket:
        """Return the completion at once where the store has it; else a ticket, and ``on_end`` gets it later.

        Args:
            request: what is asked.
            on_end: called once on the loop, with the completion or with why there is none; never after
                the ticket was given back.
            priority: which of several waiting calls goes first.
            budget: what it is paid from.
            cache: whether the store is asked, and told.
            watch: who wants to know how it goes on; its answer is then streamed.
            mode: whether it may wait for a batch, where its service takes them.

        Raises:
            SetupError: the model or a parameter is wrong.
        """
        route = self.route(request.model)
        body = route.body(request)
        key = cut_key = route.key(request, body)
        if budget is not None and request.sampling.max_tokens is None:
            # Without a ceiling on the answer there is none on its price. It is no part of the question: only an
            # answer that it cut off is kept apart.
            request = route.bounded(request)
            body = route.body(request)
            cut_key = route.key(request, body)
        call = Call(request, route, body, priority, budget, watch, key, cut_key, mode, cache == "use")
        known = call.kept(self.store)
        if known is not None:
            return known
        return self._board(call, on_end, is_kept=cache != "off")

    def _board(self, call: Call, on_end: Callable[[Outcome], None], *, is_kept: bool) -> Ticket:
        """Return a ticket for the flight of a call: the one that is under way, or a new one."""
        flight = self._flights.under_way(call.key)
        if flight is None:
            flight = self._flights.new(call)
            flight.is_kept = is_kept
            ticket = Ticket(flight, on_end)
            flight.task = asyncio.get_running_loop().create_task(self._fly(flight, call))
            if call.mode == "batch" and not self._batches.takes(call.route):
                self._batches.wait_for(flight.task)
            return ticket
        flight.is_kept |= is_kept
        paid_from = flight.call.budget

        def landed(outcome: Outcome) -> None:
            if isinstance(outcome, BudgetExceeded) and paid_from is not call.budget:
                # The other run's money is gone, not this one's.
                ticket.moved = self._board(call, on_end, is_kept=is_kept)
                return
            if isinstance(outcome, Completion):
                outcome = replace(outcome, cached=True, attempts=0, unreported=0)  # whoever began it has paid
            elif isinstance(outcome, MoaError):
                outcome = copy.copy(outcome)  # each run writes its own result on it
            on_end(outcome)

        ticket = Ticket(flight, landed)
        return ticket

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
        waiting: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()

        def on_end(outcome: Outcome) -> None:
            if waiting.done():
                return
            if isinstance(outcome, Completion):
                waiting.set_result(outcome)
            elif isinstance(outcome, asyncio.CancelledError):
                waiting.cancel()
            else:
                waiting.set_exception(outcome)

        begun = self.begin(request, on_end, priority=priority, budget=budget, cache=cache, watch=watch)
        if isinstance(begun, Completion):
            return begun
        try:
            return await waiting
        finally:
            ending = begun.leave()
            if ending is not None:
                # The connection is closed only once the task has seen its cancellation.
                await asyncio.wait([ending])

    def known(self, request: Request, *, bounded: bool) -> Completion | None:
        """Return the completion that the store has of a request; ``None`` if it would be asked.

        Args:
            request: what would be asked.
            bounded: whether there is a budget, under which an answer that was cut off is as good as it gets.
        """
        route = self.route(request.model)
        for asked in (request, route.bounded(request)) if bounded else (request,):
            key = route.key(asked, route.body(asked))
            completion = None if key is None else self.store.get(key)
            if completion is not None:
                return completion
        return None

    async def _fly(self, flight: Flight, call: Call) -> None:
        """Return when the call is over; its passengers have what it brings once that is in the store."""
        try:
            completion = await self._ask(call)
        except asyncio.CancelledError as error:
            flight.land(error)
            raise
        except BaseException as error:
            flight.land(error)
            return
        key = call.cut_key if completion.finish_reason == "length" else call.key
        landed = functools.partial(flight.land, completion)
        if key is None or call.is_kept or not flight.is_kept or not completion.text.strip():
            landed()
        else:
            self.store.put_soon(key, completion, landed, call.request.model)

    async def _ask(self, call: Call) -> Completion:
        if call.mode == "batch" and self._batches.takes(call.route):
            completion = await self._batches.ask(call)
        elif call.route.is_service:
            completion = await self._attempts.ask(call)
        elif call.route.provider.name == "offline":
            completion = await self._ask_offline(call.request)
        else:
            completion = await ask_function(
                call, self.settings.deadline, self._clock, is_known=lambda: call.request.model in self.verified
            )
        self.verified.add(call.request.model)
        return completion

    async def _ask_offline(self, request: Request) -> Completion:
        from moa_nb.providers import offline

        started = self._clock()
        completion = await asyncio.to_thread(offline.answer, request)
        return replace(completion, seconds=self._clock() - started, cost=0.0)

    # Beside the calls -------------------------------------------------------------------------

    async def call(self, function: str | Callable[..., Any], *arguments: Any, **offered: Any) -> Any:
        """Return what a Python function of a pipeline's parameters returns, or the registered one of a name.

        Raises:
            RowError: it raised, or took longer than the deadline.
            UnknownName: no function has that name.
        """
        try:
            async with asyncio.timeout(self.settings.deadline):
                return await functions.call(function, *arguments, **offered)
        except TimeoutError:
            name = function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)
            msg = f"function {name!r} gave no answer within {self.settings.deadline:g} s"
            raise RowError(msg) from None

    async def list_models(self, provider: Provider) -> list[str]:
        """Return the names of the models that a service lists.

        Raises:
            ServiceError: it lists none.
        """
        return await self._attempts.list_models(provider)

    async def get(self, url: str, seconds: float) -> Answer | None:
        """Return the answer to a GET, or ``None`` if there is none in time."""
        try:
            return await self._http().get(url, {}, seconds)
        except Failed:
            return None
