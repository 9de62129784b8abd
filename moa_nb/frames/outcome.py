"""What became of each row: small, no prompts and no proposals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from moa_nb.errors import MoaError
from moa_nb.pipeline.result import Result

__all__ = ["Outcome", "Outcomes", "Progress"]

_OVER = frozenset({"done", "failed", "skipped", "duplicate"})


@dataclass(frozen=True, slots=True)
class Outcome:
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
    error_kind: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, result: Result) -> Outcome:
        """Return the outcome of a finished run."""
        cost: float | None = 0.0
        prompt = written = None
        n_calls = n_cached = unreported = 0
        # One pass: this is done for every row.
        for layer in result.layers:
            for call in layer.calls:
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
            n_calls=n_calls,
            prompt_tokens=prompt,
            completion_tokens=written,
            cost=cost,
            seconds=result.seconds,
            n_cached=n_cached,
            degraded=result.degraded,
            unreported=unreported,
        )

    @classmethod
    def failed(cls, error: MoaError) -> Outcome:
        """Return the outcome of a row that has no answer."""
        known = cls(None, "failed") if error.result is None else cls.of(error.result)
        return replace(known, text=None, state="failed", error_kind=error.kind, error=str(error))

    @classmethod
    def unfinished(cls, result: Result | None, error: MoaError | None = None) -> Outcome:
        """Return the outcome of a row that the run was stopped in, by the user or by ``error``."""
        known = cls(None, "not asked", cost=None, prompt_tokens=None, completion_tokens=None)
        if result is not None and any(call.ok for call in result.calls):
            known = replace(cls.of(result), text=None, state="stopped")
        return known if error is None else replace(known, error_kind=error.kind, error=str(error))

    @property
    def is_over(self) -> bool:
        """Whether the row needs no more asking in this run."""
        return self.state in _OVER

    def as_duplicate(self) -> Outcome:
        """Return the outcome of a row with the same prompt, which took nothing."""
        return Outcome(self.text, "duplicate", degraded=self.degraded, error_kind=self.error_kind, error=self.error)


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    rows: int
    done: int
    """Rows that are over: answered, failed, skipped or duplicates."""
    failed: int
    skipped: int
    cached_calls: int
    calls: int
    cost: float | None
    """Dollars so far; ``None`` where a price is not known."""
    seconds: float

    @property
    def projected_cost(self) -> float | None:
        """Dollars for all rows, if they go on as they began; ``None`` before the first, or unpriced."""
        if self.cost is None or not self.done:
            return None
        return self.cost / self.done * self.rows

    @property
    def figures(self) -> str:
        """Failures, cached calls and dollars in a few words."""
        parts = [f"{self.failed} failed"] if self.failed else []
        if self.cached_calls:
            parts.append(f"{self.cached_calls} of {self.calls} calls cached")
        parts.append("unknown cost" if self.cost is None else f"${self.cost:.4f}")
        if self.projected_cost is not None and self.done < self.rows:
            parts.append(f"${self.projected_cost:.4f} in the end")
        return ", ".join(parts)

    def __str__(self) -> str:
        return f"{self.done} of {self.rows} rows, {self.figures}"


class Outcomes:
    """The outcomes of all rows, and their sums so far.

    Rows with the same prompt are asked once: the first of them leads, the others follow and end as it does.
    """

    def __init__(self, n_rows: int) -> None:
        self.rows: list[Outcome | None] = [None] * n_rows
        """``None`` for a row that did not begin, or goes on."""
        self.n_done = self.n_failed = self.n_skipped = self.n_calls = self.n_cached = 0
        self.cost: float | None = 0.0
        self._leaders: dict[bytes, int] = {}
        self._followers: dict[int, list[int]] = {}

    @property
    def open(self) -> Iterator[int]:
        """The positions that have no outcome, in order."""
        return (position for position, outcome in enumerate(self.rows) if outcome is None)

    def lead(self, digest: bytes, position: int) -> bool:
        """Return whether this row is the first with its prompt; another one will end as the first does."""
        leader = self._leaders.setdefault(digest, position)
        if leader == position:
            return True
        known = self.rows[leader]
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
        self.rows[position] = outcome
        self.n_calls += outcome.n_calls
        self.n_cached += outcome.n_cached
        if outcome.state != "not asked":
            self.cost = None if self.cost is None or outcome.cost is None else self.cost + outcome.cost
        followers = self._followers.pop(position, ())
        if outcome.is_over:
            self.n_done += 1
            self.n_failed += outcome.error is not None
            self.n_skipped += outcome.state == "skipped"
            for follower in followers:
                self.settle(follower, outcome.as_duplicate())

    def answered(self) -> Outcomes:
        """Return a copy that has only the rows that need no more asking, and whose sums begin at nothing."""
        again = Outcomes(len(self.rows))
        for position, outcome in enumerate(self.rows):
            if outcome is not None and outcome.is_over and outcome.error is None:
                again.settle(position, outcome)
        again._leaders = {digest: position for digest, position in self._leaders.items() if again.rows[position]}
        again.n_calls = again.n_cached = 0
        again.cost = 0.0
        return again

    def progress(self, seconds: float) -> Progress:
        """Return how far the rows are."""
        return Progress(
            rows=len(self.rows),
            done=self.n_done,
            failed=self.n_failed,
            skipped=self.n_skipped,
            cached_calls=self.n_cached,
            calls=self.n_calls,
            cost=self.cost,
            seconds=seconds,
        )
