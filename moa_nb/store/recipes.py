"""What a run over rows was made of, so that it can be made again: its plan, its rows' questions, how each ended."""

from __future__ import annotations

__all__ = ["TABLES"]

TABLES = """
CREATE TABLE recipes (
    run    TEXT PRIMARY KEY,
    recipe BLOB NOT NULL,
    rows   BLOB
);
CREATE TABLE questions (
    run   TEXT NOT NULL,
    first INTEGER NOT NULL,
    n     INTEGER NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (run, first)
);
"""
