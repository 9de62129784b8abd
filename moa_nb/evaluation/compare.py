"""``moa.compare``: several pipelines over the same rows, and which is worth its price."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from moa_nb.engine import Estimate
from moa_nb.evaluation.contestants import Contestant, refuse
from moa_nb.evaluation.evaluation import Evaluation
from moa_nb.evaluation.judging import Judge
from moa_nb.evaluation.trial import Method, Trial
from moa_nb.frames.rows import MissingPolicy
from moa_nb.options import RunOptions, spelled_out
from moa_nb.pipeline.spec import Pipeline

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["compare", "estimate"]


@spelled_out
def compare(
    data: pd.DataFrame | pd.Series[Any],
    column: Hashable = None,
    pipelines: Sequence[str | Pipeline] | Mapping[str, Contestant] = (),
    *,
    judge: Judge | Sequence[Judge] | None = None,
    reference: Hashable | pd.Series[Any] = None,
    metric: str | Callable[..., Any] | None = None,
    method: Method | None = None,
    baseline: str | None = None,
    instruction: str | None = None,
    template: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    na: MissingPolicy = "skip",
    progress: bool | None = None,
    **options: Unpack[RunOptions],
) -> Evaluation:
    """Return how good each pipeline's answers to the rows of a frame are, how surely, and at what price.

    Each pipeline answers each row; what was answered before comes from the store. Then a judge or a metric says how
    good the answers are. Everything is checked before anything is sent, one ``budget`` holds for all of it, and where
    nobody gave one it may take what may be spent unasked. ``compare.estimate`` takes the same and says what it would
    take.

    Args:
        data: the frame, or a Series of texts.
        column: the column with the texts. On a Series leave it out.
        pipelines: their names or ``Pipeline``s; or a mapping of your own names to pipelines, to runs of verbs over the
            same frame (``df.moa.start.classify(...)``), or to answers that are there already.
        judge: a model, a pipeline's name or a function of the prompt, or several of them, who compare every two answers
            of a row in both orders (the same winner twice wins, anything else is a tie) or, with ``method="rating"``,
            rate each answer from 1 to 10.
        reference: the column with the right answers: judges are shown it and then rate; metrics compare with it.
        metric: in place of a judge: ``exact``, ``numeric``, ``contains``, ``rouge1``, ``rouge2``, ``rougeL``, or a
            function of the answer, or of the answer and its reference, that returns a number.
        method: ``pairwise`` or ``rating``; ``None``: ratings where there is a reference, pairs where there is none.
        baseline: a pipeline that the others are compared with; ``None``: every two are compared.
        instruction: as in ``df.moa.synthesize``.
        template: as in ``df.moa.synthesize``.
        sample: so many rows, drawn by lot; ``None``: all.
        seed: of the lot.
        na: as in ``df.moa.synthesize``.
        progress: whether bars are shown; ``None``: where somebody watches.
        **options: as in ``df.moa.synthesize``, without ``pipeline``; a judge has the budget and the cache in common.

    Raises:
        SetupError: something is wrong or missing.
        SpendingNotAgreed: nobody gave a budget, and it would take more than may be spent unasked.
        KeyboardInterrupt: the user interrupted; what was answered is kept, and the same again asks only the rest.

    >>> reviews = pd.DataFrame({
    ...     "review": ["The mill is loud. I sent it back.", "It grinds evenly. I like it.", "It broke. It was cheap."],
    ...     "best": ["The mill is loud.", "It grinds evenly.", "It broke."],
    ... })
    >>> found = compare(
    ...     reviews, "review", {"first": "single", "last": reviews["review"].str.split(". ").str[-1]},
    ...     reference="best", metric="exact", instruction="Summarize in one sentence", aggregator="offline:lead",
    ...     progress=False,
    ... )
    >>> found.table["quality"].tolist()
    [1.0, 0.0]
    """
    refuse(compare, options)
    trial = Trial.of(
        data,
        column,
        pipelines,
        judge=judge,
        reference=reference,
        metric=metric,
        method=method,
        baseline=baseline,
        instruction=instruction,
        template=template,
        sample=sample,
        seed=seed,
        na=na,
        **options,
    )
    return trial.run(progress)


def estimate(
    data: pd.DataFrame | pd.Series[Any],
    column: Hashable = None,
    pipelines: Sequence[str | Pipeline] | Mapping[str, Contestant] = (),
    **said: Any,
) -> Estimate:
    """Return what ``compare`` would take, its judges included; nothing is sent, and no key is needed. It is also ``compare.estimate``.

    Args:
        data: as in ``compare``.
        column: as in ``compare``.
        pipelines: as in ``compare``.
        **said: as in ``compare``.

    Raises:
        SetupError: as in ``compare``.
    """
    refuse(compare, said)
    said.pop("progress", None)
    return Trial.of(data, column, pipelines, keys=False, **said).estimate()


estimate.__signature__ = inspect.signature(compare).replace(return_annotation=Estimate)  # type: ignore[attr-defined]  # shown by inspect
compare.estimate = estimate  # type: ignore[attr-defined]  # as df.moa.estimate prices what df.moa does
