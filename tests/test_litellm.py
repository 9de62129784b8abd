"""What litellm serves goes the way of every other call: retried, priced and refused in the same words."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from moa_nb.chat import Completion, Message, Request, Sampling, Usage
from moa_nb.errors import KeyRejected, MoaError, RowError, SetupError, UnknownName
from moa_nb.gateway import Budget, Gateway
from moa_nb.gateway.prices import price_of
from moa_nb.providers import litellm_bridge
from moa_nb.settings import Settings
from moa_nb.store import Store
from moa_nb.testing import ChatServer, Clock, Reply

pytestmark = [
    pytest.mark.skipif(find_spec("litellm") is None, reason="litellm is not installed"),
    # It warns of its own types, and leaves connections to be closed when the process ends.
    pytest.mark.filterwarnings("ignore"),
]

KEY = "sk-litellm-0123456789abcdef"
BEDROCK = "litellm:bedrock/amazon.nova-lite-v1:0"


def ask(model: str, *, watch: Any = None, budget: Budget | None = None, sampling: Any = (), **extra: Any) -> Completion:
    """What the gateway makes of one question; ``extra`` goes to litellm as it is."""

    async def go() -> Completion:
        clock = Clock()
        gateway = Gateway(Settings(), Store(None), clock=clock.time, sleep=clock.sleep)
        asked = Sampling(**dict(sampling), extra=tuple(sorted(extra.items())))
        try:
            return await gateway.complete(Request(model, (Message("user", "Why?"),), asked), watch=watch, budget=budget)
        finally:
            await gateway.close()

    return asyncio.run(go())


def ask_server(server: ChatServer, **options: Any) -> Completion:
    """The same of the scripted server, by litellm's own way to any server that speaks as OpenAI does."""
    return ask("litellm:openai/a", api_base=server.base_url, api_key=KEY, **options)


class Watching:
    """Remembers what a call shows."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def sent(self, attempt: int) -> None:
        """Nothing to do."""

    def piece(self, text: str) -> None:
        """Keep a piece of the answer."""
        self.pieces.append(text)

    def again(self, reason: str, wait_seconds: float) -> None:
        """Nothing to do."""


def test_it_answers_for_services_of_its_own() -> None:
    """Text, reason to stop, tokens and their price come for a model that only litellm serves."""
    completion = ask(BEDROCK, mock_response="Because.")
    assert (completion.text, completion.finish_reason) == ("Because.", "stop")
    usage = completion.usage
    assert usage.prompt_tokens
    assert usage.completion_tokens
    assert completion.cost == pytest.approx(usage.prompt_tokens * 0.06e-6 + usage.completion_tokens * 0.24e-6)
    assert completion.attempts == 1


def test_a_budget_holds_for_it() -> None:
    """Its models have a price before the first call, and one without a price is not asked under a budget."""
    budget = Budget(0.5)
    cost = ask(BEDROCK, mock_response="Because.", budget=budget).cost
    assert cost
    assert budget.spent == pytest.approx(cost)
    with pytest.raises(SetupError, match=r"a budget needs prices"):
        ask("litellm:openai/nobody-knows", mock_response="x", budget=Budget(0.5))


def test_prices_come_from_its_own_list() -> None:
    """Rates for prompt, answer and cached tokens; nothing for what it does not know."""
    price = price_of(BEDROCK, Settings().provider(BEDROCK), None)
    assert price is not None
    assert price.source == "litellm"
    assert price.worst(1_000_000, 1_000_000) == pytest.approx(0.3)
    assert litellm_bridge.rule("nobody/knows") is None
    tiered = litellm_bridge.rule("vertex_ai/gemini-2.5-pro")
    assert tiered is not None
    assert tiered(Usage(300_000, 0)) > 2 * tiered(Usage(100_000, 0))


def test_what_is_sent_through_it(server: ChatServer) -> None:
    """The request arrives as it was asked, and the answer's tokens and model are the server's."""
    server.on(
        "a", Reply("from afar", usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, model="a-1")
    )
    completion = ask_server(server, sampling={"temperature": 0.3, "max_tokens": 9})
    assert (completion.text, completion.model) == ("from afar", "a-1")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (7, 3)
    (asked,) = server.requests
    assert asked.messages == [{"role": "user", "content": "Why?"}]
    assert (asked.body["temperature"], asked.body["max_tokens"]) == (0.3, 9)
    assert asked.headers["Authorization"] == f"Bearer {KEY}"


def test_it_is_streamed_where_somebody_watches(server: ChatServer) -> None:
    """Pieces come as they are written, and the usage after them."""
    watch = Watching()
    server.on("a", Reply("one two three", chunks=1))
    completion = ask_server(server, watch=watch)
    assert completion.text == "".join(watch.pieces) == "one two three"
    assert len(watch.pieces) == 3
    assert completion.usage.completion_tokens == 3
    assert not completion.usage.estimated
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("is_watched", [False, True])
def test_only_our_own_retries(server: ChatServer, is_watched: bool) -> None:
    """Faults are asked again by us alone: each attempt is one request."""
    server.on("a", Reply.fault(500), Reply.rate_limited(retry_after=1), Reply("at last"))
    completion = ask_server(server, watch=Watching() if is_watched else None)
    assert completion.text == "at last"
    assert completion.attempts == server.count() == 3


def test_a_stream_that_breaks_off_is_asked_again(server: ChatServer) -> None:
    """A cut stream is no answer."""
    server.on("a", Reply("one two three four", chunks=1, cut_after=2), Reply("whole"))
    assert ask_server(server, watch=Watching()).text == "whole"


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply.refused_key(), KeyRejected, r"refuses the key \(401\): The key \[key\] is not valid"),
        (Reply.no_such_model(), UnknownName, r"has no 'openai/a' \(404\)"),
        (
            Reply(
                status=400, error="This model's maximum context length is 8 tokens. Your messages resulted in 9 tokens"
            ),
            RowError,
            r"it has 9 tokens, 8 fit",
        ),
        (Reply(status=403, error="Your input was flagged"), RowError, r"refuses the request \(403\)"),
    ],
)
def test_refusals_have_their_kind(server: ChatServer, reply: Reply, kind: type[MoaError], words: str) -> None:
    """What litellm raises is the same error as that of a service we speak to ourselves, in one line, asked once."""
    server.on("a", reply)
    with pytest.raises(kind, match=words) as caught:
        ask_server(server)
    assert KEY not in str(caught.value)
    assert "litellm.Auth" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.count() == 1


def test_keys_of_the_environment_do_not_come_back(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that litellm found itself is taken out of errors too."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.on("a", Reply.refused_key())
    with pytest.raises(KeyRejected) as caught:
        ask("litellm:openai/a", api_base=server.base_url)
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert "[key]" in str(caught.value)


def test_what_a_model_does_not_take_is_left_out() -> None:
    """What litellm itself refuses of the options is asked around as a service's refusal is."""
    completion = ask("litellm:openai/o3", sampling={"temperature": 0.3}, mock_response="without")
    assert completion.text == "without"


def test_a_service_that_it_does_not_know() -> None:
    """The line says how its models are named."""
    with pytest.raises(UnknownName, match=r"SERVICE/MODEL"):
        ask("litellm:nonsense")


def test_without_it_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback of an import, but what to do."""
    monkeypatch.setattr(litellm_bridge, "find_spec", lambda _: None)
    litellm_bridge._library.cache_clear()
    with pytest.raises(SetupError, match=r"pip install 'moa-nb\[litellm\]'"):
        ask(BEDROCK)
    litellm_bridge._library.cache_clear()


def test_it_lists_models() -> None:
    """Those that the keys in the environment can reach; without any key that may be none."""

    async def go() -> list[str]:
        gateway = Gateway(Settings(), Store(None))
        try:
            return await gateway.list_models(Settings().provider(BEDROCK))
        finally:
            await gateway.close()

    models = asyncio.run(go())
    assert models == sorted(models)


def test_nobody_pays_for_it_unasked() -> None:
    """Neither the package nor a gateway imports it: only a model of its own does."""
    code = "import sys, moa_nb.gateway, moa_nb.providers.wire; print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.lower()) is False
