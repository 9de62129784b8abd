"""DataFrames: the accessor, the rows in flight, and the run with its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moa_nb.frames.run import FrameRun, RowsFailed

__all__ = ["FrameRun", "RowsFailed"]


def __getattr__(name: str) -> Any:
    # The accessor is registered by `import moa_nb`, which must not pull in the engine.
    if name in __all__:
        from moa_nb.frames import run

        return getattr(run, name)
    msg = f"module 'moa_nb.frames' has no attribute {name!r}"
    raise AttributeError(msg)
