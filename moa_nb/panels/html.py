"""The panel as HTML: complete on its own for a finished run, in pieces for one that is going on.

No script, no style sheet, no picture: what stands here reads the same in a live notebook, in one
reopened without a kernel, in an export and on a page that strips styles. Model text passes through
``markdown.to_html`` or is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moa_nb.panels import figures, templates, timeline
from moa_nb.panels.answer import drawn, said
from moa_nb.panels.colours import AMBER, BLUE, EDGES, GREEN, GREY, KINDS, RED, tinted
from moa_nb.panels.markdown import LIMIT, first_line, to_html
from moa_nb.panels.provenance import is_secret
from moa_nb.panels.room import LeftOut, brief, cut, fair_cap, shares, tail
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moa_nb.chat import Message, Usage
    from moa_nb.panels.view import CallView, LayerView, PanelView

__all__ = [
    "AMBER",
    "BLUE",
    "GREEN",
    "GREY",
    "MAX_BYTES",
    "RED",
    "answer",
    "axis",
    "header",
    "layer_heading",
    "panel",
    "row",
]

MAX_BYTES = 200_000
"""How large a saved panel may get; a notebook holds many."""

_DOTS = {"running": BLUE, "done": GREEN, "failed": RED, "stopped": AMBER}
_TAIL = 280
_ACCOUNTS = 6


# -- the whole panel ------------------------------------------------------------------------------


def panel(view: PanelView, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the whole panel as one piece of static HTML of at most about ``max_bytes``.

    What does not fit is cut where it is longest, rows last, and the panel says what it left out.
    """
    texts = _texts(view)
    n_rows = len(view.calls)
    shown = n_rows if n_rows * _ROW_BYTES <= max_bytes * 0.6 else max(1, int(max_bytes * 0.6 / _ROW_BYTES))
    frame = 3000 + shown * _ROW_BYTES
    lengths = [len(text) for text in texts]
    room = max(0, max_bytes - frame)
    cap = fair_cap(lengths, room)
    if max(lengths) > cap > _TRIAL:
        # A table takes many times its text: a short trial is quicker than to draw all of it, and then too much.
        swelling = (len(_whole(view, _TRIAL, shown).encode()) - frame) / sum(min(n, _TRIAL) for n in lengths)
        cap = fair_cap(lengths, int(room / swelling)) if swelling > _SWOLLEN else cap
    while True:
        html = _whole(view, cap, shown)
        size = len(html.encode())
        if size <= max_bytes or (cap == 0 and shown <= len(view.layers)):
            return html
        if cap:
            # Markup and other alphabets take more than a byte a character: measure, and try again.
            cap = int(min(cap, max(lengths)) * min(0.9, 0.97 * room / max(1, size - frame)))
            cap = cap if cap > _LEAST else 0
        else:
            shown = max(len(view.layers), int(shown * 0.8))


_ROW_BYTES = 2300
"""What a row takes before any text, about."""

_ANSWER_SHARE = 4
"""The answer is what the reader came for: it keeps so many times as much as any other text."""

_TRIAL, _SWOLLEN = 500, 2
"""Characters of each text that are tried, and how many times as much they have to take before they are heeded."""

_LEAST = 80
"""Characters below which the rest of a text is not worth its markup."""


def _texts(view: PanelView) -> list[str]:
    """Return all texts that a panel may cut, the answer in the parts that count as one text each."""
    part = -(-len(view.text) // _ANSWER_SHARE)
    texts = [view.text[at * part : (at + 1) * part] for at in range(_ANSWER_SHARE)]
    seen: set[tuple[Message, ...]] = set()
    for call in view.calls:
        texts += [call.text if call.text != view.text else "", call.reasoning or "", call.error or ""]
        if call.prompt not in seen:
            texts += [message.content for message in call.prompt]
            seen.add(call.prompt)
    return texts


def _whole(view: PanelView, cap: int, shown: int) -> str:
    macros = templates.macros("panel")
    left_out = LeftOut()
    cap = min(cap, LIMIT)
    scale = view.span
    rows = [macros.axis(f"{figures.seconds(scale)} s", timeline.LEGEND)] if view.calls else []
    prompts: dict[tuple[Message, ...], str] = {}
    for layer, n_shown in zip(view.layers, shares([len(layer.calls) for layer in view.layers], shown), strict=True):
        rows.append(macros.layer(_heading(layer)))
        for call in layer.calls[:n_shown]:
            asked = prompts.setdefault(call.prompt, call.agent) if call.prompt else call.agent
            piece = _call(call, scale, cap=cap, answer=view.text, asked=asked, left_out=left_out)
            rows.append(macros.row(piece))
        if n_shown < len(layer.calls):
            rows.append(macros.more(f"… {figures.count(len(layer.calls) - n_shown, 'more call')}"))
            left_out.calls += len(layer.calls) - n_shown
    parts = [macros.header(_head(view)), macros.answer(said(view, min(LIMIT, _ANSWER_SHARE * cap), left_out))]
    parts += [macros.account(drawn(account)) for account in view.accounts[:_ACCOUNTS]]
    if rows:
        parts.append(macros.table("".join(rows), "calls"))
    if words := left_out.words():
        parts.append(macros.footer(words))
    return str(macros.box("".join(parts)))


# -- its pieces -----------------------------------------------------------------------------------


def header(view: PanelView) -> str:
    """Return the line with state, dollars, tokens, calls and seconds."""
    return _fragment(templates.macros("panel").header(_head(view)))


def answer(view: PanelView) -> str:
    """Return the answer as safe HTML; while it is being written, the end of it as plain text."""
    return _fragment(templates.macros("panel").answer(said(view, LIMIT, LeftOut())))


def axis(scale_seconds: float) -> str:
    """Return the heads of the columns, with a time line of ``scale_seconds``."""
    macros = templates.macros("panel")
    return _fragment(macros.table(macros.axis(f"{figures.seconds(scale_seconds)} s", timeline.LEGEND)))


def layer_heading(layer: LayerView) -> str:
    """Return the line above a layer's rows."""
    macros = templates.macros("panel")
    return _fragment(macros.table(macros.layer(_heading(layer))))


def row(call: CallView, scale_seconds: float, *, live: bool = True, opens: bool = True) -> str:
    """Return one call's row, on a time line of ``scale_seconds``; stacked rows line up.

    While its answer is being written (and ``live``), its end stands there as plain text; afterwards
    its first line, which opens unless it is drawn anew all the time (``opens``).
    """
    macros = templates.macros("panel")
    piece = _call(call, scale_seconds, cap=LIMIT, answer="", asked=call.agent, left_out=LeftOut(), live=live)
    return _fragment(macros.table(macros.row(piece if opens else replace(piece, opens=False))))


@dataclass(frozen=True, slots=True)
class _Heading:
    name: str
    caption: str
    tokens: str = ""
    cost: str = ""
    cost_title: str = ""
    seconds: str = ""


def _heading(layer: LayerView) -> _Heading:
    """Return a layer's heading; with its sums, where it has more than the one row that says the same."""
    name, caption = _capitalised(layer.name), brief(layer.caption)
    if len(layer.calls) < 2:
        return _Heading(name, caption)
    cost = layer.cost
    return _Heading(
        *(name, caption, _tokens(layer.usage), figures.dollars_briefly(cost)),
        cost_title="some calls have no known price" if cost is None else f"${figures.dollars(cost)} in this layer",
        seconds=figures.seconds(layer.seconds),
    )


def _tokens(usage: Usage) -> str:
    """Return tokens in and out; empty where nothing was reported."""
    if usage.prompt_tokens is None and usage.completion_tokens is None:
        return ""
    sent = figures.tokens(usage.prompt_tokens, estimated=usage.estimated)
    return f"{sent} → {figures.tokens(usage.completion_tokens, estimated=usage.estimated)}"


def _fragment(html: str) -> str:
    return str(templates.macros("panel").fragment(html))


# -- what the template is given -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Figure:
    value: str
    unit: str = ""
    title: str = ""
    strong: bool = False


@dataclass(frozen=True, slots=True)
class _Head:
    pipeline: str
    words: str
    flags: tuple[str, ...]
    figures: tuple[_Figure, ...]
    colour: str
    odd: str = tinted(AMBER)


def _head(view: PanelView) -> _Head:
    words = view.state.removeprefix("running")
    if not words:
        n_over = sum(call.is_over for call in view.calls)
        words = f"running, {n_over} of {len(view.calls)} answered; " if view.calls else "running; "
        # The kernel's own ■ stops cells, and that of a run in the background has returned.
        words += f"in the background, as of {brief(view.seen_at)}" if view.seen_at else "■ stops it"
    return _Head(
        pipeline=brief(view.pipeline),
        words=words,
        flags=tuple(map(brief, view.flags)),
        figures=tuple(_figures(view)),
        colour=_DOTS[view.state],
    )


def _figures(view: PanelView) -> Iterable[_Figure]:
    ceiling = "" if view.budget is None else f"of ${figures.ceiling(view.budget)}"
    if view.cost is None:
        yield _Figure("unknown cost", ceiling, "some calls have no known price")
    else:
        least = "at least " if view.cost_is_at_least else ""
        title = "a call that failed is counted at its reservation" if least else ""
        yield _Figure(f"{least}${figures.dollars(view.cost)}", ceiling, title, strong=True)
    usage = view.usage
    title = figures.tokens_title(usage)
    yield _Figure(figures.tokens(usage.prompt_tokens, estimated=usage.estimated), "in", title)
    yield _Figure(figures.tokens(usage.completion_tokens, estimated=usage.estimated), "out", title)
    cached = f", {view.n_cached:,} cached" if view.n_cached else ""
    number, noun = figures.count(view.n_calls, "call").split(" ")
    yield _Figure(number, noun + cached)
    if view.agreement is not None:
        yield _Figure(*figures.agreement(view), title=figures.agreement_title(view))
    yield _Figure(*_timed(view.seconds))


def _timed(duration: float) -> tuple[str, str]:
    value = figures.seconds(duration)
    return (value, "") if " " in value else (value, "s")


@dataclass(frozen=True, slots=True)
class _Row:
    agent: str
    model: str
    title: str
    times: str
    bar: tuple[timeline.Part, ...]
    tokens: str
    tokens_title: str
    cost: str
    cost_title: str
    seconds: str
    remark: str
    colour: str
    edge: str
    bad: str = tinted(RED)
    waits: str = ""
    first: str = ""
    opens: bool = False
    tail: str = ""
    html: str = ""
    same: str = ""
    error: str = ""
    facts: str = ""
    reasoning: str = ""
    prompt: tuple[Message, ...] = ()
    prompt_title: str = ""


def _call(
    call: CallView,
    scale: float,
    *,
    cap: int,
    answer: str,
    asked: str,
    left_out: LeftOut,
    live: bool = False,
) -> _Row:
    remark, kind = figures.remarks(call)
    begun = call.state not in {"waiting", "queued"}
    row = _Row(
        agent=brief(call.agent),
        model=brief(call.model),
        title=f"{brief(call.agent)} {brief(call.model)}",
        times=timeline.times(call),
        bar=tuple(timeline.bar(call, scale)),
        tokens=_tokens(call.usage) or (figures.UNKNOWN if begun else ""),
        tokens_title=figures.tokens_title(call.usage) if begun else "",
        cost=figures.dollars_briefly(call.cost) if call.is_over else "",
        cost_title=_cost_title(call) if call.is_over else "",
        seconds=figures.seconds(call.seconds) if call.state != "waiting" else "",
        remark=remark,
        colour=KINDS[kind],
        edge=EDGES.get(call.state, BLUE),
    )
    if live and not call.is_over:
        if not begun:
            return replace(row, waits=remark, remark="")
        return replace(row, tail=" ".join(tail(call.text, _TAIL).split()) or remark, remark="")
    return _opened(row, call, cap=cap, answer=answer, asked=asked, left_out=left_out)


def _cost_title(call: CallView) -> str:
    if call.cost is None:
        return "nothing reported" if call.state in {"failed", "cancelled"} else "no known price"
    return f"${figures.dollars(call.cost)}" if 0 < call.cost < figures.BRIEF else ""


def _opened(row: _Row, call: CallView, *, cap: int, answer: str, asked: str, left_out: LeftOut) -> _Row:
    """Return ``row`` with what it shows when it is opened, each text cut at ``cap``."""
    error, reasoning = call.error or "", call.reasoning or ""
    is_answer = bool(call.text) and call.text == answer
    left_out.answers += len(call.text) > cap and not is_answer
    left_out.others += (len(error) > cap) + (len(reasoning) > cap)
    prompt: tuple[Any, ...] = ()
    title = ""
    if call.prompt and asked != call.agent:
        title = f"prompt: the same as {brief(asked)}'s"
    elif call.prompt:
        left_out.prompts += any(len(message.content) > cap for message in call.prompt)
        prompt = tuple({"role": message.role, "content": cut(message.content, cap)} for message in call.prompt)
        title = "prompt" if len(prompt) == 1 else f"prompt, {len(prompt)} messages"
    return replace(
        row,
        first=first_line(error or call.text, 140) or ("(empty answer)" if call.state in {"done", "cached"} else ""),
        opens=bool(call.text or error or call.prompt or reasoning),
        html="" if is_answer else to_html(call.text, limit=cap),
        same="its answer stands above" if is_answer else "",
        error=cut(error, cap),
        facts=_facts(call),
        reasoning=cut(reasoning, cap),
        prompt=prompt,
        prompt_title=title,
    )


def _facts(call: CallView) -> str:
    facts = [f"{name} {value}" for name, value in call.parameters if not is_secret(name)]
    if call.template:
        facts.insert(0, f"template {call.template}")
    if call.answered_by and not call.model.endswith(call.answered_by):
        facts.insert(0, f"answered by {call.answered_by}")
    return to_plain(", ".join(facts)[:400])


def _capitalised(words: str) -> str:
    return brief(words[:1].upper() + words[1:])
