"""From what a user gives to a task: a text or a conversation, a template around it, a form for the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from moa_nb import templating
from moa_nb.chat import Message, conversation
from moa_nb.engine.plan import prompt_template
from moa_nb.errors import SetupError
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.forms import Form, form
from moa_nb.plain import quoted

__all__ = ["Prompt", "make_task"]

Prompt = str | Message | Iterable[Message | Mapping[str, str]]
"""A text, or a conversation."""


def make_task(
    prompt: Prompt, template: str | None = None, values: Mapping[str, Any] | None = None, schema: Any = None
) -> Task:
    """Return the task of a prompt; with a template, a text becomes its ``{{ text }}``; with a schema it is told.

    Raises:
        SetupError: the prompt is empty, the template cannot be rendered, or the schema cannot be used.
    """
    if template is not None:
        if not isinstance(template, str):
            msg = f"template takes Jinja source or a template's name, not {quoted(template, 80)}"
            raise SetupError(msg)
        if values is not None and not isinstance(values, Mapping):
            msg = f"values takes a mapping of names to values, not {quoted(values, 80)}"
            raise SetupError(msg)
        if not isinstance(prompt, str):
            msg = "a template takes a text, not a conversation"
            raise SetupError(msg)
        rendered = prompt_template(template).render({**(values or {}), "text": prompt})
        task = Task(conversation(rendered), material=prompt if prompt.strip() else None)
    else:
        try:
            task = Task(conversation(prompt))
        except ValueError as error:
            raise SetupError(str(error)) from None
        except (TypeError, AttributeError):
            msg = f"a prompt is a text, or messages such as {{'role': 'user', 'content': '...'}}, not {quoted(prompt, 80)}"
            raise SetupError(msg) from None
    _refuse_empty(task.conversation)
    return task if schema is None else _filling_in(task, form(schema))


def _filling_in(task: Task, wanted: Form) -> Task:
    """Return the task whose latest message of the user says the form that is wanted."""
    told = templating.load("form").render({"fields": wanted.said})
    latest = max(place for place, message in enumerate(task.conversation) if message.role == "user")
    turns = [*task.conversation]
    turns[latest] = Message("user", f"{turns[latest].content}\n\n{told}")
    return replace(task, conversation=tuple(turns), material=task.material or task.question, form=wanted)


def _refuse_empty(messages: Iterable[Message]) -> None:
    """Return nothing if the user's latest message says something.

    Raises:
        SetupError: it is empty.
    """
    latest = [message.content for message in messages if message.role == "user"]
    if not latest or not latest[-1].strip():
        msg = "there is no text to answer: the prompt is empty"
        raise SetupError(msg)
