"""What judges said: ratings, verdicts on pairs and which of them flipped with the order, choices among answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

from moa_nb.panels.accounts import Account, Cell, Entry, Kind, shown

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Call, Layer
    from moa_nb.pipeline.verdicts import Outcome

__all__ = ["choices", "verdicts"]

_MOST_COLUMNS = 8
_WORDS: dict[float, tuple[str, Kind]] = {1.0: ("won", "good"), 0.0: ("lost", "plain"), 0.5: ("tie", "plain")}


def verdicts(layers: Sequence[Layer], answer: str) -> Iterator[Account]:
    """Yield what the judges made of the answers: a rating each, or who won each pair."""
    judged = next((layer.calls for layer in layers if layer.name == "verdicts" and layer.aside), ())
    answers = [call for layer in layers if layer.name == "answers" for call in layer.calls if call.ok]
    tables: dict[str, list[Call]] = {}
    for call in judged:
        tables.setdefault(call.agent, []).append(call)
    n = len(answers)
    sizes = {len(calls) for calls in tables.values()}
    if n < 2 or len(sizes) != 1:
        return  # an answer of a whole pipeline stands in layers of its own
    (size,) = sizes
    letters = any(isinstance(call.value, str) for call in judged)
    if letters and size in {n * (n - 1), n * (n - 1) // 2}:
        yield _compared(answers, tables, answer, swap=size == n * (n - 1))
    elif not letters and size == n:
        yield _rated(answers, tables, answer)


def _rated(answers: Sequence[Call], tables: dict[str, list[Call]], answer: str) -> Account:
    entries = []
    for at, one in enumerate(answers):
        given = [calls[at].value if calls[at].ok else None for calls in tables.values()]
        known = [value for value in given if isinstance(value, int | float)]
        mean = fmean(known) if known else None
        each = [Cell(shown(value), "odd" if value is None else "plain") for value in given[:_MOST_COLUMNS]]
        bar = Cell("" if mean is None else f"{mean:.3g}", share=None if mean is None else min(1.0, mean / 10))
        entries.append(Entry((Cell(one.agent), *(each if len(tables) > 1 else ()), bar), one.text == answer))
    judges = list(tables)
    heads = ("", *(judges[:_MOST_COLUMNS] if len(judges) > 1 else ()), "rating")
    return Account("Ratings", f"from 1 to 10, {_who(judges)}", heads, tuple(entries))


def _who(judges: Sequence[str]) -> str:
    return f"by {judges[0]}" if len(judges) == 1 else f"the mean of {len(judges)} judges"


def _compared(answers: Sequence[Call], tables: dict[str, list[Call]], answer: str, *, swap: bool) -> Account:
    from moa_nb.pipeline.verdicts import pairs, rank_by_verdicts

    n = len(answers)
    shown_pairs = pairs(n, swap=swap)
    read = [
        {pair: call.value if call.ok else None for pair, call in zip(shown_pairs, calls, strict=True)}
        for calls in tables.values()
    ]
    outcomes = {pair: [_outcome(table, pair, swap=swap) for table in read] for pair in combinations(range(n), 2)}
    # A judge who could not be read at all ranks nobody.
    scores = [rank_by_verdicts(n, table).scores for table in read if any(table.values())]
    names = [one.agent for one in answers]
    entries = []
    for row in range(n):
        cells = [_pair(row, column, outcomes) for column in range(n)] if n <= _MOST_COLUMNS else []
        points = fmean(score[row] or 0.0 for score in scores) if scores else None
        bar = Cell("" if points is None else f"{points:.2f}", share=points)
        entries.append(Entry((Cell(names[row]), *cells, bar), answers[row].text == answer))
    flips = sum(outcome.position_conflict for each in outcomes.values() for outcome in each)
    n_pairs = len(outcomes) * len(tables)
    words = f"{_who(list(tables))}, each pair in {'both orders' if swap else 'one order'}"
    if flips:
        words += f"; {flips} of {n_pairs} pairs flipped when the answers changed places, and count as ties"
    elif swap:
        words += "; none flipped when the answers changed places"
    heads = ("", *((f"against {name}" for name in names) if n <= _MOST_COLUMNS else ()), "points")
    return Account("Verdicts", words, heads, tuple(entries))


def _outcome(table: dict[tuple[int, int], str | None], pair: tuple[int, int], *, swap: bool) -> Outcome:
    from moa_nb.pipeline.verdicts import settle

    one, other = pair
    if swap:
        return settle(table[one, other], table[other, one])
    letter = table[one, other]
    return settle(letter, {"A": "B", "B": "A"}.get(letter or "", letter))


def _pair(row: int, column: int, outcomes: dict[tuple[int, int], list[Outcome]]) -> Cell:
    """Return what came of one answer against another one: a word for one judge, counts for several."""
    if row == column:
        return Cell("")
    each = outcomes[min(row, column), max(row, column)]
    words: list[tuple[str, Kind]] = []
    for outcome in each:
        if outcome.points is None:
            words.append(("unread", "odd"))
        elif outcome.position_conflict:
            words.append(("flipped", "odd"))
        else:
            words.append(_WORDS[outcome.points if row < column else 1 - outcome.points])
    if len(words) == 1:
        return Cell(*words[0])
    said = list(dict.fromkeys(word for word, _ in words))
    kinds = {kind for _, kind in words}
    counts = ", ".join(f"{sum(word == one for word, _ in words)} {one}" for one in said)
    return Cell(counts, kinds.pop() if len(kinds) == 1 else "odd" if "odd" in kinds else "plain")


def choices(layers: Sequence[Layer], answer: str) -> Iterator[Account]:
    """Yield which answer a judge chose among all, and whether a further layer was an improvement."""
    choice = next((layer.calls[0] for layer in layers if layer.name == "choice" and layer.aside), None)
    if choice is not None:
        samples = [call for layer in layers if layer.name == "samples" for call in layer.calls if call.ok]
        chosen = next((call.agent for call in samples if call.text == answer), "")
        if choice.value is None:
            yield Account("Choice", f"{choice.agent} named none of {len(samples)} answers")
        elif chosen:
            yield Account(
                "Choice", f"{choice.agent} chose {chosen} among {len(samples)} answers; it stands word for word"
            )
    for layer in layers:
        if layer.aside and layer.name.endswith(": residual") and layer.calls:
            of, call = layer.name.removesuffix(": residual"), layer.calls[0]
            said = {None: "made no choice that could be read", "": "saw no improvement"}.get(
                call.value, "saw a better answer"
            )
            yield Account("Improvement", f"{of}: {call.agent} {said}")
