"""The panel while a run goes on: a few HTML widgets, each sent again only when it changed.

The thread that waits for the run draws it, about ten times a second at most, so no other thread
ever touches a widget. When the run is over, a static panel takes its place under the same display
id: a saved notebook holds that one and no widget.
"""

from __future__ import annotations

import time
from typing import Any

from IPython.display import DisplayHandle, display

from moa_nb.panels import html
from moa_nb.panels.bundle import bundle
from moa_nb.panels.live import view_of_record
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result

__all__ = ["LivePanel"]

_EVERY_SECONDS = 0.1


class LivePanel:
    """Shows a run below the cell that started it."""

    def __init__(self, record: RunRecord) -> None:
        import ipywidgets
        from ipywidgets.widgets.widget_string import HTMLStyle

        self._record = record
        self._widgets = ipywidgets
        # One layout and one style for all rows: each would be a model of its own otherwise.
        self._layout = ipywidgets.Layout(margin="0", width="auto")
        self._style = HTMLStyle()
        self._header, self._answer, self._axis = (self._html() for _ in range(3))
        self._rows: dict[tuple[int, int], Any] = {}
        self._box = ipywidgets.VBox([self._header, self._answer, self._axis], layout=self._layout)
        self._drawn = 0.0
        view = view_of_record(record)
        self._header.value = html.header(view)
        handle = display(
            {
                "application/vnd.jupyter.widget-view+json": {
                    "version_major": 2,
                    "version_minor": 0,
                    "model_id": self._box.model_id,
                },
                "text/html": html.header(view),
                "text/plain": f"{record.pipeline}: running",
            },
            raw=True,
            display_id=True,
        )
        assert isinstance(handle, DisplayHandle)
        self._handle = handle

    def _html(self) -> Any:
        return self._widgets.HTML(layout=self._layout, style=self._style)

    def update(self) -> None:
        """Show where the run is now, if a tenth of a second has passed."""
        now = time.monotonic()
        if now - self._drawn < _EVERY_SECONDS:
            return
        view = view_of_record(self._record)
        _set(self._header, html.header(view))
        _set(self._answer, html.answer(view) if view.text else "")
        scale = max(view.span, 1.0)
        _set(self._axis, html.axis(scale))
        children = [self._header, self._answer, self._axis]
        for place, layer in enumerate(view.layers):
            heading = self._row(place, -1)
            _set(heading, html.layer_heading(layer))
            children.append(heading)
            for number, call in enumerate(layer.calls):
                row = self._row(place, number)
                _set(row, html.row(call, scale))
                children.append(row)
        if len(children) != len(self._box.children):
            self._box.children = children
        self._drawn = time.monotonic()

    def _row(self, place: int, number: int) -> Any:
        if (place, number) not in self._rows:
            self._rows[place, number] = self._html()
        return self._rows[place, number]

    def finish(self, result: Result) -> None:
        """Put the static panel in the live one's place."""
        self._handle.update(bundle(result), raw=True)
        for widget in (*self._rows.values(), self._header, self._answer, self._axis, self._box, self._layout, self._style):
            widget.close()


def _set(widget: Any, value: str) -> None:
    if widget.value != value:
        widget.value = value
