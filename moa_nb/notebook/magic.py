"""``%%moa`` asks the text of the cell; ``%moa`` lists, checks and shows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.display import display

from moa_nb import settings
from moa_nb.engine.engine import Engine, current
from moa_nb.engine.forecast import make_estimate
from moa_nb.engine.plan import Options, Plan
from moa_nb.errors import MoaError, nearest
from moa_nb.notebook import kept, listings
from moa_nb.notebook.arguments import COMMANDS, cell_parser, split
from moa_nb.notebook.cell import task_of
from moa_nb.notebook.display import has_front_end, show_as
from moa_nb.notebook.live import LivePanel
from moa_nb.options import CacheMode
from moa_nb.panels.figures import count
from moa_nb.pipeline.candidate import Task
from moa_nb.pipeline.result import Result

__all__ = ["Interrupted", "MoaMagics"]


_WITH_OPTIONS = frozenset({"costs", "cache", "delete"})
"""The words of ``%moa`` that read what follows them themselves."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the cell; shown as one line, and the cells that wait do not run."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


@magics_class
class MoaMagics(Magics):
    """The magics of moa-nb."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def moa(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Ask a pipeline of language models the text of the cell; ``%moa`` alone shows all options.

        %%moa [NAME] [-p PIPELINE] [-m A,B,C] [-a MODEL] [-n SAMPLES] [-l LAYERS] [-T TEMPERATURE]
              [--max-tokens N] [-t TEMPLATE] [--budget DOLLARS] [--dry-run] [--no-cache] [--refresh]
              [-q] [--raw] [-f panel|markdown|text|json]

        {{ name }} in the cell is the notebook's variable; DataFrames become small tables. NAME takes
        the result: its text, layers, prompts, usage, cost.

        %moa pipelines | models [PROVIDER] | settings | templates [NAME] | check | where | last
        %moa costs [--by day,pipeline,model] [--days N]
        %moa cache [clear [--older-than 30d] [--model NAME]]
        %moa delete RUN [--with-answers]
        """
        words = split(line)
        try:
            if cell is None:
                return self._command(words)
            options = cell_parser().parse_line(words)
            return self._ask(options, cell, {**self._variables, **(local_ns or {}), **_callers_variables()})
        except MoaError as error:
            raise UsageError(str(error)) from None

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
        most = 1 if command in {"models", "templates"} else 0
        if len(rest) > most and command not in _WITH_OPTIONS:
            raise UsageError(f"%moa {command} takes {'one name' if most else 'nothing'} more, not {' '.join(rest)!r}")
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

        run = last()
        if isinstance(run, Result):
            run.show()
        else:
            display(run.report)

    # %%moa ------------------------------------------------------------------------------------

    def _ask(self, options: argparse.Namespace, cell: str, variables: dict[str, Any]) -> None:
        if options.no_cache and options.refresh:
            raise UsageError("%%moa: --no-cache keeps nothing and --refresh keeps the new answers: choose one")
        engine = current()
        settings.current()
        task = task_of(cell, variables, raw=options.raw, template=options.template)
        plan = engine.finish(engine.plan(_run_options(options)))
        if options.dry_run:
            _show_estimate(engine, plan, task)
            return
        result = _run(engine, plan, task, form="quiet" if options.quiet else options.format)
        if options.name:
            self._variables[options.name] = result


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
    )


def _run(engine: Engine, plan: Plan, task: Task, *, form: str) -> Result:
    record = engine.new_record(plan, task)
    panel = LivePanel(record) if form == "panel" and has_front_end() else None

    async def running() -> Result:
        # On the kernel's own loop the connections of the planning are closed by now.
        here = replace(plan, gateway=engine.gateway(plan.settings))
        return await engine.answer_and_keep(here, task, record, kind="cell", watched=panel is not None)

    try:
        result = engine.finish(running(), panel.update if panel else None)
    except KeyboardInterrupt:
        if panel:
            panel.finish(record.result or record.finish(error="stopped", stop_reason="stopped"))
        n_done = sum(call.call is not None and call.call.ok for layer in record.layers for call in layer.calls)
        kept = f"; {count(n_done, 'finished call')} kept: run the cell again to go on from there" if n_done else ""
        msg = f"stopped{kept}"
        raise Interrupted(msg) from None
    except MoaError as error:
        if panel:
            panel.finish(record.result or record.finish(error=str(error), stop_reason=error.kind))
        raise
    if panel:
        panel.finish(result)
    elif form != "quiet":
        show_as(result, form)
    return result


def _show_estimate(engine: Engine, plan: Plan, task: Task) -> None:
    from moa_nb.panels.dry_run import bundle

    async def look() -> Any:
        return await make_estimate(plan, task, engine.gateway(plan.settings))

    estimate = engine.finish(look())
    shown = bundle(estimate)
    if has_front_end():
        display(shown, raw=True)
    else:
        print(shown["text/plain"])  # noqa: T201
