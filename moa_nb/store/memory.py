"""Completions in the memory of this process: where there is to be no file, or it can no longer be written."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from moa_nb.chat import Completion
from moa_nb.store.upkeep import Holding

__all__ = ["Kept", "Memory"]


class Kept(NamedTuple):
    """A completion as it is kept in memory."""

    completion: Completion
    """Marked as cached."""
    model: str
    """``provider:model`` as asked."""
    at: float
    """Seconds since 1970."""


class Memory(dict[bytes, Kept]):
    """Completions by their keys. It is looked through as a copy: the engine's thread may be adding meanwhile."""

    def keep(self, key: bytes, completion: Completion, model: str) -> None:
        """Return nothing; from now on it is what the key finds."""
        cached = replace(completion, cached=True, attempts=0, queued_seconds=0.0, first_token_seconds=None)
        self[key] = Kept(cached, model, time.time())

    def forget(self, *, before: float | None, model: str | None) -> int:
        """Return how many are gone: all, those kept before a time, those of a model, or those of both."""
        gone = [
            key
            for key, known in self.copy().items()
            if (before is None or known.at < before) and (model is None or known.model == model)
        ]
        for key in gone:
            self.pop(key, None)
        return len(gone)

    def held(self) -> tuple[Holding, ...]:
        """Return what is kept of each model, the largest first."""
        models: dict[str, list[Kept]] = {}
        for known in self.copy().values():
            models.setdefault(known.model, []).append(known)
        found = (
            Holding(model, len(some), min(one.at for one in some), sum(len(one.completion.text) for one in some))
            for model, some in models.items()
        )
        return tuple(sorted(found, key=lambda one: one.bytes, reverse=True))
