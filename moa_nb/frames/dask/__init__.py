"""Dask's frames: the same verbs, partition by partition, each process with its share of what all may take.

``import moa_nb`` and ``import dask.dataframe``, in whatever order, are enough; importing this does the same.
"""

from __future__ import annotations

from moa_nb.frames.dask.accessor import Accessor, register

__all__ = ["Accessor"]

register()
