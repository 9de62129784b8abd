"""How many tokens a text has, about, for the model that will read it; nothing is downloaded."""

from __future__ import annotations

from moa_nb.tokens.counting import count_prompt_tokens, count_tokens, estimate_error, most_tokens

__all__ = ["count_prompt_tokens", "count_tokens", "estimate_error", "most_tokens"]
