"""The store: reads on the caller's thread, writes by one thread that commits in groups."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from moa_nb.chat import Completion
from moa_nb.errors import SetupError
from moa_nb.store import batches, conversations, ledger, recipes, runs, schema, upkeep, versions
from moa_nb.store.file import StoreFile
from moa_nb.store.index import Index
from moa_nb.store.memory import Memory
from moa_nb.store.writer import Note, Write, Writer

__all__ = ["Store", "StoreWarning"]

_T = TypeVar("_T")


class StoreWarning(UserWarning):
    """The store cannot keep what it should; the run goes on without."""


class Store:
    """Completions and runs, on disk or (``path=None``) in memory for this process alone.

    Whatever goes wrong with the file is said once (see ``complaint``), and the run goes on with what
    is kept in memory: a full disk must not cost an answer that was paid for.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = StoreFile(path)
        self._memory = Memory()
        self._writer: Writer | None = None
        self._noting = threading.Lock()
        self._noted: threading.Event | None = None
        """Of the latest note."""
        connection = self._file.open()
        self._index = None if connection is None else Index(connection)
        self._connection: sqlite3.Connection | None = connection or schema.in_memory()

    def complaint(self) -> str | None:
        """Return what went wrong since the last time this was asked, in one line; ``None`` if nothing did."""
        return self._file.complaint()

    # Completions ------------------------------------------------------------------------------

    def get(self, key: bytes) -> Completion | None:
        """Return the completion of a key, marked as cached; ``None`` if there is none.

        Its ``cost`` and ``usage`` are what it took when it was asked.
        """
        if self._memory:
            known = self._memory.get(key)
            if known is not None:
                return known.completion
        if self._index is None:
            return None
        try:
            with self._lock:
                return self._index.find(key)
        except sqlite3.Error as error:
            self._file.fail(error, "read")
            return None

    async def put(self, key: bytes, completion: Completion, model: str = "") -> None:
        """Return once the completion is committed, or kept in memory where nothing can be written."""
        done = asyncio.get_running_loop().create_future()
        self.put_soon(key, completion, functools.partial(_resolve, done), model)
        await done

    def put_soon(self, key: bytes, completion: Completion, kept: Callable[[], None], model: str = "") -> None:
        """Return nothing; ``kept`` is called on the running loop once the completion is committed.

        Args:
            key: a digest of 16 bytes.
            completion: what came back.
            kept: called at once where nothing can be written and it is kept in memory.
            model: ``provider:model`` as asked, which ``clear`` can name; the service's own name if empty.
        """
        model = model or completion.model
        if self._index is None or self._file.is_broken:
            self._memory.keep(key, completion, model)
            kept()
            return
        writer = self._writer or self._start()
        writer.put(Write(key, completion, model, asyncio.get_running_loop(), kept))

    def _start(self) -> Writer:
        with self._lock:
            if self._writer is None:
                assert self.path is not None
                self._writer = Writer(self.path, self._not_written)
            return self._writer

    def _not_written(self, error: Exception, group: Sequence[Write]) -> None:
        for write in group:
            self._memory.keep(write.key, write.completion, write.model)
        self._file.fail(error, "written")

    def _note(self, write: Callable[[sqlite3.Connection], None]) -> None:
        """Return at once; ``write`` is called on the writer's thread, once what was put before is committed."""
        if self._index is None:
            self._do(write)
        elif not self._file.is_broken:
            writer = self._writer or self._start()
            with self._noting:  # else an event that somebody waits for may be of no note
                self._noted = threading.Event()
                writer.put(Note(functools.partial(self._try, write), self._noted))

    def _try(self, action: Callable[[sqlite3.Connection], _T], connection: sqlite3.Connection) -> _T | None:
        """Return what ``action`` returns; whatever goes wrong but the file itself is said, and costs nobody a run."""
        try:
            return action(connection)
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:
            self._file.complain(f"the store cannot keep this run ({type(error).__name__}: {error})")
        return None

    def _await_notes(self) -> None:
        if self._noted is not None:
            self._noted.wait()

    # Runs -------------------------------------------------------------------------------------

    def add_run(
        self,
        run: runs.RunRow,
        rows: list[runs.LedgerRow],
        record: dict[str, Any] | None,
        keys: bytes | None = None,
    ) -> None:
        """Return nothing; keep a run and what its models took, over what was kept of it before.

        One that begins is kept as ``running``, and is ``interrupted`` once this process is gone.

        Args:
            run: its row.
            rows: what each model took.
            record: the run as plain data; ``None`` for a frame's.
            keys: of the answers that it used, one after another; ``None``: not known.
        """
        self._do(lambda connection: runs.insert(connection, run, rows, record, keys))

    def run(self, run_id: str) -> runs.RunRow | None:
        """Return a run as it is listed; ``None`` if there is no such run."""
        return self._do(lambda connection: runs.one(connection, run_id))

    def runs(self, limit: int = 50) -> list[runs.RunRow]:
        """Return the latest runs, newest first."""
        return self._do(lambda connection: runs.read(connection, limit)) or []

    def run_record(self, run_id: str) -> dict[str, Any] | None:
        """Return the record of a run, or ``None``."""
        return self._do(lambda connection: runs.record(connection, run_id))

    def delete_run(self, run_id: str) -> bool:
        """Return whether there was such a run; it, its record and its recipe are gone. What it cost stays in the ledger."""
        self._await_notes()  # a run that goes on from this one may be taking over its questions

        def delete(connection: sqlite3.Connection) -> bool:
            conversations.delete_run(connection, run_id)
            return runs.delete(connection, run_id)

        return bool(self._do(delete))

    def delete_answers(self, run_id: str) -> int | None:
        """Return how many answers that this run used, and no other listed run, are gone; ``None`` if they are not known."""

        def delete(connection: sqlite3.Connection) -> int | None:
            keys = runs.only_used_by(connection, run_id)
            if keys is None:
                return None
            in_memory = [key for key in keys if self._memory.pop(key, None) is not None]
            return upkeep.delete_keys(connection, keys) + len(in_memory)

        return self._do(delete)

    def costs(self, by: Sequence[ledger.By] = ledger.BY, days: int | None = None) -> list[ledger.CostRow]:
        """Return what was spent by day, pipeline and model, or some of these; the latest first."""
        return self._do(lambda connection: ledger.costs(connection, by, days)) or []

    def savings(self) -> ledger.Savings:
        """Return what cached answers would have taken, over all notebooks."""
        return self._do(ledger.savings) or ledger.Savings(0, 0, 0.0)

    # Chats ------------------------------------------------------------------------------------

    def turns(self, chat: str) -> list[conversations.Turn]:
        """Return the turns of a chat in their order; none where there is no such chat."""
        return self._do(lambda connection: conversations.turns(connection, chat)) or []

    def add_turn(
        self, chat: str, turn: conversations.Turn, *, known: Collection[str] = (), gone: Collection[str] = ()
    ) -> int:
        """Return how many turns came between that the question did not know of; its turn is now the chat's last.

        Args:
            chat: its name.
            turn: what is added.
            known: the runs of the turns that the chat had when the question was asked.
            gone: those of them whose place the turn takes; they are deleted.
        """
        return self._do(lambda connection: conversations.add(connection, chat, turn, known, gone)) or 0

    def chats(self) -> list[conversations.ChatRow]:
        """Return all chats, the one that went on last first."""
        return self._do(conversations.chats) or []

    def forget_chat(self, chat: str) -> int:
        """Return how many turns the chat had, which are now gone. Their runs and answers stay until they are deleted."""
        return self._do(lambda connection: conversations.forget(connection, chat)) or 0

    # Recipes ----------------------------------------------------------------------------------

    def keep_recipe(self, run_id: str, record: dict[str, Any]) -> None:
        """Return nothing; keep what a run that begins is made of. The run itself is added before.

        Args:
            run_id: its name.
            record: plain data.
        """
        self._do(lambda connection: recipes.keep(connection, run_id, recipes.pack(record)))

    def keep_questions(self, run_id: str, first: int, packed: Callable[[bytes | None], bytes]) -> None:
        """Return at once; questions of a run that has a recipe are kept by the writer's thread.

        Args:
            run_id: whose.
            first: the position of the first of these rows.
            packed: makes the bytes, called on that thread with what is kept there already (``None``: nothing is).
        """
        self._note(lambda connection: recipes.keep_questions(connection, run_id, first, packed))

    def copy_questions(self, earlier: str, run_id: str) -> None:
        """Return at once; the questions of an earlier run are kept as those of another that has a recipe, too."""
        self._note(lambda connection: recipes.copy_questions(connection, earlier, run_id))

    def finish_recipe(self, run_id: str, packed: Callable[[], bytes]) -> None:
        """Return at once; keep how the rows of a run ended, after all of its questions.

        Args:
            run_id: whose.
            packed: makes the bytes, as ``pack_rows`` does; called on the writer's thread.
        """
        self._note(lambda connection: recipes.finish(connection, run_id, packed()))

    def recipe(self, run_id: str) -> Any:
        """Return the record that ``keep_recipe`` was given; ``None`` if there is none.

        Raises:
            SetupError: it is damaged.
        """
        data = self._do(lambda connection: recipes.recipe(connection, run_id))
        try:
            return None if data is None else recipes.unpack(data)
        except ValueError as error:
            raise _unreadable(run_id, error) from None

    def run_rows(self, run_id: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return what ``pack_rows`` was given when the run ended; ``None`` where it has no recipe or no end.

        Raises:
            SetupError: it is damaged.
        """
        self._await_notes()
        data = self._do(lambda connection: recipes.rows(connection, run_id))
        try:
            return None if data is None else recipes.unpack_rows(data)
        except ValueError as error:
            raise _unreadable(run_id, error) from None

    def questions(self, run_id: str, position: int) -> recipes.Stretch | None:
        """Return the kept questions among which a row's may be; ``None`` where no row up to it has any."""
        self._await_notes()
        return self._do(lambda connection: recipes.stretch(connection, run_id, position))

    # Versions of templates --------------------------------------------------------------------

    def keep_version(
        self, place: str, pipeline: str, sources: Mapping[str, str], name: str | None = None
    ) -> versions.Version | None:
        """Return the version of these templates, kept once; ``None`` where nothing can be kept."""
        return self._do(lambda connection: versions.keep(connection, place, pipeline, sources, name))

    def versions(self, place: str, pipeline: str) -> list[versions.Version]:
        """Return the versions of a pipeline's templates in a project, oldest first."""
        return self._do(lambda connection: versions.listed(connection, place, pipeline)) or []

    def forget_version(self, number: int) -> bool:
        """Return whether there was such a version; it is gone."""
        return bool(self._do(lambda connection: versions.forget(connection, number)))

    # Batches ----------------------------------------------------------------------------------

    @property
    def keeps_batches(self) -> bool:
        """Whether what is written outlives this process."""
        return self._index is not None and not self._file.is_broken

    def add_batch(self, row: batches.BatchRow) -> bool | None:
        """Return whether a batch may be handed in, and is written down; ``None`` where nothing can be written.

        It may not be where another process has one of its requests under way.
        """
        return self._do(lambda connection: batches.add(connection, row)) if self.keeps_batches else None

    def give_batch_id(self, mark: str, batch: str) -> bool:
        """Return whether the id that the service gave a batch is on disk."""
        return bool(self._do(lambda connection: batches.give_id(connection, mark, batch)))

    def close_batch(self, mark: str) -> bool:
        """Return whether a batch is closed; it is not where its answers could not be written."""
        return self.keeps_batches and bool(self._do(lambda connection: batches.close(connection, mark)))

    def batch(self, mark: str) -> batches.BatchRow | None:
        """Return an open batch; ``None`` where it is closed."""
        return self._do(lambda connection: batches.get(connection, mark))

    def open_batches(self) -> list[batches.BatchRow]:
        """Return the batches whose answers are still to come, oldest first."""
        return self._do(batches.under_way) or []

    def batch_ids(self) -> frozenset[str]:
        """Return the ids of all batches that this store knows, open and closed."""
        return self._do(batches.ids) or frozenset()

    # Upkeep -----------------------------------------------------------------------------------

    def held(self) -> upkeep.Held:
        """Return what is kept, and where."""
        if self._index is None or self.path is None:
            return upkeep.Held(None, 0, self._memory.held())
        return upkeep.Held(self.path, upkeep.size(self.path), self._do(upkeep.held) or ())

    def clear(self, *, older_than: float | None = None, model: str | None = None) -> upkeep.Cleared:
        """Return what was deleted: all completions, or those older than some seconds, or those of a model, or of both.

        Runs and ledger stay.
        """
        before = None if older_than is None else time.time() - older_than
        gone = self._memory.forget(before=before, model=model)
        n, freed = self._delete(lambda connection: upkeep.delete_where(connection, before=before, model=model))
        return upkeep.Cleared(n + gone, freed)

    def forget_older_than(self, seconds: float) -> int:
        """Return how many completions and runs were deleted because they are older; the ledger keeps what they cost."""
        before = time.time() - seconds

        def delete(connection: sqlite3.Connection) -> int:
            conversations.delete_before(connection, before)
            versions.delete_before(connection, before)
            return upkeep.delete_where(connection, before=before) + runs.delete_before(connection, before)

        return self._delete(delete)[0]

    def _delete(self, delete: Callable[[sqlite3.Connection], int]) -> tuple[int, int]:
        """Return how many were deleted, and the bytes that the disk has back."""
        size = upkeep.size(self.path) if self.path is not None else 0
        n = self._do(delete) or 0
        if not n or self.path is None:
            return n, 0
        self._do(upkeep.shrink)
        return n, max(0, size - upkeep.size(self.path))

    def _do(self, action: Callable[[sqlite3.Connection], _T]) -> _T | None:
        if self._connection is None:
            return None
        try:
            with self._lock:
                return self._try(action, self._connection)
        except (sqlite3.Error, OSError) as error:
            self._file.fail(error, "used")
        return None

    def close(self) -> None:
        """Return once everything is written and the file is closed."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        self._index = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _unreadable(run_id: str, error: ValueError) -> SetupError:
    return SetupError(f"what is kept of the run {run_id} cannot be read ({error}); %moa delete {run_id} deletes it")


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
