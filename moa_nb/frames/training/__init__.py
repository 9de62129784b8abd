"""Training data: finished rows as examples to learn from, and as pairs of a better and a worse answer."""

from __future__ import annotations

from moa_nb.frames.training.examples import ExportFormat, ExportRow
from moa_nb.frames.training.export import Exported, ProvenancePlace, export

__all__ = ["ExportFormat", "ExportRow", "Exported", "ProvenancePlace", "export"]
