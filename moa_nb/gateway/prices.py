"""What a model's tokens cost: looked up once a model, applied once a call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moa_nb.chat import Usage
from moa_nb.settings import ModelSettings, Provider

__all__ = ["FREE", "Price", "price_of"]


@dataclass(frozen=True)
class Price:
    """The price rule of one model."""

    of: Callable[[Usage], float]
    """Dollars for a usage."""
    source: str
    """Where it comes from: settings, genai-prices, or why it is free."""

    def cost(self, usage: Usage) -> float | None:
        """Return dollars; ``None`` where the service reported no tokens."""
        if usage.prompt_tokens is None and usage.completion_tokens is None:
            return None
        return self.of(usage)

    def worst(self, prompt_tokens: int, max_tokens: int) -> float:
        """Return the most that a call can cost."""
        return self.of(Usage(prompt_tokens, max_tokens))


FREE = Price(lambda _: 0.0, "free")
"""Offline agents, functions, and known servers on this machine."""


def price_of(model: str, provider: Provider, configured: ModelSettings | None) -> Price | None:
    """Return the price of a ``provider:model``; ``None`` when nobody knows it."""
    if configured and (configured.prompt_price is not None or configured.completion_price is not None):
        prompt, cached = configured.prompt_price or 0.0, configured.cached_prompt_price
        linear = functools.partial(
            _linear,
            prompt=prompt,
            cached=prompt if cached is None else cached,
            completion=configured.completion_price or 0.0,
        )
        return Price(linear, "settings")
    if provider.is_free:
        return FREE
    if provider.prices is None:
        return None
    return _listed(model.partition(":")[2], provider.prices)


def _linear(usage: Usage, *, prompt: float, cached: float, completion: float) -> float:
    from_cache = usage.cached_prompt_tokens or 0
    fresh = max((usage.prompt_tokens or 0) - from_cache, 0)
    return (fresh * prompt + from_cache * cached + (usage.completion_tokens or 0) * completion) / 1e6


def _listed(model: str, provider_id: str) -> Price | None:
    import genai_prices

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

    return Price(of, "genai-prices")
