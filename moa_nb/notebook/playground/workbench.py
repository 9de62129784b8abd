"""The playground's model: what is chosen, edited, compared and taken along. It knows no widget."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moa_nb.engine import Estimate
from moa_nb.engine.plan import Options
from moa_nb.errors import MoaError, SetupError, TemplateError, UnknownName, nearest
from moa_nb.notebook.playground import copies, differences, scene
from moa_nb.notebook.playground.bench import Bench, Rows
from moa_nb.notebook.playground.drafts import Draft, Mistake, file_of, mistake
from moa_nb.notebook.playground.editing import EDITED, GIVEN, SAVED, Editing
from moa_nb.notebook.playground.inputs import INPUT, Inputs
from moa_nb.notebook.playground.preview import Preview
from moa_nb.notebook.playground.trial import Trial
from moa_nb.options import refuse_unknown, spelled_out
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.store.versions import Version

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Playground"]

_ROWS = 5
"""Rows of a trial."""

_T = TypeVar("_T")


class Playground:
    r"""A pipeline's templates, edited with their prompts, prices, answers and versions in view.

    In a notebook it shows itself as an editor; all that the editor does can be done from code. What it shows is what
    ``%%moa`` and ``df.moa.synthesize`` then do, to the byte. Running asks only what the store does not know: from the
    edited layer down. Every run keeps a version of the templates, across kernel restarts.

    Args:
        data: a text, a DataFrame or a Series.
        column: the column with the texts.
        pipeline: its name, or a ``Pipeline``; ``None``: the default.
        template: as in ``moa.run`` and ``df.moa.synthesize``; it can be edited too.
        instruction: as in ``df.moa.synthesize``.
        **options: those of ``moa.run``, except ``cache`` and ``mode``.

    Raises:
        SetupError: data, pipeline, models, keys or prices are wrong or missing; nothing was sent.

    >>> text = "The mill closed in May. Forty people lost their work. The town bought the mill."
    >>> pg = Playground(text, pipeline="moa-lite", models=["offline:lead"], aggregator="offline:consensus")
    >>> pg.templates
    ['synthesize']
    >>> pg.edit("synthesize", "Choose the best of {{ references | length }}:\n{{ references | join }}")
    >>> pg.prompt("layer 2").splitlines()[1]
    'Choose the best of 1:'
    >>> pg.edit("synthesize", "{{ reference }}")
    >>> pg.check()[0].line
    1
    >>> pg.reset()
    """

    @spelled_out
    def __init__(
        self,
        data: str | pd.DataFrame | pd.Series[Any],
        column: Hashable = None,
        pipeline: Any = None,
        *,
        template: str | None = None,
        instruction: str | None = None,
        **options: Any,
    ) -> None:
        refuse_unknown(Playground, options)
        if options.get("cache", "use") != "use" or options.get("mode", "live") != "live":
            msg = "a playground asks now, and only what the store does not know: leave cache and mode out"
            raise SetupError(msg)
        self.options: dict[str, Any] = {"pipeline": pipeline, **options}
        self.bench = Bench(Inputs.of(data, column, template, instruction), Options(**self.options))
        self.editing = Editing(self.bench)
        self.shown: dict[str, Any] = {}
        """The latest answers, rows or differences, as ``scene`` draws them."""
        self.latest: Result | None = None
        """The latest run of the chosen row; its record is saved with the notebook."""
        self._editor: Any = None
        draft = self.editing.draft()
        self.row: int = self._finish(self.bench.first_row(draft))
        """The position of the chosen row."""
        with suppress(MoaError):  # a row that fails is seen as soon as somebody looks
            self._finish(self.look(draft))
        self.editing.saw(draft)
        self.template: str | None = next(reversed(self.templates), None)
        """The chosen template; ``None`` where there is none to edit."""

    def _finish(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self.bench.engine.finish(coroutine)

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return self.bench.pipeline

    @property
    def inputs(self) -> Inputs:
        """What is asked about."""
        return self.bench.inputs

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return 1 if self.inputs.is_text else len(self.inputs.data)

    # Templates --------------------------------------------------------------------------------

    @property
    def templates(self) -> list[str]:
        """The templates that can be edited: those that the pipeline uses on this input, and what they include."""
        return self.editing.templates

    @property
    def edited(self) -> dict[str, str]:
        """The sources that differ from the files, by template."""
        return self.editing.edited

    def source(self, template: str | None = None) -> str:
        """Return a template's source as it is edited; ``None``: the chosen one's.

        Raises:
            UnknownName: the pipeline uses no such template.
        """
        name = self.template if template is None else template
        if name is None:
            msg = f"pipeline {self.pipeline!r} uses no template on this input: there is nothing to edit"
            raise UnknownName(msg)
        return self.editing.sources()[file_of(self.editing.known(name))]

    def edit(self, template: str, source: str) -> None:
        """Return nothing; the template has this source from now on, here and nowhere else until it is saved.

        Raises:
            UnknownName: the pipeline uses no such template.
        """
        self.template = self.editing.known(template)
        self.editing.put(template, source)
        self._follow()

    def reset(self, template: str | None = None) -> None:
        """Return nothing; a template, or all of them, are as the files have them."""
        self.editing.drop(self.templates if template is None else [self.editing.known(template)])
        self._follow()

    def check(self) -> list[Mistake]:
        """Return what is wrong with the templates, with its line; empty where they parse and the row's prompts can be made."""
        draft = self.editing.draft()
        found = []
        for name in self.edited:
            try:
                draft.load(name)
            except TemplateError as error:
                found.append(mistake(error, self.inputs.own))
        if not found:
            try:
                self.preview()
            except MoaError as error:
                found.append(mistake(error, self.inputs.own))
        return found

    # Prompts and prices -----------------------------------------------------------------------

    def preview(self, row: int | None = None) -> Preview:
        """Return what a run on a row would send now; ``None``: the chosen row.

        Raises:
            TemplateError: a template cannot be used; ``check`` says where.
        """
        return self._finish(self.look(self.editing.draft(), row))

    async def look(self, draft: Draft, row: int | None = None) -> Preview:
        """Return what ``preview`` returns, of any templates, awaited on the engine's loop."""
        try:
            return await self.bench.look(draft, self.row if row is None else row)
        finally:
            self.editing.saw(draft)

    def prompts(self, layer: str | int | None = None, row: int | None = None) -> tuple[Call, ...]:
        """Return the calls of a layer with their prompts; ``None``: the first that the chosen template is for.

        Raises:
            UnknownName: there is no such layer.
            TemplateError: as ``preview``.
        """
        return self.layer_of(self.preview(row), layer).calls

    def prompt(self, layer: str | int | None = None, row: int | None = None, agent: str | None = None) -> str:
        """Return the rendered prompt of a layer's first agent, or of the one named, each message under its role."""
        calls = self.prompts(layer, row)
        found = [call for call in calls if agent is None or call.agent == agent]
        if not found:
            msg = f"no agent {agent!r} in this layer; {nearest(str(agent), [call.agent for call in calls])}"
            raise UnknownName(msg)
        return "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in found[0].prompt)

    def layer_of(self, preview: Preview, layer: str | int | None) -> Layer:
        """Return a layer of a preview, by its name or its position.

        Raises:
            UnknownName: there is no such layer.
        """
        layers = preview.layers
        if layer is None:
            using = (one for one in layers if any(call.template == self.template for call in one.calls))
            return next(using, layers[0 if self.template == self.inputs.own else -1])
        if isinstance(layer, int) and -len(layers) <= layer < len(layers):
            return layers[layer]
        for one in layers:
            if one.name == layer:
                return one
        msg = f"no layer {layer!r}; {nearest(str(layer), preview.names)}"
        raise UnknownName(msg)

    def estimate(self, rows: Rows | None = None) -> Estimate:
        """Return what a run would take at most: of the chosen row, or of as many rows, or of those at these positions."""
        if rows is None:
            return self.preview().estimate
        return self._finish(self.bench.forecast(self.editing.draft(), rows))

    # Running ----------------------------------------------------------------------------------

    def run(self, row: int | None = None) -> Result:
        """Return the run of a row with the templates as edited; what the store knows is not asked again.

        A version of the templates is kept.

        Raises:
            MoaError: there is no answer; ``error.result`` has what was finished.
        """
        return self._show(scene.answered, self._finish(self.arun(row)))

    async def arun(self, row: int | None = None) -> Result:
        """Return what ``run`` returns, awaited on the engine's loop."""
        draft = self.editing.draft()
        self._remember(draft)
        self.latest = await self.bench.run(draft, self.row if row is None else row)
        return self.latest

    def sample(self, rows: Rows = _ROWS, *, against: Version | str | int = SAVED, both: bool = False) -> Trial:
        """Return the templates as edited over several rows, beside what another version answers.

        Args:
            rows: as many of the first that have something to ask, or their positions.
            against: the other version; its answers come from the store.
            both: whether the other version is run too, where the store does not know its answers.

        Raises:
            SpendingNotAgreed: it would take more than ``ask_above``, and there is no budget.
        """
        return self._show(scene.tried, self._finish(self.asample(rows, against=against, both=both)))

    async def asample(self, rows: Rows = _ROWS, *, against: Version | str | int = SAVED, both: bool = False) -> Trial:
        """Return what ``sample`` returns, awaited on the engine's loop."""
        label, other = self._state(against)
        draft = self.editing.draft()
        self._remember(draft)
        earlier = {one.position: one.text for one in await self.bench.rows(Draft(other), rows, ask=both)}
        tried = await self.bench.rows(draft, rows, ask=True)
        return Trial(
            self._state(EDITED if self.edited else SAVED)[0],
            label,
            tuple(replace(one, before=earlier.get(one.position)) for one in tried),
        )

    def _remember(self, draft: Draft) -> None:
        """Return nothing; keep the version that is about to run. A store that cannot says so itself."""
        with suppress(SetupError):
            self.editing.keep(draft.sources)

    # Versions ---------------------------------------------------------------------------------

    @property
    def versions(self) -> list[Version]:
        """The versions of this pipeline's templates in this project, oldest first, earlier sessions' included."""
        return self.editing.versions

    def keep(self, name: str | None = None) -> Version:
        """Return the version of the templates as edited, kept under a name; the same templates are kept once.

        Raises:
            SetupError: the store can keep nothing.
        """
        kept = self.editing.keep(self.editing.sources(), name)
        self._follow()
        return kept

    def restore(self, version: Version | str | int) -> None:
        """Return nothing; the templates are edited to what they were in a version.

        Raises:
            UnknownName: there is no such version.
        """
        self.editing.restore(self.editing.state(version)[1])
        self._follow()

    def forget(self, version: Version | str | int) -> None:
        """Return nothing; a version is gone.

        Raises:
            UnknownName: there is no such version.
        """
        self.editing.forget(self.editing.find(version))
        self._follow()

    @property
    def earliest(self) -> str:
        """What the templates as they were before any edit are called: ``as saved``, or ``as given``."""
        return self._state(SAVED)[0]

    def _state(self, version: Version | str | int) -> tuple[str, dict[str, str]]:
        """Return what a version is called, and its sources; a template that was given as source is saved nowhere."""
        label, sources = self.editing.state(SAVED if version == GIVEN else version)
        return (GIVEN if label == SAVED and INPUT in self.templates and {*self.edited} <= {INPUT} else label), sources

    def difference(
        self, before: Version | str | int = SAVED, after: Version | str | int = EDITED, row: int | None = None
    ) -> differences.Difference:
        """Return how two versions differ word by word: templates, prompts, and outputs that the store knows.

        Args:
            before: a version, its name or number, ``"as saved"`` (``"as given"``, of a template given as source) or
                ``"as edited"``.
            after: likewise.
            row: on which input; ``None``: the chosen row.
        """
        return self._show(scene.differing, self._finish(self.adifference(before, after, row)))

    async def adifference(
        self, before: Version | str | int = SAVED, after: Version | str | int = EDITED, row: int | None = None
    ) -> differences.Difference:
        """Return what ``difference`` returns, awaited on the engine's loop."""
        (first, old), (second, new) = map(self._state, (before, after))
        seen: list[Preview | None] = []
        for sources in (old, new):
            try:
                seen.append(await self.look(Draft(sources), row))
            except MoaError:
                seen.append(None)  # its templates are shown all the same
        return differences.between((first, second), (old, new), (seen[0], seen[1]))

    # Taking it along --------------------------------------------------------------------------

    def save(self, *templates: str, name: str | None = None) -> list[Path]:
        """Return the files that were written: from now on every run in this project uses them.

        Args:
            *templates: which; none: all that are edited.
            name: under which other name, for one template; one that was given as source is then known by it.

        Raises:
            UnknownName: the pipeline uses no such template.
            TemplateError: one cannot be used.
            SetupError: there is nothing to save, or no name for it, or the file cannot be written.
        """
        chosen = [self.editing.known(template) for template in templates] or [*self.edited]
        if not chosen:
            msg = "no template is edited: there is nothing to save"
            raise SetupError(msg)
        if (name is not None and len(chosen) > 1) or (name is None and INPUT in chosen):
            one = INPUT if INPUT in chosen else chosen[0]
            msg = f"name one template and its file, as in save({one!r}, name='reply')"
            raise SetupError(msg)
        draft = self.editing.draft()
        for template in chosen:
            draft.load(template)
        for wrong in self.check():
            # The one that makes the prompts may fail on this row, and be right for others.
            if wrong.template in chosen and wrong.template != self.inputs.own:
                raise TemplateError(wrong.text)
        files = [copies.write(name or template, draft.sources[file_of(template)]) for template in chosen]
        if name is None:
            self.editing.drop(chosen)
        elif chosen == [INPUT]:
            self.bench.inputs = replace(self.inputs, template=name)
            self.editing.rename(INPUT, name)
            self.template = name
        self._follow()
        return files

    def as_cell(self) -> str:
        """Return a cell that does what is shown; for rows, and where ``%%moa`` cannot say it, a cell of Python.

        Raises:
            SetupError: a template is edited and not saved, so that a cell would not find it.
        """
        return copies.as_cell(self.inputs, self.options, self.edited)

    def as_python(self) -> str:
        """Return Python that does what is shown, anywhere: edited templates are written by it first."""
        return copies.as_python(self.inputs, self.options, self.edited)

    # Shown ------------------------------------------------------------------------------------

    @property
    def widget(self) -> Any:
        """The editor as a widget of its own, for front ends that keep outputs in frames; it leaves its earlier place."""
        return self.open_editor(lambda _: None).widget

    def open_editor(self, refresh: Callable[[dict[str, Any]], None]) -> Any:
        """Return a new editor of this playground; an earlier one is closed.

        Args:
            refresh: called with the static form whenever it should follow, on the engine's thread.
        """
        from moa_nb.notebook.playground.widget import Editor

        if self._editor is not None:
            self._editor.close()
        self._editor = Editor(self, refresh)
        return self._editor

    def _show(self, drawn: Callable[[_T], dict[str, Any]], found: _T) -> _T:
        """Return what was found; the editor shows it too."""
        self.shown = drawn(found)
        self._follow()
        return found

    def _follow(self) -> None:
        if self._editor is not None:
            self._editor.follow()

    def _ipython_display_(self) -> None:
        from moa_nb.notebook.playground.shown import show

        show(self)

    def __repr__(self) -> str:
        edited = ", ".join(self.edited) or "no template"
        return f"<Playground of {self.pipeline!r}: {edited} edited, {len(self.versions)} versions>"
