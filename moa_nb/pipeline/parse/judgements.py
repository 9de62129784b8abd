"""What a judge says: a rating, a verdict, the number of the best response, a probability."""

from __future__ import annotations

import re
from fractions import Fraction

from moa_nb.pipeline.parse.numbers import numerals, tidy
from moa_nb.pipeline.parse.statements import ANSWER, bare, last_line, plain, said

__all__ = ["index", "probability", "rating", "verdict"]

_RATED = r"(?:overall\s|final\s)?(?:rating|score|grade|points)"
_DECIDED = rf"verdict|winner|decision|judge?ment|preference|{ANSWER}"
_PROBABLE = rf"probability|confidence|likelihood|score|{ANSWER}"

_TAG = re.compile(r"\[\[\s{0,8}([^\[\]]{1,24}?)\s{0,8}\]\]")
_OUT_OF = r"\s{0,4}(?:/|\bout\sof\b)\s{0,4}"
_SHARE = re.compile(rf"(?<![\w.,/-])(-?\d{{1,9}}(?:\.\d{{1,9}})?){_OUT_OF}(\d{{1,9}})(?![\w/]|\.\d)")
_PLACED = re.compile(
    r"(?:\b(?:response|answer|candidate|option|proposal|solution|reference|assistant|number|no\.)[\s*_]{0,4}|#)"
    r"[\[(]{0,2}#?(-?\d{1,9})(?![\w%]|\.\d)",
    re.IGNORECASE,
)


def rating(text: str, low: float = 1, high: float = 10) -> int | float | None:
    """Return the rating in [low, high] that a judge gives; ``None`` where there is none, or it is out of the range.

    The last ``[[8]]`` counts and no other, in the range or not. Without one: "Rating: 8", else the last "8/10" or
    "8 out of 10", else a last line that is a number alone. A share counts only if it is of ``high``.

    >>> rating("Unlike a [[10]], it errs twice. Rating: [[7.5]]"), rating("[[11]]"), rating("Score: 8/10")
    (7.5, None, 8)
    """
    text = plain(text)
    tags = [value for tag in _TAG.findall(text) if (value := _measure(tag, high)) is not None]
    if tags:
        return _within(tags[-1], low, high)
    for statement in said(text, _RATED):
        value = _measure(statement, high)
        if value is not None:
            return _within(value, low, high)
    shares = _SHARE.findall(text)
    if shares:
        value, of = shares[-1]
        return _within(Fraction(value), low, high) if int(of) == high else None
    value = (
        _measure(bare(last_line(text)), high) if re.fullmatch(r"[^\w]*[\d.,]{1,12}[^\w]*", last_line(text)) else None
    )
    return None if value is None else _within(value, low, high)


def verdict(text: str, letters: str = "ABC") -> str | None:
    """Return the capital letter of a judge's verdict; ``None`` where there is none, or it is not in ``letters``.

    The last ``[[B]]`` counts, since judges quote the form before they use it. Without one: "Verdict: B", else a
    last line that is a letter alone. By custom A is the first answer, B the second and C a tie.

    >>> verdict("It is not [[A]], as one might think. Verdict: [[B]]"), verdict("Verdict: **C**"), verdict("[[D]]")
    ('B', 'C', None)
    """
    text = plain(text)
    tags = [tag for tag in _TAG.findall(text) if re.fullmatch(r"[A-Za-z]", tag)]
    if tags:
        return _one_of(tags[-1].upper(), letters)
    for statement in (*said(text, _DECIDED), last_line(text)):
        match = re.match(
            r"[\s*_`\"'(\[{$]{0,8}(?:(?i:assistant|answer|response)\s)?([A-Z])(?!\w|['’]|\s[a-z])", statement
        )
        if match:
            return _one_of(match[1], letters)
    return None


def index(text: str, n: int | None = None) -> int | None:
    """Return the number, from 1, of the response that a judge names; ``None`` where there is none, or it is above ``n``.

    The last ``[[3]]`` counts; without one, what the last "answer:" opens with, else the last "Response 3" or "#3",
    else a last line that is a number alone.

    >>> index("Response 1 differs. The most consistent is Response 3.", n=3), index("[[4]]", n=3), index("2")
    (3, None, 2)
    """
    text = plain(text)
    tags = [
        int(match[1])
        for tag in _TAG.findall(text)
        if (match := re.fullmatch(r"(?:[A-Za-z]{1,12}\s)?#?(-?\d{1,9})", tag))
    ]
    stated = [
        int(match[1]) for part in said(text) if (match := re.match(r"[\s*_(\[#]{0,8}(\d{1,9})(?![\w%]|\.\d)", part))
    ]
    placed = [int(number) for number in _PLACED.findall(text)]
    alone = re.fullmatch(r"\W{0,8}?(-?\d{1,9})\W{0,8}", last_line(text))
    found = tags[-1:] or stated[:1] or placed[-1:] or ([int(alone[1])] if alone else [])
    return found[0] if found and found[0] >= 1 and (n is None or found[0] <= n) else None


def probability(text: str) -> float | None:
    """Return the probability in [0, 1] that the text gives, of 85% 0.85; ``None`` where there is none.

    The last ``[[0.85]]`` counts; without one, what the last "Probability:" opens with, else the last number.
    What is out of the range and no percentage is no probability.

    >>> probability("I am 90 percent sure"), probability("Confidence: 0.7, not 0.9"), probability("7 of 10")
    (0.9, 0.7, None)
    """
    text = plain(text)
    for part, at in (
        *((tag, 0) for tag in _TAG.findall(text)[-1:]),
        *((one, 0) for one in said(text, _PROBABLE)),
        (text, -1),
    ):
        found = list(numerals(part))
        if found:
            value = found[at].value / 100 if found[at].is_percent else found[at].value
            return float(value) if 0 <= value <= 1 else None
    return None


def _measure(text: str, high: float) -> Fraction | None:
    """Return the number that a statement opens with; of a share, what it is of has to be ``high``."""
    share = _SHARE.search(text)
    opens = next(numerals(text), None)
    if share is not None and not re.search(r"\w", text[: share.start()]):
        return Fraction(share[1]) if int(share[2]) == high else None
    if opens is None or opens.is_percent or re.search(r"\w", text[: opens.start]):
        return None
    if re.match(r"\s?(?:-|to|or)\s?\d", text[opens.end :]):
        return None  # 7-8 is no rating
    return opens.value


def _within(value: Fraction, low: float, high: float) -> int | float | None:
    return tidy(value) if low <= value <= high else None


def _one_of(letter: str, letters: str) -> str | None:
    return letter if letter in letters else None
