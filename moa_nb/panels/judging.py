"""What judges said: ratings, verdicts on pairs and which of them flipped with the order, choices among answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from statistics import fmean
from typing import TYPE_CHECKING

from moa_nb.panels.accounts import Account, Cell, Entry, Kind, shown

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Call, Layer
    from moa_nb.pipeline.verdicts import Outcome

__all__ = ["choices", "subjects", "verdicts"]

_MOST_COLUMNS = 8
_BEGINNING = 60
"""Characters of an answer that a judge's prompt surely holds, however much it was shortened."""
_WORDS: dict[float, tuple[str, Kind]] = {1.0: ("won", "good"), 0.0: ("lost", "plain"), 0.5: ("tie", "plain")}


@dataclass(frozen=True, slots=True)
class _Judged:
    """The answers that judges were shown, and each judge's calls in the order in which these were shown."""

    answers: tuple[Call, ...]
    tables: Mapping[str, tuple[Call, ...]]
    shown: tuple[tuple[int, ...], ...]
    """Which answers each call of a judge was about, by their positions: one, or two in the order of the prompt."""

    @property
    def is_swapped(self) -> bool:
        """Whether pairs were shown in both orders."""
        return (1, 0) in self.shown


def _judged(layers: Sequence[Layer]) -> _Judged | None:
    """Return who was shown what; ``None`` where the record does not tell it beyond doubt."""
    calls = next((layer.calls for layer in layers if layer.name == "verdicts" and layer.aside), ())
    answers = tuple(call for layer in layers if layer.name == "answers" for call in layer.calls if call.ok)
    tables: dict[str, list[Call]] = {}
    for call in calls:
        tables.setdefault(call.agent, []).append(call)
    n = len(answers)
    ways: list[tuple[tuple[int, ...], ...]] = [
        tuple(permutations(range(n), 2)),
        tuple(combinations(range(n), 2)),
        tuple((at,) for at in range(n)),
    ]
    sizes = {len(said) for said in tables.values()}
    # Of an answer that a whole pipeline gave the record has no call here: then the numbers do not fit.
    for way in ways:
        if n > 1 and sizes == {len(way)} and all(_fits(said, way, answers) for said in tables.values()):
            return _Judged(answers, {agent: tuple(said) for agent, said in tables.items()}, way)
    return None


def _fits(calls: Sequence[Call], way: Sequence[tuple[int, ...]], answers: Sequence[Call]) -> bool:
    """Return whether each prompt holds the answers that it is taken to be about, and a value of their kind."""
    return all(
        (call.value is None or isinstance(call.value, str) == (len(about) == 2))
        and (not call.prompt or all(answers[at].text.strip()[:_BEGINNING] in call.prompt[-1].content for at in about))
        for call, about in zip(calls, way, strict=True)
    )


def subjects(layers: Sequence[Layer], layer: Layer) -> list[str]:
    """Return whose answers each call of a layer of verdicts or critiques is about, and what it says; empty elsewhere."""
    if layer.aside and layer.name.endswith(": critiques"):
        return _criticized(layers, layer)
    judged = _judged(layers) if layer.name == "verdicts" and layer.aside else None
    if judged is None:
        return [""] * len(layer.calls)
    names = [one.agent for one in judged.answers]
    about = {agent: iter(judged.shown) for agent in judged.tables}
    return [_verdict(call, [names[at] for at in next(about[call.agent])]) for call in layer.calls]


def _verdict(call: Call, names: Sequence[str]) -> str:
    about = " or ".join(names)
    if not call.ok or call.value is None:
        return about
    if len(names) == 1:
        return f"{about}: {shown(call.value)}"
    return f"{about}: {dict(zip('AB', names, strict=True)).get(call.value, 'a tie')}"


def _criticized(layers: Sequence[Layer], layer: Layer) -> list[str]:
    """Return whose answer each critique is about: everybody criticizes all in their order, themselves included."""
    name = layer.name.removesuffix("critiques") + "answers"
    authors = [call.agent for one in layers if one.name == name for call in one.calls if call.ok]
    critics = [call.agent for call in layer.calls]
    if critics != [author for author in authors for _ in authors]:
        return [""] * len(critics)
    return authors * len(authors)


def verdicts(layers: Sequence[Layer], answer: str) -> Iterator[Account]:
    """Yield what the judges made of the answers: a rating each, or who won each pair."""
    judged = _judged(layers)
    if judged is None:
        return
    if len(judged.shown[0]) == 1:
        yield _rated(judged.answers, judged.tables, answer)
    else:
        yield _compared(judged, answer)


def _rated(answers: Sequence[Call], tables: Mapping[str, Sequence[Call]], answer: str) -> Account:
    ratings = [[calls[at].value if calls[at].ok else None for calls in tables.values()] for at in range(len(answers))]
    means = [_mean(given) for given in ratings]
    chosen = _chosen(answers, means, answer)
    entries = []
    for at, (one, given, mean) in enumerate(zip(answers, ratings, means, strict=True)):
        each = [Cell(shown(value), "odd" if value is None else "plain") for value in given[:_MOST_COLUMNS]]
        bar = Cell("" if mean is None else f"{mean:.3g}", share=None if mean is None else min(1.0, mean / 10))
        entries.append(Entry((Cell(one.agent), *(each if len(tables) > 1 else ()), bar), at == chosen))
    judges = list(tables)
    heads = ("", *(judges[:_MOST_COLUMNS] if len(judges) > 1 else ()), "rating")
    return Account("Ratings", f"from 1 to 10, {_who(judges)}", heads, tuple(entries))


def _mean(given: Sequence[object]) -> float | None:
    known = [value for value in given if isinstance(value, int | float)]
    return fmean(known) if known else None


def _chosen(answers: Sequence[Call], scores: Sequence[float | None], answer: str) -> int | None:
    """Return which answer became the answer: of equal ones that which judges liked best; ``None`` if none did."""
    same = [at for at, one in enumerate(answers) if one.text == answer]
    return max(same, key=lambda at: -1.0 if (score := scores[at]) is None else score, default=None)


def _who(judges: Sequence[str]) -> str:
    return f"by {judges[0]}" if len(judges) == 1 else f"the mean of {len(judges)} judges"


def _compared(judged: _Judged, answer: str) -> Account:
    from moa_nb.pipeline.verdicts import rank_by_verdicts

    answers, tables, swap = judged.answers, judged.tables, judged.is_swapped
    n = len(answers)
    read: list[dict[tuple[int, int], str | None]] = [
        {
            (first, second): call.value if call.ok else None
            for (first, second), call in zip(judged.shown, calls, strict=True)
        }
        for calls in tables.values()
    ]
    outcomes = {pair: [_outcome(table, pair, swap=swap) for table in read] for pair in combinations(range(n), 2)}
    # A judge who could not be read at all ranks nobody.
    scores = [rank_by_verdicts(n, table).scores for table in read if any(table.values())]
    points = [fmean(score[at] or 0.0 for score in scores) if scores else None for at in range(n)]
    chosen = _chosen(answers, points, answer)
    names = [one.agent for one in answers]
    entries = []
    for row in range(n):
        cells = [_pair(row, column, outcomes) for column in range(n)] if n <= _MOST_COLUMNS else []
        bar = Cell("" if points[row] is None else f"{points[row]:.2f}", share=points[row])
        entries.append(Entry((Cell(names[row]), *cells, bar), row == chosen))
    flips = sum(outcome.position_conflict for each in outcomes.values() for outcome in each)
    n_pairs = len(outcomes) * len(tables)
    words = f"{_who(list(tables))}, each pair in {'both orders' if swap else 'one order'}"
    if flips:
        words += f"; {flips} of {n_pairs} pairs flipped when the answers changed places, and count as ties"
    elif swap:
        words += "; none flipped when the answers changed places"
    heads = ("", *((f"against {name}" for name in names) if n <= _MOST_COLUMNS else ()), "points")
    return Account("Verdicts", words, heads, tuple(entries))


def _outcome(table: Mapping[tuple[int, int], str | None], pair: tuple[int, int], *, swap: bool) -> Outcome:
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
            said = "saw a better answer" if call.value else "saw no improvement"
            if call.value is None:
                said = "made no choice that could be read"
            yield Account("Improvement", f"{of}: {call.agent} {said}")
