"""Where things are: the store, settings files, templates, the secret of the fences."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from functools import cache
from pathlib import Path

import platformdirs

from moa_nb.errors import SettingsError

__all__ = ["HOME", "data_folder", "fence_secret", "project_file", "project_folder", "template_folders", "user_folder"]

HOME = "MOA_NB_HOME"
"""The variable that names one folder for everything."""

_LOOKS = 50
"""How often a file that is still empty is looked at, a hundredth of a second apart."""

_TABLE = re.compile(rb"^(?:\xef\xbb\xbf)?\s*\[tool\.moa[_-]nb[.\]]", re.MULTILINE)


def data_folder() -> Path:
    """Return the folder of the store: ``MOA_NB_HOME``, or the user's data folder."""
    return _home() or Path(platformdirs.user_data_path("moa_nb", appauthor=False))


def user_folder() -> Path:
    """Return the folder of the user's settings and templates."""
    return _home() or Path(platformdirs.user_config_path("moa_nb", appauthor=False))


def _home() -> Path | None:
    named = os.environ.get(HOME)
    try:
        return Path(named).expanduser() if named else None
    except RuntimeError:
        msg = f"{HOME} is {named}, and nobody of that name is known here: name a folder in full"
        raise SettingsError(msg) from None


def project_folder() -> Path:
    """Return the nearest folder upwards that has a ``moa.toml`` or ``[tool.moa_nb]``; else this one."""
    found = project_file()
    return found.parent if found else Path.cwd()


def template_folders() -> list[Path]:
    """Return where the user's own templates may lie: the project's folder first, then the user's."""
    return [project_folder() / "templates", user_folder() / "templates"]


def project_file() -> Path | None:
    """Return the file that makes this the project, or ``None``."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "moa.toml").is_file():
            return folder / "moa.toml"
        pyproject = folder / "pyproject.toml"
        if pyproject.is_file() and _TABLE.search(pyproject.read_bytes()):
            return pyproject
    return None


def fence_secret() -> bytes:
    """Return the secret of this user's fences: the same on every run, known to nobody else.

    It lies in the data folder. Where that cannot be written, this process has one of its own, and
    requests are byte-identical only within it.
    """
    return _secret_in(data_folder())


@cache
def _secret_in(folder: Path) -> bytes:
    path = folder / "fence.key"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = folder / f".fence.{os.getpid()}.{secrets.token_hex(4)}"
        if not path.exists():
            fresh.touch(mode=0o600)
            fresh.write_bytes(secrets.token_bytes(32))
            try:
                # A link appears whole or not at all: two kernels that start at once agree on one.
                os.link(fresh, path)
            except FileExistsError:
                pass
            except OSError:
                _create(path, fresh.read_bytes())  # no links here, as on many network drives
            with contextlib.suppress(OSError):  # something may be reading it, as scanners do
                fresh.unlink()
        stored = _settled(path)
    except OSError:
        stored = b""
    return stored if len(stored) == 32 else secrets.token_bytes(32)


def _create(path: Path, content: bytes) -> None:
    """Return nothing; the file has this content, or what another process began to write into it."""
    try:
        with open(path, "xb", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            file.write(content)
    except FileExistsError:
        pass


def _settled(path: Path) -> bytes:
    """Return what the file holds once whoever creates it has written it."""
    for _ in range(_LOOKS):
        content = path.read_bytes()
        if content:
            break
        time.sleep(0.01)
    return content
