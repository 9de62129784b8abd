"""The words for the figures of a run over rows, the same in every form of its report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moa_nb.panels import figures
from moa_nb.panels.frame_report.view import BELOW, LatencyView, ModelView, ReportView
from moa_nb.plain import to_plain

__all__ = [
    "agreement_in_words",
    "bare",
    "cost_in_words",
    "duration",
    "flow",
    "from_cache_in_words",
    "latency_in_words",
    "notes",
    "ranges",
    "rows_in_words",
    "state_in_words",
    "tokens_in_words",
    "total",
]


def bare(text: str, width: int = 120) -> str:
    r"""Return ``text`` on one line of at most about ``width`` characters, with nothing that hides or reorders.

    >>> bare("lab:\x1b[31mred\nmodel"), bare("x" * 9, 4)
    ('lab:red model', 'xxxx…')
    """
    line = " ".join(to_plain(text[: 4 * width]).split())
    return line if len(line) <= width and len(text) <= 4 * width else f"{line[:width]}…"


def duration(seconds: float | None) -> str:
    """Return seconds with their unit; two digits below one second.

    >>> duration(0.0134), duration(2.15), duration(3725), duration(None)
    ('0.013 s', '2.1 s', '62 min', '–')
    """
    if seconds is None:
        return figures.UNKNOWN
    if seconds < 0.001:
        return "<0.001 s" if seconds else "0 s"
    if seconds < 1:
        return f"{float(f'{seconds:.2g}'):.5f}".rstrip("0").rstrip(".") + " s"
    value = figures.seconds(seconds)
    return value if " " in value else f"{value} s"


def state_in_words(view: ReportView) -> str:
    """Return the state of the run; of one that goes on, how far it is."""
    if view.state == "running":
        return f"running, {view.n_over:,} of {figures.count(view.rows, view.noun)}; as it is after {duration(view.seconds)}"
    return {"waiting": "not begun", "failed": "ended by an error"}.get(view.state, view.state)


def rows_in_words(view: ReportView) -> list[str]:
    """Return how many rows are in each state, and how many of those answered are degraded."""
    return [
        f"{number:,} {state}" + (f" ({view.degraded:,} degraded)" if state == "done" and view.degraded else "")
        for state, number in view.states
    ]


def cost_in_words(cost: float | None, *, at_least: bool = False, sign: str = "$") -> str:
    """Return dollars, never a guess.

    >>> cost_in_words(0.0123), cost_in_words(0.0123, at_least=True), cost_in_words(None)
    ('$0.0123', 'at least $0.0123', 'unknown cost')
    """
    if cost is None:
        return "unknown cost"
    return f"{'at least ' if at_least else ''}{sign}{figures.dollars(cost)}"


def tokens_in_words(number: int, view: ReportView) -> str:
    """Return a sum of tokens; unknown where nothing of it was reported."""
    said = figures.tokens(number, estimated=view.estimated)
    if view.tokens_are_at_least:
        return f"at least {said}" if number else "unknown"
    return said


def flow(one: ModelView) -> str:
    """Return the tokens of a model, in and out."""
    sent, came = (figures.tokens(n, estimated=one.estimated) for n in (one.prompt_tokens, one.completion_tokens))
    return f"{sent} → {came}"


def latency_in_words(view: ReportView) -> str:
    """Return how long rows took that were asked now."""
    one = view.latency
    if one is None:
        return f"no {view.noun} was asked and answered{' yet' if view.goes_on else ''}"
    return f"median {duration(one.median)}, p95 {duration(one.p95)}, longest {duration(one.longest)}"


def from_cache_in_words(view: ReportView) -> str:
    """Return how many rows the store answered, which stand apart; empty without any."""
    if not view.cached_rows:
        return ""
    return f"{figures.count(view.cached_rows, view.noun)} wholly from the cache left out, median {duration(view.cached_seconds)}"


def agreement_in_words(view: ReportView) -> str:
    """Return how many rows are doubtful, and how many nobody has compared."""
    one = view.agreement
    if one is None:
        return f"no {view.noun}s compared: one agent answers alone, or run.agreement was not looked at yet"
    unknown = f"; {figures.count(one.n_uncompared, view.noun)} not compared" if one.n_uncompared else ""
    return f"{one.n_below:,} of {figures.count(one.n_rows, view.noun)} below {BELOW}{unknown}"


def ranges(latency: LatencyView) -> list[str]:
    """Return each bar's range of seconds.

    >>> ranges(LatencyView((0.5, 1.0, 1.5), 0.5, (3, 2, 1), 0.8, 3.9, 3.92))
    ['0.5 to 1.0', '1.0 to 1.5', '1.5 to 4.0']
    """
    places = max(0, -math.floor(math.log10(latency.step)))
    longest = math.ceil(latency.longest * 10**places) / 10**places  # no row is longer than its bar says
    ends = [*latency.edges[1:], max(longest, latency.edges[-1] + latency.step)]
    return [f"{low:,.{places}f} to {high:,.{places}f}" for low, high in zip(latency.edges, ends, strict=True)]


def total(models: Sequence[ModelView]) -> ModelView:
    """Return the sum over models; ``cost`` is that of the priced ones."""
    n_sent = sum(one.calls - one.cached for one in models)
    seconds = sum((one.mean_seconds or 0.0) * (one.calls - one.cached) for one in models)
    return ModelView(
        "all",
        "",
        sum(one.calls for one in models),
        sum(one.cached for one in models),
        sum(one.failed for one in models),
        sum(one.prompt_tokens for one in models),
        sum(one.completion_tokens for one in models),
        sum(one.cost or 0.0 for one in models),
        seconds / n_sent if n_sent else None,
        any(one.estimated for one in models),
    )


def notes(view: ReportView) -> list[str]:
    """Return what a reader must know to read the figures rightly, a sentence each."""
    said = []
    if view.cost_is_at_least:
        said.append(
            "Some attempts may be billed though no service reported them: dollars are at least what stands here."
        )
    if view.cost is None:
        said.append("Some calls have no known price, so the whole cost is unknown; prices can be set under models.")
    if view.tokens_are_at_least:
        said.append("Some services did not report tokens: counts are at least what stands here.")
    if view.calls and not view.models and not view.goes_on:
        said.append("Figures by layer and model are not kept; tokens are those of the rows, cached calls included.")
    if view.unsent:
        said.append(f"{figures.count(view.unsent, 'call')} of the {view.calls:,} did not go out: the budget or a stop.")
    if view.earlier_calls:
        said.append(
            f"{figures.count(view.earlier_calls, 'call')} of an earlier run for rows that were answered then are in run.report, not here."
        )
    return said
