"""Where each sentence of an answer comes from: which proposals say it in nearly the same words.

It is found by comparing words, here and at once; no model is asked. So it is a hint for the reader's
eye: what an aggregator says in quite other words is found in no proposal. Another number, a "not", and
in English 'fell' for 'rose' make another claim; other opposites in a long sentence are not caught.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from moa_nb.panels.figures import count
from moa_nb.panels.markdown import passages
from moa_nb.providers.offline.sentences import is_ended, split
from moa_nb.providers.offline.words import language, marks, terms

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Result

__all__ = ["SHARE", "Source", "Support", "Supported", "support_of"]

SHARE = 0.6
"""The share of a sentence's content words that a proposal must have in one sentence, or in two neighbours.

Of 703 sentences by GPT-4 on the 80 questions of MT-Bench, 42 % are then found in one of four other models' answers to
the same question, 0.1 % in those to another question, and 0.4 % in those to another one of the same category; with 0.5
these are 53 %, 0.1 % and 1.3 %. Of people's one-line summaries of 618 papers (SciTLDR) 46 % are found in the paper's own
abstract and none in another one's. What ``offline:consensus`` picks from four extracts of MT-Bench's answers is found in
its sources without exception.
"""

_FEWEST = 3
"""Content words below which all of a sentence's must be there, in a single sentence."""
_LONGEST_ANSWER, _LONGEST_SOURCES = 20_000, 150_000
"""Characters of an answer, and of all proposals together, that are compared; what is beyond stays unmarked."""
_TITLE_WORDS = 9
_MOST_PLACES = 200
"""Places of a proposal that are looked at for one sentence: a text that says one word over and over is no reason to wait."""

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WRITTEN = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_WORD = re.compile(r"[a-z]+")
_UP = re.compile(r"\b(?:ris(?:e|es|en|ing)|rose|increas\w+|gr(?:ow|ows|ew|own|owing|owth)|climb\w*|gain\w*|higher)\b")
_DOWN = re.compile(r"\b(?:fall(?:s|en|ing)?|fell|decreas\w+|declin\w+|drop\w*|shr(?:ink|inks|ank|unk|inking)|lower)\b")


@dataclass(frozen=True, slots=True)
class Supported:
    """A sentence of an answer, and who says it."""

    text: str
    passage: int
    """Which passage of the answer it stands in, as ``markdown.passages`` counts them."""
    end: int
    """Where it ends there, in characters."""
    by: tuple[int, ...] | None
    """The positions of the proposals that say it; ``None`` where it has too few words to tell."""


@dataclass(frozen=True, slots=True)
class Support:
    """An answer's sentences against the proposals that it was made of."""

    agents: tuple[str, ...]
    """Whose proposals they are, in their order."""
    sentences: tuple[Supported, ...]
    word_for_word: str = ""
    """The agent whose proposal the answer is, as it stands; empty where it was written anew."""
    is_cut: bool = False
    """Whether only the beginnings of long texts were compared: then others may say a sentence too."""

    def words(self, sentence: Supported) -> str:
        """Return in two or three words who says a sentence; empty where nobody can tell.

        >>> support = Support(("alpha", "beta"), ())
        >>> [support.words(Supported("", 0, 0, by)) for by in ((0, 1), (1,), (), None)]
        ['2 of 2', 'only beta', 'no proposal', '']
        """
        if sentence.by is None:
            return ""
        if not sentence.by:
            return "no proposal"
        if len(sentence.by) == 1:
            return f"only {self.agents[sentence.by[0]]}"
        return f"{len(sentence.by)} of {len(self.agents)}"

    def summary(self) -> str:
        """Return in a line how many sentences how many proposals say, and whose answer it is."""
        n = len(self.agents)
        n_by = Counter(len(sentence.by) for sentence in self.sentences if sentence.by is not None)
        n_some = sum(number for by, number in n_by.items() if 1 < by < n)
        counted = [
            f"{number} {where}"
            for number, where in (
                (n_by[n], f"in all {n} proposals" if n > 2 else "in both proposals"),
                (n_some, "in several"),
                (n_by[1], "in only one"),
                (n_by[0], "in none"),
            )
            if number
        ]
        said = f"{count(n_by.total(), 'sentence')}: {', '.join(counted)}"
        if self.word_for_word:
            said = f"the answer of {self.word_for_word}, word for word; {said}"
        return f"{said} (of long texts only the beginnings were compared)" if self.is_cut else said

    def apart(self) -> list[Supported]:
        """Return the sentences that not all proposals say, those that the fewest say first."""
        known = [sentence for sentence in self.sentences if sentence.by is not None]
        return sorted((one for one in known if len(one.by or ()) < len(self.agents)), key=lambda one: len(one.by or ()))


@dataclass(frozen=True, slots=True)
class _Place:
    """A sentence by what it is compared by."""

    terms: frozenset[str]
    numbers: frozenset[str]
    negated: bool
    """Whether it says "not"."""
    course: int
    """1 where something rises, -1 where it falls, 0 where neither is said, or both."""


class Source:
    """A proposal, ready to be asked whether it says a sentence; ``code`` is its language.

    >>> source = Source("Churn rose by 12 % in the north. Support was not slow.", "en")
    >>> source.says("In the north churn rose 12 %."), source.says("In the north churn rose 13 %.")
    (True, False)
    """

    def __init__(self, text: str, code: str) -> None:
        self._code = code
        single = [_place(unit.text, code) for unit in split(text) if unit.kind != "heading"]
        self._places: list[tuple[_Place, ...]] = [*((one,) for one in single), *pairwise(single)]
        self._where: defaultdict[str, list[int]] = defaultdict(list)
        for at, places in enumerate(self._places):
            for term in frozenset().union(*(place.terms for place in places)):
                if len(self._where[term]) < _MOST_PLACES:
                    self._where[term].append(at)

    def says(self, sentence: str) -> bool:
        """Return whether a sentence, or two neighbours, say nearly the same: its words, its numbers, its "not"."""
        return self.holds(_place(sentence, self._code))

    def holds(self, asked: _Place) -> bool:
        """Return whether one of its places says what is asked."""
        n = len(asked.terms)
        enough = max(math.ceil(SHARE * n - 1e-9), min(n, _FEWEST))
        # Who has enough of its words has one of any that leave too few besides: the rarest are looked up.
        found = sorted((self._where.get(term, ()) for term in asked.terms), key=len)
        looked_at = {at for places in found[: n - enough + 1] for at in places}
        return any(_say(self._places[at], asked, enough) for at in looked_at)


def _say(places: tuple[_Place, ...], asked: _Place, enough: int) -> bool:
    """Return whether a sentence, or two neighbours, have enough of what is asked, and nothing against it."""
    found = [asked.terms & place.terms for place in places]
    if len(places) > 1 and (len(asked.terms) < _FEWEST or not all(found)):
        return False  # a sentence beside it that has no part in it
    return (
        len(found[0].union(*found[1:])) >= enough
        and asked.numbers.issubset(places[0].numbers.union(*(place.numbers for place in places[1:])))
        # Of two neighbours it could be either that is denied: both have to be, or none.
        and all(place.negated is asked.negated for place in places)
        and sum(place.course for place in places) * asked.course >= 0
    )


def _place(text: str, code: str) -> _Place:
    found = frozenset(terms(text, code)) - {"not"}
    negated = any(not mark[0].isdigit() for mark in marks(text))
    low = text.lower()
    course = (_UP.search(low) is not None) - (_DOWN.search(low) is not None)
    return _Place(found, _numbers(low), negated, course)


def support_of(result: Result) -> Support | None:
    """Return where the sentences of a result's answer come from; ``None`` without two proposals, or without prose.

    Six proposals of 2 kB and an answer of as much take about 11 ms, thirty of 100 kB and one of as much 0.2 s, since
    of so long ones the beginnings are compared.
    """
    from moa_nb.pipeline.agreement import proposals

    if not any(len(layer.calls) > 1 for layer in result.layers if not layer.aside):
        return None  # tiers, one after the other: nothing was put together
    calls = [call for call in proposals(result) if call.ok and call.text.strip()]
    if len(calls) < 2 or not result.text.strip() or isinstance(result.value, Mapping):
        return None
    said_in = passages(result.text[:_LONGEST_ANSWER])
    if not said_in:
        return None
    code = language(result.text)
    each = _LONGEST_SOURCES // len(calls)
    is_cut = any(len(call.text) > each for call in calls)
    sources = [Source(call.text[:each], code) for call in calls]
    sentences = []
    known: dict[str, tuple[int, ...] | None] = {}
    for passage, (said, is_item) in enumerate(said_in):
        for unit in split(said):
            if _is_title(unit.text, said, is_item=is_item):
                continue
            if unit.text not in known:
                known[unit.text] = _said_by(unit.text, sources, code, is_cut=is_cut)
            sentences.append(Supported(unit.text, passage, unit.end, known[unit.text]))
    if not any(sentence.by is not None for sentence in sentences):
        return None
    same = next((call.agent for call in calls if call.text.strip() == result.text.strip()), "")
    is_cut = is_cut or len(result.text) > _LONGEST_ANSWER
    return Support(tuple(call.agent for call in calls), tuple(sentences), same, is_cut)


def _said_by(sentence: str, sources: Sequence[Source], code: str, *, is_cut: bool) -> tuple[int, ...] | None:
    """Return the positions of the sources that say a sentence; ``None`` where missing it everywhere means nothing."""
    asked = _place(sentence, code)
    by = tuple(at for at, source in enumerate(sources) if source.holds(asked)) if asked.terms else ()
    return by if by or (len(asked.terms) >= _FEWEST and not is_cut) else None


def _is_title(sentence: str, passage: str, *, is_item: bool) -> bool:
    """Return whether a sentence announces what follows and claims nothing."""
    if sentence.rstrip("*_ ").endswith((":", "：")):
        return True
    return not is_item and sentence == passage and not is_ended(sentence) and len(sentence.split()) <= _TITLE_WORDS


def _numbers(text: str) -> frozenset[str]:
    """Return the numbers of ``text``, in small letters, as they compare: 1,000 is 1000, two is 2."""
    written = (_WRITTEN[word] for word in _WORD.findall(text) if word in _WRITTEN)
    return frozenset([*map(_plain_number, _NUMBER.findall(text)), *written])


def _plain_number(number: str) -> str:
    number = re.sub(r",(?=\d{3}(?!\d))", "", number)
    return number.rstrip("0").rstrip(".") if "." in number else number
