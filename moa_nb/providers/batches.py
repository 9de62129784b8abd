"""The Batch APIs side by side: many requests handed in together, answered within a day at half the price.

Pure, as the formats of single requests are: bytes that go out, records of what came back. OpenAI takes a file of
lines and then a batch that names it, Anthropic one body with all requests. Both answer in lines of JSON, in any order;
``custom_id`` tells which request a line answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from moa_nb.providers.shared import Answer, count, loads, name, page, table
from moa_nb.settings import Provider

__all__ = ["BATCH_APIS", "HALF", "BatchApi", "BatchState", "Post", "batch_api"]

HALF = 0.5
"""The part of the live price that a batched call costs.

Both services take 50 % off prompt and completion tokens: OpenAI's guide "Batch API", Anthropic's guide "Batch
processing". What expired, was cancelled or met an error is not billed.
"""

_MARK = "moa_nb"
"""The field of a batch's metadata that holds its mark."""


class Post(NamedTuple):
    """What is posted."""

    path: str
    """Below the base URL."""
    body: bytes
    content_type: str = "application/json"


class BatchState(NamedTuple):
    """A batch, as its service describes it."""

    id: str
    is_over: bool
    """Whether nothing more is answered: all is done, or the time was over, or somebody cancelled it."""
    n_requests: int | None
    """``None``: the service has not counted them yet."""
    mark: str
    """What whoever made it wrote on it; empty where the service keeps no such thing."""
    created: float
    """Seconds since 1970, by the service's clock."""
    paths: tuple[str, ...]
    """Where its results are, below the base URL; known when it is over."""
    refusal: Answer | None = None
    """Why none of it was done, as an answer to each of its requests; 429: later it may be."""


class BatchApi(NamedTuple):
    """One Batch API, as functions over plain data."""

    most_requests: int
    """Of one batch."""
    most_bytes: int
    """Of all its requests as they are written."""
    has_marks: bool
    """Whether a batch can be found again by what was written on it."""
    line: Callable[[str, bytes], bytes]
    """``custom_id`` and a request's body -> the request as a batch holds it."""
    upload: Callable[[Sequence[bytes]], Post] | None
    """Requests -> the file with them; ``None`` where they stand in the batch itself."""
    create: Callable[[Sequence[bytes], str, str], Post]
    """Requests, the file's id and a mark -> what makes the batch."""
    path: str
    """Below the base URL, where batches are."""
    next_page: Callable[[str], str]
    """The last batch of the page before, or nothing -> where batches are listed, below the base URL."""
    state: Callable[[Any], BatchState]
    """A batch as JSON says it -> its record; ``ValueError`` if it is none."""
    result: Callable[[bytes], tuple[str, Answer | None]]
    """A line of results -> ``custom_id``, and the answer that the request would have had live; ``None``: unanswered."""


def batch_api(provider: Provider) -> BatchApi | None:
    """Return how a provider's Batch API is spoken to; ``None`` where it has none."""
    return BATCH_APIS.get(provider.wire) if provider.has_batches else None


# OpenAI -----------------------------------------------------------------------------------------
# https://platform.openai.com/docs/guides/batch: 50,000 requests and 200 MB a file, all for one model.

_ENDPOINT = "/v1/chat/completions"
"""What the requests of a file are for, by OpenAI's own name, whatever the base URL is."""

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

_UNANSWERED = frozenset({"batch_expired", "batch_cancelled"})

_QUEUE_IS_FULL = frozenset({"token_limit_exceeded"})
"""Codes of a batch that would be more than may be under way at one time."""


def _openai_line(custom_id: str, body: bytes) -> bytes:
    head = f'{{"custom_id":"{custom_id}","method":"POST","url":"{_ENDPOINT}","body":'
    return head.encode() + body + b"}"


def _openai_upload(lines: Sequence[bytes]) -> Post:
    content = b"\n".join(lines) + b"\n"
    border = b"moa-nb-" + hashlib.blake2b(content, digest_size=16).hexdigest().encode()
    part = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    body = b"".join(
        (
            part % (border, b"purpose", b"", b"batch"),
            part % (border, b"file", b'; filename="moa-nb.jsonl"\r\nContent-Type: application/jsonl', content),
            b"--%s--\r\n" % border,
        )
    )
    return Post("/files", body, f"multipart/form-data; boundary={border.decode()}")


def _openai_create(_lines: Sequence[bytes], file: str, mark: str) -> Post:
    fields = {"input_file_id": file, "endpoint": _ENDPOINT, "completion_window": "24h", "metadata": {_MARK: mark}}
    return Post("/batches", orjson.dumps(fields))


def _openai_state(batch: Any) -> BatchState:
    batch = table(batch)
    status = name(batch.get("status"))
    files = [name(batch.get(field)) for field in ("output_file_id", "error_file_id")]
    return BatchState(
        id=_id(batch),
        is_over=status in _ENDED,
        n_requests=count(table(batch.get("request_counts")).get("total")) or None,
        mark=name(table(batch.get("metadata")).get(_MARK)),
        created=float(count(batch.get("created_at")) or 0),
        paths=tuple(f"/files/{file}/content" for file in files if file),
        refusal=_openai_refusal(batch) if status == "failed" else None,
    )


def _openai_refusal(batch: Mapping[str, Any]) -> Answer:
    found = table(batch.get("errors")).get("data")
    error = table(found[0]) if isinstance(found, list) and found else {"message": "the batch was not taken"}
    status = 429 if name(error.get("code")) in _QUEUE_IS_FULL else 400
    return Answer(status, {}, orjson.dumps({"error": error}))


def _openai_result(line: bytes) -> tuple[str, Answer | None]:
    result = table(loads(line))
    custom_id, response, error = (
        name(result.get("custom_id")),
        table(result.get("response")),
        table(result.get("error")),
    )
    if response:
        status = count(response.get("status_code")) or 500
        return custom_id, Answer(status, {}, orjson.dumps(response.get("body")))
    if name(error.get("code")) in _UNANSWERED:
        return custom_id, None
    return custom_id, Answer(500, {}, orjson.dumps({"error": error}))


_OPENAI = BatchApi(
    most_requests=50_000,
    most_bytes=199_000_000,  # and what a model's own names of fields add
    has_marks=True,
    line=_openai_line,
    upload=_openai_upload,
    create=_openai_create,
    path="/batches",
    next_page=lambda last: _listed("/batches?limit=100", "after", last),
    state=_openai_state,
    result=_openai_result,
)

# Anthropic --------------------------------------------------------------------------------------
# https://platform.claude.com/docs/en/build-with-claude/batch-processing: 100,000 requests or 256 MB.

_STATUSES = {
    "billing_error": 402,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that an error of this type has live; that of any other is 400."""


def _anthropic_line(custom_id: str, body: bytes) -> bytes:
    return f'{{"custom_id":"{custom_id}","params":'.encode() + body + b"}"


def _anthropic_create(lines: Sequence[bytes], _file: str, _mark: str) -> Post:
    return Post("/messages/batches", b'{"requests":[' + b",".join(lines) + b"]}")


def _anthropic_state(batch: Any) -> BatchState:
    batch = table(batch)
    counts = [count(number) or 0 for number in table(batch.get("request_counts")).values()]
    created = name(batch.get("created_at"))
    return BatchState(
        id=_id(batch),
        is_over=batch.get("processing_status") == "ended",
        n_requests=sum(counts) or None,
        mark="",
        created=datetime.fromisoformat(created).timestamp() if created else 0.0,
        paths=(f"/messages/batches/{batch['id']}/results",),
    )


def _anthropic_result(line: bytes) -> tuple[str, Answer | None]:
    entry = table(loads(line))
    custom_id, result = name(entry.get("custom_id")), table(entry.get("result"))
    kind = result.get("type")
    if kind == "succeeded":
        return custom_id, Answer(200, {}, orjson.dumps(result.get("message")))
    if kind != "errored":
        return custom_id, None  # expired or cancelled
    error = table(result.get("error"))
    inner = table(error.get("error")) or error
    return custom_id, Answer(_STATUSES.get(name(inner.get("type")), 400), {}, orjson.dumps({"error": inner}))


_ANTHROPIC = BatchApi(
    most_requests=100_000,
    most_bytes=255_000_000,  # likewise
    has_marks=False,
    line=_anthropic_line,
    upload=None,
    create=_anthropic_create,
    path="/messages/batches",
    next_page=lambda last: _listed("/messages/batches?limit=1000", "after_id", last),
    state=_anthropic_state,
    result=_anthropic_result,
)

# Both -------------------------------------------------------------------------------------------


def _id(batch: Mapping[str, Any]) -> str:
    found = name(batch.get("id"))
    if not found:
        msg = "no batch"
        raise ValueError(msg)
    return found


def _listed(path: str, field: str, last: str) -> str:
    return page(path, field, last) if last else path


BATCH_APIS: Mapping[str, BatchApi] = MappingProxyType({"openai": _OPENAI, "anthropic": _ANTHROPIC})
"""By the name of the wire format that the requests are written in."""
