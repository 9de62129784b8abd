"""Python's collector of cycles, made rarer while runs go on.

In a notebook it looks through everything that pandas and others have imported, time and again, since
a run makes many small objects; measured, that was a third of what a call costs. Runs make no cycles.
"""

from __future__ import annotations

import gc
import os
import threading

__all__ = ["resume", "slow_down"]

_RARE = (50_000, 20, 1000)

_lock = threading.Lock()
_n_runs = 0
_before: tuple[int, int, int] = _RARE


def slow_down() -> None:
    """Return nothing; until as many calls of ``resume`` the collector looks less often."""
    global _n_runs, _before  # noqa: PLW0603 - one a process, as the collector is
    with _lock:
        _n_runs += 1
        if _n_runs == 1:
            _before = gc.get_threshold()
            if _before[0]:  # else the user has turned it off
                gc.set_threshold(*_RARE)


def resume() -> None:
    """Return nothing; when the last run is over, what the user had set holds again."""
    global _n_runs  # noqa: PLW0603
    with _lock:
        _n_runs -= 1
        if not _n_runs and gc.get_threshold() == _RARE:
            gc.set_threshold(*_before)


def _forget() -> None:
    """A forked child goes on with none of the parent's runs, and the lock may be held for ever in it."""
    global _lock, _n_runs  # noqa: PLW0603
    _lock = threading.Lock()
    if _n_runs:
        _n_runs = 1
        resume()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
