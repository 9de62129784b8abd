"""Votes: which value most answers hold, how far they agree, and what becomes of ties and abstentions."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, Literal

from moa_nb.errors import PipelineError, nearest
from moa_nb.pipeline.parse.numbers import exact
from moa_nb.pipeline.similarity import similarity_of_all

__all__ = ["Ballot", "Vote", "agreement", "check_tie", "normalised", "plurality", "unanimous"]

_TIES = ("first", "abstain", "agent:NAME")
_DIGITS = 12
"""Significant digits to which fractions are compared: what differs later is the noise of binary arithmetic."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """One value and who voted for it."""

    value: Any
    """As its earliest vote gave it."""
    members: tuple[int, ...]
    """The positions of its votes, the earliest first."""
    weight: float
    """The sum of its votes' weights: their number, where nothing was weighted."""


@dataclass(frozen=True, slots=True)
class Vote:
    """How a vote went."""

    winner: int | None
    """The position of the candidate to return as it is; ``None`` if nobody voted, or a tie was to abstain."""
    value: Any
    """The winner's value, ``None`` without a winner."""
    ballots: tuple[Ballot, ...]
    """All values, the heaviest first, equal ones by their earliest vote."""
    share: float
    """The heaviest value's share of the weight that was cast, in [0, 1]; 0 without votes."""
    share_of_all: float
    """The same share of all weight, abstentions included."""
    n: int
    n_unparsed: int
    """How many abstained because nothing could be read."""
    tied: bool
    """Whether several values were equally heavy, whatever became of it."""


def plurality(
    values: Sequence[Any],
    *,
    weights: Sequence[float] | None = None,
    tie: str = "first",
    agents: Sequence[str] | None = None,
) -> Vote:
    """Return the vote over ``values``: the value that weighs most wins, ``None`` abstains.

    Values are compared as ``normalised`` has them, so 18, 18.0 and "18." are one. Self-consistency (Wang et al.
    2022, arXiv 2203.11171) and debates end in it.

    Args:
        values: one a candidate, as parsed.
        weights: one a candidate, 0 or more; all alike if ``None``. Values without weight cannot win.
        tie: ``"first"``: the earliest vote decides; ``"agent:NAME"``: that agent's vote, where it is among the
            tied, else the earliest; ``"abstain"``: nobody wins.
        agents: the candidates' agents, for ``"agent:NAME"``.

    Raises:
        PipelineError: no such rule or agent, or weights that are none.

    >>> vote = plurality([7, "7.0", 9, None, 7])
    >>> vote.winner, vote.value, vote.share, vote.share_of_all, vote.n_unparsed, vote.tied
    (0, 7, 0.75, 0.6, 1, False)
    >>> plurality(["A", "B"], tie="agent:b", agents=["a", "b"]).value
    'B'
    """
    check_tie(tie, agents)
    weighed = _weights(weights, len(values))
    keys = [normalised(value) for value in values]
    members: dict[Hashable, list[int]] = {}
    for at, key in enumerate(keys):
        if key is not None:
            members.setdefault(key, []).append(at)
    ballots = tuple(
        sorted(
            (Ballot(values[held[0]], tuple(held), math.fsum(weighed[at] for at in held)) for held in members.values()),
            key=lambda ballot: -ballot.weight,
        )
    )
    heaviest = ballots[0].weight if ballots else 0.0
    # Weights are rarely exact in binary: 0.1 three times is as heavy as 0.3.
    top = [ballot for ballot in ballots if heaviest and math.isclose(ballot.weight, heaviest, rel_tol=1e-9)]
    winner = _winner(top, tie, agents)
    cast = math.fsum(ballot.weight for ballot in ballots)
    return Vote(
        winner=winner,
        value=None if winner is None else values[winner],
        ballots=ballots,
        share=heaviest / cast if cast else 0.0,
        share_of_all=heaviest / math.fsum(weighed) if cast else 0.0,
        n=len(values),
        n_unparsed=keys.count(None),
        tied=len(top) > 1,
    )


def check_tie(tie: str, agents: Sequence[str] | None = None) -> None:
    """Return nothing if ``tie`` is a rule, and names one of ``agents`` where they are known.

    Raises:
        PipelineError: it is or does not; the message names the nearest.
    """
    kind, _, agent = tie.partition(":")
    if tie not in {"first", "abstain"} and not (kind == "agent" and agent):
        msg = f"no rule {tie!r} for ties; {nearest(kind, _TIES)}"
        raise PipelineError(msg)
    if agent and agents is not None and agent not in agents:
        msg = f"ties go to agent {agent!r}, which does not vote; {nearest(agent, agents)}"
        raise PipelineError(msg)


def unanimous(values: Sequence[Any]) -> bool:
    """Return whether all values are there and the same: what could not be read never agrees.

    >>> unanimous([42, "42.0"]), unanimous([42, None]), unanimous([None, None]), unanimous([])
    (True, False, False, False)
    """
    keys = {normalised(value) for value in values}
    return len(keys) == 1 and None not in keys


def agreement(
    values: Sequence[Any], by: Literal["vote", "spread", "text"] = "vote", *, scale: float | None = None
) -> float:
    """Return how far values agree, in [0, 1]; ``None`` agrees with nothing. It costs no call.

    - ``"vote"``: the share of all that the commonest value has; for labels, choices, answers.
    - ``"spread"``: 1 less the distance from the least to the greatest number, in units of ``scale`` (9 for ratings
      from 1 to 10) or else of the greatest magnitude, times the share of values that are there.
    - ``"text"``: the mean similarity of all pairs, as ``similarity`` has it.

    Raises:
        PipelineError: no such measure, or a spread of what is no number.

    >>> agreement([42, 42, 17]), agreement([7, 9, 8], "spread", scale=9), agreement(["a b", "A b!"], "text")
    (0.6666666666666666, 0.7777777777777778, 1.0)
    """
    if by == "vote":
        return plurality(values).share_of_all
    if by == "spread":
        return _spread(values, scale)
    if by == "text":
        return similarity_of_all([None if value is None else str(value) for value in values])
    msg = f"no agreement by {by!r}; {nearest(str(by), ('vote', 'spread', 'text'))}"
    raise PipelineError(msg)


def normalised(value: Any) -> Hashable | None:
    """Return what equal values have in common: a key to compare and count by; ``None`` for what abstains.

    Numbers by value, fractions of them to 12 significant digits, as text too; other text without case, with single
    spaces; mappings whatever their order; sets as sets. ``nan`` abstains. ``True`` is not 1.

    >>> normalised("18.") == normalised(18.0), normalised({"a": 1, "b": 2}) == normalised({"b": 2.0, "a": 1})
    (True, True)
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, Real | Decimal):
        return _of_number(value)
    if isinstance(value, Mapping):
        return ("mapping", frozenset((str(key), normalised(inner)) for key, inner in value.items()))
    if isinstance(value, AbstractSet):
        return ("set", frozenset(map(normalised, value)))
    if isinstance(value, Sequence):
        return ("sequence", *map(normalised, value))
    return (type(value).__name__, value if isinstance(value, Hashable) else repr(value))


def _of_text(text: str) -> Hashable:
    number = exact(text)
    if number is not None:
        return _of_number(number)
    return ("text", " ".join(unicodedata.normalize("NFKC", text).casefold().split()))


def _of_number(value: Any) -> Hashable | None:
    if isinstance(value, Integral):
        return ("number", int(value))
    try:
        approximate = float(value)
    except OverflowError:
        return ("number", value)
    if math.isnan(approximate):
        return None
    if math.isinf(approximate):
        return ("number", approximate)
    numerator, denominator = value.as_integer_ratio()
    if denominator == 1:
        return ("number", int(numerator))
    rounded = Fraction(f"{approximate:.{_DIGITS}g}")
    return ("number", rounded.numerator if rounded.denominator == 1 else rounded)


def _weights(weights: Sequence[float] | None, n: int) -> list[float]:
    weighed = [1.0] * n if weights is None else [float(weight) for weight in weights]
    if len(weighed) != n or not all(math.isfinite(weight) and weight >= 0 for weight in weighed):
        msg = f"weights are one finite number a value, 0 or more: {n} of them, not {weights!r}"
        raise PipelineError(msg)
    return weighed


def _winner(top: Sequence[Ballot], tie: str, agents: Sequence[str] | None) -> int | None:
    """Return the position of the vote that wins: the earliest of the heaviest value, or as the rule says."""
    if not top or (len(top) > 1 and tie == "abstain"):
        return None
    members = sorted(at for ballot in top for at in ballot.members)
    preferred = tie.removeprefix("agent:") if tie.startswith("agent:") and len(top) > 1 else None
    return next((at for at in members if agents is not None and agents[at] == preferred), members[0])


def _spread(values: Sequence[Any], scale: float | None) -> float:
    numbers = []
    for value in values:
        key = normalised(value)
        if key is not None and (not isinstance(key, tuple) or key[0] != "number"):
            msg = f"a spread needs numbers, not {value!r}: use by='vote' or by='text'"
            raise PipelineError(msg)
        if isinstance(key, tuple):
            numbers.append(float(key[1]))
    if not numbers:
        return 0.0
    distance = max(numbers) - min(numbers)
    unit = max(map(abs, numbers)) if scale is None else scale
    near = 1.0 - min(1.0, distance / unit) if distance else 1.0
    return near * len(numbers) / len(values)
