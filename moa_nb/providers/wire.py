"""The wire formats side by side: all that the way of a call needs to know of how a service speaks.

What differs between them is an entry of ``WIRES``; who sends a request never asks which format it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from moa_nb.chat import Completion, Request
from moa_nb.providers import anthropic, gemini, litellm_bridge, openai_chat, spelling
from moa_nb.providers.refusals import KINDS, Cause, cause, wait_said
from moa_nb.providers.shared import Answer, loads, name, page, table

__all__ = ["KINDS", "WIRES", "Answer", "Bridge", "Cause", "Stream", "Wire", "below", "cause"]


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


class Headers(Protocol):
    """Writes the headers that a format wants."""

    def __call__(self, key: str | None, header: str | None = None) -> dict[str, str]:
        """Return them; the key stands in ``header`` where a service wants it elsewhere than its format does."""


class Bridge(Protocol):
    """Carries requests in HTTP's place."""

    async def get(self, url: str, headers: Mapping[str, str], seconds: float) -> Answer:
        """Return the answer to a question for the models."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> Answer:
        """Return the answer, whatever its status."""

    async def stream(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        seconds: float,
        on_events: Callable[[list[bytes]], bool],
    ) -> Answer:
        """Return the answer: after a stream, whose events went to ``on_events``, without its body."""


class Wire(NamedTuple):
    """One format, as functions over plain data."""

    name: str
    url: Callable[[str, str, bool], str]
    """Base URL, model and whether to stream -> where to post."""
    headers: Headers
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
    status: Callable[[bytes], int | None]
    """A body -> the status of an error that it says itself; ``None`` if it is no such error."""
    models_url: Callable[[str], str]
    """Base URL -> where the service lists its models."""
    models: Callable[[bytes], list[str]]
    """What it lists -> the models' names, sorted; ``ValueError`` if it is no list."""
    next_page: Callable[[str, bytes], str | None]
    """Where it lists and what it listed -> where the list goes on; ``None`` at its end."""
    refused: Callable[[bytes, str], dict[str, str]]
    """Body and the message that refused it -> the spelling that does without; empty if there is none.

    Only what shapes the drawing, or says what the messages say too, is left out or renamed; a ``stop`` or a bound on
    the length is never lost."""
    spelt: Callable[[bytes, Mapping[str, str]], bytes]
    """Body and a spelling -> the body with its fields as a service calls them."""
    bridge: Bridge | None = None
    """What carries requests in HTTP's place."""


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


# What the formats leave to others ---------------------------------------------------------------


def _retry_after(data: bytes) -> float | None:
    """Return the longest wait that an error's body asks for: one place may round what another says exactly."""
    waits = (gemini.retry_after(data), wait_said(openai_chat.said(data)[0]))
    return max((wait for wait in waits if wait is not None), default=None)


def _listed(data: bytes) -> list[str]:
    listed = loads(data)
    entries = table(listed).get("data") or table(listed).get("models") or ([] if isinstance(listed, dict) else listed)
    if not isinstance(entries, list):
        msg = "no list of models"
        raise ValueError(msg)  # noqa: TRY004 - whatever is wrong with an answer is one kind of error
    names = (name(entry.get("id")) or name(entry.get("name")) for entry in map(table, entries))
    return sorted(filter(None, set(names)))


def _next_page(url: str, data: bytes) -> str | None:
    listed = table(loads(data))
    last = name(listed.get("last_id"))
    return page(url, "after_id", last) if listed.get("has_more") and last else None


def _bearer(key: str | None, header: str | None = None) -> dict[str, str]:
    if not key:
        return {}
    return {header: key} if header else {"Authorization": f"Bearer {key}"}


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
    status=openai_chat.status,
    models_url=lambda base_url: below(base_url, "/models"),
    models=_listed,
    next_page=_next_page,
    refused=spelling.refused,
    spelt=spelling.spelt,
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
    status=openai_chat.status,
    models_url=lambda base_url: below(base_url, "/models?limit=1000"),
    models=_listed,
    next_page=_next_page,
    refused=spelling.refused,
    spelt=spelling.spelt,
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
    status=openai_chat.status,
    models_url=lambda base_url: below(base_url, "/models?pageSize=1000"),
    models=gemini.models,
    next_page=gemini.next_page,
    refused=gemini.refused,
    spelt=gemini.spelt,
)

_LITELLM = _OPENAI._replace(name="litellm", bridge=litellm_bridge.BRIDGE)

WIRES: Mapping[str, Wire] = MappingProxyType({wire.name: wire for wire in (_OPENAI, _ANTHROPIC, _GEMINI, _LITELLM)})
"""The formats by the name that the settings give them."""
