"""Two runs beside each other: what was asked otherwise, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from moa_nb.errors import SetupError
from moa_nb.panels import difference as words
from moa_nb.panels.figures import UNKNOWN, count, dollars, seconds, tokens
from moa_nb.panels.provenance import is_secret
from moa_nb.panels.tables import TableDisplay, table
from moa_nb.panels.templates import one_block
from moa_nb.pipeline.result import Call, Result
from moa_nb.plain import quoted

__all__ = ["Difference", "difference"]


@dataclass(frozen=True, repr=False)
class Difference:
    """What two runs differ in; it shows itself in a notebook, in Markdown and in a terminal."""

    changes: tuple[tuple[str, str, str], ...]
    """What differs, as it is in the one and in the other, in words; empty for equal runs."""
    answer: tuple[words.Part, ...]
    """How the answer of the one becomes that of the other: ``same``, ``removed`` and ``added`` stretches."""

    @property
    def same_answer(self) -> bool:
        """Whether both say the same, word for word."""
        return all(kind == "same" for kind, _ in self.answer)

    @property
    def _table(self) -> TableDisplay:
        return table(self.changes, ["", "one", "other"], None if self.changes else "they were asked alike")

    @property
    def _heading(self) -> str:
        return "the answers are the same" if self.same_answer else "from the one's answer to the other's"

    def _repr_html_(self) -> str:
        said = "" if self.same_answer else words.to_html(self.answer)
        return one_block(
            f'{self._table._repr_html_()}<div class="tex2jax_ignore mathjax_ignore" style="max-width:76em;'
            f'font-size:.93em;line-height:1.45;text-align:left"><b style="font-weight:600">{escape(self._heading)}</b>'
            f'<div style="white-space:pre-wrap;overflow-wrap:break-word;margin:.2em 0">{said}</div></div>'
        )

    def _repr_markdown_(self) -> str:
        said = "" if self.same_answer else f"\n\n{words.to_markdown(self.answer)}"
        return f"{self._table._repr_markdown_()}\n\n**{self._heading}**{said}\n"

    def __repr__(self) -> str:
        said = "" if self.same_answer else f"\n{words.to_words(self.answer)}"
        return f"{self._table!r}\n\n{self._heading}{said}"


def difference(one: Result, other: Result) -> Difference:
    """Return what two runs differ in: question, pipeline, models, parameters, templates, answers, tokens, dollars.

    Calls are matched by their layer and agent. Runs of a saved notebook (``moa.from_notebook``) will do: a template
    that was changed shows by its digest.

    Raises:
        SetupError: one of them is no result.

    >>> from moa_nb.pipeline.result import Result
    >>> difference(Result("It is fast.", "single"), Result("It is very fast.", "moa-lite"))
              one     other
    --------  ------  --------
    pipeline  single  moa-lite
    <BLANKLINE>
    from the one's answer to the other's
    It is {+very +}fast.
    """
    for run in (one, other):
        if not isinstance(run, Result):
            msg = (
                "difference compares two results, as moa.run(...) and moa.from_notebook(...) give them,"
                f" or run.trace(0) of a frame's run, not {quoted(run)}"
            )
            raise SetupError(msg)
    changes = [*_settings(one, other), *_calls(one, other), *_figures(one, other)]
    return Difference(
        tuple((what, here, there) for what, here, there in changes if here != there),
        tuple(words.difference(one.text, other.text)),
    )


_Change = tuple[str, str, str]


def _settings(one: Result, other: Result) -> Iterator[_Change]:
    yield "question", _asked(one), _asked(other)
    systems = [[turn.content for turn in run.conversation if turn.role == "system"] for run in (one, other)]
    if all(systems):  # of a saved run they are not known
        yield "system message", _shown(systems[0][0]), _shown(systems[1][0])
    yield "pipeline", one.pipeline, other.pipeline
    yield "budget", _dollars(one.budget), _dollars(other.budget)


def _asked(run: Result) -> str:
    turns = [turn for turn in run.conversation if turn.role != "system"]
    alone = len(turns) == 1
    return _shown("\n".join(turn.content if alone else f"{turn.role}: {turn.content}" for turn in turns) or None)


def _calls(one: Result, other: Result) -> Iterator[_Change]:
    """Yield what each agent was asked with, and what it said, as far as that differs."""
    here, there = _by_place(one), _by_place(other)
    for place in dict.fromkeys([*here, *there]):
        mine, theirs = here.get(place), there.get(place)
        if mine is None or theirs is None:
            yield place, UNKNOWN if mine is None else mine.model, UNKNOWN if theirs is None else theirs.model
            continue
        yield place, mine.model, theirs.model
        if mine.model == theirs.model:
            yield f"{place}: answered by", mine.answered_by or UNKNOWN, theirs.answered_by or UNKNOWN
        known, wanted = dict(mine.parameters), dict(theirs.parameters)
        for name in dict.fromkeys([*known, *wanted]):
            if not is_secret(name):
                yield f"{place}: {name}", _shown(known.get(name)), _shown(wanted.get(name))
        yield f"{place}: template", *_templates(mine, theirs)
        if mine.text != theirs.text:
            parts = words.difference(mine.text, theirs.text)
            yield f"{place}: answer", _counted(parts, "removed"), _counted(parts, "added")
        yield f"{place}: error", mine.error or UNKNOWN, theirs.error or UNKNOWN


def _by_place(run: Result) -> dict[str, Call]:
    places: dict[str, Call] = {}
    for layer in run.layers:
        for call in layer.calls:
            name, place, n = f"{layer.name}, {call.agent}", f"{layer.name}, {call.agent}", 1
            while place in places:  # a judge may be asked often
                n += 1
                place = f"{name} ({n})"
            places[place] = call
    return places


def _templates(one: Call, other: Call) -> tuple[str, str]:
    """Return both templates' names; with the beginnings of their digests where only those tell them apart."""
    here, there = one.template or UNKNOWN, other.template or UNKNOWN
    if here != there or one.template_digest == other.template_digest:
        return here, there
    return f"{here} ({(one.template_digest or '')[:8]})", f"{there} ({(other.template_digest or '')[:8]})"


def _counted(parts: list[words.Part], kind: str) -> str:
    n = sum(len(text.split()) for how, text in parts if how == kind)
    return f"{count(n, 'word')} of its own"


def _figures(one: Result, other: Result) -> Iterator[_Change]:
    yield "calls", f"{one.n_calls:,}", f"{other.n_calls:,}"
    yield "from the cache", _cached(one), _cached(other)
    yield "tokens in", tokens(one.usage.prompt_tokens), tokens(other.usage.prompt_tokens)
    yield "tokens out", tokens(one.usage.completion_tokens), tokens(other.usage.completion_tokens)
    yield "dollars", _dollars(one.cost), _dollars(other.cost)
    yield "seconds", seconds(one.seconds), seconds(other.seconds)
    for name in ("agreement", "degraded", "converged", "accepted", "stop_reason"):
        yield name.replace("_", " "), _shown(getattr(one, name)), _shown(getattr(other, name))


def _cached(run: Result) -> str:
    return f"{sum(call.cached for call in run.calls):,}"


def _dollars(amount: float | None) -> str:
    return UNKNOWN if amount is None else f"${dollars(amount)}"


def _shown(value: Any, most: int = 300) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return UNKNOWN
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= most else f"{text[:most]} …"
