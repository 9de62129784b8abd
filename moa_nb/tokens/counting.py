"""Counting tokens as a model's family does, with the vocabularies that ``splintr`` carries."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sized

from moa_nb.chat import Message
from moa_nb.tokens.families import family_of
from moa_nb.tokens.pieces import count_pieces

__all__ = ["count_prompt_tokens", "count_tokens", "estimate_error", "most_tokens"]


def count_tokens(text: str, model: str | None = None) -> int:
    """Return about how many tokens ``model`` makes of ``text``; never more than its UTF-8 bytes.

    It is exact where the family's vocabulary is public, else a near relative's count times a factor.
    What looks like a special token is text. Without the tokenizer package, for agents that are no
    language models and for ``None`` it is a rough count that knows no tokenizer. A vocabulary is
    loaded when it is first needed.

    Args:
        text: any text; what cannot be sent, such as a lone surrogate, counts as a replacement.
        model: ``provider:model``, or ``None`` for no model in particular.

    >>> count_tokens("The battery lasts two days.")
    6
    """
    family = family_of(model)
    encode = _encoder(family.encoding)
    if encode is None:
        n_tokens = count_pieces(text)
    else:
        try:
            n_tokens = len(encode(text))
        except UnicodeEncodeError:
            n_tokens = len(encode(text.encode("utf-8", "replace").decode()))
        if family.factor != 1:
            n_tokens = math.ceil(n_tokens * family.factor)
    # A text has at least as many bytes as characters, so that these are seldom counted.
    return n_tokens if n_tokens <= len(text) else min(n_tokens, most_tokens(text))


def most_tokens(text: str, model: str | None = None) -> int:  # noqa: ARG001 - stands in for count_tokens
    """Return what no tokenizer passes, at no cost: the text's UTF-8 bytes.

    >>> most_tokens("word"), most_tokens("语")
    (4, 3)
    """
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count_prompt_tokens(
    messages: Iterable[Message], model: str | None = None, *, count: Callable[[str, str | None], int] = count_tokens
) -> int:
    """Return about how many tokens a whole prompt has, with what the chat format puts around its messages.

    Args:
        messages: what is sent.
        model: as in ``count_tokens``; ``None`` adds what is usual.
        count: what counts a text; ``most_tokens`` for an upper bound, a cached ``count_tokens`` where the
            same long texts come again.

    >>> count_prompt_tokens([Message("user", "Hello")])
    8
    """
    family = family_of(model)
    return family.per_prompt + sum(family.per_message + count(message.content, model) for message in messages)


def estimate_error(model: str | None = None) -> float:
    """Return what the true count may be above the estimate, as a share of it: 0.05 is 5 %.

    >>> estimate_error("openai:gpt-4o") <= estimate_error("lab:alpha") <= estimate_error()
    True
    """
    family = family_of(model)
    return (family if _encoder(family.encoding) else family_of(None)).error


@functools.cache
def _encoder(encoding: str | None) -> Callable[[str], Sized] | None:
    """Return what cuts a text into an encoding's tokens; ``None`` where there is none."""
    if encoding is None:
        return None
    try:
        import splintr
    except ImportError:  # there is no wheel for this machine
        return None
    return splintr.Tokenizer.from_pretrained(encoding).encode_ordinary
