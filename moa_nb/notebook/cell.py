"""A cell's text as a task: its ``{{ variables }}`` filled in once, from the notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moa_nb import templating
from moa_nb.engine.engine import make_task
from moa_nb.errors import SetupError, TemplateError, nearest
from moa_nb.pipeline.candidate import Task

__all__ = ["task_of"]

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
            parsed = templating.parse(text, name="cell")
            values = {name: variables[name] for name in parsed.variables if name in variables}
            _check(parsed, variables)
            rendered = parsed.render(values)
        except TemplateError as error:
            msg = f"{error}; if the braces are text, add --raw"
            raise TemplateError(msg) from None
        texts = [value for value in values.values() if isinstance(value, str) and len(value) >= _MATERIAL]
        material = max(texts, key=len, default=None)
        text = rendered
    values = {name: value for name, value in variables.items() if name not in _SHELLS}
    task = make_task(text, template, values if template else None)
    return task if material is None else Task(task.conversation, material)


def _check(parsed: templating.Template, variables: Mapping[str, Any]) -> None:
    for name in sorted(parsed.variables):
        if name not in variables and not templating.is_jinjas(name) and f"{name} is defined" not in parsed.source:
            known = [
                key
                for key, value in variables.items()
                if not key.startswith("_") and key not in _SHELLS and templating.is_value(value)
            ]
            msg = f"the notebook has no variable {name!r}; {nearest(name, known)}"
            raise TemplateError(msg)
