"""What a run over rows was made of, so that it can be made again: its recipe, its rows' questions, how each ended."""

from __future__ import annotations

import json
import sqlite3
import sys
import zlib
from array import array
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

try:
    # The same format in a quarter of the time.
    from isal.isal_zlib import compress as _deflate
except ImportError:
    _deflate = zlib.compress

__all__ = [
    "TABLES",
    "Stretch",
    "copy_questions",
    "delete_unlisted",
    "finish",
    "keep",
    "keep_questions",
    "pack",
    "pack_rows",
    "recipe",
    "rows",
    "stretch",
    "unpack",
    "unpack_rows",
]

TABLES = """
CREATE TABLE recipes (
    run    TEXT PRIMARY KEY,
    recipe BLOB NOT NULL,
    rows   BLOB
);
CREATE TABLE questions (
    run   TEXT NOT NULL,
    first INTEGER NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (run, first)
);
"""


class Stretch(NamedTuple):
    """The questions of some rows that follow one another."""

    first: int
    """The position of the first."""
    data: bytes
    """As ``pack_questions`` made it."""


# What is kept -----------------------------------------------------------------------------------


def keep(connection: sqlite3.Connection, run: str, data: bytes) -> None:
    """Return nothing; keep the recipe of a run that begins."""
    connection.execute("INSERT OR REPLACE INTO recipes (run, recipe) VALUES (?, ?)", [run, data])


def keep_questions(
    connection: sqlite3.Connection, run: str, first: int, packed: Callable[[bytes | None], bytes]
) -> None:
    """Return nothing; keep the questions of some rows, unless the run was deleted meanwhile."""
    known = connection.execute("SELECT data FROM questions WHERE run = ? AND first = ?", [run, first]).fetchone()
    data = packed(None if known is None else known[0])
    connection.execute(
        "INSERT OR REPLACE INTO questions SELECT run, ?, ? FROM recipes WHERE run = ?", [first, data, run]
    )


def copy_questions(connection: sqlite3.Connection, earlier: str, run: str) -> None:
    """Return nothing; keep the questions of an earlier run as those of another, too."""
    connection.execute(
        "INSERT OR REPLACE INTO questions SELECT recipes.run, first, data FROM questions, recipes"
        " WHERE questions.run = ? AND recipes.run = ?",
        [earlier, run],
    )


def finish(connection: sqlite3.Connection, run: str, data: bytes) -> None:
    """Return nothing; keep how the rows of a run ended, unless it was deleted meanwhile."""
    connection.execute("UPDATE recipes SET rows = ? WHERE run = ?", [data, run])


def recipe(connection: sqlite3.Connection, run: str) -> bytes | None:
    """Return the recipe of a run; ``None`` if it has none."""
    found = connection.execute("SELECT recipe FROM recipes WHERE run = ?", [run]).fetchone()
    return None if found is None else found[0]


def rows(connection: sqlite3.Connection, run: str) -> bytes | None:
    """Return how the rows of a run ended; ``None`` where it did not come to its end."""
    found = connection.execute("SELECT rows FROM recipes WHERE run = ?", [run]).fetchone()
    return None if found is None else found[0]


def stretch(connection: sqlite3.Connection, run: str, position: int) -> Stretch | None:
    """Return the questions of the rows among which a position is, or those before it; ``None`` where there are none."""
    found = connection.execute(
        "SELECT first, data FROM questions WHERE run = ? AND first <= ? ORDER BY first DESC LIMIT 1", [run, position]
    ).fetchone()
    return None if found is None else Stretch(*found)


def delete_unlisted(connection: sqlite3.Connection) -> None:
    """Return nothing; delete what belongs to runs that are not listed any more."""
    for table in ("recipes", "questions"):
        connection.execute(f"DELETE FROM {table} WHERE run NOT IN (SELECT id FROM runs)")  # noqa: S608 - own names


# As bytes ---------------------------------------------------------------------------------------


def pack(value: Any) -> bytes:
    """Return JSON data as bytes.

    >>> unpack(pack({"rows": [1, None, "x"]}))
    {'rows': [1, None, 'x']}
    """
    return _deflate(_dumps(value), 1)


def unpack(data: bytes) -> Any:
    """Return what ``pack`` was given.

    Raises:
        ValueError: the bytes are damaged, or were never made by ``pack``.
    """
    try:
        return _loads(zlib.decompress(data))
    except (zlib.error, TypeError) as error:
        msg = f"damaged bytes: {error}"
        raise ValueError(msg) from error


def pack_rows(header: Mapping[str, Any], columns: Mapping[str, array[Any]]) -> bytes:
    """Return what is known of a run's rows as bytes: anything as JSON data, and a column of numbers each.

    >>> header, columns = unpack_rows(pack_rows({"name": "q"}, {"cost": array("d", [0.5, -1.0])}))
    >>> header, columns["cost"].tolist()
    ({'name': 'q'}, [0.5, -1.0])
    """
    written = {name: [column.typecode, len(column)] for name, column in columns.items()}
    head = _dumps({"header": header, "columns": written})
    return _deflate(len(head).to_bytes(8, "little") + head + b"".join(map(_little, columns.values())), 1)


def unpack_rows(data: bytes) -> tuple[dict[str, Any], dict[str, array[Any]]]:
    """Return the header and the columns that ``pack_rows`` was given.

    Raises:
        ValueError: the bytes are damaged, or were never made by ``pack_rows``.
    """
    try:
        raw = zlib.decompress(data)
        at = 8 + int.from_bytes(raw[:8], "little")
        head = _loads(raw[8:at])
        columns = {}
        for name, (code, n) in head["columns"].items():
            column = array(code)
            size = n * column.itemsize
            column.frombytes(raw[at : at + size])
            at += size
            columns[name] = column if sys.byteorder == "little" else _swapped(column)
            if len(column) != n:
                msg = "cut short"
                raise ValueError(msg)
        return dict(head["header"]), columns
    except (zlib.error, TypeError, KeyError, AttributeError, MemoryError) as error:
        msg = f"damaged bytes: {error}"
        raise ValueError(msg) from error


def _little(column: array[Any]) -> bytes:
    return (column if sys.byteorder == "little" else _swapped(column)).tobytes()


def _swapped(column: array[Any]) -> array[Any]:
    copy = array(column.typecode, column)
    copy.byteswap()
    return copy


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # Half of a surrogate pair, from a cell with broken text: it must come back as it is, or its answer is not found.
        return json.dumps(value).encode()


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        return json.loads(data)
