"""The letter, the label or the yes that a text decides for."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from moa_nb.pipeline.parse.statements import ANSWER, bare, last_line, plain, said

__all__ = ["boolean", "choice", "correct", "label", "labels"]

_Mentions = Callable[[str], list[tuple[int, str]]]
"""Finds what a text names: (where, what), in order."""

_CHOSEN = rf"{ANSWER}|choice|option"
_CLASSED = rf"{ANSWER}|labels?|category|categories|class|classes|classification|sentiment|topics?|tags?|intent"
_JUDGED = rf"{ANSWER}|verdict|decision|judge?ment|conclusion|evaluation|assessment|solution|response"

_DENIAL = re.compile(
    r"(?:\b(?:not|never|no|non|neither|nor|without|rather than|instead of)|n['’]t)"
    r"(?:[\s*_(\"'-]{1,4}(?:an?|the|really|simply|option|choice))?[\s*_(\"'\[-]{1,4}$",
    re.IGNORECASE,
)
_AFTER_A_CHOICE = "and|as|because|but|by|due|fits|follows|for|given|is|matches|since|so|though|which|while|with"
"""Words that may follow a choice; "A" or "I" before any other small word is an article or a pronoun."""

_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]")
"""Letters of scripts that set no spaces, or glue endings on: no word's end can be asked for."""

_YES: Mapping[str, bool] = {"yes": True, "true": True, "no": False, "false": False}
_YES_OPENS = re.compile(
    r"[^\w]{0,40}(yes|true|no|false)\b(?=[\s*_\"')\]}]{0,8}(?:[,.;:!?—-]|$|\n"
    r"|(?:as|because|he|i|it|since|she|that|the|there|they|this|we|you)\b))",
    re.IGNORECASE,
)
_RIGHT = re.compile(
    r"\b(?P<wrong>incorrect(?:ly)?|not (?:entirely |fully |quite )?correct|wrong|false)\b"
    r"|(?<!\bthe )(?<!\bThe )\b(?P<right>correct(?:ly)?|right|true)\b",
    re.IGNORECASE,
)
_JOINED = re.compile(r"[\s*)\]\"',/]{0,8}(?:(?:or|and)\b[\s*(\[\"']{0,8})?")
"""What stands between two that are named side by side: "bug or billing" decides for neither."""

_OPTION_LINE = re.compile(r"^[ \t>*_-]{0,8}\(?([A-Z])[).:][ \t*_]{1,4}\S.*$", re.MULTILINE)


def choice(text: str, letters: str = "ABCDE") -> str | None:
    r"""Return the capital letter out of ``letters`` that the text decides for, ``None`` where none is clear.

    The last explicit statement counts: ``\boxed{B}``, ``[[B]]``; else "answer: B", "the answer is B"; else
    "B is correct", "I choose B". Else the only letter that stands in brackets, in bold or at a line's start, or
    the only one on the last line; a list of the options says nothing. A small letter counts in brackets and
    boxes only, the article "A" and the pronoun "I" never.

    >>> choice("(A) is tempting. A closer look shows that the answer is **(c)**."), choice("I'd say A or B")
    ('C', None)
    """
    text = plain(text)
    strict, opening, claimed, marked, named = _forms(letters)
    boxed = _letters(strict, text)
    if boxed:
        return boxed[-1][1]
    for statement in said(text, _CHOSEN):
        opens = _letters(opening, statement)
        found = opens[0][1] if opens else _single(_letters(named, statement))
        if found:
            return found
    claims = _letters(claimed, text)
    return claims[-1][1] if claims else _only(_without_options(text), functools.partial(_letters, marked))


def label(text: str, names: Sequence[str]) -> str | None:
    """Return the one of ``names`` that the text decides for, as it is spelt there; ``None`` where none is clear.

    Whole words without case, the longest first; "-", "_" and a space are the same; "not a bug" names no bug.
    The last explicit statement ("Label: bug") counts, else the only label that the text names, else the only
    one on its last line.

    >>> names = ["spam", "not spam"]
    >>> label("Not spam.", names), label("It is not just spam or not spam", names)
    ('not spam', None)
    """
    mentions = _mentions(tuple(names))
    text = plain(text)
    whole = mentions(bare(text))
    if len(whole) == 1 and _folded(whole[0][1]) == _folded(bare(text)):
        return whole[0][1]
    for statement in said(text, _CLASSED):
        found = _decided(statement, mentions)
        if found:
            return found
    return _only(text, mentions)


def labels(text: str, names: Sequence[str]) -> frozenset[str] | None:
    """Return all of ``names`` that the text gives, none if it says "none"; ``None`` where it says nothing of it.

    Names are compared as ``label`` does it. The last paragraph that a marker opens ("Labels: bug, billing")
    counts, else the whole text.

    >>> sorted(labels("Praise is absent. Labels: billing, bug", ["praise", "bug", "billing"]))
    ['billing', 'bug']
    >>> labels("None", ["praise", "bug"])
    frozenset()
    """
    mentions = _mentions(tuple(names))
    text = plain(text)
    for part in (*said(text, _CLASSED, paragraph=True), text):
        found = frozenset(name for _, name in mentions(part))
        if found or bare(part).casefold() in {"none", "none of them", "none of these", "no label", "n/a"}:
            return found
    return frozenset() if "".join(text.split()) == "[]" else None


def boolean(text: str) -> bool | None:
    """Return whether the text says yes (or true) or no (or false), ``None`` where it says neither clearly.

    The last explicit statement counts, else what the last line opens with, else what the text opens with.

    >>> boolean("No doubt about it. Answer: **yes**"), boolean("No, since it rains."), boolean("No idea")
    (True, False, None)
    """
    text = plain(text)
    for part in (*said(text, _JUDGED), last_line(text), text):
        match = _YES_OPENS.match(part)
        if match:
            return _YES[match[1].lower()]
    return None


def correct(text: str) -> bool | None:
    """Return whether the text calls an answer correct or incorrect, ``None`` where it does neither clearly.

    "Wrong", "false" and "not correct" are incorrect; "the correct value" judges nothing.

    >>> correct("The correct sum is 5. Verdict: the answer is incorrect"), correct("Correct!"), correct("Hm")
    (False, True, None)
    """
    text = plain(text)
    for statement in said(text, _JUDGED):
        found = _decided(statement, _rights)
        if found:
            return found == "right"
    found = _only(text, _rights)
    return None if found is None else found == "right"


def _decided(statement: str, mentions: _Mentions) -> str | None:
    """Return what a statement opens with, else the only one it names."""
    found = mentions(statement)
    if not found or re.search(r"\w", statement[: found[0][0]]):
        return _single(found)
    after = statement[found[0][0] + len(found[0][1]) : found[1][0]] if len(found) > 1 else ";"
    return None if _JOINED.fullmatch(after) else found[0][1]


def _only(text: str, mentions: _Mentions) -> str | None:
    """Return the only one that a text names, else the only one on its last line."""
    return _single(mentions(text)) or _single(mentions(last_line(text)))


def _single(found: Iterable[tuple[int, str]]) -> str | None:
    names = {name for _, name in found}
    return names.pop() if len(names) == 1 else None


def _is_denied(text: str, start: int) -> bool:
    return _DENIAL.search(text[max(0, start - 32) : start]) is not None


def _rights(text: str) -> list[tuple[int, str]]:
    return [
        (match.start(), match.lastgroup or "") for match in _RIGHT.finditer(text) if not _is_denied(text, match.start())
    ]


@functools.cache
def _mentions(names: tuple[str, ...]) -> _Mentions:
    canonical = {_folded(name): name for name in names}
    alternatives = "|".join(_spelt(key) for key in sorted(canonical, key=len, reverse=True))
    pattern = re.compile(alternatives, re.IGNORECASE)

    def mentions(text: str) -> list[tuple[int, str]]:
        return [
            (match.start(), canonical[key])
            for match in pattern.finditer(text)
            if (key := _folded(match[0])) in canonical and not _is_denied(text, match.start())
        ]

    return mentions


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip()).casefold()


def _spelt(name: str) -> str:
    """Return the pattern of a label: whole words where its script has words."""
    inside = re.escape(name).replace(r"\ ", r"[\s_-]{1,4}")
    before = r"(?<!\w)" if re.match(r"\w", name) and not _UNSPACED.match(name) else ""
    after = r"(?!\w)" if re.search(r"\w$", name) and not _UNSPACED.match(name[-1]) else ""
    return before + inside + after


@functools.cache
def _forms(letters: str) -> tuple[re.Pattern[str], ...]:
    r"""Return the forms of a choice: strict, opening a statement, claimed, marked, only named."""
    big, both = (f"[{re.escape(some)}]" for some in (letters, letters + letters.lower()))
    bracketed = rf"[(\[{{][\s*]{{0,4}}({both})[\s*]{{0,4}}[)\]}}]"
    word = rf"(?<![\w'’-])(?:(?![AI]\b[ ](?!(?:{_AFTER_A_CHOICE})\b)[a-z])({big}))(?![\w'’-])"
    lead = r"(?:(?i:the\s|option\s|choice\s|letter\s|answer\s)){0,2}[\s*_`\"'“$\\]{0,8}"
    one = rf"(?:{bracketed}|{word})"
    strict = rf"\\f?boxed\s?\{{\s?(?:\\text(?:bf)?\s?\{{)?\s?\(?({both})\)?\s?\}}|\[\[\s?({big})\s?\]\]"
    opening = rf"\A[\s*_`\"'“$\\]{{0,8}}{lead}{one}(?![\s*)\]\"',/]{{0,8}}(?:or|and)\b)"
    correct = r"(?i:is|must\sbe)\s(?i:the\s)?(?i:only\s|most\s)?(?i:correct|right|best|answer)"
    chosen = r"(?i:choose|chose|pick|select|go\swith|go\sfor)"
    claimed = rf"{one}[*_\"'”]{{0,4}}\s{correct}\b|{chosen}\s{lead}{one}"
    at_start = rf"^[\s*_`>\"'“-]{{0,8}}{word}(?=[\s.):,;*\"'”]|$)"
    marked = rf"{bracketed}|\*\*\s?{word}|(?i:option|choice|letter)\s{word}|{at_start}"
    return tuple(re.compile(form, re.MULTILINE) for form in (strict, opening, claimed, marked, one))


def _letters(form: re.Pattern[str], text: str) -> list[tuple[int, str]]:
    found = []
    for match in form.finditer(text):
        at = match.lastindex or 0
        if not _is_denied(text, match.start(at)):
            found.append((match.start(), match[at].upper()))
    return found


def _without_options(text: str) -> str:
    """Return the text without the lines that list several options."""
    listed = {match[1] for match in _OPTION_LINE.finditer(text)}
    return _OPTION_LINE.sub("", text) if len(listed) > 1 else text
