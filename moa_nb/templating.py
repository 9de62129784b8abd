"""Jinja: find templates, render them, say what they need. The only importer of jinja2.

Prompts are rendered in a sandbox and each value once: what a value holds is text, never template.
Panels are rendered with everything escaped.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import GeneratorType, ModuleType
from typing import Any

import jinja2
from jinja2 import meta, runtime, utils
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment, modifies_known_mutable

from moa_nb import settings
from moa_nb.errors import MoaError, TemplateError, UnknownName, nearest

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

_MAX_ROWS, _MAX_CELL = 20, 200

_PLAIN = (str, int, float, bool, list, tuple, dict, set, frozenset, datetime, date, time, timedelta, Decimal)
"""The types whose methods a template may call, as far as they change nothing."""

_OF_MAPPINGS = frozenset({"get", "items", "keys", "values"})
"""What a template may call of the standard library's mappings and of ours, such as ``row``."""

_OF_FRAMES = frozenset(
    {
        "count",
        "describe",
        "dropna",
        "head",
        "items",
        "iterrows",
        "itertuples",
        "max",
        "mean",
        "median",
        "min",
        "nlargest",
        "nsmallest",
        "nunique",
        "round",
        "sort_values",
        "std",
        "sum",
        "tail",
        "to_list",
        "tolist",
        "unique",
        "value_counts",
    }
)
"""What a template may call of a DataFrame or a Series. All of them read, the same on every run, and
touch neither files nor other objects; ``inplace`` and functions as arguments are refused besides."""

_COMPUTE = "compute it in a cell first and use the variable"


def root() -> Traversable:
    """Return the shipped ``templates/``: inside the wheel, or beside the package in a checkout."""
    shipped = files("moa_nb").joinpath("templates")
    return shipped if shipped.is_dir() else Path(__file__).parents[1] / "templates"


def _folders(kind: str) -> list[tuple[str, Traversable]]:
    project, user = settings.template_folders()
    shipped = root()
    own = [(place, folder / kind) for place, folder in (("project", project), ("user", user)) if folder != shipped]
    return [*own, ("built-in", shipped.joinpath(kind))]


def read(kind: str, file: str) -> tuple[str, str] | None:
    """Return a file's text and where it lies: the project's, the user's, or ours; ``None`` if nowhere.

    Args:
        kind: ``prompts``, ``pipelines`` or ``panels``.
        file: its name with the ending, such as ``moa.toml``.
    """
    if ".." in Path(file).parts or Path(file).is_absolute():
        return None
    for _, folder in _folders(kind):
        found = folder.joinpath(file)
        try:
            if not found.is_file():
                continue
        except OSError:  # a name that no file can have
            continue
        try:
            return found.read_text("utf-8"), str(found)
        except UnicodeDecodeError as error:
            msg = f"{found} is not UTF-8 text: {error.reason} at byte {error.start}"
            raise TemplateError(msg) from None
        except OSError as error:
            msg = f"{found} cannot be read: {error.strerror}"
            raise TemplateError(msg) from None
    return None


def names(kind: str, ending: str) -> dict[str, str]:
    """Return the names of all files of a kind, each with its place: project, user or built-in."""
    found: dict[str, str] = {}
    for place, folder in _folders(kind):
        for name in _walk(folder, ending):
            found.setdefault(name, place)
    return dict(sorted(found.items()))


def _walk(folder: Traversable, ending: str, prefix: str = "") -> Iterable[str]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, ending, f"{prefix}{entry.name}/")
        elif entry.name.endswith(ending):
            yield prefix + entry.name.removesuffix(ending)


# Prompts ----------------------------------------------------------------------------------------


class _MissingVariable(Exception):
    def __init__(self, name: str, owner: object) -> None:
        super().__init__(name)
        self.name, self.owner = name, owner


class _Strict(jinja2.StrictUndefined):
    @property
    def _undefined_message(self) -> str:
        # Asked for exactly when the hole is used: the one place that knows its name.
        raise _MissingVariable(str(self._undefined_name), self._undefined_obj)


@dataclass(frozen=True)
class _Format:
    """``str.format`` as the sandbox does it."""

    format: Callable[..., str]

    def __call__(self, *args: Any, **values: Any) -> str:
        return self.format(*args, **values)


_JINJAS = (runtime.Macro, runtime.BlockReference, runtime.LoopContext, utils.Cycler, utils.Joiner, _Format)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Templates may read values: they run no code of the notebook's and reach nothing that starts with an underscore."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not _changes(obj, attr)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        if _changes(obj, attribute):
            msg = f"a template may not change values, as {type(obj).__name__}.{attribute} does; {_COMPUTE}"
        else:
            msg = f"a template may not reach {attribute!r} of a {type(obj).__name__}"
        raise SecurityError(msg)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else _Format(wrapped)

    def is_safe_callable(self, obj: Any) -> bool:
        # An undefined one says itself what is missing.
        if isinstance(obj, (jinja2.Undefined, *_JINJAS)) or any(obj is own for own in self.globals.values()):
            return True
        if not inspect.isroutine(obj) and not hasattr(obj, "__self__"):
            return False
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, _JINJAS):
            return True
        if _is_pandas(owner):
            return (
                name in _OF_FRAMES
                if type(owner).__name__ in {"DataFrame", "Series"}
                else isinstance(owner, date | timedelta)
            )
        if isinstance(owner, Mapping) and type(owner).__module__.partition(".")[0] in {"collections", "moa_nb"}:
            return name in _OF_MAPPINGS
        # A subclass may have methods of its own, which do anything.
        return inspect.isbuiltin(obj) and any(
            isinstance(owner, plain) and getattr(type(owner), name, None) is getattr(plain, name, obj)
            for plain in _PLAIN
        )

    def call(self, context: runtime.Context, obj: Any, /, *args: Any, **options: Any) -> Any:
        is_foreign = not isinstance(obj, _JINJAS)
        given = [*args, *options.values()]
        is_refused = "inplace" in options or any(map(_is_function, given))
        if not self.is_safe_callable(obj) or (is_foreign and is_refused and not isinstance(obj, jinja2.Undefined)):
            msg = f"a template may not call {_path(obj, context)}: it reads values; {_COMPUTE}"
            raise SecurityError(msg)
        return super().call(context, obj, *args, **options)


def _changes(owner: Any, name: str) -> bool:
    return modifies_known_mutable(owner, name) or (isinstance(owner, set) and name == "intersection_update")


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas"


def _path(called: Any, context: runtime.Context) -> str:
    """Return how a template names what it calls, as far as that can be told."""
    owner = getattr(called, "__self__", None)
    name = getattr(called, "__name__", type(called).__name__)
    wanted = called if owner is None or isinstance(owner, ModuleType) else owner
    known = next((key for key, value in context.get_all().items() if value is wanted), None)
    if wanted is called:
        return known or str(name)
    return f"{known or (owner if isinstance(owner, type) else type(owner)).__name__}.{name}"


def _is_function(value: Any) -> bool:
    """Return whether a value is code and nothing else: a function, a method or a class."""
    return inspect.isroutine(value) or isinstance(value, type | functools.partial)


def is_value(value: Any) -> bool:
    """Return whether templates are given this: everything but modules, functions and classes."""
    return not isinstance(value, ModuleType) and not _is_function(value)


def is_jinjas(name: str) -> bool:
    """Return whether Jinja itself has something of this name, such as ``range``."""
    return name in _prompt_environment().globals


@functools.cache
def _prompt_environment() -> jinja2.Environment:
    return _Sandbox(
        undefined=_Strict,
        finalize=to_text,
        keep_trailing_newline=False,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        loader=jinja2.FunctionLoader(_include),
    )


def _include(name: str) -> tuple[str, str, Callable[[], bool]] | None:
    found = _find_included(name)
    # Asked before each use, so that an edited file or another folder counts at once.
    return None if found is None else (*found, lambda: _find_included(name) == found)


def _find_included(name: str) -> tuple[str, str] | None:
    return read("prompts", f"{name}.jinja") or read("prompts", name)


@functools.lru_cache(maxsize=8)
def _globals(environment: jinja2.Environment) -> dict[str, Any]:
    return dict(environment.globals)


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
                environment, {**_globals(environment), **given}, self._compiled.name, self._compiled.blocks
            )
            return environment.concat(self._compiled.root_render_func(context))
        except _MissingVariable as missing:
            raise TemplateError(self._missing(missing, values)) from None
        except jinja2.TemplateNotFound as error:
            msg = f"template {self.name!r} includes {error.name!r}, which is not there; {nearest(str(error.name), names('prompts', '.jinja'))}"
            raise TemplateError(msg) from None
        except jinja2.TemplateError as error:
            msg = f"template {self.name!r}: {error.message or error}"
            raise TemplateError(msg) from None
        except _NoText as error:
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

    def _missing(self, missing: _MissingVariable, values: Mapping[str, Any]) -> str:
        if missing.owner is utils.missing:
            if missing.name in values:
                kind = "module" if isinstance(values[missing.name], ModuleType) else "function"
                return f"template {self.name!r}: {missing.name!r} is a {kind}, not a value; {_COMPUTE}"
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
    return _parsed(source, name, where, _prompt_environment())


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
        self._environment = _prompt_environment().overlay(loader=jinja2.FunctionLoader(self._find))
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


def fence(texts: Iterable[str], secret: bytes) -> str:
    """Return a mark that stands in none of ``texts`` and that their authors cannot guess.

    It is a keyed digest of the texts themselves, so that the same texts get the same mark on every
    run and requests stay byte-identical.

    >>> fence(["a", "b"], b"s") == fence(["a", "b"], b"s")
    True
    """
    known = list(texts)
    digest = hashlib.blake2b(digest_size=9, key=secret[:64])
    for text in known:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    mark = digest.hexdigest()
    while any(mark in text for text in known):
        digest.update(b"again")
        mark = digest.hexdigest()
    return mark


class _NoText(TemplateError):
    """What would stand in a prompt is no value."""


def to_text(value: Any) -> Any:
    """Return a value as it stands in a prompt: frames and series as small Markdown tables.

    Raises:
        TemplateError: it is a function, or an object that has no text of its own.

    >>> to_text(3)
    3
    """
    if isinstance(value, str | int) or value is None or isinstance(value, jinja2.Undefined):
        return value
    kind = type(value)
    if not _is_pandas(value):
        _check_text(value)
        return value
    if kind.__name__ == "Series":
        label = "value" if value.name is None else value.name
        return _markdown_table([value.index.name or "", label], list(value.head(_MAX_ROWS).items()), len(value))
    if kind.__name__ == "DataFrame":
        rows = list(value.head(_MAX_ROWS).itertuples(name=None))
        return _markdown_table([value.index.name or "", *value.columns], rows, len(value))
    return value


def _check_text(value: Any) -> None:
    kind = type(value)
    plain: Any = object
    if _is_function(value) or isinstance(value, _JINJAS):
        name = getattr(value, "__name__", None) or getattr(value, "name", None) or kind.__name__
        msg = f"{name!r}: that is a {'method' if inspect.ismethod(value) else 'function'}, not a value; {_COMPUTE}"
        raise _NoText(msg)
    if isinstance(value, ModuleType):
        msg = f"{value.__name__!r}: that is a module, not a value"
        raise _NoText(msg)
    if isinstance(value, GeneratorType):
        msg = "that is a generator, not a value: add | list or | join"
        raise _NoText(msg)
    if (kind.__str__, kind.__repr__) == (plain.__str__, plain.__repr__):
        msg = f"a {kind.__name__} has no text of its own: use one of its attributes"
        raise _NoText(msg)


def _markdown_table(header: list[Any], rows: list[tuple[Any, ...]], total: int) -> str:
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)
    return text if total <= len(rows) else f"{text}\n({total - len(rows)} more rows)"


def _cell(value: Any) -> str:
    text = str(value).replace("\n", " ").replace("|", "\\|")
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"


# Panels -----------------------------------------------------------------------------------------


@functools.cache
def panel_environment() -> jinja2.Environment:
    """Return the environment of what people see: everything escaped, templates from ``templates/``."""
    return jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_shipped),
    )


def _shipped(name: str) -> str | None:
    # Panels are ours alone: a template from the working folder must not decide what is shown unescaped.
    found = root().joinpath(*name.split("/"))
    return found.read_text("utf-8") if found.is_file() else None
