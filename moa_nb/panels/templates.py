r"""The templates of panels: the one door by which HTML is made.

nbconvert puts HTML into its Markdown as it is, and there an empty line ends it: the rest of a prompt would be read as
Markdown, whose pictures and links ask for addresses. So what a template, or a macro of one, gives has no empty line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["macros", "one_block", "template"]

_BEFORE_EMPTY_LINE = re.compile(r"(?:\r\n|\r(?!\n)|\n)(?=[ \t]*[\r\n])")


def one_block(html: str) -> str:
    r"""Return HTML that means the same and has no empty line.

    >>> one_block("<div>a\n\n![b](https://c.example)</div>")
    '<div>a&#10;\n![b](https://c.example)</div>'
    """
    return _BEFORE_EMPTY_LINE.sub("&#10;", html)


@functools.cache
def template(name: str) -> Any:
    """Return a template of ``templates/panels`` by its name; what it renders has no empty line."""
    return _environment().get_template(f"panels/{name}.html.jinja")


def macros(name: str) -> Any:
    """Return the macros of a template of ``templates/panels``; what they give has no empty line."""
    return template(name).module


@functools.cache
def _environment() -> Any:
    from moa_nb.templating import panel_environment

    environment = panel_environment()
    environment.concat = _joined  # type: ignore[method-assign]  # what Jinja puts pieces together with, in macros too
    return environment


def _joined(pieces: Iterable[str]) -> str:
    return one_block("".join(pieces))
