"""The tokenizers of the model families, as data: whose words fall into which pieces, and how far off that is.

The figures were fitted to recorded exchanges with the services, which report their own counts;
``tests/benchmarks/token_error.py`` prints how well they do.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

__all__ = ["Family", "family_of"]


@dataclass(frozen=True, slots=True)
class Family:
    """Models that count alike."""

    name: str
    pattern: str
    """What their names have in common: a regular expression, searched in the lower-case name."""
    encoding: str | None
    """Whose pieces are counted, by the tokenizer package's name; ``None``: the rough count."""
    error: float
    """What the true count may be above the estimate, as a share of it."""
    factor: float = 1.0
    """Tokens that the service reports for one that is counted; other than 1 where its own pieces are not public."""
    per_message: int = 4
    """Tokens that the chat format puts around each message."""
    per_prompt: int = 3
    """Tokens that stand around the whole, a service's own preamble included."""


_FAMILIES = (
    # The first that matches counts: derived models before those that they are named after.
    Family("gpt-oss", r"gpt-?oss", "o200k_base", 0.05, per_prompt=63),
    Family("openai", r"gpt-4o|gpt-4\.[1-9]|gpt-[5-9]|(^|/)o[1-9](-|$)|chatgpt", "o200k_base", 0.05),
    Family("openai, before GPT-4o", r"gpt-4|gpt-?3\.?5|davinci|babbage", "cl100k_base", 0.05),
    Family(
        "claude, from Opus 4.7",
        r"claude-(opus|sonnet|haiku)-(4[.-][7-9]\b|[5-9])|claude-(4\.[7-9]|[5-9])",
        "cl100k_base",
        0.25,
        factor=1.4,
    ),
    Family("claude", r"claude", "cl100k_base", 0.15, factor=1.14),
    Family("gemini", r"gemini|gemma", "gemma4", 0.05, per_message=1, per_prompt=0),
    Family("llama 4", r"llama-?4", "o200k_base", 0.15, per_message=5, per_prompt=5),
    Family("llama 2", r"llama-?2|codellama|vicuna|tinyllama", "llama2", 0.05, per_message=5, per_prompt=2),
    Family("llama 3.1", r"llama-?v?3[.p-][1-9](?!\d*b)", "llama3", 0.05, per_message=5, per_prompt=30),
    Family("sonar", r"\bsonar", "llama3", 0.05, per_message=0, per_prompt=1),
    Family("llama 3", r"llama", "llama3", 0.05, per_message=5, per_prompt=5),
    Family("qwen", r"qwen|qwq", "qwen3", 0.05, per_message=5, per_prompt=3),
    Family("deepseek", r"deepseek", "deepseek_v3", 0.05, per_message=1, per_prompt=3),
    Family("mistral, before NeMo", r"mixtral|mistral-7b|mistral:7b|zephyr", "mistral_v1", 0.05, per_prompt=1),
    Family("mistral", r"\w*stral", "mistral_v3", 0.05, per_message=2, per_prompt=13),
    Family("glm", r"\bglm", "glm4", 0.05, per_message=2, per_prompt=10),
    Family("kimi", r"kimi|moonshot", "kimi_k2", 0.05),
    Family("phi", r"\bphi-?[34]", "phi4", 0.1),
)

_UNKNOWN = Family("unknown", "", "o200k_base", 0.3)

_ROUGH = Family("no model", "", None, 0.65)

_BY_PROVIDER = {
    "anthropic": "claude",
    "deepseek": "deepseek",
    "gemini": "gemini",
    "mistral": "mistral",
}
"""The families of models whose names say nothing."""


@functools.lru_cache(1024)
def family_of(model: str | None) -> Family:
    """Return the family that a ``provider:model`` belongs to; ``None`` is no model.

    >>> family_of("openrouter:anthropic/claude-sonnet-4.5").name
    'claude'
    >>> family_of("ollama:llama3.2:3b").name
    'llama 3.1'
    >>> family_of("lab:alpha").name
    'unknown'
    """
    if model is None:
        return _ROUGH
    provider, _, name = model.lower().partition(":")
    if provider in {"offline", "function"}:
        return _ROUGH
    for family in _FAMILIES:
        if re.search(family.pattern, name):
            return family
    known = _BY_PROVIDER.get(provider)
    return next((family for family in _FAMILIES if family.name == known), _UNKNOWN)
