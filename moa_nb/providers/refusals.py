"""What a service's refusal means, told by its status, its code and its words: data, in that order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

__all__ = ["KINDS", "Cause", "Overflow", "cause", "overflow", "refuses", "wait_said"]

Cause = Literal["key", "payment", "model", "option", "context", "input", "service"]
"""What is wrong where a service refuses: the key, the account, the model's name, an option of every request,
this request's length, its text, or the service itself."""

KINDS: Mapping[Cause, Literal["setup", "row", "service"]] = MappingProxyType(
    {
        **dict.fromkeys(("key", "payment", "model", "option"), "setup"),
        **dict.fromkeys(("context", "input"), "row"),
        "service": "service",
    }
)
"""The kind of error that each cause is."""

_STATUSES: Mapping[int, Cause] = MappingProxyType({401: "key", 402: "payment", 404: "model"})
"""Statuses that say it all."""

_CODES: Mapping[str, Cause] = MappingProxyType(
    {
        **dict.fromkeys(("API_KEY_INVALID", "invalid_api_key", "authentication_error"), "key"),
        **dict.fromkeys(("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"), "payment"),
        **dict.fromkeys(("model_not_found", "model_not_available", "DeploymentNotFound"), "model"),
        **dict.fromkeys(("unsupported_parameter", "unsupported_value", "unknown_parameter"), "option"),
        **dict.fromkeys(("context_length_exceeded", "too_many_prompt_tokens", "exceed_context_size_error"), "context"),
        **dict.fromkeys(("content_filter", "content_policy_violation", "flagged_input", "tool_use_failed"), "input"),
    }
)
"""Codes that services give, where they give any."""

_WORDS: tuple[tuple[str, Cause], ...] = (
    (r"max_\w*tokens[`']?:? (\d+ >|is too large)", "option"),
    (r"api key not (valid|found)|(invalid|incorrect|expired) api key|api key (is )?(invalid|expired)", "key"),
    (r"credit balance|insufficient (balance|credit|funds)", "payment"),
    (r"context (length|window|size|limit)|maximum (context|(prompt|input) length|number of tokens)", "context"),
    (r"too many (\w+ )?tokens|(prompt|input|length of all messages) is too long|tokens exceed", "context"),
    (r"reduce the length|max_new_tokens` must be", "context"),
    (r"too (long|large)", "input"),
    (r"flagged|moderation|content (policy|management)|violates \w*\s?(usage|safety|content)", "input"),
    (r"model\b.{0,80}(not exist|not found|not a valid|decommissioned)|(not a valid|invalid) model", "model"),
)
"""Words that tell, where there is no telling code; the first that fits holds."""

_PHRASES = tuple((re.compile(words, re.IGNORECASE), meaning) for words, meaning in _WORDS)

_REFUSED = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown (name|parameter|field|argument)|not (permitted|enabled|allowed)"
    r"|deprecated|cannot both|extra (inputs|fields)",
    re.IGNORECASE,
)
"""Words about an option that no request to this model may have."""


def cause(status: int, message: str, code: str = "") -> Cause:
    """Return what is wrong, from an error's status and what ``said`` reads in its body.

    >>> cause(400, "prompt is too long: 9 tokens > 8 maximum", "invalid_request_error")
    'context'
    >>> cause(403, "Your input was flagged", "403")
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
    told = known or next((meaning for phrase, meaning in _PHRASES if phrase.search(message)), None)
    if told == "option" and _leaves_too_little(message):
        return "context"
    if status == 413:
        return "context" if told == "context" else "input"
    if told is not None:
        return told
    if status == 403:
        return "key"
    return "option" if refuses(message) else "input"


def refuses(message: str) -> bool:
    """Return whether a message is about an option that no request to this model may have."""
    return _REFUSED.search(message) is not None


# How long a request may be, and how long it was --------------------------------------------------


class Overflow(NamedTuple):
    """How a request and a context compare. Numbers of tokens; ``None`` where the service does not say."""

    context: int | None
    """What fits."""
    prompt: int | None
    """What was sent, without the room for the answer where the service tells them apart."""


_NUMBER = r"(\d[\d,_]*)"
_CONTEXTS = tuple(
    re.compile(words.replace("#", _NUMBER), re.IGNORECASE)
    for words in (
        r"maximum (?:context|prompt|input) length(?: is|:)? (?:only )?#",
        r"context (?:length|window|size)(?: is| of| \()\s?(?:only )?#",
        r"tokens > # maximum",
        r"context limit: \d+ \+ \d+ > #",
        r"tokens allowed \(#",
        r"with # maximum context",
        r"limit (?:is|of) #",
        r"max_new_tokens` must be <= #",
    )
)
_PROMPTS = tuple(
    re.compile(words.replace("#", _NUMBER), re.IGNORECASE)
    for words in (
        r"\(# (?:in the messages|in the prompt|of text input)",
        r"too long: #",
        r"context limit: # \+",
        r"token count \(#",
        r"(?:resulted in|contains|passed|request has|requested(?: about)?|given:|current length is) #",
        r"request \(# tokens",
    )
)
_ASKED = re.compile(rf"max_\w*tokens[`']? is too large: {_NUMBER}", re.IGNORECASE)


def overflow(message: str) -> Overflow:
    """Return how long a request was and how long it may be, as far as a service's message says.

    >>> overflow("prompt is too long: 3333404 tokens > 200000 maximum")
    Overflow(context=200000, prompt=3333404)
    >>> overflow("Please reduce the length of the messages or completion.")
    Overflow(context=None, prompt=None)
    """
    return Overflow(_first(_CONTEXTS, message), _first(_PROMPTS, message))


def _first(patterns: tuple[re.Pattern[str], ...], message: str) -> int | None:
    found = next(filter(None, (pattern.search(message) for pattern in patterns)), None)
    return int(re.sub(r"\D", "", found[1])) if found else None


def _leaves_too_little(message: str) -> bool:
    """Return whether the room that an answer asks for would do for a shorter text."""
    asked, context = _first((_ASKED,), message), overflow(message).context
    return asked is not None and context is not None and asked < context


# How long to wait --------------------------------------------------------------------------------

_WAIT = re.compile(r"(?:try again|retry) (?:in|after) ((?:\d+(?:\.\d+)?(?:ms|h|m|s)\s?)+)", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def wait_said(message: str) -> float | None:
    """Return the seconds that a message asks to wait; ``None`` if it names none.

    >>> wait_said("Rate limit reached. Please try again in 1m2.5s.")
    62.5
    """
    found = _WAIT.search(message)
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in _SPAN.findall(found[1])) if found else None
