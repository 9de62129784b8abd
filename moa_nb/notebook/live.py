"""The panel while a run goes on: a few HTML widgets, each sent again only when it changed.

The thread that waits for the run draws it, about ten times a second at most, so no other thread
ever touches a widget. When the run is over, a static panel takes its place under the same display
id: a saved notebook holds that one and no widget.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from IPython.display import DisplayHandle, display

from moa_nb.panels import html
from moa_nb.panels.bundle import bundle
from moa_nb.panels.live import view_of_record
from moa_nb.panels.view import CallView, LayerView
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result

__all__ = ["LivePanel", "scale_of"]

_EVERY_SECONDS = 0.1
_ROWS_A_TICK = 8
"""Rows that may change at each drawing; with more, it is drawn less often: the bytes a second stay."""
_MOST_ROWS = 24
"""Rows of a layer that are shown live; the rest are counted."""
_NARROWEST = "470px"
"""How wide columns are at least."""
_SCALES = (2, 5, 10, 20, 30, 60, 120, 300, 600)
"""How long the time line may be, in seconds: it grows in steps, so that finished rows stay as they are."""


class LivePanel:
    """Shows a run below the cell that started it."""

    def __init__(self, record: RunRecord) -> None:
        import ipywidgets
        from ipywidgets.widgets.widget_string import HTMLStyle

        self._record = record
        self._widgets = ipywidgets
        # One layout and one style for all rows: each would be a model of its own otherwise.
        self._layout = ipywidgets.Layout(margin="0", width="auto")
        # What stands in columns is scrolled where there is no room for them, as in the static panel.
        self._columns = ipywidgets.Layout(margin="0", width="auto", min_width=_NARROWEST)
        self._frame = ipywidgets.Layout(
            margin=".2em 0",
            padding=".6em .9em .7em",
            max_width="988px",
            border="1px solid #88888855",
            overflow="auto",
        )
        self._style = HTMLStyle(font_size="var(--jp-content-font-size1, 14px)")
        self._header, self._answer = self._html(self._layout), self._html(self._layout)
        self._axis = self._html(self._columns)
        self._rows: dict[tuple[int, int], Any] = {}
        self._finished: dict[tuple[int, int], float] = {}
        """Rows that change no more, with the time line they were drawn for."""
        view = view_of_record(record)
        self._header.value = html.header(view)
        self._box = ipywidgets.VBox([self._header, self._answer, self._axis], layout=self._frame)
        self._next = 0.0
        handle = display(
            {
                "application/vnd.jupyter.widget-view+json": {
                    "version_major": 2,
                    "version_minor": 0,
                    "model_id": self._box.model_id,
                },
                "text/html": html.header(view),
                "text/plain": f"{record.pipeline}: running; interrupt the kernel to stop it",
            },
            raw=True,
            display_id=True,
        )
        assert isinstance(handle, DisplayHandle)
        self._handle = handle

    def _html(self, layout: Any) -> Any:
        return self._widgets.HTML(layout=layout, style=self._style)

    def update(self) -> None:
        """Show where the run is now, if a tenth of a second has passed."""
        if time.monotonic() < self._next:
            return
        view = view_of_record(self._record)
        scale = scale_of(view.seconds)
        _set(self._header, html.header(view))
        _set(self._answer, html.answer(view) if view.text else "")
        _set(self._axis, html.axis(scale) if view.layers else "")
        children = [self._header, self._answer, self._axis]
        for place, layer in enumerate(view.layers):
            children.append(self._row(place, -1))
            _set(children[-1], html.layer_heading(layer))
            for number, call in enumerate(layer.calls[:_MOST_ROWS]):
                children.append(self._row(place, number))
                self._draw(place, number, call, scale)
            if len(layer.calls) > _MOST_ROWS:
                children.append(self._row(place, _MOST_ROWS))
                _set(children[-1], html.layer_heading(_rest(layer)))
        if len(children) != len(self._box.children):
            self._box.children = children
        n_changing = sum(not call.is_over for layer in view.layers for call in layer.calls[:_MOST_ROWS])
        self._next = time.monotonic() + _EVERY_SECONDS * max(1.0, n_changing / _ROWS_A_TICK)

    def _row(self, place: int, number: int) -> Any:
        if (place, number) not in self._rows:
            self._rows[place, number] = self._html(self._columns)
        return self._rows[place, number]

    def _draw(self, place: int, number: int, call: CallView, scale: float) -> None:
        """Show a call; one that is over is neither rendered nor sent again, so that it stays open when opened."""
        if self._finished.get((place, number)) == scale:
            return
        _set(self._row(place, number), html.row(call, scale))
        if call.is_over:
            self._finished[place, number] = scale

    def finish(self, result: Result) -> None:
        """Put the static panel in the live one's place."""
        self._handle.update(bundle(result), raw=True)
        texts = (*self._rows.values(), self._header, self._answer, self._axis)
        for widget in texts:
            # Whoever saves the state of widgets, as nbclient does, has no use for these texts.
            _set(widget, "")
        for widget in (*texts, self._box, self._layout, self._columns, self._frame, self._style):
            widget.close()


def scale_of(seconds: float) -> float:
    """Return how long the time line of a run is that has taken so long, both in seconds."""
    return next((scale for scale in _SCALES if seconds <= scale), seconds)


def _rest(layer: LayerView) -> LayerView:
    rest = layer.calls[_MOST_ROWS:]
    n_over = sum(call.is_over for call in rest)
    return replace(layer, calls=(), name=f"… {len(rest)} more calls", caption=f"{n_over} of them answered")


def _set(widget: Any, value: str) -> None:
    if widget.value != value:
        widget.value = value
