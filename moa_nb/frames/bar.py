"""The progress bar of a frame run: rows, failures, cached calls, dollars so far and in the end."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from moa_nb.frames.run import FrameRun

__all__ = ["Bar"]

_PATIENCE_SECONDS = 0.5
"""A run that is over before this needs no bar."""
_EVERY_SECONDS = 0.1
_EVERY_SECONDS_IN_A_FILE = 10.0
"""In a file or a pipe every drawing stays, one after the other."""

_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}, {rate_fmt}]"
"""The figures before the times: a narrow terminal cuts the end."""


class Bar:
    """Shows how a run goes on, from the thread that waits for it.

    Args:
        run: what is watched.
        shown: always, never, or (``None``) when the run takes a while and a person looks on: in a
            notebook or a terminal, not where the output goes into a file.
    """

    def __init__(self, run: FrameRun, *, shown: bool | None) -> None:
        self._run, self._shown = run, shown
        self._bar: Any = None
        self._output: Any = None
        """Where the bar stands in a notebook."""
        self._every = _EVERY_SECONDS if _is_live() else _EVERY_SECONDS_IN_A_FILE
        self._began = self._updated = time.monotonic()

    def __enter__(self) -> Self:
        if self._shown:
            self._open()
        elif self._shown is None and not _is_live():
            self._shown = False
        return self

    def _open(self) -> None:
        options: dict[str, Any] = {
            "total": self._run.progress.rows,
            "unit": "row",
            "desc": "moa",
            "bar_format": _FORMAT,
        }
        if _is_kernel():
            from tqdm.notebook import tqdm as widget

            self._bar = widget(**options, display=False)
            # A kernel has IPython: the room for it need not be known here.
            self._output = sys.modules["IPython.display"].display(self._bar.container, display_id=True)
        else:
            from tqdm import tqdm

            self._bar = tqdm(**options)
        # The rate counts from the run's start, not from when its bar came up.
        if not self._bar.disable:  # as TQDM_DISABLE in the environment does
            self._bar.start_t -= time.monotonic() - self._began

    def update(self) -> None:
        """Return nothing; show where the run is now."""
        now = time.monotonic()
        if self._bar is None and self._shown is None and now - self._began > _PATIENCE_SECONDS:
            self._open()
        if self._bar is not None and now - self._updated >= self._every:
            self._updated = now
            self._draw()

    def _draw(self) -> None:
        progress = self._run.progress
        self._bar.n = progress.done
        self._bar.set_postfix_str(progress.figures, refresh=False)
        self._bar.refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._draw()
            text = str(self._bar)
            self._bar.close()
            if self._output is not None:
                # A saved notebook has no use for a widget: without its kernel there is nothing to see.
                self._output.update({"text/plain": text}, raw=True)
                for widget in (*self._bar.container.children, self._bar.container):
                    widget.close()


def _is_live() -> bool:
    """Return whether what is drawn may be drawn over: in a kernel or a terminal."""
    return _is_kernel() or sys.stderr.isatty()


def _is_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return "IPKernelApp" in getattr(shell, "config", ())
