"""A chat as people read it: the whole conversation, or in a few lines what was said before an answer."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from moa_nb.panels.figures import count
from moa_nb.panels.markdown import LIMIT, first_line, inline_markdown, to_html, to_markdown
from moa_nb.panels.room import brief, cut
from moa_nb.panels.templates import macros
from moa_nb.plain import to_plain
from moa_nb.store.conversations import Turn

__all__ = ["ChatDisplay", "EarlierTurns", "whole_markdown"]

MAX_CHARACTERS = 100_000
"""Of a chat that is shown: what is more is left out from its beginning on."""

_LINES = 20
"""Turns that are named above an answer."""


@dataclass(frozen=True, repr=False)
class ChatDisplay:
    """A conversation that shows itself in a notebook, in Markdown and in a terminal; every text is made safe."""

    name: str
    turns: tuple[Turn, ...]

    @functools.cached_property
    def _shown(self) -> tuple[Turn, ...]:
        """The latest turns, as many as there is room for; one at least."""
        room, shown = MAX_CHARACTERS, 0
        for turn in reversed(self.turns):
            room -= len(turn.question) + len(turn.answer)
            if room < 0 and shown:
                break
            shown += 1
        return self.turns[len(self.turns) - shown :]

    @property
    def _note(self) -> str:
        n_left_out = len(self.turns) - len(self._shown)
        said = count(len(self.turns), "turn")
        return f"{said}; the first {n_left_out:,} are in moa.messages({brief(self.name)!r})" if n_left_out else said

    def _repr_html_(self) -> str:
        turns = [
            {
                "question": cut(turn.question, LIMIT),
                "answer": to_html(turn.answer),
                "pipeline": brief(turn.pipeline),
                "at": _day(turn.at),
            }
            for turn in self._shown
        ]
        return str(macros("chat").conversation(brief(self.name), to_plain(self._note), turns))

    def _repr_markdown_(self) -> str:
        heading = f"**{inline_markdown(brief(self.name))}** {inline_markdown(self._note)}"
        return _markdown(heading, self._shown, LIMIT)

    def __repr__(self) -> str:
        parts = [f"{brief(self.name)}: {self._note}"]
        for turn in self._shown:
            parts.append("\n".join(f"> {line}".rstrip() for line in cut(turn.question, LIMIT).split("\n")))
            parts.append(cut(turn.answer, LIMIT))
        return "\n\n".join(parts)


@dataclass(frozen=True, repr=False)
class EarlierTurns:
    """What was said before an answer, a line a turn: the cells above have it in full."""

    name: str
    turns: tuple[Turn, ...]

    @property
    def _heading(self) -> str:
        if not self.turns:
            return f"{brief(self.name)}: the first turn"
        return f"{brief(self.name)}: turn {len(self.turns) + 1:,}, after {count(len(self.turns), 'turn')}"

    def _repr_html_(self) -> str:
        return str(macros("chat").brief(to_plain(self._heading), self._lines()))

    def _lines(self) -> Sequence[dict[str, str]]:
        return [
            {"question": first_line(turn.question, 100), "answer": first_line(turn.answer, 160)}
            for turn in self.turns[-_LINES:]
        ]

    def _repr_markdown_(self) -> str:
        return f"*{inline_markdown(self._heading)}*"

    def __repr__(self) -> str:
        return to_plain(self._heading)


def whole_markdown(name: str, turns: Sequence[Turn]) -> str:
    """Return a chat as a page of Markdown, however long it is; every text is made safe."""
    longest = max((len(text) for turn in turns for text in (turn.question, turn.answer)), default=0)
    return _markdown(f"# {inline_markdown(brief(name))}", turns, longest)


def _markdown(heading: str, turns: Sequence[Turn], limit: int) -> str:
    parts = [heading]
    for turn in turns:
        question = to_markdown(turn.question, limit=limit)
        parts.append("\n".join(f"> {line}".rstrip() for line in question.split("\n")))
        parts.append(to_markdown(turn.answer, limit=limit))
    return "\n\n".join(parts) + "\n"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
