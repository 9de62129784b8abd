"""What a batch brought, read, and kept before anybody has it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import replace

from moa_nb.chat import Completion
from moa_nb.gateway.batches.seats import Seats
from moa_nb.gateway.batches.service import BatchService
from moa_nb.gateway.exchange import parsed
from moa_nb.gateway.http import Answer, Failed
from moa_nb.gateway.retry import Fault
from moa_nb.providers.batches import HALF, BatchState
from moa_nb.store import Store
from moa_nb.store.batches import BatchRow

__all__ = ["answers", "keep"]

_TURN = 200
"""Answers that are read before others on the loop have their turn."""


async def answers(
    service: BatchService, state: BatchState, row: BatchRow, seats: Seats, seconds: float
) -> dict[bytes, Completion | Fault]:
    """Return what a batch has for each of its requests; those that it did not answer are left out.

    Args:
        service: who has the results.
        state: the batch, which is over.
        row: its requests.
        seats: whose calls say what was asked, where a service did not count tokens.
        seconds: for how long the service may be out of reach.

    Raises:
        Failed: it does not give them.
    """
    asked, headers = dict(row.keys), service.headers
    found: dict[bytes, Completion | Fault] = {}
    for path in state.paths:
        fetch = functools.partial(service.results, path)
        for custom_id, answer in await service.patiently(fetch, seconds):
            sent = _key(custom_id)
            if answer is None or sent not in asked:
                continue
            outcome = _read(service, answer, headers, seats, sent)
            if isinstance(outcome, Completion):
                key = sent if outcome.finish_reason == "length" else asked[sent]
                outcome = replace(outcome, seconds=max(time.time() - row.at, 0.0), key=key)
            found[sent] = outcome
            if len(found) % _TURN == 0:
                await asyncio.sleep(0)
    return found


def _read(
    service: BatchService, answer: Answer, headers: dict[str, str], seats: Seats, sent: bytes
) -> Completion | Fault:
    """Return what one request brought, at the price of a batch."""
    route = service.route
    try:
        completion = parsed(route, answer, headers)
    except Failed as failed:
        return failed.fault
    if completion.cost is not None:
        return completion  # as the service itself says
    usage, cost = completion.usage, None
    waiting = seats.of(sent)
    if waiting:
        usage, cost = route.accounted(waiting[0].call.request, completion)
    elif route.price is not None and usage.prompt_tokens is not None and usage.completion_tokens is not None:
        cost = route.price.cost(usage)
    return replace(completion, usage=usage, cost=None if cost is None else cost * HALF)


async def keep(store: Store, completions: Sequence[Completion], model: str) -> None:
    """Return once all of them are committed."""
    left = len(completions)
    if not left:
        return
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def kept() -> None:
        nonlocal left
        left -= 1
        if not left and not done.done():
            done.set_result(None)

    for completion in completions:
        assert completion.key is not None  # ``answers`` gave it
        store.put_soon(completion.key, completion, kept, model)
    await done


def _key(custom_id: str) -> bytes:
    try:
        return bytes.fromhex(custom_id)
    except ValueError:
        return b""  # nobody's
