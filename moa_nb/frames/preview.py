"""A preview: a verb on a few rows, with everything that was said, and the price of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moa_nb.engine import Estimate
from moa_nb.frames.run import FrameRun
from moa_nb.pipeline.result import Result

__all__ = ["Preview"]


@dataclass(frozen=True)
class Preview:
    """A verb on the first rows that ask something, each something else where they do. A full run finds their answers in the store."""

    run: FrameRun
    """The finished run over these rows."""
    results: tuple[Result, ...]
    """Each row's layers, with what was sent; none for a row that was not asked."""
    estimate: Estimate
    """What all rows would take, those shown here being cached."""

    @property
    def values(self) -> Any:
        """What the verb returns for these rows."""
        return self.run.values

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        from moa_nb.frames.figures import previewed, view_of_run
        from moa_nb.panels.frame_preview import bundle
        from moa_nb.panels.provenance import MIME_TYPE, frame_records, records

        execution = self.run._execution  # noqa: SLF001 - its own room's
        shown = bundle(previewed(execution, self.results, self.estimate))
        return {**shown, MIME_TYPE: records(self.results) | frame_records([view_of_run(execution)])}

    def __repr__(self) -> str:
        return f"<Preview of {len(self.results)} rows; all rows: {self.estimate}>"
