"""How long an answer is to be: what the instruction asks for, else what suits the text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

__all__ = ["Length", "asked", "is_size", "suitable"]

_NUMBERS = {
    "a": 1, "an": 1, "one": 1, "single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "fifty": 50,
    "hundred": 100, "a couple of": 2, "a couple": 2, "a few": 3, "several": 4,
    "einem": 1, "einer": 1, "ein": 1, "eine": 1, "zwei": 2, "drei": 3, "vier": 4, "fünf": 5,
    "un": 1, "une": 1, "deux": 2, "trois": 3, "quatre": 4, "cinq": 5,
    "una": 1, "uno": 1, "dos": 2, "tres": 3, "cuatro": 4, "cinco": 5, "due": 2, "tre": 3, "quattro": 4, "cinque": 5,
    "uma": 1, "um": 1, "duas": 2, "dois": 2, "três": 3, "een": 1, "twee": 2, "drie": 3,
    "одном": 1, "одно": 1, "одной": 1, "двух": 2, "два": 2, "трех": 3, "трёх": 3, "три": 3,
    "一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10,
}  # fmt: skip
_UNITS = {
    "sentences": r"sentences?|lines?|liners?|statements?|satz|sätzen?|phrases?|frases?|oraci(?:ón|ones)|líneas?|linhas?|frasi?|"
    r"frase|zinn?en|zin|zeilen?|lignes?|righe|riga|предложени[а-я]+|строк[а-я]*|(?:句话|句話|句|行|文(?!字)|行で)",
    "points": r"(?:bullet(?:ed)?[ -]?points?|bullets?|key[ -]points?|main[ -]points?|points?|takeaways?|highlights?|"
    r"stichpunkten?|points? clés?|puntos?|punti|pontos|пункт[а-я]*|要点|点|點|箇条書き)",
    "words": r"words?|wörtern?|worten?|mots?|palabras?|parole|palavras?|woorden|слов[а-я]*",
    "characters": r"characters?|chars?|letters?|zeichen|caractères?|caracteres|caratteri|символ[а-я]*|(?:个|個)?字符?|文字",
}
_COUNT = "|".join(sorted(map(re.escape, _NUMBERS), key=len, reverse=True))
_BETWEEN = (
    r"(?:(?:[\s,‑-]{1,3})?(?:short|brief|concise|simple|clear|plain|crisp|complete|full|single|succinct|key|main|"
    r"(?:most )?important|kurzen|kurze|courtes?)){0,3}[\s‑-]{0,3}"
)
_ASKED = re.compile(
    rf"(?<!\bthe )(?<!\bthese )(?<!\bthose )(?:(?:\d+|\b(?:{_COUNT}))\s*(?:-|–|to|or|bis|à|a|"
    rf"до)\s*)?(?<![A-Za-zÀ-ÿ0-9_.])(?<!\bthe )(?<!\bthese )(?<!\bthose )(?P<count>\d{{1,5}}|{_COUNT}){_BETWEEN}"
    rf"(?:(?P<sentences>{_UNITS['sentences']})|(?P<points>{_UNITS['points']})|(?P<words>{_UNITS['words']})|"
    rf"(?P<characters>{_UNITS['characters']}))(?![a-zäöüßéèà'’])",
    re.IGNORECASE,
)
_POINTS = re.compile(r"\bbullet(?:ed)?\b|\bbullets\b|\bkey points\b|\bstichpunkt|要点|箇条書き", re.IGNORECASE)
_SHORT = re.compile(
    r"\b(?:brief(?:ly)?|short(?:ly)?|concise(?:ly)?|tersely|succinct(?:ly)?|tl;?dr|nutshell|few words|"
    r"kurz|bref|brève(?:ment)?|breve(?:mente)?|кратко)\b|简短|簡潔|简洁",
    re.IGNORECASE,
)
_DETAILED = re.compile(
    r"\b(?:detailed|in detail|thorough(?:ly)?|comprehensive(?:ly)?|at length|ausführlich)\b|详细|詳しく", re.IGNORECASE
)
_BEFORE_SIZE = re.compile(
    r"\W*(?:(?:for|to) [^\W\d][\w' -]{1,40},\s*)?(?:(?:in|within|at most|at least|no more than|not more than|up to|about|"
    r"around|roughly|exactly|only|just|max(?:imum)?|under|please|as|answer|make it|keep it to|a|of|the|and|but|length:|"
    r"im|auf|höchstens|bitte|en|au plus|máximo|alle|ungefähr)[\s,:]+)*",
    re.IGNORECASE,
)
_AFTER_SIZE = re.compile(
    r"(?:\s*(?:or (?:less|fewer)|please|each|only|long|tops|total|altogether|at (?:the )?most|max(?:imum)?|in total)\b)*\s*"
    r"(?:[,;:–-]?\s*(?:for|to|about|on|in|with|without|that|which|aimed|suitable|as|and|no|not|please|max|plain|für|pour|"
    r"para|per|voor|über|sur|sobre)\b[^.!?]*)?[\s.!]*",
    re.IGNORECASE,
)
_TELLS = re.compile(
    r"\b(?:was|were|is|are|am|has|have|had|will|would|did|does|came|went|made|said|became|remained|stood)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Length:
    """What an answer may hold. ``None`` means: no such bound was asked for."""

    sentences: int | None = None
    words: int | None = None
    characters: int | None = None
    is_list: bool = False
    """Each sentence is a bullet point."""
    factor: float = 1.0
    """How much longer than usual, where only 'brief' or 'in detail' was asked."""

    @property
    def is_open(self) -> bool:
        """Whether the text itself decides how many sentences there are."""
        return self.sentences is None and self.words is None and self.characters is None


def asked(instruction: str) -> Length:
    """Return the length that an instruction asks for; of a range its upper end.

    >>> asked("Summarize in two sentences").sentences, asked("a one-line summary").sentences
    (2, 1)
    >>> asked("in at most 50 words").words, asked("Give 3 bullet points").is_list
    (50, True)
    >>> asked("Summarize this").is_open
    True
    """
    found: dict[str, int] = {}
    for match in _ASKED.finditer(instruction):
        unit = match.lastgroup or "sentences"
        count = match["count"].lower()
        number = int(count) if count.isdecimal() else _NUMBERS.get(count, 1)
        # 'a word' or 'a few characters' is a manner of speaking.
        if number and not (unit in {"words", "characters"} and not count.isdecimal() and number < 5):
            found.setdefault(unit, number)
    is_list = "points" in found or bool(_POINTS.search(instruction))
    factor = 0.5 if _SHORT.search(instruction) else 2.0 if _DETAILED.search(instruction) else 1.0
    sentences = found.get("points", found.get("sentences"))
    return Length(sentences, found.get("words"), found.get("characters"), is_list, factor)


def is_size(sentence: str) -> bool:
    """Return whether a sentence does nothing but ask for a length.

    >>> is_size("Three sentences for the board."), is_size("Three sentences for the board were cut.")
    (True, False)
    """
    sentence = sentence.strip()
    match = _ASKED.match(sentence, (before.end() if (before := _BEFORE_SIZE.match(sentence)) else 0))
    if not match or len(sentence) > 200 or asked(sentence) == Length():
        return False
    after = sentence[match.end() :]
    return bool(_AFTER_SIZE.fullmatch(after)) and not _TELLS.search(after.partition(" that ")[0])


def suitable(n_sentences: int, factor: float = 1.0) -> int:
    """Return how many of ``n_sentences`` sum a text up: ever fewer in proportion, never none.

    >>> [suitable(n) for n in (1, 2, 3, 10, 30, 100, 1000)]
    [1, 2, 2, 3, 5, 8, 19]
    """
    if n_sentences <= 2 and factor >= 1:
        return max(1, n_sentences)
    return max(1, min(n_sentences, round(1.2 * factor * math.pow(n_sentences, 0.4))))
