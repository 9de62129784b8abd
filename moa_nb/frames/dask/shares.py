"""A process's share of the settings: so much of every limit that all processes together keep it."""

from __future__ import annotations

import functools
import pickle
import threading
from typing import Any

from moa_nb.errors import SetupError
from moa_nb.providers.secrecy import is_secret
from moa_nb.settings import ProviderSettings, Settings, services

__all__ = ["has_rates", "keyed", "packed", "share", "unpacked"]

_RATES = ("requests_per_minute", "tokens_per_minute")

_shares: dict[tuple[int, int], tuple[Settings, Settings]] = {}
"""By the identity of the settings, which are kept for that, and the number of processes: one gateway for each."""


def share(settings: Settings, n_processes: int) -> Settings:
    """Return the settings with calls in flight, requests and tokens per minute for one of ``n_processes``.

    Raises:
        SetupError: a limit cannot be divided so often.

    >>> half = share(Settings(concurrency=9), 2)
    >>> half.concurrency, half is share(Settings(concurrency=9), 2), Settings(concurrency=9).concurrency
    (4, False, 9)
    """
    if n_processes == 1:
        return settings
    known = _shares.get((id(settings), n_processes))
    if known is None:
        # One, also where two partitions ask first: with two, a process would take twice its share.
        known = _shares.setdefault((id(settings), n_processes), (settings, _divided(settings, n_processes)))
    return known[1]


def _divided(settings: Settings, n_processes: int) -> Settings:
    part = functools.partial(_part, n_processes=n_processes)
    services_with_limits = {
        name: ProviderSettings(base_url=service.base_url, wire=service.wire, key_env=service.key_env, concurrency=most)
        for name, service in services().items()
        if (most := service.concurrency) is not None and name not in settings.providers
    }
    providers = {
        name: one.model_copy(
            update={
                "concurrency": part(f"providers.{name}.concurrency", one.concurrency or _known(name)),
                **{rate: part(f"providers.{name}.{rate}", getattr(one, rate)) for rate in _RATES},
            }
        )
        for name, one in {**services_with_limits, **settings.providers}.items()
    }
    models = {
        name: one.model_copy(update={rate: part(f"models.{name}.{rate}", getattr(one, rate)) for rate in _RATES})
        for name, one in settings.models.items()
    }
    return _with(settings, concurrency=part("concurrency", settings.concurrency), providers=providers, models=models)


def _with(settings: Settings, **values: Any) -> Settings:
    """Return the settings with other values; what nobody set stays so: calls in flight then grow from a small start."""
    known = {name: getattr(settings, name) for name in Settings.model_fields}
    return Settings.model_construct(_fields_set=set(settings.model_fields_set), **{**known, **values})


def _known(name: str) -> int | None:
    service = services().get(name)
    return None if service is None else service.concurrency


def _part(name: str, limit: int | None, n_processes: int) -> int | None:
    if limit is None:
        return None
    if limit < n_processes:
        msg = (
            f"{name} is {limit}, which cannot be shared by {n_processes} worker processes: pass workers={limit},"
            " or fewer, or raise it"
        )
        raise SetupError(msg)
    return limit // n_processes


def has_rates(settings: Settings) -> bool:
    """Return whether requests or tokens per minute are limited somewhere."""
    limited = [*settings.providers.values(), *settings.models.values()]
    return any(getattr(one, rate) is not None for one in limited for rate in _RATES)


# On their way to workers -------------------------------------------------------------------------


def keyed(settings: Settings) -> list[str]:
    """Return the providers whose key this process alone has, since ``moa.configure`` was given it."""
    return [name for name, one in settings.providers.items() if one.key is not None or any(map(is_secret, one.headers))]


def packed(settings: Settings) -> bytes:
    """Return settings as they travel: without any key."""
    providers = {
        name: one.model_copy(
            update={
                "key": None,
                "headers": {header: value for header, value in one.headers.items() if not is_secret(header)},
            }
        )
        for name, one in settings.providers.items()
    }
    return pickle.dumps(_with(settings, providers=providers))


_arriving = threading.Lock()


def unpacked(settings: bytes) -> Settings:
    """Return settings that have arrived: equal ones are one, and so have one gateway."""
    with _arriving:  # a cache alone lets two threads have one each
        return _unpacked(settings)


@functools.lru_cache(maxsize=64)
def _unpacked(settings: bytes) -> Settings:
    found = pickle.loads(settings)  # noqa: S301 - it came with the code that this process was told to run
    assert isinstance(found, Settings)
    return found
