"""A quiet moment told by turns of the loop, not by seconds: a machine that stands still for a while is no quiet."""

from __future__ import annotations

from moa_nb.gateway.batches import departures

__all__ = ["quiet"]

_wait = departures.Batches._quiet


async def quiet(batches: departures.Batches) -> None:
    """Return when ten moments in a row brought no call; stands in for the one moment of ``Batches``."""
    n_calm = 0
    while n_calm < 10:
        n_came = batches._n_came
        await _wait(batches)
        n_calm = n_calm + 1 if batches._n_came == n_came else 0
