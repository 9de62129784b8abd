"""The options of a run, spelled once for functions, verbs and magics; light, since the verbs come with the first import."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from moa_nb.errors import UnknownOption, nearest

if TYPE_CHECKING:
    from moa_nb.pipeline.spec import Pipeline

__all__ = ["CacheMode", "Mode", "RunOptions", "refuse_unknown", "spelled_out"]

CacheMode = Literal["use", "refresh", "off"]

Mode = Literal["live", "batch"]

_DEFAULTS = {"cache": "use", "mode": "live"}
"""Of options that are never ``None``."""

_F = TypeVar("_F", bound=Callable[..., Any])


class RunOptions(TypedDict, total=False):
    """What one call may say over the settings; ``None`` or left out: as the settings or the pipeline say."""

    pipeline: str | Pipeline | None
    """Its name, or a ``Pipeline``."""
    models: Sequence[str | Callable[..., object]] | None
    """Who fills ``$proposers``: ``provider:model`` each, or a function."""
    aggregator: str | None
    """Who writes the final answer."""
    samples: int | None
    """Answers of each proposer."""
    layers: int | None
    """How many layers, the aggregator's included."""
    temperature: float | None
    max_tokens: int | None
    budget: float | str | None
    """For the whole run: dollars (``math.inf`` agrees to any), or a text such as ``"200 calls"`` or ``"50k tokens"``."""
    cache: CacheMode
    """``use`` answers from the store where it can; ``refresh`` asks and keeps; ``off`` asks and keeps nothing."""
    mode: Mode
    """``batch`` hands the calls in together through the service's Batch API: half the price, within a day."""


def spelled_out(function: _F) -> _F:
    """Return the function with ``**options`` shown as the keywords that they are, for help and completion."""
    signature = inspect.signature(function)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    known = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name))
        for name in RunOptions.__annotations__
        if name not in signature.parameters
    ]
    function.__signature__ = signature.replace(parameters=[*own, *known])  # type: ignore[attr-defined]  # shown by inspect
    return function


def refuse_unknown(function: Callable[..., Any], keywords: Iterable[str]) -> None:
    """Return nothing if a function that is spelled out takes all keywords.

    Raises:
        UnknownOption: naming the first that it does not take, and the nearest that it does.
    """
    known = inspect.signature(function).parameters
    for name in keywords:
        if name not in known:
            msg = f"{function.__name__}() got an unexpected keyword argument {name!r}; {nearest(name, known)}"
            raise UnknownOption(msg)
