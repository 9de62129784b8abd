"""One text or conversation through a pipeline: ``run`` and its like, as users call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moa_nb.engine.engine import Engine, current
from moa_nb.engine.forecast import Estimate, make_estimate
from moa_nb.engine.plan import Options
from moa_nb.engine.task import Prompt, make_task
from moa_nb.options import RunOptions, refuse_unknown, spelled_out
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.result import Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["arun", "estimate", "run"]


@spelled_out
def run(
    prompt: Prompt,
    *,
    template: str | None = None,
    values: Mapping[str, Any] | None = None,
    schema: Any = None,
    **options: Unpack[RunOptions],
) -> Result:
    """Return the result of a pipeline on one text or conversation.

    Args:
        prompt: a text, or messages: ``[{"role": "user", "content": "..."}]``.
        template: Jinja source or a template's name; ``{{ text }}`` is the prompt.
        values: what else the template may use.
        schema: what the answer must be: a pydantic model, a dict of names to types, or a JSON schema. The fields are
            then the result's ``value``, as plain data; ``Review(**result.value)`` makes a model of them.
        **options: ``pipeline`` (a name or a ``Pipeline``), ``models`` (who proposes, as
            ``provider:model``), ``aggregator``, ``samples``, ``layers``, ``temperature``,
            ``max_tokens``, ``budget`` (dollars), ``cache`` (``use``, ``refresh``, ``off``), ``mode`` (``live``, ``batch``).

    Raises:
        SetupError: something is wrong or missing; nothing was sent.
        MoaError: there is no answer; ``error.result`` has what was finished.

    >>> text = "The mill closed in May. Forty people lost their work. The town bought the mill."
    >>> run("Summarize in one sentence: " + text, models=["offline:lead"], aggregator="offline:consensus").text
    'The mill closed in May.'
    """
    refuse_unknown(run, options)
    engine = current()
    return engine.finish(_run(engine, make_task(prompt, template, values, schema), Options(**options)))


@spelled_out
async def arun(
    prompt: Prompt,
    *,
    template: str | None = None,
    values: Mapping[str, Any] | None = None,
    schema: Any = None,
    **options: Unpack[RunOptions],
) -> Result:
    """Return what ``run`` returns, awaited: ``await moa.arun("text")`` in a cell or a coroutine."""
    refuse_unknown(arun, options)
    engine = current()
    return await engine.finish_async(_run(engine, make_task(prompt, template, values, schema), Options(**options)))


async def _run(engine: Engine, task: Task, options: Options) -> Result:
    plan = await engine.plan(options, task.form)
    return await engine.answer_and_keep(plan, task, engine.new_record(plan, task), kind="text")


@spelled_out
def estimate(
    prompt: Prompt,
    *,
    template: str | None = None,
    values: Mapping[str, Any] | None = None,
    schema: Any = None,
    **options: Unpack[RunOptions],
) -> Estimate:
    """Return what ``run`` would take at most: calls, tokens, dollars, rendered prompts. Nothing is sent.

    >>> estimate("Hello", pipeline="moa-lite", models=["offline:lead"], aggregator="offline:lead").n_calls
    2
    """
    refuse_unknown(estimate, options)
    engine = current()
    return engine.finish(_estimate(engine, make_task(prompt, template, values, schema), Options(**options)))


async def _estimate(engine: Engine, task: Task, options: Options) -> Estimate:
    plan = await engine.plan(options, task.form, keys=False)
    return await make_estimate(plan, task, engine.gateway(plan.settings))
