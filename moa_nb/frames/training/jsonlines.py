"""Files of JSON lines: written at once and whole, each with the lines of the best of equals."""

from __future__ import annotations

import json
import os
import re
import secrets
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from moa_nb.frames.training.examples import Example

__all__ = ["Draft", "Lines", "line"]

_UNSAFE = re.compile("[\ud800-\udfff\x85\u2028\u2029]")
"""Halves of characters, which no UTF-8 file can hold, and what some readers take for the end of a line."""


def line(value: Mapping[str, Any]) -> bytes:
    r"""Return an object as a line; half a character becomes U+FFFD.

    >>> line({"text": "one\u2028two\n\ud83d"}).decode()
    '{"text":"one\\u2028two\\n\ufffd"}\n'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (_UNSAFE.sub(_escaped, text) + "\n").encode()


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"


class Lines:
    """Examples as lines, with their provenance inline or in a second file; nothing is there before ``publish``.

    Of equal questions the one of the highest rank stays, of equals the first. Only digests are kept in memory.
    """

    def __init__(self, path: Path, beside: Path | None) -> None:
        self._data, self._origins = Draft(path), None if beside is None else Draft(beside)
        self._best: dict[bytes, tuple[float, int, int]] = {}
        """By question: the rank, the block of its lines, and their number."""
        self._gone: set[int] = set()
        self.n_lines = 0
        """Lines that stay."""
        self.n_beaten = 0
        """Questions that came again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for draft in self._drafts:
            draft.discard()

    @property
    def _drafts(self) -> list[Draft]:
        return [draft for draft in (self._origins, self._data) if draft is not None]

    def add(self, question: bytes, rank: float, examples: Sequence[Example]) -> None:
        """Return nothing; lines are kept if their rank is the highest so far for this question."""
        best = self._best.get(question)
        if best is not None:
            self.n_beaten += 1
            if best[0] >= rank:
                return
            self._gone.add(best[1])
            self.n_lines -= best[2]
        if self._origins is None:
            block = self._data.add(line({**data, "provenance": origin}) for data, origin in examples)
        else:
            block = self._data.add(line(data) for data, _ in examples)
            self._origins.add(line(origin) for _, origin in examples)
        self._best[question] = (rank, block, len(examples))
        self.n_lines += len(examples)

    def publish(self) -> None:
        """Return once the files are there, whole; the data come last."""
        for draft in self._drafts:
            draft.publish(self._gone)


class Draft:
    """A file in blocks of lines, under another name until it is whole."""

    def __init__(self, path: Path) -> None:
        self._path, self._draft = path, path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        self._file = self._draft.open("x+b")
        self._ends = array("Q")

    def add(self, lines: Iterable[bytes]) -> int:
        """Return the number of a new block with these lines."""
        n_bytes = self._file.write(b"".join(lines))
        self._ends.append((self._ends[-1] if self._ends else 0) + n_bytes)
        return len(self._ends) - 1

    def publish(self, gone: Collection[int] = ()) -> None:
        """Return once the file is in its place, without some of its blocks."""
        if gone:
            self._close_up(gone)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._draft.replace(self._path)

    def _close_up(self, gone: Collection[int]) -> None:
        start = end = 0
        for block, stop in enumerate(self._ends):
            if block not in gone:
                self._file.seek(start)
                lines = self._file.read(stop - start)
                self._file.seek(end)
                end += self._file.write(lines)
            start = stop
        self._file.truncate(end)

    def discard(self) -> None:
        """Return once nothing is left of a draft that was not published."""
        self._file.close()
        self._draft.unlink(missing_ok=True)
