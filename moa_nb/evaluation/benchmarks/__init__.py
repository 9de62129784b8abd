"""The benchmarks of the field: AlpacaEval's win rates, MT-Bench's ratings, FLASK's skills; run, or computed from what was recorded."""

from __future__ import annotations
