"""What is said to a service about batches: handed in, looked at, found again, fetched."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from moa_nb.gateway.http import Answer, Failed, Http
from moa_nb.gateway.refusal import fault_from
from moa_nb.gateway.retry import Fault, RetryPolicy
from moa_nb.gateway.route import Route
from moa_nb.providers.batches import BatchApi, BatchState, Post
from moa_nb.providers.shared import loads, name, table
from moa_nb.providers.wire import below
from moa_nb.store.batches import BatchRow

__all__ = ["BatchService", "Search"]

_T = TypeVar("_T")

_SECONDS = 60.0
"""For one exchange, and so long for each part of a body besides."""

_PART = 15_000_000
"""Bytes: what a slow line takes in that time."""

_AROUND = 64
"""Bytes around all requests, at most."""

_CLOCKS_DIFFER = 3600.0
"""The most seconds by which this machine's clock may be ahead of a service's."""


class Search(NamedTuple):
    """Whether a service has a batch."""

    found: str | None
    """Its id."""
    is_open: bool = False
    """Whether one that is under way may be it, which only its results will tell."""


class BatchService:
    """The Batch API of one model's service.

    Args:
        route: the way to the model.
        api: how it is spoken to.
        http: the loop's connections.
        clock: seconds, never going back.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        route: Route,
        api: BatchApi,
        http: Callable[[], Http],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.route, self.api = route, api
        self.now, self.sleep = clock, sleep
        self._http = http

    @property
    def model(self) -> str:
        """``provider:model``."""
        return f"{self.route.provider.name}:{self.route.model}"

    @property
    def headers(self) -> dict[str, str]:
        """What each request carries; the key is read now.

        Raises:
            KeyRejected: there is none.
        """
        return self.route.headers(self.now())

    async def patiently(self, ask: Callable[[], Awaitable[_T]], seconds: float, *, ever_answered: bool = True) -> _T:
        """Return what ``ask`` returns; it is asked again after faults that pass.

        Args:
            ask: raises ``Failed``.
            seconds: for how long.
            ever_answered: whether the server is known to be there.

        Raises:
            Failed: the last fault.
        """
        patience = RetryPolicy(seconds, first_seconds=1.0, longest_seconds=60.0)
        began, attempt = self.now(), 0
        while True:
            attempt += 1
            try:
                return await ask()
            except Failed as failed:
                failing_seconds = self.now() - began
                decision = patience.decide(
                    failed.fault, attempt=attempt, failing_seconds=failing_seconds, ever_answered=ever_answered
                )
                if decision.wait_seconds is None or failing_seconds >= seconds:
                    raise
            await self.sleep(decision.wait_seconds)

    # Handing in -------------------------------------------------------------------------------

    async def upload(self, lines: Sequence[bytes]) -> str:
        """Return the id of the file with these requests; empty where they stand in the batch itself.

        Raises:
            Failed: the service does not take it.
        """
        if self.api.upload is None:
            return ""
        said = self._json(await self._post(self.api.upload(lines)))
        return name(table(said).get("id"))

    async def create(self, lines: Sequence[bytes], file: str, mark: str) -> str:
        """Return the id of the batch of these requests.

        Raises:
            Failed: the service does not take it, or did not say so.
        """
        return self._state(self._json(await self._post(self.api.create(lines, file, mark)))).id

    def submit_seconds(self, lines: Sequence[bytes]) -> float:
        """Return the seconds after which a batch of these requests has been made, or never will be."""
        return _seconds(0 if self.api.upload is not None else sum(map(len, lines)) + len(lines) + _AROUND)

    # Looking ----------------------------------------------------------------------------------

    async def look(self, batch: str) -> BatchState:
        """Return how a batch stands.

        Raises:
            Failed: the service does not say; with the status 404 it does not know it.
        """
        return self._state(self._json(await self._get(f"{self.api.path}/{batch}")))

    async def results(self, path: str) -> Iterator[tuple[str, Answer | None]]:
        """Return ``custom_id`` and answer of each request that a file of results has.

        Raises:
            Failed: the service does not give it.
        """
        return self._lines(await self._get(path, 20 * _SECONDS))

    def _lines(self, content: bytes) -> Iterator[tuple[str, Answer | None]]:
        for line in content.split(b"\n"):
            try:
                yield self.api.result(line)
            except ValueError:
                continue  # an empty one; the request of a broken one counts as unanswered

    async def find(self, row: BatchRow, known: frozenset[str]) -> Search:
        """Return whether the service has a batch that was about to be handed in.

        OpenAI keeps the mark that was written on it. Anthropic keeps nothing: a batch that was made since then, that
        the store does not know and that has as many requests may be it, and its results say whether it is: each
        has the digest of its own question. While such a one is under way, nothing is handed in again.

        Raises:
            Failed: the service does not say.
        """
        is_open = False
        async with contextlib.aclosing(self._all()) as states:
            async for state in states:
                if self.api.has_marks:
                    if state.mark == row.mark:
                        return Search(state.id)
                elif 0 < state.created < row.at - _CLOCKS_DIFFER:
                    break  # the newest come first
                elif state.id not in known and state.n_requests == len(row.keys):
                    if not state.is_over:
                        is_open = True
                    elif await self._answers(state, row):
                        return Search(state.id)
        return Search(None, is_open)

    async def _answers(self, state: BatchState, row: BatchRow) -> bool:
        asked = {sent.hex() for sent, _ in row.keys}
        for path in state.paths:
            for custom_id, _ in await self.results(path):
                return custom_id in asked
        return False

    async def _all(self) -> AsyncGenerator[BatchState, None]:
        """Yield every batch that the service lists."""
        last = ""
        while True:
            listed = table(self._json(await self._get(self.api.next_page(last))))
            batches = [self._state(batch) for batch in listed.get("data") or ()]
            for state in batches:
                yield state
            if not batches or not listed.get("has_more"):
                return
            last = batches[-1].id

    # One exchange -----------------------------------------------------------------------------

    async def _get(self, path: str, seconds: float = _SECONDS) -> bytes:
        headers = self.headers
        return self._body(await self._http().get(below(self.route.base_url, path), headers, seconds), headers)

    async def _post(self, post: Post) -> bytes:
        headers = {**self.headers, "Content-Type": post.content_type}
        seconds = _seconds(len(post.body))
        try:
            answer = await self._http().post(below(self.route.base_url, post.path), headers, post.body, seconds)
            return self._body(answer, headers)
        except Failed as failed:
            if failed.fault.status in {404, 405}:
                words = f"it has no Batch API at {post.path} ({failed.fault.status}): leave mode='batch' out"
                raise Failed(Fault("final", words)) from None
            raise

    def _body(self, answer: Answer, headers: dict[str, str]) -> bytes:
        if not 200 <= answer.status < 300:
            raise Failed(fault_from(self.route.wire, answer, headers))
        return answer.body

    def _json(self, body: bytes) -> Any:
        try:
            return loads(body)
        except ValueError:
            raise Failed(Fault("malformed", f"{self.route.provider.name} sent something that is not JSON")) from None

    def _state(self, said: Any) -> BatchState:
        try:
            return self.api.state(said)
        except ValueError:
            raise Failed(Fault("malformed", f"{self.route.provider.name} sent no batch")) from None


def _seconds(n_bytes: int) -> float:
    """Return for how long a body of so many bytes may be on its way."""
    return _SECONDS * (1 + n_bytes // _PART)
