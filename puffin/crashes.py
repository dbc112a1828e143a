"""Counts how often a worker ended without saying so, over its incarnations.

supervisord gives up only on a program that ends at once; one that dies after seconds is started for ever.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path


class Crashes:
    """The crashes of one worker, in a file beside its pid file; a file that cannot be kept counts nothing.

    Parameters
    ----------
    pid_file
        The worker's pid file.
    window_s
        For how long a crash counts, in seconds.
    """

    def __init__(self, pid_file: str, window_s: float) -> None:
        self._path = Path(f"{pid_file}.crashes")
        self._window_s = window_s

    def begin(self, now: float) -> int:
        """Note that the worker begins; return how many of its incarnations have crashed lately.

        Parameters
        ----------
        now
            Seconds since 1970.
        """
        running, times = self._read()
        if running:
            times.append(now)
        times = [time for time in times if 0 <= now - time <= self._window_s]
        self._write(times)
        return len(times)

    def forget(self) -> None:
        """Note that the worker ends in order, whatever for: its crashes are behind it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> tuple[bool, list[float]]:
        try:
            return True, [float(time) for time in json.loads(self._path.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return False, []
        except (OSError, ValueError, TypeError):
            return True, []  # it was cut off while it was written, or cannot be read: this start counts as the first

    def _write(self, times: list[float]) -> None:
        # A full disk must not keep a worker from starting.
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps(times), encoding="utf-8")


def last_lines(path: str, count: int = 6, longest: int = 140) -> list[str]:
    """The last lines of a log, each cut to a length; none where it cannot be read.

    Parameters
    ----------
    path
        The log.
    count
        How many.
    longest
        Characters of a line that are kept.
    """
    try:
        with Path(path).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - 16384))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line[:longest] for line in text.splitlines()[-count:]]
