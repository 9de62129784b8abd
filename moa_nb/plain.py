"""Text of others as it may stand in a terminal or in an error."""

from __future__ import annotations

import functools
import re
import unicodedata

__all__ = ["one_line", "quoted", "to_plain"]

_TERMINAL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?",
)
_CONTROL = re.compile(
    "\U0001f3f4[\U000e0020-\U000e007e]{2,6}\U000e007f"  # the flag of Scotland is no secret writing
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
_BREAKS = frozenset("\x0b\x0c\r\x85\u2028\u2029")
_MOST_MARKS = 8
"""Accents on one letter: more would be painted over the lines around it."""


@functools.cache
def _piled() -> re.Pattern[str]:
    marks = (chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)) in {"Mn", "Me"})
    a_mark = f"[{''.join(marks)}\u200b-\u200d\u2060]"
    return re.compile(f"({a_mark}{{{_MOST_MARKS}}}){a_mark}+")


def to_plain(text: str) -> str:
    r"""Return ``text`` as it may go to a terminal: no escape sequences, nothing that hides or reorders.

    Bidirectional overrides and letters that nobody sees (Unicode's tags) are spelled out, control
    characters become their pictures, lone surrogates the replacement character; piles of accents are cut.

    >>> to_plain("safe\u202egnp.exe")
    'safe\\u202egnp.exe'
    """
    if _CONTROL.search(text):
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = _CONTROL.sub(_visible, _TERMINAL.sub("", text))
    return text if text.isascii() else _piled().sub(r"\1…", text)


def one_line(text: str) -> str:
    r"""Return ``text`` on one line; what ``to_plain`` would spell out is left out, so that words can be found in it.

    >>> one_line("\x1b[31mno such\nkey: sk-\u202e123\x1b[0m")
    'no such key: sk-123'
    """
    return " ".join(_CONTROL.sub(_left, _TERMINAL.sub("", text)).split())


def quoted(value: object, most: int = 60) -> str:
    """Return a value as an error quotes it: its repr on one line, cut after ``most`` characters.

    >>> quoted([*range(99)], most=12)
    '[0, 1, 2, 3,'
    """
    return " ".join(repr(value).split())[:most]


def _left(match: re.Match[str]) -> str:
    if len(match[0]) > 1:
        return match[0]
    return " " if match[0] in _BREAKS else ""


def _visible(match: re.Match[str]) -> str:
    if len(match[0]) > 1:
        return match[0]
    code = ord(match[0])
    if "\ud800" <= match[0] <= "\udfff":
        return "\ufffd"
    if match[0] in "\x85\u2028\u2029":
        return "\n"
    if match[0] < " ":
        return chr(0x2400 + code)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return "\u2421" if match[0] == "\x7f" else f"\\u{code:04x}"
