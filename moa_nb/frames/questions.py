"""Which rows ask the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from moa_nb.engine import Plan
from moa_nb.pipeline import presets
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.strategies import find

__all__ = ["Digest", "digest_of", "uses_columns"]

Digest = Callable[[Sequence[Task]], bytes]
"""What tells a row's question from others: rows with the same are asked once."""


def digest_of(plan: Plan) -> Digest:
    """Return what digests the questions of a run.

    A question is the prompt, its material and its reference answer. The row's other columns belong to it only where
    the pipeline, or one within it, may look at them: where its parameters say ``uses_columns``, and under a strategy
    that is not ours, of which nobody knows.
    """
    has_columns = uses_columns(plan)

    def digest(tasks: Sequence[Task]) -> bytes:
        parts: list[str] = []
        for task in tasks:
            parts += [message.content for message in task.conversation]
            # A part that is not there is told from an empty one by their number.
            parts += [part for part in (task.material, task.reference_answer) if part is not None]
            parts.append(f"{task.material is None}{task.reference_answer is None}")
            if has_columns:
                parts.append(repr(dict(task.values)))
        # The lengths tell apart where one part ends and the next begins.
        text = "\0".join([*map(str, map(len, parts)), *parts])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    return digest


def uses_columns(plan: Plan) -> bool:
    """Return whether an answer may depend on columns that the prompt does not hold."""
    pipelines = presets.within(plan.pipeline, plan.pipelines)
    return any(not find(pipeline.strategy).is_ours or pipeline.params.uses_columns for pipeline in pipelines)
