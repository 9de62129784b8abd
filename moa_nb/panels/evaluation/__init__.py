"""A comparison of pipelines in all its forms: every front end takes the best it can show."""

from __future__ import annotations

from typing import Any

from moa_nb.panels.evaluation import html, text
from moa_nb.panels.evaluation.view import EvaluationView

__all__ = ["bundle"]


def bundle(view: EvaluationView) -> dict[str, Any]:
    """Return the comparison by media type: HTML, Markdown and plain text."""
    return {
        "text/html": html.panel(view),
        "text/markdown": text.markdown(view),
        "text/plain": text.plain(view),
    }
