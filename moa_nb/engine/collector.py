"""Python's collector of cycles, made rarer while many calls are under way.

In a notebook it looks through everything that pandas and others have imported, time and again, since
a run makes many small objects; measured, that was a third of what a call costs besides HTTP.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rarer"]

_YOUNG, _MIDDLE, _OLD = 50_000, 20, 1000

_lock = threading.Lock()
_before: list[tuple[int, int, int]] = []


@contextmanager
def rarer() -> Iterator[None]:
    """Collect less often until this ends; what the user set holds again afterwards."""
    with _lock:
        _before.append(gc.get_threshold())
        if len(_before) == 1 and _before[0][0] > 0:  # 0: the user has turned it off
            gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    try:
        yield
    finally:
        with _lock:
            first = _before[0]
            _before.pop()
            if not _before and gc.get_threshold() == (_YOUNG, _MIDDLE, _OLD):
                gc.set_threshold(*first)
