"""The JSON of OpenAI chat completions: whole answers, the events of streams, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from moa_nb.testing.recorded import Recorded, dumps, text_of
from moa_nb.testing.reply import Reply


def completion(number: int, record: Recorded, reply: Reply) -> bytes:
    """Return the body of a whole answer."""
    content: str | list[dict[str, str]] | None = reply.text
    if reply.content_null:
        content = None
    elif reply.content_as_list:
        content = [{"type": "text", "text": reply.text}]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    completion: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(record.arrived_unix),
        "model": reply.model or record.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
    }
    usage = _usage(record, reply)
    if usage is not None:
        completion["usage"] = usage
    return dumps(completion)


def events(number: int, record: Recorded, reply: Reply, key: str) -> Iterator[bytes]:
    """Return the data of each event of a stream: role, reasoning, text, finish, usage, done."""
    head = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": int(record.arrived_unix),
        "model": reply.model or record.model,
    }
    start = dumps(head)[:-1] + b',"choices":[{"index":0,"delta":'
    going_on = b',"finish_reason":null}]}'
    yield start + b'{"role":"assistant","content":""}' + going_on
    if reply.reasoning:
        for piece in _pieces(reply.reasoning, reply.chunks if isinstance(reply.chunks, int) else 1):
            yield start + dumps({"reasoning_content": piece}) + going_on
    if reply.content_null:
        yield start + b'{"content":null}' + going_on
    else:
        for piece in _pieces(reply.text, reply.chunks):
            delta = [{"type": "text", "text": piece}] if reply.content_as_list else piece
            yield start + dumps({"content": delta}) + going_on
    if reply.error is not None:
        yield error(reply, key)
        return
    finish = start + b'{},"finish_reason":' + dumps(reply.finish_reason) + b"}]"
    usage = None if reply.stream_usage == "none" else _usage(record, reply)
    if usage is not None and reply.stream_usage == "last":
        yield finish + b',"usage":' + dumps(usage) + b"}"
    else:
        yield finish + b"}"
        asked = (record.body.get("stream_options") or {}).get("include_usage")
        if usage is not None and (asked or reply.stream_usage == "own_chunk"):
            yield dumps({**head, "choices": [], "usage": usage})
    yield b"[DONE]"


def _pieces(text: str, chunks: int | Sequence[str]) -> Sequence[str]:
    if not isinstance(chunks, int):
        return chunks
    words = re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text)
    return ["".join(words[start : start + chunks]) for start in range(0, len(words), chunks)]


def _usage(record: Recorded, reply: Reply) -> dict[str, Any] | None:
    if reply.usage != "auto":
        return None if reply.usage is None else dict(reply.usage)
    prompt = sum(len(text_of(message).split()) for message in record.messages)
    reasoning = len(reply.reasoning.split()) if reply.reasoning else 0
    completion = len(reply.text.split()) + reasoning
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error(reply: Reply, key: str) -> bytes:
    """Return the body of an error; ``key`` is the one that the client sent."""
    message = f"HTTP status {reply.status}" if reply.error is None else reply.error
    kind = _ERROR_TYPES.get(reply.status, "server_error")
    fields = {"message": message.replace("{key}", key), "type": kind, "param": None, "code": reply.error_code}
    return dumps({"error": fields})
