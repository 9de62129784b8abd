"""Strategies, functions, templates and pipelines of users' own: declared in a cell, a package or a file."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import moa_nb as moa
from moa_nb.errors import PipelineError, SetupError, TemplateError, UnknownName
from moa_nb.pipeline import presets, strategies
from moa_nb.testing import ChatServer

Lab = Callable[..., None]

QUESTION = "Why did the mill close?"


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    strategies.names()
    known = dict(strategies._registry)
    yield
    strategies._registry.clear()
    strategies._registry.update(known)


class Relay(moa.Params):
    """Who runs."""

    runners: tuple[moa.Agent, ...] = (moa.Agent(model="lab:a"), moa.Agent(model="lab:b"))
    last: moa.Agent = moa.Agent(model="$aggregator")


def relay(name: str = "relay") -> Any:
    """Register a strategy that hands one answer on, and return its function."""

    @moa.strategy(name, params=Relay)
    async def relay(task: moa.Task, params: Relay, ask: moa.Ask) -> moa.Candidate:
        baton: list[moa.Candidate] = []
        for number, runner in enumerate(ask.agents(params.runners), start=1):
            baton = [await ask.one(f"leg {number}", runner, see=baton)]
        if not ask.decide("the last leg", "answer of b" in baton[0].text):
            return baton[0]
        return await ask.one("last leg", params.last, see=baton)

    return relay


def write(path: str, text: str) -> None:
    """Write a file of the project."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text), "utf-8")


# Strategies in a cell -----------------------------------------------------------------------------


def test_a_strategy_of_a_cell_runs_like_ours(server: ChatServer, lab: Lab) -> None:
    """By name: run, priced from a word to every branch, explained, and from a project's file."""
    relay()
    result = moa.run(QUESTION, pipeline=moa.Pipeline(strategy="relay"))
    assert result.text == "answer of z"
    assert [layer.name for layer in result.layers] == ["leg 1", "leg 2", "last leg"]
    assert "answer of a" in server.asked("b")[0].text_of("system")
    estimate = moa.estimate(QUESTION, pipeline=moa.Pipeline(strategy="relay"))
    assert (estimate.low.n_calls, estimate.high.n_calls) == (0, 0)  # all of it is in the cache by now
    fresh = moa.estimate("And when?", pipeline=moa.Pipeline(strategy="relay"))
    assert (fresh.low.n_calls, fresh.high.n_calls, fresh.at_least) == (2, 3, False)
    write("templates/pipelines/race.toml", 'strategy = "relay"\nrunners = ["lab:c", "lab:a", "lab:b"]')
    assert moa.run("And when?", pipeline="race").n_calls == 4
    assert moa.Pipeline(strategy="relay").explain().n_calls == (2, 3)


def test_agents_are_written_to_plain_fields_as_users_write_them() -> None:
    """One alone where several may be, a table, a function, a pipeline's name; and one is one."""
    relay()

    def shout(prompt: str) -> str:
        return prompt.upper()

    params: Any = moa.Pipeline(strategy="relay", runners="lab:c", last=shout).params
    assert [agent.label for agent in params.agents()] == ["c", "shout"]
    params = moa.Pipeline(strategy="relay", runners=[{"model": "lab:c", "samples": 2}], last="single").params
    assert (params.runners[0].samples, params.last.pipeline) == (2, "single")
    for last in ("$proposers", {"model": "lab:a", "samples": 2}):
        with pytest.raises(PipelineError, match="last: exactly one agent"):
            moa.Pipeline(strategy="relay", last=last)
    with pytest.raises(PipelineError, match="did you mean 'runners'"):
        moa.Pipeline(strategy="relay", runner="lab:c")


def test_options_and_roles_hold_for_it(server: ChatServer, lab: Lab) -> None:
    """``aggregator`` fills its role, ``temperature`` reaches each agent; what it does not take is refused."""
    relay()
    pipeline = moa.Pipeline(strategy="relay")
    moa.run(QUESTION, pipeline=pipeline, aggregator="lab:c", temperature=0.2)
    assert [(record.model, record.body["temperature"]) for record in server.requests] == [
        ("a", 0.2),
        ("b", 0.2),
        ("c", 0.2),
    ]
    with pytest.raises(PipelineError, match="takes no 'layers'"):
        moa.run(QUESTION, pipeline=pipeline, layers=2)
    with pytest.raises(PipelineError, match=r"asks for no \$proposers"):
        moa.run(QUESTION, pipeline=pipeline, models=["lab:a"])


def test_it_answers_a_column(server: ChatServer, lab: Lab) -> None:
    """Row by row, priced before and with its layers after."""
    relay()
    frame = pd.DataFrame({"text": ["One?", None, "Two?", "One?"]}, index=[3, 1, 4, 1])
    pipeline = moa.Pipeline(strategy="relay")
    estimate = frame.moa.estimate.synthesize("text", pipeline=pipeline)
    assert (estimate.low.n_calls, estimate.high.n_calls) == (4, 6)
    said = frame.moa.synthesize("text", pipeline=pipeline, progress=False)
    assert said.isna().tolist() == [False, True, False, False]
    assert set(said.dropna()) == {"answer of z"}
    assert server.count() == 6


def test_running_the_cell_again_replaces_it(server: ChatServer, lab: Lab) -> None:
    """The next run has the new function, though the pipeline was made before."""
    relay()
    pipeline = moa.Pipeline(strategy="relay")

    @moa.strategy("relay", params=Relay)
    async def alone(task: moa.Task, params: Relay, ask: moa.Ask) -> moa.Candidate:
        return await ask.one("alone", params.last)

    assert moa.run(QUESTION, pipeline=pipeline).n_calls == 1


def test_it_goes_on_without_what_fails(server: ChatServer, lab: Lab) -> None:
    """``moa.Unanswered`` is what it catches; the result is degraded, and says why."""
    from moa_nb.testing import Reply

    @moa.strategy("patient", params=Relay)
    async def patient(task: moa.Task, params: Relay, ask: moa.Ask) -> moa.Candidate:
        answers = [one for one in await ask.each("all", [moa.Question(agent) for agent in params.runners]) if one]
        try:
            return await ask.one("end", params.last, see=answers)
        except moa.Unanswered:
            ask.flag("the end failed", degraded=True)
            return answers[0]

    server.on("z", Reply.too_long())
    result = moa.run(QUESTION, pipeline=moa.Pipeline(strategy="patient"))
    assert (result.text, result.degraded) == ("answer of a", True)
    assert "the end failed" in result.notes


def declared(run: Any, params: Any = Relay, name: Any = "x") -> Any:
    """Declare what may not be a strategy."""
    return moa.strategy(name, params=params)(run)


def plain(task: Any, params: Any, ask: Any) -> None:
    """A function that is not async."""


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: declared(plain), "'x' is not async: write it as `async def plain"),
        (lambda: declared(relay(), params=dict), r"params is a subclass of moa.Params, not <class 'dict'>"),
        (lambda: declared(relay(), params=Relay()), "params is a subclass of moa.Params"),
        (lambda: declared(relay(), name=""), "a strategy has a name"),
        (lambda: declared(relay(), name=relay), "a strategy has a name"),
        (lambda: relay("debate"), "there is a strategy 'debate' in moa_nb: choose another name"),
    ],
)
def test_what_is_no_strategy_is_refused_in_one_line(declare: Callable[[], Any], words: str) -> None:
    """When the cell runs, not when the first row does."""
    with pytest.raises(PipelineError, match=words) as raised:
        declare()
    assert "\n" not in str(raised.value)
    assert "x" not in strategies.names()


def test_wrong_parameters_of_the_function_or_the_class_are_refused() -> None:
    """What it is called with is fixed, and so are the names of a pipeline's own."""
    with pytest.raises(PipelineError, match=re.escape("takes (task: 'moa.Task')")):

        @moa.strategy("x", params=Relay)  # type: ignore[arg-type]
        async def short(task: moa.Task) -> None: ...

    namespace: dict[str, Any] = {"Params": moa.Params, "__name__": "nowhere"}
    exec("class Vague(Params):\n    who: 'Nobody'", namespace)  # an annotation that names nothing
    with pytest.raises(PipelineError, match="Vague has annotations that name nothing known"):
        moa.strategy("x", params=namespace["Vague"])(relay())

    class Named(moa.Params):
        name: str = "mine"

    with pytest.raises(PipelineError, match="a parameter cannot be called 'name'"):
        moa.strategy("x", params=Named)(relay())
    assert "x" not in strategies.names()


def test_a_strategy_that_returns_no_candidate_is_named(server: ChatServer, lab: Lab) -> None:
    """In one line."""

    @moa.strategy("textual", params=Relay)
    async def textual(task: moa.Task, params: Relay, ask: moa.Ask) -> Any:
        return (await ask.one("answer", params.last)).text

    with pytest.raises(PipelineError, match="strategy 'textual' returned str: it returns a Candidate"):
        moa.run(QUESTION, pipeline=moa.Pipeline(strategy="textual"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda ask, agent: ask.one("one", "lab:a"), "strategies ask a moa.Agent, .* not 'lab:a'"),
        (lambda ask, agent: ask.each("one", ["lab:a"]), r"ask.each takes moa.Question\(agent\), .* not 'lab:a'"),
        (lambda ask, agent: ask.each("one", [moa.Question("lab:a")]), "ask.each takes"),  # type: ignore[arg-type]  # the mistake
        (lambda ask, agent: ask.one("one", agent, see="a text"), "see= takes a list of answers, .* not 'a text'"),
        (lambda ask, agent: ask.one("one", agent, see=moa.Candidate("x", "a")), "see= takes a list of answers"),
        (lambda ask, agent: late(ask.one("one", agent)), r"returned coroutine: .* as `await ask.one\(...\)` gives one"),
    ],
)
def test_what_is_asked_wrongly_is_told_in_one_line(
    server: ChatServer, lab: Lab, wrong: Callable[[Any, moa.Agent], Any], words: str
) -> None:
    """The estimate says so too, and nothing is sent."""

    @moa.strategy("wrong", params=Relay)
    async def strategy(task: moa.Task, params: Relay, ask: moa.Ask) -> Any:
        return await wrong(ask, params.last)

    for run in (moa.estimate, moa.run):
        with pytest.raises(PipelineError, match=words) as raised:
            run(QUESTION, pipeline=moa.Pipeline(strategy="wrong"))
        assert "\n" not in str(raised.value)
    assert server.count() == 0


async def late(answer: Any) -> Any:
    """Return what nobody awaited."""
    return answer


# Strategies in a package --------------------------------------------------------------------------

PACKAGE = '''
import moa_nb as moa


class Echo(moa.Params):
    """Who answers."""

    who: moa.Agent = moa.Agent(model="$aggregator")


@moa.strategy("echo", params=Echo)
async def echo(task, params, ask):
    """Ask one, once."""
    return await ask.one("echo", params.who)
'''

PROGRAM = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import moa_nb as moa
    from moa_nb.pipeline import strategies
    names = strategies.names()
    text = "Summarize in one sentence: The mill closed in May. Forty people lost their work. It rained."
    pipeline = moa.Pipeline(strategy="echo", who="offline:lead")
    said = moa.run(text, pipeline=pipeline).text
warned = [str(one.message) for one in caught if "strategies" in str(one.message)]
print(json.dumps({"names": names, "said": said, "warned": warned, "ours": strategies.find("echo").is_ours}))
"""


def installed(folder: Path, name: str, entry: str, files: dict[str, str]) -> None:
    """Install a distribution in a folder: its modules, and what pip writes beside them."""
    for file, text in files.items():
        (folder / file).write_text(text, "utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(f"[moa_nb.strategies]\n{entry}\n", "utf-8")
    (info / "RECORD").write_text("", "utf-8")


def test_an_installed_package_brings_a_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through its entry point, in a process of its own; a package that is broken warns and harms nobody."""
    site = tmp_path / "site"
    site.mkdir()
    installed(site, "echo_strategies", "echo = echo_strategies", {"echo_strategies.py": PACKAGE})
    installed(site, "broken_strategies", "broken = broken_strategies:nothing", {"broken_strategies.py": "1 / 0\n"})
    clash = PACKAGE.replace('"echo"', '"layers"')
    installed(site, "clashing_strategies", "clash = clashing_strategies", {"clashing_strategies.py": clash})
    monkeypatch.setenv("PYTHONPATH", f"{site}{':' if sys.platform != 'win32' else ';'}{Path(__file__).parents[1]}")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "echo" in found["names"]
    assert {"layers", "debate"} <= {*found["names"]}
    assert (found["said"], found["ours"]) == ("The mill closed in May.", False)
    first, second = sorted(found["warned"])
    assert "broken_strategies" in first
    assert "ZeroDivisionError" in first
    assert "there is a strategy 'layers' in moa_nb" in second


# Functions ----------------------------------------------------------------------------------------


def test_functions_are_agents_judges_and_aggregators(server: ChatServer, lab: Lab) -> None:
    """Sync or async, beside models."""

    async def long(prompt: str) -> str:
        return "a long answer " * 3

    def prefers_length(prompt: str, references: tuple[str, ...]) -> str:
        return f"It is good.\n\n[[{9 if len(references[0]) > 20 else 2}]]"

    pipeline = moa.Pipeline(strategy="judge", proposers=["lab:a", long], judges=prefers_length)
    assert moa.run(QUESTION, pipeline=pipeline).text == ("a long answer " * 3).strip()
    assert server.count() == 1

    def joins(prompt: str, references: tuple[str, ...]) -> str:
        return " + ".join(references)

    layered = moa.Pipeline(layers=[["lab:a", "lab:b"], joins])
    assert moa.run(QUESTION, pipeline=layered).text == "answer of a + answer of b"


@pytest.mark.parametrize("by_name", [False, True], ids=["given", "by name"])
def test_functions_are_routers_and_scorers(server: ChatServer, lab: Lab, by_name: bool) -> None:
    """Given in Python, or registered and named in a file."""

    @moa.agent("is_hard")
    def is_hard(question: str) -> float:
        return 1.0 if "prove" in question.lower() else 0.0

    @moa.agent("scores")
    async def scores(question: str, answer: str) -> float:
        return 0.9 if answer == "answer of b" else 0.1

    router: Any = "function:is_hard" if by_name else is_hard
    scorer: Any = "function:scores" if by_name else scores
    route = moa.Pipeline(strategy="route", ways=["lab:a", "lab:b"], router=router)
    assert moa.run("Say hello", pipeline=route).text == "answer of a"
    assert moa.run("Prove it", pipeline=route).text == "answer of b"
    cascade = moa.Pipeline(strategy="cascade", tiers=["lab:a", "lab:b", "lab:z"], scorer=scorer)
    result = moa.run(QUESTION, pipeline=cascade)
    assert (result.text, result.accepted, result.n_calls) == ("answer of b", True, 2)


# Files --------------------------------------------------------------------------------------------


def test_a_template_and_a_pipeline_of_the_project_are_found_by_name(server: ChatServer, lab: Lab) -> None:
    """Dropped into its folder; changed, the next run has the change."""
    write("templates/prompts/brief.jinja", "BRIEFLY {% for r in references %}{{ fence }}{{ r }}{% endfor %}")
    write(
        "templates/pipelines/brief.toml",
        """
        [[layers]]
        agents = ["lab:a"]
        [[layers]]
        agents = [{ model = "lab:z", template = "brief" }]
        """,
    )
    moa.run(QUESTION, pipeline="brief")
    assert server.asked("z")[0].text_of("system").startswith("BRIEFLY")
    write("templates/prompts/brief.jinja", "SHORTLY {{ references | length }}")
    moa.run(QUESTION, pipeline="brief")
    assert server.asked("z")[1].text_of("system") == "SHORTLY 1"
    write("templates/prompts/brief.jinja", "{% for %}")
    with pytest.raises(TemplateError, match=r"brief\.jinja|brief"):
        moa.run(QUESTION, pipeline="brief")
    with pytest.raises(UnknownName, match="did you mean 'brief'"):
        moa.run(QUESTION, pipeline="breif")


# Pipelines within pipelines -----------------------------------------------------------------------


def test_a_cascade_of_pipelines(server: ChatServer, lab: Lab) -> None:
    """Its tiers are ``single``, ``moa-lite`` and ``moa``; each is asked only after the one before."""
    scores = iter([0.1, 0.1])
    pipeline = moa.Pipeline(strategy="cascade", tiers=["single", "moa-lite", "moa"], scorer=lambda q, a: next(scores))
    estimate = moa.estimate(QUESTION, pipeline=pipeline)
    assert (estimate.low.n_calls, estimate.high.n_calls) == (1, 1 + 4 + 7)
    result = moa.run(QUESTION, pipeline=pipeline)
    assert (result.text, result.n_calls) == ("answer of z", 12)
    names = [layer.name for layer in result.layers]
    assert names[0] == "tier 1 › single › layer 1"
    assert names[-1] == "tier 3 › moa › layer 3"


def test_a_pipeline_proposes_and_aggregates(server: ChatServer, lab: Lab) -> None:
    """As any agent does: it reads what its layer reads, and what it answers is quoted to the next."""
    pipeline = moa.Pipeline(layers=[["moa-lite", "lab:c"], ["lab:b", "single"], ["moa-lite"]])
    result = moa.run(QUESTION, pipeline=pipeline)
    assert result.n_calls == 4 + 1 + 1 + 1 + 4
    second = [call for layer in result.layers if layer.name.startswith("layer 2") for call in layer.calls]
    for call in second:
        assert "answer of z" in call.prompt[0].content
        assert "answer of c" in call.prompt[0].content
    assert moa.estimate("And when?", pipeline=pipeline).high.n_calls == result.n_calls


def test_roles_of_pipelines_within_are_filled_by_options(server: ChatServer, lab: Lab) -> None:
    """``models`` and ``aggregator`` count for them too."""
    write("templates/pipelines/tiers.toml", 'strategy = "cascade"\ntiers = ["single", "moa-lite"]\nscorer = "lab:c"')
    result = moa.run(QUESTION, pipeline="tiers", models=["lab:b"], aggregator="lab:a")
    assert {call.model for call in result.calls} <= {"lab:a", "lab:b", "lab:c"}


def test_a_missing_name_a_circle_and_too_deep_a_nest_are_errors_at_load(server: ChatServer, lab: Lab) -> None:
    """Nothing is asked."""
    write("templates/pipelines/one.toml", 'layers = [{ agents = ["other"] }]')
    write("templates/pipelines/other.toml", 'layers = [{ agents = ["one"] }]')
    with pytest.raises(PipelineError, match="pipeline 'one' goes in a circle: one > other > one"):
        moa.run(QUESTION, pipeline="one")
    with pytest.raises(PipelineError, match="circle"):
        moa.estimate(QUESTION, pipeline="other")
    write("templates/pipelines/self.toml", 'layers = [{ agents = ["self"] }]')
    with pytest.raises(PipelineError, match="self > self"):
        moa.run(QUESTION, pipeline="self")
    write("templates/pipelines/lost.toml", 'layers = [{ agents = ["moa-lit"] }]')
    with pytest.raises(UnknownName, match="did you mean 'moa-lite'"):
        moa.run(QUESTION, pipeline="lost")
    for number in range(6):
        inner = f'"deep{number + 1}"' if number < 5 else '"lab:a"'
        write(f"templates/pipelines/deep{number}.toml", f"layers = [{{ agents = [{inner}] }}]")
    with pytest.raises(PipelineError, match="pipelines may be 5 deep"):
        moa.run(QUESTION, pipeline="deep0")
    assert moa.estimate(QUESTION, pipeline="deep1").n_calls == 1
    assert presets.load("deep1").explain().n_calls == (1, 1)
    assert server.requests == []


# The README ---------------------------------------------------------------------------------------

README = Path(__file__).parents[1] / "README.md"


def test_the_readmes_strategy_runs(server: ChatServer, lab: Lab) -> None:
    """As it stands there, with its templates: it drafts until nobody finds a fault."""
    text = README.read_text("utf-8")
    source = re.search(r"<!-- strategy -->\n```python\n(.*?)```", text, re.DOTALL)
    assert source
    templates = re.findall(r"```jinja\n\{# (\S+) #\}\n(.*?)```", text, re.DOTALL)
    assert len(templates) == 2
    for path, template in templates:
        write(path, template)
    exec(compile(source[1], "README.md", "exec", dont_inherit=True), {"__name__": "__main__"})
    server.on("a", "The year is missing.", "Nothing.").on("b", "Nothing.").on("c", "Nothing.").on("z", "One.", "Two.")
    pipeline = moa.Pipeline(strategy="proofread")
    assert pipeline.explain().calls == "4 to 9"
    estimate = moa.estimate(QUESTION, pipeline=pipeline)
    assert (estimate.low.n_calls, estimate.high.n_calls, estimate.at_least) == (4, 9, False)
    result = moa.run(QUESTION, pipeline=pipeline)
    assert (result.text, result.n_calls) == ("Two.", 8)
    redraft = server.asked("z")[1].text_of("system")
    assert "The year is missing." in redraft
    assert loaded_from(pipeline) == pipeline


def loaded_from(pipeline: moa.Pipeline) -> moa.Pipeline:
    """What a pipeline's own text loads to."""
    write("templates/pipelines/mine.toml", pipeline.to_toml())
    return presets.load("mine")


def test_the_readme_lists_all_pipelines_with_their_calls(lab: Lab) -> None:
    """With three proposers, as its table says."""
    lines = README.read_text("utf-8").partition("<!-- pipelines -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    loaded = {name: presets.load(name) for name in presets.names()}
    assert sorted(lines) == sorted(
        f"| `{name}` | {one.description} | {one.explain().calls} |" for name, one in loaded.items()
    )


def test_a_pipeline_beside_an_agent_that_cannot_be_asked_is_not_begun(server: ChatServer, lab: Lab) -> None:
    """The layer fails at once with one line, and nothing of the pipeline is left half begun."""
    broken = {"model": "lab:a", "extra": {"odd": object()}}
    with pytest.raises(SetupError, match="cannot be sent as JSON"):
        moa.run("Why?", pipeline=moa.Pipeline(layers=[[broken, "single"], ["lab:z"]]))
    gc.collect()  # what was never awaited would be complained of here
    assert server.count() == 0
