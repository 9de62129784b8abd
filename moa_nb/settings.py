"""What the user configured, and where each value came from.

Later wins: built-in, user file, project file, environment, ``configure``, arguments of a call.
This is the only reader of the environment and of the settings files.
"""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from moa_nb.errors import KeyRejected, SettingsError, UnknownName, nearest

__all__ = [
    "ROLES",
    "ModelSettings",
    "Provider",
    "ProviderSettings",
    "Service",
    "Settings",
    "configure",
    "current",
    "data_folder",
    "explain",
    "fence_secret",
    "project_folder",
    "reset",
    "services",
    "services_with_keys",
    "template_folders",
]

ROLES = ("proposers", "aggregator", "judge", "small", "strong")
"""The roles that pipelines ask for; ``$proposers`` in a pipeline is filled from these."""

_PREFIX = "MOA_NB_"
_HOME = "MOA_NB_HOME"
_TABLE = re.compile(rb"^(?:\xef\xbb\xbf)?\s*\[tool\.moa_nb[.\]]", re.MULTILINE)
_SECRET = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderSettings(_Strict):
    """One service: where it is, how it speaks, how hard it may be asked."""

    wire: Literal["openai", "anthropic", "gemini"] | None = None
    """How it speaks; as the service known by this name does, else as OpenAI."""
    base_url: str
    key_env: str | None = None
    """The name of the environment variable that holds the key, never the key itself."""
    key: SecretStr | Callable[[], str] | None = None
    """Only through ``configure``: the key, or a function that returns a fresh one."""
    concurrency: int | None = Field(None, ge=1)
    """The most calls in flight."""
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Sent with each request; some services take their key here."""

    @field_validator("key_env")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            msg = "key_env takes the name of an environment variable, such as LAB_KEY, not the key itself"
            raise ValueError(msg)
        return name

    @field_validator("base_url")
    @classmethod
    def _has_no_secret(cls, url: str) -> str:
        # An address is shown in many places.
        if "@" in urlsplit(url).netloc:
            msg = (
                "the address would show a user name or a password; put the key into an environment variable and name"
                " that as key_env, or pass headers to moa.configure"
            )
            raise ValueError(msg)
        return url


class ModelSettings(_Strict):
    """One model's prices (dollars per million tokens) and context (tokens)."""

    prompt_price: float | None = Field(None, ge=0)
    completion_price: float | None = Field(None, ge=0)
    cached_prompt_price: float | None = Field(None, ge=0)
    context: int | None = Field(None, ge=1)


class Settings(_Strict):
    """Everything that can be configured, with its built-in values."""

    pipeline: str = "moa-lite"
    """The default pipeline."""
    proposers: tuple[str, ...] = ()
    aggregator: str | None = None
    judge: str | None = None
    small: str | None = None
    strong: str | None = None
    budget: float | None = Field(None, ge=0)
    """Dollars a run."""
    ask_above: float = Field(1.0, ge=0)
    """A frame run whose estimate is above this many dollars asks for a ``budget=`` first."""
    ask_above_calls: int = Field(500, ge=0)
    """Likewise for calls of unknown price."""
    max_tokens: int = Field(2048, ge=1)
    """What a request under a budget carries when its agent names no ``max_tokens``."""
    timeout: float = Field(120.0, gt=0)
    """Seconds for one attempt."""
    retry_seconds: float = Field(20.0, ge=0)
    """How long a call that meets faults is asked again."""
    deadline: float = Field(600.0, gt=0)
    """Seconds for one call with all its attempts and waits."""
    concurrency: int = Field(64, ge=1)
    """The most calls in flight for one model, where its provider says nothing else."""
    store: Literal["disk", "none"] = "disk"
    """``none`` keeps nothing on disk."""
    loop: Literal["thread", "kernel"] = "thread"
    """``kernel`` runs on the kernel's own event loop, for agents that are tied to it."""
    stream: bool = True
    """Show answers as they come, where a panel watches."""
    providers: Mapping[str, ProviderSettings] = Field(default_factory=dict)
    models: Mapping[str, ModelSettings] = Field(default_factory=dict)

    @field_validator("proposers", mode="before")
    @classmethod
    def _one_or_several(cls, models: object) -> object:
        return (models,) if isinstance(models, str) else models

    def provider(self, model: str) -> Provider:
        """Return the provider of a ``provider:model`` id.

        Raises:
            UnknownName: no colon, or no provider of that name.
        """
        name, colon, rest = model.partition(":")
        known = [*self.providers, *services(), "offline", "function"]
        if not colon or not rest:
            names = [f"{service}:{model}" for service in self.providers] or ["openai:gpt-4o-mini"]
            msg = f"a model is named provider:model, as in {names[0]!r}, not {model!r}"
            raise UnknownName(msg)
        if name in {"offline", "function"}:
            return Provider(name, None, None)
        configured, service = self.providers.get(name), services().get(name)
        if configured is None and service is None:
            meant = nearest(name, known)
            stop = "" if meant.endswith("?") else "."
            msg = (
                f"no provider {name!r} (in {model!r}): {meant}{stop} A new one goes into moa.toml as [providers.{name}]"
            )
            raise UnknownName(msg)
        return Provider(name, configured, service)


@dataclass(frozen=True)
class Service:
    """A service known by name: an entry of ``services.toml``."""

    name: str
    base_url: str
    wire: str = "openai"
    key_env: str | None = None
    prices: str | None = None
    local: bool = False
    concurrency: int | None = None
    mark: tuple[str, str] | None = None
    proposers: tuple[str, ...] = ()
    aggregator: str | None = None
    strong: str | None = None
    small: str | None = None

    def roles(self) -> dict[str, tuple[str, ...]]:
        """Return its default models by role, as ``provider:model``."""
        named = {
            "proposers": self.proposers,
            "aggregator": (self.aggregator,),
            "strong": (self.strong,),
            "small": (self.small,),
        }
        return {role: tuple(f"{self.name}:{model}" for model in models if model) for role, models in named.items()}


@dataclass(frozen=True)
class Provider:
    """A provider as a call needs it: the user's settings over what is known of the service."""

    name: str
    settings: ProviderSettings | None
    service: Service | None

    @property
    def base_url(self) -> str:
        """The address that paths are appended to, without a slash at its end."""
        url = self.settings.base_url if self.settings else self.service.base_url if self.service else ""
        return url.rstrip("/")

    @property
    def key_env(self) -> str | None:
        """The variable that holds the key; ``None`` where no key is needed."""
        if self.settings:
            return self.settings.key_env
        return self.service.key_env if self.service else None

    @property
    def headers(self) -> Mapping[str, str]:
        """Further headers of each request."""
        return self.settings.headers if self.settings else {}

    @property
    def concurrency(self) -> int | None:
        """The most calls in flight, where somebody said so."""
        configured = self.settings.concurrency if self.settings else None
        return configured or (self.service.concurrency if self.service else None)

    @property
    def is_free(self) -> bool:
        """Whether its tokens cost nothing: offline, a function, or a known server on this machine."""
        return self.name in {"offline", "function"} or bool(self.service and self.service.local)

    @property
    def wire(self) -> str:
        """The name of its format in ``WIRES``."""
        configured = self.settings.wire if self.settings else None
        return configured or (self.service.wire if self.service else "openai")

    @property
    def prices(self) -> str | None:
        """Its id in genai-prices; ``None`` where prices come from the settings alone."""
        return self.service.prices if self.service else None

    def key(self) -> str | None:
        """Return the key, read now; ``None`` where none is needed.

        Raises:
            KeyRejected: the variable that should hold it is not set.
        """
        given = self.settings.key if self.settings else None
        if isinstance(given, SecretStr):
            return self._usable(given.get_secret_value(), "key")
        if given is not None:
            try:
                fresh = given()
            except Exception as error:  # anybody's code; its words may hold the key
                msg = f"{self.name} needs a key, and the function that should give it raised {type(error).__name__}"
                raise KeyRejected(msg) from error
            return self._usable(fresh or None, "function for the key")
        if not self.key_env:
            return None
        key = self._usable(os.environ.get(self.key_env, ""), f"variable {self.key_env}")
        if not key:
            msg = f"{self.name} needs a key: set the environment variable {self.key_env} (its value is read when a call is made)"
            raise KeyRejected(msg)
        return key

    def _usable(self, key: object, source: str) -> str:
        if not isinstance(key, str) or not key.strip().isprintable():
            msg = (
                f"the {source} of {self.name} holds something that cannot be sent as a key: it must be one line of text"
            )
            raise KeyRejected(msg)
        return key.strip()


@cache
def services() -> dict[str, Service]:
    """Return the known services by name, in the order in which they are looked for."""
    data = tomllib.loads(Path(__file__).with_name("services.toml").read_text("utf-8"))
    known = {}
    for name, entry in data.items():
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        known[name] = Service(name, **values)
    return known


def services_with_keys() -> list[Service]:
    """Return the known services whose key is in the environment, in the stated order."""
    return [
        service for service in services().values() if service.key_env and os.environ.get(service.key_env, "").strip()
    ]


# Where things are -------------------------------------------------------------------------------


def data_folder() -> Path:
    """Return the folder of the store: ``MOA_NB_HOME``, or the user's data folder."""
    home = os.environ.get(_HOME)
    return Path(home).expanduser() if home else Path(platformdirs.user_data_path("moa_nb", appauthor=False))


def user_folder() -> Path:
    """Return the folder of the user's settings and templates."""
    home = os.environ.get(_HOME)
    return Path(home).expanduser() if home else Path(platformdirs.user_config_path("moa_nb", appauthor=False))


def project_folder() -> Path:
    """Return the nearest folder upwards that has a ``moa.toml`` or ``[tool.moa_nb]``; else this one."""
    found = _project_file()
    return found.parent if found else Path.cwd()


def template_folders() -> list[Path]:
    """Return where the user's own templates may lie: the project's folder first, then the user's."""
    return [project_folder() / "templates", user_folder() / "templates"]


def _project_file() -> Path | None:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "moa.toml").is_file():
            return folder / "moa.toml"
        pyproject = folder / "pyproject.toml"
        if pyproject.is_file() and _TABLE.search(pyproject.read_bytes()):
            return pyproject
    return None


def fence_secret() -> bytes:
    """Return the secret of this user's fences: the same on every run, known to nobody else.

    It lies in the data folder. Where that cannot be written, this process has one of its own, and
    requests are byte-identical only within it.
    """
    return _secret_in(data_folder())


@cache
def _secret_in(folder: Path) -> bytes:
    path = folder / "fence.key"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = folder / f".fence.{os.getpid()}.{secrets.token_hex(4)}"
        if not path.exists():
            fresh.touch(mode=0o600)
            fresh.write_bytes(secrets.token_bytes(32))
            try:
                # A link appears whole or not at all: two kernels that start at once agree on one.
                os.link(fresh, path)
            except FileExistsError:
                pass
            except OSError:
                fresh.replace(path)
            fresh.unlink(missing_ok=True)
        stored = path.read_bytes()
    except OSError:
        stored = b""
    return stored if len(stored) == 32 else secrets.token_bytes(32)


# Layers of settings -----------------------------------------------------------------------------


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
    merged = _merge(previous, values)
    for key, value in values.items():
        if value is None:
            merged.pop(key, None)
    _state.values, _state.seen = merged, ()
    try:
        current()
    except SettingsError:
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
    return rows


def _fingerprint() -> tuple[Any, ...]:
    files = (user_folder() / "moa.toml", _project_file())
    stamps = tuple((str(file), file.stat().st_mtime_ns) if file and file.is_file() else None for file in files)
    return (
        stamps,
        tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(_PREFIX))),
        id(_state.values),
    )


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
        raise SettingsError(_say(error, sources)) from None


def _layers() -> list[tuple[str, dict[str, Any]]]:
    layers = []
    user = user_folder() / "moa.toml"
    if user.is_file():
        layers.append((str(user), _read(user)))
    project = _project_file()
    if project and project != user:
        data = _read(project)
        layers.append(
            (str(project), data.get("tool", {}).get("moa_nb", {}) if project.name == "pyproject.toml" else data)
        )
    for source, values in layers:
        _refuse_keys(source, values)
    layers.extend(_environment())
    if _state.values:
        layers.append(("configure", _state.values))
    for source, values in layers:
        _check_models(source, values)
    return layers


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{file} is not valid TOML: {error}"
        raise SettingsError(msg) from None


def _refuse_keys(source: str, values: Mapping[str, Any]) -> None:
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


def _check_models(source: str, values: Mapping[str, Any]) -> None:
    models = values.get("models")
    for name, entry in models.items() if isinstance(models, Mapping) else ():
        provider, _, model = name.partition(":")
        if isinstance(entry, Mapping) and not (provider and model):
            example = f"{provider or 'lab'}:NAME"
            shown = f"models={{{example!r}: …}}" if source == "configure" else f'[models."{example}"]'
            msg = f"{source}: models.{name} is no model: it is named provider:model in quotes, as in {shown}"
            raise SettingsError(msg)


def _environment() -> list[tuple[str, dict[str, Any]]]:
    layers = []
    for name, text in os.environ.items():
        if not name.startswith(_PREFIX) or name == _HOME or not text.strip():
            continue
        key = name.removeprefix(_PREFIX).lower()
        if key not in Settings.model_fields or key in {"providers", "models"}:
            msg = f"the environment variable {name} sets nothing; {nearest(key, Settings.model_fields)}"
            raise SettingsError(msg)
        value = tuple(part.strip() for part in text.split(",") if part.strip()) if key == "proposers" else text
        layers.append((f"environment ({name})", {key: value}))
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


def _say(error: ValidationError, sources: Mapping[str, str]) -> str:
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
    message = first["msg"].removeprefix("Value error, ")
    got = "" if path.startswith("providers") else f" (got {first['input']!r:.60})"  # may be a key in the wrong place
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
