"""The panel as Markdown and as plain text, for readers of a saved file and for terminals."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from moa_nb.panels import figures
from moa_nb.panels.markdown import first_line, inline_markdown, to_markdown
from moa_nb.panels.room import brief, cut
from moa_nb.panels.view import MOST_ENTRIES
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moa_nb.panels.accounts import Account, Cell, Entry
    from moa_nb.panels.support import Support
    from moa_nb.panels.view import CallView, PanelView

__all__ = ["markdown", "plain"]

_MARKDOWN_ANSWER = 20_000
_MARKDOWN_ROWS = 60
_ANSWER_LINES = 17
_TOLD_LINES = 8
_CALL_LINES = 12
_ACCOUNTS, _APART = 6, 12
_WIDTH = 100
_NOTE, _NOTES, _LONG_CELL = 600, 12, 2000


def markdown(view: PanelView) -> str:
    """Return the answer and a table of the calls as Markdown; amounts stand without dollar signs,
    which many readers take for mathematics.
    """
    parts = []
    if view.error is not None:
        parts.append(f"**No answer.** {inline_markdown(cut(view.error, 4 * _NOTE))}")
    if view.text.strip():
        parts.append(to_markdown(view.text, limit=_MARKDOWN_ANSWER))
    parts += [f"*{inline_markdown(cut(note, _NOTE))}*" for note in view.notes[:_NOTES] if note.strip()]
    if view.support is not None:
        parts.append(_support_markdown(view.support))
    parts += [_account_markdown(account) for account in view.accounts[:_ACCOUNTS]]
    parts.append(f"**{inline_markdown(brief(view.pipeline))}** {inline_markdown(_summary(view, 'USD '))}")
    lines = ["| agent | model | in → out | USD | s | |", "| --- | --- | ---: | ---: | ---: | --- |"]
    calls = view.calls
    for layer in view.layers:
        for call in layer.calls[: max(1, _MARKDOWN_ROWS // len(view.layers))]:
            said = _said(call, 120)
            cells = [
                brief(call.agent),
                brief(call.model),
                _tokens(call),
                figures.dollars(call.cost),
                figures.seconds(call.seconds),
                said,
            ]
            lines.append("| " + " | ".join(map(inline_markdown, cells)) + " |")
    if len(calls) > len(lines) - 2:
        lines.append(f"| … {len(calls) - len(lines) + 2:,} more | | | | | |")
    if calls:
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _support_markdown(support: Support) -> str:
    apart = [f"{support.words(one)}: {first_line(one.text, 120)}" for one in support.apart()[:_APART]]
    return "\n".join([f"*{inline_markdown(support.summary())}*", "", *(f"- {inline_markdown(line)}" for line in apart)])


def _account_markdown(account: Account) -> str:
    parts = [f"**{inline_markdown(brief(account.title))}** {inline_markdown(cut(account.words, _NOTE))}".rstrip()]
    if account.entries:
        width = len(account.entries[0].cells)
        heads = account.heads or ("",) * width
        rows = [[_cell(cell) for cell in entry.cells] for entry in account.entries[:MOST_ENTRIES]]
        head, *lines = ["| " + " | ".join(map(inline_markdown, line)) + " |" for line in (heads, *rows)]
        parts.append("\n".join([head, "|" + " --- |" * width, *lines]))
        if len(account.entries) > MOST_ENTRIES:
            parts.append(f"… {figures.count(len(account.entries) - MOST_ENTRIES, 'more line')}")
    return "\n\n".join(parts)


def _line_of(entry: Entry, heads: Sequence[str]) -> str:
    """Return an entry on one line, each cell after its head."""
    cells = [cell.text for cell in entry.cells]
    said = [f"{head} {cell}".strip() for head, cell in zip(heads or [""] * len(cells), cells, strict=True) if cell]
    return f"{said[0]}: {', '.join(said[1:])}{' (the answer)' if entry.is_chosen else ''}"


def _cell(cell: Cell) -> str:
    """Return a cell in words; of a bar without any, its share."""
    return cut(cell.text, _LONG_CELL) or ("" if cell.share is None else f"{100 * cell.share:.0f} %")


def plain(view: PanelView) -> str:
    """Return the answer and a line per call, at most some forty lines, for a terminal."""
    lines: list[str] = []
    if view.error is not None:
        lines += textwrap.wrap(f"No answer. {to_plain(view.error)}", _WIDTH)[:4]
    lines += _answer_lines(view.text)
    lines += [line for note in view.notes[:2] for line in textwrap.wrap(to_plain(note), _WIDTH)[:1]]
    lines += _told(view)[:_TOLD_LINES]
    if lines:
        lines.append("")
    lines.append(to_plain(f"{brief(view.pipeline)}: {_summary(view, '$')}"))
    calls = [(layer.name, call) for layer in view.layers for call in layer.calls]
    shown = calls if len(calls) <= _CALL_LINES else [*calls[: _CALL_LINES - 2], calls[-1]]
    rows = [_line(name, call) for name, call in shown]
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(5)]
    drawn = [
        f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        f"  {row[4]:>{widths[4]}}  {row[5]}".rstrip()
        for row in rows
    ]
    if len(shown) < len(calls):
        drawn.insert(-1, f"  … {figures.count(len(calls) - len(shown), 'more call')}")
    return "\n".join(lines + drawn)


def _told(view: PanelView) -> list[str]:
    """Return where the answer comes from and how it was decided, a line each."""
    lines = []
    if view.support is not None:
        lines.append(_short(to_plain(view.support.summary()), _WIDTH))
    for account in view.accounts:
        lines.append(_short(to_plain(f"{account.title}: {account.words}".removesuffix(": ")), _WIDTH))
        lines += [_short(to_plain(f"  {_line_of(entry, account.heads)}"), _WIDTH) for entry in account.entries[:4]]
    if view.support is not None:
        apart = [one for one in view.support.apart() if len(one.by or ()) < 2][:3]
        lines += [_short(f"  {to_plain(view.support.words(one))}: {first_line(one.text, 80)}", _WIDTH) for one in apart]
    return lines


def _answer_lines(text: str) -> list[str]:
    """Return the answer wrapped at words, as many lines as a glance takes in."""
    # More than this can never fit into the lines there are.
    said = to_plain(text[: 2 * _ANSWER_LINES * _WIDTH]).strip()
    lines = [
        part
        for line in said.split("\n")
        for part in (textwrap.wrap(line, _WIDTH, drop_whitespace=True, replace_whitespace=False) or [""])
    ]
    if len(lines) <= _ANSWER_LINES and len(said) == len(text.strip()):
        return lines
    shown = lines[: _ANSWER_LINES - 1]
    n_more = max(1, len(text) - sum(map(len, shown)) - len(shown))
    return [*shown, f"… {n_more:,} more characters"]


def _summary(view: PanelView, sign: str) -> str:
    cost = "unknown cost"
    if view.cost is not None:
        cost = f"{'at least ' if view.cost_is_at_least else ''}{sign}{figures.dollars(view.cost)}"
    if view.budget is not None:
        cost += f" of {figures.ceiling(view.budget)}"
    usage = view.usage
    cached = f" ({view.n_cached:,} cached)" if view.n_cached else ""
    parts = [
        ", ".join([view.state, *map(brief, view.flags)]),
        cost,
        f"{figures.tokens(usage.prompt_tokens, estimated=usage.estimated)} tokens in",
        f"{figures.tokens(usage.completion_tokens, estimated=usage.estimated)} out",
        f"{figures.count(view.n_calls, 'call')}{cached}",
        *([] if view.agreement is None else [" ".join(figures.agreement(view))]),
        _timed(view.seconds),
    ]
    return "; ".join([parts[0], ", ".join(parts[1:])])


def _timed(duration: float) -> str:
    value = figures.seconds(duration)
    return value if " " in value else f"{value} s"


def _tokens(call: CallView) -> str:
    usage = call.usage
    if usage.prompt_tokens is None and usage.completion_tokens is None:
        return figures.UNKNOWN
    sent = figures.tokens(usage.prompt_tokens, estimated=usage.estimated)
    return f"{sent} → {figures.tokens(usage.completion_tokens, estimated=usage.estimated)}"


def _said(call: CallView, width: int) -> str:
    remark, _ = figures.remarks(call)
    return ": ".join(part for part in (remark, first_line(call.error or call.text, width)) if part)


def _line(layer: str, call: CallView) -> tuple[str, str, str, str, str, str]:
    cost = figures.UNKNOWN if call.cost is None else f"${figures.dollars(call.cost)}"
    who = " ".join(f"{brief(layer)}: {brief(call.agent)} {brief(call.model)}".split())
    return _short(who), _tokens(call), cost, _timed(call.seconds), "", _said(call, 60)


def _short(words: str, width: int = 48) -> str:
    return words if len(words) <= width else f"{words[: width - 1]}…"
