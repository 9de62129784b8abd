"""Pipelines as data: what is taken, what is refused with the nearest right word, and what an option changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
        ('[[layers]]\nagents = [{name = "x"}]', "needs a model"),
        ('[[layers]]\nagents = ["lab:a"]\ntemperature = 3', "temperature"),
    ],
)
def test_a_mistake_names_file_key_and_the_nearest(text: str, words: str) -> None:
    """One line."""
    with pytest.raises((PipelineError, UnknownName)) as raised:
        preset(text)
    assert words in str(raised.value)


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
