"""Benchmarks of the field on pipelines: MT-Bench's two turns, FLASK's skills. What judges said is all that is kept."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pandas as pd

from moa_nb.chat import Message
from moa_nb.engine import Estimate, current
from moa_nb.errors import SetupError
from moa_nb.evaluation import judging
from moa_nb.evaluation.benchmarks.ratings import mt_mean, mt_table
from moa_nb.evaluation.benchmarks.skills import flask_table, rubrics, skills_of
from moa_nb.evaluation.benchmarks.skills import skills as read_skills
from moa_nb.evaluation.benchmarks.turns import listed, rights_of
from moa_nb.evaluation.contestants import column_of, named, own, refuse, refuse_idle
from moa_nb.evaluation.contests import Asked, Conversations, Exhibit, Ratings
from moa_nb.evaluation.judging import Judge
from moa_nb.evaluation.points import table
from moa_nb.evaluation.spending import Purse, longest, together
from moa_nb.frames.execution import Execution
from moa_nb.frames.run import FrameRun
from moa_nb.frames.verbs import Synthesize
from moa_nb.options import RunOptions, spelled_out
from moa_nb.pipeline.spec import Pipeline

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Graded", "flask", "mt_bench"]

_Said = Sequence[str | None]


@dataclass(frozen=True, eq=False)
class Graded:
    """Answers of several pipelines, and what judges made of each. ``judgements`` is all that the figures need."""

    judgements: pd.DataFrame
    """A line for each answer and judge: ``row``, ``pipeline``, ``judge``, ``turn``, and ``rating`` (with ``category``
    where there are some) or ``ratings`` by skill, of those ``wanted``."""
    answers: pd.DataFrame
    """A column for each pipeline and turn; the frame's index."""
    benchmark: Literal["MT-Bench", "FLASK"]
    runs: Mapping[str, Sequence[FrameRun]] = field(default_factory=dict, repr=False)
    """Each pipeline's runs, one a turn."""
    judging: Sequence[FrameRun] = field(default=(), repr=False)
    """The judges' runs, one a turn."""
    notes: Sequence[str] = ()
    """What takes something back from the scores, a sentence each."""

    @property
    def table(self) -> pd.DataFrame:
        """The scores: of MT-Bench as ``mt_mean`` has them, of FLASK as ``flask_table``."""
        return mt_mean(self.judgements) if self.benchmark == "MT-Bench" else flask_table(self.judgements)

    @property
    def by_category(self) -> pd.DataFrame:
        """MT-Bench's scores by category and turn, as ``mt_table`` has them.

        Raises:
            SetupError: there are no categories.
        """
        return mt_table(self.judgements)

    @property
    def cost(self) -> float | None:
        """Dollars paid for all of it now, judges included; ``None`` where a price is not known."""
        paid = [run.progress.cost for runs in [*self.runs.values(), self.judging] for run in runs]
        return None if None in paid else sum(one for one in paid if one is not None)

    def _repr_html_(self) -> str:
        html: str = self.table.to_html()
        return html + "".join(f"<p>{escape(note)}</p>" for note in self.notes)

    def __repr__(self) -> str:
        return "\n".join([f"{self.benchmark}, {len(self.answers):,} rows", str(self.table), *self.notes])


@spelled_out
def mt_bench(
    data: pd.DataFrame,
    turns: Hashable | Sequence[Hashable],
    pipelines: Sequence[str | Pipeline] | Mapping[str, str | Pipeline],
    *,
    judge: Judge | Sequence[Judge],
    category: Hashable = None,
    reference: Hashable | Sequence[Hashable] = None,
    progress: bool | None = None,
    **options: Unpack[RunOptions],
) -> Graded:
    """Return each pipeline's MT-Bench scores: it answers the turns of conversations, and each answer is rated 1 to 10.

    Zheng et al. 2023 (arXiv 2306.05685). Later turns follow the pipeline's own earlier answers; a judge sees the whole
    conversation, and rates the answer to its last turn.

    Args:
        data: a row a conversation.
        turns: the columns with the user's messages, in order; or one column of lists of them.
        pipelines: their names or ``Pipeline``s, or a mapping of your own names to them.
        judge: a model, or several.
        category: the column with each row's category, if there are some.
        reference: the columns with the right answers, in order, or one of lists; missing where there is none.
        progress: whether bars are shown; ``None``: where somebody watches.
        **options: as in ``df.moa.synthesize``, without ``pipeline``; judges have the budget and the cache in common.

    Raises:
        SetupError: something is wrong or missing.
        SpendingNotAgreed: nobody gave a budget, and it would take more than may be spent unasked.

    >>> asked = pd.DataFrame({"first": ["Name a river."], "second": ["And where does it end?"]})
    >>> found = mt_bench(
    ...     asked, ["first", "second"], ["single"], judge=lambda prompt: "[[9]]", progress=False,
    ...     aggregator=lambda prompt: "In the sea." if "end" in prompt else "The Rhine.",
    ... )
    >>> found.table["mean"].to_dict(), found.answers.iloc[0].tolist()
    ({'single': 9.0}, ['The Rhine.', 'In the sea.'])
    """
    refuse(mt_bench, options)
    messages = listed(data, turns)
    categories = None if category is None else column_of(data, category).to_numpy()
    rights = rights_of(data, reference, max(map(len, messages), default=0))
    exam = _Exam.of(data, pipelines, judge, "rating", options)
    runs, lines = _graded(exam, messages, [Exhibit("judge/rate", right) for right in rights], None, progress)
    if categories is not None:
        lines["category"] = categories[lines["row"]]
    return runs.graded(lines, data.index, "MT-Bench")


@spelled_out
def flask(
    data: pd.DataFrame,
    column: Hashable,
    pipelines: Sequence[str | Pipeline] | Mapping[str, str | Pipeline],
    *,
    judge: Judge | Sequence[Judge],
    skills: Hashable | Sequence[str],
    reference: Hashable = None,
    progress: bool | None = None,
    **options: Unpack[RunOptions],
) -> Graded:
    """Return each pipeline's FLASK scores: judges give each answer 1 to 5 for each skill that its question takes.

    Ye et al. 2024 (arXiv 2307.10928). One call of each judge an answer, with the rubrics of that row's skills alone.

    Args:
        data: the frame.
        column: the column with the questions.
        pipelines: their names or ``Pipeline``s, or a mapping of your own names to them.
        judge: a model, or several.
        skills: the column with a list of skills for each row; or a list of skills that all rows take.
        reference: the column with the right answers, if there are some.
        progress: whether bars are shown; ``None``: where somebody watches.
        **options: as in ``df.moa.synthesize``, without ``pipeline``; judges have the budget and the cache in common.

    Raises:
        SetupError: something is wrong or missing; a skill that is none of the twelve.
        SpendingNotAgreed: nobody gave a budget, and it would take more than may be spent unasked.

    >>> asked = pd.DataFrame({"question": ["Why is the sky blue?"], "skills": [["factuality", "conciseness"]]})
    >>> found = flask(
    ...     asked, "question", ["single"], skills="skills", aggregator=lambda prompt: "Air scatters blue light most.",
    ...     judge=lambda prompt: 'Right and short. {"factuality": 5, "conciseness": 4}', progress=False,
    ... )
    >>> found.judgements["ratings"].tolist()
    [{'factuality': 5, 'conciseness': 4}]
    """
    refuse(flask, options)
    messages = listed(data, [column])
    named_skills = [skills] * len(data) if isinstance(skills, list | tuple) else column_of(data, skills)
    wanted = [_wanted(*row) if turns else [] for row, turns in zip(enumerate(named_skills), messages, strict=True)]
    exhibit = Exhibit("judge/skills", rights_of(data, None if reference is None else [reference], 1)[0])
    exam = _Exam.of(data, pipelines, judge, "json", options)
    runs, lines = _graded(
        exam, messages, [exhibit], [{"skills": rubrics(one)} if one else {} for one in wanted], progress
    )
    lines["wanted"] = pd.Series([wanted[row] for row in lines["row"]], index=lines.index, dtype=object)
    read = [read_skills(said, one) for said, one in zip(lines.pop("json"), lines["wanted"], strict=True)]
    lines["ratings"] = pd.Series(read, index=lines.index, dtype=object)
    return runs.graded(lines, data.index, "FLASK")


def _wanted(row: int, skills: Any) -> list[str]:
    """Return the skills that a row's answers are rated by.

    Raises:
        SetupError: it has none.
    """
    if pd.api.types.is_scalar(skills) and pd.isna(skills):
        msg = f"row {row} (counted from 0) names no skills: say which it takes, or give one list for all rows"
        raise SetupError(msg)
    return [*skills_of(skills)]


# How it goes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Exam:
    """Who answers and who judges, under one budget."""

    index: pd.Index[Any]
    pipelines: Mapping[str, str | Pipeline]
    judge: Judge | Sequence[Judge]
    reads: str
    options: RunOptions
    purse: Purse = field(default_factory=Purse)

    @classmethod
    def of(cls, data: pd.DataFrame, pipelines: Any, judge: Any, reads: str, options: RunOptions) -> _Exam:
        contestants = named(pipelines)
        if not contestants or not all(isinstance(one, str | Pipeline) for one in contestants.values()):
            msg = "pipelines are names or Pipelines, one or more: their answers are made here"
            raise SetupError(msg)
        blank = cls(data.index, contestants, judge, reads, options)  # type: ignore[arg-type]  # just checked
        runs: list[RunOptions] = [own(options, one) for one in blank.pipelines.values()]
        refuse_idle(options, runs)
        runs.append(blank.judging({}, {}, Exhibit("judge/rate"), None).options)
        return cls(data.index, blank.pipelines, judge, reads, options, Purse.of(runs))

    def answering(self, name: str, asked: Asked) -> Execution:
        """Return the run of a pipeline over conversations."""
        options = own(self.options, self.pipelines[name])
        return Execution(
            Synthesize(), Conversations(asked, self.index, name), options, purse=self.purse.budget, is_agreed=True
        )

    def judging(
        self, asked: Mapping[str, Asked], answers: Mapping[str, _Said], exhibit: Exhibit, says: Any
    ) -> Execution:
        """Return the run of the judges over all answers to one turn."""
        questions = Ratings(asked, answers, exhibit, None, says)
        return judging.judging(self.judge, self.reads, questions, judging.shared(self.options), purse=self.purse.budget)


class _Doing(Protocol):
    """What becomes of the runs of an exam."""

    def answers(self, name: str, run: Execution) -> _Said: ...
    def judged(self, run: Execution) -> pd.DataFrame | None: ...


class _Running:
    """They are made."""

    def __init__(self, exam: _Exam, progress: bool | None) -> None:
        self._reads, self._purse, self._progress = exam.reads, exam.purse, progress
        self.notes: list[str] = []
        self.of_pipelines: dict[str, list[FrameRun]] = {}
        self.of_judges: list[FrameRun] = []

    def answers(self, name: str, run: Execution) -> _Said:
        """Return what a pipeline answers."""
        runs = self.of_pipelines.setdefault(name, [])
        made = FrameRun(run, errors_at=f"the result's .runs[{name!r}][{len(runs)}].errors")
        runs.append(made)
        said = made.finish(progress=self._progress)
        texts = [text if isinstance(text, str) else None for text in said]
        n_asked, n_answered = _n_asked(made), len(texts) - texts.count(None)
        if n_answered < n_asked and made.state != "stopped":
            turn = len(self.of_pipelines[name])
            self.notes.append(f"{name} has no answer to {n_asked - n_answered:,} of {n_asked:,} rows in turn {turn}")
        self.notes += self._purse.cut_short(made, f"rows were answered by {name}")
        return texts

    def judged(self, run: Execution) -> pd.DataFrame:
        """Return what judges say."""
        made = FrameRun(run, errors_at=f"the result's .judging[{len(self.of_judges)}].errors")
        self.of_judges.append(made)
        made.finish(progress=self._progress)
        self.notes += self._purse.cut_short(made, "answers were rated")
        lines, n_asked = judging.ratings(run, self._reads), _n_asked(made)
        for judge in judging.names(run) if made.state != "stopped" else ():
            n_silent = n_asked - int((lines["judge"] == judge).sum())
            if n_silent:
                turn = len(self.of_judges)
                self.notes.append(f"{judge} did not judge {n_silent:,} of {n_asked:,} answers in turn {turn}")
        return lines

    def graded(self, lines: pd.DataFrame, index: pd.Index[Any], benchmark: Literal["MT-Bench", "FLASK"]) -> Graded:
        """Return what came of it: all answers, by pipeline and turn, and what judges say of them."""
        texts = {
            (name, f"turn {turn}"): run.partial
            for name, runs in self.of_pipelines.items()
            for turn, run in enumerate(runs, start=1)
        }
        answers = pd.DataFrame(texts, index=index)
        return Graded(lines, answers, benchmark, self.of_pipelines, self.of_judges, self.notes)


def _n_asked(run: FrameRun) -> int:
    """Return how many of a run's rows ask something."""
    return run.progress.rows - run.progress.skipped


class _Pricing:
    """They are priced, with the longest answers there can be; nothing is sent."""

    def __init__(self) -> None:
        self.parts: list[Estimate] = []

    def answers(self, name: str, run: Execution) -> _Said:  # noqa: ARG002 - as those that are made
        """Return the longest answers."""
        engine = current()
        self.parts.append(engine.finish(run.estimate()))
        longest_of_all = engine.finish(longest(run))
        return [longest_of_all if run.questions.tasks(row) else None for row in range(len(run.questions))]

    def judged(self, run: Execution) -> None:
        """Return nothing: nobody says anything."""
        self.parts.append(current().finish(run.estimate()))


def _graded(
    exam: _Exam, messages: Sequence[Sequence[str]], exhibits: Sequence[Exhibit], says: Any, progress: bool | None
) -> tuple[_Running, pd.DataFrame]:
    """Return the runs, and what judges say of each turn's answers."""
    if not exam.purse.is_free_or_agreed:
        prices = _Pricing()
        list(_turns(exam, messages, exhibits, says, prices))
        exam.purse.agree(together(f"{', '.join(exam.pipelines)}, judged", prices.parts))
    runs = _Running(exam, progress)
    nothing = table([], ["row", "pipeline", "judge", exam.reads, "turn"])
    with exam.purse.open():
        said = [one.assign(turn=turn) for turn, one in enumerate(_turns(exam, messages, exhibits, says, runs), start=1)]
    judged = [one for one in said if len(one)]
    return runs, pd.concat(judged, ignore_index=True) if judged else nothing


def _turns(
    exam: _Exam, messages: Sequence[Sequence[str]], exhibits: Sequence[Exhibit], says: Any, do: _Doing
) -> Iterator[Any]:
    """Yield what judges say of the answers to each turn; the next one follows each pipeline's own answers."""
    dialogues: dict[str, list[tuple[Message, ...] | None]] = {name: [()] * len(messages) for name in exam.pipelines}
    for turn, exhibit in enumerate(exhibits):
        asked: dict[str, Asked] = {
            name: [
                None if before is None or turn >= len(said) else (*before, Message("user", said[turn]))
                for before, said in zip(dialogues[name], messages, strict=True)
            ]
            for name in exam.pipelines
        }
        answers = {name: do.answers(name, exam.answering(name, asked[name])) for name in exam.pipelines}
        yield do.judged(exam.judging(asked, answers, exhibit, says))
        for name in exam.pipelines:
            dialogues[name] = [
                None if before is None or answer is None else (*before, Message("assistant", answer))
                for before, answer in zip(asked[name], answers[name], strict=True)
            ]
