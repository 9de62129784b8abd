"""Who answers: the models of each role, and one line that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from moa_nb.gateway import Gateway
from moa_nb.settings import Service, Settings, services, services_with_keys

__all__ = ["Cast", "cast"]

_PROBE_SECONDS = 0.2
_MOST_LOCAL = 4
_NOT_FOR_CHAT = ("embed", "rerank", "whisper", "tts", "clip", "bge-")

_Models = Mapping[str, tuple[str, ...]]

_OFFLINE: _Models = {
    "proposers": ("offline:textrank", "offline:lexrank", "offline:lsa", "offline:lead"),
    "aggregator": ("offline:consensus",),
}


@dataclass(frozen=True)
class Cast:
    """The models of every role, and why these."""

    roles: _Models
    """Model ids by role; one for every role but ``proposers``."""
    why: str
    """One line for people."""
    is_offline: bool = False


async def cast(settings: Settings, gateway: Gateway) -> Cast:
    """Return who answers: what is configured, else the first key, else a local server, else offline."""
    configured = _configured(settings)
    if configured:
        names = ", ".join(dict.fromkeys(configured.get("proposers", ()) + configured.get("aggregator", ())))
        roles = _complete(configured)
        moved = _moved(settings, (model for models in roles.values() for model in models))
        places = "".join(f", {name} at {host}" for name, host in moved.items())
        return Cast(roles, f"uses {names}{places} (configured)")
    for service in services_with_keys(settings):
        place = "".join(f" at {host}" for host in _moved(settings, [f"{service.name}:"]).values())
        return Cast(
            _complete(service.roles()),
            f"uses {service.name}{place} ({service.key_env} is set): {_list(service.proposers)}",
        )
    local = await _local_server(gateway)
    if local:
        return local
    return Cast(
        _complete(_OFFLINE),
        "no key and no local server found: uses the offline agents, which pick sentences from your text and are not language models",
        is_offline=True,
    )


def _configured(settings: Settings) -> dict[str, tuple[str, ...]]:
    roles = {"proposers": settings.proposers}
    for role in ("aggregator", "judge", "small", "strong"):
        model = getattr(settings, role)
        roles[role] = (model,) if model else ()
    return {role: models for role, models in roles.items() if models}


def _moved(settings: Settings, models: Iterable[str]) -> dict[str, str]:
    """Return the known services among the providers of ``models`` that the settings put on another host, with that host.

    A project's file may do so, and then the user's key and texts go there.
    """
    moved = {}
    for name in dict.fromkeys(model.partition(":")[0] for model in models):
        configured, known = settings.providers.get(name), services().get(name)
        if configured and known:
            host = urlsplit(configured.base_url).netloc
            if host.lower() != urlsplit(known.base_url).netloc:
                moved[name] = host or configured.base_url
    return moved


def _complete(roles: _Models) -> _Models:
    """Return all roles: who is not named is played by the nearest one that is."""
    full = dict(roles)
    strongest = next(full[role] for role in ("aggregator", "strong", "judge", "proposers", "small") if full.get(role))[
        :1
    ]
    full.setdefault("aggregator", strongest)
    full.setdefault("proposers", full["aggregator"] * 3)
    full.setdefault("strong", full["aggregator"])
    full.setdefault("judge", full["aggregator"])
    full.setdefault("small", full["proposers"][:1])
    return full


async def _local_server(gateway: Gateway) -> Cast | None:
    local = [service for service in services().values() if service.local]
    found = await asyncio.gather(*(_probe(service, gateway) for service in local))
    for service, models in zip(local, found, strict=True):
        if models:
            chosen = tuple(f"{service.name}:{model}" for model in models[:_MOST_LOCAL])
            roles = {"proposers": chosen if len(chosen) > 1 else chosen * 3, "aggregator": chosen[:1]}
            return Cast(_complete(roles), f"uses {service.name} on this machine ({service.base_url}): {_list(models)}")
    return None


async def _probe(service: Service, gateway: Gateway) -> list[str]:
    """Return the chat models of a local server; empty if it is not there or is something else."""
    assert service.mark is not None
    path, word = service.mark
    host = service.base_url.removesuffix("/v1")
    marked, listed = await asyncio.gather(
        gateway.get(host + path, _PROBE_SECONDS),
        gateway.get(service.base_url + "/models", _PROBE_SECONDS),
    )
    if marked is None or marked.status != 200 or word.encode() not in marked.body or listed is None:
        return []
    try:
        names = [entry["id"] for entry in orjson.loads(listed.body)["data"]]
    except (ValueError, KeyError, TypeError):
        return []
    return [name for name in names if not any(part in name.lower() for part in _NOT_FOR_CHAT)]


def _list(names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    return ", ".join(known[:_MOST_LOCAL]) + (", …" if len(known) > _MOST_LOCAL else "")
