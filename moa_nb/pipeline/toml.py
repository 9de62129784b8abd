"""A pipeline as the text of its file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from moa_nb.errors import PipelineError
from moa_nb.plain import quoted

if TYPE_CHECKING:
    from moa_nb.pipeline.spec import Pipeline

__all__ = ["NameOf", "written"]

NameOf = Callable[[Callable[..., Any]], str | None]
"""Returns the name under which a function is registered; ``None`` if it is not."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def written(pipeline: Pipeline, name_of: NameOf) -> str:
    """Return a pipeline as TOML: what differs from its strategy's defaults.

    Raises:
        PipelineError: something of it cannot stand in a file.
    """
    known: dict[str, Any] = {"description": pipeline.description} if pipeline.description else {}
    try:
        known |= {"strategy": pipeline.strategy, **_fields(pipeline.params, name_of)}
        return "\n".join(_lines(known))
    except _Unwritable as error:
        msg = f"pipeline {pipeline.name!r} cannot be written as a file: {error}"
        raise PipelineError(msg) from None


class _Unwritable(Exception):
    pass


def _fields(model: BaseModel, name_of: NameOf) -> dict[str, Any]:
    """Return the fields that differ from their defaults, as plain data."""
    found = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value != field.get_default(call_default_factory=True, validated_data={}):
            found[name] = _plain(value, name, name_of)
    return found


def _plain(value: Any, name: str, name_of: NameOf) -> Any:
    """Return a value as TOML knows it; ``name`` is that of its field."""
    if isinstance(value, BaseModel):
        found = _fields(value, name_of)
        if "function" in found:
            found = {"model": found.pop("function"), **{key: one for key, one in found.items() if key != "model"}}
        if len(found) == 1 and {*found} <= {"model", "pipeline"}:
            (found,) = found.values()  # an agent of which nothing else is said
        return found
    if isinstance(value, Mapping):
        return {str(key): _plain(one, f"{name}.{key}", name_of) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one, name, name_of) for one in value]
    if callable(value):
        called = getattr(value, "__name__", type(value).__name__)
        if name != "function":
            msg = f"{name} is the function {called!r}, which only Python can say"
            raise _Unwritable(msg)
        known = name_of(value)
        if known is None:
            msg = f"the function {called!r} has no name there; register it with @moa.agent({called!r})"
            raise _Unwritable(msg)
        return f"function:{known}"
    if isinstance(value, str | bool | int | float):
        return value
    msg = f"{name} holds {quoted(value)}, which TOML has no word for"
    raise _Unwritable(msg)


def _lines(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a file: plain values first, then tables and lists of tables, each under its header."""
    tables = {name: value for name, value in data.items() if _is_table(value)}
    for name, value in data.items():
        if name not in tables:
            yield f"{_key(name)} = {_value(value)}"
    for name, value in tables.items():
        parts, header = ([value], f"[{_key(name)}]") if isinstance(value, dict) else (value, f"[[{_key(name)}]]")
        for part in parts:
            yield f"\n{header}"
            yield from (f"{_key(key)} = {_value(one)}" for key, one in part.items())
    yield ""


def _is_table(value: Any) -> bool:
    several = isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
    return bool(value) and (isinstance(value, dict) or bool(several))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return repr(value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    # JSON's escapes are TOML's; TOML wants one more character escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
