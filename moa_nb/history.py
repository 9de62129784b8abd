"""The runs of this session and of earlier ones."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from moa_nb import settings
from moa_nb.engine import current
from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.pipeline.result import Result
from moa_nb.plain import quoted

if TYPE_CHECKING:
    import pandas as pd

    from moa_nb.frames import FrameRun
    from moa_nb.store.conversations import Turn

__all__ = ["last", "messages", "runs", "turns_of"]

_MOST_RUNS = 10**9


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


def messages(chat: str) -> list[dict[str, str]]:
    """Return the messages of a chat (``%%moa --chat NAME``) in their order, as ``moa.run`` takes them.

    ``moa.run([*moa.messages("support"), {"role": "user", "content": "And in short?"}])`` goes on from there without
    adding to the chat. ``moa.export_chat`` writes them to a file.

    Raises:
        UnknownName: there is no such chat; the message names the nearest.
        SetupError: what was given is no name.

    >>> messages("no such chat")
    Traceback (most recent call last):
    moa_nb.errors.UnknownName: no chat 'no such chat'; there are none
    """
    return [message.to_dict() for turn in turns_of(chat) for message in turn.messages]


def turns_of(chat: str) -> list[Turn]:
    """Return the turns of a chat in their order.

    Raises:
        UnknownName: there is no such chat; the message names the nearest.
        SetupError: what was given is no name.
    """
    if not isinstance(chat, str):
        msg = f"a chat has a name, and {quoted(chat)} is none"
        raise SetupError(msg)
    store = current().store(settings.current())
    turns = store.turns(chat)
    if not turns:
        msg = f"no chat {chat!r}; {nearest(chat, [row.name for row in store.chats()])}"
        raise UnknownName(msg)
    return turns


def runs(limit: int = 50) -> pd.DataFrame:
    """Return the latest runs of all notebooks, newest first, a row each. ``%moa delete ID`` deletes one.

    Raises:
        SetupError: ``limit`` is no whole number.

    >>> list(runs().columns)[:4]
    ['id', 'at', 'kind', 'pipeline']
    """
    import pandas as pd

    from moa_nb.store import RunRow

    if not isinstance(limit, Integral) or not 1 <= limit <= _MOST_RUNS:
        msg = f"limit is how many runs at most, from 1 on, not {quoted(limit)}"
        raise SetupError(msg)

    rows: list[dict[str, Any]] = [
        {name: getattr(row, name) for name in RunRow.__slots__}
        for row in current().store(settings.current()).runs(int(limit))
    ]
    frame = pd.DataFrame(rows, columns=list(RunRow.__slots__))
    return frame.assign(at=pd.to_datetime(frame["at"].astype("float64"), unit="s", utc=True))
