"""Where things stand in a picture of points with names: scales, their ticks, and labels that do not cover one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

__all__ = ["Label", "Scale", "from_zero", "label_places", "width_of", "within"]

_DECADE = 10
_MOST_TICKS = 5
_CLEAR = 0.16
"""Of a scale: what lies between two ticks at least."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How values become places between 0 and 1."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    """Where there is a word at the axis, and which."""
    is_log: bool = False
    zero: float = 0.0
    """Where zero stands, which has no place of its own on a logarithmic scale."""

    def put(self, value: float) -> float:
        """Return the value that is drawn: zero has a stand-in on a logarithmic scale."""
        return self.zero if self.is_log and value <= 0 else value

    def at(self, value: float) -> float:
        """Return the place of a value, 0 to 1; one beyond the ends stands at the end."""
        low, high, value = self.low, self.high, self.put(value)
        if self.is_log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return min(1.0, max(0.0, (value - low) / (high - low)))


def from_zero(values: Sequence[float], zero: str = "0") -> Scale:
    """Return a scale for amounts: from zero on, or logarithmic where they span more than a decade.

    On a logarithmic scale zeros stand apart at its left end.

    Args:
        values: what is to be drawn, none below zero.
        zero: what stands at zero.

    >>> from_zero([0.0, 1.0, 4.0]).ticks
    ((0.0, '0'), (1.0, '1'), (2.0, '2'), (3.0, '3'), (4.0, '4'))
    >>> from_zero([0.0, 0.002, 4.0], "free").ticks
    ((0.0003, 'free'), (0.01, '0.01'), (0.1, '0.1'), (1.0, '1'))
    """
    positive = [value for value in values if value > 0]
    most, least = max(positive, default=0.0), min(positive, default=0.0)
    if not positive or most <= _DECADE * least:
        high = 1.12 * most or 1.0
        marks = [(tick, _word(tick)) for tick in _even(0.0, high, _step(0.0, high)) if tick] if positive else []
        return _thinned(Scale(0.0, high, ((0.0, zero), *marks)))
    room = (most / least) ** 0.12
    low, high = least / room, most * room
    marks = [(tick, _word(tick)) for tick in _by_decades(low, high)]
    if len(positive) == len(values):
        return _thinned(Scale(low, high, tuple(marks), is_log=True))
    stand_in = float(f"{low / room:.1g}")
    marks = [(tick, said) for tick, said in marks if tick > low]
    return _thinned(Scale(stand_in / room, high, ((stand_in, zero), *marks), is_log=True, zero=stand_in))


def within(values: Sequence[float], ends: tuple[float, float]) -> Scale:
    """Return a scale over ``values`` that begins and ends at round numbers, and at ``ends`` where no value is beyond.

    >>> within([0.42, 0.58], (0.0, 1.0)).ticks
    ((0.4, '0.4'), (0.45, '0.45'), (0.5, '0.5'), (0.55, '0.55'), (0.6, '0.6'))
    """
    low, high = min(values, default=ends[0]), max(values, default=ends[1])
    # A single large value has room too: what is added to it must not be lost in its last digits.
    room = max(0.04 * (high - low), 0.01 * (ends[1] - ends[0]), 1e-6 * max(abs(low), abs(high)))
    low, high = max(min(ends[0], low), low - room), min(max(ends[1], high), high + room)
    step = _step(low, high)
    low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
    return Scale(low, high, tuple((tick, _word(tick)) for tick in _even(low, high, step)))


def _thinned(scale: Scale) -> Scale:
    """Return a scale without the ticks whose words would touch those before them in a narrow picture."""
    kept: list[tuple[float, str]] = []
    for tick, word in scale.ticks:
        if not kept or scale.at(tick) - scale.at(kept[-1][0]) >= _CLEAR:
            kept.append((tick, word))
    return replace(scale, ticks=tuple(kept))


def _word(tick: float) -> str:
    return f"{tick:,.12f}".rstrip("0").rstrip(".") if abs(tick) < 1e15 else f"{tick:.6g}"


def _step(low: float, high: float) -> float:
    rough = (high - low) / (_MOST_TICKS - 0.5)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * of for of in (1, 2, 5, 10) if power * of >= rough)


def _even(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def _by_decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [float(f"{of}e{power}") for power in powers for of in steps if low <= of * 10.0**power <= high]
        if len(found) <= _MOST_TICKS:
            return found
    return found[:: math.ceil(len(found) / _MOST_TICKS)]


@dataclass(frozen=True, slots=True)
class Label:
    """Where the name of a point stands."""

    which: int
    """Which of its labels fits."""
    is_right: bool
    """To the right of its point, else to the left."""
    shift: float
    """How far its middle is from the point's, downwards."""


def width_of(text: str) -> float:
    """Return about how wide ``text`` is in common typefaces, in em, rather too wide than too narrow."""
    import unicodedata

    return sum(1.05 if unicodedata.east_asian_width(letter) in "WF" else 0.62 for letter in text)


class _Box(NamedTuple):
    """What is taken, and by which places across its left and its right side are held."""

    left: float
    top: float
    right: float
    bottom: float
    holds_left: float
    holds_right: float

    def is_left_of(self, other: _Box) -> bool:
        """Return whether this stands left of another one, here and in any wider room."""
        return self.right <= other.left + 1e-9 and self.holds_right <= other.holds_left

    def covers(self, other: _Box) -> bool:
        """Return whether one would lie on the other; touching is not lying."""
        down = self.top < other.bottom - 1e-9 and other.top < self.bottom - 1e-9
        return down and not self.is_left_of(other) and not other.is_left_of(self)


def label_places(
    points: Sequence[tuple[float, float]],
    widths: Sequence[Sequence[float]],
    room: tuple[float, float],
    *,
    height: float,
    gap: float,
    front: int = 0,
) -> list[Label | None]:
    """Return for each point which of its labels fits and where, so that none covers another or a point.

    Further than its height from its point a label needs a leading line. Whoever comes first chooses first. In a wider room the same places fit as well: names keep their widths,
    and points move apart. Names keep off the stepped line of the front where they can.

    Args:
        points: across and downwards, in the unit of ``room``; first those on the front, from the left to the right.
        widths: of each point's labels, the one that says most first; ``None`` comes back where none fits.
        room: how wide and how high the picture is.
        height: of a label.
        gap: between a point and its label; a point takes twice as much.
        front: how many points are on the front.
    """
    taken = [_Box(x - gap, y - gap, x + gap, y + gap, x, x) for x, y in points]
    lines: list[_Box] = []
    for (x, y), (to, up) in zip(points[:front], [*points[1:front], (room[0], None)], strict=False):
        lines += [_Box(x, y, to, y, x, to), *([] if up is None else [_Box(to, up, to, y, to, to)])]
    level = [(0.0, True), (0.0, False)]
    # Above the front and to the left nobody stands, and no line goes.
    over = [(-0.7 * height, False), (-0.7 * height, True)]
    apart = [
        (sign * step * height, is_right)
        for step in (0.7, 1.0, 1.5, 2.0, 3.0)
        for sign in (1, -1)
        for is_right in (True, False)
    ]

    def is_own(place: int, begin: float, shift: float) -> bool:
        # A name without a leading line belongs, to the eye, to the point that is nearest to where it begins.
        x, y = points[place]
        near = math.hypot(begin - x, shift) - 1e-9
        return abs(shift) > height or all(math.hypot(begin - a, y + shift - b) >= near for a, b in points)

    def fit(place: int) -> Label | None:
        x, y = points[place]
        for (which, width), avoid in product(enumerate(widths[place]), ([*taken, *lines], taken)):
            for shift, is_right in [*(over if place < front else []), *level, *apart]:
                left = x + gap if is_right else x - gap - width
                box = _Box(left, y + shift - height / 2, left + width, y + shift + height / 2, x, x)
                inside = box.left >= 0 and box.right <= room[0] and box.top >= 0 and box.bottom <= room[1]
                if (
                    inside
                    and is_own(place, left if is_right else left + width, shift)
                    and not any(map(box.covers, avoid))
                ):
                    taken.append(box)
                    return Label(which, is_right, shift)
        return None

    return [fit(place) for place in range(len(points))]
