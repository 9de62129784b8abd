"""The records of one exchange with a model: what is sent and what comes back.

They hold plain data, compare by value and are frozen, so that no strategy can change what another
one sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moa_nb.plain import quoted

__all__ = ["Completion", "Message", "Request", "Role", "Sampling", "Schema", "Usage", "conversation"]

Role = Literal["system", "user", "assistant"]
"""Who speaks in a message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    >>> Message("user", "Hello").to_dict()
    {'role': 'user', 'content': 'Hello'}
    """

    role: Role
    content: str

    def to_dict(self) -> dict[str, str]:
        """Return the message as the services write it."""
        return {"role": self.role, "content": self.content}


def conversation(prompt: str | Message | Iterable[Message | Mapping[str, str]]) -> tuple[Message, ...]:
    """Return ``prompt`` as messages: a text becomes one user turn, dicts become messages.

    Raises:
        ValueError: a turn without a known role or a text, or no turn at all.

    >>> conversation("Hello")
    (Message(role='user', content='Hello'),)
    """
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    if isinstance(prompt, Message):
        return (prompt,)
    turns = tuple(_turn(turn) for turn in prompt)
    if not any(turn.role == "user" for turn in turns):
        msg = "a conversation needs at least one turn of the user: {'role': 'user', 'content': '...'}"
        raise ValueError(msg)
    return turns


def _turn(turn: Message | Mapping[str, str]) -> Message:
    if isinstance(turn, Message):
        return turn
    role, content = turn.get("role"), turn.get("content")
    if role not in {"system", "user", "assistant"} or not isinstance(content, str):
        msg = f"a message is {{'role': 'system' | 'user' | 'assistant', 'content': text}}, not {quoted(turn, 80)}"
        raise ValueError(msg)
    return Message(role, content)  # type: ignore[arg-type]  # checked just above


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model draws its answer. ``None`` means: not sent, the service's own default holds."""

    temperature: float | None = None
    max_tokens: int | None = None
    """The most tokens the answer may have."""
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    extra: tuple[tuple[str, Any], ...] = ()
    """Further fields of the request's body, as the service spells them; sorted by name."""

    def stated(self) -> tuple[tuple[str, Any], ...]:
        """Return what is sent, by name.

        >>> Sampling(temperature=0.7).stated()
        (('temperature', 0.7),)
        """
        named = (
            ("temperature", self.temperature),
            ("max_tokens", self.max_tokens),
            ("top_p", self.top_p),
            ("seed", self.seed),
            ("stop", self.stop),
        )
        return tuple((name, value) for name, value in named if value is not None) + self.extra


@dataclass(frozen=True, slots=True)
class Schema:
    """What an answer must be, for services that hold to it: one JSON object."""

    name: str
    """Letters, digits, ``_`` and ``-``; 64 at most."""
    json: str
    """A JSON Schema, canonically written: of objects in which each field is required and no other is allowed."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one model, complete: equal requests may share an answer."""

    model: str
    """``provider:model``."""
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    sample: int = 0
    """Which of several independent draws of the same question this is; part of its identity."""
    references: tuple[str, ...] = ()
    """The answers of earlier agents that ``messages`` quotes; for agents that are not language models."""
    material: str | None = None
    """The text that the question is about, where it is known apart from the instruction."""
    question: str | None = field(default=None, compare=False)
    """The user's latest message, where ``messages`` only quotes it; for agents that are not language models."""
    function: Callable[..., Any] | None = field(default=None, compare=False)
    """The Python function that answers, for an agent that is one."""
    schema: Schema | None = None
    """What the answer must be, which ``messages`` say too; ``None``: free text."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as they are billed. ``None`` is 'not reported', never 0.

    ``cached_prompt_tokens`` and ``cache_write_tokens`` are parts of ``prompt_tokens``,
    ``reasoning_tokens`` a part of ``completion_tokens``. Adding keeps what either side knows:

    >>> (Usage(10, 5) + Usage(1, 2)).prompt_tokens
    11
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
    """Counted here, since the service reported nothing."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            _sum(self.prompt_tokens, other.prompt_tokens),
            _sum(self.completion_tokens, other.completion_tokens),
            _sum(self.cached_prompt_tokens, other.cached_prompt_tokens),
            _sum(self.cache_write_tokens, other.cache_write_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
            self.estimated or other.estimated,
        )

    @property
    def total_tokens(self) -> int | None:
        """Prompt and completion together; ``None`` where neither is known."""
        return _sum(self.prompt_tokens, self.completion_tokens)


def _sum(one: int | None, other: int | None) -> int | None:
    if one is None:
        return other
    return one if other is None else one + other


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered, and what that took."""

    text: str
    """The answer alone: reasoning stands in ``reasoning``."""
    model: str = ""
    """The model that the service says answered; may be more precise than the one asked."""
    finish_reason: str | None = None
    """``stop``, ``length``, ``content_filter``, ``tool_calls``, or what the service said."""
    usage: Usage = Usage()
    cost: float | None = None
    """Dollars; ``None`` where no price is known."""
    seconds: float = 0.0
    """Wall time from the question to the whole answer, waiting and retries included."""
    first_token_seconds: float | None = None
    """Wall time until the first piece of a streamed answer; ``None`` when not streamed."""
    queued_seconds: float = 0.0
    """The part of ``seconds`` before the request went out."""
    attempts: int = 1
    """How often the service was asked; 0 for an answer from the cache."""
    unreported: int = 0
    """How many attempts may be billed beside the one that is reported: cut off, given up, or overtaken by another."""
    cached: bool = False
    reasoning: str | None = None
    """What the model thought aloud, where the service keeps it apart or marks it."""
    key: bytes | None = field(default=None, compare=False)
    """The digest under which the store keeps it; ``None`` where it keeps nothing."""
    note: str | None = None
    """A remark that the reader must see, such as 'extractive, not a language model'."""
