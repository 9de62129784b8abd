"""The runs of this session and of earlier ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moa_nb import settings
from moa_nb.engine import current
from moa_nb.errors import UnknownName
from moa_nb.pipeline.result import Result

if TYPE_CHECKING:
    import pandas as pd

    from moa_nb.frames import FrameRun

__all__ = ["last", "runs"]


def last() -> Result | FrameRun:
    """Return the last run of this session, whatever started it: a cell, a function or a frame.

    Raises:
        UnknownName: nothing has run yet.
    """
    latest: Result | FrameRun | None = current().latest
    if latest is None:
        msg = "nothing has run in this session yet; moa.runs() lists earlier ones"
        raise UnknownName(msg)
    return latest


def runs(limit: int = 50) -> pd.DataFrame:
    """Return the latest runs of all notebooks, newest first, a row each. ``%moa delete ID`` deletes one.

    >>> list(runs().columns)[:4]
    ['id', 'at', 'kind', 'pipeline']
    """
    import pandas as pd

    from moa_nb.store import RunRow

    rows: list[dict[str, Any]] = [
        {name: getattr(row, name) for name in RunRow.__slots__}
        for row in current().store(settings.current()).runs(limit)
    ]
    frame = pd.DataFrame(rows, columns=list(RunRow.__slots__))
    return frame.assign(at=pd.to_datetime(frame["at"].astype("float64"), unit="s", utc=True))
