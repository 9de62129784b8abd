"""How a strategy came to its answer, as far as the record of its calls tells: tiers, ways, rounds, votes, verdicts.

A record does not name its strategy, and need not: layers and the values read from their calls say what was done.
What is not written down is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moa_nb.panels.accounts import Account, Cell, Entry, named, shown
from moa_nb.panels.judging import choices, verdicts
from moa_nb.panels.votes import fields, is_vote, stated, votes

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Call, Layer, Result

__all__ = ["accounts_of"]

_TIER = re.compile(r"tier (\d+)")
_ROUND = re.compile(r"round (\d+)")
_BETWEEN = " › "
"""What parts the names of a pipeline's layers from those of the layer that it answers in."""


def accounts_of(result: Result) -> tuple[Account, ...]:
    """Return how the answer was decided, step by step; empty where everything was put together and nothing decided."""
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
            *votes(layers, whole.value),
            *verdicts(layers, answer),
            *choices(layers, answer),
            *_rounds(layers, whole),
            *_base(layers, whole),
        )
        where = within + _BETWEEN if within else ""
        found += [replace(account, title=where + account.title) for account in accounts]
    return (*fields(result), *_tiers(result), *(found or stated(result)))


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
    if said and all(isinstance(one, bool) for one in said):
        return Cell(f"{sum(said)} of {len(said)} checks say it is correct", share=sum(said) / len(said))
    if said:
        return Cell(f"score {shown(said[0])}", share=_share(said[0]))
    if is_vote(answering):
        from moa_nb.pipeline.vote import plurality

        vote = plurality([call.value if call.ok else None for call in answering])
        n_same = max((len(ballot.members) for ballot in vote.ballots), default=0)
        return Cell(f"{n_same} of {vote.n} say the same", share=vote.share_of_all)
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
            cells.append(Cell("the same" if same else f"{100 * alike:.0f} % alike", "plain" if same else "odd"))
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
    kept = [at for at in choice.get("keep") or () if isinstance(at, int) and 0 <= at < len(answers)]
    if not kept:
        return Entry((Cell(f"round {number}"), Cell("no choice could be read", "odd"), Cell("")))
    goes_on = any(layer.name == f"round {number + 1}" for layer in layers)
    then = "enough" if choice.get("end") else "another round" if goes_on else "no round was left"
    return Entry(
        (
            Cell(f"round {number}"),
            Cell(f"{named([answers[at] for at in kept])} go on" if len(kept) > 1 else f"{answers[kept[0]]} goes on"),
            Cell(then),
        )
    )
