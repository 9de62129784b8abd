"""What became of each row, and what the rows took together. Small: no prompts, no proposals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from moa_nb.errors import MoaError
from moa_nb.pipeline.result import Result
from moa_nb.store.runs import LedgerRow

__all__ = ["Outcome", "Progress", "Tally"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row when it is over."""

    text: str | None
    state: str
    """``done``, ``failed``, ``skipped`` (no text) or ``duplicate`` (of an earlier row, and as it ended)."""
    n_calls: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = 0.0
    seconds: float = 0.0
    n_cached: int = 0
    degraded: bool = False
    error_kind: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, result: Result) -> Outcome:
        """Return the outcome of a finished run."""
        return cls(
            result.text if result.error is None else None,
            "done" if result.error is None else "failed",
            n_calls=result.n_calls,
            prompt_tokens=result.usage.prompt_tokens,
            completion_tokens=result.usage.completion_tokens,
            cost=result.cost,
            seconds=result.seconds,
            n_cached=sum(call.cached for call in result.calls),
            degraded=result.degraded,
        )

    @classmethod
    def failed(cls, error: MoaError) -> Outcome:
        """Return the outcome of a row that has no answer."""
        known = cls.of(error.result) if error.result is not None else cls(None, "failed")
        values = {name: getattr(known, name) for name in cls.__slots__}
        return cls(**{**values, "text": None, "state": "failed", "error_kind": error.kind, "error": str(error)})

    def as_duplicate(self) -> Outcome:
        """Return the outcome of a row with the same prompt, which took nothing."""
        return Outcome(self.text, "duplicate", degraded=self.degraded, error_kind=self.error_kind, error=self.error)


@dataclass
class _Count:
    calls: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
    saved: float = 0.0
    seconds: float = 0.0


@dataclass
class Tally:
    """Sums by layer and model."""

    counts: dict[tuple[str, str], _Count] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Return nothing; count a row's calls."""
        for layer in result.layers:
            for call in layer.calls:
                count = self.counts.setdefault((layer.name, call.model), _Count())
                count.calls += 1
                count.cached += call.cached
                count.failed += not call.ok
                if not call.cached:
                    count.prompt_tokens += call.usage.prompt_tokens or 0
                    count.completion_tokens += call.usage.completion_tokens or 0
                    count.seconds += call.seconds
                    count.cost += call.cost or 0.0
                    count.unpriced += call.ok and call.cost is None

    def frame(self) -> pd.DataFrame:
        """Return a row for each layer and model: calls, tokens, dollars, mean seconds of a call."""
        rows = [
            {
                "layer": layer,
                "model": model,
                "calls": count.calls,
                "cached": count.cached,
                "failed": count.failed,
                "prompt_tokens": count.prompt_tokens,
                "completion_tokens": count.completion_tokens,
                "cost": None if count.unpriced else count.cost,
                "mean_seconds": count.seconds / max(count.calls - count.cached, 1),
            }
            for (layer, model), count in self.counts.items()
        ]
        columns = "layer model calls cached failed prompt_tokens completion_tokens cost mean_seconds".split()
        return pd.DataFrame(rows, columns=columns).astype({"cost": "Float64"})

    def ledger(self) -> list[LedgerRow]:
        """Return a row for each model, as the store keeps it."""
        rows: dict[str, LedgerRow] = {}
        for (_, model), count in self.counts.items():
            known = rows.get(model, LedgerRow(model, 0, 0, 0, 0, 0.0, None, 0))
            rows[model] = LedgerRow(
                model,
                known.calls + count.calls,
                known.cached + count.cached,
                (known.prompt_tokens or 0) + count.prompt_tokens,
                (known.completion_tokens or 0) + count.completion_tokens,
                (known.cost or 0.0) + count.cost,
                None,
                known.unpriced + count.unpriced,
            )
        return list(rows.values())


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

    def __str__(self) -> str:
        parts = [f"{self.done} of {self.rows} rows"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.cached_calls:
            parts.append(f"{self.cached_calls} of {self.calls} calls cached")
        parts.append("unknown cost" if self.cost is None else f"${self.cost:.4f}")
        if self.projected_cost is not None and self.done < self.rows:
            parts.append(f"${self.projected_cost:.4f} in the end")
        return ", ".join(parts)


def as_row(outcome: Outcome | None) -> dict[str, Any]:
    """Return an outcome as a row of the report; ``None`` is a row that was not asked."""
    if outcome is None:
        outcome = Outcome(None, "not asked", cost=None)
    return {
        "state": outcome.state,
        "n_calls": outcome.n_calls,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "cost": outcome.cost,
        "seconds": outcome.seconds,
        "n_cached": outcome.n_cached,
        "degraded": outcome.degraded,
        "error_kind": outcome.error_kind,
        "error": outcome.error,
    }
