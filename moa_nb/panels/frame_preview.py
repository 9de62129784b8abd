"""A preview: a few rows with all that was said and sent for them, and what all rows would take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from moa_nb.chat import Message
from moa_nb.panels import figures, html, text
from moa_nb.panels.colours import tinted
from moa_nb.panels.frame_report.html import values_table
from moa_nb.panels.frame_report.text import markdown_table
from moa_nb.panels.frame_report.view import RowView
from moa_nb.panels.frame_report.words import bare
from moa_nb.panels.markdown import inline_markdown
from moa_nb.panels.templates import template
from moa_nb.panels.view import PanelView
from moa_nb.plain import to_plain

__all__ = ["PreviewView", "PreviewedRow", "bundle"]

_PANEL_BYTES = 50_000
_PROMPT, _MOST_PROMPTS = 6000, 12
_ERROR = 300


@dataclass(frozen=True, slots=True)
class PreviewedRow:
    """A row that was tried."""

    row: RowView
    error: str | None
    """Why it has no answer."""
    panel: PanelView | None
    """All its calls; ``None`` where nothing was asked."""


@dataclass(frozen=True, slots=True)
class PreviewView:
    """A preview as it is shown."""

    verb: str
    n_rows: int
    """All rows, of which a few were tried."""
    estimate: str
    """What all of them would take, in words."""
    took: str
    """What the few took, in words."""
    columns: tuple[str, ...]
    rows: tuple[PreviewedRow, ...]
    noun: str = "row"

    @property
    def title(self) -> str:
        """What was tried."""
        return f"{bare(self.verb, 40)}: preview of {len(self.rows)} of {figures.count(self.n_rows, self.noun)}"


def bundle(view: PreviewView) -> dict[str, Any]:
    """Return the preview by media type: HTML, Markdown and plain text."""
    return {"text/html": _html(view), "text/markdown": _markdown(view), "text/plain": _plain(view)}


def _html(view: PreviewView) -> str:
    return str(
        template("preview").render(
            title=view.title,
            estimate=bare(view.estimate, 400),
            took=view.took,
            noun=view.noun,
            red=tinted(html.RED),
            values=values_table(
                view.columns, "", [(one.row.label, one.row.state, one.row.values) for one in view.rows]
            ),
            rows=[
                {
                    "label": bare(one.row.label, 40),
                    "error": "" if one.error is None else bare(one.error, _ERROR),
                    "panel": "" if one.panel is None else html.panel(_unprompted(one.panel), max_bytes=_PANEL_BYTES),
                    "prompts": [] if one.panel is None else _prompts(one.panel),
                }
                for one in view.rows
            ],
        )
    )


def _unprompted(panel: PanelView) -> PanelView:
    """Return the panel without its prompts, which stand below it."""
    layers = [replace(layer, calls=tuple(replace(call, prompt=()) for call in layer.calls)) for layer in panel.layers]
    return replace(panel, layers=tuple(layers))


def _prompts(panel: PanelView) -> list[dict[str, Any]]:
    """Return what was sent, each prompt once with all that were sent it."""
    agents: dict[tuple[Message, ...], dict[str, list[str]]] = {}
    for layer in panel.layers:
        for call in layer.calls:
            if call.prompt:
                agents.setdefault(call.prompt, {}).setdefault(layer.name, []).append(call.agent)
    shown: list[dict[str, Any]] = [
        {
            "agents": bare("; ".join(f"{layer}: {', '.join(names)}" for layer, names in asked.items()), 200),
            "messages": [{"role": bare(message.role, 20), "content": _cut(message.content)} for message in prompt],
        }
        for prompt, asked in [*agents.items()][:_MOST_PROMPTS]
    ]
    if len(agents) > _MOST_PROMPTS:
        more = figures.count(len(agents) - _MOST_PROMPTS, "more prompt")
        shown.append({"agents": f"{more}, in the layers of .results", "messages": []})
    return shown


def _cut(content: str) -> str:
    more = len(content) - _PROMPT
    return to_plain(content) if more <= 0 else f"{to_plain(content[:_PROMPT])}\n… {more:,} more characters"


def _markdown(view: PreviewView) -> str:
    heads = ["", "state", *(bare(name, 40) for name in view.columns)]
    rows = [
        [
            bare(one.row.label, 40),
            one.row.state,
            *(figures.UNKNOWN if cell is None else bare(cell, 200) for cell in one.row.values),
        ]
        for one in view.rows
    ]
    would_take, took = (words.replace("$", "USD ") for words in (bare(view.estimate, 400), view.took))
    parts = [
        f"**{inline_markdown(view.title)}**",
        f"All {view.noun}s would take: {inline_markdown(would_take)}. These took: {inline_markdown(took)}.",
        markdown_table(heads, rows),
    ]
    for one in view.rows:
        parts.append(f"**{inline_markdown(bare(one.row.label, 40))}**")
        if one.panel is not None:
            parts.append(text.markdown(one.panel).rstrip("\n"))
        elif one.error is not None:
            parts.append(inline_markdown(bare(one.error, _ERROR)))
    return "\n\n".join(parts) + "\n"


def _plain(view: PreviewView) -> str:
    lines = [view.title, f"all {view.noun}s would take: {bare(view.estimate, 400)}", f"these took: {view.took}"]
    for one in view.rows:
        lines += ["", f"{bare(one.row.label, 40)} ({one.row.state})"]
        if one.panel is not None:
            lines += [f"  {line}".rstrip() for line in text.plain(one.panel).split("\n")]
        elif one.error is not None:
            lines.append(f"  {bare(one.error, _ERROR)}")
    return "\n".join(lines)
