"""Ends processes that a worker's jobs left running after everything that should have ended them was killed.

The fork server is started with the path of the worker's process id file in its environment, and all processes
below it inherit that, the programs that jobs start included. So they are found again, however they were detached
from the process that started them; and who holds the lock on that file knows that they are nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import psutil

from puffin import cgroup

MARK = "PUFFIN_PID_FILE"
_TRIES = 100
_PAUSE_S = 0.02


def end_leftovers(lock: str) -> int:
    """Kill the marked processes that are not this worker's, and remove their control groups.

    Parameters
    ----------
    lock
        Path of the worker's process id file, whose lock the caller holds.

    Returns
    -------
    int
        How many there were.
    """
    ended: set[int] = set()
    for _ in range(_TRIES):
        found = list(_strays(lock))
        if not found:
            break
        for process in found:
            ended.add(process.pid)
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(_PAUSE_S)
    cgroup.remove_leftovers(lock, is_ours)
    return len(ended)


def _strays(lock: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        # Each is asked for its parents only now: of those that are just being forked an earlier list knows nothing.
        if _is_marked(process, lock) and not is_ours(process.pid) and process.is_running():
            yield process


def is_ours(pid: int) -> bool:
    """Whether a process is this one or below it.

    As the first process of a container a worker inherits also what nobody looks after any more. That is known by its
    session: what the worker itself starts is in its own, each job and all that belongs to it is not.

    Parameters
    ----------
    pid
        The process.
    """
    try:
        line = [pid, *(parent.pid for parent in psutil.Process(pid).parents())]
    except psutil.Error:
        return False
    if os.getpid() not in line:
        return False
    below = line[: line.index(os.getpid())]
    return not below or os.getpid() != 1 or _session(below[-1]) == os.getsid(0)


def _session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None


def _is_marked(process: psutil.Process, lock: str) -> bool:
    # Other users' processes cannot be read, and some end while they are looked at.
    with contextlib.suppress(psutil.Error, OSError):
        if process.uids().real == os.getuid() and process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get(MARK) == lock
    return False
