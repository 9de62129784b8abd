"""Agents that need no model, key or network: classic extractive summarizers, and a consensus of them.

They choose sentences from the text that they are given and write none of their own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

from moa_nb.chat import Completion, Request, Usage
from moa_nb.errors import UnknownName, nearest
from moa_nb.tokens import count_tokens

__all__ = ["ALGORITHMS", "VERSION", "answer"]

ALGORITHMS: Mapping[str, str] = MappingProxyType(
    {
        "textrank": "sentences that share words with many others (PageRank over word overlap)",
        "lexrank": "sentences that are like many others (PageRank over tf-idf cosine)",
        "lsa": "sentences that weigh most in the text's strongest topics (singular vectors)",
        "lead": "the first sentences",
        "consensus": "the sentences that most proposals chose, ties decided by the ranks of all four",
    }
)
"""The agents by name, each with what it does in a line."""

VERSION = "2"
"""Which answers the algorithms give: part of the cache's key, and raised with every change of an answer."""


def answer(request: Request) -> Completion:
    """Return sentences from the request's material, chosen by the algorithm that its model names.

    The same request gives the same text. ``references`` are the proposals of ``offline:consensus``;
    to the other agents they are votes. The length is what the instruction asks for, else what suits
    the text; a text of one or two sentences comes back whole. No answer is longer than
    ``sampling.max_tokens`` by the estimate of ``count_tokens``: a sentence that alone is too long is
    cut, with the finish reason ``length``.

    Raises:
        UnknownName: no agent has that name.
        RowError: there is no text to choose from, or the task is to judge, rate or label.

    >>> from moa_nb.chat import conversation
    >>> answer(Request("offline:lead", conversation("Summarize in one sentence: It is fast. It is loud."))).text
    'It is fast.'
    """
    began = time.perf_counter()
    name = request.model.partition(":")[2] or request.model
    if name not in ALGORITHMS:
        msg = f"offline has no agent {name!r}: {nearest(name, ALGORITHMS)}"
        raise UnknownName(msg)
    # Here, since numpy and the splitting library need not be loaded before there is work.
    from moa_nb.providers.offline.extract import extract

    text, is_cut = extract(name, request)
    return Completion(
        text=text,
        model=f"offline:{name}",
        finish_reason="length" if is_cut else "stop",
        usage=Usage(
            prompt_tokens=sum(count_tokens(message.content) for message in request.messages),
            completion_tokens=count_tokens(text),
            estimated=True,
        ),
        cost=0.0,
        seconds=time.perf_counter() - began,
        note="extractive: these sentences are picked from your text, not written by a language model",
    )
