"""How alike texts are, by the words and the neighbours that they share: no model, no call."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise

__all__ = ["medoid", "similarity", "similarity_of_all"]

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")

_Profile = Counter[object]


def similarity(one: str, other: str) -> float:
    """Return how alike two texts are, in [0, 1]: 1 for the same words in the same order, 0 for none in common.

    Sørensen's and Dice's coefficient (1948, 1945) over words and pairs of neighbouring words, without case and
    punctuation; where a script sets no spaces, over characters and their pairs. Symmetric; linear in the texts.

    >>> similarity("Churn rose in May.", "churn rose in May"), similarity("yes", "no")
    (1.0, 0.0)
    >>> similarity("the dog bites the man", "the man bites the dog") > similarity("the dog bites", "a cat sleeps")
    True
    """
    return _likeness(_profile(one), _profile(other))


def medoid(texts: Sequence[str | None]) -> int | None:
    """Return the position of the text that is most like the others, the earliest of several; ``None`` if there is none.

    ``None`` and blank texts are left out. It is what a vote is for free text: the text itself is returned, not a blend.

    >>> medoid(["Sales fell.", "Prices rose in May.", None, "Prices rose in June."])
    1
    """
    profiles = {at: _profile(text) for at, text in enumerate(texts) if text and text.strip()}
    total = dict.fromkeys(profiles, 0.0)
    for one, other in combinations(profiles, 2):
        alike = _likeness(profiles[one], profiles[other])
        total[one] += alike
        total[other] += alike
    # Rounded: sums in another order may differ in the last bit, which must not decide.
    return max(total, key=lambda at: (round(total[at], 9), -at), default=None)


def similarity_of_all(texts: Sequence[str | None]) -> float:
    """Return the mean similarity of all pairs of texts, in [0, 1]; ``None`` and blank ones are like no other.

    One text alone agrees with itself: 1. No text: 0.

    >>> similarity_of_all(["Prices rose.", "prices rose", None])
    0.3333333333333333
    """
    profiles = [_profile(text) if text and text.strip() else None for text in texts]
    if len(profiles) < 2:
        return float(any(profile is not None for profile in profiles))
    pairs = [0.0 if one is None or other is None else _likeness(one, other) for one, other in combinations(profiles, 2)]
    return math.fsum(pairs) / len(pairs)


def _profile(text: str) -> _Profile:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    # A text of signs alone is like the same signs.
    return Counter([*words, *pairwise(words)]) if words else Counter(["".join(text.split())])


def _likeness(one: _Profile, other: _Profile) -> float:
    few, many = sorted((one, other), key=len)
    shared = sum(min(count, many[word]) for word, count in few.items() if word in many)
    return 2 * shared / (one.total() + other.total())
