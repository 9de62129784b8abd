"""``df.moa`` and ``series.moa``: the verbs, and the same verbs started, priced or tried on a few rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import pandas as pd

from moa_nb.errors import nearest
from moa_nb.frames import dask_hook
from moa_nb.options import refuse_unknown, spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from moa_nb.engine import Estimate
    from moa_nb.frames.columns import Nested
    from moa_nb.frames.preview import Preview
    from moa_nb.frames.rows import MissingPolicy
    from moa_nb.frames.run import FrameRun
    from moa_nb.frames.spoken import Spoken
    from moa_nb.options import RunOptions

__all__ = ["Accessor", "OnError", "Verbs", "register"]

OnError = Literal["null", "raise"]

_Series = TypeVar("_Series")
_Frame = TypeVar("_Frame")


class Verbs(Generic[_Series, _Frame]):
    """What can be done with the texts of a frame or a series.

    It holds the data and what becomes of a verb (run, start, price, try), and nothing of any run: pandas makes
    accessors anew when it likes. Every verb takes any pipeline, and these besides:

    - ``template``: Jinja source, or a template's name, over the row's columns, in place of a column;
      ``row["any name"]`` works for every name, and ``text`` is the column's value or the Series'.
    - ``on_error``: ``null`` leaves a failed row missing and warns once; ``raise`` stops at the first.
    - ``na``: a row with missing text is left missing (``skip``), sent with empty text in its place (``pass``) or
      refused (``raise``). A row that says nothing at all is always left missing.
    - ``reference``: the column with reference answers, for judges that are shown them; a missing one is none.
    - ``progress``: whether to show a bar; ``None``: when it takes a while and somebody looks on.
    - the options of ``moa.run``: pipeline, models, aggregator, samples, layers, temperature, max_tokens, budget (for
      all rows together: dollars, or a text such as ``"200 calls"``), cache, mode.

    All of them raise ``SetupError`` where a column, template, schema, model, key or price is wrong (at most one row was
    sent), and ``BudgetExceeded`` with ``on_error="raise"`` when the budget is used up.
    """

    def __init__(self, data: pd.DataFrame | pd.Series[Any], do: Callable[..., Any]) -> None:
        self._data, self._do = data, do

    def __repr__(self) -> str:
        verbs = ", ".join(name for name, member in vars(Verbs).items() if name[0] != "_" and callable(member))
        return f"<{type(self).__name__} of a {type(self._data).__name__}: {verbs}>"

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
    ) -> _Series:
        """Return one answer for each row, as a text Series with the frame's index.

        Args:
            column: the column with the texts, each sent as it is. On a Series leave it out.
            instruction: what to do with each text, which then stands fenced below it.
            template: in place of a column: Jinja source, or a template's name, over the row's columns;
                ``row["any name"]`` works for every name, and ``text`` is the column's value or the Series'.
            on_error: ``null`` leaves a failed row missing and warns once; ``raise`` stops at the first.
            na: a row with missing text is left missing (``skip``), sent with empty text in its place
                (``pass``) or refused (``raise``). A row that says nothing at all is always left missing.
            reference: the column with reference answers, for judges that are shown them; a missing one is none.
            progress: whether to show a bar; ``None``: when it takes a while and somebody looks on.
            **options: those of ``moa.run``: pipeline, models, aggregator, samples, layers,
                temperature, max_tokens, budget (for all rows together: dollars, or a text such as
                ``"200 calls"``), cache, mode.

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
        from moa_nb.frames import spoken

        refuse_unknown(self.synthesize, options)
        said = spoken.synthesize(
            self._data, column, instruction=instruction, template=template, na=na, reference=reference
        )
        done: _Series = self._done(said, options, on_error, progress)
        return done

    @spelled_out
    def extract(
        self,
        column: Hashable = None,
        schema: Any = None,
        *,
        instruction: str | None = None,
        template: str | None = None,
        nested: Nested = "object",
        on_error: OnError = "null",
        na: MissingPolicy = "skip",
        reference: Hashable = None,
        progress: bool | None = None,
        **options: Unpack[RunOptions],
    ) -> _Frame:
        """Return a column for each field of a schema, as a DataFrame with the frame's index.

        Services are held to the schema by their own means; what comes back is checked, and asked for once more with
        what is wrong if it does not fit. Where proposers agree on a field that is its value; the aggregator settles
        the others. Texts are ``str``, labels categories with all that are allowed, numbers and booleans nullable,
        dates ``datetime64[us]``.

        Args:
            column: the column with the texts. On a Series leave it out: ``series.moa.extract(schema=Review)``.
            schema: a pydantic model, a dict of names to types (``{"price": float | None, "mood": ["good", "bad"]}``; a
                pair is a type and its description, a dict an object within), or a JSON schema of an object.
            instruction: what to take from the text, in place of our own words.
            template: in place of a column: what the texts are, as in ``synthesize``.
            nested: lists and objects as Python's own (``object``) or Arrow's (``arrow``).
            on_error: as in ``synthesize``.
            na: as in ``synthesize``.
            reference: as in ``synthesize``.
            progress: as in ``synthesize``.
            **options: as in ``synthesize``.

        Raises:
            SetupError: as in ``synthesize``, and where the schema cannot be used.
            BudgetExceeded: with ``on_error="raise"``, when the budget is used up.

        >>> import json
        >>> def reader(prompt):
        ...     return json.dumps({"price": 9.5 if "9.50" in prompt else None, "mood": "good"})
        >>> frame = pd.DataFrame({"review": ["A bag for 9.50, and I love it!", "Lovely."]})
        >>> found = frame.moa.extract(
        ...     "review", {"price": float | None, "mood": ["good", "bad"]}, pipeline="single", aggregator=reader,
        ...     progress=False,
        ... )
        >>> found.dtypes.astype(str).to_dict()
        {'price': 'Float64', 'mood': 'category'}
        """
        from moa_nb.frames import spoken

        refuse_unknown(self.extract, options)
        said = spoken.extract(
            self._data,
            column,
            schema,
            instruction=instruction,
            template=template,
            nested=nested,
            na=na,
            reference=reference,
        )
        done: _Frame = self._done(said, options, on_error, progress)
        return done

    @spelled_out
    def classify(
        self,
        column: Hashable = None,
        labels: Sequence[str] | Mapping[str, str] | None = None,
        *,
        multi: bool = False,
        instruction: str | None = None,
        template: str | None = None,
        on_error: OnError = "null",
        na: MissingPolicy = "skip",
        reference: Hashable = None,
        progress: bool | None = None,
        **options: Unpack[RunOptions],
    ) -> _Series:
        """Return the label that fits each row, as a categorical Series with all labels as its categories.

        Args:
            column: the column with the texts. On a Series leave it out: ``series.moa.classify(labels=[...])``.
            labels: their names, or a mapping of names to what they mean.
            multi: all labels that fit, as a list for each row, which may be empty.
            instruction: what is asked of the text, in place of our own words.
            template: in place of a column: what the texts are, as in ``synthesize``.
            on_error: as in ``synthesize``.
            na: as in ``synthesize``.
            reference: as in ``synthesize``.
            progress: as in ``synthesize``.
            **options: as in ``synthesize``.

        Raises:
            SetupError: as in ``synthesize``, and for fewer than two labels, or two alike.
            BudgetExceeded: with ``on_error="raise"``, when the budget is used up.

        >>> frame = pd.DataFrame({"review": ["It crashes.", "I love it."]})
        >>> frame.moa.classify(
        ...     "review", {"praise": "likes it", "bug": "it does not work"}, pipeline="single", progress=False,
        ...     aggregator=lambda prompt: "bug" if "crashes" in prompt else "praise",
        ... ).tolist()
        ['bug', 'praise']
        """
        from moa_nb.frames import spoken

        refuse_unknown(self.classify, options)
        said = spoken.classify(
            self._data,
            column,
            labels,
            multi=multi,
            instruction=instruction,
            template=template,
            na=na,
            reference=reference,
        )
        done: _Series = self._done(said, options, on_error, progress)
        return done

    @spelled_out
    def score(
        self,
        column: Hashable = None,
        criterion: str = "",
        *,
        scale: tuple[float, float] = (1, 10),
        template: str | None = None,
        on_error: OnError = "null",
        na: MissingPolicy = "skip",
        reference: Hashable = None,
        progress: bool | None = None,
        **options: Unpack[RunOptions],
    ) -> _Series:
        """Return a number for each row, as a nullable Series: whole numbers where both ends of the scale are whole.

        Args:
            column: the column with the texts. On a Series leave it out.
            criterion: what is rated, such as "how urgent it is".
            scale: the least and the greatest number.
            template: in place of a column: what the texts are, as in ``synthesize``.
            on_error: as in ``synthesize``.
            na: as in ``synthesize``.
            reference: as in ``synthesize``.
            progress: as in ``synthesize``.
            **options: as in ``synthesize``.

        Raises:
            SetupError: as in ``synthesize``, and where there is no criterion, or the scale is none.
            BudgetExceeded: with ``on_error="raise"``, when the budget is used up.

        >>> frame = pd.DataFrame({"mail": ["Fire!", "A question about my bill."]})
        >>> frame.moa.score(
        ...     "mail", "how urgent it is", scale=(0.0, 1.0), pipeline="single", progress=False,
        ...     aggregator=lambda prompt: '{"score": 1.0}' if "Fire" in prompt else '{"score": 0.2}',
        ... ).tolist()
        [1.0, 0.2]
        """
        from moa_nb.frames import spoken

        refuse_unknown(self.score, options)
        said = spoken.score(self._data, column, criterion, scale=scale, template=template, na=na, reference=reference)
        done: _Series = self._done(said, options, on_error, progress)
        return done

    @spelled_out
    def filter(
        self,
        column: Hashable = None,
        condition: str = "",
        *,
        template: str | None = None,
        on_error: OnError = "null",
        na: MissingPolicy = "skip",
        reference: Hashable = None,
        progress: bool | None = None,
        **options: Unpack[RunOptions],
    ) -> _Series:
        """Return whether a condition is true of each row, as a nullable boolean mask: a failure is missing, never True.

        ``df[df.moa.filter("review", "mentions a price").fillna(False)]`` are the rows of which it is true.

        Args:
            column: the column with the texts. On a Series leave it out.
            condition: what is true of a text, such as "the writer wants money back".
            template: in place of a column: what the texts are, as in ``synthesize``.
            on_error: as in ``synthesize``.
            na: as in ``synthesize``.
            reference: as in ``synthesize``.
            progress: as in ``synthesize``.
            **options: as in ``synthesize``.

        Raises:
            SetupError: as in ``synthesize``, and where there is no condition.
            BudgetExceeded: with ``on_error="raise"``, when the budget is used up.

        >>> frame = pd.DataFrame({"mail": ["I want my money back.", None]})
        >>> frame.moa.filter(
        ...     "mail", "the writer wants a refund", pipeline="single", progress=False, aggregator=lambda prompt: "yes"
        ... ).tolist()
        [True, <NA>]
        """
        from moa_nb.frames import spoken

        refuse_unknown(self.filter, options)
        said = spoken.holds(self._data, column, condition, template=template, na=na, reference=reference)
        done: _Series = self._done(said, options, on_error, progress)
        return done

    @spelled_out
    def prefer(
        self,
        a: Hashable,
        b: Hashable,
        criterion: str = "",
        *,
        question: Hashable = None,
        on_error: OnError = "null",
        na: MissingPolicy = "skip",
        progress: bool | None = None,
        **options: Unpack[RunOptions],
    ) -> _Series:
        """Return which of two columns is better in each row: its name, or ``tie``, as a categorical Series.

        Each pair is asked in both orders, since judges favour places: the same winner twice wins, anything else is a
        tie (Zheng et al. 2023, arXiv 2306.05685, section 3.4).

        Args:
            a: a column with texts.
            b: another one.
            criterion: what makes one better; empty: which is better.
            question: the column with what both answer, if they answer something.
            on_error: as in ``synthesize``.
            na: as in ``synthesize``.
            progress: as in ``synthesize``.
            **options: as in ``synthesize``.

        Raises:
            SetupError: as in ``synthesize``, and on a Series, which has one column.
            BudgetExceeded: with ``on_error="raise"``, when the budget is used up.

        >>> frame = pd.DataFrame({"old": ["Buy it."], "new": ["Buy it: it lasts two days."]})
        >>> def longer(prompt):
        ...     first, second = (len(part.split("[")[1]) for part in prompt.split("Text ")[-2:])
        ...     return "A" if first > second else "B"
        >>> frame.moa.prefer("old", "new", pipeline="single", aggregator=longer, progress=False).tolist()
        ['new']
        """
        from moa_nb.frames import spoken

        refuse_unknown(self.prefer, options)
        said = spoken.prefer(self._data, a, b, criterion, question=question, na=na)
        done: _Series = self._done(said, options, on_error, progress)
        return done

    @spelled_out
    def summarize(
        self,
        column: Hashable = None,
        *,
        by: Any = None,
        instruction: str = "Summarize the texts.",
        on_error: OnError = "null",
        na: MissingPolicy = "skip",
        progress: bool | None = None,
        **options: Unpack[RunOptions],
    ) -> _Series:
        """Return one text about each group of rows, as a text Series with the groups as its index.

        Every row is read once. A group that is longer than what the models can read is read in parts, whose summaries
        are gathered, as often as it takes; a single text that is longer than that is read in pieces.

        Args:
            column: the column with the texts. On a Series leave it out.
            by: what ``groupby`` takes: a column, several, a Series, a function. Rows whose group is missing are a group of
                their own. ``None``: all rows are one group, ``all``.
            instruction: what to do with the texts of a group.
            on_error: as in ``synthesize``.
            na: as in ``synthesize``; missing texts are left out of their group.
            progress: as in ``synthesize``.
            **options: as in ``synthesize``.

        Raises:
            SetupError: as in ``synthesize``, and where the rows cannot be grouped so.
            BudgetExceeded: with ``on_error="raise"``, when the budget is used up.

        >>> frame = pd.DataFrame({
        ...     "text": ["The mill closed in May.", "The mill was old.", "Rain fell."], "topic": ["mill", "mill", "rain"],
        ... })
        >>> told = frame.moa.summarize("text", by="topic", instruction="Summarize in one sentence", progress=False,
        ...     pipeline="single", aggregator="offline:lead")
        >>> told.to_dict()
        {'mill': 'The mill closed in May.', 'rain': 'Rain fell.'}
        """
        from moa_nb.frames import spoken

        refuse_unknown(self.summarize, options)
        said = spoken.summarize(self._data, column, by=by, instruction=instruction, na=na)
        done: _Series = self._done(said, options, on_error, progress)
        return done

    def _done(self, said: Spoken, options: RunOptions, on_error: OnError, progress: bool | None) -> Any:
        verb, questions = said
        return self._do(verb, questions, options, on_error=on_error, progress=progress)


class Accessor(Verbs["pd.Series[Any]", pd.DataFrame]):
    """``df.moa``: each verb returns something aligned with the index; the data are never changed."""

    def __init__(self, data: pd.DataFrame | pd.Series[Any]) -> None:
        if not isinstance(data, pd.DataFrame | pd.Series):
            msg = "moa works on a DataFrame or a Series"
            raise AttributeError(msg)  # noqa: TRY004 - what pandas asks of accessors
        super().__init__(data, _become("finish"))

    if not TYPE_CHECKING:  # to which a misspelt verb is one that is not there

        def __getattr__(self, name: str) -> Any:
            known = [] if name[0] == "_" else [one for one in dir(self) if one[0] != "_"]
            msg = f"moa has no {name!r}" + (f"; {nearest(name, known)}" if known else "")
            raise AttributeError(msg, name=name, obj=None)  # or Python would guess a second time

    @property
    def start(self) -> Verbs[FrameRun, FrameRun]:
        """The same verbs in the background: each returns a ``FrameRun`` at once."""
        return Verbs(self._data, _become("start"))

    @property
    def estimate(self) -> Verbs[Estimate, Estimate]:
        """The same verbs priced instead of run: each returns an ``Estimate``, and nothing is sent."""
        return Verbs(self._data, _become("estimate"))

    @property
    def preview(self) -> Verbs[Preview, Preview]:
        """The same verbs on the first three rows that have a text: each returns a ``Preview`` with every layer.

        A full run then finds their answers in the store.
        """
        return Verbs(self._data, _become("preview"))


def _become(name: str) -> Callable[..., Any]:
    """Return what becomes of a verb, which is loaded when the first one is spoken."""

    def do(*verb: Any, **said: Any) -> Any:
        from moa_nb.frames import spoken

        return getattr(spoken, name)(*verb, **said)

    return do


def register() -> None:
    """Return nothing; hang ``moa`` on DataFrame and Series, quietly when it already hangs there; dask's get theirs too."""
    for kind, decorate in (
        (pd.DataFrame, pd.api.extensions.register_dataframe_accessor),
        (pd.Series, pd.api.extensions.register_series_accessor),
    ):
        known = kind.__dict__.get("moa")
        if known is not None and getattr(getattr(known, "_accessor", None), "__module__", "") == __name__:
            # Loaded again, as %autoreload does: pandas would warn of a clash with ourselves.
            delattr(kind, "moa")
        decorate("moa")(Accessor)
    dask_hook.register()
