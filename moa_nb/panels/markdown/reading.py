"""Markdown read into tokens in which nothing is left that could load, run or deceive."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

__all__ = ["LIMIT", "more", "parse", "text_token"]

LIMIT = 50_000
"""The most characters of one text that are shown; the rest is counted."""

_OPEN_LINK = re.compile(r"(?:https?://|mailto:)[^\s]+", re.IGNORECASE)


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    class Parser(MarkdownIt):
        def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802  # the library's names
            # Every address is taken, so that pictures and odd links are recognised and then unmade.
            return True

    parser = Parser("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.inline.ruler.before("emphasis", "times", _times)
    return parser


_TIMES = re.compile(r"(?:(?<=\d)|(?<=\d[%)]))\*{1,2}(?=[$(.]{0,2}\d)")


def _times(state: StateInline, silent: bool) -> bool:
    """Return whether a star between two numbers stands here: it multiplies, and emphasizes nothing."""
    found = _TIMES.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.pending += found[0]
    state.pos = found.end()
    return True


_MOST_CELLS, _DEEPEST = 5000, 20
"""Cells of tables, and emphasis within emphasis: what has more was not written to be read."""

_SIGN = re.compile(r"[\[\]<&!\\]|\*+|_+|~+|`+|\n+")
_LONG, _DENSEST = 2000, 1 / 6
"""Characters beyond which signs of Markdown and ends of lines are counted, and how many a character are too many. Of 347
texts of MT-Bench that are so long (answers, and prompts of judges) none has more than 0.08."""


def parse(text: str) -> list[Token]:
    """Return the tokens of ``text``, pictures replaced by their names and unwelcome links by their text.

    A text whose markup would take far more room than the text itself, or that is hardly more than signs, is taken as it
    stands, as code.
    """
    if len(text) > _LONG and len(_SIGN.findall(text)) > _DENSEST * len(text):
        return [text_token(text, "code_block")]
    try:
        tokens = _parser().parse(text)
    except RecursionError:
        return [text_token(text, "code_block")]
    if sum(token.type in {"td_open", "th_open"} for token in tokens) > _MOST_CELLS:
        return [text_token(text, "code_block")]
    # A long address that is written once can be referred to thousands of times.
    addresses = sum(len(str(child.attrs.get("href", ""))) for token in tokens for child in token.children or ())
    for token in tokens:
        if token.children:
            token.children = list(_unmade(token.children, with_links=addresses <= LIMIT))
    return tokens


def _unmade(tokens: Sequence[Token], *, with_links: bool) -> Iterable[Token]:
    refused: str | None = None
    depth = 0
    for token in tokens:
        if token.type == "image":
            alt = _words(token).strip()
            yield text_token(f"[image: {alt}]" if alt else "[image]")
        elif token.type == "link_open":
            address = str(token.attrs.get("href", "")) if with_links else ""
            refused = None if _OPEN_LINK.fullmatch(address) else address
            if refused is None:
                # The address as a tooltip: a label may claim another one.
                token.attrs = {"href": address, "title": address}
                yield token
        elif token.type == "link_close":
            if refused is None:
                yield token
            elif refused:
                yield text_token(f" ({_cut(refused, 200)})")
            refused = None
        else:
            depth += max(0, token.nesting)
            if not token.nesting or depth <= _DEEPEST:
                # What was written as an entity is a character only now.
                token.content = to_plain(token.content)
                yield token
            depth += min(0, token.nesting)


def _words(token: Token) -> str:
    return "".join(map(_words, token.children)) if token.children else token.content


def text_token(content: str, kind: str = "text") -> Token:
    """Return a token that is text, or code of another ``kind``."""
    from markdown_it.token import Token

    return Token(kind, "", 0, content=content)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} …"


def more(n: int) -> str:
    """Return how much of a text is not shown, in words."""
    return f"… {n:,} more character{'s' if n != 1 else ''}"
