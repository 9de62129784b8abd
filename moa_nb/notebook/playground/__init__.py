"""The playground: templates edited with their prompts, prices, answers and versions in view.

The model (``workbench``) knows no widget: what it shows is what ``%%moa`` and ``df.moa`` then do.
"""

from __future__ import annotations

from moa_nb.notebook.playground.opening import edit
from moa_nb.notebook.playground.workbench import Playground

__all__ = ["Playground", "edit"]
