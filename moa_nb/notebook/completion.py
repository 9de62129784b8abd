"""What Tab offers after ``%%moa`` and ``%moa``, and within ``{{ }}`` in the cell: nothing is asked over the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher
from IPython.core.interactiveshell import InteractiveShell

from moa_nb import settings, templating
from moa_nb.engine.engine import current
from moa_nb.errors import MoaError
from moa_nb.notebook.arguments import COMMANDS, cell_parser
from moa_nb.notebook.cell import is_users, may_be_schema
from moa_nb.pipeline import presets

__all__ = ["offer", "withdraw"]

IDENTIFIER = "moa_nb"

_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
_VARIABLE = re.compile(r"\{[{%][^{}%]*?(?<![\w.])([^\W\d]\w*)?$")
"""An open ``{{`` or ``{%`` before the cursor, and the name that is begun."""

_OF_COMMANDS = {
    "costs": ("--by", "--days"),
    "cache": ("clear", "--older-than", "--model"),
    "delete": ("--with-answers",),
}


def offer(shell: InteractiveShell) -> None:
    """Return nothing; let the shell's completer ask here too, before all others. Offering again changes nothing."""
    withdraw(shell)

    @context_matcher(identifier=IDENTIFIER, priority=100)
    def moa(context: CompletionContext) -> dict[str, Any]:
        found = _found(context, shell.user_ns)
        if found is None:
            return {"completions": [], "suppress": False}
        fragment, kind, words = found
        fitting = [word for word in dict.fromkeys(words) if word.startswith(fragment) and word != fragment]
        return {
            "completions": [SimpleCompletion(text=word, type=kind) for word in fitting],
            "matched_fragment": fragment,
            # Python's own guesses are wrong here, wherever there is something to offer.
            "suppress": True,
            "ordered": True,
        }

    shell.Completer.custom_matchers.append(moa)


def withdraw(shell: InteractiveShell) -> None:
    """Return nothing; take back what was offered."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [one for one in matchers if getattr(one, "matcher_identifier", "") != IDENTIFIER]


_Found = tuple[str, str, Iterable[str]]
"""What is begun, its kind, and the words that it may become."""


def _found(context: CompletionContext, variables: Mapping[str, Any]) -> _Found | None:
    """Return what fits at the cursor; ``None`` where that is none of our affair."""
    lines = context.full_text.split("\n")
    line = lines[context.cursor_line][: context.cursor_position]
    first = next((place for place, text in enumerate(lines) if text.strip()), 0)
    is_cell = re.match(r"%%moa(?=\s|$)", lines[first]) is not None
    if is_cell and context.cursor_line > first:
        return _variable("\n".join([*lines[first + 1 : context.cursor_line], line]), variables)
    magic = re.match(r"%%moa\s" if is_cell else r"\s*%moa\s", line)
    if magic is None:
        return None
    words = _WORD.findall(line[magic.end() :])
    begun = "" if line[-1].isspace() or not words else words.pop()
    return _option(begun, words, variables) if is_cell else _command(begun, words)


def _variable(text: str, variables: Mapping[str, Any]) -> _Found | None:
    begun = _VARIABLE.search(text)
    if begun is None:
        return None
    names = [name for name, value in variables.items() if is_users(name) and templating.is_value(value)]
    return begun[1] or "", "variable", sorted(names)


def _option(begun: str, words: list[str], variables: Mapping[str, Any]) -> _Found:
    """Return what may follow the words after ``%%moa``: the values of the option before, else the options."""
    actions = {option: action for action in cell_parser()._actions for option in action.option_strings}  # noqa: SLF001 - argparse has no other list
    option, is_joined, value = begun.partition("=")
    if not (is_joined and option in actions):
        option, value = words[-1] if words else "", begun
    action = actions.get(option)
    if action is None or action.nargs == 0:
        given = {actions[word].dest for word in words if word in actions}
        return begun, "option", [name for name, action in actions.items() if action.dest not in given]
    if action.choices:
        return value, "option", list(action.choices)
    listed = value.rpartition(",")[2] if action.dest in {"models", "compare"} else value
    return listed, action.dest, _values(action.dest, variables)


def _values(what: str, variables: Mapping[str, Any]) -> Iterable[str]:
    try:
        if what in {"pipeline", "compare"}:
            return presets.names()
        if what in {"models", "aggregator", "judge"}:
            return _models()
        if what == "template":
            return templating.names("prompts", ".jinja")
        if what == "chat":
            return _chats()
    except MoaError:  # settings that cannot be read are said when the cell runs, not while it is written
        return ()
    if what == "schema":
        return sorted(name for name, value in variables.items() if is_users(name) and may_be_schema(value))
    return ()


def _command(begun: str, words: list[str]) -> _Found:
    if not words:
        return begun, "magic", COMMANDS
    try:
        names = [] if words[1:] else _names(words[0])
    except MoaError:
        names = []
    return begun, words[0], [*names, *_OF_COMMANDS.get(words[0], ())]


def _names(command: str) -> list[str]:
    if command == "models":
        return [*settings.current().providers, "offline", "function", *settings.services()]
    if command == "templates":
        return [*templating.names("prompts", ".jinja")]
    if command in {"chats", "reset"}:
        return _chats()
    if command == "delete":
        return [run.id for run in current().store(settings.current()).runs(20)]
    return []


def _chats() -> list[str]:
    names = [row.name for row in current().store(settings.current()).chats()]
    return [f'"{name}"' if " " in name else name for name in names]


def _models() -> Iterator[str]:
    """Yield the models that are configured, those that services are known by, our own agents and registered functions."""
    from moa_nb.providers import functions, offline

    configured = settings.current()
    yield from configured.proposers
    yield from filter(None, (configured.aggregator, configured.judge, configured.small, configured.strong))
    yield from configured.models
    for service in settings.services_with_keys(configured):
        for models in service.roles().values():
            yield from models
    yield from (f"function:{name}" for name in functions.registered())
    yield from (f"offline:{name}" for name in offline.ALGORITHMS)
    for service in settings.services().values():
        for models in service.roles().values():
            yield from models
