"""The line of a text that stands for all of it."""

from __future__ import annotations

import re

from moa_nb.plain import to_plain

__all__ = ["first_line"]

_MARKER = re.compile(r"(?:#{1,6}\s+|>\s*|[-*+]\s+|\d{1,3}[.)]\s+|\|\s*)+")
_SIGNS = re.compile(r"(?<!\d)\*\*|\*\*(?!\d)|__|~~|`")


def first_line(text: str, width: int = 140) -> str:
    """Return the first line of ``text`` that says something, without Markdown's signs, as plain text.

    >>> first_line("## **Summary**"), first_line("Those who had waited left.", 16)
    ('Summary', 'Those who had …')
    """
    # A text can be long, and only its beginning is wanted.
    for line in map(str.strip, to_plain(text[: 2000 + 2 * width]).split("\n")):
        marker = _MARKER.match(line)
        said = to_plain(_SIGNS.sub("", line[marker.end() :] if marker else line)).strip()
        if any(map(str.isalnum, said)) and not line.startswith(("```", "~~~")):
            return said if len(said) <= width else f"{_whole_words(said[: width + 1])} …"
    return " ".join(to_plain(text[:width]).split())[:width]


def _whole_words(text: str) -> str:
    """Return ``text`` without its last word, which may be half of one; with it where it is long."""
    words, _, last = text.rpartition(" ")
    return (words if words and len(last) <= _LONG_WORD else text[:-1]).rstrip()


_LONG_WORD = 24
