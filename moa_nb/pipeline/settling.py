"""Layers that fill in a form: what all proposers agree on stands, and only the rest is the aggregator's to settle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moa_nb.errors import RowError
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.forms import Form

__all__ = ["as_form", "filled", "finished", "settled", "unanimous"]


def filled(answers: Sequence[Candidate]) -> list[Mapping[str, Any]]:
    """Return the forms that could be read from these answers."""
    return [answer.value for answer in answers if isinstance(answer.value, Mapping)]


def unanimous(ask: Ask, answers: Sequence[Candidate]) -> Candidate | None:
    """Return the answer in which all agree on each field; ``None`` where somebody has to settle one, or no form is asked.

    Of one answer alone nobody knows, and one that could not be read agrees with nothing.
    """
    form = ask.task.form
    if form is None or len(answers) < 2:
        return None
    agreed = form.agreed(filled(answers)) if len(filled(answers)) == len(answers) else {}
    if ask.decide("some field is in dispute", len(agreed) < len(form.names)):
        return None
    ask.flag("all agree on each field: nobody was asked to settle one")
    return as_form(form, answers[0], agreed)


def settled(ask: Ask, final: Candidate, answers: Sequence[Candidate]) -> Candidate:
    """Return the aggregator's answer with the fields on which all whom it read agree, as they have them.

    Where its own cannot be read, each field is what most of them say, and the result is degraded. Without a form it is
    returned as it is.
    """
    form = ask.task.form
    if form is None or not answers:
        return final
    read = filled(answers)
    if final.value is None:
        if not read:
            return final
        ask.flag("the aggregator filled in no form: each field is what most of the others say", degraded=True)
        return as_form(form, final, form.voted(read))
    agreed = form.agreed(read)
    return (
        final
        if all(final.value[name] == one for name, one in agreed.items())
        else as_form(form, final, {**final.value, **agreed})
    )


def finished(task: Task, final: Candidate) -> Candidate:
    """Return the final answer; where the task wants a form, with its fields as JSON for a text.

    Raises:
        RowError: it does not fill in the form.
    """
    if task.form is None:
        return final
    if final.value is None:
        msg = f"the answer of {final.agent} does not fit the schema: {task.form.mistakes(final.text)}"
        raise RowError(msg)
    return as_form(task.form, final, final.value)


def as_form(form: Form, answer: Candidate, value: Mapping[str, Any]) -> Candidate:
    """Return an answer with another filled form in its place."""
    return replace(answer, text=form.text(value), value=dict(value))
