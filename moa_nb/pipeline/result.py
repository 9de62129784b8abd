"""What a run leaves behind: the answer, and every call that led to it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from moa_nb.chat import Message, Usage
from moa_nb.money import dollars

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Call", "Layer", "Result"]


@dataclass(frozen=True, slots=True)
class Call:
    """One question to one agent: what it saw, what it said, what that took."""

    agent: str
    """The agent's name within the pipeline."""
    model: str
    """``provider:model`` as asked."""
    prompt: tuple[Message, ...] = ()
    """The messages sent."""
    text: str = ""
    usage: Usage = Usage()  # noqa: RUF009 - frozen
    cost: float | None = None
    """Dollars paid now; 0 from the cache, ``None`` where no price is known."""
    saved: float | None = 0.0
    """Dollars that a cached answer took when it was asked; 0 for one that was paid now."""
    started: float = 0.0
    """Seconds after the run's start."""
    queued_seconds: float = 0.0
    first_token_seconds: float | None = None
    seconds: float = 0.0
    cached: bool = False
    attempts: int = 1
    unreported: int = 0
    """Attempts that may be billed beside what is reported: cut off, given up, or overtaken by another."""
    repeats: int = 0
    """How often the same was asked once more, since the answer could not be read; counted in all the figures."""
    error: str | None = None
    """One line, for people; never part of a prompt. ``None`` for an answer."""
    error_kind: str | None = None
    """``setup``, ``row``, ``service`` or ``budget``; ``None`` for an answer."""
    finish_reason: str | None = None
    answered_by: str = ""
    """The model that the service says answered."""
    key: str | None = None
    """The digest, in hex digits, under which the store keeps the answer; ``None`` where it keeps nothing."""
    reasoning: str | None = None
    note: str | None = None
    parameters: tuple[tuple[str, Any], ...] = ()
    """The sampling parameters sent, by name."""
    template: str | None = None
    """The template that quoted the references; ``None`` when the agent saw only the conversation."""
    template_digest: str | None = None
    value: Any = None
    """What was read from the text: a filled form, a vote, a verdict; ``None`` where nothing was to be read, or could be."""

    @property
    def ok(self) -> bool:
        """Whether the call has an answer."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Layer:
    """Calls of one run that could go out at the same time, in declaration order."""

    name: str
    calls: tuple[Call, ...] = ()
    aside: bool = False
    """Whether its calls are no answers to the question: verdicts, critiques, choices among answers."""

    @property
    def n_ok(self) -> int:
        """How many agents answered."""
        return sum(call.ok for call in self.calls)


@dataclass(frozen=True)
class Result:
    """The answer of one pipeline to one input, with its layers, usage, cost and flags."""

    text: str
    pipeline: str
    layers: tuple[Layer, ...] = ()
    value: Any = None
    """The parsed answer, where the pipeline parses one; else ``None``."""
    seconds: float = 0.0
    """Wall time of the whole run."""
    degraded: bool = False
    """Some agent's answer is missing, cut off or shortened."""
    converged: bool | None = None
    """Whether the agents agreed in the end; ``None`` where nobody asks."""
    accepted: bool | None = None
    """Whether a gate accepted the answer; ``None`` where there is none."""
    agreement: float | None = None
    """How far the agents agree, 0 to 1; ``None`` where nobody counts."""
    stop_reason: str = "done"
    n_unparsed: int = 0
    """Answers that a vote could not read."""
    notes: tuple[str, ...] = ()
    """What a reader must know, a sentence each."""
    run_id: str = ""
    conversation: tuple[Message, ...] = ()
    """The messages that were asked, before any agent added to them."""
    error: str | None = None
    """Why there is no answer; ``None`` when there is one."""
    budget: float | None = None
    """The ceiling of the run in dollars; ``None`` when it had none."""
    chat: Mapping[str, Any] | None = field(default=None, hash=False)
    """The chat whose latest turn it was: ``name``, and ``turns`` with the run of each; ``None`` where it was no turn."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls, layer by layer."""
        return tuple(call for layer in self.layers for call in layer.calls)

    @property
    def n_calls(self) -> int:
        """How many calls were asked for, cached and failed ones included."""
        return sum(len(layer.calls) for layer in self.layers)

    @functools.cached_property
    def usage(self) -> Usage:
        """Tokens of all calls together; cached answers count what they once took."""
        return functools.reduce(operator.add, (call.usage for call in self.calls), Usage())

    @functools.cached_property
    def cost(self) -> float | None:
        """Dollars paid for this run; ``None`` if a call's price is not known."""
        costs = [call.cost for call in self.calls if call.ok or call.cost is not None]
        if any(cost is None for cost in costs):
            return None
        return float(sum(cost for cost in costs if cost is not None))

    @property
    def unreported(self) -> int:
        """How many attempts may be billed beside what is reported: then ``cost`` is 'at least'."""
        return sum(call.unreported for call in self.calls)

    @functools.cached_property
    def saved(self) -> float | None:
        """Dollars that its cached answers took when they were asked; ``None`` if the price of one is not known."""
        saved = [call.saved for call in self.calls]
        return None if None in saved else float(sum(dollars for dollars in saved if dollars is not None))

    def replace(self, **changes: Any) -> Result:
        """Return a copy with other values."""
        return replace(self, **changes)

    def to_record(self) -> dict[str, Any]:
        """Return the run as plain data, from which ``from_record`` makes it again."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Result:
        """Return the run that ``to_record`` made plain data of."""
        layers = tuple(
            Layer(layer["name"], tuple(_call(call) for call in layer["calls"]), layer.get("aside", False))
            for layer in record["layers"]
        )
        rest = {key: value for key, value in record.items() if key not in {"layers", "notes", "conversation"}}
        turns = tuple(Message(**turn) for turn in record["conversation"])
        return cls(layers=layers, notes=tuple(record["notes"]), conversation=turns, **rest)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each call: layer, agent, model, text, tokens, cost, seconds, error."""
        import pandas as pd

        rows = [
            {
                "layer": layer.name,
                "agent": call.agent,
                "model": call.model,
                "text": call.text if call.ok else None,
                "prompt_tokens": call.usage.prompt_tokens,
                "completion_tokens": call.usage.completion_tokens,
                "cost": call.cost,
                "seconds": call.seconds,
                "cached": call.cached,
                "attempts": call.attempts,
                "error": call.error,
            }
            for layer in self.layers
            for call in layer.calls
        ]
        columns = [
            "layer",
            "agent",
            "model",
            "text",
            "prompt_tokens",
            "completion_tokens",
            "cost",
            "seconds",
            "cached",
            "attempts",
            "error",
        ]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype(
            {
                "prompt_tokens": "Int64",
                "completion_tokens": "Int64",
                "cost": "Float64",
                "seconds": "Float64",
                "attempts": "Int64",
                "cached": "boolean",
            },
        )

    def show(self) -> None:
        """Show the run's panel below the current cell; print it where there is no notebook."""
        from moa_nb.notebook.display import show

        show(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        from moa_nb.panels.bundle import bundle

        return bundle(self)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        cost = "unknown cost" if self.cost is None else f"${dollars(self.cost)}"
        return f"<Result of {self.pipeline!r}: {self.n_calls} call{'' if self.n_calls == 1 else 's'}, {cost}, {self.text[:60]!r}>"


def _call(record: Mapping[str, Any]) -> Call:
    rest = {key: value for key, value in record.items() if key not in {"prompt", "usage", "parameters"}}
    return Call(
        prompt=tuple(Message(**turn) for turn in record["prompt"]),
        usage=Usage(**record["usage"]),
        parameters=tuple((name, value) for name, value in record["parameters"]),
        **rest,
    )
