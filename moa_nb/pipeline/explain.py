"""A picture of a pipeline, without asking anybody: who is asked, who sees what, at most how many calls.

It comes from a walk of the strategy itself. Every answer is a mark of its own, and whoever's prompt holds the
mark sees the answer; so the picture holds for every strategy, users' own included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from moa_nb.chat import Completion, Message, Request
from moa_nb.errors import PipelineError
from moa_nb.pipeline import presets
from moa_nb.pipeline.ask import Ask, Choices
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.layer import Outcome
from moa_nb.pipeline.record import CallRecord, RunRecord
from moa_nb.pipeline.result import Call, Layer
from moa_nb.pipeline.spec import Pipeline, Resolver, Roles
from moa_nb.pipeline.strategies import find
from moa_nb.plain import to_plain

__all__ = ["Explanation", "Step", "Ways", "explain"]

_EARLIER, _QUESTION, _FIRST = "\ue000", "\ue001", 0xF0000
"""The marks of an earlier turn, of the question and of the first answer: characters that no text and no parser knows."""

_MOST = 65_000
"""Answers that can be told apart."""

_CONVERSATION = (Message("user", _EARLIER), Message("assistant", "…"), Message("user", _QUESTION))


class _AnyRow(dict[str, Any]):
    """A row that has every column, and nothing in it."""

    def __contains__(self, column: object) -> bool:
        return True

    def __missing__(self, column: str) -> None:
        return None


class Ways(Choices, Protocol):
    """Forces a strategy's decisions so that it goes each way once."""

    @property
    def at_least(self) -> bool:
        """Whether there may be ways that were not gone."""

    def next(self) -> bool:
        """Return whether there is another way; it begins."""

    def candidate(self, *said: Any) -> Candidate:
        """Return an answer that tells when a strategy looks at what it says."""


@dataclass(frozen=True)
class Step:
    """One layer, over all ways that the pipeline may go."""

    name: str
    agents: Mapping[str, int]
    """Who is asked, and how often at most."""
    n_calls: tuple[int, int]
    """At least and at most; 0 where there are ways without this layer."""
    sees: tuple[str, ...]
    """What its prompts hold: the conversation or its last question, and answers of earlier layers."""

    @property
    def asked(self) -> str:
        """Who is asked, on one line."""
        names = [f"{name} × {times}" if times > 1 else name for name, times in self.agents.items()]
        return (", " if sum(self.agents.values()) <= self.n_calls[1] else " or ").join(names)


@dataclass(frozen=True, repr=False)
class Explanation:
    """The layers of a pipeline, and how many calls they take; it shows itself as a table."""

    pipeline: str
    strategy: str
    steps: tuple[Step, ...]
    n_calls: tuple[int, int]
    """At least and at most, for one text, cached answers included; what cannot be read is asked for once more."""
    at_least: bool = False
    """Whether it may become more: the strategy branches in ways that cannot be foreseen."""

    @property
    def calls(self) -> str:
        """How many calls they take, on one line."""
        return f"{'at least ' if self.at_least else ''}{_span(self.n_calls)}"

    @property
    def headline(self) -> str:
        """What it is and takes, on one line."""
        return f"{self.pipeline} ({self.strategy}): {self.calls} call{'s' * (self.n_calls != (1, 1))} for one text"

    def __repr__(self) -> str:
        cells = [(step.name, step.asked, _span(step.n_calls), "; ".join(step.sees)) for step in self.steps]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:3]
        rows = [
            f"  {name:<{widths[0]}}  {asked:<{widths[1]}}  {calls:>{widths[2]}}  sees {sees or 'nothing of it'}"
            for name, asked, calls, sees in cells
        ]
        return "\n".join([self.headline, *rows])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from moa_nb.panels.tables import table

        rows = [(step.name, step.asked, _span(step.n_calls), "; ".join(step.sees)) for step in self.steps]
        shown = table(rows, ["layer", "who is asked", "calls", "sees"], caption=self.headline)
        return {
            "text/plain": to_plain(repr(self)),
            "text/markdown": shown._repr_markdown_(),
            "text/html": shown._repr_html_(),
        }


async def explain(pipeline: Pipeline, roles: Roles, ways: Ways) -> Explanation:
    """Return the picture of a pipeline.

    Args:
        pipeline: with whatever strategy.
        roles: who fills which role.
        ways: how its decisions go.

    Raises:
        PipelineError: its agents go in a circle, nobody fills a role, or its strategy breaks on answers that say
            nothing.
        UnknownName: an agent names a pipeline that is not there.
    """
    presets.all_agents(pipeline)
    gone = []
    while ways.next():
        gone.append(await _walk(pipeline, roles, ways))
    totals = [sum(len(layer.calls) for layer in layers) for layers in gone]
    steps = _steps(sorted(gone, key=len, reverse=True))
    return Explanation(pipeline.name, pipeline.strategy, steps, (min(totals), max(totals)), ways.at_least)


async def _walk(pipeline: Pipeline, roles: Roles, ways: Ways) -> tuple[Layer, ...]:
    """Return the layers of one way, in which every answer is a mark."""
    marks = map(chr, count(_FIRST))
    record = RunRecord(pipeline.name, _CONVERSATION)

    def answer(
        request: Request,
        on_end: Callable[[Outcome], None],  # noqa: ARG001 - what every ``complete`` is given
        *,
        layer: int,  # noqa: ARG001
        watch: CallRecord | None,  # noqa: ARG001
    ) -> Completion:
        mark = next(marks)
        if ord(mark) - _FIRST >= _MOST:
            msg = f"more than {_MOST:,} calls for one text are no picture"
            raise PipelineError(msg)
        return Completion(text=mark, model=request.model)

    strategy = find(pipeline.strategy)
    candidate = Candidate if strategy.is_ours else ways.candidate
    task = Task(_CONVERSATION, values=_AnyRow())
    ask = Ask(task, Resolver(roles), answer, record, b"", choices=ways, candidate=candidate)
    await strategy.run(task, pipeline.params, ask)
    return record.finish().layers


def _steps(gone: Sequence[Sequence[Layer]]) -> tuple[Step, ...]:
    """Return the layers of all ways, each once, in the order in which they come; the longest way is first."""
    order: list[str] = []
    for layers in gone:
        before = 0
        for layer in layers:
            if layer.name not in order:
                order.insert(before, layer.name)
            before = order.index(layer.name) + 1
    return tuple(_step(name, gone) for name in order)


def _step(name: str, gone: Sequence[Sequence[Layer]]) -> Step:
    agents: Counter[str] = Counter()
    numbers, seen, is_asked = [], dict[str, list[tuple[int, int]]](), set[str]()
    for layers in gone:
        calls = [call for layer in layers if layer.name == name for call in layer.calls]
        agents |= Counter(_whose(call) for call in calls)
        numbers.append(len(calls))
        for call in calls:
            held = {mark for message in call.prompt for mark in message.content}
            is_asked.add("the conversation" if _EARLIER in held else "the question" if _QUESTION in held else "")
            for layer in layers:
                n_seen = sum(other.text in held for other in layer.calls)
                seen.setdefault(layer.name, []).append((n_seen, len(layer.calls)))
    sees = [_of(found, earlier) for earlier, found in seen.items() if any(n_seen for n_seen, _ in found)]
    return Step(name, agents, (min(numbers), max(numbers)), (*sorted(is_asked - {""}), *sees))


def _whose(call: Call) -> str:
    """Return an agent's name without the number that tells its samples apart."""
    return re.sub(r" \d+$", "", call.agent)


def _of(found: Iterable[tuple[int, int]], layer: str) -> str:
    """Return how many answers of a layer are seen; ``found``: for each prompt, how many and of how many."""
    numbers = [n_seen for n_seen, _ in found]
    most = max(n for _, n in found)
    if all(n_seen == n for n_seen, n in found):
        return f"{'the one' if most == 1 else f'all {most}'} from {layer}"
    return f"{_span((min(numbers), max(numbers)))} of {most} from {layer}"


def _span(ends: tuple[int, int]) -> str:
    low, high = ends
    return f"{high:,}" if low == high else f"{low:,} to {high:,}"
