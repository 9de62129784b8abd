"""Layers that fill in a form: what all proposers agree on stands, and only the rest is the aggregator's to settle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moa_nb.errors import BudgetExceeded, RowError, Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate
from moa_nb.pipeline.forms import Form

__all__ = ["as_form", "filled", "finished", "settled", "unanimous", "voted"]


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

    Without a form, or where its own cannot be read, it is returned as it is.
    """
    form = ask.task.form
    if form is None or final.value is None:
        return final
    agreed = form.agreed(filled(answers))
    return (
        final
        if all(final.value[name] == one for name, one in agreed.items())
        else as_form(form, final, {**final.value, **agreed})
    )


def voted(ask: Ask, answers: Sequence[Candidate], failure: Unanswered) -> Candidate:
    """Return the form in which each field is what most answers say, where nobody can settle them; it is degraded.

    Raises:
        Unanswered: the failure itself, where no form is asked, none could be read, or the budget ended.
    """
    form, read = ask.task.form, filled(answers)
    if form is None or not read or isinstance(failure, BudgetExceeded):
        raise failure
    ask.flag("the aggregator failed: each field is what most of the others say", degraded=True)
    return as_form(form, answers[0], form.voted(read))


def finished(ask: Ask, final: Candidate) -> Candidate:
    """Return the final answer; where the task wants a form, with its fields as JSON for a text.

    Where it cannot be read, each field is what most of those say who were read last, and the result is degraded.

    Raises:
        RowError: nobody filled in the form.
    """
    form = ask.task.form
    if form is None:
        return final
    if final.value is not None:
        return as_form(form, final, final.value)
    read = _read_last(ask)
    if not read:
        msg = f"the answer of {final.agent} does not fit the schema: {form.mistakes(final.text)}"
        raise RowError(msg)
    ask.flag(f"{final.agent} filled in no form: each field is what most of the others say", degraded=True)
    return as_form(form, final, form.voted(read))


def _read_last(ask: Ask) -> list[Mapping[str, Any]]:
    """Return the forms of the latest layer in which somebody filled one in."""
    for layer in reversed(ask.record.layers):
        calls = [] if layer.aside else [record.call for record in layer.calls if record.call is not None]
        if read := [call.value for call in calls if call.ok and isinstance(call.value, Mapping)]:
            return read
    return []


def as_form(form: Form, answer: Candidate, value: Mapping[str, Any]) -> Candidate:
    """Return an answer with another filled form in its place."""
    return replace(answer, text=form.text(value), value=dict(value))
