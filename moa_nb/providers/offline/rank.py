"""Four classic ways of saying how much each sentence of a text tells of the whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from moa_nb.providers.offline.sentences import Sentence, is_ended, label, split
from moa_nb.providers.offline.words import inverse_frequencies, language, marks, terms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[Any]
    Matrix = NDArray[Any]

__all__ = [
    "MOST_SENTENCES",
    "RANKERS",
    "Reading",
    "fused",
    "lead",
    "lexrank",
    "lsa",
    "read",
    "scores",
    "textrank",
    "unwrapped",
]

MOST_SENTENCES = 1000
"""The most sentences that are compared with each other; of a longer text those nearest to its whole are taken."""

_NAMING = 1e-7
"""How fit a title is, or a line that only names ('Present: Ada, Tom'): below the least score of a sentence."""

_MOST_TERMS = 4000
"""The most terms that count in comparisons: the ones that most sentences share."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A text taken apart: its sentences that may be chosen, and what they are compared by."""

    text: str
    language: str
    sentences: tuple[Sentence, ...]
    """The units that may be chosen, in reading order: headings and code only where there is nothing else."""
    bags: tuple[Mapping[str, int], ...]
    """Each sentence's terms with their counts; ``len(bags) == len(sentences)``."""
    marks: tuple[frozenset[str], ...]
    """Each sentence's numbers and negations."""
    rarity: Mapping[str, float]
    """Inverse sentence frequency of each term."""
    compared: tuple[int, ...]
    """Positions of the sentences that are ranked, at most ``MOST_SENTENCES``."""
    weights: tuple[float, ...]
    """How fit each sentence is to stand alone, in (0, 1]: table rows and interjections are less so."""
    known: Mapping[str, int]
    """Position of each sentence by its text, line breaks undone; of equal ones the first."""


@lru_cache(maxsize=32)
def read(text: str) -> Reading:
    r"""Return ``text`` taken apart; remembered, since several agents read the same text.

    >>> [sentence.text for sentence in read("# Review\n\nIt is fast. It is loud.").sentences]
    ['It is fast.', 'It is loud.']
    """
    code = language(text)
    units = split(text)
    for kinds in ({"prose", "item", "row"}, {"heading"}, {"code"}):
        kept = tuple(unit for unit in units if unit.kind in kinds)
        if kept:
            break
    bags = tuple(Counter(terms(unit.text, code)) for unit in kept)
    rarity = inverse_frequencies(bags)
    has_prose = any(unit.kind != "row" for unit in kept)
    prose = [unit for unit in kept if unit.kind == "prose"]
    # Where sentences end with a mark, a short line without one is a title, a date, a signature.
    ends = sum(is_ended(unit.text) for unit in prose) * 2 > len(prose)
    weights = tuple(
        _fitness(unit, bag, code, has_prose=has_prose, ends=ends) for unit, bag in zip(kept, bags, strict=True)
    )
    compared = tuple(range(len(kept)))
    if len(kept) > MOST_SENTENCES:
        whole = Counter[str]()
        for bag in bags:
            whole.update(bag)
        near = [_nearness(bag, whole, rarity) * weight for bag, weight in zip(bags, weights, strict=True)]
        compared = tuple(sorted(sorted(compared, key=lambda at: (-near[at], at))[:MOST_SENTENCES]))
    known = {unwrapped(unit.text): at for at, unit in reversed(list(enumerate(kept)))}
    each_marks = tuple(marks(unit.text) for unit in kept)
    return Reading(text, code, kept, bags, each_marks, rarity, compared, weights, known)


def unwrapped(text: str) -> str:
    """Return ``text`` in one line, with single spaces."""
    return " ".join(text.split())


def _nearness(bag: Mapping[str, int], whole: Mapping[str, int], rarity: Mapping[str, float]) -> float:
    """Return the cosine to the whole text, but for the whole's own length, which is the same for all."""
    weight = {term: count * rarity[term] for term, count in bag.items()}
    length = math.sqrt(sum(value * value for value in weight.values()))
    return sum(value * whole[term] * rarity[term] for term, value in weight.items()) / length if length else 0.0


def _fitness(unit: Sentence, bag: Mapping[str, int], code: str, *, has_prose: bool, ends: bool) -> float:
    weight = 0.6 if unit.kind == "row" and has_prose else 1.0
    if len(bag) < 2 or (len(bag) < 3 and len(unit.text.split()) < 3):
        weight *= 0.5
    if unit.text.endswith((":", "：")):
        # It only announces what follows.
        weight *= 0.5
    if label(unit.text, code) or (ends and unit.kind == "prose" and len(bag) <= 12 and not is_ended(unit.text)):
        weight *= _NAMING
    return weight


def textrank(reading: Reading) -> Vector:
    """Return TextRank's score of each compared sentence (Mihalcea & Tarau 2004).

    The likeness of two sentences is the number of terms that they share over the sum of the logarithms
    of their lengths; the score is PageRank over the weighted graph, damped by 0.85.
    """
    import numpy as np

    present = (_table(reading) > 0).astype(np.float32)
    lengths = np.array([sum(reading.bags[at].values()) for at in reading.compared], dtype=np.float64)
    logs = np.log1p(lengths)
    shared = (present @ present.T).astype(np.float64)
    return _pagerank(shared / np.maximum(logs[:, None] + logs[None, :], 1e-9))


def lexrank(reading: Reading) -> Vector:
    """Return continuous LexRank's score of each compared sentence (Erkan & Radev 2004, §3.3).

    The likeness of two sentences is the cosine of their tf-idf vectors, with the sentences of the text
    itself as the documents; the score is PageRank over the weighted graph, damped by 0.85.
    """
    table = _weighted(reading)
    return _pagerank(table @ table.T)


def lsa(reading: Reading) -> Vector:
    """Return each compared sentence's length in the space of the strongest topics (Steinberger & Ježek 2004).

    The topics are the singular vectors of the tf-idf matrix of terms by sentences whose value is at
    least half of the largest; each counts by its value. Gong & Liu (2001) take one sentence a topic.
    """
    import numpy as np

    table = _weighted(reading, is_normal=False)
    values, vectors = np.linalg.eigh((table @ table.T).astype(np.float64))
    strengths = np.sqrt(np.maximum(values, 0.0))
    strong = strengths >= 0.5 * strengths.max(initial=0.0)
    return np.asarray(np.sqrt(((vectors[:, strong] * strengths[strong]) ** 2).sum(axis=1)))


def lead(reading: Reading) -> Vector:
    """Return a score that falls from the first compared sentence to the last: news put first what matters."""
    import numpy as np

    return 1.0 / (1.0 + np.arange(len(reading.compared)) / max(1, len(reading.compared)))


RANKERS: Mapping[str, Callable[[Reading], Vector]] = {
    "textrank": textrank,
    "lexrank": lexrank,
    "lsa": lsa,
    "lead": lead,
}
"""The algorithms by name, in the order in which they are told of."""


@lru_cache(maxsize=128)
def _scored(name: str, text: str) -> tuple[float, ...]:
    reading = read(text)
    found = [0.0] * len(reading.sentences)
    if not reading.compared:
        return tuple(found)
    values = RANKERS[name](reading)
    top = float(values.max()) or 1.0
    for at, value in zip(reading.compared, values.tolist(), strict=True):
        # Rounded, so that sums in another order on another machine choose the same sentences.
        found[at] = round(max(value / top, 1e-6) * reading.weights[at], 9)
    return tuple(found)


def scores(name: str, reading: Reading) -> tuple[float, ...]:
    """Return what algorithm ``name`` gives each sentence, from 0 (not even compared) to 1.

    >>> scores("lead", read("The battery lasts long. It hums."))[0]
    1.0
    """
    return _scored(name, reading.text)


@lru_cache(maxsize=32)
def _fused(text: str) -> tuple[float, ...]:
    reading = read(text)
    total = [0.0] * len(reading.sentences)
    for name in RANKERS:
        points = scores(name, reading)
        best_first = sorted(range(len(points)), key=lambda at: (-points[at], at))
        for place, at in enumerate(best_first):
            total[at] += 1.0 / (_FUSION + place)
    top = max(total, default=0.0) or 1.0
    return tuple(round(value / top, 9) for value in total)


_FUSION = 5
"""How much the first places count over the next; the 60 of Cormack et al. is for lists of thousands."""


def fused(reading: Reading) -> tuple[float, ...]:
    """Return each sentence's reciprocal rank summed over the algorithms (Cormack et al. 2009), scaled to 1."""
    return _fused(reading.text)


def _table(reading: Reading) -> Matrix:
    """Return the counts of shared terms: a row a compared sentence, a column a term."""
    import numpy as np

    frequency = Counter[str]()
    for at in reading.compared:
        frequency.update(reading.bags[at].keys())
    shared = sorted((term for term, count in frequency.items() if count > 1), key=lambda term: (-frequency[term], term))
    column = {term: number for number, term in enumerate(shared[:_MOST_TERMS])}
    table = np.zeros((len(reading.compared), max(1, len(column))), dtype=np.float32)
    for row, at in enumerate(reading.compared):
        for term, count in reading.bags[at].items():
            number = column.get(term)
            if number is not None:
                table[row, number] = count
    return table


def _weighted(reading: Reading, *, is_normal: bool = True) -> Matrix:
    """Return the tf-idf table; of unit length where asked, the terms that no other sentence has included."""
    import numpy as np

    frequency = Counter[str]()
    for at in reading.compared:
        frequency.update(reading.bags[at].keys())
    shared = sorted((term for term, count in frequency.items() if count > 1), key=lambda term: (-frequency[term], term))
    shared = shared[:_MOST_TERMS]
    weights = np.array([reading.rarity[term] for term in shared] or [0.0], dtype=np.float64)
    table = _table(reading).astype(np.float64) * weights
    if is_normal:
        lengths = np.array(
            [
                sum((count * reading.rarity[term]) ** 2 for term, count in reading.bags[at].items()) ** 0.5
                for at in reading.compared
            ]
        )
        table /= np.maximum(lengths, 1e-9)[:, None]
    return np.asarray(table)


def _pagerank(likeness: Matrix, damping: float = 0.85) -> Vector:
    """Return the stationary weight of each node (Brin & Page 1998); nodes without a neighbour lead everywhere."""
    import numpy as np

    n_nodes = likeness.shape[0]
    links = likeness.astype(np.float64, copy=True)
    np.fill_diagonal(links, 0.0)
    sums = links.sum(axis=1)
    dangling = sums <= 0
    links /= np.where(dangling, 1.0, sums)[:, None]
    weight = np.full(n_nodes, 1.0 / n_nodes)
    for _ in range(100):
        spread = weight @ links + weight[dangling].sum() / n_nodes
        following = (1 - damping) / n_nodes + damping * spread
        if np.abs(following - weight).sum() < 1e-8:
            return np.asarray(following)
        weight = following
    return weight
