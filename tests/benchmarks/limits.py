"""How well the product finds what a service can do: rows of a frame, over real HTTP on loopback.

    python tests/benchmarks/limits.py [--seconds 18] [--only NAME ...]

The servers are processes of their own, and count what they serve and refuse. Those that take 200 requests a second
refuse the rest at once: what counts is the share of the 200 that is used, and of the requests that is refused, both
after a third of the time. Those whose latency grows with the calls in flight refuse nothing: what counts are the
answers a second, against those of the best fixed ``concurrency``, found in the same run. The one that refuses by
chance says nothing of how many calls it could take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

from processes import machine, result_of, serving
from responder import plain

CAPACITY, FIXED = 200, (8, 11, 16, 23, 32, 45, 64)
ANSWER = plain("good")


class Service:
    """What it does with a request: the seconds of its answer, or a refusal."""

    def __init__(self, *, retry_after: str = "") -> None:
        self.in_flight = 0
        self.refusal = f"Retry-After: {retry_after}\r\n".encode() if retry_after else b""
        self.outcomes: list[tuple[float, bool]] = []
        """When each request came, and whether it was served."""

    def seconds(self, now: float) -> float | None:
        """Return what the answer takes; ``None`` refuses."""
        raise NotImplementedError

    def ask(self, now: float) -> float | None:
        """Return the same, counted."""
        seconds = self.seconds(now)
        self.outcomes.append((now, seconds is not None))
        return seconds


class TokenBucket(Service):
    """So many a second, and ``burst`` at once."""

    def __init__(self, burst: float, *, is_slow: bool = False, retry_after: str = "") -> None:
        super().__init__(retry_after=retry_after)
        self._burst, self._level, self._filled, self._is_slow = burst, burst, 0.0, is_slow

    def seconds(self, now: float) -> float | None:
        """Return 20 ms or, where it is slow, about 240."""
        self._level = min(self._burst, self._level + (now - self._filled) * CAPACITY)
        self._filled = now
        if self._level < 1:
            return None
        self._level -= 1
        return random.lognormvariate(-1.61, 0.6) if self._is_slow else 0.02


class Window(Service):
    """So many within each second, or within any."""

    def __init__(self, *, is_sliding: bool, retry_after: str = "") -> None:
        super().__init__(retry_after=retry_after)
        self._is_sliding = is_sliding
        self._served: deque[float] = deque()

    def seconds(self, now: float) -> float | None:
        """Return 20 ms."""
        start = now - 1 if self._is_sliding else int(now)
        while self._served and self._served[0] < start:
            self._served.popleft()
        if len(self._served) >= CAPACITY:
            return None
        self._served.append(now)
        return 0.02


class Chance(Service):
    """Refuses a tenth, however few calls there are."""

    def seconds(self, now: float) -> float | None:
        """Return 50 ms."""
        return None if random.random() < 0.1 else 0.05


class Workers(Service):
    """Sixteen that take 50 ms each; what they cannot take at once waits."""

    def __init__(self) -> None:
        super().__init__()
        self._free_at = [0.0] * 16

    def seconds(self, now: float) -> float | None:
        """Return the wait and the work."""
        first = min(range(16), key=self._free_at.__getitem__)
        self._free_at[first] = max(self._free_at[first], now) + 0.05
        return self._free_at[first] - now


class Crowded(Service):
    """Latency that grows with the square of the calls beyond so many."""

    def __init__(self, most: int, *, is_noisy: bool = False) -> None:
        super().__init__()
        self._most, self._is_noisy = most, is_noisy

    def seconds(self, now: float) -> float | None:
        """Return 100 ms, or more."""
        noise = random.lognormvariate(-0.125, 0.5) if self._is_noisy else 1.0
        return 0.1 * noise * max(1.0, ((self.in_flight + 1) / self._most) ** 2)


class Linear(Service):
    """Latency that grows with each call."""

    def seconds(self, now: float) -> float | None:
        """Return 50 ms for none, and as much again for each sixteen."""
        return 0.05 * (1 + (self.in_flight + 1) / 16)


REFUSING: dict[str, Callable[[], Service]] = {
    "bucket": lambda: TokenBucket(50),
    "bucket, Retry-After: 1": lambda: TokenBucket(50, retry_after="1"),
    "bucket of 10, Retry-After: 1": lambda: TokenBucket(10, retry_after="1"),
    "bucket of 400": lambda: TokenBucket(400),
    "slow bucket": lambda: TokenBucket(50, is_slow=True),
    "slow bucket, Retry-After: 1": lambda: TokenBucket(50, is_slow=True, retry_after="1"),
    "sliding window": lambda: Window(is_sliding=True),
    "sliding window, Retry-After: 1": lambda: Window(is_sliding=True, retry_after="1"),
    "fixed window": lambda: Window(is_sliding=False),
}
GROWING: dict[str, Callable[[], Service]] = {
    "16 workers": Workers,
    "crowded beyond 32": lambda: Crowded(32),
    "crowded beyond 32, noisy": lambda: Crowded(32, is_noisy=True),
    "linear": Linear,
}
BY_CHANCE: dict[str, Callable[[], Service]] = {"a tenth by chance": Chance}
SERVICES = {**REFUSING, **GROWING, **BY_CHANCE}


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
        service, loop = self._service, asyncio.get_running_loop()
        seconds = service.ask(loop.time())
        if seconds is None:
            self._write(b"HTTP/1.1 429 Too Many Requests\r\n%bContent-Length: 2\r\n\r\n{}" % service.refusal)
            return
        service.in_flight += 1
        loop.call_later(seconds, self._answer)

    def _answer(self) -> None:
        self._service.in_flight -= 1
        self._write(ANSWER)

    def _write(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)


async def serve(name: str, file: Path) -> None:
    """Listen, print the address, and write down the outcomes when standard input closes."""
    service, loop = SERVICES[name](), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    await asyncio.to_thread(file.write_text, json.dumps(service.outcomes))


def child(url: str, seconds: float, concurrency: int) -> None:
    """Ask for the rows of a long frame, and stop after ``seconds``."""
    import pandas as pd

    import moa_nb as moa

    lab = {"base_url": url} | ({"concurrency": concurrency} if concurrency else {})
    moa.configure(
        aggregator="lab:a",
        pipeline="single",
        providers={"lab": lab},
        models={"lab:a": {"prompt_price": 0.0, "completion_price": 0.0}},
        ask_above_calls=10**9,
    )
    rows = pd.Series([f"row {number}" for number in range(int(seconds * 2000))])
    run = rows.moa.start.synthesize()
    time.sleep(seconds)
    run.stop()


def outcomes_of(name: str, seconds: float, concurrency: int = 0) -> list[tuple[float, bool]]:
    """Return when requests came since the first, and whether they were served."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes.json"
        with serving(__file__, "--serve", name, str(file)) as url:
            result_of(__file__, "--child", url, "--seconds", str(seconds), "--concurrency", str(concurrency))
        outcomes = json.loads(file.read_text())
    return [(moment - outcomes[0][0], is_served) for moment, is_served in outcomes]


def served_a_second(outcomes: list[tuple[float, bool]], start: float, end: float) -> float:
    """Return the answers a second between two moments."""
    return sum(is_served for moment, is_served in outcomes if start <= moment < end) / (end - start)


def refusing(name: str, seconds: float) -> None:
    """Print how a service is used that takes so many a second."""
    outcomes = outcomes_of(name, seconds)
    late = [is_served for moment, is_served in outcomes if moment >= seconds / 3]
    used, early = (
        served_a_second(outcomes, *span) / CAPACITY for span in ((seconds / 3, seconds - 0.5), (0, seconds / 3))
    )
    print(
        f"{name}: {used:.1%} of its capacity used, {late.count(False) / len(late):.2%} of the requests refused;"
        f" {early:.1%} during warm-up",
        flush=True,
    )


def growing(name: str, seconds: float) -> None:
    """Print the answers a second of a service whose latency grows, against the best fixed number of calls."""
    fixed = {most: served_a_second(outcomes_of(name, 5, most), 1.5, 4.5) for most in FIXED}
    best = max(fixed, key=fixed.__getitem__)
    outcomes = outcomes_of(name, seconds)
    rate, early = (
        served_a_second(outcomes, *span) / fixed[best] for span in ((seconds / 3, seconds - 0.5), (0, seconds / 3))
    )
    print(
        f"{name}: {rate:.1%} of the best fixed setting ({best}: {fixed[best]:.0f}/s), {early:.1%} during warm-up",
        flush=True,
    )


def by_chance(name: str, seconds: float) -> None:
    """Print the answers a second of a service that refuses by chance."""
    outcomes = outcomes_of(name, seconds)
    print(
        f"{name}: {served_a_second(outcomes, seconds / 3, seconds - 0.5):.0f}/s (64 in flight: at most 1280)",
        flush=True,
    )


def hot_path() -> None:
    """Print what the limiter costs a call that nothing holds back."""
    from moa_nb.gateway.limits import Limiter

    limiter = Limiter(64, clock=time.monotonic, start=16)
    headers = json.loads('{"Content-Type": "application/json"}')
    began = time.perf_counter()
    for _ in range(100_000):
        limiter.try_acquire(100)
        limiter.answered(0.1, 100, headers, expected=100)
        limiter.release()
    print(f"{(time.perf_counter() - began) * 10:.2f} µs a call", flush=True)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=18.0, help="of each run (default 18)")
    parser.add_argument("--only", nargs="*", choices=SERVICES, default=SERVICES, metavar="NAME", help="these services")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--concurrency", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve[0], Path(options.serve[1])))
        return
    if options.child:
        child(options.child, options.seconds, options.concurrency)
        print("null")
        return
    hot_path()
    for name in options.only:
        measure = refusing if name in REFUSING else growing if name in GROWING else by_chance
        measure(name, options.seconds)
    print(machine())


if __name__ == "__main__":
    main()
