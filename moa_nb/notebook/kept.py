"""``%moa costs``, ``cache`` and ``delete``: what was spent, what is kept, and how it is deleted."""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from IPython.core.error import UsageError

from moa_nb.errors import UnknownName, nearest
from moa_nb.panels.figures import count, dollars, tokens
from moa_nb.panels.tables import TableDisplay, table
from moa_nb.store import CostRow, Held, Store
from moa_nb.store.ledger import BY

__all__ = ["cache", "costs", "delete", "home", "megabytes"]

_ROWS = 200
"""The most lines of a listing; the last line sums up all of them, shown or not."""

_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


class _Parser(argparse.ArgumentParser):
    """The options after one word of ``%moa``; every mistake is one line."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"%moa {command}", add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the options of a line.

        Raises:
            UsageError: one that is not there, or a value that does not fit.
        """
        known, rest = self.parse_known_args(list(words))
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            self.error(f"no option {rest[0]!r}; {nearest(rest[0], options)}")
        return known


# Costs -------------------------------------------------------------------------------------------


def costs(store: Store, words: Sequence[str]) -> TableDisplay:
    """Return what was spent over all notebooks: ``[--by day,pipeline,model] [--days N]``.

    Raises:
        UsageError: an option that is not there, or a value that does not fit.
    """
    parser = _Parser("costs")
    parser.add_argument("--by", type=_groups, default=BY)
    parser.add_argument("--days", type=_days)
    options = parser.read(words)
    rows = store.costs(options.by, options.days)
    headers = [*options.by, "calls", "cached", "tokens in", "tokens out", "cost", "saved", "unpriced"]
    if not rows:
        return table([], headers, caption="nothing has been asked yet" if options.days is None else "nothing was asked")
    guessed = {_place(row, options.by) for row in store.costs(BY, options.days) if _is_guessed(row)}
    lines = [
        [*(getattr(row, name) for name in options.by), *_figures(row, estimated=_place(row, options.by) in guessed)]
        for row in rows[:_ROWS]
    ]
    if len(rows) > _ROWS:
        lines.append([f"… {len(rows) - _ROWS:,} more", *[""] * (len(headers) - 1)])
    (total,) = store.costs((), options.days)
    lines.append(["in all", *[""] * (len(options.by) - 1), *_figures(total, estimated=bool(guessed))])
    return table(lines, headers)


def _place(row: CostRow, by: Sequence[str]) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in by)


def _is_guessed(row: CostRow) -> bool:
    """Return whether tokens are known to be estimates: of other models' the ledger keeps the sum alone."""
    return bool(row.prompt_tokens or row.completion_tokens) and (row.model or "").startswith("offline:")


def _figures(row: CostRow, *, estimated: bool) -> list[object]:
    """Return a row's figures: dollars are 'and more' where some prices are not known."""
    paid = "unknown" if row.unpriced and not row.cost else f"${dollars(row.cost)}" + (" and more" * bool(row.unpriced))
    saved = f"${dollars(row.saved)}"
    both: list[object] = [row.prompt_tokens, row.completion_tokens]
    if estimated:
        both = [tokens(row.prompt_tokens, estimated=True), tokens(row.completion_tokens, estimated=True)]
    return [row.calls, row.cached, *both, paid, saved, row.unpriced]


def _groups(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in BY:
            msg = f"costs are grouped by day, pipeline or model, not by {name!r}"
            raise argparse.ArgumentTypeError(msg)
    if not names:
        msg = "costs are grouped by day, pipeline or model: --by model"
        raise argparse.ArgumentTypeError(msg)
    return tuple(name for name in BY if name in names)


def _days(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"{text!r} is not a number of days from 1 on"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


# Cache -------------------------------------------------------------------------------------------


def cache(store: Store, words: Sequence[str]) -> TableDisplay | str:
    """Return what the cache holds and has saved; with ``clear``, what it has deleted.

    ``clear [--older-than 30d] [--model NAME]`` deletes answers; runs and their costs stay.

    Raises:
        UsageError: an option that is not there, or a value that does not fit.
        UnknownName: nothing is kept of such a model.
    """
    if not words:
        return _holding(store)
    if words[0] != "clear":
        raise UsageError(f"%moa cache takes nothing, or clear, not {words[0]!r}")
    parser = _Parser("cache clear")
    parser.add_argument("--older-than", type=_seconds)
    parser.add_argument("--model")
    options = parser.read(words[1:])
    if options.model is not None:
        models = [one.model for one in store.held().models]
        if options.model not in models:
            msg = f"nothing is kept of {options.model!r}; {nearest(options.model, models)}"
            raise UnknownName(msg)
    cleared = store.clear(older_than=options.older_than, model=options.model)
    if not cleared.completions:
        return "nothing to clear"
    freed = f"; {megabytes(cleared.bytes)} of disk are free again" if cleared.bytes else ""
    return f"cleared {count(cleared.completions, 'answer')}{freed}"


def _holding(store: Store) -> TableDisplay:
    held, saved = store.held(), store.savings()
    rows = [(one.model or "?", one.completions, _day(one.oldest), megabytes(one.bytes)) for one in held.models[:_ROWS]]
    spared = f"saved so far: {count(saved.calls, 'call')}, {count(saved.tokens, 'token')}, ${dollars(saved.dollars)}"
    return table(rows, ["model", "answers", "oldest", "size"], caption=f"{_where(held)}; {spared}")


def _where(held: Held) -> str:
    what = count(held.completions, "answer")
    if held.oldest is not None:
        what += f" since {_day(held.oldest)}"
    return f"{what}, in memory" if held.path is None else f"{what}, {megabytes(held.bytes)} in {home(held.path)}"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([hdw])", text)
    if found is None:
        msg = f"an age is a number of hours, days or weeks, as in 12h, 30d or 4w, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return float(found[1]) * _UNITS[found[2]]


# Runs --------------------------------------------------------------------------------------------


def delete(store: Store, words: Sequence[str]) -> str:
    """Return what of a run was deleted: ``RUN [--with-answers]``.

    The run, its record and its rows' questions go; what it cost stays in the ledger. With its answers go those that no
    other listed run used as well.

    Raises:
        UsageError: an option that is not there.
        UnknownName: there is no such run.
    """
    parser = _Parser("delete")
    parser.add_argument("run")
    parser.add_argument("--with-answers", action="store_true")
    options = parser.read(words)
    run = store.run(options.run)
    n = store.delete_answers(options.run) if options.with_answers else 0
    if not store.delete_run(options.run):
        msg = f"no run {options.run!r}; {nearest(options.run, [run.id for run in store.runs()])}"
        raise UnknownName(msg)
    answers = ""
    if n is None:
        answers = "; which answers it used is not known: %moa cache clear deletes all"
    elif options.with_answers:
        answers = f", and {count(n, 'answer')} that no other run used"
    goes_on = ""
    if run is not None and run.state == "running":
        goes_on = "; it goes on, and is listed again when it ends, without its questions: stop() it to end it"
    return f"deleted the run {options.run}{answers}; its costs stay in %moa costs{goes_on}"


# How sizes and places are written ----------------------------------------------------------------


def megabytes(size: int) -> str:
    """Return a number of bytes in megabytes, or kilobytes where it is less than one.

    >>> megabytes(1_234_567), megabytes(23_400)
    ('1.2 MB', '24 kB')
    """
    return f"{size / 1e6:,.1f} MB" if size >= 999_500 else f"{math.ceil(size / 1e3)} kB"


def home(path: Path) -> str:
    """Return a path, short where it is below the user's home."""
    user = Path.home()
    return f"~{os.sep}{path.relative_to(user)}" if path.is_relative_to(user) else str(path)
