"""All forms of a finished panel in one bundle: every front end takes the best it can show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moa_nb.panels import html, provenance, text
from moa_nb.panels.view import view_of

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Result

__all__ = ["bundle"]


def bundle(result: Result) -> dict[str, Any]:
    """Return ``result`` by media type: HTML, Markdown, plain text, and its provenance as JSON."""
    view = view_of(result)
    return {
        "text/html": html.panel(view),
        "text/markdown": text.markdown(view),
        "text/plain": text.plain(view),
        provenance.MIME_TYPE: provenance.record(result),
    }
