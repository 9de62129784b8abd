"""Markdown as HTML that cannot run, load or reach anything."""

from __future__ import annotations

import functools
from html import escape
from typing import TYPE_CHECKING

from moa_nb.panels.markdown.marks import Mark, as_read
from moa_nb.panels.markdown.reading import LIMIT, more, parse, text_token
from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from markdown_it.token import Token

__all__ = ["to_html"]

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
    tokens = parse(to_plain(text[:limit]))
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
        html += f'<div style="opacity:.65">{more(len(text) - limit)}</div>'
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
        said = as_read(token)
        while waiting and at + len(said) >= waiting[0].end:
            mark = waiting.pop(0)
            if token.type == "text" and at + len(said) > mark.end:
                yield text_token(said[: mark.end - at])
                said, at = said[mark.end - at :], mark.end
                yield _mark_token(mark)
            else:
                due.append(_mark_token(mark))
        yield token if token.type != "text" else text_token(said)
        at += len(said)
    yield from due


def _mark_token(mark: Mark) -> Token:
    from markdown_it.token import Token

    return Token("mark", "", 0, content=mark.words, meta={"colour": mark.colour, "title": mark.title})
