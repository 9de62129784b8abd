"""Dollars, tokens and seconds as short text, the same in every panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moa_nb import money
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from moa_nb.chat import Usage
    from moa_nb.panels.view import CallView, PanelView

__all__ = [
    "BRIEF",
    "UNKNOWN",
    "agreement",
    "agreement_title",
    "ceiling",
    "count",
    "dollars",
    "dollars_briefly",
    "remarks",
    "seconds",
    "share",
    "span",
    "tokens",
    "tokens_title",
]

UNKNOWN = "\N{EN DASH}"
"""What stands where nothing is known."""


_MINUTES_FROM, _WHOLE_FROM = 120, 99.95


def dollars(amount: float | None) -> str:
    """Return ``amount`` without the sign; a dash where it is not known.

    >>> dollars(0.01234), dollars(None)
    ('0.0123', '–')
    """
    return UNKNOWN if amount is None else money.dollars(amount)


BRIEF = 0.00005
"""Dollars below which ``dollars_briefly`` shows no digits."""


def dollars_briefly(amount: float | None) -> str:
    """Return ``amount`` in at most seven characters up to a thousand dollars, for a narrow column.

    >>> dollars_briefly(0.0004), dollars_briefly(0.000012), dollars_briefly(0.0)
    ('0.0004', '<0.0001', '0')
    """
    if amount is None or amount == 0 or amount >= 1:
        return dollars(amount)
    return "<0.0001" if amount < BRIEF else f"{amount:.4f}"


def ceiling(amount: float) -> str:
    """Return a budget the way a person wrote it, without the sign.

    >>> ceiling(0.05), ceiling(5.0), ceiling(1234.5)
    ('0.05', '5', '1,234.50')
    """
    if amount == int(amount):
        return f"{amount:,.0f}"
    return dollars(amount) if amount >= 1 else dollars(amount).rstrip("0")


def tokens(number: int | None, *, estimated: bool = False) -> str:
    """Return a count of tokens; estimated ones are marked.

    >>> tokens(2140), tokens(12, estimated=True)
    ('2,140', '≈12')
    """
    return UNKNOWN if number is None else f"{'≈' if estimated else ''}{number:,}"


def tokens_title(usage: Usage) -> str:
    """Return what a reader sees on pointing at the tokens; empty where nothing was reported."""
    if usage.prompt_tokens is None and usage.completion_tokens is None:
        return "no tokens reported"
    prompt = f"{tokens(usage.prompt_tokens)} prompt tokens"
    if usage.cached_prompt_tokens:
        prompt += f" ({usage.cached_prompt_tokens:,} from the service's cache)"
    completion = f"{tokens(usage.completion_tokens)} completion tokens"
    if usage.reasoning_tokens:
        completion += f" ({usage.reasoning_tokens:,} of reasoning)"
    return f"{prompt}, {completion}{', estimated' if usage.estimated else ''}"


def agreement(view: PanelView) -> tuple[str, str]:
    """Return how far a run's agents agree, as a figure and what it is of; empty where it is not known."""
    if view.agreement is None:
        return "", ""
    return share(view.agreement), "alike" if view.agreement_is_likeness else "agreement"


def share(value: float | None) -> str:
    """Return a share from 0 to 1 in percent.

    >>> share(0.354), share(None)
    ('35 %', '–')
    """
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def agreement_title(view: PanelView) -> str:
    """Return what a reader sees on pointing at the agreement."""
    if view.agreement_is_likeness:
        return "how alike the proposals are in their words"
    return "how far the agents agree"


def seconds(duration: float) -> str:
    """Return a duration, in seconds below two minutes.

    >>> seconds(6.41), seconds(0), seconds(99.96), seconds(3725)
    ('6.4', '0.0', '100', '62 min')
    """
    if duration >= _MINUTES_FROM:
        return f"{duration / 60:.0f} min"
    return f"{duration:.0f}" if duration >= _WHOLE_FROM else f"{duration:.1f}"


def count(number: int, noun: str) -> str:
    """Return ``number`` with its noun in the right form.

    >>> count(1, "call"), count(5, "call")
    ('1 call', '5 calls')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(low: str, high: str) -> str:
    """Return two figures as what lies between them; once where they are one.

    >>> span("4", "4"), span("4", "9")
    ('4', '4 to 9')
    """
    return high if low == high else f"{low} to {high}"


_NOTE = 160
_WAITING = {"waiting": "waiting", "queued": "queued", "answering": "answering …"}


def remarks(call: CallView) -> tuple[str, str]:
    """Return what is to be said of a call beside its figures, and its kind: good, bad, odd or plain."""
    if call.state in _WAITING:
        return _WAITING[call.state], "plain"
    if call.state == "failed":
        return ("failed" if call.attempts <= 1 else f"failed after {call.attempts} tries"), "bad"
    said, kind = [], "plain"
    if call.state == "cached":
        said, kind = ["cached"], "good"
    elif call.state == "cancelled":
        said, kind = ["stopped"], "odd"
    elif call.attempts > 1 + call.repeats:
        said, kind = [f"{call.attempts} tries"], "odd"
    if call.repeats:
        said, kind = [*said, "asked once more, unreadable before"], "odd"
    if call.finish_reason == "length":
        said, kind = [*said, "truncated"], "odd"
    elif call.finish_reason == "content_filter":
        said, kind = [*said, "cut by the service's filter"], "odd"
    if call.note:
        said.append(" ".join(to_plain(call.note[:_NOTE]).split()))
    return ", ".join(said), kind
