"""``%%moa`` asks the text of the cell; ``%moa`` lists, checks and shows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import traitlets
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.display import display

from moa_nb import settings
from moa_nb.engine.engine import Engine, current
from moa_nb.engine.plan import Options
from moa_nb.errors import MoaError, nearest
from moa_nb.notebook import chats, comparing, kept, listings, running
from moa_nb.notebook.arguments import COMMANDS, FORMATS, cell_parser, split
from moa_nb.notebook.background import BackgroundRun, start_in_background
from moa_nb.notebook.cell import filled_in, schema_of, task_of, with_form
from moa_nb.options import CacheMode
from moa_nb.panels.comparison import Comparison
from moa_nb.pipeline import presets
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.result import Result
from moa_nb.plain import to_plain

__all__ = ["MoaMagics"]


_WITH_OPTIONS = frozenset({"costs", "cache", "delete"})
"""The words of ``%moa`` that read what follows them themselves."""

_WITH_NAME = frozenset({"edit", "models", "templates", "chats", "reset"})
"""Those that take one name, or none."""


@magics_class
class MoaMagics(Magics):
    """The magics of moa-nb; ``%config MoaMagics`` shows what can be set for this session."""

    pipeline = traitlets.Unicode(
        None, allow_none=True, help="The default pipeline of this session; None: as the settings say."
    ).tag(config=True)
    budget = traitlets.Float(
        None, allow_none=True, help="The ceiling of each run in dollars; None: as the settings say."
    ).tag(config=True)
    format = traitlets.Enum(
        FORMATS, default_value="panel", help="How %%moa shows its answer, unless -f says otherwise."
    ).tag(config=True)

    @traitlets.validate("pipeline", "budget")
    def _configured(self, proposal: Any) -> Any:
        # One place for what holds: `%moa settings` shows it as configured, and everything else reads it there.
        try:
            if proposal.trait.name == "pipeline" and proposal.value is not None:
                presets.load(proposal.value)
            settings.configure(**{proposal.trait.name: proposal.value})
        except MoaError as error:
            raise traitlets.TraitError(str(error)) from None
        return proposal.value

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def moa(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Ask a pipeline of language models the text of the cell; ``%moa`` alone shows all options.

        %%moa [NAME] [-p PIPELINE] [-m A,B,C] [-a MODEL] [-n SAMPLES] [-l LAYERS] [-T TEMPERATURE]
              [--max-tokens N] [-t TEMPLATE] [--schema NAME] [--reference TEXT] [--budget DOLLARS]
              [--chat NAME] [--compare P,Q,R [--judge MODEL]] [--mode live|batch] [--dry-run]
              [--no-cache] [--refresh] [-b] [-q] [--raw] [-f panel|markdown|text|json]

        {{ name }} in the cell is the notebook's variable; DataFrames become small tables. NAME takes
        the result: its text, layers, prompts, usage, cost; with --schema its value; with --compare
        the results by pipeline.

            %%moa answer -p moa-lite --budget 0.05
            Explain to a board member why churn rose in {{ region }}, using: {{ notes }}

        A chat goes on from cell to cell and from one kernel to the next. A cell that is run again
        unchanged takes its own turn's place, and the turns after it are left out; a changed one asks
        anew. moa.messages(NAME) has the messages, moa.export_chat(NAME, "x.md") writes them to a file;
        moa.restore_chats("x.ipynb") brings the chats of a saved notebook back.

        %moa pipelines | models [PROVIDER] | settings | templates [NAME] | check | where | last
        %moa edit TEMPLATE | chats [NAME] | reset NAME
        %moa costs [--by day,pipeline,model] [--days N]
        %moa cache [clear [--older-than 30d] [--model NAME]]
        %moa delete RUN [--with-answers]
        %config MoaMagics
        """
        words = split(line)
        try:
            if cell is None:
                return self._command(words)
            options = cell_parser().parse_line(words)
            return self._ask(options, cell, {**self._variables, **(local_ns or {}), **_callers_variables()})
        except MoaError as error:
            # Names of files and words of services may hold what a terminal obeys.
            raise UsageError(to_plain(" ".join(str(error).split()))) from None

    @property
    def _variables(self) -> dict[str, Any]:
        """The notebook's variables."""
        assert self.shell is not None
        namespace: dict[str, Any] = self.shell.user_ns
        return namespace

    # %moa -------------------------------------------------------------------------------------

    def _command(self, words: list[str]) -> Any:
        if not words:
            print(listings.help_text())  # noqa: T201
            return None
        command, *rest = words
        if command not in COMMANDS:
            meant = nearest(command, COMMANDS)
            stop = "" if meant.endswith("?") else "."
            raise UsageError(f"%moa has no {command!r}; {meant}{stop} A question goes into a cell: %%moa")
        most = 1 if command in _WITH_NAME else 0
        if len(rest) > most and command not in _WITH_OPTIONS:
            raise UsageError(f"%moa {command} takes {'one name' if most else 'nothing'} more, not {' '.join(rest)!r}")
        if command == "reset" and not rest:
            raise UsageError("%moa reset takes the name of the chat to forget; %moa chats lists them")
        argument = rest[0] if rest else None
        engine = current()
        shows: dict[str, Callable[[], Any]] = {
            "pipelines": lambda: engine.finish(listings.pipelines(engine)),
            "models": lambda: engine.finish(listings.models(engine, argument)),
            "settings": listings.settings_table,
            "costs": lambda: kept.costs(engine.store(settings.current()), rest),
            "cache": lambda: kept.cache(engine.store(settings.current()), rest),
            "delete": lambda: kept.delete(engine.store(settings.current()), rest),
            "templates": lambda: listings.templates(argument),
            "edit": lambda: _playground(argument),
            "chats": lambda: chats.listing(engine.store(settings.current()), argument),
            "reset": lambda: chats.reset(engine.store(settings.current()), rest[0]),
            "check": lambda: engine.finish(listings.check(engine)),
            "where": lambda: engine.finish(listings.where(engine)),
            "last": self._last,
        }
        shown = shows[command]()
        if isinstance(shown, str):
            print(shown)  # noqa: T201
        elif shown is not None:
            display(shown)
        return None

    def _last(self) -> None:
        from moa_nb.history import last

        last().show()

    # %%moa ------------------------------------------------------------------------------------

    def _ask(self, options: argparse.Namespace, cell: str, variables: dict[str, Any]) -> None:
        engine = current()
        settings.current()
        asked = task_of(cell, variables, raw=options.raw, template=options.template)
        task = with_form(asked, schema_of(options.schema, variables)) if options.schema else asked
        if options.reference is not None:
            task = replace(task, reference_answer=filled_in(options.reference, variables))
        form = "quiet" if options.quiet else options.format or self.format
        result: Result | Comparison | BackgroundRun | None
        if options.background and (options.compare or options.chat or options.dry_run):
            raise UsageError("%%moa: --background is for a single answer: without --chat, --compare and --dry-run")
        if options.compare:
            result = self._compare(engine, options, task, form)
        else:
            result = self._run(engine, options, task, asked.question, form)
        if options.name and result is not None:
            self._variables[options.name] = result

    def _run(
        self, engine: Engine, options: argparse.Namespace, task: Task, question: str, form: str
    ) -> Result | BackgroundRun | None:
        """Return the result, or what brings it; ``None`` where nothing was to be sent."""
        plan = engine.finish(engine.plan(_run_options(options), task.form, keys=not options.dry_run))
        if options.reference is not None and not plan.pipeline.params.judging():
            raise UsageError(
                f"%%moa: --reference is shown to judges, and pipeline {plan.pipeline.name!r} has none: -p judge has, or"
                " --compare with --judge"
            )
        if options.background:
            return start_in_background(engine, plan, task, shown=not options.quiet)
        chat: chats.CellChat | None = None
        notes: list[str] = []
        if options.chat:
            store = engine.store(plan.settings)
            chat = chats.CellChat.open(store, options.chat, question, chats.cell_of(self.shell))
            task, notes = chat.asked(task, plan)
        if options.dry_run:
            running.show_estimate(running.estimated(engine, plan, task))
            return None
        if chat and form == "panel":
            chat.show_earlier()
        return running.run(engine, plan, task, form=form, notes=notes, keep=chat.keep if chat else None)

    def _compare(self, engine: Engine, options: argparse.Namespace, task: Task, form: str) -> Comparison | None:
        """Return the results by pipeline; ``None`` where nothing was to be sent."""
        planning = comparing.plan(
            engine, _run_options(options), options.compare, options.judge, task.form, keys=not options.dry_run
        )
        contest = engine.finish(planning)
        if options.dry_run:
            display(comparing.estimates(engine, contest, task))
            return None
        return comparing.run(engine, contest, task, form=form)


def _playground(template: str | None) -> Any:
    if template is None:
        raise UsageError("%moa edit takes the name of a template; %moa templates lists them")
    from moa_nb.notebook.playground import edit

    return edit(template)


def _callers_variables() -> dict[str, Any]:
    """Return the variables of the function that called ``run_cell_magic``; none where the cell itself did.

    For a cell magic IPython passes the notebook's variables as the local ones.
    """
    frame = sys._getframe()  # noqa: SLF001 - the only way to a caller's variables
    while frame.f_back is not None:
        name, frame = frame.f_code.co_name, frame.f_back
        if name == "run_cell_magic":
            return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
    return {}


def _run_options(options: argparse.Namespace) -> Options:
    cache: CacheMode = "off" if options.no_cache else "refresh" if options.refresh else "use"
    return Options(
        pipeline=options.pipeline,
        models=options.models,
        aggregator=options.aggregator,
        samples=options.samples,
        layers=options.layers,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        budget=options.budget,
        cache=cache,
        mode=options.mode,
    )
