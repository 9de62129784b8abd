"""What strategies handle: a task, a question to one agent, and the answer that comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from moa_nb.chat import Message
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.spec import Agent

__all__ = ["Candidate", "Place", "Question", "Task"]

Place = Literal["system", "user", "alone", "turn"]
"""Where a rendered template stands in a prompt: in the system message beside the conversation, in place
of the user's latest message, alone as the only message, or as a new turn of an agent's own dialogue."""


@dataclass(frozen=True)
class Task:
    """What a pipeline is asked: a conversation, and the text it is about where that is known."""

    conversation: tuple[Message, ...]
    material: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What else is known of the input by name: a row's columns, for routers that look at them."""
    reference_answer: str | None = None
    """The right answer, for judges that are shown it; ``None`` where nobody knows it."""
    form: Form | None = field(default=None, compare=False)
    """What each answer must be, which the conversation says too; ``None``: free text."""

    @property
    def question(self) -> str:
        """The user's latest message."""
        return next(message.content for message in reversed(self.conversation) if message.role == "user")

    @property
    def history(self) -> tuple[Message, ...]:
        """The turns of user and assistant before the user's latest message."""
        latest = max(place for place, message in enumerate(self.conversation) if message.role == "user")
        return tuple(message for message in self.conversation[:latest] if message.role != "system")


@dataclass(frozen=True)
class Candidate:
    """One agent's answer, as later layers see it."""

    text: str
    agent: str
    finish_reason: str | None = None
    value: Any = None
    """What was read from the text; ``None`` where nothing was to be read, or could be."""
    prompt: tuple[Message, ...] = ()
    """The messages that it answers."""

    @property
    def dialogue(self) -> tuple[Message, ...]:
        """The agent's own conversation: what it was sent, and what it said."""
        return (*self.prompt, Message("assistant", self.text))


@dataclass(frozen=True)
class Question:
    """What one agent of a layer is asked.

    >>> Question(Agent(model="offline:lead")).place
    'system'
    """

    agent: Agent
    """A single agent, as ``Ask.agents`` returns them."""
    see: Sequence[Candidate] = ()
    """The answers that it reads; the template quotes them as ``references``."""
    template: str | None = None
    """How they are quoted, unless the agent has a template of its own; ``None``: the bare conversation,
    or ``synthesize`` where there is something to see."""
    place: Place = "system"
    after: Candidate | None = None
    """The answer whose dialogue goes on, for ``place="turn"``."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What else the template may use."""
    own_template: bool = True
    """Whether the agent's own template may stand in place of ``template``."""
