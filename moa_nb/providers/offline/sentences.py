"""Sentences of a text as it is: prose, list items, headings, table rows, code; each a slice of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from moa_nb.providers.offline.abbreviations import sentence_ends
from moa_nb.providers.offline.words import language

__all__ = ["Kind", "Sentence", "is_ended", "label", "split"]

Kind = Literal["prose", "item", "row", "heading", "code"]
"""What a unit is part of."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One unit that may be chosen: ``source[start:end] == text``."""

    text: str
    start: int
    """Where it begins in the source, in characters."""
    end: int
    kind: Kind
    block: int
    """Which block (paragraph, list item, table) it stands in, counted from 0."""
    lead_in: str = ""
    """What may stand before it: the marker of its item, its table's head."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A stretch of the text that holds nothing but sentences of one kind."""

    start: int
    end: int
    kind: Kind
    block: int
    lead_in: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line without its break."""

    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def is_blank(self) -> bool:
        return not self.text.strip()


_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"\s{0,3}#{1,6}(?:\s+|$)")
_UNDERLINE = re.compile(r"\s{0,3}(?:=+|-+)\s*$")
_RULE = re.compile(r"\s{0,3}(?:[-*_=~]\s*){3,}$")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_BULLET = re.compile(r"\s*(?:[-*+•‣◦▪▫●○■□◆–—·⁃]|\[[ xX]\]|[-*+]\s+\[[ xX]\])\s+(?=\S)|\s*[•‣◦▪▫●■◆](?=\S)")
_NUMBER = re.compile(
    r"\s*(?:\(?(?P<number>\d{1,3})(?:[.)]\s+|[、．]\s*|\)\s*)|\(?[a-zA-Z]\)\s+|\(?[ivx]{1,4}\)\s+"
    r"|[①-⑳]\s*|[一二三四五六七八九十]{1,3}、\s*|（[一二三四五六七八九十\d]{1,3}）\s*)(?=\S)"
)
_QUOTE = re.compile(r"\s{0,3}(?:>\s?)+")
_SPEAKER = re.compile(r"\s*(?:\[[\d:., apmAPM/-]+\]\s*)?[^\W\d_][\w .'’-]{0,28}(?:\([^)]{1,20}\))?\s?[:：]\s*\S")
_CLOSERS = "\"'”’»)\\]）」』】》〉"
_HARD_STOP = re.compile(rf"[。！？｡।॥។៕။؟۔።]+[!?！？。]*[{_CLOSERS}]*")
_QUOTATION = re.compile(r"「[^「」]{0,300}」|『[^『』]{0,300}』|“[^“”]{0,300}”|（[^（）]{0,300}）|《[^《》]{0,300}》")
_ENDED = re.compile(rf"[.!?…。！？｡।॥។៕။؟۔።:：;；]+[{_CLOSERS}*_`]*\s*$")
_LETTER = re.compile(r"\w", re.UNICODE)
_THAI = re.compile(r"(?<=[\u0e00-\u0e7f\u0e80-\u0eff])\s+(?=[\u0e00-\u0e7f\u0e80-\u0eff])")
_BEFORE_NUMBER = re.compile(
    r"(?:^|[\s(\[])(?:approx|appx|ca|c|circa|nos?|nr|num|figs?|eqs?|eqns?|secs?|sects?|chs?|chaps?|apps?|tabs?|pp?|"
    r"vols?|art|arts|par|para|ref|refs|alg|thm|def|cor|prop|ex|vs|v|ver|est|min|max|avg|resp|abb|bzw|ggf|vgl|bl?d|s|pág|"
    r"núm|стр|рис|табл|гл|ст|п|№)\.\s*$",
    re.IGNORECASE,
)
_BEFORE_WORD = re.compile(
    r"(?:^|[\s(\[])(?:e\.?\s?g|i\.?\s?e|cf|viz|vs|v|al|etc|approx|resp|incl|esp|dept|est|"
    r"z\.?\s?b|d\.?\s?h|u\.?\s?a|usw|bzw|ggf|ca|evtl|vgl|p\.?\s?ej|т\.?\s?е|т\.?\s?д|т\.?\s?п|др|"
    r"dr|mr|mrs|ms|prof|st|sr|jr|rev|gen|sen|rep|gov|hon|mme|mlle|herr|hr|fr)\.\s*$",
    re.IGNORECASE,
)
_TITLE = re.compile(
    r"(?:^|[\s(\[])(?:(?i:dr|mr|mrs|ms|prof|mme|mlle|cf|vs|e\.\s?g|i\.\s?e|viz)|R(?:ev|EV|ep|EP)|G(?:en|EN|ov|OV)"
    r"|S(?:en|EN)|H(?:on|ON|r|R))\.\s*$"
)
_RANKED = (re.compile(r"\w\W*\sNo\.\s*$"), re.compile(r"(?:One|Two|Three|Four|Five|Six|Seven|Eight|Nine|Ten)\b"))
_INITIALS = re.compile(r"(?:^|[\s(.])[A-Z]\.\s*$")
_QUOTING = re.compile(r"と[言い思書述聞答話呼感考]|って|という|などと|との")
_WORDISH = re.compile(r"[A-Z][a-z]*(?:['’][a-z]+)?(?:[\s,;:)]|$)|[A-Z][a-z]+[.!?](?:\s|$)|[\"“‘(\[]")
_PLAIN_STOP = re.compile(
    r"(?<=[\s(])(?!(?:al|vs|cf|eg|ie|viz|dr|mr|mrs|ms|prof|rev|gen|sen|gov|st|fig|eq|sec|approx|ca)\.)[a-z]{2,20}\.\s+"
    r"(?=(?:I|We|You|He|She|It|They|The|This|That|These|Those|There|But|And|So|My|Our|Your|His|Her|Its|Their|If|When|"
    r"In|On|At|As|For|However|Not|No|Then|After|Also)\b)"
)
_CLEAR_END = re.compile(r"[a-z\d)]{3}[.!?]\s+(?=[A-Z])|[。！？]")
_LABELLED = re.compile(r"(?P<label>[^\W\d_][^:：.!?\n]{0,40})[:：]\s+(?P<rest>\S.*)", re.DOTALL)
_LISTED = re.compile(r"[,;，、；]\s*|\s(?:and|und|et|y|e|en|och|i|ve|и|та|&)\s", re.IGNORECASE)
_TELLING = re.compile(
    r"\b(?:am|are|be|been|can|cannot|could|did|do|does|had|has|have|is|let|may|might|must|needs?|not?|shall|should|was|"
    r"were|will|won't|would|yes|you|i|he|she|it|they|this|that|there|\w+n['’]t)\b",
    re.IGNORECASE,
)
_GAP = re.compile(r"\s+")
_WINDOW = 8000
"""Characters that the splitting library is given at once."""
_LONG = 1200
"""Characters from which on a 'sentence' is taken for a text without punctuation, and cut where it may be."""


def split(text: str) -> list[Sentence]:
    r"""Return the sentences of ``text`` in reading order, none of them empty, no character changed.

    List items, table rows, headings and lines of code are units of their own, an item of several
    sentences is several; a line break inside a
    paragraph ends no sentence, unless the lines are evidently lines (a log, a poem, ``name: value``).
    What stands between the units (blank lines, markers, rules) belongs to none.

    >>> [unit.text for unit in split("Dr. Li paid 3.50 for it.  It broke.\n- slow\n- heavy")]
    ['Dr. Li paid 3.50 for it.', 'It broke.', 'slow', 'heavy']
    """
    code = language(text)
    found: list[Sentence] = []
    for run in _demoted(text, list(_runs(text))):
        whole = run.kind in {"row", "heading", "code"}
        spans = [(run.start, run.end)] if whole else _prose(text, run.start, run.end, code)
        for start, end in spans:
            first, last = _trimmed(text, start, end)
            if first < last:
                found.append(Sentence(text[first:last], first, last, run.kind, run.block, run.lead_in))
    return found


def is_ended(text: str) -> bool:
    """Return whether ``text`` ends with a mark that ends sentences.

    >>> is_ended('He said "no."'), is_ended("Minutes, 14 April")
    (True, False)
    """
    return bool(_ENDED.search(text))


def label(text: str, code: str) -> str:
    """Return the label of a line that names and tells nothing, ``""`` of a sentence.

    >>> label("Present: Ada, Tom (minutes), Rosa.", "en"), label("The cause: it was too cold, and wet.", "en")
    ('Present', '')
    """
    match = _LABELLED.fullmatch(text.strip())
    if not match or len(match["label"].split()) > 4:
        return ""
    if code == "en" and _TELLING.search(match["rest"]):
        return ""
    parts = _LISTED.split(re.sub(r"\([^()]{0,80}\)", "", match["rest"]).rstrip(". "))
    is_list = len(parts) > 1 and all(len(part.split()) <= 3 for part in parts)
    return match["label"] if is_list else ""


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _lines(text: str) -> list[_Line]:
    return [
        _Line(match.group(1), match.start())
        for match in re.finditer(r"([^\r\n\u2028\u2029\x85]*)(?:\r\n|[\r\n\u2028\u2029\x85]|$)", text)
    ]


def _runs(text: str) -> Iterator[_Run]:
    """Yield the text's blocks, by the rules of Markdown as people really write it."""
    lines = _lines(text)
    at = 0
    block = 0
    after_item = False
    while at < len(lines):
        if lines[at].is_blank:
            after_item = after_item and at + 1 < len(lines) and not lines[at + 1].is_blank
            at += 1
            continue
        block += 1
        runs, at = (
            _fenced_code(lines, at, block)
            or _table(text, lines, at, block)
            or _heading(lines, at, block)
            or _item(lines, at, block, after_item=after_item)
            or _plain(text, lines, at, block)
        )
        yield from runs
        after_item = bool(runs) and runs[-1].kind == "item"


_Block: TypeAlias = tuple[list[_Run], int]
"""What a block holds, and the line after it."""


def _fenced_code(lines: list[_Line], at: int, block: int) -> _Block | None:
    fence = _FENCE.match(lines[at].text)
    if not fence or "`" in lines[at].text[fence.end() :]:
        return None
    end = _fence_end(lines, at, fence.group(1))
    if end is None:
        return None
    return [_Run(line.start, line.end, "code", block) for line in lines[at + 1 : end] if not line.is_blank], end + 1


def _table(text: str, lines: list[_Line], at: int, block: int) -> _Block | None:
    if not _is_table(lines, at):
        return None
    head = text[lines[at].start : lines[at + 1].end]
    end = at + 2
    while end < len(lines) and "|" in lines[end].text:
        end += 1
    return [_Run(line.start, line.end, "row", block, head) for line in lines[at + 2 : end]], end


def _heading(lines: list[_Line], at: int, block: int) -> _Block | None:
    line = lines[at]
    if _RULE.match(line.text):
        return [], at + 1
    heading = _HEADING.match(line.text)
    if not heading:
        return None
    return [_Run(line.start + heading.end(), line.end, "heading", block, heading.group().lstrip())], at + 1


def _item(lines: list[_Line], at: int, block: int, *, after_item: bool) -> _Block | None:
    marker = _marker(lines, at, after_item=after_item)
    if not marker:
        return None
    end = at + 1
    while end < len(lines) and _continues(lines, end, in_item=True):
        end += 1
    return [_Run(lines[at].start + len(marker), lines[end - 1].end, "item", block, marker.strip() + " ")], end


def _plain(text: str, lines: list[_Line], at: int, block: int) -> _Block:
    end = at + 1
    while end < len(lines) and _continues(lines, end, in_item=False):
        end += 1
    # Dashes below a whole sentence part two blocks; below a title they underline it.
    if end - at == 1 and end < len(lines) and _UNDERLINE.match(lines[end].text) and not _ENDED.search(lines[at].text):
        return [_Run(lines[at].start, lines[at].end, "heading", block)], end + 1
    return list(_paragraph(text, lines[at:end], block)), end


def _fence_end(lines: list[_Line], at: int, fence: str) -> int | None:
    for end in range(at + 1, len(lines)):
        line = lines[end].text.strip()
        if line.startswith(fence) and not line.strip(fence[0]):
            return end
    return None


def _is_table(lines: list[_Line], at: int) -> bool:
    return (
        "|" in lines[at].text
        and at + 1 < len(lines)
        and "|" in lines[at + 1].text
        and bool(_TABLE_RULE.match(lines[at + 1].text))
    )


def _marker(lines: list[_Line], at: int, *, after_item: bool) -> str:
    """Return the list marker that the line begins with, ``""`` where it is prose that only looks so."""
    line = lines[at].text
    if bullet := _BULLET.match(line):
        return bullet.group()
    number = _NUMBER.match(line)
    if not number:
        return ""
    # '12. May was cold' in the middle of a paragraph is prose: a list begins with its first number, or after a break.
    opens = at == 0 or lines[at - 1].is_blank or after_item or bool(_ENDED.search(lines[at - 1].text))
    return number.group() if opens or number.group("number") in {None, "1"} else ""


def _continues(lines: list[_Line], at: int, *, in_item: bool) -> bool:
    line = lines[at]
    if line.is_blank or _HEADING.match(line.text) or _FENCE.match(line.text) or _is_table(lines, at):
        return False
    if _UNDERLINE.match(line.text) or _RULE.match(line.text):
        return False
    if _marker(lines, at, after_item=in_item):
        return False
    if not in_item or line.text[:1].isspace() or line.text[:1].islower():
        return True
    before = lines[at - 1].text
    return len(before) >= 50 and not _ENDED.search(before)


def _paragraph(text: str, lines: list[_Line], block: int) -> Iterator[_Run]:
    """Yield the paragraph as one run where its line breaks are wrapping, else a run a line."""
    start = lines[0].start
    quote = _QUOTE.match(lines[0].text)
    if quote:
        # A quoted line's mark is no part of a sentence, so that each line stands alone unless it is unmarked.
        marked = [(line, _QUOTE.match(line.text)) for line in lines]
        for line, mark in marked:
            inner = line.start + (mark.end() if mark else 0)
            if text[inner : line.end].strip():
                yield _Run(inner, line.end, "prose", block)
        return
    widest = max(len(line.text) for line in lines)
    speakers = [bool(_SPEAKER.match(line.text)) for line in lines]
    are_lines = sum(speakers) >= 2
    for here, following, speaks in zip(lines, [*lines[1:], None], [*speakers[1:], False], strict=True):
        if following is None:
            yield _Run(start, here.end, "prose", block)
            return
        opener = following.text.lstrip()[:1]
        # A line that ends well before the margin, followed by a capital, was broken by hand.
        by_hand = (
            not opener.islower()
            and len(here.text) < 0.6 * widest
            and not here.text.rstrip().endswith((",", "-", "，", "、"))
        ) or here.text.endswith(("  ", "\\"))
        both_short = widest < 45 and not opener.islower() and opener.isalpha() and not here.text.rstrip().endswith(",")
        if by_hand or both_short or (are_lines and speaks) or _ENDED.search(here.text):
            yield _Run(start, here.end, "prose", block)
            start = following.start


def _demoted(text: str, runs: list[_Run]) -> Iterator[_Run]:
    """Yield the runs, short unended lines above prose turned into the headings that they are."""
    is_alone = [
        (at == 0 or runs[at - 1].block != run.block) and (at + 1 == len(runs) or runs[at + 1].block != run.block)
        for at, run in enumerate(runs)
    ]
    for at, run in enumerate(runs):
        words = text[run.start : run.end].strip()
        if (
            run.kind == "prose"
            and is_alone[at]
            and at + 1 < len(runs)
            and len(words) <= 70
            and len(words.split()) <= 9
            and "\n" not in words
            and (_ENDED.search(words) is None or words.endswith((":", "：")))
        ):
            yield _Run(run.start, run.end, "heading", run.block, run.lead_in)
        else:
            yield run


def _prose(text: str, start: int, end: int, code: str) -> list[tuple[int, int]]:
    """Return the spans of the sentences in ``text[start:end]``."""
    # The same length, so that positions hold; lone surrogates cannot cross into the library.
    flat = re.sub(r"[\s\x00-\x1f]", " ", text[start:end])
    flat = re.sub(r"[\ud800-\udfff]", "\ufffd", flat)
    pieces = _segments(flat, code)
    pieces = [part for piece in pieces for part in _at_hard_stops(flat, *piece)]
    pieces = [part for piece in pieces for part in _at_plain_stops(flat, *piece)]
    if code == "en":
        pieces = [part for piece in pieces for part in _at_words(flat, *piece)]
    if code in {"th", "lo"}:
        pieces = [part for piece in pieces for part in _at_thai_spaces(flat, *piece)]
    merged: list[tuple[int, int]] = []
    for piece in pieces:
        if merged and _belong_together(flat, merged[-1], piece):
            merged[-1] = (merged[-1][0], piece[1])
        else:
            merged.append(piece)
    return [part for piece in merged for part in _at_last_resort(text, start + piece[0], start + piece[1])]


def _segments(flat: str, code: str) -> list[tuple[int, int]]:
    from sentencex import segment

    spans: list[tuple[int, int]] = []
    is_cut = False
    at = 0
    # The library's time grows with the square of a paragraph full of marks, so that it reads a window at a time.
    while at < len(flat):
        end, next_is_cut = _window(flat, at)
        pieces = list(segment(code, flat[at:end]))
        if "".join(pieces) != flat[at:end]:
            # The library must hand back every character; where it does not, ends of sentences alone decide.
            pieces = re.split(r"(?<=[.!?…]\s)(?=\S)", flat[at:end])
        for number, piece in enumerate(pieces):
            if number == 0 and is_cut and spans:
                spans[-1] = (spans[-1][0], at + len(piece))
            elif piece:
                spans.append((at, at + len(piece)))
            at += len(piece)
        is_cut = next_is_cut
    return spans


def _window(flat: str, at: int) -> tuple[int, bool]:
    """Return where the next window ends, and whether that is in the middle of a sentence."""
    if len(flat) - at <= _WINDOW:
        return len(flat), False
    latest = at + _WINDOW
    for pattern, is_cut in ((_CLEAR_END, False), (_GAP, True)):
        ends = [match.end() for match in pattern.finditer(flat, at + _WINDOW // 2, latest)]
        if ends:
            return ends[-1], is_cut
    return latest, True


def _at_hard_stops(flat: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the span cut after the marks that end a sentence in scripts that put no space there."""
    quoted_to = start
    quotations = _QUOTATION.finditer(flat, start, end)
    quotation = next(quotations, None)
    for match in _HARD_STOP.finditer(flat, start, end):
        while quotation and quotation.start() < match.start():
            quoted_to, quotation = quotation.end(), next(quotations, None)
        # A full stop inside a quotation ends none of ours, except with the quotation.
        if match.end() < quoted_to:
            continue
        if match.end() < end:
            yield start, match.end()
            start = match.end()
    if start < end:
        yield start, end


def _at_plain_stops(flat: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the span cut where the library took a common word for an abbreviation ('He told me. I left.')."""
    for match in _PLAIN_STOP.finditer(flat, start, end):
        yield start, match.end()
        start = match.end()
    if start < end:
        yield start, end


def _at_words(flat: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the span cut after words that the library takes for abbreviations ('in May. Forty left.')."""
    for at in sentence_ends(flat, start, end):
        yield start, at
        start = at
    if start < end:
        yield start, end


def _at_thai_spaces(flat: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the span cut at spaces between Thai letters: they part clauses, as no mark ends a sentence."""
    for match in _THAI.finditer(flat, start, end):
        if match.start() - start >= 40 and end - match.end() >= 15:
            yield start, match.end()
            start = match.end()
    if start < end:
        yield start, end


def _belong_together(flat: str, before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Return whether a cut between two neighbours was none: an abbreviation, a quotation, stray marks."""
    tail, head = flat[max(before[0], before[1] - 40) : before[1]], flat[after[0] : min(after[1], after[0] + 40)]
    if not _LETTER.search(flat, *after):
        # Nothing to read in it (closing marks, an emoji): part of what stands before.
        return True
    if not _LETTER.search(flat, *before):
        return True
    first = head.lstrip()[:1]
    spaced = tail[-1:].isspace() or head[:1].isspace()
    if first.isdigit() and _BEFORE_NUMBER.search(tail):
        return True
    if _RANKED[0].search(tail) and _RANKED[1].match(head.lstrip()):
        # 'The No. One player'
        return True
    if _TITLE.search(tail) or (first.islower() and _BEFORE_WORD.search(tail)):
        return True
    if (
        first.isupper()
        and _INITIALS.search(tail)
        and re.match(r"\s*[A-Z](?:\.|[a-z]+\b)", head)
        and len(tail.split()) > 1
    ):
        return (
            bool(re.search(r"[A-Z][a-z]+\s+[A-Z]\.\s*$|(?:^|\s)[A-Z]\.\s?[A-Z]\.\s*$|^[A-Z]\.\s*$", tail))
            and not spaced
        )
    if tail.endswith((".", "!", "?")) and not spaced and first.isascii() and first.isalnum():
        return not _WORDISH.match(head)
    return bool(re.search(r"[」』]\s*$", tail)) and bool(_QUOTING.match(head.lstrip()))


def _at_last_resort(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the span, cut at line breaks, semicolons and at last between words where it has no sentences."""
    while end - start > _LONG:
        window = text[start : start + 400]
        cuts = [
            max((match.end() for match in re.finditer(pattern, window)), default=0)
            for pattern in (r"[^\n]\n", r"[;；]\s*", r"[,，、]\s+", r"\S\s+")
        ]
        cut = next((cut for cut in cuts if cut >= 80), 0)
        if not cut:
            # One endless word: it is cut only where the text is all of it.
            following = re.search(r"\s", text[start + 400 : end])
            cut = 400 + following.end() if following else end - start
        yield start, start + cut
        start += cut
    if start < end:
        yield start, end
