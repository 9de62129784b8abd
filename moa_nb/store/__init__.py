"""What is kept: one SQLite file with the completions, the runs and what they cost.

The only importer of sqlite3. Completions are committed in groups by a thread of their own; a
completion is handed on once its group is on disk.
"""

from __future__ import annotations

from moa_nb.store.database import Store, StoreWarning
from moa_nb.store.runs import RunRow

__all__ = ["RunRow", "Store", "StoreWarning"]
