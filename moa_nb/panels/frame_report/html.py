"""The report of a run over rows as static HTML, in the manner of ``html``: no script, no style sheet, no picture.

Everything a user, a model or a service wrote is put on one line, cut and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from moa_nb.panels import figures
from moa_nb.panels.colours import tinted
from moa_nb.panels.frame_report.view import BELOW, AgreementView, LatencyView, ModelView, ReportView
from moa_nb.panels.frame_report.words import (
    agreement_in_words,
    bare,
    cost_in_words,
    duration,
    flow,
    from_cache_in_words,
    latency_in_words,
    notes,
    ranges,
    rows_in_words,
    state_in_words,
    tokens_in_words,
    total,
)
from moa_nb.panels.html import AMBER, BLUE, GREEN, GREY, RED
from moa_nb.panels.templates import template

__all__ = ["report", "values_table"]

_MODELS, _FAILURES, _COLUMNS = 30, 8, 6
"""How many are shown of each; the rest is counted."""
_CELL, _ERROR = 240, 300

_DOTS = {"waiting": GREY, "running": BLUE, "done": GREEN, "failed": RED, "stopped": AMBER}
_STATES = {
    "done": GREEN,
    "duplicate": BLUE,
    "skipped": GREY,
    "failed": RED,
    "stopped": AMBER,
    "not asked": AMBER,
    "still to come": "",
}


def report(view: ReportView) -> str:
    """Return the whole report; what does not fit is counted, and where to find it is said."""
    models = [_model(one, view.models) for one in view.models[:_MODELS]]
    for above, below in zip(reversed(models[:-1]), reversed(models[1:]), strict=True):
        # A layer's name stands once, over its models.
        below["layer"] = "" if below["layer"] == above["layer"] else below["layer"]
    return str(
        template("report").render(
            head=_head(view),
            error="" if view.error is None else bare(view.error, _ERROR),
            red=tinted(RED),
            states=[
                {"share": f"{100 * number / max(view.rows, 1):.2f}", "colour": _STATES[state], "words": words}
                for (state, number), words in zip(view.states, rows_in_words(view), strict=True)
            ],
            noun=view.noun,
            was_asked=view.was_asked,
            budget=view.budget or "",
            notes=notes(view),
            models=models,
            measure="dollars" if any(one.cost for one in view.models) else "tokens",
            total=_total(view.models) if len(view.models) > 1 else None,
            more_models=figures.count(len(view.models) - _MODELS, "more line") if len(view.models) > _MODELS else "",
            latency=latency_in_words(view),
            latency_bars=[] if view.latency is None else [*_latency_bars(view.latency)],
            from_cache=from_cache_in_words(view),
            agreement=agreement_in_words(view),
            hint=f"run.review(below={BELOW})",
            agreement_bars=[] if view.agreement is None else [*_agreement_bars(view.agreement)],
            failures=[
                {
                    "kind": bare(one.kind, 30),
                    "rows": f"{one.n_rows:,}",
                    "label": bare(one.label, 40),
                    "error": bare(one.error, _ERROR),
                }
                for one in view.failures[:_FAILURES]
            ],
            values=values_table(view.columns, view.index, [(row.label, row.state, row.values) for row in view.head]),
            more_rows=f"the first {len(view.head)} of {view.rows:,}" if len(view.head) < view.rows else "",
        )
    )


def values_table(
    columns: Sequence[str], index: str, rows: Iterable[tuple[str, str, Sequence[str | None]]]
) -> dict[str, Any]:
    """Return what the template shows of values: heads, and each row's label, state and cells, all cut."""
    left_out = len(columns) - _COLUMNS
    return {
        "index": bare(index, 40),
        "columns": [bare(name, 40) for name in columns[:_COLUMNS]],
        "rows": [
            {
                "label": bare(label, 40),
                "state": state,
                "colour": tinted(_STATES[state]) if _STATES.get(state) and state != "skipped" else "",
                "cells": [figures.UNKNOWN if cell is None else bare(cell, _CELL) for cell in cells[:_COLUMNS]],
            }
            for label, state, cells in rows
        ],
        "more": f"{figures.count(left_out, 'more column')} in run.values" if left_out > 0 else "",
    }


# -- what the template is given -------------------------------------------------------------------


def _head(view: ReportView) -> dict[str, Any]:
    pipeline = f"{bare(view.pipeline)}: " if view.pipeline else ""
    return {
        "pipeline": f"{bare(view.verb, 40)} {bare(view.column)}".strip(),
        "words": pipeline + state_in_words(view),
        "flags": (),
        "colour": _DOTS[view.state],
        "odd": tinted(AMBER),
        "figures": [*_figures(view)],
    }


def _figures(view: ReportView) -> Iterator[dict[str, Any]]:
    words = cost_in_words(view.cost, at_least=view.cost_is_at_least)
    saved = f"; cached answers once took ${figures.dollars(view.saved)}" if view.saved else ""
    in_the_end = "" if view.projected_cost is None else f"≈${figures.dollars(view.projected_cost)} in the end"
    title = "" if view.cost is None else f"${view.cost:.10f}".rstrip("0").rstrip(".") + saved
    yield {"value": words, "unit": in_the_end, "title": title, "strong": view.cost is not None}
    title = "tokens of calls that were sent: reported, or estimated where a service reports none"
    yield {"value": tokens_in_words(view.prompt_tokens, view), "unit": "in", "title": title, "strong": False}
    yield {"value": tokens_in_words(view.completion_tokens, view), "unit": "out", "title": title, "strong": False}
    number, noun = figures.count(view.calls, "call").split(" ")
    cached = f", {view.cached:,} cached" if view.cached else ""
    yield {"value": number, "unit": noun + cached, "title": "", "strong": False}
    value, unit = duration(view.seconds).split(" ")
    yield {"value": value, "unit": unit, "title": "", "strong": False}
    if view.rows_per_second and view.state != "waiting":
        pace = view.rows_per_second
        yield {
            "value": f"{pace:,.0f}" if pace >= 10 else f"{pace:.2g}",
            "unit": f"{view.noun}s/s",
            "title": "",
            "strong": False,
        }


def _model(one: ModelView, among: Sequence[ModelView]) -> dict[str, Any]:
    measure = "cost" if any(other.cost for other in among) else "completion_tokens"
    most = max((getattr(other, measure) or 0 for other in among), default=0)
    share = 100 * (getattr(one, measure) or 0) / most if most else 0.0
    return {
        "layer": bare(one.layer, 60),
        "model": bare(one.model),
        "width": f"{share:.2f}",
        "colour": BLUE,
        "calls": f"{one.calls:,}",
        "cached": f"{one.cached:,}" if one.cached else "",
        "green": tinted(GREEN),
        "failed": f"{one.failed:,}" if one.failed else "",
        "red": tinted(RED),
        "tokens": flow(one),
        "cost": "unknown" if one.cost is None else figures.dollars(one.cost),
        "seconds": duration(one.mean_seconds).removesuffix(" s"),
    }


def _total(models: Sequence[ModelView]) -> dict[str, Any]:
    said = _model(total(models), ())
    if any(one.cost is None for one in models):
        said["cost"] = f"≥{said['cost']}" if any(one.cost for one in models) else "unknown"
    return said


def _latency_bars(latency: LatencyView) -> Iterator[dict[str, str]]:
    marks: dict[int, list[str]] = {}
    for name, seconds in (("median", latency.median), ("p95", latency.p95)):
        marks.setdefault(latency.bar_of(seconds), []).append(name)
    for place, (label, number) in enumerate(zip(ranges(latency), latency.counts, strict=True)):
        yield _bar(f"{label} s", number, max(latency.counts), BLUE, ", ".join(marks.get(place, ())))


def _agreement_bars(agreement: AgreementView) -> Iterator[dict[str, str]]:
    most = max(agreement.counts)
    for tenth, number in enumerate(agreement.counts):
        colour = AMBER if tenth < round(10 * BELOW) else GREEN
        yield _bar(f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}", number, most, colour, "")


def _bar(label: str, number: int, most: int, colour: str, mark: str) -> dict[str, str]:
    width = f"{100 * number / max(most, 1):.2f}"
    return {"label": label, "number": f"{number:,}", "width": width, "colour": colour, "mark": mark}
