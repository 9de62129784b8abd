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
from moa_nb.providers import functions
from moa_nb.providers.wire import WIRES, Wire
from moa_nb.settings import Provider, Settings

__all__ = ["Route", "authorized", "make_route", "no_price"]

_REMEMBERED, _ENOUGH = 200, 20
"""Answers whose time is remembered, and how many of them say when one is late."""

_MOST_REFUSALS = 6
"""Options of one model that are left out one after the other, before its word is taken for the last."""


@dataclass
class Route:
    """The way to one model."""

    provider: Provider
    model: str
    """The model's name at its provider."""
    wire: Wire
    url: str
    stream_url: str
    identity: bytes
    """What tells this endpoint from others in the cache's key."""
    limiter: Limiter
    price: Price | None
    max_tokens: int
    """The ceiling on an answer that has none of its own, where one is needed."""
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """What the latest answers took, from going out to being whole."""
    _key_start: hashlib.blake2b | None = None
    """The digest of what all keys of this route begin with."""
    _refusals: list[str] = field(default_factory=list)
    """What the service said of options that it does not take; they are left out from then on."""
    _keyed: tuple[str | None, dict[str, str]] | None = None
    """The latest key and the headers made with it."""

    @property
    def is_service(self) -> bool:
        """Whether calls go out to a server."""
        return self.provider.name not in {"offline", "function"}

    # What is sent -----------------------------------------------------------------------------

    def headers(self) -> dict[str, str]:
        """Return the headers of a request, with the key as it is now.

        Raises:
            KeyRejected: there is none.
        """
        key = self.provider.key()
        if self._keyed is None or self._keyed[0] != key:
            self._keyed = (key, {"Content-Type": "application/json", **authorized(self.provider, key)})
        return self._keyed[1]

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
        try:
            return orjson.dumps(parts)
        except TypeError:
            return repr(parts).encode("utf-8", "backslashreplace")

    def key(self, request: Request, body: bytes) -> bytes | None:
        """Return the digest that equal calls share; ``None`` where answers must not be shared."""
        if self.provider.name == "function":
            version = functions.of(request).version
            if version is None:
                return None
            digest = self._new_digest(version.encode())
        else:
            if self._key_start is None:
                self._key_start = self._new_digest(self.identity)
            digest = self._key_start.copy()
        digest.update(b"%d\0" % request.sample)
        digest.update(body)
        return digest.digest()

    def _new_digest(self, identity: bytes) -> hashlib.blake2b:
        name = self.wire.name if self.is_service else self.provider.name
        return hashlib.blake2b(f"{name}\0{self.model}\0".encode() + identity + b"\0", digest_size=16)

    def bounded(self, request: Request) -> Request:
        """Return the request with a ceiling on the answer, where it has none."""
        if request.sampling.max_tokens is not None:
            return request
        return replace(request, sampling=replace(request.sampling, max_tokens=self.max_tokens))

    def sent(self, body: bytes, *, is_streamed: bool) -> bytes:
        """Return the bytes that go out: streamed or not, without what the model refused before."""
        sent = self.wire.streamed(body) if is_streamed else body
        for message in self._refusals:
            sent = self.wire.mended(sent, message) or sent
        return sent

    def learn(self, message: str, body: bytes, *, is_streamed: bool) -> bool:
        """Return whether leaving out what ``message`` refuses helps; from now on it is left out."""
        if message in self._refusals or len(self._refusals) >= _MOST_REFUSALS:
            return False
        if self.wire.mended(self.sent(body, is_streamed=is_streamed), message) is None:
            return False
        self._refusals.append(message)
        return True

    # What it costs ----------------------------------------------------------------------------

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
                prompt = sum(tokens.count_tokens(message.content) for message in request.messages)
            if written is None:
                written = tokens.count_tokens(completion.text) + tokens.count_tokens(completion.reasoning or "")
            usage = replace(usage, prompt_tokens=prompt, completion_tokens=written, estimated=True)
        if completion.cost is not None:
            return usage, completion.cost  # as the service itself says
        return usage, None if self.price is None else self.price.cost(usage)


def make_route(model: str, settings: Settings, make_limiter: Callable[[int], Limiter]) -> Route:
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
        url=wire.url(provider.base_url, name, False),
        stream_url=wire.url(provider.base_url, name, True),
        identity=identity,
        limiter=make_limiter(provider.concurrency or settings.concurrency),
        price=price_of(model, provider, settings.models.get(model)),
        max_tokens=settings.max_tokens,
    )


def authorized(provider: Provider, key: str | None) -> dict[str, str]:
    """Return the provider's own headers and the one with the key."""
    return {**provider.headers, **WIRES[provider.wire].headers(key)}


def no_price(model: str) -> str:
    """Return the line that says what to do about a model without a price under a budget."""
    return (
        f"a budget needs prices, and none is known for {model}: set prompt_price and completion_price"
        f' under [models."{model}"] in moa.toml, or run without a budget'
    )
