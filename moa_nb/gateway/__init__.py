"""The way of one call: cache, single flight, budget, limits, retry, http."""

from __future__ import annotations

from moa_nb.gateway.budget import Budget
from moa_nb.gateway.exchange import Watch
from moa_nb.gateway.gateway import Gateway
from moa_nb.gateway.http import Http

__all__ = ["Budget", "Gateway", "Http", "Watch"]
