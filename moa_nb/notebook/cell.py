"""A cell's text as a task: its ``{{ variables }}`` filled in once, from the notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moa_nb import templating
from moa_nb.engine.task import make_task
from moa_nb.errors import SetupError, TemplateError, UnknownName, nearest
from moa_nb.pipeline.candidate import Task

__all__ = ["filled_in", "is_users", "may_be_schema", "schema_of", "task_of", "with_form"]

_MATERIAL = 80
"""Characters from which on a variable's text is taken for the material, not for a word of the question."""

_SHELLS = frozenset({"In", "Out", "exit", "get_ipython", "open", "quit"})
"""What IPython itself puts among the notebook's variables."""


def task_of(text: str, variables: Mapping[str, Any], *, raw: bool, template: str | None) -> Task:
    """Return what a cell asks.

    Args:
        text: the cell.
        variables: what its ``{{ names }}`` may be.
        raw: whether braces are text.
        template: a template's name or source around the text.

    Raises:
        SetupError: a name that is not there, braces that are not Jinja, or no text at all.
    """
    if not text.strip():
        msg = "the cell is empty: write the question below the line with %%moa"
        raise SetupError(msg)
    text = text.rstrip("\n")
    material = None
    if not raw:
        try:
            text, values = _rendered(text, variables, "cell")
        except TemplateError as error:
            said = str(error).rstrip(".")
            msg = f"{said}{'' if said.endswith('?') else ';'} if the braces are text, add --raw"
            raise TemplateError(msg) from None
        texts = [value for value in values.values() if isinstance(value, str) and len(value) >= _MATERIAL]
        material = max(texts, key=len, default=None)
    values = {name: value for name, value in variables.items() if name not in _SHELLS}
    task = make_task(text, template, values if template else None)
    return task if material is None else replace(task, material=material)


def with_form(task: Task, schema: Any) -> Task:
    """Return the task whose answer has to fill in a schema, which its latest message then says.

    Raises:
        SetupError: the schema cannot be used.
    """
    told = make_task(task.conversation, schema=schema)
    return replace(told, material=task.material or told.material)


def filled_in(text: str, variables: Mapping[str, Any]) -> str:
    """Return the text of an option with its ``{{ variables }}`` filled in once, as those of a cell are.

    Raises:
        TemplateError: a name that is not there, or braces that are not Jinja.
    """
    return _rendered(text, variables, "the option")[0]


def schema_of(name: str, variables: Mapping[str, Any]) -> Any:
    """Return the schema that a variable holds; whether it is one is for others to find out.

    Raises:
        UnknownName: there is no such variable; the message names the nearest that may hold a schema.
    """
    if name not in variables:
        known = [key for key, value in variables.items() if is_users(key) and may_be_schema(value)]
        msg = f"the notebook has no variable {name!r} for --schema; {nearest(name, known)}"
        raise UnknownName(msg)
    return variables[name]


def may_be_schema(value: Any) -> bool:
    """Return whether a variable's value looks like a schema: a pydantic model, or a dict with something in it."""
    return hasattr(value, "model_json_schema") or (isinstance(value, dict) and bool(value))


def is_users(name: str) -> bool:
    """Return whether a variable of this name is the user's own, and none that IPython put there."""
    return not name.startswith("_") and name not in _SHELLS


def _rendered(text: str, variables: Mapping[str, Any], what: str) -> tuple[str, dict[str, Any]]:
    """Return a text with its variables filled in, and those."""
    parsed = templating.parse(text, name=what)
    values = {name: variables[name] for name in parsed.variables if name in variables}
    _check(parsed, variables)
    return parsed.render(values), values


def _check(parsed: templating.Template, variables: Mapping[str, Any]) -> None:
    for name in sorted(parsed.variables):
        if name not in variables and not templating.is_jinjas(name) and f"{name} is defined" not in parsed.source:
            known = [key for key, value in variables.items() if is_users(key) and templating.is_value(value)]
            msg = f"the notebook has no variable {name!r}; {nearest(name, known)}"
            raise TemplateError(msg)
