"""What the first version of the store kept, in the tables of today."""

from __future__ import annotations

import sqlite3
import zlib
from itertools import groupby

import orjson

from moa_nb.chat import Completion
from moa_nb.store.completions import blocks, completion, pack
from moa_nb.store.index import KEY, sort_in

__all__ = ["from_version_one"]


def from_version_one(connection: sqlite3.Connection) -> None:
    """Return nothing; bring completions, runs and ledger over and drop the old tables. To be called in a transaction.

    The first version had a row a completion, and did not know which model had been asked: the one that the service
    said had answered stands for it. A completion that cannot be read is left behind.
    """
    rows = connection.execute("SELECT key, value, at FROM completions ORDER BY rowid")
    while some := rows.fetchmany(1000):
        read = [(key, at, one) for key, value, at in some if len(key) == KEY and (one := _read(key, value)) is not None]
        for model, same in groupby(sorted(read, key=lambda row: row[2].model), lambda row: row[2].model):
            for block in blocks([((key, at), one) for key, at, one in same]):
                latest = max(at for (_, at), _ in block)
                keys = b"".join(key for (key, _), _ in block)
                data = pack(one for _, one in block)
                connection.execute(
                    "INSERT INTO blocks (at, model, n, keys, data) VALUES (?, ?, ?, ?, ?)",
                    (latest, model, len(block), keys, data),
                )
    while sort_in(connection):
        pass
    shared = (
        "id, at, kind, pipeline, state, title, calls, cached, failed, prompt_tokens, completion_tokens, cost, saved, "
        "seconds, record"
    )
    connection.execute(f"INSERT INTO runs ({shared}) SELECT {shared} FROM old_runs")  # noqa: S608 - own names
    connection.execute(
        "INSERT INTO ledger SELECT l.run, date(l.at, 'unixepoch', 'localtime'), r.pipeline, l.model, l.calls, l.cached,"
        " l.prompt_tokens, l.completion_tokens, l.cost, l.saved, l.unpriced, 0"
        " FROM old_ledger l JOIN old_runs r ON r.id = l.run"
    )
    for table in ("completions", "old_runs", "old_ledger"):
        connection.execute(f"DROP TABLE {table}")


def _read(key: bytes, value: bytes) -> Completion | None:
    try:
        return completion(orjson.loads(value if value[:1] == b"[" else zlib.decompress(value)), key)
    except (zlib.error, ValueError):
        return None
