"""A call on the time line: thin while it waits, a mark at its first token, thick while its answer comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moa_nb.panels import figures
from moa_nb.panels.colours import AMBER, BLUE, EDGES, GREEN, GREY

if TYPE_CHECKING:
    from moa_nb.panels.view import CallView

__all__ = ["LEGEND", "Part", "bar", "times"]

LEGEND = "grey: queued; thin: waiting; dashed: asked again; upright mark: the first token; thick: answering; green tick: cached"
"""What the parts of a bar mean."""

_THIN, _THICK, _TALL = ".16em", ".75em", "1.05em"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the time line; the lengths are percentages of it."""

    offset: str
    width: str
    height: str
    colour: str
    more: str = ""


def times(call: CallView) -> str:
    """Return in words what a call's bar shows; empty where nothing has begun."""
    if call.state in {"waiting", "queued"}:
        return ""
    words = [f"from {figures.seconds(call.started)} s"]
    if call.state == "cached":
        return f"{words[0]}, from the cache"
    if call.queued_seconds >= _WORTH_SAYING:
        words.append(f"queued {figures.seconds(call.queued_seconds)} s")
    if call.first_token_seconds is not None:
        words.append(f"first token after {figures.seconds(call.first_token_seconds)} s")
    if call.attempts > 1:
        words.append(f"{call.attempts} tries")
    ends = {"failed": "failed", "cancelled": "stopped", "answering": "answering for"}.get(call.state, "answered")
    return ", ".join(
        [*words, f"{ends} {'' if call.state == 'answering' else 'after '}{figures.seconds(call.seconds)} s"]
    )


_WORTH_SAYING = 0.05


def bar(call: CallView, scale: float) -> Iterator[Part]:
    """Yield the parts of a call's bar on a time line of ``scale`` seconds, from left to right."""
    if call.state == "waiting":
        return
    share = 100 / scale if scale > 0 else 0.0
    start = min(call.started * share, 99.0)
    if call.state == "cached":
        yield Part(f"{start:.2f}", "0", _THICK, GREEN, "min-width:.22em")
        return
    room = 100 - start
    queued, waited = (min(seconds * share, room) for seconds in _waits(call))
    ended = min(call.seconds * share, room)
    colour = EDGES.get(call.state, BLUE)
    offset = start
    if queued:
        yield Part(f"{offset:.2f}", f"{queued:.2f}", _THIN, GREY)
        offset = 0.0
    if waited > queued:
        # When each attempt failed is not known, only that some did.
        again = f"border-top:{_THIN} dashed {AMBER}" if call.attempts > 1 and call.state != "failed" else ""
        yield Part(f"{offset:.2f}", f"{waited - queued:.2f}", "0" if again else _THIN, "" if again else colour, again)
        offset = 0.0
    if call.state == "failed":
        # The mark ends where the time line does, not after it.
        yield Part(f"{offset:.2f}", "0", _THICK, colour, "min-width:.3em" + (";margin-left:-.3em" if waited else ""))
    elif call.state != "queued":
        if call.first_token_seconds is not None:
            yield Part(f"{offset:.2f}", "0", _TALL, colour, "min-width:.14em")
            offset = 0.0
        more = "min-width:.15em" + (";opacity:.85" if call.state == "answering" else "")
        yield Part(f"{offset:.2f}", f"{max(0.0, ended - waited):.2f}", _THICK, colour, more)


def _waits(call: CallView) -> tuple[float, float]:
    """Return after how many seconds a call was sent, and after how many its answer began to come, as far as is known."""
    queued = min(max(call.queued_seconds, 0.0), call.seconds)
    if call.state == "queued":
        return call.seconds, call.seconds
    if call.state == "failed" or (call.state == "cancelled" and not call.text):
        return queued, call.seconds
    known = queued if call.first_token_seconds is None else call.first_token_seconds
    return queued, min(max(known, queued), call.seconds)
