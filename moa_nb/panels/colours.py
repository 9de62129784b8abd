"""The accents of the panels: about as far from white as from near-black, so that they read on both."""

from __future__ import annotations

__all__ = ["AMBER", "BLUE", "EDGES", "GREEN", "GREY", "KINDS", "RED", "tinted"]

BLUE, GREEN, RED, AMBER, GREY = "#4a7fb5", "#3d8b40", "#d1495b", "#b0761f", "#888888"


def tinted(accent: str) -> str:
    """Return the colour of words that an accent sets apart: between it and the colour of the text around them.

    No one colour has a contrast of 4.5 to white and to near-black; this has it on both. Where a sanitiser drops it,
    the words keep the colour of the text.

    >>> tinted(RED)
    'color-mix(in srgb,#d1495b 70%,currentColor)'
    """
    return f"color-mix(in srgb,{accent} 70%,currentColor)"


KINDS = {"good": tinted(GREEN), "bad": tinted(RED), "odd": tinted(AMBER), "plain": ""}
"""What a remark is coloured by its kind; a plain one has the colour of the text."""

EDGES = {"cached": GREEN, "failed": RED, "cancelled": AMBER}
"""The colour of a call in a state of its own; any other one is blue."""
