"""Votes: how answers are read and counted where a strategy ends in one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator

from moa_nb.pipeline.ask import Ask
from moa_nb.pipeline.candidate import Candidate, Question
from moa_nb.pipeline.forms import Form
from moa_nb.pipeline.parse import Parser, parser
from moa_nb.pipeline.settling import as_form, filled
from moa_nb.pipeline.similarity import medoid
from moa_nb.pipeline.spec import Agent, Params
from moa_nb.pipeline.vote import check_tie, plurality

__all__ = ["Voting", "elected", "most_alike"]


def _readable(spec: Any) -> Any:
    parser(spec)
    return spec if isinstance(spec, str) or not isinstance(spec, Sequence) else tuple(spec)


def _rule(tie: str) -> str:
    check_tie(tie)
    return tie


class Voting(Params):
    """How answers are read and counted, where a strategy ends in a vote."""

    answer: Annotated[Any, AfterValidator(_readable)] = None
    """How an answer is read: ``"number"``, ``"choice:A-D"``, a list of labels, a function, or whatever else ``parser``
    takes; agents are told how to state it. ``None``: it is free text, and the one that is most like the others wins."""
    tie: Annotated[str, AfterValidator(_rule)] = "first"
    """Who decides among equals: ``"first"``, the earliest; ``"agent:NAME"``, that agent; ``"abstain"``, nobody."""

    @property
    def parse(self) -> Parser | None:
        """What reads an answer; ``None`` where it is free text."""
        return None if self.answer is None else parser(self.answer)

    @property
    def form(self) -> str | None:
        """How agents are told to state the answer, as ``parser`` declares it; ``None`` where nobody tells them."""
        if isinstance(self.answer, tuple):
            return "label:" + "|".join(self.answer)
        return self.answer if isinstance(self.answer, str) else None

    def opening(self, ask: Ask, agents: Iterable[Agent], *, own_template: bool = True) -> list[Question]:
        """Return the question to each agent: the conversation, and how to state the answer where a vote reads it.

        A form that the task wants is in the conversation already. An agent's own template stands in place of the user's latest message, unless it is for something else.

        Raises:
            PipelineError: ties go to an agent that is not among them.
        """
        asked = list(agents)
        check_tie(self.tie, [agent.label for agent in asked])
        told = "consistency/open" if self.form and ask.task.form is None else None
        values = {"form": self.form}
        return [
            Question(
                agent,
                template=told or (agent.template if own_template else None),
                place="user",
                values=values,
                own_template=own_template,
            )
            for agent in asked
        ]


def elected(answers: Sequence[Candidate], params: Voting, ask: Ask) -> Candidate:
    """Return the answer that a vote elects, with the value that won; what the vote was like is noted on the result.

    Where no value can win, since nothing could be read or a tie abstains, the text is that of the answer that is
    most like the others, and the value ``None``.
    """
    if ask.task.form is not None:
        return _filled_in(answers, ask.task.form, ask)
    if params.answer is None:
        return most_alike(answers)
    agents = [answer.agent for answer in answers]
    # Who was to decide among equals may have failed.
    tie = params.tie if params.tie.removeprefix("agent:") in {"first", "abstain", *agents} else "first"
    vote = plurality([answer.value for answer in answers], tie=tie, agents=agents)
    if vote.winner is None:
        why = "the vote was tied" if vote.tied else "no answer could be read"
        ask.flag(f"{why}: there is no value, and the text is the answer most like the others", degraded=True)
        return replace(most_alike(answers), value=None)
    ask.flag(agreement=vote.share)
    n_read = vote.n - vote.n_unparsed
    n_agree = len(next(ballot.members for ballot in vote.ballots if vote.winner in ballot.members))
    if n_agree < vote.n:
        unread = f", {vote.n_unparsed} could not be read" if vote.n_unparsed else ""
        ask.flag(f"{n_agree} of {n_read} answers agree{' (a tie)' if vote.tied else ''}{unread}")
    return answers[vote.winner]


def _filled_in(answers: Sequence[Candidate], form: Form, ask: Ask) -> Candidate:
    """Return the form in which each field is what most answers say: an answer as it is where it says the same."""
    read = filled(answers)
    if not read:
        ask.flag("no answer fills in the form", degraded=True)
        return answers[0]
    ask.flag(agreement=form.agreement([answer.value for answer in answers]))
    value = form.voted(read)
    same = next((answer for answer in answers if answer.value == value), None)
    return as_form(form, answers[0], value) if same is None else same


def most_alike(answers: Sequence[Candidate]) -> Candidate:
    """Return the answer that is most like the others (their medoid), the earliest of several."""
    return answers[medoid([answer.text for answer in answers]) or 0]
