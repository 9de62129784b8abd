"""What is kept and what it cost: listed, summed over all notebooks, and deleted when somebody says so."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from magics import shell_fixture  # noqa: F401 - a fixture

import moa_nb as moa
from moa_nb.chat import Completion, Usage
from moa_nb.errors import UnknownName
from moa_nb.notebook import kept
from moa_nb.notebook.magic import MoaMagics
from moa_nb.store import LedgerRow, RunRow, Store, index, upkeep
from moa_nb.testing import ChatServer

Lab = Callable[..., None]

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of its own."""
    made = Store(tmp_path / "own" / "store.sqlite")
    yield made
    assert made.complaint() is None
    made.close()


def key(name: object) -> bytes:
    """A key of a name."""
    return hashlib.blake2b(str(name).encode(), digest_size=index.KEY).digest()


def put(store: Store, model: str, *names: object) -> None:
    """Keep an answer of a model under the key of each name."""

    async def go() -> None:
        await asyncio.gather(*(store.put(key(name), answer(name), model) for name in names))

    asyncio.run(go())


def answer(name: object) -> Completion:
    """An answer that says which it is."""
    return Completion(f"{name} " * 300, "m", "stop", Usage(10, 5), cost=0.01)


def has(store: Store, *names: object) -> list[bool]:
    """Whether the store has the answer of each name; what it has must be right."""
    found = [store.get(key(name)) for name in names]
    for name, one in zip(names, found, strict=True):
        assert one is None or one == replace(answer(name), cached=True, attempts=0)
    return [one is not None for one in found]


def age(store: Store, days: float) -> None:
    """Let everything that is kept be older."""
    assert store.path is not None
    connection = sqlite3.connect(store.path)
    for table in ("blocks", "runs"):
        connection.execute(f"UPDATE {table} SET at = at - ?", [days * DAY])
    connection.commit()
    connection.close()


def add(
    store: Store, name: str, *rows: LedgerRow, days: float = 0, pipeline: str = "moa", keys: bytes | None = None
) -> None:
    """Keep a run of some days ago."""
    at = time.time() - days * DAY
    row = RunRow(name, at, "cell", pipeline, "done", name, 1, 0, 0, 1, 1, 0.0, 0.0, 1.0)
    store.add_run(row, list(rows), {"text": name}, keys)


def paid(model: str = "lab:a", cost: float | None = 0.5, unpriced: int = 0) -> LedgerRow:
    """Four calls of a model, one of them cached."""
    return LedgerRow(model, 4, 1, 30, 20, cost, 0.25, unpriced, saved_tokens=15)


# The cache --------------------------------------------------------------------------------------


def test_the_cache_says_what_it_holds_and_has_saved(store: Store) -> None:
    """Where, how large, how many answers of which model since when; calls, tokens and dollars saved."""
    put(store, "lab:a", *range(30))
    put(store, "lab:b", "x")
    add(store, "r", paid())
    held = store.held()
    assert (held.path, held.completions) == (store.path, 31)
    assert held.bytes >= sum(one.bytes for one in held.models) > 0
    assert [(one.model, one.completions) for one in held.models] == [("lab:a", 30), ("lab:b", 1)]
    assert held.oldest == pytest.approx(time.time(), abs=100)
    shown = repr(kept.cache(store, []))
    assert "31 answers since " in shown
    assert "saved so far: 1 call, 15 tokens, $0.2500" in shown
    assert "store.sqlite" in shown
    assert "lab:b" in shown


def test_the_cache_is_cleared(store: Store) -> None:
    """All answers are gone, the disk has its space back, runs and costs stay, and what comes is kept as before."""
    put(store, "lab:a", *range(4000))
    add(store, "r", paid())
    before = store.held().bytes
    said = kept.cache(store, ["clear"])
    assert isinstance(said, str)
    assert said.startswith("cleared 4,000 answers; ")
    assert has(store, 0, 3999) == [False, False]
    assert store.held().bytes < before / 4
    assert (store.held().completions, store.held().oldest) == (0, None)
    assert (len(store.runs()), len(store.costs())) == (1, 1)
    assert kept.cache(store, ["clear"]) == "nothing to clear"
    put(store, "lab:a", 1, 2)
    assert has(store, 0, 1, 2) == [False, True, True]


def test_old_answers_are_cleared(store: Store) -> None:
    """``--older-than`` takes hours, days and weeks."""
    put(store, "lab:a", *range(20))
    age(store, 10)
    put(store, "lab:a", *range(20, 30))
    assert kept.cache(store, ["clear", "--older-than", "2w"]) == "nothing to clear"
    assert str(kept.cache(store, ["clear", "--older-than", "9d"])).startswith("cleared 20 answers")
    assert has(store, 0, 19, 20, 29) == [False, False, True, True]
    age(store, 0.5)
    assert str(kept.cache(store, ["clear", "--older-than", "11h"])).startswith("cleared 10 answers")


def test_one_models_answers_are_cleared(store: Store) -> None:
    """``--model`` names one that the listing shows; a wrong name is told the nearest right one, and deletes nothing."""
    put(store, "lab:alpha", *range(20))
    put(store, "lab:beta", "x", "y")
    with pytest.raises(UnknownName, match="did you mean 'lab:alpha'"):
        kept.cache(store, ["clear", "--model", "lab:alpa"])
    assert str(kept.cache(store, ["clear", "--model", "lab:beta"])).startswith("cleared 2 answers")
    assert has(store, 0, 19, "x", "y") == [True, True, False, False]


def test_another_kernel_sees_what_was_cleared(store: Store) -> None:
    """It does not go on with what it had read before, and finds what came afterwards."""
    assert store.path is not None
    other = Store(store.path)
    put(store, "lab:a", *range(50))
    assert has(other, 3, 4) == [True, True]
    other.clear()
    assert has(store, 3, 4) == [False, False]
    put(store, "lab:a", 3)
    assert has(other, 3, 4) == [True, False]
    put(other, "lab:a", 4)
    assert has(store, 3, 4) == [True, True]
    other.close()


def test_what_is_in_memory_is_cleared_too() -> None:
    """Without a file the session's answers are listed, cleared and forgotten, and its runs and costs are summed."""
    store = Store(None)
    put(store, "lab:b", 3)
    put(store, "lab:a", 1, 2)
    add(store, "r", paid())
    assert [one.model for one in store.held().models] == ["lab:a", "lab:b"]
    assert "3 answers since" in repr(kept.cache(store, []))
    assert "in memory" in repr(kept.cache(store, []))
    assert kept.cache(store, ["clear", "--model", "lab:a"]) == "cleared 2 answers"
    assert kept.cache(store, ["clear", "--older-than", "1h"]) == "nothing to clear"
    assert has(store, 1, 2, 3) == [False, False, True]
    assert [row.cost for row in store.costs()] == [0.5]
    assert [run.id for run in store.runs()] == ["r"]
    store.close()


@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("put"), st.integers(0, 1), st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True)
            ),
            st.tuples(st.just("delete"), st.integers(0, 1), st.lists(st.integers(0, 40), max_size=6)),
            st.tuples(st.just("clear"), st.integers(0, 1), st.sampled_from(["a", "b", None])),
            st.tuples(st.just("sort in"), st.integers(0, 1), st.none()),
        ),
        max_size=14,
    )
)
def test_whatever_is_put_and_deleted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, object]]
) -> None:
    """Two kernels put, delete, clear and sort in, in any order: each finds what is there, and nothing else."""
    path = tmp_path_factory.mktemp("two") / "store.sqlite"
    stores = [Store(path), Store(path)]
    there: dict[object, str] = {}
    for what, who, names in steps:
        store, model = stores[who], "ab"[who]
        if what == "put":
            assert isinstance(names, list)
            put(store, model, *names)
            there.update(dict.fromkeys(names, model))
        elif what == "delete":
            assert isinstance(names, list)
            store._do(lambda connection, names=names: upkeep.delete_keys(connection, {key(name) for name in names}))
            for name in names:
                there.pop(name, None)
        elif what == "clear" and names is None:
            store.clear()
            there.clear()
        elif what == "sort in":
            store._do(index.sort_in)
        expected = [name in there for name in range(41)]
        if what != "clear" or names is None:
            assert [has(one, *range(41)) for one in stores] == [expected, expected]
    for store in stores:
        assert store.complaint() is None
        store.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clean"], "takes nothing, or clear"),
        (["clear", "--older-than", "soon"], "12h, 30d or 4w"),
        (["clear", "--oldr-than", "3d"], "did you mean '--older-than'?"),
        (["clear", "--model"], "expected one argument"),
    ],
)
def test_a_mistake_clears_nothing(store: Store, words: list[str], said: str) -> None:
    """One line that says what is right."""
    put(store, "lab:a", 1)
    with pytest.raises(UsageError) as raised:
        kept.cache(store, words)
    assert said in str(raised.value)
    assert has(store, 1) == [True]


# Runs -------------------------------------------------------------------------------------------


def test_a_run_is_deleted_and_its_costs_stay(store: Store) -> None:
    """Its record, title and row are gone; its answers stay unless they are named; the ledger keeps its figures."""
    put(store, "lab:a", 1)
    add(store, "20250101-secret", paid(), keys=key(1))
    assert "costs stay" in kept.delete(store, ["20250101-secret"])
    assert (store.runs(), store.run_record("20250101-secret")) == ([], None)
    assert has(store, 1) == [True]
    assert [row.calls for row in store.costs()] == [4]
    with pytest.raises(UnknownName, match="there are none"):
        kept.delete(store, ["20250101-secret"])


def test_a_run_that_goes_on_is_deleted(store: Store) -> None:
    """Its recipe and its questions are gone from then on; that it is listed again at its end is said."""
    row = RunRow("on", time.time(), "frame", "moa", "running", "t", 0, 0, 0, 0, 0, 0.0, 0.0, 1.0)
    store.add_run(row, [], None)
    store.keep_recipe("on", {"version": "1"})
    assert "it goes on, and is listed again when it ends" in kept.delete(store, ["on"])
    store.add_run(replace(row, state="done"), [paid()], None)
    assert (store.recipe("on"), [run.state for run in store.runs()]) == (None, ["done"])
    assert "goes on" not in kept.delete(store, ["on"])


def test_a_run_is_deleted_with_its_answers(store: Store) -> None:
    """Only the answers that no other listed run used go with it; their neighbours on the disk stay."""
    put(store, "lab:a", *range(20))
    add(store, "one", keys=b"".join(map(key, range(10))))
    add(store, "two", keys=b"".join(map(key, range(5, 15))))
    add(store, "unknown")
    assert ", and 5 answers that no other run used" in kept.delete(store, ["one", "--with-answers"])
    assert has(store, *range(20)) == [False] * 5 + [True] * 15
    assert "not known" in kept.delete(store, ["unknown", "--with-answers"])
    with pytest.raises(UnknownName, match="did you mean 'two'"):
        kept.delete(store, ["tow", "--with-answers"])
    assert ", and 10 answers" in kept.delete(store, ["two", "--with-answers"])
    assert has(store, *range(20)) == [False] * 15 + [True] * 5


def test_what_is_too_old_is_forgotten(store: Store) -> None:
    """Answers and runs alike; the ledger keeps what they cost."""
    put(store, "lab:a", 1, 2)
    add(store, "old", paid())
    age(store, 40)
    put(store, "lab:a", 3)
    add(store, "new", paid())
    assert store.forget_older_than(30 * DAY) == 3
    assert has(store, 1, 2, 3) == [False, False, True]
    assert [run.id for run in store.runs()] == ["new"]
    assert sum(row.calls for row in store.costs()) == 8
    assert store.forget_older_than(30 * DAY) == 0


# The ledger -------------------------------------------------------------------------------------


def test_costs_are_summed_by_what_one_asks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By day, pipeline and model, or some of them; the latest days first, then the dearest; the sums are the same."""
    noon = time.mktime((2026, 7, 15, 12, 0, 0, 0, 0, -1))
    monkeypatch.setattr(time, "time", lambda: noon)  # a midnight in between would be another day
    add(store, "a", paid("lab:a", 0.5), paid("lab:b", 2.0), pipeline="moa")
    add(store, "b", paid("lab:a", 0.25), pipeline="single")
    add(store, "c", paid("lab:a", 1.0), pipeline="single", days=3)
    today, then = (time.strftime("%Y-%m-%d", time.localtime(time.time() - days * DAY)) for days in (0, 3))
    assert [(row.day, row.pipeline, row.model, row.cost) for row in store.costs()] == [
        (today, "moa", "lab:b", 2.0),
        (today, "moa", "lab:a", 0.5),
        (today, "single", "lab:a", 0.25),
        (then, "single", "lab:a", 1.0),
    ]
    assert [(row.day, row.model, row.cost) for row in store.costs(["model"])] == [
        (None, "lab:b", 2.0),
        (None, "lab:a", 1.75),
    ]
    assert [row.cost for row in store.costs(["day"], days=2)] == [2.75]
    (total,) = store.costs([])
    assert (total.calls, total.cached, total.prompt_tokens, total.completion_tokens) == (16, 4, 120, 80)
    assert (total.cost, total.saved, total.saved_tokens, total.unpriced) == (3.75, 1.0, 60, 0)


def test_costs_are_listed_with_what_was_saved(store: Store) -> None:
    """Money is written as everywhere; an unknown price is never a zero; the last line is the sum."""
    assert "nothing has been asked yet" in repr(kept.costs(store, []))
    add(store, "a", paid("lab:a", 0.5), paid("lab:b", None, unpriced=3), paid("lab:c", 0.001, unpriced=1))
    listed = kept.costs(store, ["--by", "model"])
    assert listed.headers == ("model", "calls", "cached", "tokens in", "tokens out", "cost", "saved", "unpriced")
    assert [row[0] for row in listed.rows] == ["lab:a", "lab:c", "lab:b", "in all"]
    assert [row[5] for row in listed.rows] == ["$0.5000", "$0.0010 and more", "unknown", "$0.5010 and more"]
    assert [row[6] for row in listed.rows] == ["$0.2500"] * 3 + ["$0.7500"]
    assert kept.costs(store, ["--by", "model,day", "--days", "7"]).headers[:2] == ("day", "model")


def test_a_long_listing_is_cut_and_its_sum_is_not(store: Store) -> None:
    """After two hundred lines it says how many more there are."""
    for n in range(205):
        add(store, str(n), paid(f"lab:{n}"))
    rows = kept.costs(store, []).rows
    assert len(rows) == 202
    assert rows[-2][0] == "… 5 more"
    assert rows[-1][3] == 820


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "week"], "by day, pipeline or model, not by 'week'"),
        (["--by", ","], "--by model"),
        (["--days", "0"], "not a number of days"),
        (["--dyas", "3"], "did you mean '--days'?"),
        (["today"], "no option 'today'"),
    ],
)
def test_a_mistake_is_said_in_one_line(store: Store, words: list[str], said: str) -> None:
    """With the nearest right word."""
    with pytest.raises(UsageError) as raised:
        kept.costs(store, words)
    assert said in str(raised.value)


def test_a_run_that_is_kept_again_counts_once(store: Store) -> None:
    """A frame's run grows when its failed rows are asked again."""
    add(store, "a", paid())
    add(store, "a", paid(cost=0.75))
    assert [(row.calls, row.cost) for row in store.costs()] == [(4, 0.75)]
    assert len(store.runs()) == 1


BOOKKEEPER = """
import sys, time
from pathlib import Path
from moa_nb.store import LedgerRow, RunRow, Store
store = Store(Path(sys.argv[1]))
for n in range(150):
    name = f"{sys.argv[2]}-{n}"
    row = RunRow(name, time.time(), "cell", "moa", "done", name, 1, 0, 0, 1, 1, 0.0, 0.0, 1.0)
    store.add_run(row, [LedgerRow(model, 1, 0, 1, 1, 0.5, 0.0, 0) for model in "ab"], {"text": name})
assert store.complaint() is None
store.close()
"""


def test_two_kernels_keep_one_ledger(tmp_path: Path) -> None:
    """They write side by side, and nothing is lost."""
    path = tmp_path / "store.sqlite"
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", BOOKKEEPER, str(path), who]) for who in "xy"]
    assert [process.wait(300) for process in processes] == [0, 0]
    store = Store(path)
    assert [(row.model, row.calls, row.cost) for row in store.costs(["model"])] == [
        ("a", 300, 150.0),
        ("b", 300, 150.0),
    ]
    assert len(store.runs(1000)) == 300
    store.close()


def test_listings_use_an_index(store: Store) -> None:
    """However many runs there are, the latest are found without looking at the others."""
    assert store.path is not None
    connection = sqlite3.connect(store.path)
    plan = connection.execute("EXPLAIN QUERY PLAN SELECT id FROM runs ORDER BY at DESC LIMIT 50").fetchall()
    assert "USING" in str(plan)
    assert "INDEX runs_at" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
    connection.close()


# From the notebook ------------------------------------------------------------------------------


def test_the_magic_lists_clears_and_deletes(shell: InteractiveShell, server: ChatServer, lab: Lab) -> None:
    """``%moa cache``, ``costs`` and ``delete`` speak of the store that the runs are kept in."""
    magics = MoaMagics(shell)

    def moa_line(line: str) -> str:
        with capture_output() as captured:
            magics.moa(line)
        shown = [str(output.data["text/plain"]) for output in captured.outputs]
        return "".join([captured.stdout, *shown])

    result = moa.run("Why?", pipeline="single")
    assert "1 answer since" in moa_line("cache")
    assert "lab:z" in moa_line("costs --by model --days 2")
    assert "cleared 1 answer" in moa_line("cache clear")
    moa.run("Why?", pipeline="single")
    assert server.count() == 2
    assert f"deleted the run {result.run_id}" in moa_line(f"delete {result.run_id}")
    assert len(moa.runs()) == 1
    for line, said in {"cache clear --older 3d": "no option", "delete": "required", "delete nobody": "no run"}.items():
        with pytest.raises(UsageError) as raised:
            magics.moa(line)
        assert said in str(raised.value)
