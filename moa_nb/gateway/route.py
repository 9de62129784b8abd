"""What all calls to one model share: where they go, how they are written, what they cost."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import orjson

from moa_nb import tokens
from moa_nb.chat import Completion, Request, Usage
from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.gateway.limits import Limiter
from moa_nb.gateway.prices import FREE, Price, price_of
from moa_nb.gateway.retry import Fault, RetryBudget
from moa_nb.providers import functions
from moa_nb.providers.wire import WIRES, Wire
from moa_nb.settings import ModelSettings, Provider, Settings

__all__ = ["Route", "authorized", "make_route", "no_price"]

_REMEMBERED, _ENOUGH = 200, 20
"""Answers whose time is remembered, and how many of them say when one is late."""

_START = 16
"""Calls in flight at first, where nobody says how many a service takes."""

_KEY_SECONDS = 0.5
"""How long a key that was read holds; reading it for each call would be dear."""


@dataclass
class Route:
    """The way to one model."""

    provider: Provider
    model: str
    """The model's name at its provider."""
    wire: Wire
    is_service: bool
    """Whether calls go out to a server."""
    base_url: str
    url: str
    stream_url: str
    identity: bytes
    """What tells this endpoint from others in the cache's key."""
    limiter: Limiter
    price: Price | None
    context: int | None
    """The tokens of prompt and answer together; ``None`` when nobody knows."""
    max_tokens: int
    """The ceiling on an answer that has none of its own, where one is needed."""
    retries: RetryBudget
    """How often its calls may be asked again."""
    fault: Fault | None = None
    """The latest that put it out of order."""
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """What the latest answers took, from going out to being whole."""
    _key_start: hashlib.blake2b | None = None
    """The digest of what all keys of this route begin with."""
    spelling: dict[str, str] = field(default_factory=dict)
    """What the model calls a request's fields, known beforehand or learned from what it refused."""
    _headers: dict[str, str] = field(default_factory=dict, repr=False)
    _keyed_until: float = float("-inf")
    """When the key in the headers is read again."""
    reports: bool = False
    """Whether it is a function that has said what a call took."""

    # What is sent -----------------------------------------------------------------------------

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers of a request, with the key as it was at most a moment ago.

        Raises:
            KeyRejected: there is none.
        """
        if now >= self._keyed_until:
            self._headers = {"Content-Type": "application/json", **authorized(self.provider, self.provider.key())}
            given = self.provider.settings.key if self.provider.settings else None
            # What a function gives may hold for one call only.
            self._keyed_until = now if callable(given) else now + _KEY_SECONDS
        return self._headers

    def body(self, request: Request) -> bytes:
        """Return what is asked, as bytes: of a request to a service its body.

        Raises:
            SetupError: a parameter cannot be written as JSON.
        """
        if self.is_service:
            try:
                return self.wire.body(request, self.model)
            except TypeError as error:
                msg = f"a parameter of {request.model} cannot be sent as JSON: {error}"
                raise SetupError(msg) from None
        parts = [
            [message.to_dict() for message in request.messages],
            request.references,
            request.material,
            request.sampling.max_tokens,
            request.sampling.temperature,
        ]
        if request.schema is not None:
            parts.append(request.schema.json)
        try:
            return orjson.dumps(parts)
        except TypeError:
            return repr(parts).encode("utf-8", "backslashreplace")

    def key(self, request: Request, body: bytes) -> bytes | None:
        """Return the digest that equal calls share; ``None`` where answers must not be shared."""
        if self.provider.name == "function":
            known = functions.of(request)
            if known.version is None:
                return None
            # Its registered name, whatever the model is called: functions that are made alike have one ``__name__``.
            digest = self._new_digest(known.version.encode(), known.name)
        else:
            if self._key_start is None:
                self._key_start = self._new_digest(self.identity, self.model)
            digest = self._key_start.copy()
        digest.update(b"%d\0" % request.sample)
        digest.update(body)
        return digest.digest()

    def _new_digest(self, identity: bytes, model: str) -> hashlib.blake2b:
        name = self.wire.name if self.is_service else self.provider.name
        return hashlib.blake2b(f"{name}\0{model}\0".encode() + identity + b"\0", digest_size=16)

    def bounded(self, request: Request) -> Request:
        """Return the request with a ceiling on the answer, where it has none."""
        if request.sampling.max_tokens is not None:
            return request
        return replace(request, sampling=replace(request.sampling, max_tokens=self.max_tokens))

    def sent(self, body: bytes, *, is_streamed: bool) -> bytes:
        """Return the bytes that go out: streamed or not, in the model's own spelling."""
        sent = self.wire.streamed(body) if is_streamed else body
        return self.wire.spelt(sent, self.spelling) if self.spelling else sent

    def learn(self, message: str, refused: bytes, body: bytes, *, is_streamed: bool) -> bool:
        """Return whether asking again may help: what goes out from now on is not what was refused.

        Args:
            message: the service's words.
            refused: the bytes that it refused; another call may have learned from the same refusal since.
            body: what was asked.
            is_streamed: whether it is asked for as a stream.
        """
        found = self.wire.refused(refused, message)
        self.spelling.update(found)
        return bool(found) and self.sent(body, is_streamed=is_streamed) != refused

    # What it costs ----------------------------------------------------------------------------

    def reprice(self, configured: ModelSettings | None) -> None:
        """Return nothing; the price of a function is what is declared of it now, and unknown once it reported one."""
        price = price_of(f"function:{self.model}", self.provider, configured)
        declared = functions.declared_cost(self.model)
        if price is FREE and declared is not None:
            price = Price(lambda _: declared, "declared")
        self.price = None if price is FREE and self.reports else price

    def worst(self, request: Request, body: bytes) -> float:
        """Return the most dollars that an attempt can cost.

        Raises:
            SetupError: no price is known.
        """
        if self.price is None:
            raise SetupError(no_price(request.model))
        if self.price is FREE:
            return 0.0
        return self.price.worst(*self.most_tokens(request, body))

    def most_tokens(self, request: Request, body: bytes) -> tuple[int, int]:
        """Return the most tokens that prompt and answer of an attempt can have."""
        extra = dict(request.sampling.extra)
        ceilings = (request.sampling.max_tokens, extra.get("max_tokens"), extra.get("max_completion_tokens"))
        most = max((ceiling for ceiling in ceilings if isinstance(ceiling, int)), default=self.max_tokens)
        answers = extra.get("n")
        # No tokenizer makes more tokens of a text than it has bytes.
        return len(body), most * (answers if isinstance(answers, int) else 1)

    @property
    def late_seconds(self) -> float | None:
        """After how long an answer is late: the 95th percentile of the latest; ``None`` before enough is known."""
        if len(self.seconds) < _ENOUGH:
            return None
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)]

    def accounted(self, request: Request, completion: Completion) -> tuple[Usage, float | None]:
        """Return the tokens of a completion and their dollars; what the service did not report is estimated."""
        usage = completion.usage
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            prompt, written = usage.prompt_tokens, usage.completion_tokens
            if prompt is None:
                prompt = tokens.count_prompt_tokens(request.messages, request.model)
            if written is None:
                written = tokens.count_tokens(completion.text, request.model)
                written += tokens.count_tokens(completion.reasoning or "", request.model)
            usage = replace(usage, prompt_tokens=prompt, completion_tokens=written, estimated=True)
        if completion.cost is not None:
            return usage, completion.cost  # as the service itself says
        return usage, None if self.price is None else self.price.cost(usage)


def make_route(
    model: str, settings: Settings, make_limiter: Callable[..., Limiter], clock: Callable[[], float]
) -> Route:
    """Return the way to a ``provider:model``.

    Raises:
        UnknownName: no such provider, or no such offline agent.
    """
    provider = settings.provider(model)
    name = model.partition(":")[2]
    identity = provider.base_url.encode()
    if provider.name == "offline":
        from moa_nb.providers import offline

        if name not in offline.ALGORITHMS:
            msg = f"no offline agent {name!r}; {nearest(name, offline.ALGORITHMS)}"
            raise UnknownName(msg)
        identity = offline.VERSION.encode()
    wire = WIRES[provider.wire]
    return Route(
        provider,
        name,
        wire,
        is_service=provider.name not in {"offline", "function"},
        base_url=provider.base_url,
        url=wire.url(provider.base_url, name, False),
        stream_url=wire.url(provider.base_url, name, True),
        identity=identity,
        limiter=_limiter(model, provider, settings, make_limiter),
        price=price_of(model, provider, settings.models.get(model)),
        context=_context(name, provider, settings.models.get(model)),
        max_tokens=settings.max_tokens,
        retries=RetryBudget(clock),
        spelling=provider.spelling(name),
    )


def _limiter(model: str, provider: Provider, settings: Settings, make_limiter: Callable[..., Limiter]) -> Limiter:
    """Return what holds calls back: as the user set it for the model or its provider, else learnt from a small start."""
    of_model, of_provider = settings.models.get(model), provider.settings
    requests = (of_model and of_model.requests_per_minute) or (of_provider and of_provider.requests_per_minute)
    tokens_ = (of_model and of_model.tokens_per_minute) or (of_provider and of_provider.tokens_per_minute)
    is_set = provider.concurrency is not None or "concurrency" in settings.model_fields_set
    return make_limiter(
        provider.concurrency or settings.concurrency,
        start=None if is_set or provider.name in {"offline", "function"} else _START,
        requests_per_minute=requests,
        tokens_per_minute=tokens_,
    )


def _context(model: str, provider: Provider, configured: ModelSettings | None) -> int | None:
    """Return the tokens of a model's context: as configured, else as genai-prices lists them."""
    if configured is not None and configured.context is not None:
        return configured.context
    if provider.prices is None or "{}" in provider.prices or provider.prices == "litellm":
        return None
    from genai_prices import data_snapshot

    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(model, None, provider.prices, None)
    except LookupError:
        return None
    window = found.context_window
    return window if isinstance(window, int) else None


def authorized(provider: Provider, key: str | None) -> dict[str, str]:
    """Return the provider's own headers and the one with the key."""
    return {**provider.headers, **WIRES[provider.wire].headers(key, provider.key_header)}


def no_price(model: str) -> str:
    """Return the line that says what to do about a model without a price under a budget."""
    provider, _, name = model.partition(":")
    if provider == "function":
        return (
            f"function {name!r} says only afterwards what a call took, and a budget in dollars must know it before: say the"
            f" most of one call as @moa.agent({name!r}, cost=0.01), or count calls, as in budget='200 calls'"
        )
    return (
        f"a budget needs prices, and none is known for {model}: set prompt_price and completion_price"
        f' under [models."{model}"] in moa.toml, or run without a budget (budget="inf" where the settings name one)'
    )
