"""A scripted Batch API of OpenAI's and of Anthropic's kind, on loopback, with its state in a file.

As a process of its own, that can be killed and goes on where it was when it is started again:

    python -m moa_nb.testing.batch_server --port 8123 --state batches.json
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from moa_nb.providers.secrecy import secrets
from moa_nb.testing import bodies
from moa_nb.testing.recorded import Recorded, dumps, loads, text_of
from moa_nb.testing.reply import Reply
from moa_nb.testing.server import ChatServer

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["BatchEnd", "BatchServer"]

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class BatchEnd:
    """How a batch ends."""

    status: Literal["completed", "expired", "cancelled", "failed"] = "completed"
    """``failed``: none of it is done."""
    answered: int | None = None
    """How many of its requests are answered, the first ones; ``None`` for all of a completed batch."""
    code: str = "invalid_request"
    """Of a failed one."""
    message: str = "The batch was not taken"
    """Of a failed one."""


class BatchServer(ChatServer):
    """A chat server that takes batches too, and answers a batch as it answers live.

    Args:
        state: the file in which files and batches are kept; ``None`` for memory alone.
        looks: how often a batch is looked at until it has ended.
        **options: those of ``ChatServer``.
    """

    def __init__(self, *, state: str | os.PathLike[str] | None = None, looks: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.looks = looks
        self.held = False
        """While it is true, no batch ends."""
        self._key = options.get("key")
        self._state = None if state is None else Path(state)
        self._files: dict[str, str] = {}
        self._batches: list[dict[str, Any]] = []
        self._ends: dict[str, list[BatchEnd]] = {}
        self._creates: list[tuple[Reply, bool]] = []
        self._writing = threading.Lock()
        if self._state is not None and self._state.exists():
            kept = loads(self._state.read_bytes())
            self._files, self._batches = kept["files"], kept["batches"]
        self._n_made = len(self._batches)

    # what it is told ----------------------------------------------------------------------------

    def ends(self, model: str, *ends: BatchEnd) -> None:
        """Say how the next batches of a model end, one after the other; further ones are completed."""
        self._ends.setdefault(model, []).extend(ends)

    def answer_create(self, reply: Reply, *, is_made: bool = False) -> None:
        """Answer the next request to make a batch with ``reply``; it may be made all the same."""
        self._creates.append((reply, is_made))

    def forget(self) -> None:
        """Know no batch any more."""
        self._batches = []
        self._save()

    # what it saw --------------------------------------------------------------------------------

    @property
    def batches(self) -> list[dict[str, Any]]:
        """The batches so far: ``id``, ``model``, ``requests`` (``custom_id`` and body each), ``status``."""
        return list(self._batches)

    @property
    def batched(self) -> list[str]:
        """The ``custom_id`` of each request of each batch."""
        return [custom_id for batch in self._batches for custom_id, _ in batch["requests"]]

    # one request --------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, method = request.path.removeprefix("/v1"), request.method
        is_anthropic = path.startswith("/messages")
        if not (is_anthropic or path.startswith(("/files", "/batches"))):
            return await super()._handle(request)
        from moa_nb.testing import wire

        if self._refuses(request):
            return wire.refuse(request, Reply.refused_key())
        parts = path.strip("/").split("/")
        if path == "/messages" and method == "POST":
            status, content = self._message(loads(await request.content.read()))
            return wire.plain(dumps(content), status)
        if path == "/files" and method == "POST":
            return wire.plain(dumps({"id": self._upload(await request.content.read()), "object": "file"}))
        if parts[0] == "files" and parts[-1] == "content" and parts[1] in self._files:
            return wire.plain(self._files[parts[1]].encode())
        if path in {"/batches", "/messages/batches"}:
            if method == "POST":
                return await self._create(request, is_anthropic=is_anthropic)
            return wire.plain(dumps(self._listed(request.query, is_anthropic=is_anthropic)))
        batch = next((one for one in self._batches if one["id"] in parts), None)
        if batch is None:
            return wire.refuse(request, Reply(status=404, error=f"There is nothing at {path}"))
        if parts[-1] == "results":
            return wire.plain("".join(batch["results"]).encode())
        self._look(batch)
        return wire.plain(dumps(self._described(batch)))

    def _refuses(self, request: web.BaseRequest) -> bool:
        return self._key is not None and self._key not in secrets(request.headers)

    def _upload(self, content: bytes) -> str:
        """Return the id of a file, read from a form with the parts ``purpose`` and ``file``."""
        border = content.split(b"\r\n", 1)[0]
        parts = [part.split(b"\r\n\r\n", 1) for part in content.split(border)[1:-1]]
        fields = {re.search(rb'name="(\w+)"', head)[1]: body.removesuffix(b"\r\n") for head, body in parts}  # type: ignore[index]  # each has a name
        assert fields[b"purpose"] == b"batch"
        name = f"file-{len(self._files) + 1}"
        self._files[name] = fields[b"file"].decode()
        self._save()
        return name

    # batches ------------------------------------------------------------------------------------

    async def _create(self, request: web.BaseRequest, *, is_anthropic: bool) -> web.StreamResponse:
        from moa_nb.testing import wire

        body = loads(await request.content.read())
        reply, is_made = self._creates.pop(0) if self._creates else (None, True)
        batch = self._new(body, is_anthropic=is_anthropic) if is_made else None
        if reply is not None:
            record = Recorded(body, b"", request.headers, "", time.monotonic(), time.time())
            return await wire.send(request, record, reply, self._numbers)
        assert batch is not None
        return wire.plain(dumps(self._described(batch)))

    def _new(self, body: dict[str, Any], *, is_anthropic: bool) -> dict[str, Any]:
        """Return the batch that a request makes."""
        if is_anthropic:
            requests = [(one["custom_id"], one["params"]) for one in body["requests"]]
        else:
            lines = [loads(line.encode()) for line in self._files[body["input_file_id"]].splitlines()]
            assert all(line["url"] == body["endpoint"] and line["method"] == "POST" for line in lines)
            requests = [(line["custom_id"], line["body"]) for line in lines]
        ids = [custom_id for custom_id, _ in requests]
        models = {one["model"] for _, one in requests}
        assert len(set(ids)) == len(ids)
        assert all(_CUSTOM_ID.fullmatch(custom_id) for custom_id in ids)
        self._n_made += 1
        batch = {
            "id": f"{'msgbatch' if is_anthropic else 'batch'}_{self._n_made}",
            "is_anthropic": is_anthropic,
            "created": time.time(),
            "metadata": body.get("metadata"),
            "model": ", ".join(sorted(models)),
            "requests": requests,
            "looks": 0,
            "status": "in_progress",
            "results": [],
            "error": None,
        }
        self._batches.append(batch)
        if len(models) > 1 and not is_anthropic:
            self._end(batch, BatchEnd("failed", code="mismatched_model", message="One file is for one model"))
        self._save()
        return batch

    def _look(self, batch: dict[str, Any]) -> None:
        batch["looks"] += 1
        if batch["status"] == "in_progress" and batch["looks"] >= self.looks and not self.held:
            ends = self._ends.get(batch["model"])
            self._end(batch, ends.pop(0) if ends else BatchEnd())
        self._save()

    def _end(self, batch: dict[str, Any], end: BatchEnd) -> None:
        batch["status"] = end.status
        if end.status == "failed":
            batch["error"] = {"code": end.code, "message": end.message, "param": None, "line": None}
            return
        most = len(batch["requests"]) if end.status == "completed" else 0
        n_answered = most if end.answered is None else end.answered
        write = self._anthropic_result if batch["is_anthropic"] else self._openai_result
        batch["results"] = [
            dumps({"custom_id": custom_id, **write(body if place < n_answered else None, end)}).decode() + "\n"
            for place, (custom_id, body) in enumerate(batch["requests"])
        ]
        batch["results"].reverse()  # the order of results says nothing
        if not batch["is_anthropic"]:
            self._files[f"file-of-{batch['id']}"] = "".join(batch["results"])

    def _openai_result(self, body: dict[str, Any] | None, end: BatchEnd) -> dict[str, Any]:
        if body is None:
            return {"response": None, "error": {"code": f"batch_{end.status}", "message": "It came too late"}}
        reply, record = self._replied(body)
        is_good = 200 <= reply.status < 300
        content = reply.body or (
            bodies.completion(next(self._numbers), record, reply) if is_good else bodies.error(reply, "")
        )
        return {"response": {"status_code": reply.status, "request_id": "r", "body": loads(content)}, "error": None}

    def _anthropic_result(self, body: dict[str, Any] | None, end: BatchEnd) -> dict[str, Any]:
        if body is None:
            return {"result": {"type": "canceled" if end.status == "cancelled" else end.status}}
        status, content = self._message(body)
        if status != 200:
            return {"result": {"type": "errored", "error": content}}
        return {"result": {"type": "succeeded", "message": content}}

    def _replied(self, body: dict[str, Any]) -> tuple[Reply, Recorded]:
        record = Recorded(body, b"", {}, body["model"], time.monotonic(), time.time())
        return self._next_reply(record), record

    def _message(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an answer in Anthropic's format."""
        reply, record = self._replied(body)
        if reply.status != 200:
            kind = _ANTHROPIC_TYPES.get(reply.status, "api_error")
            return reply.status, {"type": "error", "error": {"type": kind, "message": reply.error or ""}}
        prompt = sum(len(text_of(message).split()) for message in record.messages)
        return 200, {
            "id": f"msg_{next(self._numbers)}",
            "type": "message",
            "role": "assistant",
            "model": record.model,
            "content": [{"type": "text", "text": reply.text}],
            "stop_reason": "max_tokens" if reply.finish_reason == "length" else "end_turn",
            "usage": {"input_tokens": prompt, "output_tokens": len(reply.text.split())},
        }

    # what it says of them -----------------------------------------------------------------------

    def _described(self, batch: dict[str, Any]) -> dict[str, Any]:
        n, is_over = len(batch["requests"]), batch["status"] != "in_progress"
        if batch["is_anthropic"]:
            counts = {"processing": 0 if is_over else n, "succeeded": n if is_over else 0, "errored": 0}
            return {
                "id": batch["id"],
                "type": "message_batch",
                "processing_status": "ended" if is_over else "in_progress",
                "request_counts": counts,
                "created_at": datetime.fromtimestamp(batch["created"], UTC).isoformat().replace("+00:00", "Z"),
            }
        return {
            "id": batch["id"],
            "object": "batch",
            "status": batch["status"],
            "created_at": int(batch["created"]),
            "metadata": batch["metadata"],
            "request_counts": {"total": n, "completed": n if is_over else 0, "failed": 0},
            "output_file_id": f"file-of-{batch['id']}" if batch["results"] else None,
            "error_file_id": None,
            "errors": None if batch["error"] is None else {"object": "list", "data": [batch["error"]]},
        }

    def _listed(self, query: Mapping[str, str], *, is_anthropic: bool) -> dict[str, Any]:
        """Return a page of the list of batches, the newest first."""
        known = [batch for batch in reversed(self._batches) if batch["is_anthropic"] == is_anthropic]
        last = query.get("after_id" if is_anthropic else "after")
        ids = [batch["id"] for batch in known]
        rest = known[ids.index(last) + 1 :] if last in ids else known
        shown = rest[: int(query.get("limit", 20))]
        for batch in shown:
            self._look(batch)
        return {
            "data": [self._described(batch) for batch in shown],
            "has_more": len(shown) < len(rest),
            "last_id": shown[-1]["id"] if shown else None,
        }

    def _save(self) -> None:
        if self._state is None:
            return
        with self._writing:
            beside = self._state.with_suffix(".new")
            beside.write_bytes(dumps({"files": self._files, "batches": self._batches}))
            beside.replace(self._state)


def _echo(body: dict[str, Any]) -> str:
    said = text_of(body["messages"][-1])
    return f"{body['model']} read {len(said)} characters: {said[:40]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is killed; each answer repeats the beginning of its question."""
    parser = argparse.ArgumentParser(prog="python -m moa_nb.testing.batch_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0, the default, finds a free port")
    parser.add_argument("--state", type=Path, help="where files and batches are kept")
    parser.add_argument("--looks", type=int, default=1, help="how often a batch is looked at until it has ended")
    parser.add_argument("--lose", choices=("made", "unmade"), help="what becomes of the first batch, unanswered")
    options = vars(parser.parse_args(arguments))
    lose = options.pop("lose")
    with BatchServer(**options) as server:
        server.on("*", _echo)
        if lose:
            server.answer_create(Reply.hanging(), is_made=lose == "made")
        sys.stdout.write(server.base_url + "\n")
        sys.stdout.flush()  # what the caller waits for
        threading.Event().wait()


if __name__ == "__main__":
    main()
