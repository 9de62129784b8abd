"""Chats in files: written out for people and programs, and brought back from a saved notebook.

A saved notebook has each turn of a chat in the output of its cell: who answered in which run, and in the conversation
of the run what was said before. The latest of them says which turns the chat had when it was saved.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moa_nb import settings
from moa_nb.engine import current
from moa_nb.errors import SetupError
from moa_nb.history import turns_of
from moa_nb.notebook.arguments import is_chat_name
from moa_nb.notebook.chats import SAVED
from moa_nb.panels.figures import count
from moa_nb.panels.provenance import MIME_TYPE, outputs_in, result_of
from moa_nb.store import Store
from moa_nb.store.conversations import Turn

__all__ = ["export_chat", "restore_chats"]


def export_chat(chat: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Return the file to which a chat (``%%moa --chat NAME``) is written, at once and whole.

    ``.jsonl``: a line ``{"messages": [{"role": ..., "content": ...}, ...]}``, as services and trainers take chats.
    ``.md``: a page of Markdown, questions quoted, in which every text stays text.

    Args:
        chat: its name.
        path: the file; its ending says what is written, and its folder has to be there.
        overwrite: whether a file that is there is replaced.

    Raises:
        UnknownName: there is no such chat; the message names the nearest.
        SetupError: another ending, or a file that is there already.

    >>> export_chat("support", "support.txt")
    Traceback (most recent call last):
    moa_nb.errors.SetupError: a chat is written to .jsonl (messages) or .md (to be read), not to 'support.txt'
    """
    from moa_nb.frames.training.export import check_place
    from moa_nb.frames.training.jsonlines import Draft

    target = Path(path)
    written = _FORMS.get(target.suffix.lower())
    if written is None:
        msg = f"a chat is written to .jsonl (messages) or .md (to be read), not to {target.name!r}"
        raise SetupError(msg)
    data = written(chat, turns_of(chat))
    check_place(target, overwrite=overwrite)
    draft = Draft(target)
    try:
        draft.add([data])
        draft.publish()
    finally:
        draft.discard()
    return target


def _lines(_: str, turns: Sequence[Turn]) -> bytes:
    from moa_nb.frames.training.jsonlines import line

    return line({"messages": [message.to_dict() for turn in turns for message in turn.messages]})


def _page(name: str, turns: Sequence[Turn]) -> bytes:
    from moa_nb.panels.chat import whole_markdown

    return whole_markdown(name, turns).encode()


_FORMS: dict[str, Callable[[str, Sequence[Turn]], bytes]] = {".jsonl": _lines, ".md": _page}


# Back from a notebook ----------------------------------------------------------------------------


def restore_chats(path: str | Path, *, overwrite: bool = False) -> dict[str, str]:
    """Return what became of each chat of a saved notebook, by its name: they are in the store again, as they last were.

    A chat that the store does not have is put back, and one that goes on in the notebook gets the turns that are
    missing. Where the store's own goes on, or is another, it is left as it is, and that is said.

    Args:
        path: an ``.ipynb`` file. Cells with ``-q`` leave nothing in it: their turns are there if a later cell's is.
        overwrite: whether the notebook's chat replaces the store's where they differ.

    Raises:
        SetupError: the file cannot be read, is no notebook, or holds a chat that is not as ours are.

    >>> restore_chats("no_such.ipynb")
    Traceback (most recent call last):
    moa_nb.errors.SetupError: no_such.ipynb cannot be read: No such file or directory
    """
    chats: dict[str, _Chat] = {}
    outputs = outputs_in(path)
    try:
        for output in outputs:
            _read(output.get("data", {}).get(MIME_TYPE), chats)
    except (LookupError, TypeError, ValueError, AttributeError):
        msg = f"{path} holds a chat that cannot be read: it was written by another version, or by hand"
        raise SetupError(msg) from None
    store = current().store(settings.current())
    return {name: _put_back(store, name, chat, overwrite=overwrite) for name, chat in chats.items() if chat.latest}


@dataclass
class _Chat:
    """A chat as a notebook has it."""

    latest: Sequence[Mapping[str, Any]] = ()
    """Its turns when it changed last, without what was said; none where it was forgotten."""
    at: float = 0.0
    """When that was, in seconds since 1970."""
    said: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Questions and answers by run."""
    cut: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Likewise, where the answer was cut when it was saved."""

    def change(self, turns: Sequence[Mapping[str, Any]], at: float) -> None:
        """Return nothing; these are its turns if it did not change later."""
        if at >= self.at:
            self.latest, self.at = turns, at

    def turns(self, here: Sequence[Turn]) -> tuple[list[Turn], list[str]]:
        """Return its turns, and what of them neither the notebook has nor the store."""
        whole = {turn.run: (turn.question, turn.answer) for turn in here} | self.said
        said = self.cut | whole
        turns = [Turn(*said[turn["run"]], **turn) for turn in self.latest if turn["run"] in said]
        n_gone = len(self.latest) - len(turns)
        n_cut = sum(turn.run not in whole for turn in turns)
        missing = [f"{count(n_gone, 'turn')} not in the notebook"] if n_gone else []
        return turns, missing + ([f"{count(n_cut, 'answer')} cut when it was saved"] if n_cut else [])


def _read(saved: Any, chats: dict[str, _Chat]) -> None:
    """Return nothing; take from what an output holds what it says of a chat.

    Raises:
        ValueError: it is not as ours are; likewise the other errors of data that are something else.
    """
    if not isinstance(saved, dict):
        return
    if "forgotten" in saved:
        chats.setdefault(_name(saved["forgotten"]), _Chat()).change((), _time(saved["at"]))
    elif saved.get("chat") is not None:
        place = saved["chat"]
        chat = chats.setdefault(_name(place["name"]), _Chat())
        turns = [_turn(turn) for turn in place["turns"]]
        *before, last = [_text(message.content) for message in result_of(saved).conversation]
        # What went out is the latest of what was said before, whole turns of it.
        went_out = list(zip(before[::2], before[1::2], strict=True))
        chat.said |= {turn["run"]: words for turn, words in zip(turns[-2::-1], went_out[::-1], strict=False)}
        own = chat.cut if saved.get("is_cut") else chat.said
        own[turns[-1]["run"]] = _text(place.get("question", last)), _text(saved["text"])
        chat.change(turns, turns[-1]["at"])


def _turn(saved: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _time(saved[name]) if name == "at" else _text(saved[name]) for name in SAVED}


def _name(value: Any) -> str:
    if not is_chat_name(_text(value)):
        raise ValueError
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _time(value: Any) -> float:
    """Return a time that was: what a file says of the future would stand above every chat."""
    if not isinstance(value, int | float) or not value >= 0:
        raise ValueError
    return min(value, time.time())


def _put_back(store: Store, name: str, chat: _Chat, *, overwrite: bool) -> str:
    """Return what became of a chat."""
    here = store.turns(name)
    turns, missing = chat.turns(here)
    n_same = _n_same(here, turns)
    if n_same == len(here) == len(turns):
        said, turns = f"is here already, {count(len(here), 'turn')}", []
    elif n_same == len(here):
        said = f"put back, {count(len(turns), 'turn')}"
        if here:
            said = f"goes on, {count(len(turns) - n_same, 'turn')} more than the {n_same:,} that were here"
        turns = turns[n_same:]
    elif overwrite:
        said = f"put back, {count(len(turns), 'turn')} for the {len(here):,} that were here"
    else:
        differs = f"is another from turn {n_same + 1:,} on"
        if n_same == len(turns):
            differs = f"goes on for {count(len(here) - n_same, 'turn')} more"
        said, turns = f"left as it is, since here it {differs}; overwrite=True takes the notebook's", []
    gone = [turn.run for turn in here] if n_same < len(here) else []
    for turn in turns:
        store.add_turn(name, turn, gone=gone)
        gone = []
    return "; ".join([said, *missing])


def _n_same(here: Sequence[Turn], turns: Sequence[Turn]) -> int:
    """Return how many turns two chats begin with in common."""
    pairs = zip(here, turns, strict=False)
    return sum(itertools.takewhile(bool, (one.messages == other.messages for one, other in pairs)))
