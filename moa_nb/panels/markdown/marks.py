"""The paragraphs of a text, and remarks after their sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from moa_nb.panels.markdown.reading import parse
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["Mark", "as_read", "passages"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A remark in small type after a sentence."""

    passage: int
    """Which of ``passages`` it stands in."""
    end: int
    """After how many characters of it."""
    words: str
    colour: str
    title: str = ""


def passages(text: str) -> list[tuple[str, bool]]:
    r"""Return the paragraphs of ``text``, read as Markdown, as a reader sees them, each with whether it is a list's item.

    Headings, tables and code are none. ``Mark`` counts by them.

    >>> passages("# Title\n\nIt **rose**.\n\n- slow\n\n```\nx = 1\n```")
    [('It rose.', False), ('slow', True)]
    """
    depth = 0
    found = []
    previous = ""
    for token in parse(to_plain(text)):
        depth += token.nesting if token.type.startswith("list_item") else 0
        if token.type == "inline" and previous == "paragraph_open":
            found.append(("".join(map(as_read, token.children or ())), depth > 0))
        previous = token.type
    return found


def as_read(token: Token) -> str:
    """Return what a reader sees of a token within a line."""
    return "\n" if token.type in {"softbreak", "hardbreak"} else token.content
