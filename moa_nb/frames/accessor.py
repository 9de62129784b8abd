"""``df.moa`` and ``series.moa``: the verbs, and the same verbs started or priced."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import pandas as pd

from moa_nb.options import refuse_unknown, spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from moa_nb.engine import Estimate
    from moa_nb.frames.rows import MissingPolicy, Rows
    from moa_nb.frames.run import FrameRun
    from moa_nb.options import RunOptions

__all__ = ["Accessor", "OnError", "Verbs", "register"]

OnError = Literal["null", "raise"]

_T = TypeVar("_T")


class Verbs(Generic[_T]):
    """What can be done with the texts of a frame or a series.

    It holds the data and what becomes of a verb (run, start, price), and nothing of any run: pandas
    makes accessors anew when it likes.
    """

    def __init__(self, data: pd.DataFrame | pd.Series[Any], do: Callable[..., _T]) -> None:
        self._data, self._do = data, do

    @spelled_out
    def synthesize(
        self,
        column: Hashable = None,
        *,
        instruction: str | None = None,
        template: str | None = None,
        on_error: OnError = "null",
        na: MissingPolicy = "skip",
        reference: Hashable = None,
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
            reference: the column with reference answers, for judges that are shown them; a missing one is none.
            progress: whether to show a bar; ``None``: when it takes a while and somebody looks on.
            **options: those of ``moa.run``: pipeline, models, aggregator, samples, layers,
                temperature, max_tokens, budget (for all rows together: dollars, or a text such as
                ``"200 calls"``), cache.

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

        refuse_unknown(self.synthesize, options)
        rows = Rows.of(self._data, column, instruction=instruction, template=template, na=na, reference=reference)
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
