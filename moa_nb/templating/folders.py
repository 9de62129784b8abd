"""Where templates and pipelines lie: in the project's folder, the user's or ours; the first that has a file counts."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from moa_nb import settings
from moa_nb.errors import TemplateError

__all__ = ["names", "read", "root"]


def root() -> Traversable:
    """Return the shipped ``templates/``: inside the wheel, or beside the package in a checkout."""
    shipped = files("moa_nb").joinpath("templates")
    return shipped if shipped.is_dir() else Path(__file__).parents[2] / "templates"


def _folders(kind: str) -> list[tuple[str, Traversable]]:
    project, user = settings.template_folders()
    shipped = root()
    own = [(place, folder / kind) for place, folder in (("project", project), ("user", user)) if folder != shipped]
    return [*own, ("built-in", shipped.joinpath(kind))]


def read(kind: str, file: str) -> tuple[str, str] | None:
    """Return a file's text and where it lies: the project's, the user's, or ours; ``None`` if nowhere.

    Args:
        kind: ``prompts``, ``pipelines`` or ``panels``.
        file: its name with the ending, such as ``moa.toml``.
    """
    if ".." in Path(file).parts or Path(file).is_absolute():
        return None
    for _, folder in _folders(kind):
        found = folder.joinpath(file)
        try:
            if not found.is_file():
                continue
        except OSError:  # a name that no file can have
            continue
        try:
            return found.read_text("utf-8-sig"), str(found)  # editors on Windows put a mark there
        except UnicodeDecodeError as error:
            msg = f"{found} is not UTF-8 text: {error.reason} at byte {error.start}"
            raise TemplateError(msg) from None
        except OSError as error:
            msg = f"{found} cannot be read: {error.strerror}"
            raise TemplateError(msg) from None
    return None


def names(kind: str, ending: str) -> dict[str, str]:
    """Return the names of all files of a kind, each with its place: project, user or built-in."""
    found: dict[str, str] = {}
    for place, folder in _folders(kind):
        for name in _walk(folder, ending):
            found.setdefault(name, place)
    return dict(sorted(found.items()))


def _walk(folder: Traversable, ending: str, prefix: str = "") -> Iterable[str]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, ending, f"{prefix}{entry.name}/")
        elif entry.name.endswith(ending):
            yield prefix + entry.name.removesuffix(ending)
