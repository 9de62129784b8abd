"""Pipelines that answer side by side, while they do: their figures, and each answer as it comes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from IPython.display import DisplayHandle, display

from moa_nb.notebook.publisher import pause
from moa_nb.panels import figures, html
from moa_nb.panels.colours import RED, tinted
from moa_nb.panels.live import view_of_record
from moa_nb.panels.markdown import to_html
from moa_nb.panels.room import brief, cut
from moa_nb.panels.tables import table
from moa_nb.panels.templates import macros
from moa_nb.panels.view import PanelView
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.plain import to_plain

__all__ = ["LiveComparison"]

_HEADERS = ("pipeline", "now", "tokens in", "tokens out", "$", "s")
_EVERY_SECONDS = 0.2
_ANSWER = 4000
"""Characters of a finished answer that stand there while others still write; the rest comes with the comparison."""
_ERROR = 600


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A pipeline as it is drawn: its line of the table, its column below."""

    figures: tuple[str, ...]
    column: dict[str, str]


class LiveComparison:
    """Shows below the cell how far each pipeline is, and what it says so far; the comparison takes its place.

    The thread that waits for the pipelines draws it. An answer that is being written is drawn by its end alone, and a
    finished one is made HTML once.

    Args:
        records: of the pipelines by name, in the order of their columns.
    """

    def __init__(self, records: Mapping[str, RunRecord]) -> None:
        self._records = records
        self._over: dict[str, _Drawn] = {}
        handle = display(self._draw(), raw=True, display_id=True)
        assert isinstance(handle, DisplayHandle)
        self._handle, self._next = handle, time.monotonic() + _EVERY_SECONDS

    def update(self) -> None:
        """Show where they are now, a few times a second at most."""
        if time.monotonic() < self._next:
            return
        shown = self._draw()
        self._handle.update(shown, raw=True)
        self._next = time.monotonic() + pause(shown, _EVERY_SECONDS)

    def end(self) -> None:
        """Show how far they came; who presses ■ twice must not leave one that seems to go on."""
        try:
            for record in self._records.values():
                if record.result is None:
                    record.finish(error="stopped", stop_reason="stopped")
            self.finish(self._draw(""))
        except KeyboardInterrupt:
            self.end()

    def finish(self, shown: dict[str, Any]) -> None:
        """Put what is shown in the end in its place."""
        self._handle.update(shown, raw=True)

    # Drawing ----------------------------------------------------------------------------------

    def _draw(self, hint: str = "; ■ stops it") -> dict[str, str]:
        drawn = [self._pipeline(name, record) for name, record in self._records.items()]
        n_answered = sum(not one.column["error"] for one in self._over.values())
        caption = f"{n_answered} of {figures.count(len(drawn), 'pipeline')} answered{hint}"
        lines = table([one.figures for one in drawn], _HEADERS)._repr_html_()
        columns = [one.column for one in drawn]
        said = "; ".join(f"{name}: {_state(record)}" for name, record in self._records.items())
        return {
            "text/html": str(macros("comparison").comparison(caption, lines, columns, [], tinted(RED))),
            "text/plain": to_plain(said),
        }

    def _pipeline(self, name: str, record: RunRecord) -> _Drawn:
        if name in self._over:
            return self._over[name]
        result = record.result
        if result is None:
            view = view_of_record(record)
            return _Drawn(_figures(name, record, view), _column(name, html.answer(_with_text(view))))
        error = "" if result.error is None else cut(result.error, _ERROR)
        answer = "" if error else to_html(result.text, limit=_ANSWER)
        self._over[name] = drawn = _Drawn(_figures(name, record, result), _column(name, answer, error))
        return drawn


def _column(name: str, answer: str, error: str = "") -> dict[str, str]:
    return {"name": brief(name), "answer": answer, "error": error, "heading": "", "difference": ""}


def _figures(name: str, record: RunRecord, of: PanelView | Result) -> tuple[str, ...]:
    usage = [
        figures.tokens(number, estimated=of.usage.estimated)
        for number in (of.usage.prompt_tokens, of.usage.completion_tokens)
    ]
    return (brief(name), _state(record), *usage, figures.dollars(of.cost), figures.seconds(of.seconds))


def _with_text(view: PanelView) -> PanelView:
    """Return the view with what a pipeline's only call has said, where that will be the answer."""
    is_alone = len(view.layers) == 1 and len(view.layers[0].calls) == 1
    return replace(view, text=view.layers[0].calls[0].text) if is_alone and not view.text else view


def _state(record: RunRecord) -> str:
    if record.result is not None:
        return (
            record.result.stop_reason if record.result.error else f"done in {figures.seconds(record.result.seconds)} s"
        )
    calls = [call for layer in record.layers for call in layer.calls]
    return f"{sum(call.call is not None for call in calls)} of {len(calls)} calls" if calls else "begins"
