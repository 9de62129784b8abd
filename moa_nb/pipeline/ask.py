"""The one door from strategies to models.

It fills roles, renders templates, records every call under its layer and decides what a failure
means. Whoever runs a strategy gives it the ``complete`` that answers: the gateway's, or an
estimator's that answers nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from moa_nb import templating
from moa_nb.chat import Completion, Message, Request
from moa_nb.errors import BudgetExceeded, LayerFailed, MoaError, PipelineError
from moa_nb.pipeline import presets
from moa_nb.pipeline.candidate import Candidate, Place, Question, Task
from moa_nb.pipeline.fitting import Room, fitted
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.layer import Answer, Coming, LayerCalls, Outcome, Parse, Ticket
from moa_nb.pipeline.prompt import Prompts
from moa_nb.pipeline.record import CallRecord, RunRecord
from moa_nb.pipeline.spec import Agent, Pipeline
from moa_nb.plain import quoted

__all__ = ["Ask", "Candidate", "Choices", "Complete", "Question", "Task"]


class Complete(Protocol):
    """What answers a request."""

    def __call__(
        self, request: Request, on_end: Callable[[Outcome], None], *, layer: int, watch: CallRecord | None
    ) -> Completion | Ticket:
        """Return the completion at once, or a ticket for what ``on_end`` will get; ``layer`` is 0 for the first."""


class Choices(Protocol):
    """What forces the decisions of a strategy, to find the price of each way."""

    def take(self, n_ways: int) -> int:
        """Return which way the next decision goes."""

    def began(self) -> None:
        """A layer begins: whatever was looked at before without a decision may have led here."""


_NOTHING: Mapping[str, Any] = MappingProxyType({})


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
        choices: what an estimator forces ``decide`` and ``choose`` to return.
        call: calls a Python function of the parameters, such as a scorer; given itself, or its registered name.
        load: finds a template by name.
        pipelines: finds a pipeline by name, for agents that are one.
        candidate: makes what strategies see of an answer.
        room: how much the models can read; ``None``: nobody looks.
        prefix: what the names of its layers begin with, inside another pipeline.
    """

    task: Task
    resolve: Callable[[Iterable[Agent]], list[Agent]]
    complete: Complete
    record: RunRecord
    secret: bytes
    ceiling: int | None = None
    watched: bool = False
    choices: Choices | None = None
    call: Callable[..., Awaitable[Any]] | None = None
    load: Callable[[str], templating.Template] = templating.load
    pipelines: Callable[[str], Pipeline] = presets.load
    candidate: Callable[..., Candidate] = Candidate
    room: Room | None = None
    prefix: str = ""
    flags: dict[str, Any] = field(default_factory=dict)
    """What the strategy said of the result: ``degraded``, ``converged``, ``accepted``, ``stop_reason``."""
    _draws: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def agents(self, declared: Iterable[Agent]) -> list[Agent]:
        """Return single agents for what a pipeline declares: roles filled, samples counted out, names unlike."""
        return self.resolve(declared)

    # Asking -----------------------------------------------------------------------------------

    async def layer(
        self,
        name: str,
        agents: Iterable[Agent],
        *,
        see: Sequence[Candidate] = (),
        template: str | None = None,
        place: Place = "system",
        values: Mapping[str, Any] | None = None,
        parse: Parse | None = None,
        aside: bool = False,
        min_ok: int = 1,
        patience: float | None = None,
    ) -> list[Candidate]:
        """Return the answers of ``agents``, asked the same side by side, in declaration order; who failed is missing.

        Args:
            name: the layer's name in the record.
            agents: who is asked; roles are filled and samples counted out.
            see: the answers that each of them reads; none: the bare conversation.
            template: how those are quoted, for agents without a template of their own.
            place: where the rendered template stands.
            values: what else the template may use.
            parse: reads each answer's ``value``; one that it cannot read is asked for once more. Where the task
                wants a form, that is what is read.
            aside: whether what is asked is no answer to the task but something besides: a verdict, a critique.
            min_ok: how many must answer.
            patience: seconds after which the layer goes on without who is late, once ``min_ok`` have answered.

        Raises:
            LayerFailed: fewer did.
            BudgetExceeded: one of them could not be paid, once the others are over.
            SetupError: at once, whatever the others do.
        """
        _check_seen(see)
        asked = self.resolve(agents)
        if min_ok > len(asked):
            msg = f"{name}: min_ok is {min_ok}, and asked are only {len(asked)}"
            raise PipelineError(msg)
        given = _NOTHING if values is None else values
        questions = [Question(agent, see, template, place, values=given) for agent in asked]
        answers = await self._each(name, questions, parse, min_ok, patience, aside=aside)
        candidates = [answer for answer in answers if isinstance(answer, Candidate)]
        for answer in answers:
            if isinstance(answer, BudgetExceeded):
                raise answer  # only now: the calls beside it were paid for, and their answers are kept
        if len(candidates) < min_ok:
            raise _too_few(name, answers, len(candidates), min_ok)
        return candidates

    async def each(
        self,
        name: str,
        questions: Iterable[Question],
        *,
        parse: Parse | None = None,
        aside: bool = False,
        patience: float | None = None,
    ) -> list[Candidate | None]:
        """Return an answer to each question, asked side by side; ``None`` for one that has none.

        What failed is in the record. ``LayerFailed`` or the like is raised only where not one has an answer, and
        ``PipelineError`` where one is no question.
        """
        asked = list(questions)
        for question in asked:
            if not isinstance(question, Question) or not isinstance(question.agent, Agent):
                msg = f"{name}: ask.each takes moa.Question(agent), of one of what ask.agents(...) returns, not {quoted(question)}"
                raise PipelineError(msg)
            _check_seen(question.see)
        answers = await self._each(name, asked, parse, 1, patience, aside=aside)
        if answers and not any(isinstance(answer, Candidate) for answer in answers):
            raise _too_few(name, answers, 0, 1)
        return [answer if isinstance(answer, Candidate) else None for answer in answers]

    async def one(
        self,
        name: str,
        agent: Agent,
        *,
        see: Sequence[Candidate] = (),
        template: str | None = None,
        place: Place = "system",
        values: Mapping[str, Any] | None = None,
        parse: Parse | None = None,
        aside: bool = False,
    ) -> Candidate:
        """Return the answer of a single agent, in a layer of its own."""
        answers = await self.layer(
            name, (agent,), see=see, template=template, place=place, values=values, parse=parse, aside=aside
        )
        return answers[0]

    def read(self, text: str) -> Any:
        """Return the form that the task wants as a text fills it in; ``None`` where it does not, or none is wanted."""
        return None if self.task.form is None else self.task.form.read(text)

    # Deciding ---------------------------------------------------------------------------------

    def decide(self, name: str, test: bool) -> bool:  # noqa: ARG002 - the name is for those who read the strategy
        """Return ``test``, or what an estimator forces under this name.

        Every branch that depends on an answer goes through here or ``choose``, so that a price can be
        found for each way.
        """
        if self.choices is not None:
            return bool(self.choices.take(2))
        return test

    def choose(self, name: str, n_ways: int, way: int) -> int:  # noqa: ARG002 - likewise
        """Return ``way``, or which of ``n_ways`` an estimator forces: ``decide`` with more than two ways."""
        if self.choices is not None:
            return self.choices.take(n_ways)
        return way

    def pick(self, answers: Sequence[Candidate], chosen: Sequence[int]) -> list[Candidate]:
        """Return the chosen answers; for an estimator, which cannot know them, as many of the longest."""
        if self.choices is not None:
            by_length = sorted(range(len(answers)), key=lambda place: -len(answers[place].text))
            chosen = sorted(by_length[: len(chosen)])
        return [answers[place] for place in chosen]

    def flag(
        self,
        note: str | None = None,
        *,
        degraded: bool | None = None,
        converged: bool | None = None,
        accepted: bool | None = None,
        agreement: float | None = None,
        stop_reason: str | None = None,
    ) -> None:
        """Return nothing; say on the result what a reader must know: a sentence, or one of its flags."""
        if note is not None:
            self.record.note(note)
        said = {
            "degraded": degraded,
            "converged": converged,
            "accepted": accepted,
            "agreement": agreement,
            "stop_reason": stop_reason,
        }
        self.flags.update({name: value for name, value in said.items() if value is not None})

    # One layer --------------------------------------------------------------------------------

    async def _each(
        self,
        name: str,
        questions: Sequence[Question],
        parse: Parse | None,
        min_ok: int,
        patience: float | None,
        *,
        aside: bool,
    ) -> list[Answer]:
        if self.choices is not None:
            self.choices.began()
        prompts = Prompts(self.task, self.secret, self.load)
        if self.room is not None and any(question.see for question in questions):
            questions = [
                await fitted(self, self.room, name, question, prompts)
                if question.see and question.agent.pipeline is None
                else question
                for question in questions
            ]
        form = None if aside else self.task.form
        schema = None
        if form is not None:
            parse, schema = form.read, form.schema
        layer = self.record.layer(self.prefix + name, aside=aside)
        number = len(self.record.layers) - 1
        calls = LayerCalls(parse, self.candidate, min_ok=min_ok, may_repeat=self.choices is None)
        for question in questions:
            agent = question.agent
            messages, template = prompts.of(question)
            if agent.pipeline is not None:
                # Begun only where the layer has not failed by then.
                answering = partial(self._nested, name, agent, replace(self.task, conversation=messages))
                calls.begin(None, partial(Coming, answering))
                continue
            request = Request(
                agent.model,
                messages,
                agent.sampling,
                sample=self._draw(agent, messages),
                references=tuple([candidate.text for candidate in question.see]),
                material=self.task.material,
                question=None if question.place == "system" else self.task.question,
                function=agent.function,
                schema=schema,
            )
            record = CallRecord(request, agent.label, self.record.seconds, template=template, ceiling=self.ceiling)
            layer.calls.append(record)
            watch = record if self.watched else None
            begin = partial(self.complete, request, layer=number, watch=watch)
            again = None if parse is None else partial(self._again, agent, request, number, watch, form)
            calls.begin(record, begin, again)
        answers = await calls.over(patience)
        if calls.n_unparsed:
            self.flags["n_unparsed"] = self.flags.get("n_unparsed", 0) + calls.n_unparsed
        return answers

    def _draw(self, agent: Agent, messages: tuple[Message, ...]) -> int:
        """Return which draw of a question this is: equal questions of one run are independent draws."""
        # What tells nearly all questions of one run apart, and is quickly hashed; two that it takes for one are only
        # drawn under different numbers.
        sampling, first, last = agent.sampling, messages[0].content, messages[-1].content
        key = (agent.model, agent.function, len(messages), first, last, sampling.temperature, sampling.seed)
        draw = self._draws.get(key, 0)
        self._draws[key] = draw + 1
        return draw

    def _again(
        self,
        agent: Agent,
        request: Request,
        layer: int,
        watch: CallRecord | None,
        form: Form | None,
        text: str,
        on_end: Callable[[Outcome], None],
    ) -> Completion | Ticket:
        """Return what another draw of the same question brings; of a form, what its writer mends of ``text``."""
        messages = request.messages
        if form is not None:
            told = self.load("repair").render({"mistakes": form.mistakes(text), "fields": form.said})
            messages = (*messages, Message("assistant", text), Message("user", told))
        drawn = replace(request, messages=messages, sample=self._draw(agent, messages))
        return self.complete(drawn, on_end, layer=layer, watch=watch)

    async def _nested(self, layer: str, agent: Agent, task: Task) -> Candidate:
        """Return the answer of an agent that is a pipeline; its layers stand in the same record."""
        from moa_nb.pipeline.strategies import find

        assert agent.pipeline is not None
        options = {"temperature": agent.temperature, "max_tokens": agent.max_tokens}
        pipeline = self.pipelines(agent.pipeline).override(**options)
        ask = replace(self, task=task, flags={}, prefix=f"{layer} › {agent.label} › ")
        answer = await find(pipeline.strategy).run(task, pipeline.params, ask)
        if ask.flags.get("degraded"):
            self.flags["degraded"] = True
        if ask.flags.get("n_unparsed"):
            self.flags["n_unparsed"] = self.flags.get("n_unparsed", 0) + ask.flags["n_unparsed"]
        # Its inner prompts are its own affair: whoever goes on with its dialogue goes on from what it was asked.
        return replace(answer, agent=agent.label, prompt=task.conversation)


def _check_seen(see: Sequence[Candidate]) -> None:
    """Return nothing if these are answers.

    Raises:
        PipelineError: they are something else, as an answer that nobody awaited.
    """
    try:
        if all(isinstance(one, Candidate) for one in see):
            return
    except TypeError:
        pass  # a single one
    msg = f"see= takes a list of answers, as `await ask.one(...)` gives one, not {quoted(see)}"
    raise PipelineError(msg)


def _too_few(name: str, answers: Sequence[Answer], n_ok: int, min_ok: int) -> MoaError:
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
