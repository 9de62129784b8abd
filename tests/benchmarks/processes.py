"""Processes of a benchmark: a server that outlives its clients, and children that measure themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


def environment(home: str | Path) -> dict[str, str]:
    """Return a child's environment: this checkout, a store of its own, and none of the user's keys."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MOA_NB_") and "_API_KEY" not in key}
    path = os.environ.get("PYTHONPATH", str(_ROOT))
    return {**kept, "MOA_NB_HOME": str(home), "PYTHONPATH": path, "LAB_KEY": "key"}


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """Yield the address that a server prints when it listens; it ends when its standard input closes."""
    server = subprocess.Popen(
        [sys.executable, *command],
        env=environment(tempfile.gettempdir()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def result_of(*command: str, home: str | Path | None = None) -> Any:
    """Return what a child printed as JSON on its last line; its store is in ``home``, else in a folder that goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, *command],
            env=environment(home or folder),
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> str:
    """Return what else there was to do on this machine, which is the noise of a figure."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return f"{os.cpu_count()} processors, load {load} at the end"
