"""How far the agents of a run agree, from what they said: no call is made for it."""

from __future__ import annotations

from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.result import Call, Result
from moa_nb.pipeline.similarity import similarity_of_all

__all__ = ["agreement_of", "proposals"]


def proposals(result: Result) -> tuple[Call, ...]:
    """Return the calls whose answers were put together last: those of the last layer in which several answer.

    Where each layer asks one, as the tiers of a cascade do, all that were asked the same as the last. What judges or
    comments is no proposal.
    """
    layers = [layer for layer in result.layers if not layer.aside]
    widest = next((layer.calls for layer in reversed(layers) if len(layer.calls) > 1), None)
    if widest is not None:
        return widest
    calls = [call for layer in layers for call in layer.calls]
    return tuple(call for call in calls if _question(call) == _question(calls[-1]))


def _question(call: Call) -> str:
    return next((message.content for message in reversed(call.prompt) if message.role == "user"), "")


def agreement_of(result: Result, form: Form | None = None) -> float | None:
    """Return how far the proposals agree, in [0, 1]; ``None`` where there is one alone.

    What the strategy itself counted comes first, such as a vote's share. Filled forms agree field by field: labels by
    the share of the commonest, numbers by their spread, texts by their likeness; free text by its likeness. A call that
    failed, or could not be read, agrees with nothing.
    """
    if result.agreement is not None:
        return result.agreement
    calls = proposals(result)
    if len(calls) < 2:
        return None
    if form is not None:
        return form.agreement([call.value if call.ok else None for call in calls])
    return similarity_of_all([call.text if call.ok else None for call in calls])
