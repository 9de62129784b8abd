"""What became of each row: small, no prompts and no proposals, and no object a row.

Many rows are a few columns of numbers, which no collector walks and a report is made of at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from moa_nb.errors import MoaError
from moa_nb.frames.progress import Progress, Spent
from moa_nb.frames.texts import Texts
from moa_nb.gateway import Budget
from moa_nb.pipeline.result import Result

__all__ = ["STATES", "Outcome", "Outcomes"]

STATES = ("", "done", "failed", "skipped", "duplicate", "stopped", "not asked")
"""The states of a row, by number: the first is that of one that did not begin or goes on."""

_NOT_ASKED = frozenset({"budget", "cancelled"})
"""The kinds of errors of calls that did not go out, or whose answer nobody waited for."""

_OVER = frozenset({"done", "failed", "skipped", "duplicate"})


class Outcome(NamedTuple):
    """One row, as far as it came."""

    text: str | None
    state: str
    """``done``, ``failed``, ``skipped`` (no text), ``duplicate`` (of an earlier row, and as it ended),
    ``stopped`` (some of its calls had answered) or ``not asked``."""
    n_calls: int = 0
    prompt_tokens: int | None = 0
    """Of all its calls, cached ones with what they once took; ``None`` where nothing was reported."""
    completion_tokens: int | None = 0
    cost: float | None = 0.0
    """Dollars paid now; ``None`` where a price is not known."""
    seconds: float = 0.0
    n_cached: int = 0
    degraded: bool = False
    unreported: int = 0
    """Attempts that may be billed beside what is reported: then ``cost`` is 'at least'."""
    agreement: float | None = None
    """How far its agents agree, in [0, 1]; ``None`` where one answers alone, or nobody has looked yet."""
    error_kind: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, result: Result, agreement: float | None = None) -> Outcome:
        """Return the outcome of a finished run."""
        cost: float | None = 0.0
        prompt = written = None
        n_calls = n_cached = unreported = 0
        # One pass: this is done for every row.
        for layer in result.layers:
            for call in layer.calls:
                if call.error_kind in _NOT_ASKED:
                    unreported += call.unreported
                    continue
                usage = call.usage
                n_calls += 1
                n_cached += call.cached
                unreported += call.unreported
                if usage.prompt_tokens is not None:
                    prompt = usage.prompt_tokens + (prompt or 0)
                if usage.completion_tokens is not None:
                    written = usage.completion_tokens + (written or 0)
                if call.error is None or call.cost is not None:
                    cost = None if cost is None or call.cost is None else cost + call.cost
        return cls(
            result.text if result.error is None else None,
            "done" if result.error is None else "failed",
            n_calls,
            prompt,
            written,
            cost,
            result.seconds,
            n_cached,
            result.degraded,
            unreported,
            agreement,
        )

    @classmethod
    def failed(cls, error: MoaError) -> Outcome:
        """Return the outcome of a row that has no answer."""
        known = cls(None, "failed") if error.result is None else cls.of(error.result)
        return known._replace(text=None, state="failed", error_kind=error.kind, error=str(error))

    @classmethod
    def unfinished(cls, result: Result | None, error: MoaError | None = None) -> Outcome:
        """Return the outcome of a row that the run was stopped in, by the user or by ``error``."""
        known = cls(None, "not asked", cost=None, prompt_tokens=None, completion_tokens=None)
        if result is not None and any(call.ok for call in result.calls):
            known = cls.of(result)._replace(text=None, state="stopped")
        elif result is not None:
            known = known._replace(unreported=result.unreported)
        return known if error is None else known._replace(error_kind=error.kind, error=str(error))

    @property
    def is_over(self) -> bool:
        """Whether the row needs no more asking in this run."""
        return self.state in _OVER

    def as_duplicate(self) -> Outcome:
        """Return the outcome of a row with the same prompt, which took nothing."""
        return Outcome(
            self.text,
            "duplicate",
            degraded=self.degraded,
            agreement=self.agreement,
            error_kind=self.error_kind,
            error=self.error,
        )


_UNKNOWN = -1

_COLUMNS = {
    # The codes of the module ``array``; what a row has that was not asked.
    "n_calls": ("i", 0),
    "prompt_tokens": ("q", _UNKNOWN),
    "completion_tokens": ("q", _UNKNOWN),
    "cost": ("d", _UNKNOWN),
    "seconds": ("d", 0),
    "n_cached": ("i", 0),
    "degraded": ("b", 0),
    "unreported": ("i", 0),
    "agreement": ("d", _UNKNOWN),
}
"""The numbers of an outcome, in its order; one that is not known is negative."""

_AGREEMENT = [*_COLUMNS].index("agreement")


class Outcomes:
    """The outcomes of all rows, and their sums so far. The engine's thread writes, any other may read.

    Rows with the same prompt are asked once: the first of them leads, the others follow and end as it does.
    """

    def __init__(self, n_rows: int) -> None:
        self.texts = Texts(n_rows)
        self.errors: dict[int, tuple[str | None, str]] = {}
        """By position, the kind and the text of each row's error."""
        self._states = bytearray(n_rows)
        self._columns: list[array[Any]] = [array(code, [nothing]) * n_rows for code, nothing in _COLUMNS.values()]
        self.n_done = self.n_failed = self.n_skipped = self.n_calls = self.n_cached = self.n_unreported = 0
        self.cost: float | None = 0.0
        self._leaders: dict[bytes, int] = {}
        self._followers: dict[int, list[int]] = {}
        self._alone: set[int] = set()
        """Rows in which one agent answered, who agrees with nobody."""

    @classmethod
    def of(
        cls,
        columns: Mapping[str, array[Any]],
        errors: Mapping[int, tuple[str | None, str]],
        texts: Sequence[str | None],
    ) -> Outcomes:
        """Return the outcomes whose ``columns``, errors and texts these are.

        Raises:
            ValueError: the columns are not those of outcomes, or not of one length.
        """
        states = columns["states"]
        outcomes = cls(len(states))
        numbers = [
            columns.get(name, array(code, [nothing]) * len(states)) for name, (code, nothing) in _COLUMNS.items()
        ]
        if {len(column) for column in (*numbers, texts)} - {len(states)} or max(states, default=0) >= len(STATES):
            msg = "the columns of its rows do not fit together"
            raise ValueError(msg)
        for position, state in enumerate(states):
            kind, error = errors.get(position, (None, None))
            said = [None if column[position] < 0 else column[position] for column in numbers]
            if state:
                outcomes.settle(position, Outcome._make([texts[position], STATES[state], *said, kind, error]))
        return outcomes

    @property
    def columns(self) -> dict[str, array[Any]]:
        """The states of all rows by number, and their numbers, negative where they are not known."""
        return {"states": array("B", bytes(self._states)), **dict(zip(_COLUMNS, self._columns, strict=True))}

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, position: int) -> Outcome | None:
        """Return how a row ended; ``None`` for one that did not begin, or goes on."""
        state = STATES[self._states[position]]
        if not state:
            return None
        numbers: list[Any] = [None if column[position] < 0 else column[position] for column in self._columns]
        return Outcome(self.texts[position], state, *numbers, *self.errors.get(position, (None, None)))

    @property
    def open(self) -> Iterator[int]:
        """The positions that have no outcome, in order."""
        position = self._states.find(0)
        while position >= 0:
            yield position
            position = self._states.find(0, position + 1)

    @property
    def states(self) -> np.ndarray[Any, Any]:
        """The number of each row's state in ``STATES``, as it is now."""
        return np.array(self._states, dtype=np.int8)

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """Return one of the numbers of every row, as it is now; negative where it is not known."""
        return np.array(self._columns[[*_COLUMNS].index(name)])

    def lead(self, digest: bytes, position: int) -> bool:
        """Return whether this row is the first with its prompt; another one will end as the first does."""
        leader = self._leaders.setdefault(digest, position)
        if leader == position:
            return True
        known = self[leader]
        if known is None:
            self._followers.setdefault(leader, []).append(position)
        elif known.is_over:
            self.settle(position, known.as_duplicate())
        return False

    def leader(self, digest: bytes, position: int) -> int:
        """Return the first row with this prompt: ``position`` itself where none is known."""
        return self._leaders.get(digest, position)

    def settle(self, position: int, outcome: Outcome) -> None:
        """Return nothing; keep how a row ended, and count it."""
        text, state, *numbers, kind, error = outcome
        for column, number in zip(self._columns, numbers, strict=True):
            column[position] = _UNKNOWN if number is None else number
        if error is not None:
            self.errors[position] = (kind, error)
        self.texts[position] = text
        self._states[position] = STATES.index(state)  # last: whoever sees it sees the rest
        self.n_calls += outcome.n_calls
        self.n_cached += outcome.n_cached
        self.n_unreported += outcome.unreported
        if state != "not asked":
            self.cost = None if self.cost is None or outcome.cost is None else self.cost + outcome.cost
        followers = self._followers.pop(position, ())
        if outcome.is_over:
            self.n_done += 1
            self.n_failed += error is not None
            self.n_skipped += state == "skipped"
            for follower in followers:
                self.settle(follower, outcome.as_duplicate())

    def uncompared(self, state: Literal["done", "duplicate"]) -> Iterator[int]:
        """Yield the positions of rows in a state of which nobody knows yet how far their agents agree."""
        number, n_calls, agreement = STATES.index(state), self._columns[0], self._columns[_AGREEMENT]
        for position, known in enumerate(self._states):
            # One call agrees with nobody; a duplicate has none of its own.
            is_open = known == number and agreement[position] < 0 and n_calls[position] != 1
            if is_open and position not in self._alone:
                yield position

    def compare(self, position: int, agreement: float | None) -> None:
        """Return nothing; keep how far the agents of a row agree, ``None`` where one answered alone."""
        if agreement is None:
            self._alone.add(position)
        else:
            self._columns[_AGREEMENT][position] = agreement

    def answered(self) -> Outcomes:
        """Return a copy that has only the rows that need no more asking, and whose sums begin at nothing."""
        again = Outcomes(len(self))
        for position in range(len(self)):
            outcome = self[position]
            if outcome is not None and outcome.is_over and outcome.error is None:
                again.settle(position, outcome)
        again._leaders = {digest: place for digest, place in self._leaders.items() if again._states[place]}
        again.n_calls = again.n_cached = again.n_unreported = 0
        again.cost = 0.0
        return again

    def progress(self, seconds: float, budget: Budget | None) -> Progress:
        """Return how far the rows are, and how far their budget is used up."""
        return Progress(
            rows=len(self),
            done=self.n_done,
            failed=self.n_failed,
            skipped=self.n_skipped,
            cached_calls=self.n_cached,
            calls=self.n_calls,
            cost=self.cost,
            seconds=seconds,
            unreported=self.n_unreported,
            budget=None if budget is None else Spent.of(budget),
        )
