"""The store's file: opened, set aside where it is damaged, given up where it cannot be used; and what is said of that."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from moa_nb.store import place, schema

__all__ = ["StoreFile"]

_MEMORY_ONLY = "this session keeps its answers in memory only"


class StoreFile:
    """A file that may fail at any time, which is said once and costs nobody a run.

    Args:
        path: where it lies; ``None``: there is none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.is_broken = False
        """Whether it has been given up."""
        self._inode = 0
        self._complaints: list[str] = []

    def open(self) -> sqlite3.Connection | None:
        """Return a connection; ``None`` where there is no file, or it cannot be used."""
        if self.path is None:
            return None
        try:
            connection, has_log = self._opened(self.path)
        except (sqlite3.Error, OSError) as error:
            self._give_up(f"the store {self.path} cannot be used ({error}); {_MEMORY_ONLY}")
            return None
        if not has_log:
            self.complain(f"the file system of {self.path} has no write-ahead log; the store works, but slower")
        return connection

    def _opened(self, path: Path) -> tuple[sqlite3.Connection, bool]:
        self._inode = place.inode(path)
        try:
            opened = schema.connect(path)
        except schema.Damaged as error:
            aside = place.set_aside(path, self._inode)
            if aside is not None:
                self.complain(
                    f"the store {path} was damaged ({error}): it is set aside as {aside.name}, and a new one begun"
                )
            opened = schema.connect(path)
        self._inode = place.inode(path)
        return opened

    def fail(self, error: Exception, done: str) -> None:
        """Return nothing; give the file up, since it cannot be read, written or otherwise ``done`` something with."""
        if self.is_broken:
            return
        text = f"the store {self.path} cannot be {done} ({error}); {_MEMORY_ONLY}"
        if schema.is_damage(error) and self.path is not None:
            try:
                aside = place.set_aside(self.path, self._inode)
            except OSError:
                aside = None  # still open, where an open file cannot be renamed
            if aside is not None:
                text += f", and the file is set aside as {aside.name}"
        self._give_up(text)

    def _give_up(self, text: str) -> None:
        if not self.is_broken:
            self.is_broken = True
            self.complain(text)

    def complain(self, text: str) -> None:
        """Return nothing; what went wrong is kept until it is asked for."""
        # Not issued here: this may be the writer's thread, and threads print into the wrong cell.
        self._complaints.append(text)

    def complaint(self) -> str | None:
        """Return what went wrong since the last time this was asked, in one line; ``None`` if nothing did."""
        texts, self._complaints = self._complaints, []
        return "; ".join(texts) or None
