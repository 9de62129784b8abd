"""Showing what is finished: in a notebook as a panel, in a terminal as text."""

from __future__ import annotations

import json
from typing import Any, Protocol

from IPython.core.getipython import get_ipython
from IPython.display import display

from moa_nb.pipeline.result import Result

__all__ = ["has_front_end", "show", "show_as"]


def has_front_end() -> bool:
    """Return whether a notebook's front end shows what is displayed, rather than a terminal."""
    shell = get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class Shown(Protocol):
    """What shows itself."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]: ...


def show(run: Shown) -> None:
    """Show a run's panel below the current cell; print it where there is no notebook."""
    shown = run._repr_mimebundle_()  # noqa: SLF001 - IPython's own protocol
    if has_front_end():
        display(shown, raw=True)
    else:
        print(shown["text/plain"])  # noqa: T201 - a terminal has nothing else


def show_as(result: Result, form: str) -> None:
    """Show a run as ``panel``, as its answer alone in ``markdown`` or ``text``, or as its record in ``json``."""
    if form == "panel":
        show(result)
        return
    shown = _forms(result, form)
    if has_front_end():
        display(shown, raw=True)
    elif form == "json":
        print(json.dumps(shown["application/json"], ensure_ascii=False, indent=2))  # noqa: T201
    else:
        print(shown.get("text/markdown", shown["text/plain"]).rstrip("\n"))  # noqa: T201


def _forms(result: Result, form: str) -> dict[str, Any]:
    from moa_nb.panels import markdown, provenance

    shown: dict[str, Any] = {"text/plain": markdown.to_plain(result.text)}
    if form == "markdown":
        # Both classes tell MathJax to keep off, as in the panel: an answer about dollars is not mathematics.
        shown["text/html"] = f'<div class="tex2jax_ignore mathjax_ignore">{markdown.to_html(result.text)}</div>'
        shown["text/markdown"] = markdown.to_markdown(result.text)
    elif form == "json":
        shown["application/json"] = provenance.record(result)
    return shown
