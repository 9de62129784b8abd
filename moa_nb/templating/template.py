"""A prompt's template: parsed, told what it needs, rendered; by its name, or as it once was."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jinja2
from jinja2 import meta, utils

from moa_nb.errors import MoaError, TemplateError, UnknownName, nearest
from moa_nb.templating.environments import MissingVariable, globals_of, is_jinjas, prompt_environment
from moa_nb.templating.folders import names, read
from moa_nb.templating.sandbox import COMPUTE, is_value
from moa_nb.templating.text import NoText

__all__ = ["Shelf", "Template", "load", "parse"]


@dataclass(frozen=True)
class Template:
    """A parsed prompt template.

    >>> parse("Hello {{ name }}").render({"name": "Ann"})
    'Hello Ann'
    """

    source: str
    name: str
    """Its name, or ``text`` when it was given as source."""
    where: str
    """The file it came from, or how it was given."""
    variables: frozenset[str]
    """The names it takes from outside; those that Jinja has too (``range``) only where they are given."""
    digest: str
    """Twelve hex digits of its source, for provenance."""
    _compiled: jinja2.Template

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text with ``values`` filled in, each exactly as it is.

        Raises:
            TemplateError: a variable is missing (the message names the nearest), or an expression fails.
        """
        try:
            given = {name: value for name, value in values.items() if type(value) is str or is_value(value)}
            # What ``render`` of Jinja does, without copying its globals through Python for every prompt.
            environment = self._compiled.environment
            context = environment.context_class(
                environment, {**globals_of(environment), **given}, self._compiled.name, self._compiled.blocks
            )
            return environment.concat(self._compiled.root_render_func(context))
        except MissingVariable as missing:
            raise TemplateError(self._missing(missing, values)) from None
        except jinja2.TemplateNotFound as error:
            msg = f"template {self.name!r} includes {error.name!r}, which is not there; {nearest(str(error.name), names('prompts', '.jinja'))}"
            raise TemplateError(msg) from None
        except jinja2.TemplateError as error:
            msg = f"template {self.name!r}: {error.message or error}"
            raise TemplateError(msg) from None
        except NoText as error:
            msg = f"template {self.name!r}: {error}"
            raise TemplateError(msg) from None
        except MoaError:
            raise
        except RecursionError:
            msg = f"template {self.name!r} goes too deep: does it include itself?"
            raise TemplateError(msg) from None
        except Exception as error:  # what a value does when it is read is anybody's code
            msg = f"template {self.name!r}: {type(error).__name__}: {' '.join(str(error).split())}"
            raise TemplateError(msg) from None

    def _missing(self, missing: MissingVariable, values: Mapping[str, Any]) -> str:
        if missing.owner is utils.missing:
            if missing.name in values:
                kind = "module" if isinstance(values[missing.name], ModuleType) else "function"
                return f"template {self.name!r}: {missing.name!r} is a {kind}, not a value; {COMPUTE}"
            known = [str(name) for name, value in values.items() if is_value(value) and not str(name).startswith("_")]
            return f"template {self.name!r} needs {missing.name!r}, which is not there; {nearest(missing.name, known)}"
        owner = missing.owner
        known = (
            [str(key) for key in owner]
            if isinstance(owner, Mapping)
            else [a for a in dir(owner) if not a.startswith("_")]
        )
        return f"template {self.name!r}: {type(owner).__name__} has no {missing.name!r}; {nearest(missing.name, known)}"

    def check(self, available: Iterable[str]) -> None:
        """Return nothing if all variables are available.

        Raises:
            TemplateError: naming the first that is not, and the nearest that is.
        """
        known = list(available)
        for name in sorted(self.variables - set(known)):
            if is_jinjas(name):
                continue
            msg = f"template {self.name!r} needs {name!r}, which is not there; {nearest(name, known)}"
            raise TemplateError(msg)


@functools.lru_cache(maxsize=256)
def parse(source: str, *, name: str = "text", where: str = "given as text") -> Template:
    """Return the template of a Jinja source.

    Raises:
        TemplateError: with the line, when it does not parse.
    """
    return _parsed(source, name, where, prompt_environment())


def _parsed(source: str, name: str, where: str, environment: jinja2.Environment) -> Template:
    bare = environment.overlay()
    bare.globals = {}  # else names that Jinja has too would not count as taken from outside
    try:
        tree = bare.parse(source)
        compiled = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        msg = f"template {name!r}, line {error.lineno}: {error.message}"
        raise TemplateError(msg) from None
    except RecursionError:
        msg = f"template {name!r} is nested too deep"
        raise TemplateError(msg) from None
    digest = hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return Template(
        source,
        name,
        where,
        frozenset(meta.find_undeclared_variables(tree)),
        digest,
        compiled,
    )


class Shelf:
    """Prompt templates as they once were; what they include is as it was, too.

    >>> Shelf({"a.jinja": "A{% include 'b' %}", "b.jinja": "B"}).load("a").render({})
    'AB'

    Args:
        sources: by file, as ``read`` finds them.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._environment = prompt_environment().overlay(loader=jinja2.FunctionLoader(self._find))
        self._known: dict[str, Template] = {}

    def load(self, name: str) -> Template:
        """Return the template of a name.

        Raises:
            UnknownName: there was none; the message names the nearest.
        """
        known = self._known.get(name)
        if known is None:
            source = self._sources.get(f"{name}.jinja")
            if source is None:
                files = [file.removesuffix(".jinja") for file in self._sources]
                msg = f"there was no template {name!r}; {nearest(name, files)}"
                raise UnknownName(msg)
            known = self._known[name] = _parsed(source, name, "as it was", self._environment)
        return known

    def _find(self, name: str) -> str | None:
        return self._sources.get(f"{name}.jinja", self._sources.get(name))


def load(name: str) -> Template:
    """Return the prompt template of a name: the project's, the user's, or ours.

    Raises:
        UnknownName: there is none; the message names the nearest.
        TemplateError: it does not parse.
    """
    found = read("prompts", f"{name}.jinja")
    if found is None:
        msg = f"no template {name!r}; {nearest(name, names('prompts', '.jinja'))}"
        raise UnknownName(msg)
    return parse(found[0], name=name, where=found[1])
