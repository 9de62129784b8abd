"""HTTP to the services: one session a loop, keep-alive, server-sent events. The only importer of aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from moa_nb.errors import SettingsError
from moa_nb.gateway.deadlines import Deadlines
from moa_nb.gateway.events import Events
from moa_nb.gateway.retry import Fault, retry_after, should_retry
from moa_nb.providers.wire import Answer, Cause
from moa_nb.settings.network import proxy_for, tls_context

__all__ = ["Answer", "Failed", "Http", "fault_of"]

_LARGE = 1 << 20
"""Bytes from which aiohttp wants a body as a file, to send it in parts."""

_UNTIMED = aiohttp.ClientTimeout(total=None)
"""Deadlines are kept here, for less."""

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
        self._places: dict[str, _Place] = {}
        self._places_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()

    async def close(self) -> None:
        """Return once all connections are closed."""
        self._deadlines.close()
        await self._session.close()

    async def get(self, url: str, headers: Mapping[str, str], seconds: float) -> Answer:
        """Return the answer to a GET.

        Raises:
            Failed: there is none.
        """
        try:
            with self._deadlines.within(seconds):
                place = self._place(url)
                response = await self._session.get(place.url, headers=headers, timeout=_UNTIMED, proxy=place.proxy)
                return await _whole(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(_fault(error, url)) from error

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> Answer:
        """Return the answer to a POST, whatever its status.

        Raises:
            Failed: the connection broke, or ``seconds`` were over.
        """
        try:
            with self._deadlines.within(seconds):
                # Read to its end or closed by ``_whole``: a context of its own would only cost.
                return await _whole(await self._posted(url, headers, body))
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
        response: aiohttp.ClientResponse | None = None
        try:
            with self._deadlines.within(seconds):
                response = await self._posted(url, headers, body)
                if response.status != 200 or "event-stream" not in response.headers.get("Content-Type", ""):
                    return await _whole(response)
                await _read(response, on_events)
            # Whatever happens to the connection now takes nothing from the answer.
            with contextlib.suppress(aiohttp.ClientError, OSError), self._deadlines.within(_DRAIN_SECONDS):
                await response.read()
            return Answer(response.status, response.headers, b"", is_stream=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if response is not None and isinstance(error, ValueError) and not isinstance(error, aiohttp.ClientError):
                raise  # of whoever reads the events
            raise Failed(_fault(error, url)) from error
        finally:
            if response is not None:
                response.close()

    def _posted(self, url: str, headers: Mapping[str, str], body: bytes) -> aiohttp.client._RequestContextManager:
        place = self._place(url)
        data = aiohttp.BytesPayload(body) if len(body) < _LARGE else io.BytesIO(body)
        # A redirected POST would become a GET elsewhere: the address in the settings is to be mended instead.
        return self._session.post(
            place.url, data=data, headers=headers, timeout=_UNTIMED, allow_redirects=False, proxy=place.proxy
        )

    def _place(self, url: str) -> _Place:
        """Return how an address is reached.

        Raises:
            Failed: through a proxy that cannot be used.
            InvalidURL: it is none.
        """
        now = self._loop.time()
        if now - self._places_since > _PROXY_SECONDS:
            self._places, self._places_since = {}, now
        found = self._places.get(url)
        if found is None:
            try:
                found = self._places[url] = _Place(URL(url), proxy_for(url))
            except SettingsError as error:
                raise Failed(Fault("final", str(error))) from error
            except ValueError as error:
                raise aiohttp.InvalidURL(url) from error
        return found


class _Place(NamedTuple):
    """Where a request goes, and through which proxy."""

    url: URL
    proxy: str | None


async def _read(response: aiohttp.ClientResponse, on_events: Callable[[list[bytes]], bool]) -> None:
    """Return when a stream is over, or said to be."""
    content, events = response.content, Events()
    while piece := await content.readany():
        found = events.feed(piece)
        if found and on_events(found):
            return
    found = events.rest()
    if found:
        on_events(found)


async def _whole(response: aiohttp.ClientResponse) -> Answer:
    """Return a response read to its end; a short one often came with its head."""
    content = response.content
    body = content.read_nowait() if content.is_eof() else await response.read()
    return Answer(response.status, response.headers, body)


def _fault(error: BaseException, url: str) -> Fault:
    where = _origin(url)
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


def _origin(url: str) -> str:
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
        return Fault("moved", f"it has moved to {_origin(answer.headers.get('Location', ''))}", status)
    return Fault("final", message, status, cause=why)
