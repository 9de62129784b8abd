"""What notices that hostile text was let through: in a page, in the HTML of an output, in text for a terminal."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

__all__ = ["HARMS", "Strict", "hidden", "live_in_markdown"]

HARMS = r"""(root) => {
  const harms = new Set();
  const all = [...document.querySelectorAll(root)].flatMap((one) => [one, ...one.querySelectorAll("*")]);
  if (window.__xss !== undefined) harms.add("ran");
  const seen = new Set();
  const add = (name, element) => { harms.add(name); if (seen.size < 5) seen.add(`${name}: ${element.outerHTML.slice(0, 160)}`); };
  for (const element of all) {
    const style = getComputedStyle(element);
    const inside = element.matches(root) ? null : element.closest(root);
    if (inside && ["fixed", "absolute", "sticky"].includes(style.position) && !element.closest(".moa-playground, mjx-container")) add("covers", element);
    if (inside && style.direction === "rtl") add("turned", element);
    if (element.hasAttribute("data-commandlinker-command")) add("command", element);
    for (const name of ["href", "xlink:href", "action", "src"]) {
      const address = element.getAttribute(name);
      if (address !== null && inside && !/^(https?|mailto|blob):/i.test(address.trim())) add("odd-link", element);
    }
    if (inside && /^(H[1-6]|HR)$/.test(element.tagName)) add("restructured", element);
    if (element.matches("mjx-container, .MathJax, .MathJax_Preview")) add("typeset", element);
    if (/(^| )ansi-/.test(element.getAttribute("class") ?? "")) add("coloured", element);
  }
  for (const one of document.querySelectorAll(root)) {
    if (one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > 400000) add("overflows", one);
    const walker = document.createTreeWalker(one, NodeFilter.SHOW_TEXT);
    for (let n = 0; walker.nextNode();) {
      const text = walker.currentNode.data;
      if (/\p{M}{9}/u.test(text)) add("overflows", walker.currentNode.parentElement);
      if (/[\u{e0000}-\u{e007f}]/u.test(text)) add("invisible", walker.currentNode.parentElement);
      if (/[\u202a-\u202e\u2066-\u2069]/.test(text)) add("turned", walker.currentNode.parentElement);
      for (const found of text.matchAll(/[A-Za-z]{4,}/g)) {
        if (++n > 3000) break;
        const range = document.createRange();
        const at = (place) => {
          range.setStart(walker.currentNode, place);
          range.setEnd(walker.currentNode, place + 1);
          return range.getBoundingClientRect();
        };
        const first = at(found.index), second = at(found.index + 1);
        if (first.width && first.top === second.top && second.left < first.left) add("turned", walker.currentNode.parentElement);
      }
    }
  }
  return [[...harms], [...seen]];
}"""
"""Returns the harms that a page shows in the elements that a selector finds, and the elements that showed them."""

_TAGS = frozenset(
    [
        "a",
        "b",
        "blockquote",
        "br",
        "code",
        "del",
        "details",
        "div",
        "em",
        "ins",
        "li",
        "ol",
        "pre",
        "s",
        "span",
        "strong",
        "summary",
        "table",
        "td",
        "th",
        "tr",
        "ul",
    ]
)
_EMPTY = frozenset({"br"})
_ATTRIBUTES = frozenset(
    [
        "aria-hidden",
        "aria-label",
        "class",
        "colspan",
        "href",
        "open",
        "rel",
        "role",
        "start",
        "style",
        "target",
        "title",
    ]
)
_CLASS = re.compile(r"tex2jax_ignore mathjax_ignore|moa-[a-z]+-[0-9a-f]+")
_ADDRESS = re.compile(r"(?:https?://|mailto:)[^\s]+", re.IGNORECASE)
_VALUE = re.compile(r"[-\w.,%# ()+]*")
"""What stands after a property: no address, no escape, no quote."""
_REFUSED = re.compile(r"url|expression|image|attr|var\(|import", re.IGNORECASE)
_PROPERTY = re.compile(
    r"align-items|background(?:-color)?|border(?:-(?:top|left|bottom|radius|collapse))?|box-sizing|color|display"
    r"|flex(?:-(?:direction|wrap))?|forced-color-adjust|font-(?:family|size|style|weight|variant-numeric)|gap|height|justify-content"
    r"|line-height|margin(?:-(?:top|left|bottom))?|max-width|min-width|opacity|overflow(?:-(?:x|wrap))?"
    r"|padding(?:-(?:top|left|right))?|table-layout|text-(?:align|decoration|overflow)|vertical-align|white-space|width|word-break"
)

_HIDDEN = re.compile(r"[\U000e0000-\U000e007f\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def hidden(text: str) -> str | None:
    """Return the first character that a terminal would obey, that turns others around or that cannot be written."""
    found = _HIDDEN.search(text)
    return None if found is None else repr(text[max(0, found.start() - 60) : found.end() + 20])


class Strict(HTMLParser):
    """Fails on everything in a page that is not of our own vocabulary, and on what is not closed in its order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self._words: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    @property
    def text(self) -> str:
        """All words of the page."""
        return "".join(self._words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check a tag and its attributes."""
        assert tag in _TAGS, self.get_starttag_text()
        if tag not in _EMPTY:
            self._open.append(tag)
        assert len(self._open) < 200, "nested too deep"
        for name, value in attrs:
            assert name in _ATTRIBUTES, self.get_starttag_text()
            _check(name, value or "")

    def handle_endtag(self, tag: str) -> None:
        """Check that a tag closes the one that was opened last."""
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> stands in a wrong place"

    def handle_data(self, data: str) -> None:
        """Remember words."""
        self._words.append(data)

    def handle_comment(self, data: str) -> None:
        """Fail: we write no comments."""
        raise AssertionError(f"a comment: {data[:100]}")

    def handle_decl(self, decl: str) -> None:
        """Fail: we write no declarations."""
        raise AssertionError(f"a declaration: {decl[:100]}")

    def handle_pi(self, data: str) -> None:
        """Fail: we write no instructions."""
        raise AssertionError(f"an instruction: {data[:100]}")

    def unknown_decl(self, data: str) -> None:
        """Fail: we write no sections."""
        raise AssertionError(f"a section: {data[:100]}")


def _check(name: str, value: str) -> None:
    if name == "href":
        assert _ADDRESS.fullmatch(value), value
    elif name == "class":
        assert _CLASS.fullmatch(value), value
    elif name == "target":
        assert value == "_blank", value
    elif name == "rel":
        assert "noopener" in value, value
    elif name == "role":
        assert value.isalpha(), value
    elif name in {"colspan", "start"}:
        assert value.isdecimal(), value
    elif name == "style":
        for declaration in filter(None, value.split(";")):
            key, _, said = declaration.partition(":")
            assert _PROPERTY.fullmatch(key.strip()), declaration
            assert _VALUE.fullmatch(said), declaration
            assert not _REFUSED.search(said), declaration


_RENDERED = _TAGS | frozenset(["h4", "h5", "h6", "hr", "p", "tbody", "thead"])


class _Rendered(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Any] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _RENDERED:
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith(("on", "data-")) or name in {"src", "id", "name", "formaction"}:
                self.found.append((tag, name))
            if name == "href" and not (_ADDRESS.fullmatch(value or "") or (value or "").startswith("#")):
                self.found.append((tag, name, value))


def live_in_markdown(page: str) -> list[Any]:
    """Return what a page that was made of our Markdown has of tags, handlers and addresses that are not ours."""
    return _Rendered(page).found
