"""The options of ``%%moa``: read from the line, every mistake answered in one line."""

from __future__ import annotations

import argparse
import keyword
import math
import shlex
from collections.abc import Sequence
from typing import Any, NoReturn, get_args

from IPython.core.error import UsageError

from moa_nb.errors import nearest
from moa_nb.gateway.budget import Unit
from moa_nb.options import Mode

__all__ = ["COMMANDS", "FORMATS", "MODES", "cell_parser", "is_chat_name", "split"]

COMMANDS = {
    "pipelines": "what pipelines there are, and how many calls each takes",
    "models": "who plays which role; with a provider's name: what it offers",
    "settings": "each value, and where it came from",
    "costs": "what was spent and saved, by day, pipeline and model",
    "cache": "what the cache holds and has saved; clear: delete it",
    "delete": "delete a run by its name",
    "templates": "what prompt templates there are; with a name: its text",
    "chats": "what chats there are; with a name: the whole conversation",
    "reset": "forget a chat",
    "edit": "a playground in which a template is edited",
    "check": "ask each configured model for one token",
    "where": "what is sent where, and what is stored where",
    "last": "the last run's panel",
}
"""The words that ``%moa`` takes, with what each shows."""

FORMATS = ("panel", "markdown", "text", "json")

MODES: tuple[str, ...] = get_args(Mode)

_ALONE = {
    "no_cache": ("refresh",),
    "compare": ("pipeline", "chat"),
}
"""Options that cannot go with others, by the names under which they are read."""

_WHY = {
    "no_cache": "--no-cache keeps nothing and --refresh keeps the new answers: choose one",
    "compare": "--compare names the pipelines, and each answers the cell alone: leave -p and --chat out",
}


_UNITS: tuple[str, ...] = get_args(Unit)

_LONGEST_CHAT = 80
"""Characters of a name."""


class _Parser(argparse.ArgumentParser):
    """Raises ``UsageError`` with the nearest option; knows no abbreviations."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"%%moa: {message}")

    def parse_line(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the options of a line.

        Raises:
            UsageError: it has something that is no option, or a value that does not fit.
        """
        options = [option for action in self._actions for option in action.option_strings]
        for word in words:
            # Before anything else: the value of a misspelt option would pass for the result's name.
            option = word.partition("=")[0] if word.startswith("--") else word[:2]
            if _is_option(word) and option not in options:
                raise UsageError(f"%%moa: no option {word.partition('=')[0]!r}; {_meant(option, options)}")
        known, rest = self.parse_known_args(list(words))
        if rest:
            raise UsageError(
                f"%%moa: one name takes the result, and {rest[0]!r} is one too many; texts with spaces need quotes"
            )
        for option, others in _ALONE.items():
            if getattr(known, option) and any(getattr(known, other) for other in others):
                self.error(_WHY[option])
        if known.budget is not None and known.name in _UNITS:
            self.error(f"a budget in {known.name} stands in quotes: --budget '{known.budget:g} {known.name}'")
        if known.judge and not known.compare:
            self.error("--judge compares the answers of --compare; as a step of one pipeline take -p judge")
        return known


def _meant(option: str, options: Sequence[str]) -> str:
    longer = [known for known in options if len(option) > len("--") and known.startswith(option)]
    return f"did you mean {longer[0]!r}?" if longer else nearest(option, options)


def _is_option(word: str) -> bool:
    """Return whether a word is an option to argparse: not a negative number, not a text with spaces."""
    return word.startswith("-") and len(word) > 1 and " " not in word and not word[1:].replace(".", "", 1).isdigit()


def split(line: str) -> list[str]:
    """Return the words of a line: quotes hold words together, backslashes are themselves.

    >>> split('answer -t "a b"')
    ['answer', '-t', 'a b']

    Raises:
        UsageError: a quote that is not closed.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        return list(lexer)
    except ValueError:
        raise UsageError(f"%%moa: a quote is not closed in: {line}") from None


def _name(text: str) -> str:
    if text in COMMANDS:
        msg = f"{text!r} is a word of %moa; choose another name for the result"
        raise argparse.ArgumentTypeError(msg)
    if not text.isidentifier() or keyword.iskeyword(text):
        msg = f"{text!r} cannot be a variable's name"
        raise argparse.ArgumentTypeError(msg)
    return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        msg = "names are separated by commas: -m openai:gpt-4o-mini,ollama:llama3.2"
        raise argparse.ArgumentTypeError(msg)
    return names


def _pipelines(text: str) -> list[str]:
    names = _names(text)
    if len(names) < 2 or len(set(names)) < len(names):
        msg = "a comparison takes two pipelines or more, each once: --compare single,moa-lite"
        raise argparse.ArgumentTypeError(msg)
    return names


def is_chat_name(text: str) -> bool:
    """Return whether a chat can have this name.

    >>> is_chat_name("the mill"), is_chat_name("-b")
    (True, False)
    """
    return bool(text.strip()) and text.isprintable() and len(text) <= _LONGEST_CHAT and not text.startswith("-")


def _chat(text: str) -> str:
    if not is_chat_name(text):
        msg = f"{text[:40]!r} cannot be a chat's name: a word, or words in quotes"
        raise argparse.ArgumentTypeError(msg)
    return text


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        msg = f"{text!r} is not a whole number from 1 on"
        raise argparse.ArgumentTypeError(msg)
    return value


def _number(text: str) -> float:
    try:
        value = float(text.removeprefix("$"))
    except ValueError:
        value = math.nan
    if math.isnan(value) or value < 0:
        msg = f"{text!r} is not a number from 0 on"
        raise argparse.ArgumentTypeError(msg)
    return value


def _limit(text: str) -> float | str:
    """Return dollars as a number; what counts something else is read where budgets are made."""
    return text if any(unit.rstrip("s") in text for unit in _UNITS) else _number(text)


def _temperature(text: str) -> float:
    value = _number(text)
    if value > 2:
        msg = f"a temperature is between 0 and 2, not {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def cell_parser() -> _Parser:
    """Return the parser of the line after ``%%moa``."""
    parser = _Parser(
        prog="%%moa", add_help=False, allow_abbrev=False, description="Ask the pipeline the text of the cell."
    )
    add: Any = parser.add_argument
    add("name", nargs="?", type=_name, help="the variable that takes the result")
    add("-p", "--pipeline", metavar="NAME", help="which pipeline (%%moa pipelines lists them)")
    add("-m", "--models", metavar="A,B,C", type=_names, help="who proposes, each as provider:model")
    add("-a", "--aggregator", metavar="MODEL", help="who writes the final answer")
    add("-n", "--samples", metavar="N", type=_count, help="answers of each proposer")
    add("-l", "--layers", metavar="N", type=_count, help="how many layers, the aggregator's included")
    add("-T", "--temperature", metavar="X", type=_temperature, help="of all agents, 0 to 2")
    add("--max-tokens", metavar="N", type=_count, help="the most tokens of each answer")
    add(
        "-t",
        "--template",
        metavar="NAME",
        help="a template's name, or Jinja source in quotes, around the cell's {{ text }}",
    )
    add("--schema", metavar="NAME", help="a variable: a pydantic model, a dict of types or a JSON schema to fill in")
    add("--reference", metavar="TEXT", help="the right answer, which judges are shown; {{ variables }} are filled in")
    add("--chat", metavar="NAME", type=_chat, help="the cell is the next turn of a conversation")
    add("--compare", metavar="P,Q,R", type=_pipelines, help="ask several pipelines, and show them side by side")
    add("--judge", metavar="MODEL", help="who compares their answers, every two in both orders")
    add(
        "--budget",
        metavar="DOLLARS",
        type=_limit,
        help="no call is sent that could pass this; or in quotes: '200 calls'",
    )
    add("--mode", choices=MODES, default="live", help="batch: half the price, within a day")
    add("--dry-run", action="store_true", help="show prompts, calls, tokens and dollars; send nothing")
    add("--no-cache", action="store_true", help="neither use nor keep answers")
    add("--refresh", action="store_true", help="ask again, and keep the new answers")
    add("-b", "--background", action="store_true", help="return at once; the panel goes on, and has a Stop button")
    add("-q", "--quiet", action="store_true", help="show nothing")
    add("--raw", action="store_true", help="braces are text: no {{ variables }}")
    add("-f", "--format", choices=FORMATS, help="how the answer is shown")
    return parser
