"""What can be configured: every value with its built-in one, and a provider as a call needs it."""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from moa_nb.errors import KeyRejected, SettingsError, UnknownName, nearest
from moa_nb.settings.keys import Keys
from moa_nb.settings.known import Service
from moa_nb.settings.network import tls_context

__all__ = ["ROLES", "ModelSettings", "Provider", "ProviderSettings", "Settings"]

ROLES = ("proposers", "aggregator", "judge", "small", "strong")
"""The roles that pipelines ask for; ``$proposers`` in a pipeline is filled from these."""

_NO_SERVICES = ("offline", "function")
"""Providers that need no service."""

_VARIABLE = re.compile(r"\{([A-Z][A-Z0-9_]*)\}")
"""A part of an address that stands in a variable."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: object, info: ValidationInfo) -> object:
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            # For pydantic it would be a 1, and a budget of one dollar.
            msg = f"this takes a number, not {str(value).lower()}"
            raise ValueError(msg)
        return value


def _shown(file: Path | None) -> str:
    return str(file).encode("utf-8", "backslashreplace").decode("utf-8")  # a path may hold what no text does


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
    batch: bool | None = None
    """Whether it has a Batch API as OpenAI's or Anthropic's is; as the service at this address does, else not."""

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
        if not _VARIABLE.match(url) and not (urlsplit(url).scheme and urlsplit(url).hostname):
            msg = "an address begins with http:// or https://, as in http://127.0.0.1:8000/v1"
            raise ValueError(msg)
        return url


class ModelSettings(_Strict):
    """One model's prices (dollars per million tokens), context (tokens) and rates, over those of its provider."""

    prompt_price: float | None = Field(None, ge=0)
    completion_price: float | None = Field(None, ge=0)
    cached_prompt_price: float | None = Field(None, ge=0)
    context: int | None = Field(None, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)


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
    hedge: bool = False
    """Whether a call that takes far longer than its like is asked once more; the first answer counts."""
    references: Literal["trim", "summarize"] = "trim"
    """What happens to references that do not fit the next model's context: each is cut, or summarized by a call."""
    max_ref_chars: int | None = Field(None, ge=1)
    """The most characters of each reference; ``None`` for as many as fit."""
    store: Literal["disk", "none"] = "disk"
    """``none`` keeps nothing on disk."""
    keep_days: int | None = Field(None, ge=1)
    """Days after which stored answers and runs are deleted; ``None`` keeps them."""
    loop: Literal["thread", "kernel"] = "thread"
    """``kernel`` runs on the kernel's own event loop, for agents that are tied to it."""
    stream: bool = True
    """Show answers as they come, where a panel watches."""
    ca_file: Path | None = None
    """Certificates (PEM or DER) that are trusted besides the system's own; relative to the file that names it."""
    env_file: Path | None = None
    """A file of lines ``NAME=key``, read for keys that the environment lacks; relative to the file that names it."""
    colab_secrets: bool = False
    """Whether keys that are nowhere else are looked for in Colab's secrets."""
    providers: Mapping[str, ProviderSettings] = Field(default_factory=dict)
    models: Mapping[str, ModelSettings] = Field(default_factory=dict)

    @field_validator("proposers", mode="before")
    @classmethod
    def _one_or_several(cls, models: object) -> object:
        return (models,) if isinstance(models, str) else models

    @field_validator("ca_file")
    @classmethod
    def _holds_certificates(cls, file: Path | None) -> Path | None:
        try:
            if file is not None:
                tls_context(file)
        except (OSError, ValueError) as error:
            why = "holds no certificate" if isinstance(error, ssl.SSLError) else "cannot be read"
            msg = f"{_shown(file)} {why}; it takes the path of a file of certificates (PEM or DER)"
            raise ValueError(msg) from None
        return file

    @field_validator("env_file")
    @classmethod
    def _may_be_a_file(cls, file: Path | None) -> Path | None:
        try:
            wrong = "is a folder" if file is not None and stat.S_ISDIR(file.stat().st_mode) else ""
        except FileNotFoundError:
            return file  # not everybody who shares these settings has one
        except (OSError, ValueError):
            wrong = "cannot be read"
        if wrong:
            msg = f"{_shown(file)} {wrong}; it takes the path of a file, such as .env"
            raise ValueError(msg)
        return file

    @field_validator("providers")
    @classmethod
    def _can_be_named(cls, providers: Mapping[str, ProviderSettings]) -> Mapping[str, ProviderSettings]:
        for name in providers:
            if name in _NO_SERVICES or not name or ":" in name or name != name.strip():
                why = (
                    "is what this package calls its own agents"
                    if name in _NO_SERVICES
                    else "cannot stand in a model's name"
                )
                msg = f"{name!r} {why}: choose another name, as in [providers.lab]"
                raise ValueError(msg)
        return providers

    @property
    def keys(self) -> Keys:
        """Where keys are looked for."""
        return Keys(self.env_file, self.colab_secrets)

    def provider(self, model: str) -> Provider:
        """Return the provider of a ``provider:model`` id.

        Raises:
            UnknownName: no colon, or no provider of that name.
        """
        from moa_nb.settings import services

        name, colon, rest = model.partition(":")
        known = [*self.providers, *services(), *_NO_SERVICES]
        if not colon or not rest:
            names = [f"{service}:{name}" for service in self.providers] or ["openai:gpt-4o-mini"]
            example = f"{name}:NAME" if name in known else names[0]
            msg = f"a model is named provider:model, as in {example!r}, not {model!r}"
            raise UnknownName(msg)
        if name in _NO_SERVICES:
            return Provider(name, None, None)
        configured, service = self.providers.get(name), services().get(name)
        if configured is None and service is None:
            meant = nearest(name, known)
            stop = "" if meant.endswith("?") else "."
            msg = (
                f"no provider {name!r} (in {model!r}): {meant}{stop} A new one goes into moa.toml as [providers.{name}]"
            )
            raise UnknownName(msg)
        return Provider(name, configured, service, self.keys)


@dataclass(frozen=True)
class Provider:
    """A provider as a call needs it: the user's settings over what is known of the service."""

    name: str
    settings: ProviderSettings | None
    service: Service | None
    keys: Keys = field(default_factory=Keys)

    @property
    def base_url(self) -> str:
        """The address that paths are appended to, without a slash at its end.

        Raises:
            SettingsError: a variable that should hold a part of it is not set.
        """
        url = self.settings.base_url if self.settings else self.service.base_url if self.service else ""
        return _VARIABLE.sub(self._part, url).rstrip("/")

    def _part(self, variable: re.Match[str]) -> str:
        found = self.keys.find(variable[1])
        if found is None:
            advice = self.keys.advice(variable[1])
            msg = f"{self.name} needs its address: {advice}, or name it as providers.{self.name}.base_url"
            raise SettingsError(msg)
        return found[0].strip().rstrip("/")

    @property
    def key_env(self) -> str | None:
        """The variable that holds the key; ``None`` where no key is needed."""
        if self.settings is None:
            return self.service.key_env if self.service else None
        if self.settings.key_env is None and self.service and _VARIABLE.search(self.service.base_url):
            # Its address is always the user's own; no other service's key goes where it was not meant to go.
            return self.service.key_env
        return self.settings.key_env

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
        return self.name in _NO_SERVICES or bool(self.service and self.service.local)

    @property
    def wire(self) -> str:
        """The name of its format in ``WIRES``."""
        configured = self.settings.wire if self.settings else None
        return configured or (self.service.wire if self.service else "openai")

    @property
    def key_header(self) -> str | None:
        """The header that its key stands in, where that is not its format's."""
        return self.service.key_header if self.service else None

    @property
    def has_batches(self) -> bool:
        """Whether it has a Batch API: as configured, else where its address is that of a service which has one."""
        configured = self.settings.batch if self.settings else None
        if configured is not None:
            return configured
        service = self.service
        return service is not None and service.batch and self.base_url == service.base_url.rstrip("/")

    def spelling(self, model: str) -> dict[str, str]:
        """Return what it calls a request's fields for a model, where its format calls them otherwise."""
        service = self.service
        if service is None or self.wire != service.wire:
            return {}
        own = _VARIABLE.search(service.base_url) or self.base_url == service.base_url.rstrip("/")
        # Another server under the same name might not know a field, and answer without its bound.
        return service.spelling(model) if own else {}

    @property
    def prices(self) -> str | None:
        """Its id in genai-prices; ``None`` where prices come from the settings alone."""
        return self.service.prices if self.service else None

    def key(self) -> str | None:
        """Return the key, read now; ``None`` where none is needed.

        Raises:
            KeyRejected: it is nowhere, or cannot be sent.
        """
        given = self.settings.key if self.settings else None
        if isinstance(given, SecretStr):
            return self._usable(given.get_secret_value(), "moa.configure")
        if given is not None:
            try:
                fresh = given()
            except Exception as error:  # anybody's code; its words may hold the key
                msg = f"{self.name} needs a key, and the function that should give it raised {type(error).__name__}"
                raise KeyRejected(msg) from error
            return self._usable(fresh or None, "the function for the key")
        if not self.key_env:
            return None
        found = self.keys.find(self.key_env, again=True)
        if found is None:
            msg = f"{self.name} needs a key: {self.keys.advice(self.key_env)} (it is read when a call is made)"
            raise KeyRejected(msg)
        value, place = found
        return self._usable(value, place)

    def _usable(self, key: object, place: str) -> str:
        if not isinstance(key, str) or not key.strip().isprintable():
            msg = f"what {place} holds for {self.name} cannot be sent as a key: it must be one line of text"
            raise KeyRejected(msg)
        return key.strip()
