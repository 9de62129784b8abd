"""Dask's frames get their accessor whichever comes first, dask or this package; neither brings in the other."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["register"]

_DASK, _ACCESSOR = "dask.dataframe", "moa_nb.frames.dask"


def register() -> None:
    """Return nothing; hang ``moa`` on dask's frames: now if they are there, else when they come."""
    if _DASK in sys.modules:
        importlib.import_module(_ACCESSOR)
    elif not any(type(finder).__qualname__ == _Arrival.__qualname__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _Arrival())


class _Arrival(MetaPathFinder):
    """Finds nothing itself; sees one module come."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _DASK:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """Loads a module as its own loader does, and registers the accessor after that."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Arrival)]
        try:
            importlib.import_module(_ACCESSOR)
        except Exception as error:  # dask itself must come in whatever becomes of us
            warnings.warn(f"dask's frames have no .moa here: {error}", stacklevel=2)
