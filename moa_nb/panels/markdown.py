r"""Text that a model wrote, made safe to show.

Whatever a model says may have been put into its mouth by the data it read. So its text is parsed as
Markdown with HTML switched off, built anew from the parsed tokens, and filtered once more through an
allow-list. Pictures are named, never loaded: a picture's address can carry a secret away. Characters
that hide or reorder others are shown as what they are.

>>> to_plain("\x1b[31mred\x1b[0m")
'red'
>>> to_markdown("a <b>bold</b> claim")
'a &lt;b&gt;bold&lt;/b&gt; claim'
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from markdown_it.tree import SyntaxTreeNode

__all__ = ["LIMIT", "Mark", "first_line", "inline_markdown", "passages", "to_html", "to_markdown"]

LIMIT = 50_000
"""The most characters of one text that are shown; the rest is counted."""


_MARKER = re.compile(r"(?:#{1,6}\s+|>\s*|[-*+]\s+|\d{1,3}[.)]\s+|\|\s*)+")
_SIGNS = re.compile(r"(?<!\d)\*\*|\*\*(?!\d)|__|~~|`")


def first_line(text: str, width: int = 140) -> str:
    """Return the first line of ``text`` that says something, without Markdown's signs, as plain text.

    >>> first_line("## **Summary**"), first_line("Those who had waited left.", 16)
    ('Summary', 'Those who had …')
    """
    # A text can be long, and only its beginning is wanted.
    for line in map(str.strip, to_plain(text[: 2000 + 2 * width]).split("\n")):
        marker = _MARKER.match(line)
        said = to_plain(_SIGNS.sub("", line[marker.end() :] if marker else line)).strip()
        if any(map(str.isalnum, said)) and not line.startswith(("```", "~~~")):
            return said if len(said) <= width else f"{_whole_words(said[: width + 1])} …"
    return " ".join(to_plain(text[:width]).split())[:width]


def _whole_words(text: str) -> str:
    """Return ``text`` without its last word, which may be half of one; with it where it is long."""
    words, _, last = text.rpartition(" ")
    return (words if words and len(last) <= _LONG_WORD else text[:-1]).rstrip()


_LONG_WORD = 24


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} …"


def _more(n: int) -> str:
    return f"… {n:,} more character{'s' if n != 1 else ''}"


# -- the parser -----------------------------------------------------------------------------------

_OPEN_LINK = re.compile(r"(?:https?://|mailto:)[^\s]+", re.IGNORECASE)


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    class Parser(MarkdownIt):
        def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802  # the library's names
            # Every address is taken, so that pictures and odd links are recognised and then unmade.
            return True

    parser = Parser("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.inline.ruler.before("emphasis", "times", _times)
    return parser


_TIMES = re.compile(r"(?:(?<=\d)|(?<=\d[%)]))\*{1,2}(?=[$(.]{0,2}\d)")


def _times(state: StateInline, silent: bool) -> bool:
    """Return whether a star between two numbers stands here: it multiplies, and emphasizes nothing."""
    found = _TIMES.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.pending += found[0]
    state.pos = found.end()
    return True


_MOST_CELLS, _DEEPEST = 5000, 20
"""Cells of tables, and emphasis within emphasis: what has more was not written to be read."""


def _parse(text: str) -> list[Token]:
    """Return the tokens of ``text``, pictures replaced by their names and unwelcome links by their text.

    A text whose markup would take far more room than the text itself is taken as it stands, as code.
    """
    try:
        tokens = _parser().parse(text)
    except RecursionError:
        return [_text(text, "code_block")]
    if sum(token.type in {"td_open", "th_open"} for token in tokens) > _MOST_CELLS:
        return [_text(text, "code_block")]
    # A long address that is written once can be referred to thousands of times.
    addresses = sum(len(str(child.attrs.get("href", ""))) for token in tokens for child in token.children or ())
    for token in tokens:
        if token.children:
            token.children = list(_unmade(token.children, with_links=addresses <= LIMIT))
    return tokens


def _unmade(tokens: Sequence[Token], *, with_links: bool) -> Iterable[Token]:
    refused: str | None = None
    depth = 0
    for token in tokens:
        if token.type == "image":
            alt = _words(token).strip()
            yield _text(f"[image: {alt}]" if alt else "[image]")
        elif token.type == "link_open":
            address = str(token.attrs.get("href", "")) if with_links else ""
            refused = None if _OPEN_LINK.fullmatch(address) else address
            if refused is None:
                # The address as a tooltip: a label may claim another one.
                token.attrs = {"href": address, "title": address}
                yield token
        elif token.type == "link_close":
            if refused is None:
                yield token
            elif refused:
                yield _text(f" ({_cut(refused, 200)})")
            refused = None
        else:
            depth += max(0, token.nesting)
            if not token.nesting or depth <= _DEEPEST:
                # What was written as an entity is a character only now.
                token.content = to_plain(token.content)
                yield token
            depth += min(0, token.nesting)


def _words(token: Token) -> str:
    return "".join(map(_words, token.children)) if token.children else token.content


def _text(content: str, kind: str = "text") -> Token:
    from markdown_it.token import Token

    return Token(kind, "", 0, content=content)


# -- passages -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """A remark in small type after a sentence."""

    passage: int
    """Which of ``passages`` it stands in."""
    end: int
    """After how many characters of it."""
    words: str
    colour: str
    title: str = ""


def passages(text: str) -> list[tuple[str, bool]]:
    r"""Return the paragraphs of ``text``, read as Markdown, as a reader sees them, each with whether it is a list's item.

    Headings, tables and code are none. ``Mark`` counts by them.

    >>> passages("# Title\n\nIt **rose**.\n\n- slow\n\n```\nx = 1\n```")
    [('It rose.', False), ('slow', True)]
    """
    depth = 0
    found = []
    previous = ""
    for token in _parse(to_plain(text)):
        depth += token.nesting if token.type.startswith("list_item") else 0
        if token.type == "inline" and previous == "paragraph_open":
            found.append(("".join(map(_as_read, token.children or ())), depth > 0))
        previous = token.type
    return found


def _as_read(token: Token) -> str:
    return "\n" if token.type in {"softbreak", "hardbreak"} else token.content


# -- to HTML --------------------------------------------------------------------------------------

_LINE = "1px solid #88888855"
_CODE = "font-family:Menlo,Consolas,monospace;font-size:.92em"
_CELL = f"border:{_LINE};padding:.2em .55em;text-align:left;vertical-align:top;background:transparent"
_HEADING = {"h1": "1.2em", "h2": "1.12em", "h3": "1.05em"}
_STYLES = {
    "paragraph": ("div", "margin:0 0 .55em"),
    "bullet_list": ("ul", "margin:0 0 .55em;padding-left:1.6em"),
    "ordered_list": ("ol", "margin:0 0 .55em;padding-left:1.9em"),
    "list_item": ("li", ""),
    "blockquote": ("blockquote", "margin:0 0 .55em;padding:0 0 0 .8em;border-left:.2em solid #88888866"),
    "tr": ("tr", "background:transparent"),
    "td": ("td", _CELL),
    # Not <th>: a strictly sanitised export knows <td> only, and would show the other as text.
    "th": ("td", _CELL),
}
_TAGS = {
    *(
        "a",
        "blockquote",
        "br",
        "code",
        "div",
        "em",
        "li",
        "ol",
        "pre",
        "s",
        "span",
        "strong",
        "table",
        "td",
        "tr",
        "ul",
    ),
}
_ATTRIBUTES = {tag: {"style"} for tag in _TAGS} | {
    "a": {"href", "title", "target"},
    "ol": {"start", "style"},
    "span": {"style", "title"},
    "td": {"style", "role"},
}
_PROPERTIES = {
    *(
        "background",
        "background-color",
        "border",
        "border-collapse",
        "border-left",
        "border-radius",
        "border-top",
        "color",
    ),
    *("font-family", "font-size", "font-weight", "height", "line-height", "margin", "overflow-wrap", "overflow-x"),
    *("padding", "padding-left", "text-align", "vertical-align", "white-space", "word-break"),
}


def to_html(text: str, *, limit: int = LIMIT, marks: tuple[Mark, ...] = ()) -> str:
    """Return ``text``, read as Markdown, as HTML that cannot run, load or reach anything.

    Tables, lists, code and emphasis are kept, with inline styles; headings become bold lines, so that
    a model's answer does not enter the notebook's table of contents. Characters after ``limit`` are
    counted, not shown. ``marks`` stand after the sentences that they are about.
    """
    return _to_html(text, limit, marks)


@functools.lru_cache(maxsize=32)  # a panel is drawn again while it runs, and once more when it is done
def _to_html(text: str, limit: int, marks: tuple[Mark, ...]) -> str:
    import nh3

    if not text.strip():
        return ""
    tokens = _parse(to_plain(text[:limit]))
    html = nh3.clean(
        "".join(_drawn(tokens, marks)),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        filter_style_properties=_PROPERTIES,
    )
    if len(text) > limit:
        html += f'<div style="opacity:.65">{_more(len(text) - limit)}</div>'
    # The second value is for browsers; JupyterLab's sanitiser knows the first one only.
    return f'<div style="overflow-wrap:break-word;overflow-wrap:anywhere">{html}</div>'


def _drawn(tokens: Iterable[Token], marks: Sequence[Mark]) -> Iterable[str]:
    passage = -1
    previous = ""
    for token in tokens:
        kind, _, side = token.type.rpartition("_")
        is_passage, previous = previous == "paragraph_open", token.type
        if token.hidden or token.type in {"thead_open", "thead_close", "tbody_open", "tbody_close"}:
            if token.type == "paragraph_close":
                yield "\n"
        elif token.type == "inline":
            passage += is_passage
            wanted = [mark for mark in marks if is_passage and mark.passage == passage]
            yield from _drawn_inline(_marked(token.children or (), wanted) if wanted else token.children or ())
        elif token.type in {"fence", "code_block"}:
            yield (
                f'<pre style="{_CODE};line-height:1.45;margin:0 0 .55em;padding:.5em .7em;border-radius:.3em;'
                f'background:#88888818;white-space:pre-wrap;overflow-wrap:break-word;word-break:normal">'
                f'<code style="{_CODE};background:transparent;padding:0">{escape(token.content)}</code></pre>'
            )
        elif token.type == "hr":
            yield f'<div style="border-top:{_LINE};margin:.7em 0"></div>'
        elif kind == "heading":
            size = _HEADING.get(token.tag, "1em")
            yield (
                f'<div style="font-weight:600;font-size:{size};margin:.5em 0 .35em">' if side == "open" else "</div>\n"
            )
        elif kind == "table":
            yield (
                '<div style="overflow-x:auto;margin:0 0 .55em">'
                # Not "anywhere": where there is little room words stay whole, and the table is scrolled.
                '<table style="border-collapse:collapse;margin:0;font-size:1em;color:inherit;overflow-wrap:break-word">'
                if side == "open"
                else "</table></div>\n"
            )
        elif kind in _STYLES:
            yield _block(token, *_STYLES[kind], opens=side == "open")


def _block(token: Token, tag: str, style: str, *, opens: bool) -> str:
    if not opens:
        return "</strong></td>\n" if token.tag == "th" else f"</{tag}>\n"
    if tag == "td" and "right" in str(token.attrs.get("style", "")):
        style = style.replace("text-align:left", "text-align:right")
    start = f' start="{int(token.attrs["start"])}"' if tag == "ol" and "start" in token.attrs else ""
    role = ' role="columnheader"' if token.tag == "th" else ""
    opening = f'<{tag}{start}{role} style="{style}">' if style else f"<{tag}>"
    return f"{opening}<strong>" if token.tag == "th" else opening


_UNBROKEN = 24
"""Characters up to which a mark stays on one line."""
_PLAIN_TAGS = {"em_open", "em_close", "strong_open", "strong_close", "s_open", "s_close", "link_close"}


def _drawn_inline(tokens: Iterable[Token]) -> Iterable[str]:
    for token in tokens:
        if token.type == "code_inline":
            style = f"{_CODE};background:#88888822;padding:.08em .3em;border-radius:.25em"
            yield f'<code style="{style}">{escape(token.content)}</code>'
        elif token.type == "link_open":
            address = escape(str(token.attrs["href"]))
            yield f'<a href="{address}" title="{address}">'
        elif token.type == "mark":
            title = f' title="{escape(token.meta["title"])}"' if token.meta["title"] else ""
            whole = ";white-space:nowrap" if len(token.content) <= _UNBROKEN else ""
            style = f"color:{token.meta['colour']};font-size:.76em{whole}"
            # A space that does not break: a mark belongs to the word before it.
            yield f'\u00a0<span style="{style}"{title}>{escape(token.content)}</span>'
        elif token.type in _PLAIN_TAGS:
            yield f"</{token.tag}>" if token.nesting < 0 else f"<{token.tag}>"
        elif token.type == "hardbreak":
            yield "<br>\n"
        elif token.type == "softbreak":
            yield "\n"
        else:
            yield escape(token.content)


def _marked(tokens: Sequence[Token], marks: Sequence[Mark]) -> Iterator[Token]:
    """Yield the tokens of a passage with its marks among them; a text is cut in two where one stands inside."""
    waiting = sorted(marks, key=lambda mark: mark.end)
    due: list[Token] = []
    at = 0
    for token in tokens:
        if token.nesting >= 0:
            # After the emphasis that ends with the sentence, not in it.
            yield from due
            due = []
        said = _as_read(token)
        while waiting and at + len(said) >= waiting[0].end:
            mark = waiting.pop(0)
            if token.type == "text" and at + len(said) > mark.end:
                yield _text(said[: mark.end - at])
                said, at = said[mark.end - at :], mark.end
                yield _mark_token(mark)
            else:
                due.append(_mark_token(mark))
        yield token if token.type != "text" else _text(said)
        at += len(said)
    yield from due


def _mark_token(mark: Mark) -> Token:
    from markdown_it.token import Token

    return Token("mark", "", 0, content=mark.words, meta={"colour": mark.colour, "title": mark.title})


# -- to Markdown ----------------------------------------------------------------------------------

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

    tree = SyntaxTreeNode(_parse(to_plain(text[:limit])))
    lines = _blocks(tree.children)
    if len(text) > limit:
        lines += ["", f"*{_more(len(text) - limit)}*"]
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
