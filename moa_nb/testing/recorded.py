"""What a server was asked, and the log that keeps it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from moa_nb.providers.secrecy import is_secret


@dataclass(slots=True)
class Recorded:
    """One chat request that reached the server. Its later fields fill in while it is answered.

    Moments are seconds of ``time.monotonic()``, which all processes of one machine share.
    """

    body: dict[str, Any]
    """The request's JSON; empty where it was not a JSON object."""
    content: bytes
    """The body's bytes as they came; empty in a record that was read from a log."""
    headers: Mapping[str, str]
    """The request's headers; names are found in any case."""
    model: str
    arrived: float
    arrived_unix: float
    """``arrived``, as ``time.time()`` tells it."""
    started: float | None = None
    """When the answer began to be made: ``max_concurrency`` is the wait before."""
    finished: float | None = None
    """When the server was done with it, answered or not; ``None`` while in flight."""
    status: int | None = None
    """The HTTP status that was sent; ``None`` where none was."""
    closed_at: float | None = None
    """When the client closed the connection before it had its answer; ``None`` where it did not."""
    dropped: bool = False
    """The server closed the connection early, as the script said."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of the request."""
        return list(self.body.get("messages") or ())

    @property
    def seconds(self) -> float | None:
        """Seconds from arrival to finish; ``None`` while in flight."""
        return None if self.finished is None else self.finished - self.arrived

    @property
    def finished_unix(self) -> float | None:
        """``finished``, as ``time.time()`` tells it."""
        return None if self.finished is None else self.arrived_unix + (self.finished - self.arrived)

    def text_of(self, role: str) -> str:
        """Return the text of all messages of ``role``, joined by line ends."""
        return "\n".join(text_of(message) for message in self.messages if message.get("role") == role)


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of one message, whose content may be a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


_LOGGED = ("model", "status", "arrived", "arrived_unix", "started", "finished", "closed_at", "dropped", "body")


def read_log(path: str | os.PathLike[str]) -> list[Recorded]:
    """Return the requests that a server appended to its log, in the order in which they finished.

    Headers that may hold a key are not in the log; a last line that is still being written is left out.
    """
    from multidict import CIMultiDict

    records = []
    for line in Path(path).read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            fields = loads(line)
            fields["headers"] = CIMultiDict(fields["headers"])
            records.append(Recorded(content=b"", **fields))
    return records


def log_line(record: Recorded) -> bytes:
    """Return the line that a log keeps of a request, without its key."""
    fields: dict[str, Any] = {name: getattr(record, name) for name in _LOGGED}
    fields["headers"] = {name: value for name, value in record.headers.items() if not is_secret(name)}
    return dumps(fields) + b"\n"


def dumps(value: Any) -> bytes:
    """Return JSON, also of texts that are not quite Unicode."""
    try:
        return orjson.dumps(value)
    except TypeError:  # half of a surrogate pair, which orjson does not write
        return json.dumps(value).encode()


def loads(content: bytes) -> Any:
    """Return what JSON says, also where its texts are not quite Unicode."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:  # the same half, on its way in
        return json.loads(content)
