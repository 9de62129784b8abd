"""What does not fit into a panel: where it is cut, and how it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moa_nb.panels import figures
from moa_nb.panels.markdown import LIMIT
from moa_nb.plain import to_plain

__all__ = ["LeftOut", "brief", "cut", "fair_cap", "shares", "tail"]

_NAME = 120


def fair_cap(lengths: Sequence[int], room: int) -> int:
    """Return the length at which to cut the longest, so that all together take at most ``room``.

    >>> fair_cap([10, 100, 1000], 300)
    190
    """
    if sum(lengths) <= room:
        return max([LIMIT, *lengths])
    for place, length in enumerate(sorted(lengths)):
        n_left = len(lengths) - place
        if length * n_left > room:
            return room // n_left
        room -= length
    return 0  # unreachable: some length is above its share


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """Return how many of each layer's calls are shown when ``total`` may be: small layers whole."""
    cap = max(1, fair_cap(sizes, total))
    return [min(size, cap) for size in sizes]


@dataclass(slots=True)
class LeftOut:
    """What did not fit, counted as it is cut."""

    answers: int = 0
    prompts: int = 0
    others: int = 0
    calls: int = 0

    def words(self) -> str:
        """Return a sentence for the reader; empty if nothing was cut."""
        shortened = [
            figures.count(number, noun)
            for number, noun in ((self.answers, "answer"), (self.prompts, "prompt"), (self.others, "other text"))
            if number
        ]
        said = []
        if shortened:
            said.append(f"{_joined(shortened)} shortened")
        if self.calls:
            said.append(f"{figures.count(self.calls, 'call')} left out")
        return f"{', '.join(said)}; the whole text is in result.layers" if said else ""


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def cut(text: str, cap: int) -> str:
    """Return a plain text of at most ``cap`` characters, and how many are left out."""
    return to_plain(text) if len(text) <= cap else f"{to_plain(text[:cap])}\n… {len(text) - cap:,} more characters"


def brief(words: str) -> str:
    """Return a name, a label, a caption on its way into a panel: harmless, and cut where nobody reads on."""
    return to_plain(words if len(words) <= _NAME else f"{words[:_NAME]}…")


def tail(text: str, width: int) -> str:
    """Return the end of a text that is being written, as it may be shown at once."""
    return to_plain(text) if len(text) <= width else "… " + to_plain(text[-width:])
