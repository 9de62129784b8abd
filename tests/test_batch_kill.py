"""Batches outlive their clients: both sides are killed with -9, and no request is ever in two batches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from moa_nb.chat import Completion, Message, Request
from moa_nb.gateway import Gateway
from moa_nb.gateway.batches import batch, departures
from moa_nb.settings import Settings
from moa_nb.store import Store
from moa_nb.testing.batch_server import BatchServer

WIRES = ("openai", "anthropic")

N_ROWS = 20

CLIENT = f"""
import asyncio, json, sys
import moa_nb as moa
from moa_nb.gateway.batches import batch, departures, service

async def all_rows(batches):
    # All rows of a layer wait before it departs; some alone do where an earlier client has left the others' answers.
    n_calm = 0
    while n_calm < 300 and any(0 < len(seats) < {N_ROWS} for seats in batches._waiting.values()):
        n_came = batches._n_came
        await asyncio.sleep(0.01)
        n_calm = n_calm + 1 if batches._n_came == n_came else 0

url, wire, pause = sys.argv[1:]
departures.Batches._quiet = all_rows
batch.FIRST_PAUSE = batch.LONGEST_PAUSE = float(pause)
service._SECONDS, batch.LATE_SECONDS = 20.0, 0.2
price = {{"prompt_price": 1.0, "completion_price": 1.0}}
moa.configure(
    providers={{"lab": {{"base_url": url, "wire": wire, "batch": True}}}}, proposers=["lab:a", "lab:b"], aggregator="lab:z",
    models={{f"lab:{{name}}": price for name in "abz"}},
)

async def ask():
    return await asyncio.gather(*(moa.arun(f"question {{number}}", mode="batch") for number in range({N_ROWS})))

results = asyncio.run(ask())
print(json.dumps([sum(result.cost for result in results), [result.text for result in results]]))
"""


class World:
    """A batch server and its clients, each a process of its own."""

    def __init__(self, folder: Path, wire: str) -> None:
        self._folder, self._wire = folder, wire
        self.state = folder / "state.json"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("MOA_NB_")}
        self._environment |= {"MOA_NB_HOME": str(folder / "home"), "PYTHONPATH": str(Path(__file__).parents[1])}
        self._port = 0  # the first server finds one
        self._started: list[subprocess.Popen[str]] = []

    def _start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
            cwd=self._folder,
        )
        self._started.append(process)
        return process

    def serve(self, *options: str) -> subprocess.Popen[str]:
        """A server that goes on where the one before it was killed."""
        command = ("-m", "moa_nb.testing.batch_server", "--port", str(self._port), "--state", str(self.state))
        process = self._start(*command, *options)
        assert process.stdout is not None
        port = urlsplit(process.stdout.readline()).port
        assert port
        self._port = port
        return process

    def ask(self, pause: float = 0.05) -> subprocess.Popen[str]:
        """A client with all the rows, and the seconds between its looks."""
        return self._start("-W", "error", "-c", CLIENT, f"http://127.0.0.1:{self._port}/v1", self._wire, str(pause))

    def batches(self) -> list[dict[str, Any]]:
        """The batches that were ever made."""
        return json.loads(self.state.read_bytes())["batches"] if self.state.exists() else []

    def rows(self) -> list[tuple[str | None, int]]:
        """Id and openness of each batch that the store knows."""
        path = self._folder / "home" / "store.sqlite"
        if not path.exists():
            return []
        connection = sqlite3.connect(path)
        try:
            return connection.execute("SELECT batch, is_open FROM batches ORDER BY at").fetchall()
        except sqlite3.OperationalError:
            return []  # about to be made
        finally:
            connection.close()

    def pass_by(self) -> None:
        """Let the time be over in which a batch may still be made."""
        with contextlib.closing(sqlite3.connect(self._folder / "home" / "store.sqlite")) as connection, connection:
            connection.execute("UPDATE batches SET until = at")

    def close(self) -> None:
        """End every process."""
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture(params=WIRES)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world for each kind of service."""
    made = World(tmp_path, request.param)
    yield made
    made.close()


def until(holds: Callable[[], object]) -> None:
    """Return when it holds."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)


def answers(process: subprocess.Popen[str]) -> tuple[float, list[str]]:
    """Cost and texts that a client wrote, once it has ended well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    cost, texts = json.loads(out.splitlines()[-1])
    return cost, texts


def check(world: World, texts: list[str]) -> None:
    """Every row has its own answer, and no request was handed in twice: a batch for each layer and model."""
    assert len(texts) == N_ROWS
    assert all(text.startswith("z read ") for text in texts)
    batches = world.batches()
    handed_in = Counter(custom_id for batch in batches for custom_id, _ in batch["requests"])
    assert max(handed_in.values()) == 1
    assert sorted((batch["model"], len(batch["requests"])) for batch in batches) == [(name, N_ROWS) for name in "abz"]
    assert not any(is_open for _, is_open in world.rows())


def test_a_client_killed_while_it_waits(world: World) -> None:
    """The next one waits for the same batches, pays once, and reports what they cost."""
    world.serve("--looks", "8")
    client = world.ask(pause=60)  # the kill comes before the second look
    until(lambda: sum(batch["looks"] >= 1 for batch in world.batches()) == 2)
    client.kill()
    client.communicate()
    assert [is_open for _, is_open in world.rows()] == [1, 1]
    cost, texts = answers(world.ask())
    check(world, texts)
    assert cost > 0
    again, same = answers(world.ask())
    assert same == texts
    assert again == 0, "the third time all is known"
    check(world, texts)


@pytest.mark.parametrize("lose", ["made", "unmade"])
def test_a_client_killed_before_it_knows_the_id(world: World, lose: str) -> None:
    """Between the intent and the id: a batch that was made is found, one that was not is handed in, once."""
    world.serve("--looks", "3", "--lose", lose)
    client = world.ask()
    until(lambda: world.rows() and (lose == "unmade" or world.batches()))
    client.kill()
    client.communicate()
    assert world.rows() == [(None, 1)]
    assert len(world.batches()) == (lose == "made")
    world.pass_by()
    _, texts = answers(world.ask())
    check(world, texts)


def test_a_server_killed_while_it_works(world: World) -> None:
    """A client whose service is gone for a while only waits longer."""
    server = world.serve("--looks", "6")
    client = world.ask()
    until(lambda: any(batch["looks"] >= 2 for batch in world.batches()))
    server.kill()
    server.communicate()
    world.serve("--looks", "6")
    _, texts = answers(client)
    check(world, texts)


def test_both_killed(world: World) -> None:
    """What the machine took with it comes back from the store and from the service."""
    server = world.serve("--looks", "6")
    client = world.ask()
    until(lambda: sum(batch["looks"] >= 1 for batch in world.batches()) >= 2)
    for process in (client, server):
        process.kill()
        process.communicate()
    world.serve("--looks", "6")
    _, texts = answers(world.ask())
    check(world, texts)


def test_two_clients_at_once(world: World) -> None:
    """Two notebooks with the same rows share their batches, whichever of them hands them in."""
    world.serve("--looks", "20")
    clients = [world.ask(), world.ask()]
    texts = [answers(client)[1] for client in clients]
    assert texts[0] == texts[1]
    check(world, texts[0])


def test_a_client_that_looked_before_the_others_answers_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two notebooks with the same row one comes to its departure when the other's batch is over: it pays nothing."""
    monkeypatch.setattr(departures, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(batch, "FIRST_PAUSE", 0.01)
    request = Request("lab:a", (Message("user", "Why did the mill close?"),))

    async def ask(gateway: Gateway) -> Completion:
        landed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        gateway.begin(request, landed.set_result, mode="batch")
        outcome = await landed
        assert isinstance(outcome, Completion)
        return outcome

    async def both(server: BatchServer) -> tuple[Completion, Completion]:
        settings = Settings(providers={"lab": {"base_url": server.base_url, "batch": True}})
        stores = [Store(tmp_path / "store.sqlite") for _ in range(2)]
        early, late = (Gateway(settings, store) for store in stores)
        may_depart = asyncio.Event()
        monkeypatch.setattr(late._batches, "_quiet", may_depart.wait)
        waiting = asyncio.create_task(ask(late))
        first = await ask(early)
        may_depart.set()
        second = await waiting
        for gateway, store in zip((early, late), stores, strict=True):
            await gateway.close()
            assert store.open_batches() == []
            store.close()
        return first, second

    with BatchServer() as server:
        first, second = asyncio.run(both(server))
        assert len(server.batched) == 1
    assert (second.text, second.cached, first.cached) == (first.text, True, False)
