"""What a prompt's template may do: read values. It runs no code of the notebook's, and changes nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import ModuleType
from typing import Any

import jinja2
from jinja2 import runtime, utils
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment, modifies_known_mutable

__all__ = ["COMPUTE", "JINJAS", "Sandbox", "is_function", "is_pandas", "is_value"]

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

COMPUTE = "compute it in a cell first and use the variable"
"""What to do instead of what a template may not."""


@dataclass(frozen=True)
class _Format:
    """``str.format`` as the sandbox does it."""

    format: Callable[..., str]

    def __call__(self, *args: Any, **values: Any) -> str:
        return self.format(*args, **values)


JINJAS = (runtime.Macro, runtime.BlockReference, runtime.LoopContext, utils.Cycler, utils.Joiner, _Format)
"""What Jinja itself puts among the values, which a template may call and a prompt cannot hold."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Templates may read values: they run no code of the notebook's and reach nothing that starts with an underscore."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may read this: neither what is private nor what changes its owner."""
        return super().is_safe_attribute(obj, attr, value) and not _changes(obj, attr)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        """Return nothing: say why a template may not read this.

        Raises:
            SecurityError: always.
        """
        if _changes(obj, attribute):
            msg = f"a template may not change values, as {type(obj).__name__}.{attribute} does; {COMPUTE}"
        else:
            msg = f"a template may not reach {attribute!r} of a {type(obj).__name__}"
        raise SecurityError(msg)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return what stands for ``str.format``, to be known again when it is called; ``None`` for anything else."""
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else _Format(wrapped)

    def is_safe_callable(self, obj: Any) -> bool:
        """Return whether a template may call this: what is Jinja's own, and methods of values that read."""
        # An undefined one says itself what is missing.
        if isinstance(obj, (jinja2.Undefined, *JINJAS)) or any(obj is own for own in self.globals.values()):
            return True
        if not inspect.isroutine(obj) and not hasattr(obj, "__self__"):
            return False
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, JINJAS):
            return True
        if is_pandas(owner):
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
        """Return what a call in a template gives.

        Raises:
            SecurityError: it may not be called, or not with this.
        """
        is_foreign = not isinstance(obj, JINJAS)
        given = [*args, *options.values()]
        is_refused = "inplace" in options or any(map(is_function, given))
        if not self.is_safe_callable(obj) or (is_foreign and is_refused and not isinstance(obj, jinja2.Undefined)):
            msg = f"a template may not call {_path(obj, context)}: it reads values; {COMPUTE}"
            raise SecurityError(msg)
        return super().call(context, obj, *args, **options)


def _changes(owner: Any, name: str) -> bool:
    return modifies_known_mutable(owner, name) or (isinstance(owner, set) and name == "intersection_update")


def is_pandas(value: Any) -> bool:
    """Return whether a value is of a type of pandas, which is not imported for it."""
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


def is_function(value: Any) -> bool:
    """Return whether a value is code and nothing else: a function, a method or a class."""
    return inspect.isroutine(value) or isinstance(value, type | functools.partial)


def is_value(value: Any) -> bool:
    """Return whether templates are given this: everything but modules, functions and classes."""
    return not isinstance(value, ModuleType) and not is_function(value)
