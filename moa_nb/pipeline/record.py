"""A run while it goes on: what the result is made of in the end, and what a live panel reads meanwhile.

Written by the run on the engine's thread, read by panels on any other: fields are only ever
replaced or appended to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from moa_nb.chat import Message
from moa_nb.pipeline.result import Call, Layer, Result

__all__ = ["CallRecord", "LayerRecord", "RunRecord"]

State = Literal["waiting", "sent", "answering", "done", "failed", "cancelled"]


class CallRecord:
    """One call while it goes on; the gateway tells it what happens."""

    def __init__(self, agent: str, model: str, prompt: tuple[Message, ...], now: Callable[[], float]) -> None:
        self.agent, self.model, self.prompt = agent, model, prompt
        self.state: State = "waiting"
        self.pieces: list[str] = []
        self.attempts = 0
        self.retry_reason: str | None = None
        self.call: Call | None = None
        """The finished call; ``None`` until then."""
        self._now = now
        self.started = now()
        self.sent_at: float | None = None
        self.first_at: float | None = None

    def sent(self, attempt: int) -> None:
        """The request went out."""
        self.attempts, self.state = attempt, "sent"
        self.pieces = []
        self.sent_at = self.sent_at or self._now()

    def piece(self, text: str) -> None:
        """A piece of the answer came in."""
        if self.first_at is None:
            self.first_at = self._now()
        self.state = "answering"
        self.pieces.append(text)

    def again(self, reason: str, wait_seconds: float) -> None:
        """The attempt failed and is repeated after ``wait_seconds``."""
        self.retry_reason = f"{reason}; again in {wait_seconds:.1f} s"
        self.state, self.first_at = "waiting", None

    def finish(self, call: Call) -> None:
        """The call is over, one way or the other."""
        self.call = call
        self.state = "done" if call.ok else "failed"

    def cut(self) -> Call:
        """Return the call as it stands; one that is not over yet was cancelled."""
        if self.call is None:
            self.state = "cancelled"
            return Call(
                self.agent,
                self.model,
                self.prompt,
                text="".join(self.pieces),
                started=self.started,
                seconds=self._now() - self.started,
                attempts=self.attempts,
                error="cancelled",
                error_kind="cancelled",
            )
        return self.call


class LayerRecord:
    """One layer while it goes on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[CallRecord] = []


class RunRecord:
    """One run while it goes on."""

    def __init__(
        self,
        pipeline: str,
        conversation: tuple[Message, ...],
        *,
        run_id: str = "",
        budget: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pipeline, self.conversation, self.run_id, self.budget = pipeline, conversation, run_id, budget
        self.layers: list[LayerRecord] = []
        self.notes: list[str] = []
        self.result: Result | None = None
        """The finished run; ``None`` until then."""
        self._clock, self._began = clock, clock()

    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return self._clock() - self._began

    def layer(self, name: str) -> LayerRecord:
        """Return a new layer at the end."""
        record = LayerRecord(name)
        self.layers.append(record)
        return record

    def note(self, text: str) -> None:
        """Return nothing; keep a sentence that the reader must know, once."""
        if text not in self.notes:
            self.notes.append(text)

    def finish(self, text: str = "", *, error: str | None = None, stop_reason: str = "done") -> Result:
        """Return the run as a result: with its answer, or with why there is none."""
        layers = tuple(Layer(layer.name, tuple(call.cut() for call in layer.calls)) for layer in self.layers)
        notes = list(self.notes)
        for layer in layers:
            failed = len(layer.calls) - layer.n_ok
            if failed and layer.n_ok:
                notes.append(f"{layer.name}: {layer.n_ok} of {len(layer.calls)} agents answered")
            notes.extend(
                f"{call.agent} was cut off at max_tokens" for call in layer.calls if call.finish_reason == "length"
            )
        degraded = any(not call.ok or call.finish_reason == "length" for layer in layers for call in layer.calls)
        notes.extend(dict.fromkeys(call.note for layer in layers for call in layer.calls if call.note))
        self.result = Result(
            text=text,
            pipeline=self.pipeline,
            layers=layers,
            seconds=self.seconds(),
            degraded=degraded,
            stop_reason=stop_reason,
            notes=tuple(dict.fromkeys(notes)),
            run_id=self.run_id,
            conversation=self.conversation,
            error=error,
            budget=self.budget,
        )
        return self.result
