"""How sure a mean or a difference is, from few rows or many, and what so few rows cannot say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError

__all__ = ["Interval", "Paired", "figure", "holm", "interval", "numbers", "paired", "said"]

_RESAMPLES = 10_000
_BLOCK = 2_000_000
"""How many drawn values are held at a time."""
_POWER = 0.8
"""The chance to see a difference that is there, by which rows are counted (Cohen 1988)."""

_Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, repr=False)
class Interval:
    """A mean and where the true one may lie."""

    mean: float | None
    """``None`` without a value."""
    low: float | None
    """``None`` where no interval can be had: fewer than two values, or all alike."""
    high: float | None
    n: int
    """The values that are there."""
    confidence: float = 0.95

    def __repr__(self) -> str:
        return f"{_with_interval(self.mean, self.low, self.high)}, {_rows(self.n)}"


@dataclass(frozen=True, slots=True, repr=False)
class Paired:
    """How two pipelines differ on the rows that both have: the mean of the first less the second."""

    difference: float | None
    """``None`` without a row."""
    low: float | None
    """``None`` where no interval can be had: fewer than two rows, or all differences alike."""
    high: float | None
    p: float | None
    """Of the sign-flip permutation test, two-sided; ``None`` without a row."""
    n: int
    spread: float | None = None
    """The standard deviation of the differences; ``None`` with fewer than two rows."""
    n_unequal: int = 0
    """The rows on which the two differ at all: the others say nothing about which is better."""
    confidence: float = 0.95

    def __repr__(self) -> str:
        p = "" if self.p is None else f", p {_p(self.p)}"
        return f"{_with_interval(self.difference, self.low, self.high)}{p}, {_rows(self.n)}"

    @property
    def is_shown(self) -> bool:
        """Whether there is a difference: the test says so, and the interval leaves out 0."""
        return (
            self.p is not None
            and self.p <= 1 - self.confidence + 1e-12
            and (self.low is None or self.high is None or self.low > 0 or self.high < 0)
        )

    @property
    def detectable(self) -> float | None:
        """The least true difference that so many rows would show four times in five; ``None`` if they show none."""
        if self.spread is None or not self.spread or 2.0 ** (1 - self.n) > 1 - self.confidence:
            return None
        both = _t((1 + self.confidence) / 2, self.n - 1) + _t(_POWER, self.n - 1)
        return both * self.spread / math.sqrt(self.n)

    @property
    def rows_needed(self) -> int | None:
        """How many rows would show the difference seen, were it the true one, four times in five.

        Guenther 1981 (The American Statistician 35). ``None`` without a difference, or without a spread.
        """
        if not self.spread or not self.difference:
            return None
        alpha, power = NormalDist().inv_cdf((1 + self.confidence) / 2), NormalDist().inv_cdf(_POWER)
        return math.ceil(((alpha + power) * self.spread / self.difference) ** 2 + alpha**2 / 2)


def interval(values: Any, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of ``values`` with its bootstrap interval; missing values are left out.

    10,000 resamples of the rows, by percentiles that are widened for small samples as a t interval is (Hesterberg
    2015, The American Statistician 69, "expanded percentile"). A share near 0 or 1 from few rows still has an
    interval that is too narrow, and where all values are alike there is none.

    Raises:
        SetupError: a value is no finite number, or the confidence none between 0 and 1.

    >>> interval([1, 0, 1, 1, None, 1, 0, 1, 1])
    0.75 [0.38, 1.00], 8 rows
    >>> interval([1, 1, 1])
    1.00, 3 rows
    """
    return _interval(_present(numbers(values)), confidence, seed)


def paired(a: Any, b: Any, *, confidence: float = 0.95, seed: int = 0) -> Paired:
    """Return how far ``a`` is above ``b``, on the rows that both have.

    The interval is that of ``interval`` over the rows' differences. The p-value is of a permutation test that flips
    the signs of the differences (Fisher 1935): all flips up to thirteen unequal rows, 10,000 random ones beyond.

    Raises:
        SetupError: not as many values, other labels, or no finite numbers.

    >>> paired([1, 1, 1, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0])
    0.75 [0.38, 1.00], p = 0.03, 8 rows
    """
    if isinstance(a, pd.Series) and isinstance(b, pd.Series) and not a.index.equals(b.index):
        msg = "both have to be of the same rows, in the same order: their labels differ"
        raise SetupError(msg)
    first, second = numbers(a), numbers(b)
    if len(first) != len(second):
        msg = f"both have to be of the same rows: {len(first)} values and {len(second)}"
        raise SetupError(msg)
    differences = _present(first - second)
    # What differs in the last bits of a float does not differ.
    differences[np.isclose(first, second, rtol=1e-12, atol=1e-12)[~np.isnan(first - second)]] = 0.0
    around = _interval(differences, confidence, seed)
    return Paired(
        around.mean,
        around.low,
        around.high,
        _sign_flip(differences, seed),
        around.n,
        float(differences.std(ddof=1)) if around.n > 1 else None,
        int(np.count_nonzero(differences)),
        confidence,
    )


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number (Holm 1979), in their order; a missing one is ``None`` and does not count.

    Raises:
        SetupError: a value is no p-value.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    known = numbers(ps)
    if ((known < 0) | (known > 1)).any():
        msg = f"p-values are from 0 to 1: one is {known[(known < 0) | (known > 1)][0]:g}"
        raise SetupError(msg)
    order = sorted((p, at) for at, p in enumerate(known.tolist()) if not math.isnan(p))
    corrected: list[float | None] = [None] * len(known)
    greatest = 0.0
    for place, (p, at) in enumerate(order):
        greatest = max(greatest, min(1.0, p * (len(order) - place)))
        corrected[at] = greatest
    return corrected


def said(seen: Paired, a: str = "the first", b: str = "the second", *, rows: str = "that both have") -> str:
    """Return in one sentence what the rows say about ``a`` and ``b``, or what they cannot; ``rows`` says which they are.

    For a p-value corrected by ``holm``, pass ``dataclasses.replace(seen, p=corrected)``.

    >>> said(paired([1, 1, 1, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0]), "moa", "single")
    'moa is better than single by 0.75 [0.38, 1.00]'
    >>> said(paired([1, 0, 1, 1, 0, 1, 0, 1], [0, 1, 0, 1, 1, 0, 0, 1]), "moa", "single")
    'no difference between moa and single that 8 rows can show: it would have to be about 0.96, or take about 350 rows'
    """
    if seen.difference is None:
        return f"no row has both {a} and {b}"
    if seen.n_unequal == 0:
        return f"{a} and {b} are equal on {'the one row' if seen.n == 1 else f'all {seen.n:,} rows'} {rows}"
    better, worse = (a, b) if seen.difference > 0 else (b, a)
    if seen.is_shown:
        return f"{better} is better than {worse} by {_distance(seen)}"
    if 2.0 ** (1 - seen.n) > 1 - seen.confidence:
        return f"{_rows(seen.n)} cannot show a difference between {a} and {b}, whatever it is"
    no_difference = f"no difference between {a} and {b} that {_rows(seen.n)} can show"
    if seen.p is not None and seen.low is not None and seen.high is not None and (seen.low > 0 or seen.high < 0):
        # Its interval alone leaves out 0, but as one of several tests it may be chance.
        return f"{no_difference}: {better} is ahead by {_distance(seen)}, but p {_p(seen.p)}"
    wanted = []
    if seen.detectable is not None:
        wanted.append(f"have to be about {float(f'{seen.detectable:.2g}')}")
    if seen.rows_needed is not None and seen.rows_needed > seen.n:
        wanted.append(f"take about {int(float(f'{seen.rows_needed:.2g}')):,} rows")
    return f"{no_difference}: it would {', or '.join(wanted)}" if wanted else no_difference


def figure(value: float | None) -> str:
    """Return a score as it is written in a sentence: two decimals, or two digits where it is smaller.

    >>> figure(0.123), figure(0.00123), figure(None)
    ('0.12', '0.0012', 'unknown')
    """
    if value is None:
        return "unknown"
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.005 else f"{value:.2g}"


def numbers(values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return values as floats, ``nan`` for what is missing; true and false are 1 and 0.

    Raises:
        SetupError: a value is no finite number.

    >>> numbers([1, None, True])
    array([ 1., nan,  1.])
    """
    try:
        found = pd.to_numeric(pd.Series(values, dtype=None if len(values) else "float64"))
        floats: _Numbers = found.to_numpy(dtype="float64", na_value=np.nan, copy=True)
    except (TypeError, ValueError) as error:
        msg = f"scores have to be numbers: {error}"
        raise SetupError(msg) from error
    if np.isinf(floats).any():
        msg = "scores have to be finite numbers: one is infinite"
        raise SetupError(msg)
    return floats


def _present(values: _Numbers) -> _Numbers:
    return values[~np.isnan(values)]


def _interval(values: _Numbers, confidence: float, seed: int) -> Interval:
    if not 0 < confidence < 1:
        msg = f"a confidence is between 0 and 1, as 0.95 is, not {confidence!r}"
        raise SetupError(msg)
    n = len(values)
    if n == 0:
        return Interval(None, None, None, 0, confidence)
    mean = math.fsum(values) / n
    if np.allclose(values, values[0], rtol=1e-12, atol=1e-12):
        return Interval(mean, None, None, n, confidence)
    means = np.concatenate(list(_resampled_means(values, np.random.default_rng(seed))))
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * _t((1 + confidence) / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), n, confidence)


def _resampled_means(values: _Numbers, generator: np.random.Generator) -> Iterator[_Numbers]:
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * 10 < n:
        # Of verdicts and ratings there are few kinds: how often each is drawn is all that matters.
        yield generator.multinomial(n, counts / n, size=_RESAMPLES) @ distinct / n
        return
    for size in _blocks(n):
        yield values[generator.integers(0, n, size=(size, n), dtype=np.int32)].mean(axis=1)


def _sign_flip(differences: _Numbers, seed: int) -> float | None:
    """Return the share of sign flips whose sum is as far from 0 as the sum seen."""
    if not len(differences):
        return None
    unequal = differences[differences != 0]
    n, total = len(unequal), math.fsum(unequal)
    far = abs(total) - 1e-9 * float(np.abs(unequal).sum())
    if 2**n <= _RESAMPLES:
        every = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(np.abs(total - 2 * (every @ unequal)) >= far))
    generator = np.random.default_rng(seed)
    hits = 0
    for size in _blocks(n):
        drawn = np.frombuffer(generator.bytes(size * -(-n // 8)), np.uint8).reshape(size, -1)
        flips = np.unpackbits(drawn, axis=1, count=n)
        hits += int(np.count_nonzero(np.abs(total - 2 * (flips @ unequal)) >= far))
    # The flips seen count as one of the random ones, so that no p is 0 (Phipson and Smyth 2010).
    return (hits + 1) / (_RESAMPLES + 1)


def _blocks(n: int) -> Iterator[int]:
    """Yield how many resamples of ``n`` values are drawn at a time."""
    size = max(1, _BLOCK // max(1, n))
    for start in range(0, _RESAMPLES, size):
        yield min(size, _RESAMPLES - start)


def _t(share: float, freedom: int) -> float:
    """Return the quantile of Student's t, by its expansion around the normal one (Abramowitz and Stegun 26.7.5)."""
    z, v = NormalDist().inv_cdf(share), freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def _distance(seen: Paired) -> str:
    """Return a difference without its sign: its sentence names the better."""
    low, high = (seen.low, seen.high) if (seen.difference or 0) > 0 else (seen.high, seen.low)
    return _with_interval(*(None if value is None else abs(value) for value in (seen.difference, low, high)))


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    around = "" if low is None or high is None else f" [{figure(low)}, {figure(high)}]"
    return figure(value) + around


def _p(p: float) -> str:
    return f"= {p:.2f}" if p >= 0.01 else f"= {p:.1g}" if p >= 0.001 else "< 0.001"


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"
