"""What is taken along from a playground: template files, cells, Python."""

from __future__ import annotations

import ast
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.core.getipython import get_ipython

from moa_nb import settings
from moa_nb.errors import SetupError
from moa_nb.notebook.playground.drafts import file_of
from moa_nb.notebook.playground.inputs import INPUT, Inputs
from moa_nb.pipeline.spec import Pipeline

__all__ = ["as_cell", "as_python", "target", "write"]

_FLAGS = {
    "pipeline": "-p",
    "models": "-m",
    "aggregator": "-a",
    "samples": "-n",
    "layers": "-l",
    "temperature": "-T",
    "max_tokens": "--max-tokens",
    "budget": "--budget",
}


def target(name: str) -> Path:
    """Return the file of a template within the project.

    Raises:
        SetupError: the name leads out of the project's templates.
    """
    file = Path(file_of(name))
    if not name.strip() or file.is_absolute() or ".." in file.parts or "\\" in name:
        msg = f"{name!r} cannot be a template's name: a word, or folder/word"
        raise SetupError(msg)
    return settings.project_folder() / "templates" / "prompts" / file


def write(name: str, source: str) -> Path:
    """Return the file into which a template was written, whole or not at all.

    Raises:
        SetupError: the name or the file cannot be used.
    """
    file = target(name)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(source, encoding="utf-8", newline="\n")
        fresh.replace(file)
    except (OSError, UnicodeEncodeError) as error:
        msg = f"{file} cannot be written: {getattr(error, 'strerror', None) or error}"
        raise SetupError(msg) from None
    return file


# Cells -------------------------------------------------------------------------------------------


def as_cell(inputs: Inputs, options: Mapping[str, Any], edited: Mapping[str, str]) -> str:
    """Return a cell that does the same.

    Raises:
        SetupError: a template is edited and not saved.
    """
    unsaved = [name for name in edited if name != INPUT]
    if unsaved:
        msg = (
            f"a cell takes its templates from files, and {', '.join(unsaved)} is edited: save first, or copy as Python"
        )
        raise SetupError(msg)
    line = _line(options)
    if not isinstance(inputs.data, str) or inputs.template is not None or line is None:
        return as_python(inputs, options, edited)
    # Braces are text here, and Jinja would change the ends of lines.
    is_raw = any(mark in inputs.data for mark in ("{{", "{%", "{#", "\r"))
    return f"%%moa{line}{' --raw' if is_raw else ''}\n{inputs.data}"


def _line(options: Mapping[str, Any]) -> str | None:
    """Return the options as the line of ``%%moa`` takes them; ``None`` where it cannot."""
    line = ""
    for name, value in options.items():
        if value is None:
            continue
        if name == "models":
            value = [value] if isinstance(value, str) else [*value] if not callable(value) else [value]  # noqa: PLW2901 - listed
            text = ",".join(value) if all(isinstance(one, str) for one in value) else None
        elif callable(value) or isinstance(value, Pipeline) or (name == "budget" and isinstance(value, str)):
            text = None
        else:
            text = str(value)
        if text is None or name not in _FLAGS or '"' in text:
            return None
        line += f' {_FLAGS[name]} "{text}"' if " " in text else f" {_FLAGS[name]} {text}"
    return line


# Python ------------------------------------------------------------------------------------------


def as_python(inputs: Inputs, options: Mapping[str, Any], edited: Mapping[str, str]) -> str:
    """Return Python that writes the edited templates, and then does the same."""
    unsaved = {name: source for name, source in edited.items() if name != INPUT}
    lines = [*(["from pathlib import Path", ""] if unsaved else []), "import moa_nb as moa", ""]
    for name, source in unsaved.items():
        file = Path(os.path.relpath(target(name))).as_posix()
        lines += [
            f"file = Path({file!r})",
            "file.parent.mkdir(parents=True, exist_ok=True)",
            f'file.write_text({_literal(source)}, encoding="utf-8", newline="\\n")',
            "",
        ]
    given: dict[str, Any] = {
        "instruction": inputs.instruction,
        "template": edited.get(INPUT, inputs.template),
        **options,
    }
    said = [f"{name}={_code(name, value)}" for name, value in given.items() if value is not None]
    if isinstance(inputs.data, str):
        call = f"moa.run({', '.join([_literal(inputs.data), *said])})"
        return "\n".join([*lines, f"result = {call}", "result"])
    variable = _variable(inputs.data)
    first = [] if inputs.column is None else [repr(inputs.column)]
    call = f"{variable}.moa.synthesize({', '.join([*first, *said])})"
    place = f'{variable}["answer"]' if isinstance(inputs.data, pd.DataFrame) else "answer"
    return "\n".join([*lines, f"{place} = {call}"])


def _code(name: str, value: Any) -> str:
    """Return an option as Python that means the same; functions and pipelines by the names they should have there."""
    if isinstance(value, Pipeline):
        return "pipeline"
    if callable(value):
        return str(getattr(value, "__name__", name))
    if isinstance(value, str):
        return _literal(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_code(name, one) for one in value)}]"
    return "float('inf')" if value == float("inf") else repr(value)


def _literal(text: str) -> str:
    """Return a text as Python writes it, over several lines where it has them."""
    long = f'"""{text}"""'
    try:
        if "\n" in text and ast.literal_eval(long) == text:
            return long
    except (SyntaxError, ValueError):
        pass  # quotes or backslashes in it
    return repr(text)


def _variable(data: Any) -> str:
    """Return the name of the notebook's variable that holds the data; ``df`` where none does."""
    shell = get_ipython()
    names = {} if shell is None else shell.user_ns
    found = (name for name, value in [*names.items()] if value is data and not name.startswith("_"))
    return next(found, "df" if isinstance(data, pd.DataFrame) else "series")
