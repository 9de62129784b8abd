"""The view of a run that still goes on."""

from __future__ import annotations

from moa_nb.chat import Usage
from moa_nb.panels.quoted import n_read
from moa_nb.panels.view import CallState, CallView, LayerView, PanelView, call_view, caption_of, view_of
from moa_nb.pipeline.record import CallRecord, LayerRecord, RunRecord

__all__ = ["view_of_record"]


def view_of_record(record: RunRecord) -> PanelView:
    """Return what a panel shows of a run at this moment."""
    if record.result is not None:
        return view_of(record.result)
    now = record.seconds()
    layers = tuple(record.layers)
    usage, cost, n_cached = Usage(), 0.0, 0
    known: float | None = cost
    for layer in layers:
        for call in layer.calls:
            if call.call is not None:
                usage += call.call.usage
                n_cached += call.call.cached
                if call.call.ok:
                    known = None if known is None or call.call.cost is None else known + call.call.cost
    return PanelView(
        pipeline=record.pipeline,
        state="running",
        text=_being_written(layers),
        layers=tuple(_layer(place, layers, now) for place in range(len(layers))),
        usage=usage,
        cost=known,
        budget=record.budget,
        seconds=now,
        n_calls=sum(len(layer.calls) for layer in layers),
        n_cached=n_cached,
        notes=tuple(record.notes),
    )


def _being_written(layers: tuple[LayerRecord, ...]) -> str:
    """Return the aggregator's answer so far; empty while only proposers answer."""
    if len(layers) > 1 and len(layers[-1].calls) == 1 and not layers[-1].aside:
        return "".join(layers[-1].calls[0].pieces)
    return ""


def _layer(place: int, layers: tuple[LayerRecord, ...], now: float) -> LayerView:
    layer = layers[place]
    calls = tuple(layer.calls)
    before = [
        tuple(call.call.text for call in one.calls if call.call is not None and call.call.ok)
        for one in layers[:place]
        if not one.aside
    ]
    prompt = () if layer.aside else next((call.prompt for call in calls if call.prompt), ())
    agent = calls[0].agent if calls else ""
    caption = caption_of(
        place, n_calls=len(calls), n_read=n_read(before, prompt), agent=agent, name=layer.name, aside=layer.aside
    )
    return LayerView(layer.name, tuple(_call(call, now) for call in calls), caption)


def _call(record: CallRecord, now: float) -> CallView:
    call = record.call
    if call is None:
        state: CallState = "answering" if record.state in {"sent", "answering"} else "queued"
        return CallView(
            agent=record.agent,
            model=record.model,
            state=state,
            text="".join(record.pieces[-400:]),
            started=record.started,
            queued_seconds=(now if record.sent_at is None else record.sent_at) - record.started,
            first_token_seconds=None if record.first_at is None else record.first_at - record.started,
            seconds=now - record.started,
            attempts=record.attempts,
            prompt=record.prompt,
            note=record.retry_reason,
        )
    return call_view(call)
