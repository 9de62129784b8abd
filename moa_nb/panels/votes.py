"""Who said what: votes, the fields of a filled form, and what free texts state as their answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from moa_nb.panels.accounts import Account, Cell, Entry, Kind, named, shown
from moa_nb.panels.view import FIELDS

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Call, Layer, Result

__all__ = ["fields", "is_vote", "stated", "votes"]

_LONGEST = 2000
"""Characters of a field's value that are shown."""


def votes(layers: Sequence[Layer], won: Any) -> Iterator[Account]:
    """Yield the tally of the last layer whose calls answered with a value each."""
    calls = next((layer.calls for layer in reversed(layers) if not layer.aside and is_vote(layer.calls)), ())
    if not calls:
        return
    from moa_nb.pipeline.vote import normalised, plurality

    vote = plurality([call.value if call.ok else None for call in calls])
    if not vote.ballots:
        return
    first = vote.ballots[0]
    agents = [call.agent for call in calls]
    if len(first.members) == vote.n:
        yield Account("Vote", f"all {vote.n} say {shown(first.value)}")
        return
    entries = [
        Entry(
            (
                Cell(shown(ballot.value)),
                Cell("", share=len(ballot.members) / vote.n),
                Cell(f"{len(ballot.members)} of {vote.n}"),
                Cell(named([agents[at] for at in ballot.members])),
            ),
            is_chosen=won is not None and normalised(ballot.value) == normalised(won),
        )
        for ballot in vote.ballots
    ]
    silent = [call.agent for call in calls if not call.ok or normalised(call.value) is None]
    if silent:
        cells = (Cell("no vote", "odd"), Cell("", share=len(silent) / vote.n), Cell(f"{len(silent)} of {vote.n}"))
        entries.append(Entry((*cells, Cell(named(silent)))))
    words = "a tie" if vote.tied else f"{len(first.members)} of {vote.n} say {shown(first.value)}"
    if len(vote.ballots) > 1:
        words = f"they disagree: {words}"
    yield Account("Vote", words, (), tuple(entries))


def is_vote(calls: Sequence[Call]) -> bool:
    """Return whether several calls answer with a value each, some of which can be read."""
    values = [call.value for call in calls if call.ok and call.value is not None]
    return len(calls) > 1 and bool(values) and not any(isinstance(value, Mapping) for value in values)


def fields(result: Result) -> Iterator[Account]:
    """Yield the fields of a filled form, with what each proposal says of each."""
    if not isinstance(result.value, Mapping) or not result.value:
        return
    from moa_nb.pipeline.agreement import proposals

    calls = [call for call in proposals(result) if call.ok and isinstance(call.value, Mapping)]
    if len(calls) < 2:
        entries = [Entry((Cell(str(name)), Cell(shown(value, _LONGEST)))) for name, value in result.value.items()]
        yield Account(FIELDS, entries=tuple(entries))
        return
    entries = [Entry(_field(str(name), value, calls)) for name, value in result.value.items()]
    n_same = sum(entry.cells[3].kind == "good" for entry in entries)
    who = f"all {len(calls)} proposals" if len(calls) > 2 else "both proposals"
    words = f"{who} agree on {n_same} of {len(entries)} fields" if n_same else "the proposals differ in each field"
    yield Account(FIELDS, words, ("", "", "who said what", "agreement"), tuple(entries))


def _field(name: str, value: Any, calls: Sequence[Call]) -> tuple[Cell, ...]:
    from moa_nb.pipeline.vote import normalised, plurality

    vote = plurality([call.value.get(name) for call in calls])
    n_same = sum(normalised(call.value.get(name)) == normalised(value) for call in calls)
    kind: Kind = "good" if n_same == len(calls) else "plain" if n_same > 1 else "odd"
    said = [
        f"{shown(ballot.value, 40)} ({named([calls[at].agent for at in ballot.members])})"
        for ballot in vote.ballots[:4]
    ]
    said += [f"{len(vote.ballots) - 4} other values"] if len(vote.ballots) > 4 else []
    differ = "; ".join(said) if len(vote.ballots) > 1 else ""
    return (Cell(name), Cell(shown(value, _LONGEST)), Cell(differ), Cell(f"{n_same} of {len(calls)}", kind))


def stated(result: Result) -> Iterator[Account]:
    """Yield in what free texts disagree, where each of them surely states an answer: a number, or yes or no.

    Of 660 questions of GSM8K with solutions by Mixtral and GPT-4 it does so for 203; for 4 of these both were right.
    """
    from moa_nb.pipeline.agreement import proposals
    from moa_nb.pipeline.vote import plurality

    calls = [call for call in proposals(result) if call.ok and call.text.strip()]
    if len(calls) < 2 or any(call.value is not None for call in calls):
        return
    question = next((turn.content for turn in reversed(result.conversation) if turn.role == "user"), "")
    asks_for_number = _ASKS_FOR_NUMBER.search(question[-_ENDING:]) is not None
    for read in (_yes_or_no, partial(_stated_number, is_asked=asks_for_number)):
        values = list(takewhile(lambda value: value is not None, (read(call.text) for call in calls)))
        if len(values) < len(calls):
            continue  # who states nothing may agree with anybody
        vote = plurality(values)
        if len(vote.ballots) > 1:
            said = [f"{shown(one.value)} ({named([calls[at].agent for at in one.members])})" for one in vote.ballots]
            yield Account("Disagreement", named(said, 5))
        return


_YES_OR_NO = re.compile(r"[\W_]{0,8}(yes|no)[*_]{0,2}(?:[,.!:;\n]|$)", re.IGNORECASE)
_EXPLICIT = re.compile(r"^\s{0,8}####|\\\\boxed", re.MULTILINE)
_ASKS_FOR_NUMBER = re.compile(r"\b(?:how (?:many|much)|what (?:number|percentage|percent|fraction))\b", re.IGNORECASE)
_BARE = re.compile(r"\W{0,8}\d[\d.,]{0,20}\W{0,4}(?:[^\W\d]{1,20}\W{0,4})?")
_ENDING = 1000


def _yes_or_no(text: str) -> str | None:
    found = _YES_OR_NO.match(text)
    return found[1].lower() if found else None


def _stated_number(text: str, *, is_asked: bool) -> int | float | None:
    """Return the number that a text ends up with, if one was asked for or it says that it is the answer; else ``None``."""
    text = text[-_ENDING:]
    from moa_nb.pipeline.parse import number
    from moa_nb.pipeline.parse.statements import said

    is_said = is_asked or _BARE.fullmatch(text) or _EXPLICIT.search(text) or next(said(text), None)
    return number(text) if is_said else None
