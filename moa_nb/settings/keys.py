"""Where the keys of services are looked for, and under which name; never kept, never written, never shown."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from moa_nb.errors import SettingsError

__all__ = ["Keys"]


@dataclass(frozen=True)
class Keys:
    """The places of keys: the environment, then a ``.env`` file and Colab's secrets where the settings say so.

    What is found stays where it is: nothing is copied into the environment.
    """

    env_file: Path | None = None
    colab: bool = False

    def find(self, name: str, *, again: bool = False) -> tuple[str, str] | None:
        """Return the value of a name and the place where it was found; ``None`` if it is nowhere.

        Args:
            name: as in ``OPENAI_API_KEY``.
            again: whether Colab is asked again for a secret that it did not give.

        Raises:
            SettingsError: the file cannot be read.
        """
        value = os.environ.get(name, "")
        if value.strip():
            return value, f"environment ({name})"
        value = self._in_file().get(name) or ""
        if value.strip():
            return value, f"{self.env_file} ({name})"
        if self.colab:
            if again and not _colab_secret(name)[0]:
                _colab_secret.cache_clear()
            value = _colab_secret(name)[0]
            if value.strip():
                return value, f"Colab's secrets ({name})"
        return None

    def advice(self, name: str) -> str:
        """Return what to do about a name that is nowhere."""
        refusal = _colab_secret(name)[1] if self.colab else None
        if refusal:
            return refusal
        places = [f"set the environment variable {name}"]
        if self.env_file is not None:
            state = "" if self.env_file.is_file() else ", a file that is not there"
            places.append(f"write {name}=… into {self.env_file}{state}")
        if self.colab:
            places.append(f"add {name} to Colab's secrets")
        return ", or ".join(places)

    def _in_file(self) -> dict[str, str | None]:
        if self.env_file is None:
            return {}
        try:
            state = self.env_file.stat()
        except OSError:
            return {}  # a project's settings may name one that only some of its people have
        return _read(self.env_file, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4)
def _read(file: Path, changed: int, size: int) -> dict[str, str | None]:  # noqa: ARG001 - a changed file is read again
    from dotenv import dotenv_values

    try:
        return dict(dotenv_values(file, encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        words = "is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        msg = f"env_file {file} {words}; write it anew with a line NAME=key for each key, or leave env_file out"
        raise SettingsError(msg) from None


@functools.cache
def _colab_secret(name: str) -> tuple[str, str | None]:
    """Return a secret, or an empty text and what to do about it; each is asked for once, since Colab may ask its user."""
    try:
        from google.colab import userdata  # type: ignore[import-not-found, unused-ignore] # only Colab has it
    except ImportError:
        return "", None  # the same settings serve at home
    try:
        return str(userdata.get(name) or ""), None
    except Exception as error:  # whatever stands between a notebook and its secrets
        kind = type(error).__name__
        if kind == "NotebookAccessError":
            return "", f"give this notebook access to {name} under Colab's secrets (the key symbol), and run it again"
        if kind == "SecretNotFoundError":
            return "", None
        return "", f"Colab's secrets cannot be read ({kind}): set the environment variable {name}"
