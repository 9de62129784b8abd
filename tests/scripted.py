"""Models that answer whatever any strategy asks of them: an answer, a verdict, a rating, a choice."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import moa_nb as moa
from moa_nb.chat import Message
from moa_nb.pipeline import presets
from moa_nb.testing import ChatServer, Reply
from moa_nb.tokens import count_prompt_tokens, count_tokens

__all__ = ["MODELS", "PIPELINES", "Models", "configured", "is_control", "pipeline"]

MODELS = {"a": "house", "b": "water", "c": "music", "z": "paper", "s": "green", "t": "world", "j": "light"}
"""The models, each with the word that its answers are made of, which is one token."""

_ANY = "lab:a"
"""Whose tokens are counted; the others' are the same."""

PIPELINES: dict[str, dict[str, Any]] = {
    **{name: {} for name in presets.names()},
    "debate of numbers": {"strategy": "debate", "answer": "number", "rounds": 3},
    "consensus on numbers": {"strategy": "ice", "answer": "number", "rounds": 3},
    "pairs in one order": {"strategy": "judge", "method": "pairwise", "swap": False, "judges": ["lab:j", "lab:t"]},
    "pyramid whose oracle sees": {"strategy": "pyramid", "oracle_sees": True},
    "two ways have to agree": {"strategy": "consistency-cascade", "gate": "ways", "samples": 2},
    "three tiers": {"strategy": "automix", "tiers": ["lab:a", "lab:b", "lab:z"], "draws": 2, "verifier": "lab:j"},
    "a cascade of pipelines": {"strategy": "cascade", "tiers": ["single", "moa-lite", "moa"]},
    "pipelines in layers": {"layers": [["moa-lite", "lab:c"], ["lab:b", "single"], ["moa-lite"]]},
    "votes of numbers": {"strategy": "self-consistency", "answer": "number"},
}
"""Every preset, and strategies with other parameters."""


def pipeline(name: str) -> moa.Pipeline:
    """Return one of ``PIPELINES``."""
    return moa.Pipeline(name=name, **PIPELINES[name]) if PIPELINES[name] else presets.load(name)


def configured(server: ChatServer, **values: Any) -> None:
    """Set the models of all roles, at a dollar for each million tokens, and the secret of the fences.

    With it the marks between texts are the same on every run, and so are their tokens.
    """
    (Path(os.environ["MOA_NB_HOME"]) / "fence.key").write_bytes(b"the fences of these tests: alike")
    price = {"prompt_price": 1.0, "completion_price": 1.0}
    provider = {"base_url": server.base_url, **values.pop("provider", {})}
    moa.configure(
        **{
            "proposers": ["lab:a", "lab:b", "lab:c"],
            "aggregator": "lab:z",
            "small": "lab:s",
            "strong": "lab:t",
            "judge": "lab:j",
            "providers": {"lab": provider},
            "models": {f"lab:{name}": price for name in MODELS},
            **values,
        }
    )


_CONTROLS: dict[str, Callable[[bool], str]] = {
    "end with the verdict on a line": lambda _: "[[A]]",
    "says [[rating]]": lambda _: "[[8]]",
    "says [[number]]": lambda _: "[[1]]",
    "from [[0.00]]": lambda accept: "[[0.95]]" if accept else "[[0.05]]",
    '"Verdict: correct" or': lambda accept: f"Verdict: {'correct' if accept else 'incorrect'}",
    "from the least to the most capable": lambda accept: f"Category: {'small' if accept else 'strong'}",
    "You moderate a discussion": lambda accept: f'{{"keep": [1, 2], "end": {"true" if accept else "false"}}}',
}
"""What is asked for where no answer is, by words of the prompt; and what is said then."""

_RESIDUAL = '"improved: yes" or'


def is_control(text: str) -> bool:
    """Return whether a prompt asks for a verdict or the like, not for an answer."""
    return _RESIDUAL in text or any(words in text for words in _CONTROLS)


@dataclass
class Models:
    """Models in one mood: they agree and accept everything, or differ and reject everything.

    Args:
        accept: whether they agree and accept.
        tokens: of each answer; 0 for short ones.
    """

    accept: bool = True
    tokens: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: count(100))

    def serve(self, server: ChatServer) -> ChatServer:
        """Return the server, on which they now answer."""
        return server.on("*", self)

    def __call__(self, body: dict[str, Any]) -> Reply:
        """Return a model's reply, with the usage that it has by our own count."""
        prompt = "\n".join(str(message["content"]) for message in body["messages"])
        control = next((say(self.accept) for words, say in _CONTROLS.items() if words in prompt), None)
        word, number = ("answer", 7) if self.accept else (MODELS[body["model"]], next(self._numbers))
        text = _filled("", control or f"{word}. Answer: {number}", word, self.tokens)
        if control is None and _RESIDUAL in prompt:
            text = "improved: no" if self.accept else _filled("improved: yes\n\n", word, word, self.tokens)
        messages = tuple(Message(message["role"], message["content"]) for message in body["messages"])
        usage = {
            "prompt_tokens": count_prompt_tokens(messages, _ANY),
            "completion_tokens": count_tokens(text, _ANY),
        }
        return Reply(text, usage={**usage, "total_tokens": sum(usage.values())})


@functools.cache
def _filled(before: str, after: str, word: str, tokens: int) -> str:
    """Return a text of so many tokens, as far as it takes no fewer."""
    n_words = max(0, tokens - count_tokens(f"{before}{word}\n\n{after}", _ANY))
    while n_words and count_tokens(f"{before}{f'{word} ' * n_words}\n\n{after}", _ANY) > tokens:
        n_words -= 1
    return f"{before}{f'{word} ' * n_words}\n\n{after}".strip()
