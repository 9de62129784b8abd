"""How a value stands in a prompt: as its own text; frames and series as small tables; code not at all."""

from __future__ import annotations

import inspect
from types import GeneratorType, ModuleType
from typing import Any

import jinja2

from moa_nb.errors import TemplateError
from moa_nb.templating.sandbox import COMPUTE, JINJAS, is_function, is_pandas

__all__ = ["NoText", "to_text"]

_MAX_ROWS, _MAX_CELL = 20, 200


class NoText(TemplateError):
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
    if not is_pandas(value):
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
    if is_function(value) or isinstance(value, JINJAS):
        name = getattr(value, "__name__", None) or getattr(value, "name", None) or kind.__name__
        msg = f"{name!r}: that is a {'method' if inspect.ismethod(value) else 'function'}, not a value; {COMPUTE}"
        raise NoText(msg)
    if isinstance(value, ModuleType):
        msg = f"{value.__name__!r}: that is a module, not a value"
        raise NoText(msg)
    if isinstance(value, GeneratorType):
        msg = "that is a generator, not a value: add | list or | join"
        raise NoText(msg)
    if (kind.__str__, kind.__repr__) == (plain.__str__, plain.__repr__):
        msg = f"a {kind.__name__} has no text of its own: use one of its attributes"
        raise NoText(msg)


def _markdown_table(header: list[Any], rows: list[tuple[Any, ...]], total: int) -> str:
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)
    return text if total <= len(rows) else f"{text}\n({total - len(rows)} more rows)"


def _cell(value: Any) -> str:
    text = str(value).replace("\n", " ").replace("|", "\\|")
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
