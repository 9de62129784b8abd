"""Cost, or time, against quality as a picture, for slides: drawn by pandas with matplotlib where that is installed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from moa_nb.errors import SetupError
from moa_nb.evaluation.front import front
from moa_nb.frames.plot import shows_itself
from moa_nb.panels.colours import BLUE, GREY
from moa_nb.panels.evaluation import scatter
from moa_nb.panels.evaluation.words import listed
from moa_nb.panels.frame_report.words import bare

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["picture"]

_INCHES, _LARGER, _MANY = (8.0, 4.8), (10.0, 6.4), 9
_FONT = 10
_LABEL, _SHORT, _SOME = 28, 12, 4
_AXES = {"cost": ("dollars a row", "price", "free"), "seconds": ("seconds a row", "time", "0")}
"""What stands below, what is unknown where a pipeline has no place, and what stands at zero."""


def picture(table: pd.DataFrame, *, against: Literal["cost", "seconds"] = "cost", measure: str = "quality") -> Figure:
    """Return a matplotlib figure of quality against cost or seconds, the Pareto front drawn as steps.

    Costs that span more than a decade stand on a logarithmic axis, with free pipelines apart at its left end. A
    pipeline without a quality or without a known price has no place; the title says which. The figure shows itself in
    a notebook; ``figure.savefig("front.png")`` keeps it.

    Args:
        table: a row for each pipeline, named by the index; columns ``quality``, ``low``, ``high`` (its interval, or
            missing), ``cost`` (dollars a row, 0 is free) and ``seconds`` (a row).
        against: the column that quality is held against.
        measure: what quality is.

    Raises:
        SetupError: matplotlib is not installed, or the table lacks a column.

    >>> import pandas as pd
    >>> table = pd.DataFrame(
    ...     {"quality": [0.4, 0.6], "low": [0.3, 0.5], "high": [0.5, 0.7], "cost": [0.002, 0.012]},
    ...     index=["single", "moa"],
    ... )
    >>> figure = picture(table, measure="points")
    >>> figure.axes[0].get_ylabel()
    'points'
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        msg = 'a picture of cost and quality needs matplotlib: pip install "moa-nb[evaluation]"'
        raise SetupError(msg) from error
    missing = [name for name in ("quality", against) if name not in table.columns]
    if missing:
        msg = f"a picture of {against} against quality needs the column {missing[0]!r}"
        raise SetupError(msg)
    # A pipeline's name with dollar signs or backslashes in it is a name, not a formula.
    with mpl.rc_context({"text.parse_math": False, "text.usetex": False, "font.size": _FONT}):
        placed = _placed(table, against)
        across = scatter.from_zero([*placed["across"]], _AXES[against][2])
        placed = placed.assign(across=placed["across"].map(across.put))
        figure: Figure = shows_itself()(figsize=_INCHES if len(placed) < _MANY else _LARGER, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{'Cost' if against == 'cost' else 'Time'} against {bare(measure, _LABEL)}", loc="left")
        if placed.empty:
            axes.set_axis_off()
            axes.text(
                0.0, 0.9, "nothing to draw: no pipeline has both", transform=axes.transAxes, color="0.4", va="top"
            )
        else:
            _draw(axes, placed, across, measure, _AXES[against][0])
        said = _who_is_missing(table, placed, against)
        _say(figure, said)
        if not placed.empty:
            # Names come last: they need to know where the points are.
            unnamed = _name(axes, placed)
            _say(figure, [*said, *([f"Without a name for want of room: {_some(unnamed)}."] if unnamed else [])])
    return figure


def _placed(table: pd.DataFrame, against: str) -> pd.DataFrame:
    """Return the pipelines that have a place, those on the front first and from the left to the right."""
    import pandas as pd

    numbers = pd.DataFrame(
        {"across": table[against], **{name: table.get(name, math.nan) for name in ("quality", "low", "high")}},
        index=table.index,
    )
    numbers = numbers.astype("Float64").astype(float)
    placed = numbers.assign(name=[*map(str, table.index)], is_front=front(numbers["across"], numbers["quality"]))
    placed = placed.dropna(subset=["across", "quality"])
    return placed.sort_values(["is_front", "across"], ascending=[False, True], kind="stable", ignore_index=True)


def _draw(axes: Axes, shown: pd.DataFrame, across: scatter.Scale, measure: str, unit: str) -> None:
    """Draw the points, their intervals and the front."""
    ahead = shown[shown["is_front"]]
    ends = [*shown["quality"], *shown["low"].dropna(), *shown["high"].dropna()]
    room = 0.12 * (max(ends) - min(ends)) or max(0.05, 1e-6 * abs(ends[0]))
    for some, colour, inside in ((shown[~shown["is_front"]], GREY, "white"), (ahead, BLUE, BLUE)):
        if some.empty:
            continue
        known = some.dropna(subset=["low", "high"])
        some.plot(
            kind="scatter",
            x="across",
            y="quality",
            ax=axes,
            logx=across.is_log,
            zorder=4,
            s=56,
            c=inside,
            edgecolors=colour,
            linewidths=1.4,
        )
        axes.vlines(known["across"], known["low"], known["high"], colors=colour, linewidth=3, alpha=0.35)
    axes.set_xlim(across.low, across.high)
    axes.set_ylim(min(ends) - room, max(ends) + room)
    # The front goes on to the right: whoever pays more gets at least this.
    axes.step([*ahead["across"], across.high], [*ahead["quality"], ahead["quality"].iloc[-1]], where="post", color=BLUE)
    axes.set_xticks([tick for tick, _ in across.ticks], [word for _, word in across.ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color=GREY, alpha=0.18)
    axes.set_xlabel(f"{unit}{', logarithmic' if across.is_log else ''}")
    axes.set_ylabel(bare(measure, _LABEL))


def _name(axes: Axes, shown: pd.DataFrame) -> list[str]:
    """Write each name beside its point, where it covers no other; return those for which there is no room."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties

    figure: Any = axes.figure
    figure.draw_without_rendering()  # only now is it known where the points are
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    point = figure.dpi / 72
    box = axes.get_window_extent(renderer)
    at = axes.transData.transform(shown[["across", "quality"]].to_numpy())
    names = [(bare(name, _LABEL), bare(name, _SHORT)) for name in shown["name"]]
    font = FontProperties(size=_FONT)
    widths = [
        [1.02 * renderer.get_text_width_height_descent(name, font, ismath=False)[0] for name in both] for both in names
    ]
    labels = scatter.label_places(
        [(x - box.x0, box.y1 - y) for x, y in at],
        widths,
        (box.width, box.height),
        height=1.35 * _FONT * point,
        gap=6.5 * point,
        front=int(shown["is_front"].sum()),
    )
    for (_, row), both, label in zip(shown.iterrows(), names, labels, strict=True):
        if label is None:
            continue
        shift = -label.shift / point
        axes.annotate(
            both[label.which],
            (row["across"], row["quality"]),
            (7.0 if label.is_right else -7.0, shift),
            textcoords="offset points",
            ha="left" if label.is_right else "right",
            va="center",
            color="black" if row["is_front"] else "0.35",
            zorder=5,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7} if abs(shift) > 1.35 * _FONT else None,
        )
    return [both[0] for both, label in zip(names, labels, strict=True) if label is None]


def _who_is_missing(table: pd.DataFrame, placed: pd.DataFrame, against: str) -> list[str]:
    has_place = {*placed["name"]}
    unjudged = [str(name) for name, is_missing in table["quality"].isna().items() if is_missing]
    unknown = [name for name in map(str, table.index) if name not in has_place and name not in unjudged]
    said = [f"{_some(unknown)}, whose {_AXES[against][1]} is unknown"] if unknown else []
    said += [f"{_some(unjudged)}, of which nothing could be judged"] if unjudged else []
    return [f"Not in the picture: {'; '.join(said)}."] if said else []


def _say(figure: Figure, sentences: list[str]) -> None:
    if sentences:
        figure.supxlabel("\n".join(sentences), fontsize=9, color="0.35", x=0.01, ha="left")


def _some(names: list[str]) -> str:
    """Return names for a line of a picture; of too many the rest is counted."""
    shown = [bare(name, _LABEL) for name in names[:_SOME]]
    return listed([*shown, *([f"{len(names) - _SOME} more"] if len(names) > _SOME else [])])
