"""Calls that go out in batches, at half the price: collected until all rows wait, handed in, looked after, found again."""

from __future__ import annotations

from moa_nb.gateway.batches.departures import Batches

__all__ = ["Batches"]
