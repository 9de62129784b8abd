"""Real kernels, started by a test.

The kernel's Python is this one, or that of the environment variable ``TESTS_KERNEL_PYTHON``.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import tempfile

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

__all__ = ["new_manager"]

_PYTHON = os.environ.get("TESTS_KERNEL_PYTHON", sys.executable)

_folder = tempfile.TemporaryDirectory(prefix="k")
atexit.register(_folder.cleanup)
_numbers = itertools.count()


def new_manager() -> KernelManager:
    """Return a manager whose kernel is not running yet.

    They speak through files: a port that is free when a manager looks for one may be another test's server by the
    time the kernel takes it.
    """
    files = {} if sys.platform == "win32" else {"transport": "ipc", "ip": f"{_folder.name}/{next(_numbers)}"}
    manager = KernelManager(**files)
    manager._kernel_spec = KernelSpec(
        argv=[_PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="moa",
        language="python",
    )
    return manager
