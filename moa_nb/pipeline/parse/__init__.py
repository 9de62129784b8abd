"""From what a model wrote to a value: small parsers, declared by a word.

A parser is any function from a text to a value; ``None`` means that the text gives none, which a vote counts
as an abstention. Each reads the last statement of a text, since models quote forms and examples before they
decide, and each takes time linear in the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moa_nb.errors import PipelineError, nearest
from moa_nb.pipeline.parse.choices import boolean, choice, correct, label, labels
from moa_nb.pipeline.parse.judgements import index, probability, rating, verdict
from moa_nb.pipeline.parse.numbers import number
from moa_nb.pipeline.parse.statements import last_line
from moa_nb.pipeline.parse.structured import structured

__all__ = [
    "Parser",
    "boolean",
    "choice",
    "correct",
    "index",
    "label",
    "labels",
    "number",
    "parser",
    "probability",
    "rating",
    "structured",
    "verdict",
]

Parser = Callable[[str], Any]
"""Reads a model's text; ``None`` is an abstention."""


def parser(spec: str | Sequence[str] | Parser | None) -> Parser:
    """Return the parser that ``spec`` declares.

    ``"number"``, ``"number:comma"``, ``"choice"``, ``"choice:A-D"``, ``"label:praise|bug"``, ``"labels:praise|bug"``,
    ``"json"``, ``"json:keep,end"`` (with these keys), ``"rating"``, ``"rating:1-5"``, ``"verdict"``,
    ``"verdict:AB"``, ``"boolean"``, ``"correct"``, ``"index"``, ``"index:6"`` (at most 6), ``"probability"``,
    ``"text"``, ``"last line"``. A list is labels, a function is itself, ``None`` is ``"text"``.

    Raises:
        PipelineError: no parser of that name, or not with that after its colon.

    >>> parser("choice:A-D")("Answer: (b)"), parser(["praise", "bug"])("A bug."), parser("number")("dunno")
    ('B', 'bug', None)
    >>> parser("nummer")
    Traceback (most recent call last):
    moa_nb.errors.PipelineError: no parser 'nummer'; did you mean 'number'?
    """
    if spec is None:
        return _text
    if isinstance(spec, str):
        return _declared(spec)
    if isinstance(spec, Sequence):
        return functools.partial(label, names=_names("label", spec))
    if callable(spec):
        return spec
    msg = f"a parser is declared as text, such as 'number' or 'choice:A-E', not as {type(spec).__name__}"
    raise PipelineError(msg)


def _declared(spec: str) -> Parser:
    kind, colon, argument = (part.strip() for part in spec.partition(":"))
    make = _KINDS.get(kind.lower().replace("_", " "))
    if make is None:
        msg = f"no parser {kind!r}; {nearest(kind, _KINDS)}"
        raise PipelineError(msg)
    return make(argument if colon else None)


def _text(text: str) -> str | None:
    return text.strip() or None


def _last_line(text: str) -> str | None:
    return last_line(text) or None


def _wrong(kind: str, argument: str | None, right: str) -> PipelineError:
    return PipelineError(f"parser '{kind}:{argument or ''}': write it as {right}")


def _number(argument: str | None) -> Parser:
    if argument not in {None, "comma", "point"}:
        raise _wrong("number", argument, "'number', or 'number:comma' where a comma is the decimal point")
    return functools.partial(number, comma=argument == "comma")


def _letters(kind: str, argument: str | None, default: str) -> str:
    letters = (default if argument is None else argument).upper()
    ends = re.fullmatch(r"([A-Z])\s*[-–]\s*([A-Z])", letters)
    if ends and ends[1] < ends[2]:
        return "".join(map(chr, range(ord(ends[1]), ord(ends[2]) + 1)))
    if not re.fullmatch(r"[A-Z]{2,26}", letters) or len({*letters}) < len(letters):
        raise _wrong(kind, argument, f"'{kind}:{default[0]}-{default[-1]}'")
    return letters


def _choice(argument: str | None) -> Parser:
    return functools.partial(choice, letters=_letters("choice", argument, "ABCDE"))


def _verdict(argument: str | None) -> Parser:
    return functools.partial(verdict, letters=_letters("verdict", argument, "ABC"))


def _names(kind: str, names: Sequence[object]) -> tuple[str, ...]:
    texts = tuple(name.strip() for name in names if isinstance(name, str))
    if len(texts) < len(names) or len({text.casefold() for text in texts} - {""}) < max(1, len(texts)):
        raise _wrong(kind, "|".join(map(str, names)), f"'{kind}:praise|bug', each label once")
    return texts


def _label(argument: str | None) -> Parser:
    return functools.partial(label, names=_names("label", (argument or "").split("|")))


def _labels(argument: str | None) -> Parser:
    return functools.partial(labels, names=_names("labels", (argument or "").split("|")))


def _json(argument: str | None) -> Parser:
    keys = tuple(key.strip() for key in argument.split(",")) if argument is not None else ()
    if not all(re.fullmatch(r"[\w -]+", key) for key in keys):
        raise _wrong("json", argument, "'json', or 'json:keep,end' for an object with these keys")
    return functools.partial(structured, keys=keys)


def _rating(argument: str | None) -> Parser:
    ends = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*[-–]\s*(-?\d+(?:\.\d+)?)", argument if argument is not None else "1-10")
    if not ends or float(ends[1]) >= float(ends[2]):
        raise _wrong("rating", argument, "'rating:1-10', the lowest first")
    return functools.partial(rating, low=float(ends[1]), high=float(ends[2]))


def _index(argument: str | None) -> Parser:
    if argument is not None and not re.fullmatch(r"[1-9]\d{0,8}", argument):
        raise _wrong("index", argument, "'index', or 'index:6' for at most 6")
    return functools.partial(index, n=None if argument is None else int(argument))


def _plain(kind: str, parse: Parser) -> Callable[[str | None], Parser]:
    def make(argument: str | None) -> Parser:
        if argument is not None:
            msg = f"parser {kind!r} takes nothing after a colon, and here has {argument!r}"
            raise PipelineError(msg)
        return parse

    return make


_KINDS: Mapping[str, Callable[[str | None], Parser]] = {
    "number": _number,
    "choice": _choice,
    "label": _label,
    "labels": _labels,
    "json": _json,
    "rating": _rating,
    "verdict": _verdict,
    "index": _index,
    **{
        kind: _plain(kind, parse)
        for kind, parse in {
            "boolean": boolean,
            "correct": correct,
            "probability": probability,
            "text": _text,
            "last line": _last_line,
        }.items()
    },
}
