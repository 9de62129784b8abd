"""Layers: proposers answer side by side, each next layer reads all answers of the one before."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from moa_nb.errors import PipelineError, Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.settling import settled, unanimous, voted
from moa_nb.pipeline.similarity import medoid
from moa_nb.pipeline.spec import Agent, Layer, Params
from moa_nb.pipeline.strategies import strategy

__all__ = ["Layers", "layers"]


def _as_layers(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [
            {"agents": layer} if isinstance(layer, list | tuple | str) or callable(layer) else layer for layer in value
        ]
    return value


class Layers(Params):
    """Any depth and width; the last layer is one agent, the aggregator."""

    layers: Annotated[tuple[Layer, ...], BeforeValidator(_as_layers), Field(min_length=1, max_length=50)]
    residual: bool = False
    """Whether a layer also reads the best of what the layer before it read: the answer that is most like the others
    there (their medoid), which takes no call. It stands last and is marked as carried over, unless an agent or layer
    has a template of its own; one that was carried over may be carried on. From the third layer on there is one."""

    @model_validator(mode="after")
    def _ends_in_one(self) -> Layers:
        last = self.layers[-1].members
        if len(last) != 1 or last[0].model == "$proposers" or (last[0].samples or 1) != 1:
            msg = "the last layer needs exactly one agent: the aggregator, asked once"
            raise ValueError(msg)
        return self

    def agents(self) -> tuple[Agent, ...]:
        """Return every agent of every layer."""
        return tuple(agent for layer in self.layers for agent in layer.members)

    def override(
        self,
        *,
        samples: int | None = None,
        layers: int | None = None,
        template: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        **unknown: Any,
    ) -> Self:
        """Return the layers with other samples per proposer, depth, template or sampling."""
        super().override(**unknown)
        *proposing, last = self.layers
        if (layers or 1) > 1 and not proposing:
            proposing = [Layer(agents=[Agent(model="$proposers")])]
        if layers is not None:
            if layers < 1:
                msg = f"a pipeline has at least 1 layer, not {layers}"
                raise PipelineError(msg)
            # More layers repeat the last proposing one, fewer drop from the end.
            proposing = (proposing + proposing[-1:] * layers)[: layers - 1]
        if samples is not None and not proposing:
            msg = "samples are drawn by a layer before the last, and this pipeline has none: use self-moa, or layers=2"
            raise PipelineError(msg)
        if samples is not None and samples < 1:
            msg = f"an agent gives at least 1 sample, not {samples}"
            raise PipelineError(msg)
        proposing = [_with(layer, samples=samples) for layer in proposing]
        changed = [
            _with(layer, temperature=temperature, max_tokens=max_tokens, template=template)
            for layer in (*proposing, last)
        ]
        return self.having(layers=changed)


def _with(layer: Layer, **changes: Any) -> Layer:
    wanted = {key: value for key, value in changes.items() if value is not None}
    agents = [{**agent.model_dump(exclude_unset=True), **wanted} for agent in layer.agents]
    return Layer.model_validate({**layer.model_dump(exclude_unset=True), "agents": agents}) if wanted else layer


@strategy("layers", params=Layers)
async def layers(task: Task, params: Layers, ask: Ask) -> Candidate:
    """Mixture-of-Agents (Wang et al. 2024, arXiv 2406.04692, section 2.2): y_l = ⊕_i A_l,i(y_l-1) + x.

    With one layer it is a single model, with one model sampled n times it is Self-MoA (Li et al.
    2025, arXiv 2502.00674). ``layers[:-1]`` propose, ``layers[-1]`` aggregates. With ``residual`` a layer's
    references are y_l-1 and the medoid of those of the layer before, so that what was right early is not lost. A form
    is filled in field by field: where all of y_L-1 agree on each, the aggregator is not asked; where they agree on some,
    these stand.
    """
    answers: list[Candidate] = []
    references: list[Candidate] = []
    for number, layer in enumerate(params.layers, start=1):
        is_last = number == len(params.layers)
        carried = _best(references) if params.residual else []
        references = [*answers, *carried]
        if is_last and (sure := unanimous(ask, answers)) is not None:
            return sure
        try:
            given = await ask.layer(
                layer.name or f"layer {number}",
                layer.members,
                see=references,
                template="carried" if carried else None,
                min_ok=layer.min_ok,
                patience=layer.patience,
            )
        except Unanswered as error:
            if not is_last:
                raise
            return voted(ask, answers, error)
        if is_last:
            return settled(ask, given[0], answers)
        answers = given
    raise AssertionError  # the last layer returns


def _best(references: list[Candidate]) -> list[Candidate]:
    """Return the reference that is most like the others; none where there are none."""
    at = medoid([reference.text for reference in references])
    return [] if at is None else [references[at]]
