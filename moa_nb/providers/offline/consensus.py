"""What most proposals chose, whether they are extracts or were written freely."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moa_nb.providers.offline.choice import choose, written
from moa_nb.providers.offline.length import Length
from moa_nb.providers.offline.rank import RANKERS, Reading, fused, scores
from moa_nb.providers.offline.sentences import Sentence, split
from moa_nb.providers.offline.words import cosine, inverse_frequencies, language, marks, terms

__all__ = ["agreement", "consensus"]

_RANK = 0.9
"""What the best-ranked sentence has over the worst, in votes: less than one, so it decides between equals."""


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


@dataclass(slots=True)
class _Ballot:
    """The candidates, each once, and which of them each proposal holds."""

    candidates: list[_Candidate] = field(default_factory=list)
    held: list[list[int]] = field(default_factory=list)
    """Positions in ``candidates``: a list a proposal."""


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
    texts = [text for text in proposals if text.strip()]
    if not texts and reading is not None:
        texts = [_proposal(name, reading, length, focus) for name in RANKERS]
    ballot = _ballot(texts, reading, focus)
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
    )
    return [candidates[at].sentence for at in sorted(chosen, key=lambda at: (candidates[at].place, at))]


def agreement(reading: Reading, references: Sequence[str]) -> list[float]:
    """Return for each sentence of the material the share of ``references`` that say it, each in [0, 1]."""
    total = [0.0] * len(reading.sentences)
    n_references = 0
    for text in references:
        ballot = _ballot([text], reading, ())
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


def _proposal(name: str, reading: Reading, length: Length, focus: Sequence[float]) -> str:
    points = scores(name, reading)
    if focus and name != "lead":
        points = tuple(point + near for point, near in zip(points, focus, strict=True))
    chosen = choose(reading.sentences, reading.bags, reading.marks, points, length)
    return written([reading.sentences[at] for at in chosen])


def _likeness(candidates: Sequence[_Candidate], one: int, other: int, rarity: Mapping[str, float]) -> float:
    # Squared: many sentences that share a word or two are not one that says the same.
    return 1.0 if one == other else cosine(candidates[one].bag, candidates[other].bag, rarity) ** 2


def _ballot(texts: Sequence[str], reading: Reading | None, focus: Sequence[float]) -> _Ballot:
    code = reading.language if reading is not None else language("\n".join(texts))
    ranks = fused(reading) if reading is not None else ()
    if focus:
        ranks = tuple(rank + near for rank, near in zip(ranks, focus, strict=True))
        ranks = tuple(rank / max(max(ranks), 1e-9) for rank in ranks)
    known = (
        {} if reading is None else {_key(unit.text): at for at, unit in reversed(list(enumerate(reading.sentences)))}
    )
    ballot = _Ballot()
    numbers: dict[str, int] = {}
    for text in texts:
        units = split(text)
        plain = [unit for unit in units if unit.kind in {"prose", "item", "row"} or _key(unit.text) in known] or units
        held: list[int] = []
        for order, unit in enumerate(plain):
            for found in _occurring(unit, known):
                key = _key(unit.text) if found is None else _key(reading.sentences[found].text) if reading else ""
                if key not in numbers:
                    numbers[key] = len(ballot.candidates)
                    if reading is not None and found is not None:
                        sentence = reading.sentences[found]
                        candidate = _Candidate(sentence, reading.bags[found], reading.marks[found], found, ranks[found])
                    else:
                        candidate = _free(unit, code, order / len(plain), reading, ranks)
                    ballot.candidates.append(candidate)
                held.append(numbers[key])
        ballot.held.append(list(dict.fromkeys(held)))
    ballot.held = [held for held in ballot.held if held]
    return ballot


def _key(text: str) -> str:
    return " ".join(text.split())


def _occurring(unit: Sentence, known: Mapping[str, int]) -> list[int | None]:
    """Return the positions of the material's sentences that ``unit`` holds, ``[None]`` for one freely written."""
    key = _key(unit.text)
    if key in known:
        return [known[key]]
    # Extracts written in a row may be split otherwise than the material was.
    inside = sorted(at for text, at in known.items() if len(text) >= 12 and text in key)
    covered = sum(len(text) for text, at in known.items() if at in set(inside))
    return [*inside] if covered * 10 >= len(key) * 9 else [None]


def _free(unit: Sentence, code: str, place: float, reading: Reading | None, ranks: Sequence[float]) -> _Candidate:
    bag = Counter(terms(unit.text, code))
    if reading is None:
        return _Candidate(unit, bag, marks(unit.text), place, 0.0)
    near, at = max(((cosine(bag, reading.bags[at], reading.rarity), -at) for at in reading.compared), default=(0.0, 0))
    if not near:
        return _Candidate(unit, bag, marks(unit.text), place * len(reading.sentences), 0.0)
    return _Candidate(unit, bag, marks(unit.text), -at, near * ranks[-at])
