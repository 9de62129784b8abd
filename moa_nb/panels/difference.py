"""What differs between two texts, word by word, and how that is marked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from html import escape
from typing import Literal

from moa_nb.panels.markdown import inline_markdown
from moa_nb.plain import to_plain

__all__ = ["Kind", "Part", "difference", "to_html", "to_markdown", "to_words"]

Kind = Literal["same", "removed", "added"]

Part = tuple[Kind, str]
"""What happened to a stretch of text, and the stretch."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|\s+|[^\w\s]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")

_MOST = 12_000
"""Words, blanks and signs of both texts together; more are compared line by line, so that no pair takes long."""


_BRIDGE = 3
"""Characters between two changes that are taken into one."""


def difference(one: str, other: str) -> list[Part]:
    """Return how ``one`` becomes ``other``: stretches that stay, go and come, in their order.

    What is the same and what is removed make up ``one``; what is the same and what is added make up ``other``. Words
    are compared, and characters where a script sets no spaces; in very long texts, whole lines.

    >>> difference("The mill closed in May.", "The mill opened in May.")
    [('same', 'The mill '), ('removed', 'closed'), ('added', 'opened'), ('same', ' in May.')]
    """
    here, there = _TOKEN.findall(one), _TOKEN.findall(other)
    if len(here) + len(there) > _MOST:
        here, there = _LINE.findall(one), _LINE.findall(other)
    tail: list[str] = []
    while here and there and here[-1] == there[-1] and _is_filling(here[-1]):
        tail.insert(0, here.pop())
        there.pop()
    # A blank or a comma is like any other: they say nothing of which words belong together.
    matcher = SequenceMatcher(_is_filling, here, there)
    ended = len(here), len(there)
    parts: list[tuple[str, str]] = []
    """What stood in the one and stands in the other: equal texts, or what took whose place."""
    for tag, i, j, k, m in matcher.get_opcodes():
        gone, come = "".join(here[i:j]), "".join(there[k:m])
        is_bridge = tag == "equal" and len(gone) <= _BRIDGE and _is_filling(gone) and (j, m) != ended
        if parts and (is_bridge or tag != "equal") and parts[-1][0] != parts[-1][1]:
            # Words on both sides of a blank or a comma that changed read as one change.
            parts[-1] = (parts[-1][0] + gone, parts[-1][1] + come)
        else:
            parts.append((gone, come))
    parts.append(("".join(tail), "".join(tail)))
    told: list[Part] = []
    for kind, text in (part for gone, come in parts for part in _told(gone, come) if part[1]):
        if told and told[-1][0] == kind:
            told[-1] = (kind, told[-1][1] + text)
        else:
            told.append((kind, text))
    return told


def _is_filling(token: str) -> bool:
    return not any(map(str.isalnum, token))


def _told(gone: str, come: str) -> tuple[Part, ...]:
    if gone == come:
        return (("same", gone),)
    return (("removed", gone), ("added", come))


_DEL = "background-color:#d1495b2e;text-decoration:line-through"
_INS = "background-color:#3d8b402e;text-decoration:none;font-weight:600"
"""Both read on light and dark; where styles are lost, the tags still say what they are."""


def to_html(parts: Iterable[Part]) -> str:
    """Return a difference as HTML that holds nothing but marks: every text is escaped.

    >>> to_html([("same", "a "), ("removed", "<b>")])
    'a <del style="background-color:#d1495b2e;text-decoration:line-through">&lt;b&gt;</del>'
    """
    marks = {"same": "{}", "removed": f'<del style="{_DEL}">{{}}</del>', "added": f'<ins style="{_INS}">{{}}</ins>'}
    return "".join(marks[kind].format(escape(to_plain(text))) for kind, text in parts)


def to_markdown(parts: Iterable[Part]) -> str:
    """Return a difference as Markdown: ``~~removed~~`` and ``**added**``, everything else escaped."""
    marks = {"same": "", "removed": "~~", "added": "**"}
    return "".join(_marked(line, marks[kind]) for kind, text in parts for line in text.splitlines(keepends=True))


def _marked(line: str, mark: str) -> str:
    """Return one line with marks close around its words: they would be text beside a blank."""
    said = line.strip()
    if not said:
        return "\n\n" if "\n" in line else " "
    before = " " if line[0].isspace() else ""
    after = "\n\n" if line.endswith("\n") else " " if line[-1].isspace() else ""
    return f"{before}{mark}{inline_markdown(said)}{mark}{after}"


def to_words(parts: Iterable[Part]) -> str:
    """Return a difference as plain text: ``[-removed-]`` and ``{+added+}``.

    >>> to_words(difference("It is fast.", "It is very fast."))
    'It is {+very +}fast.'
    """
    marks = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}"}
    return "".join(marks[kind].format(to_plain(text)) for kind, text in parts)
