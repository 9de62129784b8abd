"""Where the engine's coroutines run: one event loop in a daemon thread, or the kernel's own.

A cell waits for its job in short polls, so that an interrupt arrives at once and cancels what is
in flight.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from moa_nb.errors import SetupError

__all__ = ["Job", "Loop", "on_kernel_loop", "ticking"]

_T = TypeVar("_T")

_POLL_SECONDS = 0.05
_GOODBYE_SECONDS = 2.0
"""How long an interrupted cell waits for its connections to be closed."""

_LEFT_BEHIND = "the engine of this run is not in this process any more (a fork has none): run it again here"


class Job(Generic[_T]):
    """One coroutine on the engine's loop, seen from another thread.

    It is made first and begun afterwards, so that whoever waits for it holds it before anything is sent: an interrupt
    between the two would leave calls that nobody can stop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, _T]) -> None:
        self.future: concurrent.futures.Future[_T] = concurrent.futures.Future()
        """Done when the coroutine is, its clean-up included."""
        self._loop = loop
        self._coroutine = coroutine
        self._process = os.getpid()
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[_T] | None = None
        self._begun = False
        self._cancelled = False

    def begin(self) -> Job[_T]:
        """Return the job itself, which runs now; one that was begun before just goes on."""
        if not self._begun:
            self._begun = True
            self._loop.call_soon_threadsafe(self._start)
        return self

    def _start(self) -> None:
        if self.future.done():
            return
        self._task = self._loop.create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(self._finish)
        if self._cancelled:
            self._task.cancel()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self.future.done():  # it never came as far as the loop
            self._coroutine.close()
            self.future.set_exception(asyncio.CancelledError())

    def _finish(self, task: asyncio.Task[_T]) -> None:
        if task.cancelled():
            self.future.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())

    def cancel(self) -> None:
        """Return at once; the coroutine is cancelled as soon as its loop comes to it."""
        self._cancelled = True
        self._loop.call_soon_threadsafe(self._stop)

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self.future.done()

    def wait(self, tick: Callable[[], None] | None = None) -> _T:
        """Return the result; call ``tick`` about twenty times a second meanwhile. It begins where it has not yet.

        Raises:
            KeyboardInterrupt: the user interrupted; everything in flight is cancelled and closed.
            SetupError: it goes on in the process that this one was forked from, which alone hears of its end.
        """
        self._refuse_a_fork()
        try:
            self.begin()
            while True:
                try:
                    return self.future.result(timeout=_POLL_SECONDS)
                except TimeoutError:
                    # The coroutine's own TimeoutError is the same class: only a finished future has it.
                    if self.future.done():
                        raise
                if tick:
                    tick()
        except BaseException:
            # An interrupt, or a tick that failed: nobody waits any more, so nobody shall go on paying.
            if not self.future.done():
                self.cancel()
                concurrent.futures.wait([self.future], timeout=_GOODBYE_SECONDS)
            raise

    async def wait_async(self) -> _T:
        """Return the result, on another loop; cancelling the wait cancels the job. It begins where it has not yet.

        Raises:
            SetupError: as for ``wait``.
        """
        self._refuse_a_fork()
        try:
            waiting = asyncio.wrap_future(self.future)
            waiting.add_done_callback(_look_at)
            self.begin()
            await ticking(waiting)
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.cancel()
            raise
        return waiting.result()

    def _refuse_a_fork(self) -> None:
        if os.getpid() != self._process and not self.future.done():
            raise SetupError(_LEFT_BEHIND)


class Loop:
    """An event loop in a daemon thread, uvloop where it is there."""

    def __init__(self) -> None:
        self.loop = _new_event_loop()
        self._stopping = False
        self.thread = threading.Thread(target=self._run, name="moa-nb-engine", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopping:
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # Raised by somebody's callback; whoever asked for it gets it from the job, and the loop goes on.
                continue
        self.loop.close()

    def job(self, coroutine: Coroutine[Any, Any, _T]) -> Job[_T]:
        """Return the job of a coroutine that runs here as soon as it is begun.

        Raises:
            SetupError: called from this loop's own thread, which would wait for itself, or nobody runs it any more.
        """
        if not self.thread.is_alive():
            coroutine.close()
            raise SetupError(_LEFT_BEHIND)
        if threading.current_thread() is self.thread:
            coroutine.close()
            msg = "this runs on the engine's own loop, where waiting would block it: use 'await moa.arun(...)' here"
            raise SetupError(msg)
        return Job(self.loop, coroutine)

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this loop's thread."""
        return threading.current_thread() is self.thread

    def stop(self, closing: Coroutine[Any, Any, None]) -> None:
        """Return once ``closing`` is done and the thread has ended."""
        if not self.thread.is_alive():
            closing.close()
            return
        goodbye = Job(self.loop, _last(closing))
        goodbye.future.add_done_callback(lambda _: self.loop.call_soon_threadsafe(self._end))
        goodbye.begin()
        # Code that blocks the loop must not hold up whoever stops it, nor the end of the interpreter.
        self.thread.join(_GOODBYE_SECONDS)

    def _end(self) -> None:
        # Here and not sooner: a thread that has only just begun would end without saying goodbye.
        self._stopping = True
        self.loop.stop()


async def _last(closing: Coroutine[Any, Any, None]) -> None:
    """Return once every other task has seen its cancellation and ``closing`` is done."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_GOODBYE_SECONDS / 2)
    await closing
    await asyncio.get_running_loop().shutdown_asyncgens()


async def ticking(waiting: asyncio.Future[Any]) -> None:
    """Return when ``waiting`` is done.

    An idle kernel loop notices an interrupt only when something happens on it, so something does.
    """
    while not waiting.done():
        await asyncio.wait([waiting], timeout=_POLL_SECONDS)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Return nothing; an exception that nobody waits for any more is not worth a message."""
    if not future.cancelled():
        future.exception()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        # The selector's loop, which some kernels set for themselves, takes 512 sockets there.
        return asyncio.ProactorEventLoop()
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


_warned = False


def on_kernel_loop(coroutine: Coroutine[Any, Any, _T], tick: Callable[[], None] | None = None) -> _T:
    """Return the coroutine's result, run on the loop that already runs in this thread.

    For agents that are tied to the kernel's own loop (``loop = "kernel"``). It patches asyncio for
    good, through nest-asyncio2, and slows every task of the kernel; hence never the default.

    Raises:
        SetupError: the running loop cannot be patched (uvloop).
        KeyboardInterrupt: the user interrupted; everything in flight is cancelled and closed.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        coroutine.close()
        msg = (
            f"loop = 'kernel' needs asyncio's own event loop, and this is {type(loop).__module__}: use loop = 'thread'"
        )
        raise SetupError(msg)
    _patch(loop)
    task: asyncio.Task[_T] | None = None
    try:
        task = loop.create_task(coroutine)
        loop.run_until_complete(_waited(task, tick))
    except BaseException:  # an interrupt, or a tick that failed: nobody waits any more
        if task is not None:
            task.cancel()
            loop.run_until_complete(asyncio.wait([task], timeout=_GOODBYE_SECONDS))
        raise
    return task.result()


async def _waited(task: asyncio.Task[Any], tick: Callable[[], None] | None) -> None:
    while not task.done():
        await asyncio.wait([task], timeout=_POLL_SECONDS)
        if tick:
            tick()


def _patch(loop: asyncio.AbstractEventLoop) -> None:
    global _warned  # noqa: PLW0603 - said once a process
    import nest_asyncio2

    nest_asyncio2.apply(loop)
    if not _warned:
        _warned = True
        text = "loop = 'kernel' patches asyncio for this whole kernel, which slows every task in it; 'thread' does not"
        warnings.warn(text, RuntimeWarning, stacklevel=4)
