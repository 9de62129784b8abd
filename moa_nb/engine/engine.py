"""The engine: one a process, with a loop of its own, a store, and the runs that go on on them."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from moa_nb import settings as configuration
from moa_nb.chat import Completion, Request
from moa_nb.engine import collector
from moa_nb.engine.bookkeeping import run_rows
from moa_nb.engine.connections import Connections
from moa_nb.engine.loop import Job, Loop, on_kernel_loop, ticking
from moa_nb.engine.plan import Options, Plan, make_plan
from moa_nb.engine.roles import Cast, cast
from moa_nb.errors import MoaError
from moa_nb.gateway import Gateway
from moa_nb.pipeline.agreement import agreement_of
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.layer import Ticket
from moa_nb.pipeline.record import CallRecord, RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.settling import finished
from moa_nb.settings import Settings, services_with_keys
from moa_nb.store import Store, StoreWarning

__all__ = ["Engine", "current", "new_run_id", "stop"]

_T = TypeVar("_T")

_DAY = 86_400.0
"""Seconds."""

_REMEMBERED = 100
"""Single runs that can be asked again from a layer on, or with another model."""

_CAST_SECONDS = 5.0
"""How long a look for local servers holds."""


class Engine:
    """Runs pipelines: one loop in a thread of its own, one store, one gateway a loop."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loop: Loop | None = None
        self._connections = Connections()
        self._stores: dict[str, Store] = {}
        self._cast: tuple[Settings, tuple[str, ...], float, Cast] | None = None
        self.asked: dict[str, tuple[Plan, Task]] = {}
        """What the latest single runs under these settings were, by their names."""
        self.latest: Any = None
        """The last run of this session, whatever started it: a ``Result`` or a ``FrameRun``."""

    # Parts ------------------------------------------------------------------------------------

    @property
    def loop(self) -> Loop:
        """The thread's loop, started when it is first needed."""
        with self._lock:
            if self._loop is None:
                self._loop = Loop()
            return self._loop

    def store(self, settings: Settings) -> Store:
        """Return the store that these settings ask for."""
        path = None if settings.store == "none" else configuration.data_folder() / "store.sqlite"
        name = str(path)
        with self._lock:
            if name not in self._stores:
                store = self._stores[name] = Store(path)
                if settings.keep_days is not None:
                    store.forget_older_than(settings.keep_days * _DAY)
            return self._stores[name]

    def gateway(self, settings: Settings) -> Gateway:
        """Return the gateway of the running loop."""
        return self._connections.gateway(settings, self.store)

    async def cast(self, settings: Settings, gateway: Gateway) -> Cast:
        """Return who answers; a look for local servers holds for a few seconds."""
        keys = tuple(service.name for service in services_with_keys(settings))
        if self._cast is not None:
            under, with_keys, at, known = self._cast
            is_fresh = not known.is_offline or time.monotonic() - at < _CAST_SECONDS
            if under is settings and with_keys == keys and is_fresh:
                return known
        found = await cast(settings, gateway)
        self._cast = (settings, keys, time.monotonic(), found)
        return found

    async def who_answers(self) -> Cast:
        """Return the models of each role under the settings that hold now."""
        settings = configuration.current()
        return await self.cast(settings, self.gateway(settings))

    # Running ----------------------------------------------------------------------------------

    def start(self, coroutine: Coroutine[Any, Any, _T]) -> Job[_T]:
        """Return the job of a coroutine on the engine's own loop."""
        return self.loop.job(coroutine).begin()

    def finish(self, coroutine: Coroutine[Any, Any, _T], tick: Callable[[], None] | None = None) -> _T:
        """Return the coroutine's result; wait for it here.

        Raises:
            KeyboardInterrupt: the user interrupted.
        """
        if _is_loop_running() and _is_in_kernel_mode(coroutine):
            try:
                result = on_kernel_loop(self._connections.visit(coroutine), tick)
            finally:
                coroutine.close()  # where it never began
        else:
            result = self.loop.job(coroutine).wait(tick)
        self.complain()
        return result

    async def finish_async(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Return the coroutine's result; await it on whatever loop the caller has."""
        if self._loop is not None and self._loop.is_current:
            return await coroutine
        if _is_in_kernel_mode(coroutine):
            task = asyncio.get_running_loop().create_task(self._connections.visit(coroutine))
            try:
                await ticking(task)
            except asyncio.CancelledError:
                task.cancel()
                raise
            result = task.result()
        else:
            result = await self.loop.job(coroutine).wait_async()
        self.complain()
        return result

    def complain(self) -> None:
        """Return nothing; warn, on the caller's thread, of what went wrong with the store."""
        for store in [*self._stores.values()]:  # another thread may be opening one
            text = store.complaint()
            if text:
                warnings.warn(text, StoreWarning, stacklevel=4)

    async def plan(self, options: Options, form: Form | None = None, *, keys: bool = True) -> Plan:
        """Return the checked plan of a run, whose answers fill in a ``form`` where there is one.

        Without ``keys`` it is only to be priced, for which nobody needs one.

        Raises:
            SetupError: something is wrong or missing; nothing was sent.
        """
        settings = configuration.current()
        gateway = self.gateway(settings)
        return make_plan(options, settings, await self.cast(settings, gateway), gateway, form, keys=keys)

    def new_record(self, plan: Plan, task: Task, run_id: str | None = None) -> RunRecord:
        """Return the record of a run that is about to begin; its name is new if ``None``."""
        return RunRecord(
            plan.pipeline.name,
            task.conversation,
            run_id=new_run_id() if run_id is None else run_id,
            budget=plan.budget.limit if plan.budget is not None and plan.budget.unit == "dollars" else None,
        )

    async def answer(
        self,
        plan: Plan,
        task: Task,
        record: RunRecord,
        *,
        row: int = 0,
        is_early_first: bool = False,
        watched: bool = False,
    ) -> Result:
        """Return the result of one pipeline on one input.

        Args:
            plan: who is asked, and how.
            task: the input.
            record: where it is written down.
            row: calls of lower rows go first.
            is_early_first: whether of equal rows the calls of earlier layers go first, not those of later ones.
            watched: whether somebody looks on.

        Raises:
            MoaError: with the finished layers as its ``result``.
        """
        begin, budget, cache = plan.gateway.begin, plan.budget, plan.cache
        if plan.mode == "batch":
            begin = functools.partial(begin, mode="batch")
        sign = 1 if is_early_first else -1

        def complete(
            request: Request, on_end: Callable[[Any], None], *, layer: int, watch: CallRecord | None
        ) -> Completion | Ticket:
            return begin(request, on_end, priority=(row, sign * layer), budget=budget, cache=cache, watch=watch)

        ask = plan.ask(task, complete, record, watched=watched and plan.settings.stream)
        collector.slow_down()
        try:
            final = await plan.strategy.run(task, plan.pipeline.params, ask)
            final = finished(ask, final)
        except MoaError as error:
            stop_reason = "budget" if error.kind == "budget" else "failed"
            error.result = record.finish(error=str(error), stop_reason=stop_reason, flags=ask.flags)
            raise
        except asyncio.CancelledError:
            record.finish(error="stopped", stop_reason="stopped", flags=ask.flags)
            raise
        except Exception as error:  # a strategy may be anybody's code; what it has paid for is shown
            record.finish(error=f"{type(error).__name__}: {error}", stop_reason="failed", flags=ask.flags)
            raise
        finally:
            collector.resume()
        return record.finish(final.text, value=final.value, flags=ask.flags)

    async def answer_and_keep(
        self, plan: Plan, task: Task, record: RunRecord, *, kind: str, watched: bool = False
    ) -> Result:
        """Return the result of one run that the store remembers, however it ends."""
        began = time.time()
        known = [(name, one) for name, one in self.asked.items() if one[0].settings is plan.settings]
        self.asked = {**dict(known[-_REMEMBERED:]), record.run_id: (plan, task)}
        try:
            result = await self.answer(plan, task, record, watched=watched)
            record.result = result.replace(agreement=agreement_of(result, task.form))
            return record.result
        finally:
            if record.result is not None:
                self.latest = record.result
                keys = b"".join(bytes.fromhex(call.key) for call in record.result.calls if call.key)
                self.store(plan.settings).add_run(*run_rows(record.result, kind, task.question, began), keys)

    def close(self) -> None:
        """Return once the loop has ended, the connections are closed and everything is written."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop(self._connections.close())
        # They stay in their places: a run that has not ended by now would open others, which nobody closes.
        for store in [*self._stores.values()]:
            store.close()


def new_run_id() -> str:
    """Return a run's name: the time, and enough chance that no two are alike."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)


def _is_in_kernel_mode(coroutine: Coroutine[Any, Any, Any]) -> bool:
    try:
        return configuration.current().loop == "kernel"
    except MoaError:
        coroutine.close()
        raise


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# The engine of this process ----------------------------------------------------------------------

_engine: Engine | None = None
_engine_lock = threading.Lock()
_left_behind: list[Engine] = []


def current() -> Engine:
    """Return the engine of this process, made when it is first needed."""
    global _engine  # noqa: PLW0603 - one a process
    with _engine_lock:
        if _engine is None:
            _engine = Engine()
        return _engine


def stop() -> None:
    """Return once the engine of this process, if there is one, has ended."""
    global _engine
    with _engine_lock:
        engine, _engine = _engine, None
    if engine is not None:
        engine.close()


# The interpreter would end the thread in the middle of whatever it does.
atexit.register(stop)


def _forget() -> None:
    """A forked child has neither the thread nor the right to the parent's connections."""
    global _engine, _engine_lock  # noqa: PLW0603 - one a process
    _engine_lock = threading.Lock()  # the parent's may be held for ever here
    if _engine is not None:
        # Kept unreachable but alive: closing them here would disturb the parent's.
        _left_behind.append(_engine)
        _engine = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
