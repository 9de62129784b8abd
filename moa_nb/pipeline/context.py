"""What fits into a model's context: how much room the references have, and how they are shortened to it.

The rule is the same whether they are trimmed here or summarized by a call of their own. Room is given as
water is filled into glasses: a reference that is shorter than its share stays whole, and what it does not
need goes to the longer ones, which get equally much. Of a trimmed reference the beginning and the end stay,
two parts to one, since an answer says at its beginning what it is about and at its end what it comes to; they
are cut at the end of a paragraph, line, sentence or word if there is one near, and ``MARK`` stands between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from moa_nb.errors import RowError
from moa_nb.tokens import most_tokens

__all__ = ["MARK", "capped", "fits", "in_words", "least", "no_room", "room_for_references", "shares", "trimmed"]

MARK = "\n\n[… too long: left out here …]\n\n"
"""What stands in place of the middle of a trimmed reference."""

_HEAD = 2 / 3
"""The part of a trimmed reference that is its beginning."""

_NEAR = 1 / 4
"""How much of a piece may be given up, to end it where something ends."""

_ENDS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"[.!?…][\"'”’)\]]*\s|[。！？]"), re.compile(r"\s"))
"""Ends of paragraphs, lines, sentences and words: the first kind that is near is taken."""

_ROUNDS = 8
"""Of the search for the longest beginning and end that fit."""

_ENOUGH, _AIM = 0.97, 0.985
"""The part of a share that is good enough, and the part that is aimed at: the ends of sentences make it jump."""

_CHARACTERS = 4
"""Of a token, to begin that search with."""

_WORDS = 0.6
"""Words that a model is asked for per token that it may write: English has 0.75, and models write more than asked."""


def fits(texts: Iterable[str], room: int) -> bool:
    """Return whether ``texts`` are sure to fit into ``room`` tokens, without counting any.

    ``False`` means: they have to be counted.

    >>> fits(["A short text."], 100), fits(["A short text."], 5)
    (True, False)
    """
    return sum(map(most_tokens, texts)) <= room


def room_for_references(context: int, *, prompt: int, answer: int, error: float = 0.0) -> int:
    """Return the tokens that references may have; below 0 the prompt does not fit even without them.

    Args:
        context: the tokens of the model's context.
        prompt: the prompt's tokens without its references.
        answer: the most tokens that the answer may have.
        error: what a true count may be above its estimate, as a share of it.

    >>> room_for_references(8192, prompt=700, answer=1000, error=0.05)
    6149
    """
    return int((context - answer) / (1 + error)) - prompt


def shares(texts: Sequence[str], room: int, count: Callable[[str], int]) -> list[int | None]:
    """Return how many tokens each text may keep; ``None`` for one that stays whole.

    Short ones stay whole, the long ones share what is left equally. ``count`` is asked only if the texts
    are not sure to fit.

    >>> shares(["aa", "bbbbbbbb", "cccccc"], 10, len)
    [None, 4, 4]
    """
    if fits(texts, room):
        return [None] * len(texts)
    sizes = [count(text) for text in texts]
    level = _level(sizes, room)
    return [level if size > level else None for size in sizes]


def _level(sizes: list[int], room: int) -> int:
    """Return what no size may pass, so that all of them together fill ``room`` at the most."""
    left = max(room, 0)
    for n_filled, size in enumerate(sorted(sizes)):
        n_open = len(sizes) - n_filled
        if size * n_open > left:
            return left // n_open
        left -= size
    return max(sizes, default=0)


def trimmed(texts: Sequence[str], room: int, count: Callable[[str], int]) -> list[str]:
    """Return ``texts`` in their order, the long ones shortened so that all together count ``room`` at the most.

    What was shortened holds ``MARK``; the others are the same objects. Trimming what was trimmed changes
    nothing.

    Args:
        texts: the references.
        room: the tokens that they may have.
        count: how many tokens a text has.

    Raises:
        RowError: not even the marks of what was left out fit.

    >>> trimmed(["Short.", "One. " * 40], 100, len)[0]
    'Short.'
    """
    kept = shares(texts, room, count)
    shorter = [
        text if share is None else _shortened(text, share, count) for text, share in zip(texts, kept, strict=True)
    ]
    if any(text is None for text in shorter):
        raise no_room(len(texts))
    return [text for text in shorter if text is not None]


def capped(text: str, max_chars: int | None) -> str:
    """Return ``text``, shortened as references are to ``max_chars`` characters; ``None`` caps nothing.

    >>> len(capped("One. " * 1000, 200)) <= 200
    True
    """
    if max_chars is None or len(text) <= max_chars:
        return text
    return _shortened(text, max_chars, len) or text[:max_chars]


def least(n: int, count: Callable[[str], int]) -> int:
    """Return the tokens with which ``n`` references can always be trimmed to fit; a check before the first call."""
    return n * count(MARK)


def in_words(n_tokens: int) -> int:
    """Return how many words to ask for, of a summary that may have ``n_tokens``.

    >>> in_words(1000)
    600
    """
    return max(1, int(n_tokens * _WORDS))


def no_room(n: int = 0, *, model: str = "", context: int | None = None, prompt: int = 0, answer: int = 0) -> RowError:
    """Return the error of an input that cannot be answered within a context; nothing is sent.

    Args:
        n: how many references have no room; 0: the prompt alone has none.
        model: ``provider:model``.
        context: its context in tokens, where the line is to say it.
        prompt: the prompt's tokens without its references.
        answer: the most tokens that the answer may have.

    >>> print(no_room(model="lab:alpha", context=8192, prompt=8000, answer=1024))
    lab:alpha has a context of 8,192 tokens, too small for about 8,000 of the prompt and max_tokens = 1,024: \
shorten the input, lower max_tokens or take a model with a larger context
    """
    who = f"{model or 'the model'} has " + (f"a context of {context:,} tokens, " if context else "a context ")
    what = f"about {prompt:,} of the prompt" if prompt else "the prompt"
    what += f" and max_tokens = {answer:,}" if answer else ""
    what += f" with {n} references" if n else ""
    fewer = "ask fewer proposers, " if n else ""
    return RowError(
        f"{who}too small for {what}: {fewer}shorten the input, lower max_tokens or take a model with a larger context"
    )


def _shortened(text: str, share: int, count: Callable[[str], int]) -> str | None:
    """Return the beginning and the end of ``text`` that count ``share`` with the mark; ``None`` if the mark does not."""
    n_mark = count(MARK)
    if n_mark > share:
        return None
    best = MARK
    # ``low`` characters fit, ``high`` do not.
    low, high = 0, len(text)
    guess = (share - n_mark) * _CHARACTERS
    for _ in range(_ROUNDS):
        if not low < guess < high:
            guess = (low + high) // 2
            if guess == low:
                break
        candidate = _cut(text, guess)
        size = count(candidate)
        if size <= share:
            best, low = candidate, guess
            if size >= share * _ENOUGH:
                break
        else:
            high = guess
        guess = int(guess * _AIM * (share - n_mark) / max(size - n_mark, 1))
    return best


def _cut(text: str, n_characters: int) -> str:
    """Return ``text`` with about ``n_characters`` kept at its beginning and end."""
    n_head = round(n_characters * _HEAD)
    n_tail = n_characters - n_head
    head, tail = text[:n_head], text[len(text) - n_tail :]
    return _ended(head).rstrip() + MARK + _begun(tail).lstrip()


def _ended(head: str) -> str:
    """Return a beginning up to the last thing that ends near its end."""
    first = len(head) - int(len(head) * _NEAR)
    for end in _ENDS:
        places = [match.end() for match in end.finditer(head, first)]
        if places:
            return head[: places[-1]]
    return head


def _begun(tail: str) -> str:
    """Return an end from the first thing that begins near its beginning."""
    last = int(len(tail) * _NEAR)
    for end in _ENDS:
        found = end.search(tail, 0, last)
        if found:
            return tail[found.end() :]
    return tail
