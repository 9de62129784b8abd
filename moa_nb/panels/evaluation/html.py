"""A comparison of pipelines as static HTML, in the manner of ``html``: no script, no style sheet, no picture file.

The two small pictures are boxes placed by percent; where a page loses its styles, each point is a line of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from moa_nb.panels import figures
from moa_nb.panels.colours import AMBER, BLUE, GREEN, GREY, KINDS, tinted
from moa_nb.panels.evaluation import scatter, words
from moa_nb.panels.evaluation.answer import headline
from moa_nb.panels.evaluation.view import EvaluationView, PipelineView
from moa_nb.panels.frame_report.words import bare, duration
from moa_nb.panels.templates import template

__all__ = ["MOST_PIPELINES", "panel"]

MOST_PIPELINES, _NARROW_HEADS = 20, 6
"""How many pipelines are shown at most; up to how many their names stand over the columns of wins."""
_WIDTH, _HEIGHT, _TALLER, _LINE, _GAP = 22.0, 13.0, 20.0, 1.3, 0.55
"""Of a picture, in em: its width where it is narrowest, its height, that for many pipelines, a label's; a point's radius and a little."""
_LABEL = 22
"""Characters of a name in a picture."""
_ENDS = {"share": (0.0, 1.0), "metric": (0.0, 1.0), "rating": (1.0, 10.0)}


def panel(view: EvaluationView) -> str:
    """Return the whole comparison; what does not fit is counted."""
    shown = view.ranked[:MOST_PIPELINES]
    more = len(view.pipelines) - len(shown)
    return str(
        template("evaluation").render(
            head=_head(view),
            answer=words.cut(headline(view)),
            reservations=words.cut(view.reservations),
            odd=AMBER,
            blue=BLUE,
            grey=GREY,
            green=tinted(GREEN),
            measure=words.measure(view),
            scale=_quality_scale(view),
            rows=[_row(view, place, one) for place, one in enumerate(shown, 1)],
            more=f"{figures.count(more, 'more pipeline')}, left out here: .table has all" if more > 0 else "",
            pictures=[*_pictures(view, shown)],
            wins=_wins(view, shown),
            folds=[
                {"title": title, "words": brief, "lines": words.cut(said)}
                for title, brief, said in words.sections(view)
            ],
            details=[_detail(one) for one in shown],
            notes=words.cut(view.notes),
        )
    )


def _head(view: EvaluationView) -> dict[str, Any]:
    paid = words.dollars(view.cost, at_least=view.cost_is_at_least, free="$0")
    number, noun = figures.count(sum(one.n_calls or 0 for one in view.pipelines) + view.judging_calls, "call").split(
        " "
    )
    said: list[dict[str, Any]] = [
        {"value": paid, "unit": "paid now", "title": "answers and judging, without what was cached", "strong": True},
        {"value": number, "unit": noun, "title": "of all pipelines and judges, cached ones included", "strong": False},
    ]
    if view.seconds is not None:
        value, unit = duration(view.seconds).split(" ")
        said.append({"value": value, "unit": unit, "title": "", "strong": False})
    return {
        "pipeline": f"compare {bare(view.column)}".strip(),
        "words": words.about(view),
        "flags": (),
        "colour": GREEN,
        "odd": tinted(AMBER),
        "figures": said,
    }


# -- the table ------------------------------------------------------------------------------------


def _scale(view: EvaluationView) -> scatter.Scale | None:
    known = [value for one in view.pipelines for value in (one.low, one.quality, one.high) if value is not None]
    return scatter.within(known, _ENDS[view.measure]) if known else None


def _quality_scale(view: EvaluationView) -> dict[str, Any]:
    scale = _scale(view)
    if scale is None:
        return {"ends": [], "even": ""}
    is_even_known = view.measure == "share" and scale.low < 0.5 < scale.high
    return {
        "ends": [scale.ticks[0][1], scale.ticks[-1][1]],
        "even": _percent(scale.at(0.5)) if is_even_known else "",
    }


def _row(view: EvaluationView, place: int, one: PipelineView) -> dict[str, Any]:
    scale, base = _scale(view), view.against
    is_base = base is not None and one.name == base.name
    bar = None
    if scale is not None and one.quality is not None:
        low = one.quality if one.low is None else one.low
        high = one.quality if one.high is None else one.high
        left, right = scale.at(low), scale.at(high)
        bar = {"left": _percent(left), "width": _percent(right - left), "at": _percent(scale.at(one.quality))}
    same = PipelineView("") if base is None or is_base else base
    return {
        "place": place if len(view.pipelines) > _NARROW_HEADS else "",
        "name": words.named(one.name),
        "remarks": [{"words": said, "colour": KINDS[kind]} for said, kind in words.remarks(one)],
        "is_base": is_base and len(view.pipelines) > 1,
        "bar": bar,
        "colour": BLUE,
        "quality": words.number(one.quality),
        "interval": words.interval(one.low, one.high),
        "cost": words.dollars(one.cost_per_row, at_least=one.cost_is_at_least, sign=""),
        "dear": words.times(one.cost_per_row, same.cost_per_row),
        "seconds": duration(one.seconds_per_row).removesuffix(" s"),
        "slow": words.times(one.seconds_per_row, same.seconds_per_row),
    }


def _detail(one: PipelineView) -> list[str]:
    return [
        words.named(one.name),
        f"{one.n_judged:,}",
        words.tokens(one),
        figures.UNKNOWN if one.n_calls is None else f"{one.n_calls:,}",
        words.dollars(one.cost, at_least=one.cost_is_at_least, sign=""),
        f"{one.n_failed:,}",
        f"{one.n_degraded:,}",
    ]


# -- the pictures ---------------------------------------------------------------------------------


def _pictures(view: EvaluationView, shown: Sequence[PipelineView]) -> Iterator[dict[str, Any]]:
    for against, title, unit in (("cost", "Cost", "dollars a row"), ("time", "Time", "seconds a row")):
        made = _picture(view, shown, is_cost=against == "cost")
        out = words.left_out(view, "cost" if against == "cost" else "time")
        if made is not None:
            unnamed = f"Without a name for want of room: {words.listed(made['unnamed'])}." if made["unnamed"] else ""
            yield {
                **made,
                "title": f"{title} against quality",
                "unit": f"{unit}{', logarithmic' if made['is_log'] else ''}",
                "left_out": [*filter(None, (out, unnamed))],
            }


def _picture(view: EvaluationView, shown: Sequence[PipelineView], *, is_cost: bool) -> dict[str, Any] | None:
    """Return what is placed where; ``None`` where fewer than two pipelines have a place."""

    def amount(one: PipelineView) -> float | None:
        return one.cost_per_row if is_cost else one.seconds_per_row

    def on_front(one: PipelineView) -> bool:
        return one.on_cost_front if is_cost else one.on_time_front

    placed = [one for one in shown if one.quality is not None and amount(one) is not None]
    upright = _scale(view)
    if len(placed) < 2 or upright is None:
        return None
    # Those on the front choose the places of their names first, from the left to the right.
    placed.sort(key=lambda one: (not on_front(one), amount(one), one.quality))
    n_front = sum(map(on_front, placed))
    across = scatter.from_zero([amount(one) or 0.0 for one in placed], "free" if is_cost else "0")
    height = _HEIGHT if len(placed) <= 8 else _TALLER
    at = [(across.at(amount(one) or 0.0), 1 - upright.at(one.quality or 0.0)) for one in placed]
    places = {one.name: place for place, one in enumerate(shown, 1)}
    texts = [[bare(one.name, _LABEL), str(places[one.name])] for one in placed]
    labels = scatter.label_places(
        [(x * _WIDTH, y * height) for x, y in at],
        [[scatter.width_of(text) for text in choices] for choices in texts],
        (_WIDTH, height),
        height=_LINE,
        gap=_GAP,
        front=n_front,
    )
    points = []
    for one, (x, y), choices, label in zip(placed, at, texts, labels, strict=True):
        ends = [upright.at(end) for end in (one.low, one.high) if end is not None]
        points.append(
            {
                "x": _percent(x),
                "y": _percent(y),
                "top": _percent(1 - max(ends, default=1 - y)),
                "tall": _percent(max(ends, default=0.0) - min(ends, default=0.0)),
                "colour": BLUE if on_front(one) else GREY,
                "strong": on_front(one),
                "label": None if label is None else _label(x, choices[label.which], label),
                "words": _point_in_words(one, is_cost=is_cost, on_front=on_front(one)),
            }
        )
    return {
        "height": f"{height:g}",
        "points": points,
        "steps": [*_steps(at[:n_front])],
        "across": [{"at": _percent(across.at(tick)), "word": word} for tick, word in across.ticks],
        "upright": [{"at": _percent(1 - upright.at(tick)), "word": word} for tick, word in upright.ticks],
        "is_log": across.is_log,
        "unnamed": [words.named(one.name) for one, label in zip(placed, labels, strict=True) if label is None],
    }


def _label(x: float, text: str, label: scatter.Label) -> dict[str, str]:
    is_far = abs(label.shift) > _LINE + 1e-9
    return {
        "text": text,
        "side": "left" if label.is_right else "right",
        "away": _percent(x if label.is_right else 1 - x),
        "shift": f"{label.shift - _LINE / 2:.2f}",
        "leader": f"{abs(label.shift):.2f}" if is_far else "",
        "leader_top": f"{min(0.0, label.shift):.2f}",
    }


def _point_in_words(one: PipelineView, *, is_cost: bool, on_front: bool) -> str:
    amount = (
        words.dollars(one.cost_per_row, at_least=one.cost_is_at_least) if is_cost else duration(one.seconds_per_row)
    )
    front = ", on the front" if on_front else ""
    return f"{words.named(one.name)}: {words.number(one.quality)}, {amount} a row{front}"


def _steps(front: Sequence[tuple[float, float]]) -> Iterator[dict[str, str]]:
    """Yield the lines of the front: from each point on as far as the next one, then up to it; the last to the end."""
    ends: list[tuple[float, float | None]] = [*front, (1.0, None)]
    for (x, y), (to, up) in zip(front, ends[1:], strict=True):
        yield {"left": _percent(x), "top": _percent(y), "width": _percent(to - x), "height": ""}
        if up is not None:
            yield {"left": _percent(to), "top": _percent(up), "width": "", "height": _percent(y - up)}


# -- wins -----------------------------------------------------------------------------------------


def _wins(view: EvaluationView, shown: Sequence[PipelineView]) -> dict[str, Any] | None:
    """Return the table of who won how often against whom; ``None`` without any pair."""
    if not view.pairs:
        return None
    is_numbered = len(shown) > _NARROW_HEADS
    names = [str(place) if is_numbered else words.named(one.name) for place, one in enumerate(shown, 1)]
    rows = []
    for place, one in enumerate(shown, 1):
        cells: list[dict[str, str] | None] = []
        for number, other in enumerate(shown, 1):
            pair = None if one is other else view.pair(one.name, other.name)
            share = None if pair is None else pair.share
            said = words.pair_in_words(pair)
            cells.append(
                None
                if one is other
                else {
                    "share": words.number(share),
                    "rest": said.partition(" of ")[2] if not is_numbered else "",
                    "colour": "" if share is None else _shade(share),
                    "title": f"{names[place - 1]} against {names[number - 1]}: {said}",
                }
            )
        rows.append({"name": f"{place} {words.named(one.name)}" if is_numbered else names[place - 1], "cells": cells})
    return {"heads": names, "rows": rows}


def _shade(share: float) -> str:
    """Return a colour: the bluer the more was won, the more amber the more was lost, none where it is even."""
    strength = round(min(1.0, abs(share - 0.5) * 2) * 0x78)
    return f"{BLUE if share > 0.5 else AMBER}{strength:02x}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
