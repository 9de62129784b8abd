"""The report of a run over rows in all its forms: every front end takes the best it can show."""

from __future__ import annotations

from typing import Any

from moa_nb.panels import provenance
from moa_nb.panels.frame_report import html, text
from moa_nb.panels.frame_report.view import ReportView

__all__ = ["bundle"]


def bundle(view: ReportView) -> dict[str, Any]:
    """Return the report by media type: HTML, Markdown, plain text, and the run's provenance as JSON."""
    return {
        "text/html": html.report(view),
        "text/markdown": text.markdown(view),
        "text/plain": text.plain(view),
        provenance.MIME_TYPE: provenance.frame_records([view]),
    }
