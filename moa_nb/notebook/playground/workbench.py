"""The playground's model: inputs, templates as they are and as edited, versions, and what becomes of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moa_nb import settings as configuration
from moa_nb.engine import Estimate, Plan, current
from moa_nb.engine.plan import Options
from moa_nb.errors import MoaError, SetupError, TemplateError, UnknownName, gravest, nearest
from moa_nb.frames.questions import digest_of
from moa_nb.frames.rows import Questions
from moa_nb.frames.sample import Sample
from moa_nb.frames.spending import agree, forecast
from moa_nb.frames.verbs import Synthesize
from moa_nb.notebook.playground import copies, differences, scene
from moa_nb.notebook.playground.drafts import Draft, Mistake, file_of, mistake, on_disk
from moa_nb.notebook.playground.inputs import INPUT, Inputs
from moa_nb.notebook.playground.preview import Preview, look
from moa_nb.notebook.playground.trial import Trial, Tried
from moa_nb.options import RunOptions
from moa_nb.pipeline.result import Call, Layer, Result
from moa_nb.store import Store
from moa_nb.store.versions import Version

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EDITED", "SAVED", "Playground"]

SAVED, EDITED = "as saved", "as edited"
"""What the templates in the files, and those that are being edited, are called beside the versions."""

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
        for name in options:
            if name not in RunOptions.__annotations__:
                msg = f"Playground() got an unexpected keyword argument {name!r}; {nearest(name, RunOptions.__annotations__)}"
                raise TypeError(msg)
        if options.get("cache", "use") != "use" or options.get("mode", "live") != "live":
            msg = "a playground asks now, and only what the store does not know: leave cache and mode out"
            raise SetupError(msg)
        self.inputs = Inputs.of(data, column, template, instruction)
        self.options: dict[str, Any] = {"pipeline": pipeline, **options}
        self._checked = Options(**self.options)
        self._engine = current()
        self._lock = threading.RLock()
        self._edits: dict[str, str] = {}
        """Sources by file, where they differ from the files."""
        self._used: dict[str, None] = {}
        """Names of templates that the pipeline was seen to use."""
        self._plan: Plan | None = None
        self._editor: Any = None
        self.shown: dict[str, Any] = {}
        """The latest answers, rows or differences, as ``scene`` draws them."""
        self.row = 0
        """The position of the chosen row."""
        self.template: str | None = None
        """The chosen template; ``None`` where there is none to edit."""
        self._finish(self._begin())

    async def _begin(self) -> None:
        draft = Draft(self.sources())
        await self._planned(draft)
        questions = self.inputs.questions(draft)
        self.row = next(iter(Sample.first(questions, 1).positions), 0)
        with suppress(MoaError):  # a row that fails is seen as soon as somebody looks
            await self.look(draft, self.row)
        self._used.update(dict.fromkeys(draft.used))
        self.template = next(reversed(self._used), None)

    def _finish(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self._engine.finish(coroutine)

    # Templates --------------------------------------------------------------------------------

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        assert self._plan is not None
        return self._plan.pipeline.name

    @property
    def templates(self) -> list[str]:
        """The templates that can be edited: those that the pipeline uses on this input, and what they include."""
        with self._lock:
            return [*dict.fromkeys([*self._used, *map(_name_of, self._edits)])]

    @property
    def edited(self) -> dict[str, str]:
        """The sources that differ from the files, by template."""
        disk = {**on_disk(), **self.inputs.sources}
        with self._lock:
            return {_name_of(file): text for file, text in self._edits.items() if disk.get(file) != text}

    def source(self, template: str | None = None) -> str:
        """Return a template's source as it is edited; ``None``: the chosen one's.

        Raises:
            UnknownName: the pipeline uses no such template.
        """
        return self.sources()[file_of(self._known(template))]

    def edit(self, template: str, source: str) -> None:
        """Return nothing; the template has this source from now on, here and nowhere else until it is saved.

        Raises:
            UnknownName: the pipeline uses no such template.
        """
        self.put(template, source)
        self._follow()

    def put(self, template: str, source: str) -> None:
        """Return nothing; as ``edit``, for an editor that shows it already."""
        name = self._known(template)
        with self._lock:
            self._edits[file_of(name)] = source.replace("\r\n", "\n")
            self.template = name

    def reset(self, template: str | None = None) -> None:
        """Return nothing; a template, or all of them, are as the files have them."""
        with self._lock:
            if template is None:
                self._edits.clear()
            else:
                self._edits.pop(file_of(self._known(template)), None)
        self._follow()

    def check(self) -> list[Mistake]:
        """Return what is wrong with the templates, with its line; empty where they parse and the row's prompts can be made."""
        draft = Draft(self.sources())
        found = []
        for name in self.edited:
            try:
                draft.load(name)
            except TemplateError as error:
                found.append(mistake(error))
        if not found:
            try:
                self._finish(self.look(Draft(draft.sources), self.row))
            except MoaError as error:
                found.append(mistake(error))
        return found

    def _known(self, template: str | None) -> str:
        name = self.template if template is None else template
        if name is None:
            msg = f"pipeline {self.pipeline!r} uses no template on this input: there is nothing to edit"
            raise UnknownName(msg)
        if name not in self.templates:
            msg = f"pipeline {self.pipeline!r} uses no template {name!r}; {nearest(name, self.templates)}"
            raise UnknownName(msg)
        return name

    def sources(self, version: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return all sources by file: those of a version, or as they are edited (``None``), over the files."""
        with self._lock:
            return {**on_disk(), **self.inputs.sources, **(self._edits if version is None else version)}

    # Prompts and prices -----------------------------------------------------------------------

    def preview(self, row: int | None = None) -> Preview:
        """Return what a run on a row would send now; ``None``: the chosen row.

        Raises:
            TemplateError: a template cannot be used; ``check`` says where.
        """
        return self._finish(self.look(Draft(self.sources()), self.row if row is None else row))

    def prompts(self, layer: str | int | None = None, row: int | None = None) -> tuple[Call, ...]:
        """Return the calls of a layer with their prompts; ``None``: the first that uses the chosen template.

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
            return next(using, layers[-1])
        if isinstance(layer, int) and -len(layers) <= layer < len(layers):
            return layers[layer]
        for one in layers:
            if one.name == layer:
                return one
        msg = f"no layer {layer!r}; {nearest(str(layer), preview.names)}"
        raise UnknownName(msg)

    def estimate(self, rows: int | Sequence[int] | None = None) -> Estimate:
        """Return what a run would take at most: of the chosen row, or of as many rows, or of those at these positions."""
        if rows is None:
            return self.preview().estimate
        return self._finish(self._forecast(rows))

    async def _planned(self, draft: Draft, *, fresh: bool = False) -> Plan:
        """Return the plan with a draft's templates; ``fresh``: with whatever changed besides, and a budget of its own."""
        if fresh or self._plan is None or self._plan.settings is not configuration.current():
            self._plan = await self._engine.plan(self._checked)
        return replace(self._plan, load=draft.load, gateway=self._engine.gateway(self._plan.settings))

    async def look(self, draft: Draft, row: int) -> Preview:
        """Return what ``preview`` returns, of any templates, awaited on the engine's loop."""
        plan = await self._planned(draft)
        task = self.inputs.task(self.inputs.questions(draft), row)
        try:
            return await look(plan, task, plan.gateway)
        finally:
            with self._lock:
                self._used.update(dict.fromkeys(draft.used))

    async def _forecast(self, rows: int | Sequence[int]) -> Estimate:
        draft = Draft(self.sources())
        plan = await self._planned(draft)
        sample = self._sample(self.inputs.questions(draft), rows)
        return await forecast(plan, Synthesize(), sample, range(len(sample)), digest_of(plan), plan.gateway)

    # Running ----------------------------------------------------------------------------------

    def run(self, row: int | None = None) -> Result:
        """Return the run of a row with the templates as edited; what the store knows is not asked again.

        A version of the templates is kept.

        Raises:
            MoaError: there is no answer; ``error.result`` has what was finished.
        """
        return self._show(scene.answered, self._finish(self.arun(row)))

    def sample(
        self, rows: int | Sequence[int] = _ROWS, *, against: Version | str | int = SAVED, both: bool = False
    ) -> Trial:
        """Return the templates as edited over several rows, beside what another version answers.

        Args:
            rows: as many of the first that have something to ask, or their positions.
            against: the other version; its answers come from the store.
            both: whether the other version is run too, where the store does not know its answers.

        Raises:
            SpendingNotAgreed: it would take more than ``ask_above``, and there is no budget.
        """
        return self._show(scene.tried, self._finish(self.asample(rows, against=against, both=both)))

    async def arun(self, row: int | None = None) -> Result:
        """Return what ``run`` returns, awaited on the engine's loop."""
        draft = Draft(self.sources())
        plan = await self._planned(draft, fresh=True)
        task = self.inputs.task(self.inputs.questions(draft), self.row if row is None else row)
        self._remember(draft)
        record = self._engine.new_record(plan, task)
        return await self._engine.answer_and_keep(plan, task, record, kind="playground")

    async def asample(
        self, rows: int | Sequence[int] = _ROWS, *, against: Version | str | int = SAVED, both: bool = False
    ) -> Trial:
        """Return what ``sample`` returns, awaited on the engine's loop."""
        label, other = self.version_of(against)
        earlier = await self._rows_of(other, rows, ask=both)
        sources = self.sources()
        tried = await self._rows_of(sources, rows, ask=True)
        said = {one.position: one.text for one in earlier}
        return Trial(
            EDITED if self.edited else SAVED,
            label,
            tuple(replace(one, before=said.get(one.position)) for one in tried),
        )

    async def _rows_of(self, sources: Mapping[str, str], rows: int | Sequence[int], *, ask: bool) -> list[Tried]:
        draft = Draft(sources)
        plan = await self._planned(draft, fresh=ask)
        sample = self._sample(self.inputs.questions(draft), rows)
        if ask:
            await self._agree(plan, sample)
            self._remember(draft)
        try:
            async with asyncio.TaskGroup() as group:
                tried = [group.create_task(self._row(plan, sample, number, ask=ask)) for number in range(len(sample))]
        except BaseExceptionGroup as failed:
            raise gravest(failed) from None
        return [one.result() for one in tried]

    async def _row(self, plan: Plan, sample: Sample, number: int, *, ask: bool) -> Tried:
        position = sample.positions[number]
        label = self.inputs.label(position)
        try:
            task = self.inputs.task(sample.questions, position)
            if not ask:
                return Tried(position, label, (await look(plan, task, plan.gateway)).result, None)
            record = self._engine.new_record(plan, task)
            result = await self._engine.answer_and_keep(plan, task, record, kind="playground")
        except MoaError as error:
            if ask and error.kind == "setup" and not isinstance(error, TemplateError):
                raise
            return Tried(position, label, error.result, None, str(error))
        return Tried(position, label, result, None)

    async def _agree(self, plan: Plan, sample: Sample) -> None:
        """Return nothing if as much may be spent as the rows would take: as a frame's run is agreed."""
        is_said = self._checked.budget is not None or plan.settings.budget is not None
        if not is_said:
            await agree(plan, Synthesize(), sample, range(len(sample)), digest_of(plan), plan.gateway)

    def _sample(self, questions: Questions, rows: int | Sequence[int]) -> Sample:
        if isinstance(rows, int):
            return Sample.first(questions, rows)
        wrong = [row for row in rows if not 0 <= row < len(questions)]
        if wrong:
            msg = f"no row {wrong[0]}: there are {len(questions)}, from 0 on"
            raise UnknownName(msg)
        return Sample(questions, tuple(rows))

    # Versions ---------------------------------------------------------------------------------

    @property
    def versions(self) -> list[Version]:
        """The versions of this pipeline's templates in this project, oldest first, earlier sessions' included."""
        return self._store().versions(self._place, self.pipeline)

    def keep(self, name: str | None = None) -> Version:
        """Return the version of the templates as edited, kept under a name; the same templates are kept once.

        Raises:
            SetupError: the store can keep nothing.
        """
        if name is not None and (not name.strip() or name in {SAVED, EDITED}):
            msg = f"{name!r} cannot be a version's name: choose another"
            raise SetupError(msg)
        kept = self._store().keep_version(self._place, self.pipeline, self._own_sources(), name)
        if kept is None:
            msg = "the store cannot keep this version; %moa where says where it lies"
            raise SetupError(msg)
        self._follow()
        return kept

    def restore(self, version: Version | str | int) -> None:
        """Return nothing; the templates are edited to what they were in a version.

        Raises:
            UnknownName: there is no such version.
        """
        _, sources = self.version_of(version)
        disk = {**on_disk(), **self.inputs.sources}
        with self._lock:
            self._edits = {file: text for file, text in sources.items() if disk.get(file) != text}
        self._follow()

    def forget(self, version: Version | str | int) -> None:
        """Return nothing; a version is gone.

        Raises:
            UnknownName: there is no such version.
        """
        self._store().forget_version(self._find(version).id)
        self._follow()

    def difference(
        self, before: Version | str | int = SAVED, after: Version | str | int = EDITED, row: int | None = None
    ) -> differences.Difference:
        """Return how two versions differ word by word: templates, prompts, and outputs that the store knows.

        Args:
            before: a version, its name or number, ``"as saved"`` or ``"as edited"``.
            after: likewise.
            row: on which input; ``None``: the chosen row.
        """
        return self._finish(self.adifference(before, after, self.row if row is None else row))

    async def adifference(
        self, before: Version | str | int = SAVED, after: Version | str | int = EDITED, row: int | None = None
    ) -> differences.Difference:
        """Return what ``difference`` returns, awaited on the engine's loop."""
        (first, old), (second, new) = map(self.version_of, (before, after))
        seen: list[Preview | None] = []
        for sources in (old, new):
            try:
                seen.append(await self.look(Draft(sources), self.row if row is None else row))
            except MoaError:
                seen.append(None)  # its templates are shown all the same
        return differences.between((first, second), (old, new), (seen[0], seen[1]))

    def version_of(self, version: Version | str | int) -> tuple[str, dict[str, str]]:
        """Return what a version is called, and all its sources by file.

        Raises:
            UnknownName: there is no such version.
        """
        if version == EDITED:
            return EDITED, self.sources()
        if version == SAVED:
            return SAVED, self.sources({})
        found = version if isinstance(version, Version) else self._find(version)
        return found.label, self.sources(found.sources)

    def _find(self, version: Version | str | int) -> Version:
        if isinstance(version, Version):
            return version
        known = self.versions
        for one in reversed(known):
            if version in {one.id, one.label}:
                return one
        msg = f"no version {version!r}; {nearest(str(version), [SAVED, EDITED, *(one.label for one in known)])}"
        raise UnknownName(msg)

    def _own_sources(self) -> dict[str, str]:
        sources = self.sources()
        return {file: sources[file] for file in map(file_of, self.templates) if file in sources}

    def _remember(self, draft: Draft) -> None:
        """Return nothing; keep the version that is about to run. A store that cannot says so itself."""
        with self._lock:
            self._used.update(dict.fromkeys(draft.used))
            own = {file: draft.sources[file] for file in map(file_of, self.templates) if file in draft.sources}
        if own:
            self._store().keep_version(self._place, self.pipeline, own)

    def _store(self) -> Store:
        return self._engine.store(configuration.current())

    @property
    def _place(self) -> str:
        return str(configuration.project_folder())

    # Taking it along --------------------------------------------------------------------------

    def save(self, *templates: str, name: str | None = None) -> list[Path]:
        """Return the files that were written: from now on every run in this project uses them.

        Args:
            *templates: which; none: all that are edited.
            name: under which other name, for one template; the template that makes the prompts is then known by it.

        Raises:
            UnknownName: the pipeline uses no such template.
            TemplateError: one does not parse.
            SetupError: there is nothing to save, or no name for it, or the file cannot be written.
        """
        chosen = [self._known(template) for template in templates] or [*self.edited]
        if not chosen:
            msg = "no template is edited: there is nothing to save"
            raise SetupError(msg)
        if (name is not None and len(chosen) > 1) or (name is None and INPUT in chosen):
            msg = (
                f"name one template and its file, as in save({INPUT if INPUT in chosen else chosen[0]!r}, name='reply')"
            )
            raise SetupError(msg)
        draft = Draft(self.sources())
        for template in chosen:
            draft.load(template)
        files = [copies.write(name or template, draft.sources[file_of(template)]) for template in chosen]
        with self._lock:
            if name is None:
                for template in chosen:
                    self._edits.pop(file_of(template), None)
            elif chosen == [INPUT]:
                self.inputs = replace(self.inputs, template=name)
                self._edits.pop(file_of(INPUT), None)
                self._used = {name: None, **{used: None for used in self._used if used != INPUT}}
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
    def n_rows(self) -> int:
        """How many rows there are."""
        return 1 if self.inputs.is_text else len(self.inputs.data)

    @property
    def widget(self) -> Any:
        """The editor as a widget of its own, for front ends that keep outputs in frames; it leaves its earlier place."""
        self.open_editor(lambda bundle: None)  # noqa: ARG005 - it has no static form
        return self._editor.widget

    def open_editor(self, refresh: Callable[[dict[str, Any]], None]) -> str:
        """Return the class of the element in whose place a new editor stands; an earlier one is closed.

        Args:
            refresh: called with the static form whenever it should follow, on the engine's thread.
        """
        from moa_nb.notebook.playground.widget import Editor

        if self._editor is not None:
            self._editor.close()
        self._editor = Editor(self, refresh)
        mark: str = self._editor.widget.mark
        return mark

    def _show(self, drawn: Callable[[Any], dict[str, Any]], found: _T) -> _T:
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


def _name_of(file: str) -> str:
    return file.removesuffix(".jinja")
