"""The progress bar of a frame run: rows, failures, cached calls, dollars so far and in the end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moa_nb.frames.run import FrameRun

__all__ = ["Bar"]

_PATIENCE_SECONDS = 0.5
"""A run that is over before this needs no bar."""
_EVERY_SECONDS = 0.1


class Bar:
    """Shows how a run goes on, from the thread that waits for it.

    Args:
        run: what is watched.
        shown: always, never, or (``None``) when the run takes a while.
    """

    def __init__(self, run: FrameRun, *, shown: bool | None) -> None:
        self._run, self._shown = run, shown
        self._bar: Any = None
        self._began = self._updated = time.monotonic()

    def __enter__(self) -> Bar:
        if self._shown:
            self._open()
        return self

    def _open(self) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(total=len(self._run.partial.index), unit="row", desc="moa", mininterval=_EVERY_SECONDS)

    def update(self) -> None:
        """Return nothing; show where the run is now."""
        now = time.monotonic()
        if self._bar is None and self._shown is None and now - self._began > _PATIENCE_SECONDS:
            self._open()
        if self._bar is not None and now - self._updated >= _EVERY_SECONDS:
            self._updated = now
            self._draw()

    def _draw(self) -> None:
        progress = self._run.progress
        self._bar.n = progress.done
        self._bar.set_postfix_str(str(progress).partition(", ")[2], refresh=False)
        self._bar.refresh()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.close()
