"""A run as the store keeps it: its row, what each of its models took, its record."""

from __future__ import annotations

from typing import Any

from moa_nb.pipeline.result import Result
from moa_nb.store.runs import LedgerRow, RunRow

__all__ = ["ledger_rows", "run_rows"]


def run_rows(result: Result, kind: str, title: str, began: float) -> tuple[RunRow, list[LedgerRow], dict[str, Any]]:
    """Return a run as the store keeps it: its row, a ledger row for each model, its record."""
    calls = result.calls
    row = RunRow(
        id=result.run_id,
        at=began,
        kind=kind,
        pipeline=result.pipeline,
        state="stopped" if result.stop_reason == "stopped" else "done" if result.error is None else "failed",
        title=" ".join(title.split())[:120],
        calls=len(calls),
        cached=sum(call.cached for call in calls),
        failed=sum(not call.ok for call in calls),
        prompt_tokens=result.usage.prompt_tokens,
        completion_tokens=result.usage.completion_tokens,
        cost=result.cost,
        saved=result.saved,
        seconds=result.seconds,
    )
    return row, ledger_rows(result), result.to_record()


def ledger_rows(result: Result) -> list[LedgerRow]:
    """Return what each model of a run took; cached answers count their tokens as saved, not as used."""
    rows = []
    for model in dict.fromkeys(call.model for call in result.calls):
        calls = [call for call in result.calls if call.model == model]
        paid = [call for call in calls if not call.cached]
        costs = [call.cost for call in paid if call.cost is not None]
        rows.append(
            LedgerRow(
                model=model,
                calls=len(calls),
                cached=len(calls) - len(paid),
                prompt_tokens=sum(call.usage.prompt_tokens or 0 for call in paid),
                completion_tokens=sum(call.usage.completion_tokens or 0 for call in paid),
                cost=sum(costs),
                saved=sum(call.saved or 0.0 for call in calls),
                saved_tokens=sum(call.usage.total_tokens or 0 for call in calls if call.cached),
                unpriced=sum(call.ok and call.cost is None for call in paid),
            ),
        )
    return rows
