"""A run that another kernel made is made again from the file: what it asked, how it ended; nothing is sent."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sqlite3
import subprocess
import sys
import time
import zlib
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb import settings
from moa_nb.chat import Message
from moa_nb.engine import Plan, current, engine
from moa_nb.engine.plan import Options
from moa_nb.engine.questions import STRETCH, QuestionKeeper, QuestionReader, pack_questions, unpack_questions
from moa_nb.engine.recipe import Recipe
from moa_nb.engine.replay import replay
from moa_nb.errors import MoaError, SetupError
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.spec import Pipeline
from moa_nb.pipeline.strategies import _registry
from moa_nb.providers import functions
from moa_nb.store import LedgerRow, RunRow, Store, processes
from moa_nb.store.recipes import pack, pack_rows, unpack, unpack_rows
from moa_nb.testing import ChatServer

Lab = Callable[..., None]

RUN = "20250101-run"

TASKS = [Task((Message("user", f"Shorten: text {number}"),), f"text {number}") for number in range(3)]


def row(run_id: str = RUN, state: str = "running", **values: Any) -> RunRow:
    """A run of a frame."""
    known = RunRow(run_id, time.time(), "frame", "moa", state, "3 rows of q", 0, 0, 0, 0, 0, 0.0, 0.0, 1.0)
    return known if not values else RunRow(**{**{name: getattr(known, name) for name in RunRow.__slots__}, **values})


def plan_of(**options: Any) -> Plan:
    """The plan of a run."""
    made = current()
    return made.finish(made.plan(Options(**options)))


def run(tasks: list[Task] = TASKS, **options: Any) -> list[Result]:
    """Ask a few rows under one plan, and keep what it takes to make that again."""
    made = current()
    plan = plan_of(**options)
    store = made.store(plan.settings)
    store.add_run(row(), [], None)
    store.keep_recipe(RUN, Recipe.of(plan).to_record())
    keeper = QuestionKeeper(store, RUN, len(tasks), columns=True)
    results = []
    for position, task in enumerate(tasks):
        keeper.add(position, [task])
        results.append(made.finish(made.answer(plan, task, made.new_record(plan, task, RUN))))
    keeper.close()
    store.finish_recipe(RUN, partial(pack_rows, {"name": "q"}, {"states": array("b", [1] * len(tasks))}))
    store.add_run(row(state="done"), [], None)
    return results


def another_kernel(**configured: Any) -> Store:
    """Forget all that this process knows; the file is what is left."""
    engine.stop()
    settings.reset()
    if configured:
        moa.configure(**configured)
    return current().store(settings.current())


def again(store: Store) -> list[Result]:
    """Make the run again, row by row, as another kernel does."""
    recipe = Recipe.from_record(store.recipe(RUN))
    plan = recipe.plan(settings.current(), store)
    reader = QuestionReader(store, RUN)
    found = store.run_rows(RUN)
    assert found is not None
    results = []
    for position in range(len(found[1]["states"])):
        tasks = reader.tasks(position)
        assert tasks is not None
        results += [current().finish(replay(plan, task, plan.gateway)) for task in tasks]
    return results


def same(found: list[Result], expected: list[Result]) -> None:
    """The same texts from the same calls in the same layers, all of them from the store."""
    for one, other in zip(found, expected, strict=True):
        assert (one.text, one.error) == (other.text, None)
        assert [(layer.name, len(layer.calls)) for layer in one.layers] == [
            (layer.name, len(layer.calls)) for layer in other.layers
        ]
        assert [(call.agent, call.model, call.prompt, call.text) for call in one.calls] == [
            (call.agent, call.model, call.prompt, call.text) for call in other.calls
        ]
        assert all(call.cached for call in one.calls)


# Made again -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pipeline": "moa", "samples": 2, "temperature": 0.3},
        {"pipeline": "debate"},
        {"pipeline": "self-consistency"},
        {"pipeline": "moa", "budget": "500 calls"},
        {"pipeline": "single", "models": None, "aggregator": "lab:b", "budget": 1.0},
        {"models": ["lab:c", "lab:b"], "max_tokens": 99, "cache": "refresh"},
    ],
    ids=str,
)
def test_a_run_is_made_again_whatever_is_configured(server: ChatServer, lab: Lab, options: dict[str, Any]) -> None:
    """Roles, address, ceilings, preset and default are others now: the run is what it was, and nothing is sent."""
    expected = run(**options)
    n_sent = server.count()
    presets = settings.template_folders()[0] / "pipelines"
    presets.mkdir(parents=True)
    for name in ("moa", "moa-lite", "debate", "single", "self-consistency"):
        (presets / f"{name}.toml").write_text('strategy = "layers"\n[[layers]]\nagents = ["$small"]\n')
    store = another_kernel(
        proposers=["other:x"],
        aggregator="other:y",
        providers={"other": {"base_url": "http://127.0.0.1:9/v1"}},
        max_tokens=7,
        references="summarize",
        max_ref_chars=1,
        pipeline="single",
    )
    same(again(store), expected)
    assert server.count() == n_sent
    (remark,) = Recipe.from_record(store.recipe(RUN)).remarks(settings.current())
    assert remark == f"the answers of lab came from {server.base_url}; it is not configured now"


def test_templates_are_those_of_the_run(server: ChatServer, lab: Lab) -> None:
    """A template that is edited, or gone, does not change a run that used it."""
    prompts = settings.template_folders()[0] / "prompts"
    prompts.mkdir(parents=True)
    (prompts / "own.jinja").write_text("Mine: {% include 'part' %}{% include 'plain.txt' %}")
    (prompts / "part.jinja").write_text("{{ references | join(', ') }}")
    (prompts / "plain.txt").write_text("{% from 'macros' import said %}{{ said(question) }}")
    (prompts / "macros.jinja").write_text("{% macro said(text) %}; {{ text }}{% endmacro %}")
    pipeline = Pipeline(layers=[["lab:a", "lab:b"], [{"model": "lab:z", "template": "own"}]])
    expected = run(pipeline=pipeline)
    assert any("Mine: answer of a" in message.content for message in expected[0].calls[-1].prompt)
    assert any("answer of b; Shorten: text 0" in message.content for message in expected[0].calls[-1].prompt)
    for file in [*prompts.iterdir()]:
        file.write_text("Changed")
    store = another_kernel()
    same(again(store), expected)
    for file in [*prompts.iterdir()]:
        file.unlink()
    same(again(store), expected)


def test_pipelines_within_are_kept(server: ChatServer, lab: Lab) -> None:
    """An agent that is a pipeline by name is the one that it was."""
    presets = settings.template_folders()[0] / "pipelines"
    presets.mkdir(parents=True)
    (presets / "inner.toml").write_text('strategy = "layers"\n[[layers]]\nagents = ["lab:a"]\n')
    expected = run(pipeline=Pipeline(name="outer", layers=[["inner", "lab:b"], ["$aggregator"]]))
    (presets / "inner.toml").unlink()
    same(again(another_kernel()), expected)


def test_offline_agents_and_functions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline answers are found though their agents are of another version; of functions one is told."""
    monkeypatch.setattr(functions, "_registered", {})
    moa.agent("shout", version="1")(lambda prompt: prompt.upper())
    text = Task((Message("user", "The mill closed. Forty lost their work. The town bought it."),))
    expected = run([text], models=["offline:lead", "function:shout"], aggregator="offline:lead")
    from moa_nb.providers import offline

    was = offline.VERSION
    monkeypatch.setattr(offline, "VERSION", "x")
    store = another_kernel()
    same(again(store), expected)
    recipe = Recipe.from_record(store.recipe(RUN))
    assert recipe.remarks(settings.current()) == (f"the offline agents were of version {was}, and are of x now",)
    moa.agent("shout", version="2")(lambda prompt: prompt)
    assert "function 'shout' was of version 1, and is of 2 now" in recipe.remarks(settings.current())[1]
    functions._registered.clear()
    with pytest.raises(SetupError, match="'shout', which is not registered in this session: run the cell"):
        recipe.plan(settings.current(), store)


def test_what_is_not_as_it_was_is_said(server: ChatServer, lab: Lab) -> None:
    """A line each for an address, another version, another secret; none where all is as it was."""
    run()
    recipe = Recipe.from_record(current().store(settings.current()).recipe(RUN))
    assert recipe.remarks(settings.current()) == ()
    moa.configure(providers={"lab": {"base_url": "http://127.0.0.1:9/v1"}})
    other = recipe.model_copy(update={"version": "0.0.1", "fences": "f" * 16})
    version, address, secret = other.remarks(settings.current())
    assert version == f"made with moa-nb 0.0.1, looked at with {importlib.metadata.version('moa-nb')}"
    assert address == f"the answers of lab came from {server.base_url}; it is at http://127.0.0.1:9/v1 now"
    assert "fence.key" in secret


def test_a_strategy_of_ones_own_is_named_where_it_is_missing(
    server: ChatServer, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says which cell to run; once it has run, the run is made again."""

    class Relay(moa.Params):
        runner: moa.Agent = moa.Agent(model="$aggregator")

    async def relay(task: Task, params: Relay, ask: moa.Ask) -> moa.Candidate:
        return await ask.one("leg", params.runner)

    moa.strategy("relay", params=Relay)(relay)
    try:
        expected = run(pipeline=Pipeline(strategy="relay"))
    finally:
        known = _registry.pop("relay")
    store = another_kernel()
    with pytest.raises(SetupError, match="the strategy 'relay', which is not registered in this session: run the cell"):
        again(store)
    monkeypatch.setitem(_registry, "relay", known)
    same(again(store), expected)


def test_what_no_file_can_hold_has_a_reason(server: ChatServer, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe is kept all the same, and says why the run cannot be made again."""
    monkeypatch.setattr(functions, "_registered", {})

    def loud(prompt: str) -> str:
        return prompt.upper()

    moa.agent("named")(len)
    reasons = {
        "register it with @moa.agent('loud')": {"pipeline": Pipeline(layers=[[loud]])},
        "register it with @moa.agent('loud', version='1')": {"models": [loud]},
        "'named' are not kept: it has no version": {"models": ["function:named"]},
        "cache='off' kept no answers": {"cache": "off"},
    }
    for reason, options in reasons.items():
        recipe = Recipe.from_record(json.loads(json.dumps(Recipe.of(plan_of(**options)).to_record())))
        assert reason in (recipe.reason or "")
        with pytest.raises(SetupError, match="this run cannot be made again: ") as raised:
            recipe.plan(settings.current(), Store(None))
        assert "\n" not in str(raised.value)


# Keys -------------------------------------------------------------------------------------------

KEY = "sk-test-0123456789abcdef"


def test_no_key_is_in_the_file(server: ChatServer, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the service is given its key, the file does not have it: not plain, not packed."""
    monkeypatch.setenv("LAB_KEY", KEY)
    for provider in ({"key": KEY}, {"key_env": "LAB_KEY"}, {"headers": {"x-api-key": KEY}}, {"key": lambda: KEY}):
        lab(provider=provider)
        run(pipeline="moa")
        store = current().store(settings.current())
        assert Recipe.from_record(store.recipe(RUN)).reason is None
        assert KEY not in json.dumps(store.recipe(RUN))
        assert settings.fence_secret().hex() not in json.dumps(store.recipe(RUN))
        engine.stop()
        for file in Path(os.environ["MOA_NB_HOME"]).glob("store.sqlite*"):
            assert KEY.encode() not in file.read_bytes()


def test_a_recipe_with_a_key_in_it_is_not_kept(server: ChatServer, lab: Lab) -> None:
    """A key that stands in a pipeline or an address is a reason to keep no recipe."""
    lab(provider={"key": KEY})
    agent = {"model": "lab:a", "extra": {"user": KEY}}
    recipe = Recipe.of(plan_of(pipeline=Pipeline(layers=[[agent]])))
    assert "holds the key of lab" in (recipe.reason or "")
    assert KEY not in json.dumps(recipe.to_record())
    moa.configure(providers={"lab": {"base_url": f"{server.base_url}?key={KEY}"}})
    recipe = Recipe.of(plan_of())
    assert "the address of lab may hold a key" in (recipe.reason or "")
    assert KEY not in json.dumps(recipe.to_record())


def test_a_recipe_without_a_pipeline_is_refused(server: ChatServer, lab: Lab) -> None:
    """What is damaged but still a record is one line, too; so is a pipeline that no version of today reads."""
    whole = Recipe.of(plan_of())
    broken = {
        "it has no pipeline": {"pipelines": {}},
        "cannot be read: ": {"pipelines": {"moa-lite": "[["}},
        "unknown key 'lairs'; did you mean 'layers'": {"pipelines": {"moa-lite": "lairs = 1"}},
    }
    for said, changes in broken.items():
        recipe = Recipe.from_record({**whole.to_record(), **changes})
        with pytest.raises(SetupError, match=said) as raised:
            recipe.plan(settings.current(), Store(None))
        assert "\n" not in str(raised.value)


# Questions --------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(), max_size=8)  # halves of surrogate pairs included

VALUES = st.dictionaries(TEXTS, st.none() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.dates(), max_size=3)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """A task whose material may be a part of the conversation."""
    turns = draw(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=3))
    conversation = tuple(Message(role, text) for role, text in [*turns, ("user", draw(TEXTS))])
    material = draw(
        st.none() | TEXTS | st.sampled_from([turn.content for turn in conversation]).map(lambda text: text[1:])
    )
    return Task(conversation, material, draw(VALUES), draw(st.none() | TEXTS))


@hypothesis_settings(deadline=None)
@given(rows=st.lists(st.none() | st.lists(tasks(), max_size=3), max_size=6))
def test_questions_come_back(rows: list[list[Task] | None]) -> None:
    """Whatever is asked: several tasks a row or none, broken text, columns; columns only where they are wanted."""
    found = unpack_questions(pack_questions(rows, columns=True))
    assert found == rows
    for some, others in zip(found, rows, strict=True):
        assert [task.values for task in some or ()] == [task.values for task in others or ()]
    without = unpack_questions(pack_questions(rows))
    assert without == rows
    assert not any(task.values for some in without for task in some or ())


def test_material_is_not_kept_twice() -> None:
    """Where the material stands in the conversation its place is enough."""
    text = os.urandom(5000).hex()
    alone = Task((Message("user", f"Shorten: {text}"),))
    with_material = Task(alone.conversation, text)
    assert len(pack_questions([[with_material]])) < len(pack_questions([[alone]])) + 30


def test_questions_are_kept_in_stretches(tmp_path: Path) -> None:
    """Rows begin in any order within the window, some never; each is read with the stretch around it."""
    store = Store(tmp_path / "store.sqlite")
    n_rows = 2 * STRETCH + 10
    store.add_run(row(), [], None)
    store.keep_recipe(RUN, {})
    keeper = QuestionKeeper(store, RUN, n_rows)
    asked = [number for number in range(n_rows) if number not in {3, STRETCH + 1}]
    for number in reversed(asked):
        keeper.add(number, [Task((Message("user", f"q{number}"),))] if number % 7 else None)
    keeper.close()
    store.close()
    store = Store(tmp_path / "store.sqlite")
    reader = QuestionReader(store, RUN)
    for number in (*range(n_rows), 0, n_rows - 1):
        expected = [Task((Message("user", f"q{number}"),))] if number % 7 and number in asked else None
        assert reader.tasks(number) == expected
    assert reader.tasks(n_rows) is None
    assert QuestionReader(store, "other").tasks(0) is None
    assert store.complaint() is None
    store.close()


def test_a_run_that_goes_on_from_another_has_its_questions(tmp_path: Path) -> None:
    """Rows that are asked again are kept anew, the others as they were; the earlier run keeps its own."""
    for path in (tmp_path / "store.sqlite", None):
        store = Store(path)
        n_rows = STRETCH + 5
        for name, asked, earlier in (("one", range(n_rows), None), ("two", [3, STRETCH + 1], "one")):
            store.add_run(row(name), [], None)
            store.keep_recipe(name, {})
            keeper = QuestionKeeper(store, name, n_rows, columns=True, earlier=earlier)
            for number in asked:
                keeper.add(number, [Task((Message("user", f"{name} {number}"),), values={"n": number})])
            keeper.close()
        assert store.delete_run("one")
        reader = QuestionReader(store, "two")
        for number in range(n_rows):
            said = "two" if number in {3, STRETCH + 1} else "one"
            (task,) = reader.tasks(number) or ()
            assert (task.question, task.values) == (f"{said} {number}", {"n": number})
        assert store.complaint() is None
        store.close()


def test_a_question_that_cannot_be_kept_costs_nobody_a_run(tmp_path: Path) -> None:
    """What goes wrong in making the bytes is said once; the store goes on."""

    def broken(known: bytes | None) -> bytes:
        raise TypeError("odd")

    for path in (tmp_path / "store.sqlite", None):
        store = Store(path)
        store.add_run(row(), [], None)
        store.keep_recipe(RUN, {"a": 1})
        store.keep_questions(RUN, 0, broken)
        store.keep_questions(RUN, 256, lambda _: pack_questions([None]))
        assert store.questions(RUN, 3) is None
        assert "the store cannot keep this run" in (store.complaint() or "")
        found = store.questions(RUN, 256)
        assert found is not None
        assert found.first == 256
        assert store.recipe(RUN) == {"a": 1}
        store.close()


# How rows ended ---------------------------------------------------------------------------------


@given(
    columns=st.dictionaries(
        TEXTS,
        st.builds(array, st.just("d"), st.lists(st.floats()))
        | st.builds(array, st.just("q"), st.lists(st.integers(-(2**63), 2**63 - 1)))
        | st.builds(array, st.just("b"), st.lists(st.integers(-128, 127))),
        max_size=4,
    ),
    errors=st.lists(TEXTS, max_size=3),
)
def test_columns_come_back(columns: dict[str, array[Any]], errors: list[str]) -> None:
    """Numbers to the last bit, texts whatever they hold."""
    header, found = unpack_rows(pack_rows({"errors": errors}, columns))
    assert header == {"errors": errors}
    assert list(found) == list(columns)
    for name, column in columns.items():
        assert (found[name].typecode, found[name].tobytes()) == (column.typecode, column.tobytes())


@given(
    data=st.binary()
    | st.binary().map(zlib.compress)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(pack)
)
def test_damaged_bytes_are_one_line(data: bytes) -> None:
    """Whatever lies in the file: one kind of error, one line."""
    for read in (unpack, unpack_rows, unpack_questions):
        said = ""
        try:
            read(data)  # type: ignore[operator]  # three functions of bytes
        except (ValueError, SetupError) as error:
            said = str(error)
        assert "\n" not in said
    for record in (data.hex(), {"version": 1}, {"version": "9.9", "new": []}, None):
        with pytest.raises(SetupError, match="the recipe of this run cannot be read") as raised:
            Recipe.from_record(record)
        assert "\n" not in str(raised.value)


def test_a_damaged_run_is_said_in_one_line(server: ChatServer, lab: Lab) -> None:
    """Another kernel meets foreign bytes: a line that names the run, and how to be rid of it."""
    run()
    store = another_kernel()
    assert store.path is not None
    connection = sqlite3.connect(store.path)
    connection.execute("UPDATE recipes SET recipe = x'00', rows = x'789c'")
    connection.execute("UPDATE questions SET data = ?", [pack({"rows": 1})])
    connection.commit()
    connection.close()
    for read in (
        partial(store.recipe, RUN),
        partial(store.run_rows, RUN),
        partial(QuestionReader(store, RUN).tasks, 0),
    ):
        with pytest.raises(MoaError, match="cannot be read") as raised:
            read()
        assert "\n" not in str(raised.value)
    assert store.delete_run(RUN)
    assert store.complaint() is None


# Deleting ---------------------------------------------------------------------------------------


def left(store: Store) -> list[int]:
    """How many recipes and stretches of questions there are."""
    store._await_notes()
    assert store._connection is not None
    return [
        store._connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in ("recipes", "questions")
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with two runs, each with a recipe and questions."""
    made = Store(tmp_path / "own" / "store.sqlite")
    for name, days in (("old", 40), ("new", 0)):
        made.add_run(row(name, "done", at=time.time() - days * 86400), [], None)
        made.keep_recipe(name, {"why": name})
        made.keep_questions(name, 0, lambda _: pack_questions([TASKS[:1]]))
    assert left(made) == [2, 2]
    yield made
    assert made.complaint() is None
    made.close()


def test_a_run_is_deleted_with_its_recipe(store: Store) -> None:
    """Its questions are texts of the user: they go with it. A run that goes on keeps none afterwards."""
    assert store.delete_run("old")
    assert left(store) == [1, 1]
    assert store.recipe("old") is None
    store.keep_questions("old", 256, lambda _: pack_questions([TASKS[:1]]))
    store.finish_recipe("old", partial(pack_rows, {}, {}))
    assert left(store) == [1, 1]
    assert not store.delete_run("old")
    assert store.recipe("new") == {"why": "new"}


def test_recipes_are_forgotten_with_their_runs(store: Store) -> None:
    """``keep_days`` holds for them, too."""
    assert store.forget_older_than(30 * 86400) == 1
    assert left(store) == [1, 1]
    assert [run.id for run in store.runs()] == ["new"]


# While it goes on -------------------------------------------------------------------------------

RUNNER = """
import sys, time
from pathlib import Path
from moa_nb.store import LedgerRow, RunRow, Store
store = Store(Path(sys.argv[1]))
row = RunRow("there", time.time(), "frame", "moa", "running", "t", 0, 0, 0, 0, 0, 0.0, 0.0, 0.0)
store.add_run(row, [LedgerRow("lab:a", 1, 0, 1, 1, 0.5, 0.0, 0)], None)
print("began", flush=True)
sys.stdin.read()
"""


def test_a_run_is_listed_while_it_goes_on(tmp_path: Path) -> None:
    """Another process runs it, then it is killed: running, then interrupted. What it had cost stays counted once."""
    path = tmp_path / "store.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "began\n"
    store = Store(path)
    assert [(run.id, run.state) for run in store.runs()] == [("there", "running")]
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert [(run.id, run.state) for run in store.runs()] == [("there", "interrupted")]
    found = store.run("there")
    assert found is not None
    assert found.state == "interrupted"
    assert store.run("other") is None
    assert [(cost.calls, cost.cost) for cost in store.costs()] == [(1, 0.5)]
    store.close()


def test_a_run_of_this_process_counts_once(tmp_path: Path) -> None:
    """It is listed from its beginning; its end replaces that, its figures and its ledger."""
    store = Store(tmp_path / "store.sqlite")
    store.add_run(row(), [], None)
    assert [run.state for run in store.runs()] == ["running"]
    paid = LedgerRow("lab:a", 4, 1, 30, 20, 0.5, 0.25, 0)
    store.keep_recipe(RUN, {"why": "x"})
    for _ in range(2):
        store.add_run(row(state="done", calls=4), [paid], None)
    assert [(run.state, run.calls) for run in store.runs()] == [("done", 4)]
    assert [(cost.calls, cost.cost) for cost in store.costs()] == [(4, 0.5)]
    assert store.recipe(RUN) == {"why": "x"}
    store.close()


def test_who_may_live_is_believed() -> None:
    """A mark that cannot be looked up is believed for a week; one whose process began at another time is gone."""
    now = time.time()
    machine, process, start = processes.this_process().rsplit(" ", 2)
    host, boot = machine.split(" ")
    assert processes.may_live(processes.this_process(), 0)
    assert not processes.may_live(f"{machine} {process} {start}9", now)
    assert not processes.may_live(f"{machine} {2**22 + 1} {start}", now)
    assert not processes.may_live(f"{host} {boot}x {process} {start}", now)
    assert processes.may_live(f"elsewhere {boot} {process} {start}", now)
    assert not processes.may_live(f"elsewhere {boot} {process} {start}", now - 8 * 86400)
    for odd in ("", "x", "a b c", f"{machine} x y"):
        assert not processes.may_live(odd, 0)
    assert not processes.may_live(None, now)
