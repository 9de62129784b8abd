"""Where an answer comes from, as data that is saved beside it.

The record says which models were asked, with which parameters and templates, what they answered and
what that took. It holds no keys, and of prompts only digests: a template's digest and the
conversation are enough to ask again.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moa_nb.chat import Message, Usage
    from moa_nb.pipeline.result import Call, Result

__all__ = ["MAX_CHARACTERS", "MIME_TYPE", "is_secret", "record"]

MIME_TYPE = "application/vnd.moa.run+json"

MAX_CHARACTERS = 200_000
"""How much text a record may hold; beyond it the longest answers are cut, and marked so."""

_VERSION = 1

_SECRET = re.compile(r"api.?key|authorization|bearer|credential|passw|secret|(?:^|_)token$|x-.*-key", re.IGNORECASE)


def record(result: Result, *, max_characters: int = MAX_CHARACTERS) -> dict[str, Any]:
    """Return the provenance of ``result`` as plain JSON values."""
    cap = _cap([len(result.text), *(len(call.text) for call in result.calls)], max_characters)
    return {
        "version": _VERSION,
        "run_id": _clean(result.run_id),
        "pipeline": _clean(result.pipeline),
        "conversation": [_turn(message) for message in result.conversation],
        **_answer(result.text, cap),
        "value": _plain(result.value),
        "error": _clean_or_none(result.error),
        "layers": [
            {"name": _clean(layer.name), "calls": [_call(call, cap) for call in layer.calls]} for layer in result.layers
        ],
        "totals": {
            "calls": result.n_calls,
            "cached": sum(call.cached for call in result.calls),
            "failed": sum(not call.ok for call in result.calls),
            "usage": _usage(result.usage),
            "cost": _plain(result.cost),
            "budget": _plain(result.budget),
            "seconds": _plain(result.seconds),
        },
        "flags": {
            "degraded": result.degraded,
            "converged": result.converged,
            "accepted": result.accepted,
            "stop_reason": _clean(result.stop_reason),
            "n_unparsed": result.n_unparsed,
        },
        "notes": [_clean(note) for note in result.notes],
    }


def is_secret(name: str) -> bool:
    """Return whether a parameter of this name may hold a key, so that its value is not to be shown.

    >>> is_secret("api_key"), is_secret("max_tokens")
    (True, False)
    """
    return _SECRET.search(name) is not None


def _call(call: Call, cap: int) -> dict[str, Any]:
    return {
        "agent": _clean(call.agent),
        "model": _clean(call.model),
        "answered_by": _clean(call.answered_by),
        "parameters": {_clean(name): "…" if is_secret(name) else _plain(value) for name, value in call.parameters},
        "template": _clean_or_none(call.template),
        "template_digest": _clean_or_none(call.template_digest),
        "prompt_digest": _digest((message.role, message.content) for message in call.prompt) if call.prompt else None,
        "n_messages": len(call.prompt),
        **_answer(call.text, cap),
        "finish_reason": _clean_or_none(call.finish_reason),
        "note": _clean_or_none(call.note),
        "usage": _usage(call.usage),
        "cost": _plain(call.cost),
        "started": _plain(call.started),
        "queued_seconds": _plain(call.queued_seconds),
        "first_token_seconds": _plain(call.first_token_seconds),
        "seconds": _plain(call.seconds),
        "attempts": call.attempts,
        "cached": call.cached,
        "error": _clean_or_none(call.error),
        "error_kind": _clean_or_none(call.error_kind),
    }


def _answer(text: str, cap: int) -> dict[str, Any]:
    """Return a text with its length; ``is_cut`` stands there only for one that did not fit."""
    said: dict[str, Any] = {"text": _clean(text[:cap]), "n_characters": len(text)}
    return said | {"is_cut": True} if len(text) > cap else said


def _cap(lengths: list[int], room: int) -> int:
    """Return the length at which to cut the longest texts, so that all take at most ``room``."""
    for place, length in enumerate(sorted(lengths)):
        n_left = len(lengths) - place
        if length * n_left > room:
            return room // n_left
        room -= length
    return max(lengths)


def _turn(message: Message) -> dict[str, Any]:
    """Return a turn of the conversation; of a system message, which may hold secrets, its digest."""
    if message.role == "system":
        digest = _digest([(message.role, message.content)])
        return {"role": "system", "digest": digest, "n_characters": len(message.content)}
    return {"role": message.role, "content": _clean(message.content)}


def _digest(turns: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for role, content in turns:
        # The lengths keep two different lists of turns from running together into one text.
        digest.update(f"{role}:{len(content)}:{content}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_prompt_tokens": usage.cached_prompt_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "estimated": usage.estimated,
    }


_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")


def _clean(text: str) -> str:
    # A notebook is a UTF-8 file: it could not be saved with half a character in it.
    return _LONE_SURROGATES.sub("\ufffd", text)


def _clean_or_none(text: str | None) -> str | None:
    return None if text is None else _clean(text)


def _plain(value: Any) -> Any:
    """Return ``value`` in JSON's terms; what JSON does not know, as its text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, dict):
        return {_clean(str(name)): "…" if is_secret(str(name)) else _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    return _clean(str(value))[:2000]
