"""A run as training data: which rows are learnt from, and the file that they become."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from moa_nb.engine import Engine, current
from moa_nb.errors import SetupError, nearest
from moa_nb.frames.training.examples import ExportFormat, ExportRow, digest, examples
from moa_nb.frames.training.jsonlines import Lines
from moa_nb.frames.training.judging import Judging
from moa_nb.frames.training.preferences import Pair, gives_scores, judges_itself, own_pairs, own_score
from moa_nb.money import dollars
from moa_nb.pipeline.spec import Pipeline
from moa_nb.plain import quoted

__all__ = ["ExportFormat", "ExportRow", "Exported", "ProvenancePlace", "check_place", "export"]

ProvenancePlace = Literal["inline", "beside"]
"""``inline``: in each line, under ``provenance``. ``beside``: in a second file, line by line, for services that take
only the fields that they know."""

_TURN = 64
"""Rows that are looked at before others on the loop have their turn."""


@dataclass(frozen=True, repr=False)
class Exported:
    """What an export wrote, and what it left out.

    >>> Exported(Path("train.jsonl"), n_lines=2, n_rows=5, left_out={"degraded": 3})
    train.jsonl: 2 lines from 5 rows; 3 left out: 3 degraded
    """

    path: Path
    n_lines: int
    n_rows: int
    left_out: Mapping[str, int]
    """Rows by why they are left out."""
    provenance: Path | None = None
    """The file of the provenance; ``None`` where it is in the lines."""
    n_calls: int = 0
    """Verdicts that were asked for, cached ones included."""
    cost: float | None = 0.0
    """Dollars paid for verdicts; ``None`` where a price is not known."""

    def __str__(self) -> str:
        parts = [f"{self.path.name}: {self.n_lines:,} lines from {self.n_rows:,} rows"]
        if self.left_out:
            parts.append(_said(self.left_out))
        if self.n_calls:
            cost = "an unknown cost" if self.cost is None else f"${dollars(self.cost)}"
            parts.append(f"{self.n_calls:,} verdicts for {cost}")
        return "; ".join(parts)

    __repr__ = __str__


async def export(
    path: str | os.PathLike[str],
    rows: AsyncIterable[ExportRow],
    *,
    run_id: str,
    pipeline: Pipeline,
    format: ExportFormat = "chat",  # noqa: A002 - what users call it
    judge: str | Callable[..., object] | None = None,
    budget: float | str | None = None,
    min_agreement: float | None = None,
    min_score: float | None = None,
    skip_degraded: bool = True,
    provenance: ProvenancePlace | None = None,
    overwrite: bool = False,
    engine: Engine | None = None,
) -> Exported:
    """Return what was written to ``path``: JSON lines in UTF-8, at once and whole or not at all.

    Rows come one at a time, and of each only digests are kept. Prompts that differ only in case and white space
    count as equal: the row with the highest agreement stands for them, of equals the first.

    Args:
        path: the file; its folder has to be there.
        rows: the rows of a run, in order.
        run_id: the run's name.
        pipeline: what answered them.
        format: what a line is.
        judge: who says whether the answer is better than a proposal; ``None``: the run's own verdicts count.
        budget: what the judge may take, as a run's ``budget``; ``None``: what may be spent unasked.
        min_agreement: rows that agree less, or of which nobody knows, are left out.
        min_score: answers that the run's judges rate lower, or not at all, are left out.
        skip_degraded: whether rows with a degraded answer are left out.
        provenance: where each line's provenance stands; ``None``: inline, of ``openai-preference`` beside.
        overwrite: whether a file that is there is replaced.
        engine: what asks the judge; that of this process if ``None``.

    Raises:
        SetupError: an option that makes no sense here, a file that is there already, or no row is left.
        SpendingNotAgreed: nobody gave a budget, and the judge would take more than may be spent unasked.
    """
    _check_choices(format, provenance)
    _check_judge(pipeline, format, judge, budget)
    chosen = _Chosen(pipeline, min_agreement, min_score, skip_degraded=skip_degraded)
    target = Path(path)
    is_beside = (provenance or ("beside" if format == "openai-preference" else "inline")) == "beside"
    beside = target.with_name(f"{target.stem}.provenance{target.suffix}") if is_beside else None
    for file in (target, beside):
        if file is not None:
            check_place(file, overwrite=overwrite)
    judging = None
    if judge is not None:
        judging = await Judging.begin(engine or current(), judge, budget, title=f"preferences of {run_id}")
    with Lines(target, beside) as lines, judging or nullcontext():
        async with aclosing(chosen.of(rows)) as wanted, aclosing(_judged(wanted, judging, pipeline)) as judged:
            async for row, pairs in judged:
                score = own_score(row.result, pipeline)
                found = examples(row, format, pairs or (), run_id=run_id, score=score)
                if found:
                    lines.add(digest(row.result.conversation), -1.0 if row.agreed is None else row.agreed, found)
                else:
                    chosen.left_out["without a preference" if pairs is not None else "over the budget"] += 1
        if lines.n_beaten:
            chosen.left_out["with the prompt of another"] = lines.n_beaten
        if not lines.n_lines:
            msg = f"no row is left to write to {target.name}" + f"; {_said(chosen.left_out)}" * bool(chosen.n_rows)
            raise SetupError(msg)
        await asyncio.to_thread(lines.publish)
    made = Exported(target, lines.n_lines, chosen.n_rows, dict(chosen.left_out), beside)
    return made if judging is None else replace(made, n_calls=judging.n_calls, cost=judging.cost)


def _said(left_out: Mapping[str, int]) -> str:
    return f"{sum(left_out.values()):,} left out: {', '.join(f'{n:,} {why}' for why, n in left_out.items())}"


# Which rows --------------------------------------------------------------------------------------


@dataclass
class _Chosen:
    """The rows that are good enough; the others are counted by why they are not.

    Raises:
        SetupError: a bound that makes no sense for this pipeline.
    """

    pipeline: Pipeline
    min_agreement: float | None
    min_score: float | None
    skip_degraded: bool
    n_rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            msg = f"min_agreement is from 0 to 1, not {quoted(self.min_agreement, 40)}"
            raise SetupError(msg)
        if self.min_score is not None and not gives_scores(self.pipeline):
            msg = f"pipeline {self.pipeline.name!r} rates no answers, so min_score has nothing to go by: leave it out"
            raise SetupError(msg)

    async def of(self, rows: AsyncIterable[ExportRow]) -> AsyncGenerator[ExportRow]:
        """Yield the rows that are good enough."""
        async for row in rows:
            self.n_rows += 1
            why_not = self._why_not(row)
            if why_not is None:
                yield row
            else:
                self.left_out[why_not] += 1
            if self.n_rows % _TURN == 0:
                await asyncio.sleep(0)

    def _why_not(self, row: ExportRow) -> str | None:
        result = row.result
        if result.error is not None or not result.text.strip():
            return "without an answer"
        if self.skip_degraded and result.degraded:
            return "degraded"
        score = None if self.min_score is None else own_score(result, self.pipeline)
        for name, value, least in (("agreement", row.agreed, self.min_agreement), ("score", score, self.min_score)):
            if least is not None and (value is None or not value >= least):
                return f"of {'unknown' if value is None else 'low'} {name}"
        return None


async def _judged(
    rows: AsyncGenerator[ExportRow], judging: Judging | None, pipeline: Pipeline
) -> AsyncGenerator[tuple[ExportRow, list[Pair] | None]]:
    """Yield rows with the pairs that judges made of them; ``None`` where the budget was used up."""
    if judging is None:
        async for row in rows:
            yield row, own_pairs(row.result, pipeline)
        return
    async with aclosing(judging.each(rows)) as judged:
        async for row_and_pairs in judged:
            yield row_and_pairs


# What makes no sense -----------------------------------------------------------------------------


def _check_choices(format: str, provenance: str | None) -> None:  # noqa: A002 - as the option is called
    choices = (("format", format, ExportFormat), ("provenance", provenance, ProvenancePlace))
    for name, value, kind in choices:
        if value is not None and value not in get_args(kind):
            msg = f"{name} cannot be {quoted(value, 80)}; {nearest(str(value), get_args(kind))}"
            raise SetupError(msg)


def _check_judge(pipeline: Pipeline, format: str, judge: object, budget: object) -> None:  # noqa: A002 - as above
    msg = None
    if format == "chat" and (judge is not None or budget is not None):
        msg = "a judge and its budget are for preferences: pass format='preference'"
    elif judge is None and budget is not None:
        msg = "a budget is for a judge, and nobody is asked: pass judge='provider:model', or leave the budget out"
    elif judge is None and format != "chat" and not judges_itself(pipeline):
        msg = f"pipeline {pipeline.name!r} does not judge its answers: pass judge='provider:model' to get preferences"
    if msg is not None:
        raise SetupError(msg)


def check_place(file: Path, *, overwrite: bool) -> None:
    """Return nothing where a file may be written.

    Raises:
        SetupError: it is there already and may not be replaced, or its folder is not.
    """
    msg = None
    if file.is_dir():
        msg = f"{file} is a folder: name a file in it"
    elif not file.parent.is_dir():
        msg = f"there is no folder {file.parent}: make it first"
    elif file.exists() and not overwrite:
        msg = f"{file} is there already: pass overwrite=True to replace it"
    if msg is not None:
        raise SetupError(msg)
