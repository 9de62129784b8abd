"""How far the agents of a run agree, from what they said: no call is made for it."""

from __future__ import annotations

from collections.abc import Sequence

from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.result import Call, Result
from moa_nb.pipeline.similarity import similarity_of_all

__all__ = ["agreement_of", "proposals"]


def proposals(result: Result) -> tuple[Call, ...]:
    """Return the calls whose answers were put together last.

    Where an answer of several was taken as it stands, these are they; where one agent wrote it, those of the last layer
    before it in which several answer; where it was read from several, as a vote is, those of the last in which one could
    be read. Where each layer asks one, as the tiers of a cascade do, all that were asked the same as the last. Nobody
    where it is not known where the answer comes from. What judges or comments is no proposal.
    """
    layers = [layer.calls for layer in result.layers if not layer.aside]
    wide = [calls for calls in layers if len(calls) > 1]
    gave = next((place for place in reversed(range(len(layers))) if _gave(layers[place], result)), None)
    if gave is not None:
        layers = layers[: gave + 1]
    elif wide and result.text.strip():
        return next((calls for calls in reversed(wide) if any(call.value is not None for call in calls)), ())
    widest = next((calls for calls in reversed(layers) if len(calls) > 1), None)
    if widest is not None:
        return widest
    single = [call for calls in layers for call in calls]
    return tuple(call for call in single if _question(call) == _question(single[-1]))


def _gave(calls: Sequence[Call], result: Result) -> bool:
    """Return whether one of these calls says what the result says."""
    said = result.text.strip()
    return any(
        call.ok
        and said != ""
        and (call.text.strip() == said or (call.value is not None and call.value == result.value))
        for call in calls
    )


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
