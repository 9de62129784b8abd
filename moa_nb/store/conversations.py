"""Chats: what was asked and answered in turn under one name, for every notebook and kernel."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, replace

from moa_nb.chat import Message

__all__ = ["TABLES", "ChatRow", "Turn", "add", "chats", "delete_before", "delete_run", "forget", "turns"]

TABLES = """
CREATE TABLE turns (
    id       INTEGER PRIMARY KEY,
    chat     TEXT NOT NULL,
    question TEXT NOT NULL,
    answer   TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    run      TEXT NOT NULL,
    cell     TEXT NOT NULL,
    at       REAL NOT NULL
);
CREATE INDEX turns_chat ON turns (chat, id);
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str
    pipeline: str
    run: str
    """The name of the run that answered."""
    cell: str
    """What its cell is known by; empty where that is not known."""
    at: float
    """When it was answered, in seconds since 1970."""

    @property
    def messages(self) -> tuple[Message, Message]:
        """Both as turns of a conversation."""
        return Message("user", self.question), Message("assistant", self.answer)


@dataclass(frozen=True, slots=True)
class ChatRow:
    """One chat as the store lists it."""

    name: str
    turns: int
    at: float
    """When its latest turn was answered, in seconds since 1970."""
    first: str
    """Its first question."""


_COLUMNS = ",".join(Turn.__slots__)

_HALVES = re.compile("[\ud800-\udfff]")


def turns(connection: sqlite3.Connection, chat: str) -> list[Turn]:
    """Return the turns of a chat in their order; none where there is no such chat."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM turns WHERE chat = ? ORDER BY id", [_clean(chat)])  # noqa: S608 - own names
    return [Turn(*row) for row in rows]


def add(connection: sqlite3.Connection, chat: str, turn: Turn, known: Collection[str], gone: Collection[str]) -> int:
    """Return how many turns came between that the question did not know of; its turn is now the chat's last.

    Args:
        connection: to the store.
        chat: its name.
        turn: what is added.
        known: the runs of the turns that the chat had when the question was asked.
        gone: those of them whose place the turn takes; they are deleted.
    """
    from moa_nb.store.schema import transaction  # which knows the table of this module

    turn = replace(turn, question=_clean(turn.question), answer=_clean(turn.answer))
    with transaction(connection):
        connection.executemany("DELETE FROM turns WHERE chat = ? AND run = ?", [(_clean(chat), run) for run in gone])
        between = sum(other.run not in known for other in turns(connection, chat))
        connection.execute(
            f"INSERT INTO turns (chat, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - own names
            [_clean(chat), *(getattr(turn, name) for name in Turn.__slots__)],
        )
    return between


def chats(connection: sqlite3.Connection) -> list[ChatRow]:
    """Return all chats, the one that went on last first."""
    rows = connection.execute(
        "SELECT chat, n, latest, question FROM turns"
        " JOIN (SELECT MIN(id) AS first, COUNT(*) AS n, MAX(at) AS latest FROM turns GROUP BY chat) ON id = first"
        " ORDER BY latest DESC"
    )
    return [ChatRow(*row) for row in rows]


def forget(connection: sqlite3.Connection, chat: str) -> int:
    """Return how many turns the chat had, which are now gone. Their runs and answers stay until they are deleted."""
    return connection.execute("DELETE FROM turns WHERE chat = ?", [_clean(chat)]).rowcount


def delete_run(connection: sqlite3.Connection, run: str) -> int:
    """Return how many turns a run had answered, which are now gone."""
    return connection.execute("DELETE FROM turns WHERE run = ?", [run]).rowcount


def delete_before(connection: sqlite3.Connection, at: float) -> int:
    """Return how many turns were answered before a time, which are now gone."""
    return connection.execute("DELETE FROM turns WHERE at < ?", [at]).rowcount


def _clean(text: str) -> str:
    # Half of a character, from a cell with broken text, could not be written.
    return _HALVES.sub("\ufffd", text)
