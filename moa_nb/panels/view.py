"""What a panel shows of a run, whether it is done or still going on.

A view holds plain values and knows nothing of HTML. ``view_of`` makes one from a finished result; a
running one is made by whoever watches the run.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from moa_nb.chat import Message, Usage
from moa_nb.panels.quoted import n_read

if TYPE_CHECKING:
    from moa_nb.panels.accounts import Account
    from moa_nb.panels.support import Support
    from moa_nb.pipeline.result import Call, Layer, Result

__all__ = [
    "CallState",
    "CallView",
    "LayerView",
    "PanelView",
    "RunState",
    "call_view",
    "caption_of",
    "flags_of",
    "view_of",
]

CallState = Literal["waiting", "queued", "answering", "done", "failed", "cached", "cancelled"]
"""``waiting`` for an earlier layer, ``queued`` for a free slot, ``answering`` once it was sent."""

RunState = Literal["running", "done", "failed", "stopped"]

FIELDS = "Fields"
"""The title of the account that shows an answer of fields."""
MOST_ENTRIES = 40
"""Lines of an account that a panel shows."""

_NOTHING_REPORTED = Usage()
_STOPPED = {"stopped", "interrupted", "cancelled"}
_ENDS = {"done", "failed", *_STOPPED, "consensus", "the moderator", "no improvement", "hopeless"}
"""Reasons to stop that are no flaw of the answer, or are said by other words."""


@dataclass(frozen=True, slots=True)
class CallView:
    """One call as a row of the panel."""

    agent: str
    model: str = ""
    """``provider:model``."""
    role_hint: str = ""
    """``proposer``, ``aggregator``, ... where it is known."""
    state: CallState = "done"
    text: str = ""
    """The answer, or as much of it as has come."""
    usage: Usage = _NOTHING_REPORTED
    cost: float | None = None
    """Dollars; ``None`` where no price is known."""
    started: float = 0.0
    """Seconds after the run's start."""
    queued_seconds: float = 0.0
    first_token_seconds: float | None = None
    """Seconds from the question to the answer's first piece; ``None`` when not streamed, or not yet."""
    seconds: float = 0.0
    """Seconds from the question to the answer, or until now."""
    attempts: int = 1
    repeats: int = 0
    """How often the same was asked once more, since the answer could not be read."""
    error: str | None = None
    prompt: tuple[Message, ...] = ()
    note: str | None = None
    reasoning: str | None = None
    finish_reason: str | None = None
    answered_by: str = ""
    """The model that the service says answered."""
    template: str | None = None
    parameters: tuple[tuple[str, Any], ...] = ()
    """The sampling parameters sent, by name."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in {"done", "failed", "cached", "cancelled"}


@dataclass(frozen=True, slots=True)
class LayerView:
    """The calls that go out at the same time."""

    name: str
    calls: tuple[CallView, ...] = ()
    caption: str = ""
    """What happens in this layer, in a few words."""

    @property
    def usage(self) -> Usage:
        """Tokens of all its calls together."""
        return functools.reduce(operator.add, (call.usage for call in self.calls), Usage())

    @property
    def cost(self) -> float | None:
        """Dollars of those that are over; ``None`` where the price of one that answered is not known."""
        costs = [call.cost for call in self.calls if call.cost is not None or call.state in {"done", "cached"}]
        return None if None in costs else float(sum(cost for cost in costs if cost is not None))

    @property
    def seconds(self) -> float:
        """Seconds from its first question to its last answer."""
        ends = [call.started + call.seconds for call in self.calls]
        return max(ends, default=0.0) - min((call.started for call in self.calls), default=0.0)


@dataclass(frozen=True, slots=True)
class PanelView:
    """A run as a panel shows it."""

    pipeline: str
    state: RunState = "done"
    text: str = ""
    """The answer; while it runs, as much of it as there is."""
    error: str | None = None
    """Why there is no answer."""
    layers: tuple[LayerView, ...] = ()
    usage: Usage = _NOTHING_REPORTED
    cost: float | None = None
    """Dollars; ``None`` where a call's price is not known."""
    cost_is_at_least: bool = False
    """Some call was paid for, and its service never said how much it took."""
    budget: float | None = None
    """The run's ceiling in dollars."""
    seconds: float = 0.0
    seen_at: str = ""
    """When a run that goes on in the background was looked at: what is saved of it says no more than that."""
    n_calls: int = 0
    n_cached: int = 0
    flags: tuple[str, ...] = ()
    """What keeps the answer from being a full one, a few words each."""
    notes: tuple[str, ...] = ()
    """What a reader must know, a sentence each."""
    agreement: float | None = None
    """How far the agents agree, 0 to 1, where that is known."""
    agreement_is_likeness: bool = False
    """Whether it says how alike free texts are in their words, rather than how many say the same."""
    support: Support | None = None
    """Where the answer's sentences come from; ``None`` where nothing was put together, or while it runs."""
    accounts: tuple[Account, ...] = ()
    """How the answer was decided."""

    @property
    def calls(self) -> tuple[CallView, ...]:
        """All calls, layer by layer."""
        return tuple(call for layer in self.layers for call in layer.calls)

    @property
    def is_form(self) -> bool:
        """Whether the answer's fields stand in an account, each whole, and need no text beside it."""
        fields = next((account for account in self.accounts if account.title == FIELDS), None)
        if fields is None or len(fields.entries) > MOST_ENTRIES or not self.text.lstrip().startswith("{"):
            return False
        return not any(entry.cells[1].text.endswith(" …") for entry in fields.entries)

    @property
    def span(self) -> float:
        """Seconds that the time line covers."""
        return max([self.seconds, *(call.started + call.seconds for call in self.calls)])


def view_of(result: Result) -> PanelView:
    """Return what a panel shows of a finished run."""
    # Here: reading sentences and votes is nothing that a running panel needs.
    from moa_nb.panels.decisions import accounts_of
    from moa_nb.panels.judging import subjects
    from moa_nb.panels.support import support_of
    from moa_nb.pipeline.agreement import proposals

    layers = tuple(
        LayerView(
            layer.name,
            tuple(
                call_view(call, _role_hint(layer, call), about)
                for call, about in zip(layer.calls, subjects(result.layers, layer), strict=True)
            ),
            caption_of(
                place,
                n_calls=len(layer.calls),
                n_read=n_read(
                    [
                        tuple(call.text for call in one.calls if call.ok)
                        for one in result.layers[:place]
                        if not one.aside
                    ],
                    () if layer.aside else next((call.prompt for call in layer.calls if call.prompt), ()),
                ),
                agent=layer.calls[0].agent if layer.calls else "",
                reads=any(call.template is not None for call in layer.calls),
                name=layer.name,
                aside=layer.aside,
            ),
        )
        for place, layer in enumerate(result.layers)
    )
    state: RunState = "done"
    if result.stop_reason in _STOPPED:
        state = "stopped"
    elif result.error is not None:
        state = "failed"
    return PanelView(
        pipeline=result.pipeline,
        state=state,
        text=result.text,
        error=result.error,
        layers=layers,
        usage=result.usage,
        cost=result.cost,
        cost_is_at_least=result.unreported > 0,
        budget=result.budget,
        seconds=result.seconds,
        n_calls=result.n_calls,
        n_cached=sum(call.cached for call in result.calls),
        flags=flags_of(result),
        notes=result.notes,
        # Tiers come one after the other: there it says nothing how alike their answers are.
        agreement=result.agreement if any(len(one.calls) > 1 for one in result.layers if not one.aside) else None,
        agreement_is_likeness=result.value is None and all(call.value is None for call in proposals(result)),
        support=support_of(result),
        accounts=accounts_of(result),
    )


_ASIDE = {
    "verdicts": "on {answers}",
    "choice": "one of {answers} is chosen",
    "moderation": "it is chosen which of {answers} go on",
    "routing": "a router chooses who answers",
    "score": "the answer is scored",
    "verification": "the answer is checked {calls}",
    "critiques": "of {answers}",
    "residual": "is it better than what was there before?",
}
"""What happens in a layer besides the answers, by the last word of its name."""


def caption_of(
    place: int,
    *,
    n_calls: int,
    n_read: int = 0,
    agent: str = "",
    reads: bool = True,
    name: str = "",
    aside: bool = False,
) -> str:
    """Return in a few words what the layer at ``place`` (from 0) does.

    Args:
        place: which layer of the run it is, from 0.
        n_calls: how many calls it has.
        n_read: how many answers the layer before it gave.
        agent: the name of its only agent.
        reads: whether its agents are shown those answers.
        name: its name.
        aside: whether its calls are no answers.

    >>> caption_of(0, n_calls=3), caption_of(1, n_calls=1, n_read=3)
    ('proposers answer side by side', 'the aggregator reads 3 answers')
    """
    answers = f"{n_read} answer{'s' if n_read != 1 else ''}"
    if aside:
        what = _ASIDE.get(name.rpartition(": ")[2].rpartition(" ")[2], "beside the answers")
        return what.format(answers=answers, calls="once" if n_calls == 1 else f"{n_calls} times")
    if name.endswith(": revisions"):
        return "each writes its answer again, with what the others say of it"
    if place and reads and n_read:
        # A name such as 'judge' says more than 'aggregator'; a name such as 'alpha' does not.
        known = agent if agent.isalpha() and agent.endswith(("or", "er", "ge", "ic")) else "aggregator"
        return f"the {known} reads {answers}" if n_calls == 1 else f"{n_calls} agents read {answers}"
    if n_calls > 1:
        return "proposers answer side by side" if place == 0 else f"{n_calls} agents answer side by side"
    return "one agent answers"


def flags_of(result: Result) -> tuple[str, ...]:
    """Return what keeps the answer of ``result`` from being a full one, a few words each."""
    flags: list[str] = []
    for place, layer in enumerate(result.layers):
        n, n_ok = len(layer.calls), layer.n_ok
        if 0 < n_ok < n:
            who = "proposers" if place == 0 else "agents"
            flags.append(f"degraded: {n_ok} of {n} {who} answered")
    n_cut = sum(call.ok and call.finish_reason == "length" for call in result.calls)
    if n_cut:
        flags.append("truncated" if n_cut == result.n_calls else f"{n_cut} of {result.n_calls} answers truncated")
    if result.degraded and not flags and result.error is None:
        flags.append("degraded")
    if result.converged is False:
        flags.append("did not converge")
    # That the last tier answered, whom no gate looks at, is no flaw: the account says who was asked, and why.
    if result.accepted is False and (result.degraded or result.stop_reason == "hopeless"):
        flags.append("not accepted")
    if result.n_unparsed:
        flags.append(f"{result.n_unparsed} answer{'s' if result.n_unparsed != 1 else ''} not understood")
    if result.stop_reason not in _ENDS:
        flags.append(f"ended by: {result.stop_reason}")
    return tuple(flags)


def _role_hint(layer: Layer, call: Call) -> str:
    if call.template is None:
        return "proposer"
    return "aggregator" if len(layer.calls) == 1 else ""


def call_view(call: Call, role_hint: str = "", about: str = "") -> CallView:
    """Return what a panel shows of a finished call; ``about`` is what it was about, where it is no answer."""
    state: CallState = "cached" if call.cached else "done"
    if call.error is not None:
        state = "cancelled" if call.error_kind == "cancelled" else "failed"
    return CallView(
        agent=call.agent,
        model=call.model,
        role_hint=role_hint,
        state=state,
        text=call.text,
        usage=call.usage,
        cost=call.cost,
        started=call.started,
        queued_seconds=call.queued_seconds,
        first_token_seconds=call.first_token_seconds,
        seconds=call.seconds,
        attempts=call.attempts,
        repeats=call.repeats,
        error=None if state == "cancelled" else call.error,
        prompt=call.prompt,
        # Its own note stands once at the top, among the run's.
        note=about or None,
        reasoning=call.reasoning,
        finish_reason=call.finish_reason,
        answered_by=call.answered_by,
        template=call.template,
        parameters=call.parameters,
    )
