"""``ddf.moa``: the verbs of ``df.moa`` on dask's frames and series, done when dask computes them."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
import pandas as pd
from dask.base import compute, get_scheduler
from dask.dataframe.extensions import register_dataframe_accessor, register_series_accessor
from dask.delayed import delayed

from moa_nb.frames.accessor import Verbs
from moa_nb.plain import quoted

if TYPE_CHECKING:
    from moa_nb.engine import Estimate
    from moa_nb.frames.dask.assignment import Assignment

__all__ = ["Accessor", "register"]

_VERBS = ("synthesize", "extract", "classify", "score", "filter", "prefer", "summarize")

_WORKERS = """            workers: worker processes that share concurrency, requests and tokens per minute: each has its part, and
                others wait until one of them has nothing to do. ``None``: those of the cluster when the first
                partition begins; 1 where dask computes in this process.
"""

_BITS = 40
"""Of a row's place within its partition."""


class Accessor(Verbs[Any, Any]):
    """``ddf.moa``: each verb returns a lazy dask Series or DataFrame; what is wrong with it shows at once.

    The verbs are those of ``df.moa``, and their results too. Nothing is computed or sent before dask computes. A
    budget is for all partitions together, however often they are computed. Settings are those that hold when the verb
    is spoken, and travel; keys do not: each worker reads them from its own environment.
    """

    def __init__(self, data: Any, become: Callable[..., Any] | None = None) -> None:
        super().__init__(data, _never)
        self._become = become or _lazy

    @property
    def estimate(self) -> Verbs[Estimate, Estimate]:
        """The same verbs priced instead of run: each computes the frame and returns an ``Estimate``; nothing is sent.

        Rows that are equal count once in each partition.
        """
        return Accessor(self._data, _estimate)

    @property
    def start(self) -> Any:
        """Nothing: dask has its own word for it.

        Raises:
            AttributeError: it says which.
        """
        msg = "dask's frames have no .moa.start: ddf.moa.VERB(...).persist() begins in the background on a cluster"
        raise AttributeError(msg)

    @property
    def preview(self) -> Any:
        """Nothing: a few rows are no dask frame.

        Raises:
            AttributeError: it says what to do.
        """
        msg = "dask's frames have no .moa.preview: take a few rows, as in ddf.head(3).moa.preview.VERB(...)"
        raise AttributeError(msg)


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError


def _on_partitions(verb: str) -> Callable[..., Any]:
    """Return a verb as dask's frames have it."""
    own = getattr(Verbs, verb)

    @functools.wraps(own)
    def speak(self: Accessor, *args: Any, workers: int | None = None, **words: Any) -> Any:
        return self._become(self._data, verb, args, words, workers)

    signature = inspect.signature(own)
    extra = inspect.Parameter("workers", inspect.Parameter.KEYWORD_ONLY, default=None)
    speak.__signature__ = signature.replace(parameters=[*signature.parameters.values(), extra])  # type: ignore[attr-defined]  # shown by inspect
    # Its example is about pandas.
    told = (own.__doc__ or "").partition("        >>>")[0].rstrip() + "\n"
    speak.__doc__ = told.replace("            **options:", _WORKERS + "            **options:")
    return speak


for _verb in _VERBS:
    setattr(Accessor, _verb, _on_partitions(_verb))


# What becomes of a verb --------------------------------------------------------------------------


def _lazy(data: Any, verb: str, args: tuple[Any, ...], words: Mapping[str, Any], workers: int | None) -> Any:
    """Return the lazy result."""
    from moa_nb.frames.dask import partition

    assignment, empty = _assigned(data, verb, args, words, workers)
    client = _client()
    if client is not None:
        assignment.check_journey(_n_processes(client))
    if verb != "summarize":
        return data.map_partitions(partition.values, assignment, meta=empty)
    rows, order = _gathered(data, *_told(args, words))
    return rows.map_partitions(_summarized, assignment, order, partition.values, meta=empty, clear_divisions=True)


def _estimate(data: Any, verb: str, args: tuple[Any, ...], words: Mapping[str, Any], workers: int | None) -> Estimate:
    """Return what all partitions would take: they are computed, and nothing is sent."""
    from moa_nb.frames.dask import partition

    assignment, _ = _assigned(data, verb, args, words, workers)
    rows, order = data, None
    if verb == "summarize":
        rows, order = _gathered(data, *_told(args, words))
    price = delayed(_summarized, pure=False)
    parts = [price(part, assignment, order, partition.priced) for part in rows.to_delayed()]
    return partition.estimated(list(compute(*parts)))  # type: ignore[no-untyped-call]  # dask is typed here and there


def _assigned(
    data: Any, verb: str, args: tuple[Any, ...], words: Mapping[str, Any], workers: int | None
) -> tuple[Assignment, Any]:
    from moa_nb.frames.dask.assignment import Assignment

    if verb == "summarize":
        _refuse_groups(data, _told(args, words)[1])
    return Assignment.of(data._meta, verb, args, words, n_partitions=data.npartitions, workers=workers)  # noqa: SLF001 - dask's word for it


def _client() -> Any:
    """Return the client of the cluster that would compute; ``None`` where this process does, or nobody can wait for it."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client = getattr(get_scheduler(), "__self__", None)  # type: ignore[no-untyped-call]  # dask is typed here and there
    except RuntimeError:
        return None  # it is asynchronous: what is wrong shows when the partitions begin
    return client if isinstance(client, distributed.Client) else None


def _n_processes(client: Any) -> int:
    """Return how many processes would share the limits now.

    What a client knows of its workers itself is renewed behind our back, at times without any of them.
    """
    from moa_nb.errors import SetupError
    from moa_nb.frames.dask import treasury

    try:
        return int(client.run_on_scheduler(treasury.n_processes))
    except (ImportError, AttributeError) as error:
        msg = f"the scheduler of {client.scheduler.address} does not have this moa-nb ({error}): install it there, and on the workers"
        raise SetupError(msg) from error


# Whole groups ------------------------------------------------------------------------------------


def _told(args: tuple[Any, ...], words: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the column and the groups that ``summarize`` was told."""
    return (args[0] if args else words.get("column")), words.get("by")


def _refuse_groups(data: Any, by: Any) -> None:
    from moa_nb.errors import SetupError

    if by is None:
        return
    columns = list(data.columns) if isinstance(data, dd.DataFrame) else []
    keys = by if isinstance(by, list) else [by]
    if not keys or not all(isinstance(key, str | int | tuple) and key in columns for key in keys):
        msg = f"dask groups by columns of its frame: by takes one, or a list of them ({quoted(columns, 80)}), not {quoted(by)}"
        raise SetupError(msg)


def _gathered(data: Any, column: Any, by: Any) -> tuple[Any, str | None]:
    """Return texts and groups with each group in one partition, and the column that holds the order of the rows."""
    if by is None:
        texts = data[[column]] if isinstance(data, dd.DataFrame) else data
        return texts.repartition(npartitions=1), None
    keys = by if isinstance(by, list) else [by]
    frame = data[list(dict.fromkeys([column, *keys]))]
    order = "row"
    while order in frame.columns:
        order += "_"
    empty = frame._meta.assign(**{order: pd.Series(dtype="int64")})  # noqa: SLF001 - as above
    numbered = frame.map_partitions(_numbered, order, meta=empty)
    # Of dask's ways the one that takes every kind of column.
    return numbered.shuffle(on=keys, ignore_index=True, shuffle_method="tasks"), order


def _numbered(part: pd.DataFrame, order: str, partition_info: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Return a partition's rows with their places in the whole frame."""
    assert partition_info is not None
    first = partition_info["number"] << _BITS
    return part.assign(**{order: range(first, first + len(part))})


def _summarized(part: Any, assignment: Assignment, order: str | None, do: Callable[..., Any]) -> Any:
    """Return what becomes of a partition, its rows in their order."""
    if order is not None:
        part = part.sort_values(order).drop(columns=order)
    return do(part, assignment)


def register() -> None:
    """Return nothing; hang ``moa`` on dask's DataFrame and Series, in place of ourselves where we hang there already."""
    for kind, decorate in ((dd.DataFrame, register_dataframe_accessor), (dd.Series, register_series_accessor)):
        known = kind.__dict__.get("moa")
        if known is not None and getattr(getattr(known, "_accessor", None), "__module__", "") == __name__:
            delattr(kind, "moa")
        decorate("moa")(Accessor)  # type: ignore[no-untyped-call]  # dask is typed here and there
