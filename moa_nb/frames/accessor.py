"""``df.moa`` and ``series.moa``: the verbs, and the same verbs started or priced."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import pandas as pd

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from moa_nb.engine import Estimate
    from moa_nb.engine.options import RunOptions
    from moa_nb.frames.rows import MissingPolicy, Rows
    from moa_nb.frames.run import FrameRun

__all__ = ["Accessor", "OnError", "Verbs", "register"]

OnError = Literal["null", "raise"]

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = ("pipeline", "models", "aggregator", "samples", "layers", "temperature", "max_tokens", "budget", "cache")
"""What ``RunOptions`` holds, which is not imported here: ``import moa_nb`` stays quick."""


def _verb(method: _F) -> _F:
    """Return the method with ``**options`` shown as the keywords that they are, and unknown ones refused."""
    signature = inspect.signature(method)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    known = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default="use" if name == "cache" else None)
        for name in _OPTIONS
    ]
    names = [parameter.name for parameter in (*own, *known)]

    @functools.wraps(method)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in names:
                close = get_close_matches(name, names, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                msg = f"{method.__name__}() got an unexpected keyword argument {name!r}{hint}"
                raise TypeError(msg)
        return method(*arguments, **keywords)

    checked.__signature__ = signature.replace(parameters=[*own, *known])  # type: ignore[attr-defined]  # for inspect
    return checked  # type: ignore[return-value]  # called as the method is


class Verbs(Generic[_T]):
    """What can be done with the texts of a frame or a series.

    It holds the data and what becomes of a verb (run, start, price), and nothing of any run: pandas
    makes accessors anew when it likes.
    """

    def __init__(self, data: pd.DataFrame | pd.Series[Any], do: Callable[..., _T]) -> None:
        self._data, self._do = data, do

    @_verb
    def synthesize(
        self,
        column: Hashable = None,
        *,
        instruction: str | None = None,
        template: str | None = None,
        on_error: OnError = "null",
        na: MissingPolicy = "skip",
        progress: bool | None = None,
        **options: Unpack[RunOptions],
    ) -> _T:
        """Return one answer for each row, as a text Series with the frame's index.

        Args:
            column: the column with the texts, each sent as it is. On a Series leave it out.
            instruction: what to do with each text, which then stands fenced below it.
            template: Jinja source, or a template's name, over the row's columns; ``row["any name"]``
                works for every name, and ``text`` is the column's value or the Series'.
            on_error: ``null`` leaves a failed row missing and warns once; ``raise`` stops at the first.
            na: a row with missing text is left missing (``skip``), sent with empty text in its place
                (``pass``) or refused (``raise``). A row that says nothing at all is always left missing.
            progress: whether to show a bar; ``None``: when it takes a while and somebody looks on.
            **options: those of ``moa.run``: pipeline, models, aggregator, samples, layers,
                temperature, max_tokens, budget (dollars for all rows together), cache.

        Raises:
            SetupError: a column, template, model, key or price is wrong; at most one row was sent.
            BudgetExceeded: with ``on_error="raise"``, when the budget is used up.

        >>> frame = pd.DataFrame({"text": ["The mill closed in May. It was old. The town was sad."]}, index=[7])
        >>> frame.moa.synthesize(
        ...     "text", instruction="Summarize in one sentence", progress=False,
        ...     models=["offline:lead"], aggregator="offline:consensus",
        ... ).to_dict()
        {7: 'The mill closed in May.'}
        """
        from moa_nb.frames.rows import Rows

        rows = Rows.of(self._data, column, instruction=instruction, template=template, na=na)
        return self._do(rows, options, on_error=on_error, progress=progress)


class Accessor(Verbs["pd.Series[Any]"]):
    """``df.moa``: each verb returns something aligned with the index; the data are never changed."""

    def __init__(self, data: pd.DataFrame | pd.Series[Any]) -> None:
        if not isinstance(data, pd.DataFrame | pd.Series):
            msg = "moa works on a DataFrame or a Series"
            raise AttributeError(msg)  # noqa: TRY004 - what pandas asks of accessors
        super().__init__(data, _finish)

    @property
    def start(self) -> Verbs[FrameRun]:
        """The same verbs in the background: each returns a ``FrameRun`` at once."""
        return Verbs(self._data, _start)

    @property
    def estimate(self) -> Verbs[Estimate]:
        """The same verbs priced instead of run: each returns an ``Estimate``, and nothing is sent."""
        return Verbs(self._data, _estimate)


def _finish(rows: Rows, options: RunOptions, *, on_error: OnError, progress: bool | None) -> pd.Series[Any]:
    from moa_nb.frames.run import FrameRun

    return FrameRun(rows, options, on_error=on_error).finish(progress=progress)


def _start(rows: Rows, options: RunOptions, *, on_error: OnError, progress: bool | None) -> FrameRun:  # noqa: ARG001
    from moa_nb.frames.run import FrameRun

    return FrameRun(rows, options, on_error=on_error).start()


def _estimate(rows: Rows, options: RunOptions, *, on_error: OnError, progress: bool | None) -> Estimate:  # noqa: ARG001
    from moa_nb.frames.run import FrameRun

    return FrameRun(rows, options, on_error=on_error).estimate()


def register() -> None:
    """Return nothing; hang ``moa`` on DataFrame and Series, quietly when it already hangs there."""
    for kind, decorate in (
        (pd.DataFrame, pd.api.extensions.register_dataframe_accessor),
        (pd.Series, pd.api.extensions.register_series_accessor),
    ):
        known = kind.__dict__.get("moa")
        if known is not None and getattr(getattr(known, "_accessor", None), "__module__", "") == __name__:
            # Loaded again, as %autoreload does: pandas would warn of a clash with ourselves.
            delattr(kind, "moa")
        decorate("moa")(Accessor)
