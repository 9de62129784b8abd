"""What is learnt from a row of a run, and where it comes from: the lines of training data."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from moa_nb.chat import Message
from moa_nb.frames.training.preferences import Pair
from moa_nb.panels.provenance import is_secret
from moa_nb.pipeline.result import Call, Result

__all__ = ["Example", "ExportFormat", "ExportRow", "digest", "examples"]

ExportFormat = Literal["chat", "preference", "openai-preference"]
"""What a line is. ``chat``: ``messages``, as OpenAI's fine-tuning and TRL's trainers take them. ``preference``:
``prompt``, ``chosen`` and ``rejected``, as TRL has them. ``openai-preference``: the same pairs as ``input``,
``preferred_output`` and ``non_preferred_output``, as OpenAI, Together and Fireworks take them."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One row of a run, with all that is known of it."""

    position: int
    """Which row, counted from 0."""
    label: Hashable
    """Its label in the frame's index."""
    result: Result
    agreement: float | None = None
    """How far the row's agents agree, 0 to 1; ``None``: as the result says."""

    @property
    def agreed(self) -> float | None:
        """The agreement; ``None`` where nobody knows it."""
        known = self.result.agreement if self.agreement is None else self.agreement
        return None if known is None or math.isnan(known) else known


class Example(NamedTuple):
    """One example."""

    data: dict[str, Any]
    """What is learnt from, as the format has it."""
    origin: dict[str, Any]
    """Where it comes from."""


def examples(
    row: ExportRow,
    format: ExportFormat,  # noqa: A002 - as the option is called
    pairs: Sequence[Pair],
    *,
    run_id: str,
    score: float | None,
) -> list[Example]:
    """Return a row's examples: one of ``chat``, and of preferences one for each pair, equal pairs once.

    The messages are the conversation that was asked and the answer, never what agents were told besides.
    """
    prompt = [turn.to_dict() for turn in row.result.conversation]
    chosen, origin = _said(row.result.text), _origin(row, run_id, score)
    if format == "chat":
        return [Example({"messages": [*prompt, *chosen]}, origin)]
    found: dict[str, Example] = {}
    for pair in pairs:
        rejected = _said(pair.rejected.text.strip())
        data: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        if format == "openai-preference":
            data = {"input": {"messages": prompt}, "preferred_output": chosen, "non_preferred_output": rejected}
        judged = {"judges": [*pair.judges], "method": pair.method}
        models = {"chosen_model": pair.chosen.model, "rejected_model": pair.rejected.model}
        found.setdefault(_normal(pair.rejected.text), Example(data, {**origin, **models, **judged}))
    found.pop(_normal(row.result.text), None)
    return list(found.values())


def digest(conversation: Sequence[Message]) -> bytes:
    r"""Return what tells a prompt from others: those that differ only in case and white space have the same.

    >>> digest([Message("user", "Why did churn rise?")]) == digest([Message("user", "why did\nchurn  rise? ")])
    True
    """
    # A normal text has no line ends, so they tell apart where one turn ends and the next begins.
    text = "\n".join(f"{turn.role}: {_normal(turn.content)}" for turn in conversation)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _said(text: str) -> list[dict[str, str]]:
    return [Message("assistant", text).to_dict()]


# Provenance --------------------------------------------------------------------------------------


def _origin(row: ExportRow, run_id: str, score: float | None) -> dict[str, Any]:
    """Return where a row's answer comes from; ``cost`` is what the answers took when they were asked.

    Readers of tables want each field of one type in every line of every file. So names that are not known are empty,
    and what may be of several types is JSON within a text, ``null`` where it is not known: figures, labels, parameters.
    """
    result = row.result
    paid, saved = result.cost, result.saved
    asked = dict.fromkeys(_asked(layer.name, call) for layer in result.layers for call in layer.calls if call.ok)
    return {
        "run_id": run_id,
        "row": row.position,
        "label": _json(row.label),
        "pipeline": result.pipeline,
        "models": [one._asdict() for one in asked],
        "agreement": _json(row.agreed),
        "score": _json(score),
        "cost": _json(None if paid is None or saved is None else paid + saved),
        "moa_nb": _version(),
    }


class _Asked(NamedTuple):
    layer: str
    model: str
    answered_by: str
    template: str
    template_digest: str
    parameters: str


def _asked(layer: str, call: Call) -> _Asked:
    template = call.template or "", call.template_digest or ""
    return _Asked(layer, call.model, call.answered_by, *template, _json(dict(call.parameters)))


@functools.cache
def _version() -> str:
    return importlib.metadata.version("moa-nb")


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a value in JSON's terms; what JSON does not know as its text, what may be a key as '…'."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): "…" if is_secret(str(name)) else _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    item = getattr(value, "item", None)  # a number of numpy's
    return _plain(item()) if callable(item) else str(value)
