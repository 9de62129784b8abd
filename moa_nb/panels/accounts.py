"""How a strategy came to its answer, as far as the record of its calls tells: votes, tiers, rounds, ways, choices.

A record does not name its strategy, and need not: layers and the values read from their calls say what was done.
What is not written down is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from moa_nb.panels.view import FIELDS

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Call, Layer, Result

__all__ = ["Account", "Cell", "Entry", "accounts_of", "named", "shown"]

Kind = Literal["plain", "good", "odd", "bad"]

_TIER = re.compile(r"tier (\d+)")
_ROUND = re.compile(r"round (\d+)")
_BETWEEN = " › "
"""What parts the names of a pipeline's layers from those of the layer that it answers in."""
_MOST_NAMES = 8
_WIDEST, _LONGEST = 60, 2000


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of an account."""

    text: str
    kind: Kind = "plain"
    share: float | None = None
    """What share of a bar is filled, from 0 to 1; ``None``: there is no bar."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an account."""

    cells: tuple[Cell, ...]
    is_chosen: bool = False
    """Whether it is about what became the answer."""


@dataclass(frozen=True, slots=True)
class Account:
    """How something was decided: a sentence, and a small table where there is one."""

    title: str
    words: str = ""
    heads: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


def accounts_of(result: Result) -> tuple[Account, ...]:
    """Return how the answer was decided, step by step; empty where everything was put together and nothing decided."""
    from moa_nb.panels.judging import choices, verdicts

    groups: dict[str, list[Layer]] = {}
    for layer in result.layers:
        within, _, name = layer.name.rpartition(_BETWEEN)
        groups.setdefault(within, []).append(replace(layer, name=name))
    found: list[Account] = []
    for within, layers in groups.items():
        # Of a pipeline inside another one only the layers are known, not its flags and its answer.
        whole = result if not within else result.replace(value=None, accepted=None, converged=None, stop_reason="done")
        answer = result.text if not within else ""
        accounts = (
            *_ways(layers),
            *_votes(layers, whole.value),
            *verdicts(layers, answer),
            *choices(layers, answer),
            *_rounds(layers, whole),
            *_base(layers, whole),
        )
        where = within + _BETWEEN if within else ""
        found += [replace(account, title=where + account.title) for account in accounts]
    return (*_fields(result), *_tiers(result), *(found or _stated(result)))


# -- words ----------------------------------------------------------------------------------------


def named(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Return names as a list that stays short.

    >>> named(["alpha", "beta", "gamma"]), named(["a", "b", "c", "d"], 2)
    ('alpha, beta, gamma', 'a, b and 2 more')
    """
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def shown(value: Any, width: int = _WIDEST) -> str:
    """Return a value as a person writes it, cut at ``width``.

    >>> shown(42.0), shown(True), shown(["a", "b"]), shown(None)
    ('42', 'yes', 'a, b', '–')
    """
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.10g}"
    if isinstance(value, list | tuple | set | frozenset):
        said = ", ".join(
            shown(one) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)
        )
    elif isinstance(value, Mapping):
        said = ", ".join(f"{name}: {shown(one)}" for name, one in value.items())
    else:
        said = str(value)
    said = " ".join(said[: 4 * width].split())
    return said if len(said) <= width else f"{said[:width].rstrip()} …"


def _cells(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


# -- votes and fields -----------------------------------------------------------------------------


def _votes(layers: Sequence[Layer], won: Any) -> Iterator[Account]:
    """Yield the tally of the last layer whose calls answered with a value each."""
    calls = next((layer.calls for layer in reversed(layers) if not layer.aside and _is_vote(layer.calls)), ())
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


def _is_vote(calls: Sequence[Call]) -> bool:
    values = [call.value for call in calls if call.ok and call.value is not None]
    return len(calls) > 1 and bool(values) and not any(isinstance(value, Mapping) for value in values)


def _fields(result: Result) -> Iterator[Account]:
    """Yield the fields of a filled form, with what each proposal says of each."""
    if not isinstance(result.value, Mapping) or not result.value:
        return
    from moa_nb.pipeline.agreement import proposals

    calls = [call for call in proposals(result) if call.ok and isinstance(call.value, Mapping)]
    if len(calls) < 2:
        cells = [_cells(str(name), shown(value, _LONGEST)) for name, value in result.value.items()]
        yield Account(FIELDS, "", (), tuple(map(Entry, cells)))
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


def _stated(result: Result) -> Iterator[Account]:
    """Yield in what free texts disagree, where each of them states its answer: a number, or yes or no."""
    from moa_nb.pipeline.agreement import proposals
    from moa_nb.pipeline.vote import plurality

    calls = [call for call in proposals(result) if call.ok and call.text.strip()]
    if len(calls) < 2 or any(call.value is not None for call in calls):
        return
    for read in (_yes_or_no, _stated_number):
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
_BARE_NUMBER, _ENDING = 24, 1000


def _yes_or_no(text: str) -> str | None:
    found = _YES_OR_NO.match(text)
    return found[1].lower() if found else None


def _stated_number(text: str) -> int | float | None:
    """Return the number that a text ends up with, if it says that it is the answer; ``None`` for one among others."""
    text = text[-_ENDING:]
    from moa_nb.pipeline.parse import number
    from moa_nb.pipeline.parse.statements import said

    is_said = len(text.strip()) <= _BARE_NUMBER or _EXPLICIT.search(text) or next(said(text), None) is not None
    return number(text) if is_said else None


# -- tiers, a base, ways --------------------------------------------------------------------------


def _tiers(result: Result) -> Iterator[Account]:
    """Yield who answered in each tier of a cascade, what the gate made of it, and what became of it."""
    tiers: dict[int, list[Layer]] = {}
    for layer in result.layers:
        if match := _TIER.match(layer.name):
            tiers.setdefault(int(match[1]), []).append(layer)
    if not tiers:
        return
    texts = {
        n: [call.text for layer in layers if not layer.aside for call in layer.calls] for n, layers in tiers.items()
    }
    stands = next((n for n in sorted(tiers, reverse=True) if result.text in texts[n]), max(tiers))
    entries = []
    for number, layers in sorted(tiers.items()):
        answering = [call for layer in layers if not layer.aside for call in layer.calls]
        gate = [call for layer in layers if layer.aside and _BETWEEN not in layer.name for call in layer.calls]
        outcome = _outcome(result, number, stands, max(tiers), has_answer=any(call.ok for call in answering))
        who = named(list(dict.fromkeys(call.agent for call in answering)), 3)
        entries.append(Entry((Cell(f"tier {number}"), Cell(who), _gate(gate, answering), outcome), number == stands))
    on = "the first tier's answer stands" if stands == 1 else f"it went on to tier {max(tiers)}"
    yield Account("Cascade", on, (), tuple(entries))


def _gate(gate: Sequence[Call], answering: Sequence[Call]) -> Cell:
    said = [call.value for call in gate if call.ok and call.value is not None]
    if gate and not said:
        return Cell("no score could be read", "odd")
    if said and isinstance(said[0], bool):
        return Cell(f"{sum(said)} of {len(said)} checks say it is correct", share=sum(said) / len(said))
    if said:
        return Cell(f"score {shown(said[0])}", share=_share(said[0]))
    if _is_vote(answering):
        from moa_nb.pipeline.vote import plurality

        vote = plurality([call.value if call.ok else None for call in answering])
        return Cell(f"{len(vote.ballots[0].members)} of {vote.n} say the same", share=vote.share_of_all)
    return Cell("")


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _outcome(result: Result, number: int, stands: int, last: int, *, has_answer: bool) -> Cell:
    if not has_answer:
        return Cell("failed", "bad")
    if number != stands:
        return Cell("not accepted, went on" if number < last else "asked", "odd")
    if result.accepted:
        return Cell("accepted", "good")
    if result.stop_reason == "hopeless":
        return Cell("kept: no tier is expected to do better", "odd")
    return Cell("stands, and nothing accepted it" if result.accepted is False else "stands", "plain")


def _base(layers: Sequence[Layer], result: Result) -> Iterator[Account]:
    """Yield whether a base of small models agreed, or an oracle was asked."""
    if not any(layer.name == "base" for layer in layers):
        return
    oracle = next((call.agent for layer in layers if layer.name == "oracle" for call in layer.calls), "")
    if oracle:
        yield Account("Base and oracle", f"the base did not agree enough: {oracle} was asked")
    elif result.accepted:
        yield Account("Base and oracle", "the base agreed, and no oracle was asked")


def _ways(layers: Sequence[Layer]) -> Iterator[Account]:
    """Yield which way a router that is a model chose, and who answered."""
    routing = next((layer.calls[0] for layer in layers if layer.name == "routing" and layer.aside), None)
    if routing is None:
        return
    chose = (
        f"{routing.agent} chose {shown(routing.value)}"
        if routing.value is not None
        else f"{routing.agent} chose no way"
    )
    answered = [call for layer in layers if layer.name in {"answer", "fallback"} for call in layer.calls]
    who = [f"{call.agent} {'answered' if call.ok else 'failed'}" for call in answered]
    yield Account("Route", "; ".join([chose, *who]))


# -- rounds ---------------------------------------------------------------------------------------


def _rounds(layers: Sequence[Layer], result: Result) -> Iterator[Account]:
    """Yield who changed the answer from one round to the next, and what a moderator let through."""
    numbered = [(int(match[1]), layer) for layer in layers if (match := _ROUND.match(layer.name))]
    rounds = [layer for _, layer in numbered if not layer.aside]
    moderated = [(number, layer.calls[0]) for number, layer in numbered if layer.aside and layer.calls]
    if moderated:
        entries = [_moderated(number, call, layers) for number, call in moderated]
        yield Account("Moderation", "", (), tuple(entries))
        return
    if len(rounds) < 2:
        if rounds and result.stop_reason == "consensus":
            yield Account("Rounds", "all agreed after the first round")
        return
    agents = list(dict.fromkeys(call.agent for layer in rounds for call in layer.calls))
    rows = [(agent, _course([_by(agent, layer.calls) for layer in rounds])) for agent in agents]
    n_changed = sum(any(cell.kind == "odd" for cell in cells) for _, cells in rows)
    words = f"{n_changed} of {len(agents)} changed the answer" if n_changed else "nobody changed the answer"
    if result.converged is not None:
        words += "; they agree in the end" if result.converged else "; they do not agree in the end"
    heads = ("", *(layer.name for layer in rounds))
    yield Account("Rounds", words, heads, tuple(Entry((Cell(agent), *cells)) for agent, cells in rows))


def _by(agent: str, calls: Iterable[Call]) -> Call | None:
    return next((call for call in calls if call.agent == agent), None)


def _course(calls: Sequence[Call | None]) -> list[Cell]:
    """Return what one agent said round by round: its values, or how like the earlier answer each is."""
    from moa_nb.pipeline.similarity import similarity
    from moa_nb.pipeline.vote import normalised

    cells: list[Cell] = []
    before: Call | None = None
    for call in calls:
        if call is None or not call.ok:
            cells.append(Cell("\N{EN DASH}" if call is None else "failed", "plain" if call is None else "bad"))
            continue
        has_values = call.value is not None and not isinstance(call.value, Mapping)
        if before is None:
            cells.append(Cell(shown(call.value, 30) if has_values else "answered"))
        elif call.value is not None or before.value is not None:
            changed = normalised(call.value) != normalised(before.value)
            said = shown(call.value, 30) if has_values or call.value is None else "changed" if changed else "the same"
            cells.append(Cell(said, "odd" if changed else "plain"))
        else:
            alike = similarity(before.text[:_COMPARED], call.text[:_COMPARED])
            same = alike >= _SAME_TEXT
            cells.append(Cell("the same" if same else f"{_percent(alike)} alike", "plain" if same else "odd"))
        before = call
    return cells


_COMPARED, _SAME_TEXT = 5000, 0.95


def _moderated(number: int, call: Call, layers: Sequence[Layer]) -> Entry:
    # A record that was kept holds plain data where the run had a choice.
    choice = (
        call.value
        if isinstance(call.value, Mapping)
        else {name: getattr(call.value, name, None) for name in ("keep", "end")}
    )
    answers = [one.agent for layer in layers if layer.name == f"round {number}" for one in layer.calls if one.ok]
    kept = [at for at in choice.get("keep") or () if 0 <= at < len(answers)]
    if not kept:
        return Entry((Cell(f"round {number}"), Cell("no choice could be read", "odd"), Cell("")))
    then = "enough" if choice.get("end") else "another round, if there is one"
    return Entry(
        (
            Cell(f"round {number}"),
            Cell(f"{named([answers[at] for at in kept])} go on" if len(kept) > 1 else f"{answers[kept[0]]} goes on"),
            Cell(then),
        )
    )
