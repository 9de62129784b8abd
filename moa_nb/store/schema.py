"""The tables of the store, how an older file becomes one of today's, and the pragmas that make commits cheap."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from moa_nb.store import batches, conversations, recipes, versions
from moa_nb.store.place import is_remote
from moa_nb.store.version_one import from_version_one

__all__ = ["VERSION", "Damaged", "connect", "in_memory", "transaction"]

VERSION = 3
"""Raised when a table changes; an older file is migrated, a newer one is left alone."""

# A block holds the completions of one model that were committed together; a row each would be compressed worse, and
# a random key each would touch a page of the index each. So keys are only appended, in `blocks.keys`; once there are
# enough of them, they go into `places` together, in order (see index.py).
_TABLES = """
CREATE TABLE blocks (
    id    INTEGER PRIMARY KEY,
    at    REAL NOT NULL,
    model TEXT NOT NULL,
    n     INTEGER NOT NULL,
    keys  BLOB NOT NULL,
    data  BLOB NOT NULL
);
CREATE TABLE places (
    key   INTEGER PRIMARY KEY,
    block INTEGER NOT NULL
);
CREATE TABLE marks (
    indexed INTEGER NOT NULL,
    changes INTEGER NOT NULL
);
INSERT INTO marks VALUES (0, 0);
CREATE TABLE runs (
    id       TEXT PRIMARY KEY,
    at       REAL NOT NULL,
    kind     TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    state    TEXT NOT NULL,
    title    TEXT NOT NULL,
    calls    INTEGER NOT NULL,
    cached   INTEGER NOT NULL,
    failed   INTEGER NOT NULL,
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    cost     REAL,
    saved    REAL,
    seconds  REAL NOT NULL,
    keys     BLOB,
    record   BLOB,
    process  TEXT
);
CREATE INDEX runs_at ON runs (at);
CREATE TABLE ledger (
    run      TEXT NOT NULL,
    day      TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    model    TEXT NOT NULL,
    calls    INTEGER NOT NULL,
    cached   INTEGER NOT NULL,
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    cost     REAL,
    saved    REAL,
    unpriced INTEGER NOT NULL,
    saved_tokens INTEGER NOT NULL
);
CREATE INDEX ledger_run ON ledger (run);
CREATE INDEX ledger_day ON ledger (day);
"""

_NEW_IN_THREE = recipes.TABLES + batches.TABLES + conversations.TABLES + versions.TABLES


class Damaged(sqlite3.DatabaseError):
    """The file is no database, or no whole one."""


def connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Return a connection to the store's file, made if need be, and whether it has a write-ahead log.

    Raises:
        Damaged: the file is no database.
        sqlite3.Error: it is of a newer version, or cannot be opened.
        OSError: its folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # SQLite gives the files beside it the same permissions.
    path.touch(mode=0o600)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        with contextlib.suppress(PermissionError):  # somebody else's file stays as it is
            path.chmod(0o600)
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
    try:
        return connection, _patiently(connection, may_log=not is_remote(path))
    except sqlite3.DatabaseError as error:
        connection.close()
        if is_damage(error):
            raise Damaged(*error.args) from error
        raise
    except BaseException:
        connection.close()
        raise


def in_memory() -> sqlite3.Connection:
    """Return a connection to a store of this session alone, with nothing on disk."""
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.executescript(_TABLES + _NEW_IN_THREE)
    return connection


def is_damage(error: BaseException) -> bool:
    """Return whether an error says that the file itself is broken, not that it cannot be reached or written."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Return a block whose writes are all kept, or none; other writers wait for its end."""
    try:
        connection.execute("BEGIN IMMEDIATE")  # in here, since an interrupt may come right after it
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have already rolled back
            connection.execute("ROLLBACK")
        raise


def _patiently(connection: sqlite3.Connection, *, may_log: bool) -> bool:
    """Return what ``_prepare`` does, once others that open the new file at this moment let it."""
    for pause in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0):
        try:
            return _prepare(connection, may_log=may_log)
        except sqlite3.OperationalError as error:
            # Changing to the write-ahead log does not wait for others as everything else does.
            if "locked" not in str(error):
                raise
            time.sleep(pause)
    return _prepare(connection, may_log=may_log)


def _prepare(connection: sqlite3.Connection, *, may_log: bool) -> bool:
    connection.execute("PRAGMA busy_timeout=30000")
    if _version(connection) > VERSION:
        msg = f"written by a newer version ({_version(connection)}, this is {VERSION})"
        raise sqlite3.DatabaseError(msg)
    mode = connection.execute(f"PRAGMA journal_mode={'WAL' if may_log else 'DELETE'}").fetchone()[0]
    # With the log a committed group survives a killed process; only a power cut could take the last ones.
    connection.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'wal' else 'FULL'}")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    if _version(connection) < VERSION:
        _migrate(connection)
    if connection.execute("SELECT indexed FROM marks").fetchone() is None:  # other damage shows here as an error
        msg = "its marks are missing"
        raise Damaged(msg)
    return bool(mode == "wal")


def _migrate(connection: sqlite3.Connection) -> None:
    """Return nothing; make the tables, with what an older version kept in them. All of it, or nothing."""
    with transaction(connection):
        found = _version(connection)  # another process may have done it while this one waited
        if found == VERSION:
            return
        if found == 2:
            connection.execute("ALTER TABLE runs ADD COLUMN process TEXT")
        if found == 1:
            for table in ("runs", "ledger"):
                connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
            for index in ("runs_at", "ledger_run"):
                connection.execute(f"DROP INDEX {index}")
        for statement in ((_TABLES if found < 2 else "") + _NEW_IN_THREE).split(";"):
            connection.execute(statement)
        if found == 1:
            from_version_one(connection)
        connection.execute(f"PRAGMA user_version={VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
