"""The processes below this one: none of them escapes, however it forks and whoever its parent was."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; one that had ended before is not noticed."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def reap(job: int) -> int | None:
    """Collect ended children; return the job's status once it is among them.

    Parameters
    ----------
    job
        The id of its first process.
    """
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == job:
            status = os.waitstatus_to_exitcode(raw)


def kill_descendants() -> None:
    """Kill until nothing is left; a process may fork while it is being killed, or hang in the kernel for long."""
    pause = 0.001
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            signal_descendants(signal.SIGKILL)
            time.sleep(pause)
            pause = min(2 * pause, 0.5)


def signal_descendants(number: signal.Signals) -> None:
    """Send all of them a signal, also those that are forked meanwhile.

    Parameters
    ----------
    number
        The signal.
    """
    signalled: set[int] = set()
    # Those that were forked between the listing and the signal are found by listing again.
    while new := [child for child in psutil.Process().children(recursive=True) if child.pid not in signalled]:
        for child in new:
            signalled.add(child.pid)
            with contextlib.suppress(psutil.Error):
                child.send_signal(number)


def _prctl(option: int, argument: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
