"""The templates of a playground: as the files have them, as they are edited, as they once were."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from moa_nb import settings
from moa_nb.errors import SetupError, UnknownName, nearest
from moa_nb.notebook.playground.bench import Bench
from moa_nb.notebook.playground.drafts import Draft, file_of, name_of, on_disk
from moa_nb.store.versions import Version

__all__ = ["EDITED", "GIVEN", "SAVED", "Editing"]

SAVED, EDITED = "as saved", "as edited"

GIVEN = "as given"
"""What ``SAVED`` is called where nothing was saved."""
"""What the templates in the files, and those that are being edited, are called beside the versions."""


class Editing:
    """What is edited, and the versions that were kept; on any thread.

    Args:
        bench: the pipeline and its inputs.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._lock = threading.RLock()
        self._edits: dict[str, str] = {}
        """Sources by file, where they differ from the files."""
        self._used: dict[str, None] = {}

    @property
    def templates(self) -> list[str]:
        """The templates that the pipeline was seen to use, and those that are edited."""
        with self._lock:
            return [*dict.fromkeys([*self._used, *map(name_of, self._edits)])]

    @property
    def edited(self) -> dict[str, str]:
        """The sources that differ from the files, by template."""
        saved = self._saved()
        with self._lock:
            return {name_of(file): text for file, text in self._edits.items() if saved.get(file) != text}

    def sources(self, version: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return all sources by file: those of a version, or as they are edited (``None``), over the files."""
        saved = self._saved()
        with self._lock:
            return saved | self._edits if version is None else saved | dict(version)

    def draft(self) -> Draft:
        """Return the templates as they are edited."""
        return Draft(self.sources())

    def saw(self, draft: Draft) -> None:
        """Return nothing; what a draft was asked for is used by the pipeline."""
        with self._lock:
            self._used.update(dict.fromkeys(draft.used))

    def known(self, template: str) -> str:
        """Return the name of a template that can be edited.

        Raises:
            UnknownName: the pipeline uses no such template.
        """
        if template not in self.templates:
            msg = (
                f"pipeline {self._bench.pipeline!r} uses no template {template!r}; {nearest(template, self.templates)}"
            )
            raise UnknownName(msg)
        return template

    def put(self, template: str, source: str) -> None:
        """Return nothing; a template has this source from now on."""
        with self._lock:
            self._edits[file_of(template)] = source.replace("\r\n", "\n")

    def drop(self, templates: Iterable[str]) -> None:
        """Return nothing; these templates are as the files have them."""
        with self._lock:
            for template in templates:
                self._edits.pop(file_of(template), None)

    def rename(self, template: str, name: str) -> None:
        """Return nothing; what was edited under one name now is the file of another."""
        with self._lock:
            self._edits.pop(file_of(template), None)
            self._used = {name if used == template else used: None for used in self._used}

    def _saved(self) -> dict[str, str]:
        return {**on_disk(), **self._bench.inputs.sources}

    # Versions ---------------------------------------------------------------------------------

    @property
    def versions(self) -> list[Version]:
        """The versions of this pipeline's templates in this project, oldest first, earlier sessions' included."""
        return self._bench.store.versions(self._place, self._bench.pipeline)

    def keep(self, sources: Mapping[str, str], name: str | None = None) -> Version:
        """Return the version of these sources, of which those that the pipeline uses are kept; equal ones are kept once.

        Raises:
            SetupError: the name cannot be one, or the store can keep nothing.
        """
        if name is not None and (not name.strip() or name in {SAVED, GIVEN, EDITED}):
            msg = f"{name!r} cannot be a version's name: choose another"
            raise SetupError(msg)
        own = {file: sources[file] for file in map(file_of, self.templates) if file in sources}
        kept = self._bench.store.keep_version(self._place, self._bench.pipeline, own, name)
        if kept is None:
            msg = "the store cannot keep this version; %moa where says where it lies"
            raise SetupError(msg)
        return kept

    def restore(self, sources: Mapping[str, str]) -> None:
        """Return nothing; the templates are edited to these sources."""
        saved = self._saved()
        with self._lock:
            self._edits = {file: text for file, text in sources.items() if saved.get(file) != text}

    def forget(self, version: Version) -> None:
        """Return nothing; a version is gone."""
        self._bench.store.forget_version(version.id)

    def find(self, version: Version | str | int) -> Version:
        """Return a version by its name or number; the latest of several.

        Raises:
            UnknownName: there is no such version.
        """
        if isinstance(version, Version):
            return version
        known = self.versions
        for one in reversed(known):
            if version in {one.id, one.label}:
                return one
        msg = f"no version {version!r}; {nearest(str(version), [SAVED, EDITED, *(one.label for one in known)])}"
        raise UnknownName(msg)

    def state(self, version: Version | str | int) -> tuple[str, dict[str, str]]:
        """Return what a version is called, and all sources by file with its own over the files.

        Raises:
            UnknownName: there is no such version.
        """
        if version == EDITED:
            return EDITED, self.sources()
        if version == SAVED:
            return SAVED, self.sources({})
        found = self.find(version)
        return found.label, self.sources(found.sources)

    @property
    def _place(self) -> str:
        return str(settings.project_folder())
