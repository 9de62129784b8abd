"""Texts of rows, in the dtype that pandas chooses for texts itself.

Where that is Arrow's, a stretch of rows is moved there as soon as all of its rows are settled: an answer is then held
once, by the run and by every Series made of it, and many answers are a few objects.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["TEXT", "Texts", "series"]

TEXT: Any = "str" if int(pd.__version__.partition(".")[0]) >= 3 else "string"
"""The dtype of texts that pandas itself would choose."""

_STRETCH = 256
"""Rows that are moved together."""


class Texts:
    """The answers of a run's rows; each is set once."""

    def __init__(self, n_rows: int) -> None:
        self._dtype: Any = pd.api.types.pandas_dtype(TEXT)
        self._is_sealing = getattr(self._dtype, "storage", "") == "pyarrow"
        self._stretches: list[Any] = [[None] * min(_STRETCH, n_rows - start) for start in range(0, n_rows, _STRETCH)]
        """Lists of texts; sealed ones are Arrow arrays."""
        self._n_open = list(map(len, self._stretches))

    def __getitem__(self, position: int) -> str | None:
        text = self._stretches[position // _STRETCH][position % _STRETCH]
        said: str | None = text if text is None or isinstance(text, str) else text.as_py()
        return said

    def __iter__(self) -> Iterator[str | None]:
        for stretch in [*self._stretches]:
            yield from stretch if isinstance(stretch, list) else stretch.to_pylist()

    def __setitem__(self, position: int, text: str | None) -> None:
        number, place = divmod(position, _STRETCH)
        stretch = self._stretches[number]
        stretch[place] = text
        self._n_open[number] -= 1
        if self._is_sealing and not self._n_open[number]:
            self._stretches[number] = _sealed(stretch)

    def series(self, index: pd.Index[Any], name: Hashable) -> pd.Series[Any]:
        """Return what is there so far, missing where there is nothing; from any thread."""
        stretches = [*self._stretches]
        if not self._is_sealing:
            return series([*chain.from_iterable(stretches)], index, name)
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]  # it says nothing of its types

        chunks = [_sealed(stretch) if isinstance(stretch, list) else stretch for stretch in stretches]
        array = self._dtype.__from_arrow__(pa.chunked_array(chunks, pa.large_string()))
        return pd.Series(array, index=index, name=name)


def series(texts: Sequence[str | None], index: pd.Index[Any], name: Hashable = None) -> pd.Series[Any]:
    """Return texts as a Series of the text dtype."""
    try:
        return pd.Series(texts, index=index, name=name, dtype=TEXT)
    except UnicodeEncodeError:  # half of a surrogate pair, which Arrow does not hold
        whole = [None if text is None else text.encode("utf-8", "replace").decode() for text in texts]
        return pd.Series(whole, index=index, name=name, dtype=TEXT)


def _sealed(texts: Sequence[str | None]) -> Any:
    """Return texts as an Arrow array; made of its buffers, since Arrow's builder takes twice their size."""
    import pyarrow as pa

    texts = [*texts]  # another thread may be writing
    pieces = [b"" if text is None else text.encode("utf-8", "replace") for text in texts]
    ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    is_there = np.packbits([text is not None for text in texts], bitorder="little")
    return pa.LargeStringArray.from_buffers(
        len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(pieces)), pa.py_buffer(is_there)
    )
