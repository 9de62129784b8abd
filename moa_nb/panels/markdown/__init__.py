r"""Text that a model wrote, made safe to show.

Whatever a model says may have been put into its mouth by the data it read. So its text is parsed as
Markdown with HTML switched off, built anew from the parsed tokens, and filtered once more through an
allow-list. Pictures are named, never loaded: a picture's address can carry a secret away. Characters
that hide or reorder others are shown as what they are.

>>> to_markdown("a <b>bold</b> claim")
'a &lt;b&gt;bold&lt;/b&gt; claim'
"""

from __future__ import annotations

from moa_nb.panels.markdown.as_html import to_html
from moa_nb.panels.markdown.as_markdown import inline_markdown, to_markdown
from moa_nb.panels.markdown.brief import first_line
from moa_nb.panels.markdown.marks import Mark, passages
from moa_nb.panels.markdown.reading import LIMIT

__all__ = ["LIMIT", "Mark", "first_line", "inline_markdown", "passages", "to_html", "to_markdown"]
