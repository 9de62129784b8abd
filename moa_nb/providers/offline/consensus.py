"""What most proposals chose, whether they are extracts or were written freely."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moa_nb.providers.offline.choice import choose
from moa_nb.providers.offline.length import Length
from moa_nb.providers.offline.rank import RANKERS, Reading, fused, scores, unwrapped
from moa_nb.providers.offline.sentences import Sentence, split
from moa_nb.providers.offline.words import cosine, inverse_frequencies, language, marks, terms

__all__ = ["agreement", "consensus"]

_RANK = 0.9
"""What the best-ranked sentence has over the worst, in votes: less than one, so it decides between equals."""

_READABLE = frozenset({"prose", "item", "row"})

_PARAPHRASE = 0.5
"""From which cosine on sentences that were written, not chosen, say the same: authors choose their own words."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A sentence that some proposal holds."""

    sentence: Sentence
    bag: Mapping[str, int]
    marks: frozenset[str]
    place: float
    """Where it belongs in reading order: its position in the material, or that of what it is most like."""
    rank: float
    """What the algorithms give it, or the sentence that it is most like, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class _Said:
    """A sentence as a proposal holds it."""

    sentence: Sentence
    at: int | None
    """Its position in the material; ``None`` where the proposal's author wrote it."""
    place: float = 0.0
    """How far into the proposal it stands, in [0, 1)."""


@dataclass(slots=True)
class _Ballot:
    """The candidates, each once, and which of them each proposal holds."""

    candidates: list[_Candidate] = field(default_factory=list)
    held: list[list[int]] = field(default_factory=list)
    """Positions in ``candidates``: a list a proposal."""
    is_free: bool = False
    """Whether a candidate was written and not chosen."""


def consensus(
    proposals: Sequence[str],
    reading: Reading | None,
    length: Length,
    *,
    focus: Sequence[float] = (),
    max_tokens: int | None = None,
) -> list[Sentence]:
    """Return the sentences that most of ``proposals`` hold, in reading order.

    Each sentence of a proposal gets from every proposal a vote as large as its likeness to what that
    one says, 1 where it holds the very sentence. Votes of extracts tie often, and ties would fall to
    the lead: the sentence's reciprocal ranks in the four algorithms over the material are added, which
    weigh less than a vote. Without proposals the four algorithms make them.

    ``reading`` is ``None`` where no material is known: then the proposals are all there is, and their
    own order is the reading order. ``focus`` says how near each sentence of the material is to what was
    asked. Where the length is open, it is the median of the proposals'.
    """
    said = [_said(text, reading) for text in proposals if text.strip()]
    if not said and reading is not None:
        said = [_own(name, reading, length, focus) for name in RANKERS]
    ballot = _ballot(said, reading, focus)
    candidates = ballot.candidates
    if not candidates:
        return []
    rarity = inverse_frequencies([candidate.bag for candidate in candidates]) if reading is None else reading.rarity
    points = [
        sum(max((_likeness(candidates, one, other, rarity) for other in held), default=0.0) for held in ballot.held)
        + _RANK * candidate.rank
        for one, candidate in enumerate(candidates)
    ]
    chosen = choose(
        [candidate.sentence for candidate in candidates],
        [candidate.bag for candidate in candidates],
        [candidate.marks for candidate in candidates],
        [round(value, 9) for value in points],
        length,
        n_suitable=max(1, round(statistics.median(len(held) for held in ballot.held))),
        max_tokens=max_tokens,
        repeats_from=_PARAPHRASE if ballot.is_free else 0.75,
    )
    return [candidates[at].sentence for at in sorted(chosen, key=lambda at: (candidates[at].place, at))]


def agreement(reading: Reading, references: Sequence[str]) -> list[float]:
    """Return for each sentence of the material the share of ``references`` that say it, each in [0, 1]."""
    total = [0.0] * len(reading.sentences)
    n_references = 0
    for text in references:
        ballot = _ballot([_said(text, reading)], reading, ())
        if not ballot.candidates:
            continue
        n_references += 1
        for at in reading.compared:
            total[at] += max(
                1.0
                if candidate.sentence == reading.sentences[at]
                else cosine(candidate.bag, reading.bags[at], reading.rarity) ** 2
                for candidate in ballot.candidates
            )
    return [value / max(1, n_references) for value in total]


def _own(name: str, reading: Reading, length: Length, focus: Sequence[float]) -> list[_Said]:
    points = scores(name, reading)
    if focus and name != "lead":
        points = tuple(point + near for point, near in zip(points, focus, strict=True))
    chosen = choose(reading.sentences, reading.bags, reading.marks, points, length)
    return [_Said(reading.sentences[at], at) for at in chosen]


def _likeness(candidates: Sequence[_Candidate], one: int, other: int, rarity: Mapping[str, float]) -> float:
    # Squared: many sentences that share a word or two are not one that says the same.
    return 1.0 if one == other else cosine(candidates[one].bag, candidates[other].bag, rarity) ** 2


def _said(text: str, reading: Reading | None) -> list[_Said]:
    """Return the sentences of a proposal, those that are the material's to the letter found in it."""
    known = {} if reading is None else reading.known
    lines = text.splitlines()
    said = [_of_material(reading, known[key]) for line in lines if reading and (key := unwrapped(line)) in known]
    # What is a line of its own need not be split again, which might go otherwise out of its context.
    units = split("\n".join(line for line in lines if unwrapped(line) not in known))
    plain = [unit for unit in units if unit.kind in _READABLE or unwrapped(unit.text) in known]
    if not plain and not said:
        plain = units
    for order, unit in enumerate(plain):
        inside = _occurring(unit, known)
        if inside and reading is not None:
            said.extend(_of_material(reading, at) for at in inside)
        else:
            said.append(_Said(unit, None, order / len(plain)))
    return said


def _of_material(reading: Reading, at: int) -> _Said:
    return _Said(reading.sentences[at], at)


def _occurring(unit: Sentence, known: Mapping[str, int]) -> list[int]:
    """Return the positions of the material's sentences that ``unit`` is made of, ``[]`` where it was freely written."""
    key = unwrapped(unit.text)
    if key in known:
        return [known[key]]
    # Extracts written in a row may be split otherwise than the material was: into more, or into less.
    inside = {text: at for text, at in known.items() if len(text) >= 6 and text in key}
    if sum(map(len, inside)) * 10 >= len(key) * 9:
        return sorted(inside.values())
    return [at for text, at in known.items() if len(key) >= 20 and key in text][:1]


def _ballot(proposals: Sequence[Sequence[_Said]], reading: Reading | None, focus: Sequence[float]) -> _Ballot:
    everything = "\n".join(one.sentence.text for said in proposals for one in said)
    code = reading.language if reading is not None else language(everything)
    ranks: Sequence[float] = fused(reading) if reading is not None else ()
    if focus:
        ranks = [rank + near for rank, near in zip(ranks, focus, strict=True)]
        top = max(ranks) or 1.0
        ranks = [rank / top for rank in ranks]
    ballot = _Ballot()
    numbers: dict[str, int] = {}
    for said in proposals:
        held: list[int] = []
        for one in said:
            key = unwrapped(one.sentence.text)
            if key not in numbers:
                numbers[key] = len(ballot.candidates)
                if reading is not None and one.at is not None:
                    bag, its_marks = reading.bags[one.at], reading.marks[one.at]
                    candidate = _Candidate(one.sentence, bag, its_marks, one.at, ranks[one.at])
                else:
                    ballot.is_free = True
                    candidate = _free(one.sentence, code, one.place, reading, ranks)
                ballot.candidates.append(candidate)
            held.append(numbers[key])
        if held:
            ballot.held.append(list(dict.fromkeys(held)))
    return ballot


def _free(unit: Sentence, code: str, place: float, reading: Reading | None, ranks: Sequence[float]) -> _Candidate:
    bag = Counter(terms(unit.text, code))
    if reading is None:
        return _Candidate(unit, bag, marks(unit.text), place, 0.0)
    near, at = max(((cosine(bag, reading.bags[at], reading.rarity), -at) for at in reading.compared), default=(0.0, 0))
    if not near:
        return _Candidate(unit, bag, marks(unit.text), place * len(reading.sentences), 0.0)
    return _Candidate(unit, bag, marks(unit.text), -at, near * ranks[-at])
