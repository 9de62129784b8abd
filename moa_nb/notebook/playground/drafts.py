"""Prompt templates as they lie in files, and as somebody is editing them; where a mistake stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

from moa_nb import templating
from moa_nb.errors import MoaError, TemplateError

__all__ = ["Draft", "Mistake", "file_of", "mistake", "name_of", "on_disk"]

_ENDING = ".jinja"
_LINE = re.compile(r"template '(?P<name>[^']*)', line (?P<line>\d+): ")
_NAMED = re.compile(r"template '(?P<name>[^']*)'")
_NAMELESS = "template 'text'"
_INCLUDED = re.compile(r"\{%[-+]?\s*(?:include|import|from|extends)\s*['\"]([^'\"]+)['\"]")


def file_of(name: str) -> str:
    """Return the file of a template, within ``prompts``.

    >>> file_of("judge/rate")
    'judge/rate.jinja'
    """
    return name + _ENDING


def name_of(file: str) -> str:
    """Return the template of a file: what ``file_of`` was given."""
    return file.removesuffix(_ENDING)


def on_disk() -> dict[str, str]:
    """Return the sources of all prompt templates by file, as they are now: the project's, the user's, ours."""
    found = {}
    for file in templating.names("prompts", ""):
        try:
            known = templating.read("prompts", file)
        except MoaError:
            continue  # no template: it is no text
        if known is not None:
            found[file] = known[0]
    return found


class Draft:
    """A set of templates that a plan can take in place of the files.

    Args:
        sources: by file.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = sources
        self._shelf = templating.Shelf(sources)
        self._used: dict[str, None] = {}

    def load(self, name: str) -> templating.Template:
        """Return the template of a name, which counts as used from now on.

        Raises:
            UnknownName: there is none.
            TemplateError: it does not parse.
        """
        self._used[name] = None
        return self._shelf.load(name)

    @property
    def used(self) -> list[str]:
        """The templates that were asked for so far, and what they include."""
        found: dict[str, None] = {}
        for name in self._used:
            found.update(dict.fromkeys(self._with_included(name, found)))
        return [*found]

    def _with_included(self, name: str, known: Mapping[str, None]) -> Iterator[str]:
        source = self.sources.get(file_of(name))
        if source is None or name in known:
            return
        yield name
        for included in _INCLUDED.findall(source):
            if included != name:
                yield from self._with_included(included.removesuffix(_ENDING), {**known, name: None})


@dataclass(frozen=True)
class Mistake:
    """Why a template cannot be used."""

    template: str | None
    """Its name; ``None`` where no template is to blame."""
    line: int | None
    """From 1; ``None`` where it is not known."""
    text: str
    """One line for people."""

    def __str__(self) -> str:
        return self.text if self.line is None or _LINE.search(self.text) else f"line {self.line}: {self.text}"


def mistake(error: MoaError, own: str | None = None) -> Mistake:
    """Return what an error says of a template, with its line: of the source, or of what was rendered when it failed.

    Args:
        error: what was raised.
        own: the name of the template that makes the prompts, which knows none itself; ``None``: it was given as source.
    """
    from moa_nb.notebook.playground.inputs import INPUT  # which needs the names of files that are known here

    text = str(error).replace(_NAMELESS, f"template {own or INPUT!r}")
    found = _LINE.search(text)
    if found:
        return Mistake(found["name"], int(found["line"]), text)
    named = _NAMED.search(text)
    if not isinstance(error, TemplateError) or named is None:
        return Mistake(None, None, text)
    # The templates that were being rendered, outermost first.
    frames = [*_frames(None if error.__context__ is None else error.__context__.__traceback__)]
    if not frames:
        return Mistake(named["name"], None, text)
    inner, line = frames[-1]
    return Mistake(named["name"] if inner is None else inner.removesuffix(_ENDING), line, text)


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str | None, int]]:
    while traceback is not None:
        template = traceback.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            yield template.name, template.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
