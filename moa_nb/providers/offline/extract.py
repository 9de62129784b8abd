"""One agent's answer: the task found in the conversation, the sentences ranked, chosen and written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from moa_nb.chat import Request
from moa_nb.errors import RowError
from moa_nb.providers.offline.choice import choose, cut, written
from moa_nb.providers.offline.consensus import agreement, consensus
from moa_nb.providers.offline.length import Length, asked
from moa_nb.providers.offline.material import find
from moa_nb.providers.offline.rank import Reading, read, scores
from moa_nb.providers.offline.sentences import Sentence, label
from moa_nb.providers.offline.words import cosine, terms

__all__ = ["extract", "nearness"]

_FIX = "set a key such as OPENAI_API_KEY, or start a local server (see %moa models)"

_VOTES = 0.4
"""What a sentence gains, on a score of at most 1, when every earlier agent chose it."""

_NEARNESS = 1.0
"""What a sentence gains that is as near as can be to what the instruction asks about."""

# What instructions say about the task and not about its subject; stems, as `terms` makes them.
_ABOUT_THE_TASK = frozenset(
    term
    for term in terms(
        "summarize summarise summary summaries sentence sentences line lines word words text texts "
        "following above below "
        "please give write tell short brief briefly concise concisely bullet bullets point points key "
        "main important most "
        "article review reviews document paragraph passage report reader executive board member manager "
        "one two three four "
        "five explain describe list extract find show say said use using based answer question tl dr "
        "tldr overview content "
        "information provide return output only help want need understand read highlight highlights "
        "takeaway takeaways "
        "abstract paper note notes email mail message comment feedback ticket conversation transcript "
        "plain simple language "
        "english style tone bullet-point max maximum least less more than under within about detail "
        "details detailed gist "
        "condense shorten rewrite paraphrase describe synthesize combine single clear customer client user product",
        "en",
    )
)


def extract(name: str, request: Request) -> tuple[str, bool]:
    """Return the answer of algorithm ``name``, and whether its last sentence had to be cut.

    Raises:
        RowError: there is no text to choose from, or the task is to judge.
    """
    task = find(request)
    if task.is_judging:
        msg = f"offline:{name} picks sentences from a text and cannot judge, rate or label one: {_FIX}"
        raise RowError(msg)
    references = tuple(text for text in request.references if text.strip())
    if task.material is None and not (name == "consensus" and references):
        msg = (
            f"offline:{name} picks sentences from a text and this has none to pick from: "
            f"put the text into the cell, or {_FIX}"
        )
        raise RowError(msg)
    length = asked(task.instruction)
    reading = None if task.material is None else read(task.material)
    text = _text(name, reading, task.instruction, length, references, request.sampling.max_tokens)
    return cut(text, length, request.sampling.max_tokens)


def _text(
    name: str,
    reading: Reading | None,
    instruction: str,
    length: Length,
    references: tuple[str, ...],
    max_tokens: int | None,
) -> str:
    is_consensus_of_others = name == "consensus" and bool(references)
    if reading is not None:
        whole = reading.text.strip()
        # Too short to choose from, or nothing in it that is a sentence.
        if not reading.sentences or (length.is_open and len(reading.sentences) <= 2 and not is_consensus_of_others):
            return whole
    focus = () if reading is None else nearness(instruction, reading)
    if name == "consensus":
        chosen = consensus(references, reading, length, focus=focus, max_tokens=max_tokens)
    elif reading is None:
        chosen = []
    else:
        chosen = _proposed(name, reading, length, focus, references, max_tokens)
    return written(chosen, length)


def _proposed(
    name: str,
    reading: Reading,
    length: Length,
    focus: Sequence[float],
    references: Sequence[str],
    max_tokens: int | None,
) -> list[Sentence]:
    points = list(scores(name, reading))
    if name != "lead":
        # The first sentences stay the first, whatever is asked and whoever agrees.
        for at, near in enumerate(focus):
            points[at] += near
        if references:
            for at, share in enumerate(agreement(reading, references)):
                points[at] += _VOTES * share
    points = [round(point, 9) for point in points]
    chosen = choose(reading.sentences, reading.bags, reading.marks, points, length, max_tokens=max_tokens)
    return [reading.sentences[at] for at in chosen]


def nearness(instruction: str, reading: Reading) -> list[float]:
    """Return what each sentence gains by being about what ``instruction`` names; ``[]`` where it names nothing.

    Query-focused ranking in the manner of Otterbacher et al. 2005: relevance to the question is added
    to centrality. Words that instructions say anyway ('summarize', 'sentence') name nothing.
    """
    asked_for = Counter(term for term in terms(instruction, reading.language) if term not in _ABOUT_THE_TASK)
    asked_for = Counter({term: count for term, count in asked_for.items() if term in reading.rarity})
    if not asked_for:
        return []
    near = [
        cosine(asked_for, bag, reading.rarity) * _fit(unit, asked_for, reading, weight)
        for unit, bag, weight in zip(reading.sentences, reading.bags, reading.weights, strict=True)
    ]
    most = max(near)
    return [round(_NEARNESS * value / most, 9) for value in near] if most else []


def _fit(unit: Sentence, asked_for: Mapping[str, int], reading: Reading, weight: float) -> float:
    """Return what a title loses, or a line that only names ('Present: Ada, Tom') and not what was asked for."""
    if weight > 0.1:
        return 1.0
    name = label(unit.text, reading.language)
    return weight if asked_for.keys().isdisjoint(terms(name, reading.language)) else 1.0
