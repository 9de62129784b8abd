"""A comparison of pipelines as Markdown and as plain text, for readers of a saved file and for terminals."""

from __future__ import annotations

from collections.abc import Iterator

from moa_nb.panels import figures
from moa_nb.panels.evaluation import words
from moa_nb.panels.evaluation.answer import headline
from moa_nb.panels.evaluation.view import EvaluationView, PipelineView
from moa_nb.panels.frame_report.text import markdown_table
from moa_nb.panels.frame_report.words import bare, duration
from moa_nb.panels.markdown import inline_markdown
from moa_nb.panels.tables import table

__all__ = ["markdown", "plain"]

_PIPELINES, _PLAIN_SENTENCES = 30, 12


def markdown(view: EvaluationView) -> str:
    """Return the comparison as Markdown; amounts stand without dollar signs, which many readers take for mathematics."""
    parts = [f"**{inline_markdown(_title(view))}** {inline_markdown(words.about(view))}"]
    parts += [f"**{inline_markdown(one)}**" for one in words.cut(headline(view, sign="USD "))]
    parts += [f"> {inline_markdown(one)}" for one in words.cut(view.reservations)]
    if view.pipelines:
        parts.append(markdown_table(_heads(view, "USD"), [[*_row(view, one)] for one in _shown(view)], "lrlrrrrrrrr"))
    if view.pairs:
        names = [words.named(one.name) for one in _shown(view)]
        rows = [[name, *cells] for name, cells in zip(names, _wins(view), strict=True)]
        parts += ["**Who won against whom** the row's share, a tie being half"]
        parts.append(markdown_table(["", *names], rows, "l" + "r" * len(names)))
    for title, brief, sentences in words.sections(view, sign="USD "):
        parts.append(f"**{title}** {inline_markdown(brief)}".rstrip())
        parts.append("\n".join(f"- {inline_markdown(one)}" for one in words.cut(sentences)))
    parts += [f"*{inline_markdown(one)}*" for one in words.cut(view.notes)]
    return "\n\n".join(parts) + "\n"


def plain(view: EvaluationView) -> str:
    """Return the comparison for a terminal."""
    lines = [f"{_title(view)}: {words.about(view)}", *(f"  {one}" for one in words.cut(headline(view)))]
    lines += [f"  ! {one}" for one in words.cut(view.reservations)]
    if view.pipelines:
        lines += ["", repr(table([[*_row(view, one)] for one in _shown(view)], _heads(view, "$")))]
    if view.pairs:
        what = "points" if view.measure == "share" else "rows"
        heads = [f"share of the {what} won against", *(str(place) for place in range(1, len(_shown(view)) + 1))]
        names = [f"{place} {words.named(one.name)}" for place, one in enumerate(_shown(view), 1)]
        rows = [[name, *cells] for name, cells in zip(names, _wins(view), strict=True)]
        lines += ["", repr(table(rows, heads))]
    for title, brief, sentences in words.sections(view):
        lines += ["", f"{title}{f': {brief}' if brief else ''}"]
        lines += [f"  {one}" for one in words.cut(sentences, _PLAIN_SENTENCES)]
    return "\n".join([*lines, *(f"  {one}" for one in words.cut(view.notes))])


def _title(view: EvaluationView) -> str:
    return f"compare {bare(view.column)}".strip()


def _shown(view: EvaluationView) -> tuple[PipelineView, ...]:
    return view.ranked[:_PIPELINES]


def _heads(view: EvaluationView, sign: str) -> list[str]:
    return [
        "pipeline",
        words.measure(view),
        "interval",
        f"{sign} a row",
        f"{sign} in all",
        "s a row",
        "tokens in → out",
        "calls",
        "judged",
        "failed",
        "degraded",
    ]


def _row(view: EvaluationView, one: PipelineView) -> Iterator[str]:
    yield words.named(one.name) + (" (baseline)" if one.name == view.baseline and len(view.pipelines) > 1 else "")
    yield words.number(one.quality)
    yield words.interval(one.low, one.high)
    yield words.dollars(one.cost_per_row, at_least=one.cost_is_at_least, sign="")
    yield words.dollars(one.cost, at_least=one.cost_is_at_least, sign="")
    yield duration(one.seconds_per_row).removesuffix(" s")
    yield words.tokens(one)
    yield figures.UNKNOWN if one.n_calls is None else f"{one.n_calls:,}"
    yield from (f"{number:,}" for number in (one.n_judged, one.n_failed, one.n_degraded))


def _wins(view: EvaluationView) -> Iterator[list[str]]:
    shown = _shown(view)
    for one in shown:
        yield ["" if one is other else words.pair_in_words(view.pair(one.name, other.name)) for other in shown]
