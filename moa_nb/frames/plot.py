"""The report of a run as a picture, for slides: drawn with matplotlib where it is installed."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moa_nb.errors import SetupError
from moa_nb.panels import figures
from moa_nb.panels.frame_report.view import BELOW, LatencyView, ReportView
from moa_nb.panels.frame_report.words import bare, cost_in_words, duration, rows_in_words
from moa_nb.panels.html import AMBER, BLUE, GREEN, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["plot", "shows_itself"]

_INCHES = (11.0, 6.4)
_DPI = 144
_MODELS, _KINDS = 8, 6
_PLACES = 4
"""Bars for which there is room at least, so that a single one is no wall."""
_LONG = 36


def plot(view: ReportView) -> Figure:
    """Return a matplotlib figure of four small panels: cost by layer and model, seconds, agreement, failures.

    It shows itself in a notebook; ``figure.savefig("report.png")`` keeps it.

    Raises:
        SetupError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        msg = "run.plot() draws with matplotlib, which is not installed: pip install matplotlib"
        raise SetupError(msg) from error
    # A model's name with dollar signs or backslashes in it is a name, not a formula.
    with mpl.rc_context({"text.parse_math": False, "text.usetex": False, "font.size": 10}):
        figure: Figure = shows_itself()(figsize=_INCHES, layout="constrained")
        (costs, seconds), (agreement, failures) = figure.subplots(2, 2)
        figure.suptitle(_title(view), fontsize=12, fontweight="bold")
        for axes in (costs, seconds, agreement, failures):
            axes.spines[["top", "right"]].set_visible(False)
        _draw_costs(costs, view)
        _draw_seconds(seconds, view)
        _draw_agreement(agreement, view)
        _draw_failures(failures, view)
    return figure


@functools.cache
def shows_itself() -> Any:
    """Return a class of figures that show themselves whatever the backend, and take no part in pyplot's."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=_DPI)
            return file.getvalue()

    return Picture


def _title(view: ReportView) -> str:
    what = f"{bare(view.verb, 40)} {bare(view.column, 40)}".strip()
    pipeline = f", {bare(view.pipeline, 40)}" if view.pipeline else ""
    cost = cost_in_words(view.cost, at_least=view.cost_is_at_least)
    return f"{what}{pipeline}: {cost}, {', '.join(rows_in_words(view))} of {view.rows:,} {view.noun}s"


def _draw_costs(axes: Axes, view: ReportView) -> None:
    axes.set_title("Cost by layer and model", loc="left")
    shown = view.models[:_MODELS]
    if not shown:
        _say(axes, "no calls")
        return
    is_priced = any(one.cost for one in shown)
    amounts = [(one.cost or 0.0) if is_priced else float(one.completion_tokens) for one in shown]
    places = range(len(shown))
    bars = axes.barh(places, amounts, color=BLUE, height=0.65)
    axes.set_yticks(places, [bare(f"{one.layer}: {one.model}", _LONG) for one in shown])
    axes.set_ylim(max(len(shown), _PLACES) - 0.5, -0.5)
    words = [
        cost_in_words(one.cost) if is_priced or one.cost is None else f"{one.completion_tokens:,}" for one in shown
    ]
    axes.bar_label(bars, words, padding=4, fontsize=9)
    axes.margins(x=0.22)
    more = f" (the first {_MODELS} of {len(view.models)})" if len(view.models) > _MODELS else ""
    axes.set_xlabel(("dollars" if is_priced else "tokens written") + more)


def _draw_seconds(axes: Axes, view: ReportView) -> None:
    axes.set_title(f"Seconds a {view.noun}", loc="left")
    one = view.latency
    if one is None:
        _say(axes, "nothing was sent and answered")
        return
    axes.bar(one.edges, one.counts, width=one.step, align="edge", color=BLUE, edgecolor="white", linewidth=0.6)
    for name, at, style in (("median", one.median, "-"), ("p95", one.p95, "--")):
        axes.axvline(min(at, one.edges[-1] + one.step), color=AMBER, linestyle=style, label=f"{name} {duration(at)}")
    axes.set_xlabel("\n".join(["seconds", *_left_out(view, one)]), fontsize=9)
    axes.set_ylabel(f"{view.noun}s")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, borderaxespad=0.2)
    _count_whole(axes.yaxis)


def _left_out(view: ReportView, one: LatencyView) -> Iterator[str]:
    if one.longest >= one.edges[-1] + one.step:
        yield f"the last bar has all up to {duration(one.longest)}"
    if view.cached_rows:
        yield f"{figures.count(view.cached_rows, view.noun)} from the cache left out"


def _draw_agreement(axes: Axes, view: ReportView) -> None:
    axes.set_title("Agreement", loc="left")
    one = view.agreement
    if one is None:
        _say(axes, "no rows compared")
        return
    colours = [AMBER if tenth < round(10 * BELOW) else GREEN for tenth in range(10)]
    axes.bar(
        [tenth / 10 for tenth in range(10)],
        one.counts,
        width=0.1,
        align="edge",
        color=colours,
        edgecolor="white",
        linewidth=0.6,
    )
    axes.set_xlim(0, 1)
    _count_whole(axes.yaxis)
    axes.set_xlabel(f"{one.n_below:,} of {one.n_rows:,} below {BELOW}")
    axes.set_ylabel(f"{view.noun}s")


def _draw_failures(axes: Axes, view: ReportView) -> None:
    axes.set_title("Failures by kind", loc="left")
    shown = view.failures[:_KINDS]
    if not shown:
        _say(axes, "none")
        return
    places = range(len(shown))
    bars = axes.barh(places, [one.n_rows for one in shown], color=RED, height=0.65)
    axes.set_yticks(places, [bare(one.kind, _LONG) for one in shown])
    axes.set_ylim(max(len(shown), _PLACES) - 0.5, -0.5)
    axes.bar_label(bars, [f"{one.n_rows:,}" for one in shown], padding=4, fontsize=9)
    axes.margins(x=0.15)
    _count_whole(axes.xaxis)
    axes.set_xlabel(f"{view.noun}s")


def _count_whole(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))


def _say(axes: Axes, words: str) -> None:
    axes.set_axis_off()
    axes.text(0.0, 0.9, words, transform=axes.transAxes, color="0.4", va="top")
