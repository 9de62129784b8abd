"""A run while it goes on: what the result is made of in the end, and what a live panel reads meanwhile.

Written by the run on the engine's thread, read by panels on any other: fields are only ever
replaced or appended to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

from moa_nb.chat import Completion, Message, Request
from moa_nb.errors import MoaError
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.templating import Template

__all__ = ["CallRecord", "LayerRecord", "RunRecord"]

State = Literal["waiting", "sent", "answering", "done", "failed", "cancelled"]


class CallRecord:
    """One call while it goes on; the gateway tells it what happens.

    Args:
        request: what is asked.
        agent: the agent's name within the pipeline.
        template: what is rendered in the prompt; ``None`` for the bare conversation.
        ceiling: the ``max_tokens`` that the gateway sends where the request has none.
        now: the run's seconds.
    """

    __slots__ = (
        "_earlier",
        "_now",
        "agent",
        "attempts",
        "call",
        "ceiling",
        "first_at",
        "model",
        "pieces",
        "prompt",
        "retry_reason",
        "sampling",
        "sent_at",
        "started",
        "state",
        "template",
        "unreported",
    )

    def __init__(
        self,
        request: Request,
        agent: str,
        now: Callable[[], float],
        *,
        template: Template | None = None,
        ceiling: int | None = None,
    ) -> None:
        self.agent, self.model, self.prompt = agent, request.model, request.messages
        self.sampling, self.ceiling, self.template = request.sampling, ceiling, template
        self.state: State = "waiting"
        self.pieces: list[str] = []
        self.attempts = 0
        self.retry_reason: str | None = None
        self.call: Call | None = None
        """The finished call; ``None`` until then."""
        self._earlier: Call | None = None
        """What came of it before it was asked once more."""
        self.unreported = 0
        """Attempts of a call that nobody waited for to its end, which may be billed."""
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

    def repeat(self) -> None:
        """The answer could not be read, and the same is asked once more."""
        self._earlier, self.call = self.call, None
        self.state = "waiting"

    def answered(self, completion: Completion, error: MoaError | None, value: Any = None) -> None:
        """The call is over and was paid for; ``error`` says why its text is no answer, ``value`` what was read from it."""
        is_cached = completion.cached
        self._end(
            Call(
                self.agent,
                self.model,
                self.prompt,
                text=completion.text,
                usage=completion.usage,
                cost=0.0 if is_cached else completion.cost,
                saved=completion.cost if is_cached else 0.0,
                started=self.started,
                queued_seconds=completion.queued_seconds,
                first_token_seconds=completion.first_token_seconds,
                seconds=0.0 if is_cached else completion.seconds,
                cached=is_cached,
                attempts=completion.attempts,
                unreported=completion.unreported,
                error=None if error is None else str(error),
                error_kind=None if error is None else error.kind,
                finish_reason=completion.finish_reason,
                answered_by=completion.model,
                key=None if completion.key is None else completion.key.hex(),
                reasoning=completion.reasoning,
                note=completion.note,
                parameters=self._parameters(),
                template=None if self.template is None else self.template.name,
                template_digest=None if self.template is None else self.template.digest,
                value=value,
            )
        )

    def failed(self, error: MoaError) -> None:
        """The call is over and has no answer."""
        unreported = error.unreported or self.unreported
        self._end(self._without_answer(str(error), error.kind, error.attempts or self.attempts, unreported))

    def cut(self) -> Call:
        """Return the call as it stands; one that is not over yet was cancelled."""
        if self.call is None:
            self._end(self._without_answer("cancelled", "cancelled", self.attempts, self.unreported))
            self.state = "cancelled"
        assert self.call is not None
        return self.call

    def _without_answer(self, error: str, kind: str, attempts: int, unreported: int) -> Call:
        return Call(
            self.agent,
            self.model,
            self.prompt,
            text="".join(self.pieces),
            started=self.started,
            seconds=self._now() - self.started,
            attempts=attempts,
            unreported=unreported,
            error=error,
            error_kind=kind,
            parameters=self._parameters(),
            template=None if self.template is None else self.template.name,
            template_digest=None if self.template is None else self.template.digest,
        )

    def _end(self, call: Call) -> None:
        earlier = self._earlier
        if earlier is not None:
            costs = (earlier.cost, call.cost if call.ok or call.cost is not None else 0.0)
            call = replace(
                call if call.ok else earlier,
                usage=earlier.usage + call.usage,
                cost=None if None in costs else sum(cost for cost in costs if cost is not None),
                seconds=earlier.seconds + call.seconds,
                attempts=earlier.attempts + call.attempts,
                unreported=earlier.unreported + call.unreported,
                cached=earlier.cached and call.cached,
                repeats=earlier.repeats + 1,
            )
        self.call = call
        self.state = "done" if call.ok else "failed"

    def _parameters(self) -> tuple[tuple[str, Any], ...]:
        sampling = self.sampling
        if sampling.max_tokens is None and self.ceiling is not None:
            sampling = replace(sampling, max_tokens=self.ceiling)
        return sampling.stated()


class LayerRecord:
    """One layer while it goes on."""

    def __init__(self, name: str, *, aside: bool = False) -> None:
        self.name, self.aside = name, aside
        self.calls: list[CallRecord] = []


def _since(clock: Callable[[], float]) -> Callable[[], float]:
    # No method of the run: every call of it holds this, and a circle would stay in memory until it is looked for.
    began = clock()
    return lambda: clock() - began


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
        self.seconds = _since(clock)
        """Returns the seconds since the run began."""

    def layer(self, name: str, *, aside: bool = False) -> LayerRecord:
        """Return a new layer at the end; its calls are answers to the question, unless they stand ``aside``."""
        record = LayerRecord(name, aside=aside)
        self.layers.append(record)
        return record

    def note(self, text: str) -> None:
        """Return nothing; keep a sentence that the reader must know, once."""
        if text not in self.notes:
            self.notes.append(text)

    def finish(
        self,
        text: str = "",
        *,
        value: Any = None,
        error: str | None = None,
        stop_reason: str = "done",
        flags: Mapping[str, Any] = MappingProxyType({}),
    ) -> Result:
        """Return the run as a result: with its answer, or with why there is none."""
        notes = dict.fromkeys(self.notes)
        degraded = False
        layers = []
        for record in self.layers:
            if not record.calls:
                continue
            calls = tuple([call.cut() for call in record.calls])
            layer = Layer(record.name, calls, record.aside)
            layers.append(layer)
            for call in calls:
                if call.finish_reason == "length":
                    notes[f"{call.agent} was cut off at max_tokens"] = None
                    degraded = True
                if call.note:
                    notes[call.note] = None
                degraded |= call.error is not None
            if degraded and 0 < (n_ok := layer.n_ok) < len(calls):
                notes[f"{layer.name}: {n_ok} of {len(calls)} agents answered"] = None
        self.result = Result(
            text=text,
            pipeline=self.pipeline,
            layers=tuple(layers),
            value=value,
            seconds=self.seconds(),
            degraded=degraded or bool(flags.get("degraded")),
            converged=flags.get("converged"),
            accepted=flags.get("accepted"),
            agreement=flags.get("agreement"),
            stop_reason=flags.get("stop_reason", stop_reason) if error is None else stop_reason,
            n_unparsed=flags.get("n_unparsed", 0),
            notes=tuple(notes),
            run_id=self.run_id,
            conversation=self.conversation,
            error=error,
            budget=self.budget,
        )
        return self.result
