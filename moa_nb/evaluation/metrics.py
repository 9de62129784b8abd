"""How good an answer is without a judge: equal to the reference answer, near its number, of the same words, or as a function says."""

from __future__ import annotations

import functools
import inspect
import math
import re
import unicodedata
from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

import numpy as np
import pandas as pd

from moa_nb.errors import SetupError, nearest
from moa_nb.pipeline.parse.numbers import number, numerals
from moa_nb.pipeline.vote import normalised

__all__ = ["Metric", "metric_of", "scores"]

_NAMES = ("contains", "exact", "numeric", "rouge1", "rouge2", "rougeL")
_LEADING, _TRAILING = " \n\t\"'`*_“”‘’«»", " \n\t\"'`*_“”‘’«».,;:!?"
"""What is round an answer without being part of it; a leading point is part of a number."""
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of one answer, the higher the better."""

    name: str
    score: Callable[[str, Any, Any], Any]
    """Of the answer, one reference answer and the row."""
    takes_reference: bool = True
    takes_row: bool = False
    within: tuple[float, float] | None = (0.0, 1.0)
    """The least and the greatest score; ``None`` of a function, which says neither."""

    def __call__(self, answer: str, reference: Any = None, row: Any = None) -> float | None:
        """Return the score of an answer; ``None`` where it or its reference answer is missing.

        A reference that is a list holds several right answers: the one that fits best counts. A function gets the
        reference as it is.
        """
        if _is_missing(answer) or (self.takes_reference and _is_missing(reference)):
            return None
        if self.within is None:
            return _as_score(self.score(answer, reference, row))
        return max(float(self.score(str(answer), right, row)) for right in _right_answers(reference))

    def check(self, reference: Any = None, rows: pd.DataFrame | None = None) -> None:
        """Return nothing if the metric has what it needs: to be asked before any answer is paid for.

        Raises:
            SetupError: there is no reference answer, or none with a number for "numeric", or no rows.
        """
        if self.takes_reference and (reference is None or (len(reference) and all(map(_is_missing, reference)))):
            raise SetupError(f"the metric {self.name!r} compares with reference answers: name their column, reference=")
        if self.takes_row and rows is None:
            raise SetupError(f"the metric {self.name!r} reads the row: pass the frame, rows=")
        if self.name.partition(":")[0] == "numeric":
            for label, right in reference.items() if isinstance(reference, pd.Series) else enumerate(reference):
                odd = [one for one in _right_answers(right) if _number(one) is None]
                if odd:
                    said = f"the reference answer of row {label!r} has no number: {str(odd[0])[:60]!r}"
                    raise SetupError(f"{said}; leave it missing, or use metric='exact'")


def metric_of(metric: str | Callable[..., Any] | Metric) -> Metric:
    """Return the metric that a name or a function stands for.

    - ``"exact"``: 1 if answer and reference are the same but for case, spaces, and quotes, stars and full stops round
      them; numbers by value, so 18.0 is "18."
    - ``"contains"``: 1 if the reference's words, or its number, stand in the answer.
    - ``"numeric"``: 1 if the number that the answer ends up with is the reference's, to 12 digits; ``"numeric:0.01"``
      within 0.01 of it, ``"numeric:1%"`` within a hundredth of it. An answer without a number is wrong.
    - ``"rouge1"``, ``"rouge2"``, ``"rougeL"``: the F1 of common words, pairs of words, and the longest common
      subsequence (Lin 2004), by the rouge-score library without stemming; letters of every script make words.
      Texts without a pair of words have a ``"rouge2"`` of 0.
    - A function of the answer; of the answer and the reference answer; a parameter named ``row`` gets the row, a
      Series. It returns a number or a truth value, ``None`` or ``nan`` for missing.

    Raises:
        SetupError: no such metric, a function that takes something else, or rouge-score is not installed.

    >>> exact, near = metric_of("exact"), metric_of("numeric:5%")
    >>> exact("**Paris.**", "paris"), exact("It is Paris", "Paris"), near("So it is about 1,020.", 1000)
    (1.0, 0.0, 1.0)
    >>> metric_of("contains")("It is Paris", ["Lutetia", "Paris"]), metric_of(lambda answer: len(answer) < 5)("Oui")
    (1.0, 1.0)
    """
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return _of_function(metric)
    name, _, tolerance = str(metric).partition(":")
    if name == "numeric":
        return Metric(str(metric), _numeric(tolerance))
    if not tolerance:
        if name.lower() in {"rouge1", "rouge2", "rougel"}:
            kind = name.lower().replace("l", "L")
            return Metric(kind, _rouge(kind))
        if name in {"exact", "contains"}:
            return Metric(name, {"exact": _exact, "contains": _contains}[name])
    raise SetupError(f"no metric {metric!r}, and it is no function of the answer; {nearest(name, _NAMES)}")


def scores(
    answers: pd.DataFrame,
    reference: Any = None,
    metric: str | Callable[..., Any] | Metric = "exact",
    *,
    rows: pd.DataFrame | None = None,
    missing: Literal["leave", "zero"] = "leave",
) -> pd.DataFrame:
    """Return the scores of ``answers``: its index, its columns, Float64.

    An answer that is missing has no score, so that a pipeline's quality is that of what it answered; say beside it how
    much that is. ``missing="zero"`` counts it as 0: what was not answered was not right. Where the reference answer is
    missing there is no score either way.

    Args:
        answers: a column a pipeline.
        reference: the reference answers, as many as rows; a Series has the same index. A list in a cell: several
            right answers.
        metric: as ``metric_of`` takes it.
        rows: the frame that the answers are about, for functions that read the row.
        missing: ``"leave"`` or ``"zero"``.

    Raises:
        SetupError: the metric lacks something, or a function failed; the message names the row.

    >>> scores(pd.DataFrame({"single": ["4", None], "moa": ["four", "9"]}), [4, 9])
       single  moa
    0     1.0  0.0
    1    <NA>  1.0
    """
    measure = metric_of(metric)
    if missing not in {"leave", "zero"}:
        raise SetupError(f"missing={missing!r} is neither 'leave' nor 'zero'")
    for what, given in (("reference answers", reference), ("rows", rows)):
        if given is None:
            continue
        if isinstance(given, pd.Series | pd.DataFrame) and not given.index.equals(answers.index):
            raise SetupError(f"the {what} are not of the answers' rows: their labels differ")
        if len(given) != len(answers):
            raise SetupError(f"{len(given)} {what} for {len(answers)} rows of answers")
    measure.check(reference, rows)
    right = [None] * len(answers) if reference is None else list(reference)
    read = [None] * len(answers) if rows is None or not measure.takes_row else [row for _, row in rows.iterrows()]
    found = {}
    for place, name in enumerate(answers.columns):
        column = []
        for label, *given in zip(answers.index, answers.iloc[:, place], right, read, strict=True):
            score = _scored(measure, given, label, name)
            is_unanswered = _is_missing(given[0]) and not (measure.takes_reference and _is_missing(given[1]))
            column.append(0.0 if is_unanswered and missing == "zero" else score)
        found[place] = pd.array(column, dtype="Float64")
    frame = pd.DataFrame(found, index=answers.index)
    frame.columns = answers.columns
    return frame


def _scored(measure: Metric, given: list[Any], label: Any, name: Any) -> float | None:
    try:
        return measure(*given)
    except Exception as error:  # the function is the user's
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise SetupError(f"the metric {measure.name!r} failed on row {label!r} of {name!r}: {said}") from error


def _of_function(function: Callable[..., Any]) -> Metric:
    name = getattr(function, "__name__", type(function).__name__)
    if inspect.iscoroutinefunction(function):
        raise SetupError(f"the metric {name!r} is async: pass a plain function")
    first, *others = _parameters(function, name)
    given = {
        parameter: parameter.name if parameter.name in {"reference", "row"} else "reference"
        for parameter in others
        if parameter.name in {"reference", "row"} or parameter.default is parameter.empty
    }
    if list(given.values()).count("reference") > 1 or first.kind is first.KEYWORD_ONLY:
        raise SetupError(f"the metric {name!r} may take an answer, a reference answer and a row, and nothing else")

    def score(answer: str, reference: Any, row: Any) -> Any:
        values = {"reference": reference, "row": row}
        placed = [values[what] for parameter, what in given.items() if parameter.kind is parameter.POSITIONAL_ONLY]
        named = {p.name: values[what] for p, what in given.items() if p.kind is not p.POSITIONAL_ONLY}
        return function(answer, *placed, **named)

    needed = {what for parameter, what in given.items() if parameter.default is parameter.empty}
    return Metric(name, score, "reference" in needed, "row" in given.values(), None)


def _parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some of Python's own functions do not say what they take
        return [inspect.Parameter("answer", inspect.Parameter.POSITIONAL_ONLY)]
    found = [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    if not found:
        raise SetupError(f"the metric {name!r} takes no answer: it is a function of one")
    return found


def _as_score(value: Any) -> float | None:
    if _is_missing(value):
        return None
    if not isinstance(value, Real | Decimal | np.bool_):
        raise TypeError(f"it returned {value!r}, which is no number")
    score = float(value)
    if math.isinf(score):
        raise ValueError("it returned an infinite number")
    return score


def _right_answers(reference: Any) -> list[Any]:
    many = reference if isinstance(reference, list | tuple | AbstractSet | np.ndarray) else [reference]
    return [one for one in many if not (pd.api.types.is_scalar(one) and pd.isna(one))]


def _is_missing(value: Any) -> bool:
    return not _right_answers(value)


def _exact(answer: str, right: Any, _: Any) -> bool:
    return _key(answer) == _key(right)


def _key(value: Any) -> Hashable:
    """Return what answers that are the same have in common; numbers, not truth values, are one with their text."""
    key = normalised(value if isinstance(value, Real) and not isinstance(value, bool) else str(value))
    if isinstance(key, tuple) and key[0] == "text":
        return normalised(key[1].lstrip(_LEADING).rstrip(_TRAILING))
    return key


def _contains(answer: str, right: Any, _: Any) -> bool:
    key = _key(right)
    if isinstance(key, tuple) and key[0] == "number":
        return any(normalised(found.value) == key for found in numerals(answer))
    words = _folded(str(right)).lstrip(_LEADING).rstrip(_TRAILING)
    # "art" does not stand in "party"; scripts without spaces have no such edges.
    before = r"(?<![^\W_])" if re.match(rf"[^\W{_UNSPACED}]", words) else ""
    after = r"(?![^\W_])" if re.search(rf"[^\W{_UNSPACED}]$", words) else ""
    return bool(words) and re.search(before + re.escape(words) + after, _folded(answer)) is not None


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _numeric(tolerance: str) -> Callable[[str, Any, Any], bool]:
    try:
        allowed = float(tolerance.removesuffix("%") or 0)
        is_sensible = math.isfinite(allowed) and allowed >= 0
    except ValueError:
        is_sensible = False
    if not is_sensible:
        raise SetupError(f"'numeric:0.01' is within 0.01, 'numeric:1%' within a hundredth; {tolerance!r} is neither")

    def score(answer: str, right: Any, _: Any) -> bool:
        found, wanted = _number(answer), _number(right)
        if found is None or wanted is None:
            return False
        if not allowed:
            return normalised(found) == normalised(wanted)
        room = abs(wanted) * (allowed / 100) if tolerance.endswith("%") else allowed
        return bool(abs(found - wanted) <= room + abs(wanted) * 1e-12)

    return score


def _number(value: Any) -> Any:
    if isinstance(value, Real) and not isinstance(value, bool):
        return value
    return number(str(value))


@functools.cache
def _rouge(kind: str) -> Callable[[str, Any, Any], float]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise SetupError(f'metric={kind!r} needs rouge-score: pip install "moa-nb[evaluation]"') from error
    scorer = RougeScorer([kind], tokenizer=_Words())
    return lambda answer, right, _: float(scorer.score(str(right), answer)[kind].fmeasure)


class _Words:
    """Words as rouge-score finds them, but of every script, where its own are of Latin letters without accents."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text in lower case; scripts without spaces give their letters."""
        return _WORD.findall(text.lower())
