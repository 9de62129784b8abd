"""What describing a pipeline needs to know of here and now: who fills its roles, and what functions are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moa_nb.engine.engine import current
from moa_nb.engine.paths import Paths
from moa_nb.pipeline.explain import Explanation, explain
from moa_nb.pipeline.spec import Pipeline
from moa_nb.providers import functions

__all__ = ["explained", "registered_name"]


def explained(pipeline: Pipeline) -> Explanation:
    """Return the picture of a pipeline with the models that a run would ask now; nobody is asked."""
    engine = current()

    async def look() -> Explanation:
        cast = await engine.who_answers()
        return await explain(pipeline, cast.roles, Paths())

    return engine.finish(look())


def registered_name(call: Callable[..., Any]) -> str | None:
    """Return the name under which a function is registered; ``None`` if it is not."""
    known = functions.registration(call)
    return None if known is None else known.name
