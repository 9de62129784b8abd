"""Who said what: the layers of values, each above the one before.

Later wins: built-in, user file, project file, environment, ``configure``, arguments of a call. A file of
certificates that the machine's own variables name counts as built-in.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moa_nb.errors import SettingsError, nearest
from moa_nb.settings import mistakes
from moa_nb.settings.folders import HOME, project_file, user_folder
from moa_nb.settings.known import Service
from moa_nb.settings.values import Settings

__all__ = ["configure", "current", "explain", "reset", "services_with_keys"]

_PREFIX = "MOA_NB_"

_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that other programs read and companies' machines set; the first that names a file counts."""

_PATHS = ("ca_file", "env_file")


@dataclass
class _Configured:
    values: dict[str, Any] = field(default_factory=dict)
    seen: tuple[Any, ...] = ()
    settings: Settings | None = None
    sources: dict[str, str] = field(default_factory=dict)


_state = _Configured()


def configure(**values: Any) -> None:
    """Set values for this session, over every file and the environment.

    The keys are those of ``moa.toml``; ``None`` takes a value back.

    Raises:
        SettingsError: an unknown key or an unusable value; then nothing is changed.

    >>> configure(pipeline="single")
    >>> current().pipeline
    'single'
    >>> configure(pipeline=None)
    """
    previous = _state.values
    merged = _merge(previous, _placed(values, Path.cwd()))
    for key, value in values.items():
        if value is None:
            merged.pop(key, None)
    _state.values, _state.seen = merged, ()
    try:
        current()
    except BaseException:
        _state.values, _state.seen = previous, ()
        raise


def reset() -> None:
    """Return nothing; forget what ``configure`` set."""
    _state.values, _state.seen = {}, ()


def current() -> Settings:
    """Return the settings that hold now; files and environment are read again when they changed.

    Raises:
        SettingsError: a file or variable with an unknown key or an unusable value.
    """
    seen = _fingerprint()
    if _state.settings is None or _state.seen != seen:
        _state.settings, _state.sources = _load()
        _state.seen = seen
    return _state.settings


def services_with_keys(settings: Settings | None = None) -> list[Service]:
    """Return the known services with default models whose key is there to be read, in the stated order.

    Args:
        settings: they say where keys are looked for besides the environment; ``None`` for those that hold now.
    """
    from moa_nb.settings import services

    keys = (settings or current()).keys
    with_models = [service for service in services().values() if service.proposers]
    return [service for service in with_models if service.key_env and keys.find(service.key_env)]


def explain() -> list[tuple[str, Any, str]]:
    """Return each value with its key and where it came from; never a key of a service."""
    settings = current()
    rows = []
    for key in Settings.model_fields:
        value = getattr(settings, key)
        if key in {"providers", "models"}:
            for name, entry in value.items():
                for part in entry.model_fields_set:
                    path = f"{key}.{name}.{part}"
                    shown = "(set)" if part in {"key", "headers"} else getattr(entry, part)
                    rows.append((path, shown, _state.sources.get(path, "built-in")))
        else:
            rows.append((key, value, _state.sources.get(key, "built-in")))
    return [*rows, *_keys(settings)]


def _keys(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield where the key of each provider is that has one, or should have one."""
    from moa_nb.settings import services

    for name in dict.fromkeys([*settings.providers, *services()]):
        configured = settings.providers.get(name)
        variable = settings.provider(f"{name}:…").key_env
        if not variable or (configured and configured.key):
            continue
        found = settings.keys.find(variable)
        if found:
            yield f"providers.{name}.key", "(set)", found[1]
        elif configured:
            yield f"providers.{name}.key", "(not set)", f"nowhere ({variable})"


def _fingerprint() -> tuple[Any, ...]:
    files = (user_folder() / "moa.toml", project_file())
    return (
        tuple(_stamp(file) for file in files if file),
        tuple(
            sorted(
                (name, value) for name, value in os.environ.items() if name.startswith(_PREFIX) or name in _CERTIFICATES
            )
        ),
        id(_state.values),
    )


def _stamp(file: Path) -> tuple[str, int, int] | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return str(file), state.st_mtime_ns, state.st_size  # some drives count time in whole seconds


def _load() -> tuple[Settings, dict[str, str]]:
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in _layers():
        for path in _paths(values):
            sources[path] = source
        merged = _merge(merged, values)
    try:
        return Settings.model_validate(merged), sources
    except ValidationError as error:
        raise SettingsError(" ".join(mistakes.say(error, sources).splitlines())) from None


def _layers() -> list[tuple[str, dict[str, Any]]]:
    layers: list[tuple[str, dict[str, Any]]] = []
    user = user_folder() / "moa.toml"
    if user.is_file():
        layers.append((str(user), _placed(_read(user), user.parent)))
    project = project_file()
    if project and project != user:
        data = _read(project)
        values = _tool_table(project, data) if project.name == "pyproject.toml" else data
        layers.append((str(project), _placed(values, project.parent)))
    for source, values in layers:
        mistakes.refuse_keys(source, values)
    layers = [*_certificates(), *layers, *_environment()]
    if _state.values:
        layers.append(("configure", _state.values))
    for source, values in layers:
        mistakes.check_models(source, values)
    return layers


def _tool_table(file: Path, data: Mapping[str, Any]) -> Mapping[str, Any]:
    tools = data.get("tool", {})
    if "moa-nb" in tools:  # what the distribution is called
        msg = f"{file}: [tool.moa-nb] sets nothing; write it as [tool.moa_nb]"
        raise SettingsError(msg)
    table: Mapping[str, Any] = tools.get("moa_nb", {})
    return table


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        msg = f"{file} is no text in UTF-8: save it anew with that encoding"
        raise SettingsError(msg) from None
    except tomllib.TOMLDecodeError as error:
        # The usual cause on Windows, where TOML reads the path's backslashes as escapes.
        hint = "; write a path with backslashes in single quotes" if "\\" in file.read_text("utf-8-sig") else ""
        msg = f"{file} is not valid TOML: {error}{hint}"
        raise SettingsError(msg) from None


def _placed(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values with their paths below the folder that they were said in."""
    paths = {key: values[key] for key in _PATHS if isinstance(values.get(key), str | Path) and str(values[key]).strip()}
    return {**values, **{key: folder / os.path.expanduser(path) for key, path in paths.items()}}  # noqa: PTH111 - leaves what it does not know


def _certificates() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in _CERTIFICATES:
        file = os.environ.get(name)
        if file and Path(file).is_file():
            yield f"environment ({name})", {"ca_file": Path(file)}
            return


def _environment() -> list[tuple[str, dict[str, Any]]]:
    layers = []
    for name, text in os.environ.items():
        if not name.startswith(_PREFIX) or name == HOME or not text.strip():
            continue
        key = name.removeprefix(_PREFIX).lower()
        if key not in Settings.model_fields or key in {"providers", "models"}:
            msg = f"the environment variable {name} sets nothing; {nearest(key, Settings.model_fields)}"
            raise SettingsError(msg)
        value = tuple(part.strip() for part in text.split(",") if part.strip()) if key == "proposers" else text
        layers.append((f"environment ({name})", _placed({key: value}, Path.cwd())))
    return layers


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _paths(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in values.items():
        path = f"{prefix}{key}"
        nested = isinstance(value, Mapping) and prefix.count(".") < 2
        paths.extend(_paths(value, f"{path}.") if nested else [path])
    return paths
