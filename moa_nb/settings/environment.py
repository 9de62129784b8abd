"""What other libraries find in the environment by themselves: told beforehand, and known for what must not be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["preset", "secret_among", "secrets"]

_SECRET = re.compile(r"key|token|secret|password|credential|private", re.IGNORECASE)
_SHORTEST = 8
"""Characters of a value that can be a secret: shorter ones are numbers and switches."""


def preset(name: str, value: str) -> None:
    """Return nothing; a variable that is not set gets a value."""
    os.environ.setdefault(name, value)


def secrets() -> Iterator[str]:
    """Return the values of the variables whose names say that they hold a secret."""
    return secret_among(os.environ)


def secret_among(values: Mapping[str, Any]) -> Iterator[str]:
    """Return the texts among these whose names say that they are secret.

    >>> list(secret_among({"api_key": "sk-0123456789", "max_tokens": 9, "model": "openai/gpt-4o"}))
    ['sk-0123456789']
    """
    for name, value in values.items():
        if isinstance(value, str) and len(value.strip()) >= _SHORTEST and _SECRET.search(name):
            yield value.strip()
