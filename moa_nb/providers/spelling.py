"""What one service calls otherwise than its format does, or does not take: a table, known beforehand or learned.

A spelling names fields of a body and what stands in their place; an empty name leaves the field out. The field
``system`` is the role of the system's words: left out, they go ahead of the first turn. The field ``schema`` is the
means by which a form is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from moa_nb.providers import structured
from moa_nb.providers.refusals import refuses
from moa_nb.providers.shared import dumps, loads, table
from moa_nb.providers.structured import SCHEMA

__all__ = ["SYSTEM", "refused", "spelt"]

SYSTEM = "system"
"""The name of the system's role in a spelling."""

_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "max_tokens": "max_completion_tokens",
        "max_completion_tokens": "max_tokens",
        "top_p": "",
        "temperature": "",
        "seed": "",
        "stream_options": "",
    }
)
"""Fields that some models refuse, and what they want in their place. A ``stop`` is never left out."""

_SYSTEM_REFUSED = re.compile(r"messages\[\d+\]\.role|system (role|message|prompt)|role.{0,20}system", re.IGNORECASE)


def spelt(body: bytes, spelling: Mapping[str, str]) -> bytes:
    """Return the body in a service's own spelling; what it does not have is not added.

    >>> spelt(b'{"max_tokens":9,"seed":1}', {"max_tokens": "max_completion_tokens", "seed": "", "top_p": ""})
    b'{"max_completion_tokens":9}'
    """
    fields = table(loads(body))
    for field, instead in spelling.items():
        if field == SYSTEM:
            fields = _system_as(instead, fields)
        elif field == SCHEMA:
            fields = structured.weakened(fields, instead)
        elif field in fields:
            value = fields.pop(field)
            if instead:
                fields.setdefault(instead, value)
    return dumps(fields)


def refused(body: bytes, message: str) -> dict[str, str]:
    """Return the spelling without what ``message`` refuses of the body; empty if that cannot be had.

    >>> refused(b'{"temperature":1}', "'temperature' is not supported")
    {'temperature': ''}
    """
    fields = table(loads(body))
    # First, since a schema's own fields may be called as those of a body.
    weaker = structured.refused(fields, message)
    if weaker or not refuses(message):
        return weaker
    if _SYSTEM_REFUSED.search(message):
        return {SYSTEM: ""} if _system_as("", fields) != fields else {}
    for field, instead in _INSTEAD.items():
        if field in fields and instead not in fields and re.search(rf"\b{field}\b", message):
            return {field: instead}
    return {}


def _system_as(role: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the body with the system's words under another role, or at the head of the first turn."""
    messages = fields.get("messages")
    if not isinstance(messages, list) or not all(isinstance(table(turn).get("content"), str) for turn in messages):
        return fields
    if role:
        return {**fields, "messages": [{**turn, "role": role} if _is_system(turn) else turn for turn in messages]}
    words = [turn["content"] for turn in messages if _is_system(turn)]
    turns = [turn for turn in messages if not _is_system(turn)]
    if not words or not turns:
        return fields
    first = {**turns[0], "content": "\n\n".join([*words, turns[0]["content"]])}
    return {**fields, "messages": [first, *turns[1:]]}


def _is_system(turn: Mapping[str, Any]) -> bool:
    return turn.get("role") == SYSTEM
