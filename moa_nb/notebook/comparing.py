"""``%%moa --compare a,b,c``: several pipelines on one question at the same time, under one budget."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moa_nb.engine.engine import Engine
from moa_nb.engine.plan import Options, Plan
from moa_nb.errors import MoaError
from moa_nb.notebook.comparing_live import LiveComparison
from moa_nb.notebook.display import has_front_end
from moa_nb.notebook.running import estimated, stopped
from moa_nb.panels.comparison import Comparison
from moa_nb.panels.figures import dollars
from moa_nb.panels.tables import TableDisplay, table
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.record import RunRecord
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.spec import Pipeline
from moa_nb.pipeline.strategies import Strategy
from moa_nb.pipeline.strategies.judge import Judge, compare

__all__ = ["Contest", "estimates", "plan", "run"]


@dataclass(frozen=True)
class Contest:
    """Pipelines that answer the same, and who judges; one budget for all of them."""

    plans: Mapping[str, Plan]
    judging: Plan | None


async def plan(
    engine: Engine,
    options: Options,
    names: Sequence[str],
    judge: str | None,
    form: Form | None = None,
    *,
    keys: bool = True,
) -> Contest:
    """Return the checked plans of all pipelines and of the judge, if there is one; nothing is sent.

    Raises:
        SetupError: something is wrong or missing.
    """
    plans = {name: await engine.plan(replace(options, pipeline=name), form, keys=keys) for name in names}
    budget = next(iter(plans.values())).budget
    judging = None
    if judge is not None:
        pipeline = Pipeline(strategy="judge", name="judge", method="pairwise", proposers=[judge], judges=[judge])
        wanted = Options(pipeline=pipeline, temperature=0, budget=options.budget, cache=options.cache)
        judging = replace(await engine.plan(wanted, keys=keys), budget=budget)
    return Contest({name: replace(one, budget=budget) for name, one in plans.items()}, judging)


def estimates(engine: Engine, contest: Contest, task: Task) -> TableDisplay:
    """Return what each pipeline would take; nothing is sent."""
    rows = []
    for name, one in contest.plans.items():
        high = estimated(engine, one, task).high
        cost = "unknown" if high.cost is None else dollars(high.cost)
        rows.append((name, f"{high.n_calls:,}", f"≈{high.prompt_tokens:,}", f"{high.completion_tokens:,}", cost))
    headers = ["pipeline", "calls", "tokens in", "tokens out", "$"]
    judge = "" if contest.judging is None else "; two calls more for every two answers, to judge them"
    return table(rows, headers, caption=f"dry run, nothing was sent; at most{judge}")


def run(engine: Engine, contest: Contest, task: Task, *, form: str) -> Comparison:
    """Return the results by pipeline, shown below the cell as ``panel``, ``markdown``, ``text``, ``json`` or not at all.

    A pipeline that fails stands there with its error, as long as one of them answers.

    Raises:
        Interrupted: the user stopped it; what is finished is kept.
        MoaError: none of them has an answer.
    """
    records = {name: engine.new_record(one, task) for name, one in contest.plans.items()}
    live = LiveComparison(records) if form != "quiet" and has_front_end() else None
    answering = _side_by_side(engine, contest, task, records, watched=live is not None)
    try:
        comparison = engine.finish(answering, live.update if live else None)
        if form != "quiet":
            shown = _form_of(comparison, form)
            if live:
                live.finish(shown)
            else:
                print(shown.get("text/markdown" if form == "markdown" else "text/plain"))  # noqa: T201 - a terminal has nothing else
    except BaseException as error:
        if live:
            live.end()
        if isinstance(error, KeyboardInterrupt):
            raise stopped(records.values()) from None
        raise
    return comparison


def _form_of(comparison: Comparison, form: str) -> dict[str, Any]:
    import json

    from moa_nb.panels.provenance import MIME_TYPE

    bundle = comparison.bundle()
    if form == "json":
        record = bundle[MIME_TYPE]
        return {"application/json": record, "text/plain": json.dumps(record, ensure_ascii=False, indent=2)}
    wanted = {"markdown": ("text/html", "text/markdown", "text/plain"), "text": ("text/plain",)}.get(form, bundle)
    return {kind: bundle[kind] for kind in wanted}


# Running -----------------------------------------------------------------------------------------


async def _side_by_side(
    engine: Engine, contest: Contest, task: Task, records: Mapping[str, RunRecord], *, watched: bool
) -> Comparison:
    errors: list[MoaError] = []

    async def one(name: str) -> Result:
        # On the kernel's own loop the connections of the planning are closed by now.
        here = replace(contest.plans[name], gateway=engine.gateway(contest.plans[name].settings))
        try:
            return await engine.answer_and_keep(here, task, records[name], kind="cell", watched=watched)
        except MoaError as error:
            errors.append(error)
            return records[name].result or records[name].finish(error=str(error), stop_reason="failed")

    async with asyncio.TaskGroup() as group:
        going = {name: group.create_task(one(name)) for name in contest.plans}
    results = {name: task.result() for name, task in going.items()}
    if len(errors) == len(results):
        raise errors[0]
    comparison = Comparison(results)
    if contest.judging is not None:
        comparison = await _judged(engine, contest.judging, task, comparison)
    engine.latest = next(result for result in reversed(results.values()) if result.error is None)
    return comparison


async def _judged(engine: Engine, plan: Plan, task: Task, comparison: Comparison) -> Comparison:
    """Return the comparison with a judge's verdicts on every two answers, in both orders; equal ones are judged once."""
    rivals = {name: result.text for name, result in comparison.items() if result.error is None and result.text.strip()}
    answers = [Candidate(text, name) for text, name in {text: name for name, text in rivals.items()}.items()]

    async def verdicts(task: Task, params: Judge, ask: Ask) -> Candidate:  # noqa: ARG001 - as strategies are called
        rankings = await compare(ask, params.judges, answers)
        if not rankings or rankings[0].best is None:
            return Candidate("no verdict could be read", "judge", value=[])
        return replace(answers[rankings[0].best], value=list(rankings[0].scores))

    if len(answers) < 2:
        return comparison
    here = replace(plan, gateway=engine.gateway(plan.settings), strategy=Strategy("judge", Judge, verdicts))
    asked = Task(task.conversation, reference_answer=task.reference_answer)
    record = engine.new_record(here, asked)
    try:
        judged = await engine.answer_and_keep(here, asked, record, kind="cell")
    except MoaError as error:  # the answers were paid for, and are shown whatever becomes of the judging
        judged = record.result or record.finish(error=str(error), stop_reason="failed")
    scores = judged.value or [None] * len(answers)
    of_text = {answer.text: score for answer, score in zip(answers, scores, strict=True)}
    return Comparison(comparison, {name: of_text[text] for name, text in rivals.items()}, judged)
