"""How answers go out over HTTP, and what becomes of the connections. The only importer of aiohttp here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import NoReturn

from aiohttp import web

from moa_nb.providers.secrecy import secrets
from moa_nb.testing import bodies
from moa_nb.testing.recorded import Recorded
from moa_nb.testing.reply import Reply


class Connections(web.Server):
    """A listening socket and every connection that came through it, from its acceptance to its end."""

    def __init__(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handle, handler_cancellation=True, access_log=None)
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self._listener: asyncio.Server | None = None

    async def listen(self, port: int) -> int:
        """Listen on loopback and return the port; 0 finds a free one."""
        self._listener = await asyncio.get_running_loop().create_server(self, "127.0.0.1", port, backlog=4096)
        return int(self._listener.sockets[0].getsockname()[1])

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Remember a connection."""
        self._open[handler] = transport
        super().connection_made(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection, whose socket is closed next."""
        self._open.pop(handler, None)
        super().connection_lost(handler, exc)

    async def close(self) -> None:
        """Close every connection, whatever it is still sending, and return once no socket is open.

        A connection that was accepted a moment ago is a task of asyncio's before it is in our books, and is lost if
        the listening socket closes in between. So nothing more is accepted first, and the socket closes last.
        """
        assert self._listener is not None  # listen() returned
        with contextlib.suppress(NotImplementedError):  # the loop of Windows accepts without such tasks
            asyncio.get_running_loop().remove_reader(self._listener.sockets[0].fileno())
        while self._open or len(asyncio.all_tasks()) > 1:  # this one, and those of the connections
            for transport in self._open.values():
                transport.abort()  # ends its handler too
            await asyncio.sleep(0)
        self._listener.close()


async def send(request: web.BaseRequest, record: Recorded, reply: Reply, numbers: Iterator[int]) -> web.StreamResponse:
    """Answer as ``reply`` says, which may be not at all; ``numbers`` number the completions."""
    if reply.hang and reply.cut_after is None:
        await _for_ever()
    if reply.reset:
        record.dropped = True
        _reset(request)
        await _until_gone()
    good = reply.body is None and 200 <= reply.status < 300  # what HTTP calls success
    if good and record.body.get("stream") and not reply.plain_json_to_stream:
        return await _stream(request, record, reply, next(numbers))
    if reply.body is not None:
        content = reply.body
    elif good and reply.error is None:
        content = bodies.completion(next(numbers), record, reply)
    else:
        content = bodies.error(reply, _key(request))
    record.status = reply.status
    headers = {"Content-Type": "application/json", **reply.headers}
    if reply.cut_after is None:
        return web.Response(status=reply.status, body=content, headers=headers)
    headers["Content-Length"] = str(len(content))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if request.transport is not None:
        start = f"HTTP/1.1 {reply.status} Scripted\r\n{head}\r\n".encode()
        request.transport.write(start + content[: reply.cut_after])
    return await _part_or_drop(request, record, reply)


def plain(content: bytes, status: int = 200) -> web.Response:
    """Return JSON as an answer."""
    return web.Response(status=status, body=content, headers={"Content-Type": "application/json"})


def refuse(request: web.BaseRequest, reply: Reply) -> web.Response:
    """Return an error as an answer to what is no chat request."""
    return plain(bodies.error(reply, _key(request)), reply.status)


def _key(request: web.BaseRequest) -> str:
    return next(iter(secrets(request.headers)), "")


async def _stream(request: web.BaseRequest, record: Recorded, reply: Reply, number: int) -> web.StreamResponse:
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **reply.headers}
    response = web.StreamResponse(status=reply.status, headers=headers)
    await response.prepare(request)
    record.status = reply.status
    comments = b"".join(f": {comment}\n\n".encode() for comment in reply.comments)
    for place, event in enumerate(bodies.events(number, record, reply, _key(request))):
        # the first event only names the role, so n text events are n + 1 events
        if reply.cut_after is not None and place > reply.cut_after:
            return await _part_or_drop(request, record, reply)
        if place and reply.token_delay > 0:
            await asyncio.sleep(reply.token_delay)
        written = b"%sdata: %s\n\n" % (comments, event)
        if reply.write_size is None:
            await response.write(written)
            continue
        for offset in range(0, len(written), reply.write_size):
            await response.write(written[offset : offset + reply.write_size])
            await asyncio.sleep(0)
    if reply.cut_after is not None:
        return await _part_or_drop(request, record, reply)
    await response.write_eof()
    return response


async def _part_or_drop(request: web.BaseRequest, record: Recorded, reply: Reply) -> NoReturn:
    """Fall silent, or close the connection once what was written is out."""
    if reply.hang:
        await _for_ever()
    record.dropped = True
    if request.transport is not None:
        request.transport.close()
    await _until_gone()


def _reset(request: web.BaseRequest) -> None:
    transport = request.transport
    if transport is None:
        return
    peer = transport.get_extra_info("socket")
    if peer is not None:
        # closing without lingering sends a reset instead of a polite end
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


async def _for_ever() -> NoReturn:
    """Wait until the handler is cancelled, since the client closed or the server stops."""
    await asyncio.Event().wait()
    raise AssertionError


async def _until_gone() -> NoReturn:
    """Wait for the loop to notice that the connection is closed, which cancels the handler."""
    await asyncio.sleep(5)
    msg = "the connection was closed by the script"
    raise ConnectionResetError(msg)
