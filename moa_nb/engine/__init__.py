"""Gateway and pipeline together: a run from its options to its result, on a loop of its own."""

from __future__ import annotations

from moa_nb.engine.engine import Engine, current
from moa_nb.engine.forecast import Estimate
from moa_nb.engine.plan import Plan
from moa_nb.engine.single import arun, estimate, run

__all__ = ["Engine", "Estimate", "Plan", "arun", "current", "estimate", "run"]
