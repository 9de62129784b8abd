"""Which process runs something, and whether it is still there: a kernel that was killed can tell nobody."""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
from pathlib import Path

__all__ = ["may_live", "this_process"]

_ELSEWHERE = 7 * 86_400.0
"""Seconds for which a process that cannot be looked for, as one on another machine, is taken at its word."""

_GONE = "gone"


def this_process() -> str:
    """Return the mark of this process: machine, its latest start, process, its start; what is not known is empty."""
    return _mark(os.getpid())


@functools.lru_cache(maxsize=1)  # a forked child is another process
def _mark(process: int) -> str:
    return f"{_machine()} {process} {_start(process)}"


def may_live(mark: str | None, since: float) -> bool:
    """Return whether a process may be at work still; one that cannot be looked for is, for a week.

    Args:
        mark: as ``this_process`` gave it; ``None``: nobody is at work.
        since: when it began, in seconds since 1970.

    >>> may_live(this_process(), 0.0), may_live(None, 0.0)
    (True, False)
    """
    if mark is None:
        return False
    if mark == this_process():
        return True
    machine, process, start = ["", "", "", *mark.rsplit(" ", 2)][-3:]
    is_recent = time.time() - since < _ELSEWHERE
    host, boot = [*machine.split(" "), ""][:2]
    own_host, own_boot = _machine().split(" ")
    if host != own_host or not process.isdecimal():
        return is_recent
    if boot != own_boot:
        return False  # the machine was started again since
    found = _start(int(process))
    return found != _GONE and (is_recent if not found or not start else found == start)


@functools.cache
def _machine() -> str:
    """Return the machine's name, and what tells one of its starts from another."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname().replace(' ', '-')} {boot}"


if sys.platform == "win32":

    def _start(process: int) -> str:
        """Return when a process began, as its system counts it; ``gone`` where there is none."""
        import ctypes
        from ctypes import wintypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = wintypes.HANDLE
        kernel.GetProcessTimes.argtypes = [wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4]
        kernel.GetExitCodeProcess.argtypes = [wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD)]
        kernel.CloseHandle.argtypes = [wintypes.HANDLE]
        handle = kernel.OpenProcess(0x1000, False, process)  # to ask for what anybody may know
        if not handle:
            return "" if ctypes.get_last_error() == 5 else _GONE  # 5: it is there, and is somebody else's
        try:
            times = [wintypes.FILETIME() for _ in range(4)]
            code = wintypes.DWORD()
            if not kernel.GetProcessTimes(handle, *map(ctypes.byref, times)):
                return ""
            if kernel.GetExitCodeProcess(handle, ctypes.byref(code)) and code.value != 259:  # still active
                return _GONE
            return str((times[0].dwHighDateTime << 32) | times[0].dwLowDateTime)
        finally:
            kernel.CloseHandle(handle)

else:

    def _start(process: int) -> str:
        """Return when a process began, as its system counts it; ``gone`` where there is none, empty if it cannot be told."""
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return _GONE
        except PermissionError:
            pass  # it is there, and is somebody else's
        try:
            # After the name, which may hold blanks and brackets: the state, then 18 figures, then the start.
            fields = Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            return ""
        return _GONE if fields[0] in {"Z", "X"} else fields[19]
