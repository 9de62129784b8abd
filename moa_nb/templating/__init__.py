"""Jinja: find templates, render them, say what they need. The only importer of jinja2.

Prompts are rendered in a sandbox and each value once: what a value holds is text, never template.
Panels are rendered with everything escaped.
"""

from __future__ import annotations

from moa_nb.templating.environments import is_jinjas, panel_environment
from moa_nb.templating.fencing import fence
from moa_nb.templating.folders import names, read, root
from moa_nb.templating.sandbox import is_value
from moa_nb.templating.template import Shelf, Template, load, parse
from moa_nb.templating.text import to_text

__all__ = [
    "Shelf",
    "Template",
    "fence",
    "is_jinjas",
    "is_value",
    "load",
    "names",
    "panel_environment",
    "parse",
    "read",
    "root",
    "to_text",
]
