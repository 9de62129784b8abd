"""HTTP to the services: one session a loop, keep-alive, server-sent events. The only importer of aiohttp."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import aiohttp
import orjson

from moa_nb.gateway.retry import Fault, retry_after

__all__ = ["Answer", "Failed", "Http"]


class Failed(Exception):  # noqa: N818 - carries a fault from the wire to the retry policy, never to a user
    """An attempt that did not give a whole answer."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """Posts JSON and reads answers on the running loop."""

    def __init__(self) -> None:
        # A proxy look-up per request is dear, so it is done only where a proxy is set.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            trust_env=bool(urllib.request.getproxies()),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Return once all connections are closed."""
        await self._session.close()

    async def get(self, url: str, headers: Mapping[str, str], timeout: float) -> Answer:
        """Return the answer to a GET.

        Raises:
            Failed: there is none.
        """
        try:
            async with self._session.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout)) as response:
                return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(_fault(error, url)) from error

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """Return the answer to a POST, whatever its status.

        Raises:
            Failed: the connection broke, or ``timeout`` seconds were over.
        """
        try:
            async with self._session.post(url, data=body, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout)) as response:
                return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(_fault(error, url)) from error

    async def stream(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,
        on_event: Callable[[Any], None],
    ) -> Answer | None:
        """Return ``None`` after a stream whose events went to ``on_event``; else the plain answer.

        Raises:
            Failed: the connection broke, an event is not JSON, or ``timeout`` seconds were over.
        """
        try:
            async with self._session.post(url, data=body, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout)) as response:
                if response.status != 200 or "event-stream" not in response.headers.get("Content-Type", ""):
                    return Answer(response.status, response.headers, await response.read())
                async for events in _events(response.content):
                    for event in events:
                        on_event(event)
                return None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(_fault(error, url)) from error


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[list[Any]]:
    """Yield the events of each piece that arrived: all complete ones are parsed as one JSON array."""
    rest = b""
    async for chunk in content.iter_any():
        rest += chunk
        if b"\r" in rest:
            # A lone CR at the end may be half of CRLF: it waits for the next piece.
            tail = b"\r" if rest.endswith(b"\r") else b""
            rest = rest[: len(rest) - len(tail)].replace(b"\r\n", b"\n") + tail
        end = rest.rfind(b"\n\n")
        if end < 0:
            continue
        whole, rest = rest[:end], rest[end + 2 :]
        yield _parse(whole)
    if rest.strip():
        yield _parse(rest)


def _parse(block: bytes) -> list[Any]:
    events = []
    for event in block.split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        data = b"\n".join(lines).strip()
        if data and data != b"[DONE]":
            events.append(data)
    parsed: list[Any] = orjson.loads(b"[" + b",".join(events) + b"]")
    return parsed


def _fault(error: BaseException, url: str) -> Fault:
    where = "/".join(url.split("/")[:3])
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return Fault("final", f"the certificate of {where} is not accepted: {error}")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return Fault("final", f"{url!r} is not an address; mend base_url")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Fault("unreachable", f"the server at {where} does not answer ({error.os_error.strerror or error.os_error})")
    if isinstance(error, asyncio.TimeoutError):
        return Fault("timeout", f"{where} gave no whole answer in time")
    if isinstance(error, ValueError):
        return Fault("malformed", f"{where} sent something that is not JSON")
    if isinstance(error, aiohttp.ClientError | OSError):
        return Fault("disconnected", f"{where} closed the connection")
    return Fault("disconnected", f"{where}: {type(error).__name__}")


def fault_of(answer: Answer, message: str) -> Fault:
    """Return what an answer with an error status means for asking again."""
    status = answer.status
    seconds = retry_after(answer.headers)
    if status == 429 and "insufficient_quota" in message:
        return Fault("final", message, status)
    if status == 429:
        return Fault("rate limit", message, status, seconds)
    if status in {408, 409, 425} or status >= 500:
        return Fault("server", message, status, seconds)
    return Fault("final", message, status)
