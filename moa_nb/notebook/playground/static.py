"""The playground as it reads without a kernel: complete HTML, Markdown, text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from moa_nb.errors import MoaError
from moa_nb.notebook.playground import scene
from moa_nb.notebook.playground.drafts import mistake
from moa_nb.panels.colours import RED, tinted
from moa_nb.panels.difference import to_html, to_words
from moa_nb.panels.templates import macros, template
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from moa_nb.notebook.playground.differences import Difference
    from moa_nb.notebook.playground.workbench import Playground

__all__ = ["bundle", "of_difference"]

_MOST = 60_000
"""Characters of all prompts and answers in the saved form."""

_SHORT = 12

_NOTHING_SEEN: dict[str, Any] = {"layer": "", "figures": "", "prompts": [], "mistakes": []}

_NOTHING_SHOWN: dict[str, Any] = {"title": "", "remarks": [], "parts": [], "headers": [], "cells": []}


def bundle(playground: Playground, mark: str = "") -> dict[str, Any]:
    """Return the playground as it is now, by media type.

    Args:
        playground: what is shown.
        mark: a class for the element in whose place a live editor may stand.
    """
    try:
        preview = playground.preview()
        seen = scene.seen(playground, preview, playground.layer_of(preview, None))
    except MoaError as error:
        seen = scene.mistaken([mistake(error, playground.inputs.own)])
    return drawn(playground, seen, mark)


def drawn(playground: Playground, seen: dict[str, Any], mark: str = "") -> dict[str, Any]:
    """Return the playground with what is ``seen`` of its prompts, by media type."""
    state = scene.state(playground)
    about = {
        "pipeline": to_plain(state["pipeline"]),
        "template": None if state["template"] is None else to_plain(state["template"]),
        "source": to_plain(scene.draft(playground)["source"]),
        "edited": [to_plain(name) for name, is_edited in state["templates"] if is_edited],
        "versions": [to_plain(one) for one in state["versions"][2:]][:20],
        "seen": _fitting({**_NOTHING_SEEN, **seen}),
        "shown": _fitting({**_NOTHING_SHOWN, **playground.shown}),
    }
    return {
        "text/html": str(template("playground").render(about, mark=mark, marked=to_html, bad=tinted(RED))),
        "text/markdown": _markdown(about),
        "text/plain": _plain(about),
    }


def of_difference(difference: Difference) -> dict[str, Any]:
    """Return a difference by media type."""
    shown = {**_NOTHING_SHOWN, **scene.differing(difference)}
    # Both classes tell MathJax to keep off: a text about dollars is not mathematics.
    html = f'<div class="tex2jax_ignore mathjax_ignore">{macros("playground").result(shown, to_html)}</div>'
    return {"text/html": html, "text/plain": to_plain(str(difference))}


def _fitting(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part with no more text than a saved notebook should hold."""
    room = _MOST

    def cut(value: Any) -> Any:
        nonlocal room
        if isinstance(value, str):
            # What is as short as the name of a kind of change is one, and stays.
            text = value if len(value) <= max(room, _SHORT) else f"{value[:room]}…"
            room = max(0, room - len(value))
            return to_plain(text)
        if isinstance(value, dict):
            return {key: cut(one) for key, one in value.items()}
        return [cut(one) for one in value] if isinstance(value, list | tuple) else value

    fitting: dict[str, Any] = cut(part)
    return fitting


def _plain(about: dict[str, Any]) -> str:
    seen, shown = about["seen"], about["shown"]
    lines = [f"playground of {about['pipeline']}" + (f", {about['template']}" if about["template"] else "")]
    if about["edited"]:
        lines[0] += f" (edited: {', '.join(about['edited'])})"
    lines += [one["text"] for one in seen["mistakes"]]
    if seen["figures"]:
        lines.append(seen["figures"])
        for prompt in seen["prompts"]:
            lines.append(f"\n--- {seen['layer']}, {prompt['agents']} ({prompt['figures']}) ---")
            lines += [f"[{turn['role']}] {turn['text']}" for turn in prompt["messages"]]
    if shown["title"]:
        lines += ["", shown["title"], *(f"\n--- {part['name']} ---\n{_words(part)}" for part in shown["parts"])]
        lines += [" | ".join(map(_cell, row)) for row in shown["cells"]]
    return "\n".join(lines)


def _words(part: dict[str, Any]) -> str:
    return part["text"] if "text" in part else to_words(part["pieces"])


def _cell(cell: Any) -> str:
    return cell if isinstance(cell, str) else to_words(cell)


def _markdown(about: dict[str, Any]) -> str:
    # In a fence that the text cannot close, nothing is markup.
    text = _plain(about)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}\n"
