"""How well the limiter finds what a service can do, over real HTTP on loopback.

    python tests/benchmarks/limits.py [seconds]

The servers are processes of their own. Those that take 200 requests a second refuse the rest at once: what counts is
the share of the 200 that is used, and of the requests that is refused, both after a third of the time. Those whose
latency grows with the calls in flight refuse nothing: what counts are the answers a second, against those of the best
fixed number of calls in flight, found in the same run.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from processes import serving

from moa_nb.gateway.http import Http
from moa_nb.gateway.limits import Limiter

CAPACITY, MOST, START, FIXED = 200, 64, 16, (8, 11, 16, 23, 32, 45, 64)
REFUSING = ("bucket", "bucket retry-after=1", "window", "slow bucket")
GROWING = ("16 workers", "beyond 32", "beyond 32 noisy", "linear")


class Service:
    """What it does with a request: the seconds of its answer, or a refusal."""

    def __init__(self, kind: str) -> None:
        self.kind, self.in_flight = kind, 0
        self._level, self._filled = float(CAPACITY) / 4, time.monotonic()
        self._window: deque[float] = deque()
        self._free_at = [0.0] * 16
        self.retry_after = b"Retry-After: 1\r\n" if "retry-after" in kind else b""

    def seconds(self) -> float | None:
        """Return what the answer takes; ``None`` refuses."""
        now = time.monotonic()
        if self.kind == "window":
            while self._window and self._window[0] <= now - 1:
                self._window.popleft()
            if len(self._window) >= CAPACITY:
                return None
            self._window.append(now)
            return 0.02
        if "bucket" in self.kind:
            self._level = min(CAPACITY / 4, self._level + (now - self._filled) * CAPACITY)
            self._filled = now
            if self._level < 1:
                return None
            self._level -= 1
            return random.lognormvariate(-1.61, 0.6) if "slow" in self.kind else 0.02
        if self.kind == "16 workers":
            first = min(range(16), key=self._free_at.__getitem__)
            self._free_at[first] = max(self._free_at[first], now) + 0.05
            return self._free_at[first] - now
        load = self.in_flight + 1
        if self.kind == "linear":
            return 0.05 * (1 + load / 16)
        noise = random.lognormvariate(-0.125, 0.5) if "noisy" in self.kind else 1.0
        return 0.1 * noise * max(1.0, (load / 32) ** 2)


class Connection(asyncio.Protocol):
    """One connection; a client sends its next request after the answer to the one before."""

    def __init__(self, service: Service) -> None:
        self._service, self._received = service, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is whole."""
        self._received += data
        if not self._received.endswith(b"}"):
            return
        self._received = b""
        seconds = self._service.seconds()
        if seconds is None:
            self._write(b"429 Too Many Requests", self._service.retry_after)
            return
        self._service.in_flight += 1
        asyncio.get_running_loop().call_later(seconds, self._answer)

    def _answer(self) -> None:
        self._service.in_flight -= 1
        self._write(b"200 OK", b"")

    def _write(self, status: bytes, headers: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 %b\r\n%bContent-Length: 2\r\n\r\n{}" % (status, headers))


async def serve(kind: str) -> None:
    """Listen, print the address, and return when standard input closes."""
    service = Service(kind)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


async def driven(url: str, make: Callable[[], Limiter], seconds: float) -> tuple[list[tuple[float, bool]], Limiter]:
    """Return when each attempt of many callers ended, and whether it was served."""
    http, limiter, outcomes = Http(), make(), []
    began = time.monotonic()

    async def work() -> None:
        attempt = 0
        while time.monotonic() < began + seconds:
            if not limiter.try_acquire():
                await limiter.acquire((0, 0))
            sent = time.monotonic()
            answer = await http.post(url, {}, b"{}", 30)
            now = time.monotonic()
            is_served = answer.status == 200
            outcomes.append((now - began, is_served))
            wait = float(answer.headers.get("Retry-After", 0)) or None
            if is_served:
                limiter.answered(now - sent, None, answer.headers)
            else:
                limiter.refused(wait, now - sent, answer.headers)
            limiter.release()
            attempt = 0 if is_served else attempt + 1
            if attempt:
                await asyncio.sleep((wait or 0.0) + random.random() * min(4.0, 0.25 * 2.0**attempt))

    async with asyncio.TaskGroup() as group:
        for _ in range(2 * MOST):
            group.create_task(work())
    await http.close()
    return outcomes, limiter


def adaptive() -> Limiter:
    """Return a limiter without settings."""
    return Limiter(MOST, clock=time.monotonic, start=START)


class Fixed(Limiter):
    """So many calls in flight, whatever happens."""

    def __init__(self, most: int) -> None:
        super().__init__(most, clock=time.monotonic)

    def answered(self, *_: object, **__: object) -> None:
        """Return nothing, and learn nothing."""


def served_a_second(outcomes: list[tuple[float, bool]], start: float, end: float) -> float:
    """Return the answers a second between two moments."""
    return sum(is_served for moment, is_served in outcomes if start <= moment < end) / (end - start)


def refusing(kind: str, seconds: float) -> None:
    """Print how a service is used that takes so many a second."""
    with serving(__file__, "--serve", kind) as url:
        outcomes, limiter = asyncio.run(driven(url, adaptive, seconds))
    late = [is_served for moment, is_served in outcomes if seconds / 3 <= moment < seconds]
    used = served_a_second(outcomes, seconds / 3, seconds) / CAPACITY
    print(
        f"{kind}: {used:.1%} of its capacity used, {late.count(False) / len(late):.2%} of the requests refused"
        f" (cap {limiter.cap:.0f})",
        flush=True,
    )


def growing(kind: str, seconds: float) -> None:
    """Print the answers a second of a service whose latency grows, against the best fixed number of calls."""
    with serving(__file__, "--serve", kind) as url:
        fixed = {
            most: served_a_second(asyncio.run(driven(url, lambda most=most: Fixed(most), 4))[0], 1, 4)  # type: ignore[misc]  # mypy knows no default of a lambda
            for most in FIXED
        }
        outcomes, limiter = asyncio.run(driven(url, adaptive, seconds))
    best = max(fixed, key=fixed.__getitem__)
    rate, early = (served_a_second(outcomes, *span) for span in ((seconds / 3, seconds), (0, seconds / 3)))
    print(
        f"{kind}: {rate / fixed[best]:.1%} of the best fixed setting ({best}: {fixed[best]:.0f}/s), {early / fixed[best]:.1%} during warm-up"
        f" (cap {limiter.cap:.0f})",
        flush=True,
    )


def hot_path() -> None:
    """Print what the limiter costs a call that nothing holds back."""
    limiter = adaptive()
    headers = json.loads('{"Content-Type": "application/json"}')
    began = time.perf_counter()
    for _ in range(100_000):
        limiter.try_acquire(100)
        limiter.answered(0.1, 100, headers, expected=100)
        limiter.release()
    print(f"{(time.perf_counter() - began) * 10:.2f} µs a call", flush=True)


def main() -> None:
    """Print all figures."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 18.0
    hot_path()
    for kind in REFUSING:
        refusing(kind, seconds)
    for kind in GROWING:
        growing(kind, seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        main()
