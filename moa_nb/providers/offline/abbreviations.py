"""English words with a full stop that end a sentence, though they are abbreviations elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["sentence_ends"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What the splitting library holds for abbreviations, by what may follow within a sentence.

_WORDS = frozenset(
    [
        "abbrev",
        "al",
        "ala",
        "ark",
        "art",
        "cal",
        "cit",
        "con",
        "conn",
        "dak",
        "dec",
        "del",
        "det",
        "dist",
        "ens",
        "esp",
        "esq",
        "etc",
        "exec",
        "exp",
        "ext",
        "fed",
        "fla",
        "ga",
        "hosp",
        "hr",
        "ia",
        "id",
        "ida",
        "ill",
        "ind",
        "ing",
        "kan",
        "kans",
        "ken",
        "ky",
        "la",
        "ll",
        "loc",
        "mar",
        "may",
        "md",
        "me",
        "med",
        "mex",
        "mfg",
        "mich",
        "min",
        "minn",
        "miss",
        "mm",
        "mo",
        "mont",
        "mtn",
        "neb",
        "nebr",
        "nem",
        "nev",
        "nr",
        "ok",
        "okla",
        "ont",
        "ore",
        "pa",
        "pd",
        "pde",
        "penn",
        "ph",
        "plz",
        "pps",
        "ps",
        "que",
        "rd",
        "rs",
        "rt",
        "sask",
        "sc",
        "scil",
        "sens",
        "surg",
        "tce",
        "tenn",
        "tex",
        "usafa",
        "ut",
        "va",
        "wef",
        "wis",
        "wisc",
        "wy",
        "wyo",
        "yuk",
        "ca",
        "calif",
        "colo",
    ]
)
"""After these no capitalised word goes on."""

_MONTHS = frozenset(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"])
_BEFORE_NUMBERS = frozenset(
    [
        "art",
        "ch",
        "ed",
        "eq",
        "ex",
        "ext",
        "fig",
        "figs",
        "fy",
        "no",
        "nos",
        "op",
        "par",
        "pg",
        "pl",
        "pp",
        "ref",
        "reg",
        "res",
        "rs",
        "sec",
        "secs",
        "ver",
        "vol",
        "arc",
    ]
)
_COMPANIES = frozenset(["assn", "bros", "co", "corp", "inc", "ltd", "mfg"])
_STREETS = frozenset(["ave", "bld", "bldg", "blvd", "cres", "ct", "expy", "fwy", "hway", "hwy", "pl", "rd", "rt"])
_TITLES = frozenset(
    [
        "adm",
        "brig",
        "bart",
        "capt",
        "cmdr",
        "col",
        "comdr",
        "cpl",
        "dept",
        "dr",
        "drs",
        "ens",
        "fr",
        "ft",
        "gen",
        "gov",
        "hon",
        "insp",
        "jr",
        "lt",
        "maj",
        "messrs",
        "miss",
        "mlle",
        "mme",
        "mr",
        "mrs",
        "ms",
        "msgr",
        "mssrs",
        "mt",
        "ord",
        "pfc",
        "pres",
        "prof",
        "pvt",
        "rep",
        "reps",
        "rev",
        "sen",
        "sens",
        "sfc",
        "sgt",
        "sr",
        "st",
        "supt",
        "surg",
        "univ",
    ]
)
_ALSO_NOUNS = frozenset(
    [
        "adm",
        "con",
        "ens",
        "fr",
        "gen",
        "gov",
        "hon",
        "maj",
        "miss",
        "ord",
        "pres",
        "rep",
        "reps",
        "rev",
        "sec",
        "sen",
        "sens",
        "surg",
    ]
)
"""Titles that stand before a name only with a capital: 'Rep. Li', but 'one more rep. Rest.'"""

_NEVER = frozenset(["al", "ca", "cf", "eg", "esp", "ie", "nr", "re", "scil", "viz", "vs", "wrt", "btw", "ph"])
"""Small, these always go on: 'Li et al. Nature 5'."""

_STOP = re.compile(
    r"(?<![\w.'’-])(?P<word>[A-Za-z]+)\.[)\]\"”’]*(?P<gap>\s+)[(\[\"“‘]?(?P<next>[A-Z][a-z]+(?:['’][a-z]+)?\b|[AI](?=\s[a-z])|\d+\b)"
)
_COUNTRY = re.compile(r"(?<![\w.])(?:U\.S|U\.K|U\.N|E\.U|D\.C|U\.S\.A)\.\s+(?P<next>[A-Z][a-z]+)\b")
_NUMBER_WORD = re.compile(
    r"(?:One|Two|Three|Four|Five|Six|Seven|Eight|Nine|Ten|Eleven|Twelve|\w+teen|Twenty|Thirty|Forty|Fifty|Sixty|Seventy|"
    r"Eighty|Ninety|Hundreds?|Thousands?|Millions?|Half|Dozens?)"
)
_LOW_NUMBER = re.compile(r"(?:One|Two|Three|Four|Five|Six|Seven|Eight|Nine|Ten|Eleven|Twelve|A)")
_ROLE = re.compile(
    r"(?:Ltd|Limited|Inc|Corp|Chair\w*|Chief|President|Vice|Executives?|Director|Founder|Co|Spokes\w+|Headquarters|"
    r"Stock|Shares|Group|Holdings?|Magazine|Building|Chancellor|Senior)"
)
_SIDE = re.compile(r"(?:North|South|East|West|Apt|Suite|Unit|Room|Floor)")
_NAME_BEFORE = re.compile(r"(?:\b(?!(?:In|Of|From|At|To|Near|The)\b)[A-Z][\w'’&-]*|&|\d(?:st|nd|rd|th))\s+$")
_FRONTED = re.compile(
    r"(?:In|On|By|Since|Until|Till|From|For|During|Before|After|Between|Around|Last|Next|This|Every|Early|Late|Mid|As)"
    r"(?:\s+\S+){0,3}\s+$"
)
_LABEL_BEFORE = re.compile(
    r"\b(?:plan|vitamin|group|type|class|grade|option|part|section|team|phase|series|hepatitis|appendix|annex|exhibit|"
    r"figure|table|batch|room|question|answer|case|version|point|item|level|size|model|schedule|category|line|gate|hall|"
    r"block|zone|unit|side|act|chapter|volume|book|war|step|stage|tier|influenza|form|rule|site|product|letter)\s+$",
    re.IGNORECASE,
)
_I_BEFORE = re.compile(
    r"\b(?:was|is|am|are|than|as|do|did|nor|but|(?:you|he|she|they|wife|husband|friends?|brother|sister|mother|father)"
    r" and)\s+$",
    re.IGNORECASE,
)
_SYMBOLS = frozenset("xyzntkm")


def sentence_ends(text: str, start: int, end: int) -> Iterator[int]:
    """Yield where sentences begin in ``text[start:end]`` after a word that is an abbreviation elsewhere.

    A capitalised word follows that goes not on with it: a title goes on with a name, a month with its
    day, a company with its chairman. Inside brackets and quotation marks nothing ends.

    >>> text = "The mill closed in May. Forty left. Ms. Li, who was born on May. 5, did not."
    >>> [text[at:][:5] for at in sentence_ends(text, 0, len(text))]
    ['Forty']
    """
    at = start
    for match in _STOP.finditer(text, start, end):
        before = text[at : match.start()]
        if _ends(match, before) and not _is_open(text[at : match.end("gap")]):
            at = match.end("gap")
            yield at
    for match in _COUNTRY.finditer(text, start, end):
        if _NUMBER_WORD.fullmatch(match["next"]) and not _is_open(text[start : match.start("next")]):
            yield match.start("next")


def _is_open(text: str) -> bool:
    return (
        text.count("(") > text.count(")")
        or text.count("[") > text.count("]")
        or text.count("“") > text.count("”")
        or text.count('"') % 2 == 1
    )


def _ends(match: re.Match[str], before: str) -> bool:
    word, following = match["word"], match["next"]
    if following.isdigit():
        # 'in May. 40 people': no month has so many days, and no year so few.
        return word.lower() == "may" and int(following) > 31 and len(following) != 4
    if len(word) == 1:
        return _ends_after_letter(word, before)
    return _ends_after_word(word, before, following)


def _ends_after_letter(letter: str, before: str) -> bool:
    if letter.isupper():
        return bool(_LABEL_BEFORE.search(before)) or (letter == "I" and bool(_I_BEFORE.search(before)))
    return letter in _SYMBOLS and bool(re.search(r"\w\W+$", before))


def _ends_after_word(word: str, before: str, following: str) -> bool:
    small = word.lower()
    if word.isupper() and small not in {"no", "ok", "al", "may"}:
        # 'by the PA. Rosa', but 'DR. Li'.
        return small in _WORDS and small not in _TITLES
    if small in _TITLES and (word != small or small not in _ALSO_NOUNS):
        return _is_street(small, before)
    if word == small and small in _NEVER:
        return False
    if small in _BEFORE_NUMBERS and _LOW_NUMBER.fullmatch(following):
        # 'the No. One player'; 'He said no. Two left.'
        return small == "no" and (word == "no" or not before.strip())
    if small in _MONTHS and small != "may":
        return not _FRONTED.fullmatch(before.lstrip())
    if small in _COMPANIES:
        return bool(_NAME_BEFORE.search(before)) and not _ROLE.fullmatch(following)
    if small in _STREETS and not _SIDE.fullmatch(following) and _NAME_BEFORE.search(before):
        return True
    return small in _WORDS or small in _ALSO_NOUNS or small in _BEFORE_NUMBERS


def _is_street(small: str, before: str) -> bool:
    """Return whether 'St.' is a street's, for which its number speaks: '5 Main St. Rosa came.'"""
    return small == "st" and bool(re.search(r"\d\s+(?:[A-Z]\w+|\d+\w\w)\s+$", before))
