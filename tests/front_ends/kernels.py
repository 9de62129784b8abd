"""The versions of ipykernel on which the matrix runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import zmq
from lab import OUTPUT

__all__ = ["NEWEST", "VERSIONS", "knocked", "put", "spec"]

NEWEST = "newest"
"""The one beside these tests."""

VERSIONS = {"6.31": "6.31.0", "7.3": "7.3.0", NEWEST: None}
"""What is asked of the registry; each is installed once into a folder of its own, without what it needs."""

_FOLDER = OUTPUT / "ipykernel"


def spec(kernel: str) -> dict[str, Any]:
    """Return how a kernel is started.

    The test is skipped where its ipykernel cannot be had, and fails where a browser is required, as all of it is then.
    """
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    found = {"argv": command, "display_name": f"ipykernel {kernel}", "language": "python", "env": {}}
    version = VERSIONS[kernel]
    if version is None:
        return found
    folder = _FOLDER / version
    if not (folder / "ipykernel_launcher.py").exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: other tests may look for it, or install it, at this moment.
        with tempfile.TemporaryDirectory(dir=_FOLDER) as beside:
            fresh = Path(beside, version)
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(fresh)]
            installed = subprocess.run(
                [*install, f"ipykernel=={version}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if installed.returncode:
                why = f"ipykernel {version} could not be installed: {installed.stderr[-300:]}"
                if os.environ.get("TESTS_REQUIRE_BROWSER") == "1":
                    pytest.fail(why)
                pytest.skip(why)
            with contextlib.suppress(OSError):  # somebody else was quicker
                fresh.rename(folder)
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    found["env"] = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    return found


def put(folder: Path, kernel: str) -> None:
    """Return nothing; write how a kernel is started into a folder of Jupyter's data."""
    place = folder / "kernels" / kernel
    place.mkdir(parents=True, exist_ok=True)
    (place / "kernel.json").write_text(json.dumps(spec(kernel)))


@contextlib.contextmanager
def knocked(kernel: str, folder: Path) -> Iterator[None]:
    """Connect to the kernels whose connection files are in a folder once a second, if they are of 7.3.

    Up to 7.3, ipykernel 7 may not see a request that comes while it sends a reply, until somebody else connects
    (its issue 1554; mended in 7.4): the cell waits for ever beside an idle kernel, whatever is in it.
    """
    if kernel != "7.3":
        yield
        return
    over = Event()
    knocking = Thread(target=_knock, args=(folder, over), name="knocking")
    knocking.start()
    try:
        yield
    finally:
        over.set()
        knocking.join()


def _knock(folder: Path, over: Event) -> None:
    with zmq.Context() as context:
        while not over.is_set():
            with contextlib.ExitStack() as connections:
                for file in folder.glob("kernel-*.json"):
                    with contextlib.suppress(OSError, ValueError):  # it comes or goes just now
                        found = json.loads(file.read_bytes())
                        between = ":" if found["transport"] == "tcp" else "-"
                        visitor = connections.enter_context(context.socket(zmq.DEALER))
                        visitor.linger = 0
                        visitor.connect(f"{found['transport']}://{found['ip']}{between}{found['shell_port']}")
                over.wait(1)
