"""Versions of prompt templates: what a playground tried, under a name, for the next session too."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping
from typing import NamedTuple

from moa_nb.store.recipes import pack, unpack

__all__ = ["TABLES", "Version", "delete_before", "forget", "keep", "listed"]

TABLES = """
CREATE TABLE versions (
    id       INTEGER PRIMARY KEY,
    at       REAL NOT NULL,
    place    TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    name     TEXT,
    digest   BLOB NOT NULL,
    data     BLOB NOT NULL,
    UNIQUE (place, pipeline, digest)
);
"""


class Version(NamedTuple):
    """All prompt templates as they were once."""

    id: int
    at: float
    """Seconds since 1970, when it was last kept."""
    name: str | None
    """``None``: nobody gave it one."""
    sources: Mapping[str, str]
    """By file, as ``templating.read`` finds them."""

    def __repr__(self) -> str:
        return f"<Version {self.id}{f', {self.name!r}' if self.name else ''}: {', '.join(self.sources)}>"

    @property
    def label(self) -> str:
        """What it is called: its name, or its number."""
        return self.name or f"version {self.id}"


def keep(
    connection: sqlite3.Connection, place: str, pipeline: str, sources: Mapping[str, str], name: str | None = None
) -> Version:
    """Return the version of these sources, kept now unless it was kept before; a ``name`` is one version's alone.

    Args:
        connection: to the store.
        place: the project's folder.
        pipeline: its name.
        sources: by file.
        name: what it is called from now on; ``None``: as before.
    """
    from moa_nb.store.schema import transaction  # which knows the table of this module

    digest = _digest(sources)
    here = [place, pipeline]
    with transaction(connection):
        if name is not None:
            connection.execute(
                "UPDATE versions SET name = NULL WHERE place = ? AND pipeline = ? AND name = ?", [*here, name]
            )
        connection.execute(
            "INSERT INTO versions (at, place, pipeline, name, digest, data) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET at = excluded.at, name = coalesce(excluded.name, name)",
            [time.time(), *here, name, digest, pack(dict(sources))],
        )
        found = connection.execute(
            "SELECT id, at, name, data FROM versions WHERE place = ? AND pipeline = ? AND digest = ?", [*here, digest]
        ).fetchone()
    return _version(*found)


def listed(connection: sqlite3.Connection, place: str, pipeline: str) -> list[Version]:
    """Return the versions of a pipeline's templates in a project, oldest first."""
    found = connection.execute(
        "SELECT id, at, name, data FROM versions WHERE place = ? AND pipeline = ? ORDER BY id", [place, pipeline]
    )
    return [_version(*row) for row in found]


def forget(connection: sqlite3.Connection, number: int) -> bool:
    """Return whether there was such a version; it is gone."""
    return connection.execute("DELETE FROM versions WHERE id = ?", [number]).rowcount > 0


def delete_before(connection: sqlite3.Connection, at: float) -> int:
    """Return how many versions were deleted, those with a name too: all that were last kept before a time."""
    return connection.execute("DELETE FROM versions WHERE at < ?", [at]).rowcount


def _digest(sources: Mapping[str, str]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(sources):
        for text in (file, sources[file]):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def _version(number: int, at: float, name: str | None, data: bytes) -> Version:
    return Version(number, at, name, unpack(data))
