"""What can go wrong, drawn as a tree.

    MoaError                      everything this package raises on purpose
    ├── SetupError                nothing can work until it is fixed: a run stops at once
    │   ├── SettingsError         a key, a value or a file of the settings
    │   ├── UnknownName           no model, provider, pipeline, template or column of that name
    │   ├── UnknownOption         a keyword that a function or verb does not take
    │   ├── TemplateError         a template that does not parse or lacks a variable
    │   ├── PipelineError         a pipeline whose data does not make sense
    │   ├── KeyRejected           the service refuses the key, or there is none
    │   └── SpendingNotAgreed     the estimate is above what may be spent unasked
    └── Unanswered                this one question has no answer; a strategy may go on without
        ├── RowError              this input, and only this one, cannot be answered
        │   └── LayerFailed       too few agents of a layer answered
        ├── ServiceError          the service failed, and went on failing
        └── BudgetExceeded        the next call could pass the ceiling; it was not sent

Every message is one line that says what to do. ``kind`` is ``"setup"``, ``"row"``, ``"service"``
or ``"budget"``: what a report groups by.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from moa_nb.plain import to_plain

if TYPE_CHECKING:
    from moa_nb.pipeline.result import Result

__all__ = [
    "BudgetExceeded",
    "KeyRejected",
    "LayerFailed",
    "MoaError",
    "PipelineError",
    "RowError",
    "ServiceError",
    "SettingsError",
    "SetupError",
    "SpendingNotAgreed",
    "TemplateError",
    "Unanswered",
    "UnknownName",
    "UnknownOption",
    "gravest",
    "nearest",
]


class MoaError(Exception):
    """The root of the tree; ``str(error)`` is one line that says what to do."""

    kind: str = "service"
    """``setup``, ``row``, ``service`` or ``budget``."""

    result: Result | None = None
    """What a run had when it failed: its finished layers and calls. ``None`` before any call."""

    attempts: int = 0
    """How often the service was asked before this was raised."""

    unreported: int = 0
    """How many of these attempts may be billed though no service reported them."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the user's own lines on the way here, and the message. ``%debug`` has the rest."""
        shown = [f"{type(self).__name__}: {self}"]
        if self.__cause__ is not None and not isinstance(self.__cause__, MoaError):
            # A function or a strategy of the user's: where it failed is what there is to mend.
            shown = [*_own_lines(self.__cause__), *traceback.format_exception_only(self.__cause__), *shown]
        return [to_plain(line.rstrip()) for line in (*_own_lines(self), *shown)]


class SetupError(MoaError):
    """Key, model, template, pipeline or option: no other row can succeed either."""

    kind = "setup"


class SettingsError(SetupError):
    """A settings file, an environment variable or ``configure`` holds something unusable."""


class UnknownName(SetupError, KeyError):
    """A name that nothing has; the message names the nearest one that exists."""

    # KeyError would show the message's repr.
    __str__ = Exception.__str__


class UnknownOption(SetupError, TypeError):
    """A keyword that a function or verb does not take; the message names the nearest one that it does."""


class TemplateError(SetupError):
    """A template does not parse, or uses a variable that is not there."""


class PipelineError(SetupError):
    """A pipeline's data are not what its strategy takes."""


class KeyRejected(SetupError):
    """The service refused the key (401, 403), or the variable that should hold it is empty."""


class SpendingNotAgreed(SetupError):
    """The estimate is above ``ask_above``: pass a ``budget=`` to agree."""


class Unanswered(MoaError):
    """One question has no answer; what else was asked stands, and a strategy may go on with that."""


class RowError(Unanswered):
    """This input cannot be answered: too long, refused, malformed."""

    kind = "row"


class LayerFailed(RowError):
    """Fewer agents of a layer answered than its ``min_ok`` asks for."""


class ServiceError(Unanswered):
    """The service answered with faults, or not at all, until the call's time was over."""

    kind = "service"


class BudgetExceeded(Unanswered):
    """The worst case of the next call does not fit into what is left of the budget."""

    kind = "budget"


_GRAVITY = ("setup", "budget", "service", "row")


def gravest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the exception of a group that tells most: a fault of the code, then setup, budget, service, row.

    >>> gravest(BaseExceptionGroup("", [RowError("too long"), SetupError("no key")]))
    SetupError('no key')
    """
    flat = [gravest(one) if isinstance(one, BaseExceptionGroup) else one for one in group.exceptions]
    return min(flat, key=lambda one: _GRAVITY.index(one.kind) if isinstance(one, MoaError) else -1)


def nearest(name: object, known: Iterable[str]) -> str:
    """Return a half sentence that names the likeliest of ``known``, or all of them when few.

    What is no text is like none of them.

    >>> nearest("debat", ["debate", "single"])
    "did you mean 'debate'?"
    >>> nearest("zzz", ["debate", "single"])
    'there are: debate, single'
    """
    names = list(dict.fromkeys(known))
    lowered = {candidate.lower(): candidate for candidate in names}
    close = get_close_matches(name.lower() if isinstance(name, str) else "", lowered, n=1, cutoff=0.6)
    if close:
        return f"did you mean {lowered[close[0]]!r}?"
    if not names:
        return "there are none"
    # Names can come from files of others, and must not speak to a terminal.
    shown = ", ".join(repr(one)[1:-1] for one in sorted(names)[:12])
    return f"there are: {shown}" + (", …" if len(names) > 12 else "")


def _own_lines(error: BaseException) -> list[str]:
    """Return the lines of a traceback that are neither this package's nor of what is installed."""
    paths = sysconfig.get_paths()
    installed = tuple(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith((str(Path(__file__).parent), *installed, "<frozen")):
            file = f"{frame.filename}, " if Path(frame.filename).is_file() else ""  # a cell has none
            place = "" if frame.name == "<module>" else f" of {frame.name}"
            lines.append(f"{file}line {frame.lineno}{place}: {frame.line}")
    return lines
