"""Universal self-consistency: one model answers many times, and chooses the answer that most of them agree with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from moa_nb.errors import Unanswered
from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Task
from moa_nb.pipeline.parse import index
from moa_nb.pipeline.spec import Agent, OneAgent
from moa_nb.pipeline.strategies import strategy
from moa_nb.pipeline.strategies.self_consistency import Sampled

__all__ = ["UniversalSelfConsistency", "universal_self_consistency"]


class UniversalSelfConsistency(Sampled):
    """Who is sampled, how often, and who chooses."""

    judge: OneAgent = Agent(model="$aggregator", temperature=0)
    """Who says which answer is the most consistent."""
    shuffle: bool = False
    """Whether the answers are shown in another order than they were drawn in: by their digests, the same on every run.
    The result says which."""

    def judging(self) -> tuple[Agent, ...]:
        """Return who chooses."""
        return (self.judge,)


@strategy("universal-self-consistency", params=UniversalSelfConsistency)
async def universal_self_consistency(task: Task, params: UniversalSelfConsistency, ask: Ask) -> Candidate:
    """Universal self-consistency (Chen et al. 2023, arXiv 2311.17311, section 3): of n numbered answers a model names one.

    It serves answers that cannot be counted: summaries, code, free text. n + 1 calls, and the answer that is named is
    returned as it is. Where the choice cannot be read, or names none of them, the first answer stands. 9 samples are
    ours.
    """
    answers = await ask.layer("samples", params.proposers)
    if len(answers) == 1:
        return answers[0]
    order = _shuffled(answers) if params.shuffle else list(range(len(answers)))
    if params.shuffle:
        ask.flag(f"the judge saw the answers in the order {', '.join(str(at + 1) for at in order)}")
    chosen: int | None = None
    try:
        choice = await ask.one(
            "choice",
            params.judge,
            see=[answers[at] for at in order],
            template="consistency/choose",
            place="alone",
            parse=partial(index, n=len(answers)),
            aside=True,
        )
        chosen = choice.value
    except Unanswered as error:
        ask.flag(f"no choice: {error}")
    if chosen is None:
        ask.flag("the judge named no answer: the first one stands", degraded=True)
        return answers[0]
    return answers[order[chosen - 1]]


def _shuffled(answers: Sequence[Candidate]) -> list[int]:
    """Return the positions of the answers in an order that their texts decide, and nothing else."""

    def digest(at: int) -> bytes:
        return hashlib.blake2b(f"{at} {answers[at].text}".encode("utf-8", "surrogatepass")).digest()

    return sorted(range(len(answers)), key=digest)
