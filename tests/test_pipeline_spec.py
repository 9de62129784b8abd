"""Pipelines as data: what is taken, what is refused with the nearest right word, and what an option changes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moa_nb as moa
from moa_nb.errors import PipelineError, UnknownName
from moa_nb.pipeline import presets, strategies
from moa_nb.pipeline.spec import Agent, resolve

ROLES: Any = {"proposers": ("lab:a", "lab:b"), "aggregator": ("lab:z",)}


def preset(text: str, name: str = "mine") -> moa.Pipeline:
    """The pipeline of a project's file."""
    path = Path("templates/pipelines") / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return presets.load(name)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_loads_and_names_roles_only(name: str) -> None:
    """So that it works with whatever provider the user has."""
    pipeline = presets.load(name)
    assert pipeline.description
    assert pipeline.strategy in strategies.names()
    assert all(agent.model.startswith("$") for agent in pipeline.params.agents())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('layers = [{agents = ["$proposers"]}, ["$aggregator"]]\ntemprature = 3', "temprature"),
        ('[[layers]]\nagents = ["$aggregator"]\ntemprature = 0.7', "did you mean 'temperature'"),
        ('[[layers]]\nagents = [{model = "$aggregator", max_token = 3}]', "did you mean 'max_tokens'"),
        ('[[layers]]\nagents = ["$agregator"]', "did you mean 'aggregator'"),
        ('[[layers]]\nagents = ["lab:a", "lab:b"]', "exactly one agent"),
        ('[[layers]]\nagents = ["$proposers"]', "exactly one agent"),
        ('[[layers]]\nagents = [{model = "lab:a", samples = 2}]', "exactly one agent"),
        ("[[layers]]\nagents = []", "layers"),
        ('strategy = "layrs"\n[[layers]]\nagents = ["lab:a"]', "did you mean 'layers'"),
        ('name = "x"\n[[layers]]\nagents = ["lab:a"]', "named by its file"),
        ("layers = ", "not valid TOML"),
        ('[[layer]]\nagents = ["lab:a"]', "did you mean 'layers'"),
        ('[[layers]]\nagent = ["lab:a"]', "did you mean 'agents'"),
        ("layers = 5", "layers: Input should be a list"),
        ('[[layers]]\nagents = [{name = "x"}]', "needs a model"),
        ('[[layers]]\nagents = ["lab:a"]\ntemperature = 3', "temperature"),
    ],
)
def test_a_mistake_names_file_key_and_the_nearest(text: str, words: str) -> None:
    """One line."""
    with pytest.raises((PipelineError, UnknownName)) as raised:
        preset(text)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Agent(model="lab:a", temprature=0.7), "Agent: unknown key 'temprature'; did you mean 'temperature'?"),  # type: ignore[call-arg]  # misspelt
        (Agent, "Agent: an agent needs a model, such as 'openai:gpt-4o-mini' or '$proposers'"),
        (lambda: Agent("lab:a"), "Agent takes each value by its name, as in Agent(model=...), not 'lab:a' alone"),  # type: ignore[call-arg]  # no name
        (lambda: Agent(model="$propsers"), "Agent: no role '$propsers'; did you mean 'proposers'?"),
        (
            lambda: moa.Layer(agents=("lab:a", Agent(model="lab:b", temperature=9))),  # type: ignore[arg-type]  # as users write it
            "Agent: temperature: Input should be less than or equal to 2",
        ),
        (
            lambda: moa.Layer(agents=({"model": "lab:a", "temperatur": 1},)),  # type: ignore[arg-type]  # as users write it
            "Layer: unknown key 'agents.0.temperatur'; did you mean 'temperature'?",
        ),
    ],
)
def test_a_mistake_in_a_part_that_is_built_by_hand_is_one_line(build: Callable[[], object], words: str) -> None:
    """As it is in a file."""
    with pytest.raises(PipelineError) as raised:
        build()
    assert str(raised.value) == words


def test_a_file_of_windows_is_read() -> None:
    """Its mark of the encoding is no part of the text, and its lines end as they like."""
    assert preset('\ufeff[[layers]]\r\nagents = ["$strong"]\r\n').strategy == "layers"


@pytest.mark.parametrize("strategy", [None, 5])
def test_a_strategy_is_named_by_a_text(strategy: Any) -> None:
    """What is none is refused as any unknown name."""
    with pytest.raises(UnknownName, match=f"no strategy {strategy}; there are: "):
        moa.Pipeline(strategy=strategy)


def test_a_projects_pipeline_wins_over_ours() -> None:
    """As templates do."""
    assert preset('description = "my own"\n[[layers]]\nagents = ["$strong"]', "moa").description == "my own"
    assert presets.names()["moa"] == "project"


def test_agents_are_written_as_texts_tables_or_functions() -> None:
    """One or several."""

    def shout(prompt: str) -> str:
        return prompt.upper()

    pipeline = moa.Pipeline(
        layers=[["lab:a", {"model": "lab:b", "name": "B"}, shout, moa.Agent(model="lab:c")], "lab:z"]
    )
    assert [agent.label for agent in pipeline.params.agents()] == ["a", "B", "shout", "c", "z"]


def test_what_a_layer_says_holds_for_agents_that_say_nothing_else() -> None:
    """Sampling and template; an agent's own word wins."""
    layer = moa.Layer(agents=["lab:a", {"model": "lab:b", "temperature": 0.0}], temperature=0.7, max_tokens=9)
    assert [(agent.temperature, agent.max_tokens) for agent in layer.members] == [(0.7, 9), (0.0, 9)]


def test_roles_and_samples_are_counted_out_with_names_unlike() -> None:
    """Each answer that is asked for has an agent with a name of its own."""
    agents = [Agent(model="$proposers"), Agent(model="lab:a", samples=2), Agent(model="lab:c", name="critic")]
    asked = resolve(agents, ROLES)
    assert [(agent.model, agent.name) for agent in asked] == [
        ("lab:a", "a 1"),
        ("lab:b", "b"),
        ("lab:a", "a 2"),
        ("lab:a", "a 3"),
        ("lab:c", "critic"),
    ]
    with pytest.raises(PipelineError, match=r"nobody fills the role \$judge"):
        resolve([Agent(model="$judge")], ROLES)


def test_options_change_a_copy() -> None:
    """Depth, samples and sampling; the preset itself stays as it is."""
    pipeline = presets.load("moa-lite")
    before = pipeline.params.model_dump()
    deeper = pipeline.override(layers=4, samples=2, temperature=0.1)
    params: Any = deeper.params
    assert [len(resolve(layer.members, ROLES)) for layer in params.layers] == [4, 4, 4, 1]
    assert {agent.temperature for agent in params.agents()} == {0.1}
    assert pipeline.params.model_dump() == before
    assert pipeline.override() is pipeline
    single: Any = pipeline.override(layers=1).params
    assert [agent.model for agent in single.agents()] == ["$aggregator"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"nonsense": 1}, "takes no 'nonsense'"),
    ],
)
def test_an_option_that_makes_no_sense_is_a_pipeline_error(options: dict[str, Any], words: str) -> None:
    """Never a raw validation error."""
    with pytest.raises(PipelineError, match=words):
        presets.load("moa").override(**options)


@pytest.mark.parametrize("name", ["model", "messages", "stream", "stream_options"])
def test_extra_replaces_nothing_that_is_asked_and_priced(name: str) -> None:
    """The fields that say who is asked what are not for ``extra``."""
    with pytest.raises(PipelineError, match=f"extra may not hold '{name}'"):
        moa.Pipeline(layers=[[{"model": "lab:a", "extra": {name: "x"}}]])


def test_a_pipeline_is_what_it_says() -> None:
    """Equal data are equal pipelines; nothing can be changed."""
    one, other = moa.Pipeline(layers=["lab:a"]), moa.Pipeline(layers=[["lab:a"]])
    assert one == other != moa.Pipeline(layers=["lab:b"])
    assert repr(one) == "<Pipeline 'custom': layers>"
    params: Any = one.params
    with pytest.raises(ValueError, match="frozen"):
        params.layers = ()


# Pipelines as files -------------------------------------------------------------------------------


def loaded(pipeline: moa.Pipeline, name: str = "written") -> moa.Pipeline:
    """What its text loads to as a project's file."""
    return preset(pipeline.to_toml(), name)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_written_as_a_file_that_loads_to_an_equal_one(name: str) -> None:
    """Changed by options too."""
    pipeline = presets.load(name)
    assert loaded(pipeline) == pipeline
    assert loaded(pipeline).description == pipeline.description
    cooler = pipeline.override(temperature=0.25, max_tokens=99)
    assert loaded(cooler) == cooler != pipeline


@pytest.mark.parametrize(
    "pipeline",
    [
        moa.Pipeline(layers=["lab:a"]),
        moa.Pipeline(
            layers=[
                {"agents": ["$proposers", {"model": "lab:a", "samples": 3, "stop": ["END", '"\\']}], "min_ok": 2},
                {"agents": ["moa-lite", {"pipeline": "single", "name": "one ] #"}], "patience": 0.5, "name": 'q"'},
                {"agents": {"model": "lab:z", "extra": {"a.b": {"deep": [1, 2.5, True]}, "x": {}}, "seed": 0}},
            ],
            residual=True,
        ),
        moa.Pipeline(layers=[{"agents": {"model": "lab:z", "system": "two\nlines\ttab \x00\x7f é 漢 😀 '''"}}]),
        moa.Pipeline(strategy="debate", answer=["yes", "no"], rounds=4, tie="abstain"),
        moa.Pipeline(strategy="judge", proposers="lab:a", judges=["lab:b", "lab:c"], reference_answer="{{ 7 }}"),
        moa.Pipeline(strategy="route", router=[{"longer": 9, "to": "strong"}, {"matches": "^\\d+$", "to": "small"}]),
        moa.Pipeline(strategy="route", router={"column": "hard"}, thresholds=[0.25], about={"small": "a: b"}),
        moa.Pipeline(strategy="route", router={"examples": [["Prove it", "strong"], ["Hi", "small"]], "k": 1}),
        moa.Pipeline(strategy="cascade", tiers=["single", "moa-lite", "moa"], accept_above=(0.5, 1e-7)),
        moa.Pipeline(strategy="cascade", scorer="function:scores", accept_above=float("-inf")),
    ],
)
def test_pipelines_survive_the_way_through_a_file(pipeline: moa.Pipeline) -> None:
    """Whatever their texts hold."""
    assert loaded(pipeline) == pipeline


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    extra=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])).filter(
            lambda key: key not in {"model", "messages", "contents"}
        ),
        st.recursive(
            st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text("a\"\\\n'"),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab."\n'), inner, max_size=3),
        ),
        max_size=3,
    ),
)
def test_any_text_and_any_field_survive_the_way_through_a_file(text: str, name: str, extra: dict[str, Any]) -> None:
    """TOML quotes what must be quoted."""
    agent = {"model": "lab:a", "system": text, "name": name, "extra": {f"x{key}": one for key, one in extra.items()}}
    pipeline = moa.Pipeline(layers=[{"agents": agent}], description=text)
    data = tomllib.loads(pipeline.to_toml())
    assert moa.Pipeline(**data) == pipeline
    assert data.get("description", "") == text


def test_functions_are_written_by_their_names() -> None:
    """A registered one as ``function:NAME``; else one line says what to do."""

    @moa.agent("shouts")
    def shout(prompt: str) -> str:
        return prompt.upper()

    text = moa.Pipeline(layers=[[shout, {"function": shout, "temperature": 0.5}], "lab:z"]).to_toml()
    assert 'agents = ["function:shouts", { model = "function:shouts", temperature = 0.5 }]' in text
    for unknown, words in (
        (moa.Pipeline(layers=[[str.upper]]), r"the function 'upper' has no name there; register it with @moa\.agent"),
        (moa.Pipeline(strategy="debate", answer=float), "answer is the function 'float', which only Python can say"),
        (moa.Pipeline(layers=[{"agents": {"model": "lab:a", "extra": {"a": None}}}]), "extra.a holds None"),
    ):
        with pytest.raises(PipelineError, match=words) as raised:
            unknown.to_toml()
        assert "\n" not in str(raised.value)


def test_roles_of_pipelines_within_are_its_own() -> None:
    """So that ``models=`` and ``aggregator=`` have something to fill."""
    assert moa.Pipeline(layers=[["moa-lite"], "lab:a"]).roles == {"proposers", "aggregator"}
