"""The number that a text gives as its answer, read exactly."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from moa_nb.pipeline.parse.statements import plain, said

__all__ = ["Numeral", "exact", "number", "numerals", "tidy"]

_LARGEST = 308
"""Beyond 10**308 there is no float, and a short text could ask for any amount of memory."""

_SPACES = " \u00a0\u2009\u202f"

_NUMERAL = re.compile(
    rf"""
    (?<![\w^±]) (?<!±\s) (?<!\d[.,:/]) (?<![^\W\d]-)                # no part of a word, a margin, a time, a date
    (?P<sign> (?<![\w)\]%])[-+] | (?i:(?<!\d)(?<!\d\s)\b(?:minus|negative)\s) )?
    (?: (?:US|CA|A)? \\?[$€£¥₹₩] \s? (?P<inner>-)? )?
    (?P<body> [1-9]\d{{0,2}}(?:[{_SPACES}]\d{{3}}(?!\d)){{1,12}}+(?:[.,]\d++)?(?!/)
            | \d++(?:[.,'’]\d++)*+
            | \.\d++ )
    (?: (?:[eE](?P<exponent>[-+]?\d{{1,5}})(?!\w))
      | (?:\s?(?:[×x*·]|\\times|\\cdot)\s?10\s?\^\s?[{{(]?(?P<scale>[-+]?\d{{1,5}})[)}}]?)
      | (?:\^[{{(]?(?P<power>-?\d{{1,5}})[)}}]?)
      | (?:[ ](?P<over>\d{{1,9}})/(?P<part>\d{{1,9}})(?![\d/]))     # 1 1/2
      | (?:\s?/\s?(?P<under>\d{{1,99}})(?![\d/]|\.\d))
    )?
    (?: \s?(?P<percent>%|percent\b|per\ cent\b)
      | (?P<kilo>k)\b | [ ](?P<large>thousand|million|billion|trillion)\b )?
    (?![:/]?\d)
    """,
    re.VERBOSE | re.ASCII,
)
_LARGE = {"k": 3, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
_FRACTION = re.compile(
    r"(?P<whole>\d?)(?:(?P<vulgar>[½⅓⅔¼¾⅕⅛])"
    r"|\\[dt]?frac\s{0,4}\{\s?(?P<over>-?\d{1,99})\s?\}\s{0,4}\{\s?(?P<under>\d{1,99})\s?\})"
)
_BOXED = re.compile(r"\\f?boxed\s{0,4}\{((?:[^{}]|\{(?:[^{}]|\{[^{}]{0,200}+\}){0,200}+\}){0,400}+)\}")
_HEADED = re.compile(r"^[ \t]{0,8}####[ \t]{0,8}(.{1,200})$", re.MULTILINE)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_RANGE = re.compile(r"\s?(?:[-—]|\b(?:to|or)\b)\s?[$€£]?")
_SEVERAL = re.compile(r"\s?(?:[-—]|\b(?:to|or|and)\b)\s?[$€£]?")
_ANNOUNCED = re.compile(r"\b(?:between|from)\W{0,4}$", re.IGNORECASE)
_AS_ANNOUNCED = re.compile(r"[\s%]{0,2}[^\W\d]{0,12}\s?(?:-|\b(?:to|and)\b)\s?[$€£]?")
"""What stands between two numbers that are a range after "between" or "from": a unit may come first."""
_UNIT = re.compile(r"[\s%°]*(?:[^\W\d][^\W\d]*[.,!]?\s*){0,3}[\s.,!$)\]]*")


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number as it stands in a text."""

    value: Fraction
    """Exact; of ``50%`` it is 50."""
    start: int
    end: int
    is_percent: bool


def number(text: str, *, comma: bool = False) -> int | float | None:
    r"""Return the number that the text ends up with, ``None`` where there is none or it is a range.

    The strictest statement counts, and the last of its kind: in ``\boxed{}``, alone after ``####``, after "the
    answer is", alone in bold; else the last number. Exact inside, so 18, 18.0 and 36/2 are one. By declaration:

    - "." is the decimal point and "," groups thousands: 1,000 is 1000, 1.000 is 1; ``comma`` turns that round.
      Where only one reading is left it is taken: 1.000,50 is 1000.5, and 3,14 is 3.14.
    - A space, thin or not, groups thousands: 1 000 is 1000.
    - 50% is 50, 5km is 5, 3rd is 3, 3/4 is 0.75, 1 1/2 is 1.5, 5k and 5 thousand are 5000.
    - A range (3-4, 3 to 4, between 3 and 4) is no number, nor are 12:30, 1.2.3 and GPT-4.

    >>> number("16 - 7 = 9 eggs at $2 are $18. The answer is **$18.00**, from 9 eggs")
    18
    >>> number("The temperature falls to −5°"), number("$1,200.50"), number("x = 1.2 × 10⁻³"), number("3 to 4")
    (-5, 1200.5, 0.0012, None)
    """
    text = _without_typography(text)
    kinds: tuple[tuple[Callable[..., list[Numeral]], Iterator[str]], ...] = (
        (_stated, reversed(_BOXED.findall(text))),
        (_alone, reversed(_HEADED.findall(text))),
        (_stated, said(text)),
        (_alone, reversed(_BOLD.findall(text))),
        (_last, iter([text])),
    )
    for read, statements in kinds:
        for statement in statements:
            found = read(statement, comma=comma)
            if found:
                return tidy(found[0].value) if len(found) == 1 else None
    return None


def exact(text: str) -> Fraction | None:
    """Return the value of a text that is one number and nothing else, ``None`` for any other.

    >>> exact("18."), exact("18 eggs")
    (Fraction(18, 1), None)
    """
    if len(text) > _LARGEST * 2:
        return None
    text = _without_typography(text).strip().removesuffix(".")
    found = next(numerals(text), None)
    is_whole = found is not None and (found.start, found.end) == (0, len(text)) and not found.is_percent
    return found.value if found is not None and is_whole else None


def numerals(text: str, *, comma: bool = False) -> Iterator[Numeral]:
    """Yield the numbers of a text in order; ``comma``: "," is the decimal point.

    >>> [str(found.value) for found in numerals("GPT-4 ate 3/4 of 1,000 pies at 12:30, v1.2.3")]
    ['3/4', '1000']
    """
    for match in _NUMERAL.finditer(text):
        value = _value(match, comma=comma)
        if value is not None:
            yield Numeral(value, match.start(), match.end(), match["percent"] is not None)


def tidy(value: Fraction) -> int | float:
    """Return a whole number as ``int``, any other as the nearest ``float``.

    >>> tidy(Fraction(36, 2)), tidy(Fraction("0.1") + Fraction("0.2"))
    (18, 0.3)
    """
    return value.numerator if value.denominator == 1 else float(value)


def _without_typography(text: str) -> str:
    """Return the text with one spelling of signs, fractions and powers."""
    text = re.sub(r"(?<=\d)(?:\{,\}|\\[,!])(?=\d{3})", ",", plain(text))
    text = _FRACTION.sub(_in_line, text)
    if not text.isascii():
        text = text.replace("\u2044", "/")
        text = re.sub(r"(?<=10)[⁻⁺]?[⁰¹²³⁴-⁹]{1,5}", lambda power: "^" + power[0].translate(_SUPERSCRIPT), text)
    return text


def _in_line(fraction: re.Match[str]) -> str:
    whole = fraction["whole"] + " " if fraction["whole"] else ""
    return whole + (_VULGAR[fraction["vulgar"]] if fraction["vulgar"] else f"{fraction['over']}/{fraction['under']}")


def _stated(statement: str, *, comma: bool) -> list[Numeral]:
    """Return the number of a statement: that after its last "=", the one it opens with, else its last; two, of a range."""
    statement = statement.rpartition("=")[2]
    found = list(numerals(statement, comma=comma))
    before = statement[: found[0].start] if found else ""
    if not found or (re.search(r"\w", before) and not _ANNOUNCED.search(before)):
        return _last(statement, comma=comma)
    return found[:2] if _is_range(statement, found[:2], _SEVERAL) else found[:1]


def _alone(text: str, *, comma: bool) -> list[Numeral]:
    """Return the number of a text that holds nothing else but a unit: no heading, no item of a list."""
    text = text.rpartition("=")[2]
    found = list(numerals(text, comma=comma))
    if len(found) != 1 or re.search(r"\w", text[: found[0].start]):
        return []
    after = text[found[0].end :]
    return found if _UNIT.fullmatch(after) and not re.match(r"[.)](\s|$)", after) else []


def _last(text: str, *, comma: bool) -> list[Numeral]:
    """Return the last number of a text; two, of a range."""
    found = list(numerals(text, comma=comma))[-2:]
    return found if _is_range(text, found, _RANGE) else found[-1:]


def _is_range(text: str, found: list[Numeral], joined: re.Pattern[str]) -> bool:
    if len(found) < 2:
        return False
    low, high = found
    is_announced = _ANNOUNCED.search(text[max(0, low.start - 12) : low.start])
    return (_AS_ANNOUNCED if is_announced else joined).fullmatch(text, low.end, high.start) is not None


def _value(match: re.Match[str], *, comma: bool) -> Fraction | None:
    body = match["body"]
    if len(body) > _LARGEST:
        return None
    value = _decimal(body, comma=comma)
    if value is None:
        return None
    exponent = int(match["exponent"] or match["scale"] or 0) + _LARGE.get(match["large"] or match["kilo"] or "", 0)
    if abs(exponent) > _LARGEST:
        return None
    if match["under"] or match["part"]:
        divisor = int(match["under"] or match["part"])
        if divisor == 0:
            return None
        value = value + Fraction(int(match["over"]), divisor) if match["part"] else value / divisor
    if match["power"]:
        power = int(match["power"])
        if abs(power) * len(body) > _LARGEST or (value == 0 and power < 0):
            return None
        value = value**power
    value *= Fraction(10) ** exponent
    if abs(value) >= Fraction(10) ** _LARGEST:
        return None
    return -value if match["inner"] or (match["sign"] or "+") != "+" else value


def _decimal(body: str, *, comma: bool) -> Fraction | None:
    """Return the value of digits with their separators, ``None`` where they make no number, as in 1.2.3."""
    body = re.sub(rf"['’{_SPACES}](?=\d{{3}}(?!\d))", "", body)
    for fits, grouping, point in _readings(comma=comma):
        if fits(body):
            return Fraction(body.replace(grouping, "").replace(point, "."))
    return None


@functools.cache
def _readings(*, comma: bool) -> list[tuple[Callable[[str], object], str, str]]:
    """Return the ways to read separators, the declared one first: (test, thousands, decimal point)."""
    point, group = (",", ".") if comma else (".", ",")
    patterns = (
        (rf"\d*(?:\{point}\d+)?", group, point),
        (rf"[1-9]\d{{0,2}}(?:\{group}\d{{3}})+(?:\{point}\d+)?", group, point),
        (rf"[1-9]\d{{0,2}}(?:\{point}\d{{3}})+\{group}\d+|[1-9]\d{{0,2}}(?:\{point}\d{{3}}){{2,}}", point, group),
        (rf"\d+\{group}\d+", point, group),
    )
    return [(re.compile(pattern).fullmatch, grouping, decimal) for pattern, grouping, decimal in patterns]
