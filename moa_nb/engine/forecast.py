"""The price of a run before it runs: its own strategy, with an ``ask`` that answers nothing."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from moa_nb import tokens
from moa_nb.chat import Completion, Request, Usage
from moa_nb.engine.paths import Paths
from moa_nb.engine.plan import Plan
from moa_nb.gateway import Gateway
from moa_nb.gateway.prices import FREE
from moa_nb.money import dollars
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.layer import Outcome
from moa_nb.pipeline.record import CallRecord, RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.plain import to_plain

__all__ = ["Estimate", "Figures", "make_estimate", "most", "price"]

_FILLING = re.compile(r"(?: ~){8,}")

_MARK = re.compile(r"\[[0-9a-f]{18}\]")
"""A fence's mark. It is another one when the answers are there, and as text it may have more tokens or fewer."""

_LEAST_OF_A_MARK, _MOST_OF_A_MARK = 9, 20

_AROUND = 48
"""Tokens that may stand around a filled form: a fence, a sentence. Its white space is within its bytes, since a token
has more than one of them."""

_REASONS = re.compile(
    r"(?:^|[/:])o[1-9](?:-|$)|gpt-?(?:[5-9]|oss)|think|reason|(?:^|[^a-z])r1(?:[^0-9a-z]|$)|qwq|qwen-?3|magistral"
    r"|gemini-(?:2\.5|[3-9])|grok-[3-9]|glm-(?:4\.[5-9]|[5-9])|deepseek-v(?:3\.[1-9]|[4-9])|minimax-m|nemotron|sonar-deep",
    re.IGNORECASE,
)
"""Models that think before they answer, and write more for it than the answer has."""


@dataclass(frozen=True)
class Figures:
    """What one way through a pipeline takes."""

    n_calls: int = 0
    """Calls that would be sent; cached answers are not."""
    n_cached: int = 0
    n_layers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    priced: float = 0.0
    """Dollars of the calls whose price is known."""
    n_unpriced: int = 0
    """Calls of unknown price."""

    @property
    def cost(self) -> float | None:
        """Dollars; ``None`` where a model's price is not known."""
        return None if self.n_unpriced else self.priced

    @classmethod
    def of(cls, result: Result) -> Figures:
        """Return the figures of a run that asked nobody."""
        asked = [call for call in result.calls if not call.cached]
        return cls(
            n_calls=len(asked),
            n_cached=len(result.calls) - len(asked),
            n_layers=len(result.layers),
            prompt_tokens=sum(call.usage.prompt_tokens or 0 for call in asked),
            completion_tokens=sum(call.usage.completion_tokens or 0 for call in asked),
            priced=sum(call.cost or 0.0 for call in asked),
            n_unpriced=sum(call.cost is None for call in asked),
        )

    @classmethod
    def each(cls, choose: Callable[[Iterable[float]], float], several: Iterable[Figures]) -> Figures:
        """Return what ``choose``, such as ``min``, makes of each figure."""
        known = list(several)
        return cls(*(choose(getattr(one, name) for one in known) for name in cls.__dataclass_fields__))  # type: ignore[arg-type]  # chosen among their own kind

    def times(self, weight: float) -> Figures:
        """Return the figures of as many rows."""
        scaled = {name: getattr(self, name) * weight for name in self.__dataclass_fields__ if name != "n_layers"}
        return replace(self, **scaled)

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.n_calls + other.n_calls,
            self.n_cached + other.n_cached,
            max(self.n_layers, other.n_layers),
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.priced + other.priced,
            self.n_unpriced + other.n_unpriced,
        )

    def whole(self) -> Figures:
        """Return the figures with whole numbers of calls and tokens."""
        counts = {name: round(getattr(self, name)) for name in self.__dataclass_fields__ if name != "priced"}
        return replace(self, **counts)


@dataclass(frozen=True, repr=False)
class Estimate:
    """What a run takes: at least ``low`` and, at full length and every escalation, at most ``high``."""

    pipeline: str
    low: Figures
    """No escalation, and answers of a word."""
    high: Figures
    """Every escalation, and answers of ``max_tokens``, or of the longest form where that is known to be shorter."""
    at_least: bool = False
    """Whether it may become more than ``high``: the strategy branches in ways that cannot be foreseen."""
    result: Result | None = None
    """The dearest run with its rendered prompts, answers left open; ``None`` for a frame."""
    by_form: bool = False
    """Whether ``high`` holds only as far as answers hold no more than the form that is asked for.

    A budget sets ``max_tokens`` aside for each call all the same."""

    @property
    def n_calls(self) -> int:
        """The most calls that would be sent."""
        return self.high.n_calls

    @property
    def n_cached(self) -> int:
        """Calls that the store answers."""
        return self.high.n_cached

    @property
    def prompt_tokens(self) -> int:
        """The most tokens of all prompts."""
        return self.high.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """The most tokens of all answers: ``max_tokens`` each, or those of its form."""
        return self.high.completion_tokens

    @property
    def cost(self) -> float | None:
        """The most dollars; ``None`` where a model's price is not known."""
        return self.high.cost

    @property
    def n_unpriced(self) -> int:
        """The most calls of unknown price."""
        return self.high.n_unpriced

    def __str__(self) -> str:
        if self.cost is None:
            cost = f"{self.n_unpriced} of them of unknown price"
        else:
            cost = f"{'at least' if self.at_least else 'at most'} ${dollars(self.cost)}" if self.cost else "free"
            if self.low.n_calls != self.high.n_calls and self.low.cost and not self.at_least:
                cost = f"${dollars(self.low.cost)} to ${dollars(self.cost)}"
            if self.cost and self.by_form:
                cost += " if no answer says more than its form"
        cached = f" ({self.n_cached} more cached)" if self.n_cached else ""
        calls = f"{self.n_calls}"
        noun = "call" if self.n_calls == 1 else "calls"
        if self.low.n_calls != self.high.n_calls:
            calls = f"{self.low.n_calls} to {self.n_calls}"
        return to_plain(  # a pipeline's name may be somebody else's
            f"{self.pipeline}: {'at least ' if self.at_least else ''}{calls} {noun}{cached},"
            f" {self.prompt_tokens:,} tokens in, up to {self.completion_tokens:,} out, {cost}"
        )

    __repr__ = __str__


async def make_estimate(plan: Plan, task: Task, gateway: Gateway) -> Estimate:
    """Return what ``task`` would take, with its prompts; nothing is sent, and what the cache has is free."""
    estimate = await price(plan, task, gateway)
    assert estimate.result is not None
    return replace(estimate, result=_shown(estimate.result))


async def price(plan: Plan, task: Task, gateway: Gateway, *, full: bool = False) -> Estimate:
    """Return what ``make_estimate`` does; the prompts of its result are filled up, which nobody should see.

    Args:
        plan: who is asked.
        task: what.
        gateway: knows the prices, and what is stored.
        full: whether every answer may have ``max_tokens``, as a budget has it, though its form is shorter.
    """
    walk = _Walk(plan, task, gateway, functools.cache(_count), is_full=full)
    lowest = replace(walk, count=functools.cache(functools.partial(_count, mark=_LEAST_OF_A_MARK)))
    paths = Paths()
    longest, shortest = [], []
    while paths.next():
        longest.append(await walk.go(paths))
        paths.again()
        shortest.append(await lowest.go(paths, is_long=False))
    known = [Figures.of(result) for result in longest]
    dearest = max(range(len(known)), key=lambda place: (known[place].priced, known[place].n_calls))
    return Estimate(
        plan.pipeline.name,
        low=Figures.each(min, map(Figures.of, shortest)),
        high=Figures.each(max, known),
        at_least=paths.at_least,
        result=longest[dearest],
        by_form=bool(walk.shortened),
    )


async def most(plan: Plan, task: Task, gateway: Gateway) -> Figures | None:
    """Return what ``task`` takes at most, though nothing were cached: quickly, and without a tokenizer.

    ``None``: the strategy branches in ways that cannot be foreseen.
    """
    walk = _Walk(plan, task, gateway, functools.cache(functools.partial(_count, count=tokens.most_tokens)), knows=False)
    paths = Paths()
    figures = []
    while paths.next():
        figures.append(Figures.of(await walk.go(paths)))
    return None if paths.at_least else Figures.each(max, figures)


@dataclass(frozen=True)
class _Walk:
    """Runs a strategy with answers that say nothing."""

    plan: Plan
    task: Task
    gateway: Gateway
    count: Callable[..., int]
    """Counts the tokens of a text; cached, since the agents of one layer quote the same long texts."""
    knows: bool = True
    """Whether the cache is asked."""
    is_full: bool = False
    """Whether answers may be longer than their form."""
    shortened: set[str] = field(default_factory=set)
    """The models whose answers are as long as their form."""

    async def go(self, paths: Paths, *, is_long: bool = True) -> Result:
        """Return the run that goes one way, with answers of full length or of a word."""
        plan = self.plan
        record = RunRecord(plan.pipeline.name, self.task.conversation)
        looks_up = self.knows and plan.cache == "use"

        def answer_nothing(
            request: Request,
            on_end: Callable[[Outcome], None],  # noqa: ARG001 - what every ``complete`` is given
            *,
            layer: int,  # noqa: ARG001
            watch: CallRecord | None,  # noqa: ARG001
        ) -> Completion:
            known = self.gateway.known(request, bounded=plan.budget is not None) if looks_up else None
            return known or self._filler(request, is_long=is_long)

        candidate = Candidate if plan.strategy.is_ours else paths.candidate
        ask = plan.ask(self.task, answer_nothing, record, choices=paths, candidate=candidate)
        final = await plan.strategy.run(self.task, plan.pipeline.params, ask)
        return record.finish(final.text)

    def _filler(self, request: Request, *, is_long: bool) -> Completion:
        """Return an answer that says nothing, with what it would cost; of a function that is a text, which has no tokens."""
        prompt = tokens.count_prompt_tokens(request.messages, request.model, count=self.count)
        most = request.sampling.max_tokens or self.plan.settings.max_tokens
        provider, _, name = request.model.partition(":")
        if provider == "offline":
            # Sentences of the prompt cannot be more than the prompt.
            most = min(most, prompt)
        form = self._longest_form(request)
        if form is not None and form < most:
            self.shortened.add(request.model)
            most = form
        rule = self.gateway.price(request.model)
        usage = Usage(prompt, most if is_long else 1, estimated=True)
        if provider == "function" and rule is FREE:
            usage = Usage(0, 0)
        cost = None if rule is None else rule.cost(usage)
        text = f"[the answer of {name}, up to {most} tokens]" + " ~" * max(most - 10, 0) if is_long else "~"
        return Completion(
            text=text,
            model=request.model,
            usage=usage,
            cost=None if cost is None else cost * self.gateway.share(request.model, self.plan.mode),
            attempts=0,
        )

    def _longest_form(self, request: Request) -> int | None:
        """Return the tokens of the longest form that may be an answer; ``None`` where more than the form is written."""
        form = self.task.form
        if self.is_full or form is None or form.longest is None or request.schema is None:
            return None
        thinks = _REASONS.search(request.model) or any(
            "think" in name or "reason" in name for name, _ in request.sampling.extra
        )
        return None if thinks else form.longest + _AROUND


def _count(
    text: str, model: str | None = None, *, mark: int = _MOST_OF_A_MARK, count: Callable[..., int] = tokens.count_tokens
) -> int:
    """Return the tokens of a text; those of fillings are known, and a fence's mark has ``mark``."""
    short = _FILLING.sub("", text)
    plain, n_marks = _MARK.subn("", short)
    return count(plain, model) + (len(text) - len(short)) // 2 + n_marks * mark


def _shown(result: Result) -> Result:
    """Return the result with the filling of its answers left out of the prompts that quote them."""

    @functools.cache
    def short(text: str) -> str:
        return _FILLING.sub("", text)

    layers = tuple(
        replace(
            layer,
            calls=tuple(
                replace(
                    call,
                    text=short(call.text),
                    prompt=tuple(replace(message, content=short(message.content)) for message in call.prompt),
                )
                for call in layer.calls
            ),
        )
        for layer in result.layers
    )
    return result.replace(text=short(result.text), layers=layers)
