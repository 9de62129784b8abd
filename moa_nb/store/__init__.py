"""What is kept: one SQLite file with the completions, the runs and what they cost.

The only importer of sqlite3. Completions are committed in groups by a thread of their own; a
completion is handed on once its group is on disk.
"""

from __future__ import annotations

from moa_nb.store.database import Store, StoreWarning
from moa_nb.store.ledger import CostRow, Savings
from moa_nb.store.runs import LedgerRow, RunRow
from moa_nb.store.upkeep import Cleared, Held, Holding

__all__ = ["Cleared", "CostRow", "Held", "Holding", "LedgerRow", "RunRow", "Savings", "Store", "StoreWarning"]
