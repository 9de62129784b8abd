"""Several language models in layers, from one notebook cell and one DataFrame column."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from moa_nb.engine import Estimate, arun, estimate, run
    from moa_nb.errors import MoaError, Unanswered
    from moa_nb.evaluation import Evaluation, Replay
    from moa_nb.evaluation.compare import compare
    from moa_nb.frames import FrameRun
    from moa_nb.frames.recalled import recall
    from moa_nb.history import last, messages, runs
    from moa_nb.notebook.chat_files import export_chat, restore_chats
    from moa_nb.notebook.playground import Playground
    from moa_nb.panels.difference_of_runs import difference
    from moa_nb.panels.provenance import from_notebook
    from moa_nb.pipeline.ask import Ask
    from moa_nb.pipeline.candidate import Candidate, Question, Task
    from moa_nb.pipeline.result import Result
    from moa_nb.pipeline.spec import Agent, Layer, Params, Pipeline
    from moa_nb.pipeline.strategies import strategy
    from moa_nb.providers.functions import agent
    from moa_nb.settings import configure

__all__ = [
    "Agent",
    "Ask",
    "Candidate",
    "Estimate",
    "Evaluation",
    "FrameRun",
    "Layer",
    "MoaError",
    "Params",
    "Pipeline",
    "Playground",
    "Question",
    "Replay",
    "Result",
    "Task",
    "Unanswered",
    "agent",
    "arun",
    "compare",
    "configure",
    "difference",
    "estimate",
    "export_chat",
    "from_notebook",
    "last",
    "messages",
    "recall",
    "restore_chats",
    "run",
    "runs",
    "strategy",
]

__version__ = "0.1.0"

# Where each public name lives: it is imported when it is first used, so that `import moa_nb` is
# quick and pulls in neither pydantic nor aiohttp nor jinja2 nor ipywidgets.
_HOMES = {
    "Agent": "moa_nb.pipeline.spec",
    "Ask": "moa_nb.pipeline.ask",
    "Candidate": "moa_nb.pipeline.candidate",
    "Estimate": "moa_nb.engine",
    "Evaluation": "moa_nb.evaluation",
    "FrameRun": "moa_nb.frames",
    "Layer": "moa_nb.pipeline.spec",
    "MoaError": "moa_nb.errors",
    "Params": "moa_nb.pipeline.spec",
    "Pipeline": "moa_nb.pipeline.spec",
    "Playground": "moa_nb.notebook.playground",
    "Question": "moa_nb.pipeline.candidate",
    "Replay": "moa_nb.evaluation",
    "Result": "moa_nb.pipeline.result",
    "Task": "moa_nb.pipeline.candidate",
    "Unanswered": "moa_nb.errors",
    "agent": "moa_nb.providers.functions",
    "arun": "moa_nb.engine",
    "compare": "moa_nb.evaluation.compare",
    "configure": "moa_nb.settings",
    "difference": "moa_nb.panels.difference_of_runs",
    "estimate": "moa_nb.engine",
    "export_chat": "moa_nb.notebook.chat_files",
    "from_notebook": "moa_nb.panels.provenance",
    "last": "moa_nb.history",
    "messages": "moa_nb.history",
    "recall": "moa_nb.frames.recalled",
    "restore_chats": "moa_nb.notebook.chat_files",
    "run": "moa_nb.engine",
    "runs": "moa_nb.history",
    "strategy": "moa_nb.pipeline.strategies",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module 'moa_nb' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Return nothing; ``%load_ext moa_nb`` registers ``%moa`` and ``%%moa`` and says what they will use."""
    from moa_nb.notebook import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Return nothing; ``%unload_ext moa_nb`` takes everything back and ends the engine."""
    from moa_nb.notebook import unload

    unload(shell)


def _register_accessors() -> None:
    from moa_nb.frames import accessor

    accessor.register()


_register_accessors()
