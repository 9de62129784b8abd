"""What is said of settings that cannot be used: the place, the nearest right name, and never a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from moa_nb.errors import SettingsError, nearest
from moa_nb.plain import quoted
from moa_nb.settings.values import ModelSettings, ProviderSettings, Settings

__all__ = ["check_models", "refuse_keys", "say"]

_SECRET = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)


def refuse_keys(source: str, values: Mapping[str, Any]) -> None:
    """Return nothing.

    Raises:
        SettingsError: a file holds what may be the key of a service.
    """
    providers = values.get("providers")
    for name, entry in providers.items() if isinstance(providers, Mapping) else ():
        if not isinstance(entry, Mapping):
            continue
        headers = entry.get("headers")
        secret = [header for header in headers if _SECRET.search(header)] if isinstance(headers, Mapping) else []
        misnamed = _keys_under_other_names(entry, ProviderSettings)
        path = "key" if "key" in entry else f"headers.{secret[0]}" if secret else misnamed[0] if misnamed else None
        if path:
            raise SettingsError(_in_a_file(source, f"providers.{name}.{path}"))
    for path in _keys_under_other_names(values, Settings):
        raise SettingsError(_in_a_file(source, path))


def _keys_under_other_names(entry: Mapping[str, Any], kind: type[BaseModel]) -> list[str]:
    """Return the unknown keys of a table whose values may be a service's key; a variable's name is only a typing error."""
    return [
        key
        for key, value in entry.items()
        if key not in kind.model_fields
        and _SECRET.search(key)
        and isinstance(value, str)
        and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value)
    ]


def _in_a_file(source: str, path: str) -> str:
    return (
        f"{source}: {path} would write the key into a file; put it into an environment"
        " variable and name that as key_env, or pass it to moa.configure"
    )


def check_models(source: str, values: Mapping[str, Any]) -> None:
    """Return nothing.

    Raises:
        SettingsError: a table of ``models`` that is not named as a model is.
    """
    models = values.get("models")
    for name, entry in models.items() if isinstance(models, Mapping) else ():
        provider, _, model = str(name).partition(":")
        if isinstance(entry, Mapping) and not (provider and model):
            example = f"{provider or 'lab'}:NAME"
            shown = f"models={{{example!r}: …}}" if source == "configure" else f'[models."{example}"]'
            msg = f"{source}: {quoted(str(name))} is no model: it is named provider:model in quotes, as in {shown}"
            raise SettingsError(msg)


def say(error: ValidationError, sources: Mapping[str, str]) -> str:
    """Return the one line about what did not validate."""
    errors = error.errors()
    # A misspelt key is also missing under its right name.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    path = ".".join(str(part) for part in first["loc"])
    source = _source(path, sources)
    if first["type"] == "extra_forbidden":
        kind: type[BaseModel] = Settings
        if len(first["loc"]) == 3:
            kind = ProviderSettings if path.startswith("providers") else ModelSettings
        if kind is not Settings and first["loc"][-1] in Settings.model_fields:
            return _below_a_table(source, path)
        return f"{source}: unknown key {path!r}; {nearest(str(first['loc'][-1]), kind.model_fields)}"
    if first["type"] == "missing":
        return f"{source}: {path} is missing"
    if (
        len(first["loc"]) == 2
        and first["loc"][0] in {"providers", "models"}
        and first["loc"][1] in Settings.model_fields
    ):
        return _below_a_table(source, path)
    if first["type"] == "value_error":  # this room's own words
        return f"{source}: {path}: {first['msg'].removeprefix('Value error, ')}"
    message = first["msg"]
    got = "" if path.startswith("providers") else f" (got {quoted(first['input'])})"  # may be a key in the wrong place
    return f"{source}: {path}: {message[:1].lower()}{message[1:]}{got}"


def _below_a_table(source: str, path: str) -> str:
    table, _, key = path.rpartition(".")
    place = "directly below [tool.moa_nb], " if source.endswith("pyproject.toml") else ""
    return f"{source}: {key!r} does not belong to [{table}]: write it {place}before the first [table]"


def _source(path: str, sources: Mapping[str, str]) -> str:
    """Return where a value came from; for one that is missing, where its neighbours did."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        stem = ".".join(parts[:length])
        found = [where for key, where in sources.items() if key == stem or key.startswith(f"{stem}.")]
        if found:
            return found[-1]
    return "settings"
