"""The accents of the panels: about as far from white as from near-black, so that they read on both."""

from __future__ import annotations

__all__ = ["AMBER", "BLUE", "EDGES", "GREEN", "GREY", "KINDS", "RED"]

BLUE, GREEN, RED, AMBER, GREY = "#4a7fb5", "#3d8b40", "#d1495b", "#b0761f", "#888888"

KINDS = {"good": GREEN, "bad": RED, "odd": AMBER, "plain": ""}
"""What a remark is coloured by its kind; a plain one has the colour of the text."""

EDGES = {"cached": GREEN, "failed": RED, "cancelled": AMBER}
"""The colour of a call in a state of its own; any other one is blue."""
