"""The answer in a panel: with who says each sentence, and how it was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moa_nb.panels import figures
from moa_nb.panels.accounts import named
from moa_nb.panels.colours import AMBER, BLUE, GREEN, KINDS, RED, tinted
from moa_nb.panels.markdown import Mark, to_html
from moa_nb.panels.room import LeftOut, brief, cut, tail
from moa_nb.panels.view import MOST_ENTRIES
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from moa_nb.panels.accounts import Account
    from moa_nb.panels.support import Support
    from moa_nb.panels.view import PanelView

__all__ = ["drawn", "said"]

_NOTE, _NOTES, _LONG_CELL, _TAIL = 600, 12, 2000, 1120
_EXPLAINED = (
    "found by comparing words, numbers and negations; no model was asked. "
    "A sentence in quite other words is found in no proposal."
)


@dataclass(frozen=True, slots=True)
class _Said:
    html: str = ""
    tail: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()
    support: str = ""
    support_title: str = ""
    bad: str = tinted(RED)


def said(view: PanelView, limit: int, left_out: LeftOut) -> _Said:
    """Return what the template is given of an answer, at most ``limit`` characters of it."""
    notes = tuple(cut(note, _NOTE) for note in view.notes[:_NOTES])
    if view.state == "running":
        return _Said(tail=tail(view.text, _TAIL), notes=notes)
    error = "" if view.error is None else cut(view.error, 4 * _NOTE)
    if view.is_form:
        return _Said(error=error, notes=notes)
    if len(view.text) > limit:
        left_out.answers += 1
    support = view.support
    return _Said(
        to_html(view.text, limit=limit, marks=() if support is None else _marks(support)),
        error=error,
        notes=notes,
        support="" if support is None else to_plain(support.summary()),
        support_title=_EXPLAINED,
    )


def _marks(support: Support) -> tuple[Mark, ...]:
    """Return who says each sentence, as it stands in small type after it."""
    n = len(support.agents)
    marks = []
    for sentence in support.sentences:
        if sentence.by is not None:
            n_by = len(sentence.by)
            colour = GREEN if n_by == n else BLUE if n_by > 1 else AMBER if n_by else RED
            who = named([support.agents[at] for at in sentence.by]) if 1 < n_by < n else ""
            marks.append(
                Mark(sentence.passage, sentence.end, brief(support.words(sentence)), tinted(colour), brief(who))
            )
    return tuple(marks)


@dataclass(frozen=True, slots=True)
class _Drawn:
    text: str
    colour: str
    share: str
    strong: bool


def drawn(account: Account) -> dict[str, Any]:
    """Return what the template is given of an account, its texts harmless and its lines few."""
    entries = account.entries[:MOST_ENTRIES]
    return {
        "title": brief(account.title[:1].upper() + account.title[1:]),
        "words": cut(account.words, _NOTE),
        "heads": tuple(map(brief, account.heads)) if any(account.heads) else (),
        "rows": [
            [
                _Drawn(
                    cut(cell.text, _LONG_CELL),
                    KINDS[cell.kind],
                    "" if cell.share is None else f"{100 * min(1.0, max(0.0, cell.share)):.0f}",
                    strong=entry.is_chosen,
                )
                for cell in entry.cells
            ]
            for entry in entries
        ],
        "more": figures.count(len(account.entries) - len(entries), "more line")
        if len(account.entries) > MOST_ENTRIES
        else "",
        "blue": BLUE,
    }
