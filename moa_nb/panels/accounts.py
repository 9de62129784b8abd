"""What an account of a decision is made of: a sentence, and a small table of words and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Account", "Cell", "Entry", "Kind", "named", "shown"]

Kind = Literal["plain", "good", "odd", "bad"]
"""How a cell is coloured."""

_MOST_NAMES = 8
_WIDEST = 60


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of an account."""

    text: str
    kind: Kind = "plain"
    share: float | None = None
    """What share of a bar is filled, from 0 to 1; ``None``: there is no bar."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an account."""

    cells: tuple[Cell, ...]
    is_chosen: bool = False
    """Whether it is about what became the answer."""


@dataclass(frozen=True, slots=True)
class Account:
    """How something was decided: a sentence, and a small table where there is one."""

    title: str
    words: str = ""
    heads: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


def named(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Return names as a list that stays short.

    >>> named(["alpha", "beta", "gamma"]), named(["a", "b", "c", "d"], 2)
    ('alpha, beta, gamma', 'a, b and 2 more')
    """
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def shown(value: Any, width: int = _WIDEST) -> str:
    """Return a value as a person writes it, cut at ``width``.

    >>> shown(42.0), shown(True), shown(["a", "b"]), shown(None)
    ('42', 'yes', 'a, b', '–')
    """
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.10g}"
    if isinstance(value, list | tuple | set | frozenset):
        said = ", ".join(
            shown(one) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)
        )
    elif isinstance(value, Mapping):
        said = ", ".join(f"{name}: {shown(one)}" for name, one in value.items())
    else:
        said = str(value)
    said = " ".join(said[: 4 * width].split())
    return said if len(said) <= width else f"{said[:width].rstrip()} …"
