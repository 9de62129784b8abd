"""What a model's tokens cost: looked up once a model, applied once a call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from moa_nb.chat import Usage
from moa_nb.providers import litellm_bridge
from moa_nb.settings import ModelSettings, Provider

__all__ = ["FREE", "Price", "price_of"]

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """The price rule of one model."""

    of: Callable[[Usage], float]
    """Dollars for a usage."""
    source: str
    """Where it comes from: settings, genai-prices, litellm, or why it is free."""

    def cost(self, usage: Usage) -> float | None:
        """Return dollars; ``None`` where the service reported no tokens."""
        if usage.prompt_tokens is None and usage.completion_tokens is None:
            return None
        return self.of(_consistent(usage))

    def worst(self, prompt_tokens: int, max_tokens: int) -> float:
        """Return the most that a call can cost, however much of its prompt is read from or written to a cache."""
        return max(
            self.of(Usage(prompt_tokens, max_tokens)),
            self.of(Usage(prompt_tokens, max_tokens, cached_prompt_tokens=prompt_tokens)),
            self.of(Usage(prompt_tokens, max_tokens, cache_write_tokens=prompt_tokens)),
        )


def _consistent(usage: Usage) -> Usage:
    """Return the usage with no part of the prompt greater than the prompt: some services report such."""
    if not usage.cached_prompt_tokens and not usage.cache_write_tokens:
        return usage
    prompt = usage.prompt_tokens or 0
    cached = min(usage.cached_prompt_tokens or 0, prompt)
    written = min(usage.cache_write_tokens or 0, prompt - cached)
    return replace(usage, cached_prompt_tokens=cached, cache_write_tokens=written)


FREE = Price(lambda _: 0.0, "free")
"""Offline agents, functions, and known servers on this machine."""


def price_of(model: str, provider: Provider, configured: ModelSettings | None) -> Price | None:
    """Return the price of a ``provider:model``; ``None`` when nobody knows it."""
    if configured and (configured.prompt_price is not None or configured.completion_price is not None):
        prompt, cached = configured.prompt_price or 0.0, configured.cached_prompt_price
        rule = _Linear(prompt, prompt if cached is None else cached, prompt, configured.completion_price or 0.0)
        return Price(rule, "settings")
    if provider.is_free:
        return FREE
    if provider.prices is None:
        return None
    name = model.partition(":")[2]
    return _bridged(name) if provider.prices == "litellm" else _listed(name, provider.prices)


@dataclass(frozen=True, slots=True)
class _Linear:
    """Dollars per million tokens of each kind, and a fee a request."""

    prompt: float
    cached: float
    written: float
    completion: float
    fee: float = 0.0

    def __call__(self, usage: Usage) -> float:
        cached, written = usage.cached_prompt_tokens or 0, usage.cache_write_tokens or 0
        fresh = max((usage.prompt_tokens or 0) - cached - written, 0)
        tokens = fresh * self.prompt + cached * self.cached + written * self.written
        return self.fee + (tokens + (usage.completion_tokens or 0) * self.completion) / _MILLION


def _bridged(model: str) -> Price | None:
    of = litellm_bridge.rule(model)
    return None if of is None else Price(_straight(of) or of, "litellm")


def _listed(model: str, provider_id: str) -> Price | None:
    import genai_prices

    if "{}" in provider_id:
        # A router's model names the service behind it at its end, and each has prices of its own.
        model, _, behind = model.rpartition(":")
        provider_id = provider_id.format(behind)

    try:
        found = genai_prices.calc_price(genai_prices.Usage(), model_ref=model, provider_id=provider_id)
    except LookupError:
        return None
    rule: Any = found.model_price

    def of(usage: Usage) -> float:
        counted = genai_prices.Usage(
            input_tokens=usage.prompt_tokens or 0,
            output_tokens=usage.completion_tokens or 0,
            cache_read_tokens=usage.cached_prompt_tokens or 0,
            cache_write_tokens=usage.cache_write_tokens or 0,
        )
        return float(rule.calc_price(counted)["total_price"])

    return Price(_straight(of) or of, "genai-prices")


_SIZES = (1_000, 150_000, 250_000, 600_000, 10 * _MILLION)


def _straight(of: Callable[[Usage], float]) -> _Linear | None:
    """Return the rule as four rates, which cost a fiftieth to apply; ``None`` where it has tiers."""
    fee = of(Usage(0, 0))

    def rate(usage: Callable[[int], Usage]) -> float:
        found = [(of(usage(size)) - fee) / size * _MILLION for size in _SIZES]
        if not all(math.isclose(one, found[0], rel_tol=1e-9, abs_tol=1e-12) for one in found):
            raise ValueError
        return found[0]

    try:
        return _Linear(
            prompt=rate(lambda size: Usage(size, 0)),
            cached=rate(lambda size: Usage(size, 0, cached_prompt_tokens=size)),
            written=rate(lambda size: Usage(size, 0, cache_write_tokens=size)),
            completion=rate(lambda size: Usage(0, size)),
            fee=fee,
        )
    except ValueError:
        return None
