"""What a verb's words come to: which form is asked for, in which words, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from importlib.util import find_spec
from numbers import Integral, Real
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from pydantic import Field as Bounds

from moa_nb.engine import Estimate
from moa_nb.errors import SetupError
from moa_nb.frames.columns import Nested
from moa_nb.frames.execution import Execution
from moa_nb.frames.groups import Groups, Summarize
from moa_nb.frames.pairs import TIE, Pairs, Prefer
from moa_nb.frames.preview import Preview
from moa_nb.frames.rows import Asking, MissingPolicy, Questions, Rows
from moa_nb.frames.run import FrameRun
from moa_nb.frames.sample import Sample
from moa_nb.frames.verbs import Extract, Field, Synthesize, Verb
from moa_nb.pipeline.forms import form
from moa_nb.plain import quoted

if TYPE_CHECKING:
    from moa_nb.frames.accessor import OnError
    from moa_nb.options import RunOptions

__all__ = ["Spoken"]

Spoken = tuple[Verb, Questions]
"""What is to come out, and what is asked for it."""

_Data: TypeAlias = "pd.DataFrame | pd.Series[Any]"

_PREVIEWED = 3
"""Rows of a preview."""


# What is asked -----------------------------------------------------------------------------------


def synthesize(
    data: _Data,
    column: Hashable,
    *,
    instruction: str | None,
    template: str | None,
    na: MissingPolicy,
    reference: Hashable,
) -> Spoken:
    """Return the verb ``synthesize`` and its rows."""
    if instruction is not None and template is not None:
        msg = "give an instruction or a template, not both: a template has room for the instruction"
        raise SetupError(msg)
    asking = None
    if instruction is not None:
        asking = Asking.named("instruct", instruction=_words("instruction", instruction, "to send each text as it is"))
    return Synthesize(), Rows.of(data, column, template=template, asking=asking, na=na, reference=reference)


def extract(
    data: _Data,
    column: Hashable,
    schema: Any,
    *,
    instruction: str | None,
    template: str | None,
    nested: Nested,
    na: MissingPolicy,
    reference: Hashable,
) -> Spoken:
    """Return the verb ``extract`` and its rows."""
    if schema is None:
        msg = "extract what? Give schema={'price': float, 'mood': ['good', 'bad']}, or a pydantic model"
        raise SetupError(msg)
    if nested not in {"object", "arrow"}:
        msg = f"nested is 'object' or 'arrow', not {nested!r}"
        raise SetupError(msg)
    if nested == "arrow" and find_spec("pyarrow") is None:
        msg = "nested='arrow' needs pyarrow: pip install pyarrow, or leave it out for Python's own lists and objects"
        raise SetupError(msg)
    wanted = form(schema)
    told = None if instruction is None else _words("instruction", instruction, "for our own words")
    asking = Asking.named("rows/extract", instruction=told, fields=wanted.said)
    rows = Rows.of(data, column, template=template, asking=asking, na=na, reference=reference, form=wanted)
    return Extract(wanted, nested), rows


def classify(
    data: _Data,
    column: Hashable,
    labels: Sequence[str] | Mapping[str, str] | None,
    *,
    multi: bool,
    instruction: str | None,
    template: str | None,
    na: MissingPolicy,
    reference: Hashable,
) -> Spoken:
    """Return the verb ``classify`` and its rows."""
    known = _labels(labels)
    kind: Any = Literal[tuple(known)]
    wanted = form({"labels": set[kind]} if multi else {"label": kind})
    told = None if instruction is None else _words("instruction", instruction, "for our own words")
    asking = Asking.named("rows/classify", instruction=told, labels=known, multi=multi, fields=wanted.said)
    rows = Rows.of(data, column, template=template, asking=asking, na=na, reference=reference, form=wanted)
    return Field(wanted, "classify"), rows


def score(
    data: _Data,
    column: Hashable,
    criterion: str,
    *,
    scale: tuple[float, float],
    template: str | None,
    na: MissingPolicy,
    reference: Hashable,
) -> Spoken:
    """Return the verb ``score`` and its rows."""
    told = _words("criterion", criterion, None)
    low, high = _ends(scale)
    kind: Any = int if isinstance(low, int) and isinstance(high, int) else float
    wanted = form({"score": Annotated[kind, Bounds(ge=low, le=high)]})
    asking = Asking.named("rows/score", criterion=told, low=_number(low), high=_number(high), fields=wanted.said)
    rows = Rows.of(data, column, template=template, asking=asking, na=na, reference=reference, form=wanted)
    return Field(wanted, "score"), rows


def holds(
    data: _Data,
    column: Hashable,
    condition: str,
    *,
    template: str | None,
    na: MissingPolicy,
    reference: Hashable,
) -> Spoken:
    """Return the verb ``filter`` and its rows."""
    wanted = form({"holds": bool})
    asking = Asking.named("rows/filter", condition=_words("condition", condition, None), fields=wanted.said)
    rows = Rows.of(data, column, template=template, asking=asking, na=na, reference=reference, form=wanted)
    return Field(wanted, "filter"), rows


def prefer(data: _Data, a: Hashable, b: Hashable, criterion: str, *, question: Hashable, na: MissingPolicy) -> Spoken:
    """Return the verb ``prefer`` and its pairs."""
    told = _words("criterion", criterion, None).strip() if criterion != "" else ""
    wanted = form({"better": ["A", "B", TIE]})
    asking = Asking.named("rows/prefer", criterion=told, fields=wanted.said)
    pairs = Pairs.of(data, a, b, question=question, asking=asking, na=na, form=wanted)
    return Prefer(wanted, (a, b)), pairs


def summarize(data: _Data, column: Hashable, *, by: Any, instruction: str, na: MissingPolicy) -> Spoken:
    """Return the verb ``summarize`` and its groups."""
    told = _words("instruction", instruction, "to have the texts summarized")
    return Summarize(instruction=told), Groups.of(data, column, by=by, instruction=told, na=na)


def _words(name: str, said: Any, instead: str | None) -> str:
    """Return what was said.

    Raises:
        SetupError: that is nothing.
    """
    if not isinstance(said, str):
        msg = f"{name} is a text, not {quoted(said)}"
        raise SetupError(msg)
    if not said.strip():
        msg = f"the {name} is empty: " + (f"leave it out {instead}" if instead else "say it in a few words")
        raise SetupError(msg)
    return said


def _labels(labels: Any) -> dict[str, str]:
    """Return the labels with what they mean; empty where nobody says it.

    Raises:
        SetupError: they are none, too few, or two of them alike.
    """
    if labels is None:
        msg = "classify as what? Give labels=['praise', 'bug'], or a mapping of names to what they mean"
        raise SetupError(msg)
    if isinstance(labels, np.ndarray | pd.api.extensions.ExtensionArray):
        labels = labels.tolist()  # as Series.unique() returns them
    if isinstance(labels, str) or not isinstance(labels, Mapping | Sequence | pd.Index | pd.Series):
        msg = f"labels are a list of names, or a mapping of names to what they mean, not {quoted(labels)}"
        raise SetupError(msg)
    known = dict(labels) if isinstance(labels, Mapping) else dict.fromkeys(labels, "")
    for name, about in known.items():
        if not isinstance(name, str) or not name.strip() or not isinstance(about or "", str):
            msg = f"a label is a name, with a text that says what it means or none, not {quoted(name, 40)}: {quoted(about, 40)}"
            raise SetupError(msg)
    folded = {" ".join(name.casefold().replace("-", " ").replace("_", " ").split()) for name in known}
    if len(folded) < max(2, len(labels)):
        msg = f"labels are at least two, each once and unlike the others, not {quoted(list(labels), 120)}"
        raise SetupError(msg)
    return {name: about or "" for name, about in known.items()}


def _ends(scale: Any) -> tuple[float, float]:
    """Return the least and the greatest number of a scale.

    Raises:
        SetupError: it has not got them.
    """
    is_pair = isinstance(scale, Sequence) and not isinstance(scale, str) and len(scale) == 2
    if not is_pair or not all(isinstance(end, Real) and math.isfinite(end) for end in scale) or not scale[0] < scale[1]:
        msg = f"a scale is the least and the greatest number, such as (1, 10) or (0.0, 1.0), not {quoted(scale)}"
        raise SetupError(msg)
    low, high = scale
    is_whole = isinstance(low, Integral) and isinstance(high, Integral)
    return (int(low), int(high)) if is_whole else (float(low), float(high))


def _number(end: float) -> str:
    return f"{end:g}" if isinstance(end, float) else str(end)


# What becomes of it ------------------------------------------------------------------------------


def finish(
    verb: Verb, questions: Questions, options: RunOptions, *, on_error: OnError, progress: bool | None
) -> pd.Series[Any] | pd.DataFrame:
    """Return what comes out, when all rows are over."""
    values: pd.Series[Any] | pd.DataFrame = FrameRun.of(verb, questions, options, on_error=on_error).finish(
        progress=progress
    )
    return values


def start(
    verb: Verb,
    questions: Questions,
    options: RunOptions,
    *,
    on_error: OnError,
    progress: bool | None,  # noqa: ARG001 - a run in the background is watched by its own
) -> FrameRun:
    """Return the run, going on in the background."""
    return FrameRun.of(verb, questions, options, on_error=on_error).start()


def estimate(
    verb: Verb,
    questions: Questions,
    options: RunOptions,
    *,
    on_error: OnError,
    progress: bool | None,  # noqa: ARG001 - it is over soon
) -> Estimate:
    """Return what it would take; nothing is sent."""
    return FrameRun.of(verb, questions, options, on_error=on_error).estimate()


def preview(
    verb: Verb, questions: Questions, options: RunOptions, *, on_error: OnError, progress: bool | None
) -> Preview:
    """Return the first rows with all that was said, and what all of them would take."""
    execution = Execution(verb, Sample.first(questions, _PREVIEWED), options, on_error=on_error)
    execution.keeps_all = True
    run = FrameRun(execution)
    run.finish(progress=progress)
    whole = FrameRun.of(verb, questions, options, on_error=on_error)
    return Preview(run, tuple(run.traces()), whole.estimate())
