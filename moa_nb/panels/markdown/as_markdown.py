"""Markdown as Markdown that no reader can turn into tags, pictures or odd links."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from moa_nb.panels.markdown.reading import LIMIT, more, parse
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.tree import SyntaxTreeNode

__all__ = ["inline_markdown", "to_markdown"]

_SIGNIFICANT = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "*_~|"},
        # Written as entities: several readers of Markdown look for mathematics, tags and addresses
        # before they look for backslashes.
        "[": "&#91;",
        "]": "&#93;",
        "<": "&lt;",
        ">": "&gt;",
        "&": "&amp;",
        "$": "&#36;",
        "\\": "&#92;",
        "`": "&#96;",
        "\n": " ",
        "\t": " ",
    },
)
_LINE_START = re.compile(r"^(?:([#+=-])|(\d{1,9})([.)])(?=\s|$)|(:))", re.MULTILINE)
_TAME_CODE = re.compile(r"(?:(?!!\[|\]\(|\]:)[^<&`])*")
"""Code that stays harmless even for a reader that would not see it as code."""
_CODE_ENTITIES = str.maketrans(
    {character: f"&#{ord(character)};" for character in "<>&\"'`*_[]()!\\$|~#+-=:@{}\n\t"},
)
_ADDRESS = str.maketrans({character: f"%{ord(character):02X}" for character in "()<>\"'\\`$|[]{}*~^ "} | {"&": "&amp;"})


def to_markdown(text: str, *, limit: int = LIMIT) -> str:
    """Return ``text`` as Markdown that no reader of Markdown can turn into tags, pictures or odd links.

    Emphasis, lists, tables, code and links to the open web are kept; headings are put at the lowest
    levels. Every ``<`` is an entity, except around code with such signs in it, which stands in
    ``<code>`` tags of our own. Characters after ``limit`` are counted, not shown.
    """
    from markdown_it.tree import SyntaxTreeNode

    tree = SyntaxTreeNode(parse(to_plain(text[:limit])))
    lines = _blocks(tree.children)
    if len(text) > limit:
        lines += ["", f"*{more(len(text) - limit)}*"]
    return "\n".join(lines).strip("\n")


def inline_markdown(text: str) -> str:
    r"""Return plain ``text`` on one line with every sign of Markdown escaped.

    >>> inline_markdown("a*b | <c>")
    'a\\*b \\| &lt;c&gt;'
    """
    return _escaped_start(to_plain(text).translate(_SIGNIFICANT).strip())


def _escaped_start(text: str) -> str:
    return _LINE_START.sub(_escape_start, text)


def _escape_start(match: re.Match[str]) -> str:
    sign, number, dot, colon = match.groups()
    if colon:
        return "&#58;"
    return f"\\{sign}" if sign else f"{number}\\{dot}"


def _blocks(nodes: Sequence[SyntaxTreeNode], *, tight: bool = False) -> list[str]:
    lines: list[str] = []
    for node in nodes:
        if lines and not tight:
            lines.append("")
        lines += _block_lines(node)
    return lines


def _block_lines(node: SyntaxTreeNode) -> list[str]:
    if node.type == "paragraph":
        return _escaped_start(_inlines(node)).split("\n")
    if node.type == "heading":
        return [f"{'#' * min(6, int(node.tag[1]) + 3)} {_one_line(node)}"]
    if node.type in {"fence", "code_block"}:
        return _code_lines(node.content.rstrip("\n"), node.info if node.type == "fence" else "")
    if node.type == "blockquote":
        return [f"> {line}".rstrip() for line in _blocks(node.children)]
    if node.type in {"bullet_list", "ordered_list"}:
        return _list_lines(node)
    if node.type == "table":
        return _table_lines(node)
    return ["***"] if node.type == "hr" else []


def _list_lines(node: SyntaxTreeNode) -> list[str]:
    tight = not any(child.type == "paragraph" and not child.hidden for item in node.children for child in item.children)
    first = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
    lines: list[str] = []
    for place, item in enumerate(node.children):
        marker = f"{node.markup} " if first is None else f"{first + place}{node.markup} "
        inner = _blocks(item.children, tight=tight) or [""]
        if lines and not tight:
            lines.append("")
        lines.append(f"{marker}{inner[0]}".rstrip())
        lines += [f"{' ' * len(marker)}{line}".rstrip() for line in inner[1:]]
    return lines


def _table_lines(node: SyntaxTreeNode) -> list[str]:
    rows = [row.children for part in node.children for row in part.children]
    lines = ["| " + " | ".join(map(_one_line, row)) + " |" for row in rows]
    right = ["right" in str(cell.attrs.get("style", "")) for cell in rows[0]]
    return [lines[0], "|" + "|".join(" ---: " if side else " --- " for side in right) + "|", *lines[1:]]


def _code_lines(code: str, info: str) -> list[str]:
    if not _TAME_CODE.fullmatch(code):
        # On one line, and nothing in it but letters and entities: there is no second way to read it.
        return [f"<pre><code>{code.translate(_CODE_ENTITIES)}</code></pre>"]
    language = re.match(r"[\w+#.-]*", info)
    return [f"```{language[0] if language else ''}", *code.split("\n"), "```"]


def _one_line(node: SyntaxTreeNode) -> str:
    return _inlines(node).replace("\\\n", " ").replace("\n", " ")


def _inlines(node: SyntaxTreeNode) -> str:
    return "\n".join(line.strip() for line in _said(node).split("\n"))


def _said(node: SyntaxTreeNode) -> str:
    said = ""
    for child in node.children:
        if child.type == "link" and said.endswith("!"):
            # An exclamation mark, escaped by its author, must not make a picture of the link after it.
            said = said[:-1] + "&#33;"
        said += _inline(child)
    return said


def _inline(node: SyntaxTreeNode) -> str:
    if node.type == "code_inline":
        code = node.content
        if _TAME_CODE.fullmatch(code) and "|" not in code and code == code.strip() and code:
            return f"`{code}`"
        return f"<code>{code.translate(_CODE_ENTITIES)}</code>"
    if node.type in {"softbreak", "hardbreak"}:
        return "\n" if node.type == "softbreak" else "\\\n"
    if node.type not in {"inline", "em", "strong", "s", "link"}:
        return node.content.translate(_SIGNIFICANT)
    inner = _said(node)
    if node.type == "link":
        address = str(node.attrs["href"]).translate(_ADDRESS)
        return f"[{inner.strip() or inline_markdown(str(node.attrs['href']))}]({address})"
    mark = {"em": "*", "strong": "**", "s": "~~"}.get(node.type, "")
    return f"{mark}{inner}{mark}" if inner.strip() else inner
