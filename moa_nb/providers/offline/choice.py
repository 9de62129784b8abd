"""From scores to an answer: the best sentences that fit, none said twice, in reading order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from moa_nb.providers.offline.length import Length, suitable
from moa_nb.providers.offline.sentences import Sentence
from moa_nb.providers.offline.words import is_near_duplicate
from moa_nb.tokens import count_tokens

__all__ = ["choose", "cut", "written"]

_UNSPACED_END = re.compile(r"[。！？｡」』）】]$")
_UNSPACED_START = re.compile(r"[「『（【《“]?[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[「『（【《]")
_SENTENCE_END = re.compile(r"[.!?…。！？｡।॥។៕။؟۔][\"'”’»)\]）」』】*_`]*$")
_BULLETS = "-*+•‣◦▪▫●○■□◆–—·⁃"


def choose(
    sentences: Sequence[Sentence],
    bags: Sequence[Mapping[str, int]],
    marks: Sequence[frozenset[str]],
    points: Sequence[float],
    length: Length,
    *,
    n_suitable: int | None = None,
    max_tokens: int | None = None,
    repeats_from: float = 0.75,
) -> list[int]:
    """Return the positions of the best sentences that fit ``length``, in reading order; one at least.

    A sentence that says nearly the same as a better one (``is_near_duplicate``, by ``repeats_from``) is passed over. ``n_suitable`` is how many are
    taken where the length is open; the text's own measure without it. Where not even the shortest
    sentence fits, the best one comes back alone, to be cut.
    """
    best_first = sorted(range(len(sentences)), key=lambda at: (-points[at], at))
    if length.sentences is not None:
        wanted = length.sentences
    elif length.is_open:
        wanted = n_suitable or suitable(len(sentences), length.factor)
    else:
        wanted = len(sentences)
    bounds = _bounds(length, max_tokens)
    used = [0] * len(bounds)
    chosen: list[int] = []
    for at in best_first:
        if len(chosen) >= wanted:
            break
        sizes = [measure(sentences[at].text) for _, measure in bounds]
        if any(have + size > limit + 1 for have, size, (limit, _) in zip(used, sizes, bounds, strict=True)):
            continue
        if any(is_near_duplicate(bags[at], bags[other], marks[at], marks[other], repeats_from) for other in chosen):
            continue
        # What is written between the sentences takes room too.
        if bounds and not _fits(written([sentences[one] for one in sorted([*chosen, at])], length), bounds):
            continue
        chosen.append(at)
        used = [have + size for have, size in zip(used, sizes, strict=True)]
    return sorted(chosen) or best_first[:1]


def _bounds(length: Length, max_tokens: int | None) -> list[tuple[int, Callable[[str], int]]]:
    return [
        (limit, measure)
        for limit, measure in ((length.words, _n_words), (length.characters, len), (max_tokens, count_tokens))
        if limit is not None
    ]


def _fits(text: str, bounds: Sequence[tuple[int, Callable[[str], int]]]) -> bool:
    return all(measure(text) <= limit for limit, measure in bounds)


def _n_words(text: str) -> int:
    return len(text.split())


def cut(text: str, length: Length, max_tokens: int | None = None) -> tuple[str, bool]:
    """Return the most of ``text`` from its beginning that keeps to the bounds, and whether it was cut.

    >>> cut("one two three", Length(words=2))
    ('one two', True)
    """
    bounds = _bounds(length, max_tokens)
    if _fits(text, bounds):
        return text, False
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(text[:middle].rstrip(), bounds) else (low, middle)
    part = text[: max(1, low)]
    if not text[len(part) : len(part) + 1].isspace():
        # Not in the middle of a word, where the words are known.
        gap = max((match.start() for match in re.finditer(r"\s", part)), default=0)
        part = part[:gap] if gap > len(part) // 2 else part
    return part.rstrip() or text[:1], True


def written(chosen: Sequence[Sentence], length: Length) -> str:
    """Return the sentences as one text: prose flows, list items and table rows keep their lines.

    Items stand in a list where they are all there is, and where ``length`` asks for bullet points. Where
    it asks for sentences, items that are some flow as prose does, without their markers, and so do items
    among prose. Inside a sentence nothing changes but its line breaks, which become spaces.
    """
    if length.is_list:
        return "\n".join(f"- {_flat(sentence)}" for sentence in chosen)
    flows = any(sentence.kind == "prose" for sentence in chosen) or (
        length.sentences is not None and all(_SENTENCE_END.search(sentence.text) for sentence in chosen)
    )
    parts: list[str] = []
    before: Sentence | None = None
    for sentence in chosen:
        text = _flat(sentence)
        is_same_block = before is not None and before.kind == sentence.kind and before.block == sentence.block
        if sentence.kind == "row" and sentence.lead_in and not is_same_block:
            text = f"{sentence.lead_in}\n{text}"
        elif sentence.kind == "item" and len(chosen) > 1 and not flows and not is_same_block:
            text = sentence.lead_in + text
        if before is not None:
            parts.append(_gap(before, sentence, parts[-1], flows=flows))
        parts.append(text)
        before = sentence
    return "".join(parts)


def _flat(sentence: Sentence) -> str:
    return sentence.text if sentence.kind in {"row", "code"} else " ".join(sentence.text.split())


def _gap(before: Sentence, after: Sentence, written_last: str, *, flows: bool) -> str:
    kinds = {before.kind, after.kind}
    if "row" in kinds and (before.kind != after.kind or before.block != after.block):
        return "\n\n"
    if not kinds <= ({"prose", "item"} if flows else {"prose"}):
        # The rest of an item of several sentences follows on its line.
        is_same_item = kinds == {"item"} and before.block == after.block
        return " " if is_same_item else "\n"
    if not _SENTENCE_END.search(written_last):
        return "\n"
    return "" if _UNSPACED_END.search(written_last) and _UNSPACED_START.match(after.text) else " "
