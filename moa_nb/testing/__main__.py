"""The server as a process of its own: ``python -m moa_nb.testing``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moa_nb.testing.reply import Reply, lognormal
from moa_nb.testing.server import ChatServer

_KINDS = frozenset(name for name, member in vars(Reply).items() if isinstance(member, classmethod))


def _scripted(answer: str | dict[str, Any]) -> str | Reply:
    """Return the reply that a script file holds: a text, or a table of a ``Reply``'s fields.

    A table with ``kind`` names one of the constructors of ``Reply``; the rest are its arguments.
    """
    if isinstance(answer, str):
        return answer
    fields = dict(answer)
    if isinstance(fields.get("body"), str):
        fields["body"] = fields["body"].encode()
    kind = fields.pop("kind", None)
    if kind is None:
        return Reply(**fields)
    if kind not in _KINDS:
        msg = f"no reply is called {kind!r}; there are: {', '.join(sorted(_KINDS))}"
        raise ValueError(msg)
    reply = getattr(Reply, kind)(**fields)
    assert isinstance(reply, Reply)
    return reply


def _from_script(script: Mapping[str, Any], **options: Any) -> ChatServer:
    """Return the server that a script file describes.

    ``{"options": {"latency": {"median": 0.2}}, "replies": {"alpha": ["first", {"kind": "fault"}]}}``
    """
    options = {**script.get("options", {}), **{name: value for name, value in options.items() if value is not None}}
    if isinstance(options.get("latency"), dict):
        options["latency"] = lognormal(**options["latency"])
    server = ChatServer(**options)
    for model, replies in script.get("replies", {}).items():
        server.on(model, *map(_scripted, replies if isinstance(replies, list) else [replies]))
    return server


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal comes or, if asked for, standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m moa_nb.testing", description="A scripted chat server on loopback.")
    parser.add_argument("--port", type=int, help="where to listen; 0, the default, finds a free port")
    parser.add_argument("--script", type=Path, help='JSON: {"options": {}, "replies": {MODEL: [TEXT or TABLE]}}')
    parser.add_argument("--log", type=Path, help="append each finished request to this file, as a line of JSON")
    parser.add_argument("--key", help="the only key that is taken")
    parser.add_argument("--capacity", type=float, help="requests a second; the rest get a 429")
    parser.add_argument("--burst", type=float, help="requests at once under --capacity")
    parser.add_argument("--max-concurrency", type=int, help="answers in the making; the rest wait")
    parser.add_argument("--latency", type=float, help="seconds before each answer")
    parser.add_argument("--seed", type=int, help="of a latency that varies")
    parser.add_argument("--models", nargs="+", help="what /v1/models lists")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input closes")
    options = vars(parser.parse_args(arguments))
    script, exit_with_stdin = options.pop("script"), options.pop("exit_with_stdin")

    end = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: end.set())
    with _from_script({} if script is None else json.loads(script.read_text("utf-8")), **options) as server:
        print(server.base_url, flush=True)  # what the caller waits for
        if exit_with_stdin:
            threading.Thread(target=_wait_for_stdin, args=(end,), daemon=True).start()
        end.wait()


def _wait_for_stdin(end: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    end.set()


if __name__ == "__main__":
    main()
