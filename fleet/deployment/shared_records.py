"""What workers reported, read from the database once for all hosts that are watched at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from puffin.errors import DatabaseUnavailable
from puffin.records import WorkerRecord

_AGE_S = 1.0
"""How old they may be if nothing else is said, in seconds: no host is looked at more often."""

ReadRecords = Callable[[], Sequence[WorkerRecord]]


def shared(read: ReadRecords, age_s: float = _AGE_S) -> ReadRecords:
    """The same for many hosts that are watched at once: what one has read a moment ago the others take over.

    Else each of forty hosts would read the entries of all forty, each second. An old entry does no harm: one counts
    only for the process that wrote it.

    Parameters
    ----------
    read
        Reads them.
    age_s
        How old they may be, in seconds.
    """
    mutex = threading.Lock()
    last: list[tuple[float, Sequence[WorkerRecord] | DatabaseUnavailable]] = []

    def attempt() -> Sequence[WorkerRecord] | DatabaseUnavailable:
        try:
            return read()
        except DatabaseUnavailable as error:
            return error  # that it is away is also learnt once for all: each attempt may take seconds

    def fresh() -> Sequence[WorkerRecord]:
        with mutex:
            if not last or time.monotonic() - last[0][0] >= age_s:
                found = attempt()
                last[:] = [(time.monotonic(), found)]
            found = last[0][1]
        if isinstance(found, DatabaseUnavailable):
            raise DatabaseUnavailable(str(found)) from found
        return found

    return fresh
