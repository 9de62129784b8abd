"""The wire formats side by side: all that the way of a call needs to know of how a service speaks.

What differs between them is an entry of ``WIRES``; who sends a request never asks which format it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from moa_nb.chat import Completion, Request
from moa_nb.providers import anthropic, gemini, openai_chat
from moa_nb.providers.shared import dumps, loads, name, table

__all__ = ["KINDS", "WIRES", "Cause", "Stream", "Wire", "below", "cause"]

Cause = Literal["key", "payment", "model", "option", "input", "service"]
"""What is wrong where a service refuses: the key, the account, the model's name, an option of every request,
this request's text, or the service itself."""

KINDS: Mapping[Cause, Literal["setup", "row", "service"]] = MappingProxyType(
    {"key": "setup", "payment": "setup", "model": "setup", "option": "setup", "input": "row", "service": "service"}
)
"""The kind of error that each cause is."""


class Stream(Protocol):
    """Collects the events of a streamed answer."""

    error: bytes | None
    """An error that came before the answer was finished, as ``said`` reads it."""

    @property
    def is_over(self) -> bool:
        """Whether the service said that nothing more comes."""

    @property
    def has_begun(self) -> bool:
        """Whether there is some of the answer already."""

    @property
    def is_whole(self) -> bool:
        """Whether the service said that the answer is finished."""

    def feed(self, events: Sequence[bytes]) -> str:
        """Return the text that these events add; ``ValueError`` if they make no sense."""

    def completion(self) -> Completion:
        """Return what has come together."""


class Wire(NamedTuple):
    """One format, as functions over plain data."""

    name: str
    url: Callable[[str, str, bool], str]
    """Base URL, model and whether to stream -> where to post."""
    headers: Callable[[str | None], dict[str, str]]
    """Key -> the headers that the format wants."""
    body: Callable[[Request, str], bytes]
    """Request and model -> body; equal requests give equal bytes. The model may stand in the address alone."""
    streamed: Callable[[bytes], bytes]
    """Body -> the body that asks for a stream."""
    parse: Callable[[bytes], Completion]
    """A whole answer -> completion; ``ValueError`` if it is none."""
    new_stream: Callable[[], Stream]
    """What collects a streamed answer."""
    said: Callable[[bytes], tuple[str, str]]
    """An error's body -> the service's own message and its code, uncut: they may hold a key."""
    retry_after: Callable[[bytes], float | None]
    """An error's body -> the seconds that it asks to wait; ``None`` if it says nothing."""
    models_url: Callable[[str], str]
    """Base URL -> where the service lists its models."""
    models: Callable[[bytes], list[str]]
    """What it lists -> the models' names, sorted; ``ValueError`` if it is no list."""
    mended: Callable[[bytes, str], bytes | None]
    """Body and the message that refused it -> a body without what is refused; ``None`` if nothing can be left out.

    Only what shapes the drawing is left out or renamed; a ``stop`` or a bound on the length is never lost."""


def below(base_url: str, path: str) -> str:
    """Return the address of a path below ``base_url``, whose query stays at the end.

    >>> below("https://lab.example/v1/?version=2", "/models?limit=9")
    'https://lab.example/v1/models?limit=9&version=2'
    """
    address, _, query = base_url.partition("?")
    address = address.rstrip("/") + path
    if not query:
        return address
    return f"{address}{'&' if '?' in address else '?'}{query}"


# What a refusal means ---------------------------------------------------------------------------

_STATUSES: Mapping[int, Cause] = MappingProxyType({401: "key", 402: "payment", 404: "model", 413: "input"})
"""Statuses that say it all."""

_CODES: Mapping[str, Cause] = MappingProxyType(
    {
        **dict.fromkeys(("API_KEY_INVALID", "invalid_api_key", "authentication_error", "permission_error"), "key"),
        **dict.fromkeys(("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"), "payment"),
        **dict.fromkeys(("model_not_found", "model_not_available", "DeploymentNotFound"), "model"),
        **dict.fromkeys(("unsupported_parameter", "unsupported_value", "unknown_parameter"), "option"),
        **dict.fromkeys(
            ("context_length_exceeded", "too_many_prompt_tokens", "content_filter", "tool_use_failed"), "input"
        ),
    }
)
"""Codes that services give, where they give any."""

_PHRASES: tuple[tuple[re.Pattern[str], Cause], ...] = (
    (re.compile(r"max_\w*tokens[`']?:? (\d+ >|is too large)", re.IGNORECASE), "option"),
    (
        re.compile(
            r"api key not (valid|found)|(invalid|incorrect|expired) api key|api key (is )?(invalid|expired)",
            re.IGNORECASE,
        ),
        "key",
    ),
    (re.compile(r"credit balance|insufficient (balance|credit|funds)", re.IGNORECASE), "payment"),
    (
        re.compile(
            r"too (long|large|many tokens)|context (length|window|size)|maximum (context|number of tokens)",
            re.IGNORECASE,
        ),
        "input",
    ),
    (re.compile(r"flagged|moderation|content (policy|management)", re.IGNORECASE), "input"),
    (
        re.compile(
            r"model\b.{0,80}(not exist|not found|not a valid|decommissioned)|(not a valid|invalid) model", re.IGNORECASE
        ),
        "model",
    ),
)
"""Words that tell, where there is no telling code; the first that fits holds."""

_REFUSED = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown (name|parameter|field|argument)|not (permitted|enabled|allowed)"
    r"|deprecated|cannot both|extra (inputs|fields)",
    re.IGNORECASE,
)
"""Words about an option that no request to this model may have."""


def cause(status: int, message: str, code: str = "") -> Cause:
    """Return what is wrong, from an error's status and what ``said`` reads in its body.

    >>> cause(400, "prompt is too long: 9 tokens > 8 maximum", "invalid_request_error")
    'input'
    >>> cause(400, "Unsupported parameter: 'stop'", "unsupported_parameter")
    'option'
    """
    if status in _STATUSES:
        return _STATUSES[status]
    known = _CODES.get(code)
    if status == 429 or status in {408, 409, 425} or status >= 500:
        # Every service says 'quota' where it means a minute's: only the code tells an empty account.
        return "payment" if known == "payment" else "service"
    if known is not None:
        return known
    for phrase, meaning in _PHRASES:
        if phrase.search(message):
            return meaning
    if status == 403:
        return "key"
    return "option" if _REFUSED.search(message) else "input"


# What the formats leave to others ---------------------------------------------------------------

_WAIT = re.compile(r"(?:try again|retry) (?:in|after) ((?:\d+(?:\.\d+)?(?:ms|h|m|s)\s?)+)", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _wait_said(message: str) -> float | None:
    """Return the seconds that a message asks to wait.

    >>> _wait_said("Rate limit reached. Please try again in 1m2.5s.")
    62.5
    """
    found = _WAIT.search(message)
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in _SPAN.findall(found[1])) if found else None


def _retry_after(data: bytes) -> float | None:
    """Return the longest wait that an error's body asks for: one place may round what another says exactly."""
    waits = (gemini.retry_after(data), _wait_said(openai_chat.said(data)[0]))
    return max((wait for wait in waits if wait is not None), default=None)


def _listed(data: bytes) -> list[str]:
    listed = loads(data)
    entries = table(listed).get("data") or table(listed).get("models") or ([] if isinstance(listed, dict) else listed)
    if not isinstance(entries, list):
        msg = "no list of models"
        raise ValueError(msg)  # noqa: TRY004 - whatever is wrong with an answer is one kind of error
    names = (name(entry.get("id")) or name(entry.get("name")) for entry in map(table, entries))
    return sorted(filter(None, set(names)))


def _bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


_OPTIONS: Mapping[str, str | None] = MappingProxyType(
    {
        "max_tokens": "max_completion_tokens",
        "max_completion_tokens": "max_tokens",
        "top_p": None,
        "temperature": None,
        "seed": None,
        "stream_options": None,
    }
)
"""Fields that some models refuse, and what they want in their place."""

_SYSTEM = re.compile(r"messages\[\d+\]\.role|system (role|message|prompt)|role.{0,20}system", re.IGNORECASE)


def _mended(data: bytes, message: str) -> bytes | None:
    if not _REFUSED.search(message):
        return None
    fields = table(loads(data))
    if _SYSTEM.search(message):
        return _without_system(fields)
    for option, instead in _OPTIONS.items():
        if option in fields and re.search(rf"\b{option}\b", message) and instead not in fields:
            value = fields.pop(option)
            return dumps(fields if instead is None else {**fields, instead: value})
    return None


def _without_system(fields: dict[str, Any]) -> bytes | None:
    """Return the body with the system's words at the head of the first turn; ``None`` if there are none."""
    messages = [table(message) for message in fields.get("messages") or ()]
    system = [name(message.get("content")) for message in messages if message.get("role") == "system"]
    turns = [message for message in messages if message.get("role") != "system"]
    if not system or not turns:
        return None
    first = {**turns[0], "content": "\n\n".join([*system, name(turns[0].get("content"))])}
    return dumps({**fields, "messages": [first, *turns[1:]]})


def _mended_gemini(data: bytes, message: str) -> bytes | None:
    fields = table(loads(data))
    instruction, contents = table(fields.pop("systemInstruction", None)), fields.get("contents")
    # Small open models there take no system's words, which the service calls a developer's.
    if (
        not instruction
        or not contents
        or not re.search(r"(developer|system).{0,3}instruction is not", message, re.IGNORECASE)
    ):
        return None
    first = {**contents[0], "parts": [*instruction["parts"], *contents[0]["parts"]]}
    return dumps({**fields, "contents": [first, *contents[1:]]})


# The formats ------------------------------------------------------------------------------------

_OPENAI = Wire(
    name="openai",
    url=lambda base_url, _model, _streamed: below(base_url, openai_chat.PATH),
    headers=_bearer,
    body=openai_chat.body,
    streamed=openai_chat.streamed,
    parse=openai_chat.parse,
    new_stream=openai_chat.Stream,
    said=openai_chat.said,
    retry_after=_retry_after,
    models_url=lambda base_url: below(base_url, "/models"),
    models=_listed,
    mended=_mended,
)

_ANTHROPIC = Wire(
    name="anthropic",
    url=lambda base_url, _model, _streamed: below(base_url, anthropic.PATH),
    headers=anthropic.headers,
    body=anthropic.body,
    streamed=anthropic.streamed,
    parse=anthropic.parse,
    new_stream=anthropic.Stream,
    said=openai_chat.said,
    retry_after=_retry_after,
    models_url=lambda base_url: below(base_url, "/models?limit=1000"),
    models=_listed,
    mended=_mended,
)

_GEMINI = Wire(
    name="gemini",
    url=lambda base_url, model, streamed: below(base_url, gemini.path(model, streamed=streamed)),
    headers=gemini.headers,
    body=gemini.body,
    streamed=gemini.streamed,
    parse=gemini.parse,
    new_stream=gemini.Stream,
    said=gemini.said,
    retry_after=_retry_after,
    models_url=lambda base_url: below(base_url, "/models?pageSize=1000"),
    models=gemini.models,
    mended=_mended_gemini,
)

WIRES: Mapping[str, Wire] = MappingProxyType({wire.name: wire for wire in (_OPENAI, _ANTHROPIC, _GEMINI)})
"""The formats by the name that the settings give them."""
