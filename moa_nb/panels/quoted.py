"""How many answers an agent reads, by its prompt: strategies need not tell, and a record does not."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moa_nb.chat import Message

__all__ = ["n_read"]


def n_read(before: Sequence[tuple[str, ...]], prompt: tuple[Message, ...] = ()) -> int:
    r"""Return how many answers an agent reads: those that its prompt quotes.

    A moderator may have let a few of a layer through, and a window holds some of many. Where the prompt quotes
    none as it stands, it is taken to tell of all of the latest layer.

    >>> from moa_nb.chat import Message
    >>> n_read([("It rose.", "It fell.", "Nobody knows.")], (Message("user", "1. It fell.\n2. It rose."),))
    2

    Args:
        before: the answers of the earlier layers, layer by layer.
        prompt: what the agent saw.
    """
    if not before:
        return 0
    return (_n_quoted(tuple(before), prompt) if prompt else 0) or len(before[-1])


_NUMBERED = re.compile(r"(?:\d{1,3}\. )?")
_BEGINNING, _FIRST = 200, 40
"""Characters of an answer by which it is known in a prompt, and of those by which it is looked up."""


@functools.lru_cache(maxsize=8)  # a running panel is drawn ten times a second
def _n_quoted(before: tuple[tuple[str, ...], ...], prompt: tuple[Message, ...]) -> int:
    """Return how many answers begin at the beginning of a line; equal ones as often as they stand there."""
    beginnings = Counter(text.strip()[:_BEGINNING] for layer in before for text in layer if text.strip())
    known: defaultdict[str, list[str]] = defaultdict(list)
    for beginning in beginnings:
        known[beginning.partition("\n")[0][:_FIRST]].append(beginning)
    found: Counter[str] = Counter()
    for turn in prompt:
        said, at = turn.content, 0
        while at >= 0:
            start = _NUMBERED.match(said, at).end()  # type: ignore[union-attr]  # it matches nothing, too
            end = said.find("\n", start)
            line = said[start : min(start + _FIRST, end if end >= 0 else len(said))]
            found.update(one for one in known.get(line, ()) if said.startswith(one, start))
            at = end + 1 if end >= 0 else -1
    return sum(min(number, found[beginning]) for beginning, number in beginnings.items())
