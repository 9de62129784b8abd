"""The one door from strategies to models.

It fills roles, renders templates, records every call under its layer and decides what a failure
means. Whoever runs a strategy gives it the ``complete`` that answers: the gateway's, or an
estimator's that answers nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from moa_nb import templating
from moa_nb.chat import Completion, Message, Request
from moa_nb.errors import BudgetExceeded, LayerFailed, MoaError, PipelineError, RowError, gravest
from moa_nb.pipeline.record import CallRecord, LayerRecord, RunRecord
from moa_nb.pipeline.result import Call
from moa_nb.pipeline.spec import Agent

__all__ = ["Ask", "Candidate", "Complete", "Task", "quoting"]

_T = TypeVar("_T")

_Rendered = dict[tuple[str | None, str], tuple[tuple[Message, ...], templating.Template | None]]
"""What the agents of one layer are sent, by system prompt and template: long texts are rendered once."""

_OTHER_SOURCE = re.compile(r"\{%[-+]?\s*(?:include|import|from|extends)\b")


class Complete(Protocol):
    """What answers a request."""

    def __call__(self, request: Request, *, layer: int, watch: CallRecord | None) -> Awaitable[Completion]:
        """Return the completion; ``layer`` is 0 for the first."""


@dataclass(frozen=True)
class Task:
    """What a pipeline is asked: a conversation, and the text it is about where that is known."""

    conversation: tuple[Message, ...]
    material: str | None = None

    @property
    def question(self) -> str:
        """The user's latest message."""
        return next(message.content for message in reversed(self.conversation) if message.role == "user")


@dataclass(frozen=True)
class Candidate:
    """One agent's answer, as later layers see it."""

    text: str
    agent: str
    finish_reason: str | None = None


@dataclass
class Ask:
    """Asks agents on behalf of one run.

    Args:
        task: the conversation.
        resolve: who is asked for a declaration: roles filled, samples counted out.
        complete: what answers.
        record: where every call is written down.
        secret: the key of the fences.
        ceiling: the ``max_tokens`` of a request whose agent names none, as the gateway sends it under a
            budget; ``None``: none is sent. It is written down here and is no part of the question.
        watched: whether somebody looks on, so that answers are worth streaming.
    """

    task: Task
    resolve: Callable[[Iterable[Agent]], list[Agent]]
    complete: Complete
    record: RunRecord
    secret: bytes
    ceiling: int | None = None
    watched: bool = False
    decisions: dict[str, bool] = field(default_factory=dict)
    """What an estimator forces ``decide`` to answer, by name."""
    load: Callable[[str], templating.Template] = templating.load
    """Finds a template by name."""
    _draws: dict[tuple[Any, ...], int] = field(default_factory=dict)

    async def layer(
        self,
        name: str,
        agents: Iterable[Agent],
        *,
        see: Sequence[Candidate] = (),
        template: str = "synthesize",
        min_ok: int = 1,
    ) -> list[Candidate]:
        """Return the answers of ``agents``, asked side by side, in declaration order; who failed is missing.

        Args:
            name: the layer's name in the record.
            agents: who is asked; roles are filled and samples counted out.
            see: the answers that each of them reads; none: the bare conversation.
            template: how those are quoted, for agents without a template of their own.
            min_ok: how many must answer.

        Raises:
            LayerFailed: fewer did.
            BudgetExceeded: one of them could not be paid, once the others are over.
            SetupError: at once, whatever the others do.
        """
        asked = self.resolve(agents)
        if min_ok > len(asked):
            msg = f"{name}: min_ok is {min_ok}, but only {len(asked)} agents are asked"
            raise PipelineError(msg)
        layer = self.record.layer(name)
        number = len(self.record.layers) - 1
        rendered: _Rendered = {}
        calls = [self._call(layer, number, agent, see, agent.template or template, rendered) for agent in asked]
        answers = await _together(calls)
        candidates = [answer for answer in answers if isinstance(answer, Candidate)]
        for answer in answers:
            if isinstance(answer, BudgetExceeded):
                raise answer  # only now: the calls beside it were paid for, and their answers are kept
        if len(candidates) < min_ok:
            raise _too_few(name, answers, len(candidates), min_ok)
        return candidates

    async def one(
        self, name: str, agent: Agent, *, see: Sequence[Candidate] = (), template: str = "synthesize"
    ) -> Candidate:
        """Return the answer of a single agent, in a layer of its own."""
        (answer,) = await self.layer(name, [agent], see=see, template=template)
        return answer

    def decide(self, name: str, test: bool) -> bool:
        """Return ``test``, or what an estimator forces under this name.

        Every branch that depends on an answer goes through here, so that a price can be found for
        each way.
        """
        return self.decisions.get(name, test)

    def _call(
        self,
        layer: LayerRecord,
        number: int,
        agent: Agent,
        see: Sequence[Candidate],
        template: str,
        rendered: _Rendered,
    ) -> Coroutine[Any, Any, Candidate | MoaError]:
        """Return the asking of one agent; prompt, sample and place in the record are settled before it is awaited."""
        key = (agent.system, template)
        messages, quoted = rendered.get(key) or self._messages(agent, see, template)
        if quoted is None or _is_same_for_all(quoted):
            rendered[key] = messages, quoted
        # Equal questions of one run are independent draws: the first is sample 0, the second 1, and so on.
        question = (agent.model, agent.function, messages, repr(agent.sampling))
        draw = self._draws.get(question, 0)
        self._draws[question] = draw + 1
        request = Request(
            agent.model,
            messages,
            agent.sampling,
            sample=draw,
            references=tuple(candidate.text for candidate in see),
            material=self.task.material,
            function=agent.function,
        )
        record = CallRecord(agent.label, agent.model, messages, self.record.seconds)
        layer.calls.append(record)
        return self._ask(request, number, record, quoted)

    async def _ask(
        self, request: Request, number: int, record: CallRecord, quoted: templating.Template | None
    ) -> Candidate | MoaError:
        watch = record if self.watched else None
        sampling = request.sampling
        if sampling.max_tokens is None and self.ceiling is not None:
            sampling = replace(sampling, max_tokens=self.ceiling)
        call = Call(
            record.agent,
            record.model,
            record.prompt,
            started=record.started,
            parameters=sampling.stated(),
            template=quoted.name if quoted else None,
            template_digest=quoted.digest if quoted else None,
        )
        try:
            completion = await self.complete(request, layer=number, watch=watch)
            error = _no_answer(completion)
        except MoaError as raised:
            seconds = self.record.seconds() - record.started
            record.finish(
                replace(call, seconds=seconds, attempts=raised.attempts, error=str(raised), error_kind=raised.kind)
            )
            if raised.kind == "setup":
                raise
            return raised
        record.finish(
            replace(
                call,
                text=completion.text,
                usage=completion.usage,
                cost=0.0 if completion.cached else completion.cost,
                queued_seconds=completion.queued_seconds,
                first_token_seconds=completion.first_token_seconds,
                seconds=0.0 if completion.cached else completion.seconds,
                cached=completion.cached,
                attempts=completion.attempts,
                error=None if error is None else str(error),
                error_kind=None if error is None else error.kind,
                finish_reason=completion.finish_reason,
                answered_by=completion.model,
                reasoning=completion.reasoning,
                note=completion.note,
            ),
        )
        return error or Candidate(completion.text.strip(), record.agent, completion.finish_reason)

    def _messages(
        self, agent: Agent, see: Sequence[Candidate], template: str
    ) -> tuple[tuple[Message, ...], templating.Template | None]:
        """Return what the agent is sent: the conversation, with one system message that says the rest."""
        said = [message.content for message in self.task.conversation if message.role == "system"]
        turns = [message for message in self.task.conversation if message.role != "system"]
        parts = [agent.system] if agent.system else []
        parts += said
        quoted = None
        if see:
            quoted = self.load(template)
            texts = [candidate.text for candidate in see]
            parts.append(
                quoted.render(
                    quoting(texts, templating.fence(texts, self.secret), self.task.question, agent.label)
                ).strip(),
            )
        system = [Message("system", "\n\n".join(parts))] if parts else []
        return (*system, *turns), quoted


def _is_same_for_all(template: templating.Template) -> bool:
    """Return whether a template says the same to each agent of a layer, as far as its own source shows it all."""
    return "agent" not in template.variables and not _OTHER_SOURCE.search(template.source)


def quoting(references: Sequence[str], fence: str, question: str, agent: str) -> dict[str, Any]:
    """Return the variables of a template that quotes references."""
    return {"references": references, "fence": fence, "question": question, "agent": agent}


def _no_answer(completion: Completion) -> RowError | None:
    """Return why a completion is no answer; ``None`` if it is one."""
    if completion.text.strip():
        return None
    if completion.finish_reason == "length":
        return RowError("the answer was cut off before it began: allow more max_tokens")
    if completion.finish_reason == "content_filter":
        return RowError("the service's content filter withheld the answer")
    if completion.reasoning:
        return RowError("the model thought but did not answer: allow more max_tokens")
    return RowError("the model answered with an empty text")


def _too_few(name: str, answers: Sequence[Candidate | MoaError], n_ok: int, min_ok: int) -> MoaError:
    errors = [answer for answer in answers if isinstance(answer, MoaError)]
    if len(answers) == 1 or (not n_ok and len({_without_model(error) for error in errors}) == 1):
        return errors[0]
    first = f"{len(errors)} failed, the first with: {errors[0]}"
    error = LayerFailed(f"{name}: {n_ok} of {len(answers)} agents answered, {min_ok} must; {first}")
    error.kind = "service" if any(one.kind == "service" for one in errors) else "row"
    return error


def _without_model(error: MoaError) -> str:
    """Return what went wrong, whoever it happened to: an error begins with its model or provider."""
    return str(error).partition(" ")[2]


async def _together(calls: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Return what all of ``calls`` return, in their order; the first exception cancels the others."""
    tasks: list[asyncio.Task[_T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(call) for call in calls)
    except BaseExceptionGroup as raised:
        raise gravest(raised) from None
    return [task.result() for task in tasks]
