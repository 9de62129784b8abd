"""The tables of the store, and the pragmas that make group commits cheap."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

__all__ = ["VERSION", "connect"]

VERSION = 1
"""Raised when a table changes; an older file is migrated, a newer one is left alone."""

# A rowid table with a BLOB key: WITHOUT ROWID would keep the 2 KB values inside the index.
_TABLES = """
CREATE TABLE IF NOT EXISTS completions (
    key   BLOB NOT NULL UNIQUE,
    value BLOB NOT NULL,
    at    REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
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
    record   BLOB
);
CREATE INDEX IF NOT EXISTS runs_at ON runs (at);
CREATE TABLE IF NOT EXISTS ledger (
    run      TEXT NOT NULL,
    at       REAL NOT NULL,
    model    TEXT NOT NULL,
    calls    INTEGER NOT NULL,
    cached   INTEGER NOT NULL,
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    cost     REAL,
    saved    REAL,
    unpriced INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS ledger_run ON ledger (run);
"""


def connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Return a connection to the store's file, made if need be, and whether WAL works there.

    Raises:
        sqlite3.Error: the file is damaged, of a newer version, or cannot be opened.
        OSError: its folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = not path.exists()
    if fresh:
        path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
    try:
        return connection, _patiently(connection)
    except BaseException:
        connection.close()
        raise


def _patiently(connection: sqlite3.Connection) -> bool:
    """Return what ``_prepare`` does, once others that open the new file at this moment let it."""
    for pause in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0):
        try:
            return _prepare(connection)
        except sqlite3.OperationalError as error:
            # Changing to the write-ahead log does not wait for others as everything else does.
            if "locked" not in str(error):
                raise
            time.sleep(pause)
    return _prepare(connection)


def _prepare(connection: sqlite3.Connection) -> bool:
    connection.execute("PRAGMA busy_timeout=30000")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        msg = f"written by a newer version ({found}, this is {VERSION})"
        raise sqlite3.DatabaseError(msg)
    is_wal = bool(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal")
    # With WAL a committed group survives a killed process; only a power cut could take the last ones.
    connection.execute("PRAGMA synchronous=NORMAL" if is_wal else "PRAGMA synchronous=FULL")
    if found < VERSION:
        connection.executescript(_TABLES)
        connection.execute(f"PRAGMA user_version={VERSION}")
    return is_wal
