"""The least that a chat service can be, so that it does not slow down those who are measured.

    python tests/benchmarks/responder.py [--answer BYTES | --text TEXT] [--chunks N]

It answers every request with the same text of as many bytes, plain or, where the request asks for a stream, in as many
chunks, each a write of its own. ``GET /seen`` returns how many chat requests came, and the bytes of their bodies.
It ends when its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Iterator
from typing import Any, cast

WORDS = (
    "the",
    "a",
    "strap",
    "broke",
    "battery",
    "lasts",
    "two",
    "days",
    "but",
    "after",
    "week",
    "it",
    "was",
    "sent",
    "back",
    "and",
)


def text(n_bytes: int, seed: int = 0) -> str:
    """Return words and a full stop, ``n_bytes`` in all."""
    draw = random.Random(seed)
    return " ".join(draw.choices(WORDS, k=n_bytes))[: n_bytes - 1] + "."


def plain(answer: str) -> bytes:
    """Return a whole response with the answer."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "a",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400},
    }
    return response(json.dumps(body, separators=(",", ":")).encode())


def response(content: bytes) -> bytes:
    """Return JSON as a response of HTTP/1.1."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def streamed(answer: str, n_chunks: int) -> Iterator[bytes]:
    """Yield the writes of a streamed response: its head, an event each, its end."""
    yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "a"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    n_texts = n_chunks - 4  # the role, the end, the usage and [DONE] are chunks too
    size = -(-len(answer) // n_texts)
    deltas += [{"content": answer[start : start + size]} for start in range(0, n_texts * size, size)]
    events: list[Any] = [
        *({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas),
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400}},
    ]
    for event in [*(json.dumps(event, separators=(",", ":")) for event in events), "[DONE]"]:
        data = f"data: {event}\n\n".encode()
        yield b"%x\r\n%b\r\n" % (len(data), data)
    yield b"0\r\n\r\n"


class Service:
    """What it answers, and what it saw."""

    def __init__(self, answer: str, n_chunks: int) -> None:
        self.plain, self.streamed = plain(answer), list(streamed(answer, n_chunks))
        self.n_requests = self.n_bytes = 0


class Connection(asyncio.Protocol):
    """One connection; a client sends its next request after the answer to the one before."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is whole."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) < int(length.partition(b"\r\n")[0] or 0):
            return
        self._received = b""
        service = self._service
        if head.startswith(b"GET"):
            self._transport.write(response(json.dumps([service.n_requests, service.n_bytes]).encode()))
            return
        service.n_requests += 1
        service.n_bytes += len(body)
        self._write(iter(service.streamed if b'"stream":true' in body else (service.plain,)))

    def _write(self, writes: Iterator[bytes]) -> None:
        data = next(writes, None)
        if data is not None and not self._transport.is_closing():
            self._transport.write(data)
            self._loop.call_soon(
                self._write, writes
            )  # others write meanwhile, as the pieces of many streams come mixed


async def serve(service: Service) -> None:
    """Listen, print the address, and return when standard input closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description="a bare chat service on loopback")
    parser.add_argument("--answer", type=int, default=1000, help="bytes of the answer's text (default 1000)")
    parser.add_argument("--text", help="the answer itself, in place of one of so many bytes")
    parser.add_argument("--chunks", type=int, default=66, help="chunks of a stream (default 66)")
    options = parser.parse_args()
    service = Service(options.text or text(options.answer), options.chunks)
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(service))
    else:
        uvloop.run(serve(service))


if __name__ == "__main__":
    main()
