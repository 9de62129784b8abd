"""What every test gets: a folder, a store and settings of its own, and a server to talk to."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import moa_nb as moa
from moa_nb import settings
from moa_nb.testing import ChatServer, Recorded


def pytest_configure() -> None:
    """Interrupts interrupt: who starts tests in the background may have them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is imported by now stays: each notebook that is reset has all of it looked through for garbage otherwise."""
    gc.collect()
    gc.freeze()


# A machine that is busy proves nothing. Checks that decide something (`CI` is set) try the same examples each time.
hypothesis.settings.register_profile(
    "here", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("here")

_CERTIFICATES = frozenset({"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"})


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the user's keys, files or store, nor those of another test."""
    keys = {service.key_env for service in settings.services().values()}
    for name in list(os.environ):
        if name in keys or name in _CERTIFICATES or name.startswith("MOA_NB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("MOA_NB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    settings.reset()
    before = _stores()
    yield
    from moa_nb.engine import engine

    engine.stop()
    settings.reset()
    assert _stores() <= before, "a store was not closed"


def _stores() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "moa-nb-store"}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server without a script."""
    with ChatServer() as server:
        yield server


@pytest.fixture
def meet(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Called with a number: the first requests are answered only when so many are there; ``first``: how many they are."""

    def meet(number: int, *, first: int | None = None) -> None:
        answer, meeting, n_first = server._answer, asyncio.Barrier(number), first or number

        async def together(request: Any, record: Recorded) -> Any:
            if server.count() <= n_first:
                await meeting.wait()
            return await answer(request, record)

        monkeypatch.setattr(server, "_answer", together)

    return meet


@pytest.fixture
def lab(server: ChatServer) -> Callable[..., None]:
    """Proposers ``lab:a``, ``lab:b``, ``lab:c`` and the aggregator ``lab:z`` on the server; called with further settings.

    Each token costs a dollar per million.
    """

    def configure(**values: Any) -> None:
        price = {"prompt_price": 1.0, "completion_price": 1.0}
        moa.configure(
            **{
                "proposers": ["lab:a", "lab:b", "lab:c"],
                "aggregator": "lab:z",
                "providers": {"lab": {"base_url": server.base_url, **values.pop("provider", {})}},
                "models": {f"lab:{name}": price for name in "abcz"},
                **values,
            },
        )

    configure()
    return configure
