"""What happens when a thread of the worker meets an error that nobody foresaw."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from puffin.errors import ExitCode

LONGEST_JOIN_S = 1.0
"""How long to wait for a thread that may wait for the database itself; the end of the process ends it anyway."""

_Self = TypeVar("_Self")


def ends_the_process(run: Callable[[_Self], None]) -> Callable[[_Self], None]:
    """Let the process end if a thread's function raises.

    A worker that lost the thread that renews its lease would look alive and do nothing for ever. Ended, it is
    started again, and its jobs, which die with it, are given back.

    Parameters
    ----------
    run
        The method that the thread runs.
    """

    @functools.wraps(run)
    def guarded(self: _Self) -> None:
        try:
            run(self)
        # This is where a thread ends, and with it the process.
        except BaseException:  # noqa: BLE001
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            os._exit(ExitCode.FAILED)

    return guarded
