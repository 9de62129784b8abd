"""Fakes to test against: a scripted chat server that speaks real HTTP, and a clock that never waits.

    with ChatServer() as server:
        server.on("alpha", Reply.rate_limited(retry_after=0.1), "fine now")
        ...                         # point a provider at server.base_url
        assert server.count("alpha") == 2

It listens on loopback only. As a process of its own, so that it outlives its clients:

    python -m moa_nb.testing --port 0 --script replies.json --log requests.jsonl --exit-with-stdin
"""

from __future__ import annotations

from moa_nb.testing.clock import Clock
from moa_nb.testing.recorded import Recorded, read_log
from moa_nb.testing.reply import Answer, Reply, lognormal
from moa_nb.testing.server import ChatServer

__all__ = ["Answer", "ChatServer", "Clock", "Recorded", "Reply", "lognormal", "read_log"]
