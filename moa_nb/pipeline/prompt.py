"""What an agent is sent: the conversation, and a rendered template at its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moa_nb import templating
from moa_nb.chat import Message
from moa_nb.pipeline.candidate import Question, Task

__all__ = ["Prompt", "Prompts", "quoting"]

Prompt = tuple[tuple[Message, ...], templating.Template | None]
"""The messages, and the template that is rendered in them; ``None`` where they are the bare conversation."""

_OTHER_SOURCE = re.compile(r"\{%[-+]?\s*(?:include|import|from|extends)\b")


class Prompts:
    """Writes the prompts of one layer; what is the same for several agents is rendered once."""

    def __init__(self, task: Task, secret: bytes, load: Callable[[str], templating.Template]) -> None:
        self._task, self._secret, self._load = task, secret, load
        self._known: dict[tuple[Any, ...], tuple[Prompt, Question]] = {}

    def of(self, question: Question) -> Prompt:
        """Return what a question's agent is sent.

        Raises:
            TemplateError: its template lacks a variable.
        """
        agent, see = question.agent, question.see
        name = question.template or ("synthesize" if see else None)
        if name is not None and question.own_template:
            name = agent.template or name
        # The same objects give the same text; the question keeps them alive, so that their identities stay their own.
        key = (agent.system, name, question.place, id(see), id(question.values), id(question.after))
        known = self._known.get(key)
        if known is not None:
            return known[0]
        if name is None:
            return self._keep(key, question, (_beside(self._task, agent.system, None), None))
        template = self._load(name)
        prompt = self._placed(question, self._render(template, question)), template
        return self._keep(key, question, prompt) if _is_same_for_all(template) else prompt

    def _keep(self, key: tuple[Any, ...], question: Question, prompt: Prompt) -> Prompt:
        self._known[key] = (prompt, question)
        return prompt

    def _render(self, template: templating.Template, question: Question) -> str:
        task = self._task
        references = [candidate.text for candidate in question.see]
        fenced = [*references, *(value for value in question.values.values() if isinstance(value, str))]
        if question.place != "system":
            # There the template may quote the question and what was said before it, which are data too.
            fenced += [message.content for message in task.conversation]
        # In whatever order they are shown, the mark is the same: swapped pairs differ in nothing else.
        fence = templating.fence(sorted(fenced), self._secret)
        values = quoting(references, fence, task.question, question.agent.label, task.conversation, task.history)
        return template.render({**values, **question.values}).strip()

    def _placed(self, question: Question, text: str) -> tuple[Message, ...]:
        task, system = self._task, question.agent.system
        match question.place:
            case "system":
                return _beside(task, system, text)
            case "user":
                turns = (*task.history, Message("user", text))
                return (*_system([system or "", *_said(task)]), *turns)
            case "alone":
                return (*_system([system or ""]), Message("user", text))
            case "turn":
                before = question.after.dialogue if question.after else _beside(task, system, None)
                return (*before, Message("user", text))


def quoting(
    references: Sequence[str],
    fence: str,
    question: str,
    agent: str,
    conversation: Sequence[Message] = (),
    history: Sequence[Message] = (),
) -> Mapping[str, Any]:
    """Return the variables of a template that quotes references: those of every prompt."""
    return {
        "references": references,
        "fence": fence,
        "question": question,
        "agent": agent,
        "conversation": [message.to_dict() for message in conversation],
        "history": [message.to_dict() for message in history],
    }


def _beside(task: Task, system: str | None, text: str | None) -> tuple[Message, ...]:
    """Return the conversation, with one system message that holds the agent's words, the user's, then ours."""
    if not system and not text and task.conversation[0].role != "system":
        return task.conversation
    turns = (message for message in task.conversation if message.role != "system")
    return (*_system([system or "", *_said(task), text or ""]), *turns)


def _said(task: Task) -> list[str]:
    """Return the user's own system messages."""
    return [message.content for message in task.conversation if message.role == "system"]


def _system(parts: Sequence[str]) -> tuple[Message, ...]:
    """Return the one system message that holds all parts; none where they are empty."""
    text = "\n\n".join(part for part in parts if part)
    return (Message("system", text),) if text else ()


def _is_same_for_all(template: templating.Template) -> bool:
    """Return whether a template says the same to each agent of a layer, as far as its own source shows it all."""
    return "agent" not in template.variables and not _OTHER_SOURCE.search(template.source)
