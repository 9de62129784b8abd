"""What a run over rows leaves behind, as pandas objects and as rows of the ledger."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import pandas as pd

from moa_nb.frames.outcome import Outcome
from moa_nb.pipeline.result import Result
from moa_nb.store.runs import LedgerRow

__all__ = ["Tally", "answers", "layer_texts", "report", "said"]

_PANDAS = int(pd.__version__.partition(".")[0])

_TEXT: Any = "str" if _PANDAS >= 3 else "string"
"""The dtype of texts that pandas itself would choose."""

_REPORT: dict[str, Any] = {
    "state": "category",
    "n_calls": "Int64",
    "prompt_tokens": "Int64",
    "completion_tokens": "Int64",
    "cost": "Float64",
    "seconds": "Float64",
    "n_cached": "Int64",
    "degraded": "boolean",
    "error_kind": _TEXT,
    "error": _TEXT,
}

_NOT_ASKED = Outcome.unfinished(None)


# Row by row --------------------------------------------------------------------------------------


def texts(values: Sequence[str | None], index: pd.Index[Any], name: Hashable = None) -> pd.Series[Any]:
    """Return texts as a Series of the text dtype."""
    try:
        return pd.Series(values, index=index, name=name, dtype=_TEXT)
    except UnicodeEncodeError:  # half of a surrogate pair, which Arrow does not hold
        whole = [None if value is None else value.encode("utf-8", "replace").decode() for value in values]
        return pd.Series(whole, index=index, name=name, dtype=_TEXT)


def answers(outcomes: Sequence[Outcome | None], index: pd.Index[Any], name: Hashable) -> pd.Series[Any]:
    """Return the answer of each row; missing where there is none."""
    return texts([None if outcome is None else outcome.text for outcome in outcomes], index, name)


def report(outcomes: Sequence[Outcome | None], index: pd.Index[Any]) -> pd.DataFrame:
    """Return a row for each row: state, calls, tokens, dollars, seconds, cached, degraded, error."""
    known = [outcome or _NOT_ASKED for outcome in outcomes]
    return pd.DataFrame(
        {
            column: texts(list(map(attrgetter(column), known)), index)
            if dtype is _TEXT
            else pd.Series(list(map(attrgetter(column), known)), index=index, dtype=dtype)
            for column, dtype in _REPORT.items()
        },
        index=index,
    )


Agent = tuple[str, str]
"""A layer's name and an agent's in it."""


def layer_texts(results: Sequence[Mapping[Agent, str | None]], index: pd.Index[Any]) -> pd.DataFrame:
    """Return a column for each layer and agent, from what each row's agents said."""
    agents = list(dict.fromkeys(agent for result in results for agent in result))
    columns = [texts([result.get(agent) for result in results], index) for agent in agents]
    frame = pd.DataFrame(dict(enumerate(columns)), index=index)
    frame.columns = pd.MultiIndex.from_tuples(agents, names=["layer", "agent"]) if agents else pd.Index([])
    return frame


def said(result: Result) -> dict[Agent, str | None]:
    """Return what each agent said; ``None`` where it failed."""
    return {(layer.name, call.agent): call.text if call.ok else None for layer in result.layers for call in layer.calls}


# Sums --------------------------------------------------------------------------------------------


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
    saved_tokens: int = 0
    seconds: float = 0.0


@dataclass
class Tally:
    """Sums by layer and model. Tokens, dollars and seconds are those of calls that were sent and reported."""

    counts: dict[tuple[str, str], _Count] = field(default_factory=dict)
    keys: bytearray = field(default_factory=bytearray)
    """Of the answers that were used, as the store keeps them: 16 bytes each."""

    def add(self, result: Result) -> None:
        """Return nothing; count a row's calls."""
        for layer in result.layers:
            for call in layer.calls:
                if call.error_kind in {"budget", "cancelled"}:
                    continue
                count = self.counts.setdefault((layer.name, call.model), _Count())
                count.calls += 1
                count.cached += call.cached
                count.failed += not call.ok
                if call.key is not None:
                    self.keys += bytes.fromhex(call.key)
                if call.cached:
                    count.saved += call.saved or 0.0
                    count.saved_tokens += call.usage.total_tokens or 0
                else:
                    count.prompt_tokens += call.usage.prompt_tokens or 0
                    count.completion_tokens += call.usage.completion_tokens or 0
                    count.seconds += call.seconds
                    count.cost += call.cost or 0.0
                    count.unpriced += call.ok and call.cost is None

    @property
    def prompt_tokens(self) -> int:
        """Of all calls that were sent."""
        return sum(count.prompt_tokens for count in self.counts.values())

    @property
    def completion_tokens(self) -> int:
        """Of all calls that were sent."""
        return sum(count.completion_tokens for count in self.counts.values())

    @property
    def saved(self) -> float:
        """Dollars that the cached answers took when they were asked."""
        return sum(count.saved for count in self.counts.values())

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
            # Copied whole: the engine's thread may be counting meanwhile.
            for (layer, model), count in list(self.counts.items())
        ]
        columns = [
            "layer",
            "model",
            "calls",
            "cached",
            "failed",
            "prompt_tokens",
            "completion_tokens",
            "cost",
            "mean_seconds",
        ]
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
                (known.saved or 0.0) + count.saved,
                known.unpriced + count.unpriced,
                known.saved_tokens + count.saved_tokens,
            )
        return list(rows.values())
