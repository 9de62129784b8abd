"""The answer on top of a comparison of pipelines: what is better, by how much, how surely, and at what price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moa_nb.panels import figures
from moa_nb.panels.evaluation import words
from moa_nb.panels.evaluation.view import EvaluationView, PipelineView

__all__ = ["headline"]

_ABOUT_ONE = 0.05
"""How far from one a ratio is still called about the same."""


def headline(view: EvaluationView, *, sign: str = "$") -> list[str]:
    """Return the answer in a few sentences: what is better by how much, at what price, and what else to look at."""
    base = view.against
    if base is None:
        return ["No pipeline was compared."]
    judged = [one for one in view.ranked if one.quality is not None]
    if not judged:
        return ["Nothing could be judged, so nothing is said of quality; prices and seconds stand below."]
    best = judged[0]
    if len(view.pipelines) == 1:
        return [
            f"{words.named(best.name)} alone: {_standing(view, best)}{_at_a_price(best, sign)}. Nothing stands beside it."
        ]
    if best.name == base.name:
        return [*_nobody_better(view, judged), *_for_the_price(view, best, base)]
    return [_better(view, best, base, sign), *_for_the_price(view, best, base)]


def _standing(view: EvaluationView, one: PipelineView) -> str:
    ends = words.interval(one.low, one.high)
    unit = {"share": "of the points", "metric": f"in {words.measure(view)}", "rating": "of 10"}[view.measure]
    return f"{words.number(one.quality)} {unit}{f' ({ends})' if ends else ''} on {figures.count(one.n_judged, 'row')}"


def _at_a_price(one: PipelineView, sign: str) -> str:
    said = words.dollars(one.cost_per_row, at_least=one.cost_is_at_least, sign=sign)
    return {"unknown": ", at an unknown price", "free": ", free"}.get(said, f", at {said} a row")


def _better(view: EvaluationView, best: PipelineView, base: PipelineView, sign: str) -> str:
    test = view.difference(best.name, base.name)
    one, other, at = words.named(best.name), words.named(base.name), _beside(best, base, sign)
    if test is None:
        if base.quality is None or best.quality is None:
            return f"{one} has {_standing(view, best)}{at}; of {other} nothing could be judged."
        ahead = _gain(view, best.quality - base.quality)
        return f"{one} is ahead of {other} by {ahead}{at}; whether that is more than chance was not tested."
    ends = words.interval(test.low, test.high)
    rows = figures.count(test.n, "row")
    if view.measure == "share" and test.by > 0:
        wins = f"it wins {words.share_in_words(test)} against it"
        if view.is_settled(test):
            return f"{one} is better than {other}: {wins} on {rows}{at}."
        return f"Whether {one} is better than {other} is not settled by {rows}: {wins}{at}."
    by = f"{_gain(view, test.by)}{f' ({ends})' if ends else ''}"
    if view.is_settled(test) and test.by > 0:
        return f"{one} is better than {other} by {by} on {rows}{at}."
    if view.is_settled(test):
        return (
            f"{one} has the highest mean of its own rows, yet is worse than {other} by {by} on the {rows} of both{at}."
        )
    ahead = "is ahead" if test.by > 0 else "is behind on the rows they share"
    fits = f", and anything from {ends} fits these rows" if ends else ""
    by = f"{one} {ahead} by {_gain(view, test.by)}{fits}" if test.by else f"no difference{fits}"
    return f"Whether {one} is better than {other} is not settled by {rows}: {by}{at}."


def _nobody_better(view: EvaluationView, judged: Sequence[PipelineView]) -> Iterator[str]:
    base = judged[0]
    if len(judged) == 1:
        yield f"{words.named(base.name)} has {_standing(view, base)}; of the others nothing could be judged."
        return
    test = view.difference(base.name, judged[1].name)
    behind = words.amount((base.quality or 0.0) - (judged[1].quality or 0.0))
    how = "and that is settled" if test and view.is_settled(test) else "which these rows do not settle"
    where = (
        f"the nearest, {words.named(judged[1].name)}, is behind by {behind}, {how}" if float(behind.strip("<")) else ""
    )
    if not where and len(view.pipelines) == 2:
        yield f"{words.named(base.name)} and {words.named(judged[1].name)} are level."
        return
    where = where or f"{words.named(judged[1].name)} is level with it"
    yield f"None is better than {words.named(base.name)}: {where}."


def _beside(one: PipelineView, base: PipelineView, sign: str) -> str:
    """Return the price and the time of one pipeline beside another's, as the end of a sentence."""
    slow = _ratio(one.seconds_per_row, base.seconds_per_row, "time")
    dear = _price_beside(one, base, sign)
    return f", {dear}" + (f" and {slow}" if slow else "") if dear else (f", at {slow}" if slow else "")


def _price_beside(one: PipelineView, base: PipelineView, sign: str) -> str:
    if one.cost_per_row is None or base.cost_per_row is None:
        return "at a price that cannot be compared"
    if not base.cost_per_row:
        said = words.dollars(one.cost_per_row, at_least=one.cost_is_at_least, sign=sign)
        return f"at {said} a row where the other is free" if one.cost_per_row else "free like the other"
    if not one.cost_per_row:
        return f"free where the other takes {words.dollars(base.cost_per_row, sign=sign)} a row"
    hedge = "about " if base.cost_is_at_least else "at least " if one.cost_is_at_least else ""
    return f"at {hedge}{_ratio(one.cost_per_row, base.cost_per_row, 'price')}"


def _ratio(value: float | None, base: float | None, what: str) -> str:
    """Return how often one amount holds another.

    >>> _ratio(5.8, 1, "price"), _ratio(0.4, 1, "price"), _ratio(1.01, 1, "time"), _ratio(1, None, "time")
    ('5.8 times its price', '40 % of its price', 'about its time', '')
    """
    if not value or not base:
        return ""
    ratio = value / base
    if abs(ratio - 1) <= _ABOUT_ONE:
        return f"about its {what}"
    if ratio < 1:
        return f"{100 * ratio:.0f} % of its {what}" if ratio >= 0.01 else f"less than 1 % of its {what}"
    often = f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}".removesuffix(".0")
    return f"{often} times its {what}"


def _for_the_price(view: EvaluationView, best: PipelineView, base: PipelineView) -> Iterator[str]:
    """Yield which cheaper pipeline could do as well, and which ones no other beats for the price."""
    cheaper = [
        one
        for one in view.pipelines
        if one.name not in {best.name, base.name}
        and one.quality is not None
        and one.cost_per_row is not None
        and best.cost_per_row
        and one.cost_per_row < best.cost_per_row
        and (test := view.difference(best.name, one.name)) is not None
        and not view.is_settled(test)
    ]
    if cheaper:
        least = min(cheaper, key=lambda one: one.cost_per_row or 0.0)
        price = _ratio(least.cost_per_row, best.cost_per_row, "price") or "no price at all"
        yield f"{words.named(least.name)} is not shown to be worse than {words.named(best.name)}, at {price}."
    ahead = [words.named(one.name) for one in sorted(view.pipelines, key=_price) if one.on_cost_front]
    behind = [one for one in view.pipelines if one.quality is not None and one.cost_per_row is not None]
    if ahead and len(behind) > len(ahead):
        more = [f"{len(ahead) - 6} more"] if len(ahead) > 6 else []
        yield f"For the price nothing here beats {words.listed([*ahead[:6], *more])}."


def _price(one: PipelineView) -> float:
    return one.cost_per_row or 0.0


def _gain(view: EvaluationView, difference: float) -> str:
    """Return how large a difference is, with its unit."""
    unit = {"share": "of the points", "metric": f"in {words.measure(view)}", "rating": "in rating"}[view.measure]
    return f"{words.amount(difference)} {unit}"
