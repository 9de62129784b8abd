"""What is known of services: address, format, default models. The data are in ``services.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Service", "services"]


@dataclass(frozen=True)
class Service:
    """A service known by name: an entry of ``services.toml``."""

    name: str
    base_url: str
    wire: str = "openai"
    key_env: str | None = None
    key_header: str | None = None
    prices: str | None = None
    local: bool = False
    concurrency: int | None = None
    batch: bool = False
    mark: tuple[str, str] | None = None
    proposers: tuple[str, ...] = ()
    aggregator: str | None = None
    strong: str | None = None
    small: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def spelling(self, model: str) -> dict[str, str]:
        """Return what it calls a request's fields for a model, where its format calls them otherwise.

        An empty name is a field that it does not take.
        """
        found = dict(self.fields)
        for pattern, fields in self.models.items():
            if fnmatchcase(model, pattern):
                found.update(fields)
        return found

    def roles(self) -> dict[str, tuple[str, ...]]:
        """Return its default models by role, as ``provider:model``."""
        named = {
            "proposers": self.proposers,
            "aggregator": (self.aggregator,),
            "strong": (self.strong,),
            "small": (self.small,),
        }
        return {role: tuple(f"{self.name}:{model}" for model in models if model) for role, models in named.items()}


@cache
def services() -> dict[str, Service]:
    """Return the known services by name, in the order in which they are looked for."""
    data = tomllib.loads((Path(__file__).parents[1] / "services.toml").read_text("utf-8"))
    known = {}
    for name, entry in data.items():
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        known[name] = Service(name, **values)
    return known
