"""``%%moa --chat NAME``: conversations that go on from cell to cell, and from one kernel to the next.

A cell has its turn. Run again unchanged, it goes back to that turn: what was said before goes out again, and its new
answer takes the old one's place, and that of the turns after it, which answered another conversation. So Run All gives
the same conversation as before, from the cache where nothing changed. A cell whose text was changed asks anew, at the
end. A run that fails or is stopped leaves the chat as it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from IPython.display import display

from moa_nb.engine.plan import Plan
from moa_nb.errors import UnknownName, nearest
from moa_nb.notebook.display import has_front_end
from moa_nb.panels.chat import ChatDisplay, EarlierTurns
from moa_nb.panels.figures import count
from moa_nb.panels.provenance import MIME_TYPE
from moa_nb.panels.room import brief
from moa_nb.panels.tables import TableDisplay, table
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.context import room_for_references
from moa_nb.pipeline.result import Result
from moa_nb.store import Store
from moa_nb.store.conversations import Turn
from moa_nb.tokens import count_prompt_tokens, estimate_error

__all__ = ["SAVED", "CellChat", "Forgotten", "cell_of", "listing", "reset"]

SAVED = ("pipeline", "run", "cell", "at")
"""What a saved notebook has of each turn, beside its words."""

_FRAME = 1000
"""Tokens that a template's own words may have."""


@dataclass(frozen=True)
class CellChat:
    """A chat as one cell goes on with it."""

    store: Store
    name: str
    question: str
    cell: str
    """What the cell is known by; empty where that is not known."""
    before: tuple[Turn, ...]
    """The turns that its question follows."""
    after: tuple[Turn, ...]
    """The turns whose place its answer takes: the cell's own and those that followed."""

    @classmethod
    def open(cls, store: Store, name: str, question: str, cell: str) -> CellChat:
        """Return the chat of a name, which may be new, as it is when a cell asks its question."""
        turns = store.turns(name)
        own = [place for place, turn in enumerate(turns) if cell and (turn.cell, turn.question) == (cell, question)]
        place = own[-1] if own else len(turns)
        return cls(store, name, question, cell, tuple(turns[:place]), tuple(turns[place:]))

    def asked(self, task: Task, plan: Plan) -> tuple[Task, list[str]]:
        """Return the task with what was said before, as far as it fits, and what a reader must know of that."""
        kept, why = _fitting(self.before, task, plan)
        notes = []
        n_left_out = len(self.before) - len(kept)
        if n_left_out:
            notes.append(f"the chat's first {count(n_left_out, 'turn')} did not go out: {why}")
        if len(self.after) > 1:
            n_gone = len(self.after) - 1
            notes.append(
                f"this cell was asked before: the chat goes on from here, and its {count(n_gone, 'later turn')} "
                f"{'is' if n_gone == 1 else 'are'} left out; run those cells again to ask them again"
            )
        history = [message for turn in kept for message in turn.messages]
        return replace(task, conversation=(*history, *task.conversation)), notes

    def show_earlier(self) -> None:
        """Show in a line what the answer follows."""
        earlier = EarlierTurns(self.name, self.before)
        if has_front_end():
            display(earlier)
        else:
            print(earlier)  # noqa: T201 - a terminal has nothing else

    def keep(self, result: Result) -> Result:
        """Return the result, which is now the chat's last turn, with what happened to the chat meanwhile."""
        if not result.text.strip():
            return _noted(result, "the answer is empty, so the chat goes on as if this had not been asked")
        turn = Turn(self.question, result.text, result.pipeline, result.run_id, self.cell, time.time())
        result = result.replace(chat=self._saved(turn, result))
        gone = [earlier.run for earlier in self.after]
        known = {*gone, *(earlier.run for earlier in self.before)}
        n_between = self.store.add_turn(self.name, turn, known=known, gone=gone)
        if n_between:
            return _noted(
                result, f"the chat went on meanwhile: this answer knows nothing of {count(n_between, 'turn')}"
            )
        return result

    def _saved(self, own: Turn, result: Result) -> dict[str, Any]:
        """Return what a saved notebook has of the chat beside the conversation, which holds what was said."""
        asked = {} if result.conversation[-1].content == own.question else {"question": own.question}
        turns = [{name: getattr(turn, name) for name in SAVED} for turn in (*self.before, own)]
        return {"name": self.name, **asked, "turns": turns}


def _noted(result: Result, note: str) -> Result:
    return result.replace(notes=(*result.notes, note))


def _fitting(turns: Sequence[Turn], task: Task, plan: Plan) -> tuple[Sequence[Turn], str]:
    """Return the latest turns that every agent can read beside the question and its answer, and who can read least.

    Where several agents are asked, they have half of the room, and what the agents read of each other the rest.
    """
    n_kept, why = len(turns), ""
    for agent in {agent.model: agent for agent in plan.agents}.values():
        context = plan.room.context(agent.model)
        if context is None:
            continue
        prompt = count_prompt_tokens(task.conversation, agent.model) + _FRAME
        answer = max(one.max_tokens or plan.room.answer for one in plan.agents if one.model == agent.model)
        left = room_for_references(context, prompt=prompt, answer=answer, error=estimate_error(agent.model))
        if len(plan.agents) > 1:
            left //= 2
        n_fit = _n_latest(turns, agent.model, left)
        if n_fit < n_kept:
            n_kept, why = n_fit, f"{agent.model} can read {context:,} tokens"
    return turns[len(turns) - n_kept :], why


def _n_latest(turns: Sequence[Turn], model: str, room: int) -> int:
    n = 0
    for turn in reversed(turns):
        room -= count_prompt_tokens(turn.messages, model)
        if room < 0:
            break
        n += 1
    return n


def cell_of(shell: Any) -> str:
    """Return what the running cell is known by: the front end's id of it, else its number.

    Notebooks that run without a front end send no ids; run again from the start, their cells have the same numbers.
    In a terminal every input is a new one: empty.
    """
    if not has_front_end():
        return ""
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return (parent.get("metadata") or {}).get("cellId") or f"In [{shell.execution_count}]"


# %moa chats and reset ----------------------------------------------------------------------------


def listing(store: Store, name: str | None) -> ChatDisplay | TableDisplay:
    """Return all chats; with a name, the whole conversation.

    Raises:
        UnknownName: there is no such chat.
    """
    if name is not None:
        turns = store.turns(name)
        if not turns:
            raise _unknown(store, name)
        return ChatDisplay(name, tuple(turns))
    rows = [
        (row.name, row.turns, time.strftime("%Y-%m-%d %H:%M", time.localtime(row.at)), " ".join(row.first.split())[:80])
        for row in store.chats()
    ]
    begin = "%%moa --chat NAME begins one, moa.restore_chats('x.ipynb') brings those of a notebook back"
    caption = None if rows else f"there are no chats yet; {begin}"
    return table(rows, ["chat", "turns", "latest", "began with"], caption)


@dataclass(frozen=True, repr=False)
class Forgotten:
    """A chat that is forgotten, in a line; the saved notebook knows it too, lest earlier cells bring the chat back."""

    name: str
    n_turns: int
    at: float
    """When, in seconds since 1970."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        return {"text/plain": repr(self), MIME_TYPE: {"version": 1, "forgotten": self.name, "at": self.at}}

    def __repr__(self) -> str:
        said = f"{brief(self.name)} is forgotten, {count(self.n_turns, 'turn')}"
        return f"{said}; its runs and answers stay: %moa delete RUN, %moa cache clear"


def reset(store: Store, name: str) -> Forgotten:
    """Return what was forgotten.

    Raises:
        UnknownName: there is no such chat.
    """
    n_gone = store.forget_chat(name)
    if not n_gone:
        raise _unknown(store, name)
    return Forgotten(name, n_gone, time.time())


def _unknown(store: Store, name: str) -> UnknownName:
    return UnknownName(f"no chat {name!r}; {nearest(name, [row.name for row in store.chats()])}")
