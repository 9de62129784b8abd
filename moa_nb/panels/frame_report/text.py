"""The report of a run over rows as Markdown and as plain text, for readers of a saved file and for terminals."""

from __future__ import annotations

from collections.abc import Sequence

from moa_nb.panels import figures
from moa_nb.panels.frame_report.view import BELOW, ReportView
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
)
from moa_nb.panels.markdown import inline_markdown

__all__ = ["markdown", "markdown_table", "plain"]

_MODELS, _FAILURES, _COLUMNS = 30, 8, 6
_PLAIN_MODELS, _PLAIN_FAILURES = 8, 4
_CELL, _ERROR = 200, 200


def markdown(view: ReportView) -> str:
    """Return the report as Markdown; amounts stand without dollar signs, which many readers take for mathematics."""
    parts = [f"**{inline_markdown(_title(view))}** {inline_markdown(_summary(view, 'USD '))}"]
    parts.append(inline_markdown(_rows(view).replace("$", "USD ")))
    if view.error is not None:
        parts.append(f"**{inline_markdown(bare(view.error, _ERROR))}**")
    parts += [f"*{inline_markdown(note)}*" for note in notes(view)]
    if view.models:
        rows = [
            (
                bare(one.layer, 60),
                bare(one.model),
                *map(str, (one.calls, one.cached, one.failed)),
                flow(one),
                _cost(one.cost),
                duration(one.mean_seconds),
            )
            for one in view.models[:_MODELS]
        ]
        heads = ("layer", "model", "calls", "cached", "failed", "in → out", "USD", "a call")
        parts += ["**Cost by layer and model**", markdown_table(heads, rows, "llrrrrrr")]
        if len(view.models) > _MODELS:
            parts.append(f"… {figures.count(len(view.models) - _MODELS, 'more line')} in run.by\\_model")
    if view.was_asked:
        parts.append(f"**Seconds a {view.noun}** {inline_markdown(_latency(view))}")
    if view.latency is not None:
        counted = zip(ranges(view.latency), map(str, view.latency.counts), strict=True)
        parts.append(markdown_table(("seconds", f"{view.noun}s"), [*counted], "lr"))
    if view.was_asked:
        parts.append(f"**Agreement** {inline_markdown(_agreement(view))}")
    if view.agreement is not None:
        tenths = [
            (f"{n / 10:.1f} to {(n + 1) / 10:.1f}", str(number)) for n, number in enumerate(view.agreement.counts)
        ]
        parts.append(markdown_table(("agreement", f"{view.noun}s"), tenths, "lr"))
    if view.failures:
        kinds = [
            (bare(one.kind, 30), str(one.n_rows), bare(one.label, 40), bare(one.error, _ERROR))
            for one in view.failures[:_FAILURES]
        ]
        parts += [
            "**Failures by kind**",
            markdown_table(("kind", f"{view.noun}s", "first at", "error"), kinds, "lrll"),
        ]
    if view.head:
        parts += ["**Values**", _values(view)]
    return "\n\n".join(parts) + "\n"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], aligns: str = "") -> str:
    """Return a table, every cell escaped.

    Args:
        heads: of its columns.
        rows: a cell for each column.
        aligns: a letter for each column, ``r`` for one of numbers; words where it ends.
    """
    rules = ["---:" if letter == "r" else "---" for letter in aligns.ljust(len(heads), "l")]
    heading, *drawn = ["| " + " | ".join(map(inline_markdown, line)) + " |" for line in (heads, *rows)]
    return "\n".join([heading, "| " + " | ".join(rules) + " |", *drawn])


def plain(view: ReportView) -> str:
    """Return the report in some twenty lines for a terminal."""
    lines = [f"{_title(view)}: {_summary(view, '$')}", f"  {_rows(view)}"]
    if view.error is not None:
        lines.append(f"  {bare(view.error, _ERROR)}")
    lines += [f"  {note}" for note in notes(view)]
    lines += _aligned(
        [
            (
                bare(f"{one.layer}: {one.model}", 48),
                figures.count(one.calls, "call"),
                f"{one.cached:,} cached" if one.cached else "",
                flow(one),
                _cost(one.cost, "$"),
                duration(one.mean_seconds),
            )
            for one in view.models[:_PLAIN_MODELS]
        ]
    )
    if len(view.models) > _PLAIN_MODELS:
        lines.append(f"  … {len(view.models) - _PLAIN_MODELS:,} more in run.by_model")
    if view.was_asked:
        lines += [f"  seconds a {view.noun}: {_latency(view)}", f"  agreement: {_agreement(view)}"]
    lines += [
        f"  {bare(one.kind, 30)}: {figures.count(one.n_rows, view.noun)}, first at {bare(one.label, 40)}: {bare(one.error, 120)}"
        for one in view.failures[:_PLAIN_FAILURES]
    ]
    return "\n".join(lines)


def _title(view: ReportView) -> str:
    return f"{bare(view.verb, 40)} {bare(view.column)}".strip()


def _summary(view: ReportView, sign: str) -> str:
    cost = cost_in_words(view.cost, at_least=view.cost_is_at_least, sign=sign)
    if view.projected_cost is not None:
        cost += f" (≈{sign}{figures.dollars(view.projected_cost)} in the end)"
    cached = f" ({view.cached:,} cached)" if view.cached else ""
    parts = [
        cost,
        f"{tokens_in_words(view.prompt_tokens, view)} tokens in",
        f"{tokens_in_words(view.completion_tokens, view)} out",
        f"{figures.count(view.calls, 'call')}{cached}",
        duration(view.seconds),
    ]
    pipeline = f"{bare(view.pipeline)}: " if view.pipeline else ""
    return f"{pipeline}{state_in_words(view)}; {', '.join(parts)}"


def _rows(view: ReportView) -> str:
    rows = f"{figures.count(view.rows, view.noun)}: {', '.join(rows_in_words(view))}"
    return rows if view.budget is None else f"{rows}; {view.budget}"


def _latency(view: ReportView) -> str:
    return "; ".join(filter(None, (latency_in_words(view), from_cache_in_words(view))))


def _agreement(view: ReportView) -> str:
    hint = f": run.review(below={BELOW})" if view.agreement is not None and view.agreement.n_below else ""
    return agreement_in_words(view) + hint


def _cost(cost: float | None, sign: str = "") -> str:
    return "unknown" if cost is None else f"{sign}{figures.dollars(cost)}"


def _values(view: ReportView) -> str:
    heads = [bare(view.index, 40), "state", *(bare(name, 40) for name in view.columns[:_COLUMNS])]
    rows = [
        [
            bare(row.label, 40),
            row.state,
            *(figures.UNKNOWN if cell is None else bare(cell, _CELL) for cell in row.values[:_COLUMNS]),
        ]
        for row in view.head
    ]
    return markdown_table(heads, rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(6)]
    return [
        "  "
        + "  ".join(
            [f"{row[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
