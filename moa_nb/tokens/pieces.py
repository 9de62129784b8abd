"""A rough count from the pieces that a text falls into, without any tokenizer."""

from __future__ import annotations

import re

__all__ = ["count_pieces"]

_PIECES = re.compile(
    r"(?P<ideographs>[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003fffd]+)"
    r"|(?P<syllables>[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uac00-\ud7a3]+)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<number>[0-9]+)"
    r"|(?P<letters>[^\W\d_A-Za-z]+)"
    r"|(?P<space>\s+)"
    r"|(?P<marks>[!-/:-@\[-`{-~]+)"
    r"|(?P<other>.)",
    re.DOTALL,
)


def count_pieces(text: str) -> int:
    """Return about how many tokens language models make of ``text``; an estimate, of no single tokenizer.

    English prose comes to about a token per four characters, Chinese and Japanese to about one per
    character, code to more than prose (its marks, digits and indents count).

    >>> count_pieces("")
    0
    >>> count_pieces("The battery lasts two days.")
    6
    >>> count_pieces("电池能用两天。")
    7
    """
    total = 0.0
    for piece in _PIECES.finditer(text):
        start, end = piece.span()
        length = end - start
        match piece.lastgroup:
            case "word":
                total += 1 if length <= 7 else 1 + (length - 7) / 6
            case "ideographs":
                total += length
            case "syllables":
                total += length * 0.8
            case "number":
                total += -(-length // 3)
            case "letters":
                total += max(1.0, length / 2.7)
            case "marks":
                total += -(-length // 2)
            case "space":
                # A single blank belongs to the word after it.
                total += length > 1 or text[start] in "\n\r"
            case _:
                total += 1
    return round(total + 0.49) if total else 0
