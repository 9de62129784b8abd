"""Whether refusals come of too many calls, or would come of any."""

from __future__ import annotations

__all__ = ["Chance"]

_HIGH, _LOW = 0.6, 0.45
"""Shares of the calls in flight at the first refusal: what happens above the one is compared with what does below the other."""

_FEWEST = 24
"""Calls of which a share is made."""

_LEAST, _MOST = 0.02, 0.4
"""A share of refusals below this does no harm, and above it is no chance."""

_OVER = 100
"""Answers in a row after which refusals are over."""

_LATELY = 1 / 64
"""Weight of the latest call in the share that is refused lately."""

_SLOWLY = 1 / 512
"""Weight of the latest call in the share, once it is known."""

_MARGIN = 0.08
"""By which the share that is refused lately may be beyond half as much again as the known one."""


class Chance:
    """The share of calls that a service refuses however few there are.

    Refusals that come of too many calls end when there are few: who takes ``n`` calls of twice as many refuses half of
    them, and none of ``n``. So the share refused after calls were cut is compared with the share before; if it is no
    smaller, it says nothing of how many calls there may be.

    >>> chance = Chance()
    >>> for in_flight in (20, 8):
    ...     for number in range(100):
    ...         _ = chance.ended(in_flight, is_refused=number % 10 == 0)
    >>> round(chance.share, 1)
    0.1
    """

    def __init__(self) -> None:
        self.share = 0.0
        """Of the calls; 0 while refusals come of too many calls."""
        self._lately = 0.0
        self._judged = 0.0
        """The share as it was found, which it never passes."""
        self._top = 0.0
        """Calls in flight at the first of the refusals; 0 while there are none."""
        self._high = self._low = (0, 0)
        self._n_answers = 0

    @property
    def is_all(self) -> bool:
        """Whether chance explains what is refused lately."""
        return self.share > 0.0 and self._lately <= 1.5 * self.share + _MARGIN

    def ended(self, in_flight: float, *, is_refused: bool) -> bool:
        """Return whether it has just become clear that refusals do not come of too many calls.

        Args:
            in_flight: calls under way when one of them ended; where their rate is held back, what it makes of them.
            is_refused: whether that one was refused, and not answered.
        """
        self._lately += _LATELY * (is_refused - self._lately)
        if self.share:
            self.share = min(self.share + _SLOWLY * (is_refused - self.share), self._judged)
            if self.share < _LEAST:
                self.share = 0.0
        self._n_answers = 0 if is_refused else self._n_answers + 1
        if not self._top or in_flight > 2 * self._top:
            if is_refused and not self.is_all:
                self._top, self._high, self._low = in_flight, (0, 0), (0, 0)
            return False
        if self._n_answers >= _OVER:
            self._top = 0.0
            return False
        if in_flight > _HIGH * self._top:
            self._high = (self._high[0] + is_refused, self._high[1] + 1)
        elif in_flight < _LOW * self._top:
            self._low = (self._low[0] + is_refused, self._low[1] + 1)
            return self._judge()
        return False

    def _judge(self) -> bool:
        if self._low[1] >= 2 * _FEWEST > 2 * self._high[1]:
            self._top = 0.0  # too few of the one to compare with: from here anew
        if self._low[1] < _FEWEST or self._high[1] < _FEWEST:
            return False
        low, high = (refused / calls for refused, calls in (self._low, self._high))
        self._top = 0.0
        # What would have been refused of more calls if these were too many already.
        expected = 1.0 - (1.0 - low) * _LOW / _HIGH
        if not _LEAST < low < _MOST or high > (low + expected) / 2:
            return False
        self.share = self._judged = self._lately = (self._low[0] + self._high[0]) / (self._low[1] + self._high[1])
        return True
