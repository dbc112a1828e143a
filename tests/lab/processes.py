"""What tests ask about processes that are not their own children."""

from __future__ import annotations

import psutil


def has_ended(process: psutil.Process | int) -> bool:
    """Whether a process, or the one of an id, has ended; also where nobody has reaped it yet."""
    try:
        known = psutil.Process(process) if isinstance(process, int) else process
        return not known.is_running() or known.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # in between
        return True
