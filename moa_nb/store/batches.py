"""Batches that services work through at half the price, so that a new process finds those of an earlier one."""

from __future__ import annotations

__all__ = ["TABLES"]

TABLES = """
CREATE TABLE batches (
    mark     TEXT PRIMARY KEY,
    at       REAL NOT NULL,
    provider TEXT NOT NULL,
    base_url TEXT NOT NULL,
    batch    TEXT,
    state    TEXT NOT NULL,
    keys     BLOB NOT NULL
);
"""
