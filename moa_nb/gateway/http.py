"""HTTP to the services: one session a loop, keep-alive, server-sent events. The only importer of aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from moa_nb.errors import SettingsError
from moa_nb.gateway.retry import Fault, retry_after, should_retry
from moa_nb.providers.wire import Answer, Cause
from moa_nb.settings.network import proxy_for, tls_context

__all__ = ["Answer", "Failed", "Http", "fault_of"]

_LARGE = 1 << 20
"""Bytes from which aiohttp wants a body as a file, to send it in parts."""

_DRAIN_SECONDS = 0.25
"""How long a stream that has said it is over may take to end, so that its connection can be used again."""


_PROXY_SECONDS = 30.0
"""How long a look-up of proxies holds; one for each request would be dear."""

_UNTRUSTED = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes for a certificate whose issuer is not known; the others mean that it is not right itself."""


class Failed(Exception):
    """An attempt that did not give a whole answer; goes from the wire to the retry policy, never to a user."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Http:
    """Posts JSON and reads answers on the running loop.

    Args:
        ca_file: certificates that are trusted besides the system's own.
    """

    def __init__(self, ca_file: Path | None = None) -> None:
        # Proxies are looked up here and not by aiohttp (`trust_env`), which would do so for each request, and send
        # a password from a .netrc file to a service that takes its key in another header.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, ssl=tls_context(ca_file)),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._proxies: dict[str, str | None] = {}
        """By scheme and host."""
        self._proxies_since = 0.0

    async def close(self) -> None:
        """Return once all connections are closed."""
        await self._session.close()

    async def get(self, url: str, headers: Mapping[str, str], seconds: float) -> Answer:
        """Return the answer to a GET.

        Raises:
            Failed: there is none.
        """
        try:
            async with self._session.get(
                url, headers=headers, timeout=_within(seconds), proxy=self._proxy(url)
            ) as response:
                return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(_fault(error, url)) from error

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> Answer:
        """Return the answer to a POST, whatever its status.

        Raises:
            Failed: the connection broke, or ``seconds`` were over.
        """
        try:
            # Read to its end or closed by ``read`` itself: a context of its own would only cost.
            response = await self._posted(url, headers, body, seconds)
            return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(_fault(error, url)) from error

    async def stream(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        seconds: float,
        on_events: Callable[[list[bytes]], bool],
    ) -> Answer:
        """Return the answer: after a stream without its body, else whole.

        Args:
            url: where to post.
            headers: of the request.
            body: of the request.
            seconds: for the whole answer.
            on_events: gets the data of the events as they come in, and returns whether that was all.

        Raises:
            Failed: the connection broke, or ``seconds`` were over.
        """
        is_open = False
        try:
            async with self._posted(url, headers, body, seconds) as response:
                is_open = True
                if response.status != 200 or "event-stream" not in response.headers.get("Content-Type", ""):
                    return Answer(response.status, response.headers, await response.read())
                async for events in _events(response.content.iter_any()):
                    if on_events(events):
                        # Said to be over: whatever happens to the connection now takes nothing from the answer.
                        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                            await asyncio.wait_for(response.read(), _DRAIN_SECONDS)
                        break
                return Answer(response.status, response.headers, b"", is_stream=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if is_open and isinstance(error, ValueError) and not isinstance(error, aiohttp.ClientError):
                raise  # of whoever reads the events
            raise Failed(_fault(error, url)) from error

    def _posted(
        self, url: str, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> aiohttp.client._RequestContextManager:
        # A redirected POST would become a GET elsewhere: the address in the settings is to be mended instead.
        data = aiohttp.BytesPayload(body) if len(body) < _LARGE else io.BytesIO(body)
        return self._session.post(
            url, data=data, headers=headers, timeout=_within(seconds), allow_redirects=False, proxy=self._proxy(url)
        )

    def _proxy(self, url: str) -> str | None:
        """Return the proxy through which an address is asked.

        Raises:
            Failed: it is one that cannot be used.
        """
        now = asyncio.get_running_loop().time()
        if now - self._proxies_since > _PROXY_SECONDS:
            self._proxies, self._proxies_since = {}, now
        origin = "/".join(url.split("/", 3)[:3])
        if origin not in self._proxies:
            try:
                self._proxies[origin] = proxy_for(url)
            except SettingsError as error:
                raise Failed(Fault("final", str(error))) from error
        return self._proxies[origin]


@functools.lru_cache(maxsize=64)
def _within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield the data of the events that each piece completes; linear in the bytes, however they are cut."""
    rest, carriage = bytearray(), b""
    async for piece in pieces:
        if carriage or b"\r" in piece:
            # A CR at the end may be half of CRLF: it waits for the next piece.
            whole = carriage + piece
            carriage = b"\r" if whole.endswith(b"\r") else b""
            piece = whole[: len(whole) - len(carriage)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # noqa: PLW2901
        start = max(len(rest) - 1, 0)
        rest += piece
        end = rest.rfind(b"\n\n", start)
        if end >= 0:
            block = bytes(rest[:end])
            del rest[: end + 2]
            yield _data(block)
    if rest.strip():
        yield _data(bytes(rest))


def _data(block: bytes) -> list[bytes]:
    """Return the data of each event of a block; comments and other fields are left out."""
    events = []
    for event in block.split(b"\n\n"):
        data = b"\n".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:")).strip()
        if data:
            events.append(data)
    return events


def _fault(error: BaseException, url: str) -> Fault:
    where = _place(url)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return _tls_fault(error, where)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return Fault("unreachable", f"the proxy {error.host}:{error.port} for {where} does not answer")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _proxy_fault(error.status, where)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return Fault("final", f"{where!r} is not an address; mend base_url")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Fault(
            "unreachable", f"the server at {where} does not answer ({error.os_error.strerror or error.os_error})"
        )
    if isinstance(error, asyncio.TimeoutError):
        return Fault("timeout", f"{where} gave no whole answer in time")
    if isinstance(error, ValueError):
        return Fault(
            "final", f"a request to {where} cannot be made: its key or a header has characters that do not fit"
        )
    if isinstance(error, aiohttp.ClientError | OSError):
        return Fault("disconnected", f"{where} closed the connection")
    return Fault("disconnected", f"{where}: {type(error).__name__}")


def _tls_fault(error: aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError, where: str) -> Fault:
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        words = f"the certificate of {where} is not accepted ({cause.verify_message})"
        if cause.verify_code in _UNTRUSTED:
            words += "; where your company's own authority signed it, set ca_file in moa.toml to that one's certificate"
        return Fault("final", words)
    reason = getattr(cause, "reason", None)
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return Fault("final", f"{where} does not speak TLS; mend base_url if it begins with http://")
    return Fault("unreachable", f"no secure connection to {where} ({reason or cause})")


def _proxy_fault(status: int, where: str) -> Fault:
    if status == 407:
        advice = "name them in the variable, as in HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
        return Fault("final", f"the proxy for {where} wants a user name and a password; {advice}")
    if status >= 500:
        return Fault("server", f"the proxy for {where} cannot reach it", status)
    return Fault("final", f"the proxy for {where} does not let it through ({status}); ask for it, or see NO_PROXY")


def _place(url: str) -> str:
    """Return scheme and host of an address: what stands before the host or after it may be a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the base_url"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else url.partition("?")[0]


def fault_of(answer: Answer, message: str, why: Cause | None = None) -> Fault:
    """Return what an answer with an error status means for asking again, once it is known what is wrong."""
    status = answer.status
    seconds = retry_after(answer.headers)
    if why == "payment":
        return Fault("final", message, status, cause=why)
    if status == 407:
        return _proxy_fault(status, "this address")
    told = should_retry(answer.headers)
    if told is False and (status == 429 or status >= 500):
        return Fault("final", message, status, cause=why)
    if status in {429, 529}:
        return Fault("rate limit", message, status, seconds, headers=answer.headers)
    if status in {408, 409, 425} or status >= 500 or (told and why == "service"):
        return Fault("server", message, status, seconds)
    if 300 <= status < 400:
        return Fault("moved", f"it has moved to {_place(answer.headers.get('Location', ''))}", status)
    return Fault("final", message, status, cause=why)
