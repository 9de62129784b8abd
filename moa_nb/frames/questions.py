"""Which rows ask the same."""

from __future__ import annotations

import hashlib

from moa_nb.engine import Plan
from moa_nb.pipeline.candidate import Task

__all__ = ["digest"]


def digest(plan: Plan, task: Task) -> bytes:
    """Return what tells a row's question from others: rows with the same are asked once.

    A question is the prompt, its material and its reference answer. The row's other columns belong to it only where
    the pipeline may look at them: where its parameters say ``uses_columns``, and under a strategy that is not ours,
    of which nobody knows.
    """
    parts = [message.content for message in task.conversation]
    parts += [repr(part) for part in (task.material, task.reference_answer) if part is not None]
    if not plan.strategy.is_ours or getattr(plan.pipeline.params, "uses_columns", False):
        parts.append(repr(dict(task.values)))
    # The lengths tell apart where one part ends and the next begins.
    text = "\0".join([*map(str, map(len, parts)), *parts])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
