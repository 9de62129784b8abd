"""Where a text states its answer: the words after "the answer is", "Rating:" and their like."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

__all__ = ["ANSWER", "bare", "last_line", "plain", "said"]

ANSWER = "answer|antwort|réponse|respuesta|risposta|resposta|ответ|答案|答え|답"
"""The words that announce an answer, as alternatives of a pattern."""

_PLAIN = (
    {0xFF01 + offset: 0x21 + offset for offset in range(94)}  # full-width forms
    | dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63"), "-")
    | {0x3000: " ", ord("【"): "[", ord("】"): "]"}
)
_LONGEST = 500
"""How many characters after a marker belong to the statement at most: the whole stays linear in the text."""

_DECORATION = " \t\r\n*_`#>~\"'“”‘’«»()[]{}$.,;:!?。，、；：！？-"


def plain(text: str) -> str:
    """Return ``text`` with full-width characters and every kind of minus sign as their ASCII twins.

    >>> plain("（Ｂ）　−５")
    '(B) -5'
    """
    return text if text.isascii() else text.translate(_PLAIN)


def bare(text: str) -> str:
    """Return ``text`` without the emphasis, quotes, brackets and stops around it, white space made single.

    >>> bare("**'not  spam'.**")
    'not spam'
    """
    return " ".join(text.strip(_DECORATION).split())


def last_line(text: str) -> str:
    r"""Return the last line that is not blank, ``""`` where none is.

    >>> last_line("Let me see.\n42\n\n")
    '42'
    """
    return text.rstrip().rpartition("\n")[2].strip()


def said(text: str, words: str = ANSWER, *, paragraph: bool = False) -> Iterator[str]:
    """Yield what the text says after each of ``words``, the last first: a sentence, or the line below; or a ``paragraph``.

    A marker is one of ``words`` with a colon, an equals sign, a form of "to be" or a line's end after it;
    "is not" says nothing, unless a "but" follows. ``words`` are alternatives of a regular expression, compared without case.

    >>> list(said("Is the answer: 4? No. **Final answer:** 5, since 2 + 3. Done."))
    ['5, since 2 + 3', '4']
    """
    for match in reversed(list(_marker(words).finditer(text))):
        rest = text[match.end() : match.end() + _LONGEST].lstrip(" \t\r\n*_`>")
        end = r"\n\s*\n" if paragraph else r"\n|[.!?](?=\s|$)|[。！？]"
        statement = re.split(end, rest, maxsplit=1)[0].strip()
        if statement:
            yield statement


@functools.cache
def _marker(words: str) -> re.Pattern[str]:
    return re.compile(
        rf"\b(?:{words})\b[*_`\"')\]]{{0,4}}"
        r"(?:(?:[ \t]{1,4}[\w'’-]{1,40}){0,8}?[ \t]{1,4}(?:is|are|was|equals|(?:would|should|must)[ ]be)\b"
        r"|(?=[ \t]{0,8}[:=]|[ \t*_]{0,8}\n))"
        r"(?![\s*_]{0,8}not\b(?![^.\n]{0,60}\bbut\b))[ \t*_`]{0,8}[:=]?",
        re.IGNORECASE,
    )
