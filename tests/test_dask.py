"""Dask's frames: the same verbs and results, on a real cluster of processes too, which together keep every limit."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("dask.dataframe", reason="the extra 'dask' is not installed")
pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

import dask
import dask.dataframe as dd
from distributed import Client, LocalCluster

import moa_nb as moa
from moa_nb.errors import RowError, SetupError, SpendingNotAgreed, UnknownName
from moa_nb.frames import RowsFailed
from moa_nb.frames.accessor import Verbs
from moa_nb.frames.dask import shares
from moa_nb.frames.dask.shares import packed, share
from moa_nb.frames.dask.treasury import Asked, Ledger, Treasury
from moa_nb.settings import Settings
from moa_nb.testing import ChatServer, Reply

# A cluster that begins on a machine that stands still for a second says so, and as an error that would be its end.
pytestmark = pytest.mark.filterwarnings("ignore:Creating scratch directories:UserWarning")

N_ROWS = 40
PRICE = {"prompt_price": 1e4, "completion_price": 1e4}
"""A cent a token."""


def answer(body: dict[str, Any]) -> str:
    """Return what depends on the prompt alone, in the form that it asks for; its marks are another home's on a cluster."""
    prompt = re.sub(r"\[[0-9a-f]{18}\]", "", body["messages"][-1]["content"])
    number = sum(map(ord, prompt)) % 7 + 1
    if '"better"' in prompt:
        return json.dumps({"better": "A"})
    if '"mood"' in prompt:
        return json.dumps(
            {"mood": ["good", "bad"][number % 2], "price": number / 2 if number > 2 else None, "n": number}
        )
    if '"label"' in prompt:
        return json.dumps({"label": ["praise", "bug"][number % 2]})
    if '"score"' in prompt:
        return json.dumps({"score": number})
    if '"holds"' in prompt:
        return json.dumps({"holds": number % 2 == 0})
    return f"{len(prompt)} {number}"


@pytest.fixture
def one(server: ChatServer) -> Callable[..., None]:
    """Set ``lab:z``, which answers everything alone; called with further settings."""
    server.on("z", answer)

    def configure(**values: Any) -> None:
        provider = {"base_url": server.base_url, "concurrency": 8, **values.pop("provider", {})}
        known = {
            "pipeline": "single",
            "proposers": ["lab:z"],
            "aggregator": "lab:z",
            "providers": {"lab": provider},
            "models": {"lab:z": PRICE},
            "ask_above": 1e6,
        }
        moa.configure(**{**known, **values})

    configure()
    return configure


def cluster_in(folder: Path, **environment: str) -> LocalCluster:
    """Return a cluster of two processes with a home of their own."""
    return LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=True,
        dashboard_address=":0",
        local_directory=str(folder),
        env={"MOA_NB_HOME": str(folder / "home"), **environment},
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster of two processes, two threads each."""
    with cluster_in(tmp_path_factory.mktemp("cluster"), LAB_KEY="sk-of-the-workers") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """The cluster as the scheduler of the test."""
    with Client(cluster) as client:
        yield client


@pytest.fixture
def frame() -> pd.DataFrame:
    """Rows with duplicate labels, missing texts and equal texts."""
    texts = [f"question {number % 30} {'x' * (number % 5)}" for number in range(N_ROWS)]
    texts[3] = texts[17] = None  # type: ignore[call-overload]  # missing
    rows = pd.DataFrame(
        {
            "q": texts,
            "r": [f"reply {number}" for number in range(N_ROWS)],
            "g": [["north", "south", "east", None][number % 4] for number in range(N_ROWS)],
            "year": [2020 + number % 2 for number in range(N_ROWS)],
        },
        index=pd.Index([7] * 10 + list(range(N_ROWS - 10)), name="id"),
    )
    return in_parts(rows).compute()  # dask has a type of its own for texts


def in_parts(frame: Any, n: int = 5) -> Any:
    """Return the frame on dask, in partitions of unknown divisions."""
    return dd.from_pandas(frame, npartitions=n, sort=False)


# Words for every verb, and whether groups come out in an order of their own.
SPOKEN: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "synthesize": (("q",), {"instruction": "Say it shorter"}),
    "extract": (("q", {"mood": ["good", "bad"], "price": float | None, "n": int}), {}),
    "classify": (("q", ["praise", "bug", "billing"]), {}),
    "score": (("q", "how urgent it is"), {}),
    "filter": (("q", "it is urgent"), {}),
    "prefer": (("q", "r"), {}),
    "summarize": (("q",), {"by": "g"}),
}


# Coming in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "is_there"),
    [
        ("import moa_nb, dask.dataframe as dd", True),
        ("import dask.dataframe as dd, moa_nb", True),
        ("import moa_nb.frames.dask, dask.dataframe as dd", True),
        ("import dask.dataframe as dd", False),
        ("import moa_nb; import dask; import dask.dataframe as dd", True),
    ],
)
def test_the_accessor_is_there_whichever_comes_first(program: str, is_there: bool) -> None:
    """Dask's frames have ``moa`` as soon as both are imported, in whatever order, and no hook is left behind."""
    look = (
        "; import sys; print(hasattr(dd.DataFrame, 'moa'), hasattr(dd.Series, 'moa'), type(dd.__spec__.loader).__name__,"
        " any('moa_nb' in type(one).__module__ for one in sys.meta_path))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program + look], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(is_there), str(is_there), "SourceFileLoader", "False"]


def test_dask_is_not_brought_in() -> None:
    """``import moa_nb`` leaves dask where it is."""
    look = "import sys, moa_nb; print('dask' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("verb", SPOKEN)
def test_verbs_are_spelt_as_those_of_pandas(verb: str) -> None:
    """Signature and words are those of the pandas verb, and ``workers`` besides."""
    own, theirs = getattr(dd.DataFrame.moa, verb), getattr(Verbs, verb)
    assert [*inspect.signature(own).parameters] == [*inspect.signature(theirs).parameters, "workers"]
    assert own.__doc__.splitlines()[0] == theirs.__doc__.splitlines()[0]
    assert "workers:" in own.__doc__
    assert ">>>" not in own.__doc__


def test_what_dask_does_itself_is_said() -> None:
    """``start`` and ``preview`` are not there, and say what to write."""
    accessor = in_parts(pd.DataFrame({"q": ["a"]}), 1).moa
    with pytest.raises(AttributeError, match=r"persist\(\)"):
        _ = accessor.start
    with pytest.raises(AttributeError, match=r"ddf\.head\(3\)"):
        _ = accessor.preview


# The same results -------------------------------------------------------------------------------


def agrees(verb: str, lazy: Any, expected: Any) -> None:
    """Assert that dask computes what pandas has, and knew its type beforehand."""
    found = lazy.compute()
    if verb == "summarize":
        found, expected = found.sort_index(), expected.sort_index()
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(expected, found)
        assert lazy.dtypes.equals(expected.dtypes)
        return
    pd.testing.assert_series_equal(expected, found)
    assert lazy.dtype == expected.dtype
    assert lazy.name == expected.name


@pytest.mark.parametrize("verb", SPOKEN)
def test_a_cluster_gives_what_pandas_gives(
    verb: str, client: Client, one: Callable[..., None], server: ChatServer, frame: pd.DataFrame
) -> None:
    """Values, types, index and name are those of pandas; nothing is sent before dask computes."""
    args, words = SPOKEN[verb]
    lazy = getattr(in_parts(frame).moa, verb)(*args, **words)
    assert server.count() == 0
    expected = getattr(frame.moa, verb)(*args, progress=False, **words)
    agrees(verb, lazy, expected)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("verb", SPOKEN)
def test_one_process_gives_what_pandas_gives(
    verb: str, scheduler: str, one: Callable[..., None], frame: pd.DataFrame
) -> None:
    """Without a cluster all partitions go through the engine of this process."""
    import dask

    args, words = SPOKEN[verb]
    lazy = getattr(in_parts(frame).moa, verb)(*args, **words)
    expected = getattr(frame.moa, verb)(*args, progress=False, **words)
    with dask.config.set(scheduler=scheduler):
        agrees(verb, lazy, expected)


def test_one_process_asks_nothing_twice(one: Callable[..., None], server: ChatServer, frame: pd.DataFrame) -> None:
    """Equal rows of different partitions are asked once, and a later run in pandas asks none of them."""
    in_parts(frame).moa.synthesize("q").compute(scheduler="threads")
    assert server.count() == frame["q"].nunique()
    frame.moa.synthesize("q", progress=False)
    assert server.count() == frame["q"].nunique()


def test_a_series_has_the_same_verbs(one: Callable[..., None], server: ChatServer, frame: pd.DataFrame) -> None:
    """``ddf["q"].moa`` works as ``df["q"].moa`` does."""
    lazy = in_parts(frame)["q"].moa.score(criterion="how urgent it is")
    agrees("score", lazy, frame["q"].moa.score(criterion="how urgent it is", progress=False))
    whole = in_parts(frame)["q"].moa.summarize()
    agrees("summarize", whole, frame["q"].moa.summarize(progress=False))


def test_empty_partitions_and_a_filter(one: Callable[..., None], frame: pd.DataFrame) -> None:
    """A partition without rows has the right types, a mask selects, and divisions stay known."""
    sparse = in_parts(frame)
    sparse = sparse[sparse["year"] > 2030]
    assert sparse.moa.classify("q", ["praise", "bug"]).compute().dtype.categories.tolist() == ["praise", "bug"]
    parts = dd.from_pandas(frame.reset_index(drop=True), npartitions=4)
    mask = parts.moa.filter("q", "it is urgent")
    assert mask.divisions == parts.divisions
    expected = frame.reset_index(drop=True)
    expected = expected[expected.moa.filter("q", "it is urgent", progress=False).fillna(False)]
    pd.testing.assert_frame_equal(parts[mask.fillna(False)].compute(), expected)


@pytest.mark.parametrize("by", [None, "year", ["g", "year"]])
def test_groups_are_whole(
    by: Any, client: Client, one: Callable[..., None], server: ChatServer, frame: pd.DataFrame
) -> None:
    """Each group is gathered from all partitions and read once, its rows in their order."""
    lazy = in_parts(frame).moa.summarize("q", by=by)
    agrees("summarize", lazy, frame.moa.summarize("q", by=by, progress=False))
    read = [text for record in server.requests[: server.count() // 2] for text in [record.text_of("user")]]
    texts = Counter(word for text in read for word in text.split() if word == "question")
    assert texts["question"] == frame["q"].notna().sum()


@pytest.mark.parametrize("by", ["nothing", lambda label: label, ["g", "nothing"], pd.Series([1])])
def test_groups_are_columns(by: Any, one: Callable[..., None], frame: pd.DataFrame) -> None:
    """What dask cannot group by is refused at once, with what it can."""
    with pytest.raises(SetupError, match="dask groups by columns of its frame"):
        in_parts(frame).moa.summarize("q", by=by)


# What is wrong shows at once --------------------------------------------------------------------


def untouched() -> Any:
    """A frame that must not be computed."""

    def never(number: int) -> pd.DataFrame:
        msg = f"partition {number} was computed"
        raise AssertionError(msg)

    return dd.from_map(never, range(3), meta=pd.DataFrame({"q": pd.Series(dtype="str")}))


def test_nothing_is_computed_early(one: Callable[..., None], server: ChatServer) -> None:
    """A verb looks at the columns alone."""
    untouched().moa.synthesize("q")
    untouched().moa.summarize("q", by="q")
    assert server.count() == 0


@pytest.mark.parametrize(
    ("speak", "error", "said"),
    [
        (lambda moa: moa.synthesize("p"), UnknownName, "no column 'p'"),
        (lambda moa: moa.synthesize("q", template="{{ p }}"), SetupError, "'p'"),
        (lambda moa: moa.synthesize("q", pipeline="singel"), UnknownName, "did you mean 'single'"),
        (lambda moa: moa.synthesize("q", aggregator="lib:z"), SetupError, "lib"),
        (lambda moa: moa.synthesize("q", temprature=1), TypeError, "temperature"),
        (lambda moa: moa.classify("q", ["one"]), SetupError, "at least two"),
        (lambda moa: moa.extract("q", {}), SetupError, "field"),
        (lambda moa: moa.synthesize("q", budget=-1), SetupError, "budget"),
        (lambda moa: moa.synthesize("q", on_error="ignore"), SetupError, "on_error"),
        (lambda moa: moa.synthesize("q", workers=0), SetupError, "workers"),
        (lambda moa: moa.synthesize("q", workers=9), SetupError, "pass workers=8"),
    ],
)
def test_mistakes_show_when_a_verb_is_spoken(
    speak: Callable[[Any], Any], error: type[Exception], said: str, one: Callable[..., None], server: ChatServer
) -> None:
    """Columns, templates, schemas, models and options are checked on the columns alone, before anything is sent."""
    with pytest.raises(error, match=said):
        speak(untouched().moa)
    assert server.count() == 0


def test_an_estimate_sends_nothing(
    client: Client, one: Callable[..., None], server: ChatServer, frame: pd.DataFrame
) -> None:
    """The partitions are priced where they are, and together they take what pandas says of rows without duplicates."""
    rows = frame.drop_duplicates("q")
    expected = rows.moa.estimate.synthesize("q")
    found = in_parts(rows, 3).moa.estimate.synthesize("q")
    assert (found.n_calls, found.prompt_tokens) == (expected.n_calls, expected.prompt_tokens)
    assert found.cost == pytest.approx(expected.cost)
    assert in_parts(rows, 3).moa.estimate.summarize("q", by="g").n_calls == rows["g"].nunique(dropna=False)
    assert server.count() == 0


def test_what_may_be_spent_unasked_is_for_all_partitions(
    one: Callable[..., None], server: ChatServer, frame: pd.DataFrame
) -> None:
    """A partition has its part of ``ask_above``, and the refusal says how to agree for all of them."""
    one(ask_above=0.5, max_tokens=10)
    with pytest.raises(SpendingNotAgreed, match=r"one of 5 partitions .*\.moa\.estimate\.synthesize.* budget="):
        in_parts(frame).moa.synthesize("q", max_tokens=10).compute(scheduler="synchronous")
    assert server.count() == 0
    assert in_parts(frame).moa.synthesize("q", budget=float("inf")).compute(scheduler="threads").notna().sum() == 38


# Shares -----------------------------------------------------------------------------------------


def test_settings_are_divided() -> None:
    """Each limit is divided, what is known of services too; what nobody set stays unset."""
    settings = Settings.model_validate(
        {
            "providers": {"lab": {"base_url": "http://x/v1", "concurrency": 9, "requests_per_minute": 100}},
            "models": {"lab:z": {"tokens_per_minute": 1001}},
        }
    )
    part = share(settings, 4)
    lab, ollama = part.provider("lab:z"), part.provider("ollama:z")
    assert (lab.concurrency, part.providers["lab"].requests_per_minute) == (2, 25)
    assert (part.models["lab:z"].tokens_per_minute, part.concurrency) == (250, 16)
    assert ollama.concurrency == (settings.provider("ollama:z").concurrency or 0) // 4
    assert (ollama.base_url, ollama.key_env, ollama.wire) == (
        settings.provider("ollama:z").base_url,
        settings.provider("ollama:z").key_env,
        settings.provider("ollama:z").wire,
    )
    assert "concurrency" not in part.model_fields_set
    assert share(settings, 4) is part


def test_calls_in_flight_are_never_more(client: Client, one: Callable[..., None], server: ChatServer) -> None:
    """Two processes with two partitions each keep what the provider may have at once, and come near it."""
    client.run(importlib.import_module, "moa_nb.engine.engine")  # neither begins much later than the other
    one(provider={"concurrency": 6})
    # A second each until both are at work: one alone would have the rows for half a minute.
    server.on("z", lambda _: Reply("an answer", delay=0.05 if server.max_in_flight >= 4 else 1.0))
    rows = pd.DataFrame({"q": [f"one {number}" for number in range(120)]})
    assert in_parts(rows, 8).moa.synthesize("q").compute().notna().all()
    assert server.count() == 120
    assert 4 <= server.max_in_flight <= 6


def test_surplus_processes_wait(client: Client, one: Callable[..., None], server: ChatServer) -> None:
    """With ``workers=1`` one process at a time has all of the limits."""
    one(provider={"concurrency": 3})
    server.on("z", Reply("an answer", delay=0.02))
    rows = pd.DataFrame({"q": [f"alone {number}" for number in range(40)]})
    assert in_parts(rows, 4).moa.synthesize("q", workers=1).compute().notna().all()
    assert server.max_in_flight <= 3


def test_requests_a_minute_are_never_more(tmp_path: Path, one: Callable[..., None], server: ChatServer) -> None:
    """However long a stretch of time, no more requests go out in it than a minute's rate allows."""
    one(provider={"requests_per_minute": 600})
    rows = pd.DataFrame({"q": [f"paced {number}" for number in range(40)]})

    def watch() -> None:  # in each process: on their way, and until a busy server reads them, requests come together
        from moa_nb.gateway.http import Http

        Http.moments, post = [], Http.post  # type: ignore[attr-defined]  # for ``told``

        async def posted(http: Any, *args: Any, **words: Any) -> Any:
            Http.moments.append(time.monotonic())  # type: ignore[attr-defined]  # likewise
            return await post(http, *args, **words)

        Http.post = posted  # type: ignore[method-assign]  # in a process of this test alone

    def told() -> list[float]:
        from moa_nb.gateway.http import Http

        return Http.moments  # type: ignore[attr-defined]  # likewise

    # A cluster of its own: its seats are kept for a minute, and others would wait for them.
    with cluster_in(tmp_path) as cluster, Client(cluster) as client:
        client.run(watch)
        assert in_parts(rows, 4).moa.synthesize("q").compute().notna().all()
        sent = sorted(moment for moments in client.run(told).values() for moment in moments)
    assert len(sent) == server.count() == 40
    for first in range(len(sent)):
        for last in range(first + 1, len(sent)):
            # A second's worth may go at once (were it one of each process, it would be 20).
            assert last - first + 1 <= 10 + (sent[last] - sent[first] + 0.75) * 10


def test_rates_that_cannot_be_shared_are_refused(client: Client, one: Callable[..., None], server: ChatServer) -> None:
    """A rate of one for two processes is a mistake, said before anything is sent."""
    one(provider={"requests_per_minute": 1})
    rows = in_parts(pd.DataFrame({"q": ["a", "b"]}), 2)
    with pytest.raises(SetupError, match="requests_per_minute is 1, which cannot be shared by 2 worker processes"):
        rows.moa.synthesize("q")
    assert server.count() == 0


def spent(server: ChatServer) -> float:
    """Return the dollars that the server would bill for what it answered: a cent a word."""
    return sum(
        0.01 * (len(" ".join(str(message["content"]) for message in record.messages).split()) + 2)
        for record in server.requests
    )


@pytest.mark.parametrize("scheduler", ["cluster", "threads"])
@pytest.mark.filterwarnings("ignore::moa_nb.frames.run.RowsFailed")
def test_the_budget_is_never_passed(
    scheduler: str, request: pytest.FixtureRequest, one: Callable[..., None], server: ChatServer
) -> None:
    """The calls of all partitions are no more than the budget, and nearly as many, however uneven the partitions are."""
    words: dict[str, Any] = {"scheduler": "threads"}
    if scheduler == "cluster":
        request.getfixturevalue("client")
        words = {}
    rows = pd.DataFrame({"q": [f"counted {scheduler} {number}" for number in range(60)]})
    parts = dd.concat([in_parts(rows[:50], 2), in_parts(rows[50:], 6)])
    lazy = parts.moa.synthesize("q", budget="24 calls")
    first = lazy.compute(**words)
    # Of four partitions at a time each may hold a part of a call; with an eighth for each partition it would be 16.
    assert 20 <= server.count() <= 24
    assert first.notna().sum() == server.count()
    again = lazy.compute(**words)
    assert again.notna().sum() == server.count() == 24, "computed again it is the same budget, to the last call"


@pytest.mark.filterwarnings("ignore::moa_nb.frames.run.RowsFailed")
def test_dollars_are_never_more(client: Client, one: Callable[..., None], server: ChatServer) -> None:
    """What the service bills for all partitions stays within the dollars that were given."""
    rows = pd.DataFrame({"q": [f"dear {number} " + "word " * (number % 9) for number in range(60)]})
    in_parts(rows, 6).moa.synthesize("q", budget=5.0, max_tokens=3).compute()
    assert 2.0 < spent(server) <= 5.0


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["need", "settle", "die"]), st.integers(0, 3), st.floats(0, 1)), max_size=60
    ),
    n_slots=st.integers(0, 8),
)
def test_a_ledger_never_gives_more_than_there_is(steps: list[tuple[str, int, float]], n_slots: int) -> None:
    """In whatever order partitions need something, end and lose their process: what they may take is within the limit."""
    ledger = Ledger(1.0)
    running: dict[str, tuple[str, float]] = {}
    billed, processes = 0.0, {f"p{number}" for number in range(4)}
    for number, (what, place, part) in enumerate(steps):
        process, attempt = f"p{place}", f"attempt {number % 7}"
        if what == "need":
            owner, amount = running.get(attempt, (process, 0.0))
            running[attempt] = (owner, amount + ledger.more(attempt, owner, part, n_slots))
        elif what == "settle" and running:
            attempt, (_, amount) = running.popitem()
            billed += amount * part
            ledger.settle(attempt, amount * part)
        elif what == "die":
            ledger.bury(processes - {process})
            billed += sum(amount for owner, amount in running.values() if owner == process)
            running = {key: value for key, value in running.items() if value[0] != process}
        assert billed + sum(amount for _, amount in running.values()) <= 1.0 + 1e-9


def asked(process: str, attempt: str, *, workers: int | None = None, has_rates: bool = False) -> Asked:
    """What a partition of the work ``w`` asks."""
    return Asked("w", attempt, process, workers, None, has_rates)


def test_seats_are_no_more_than_shares() -> None:
    """A process that comes later waits until a seat is free; one that is gone leaves its own."""
    treasury, both = Treasury(), {"p1": 2, "p2": 2}
    assert treasury.ask(asked("p1", "a"), both, 0.0) == 2
    assert treasury.ask(asked("p2", "b"), both, 0.0) == 2
    three = {**both, "p3": 2}
    assert treasury.ask(asked("p3", "c"), three, 1.0) is None
    treasury.settle("w", "b", 0.0, 2.0)
    assert treasury.ask(asked("p3", "c"), three, 2.0) == 2
    assert treasury.ask(asked("p2", "d"), three, 3.0) is None
    assert treasury.ask(asked("p2", "d"), {"p2": 2, "p3": 2}, 4.0) == 2


def test_a_seat_with_a_rate_is_kept_for_a_minute() -> None:
    """What a process sent within the last minute counts: nobody else sends in its place before."""
    treasury, both = Treasury(), {"p1": 2, "p2": 2}
    assert treasury.ask(asked("p1", "a", workers=1, has_rates=True), both, 0.0) == 1
    assert treasury.ask(asked("p2", "b", workers=1, has_rates=True), {"p2": 2}, 5.0) is None
    assert treasury.ask(asked("p2", "b", workers=1, has_rates=True), {"p2": 2}, 64.0) is None
    assert treasury.ask(asked("p2", "b", workers=1, has_rates=True), {"p2": 2}, 65.0) == 1


# Processes that die -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::moa_nb.frames.run.RowsFailed")
@pytest.mark.parametrize("budget", [None, "400 calls", "90 calls"])
def test_a_killed_worker_loses_nothing_that_was_kept(
    budget: str | None, tmp_path: Path, one: Callable[..., None], server: ChatServer
) -> None:
    """The run goes on in the other processes, asks again only what was not kept, and never passes its budget."""
    server.on("z", Reply("an answer", delay=0.02))
    rows = pd.DataFrame({"q": [f"row {number}" for number in range(120)]})
    with cluster_in(tmp_path) as cluster, Client(cluster) as client:
        victim = next(iter(client.run(os.getpid).values()))
        future = client.compute(in_parts(rows, 4).moa.synthesize("q", budget=budget))
        assert server.wait_until(lambda: server.count() >= 50, seconds=60)
        os.kill(victim, signal.SIGKILL)
        before = server.count()
        with contextlib.closing(sqlite3.connect(tmp_path / "home" / "store.sqlite")) as store:
            (kept,) = store.execute("SELECT CAST(TOTAL(n) AS INTEGER) FROM blocks").fetchone()
        after = server.count()
        found = future.result(timeout=120)
    times = Counter(record.text_of("user") for record in server.requests)
    not_yet_read = 4  # sent by the killed process, and not counted at that moment
    assert sum(times.values()) - len(times) <= after - kept + not_yet_read, "only what was not kept is asked again"
    assert before - kept <= 4 * 2 * 4, "of four partitions, twice as many rows as a process has slots"
    if budget == "90 calls":
        assert server.count() <= 90
        assert found.notna().sum() >= 45
    else:
        assert found.notna().all()
        assert len(times) == 120


# What travels -----------------------------------------------------------------------------------


def test_keys_stay_behind(client: Client, one: Callable[..., None], server: ChatServer) -> None:
    """A key that only this process has is refused in one line, and is in nothing that travels."""
    one(provider={"key": "sk-never-to-be-sent"})
    rows = in_parts(pd.DataFrame({"q": ["a", "b"]}), 2)
    with pytest.raises(SetupError, match=r"key of 'lab' .* providers\.lab\.key_env"):
        rows.moa.synthesize("q")
    from moa_nb import settings

    assert b"sk-never" not in packed(settings.current())
    assert rows.moa.synthesize is not None
    assert server.count() == 0


def test_one_process_has_its_keys(one: Callable[..., None], server: ChatServer) -> None:
    """Without a cluster a key that ``moa.configure`` was given serves."""
    one(provider={"key": "sk-of-this-process"})
    in_parts(pd.DataFrame({"q": ["a", "b"]}), 2).moa.synthesize("q").compute(scheduler="threads")
    assert {record.headers["Authorization"] for record in server.requests} == {"Bearer sk-of-this-process"}


def test_workers_read_keys_from_their_own_environment(
    client: Client, one: Callable[..., None], server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable's name travels with the settings, its value does not."""
    monkeypatch.setenv("LAB_KEY", "sk-of-the-client")
    one(provider={"key_env": "LAB_KEY"})
    in_parts(pd.DataFrame({"q": ["a", "b"]}), 2).moa.synthesize("q").compute()
    assert {record.headers["Authorization"] for record in server.requests} == {"Bearer sk-of-the-workers"}


def test_functions_travel(client: Client, one: Callable[..., None]) -> None:
    """A function goes along as it is, and a registered one under its name."""

    @moa.agent("louder", version="1")
    def louder(prompt: str) -> str:
        return prompt.upper()

    rows = in_parts(pd.DataFrame({"q": ["a", "b"]}), 2)
    assert rows.moa.synthesize("q", aggregator="function:louder").compute().tolist() == ["A", "B"]
    assert rows.moa.synthesize("q", aggregator=louder).compute().tolist() == ["A", "B"]
    assert rows.moa.synthesize("q", aggregator=lambda prompt: prompt * 2).compute().tolist() == ["aa", "bb"]
    with pytest.raises(SetupError, match="cannot be sent to the workers"):
        rows.moa.synthesize("q", aggregator=lambda prompt, held=client.loop: prompt)


def test_what_a_client_knows_of_workers_may_be_out_of_date(cluster: LocalCluster, one: Callable[..., None]) -> None:
    """How many processes there are is asked of the scheduler: a client forgets its workers now and then."""
    rows = in_parts(pd.DataFrame({"q": ["a", "b"]}), 2)
    with dask.config.set({"distributed.client.scheduler-info-interval": "1ms"}), Client(cluster):
        for _ in range(100):
            rows.moa.synthesize("q")


def test_a_client_that_is_awaited(cluster: LocalCluster, one: Callable[..., None], server: ChatServer) -> None:
    """An asynchronous client has its verbs too; a limit that cannot be shared shows when the partitions begin."""
    rows = in_parts(pd.DataFrame({"q": ["a", "b"]}), 2)

    async def answers() -> list[str]:
        async with Client(cluster.scheduler_address, asynchronous=True) as client:
            found = await client.compute(rows.moa.synthesize("q"))
            one(concurrency=1)
            lazy = rows.moa.synthesize("q")
            with pytest.raises(SetupError, match="cannot be shared by 2 worker processes"):
                await client.compute(lazy)
            return list(found)

    assert asyncio.run(answers()) == [answer({"messages": [{"content": text}]}) for text in "ab"]


BARE_SCHEDULER = """
import sys
sys.path.append(sys.argv[1])
import asyncio, distributed

async def main():
    async with distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        print(scheduler.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def test_a_scheduler_without_us(one: Callable[..., None], server: ChatServer, tmp_path: Path) -> None:
    """A scheduler whose environment lacks this package is named before anything is computed."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for found in Path(dask.__path__[0]).parents[0].iterdir():
        if not found.name.startswith(("moa_nb", "__editable__")):
            (packages / found.name).symlink_to(found)
    with subprocess.Popen(
        [sys.executable, "-S", "-c", BARE_SCHEDULER, str(packages)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as scheduler:
        assert scheduler.stdout is not None
        with Client(scheduler.stdout.readline().strip()), pytest.raises(SetupError, match="does not have this moa-nb"):
            in_parts(pd.DataFrame({"q": ["a", "b"]}), 2).moa.synthesize("q")
        assert scheduler.stdin is not None
        scheduler.stdin.close()
    assert server.count() == 0


def test_two_partitions_that_ask_first_have_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two, a process would have two gateways, and take twice its share."""
    settings, divide, seen = Settings(concurrency=8), shares._divided, list[Settings]()

    def interrupted(settings: Settings, n_processes: int) -> Settings:
        if not seen:
            seen.append(settings)
            seen.append(share(settings, n_processes))
        return divide(settings, n_processes)

    monkeypatch.setattr(shares, "_divided", interrupted)
    assert share(settings, 2) is share(settings, 2) is seen[1]


def test_dasks_own_processes_are_refused(one: Callable[..., None], server: ChatServer) -> None:
    """Processes that no scheduler knows cannot share anything, and say what can."""
    lazy = in_parts(pd.DataFrame({"q": ["a", "b"]}), 2).moa.synthesize("q")
    with pytest.raises(SetupError, match=r"dask\.distributed\.Client\(\)"):
        lazy.compute(scheduler="processes", num_workers=1)
    assert server.count() == 0


# Rows that fail ---------------------------------------------------------------------------------


def failing(body: dict[str, Any]) -> Reply:
    """Refuse what is bad."""
    return Reply(status=400, error="too odd") if "bad" in body["messages"][-1]["content"] else Reply("fine")


def test_rows_that_fail_are_missing_and_counted(one: Callable[..., None], server: ChatServer) -> None:
    """A partition warns once of its rows without an answer; the others have theirs."""
    server.on("z", failing)
    rows = in_parts(pd.DataFrame({"q": ["good", "bad", "better", "best"]}), 2)
    with pytest.warns(RowsFailed, match=r"1 of 2 rows of a partition have no answer; the first: .*too odd"):
        found = rows.moa.synthesize("q").compute(scheduler="synchronous")
    assert found.isna().tolist() == [False, True, False, False]


def test_a_cluster_tells_of_rows_that_fail(client: Client, one: Callable[..., None], server: ChatServer) -> None:
    """The warning reaches the client, and ``on_error="raise"`` raises there."""
    told: list[Any] = []
    client.unsubscribe_topic("warn")
    client.subscribe_topic("warn", told.append)
    server.on("z", failing)
    rows = in_parts(pd.DataFrame({"q": ["good", "bad", "better", "best"]}), 2)
    assert rows.moa.synthesize("q").compute().isna().sum() == 1
    assert server.wait_until(lambda: told)
    with pytest.raises(RowError, match="too odd"):
        rows.moa.synthesize("q", on_error="raise").compute()
