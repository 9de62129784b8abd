"""Every way that a strategy can go: its decisions forced, one path after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moa_nb.pipeline.candidate import Candidate

__all__ = ["Paths"]

_MOST = 256
"""Paths that are gone; a strategy with more has a price of 'at least'."""

_SAID = frozenset({"text", "value", "dialogue"})


class Paths:
    """Forces the decisions of a strategy so that each way is gone once, depth first.

    >>> paths, ways = Paths(), []
    >>> while paths.next():
    ...     ways.append([paths.take(2), paths.take(2)])
    >>> ways
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """

    def __init__(self) -> None:
        self._ways: list[tuple[int, int]] = []
        """Which way each decision goes, and how many there are."""
        self._place = 0
        self._gone = 0
        self._has_looked = False
        self.at_least = False
        """Whether there may be ways that were not gone."""

    def next(self) -> bool:
        """Return whether there is another path; it begins."""
        if self._gone:
            while self._ways and self._ways[-1][0] + 1 >= self._ways[-1][1]:
                self._ways.pop()
            if not self._ways:
                return False
            if self._gone >= _MOST:
                self.at_least = True
                return False
            way, n_ways = self._ways[-1]
            self._ways[-1] = (way + 1, n_ways)
        self._gone += 1
        self.again()
        return True

    def again(self) -> None:
        """Return nothing; the same path begins once more."""
        self._place, self._has_looked = 0, False

    def take(self, n_ways: int) -> int:
        """Return which way the next decision goes."""
        self._has_looked = False
        if self._place == len(self._ways):
            self._ways.append((0, n_ways))
        way = self._ways[self._place][0]
        self._place += 1
        return way

    def began(self) -> None:
        """A layer begins: what was looked at since the last decision may have led here, unseen."""
        if self._has_looked:
            self.at_least = True

    def candidate(self, *said: Any) -> Candidate:
        """Return an answer that tells when a strategy looks at what it says."""
        self._has_looked = False  # since the layer began, only its prompts have been written
        found = _Watched(*said)
        object.__setattr__(found, "_look", self._look)
        return found

    def _look(self) -> None:
        self._has_looked = True


class _Watched(Candidate):
    _look: Callable[[], None] | None = None

    def __getattribute__(self, name: str) -> Any:
        if name in _SAID:
            look = super().__getattribute__("_look")
            if look is not None:
                look()
        return super().__getattribute__(name)
