"""What a reader of the playground sees, as plain data: for the widget and for the static form alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moa_nb.notebook.playground.differences import Difference
from moa_nb.notebook.playground.drafts import Mistake
from moa_nb.notebook.playground.preview import Preview
from moa_nb.notebook.playground.trial import Trial
from moa_nb.panels.difference import difference as word_by_word
from moa_nb.panels.figures import count, dollars, share
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.plain import to_plain
from moa_nb.templating import names

if TYPE_CHECKING:
    from moa_nb.notebook.playground.workbench import Playground

__all__ = ["answered", "differing", "draft", "in_files", "mistaken", "seen", "short", "state", "tried"]

_PROMPT, _ANSWER = 20_000, 20_000
"""Characters of a text that are shown; what runs is whole."""
_MOST_PROMPTS = 12


def state(playground: Playground) -> dict[str, Any]:
    """Return what there is to choose from."""
    edited = playground.edited
    return {
        "pipeline": playground.pipeline,
        "templates": [[name, name in edited] for name in playground.templates],
        "template": playground.template,
        "n_rows": playground.n_rows,
        "is_text": playground.inputs.is_text,
        "versions": [playground.earliest, "as edited", *reversed([one.label for one in playground.versions])],
    }


def draft(playground: Playground) -> dict[str, Any]:
    """Return what stands in the editor."""
    source = playground.source() if playground.template is not None else ""
    return {"source": source, "row": playground.row}


def seen(playground: Playground, preview: Preview, layer: Layer, serial: int = 0) -> dict[str, Any]:
    """Return a layer's prompts, and what a run would take."""
    place = preview.layers.index(layer)
    groups: dict[Any, list[Call]] = {}
    for call in layer.calls:
        groups.setdefault(call.prompt, []).append(call)
    shown = [_prompt(preview, calls) for calls in [*groups.values()][:_MOST_PROMPTS]]
    figures = str(preview)
    if place >= preview.n_exact:
        figures += "; these prompts quote answers that are still to come: placeholders stand for them"
    return {
        "serial": serial,
        "layers": preview.names,
        "layer": layer.name,
        "row": playground.inputs.label(playground.row),
        "figures": figures,
        "prompts": shown,
        "mistakes": [],
    }


def _prompt(preview: Preview, calls: Sequence[Call]) -> dict[str, Any]:
    first = calls[0]
    known = sum(call.cached for call in calls)
    answers = "answered" if known == len(calls) else f"{known} of {len(calls)} answered" if known else "not asked yet"
    return {
        "agents": to_plain(", ".join(call.agent for call in calls)),
        "figures": f"≈{count(preview.tokens(first), 'token')} · {answers}",
        "messages": [{"role": turn.role, "text": _cut(turn.content, _PROMPT)} for turn in first.prompt],
    }


def mistaken(mistakes: Sequence[Mistake], serial: int = 0) -> dict[str, Any]:
    """Return what is wrong, in place of the prompts."""
    return {
        "serial": serial,
        "mistakes": [{"template": one.template, "line": one.line, "text": to_plain(str(one))} for one in mistakes],
    }


def answered(result: Result) -> dict[str, Any]:
    """Return a run's answers, the last one first."""
    n_sent = sum(not call.cached for call in result.calls)
    figures = f"{count(n_sent, 'call')} sent, {result.n_calls - n_sent} from the store, ${dollars(result.cost)}"
    if result.agreement is not None:
        figures += f", agreement {share(result.agreement)}"
    parts: list[dict[str, Any]] = [{"name": "answer", "text": _cut(result.text, _ANSWER)}]
    for layer in result.layers:
        for call in layer.calls:
            said = call.text if call.ok else f"failed: {call.error}"
            where = "from the store" if call.cached else "asked now"
            parts.append(
                {"name": to_plain(f"{layer.name} · {call.agent} · {where}"), "text": _cut(said, _ANSWER), "open": False}
            )
    return {
        "title": f"{result.pipeline}: {figures}",
        "remarks": [*map(to_plain, result.notes)],
        "parts": parts,
        "status": "done",
    }


def tried(trial: Trial) -> dict[str, Any]:
    """Return rows side by side, each answer with what differs from the one beside it."""
    cells: list[list[Any]] = []
    for row, line in zip(trial.rows, trial.cells, strict=True):
        shown: list[Any] = [_cut(cell, 4000) for cell in line]
        if row.before is not None and row.text is not None:
            shown[2] = [[kind, _cut(text, 4000)] for kind, text in word_by_word(row.before, row.text)]
        cells.append(shown)
    return {"title": trial.caption, "headers": [*trial.headers], "cells": cells, "status": "done"}


def differing(difference: Difference) -> dict[str, Any]:
    """Return two versions word by word."""
    return {
        "title": to_plain(f"{difference.before} → {difference.after}"),
        "remarks": [*map(to_plain, difference.remarks)],
        "parts": [
            {"name": to_plain(heading), "pieces": [[kind, _cut(text, _ANSWER)] for kind, text in pieces]}
            for heading, pieces in difference.parts
        ],
    }


def _cut(text: str, most: int) -> str:
    more = len(text) - most
    return to_plain(text) if more <= 0 else f"{to_plain(text[:most])}\n… {more:,} more characters"


def in_files() -> dict[str, str]:
    """Return the templates that have files, with their places."""
    return names("prompts", ".jinja")


def short(path: Path) -> str:
    """Return a path from the working folder, where that is shorter."""
    try:
        near = os.path.relpath(path)
    except ValueError:  # on another drive
        return str(path)
    return min(near, str(path), key=len)
