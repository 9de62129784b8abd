"""All forms of a finished panel in one bundle: every front end takes the best it can show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from moa_nb.panels import html, provenance, text
from moa_nb.panels.view import view_of

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Result

__all__ = ["bundle", "one_block"]

_BEFORE_EMPTY_LINE = re.compile(r"(?:\r\n|\r(?!\n)|\n)(?=[ \t]*[\r\n])")


def bundle(result: Result) -> dict[str, Any]:
    """Return ``result`` by media type: HTML, Markdown, plain text, and its provenance as JSON."""
    view = view_of(result)
    return {
        "text/html": one_block(html.panel(view)),
        "text/markdown": text.markdown(view),
        "text/plain": text.plain(view),
        provenance.MIME_TYPE: provenance.record(result),
    }


def one_block(html: str) -> str:
    r"""Return HTML that means the same and has no empty line.

    nbconvert puts HTML into its Markdown as it is, and there an empty line ends it: the rest of a prompt would be read
    as Markdown, whose pictures and links ask for addresses.

    >>> one_block("<div>a\n\n![b](https://c.example)</div>")
    '<div>a&#10;\n![b](https://c.example)</div>'
    """
    return _BEFORE_EMPTY_LINE.sub("&#10;", html)
