"""What a run over rows leaves behind, as pandas objects and as rows of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from moa_nb.frames.outcome import STATES, Outcomes
from moa_nb.frames.texts import series
from moa_nb.pipeline.agreement import proposals
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.result import Result
from moa_nb.store.runs import LedgerRow

__all__ = ["Tally", "column", "doubtful", "errors", "layer_texts", "report", "review", "said"]

_NUMBERS = {
    "n_calls": "Int64",
    "prompt_tokens": "Int64",
    "completion_tokens": "Int64",
    "cost": "Float64",
    "seconds": "Float64",
    "n_cached": "Int64",
    "degraded": "boolean",
    "agreement": "Float64",
}


# Row by row --------------------------------------------------------------------------------------


def report(outcomes: Outcomes, index: pd.Index[Any]) -> pd.DataFrame:
    """Return a row for each row: state, calls, tokens, dollars, seconds, cached, degraded, agreement, error."""
    states = outcomes.states
    states[states == 0] = STATES.index("not asked")
    columns: dict[str, Any] = {
        "state": pd.Categorical.from_codes(states, pd.Index(STATES)).remove_unused_categories(),
        **{name: _nullable(outcomes.column(name), dtype) for name, dtype in _NUMBERS.items()},
    }
    for place, name in enumerate(("error_kind", "error")):
        columns[name] = errors(outcomes, index, place)
    return pd.DataFrame(columns, index=index)


def column(outcomes: Outcomes, name: str, index: pd.Index[Any]) -> pd.Series[Any]:
    """Return one of the numbers of the report."""
    return pd.Series(_nullable(outcomes.column(name), _NUMBERS[name]), index=index, name=name)


def errors(outcomes: Outcomes, index: pd.Index[Any], place: int = 1) -> pd.Series[Any]:
    """Return why each row has no answer; with ``place=0`` the kind of each error."""
    known = dict(outcomes.errors)
    said = [known[position][place] if position in known else None for position in range(len(outcomes))]
    return series(said, index, ("error_kind", "error")[place])


def _nullable(numbers: np.ndarray[Any, Any], dtype: Any) -> Any:
    """Return numbers as an array of a nullable dtype; what is negative is missing."""
    is_missing = numbers < 0
    column = pd.array((numbers > 0) if dtype == "boolean" else numbers, dtype=dtype)
    column[is_missing] = pd.NA
    return column


Agent = tuple[str, str]
"""A layer's name and an agent's in it."""


def layer_texts(results: Sequence[Mapping[Agent, str | None]], index: pd.Index[Any]) -> pd.DataFrame:
    """Return a column for each layer and agent, from what each row's agents said."""
    agents = list(dict.fromkeys(agent for result in results for agent in result))
    columns = [series([result.get(agent) for result in results], index) for agent in agents]
    frame = pd.DataFrame(dict(enumerate(columns)), index=index)
    frame.columns = pd.MultiIndex.from_tuples(agents, names=["layer", "agent"]) if agents else pd.Index([])
    return frame


def said(result: Result) -> dict[Agent, str | None]:
    """Return what each agent said; ``None`` where it failed."""
    return {(layer.name, call.agent): call.text if call.ok else None for layer in result.layers for call in layer.calls}


# What a person should look at --------------------------------------------------------------------


def doubtful(outcomes: Outcomes, below: float) -> list[int]:
    """Return the rows that failed, are degraded, or whose agents agree less than ``below``; the least agreed on first."""
    agreement, degraded = outcomes.column("agreement"), outcomes.column("degraded")
    is_low = (agreement >= 0) & (agreement < below)
    has_failed = outcomes.states == STATES.index("failed")
    places = np.flatnonzero(is_low | (degraded > 0) | has_failed)
    # One that failed agrees with nothing; degraded ones of a single agent come last.
    ranks = np.where(has_failed, -1.0, np.where(agreement < 0, 2.0, agreement))
    return [int(place) for place in places[np.argsort(ranks[places], kind="stable")]]


def review(
    outcomes: Outcomes,
    index: pd.Index[Any],
    places: Sequence[int],
    results: Sequence[Result | None],
    form: Form | None = None,
) -> pd.DataFrame:
    """Return a row for each of ``places``: where it is, how far it is agreed on, why to look, and who said what.

    Of a ``form`` with a single field, answers are that field's values.
    """
    shown = _field(form)
    said: list[dict[str, Any]] = []
    for place, result in zip(places, results, strict=True):
        outcome = outcomes[place]
        assert outcome is not None
        why = outcome.error or ("degraded: " + "; ".join(result.notes) if outcome.degraded and result else "")
        said.append(
            {
                "position": place,
                "agreement": outcome.agreement,
                "why": why or "disagreement",
                "answer": shown(outcome.text),
            }
            | (
                {}
                if result is None
                else {call.agent: shown(call.text) if call.ok else None for call in proposals(result)}
            )
        )
    fixed = ["position", "agreement", "why", "answer"]
    names = list(dict.fromkeys([*fixed, *(name for row in said for name in row)]))
    rows = index.take(places)
    made = {name: series([row.get(name) for row in said], rows) for name in names[2:]}
    numbers = {
        "position": pd.array([row["position"] for row in said], dtype="Int64"),
        "agreement": pd.array([row["agreement"] for row in said], dtype="Float64"),
    }
    return pd.DataFrame({**numbers, **made}, index=rows)


def _field(form: Form | None) -> Callable[[str | None], str | None]:
    """Return what shows an answer: of a form with a single field its value, as far as it can be read."""

    def shown(text: str | None) -> str | None:
        if text is None or form is None or len(form.names) > 1:
            return text
        value = form.read(text)
        said = text if value is None else value[form.names[0]]
        return said if said is None else ", ".join(map(str, said)) if isinstance(said, list) else str(said)

    return shown


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
    estimated: int = 0
    saved: float = 0.0
    saved_tokens: int = 0
    seconds: float = 0.0


@dataclass
class Tally:
    """Sums by layer and model. Tokens, dollars and seconds are those of calls that were sent and reported."""

    counts: dict[tuple[str, str], _Count] = field(default_factory=dict)
    keys: bytearray = field(default_factory=bytearray)
    """Of the answers that were used, as the store keeps them: 16 bytes each."""

    def add(self, result: Result) -> set[str]:
        """Return the models to which a row's calls went out; they are counted."""
        asked = set()
        for layer in result.layers:
            for call in layer.calls:
                if call.error_kind in {"budget", "cancelled"}:
                    continue
                count = self.counts.get((layer.name, call.model))
                if count is None:
                    count = self.counts[layer.name, call.model] = _Count()
                count.calls += 1
                count.cached += call.cached
                count.failed += not call.ok
                if call.key is not None:
                    self.keys += bytes.fromhex(call.key)
                if call.cached:
                    count.saved += call.saved or 0.0
                    count.saved_tokens += call.usage.total_tokens or 0
                else:
                    asked.add(call.model)
                    count.prompt_tokens += call.usage.prompt_tokens or 0
                    count.completion_tokens += call.usage.completion_tokens or 0
                    count.seconds += call.seconds
                    count.cost += call.cost or 0.0
                    count.unpriced += call.ok and call.cost is None
                    count.estimated += call.usage.estimated
        return asked

    @property
    def prompt_tokens(self) -> int:
        """Of all calls that were sent."""
        return sum(count.prompt_tokens for count in list(self.counts.values()))

    @property
    def completion_tokens(self) -> int:
        """Of all calls that were sent."""
        return sum(count.completion_tokens for count in list(self.counts.values()))

    @property
    def estimated(self) -> set[tuple[str, str]]:
        """The layers and models whose tokens are estimates, some of them at least."""
        return {place for place, count in list(self.counts.items()) if count.estimated}

    @property
    def saved(self) -> float:
        """Dollars that the cached answers took when they were asked."""
        return sum(count.saved for count in list(self.counts.values()))

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
