"""Jobs that write down each of their turns, so that a test sees who runs, who stands still, and who ran when."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.lab.worker import Worker, until


def ticking_code(path: Path) -> str:
    """Code of a job that writes down its attempt at every turn, and ends when the file ``may-end`` is there."""
    return f"""
import os, time
attempt, name = os.environ["PUFFIN_ATTEMPT"], {str(path)!r}
ticks = open(name, "a", buffering=1)
ticks.write("start " + attempt + " %.3f\\n" % time.clock_gettime(time.CLOCK_BOOTTIME))
while not os.path.exists(name + ".may-end"):
    time.sleep(0.02)
    ticks.write("tick " + attempt + " %.3f\\n" % time.clock_gettime(time.CLOCK_BOOTTIME))
"""


def let_end(path: Path) -> None:
    Path(f"{path}.may-end").touch()


def _written(path: Path) -> list[list[str]]:
    """The words of each line; one that is just being written has no end yet."""
    text = path.read_text() if path.exists() else ""
    return [line.split() for line in text.split("\n")[:-1]]


def ticks(path: Path, attempt: int) -> list[float]:
    return [float(at) for _, number, at in _written(path) if number == str(attempt)]


def begins(path: Path, after: int = 0) -> int:
    """Wait until an attempt later than another goes on; return its number.

    With a short lease it need not be the next: who gets no answer to a claim in time gives back what it may have taken.
    """
    first: dict[int, int] = {}

    def look() -> int:
        turns = Counter(number for _, word, _ in _written(path) if (number := int(word)) > after)
        # One that was given back after its first turns goes on no more.
        moving = [number for number, count in turns.items() if count > first.setdefault(number, count) + 1]
        return min(moving, default=0)

    return until(look, f"an attempt after attempt {after} to go on")


def runs(path: Path, attempt: int) -> None:
    """Wait until an attempt goes on."""
    before = len(ticks(path, attempt))
    until(lambda: len(ticks(path, attempt)) > before + 1, f"attempt {attempt} to run")


def stands_still(path: Path, attempt: int) -> None:
    """Wait until an attempt has not moved for many of its ticks."""

    def look() -> bool:
        before = len(ticks(path, attempt))
        time.sleep(0.4)
        return len(ticks(path, attempt)) == before

    until(look, f"attempt {attempt} to stand still")


def never_ran_side_by_side(path: Path) -> None:
    attempts = sorted({int(number) for _, number, _ in _written(path)})
    for earlier, later in itertools.pairwise(attempts):
        assert ticks(path, earlier)[-1] < ticks(path, later)[0], f"attempts {earlier} and {later} overlapped"


def keeper_and_job(worker: Worker, path: Path) -> tuple[psutil.Process, psutil.Process]:
    """The job's own process is the one that has its ticks open; its parent is its keeper."""

    def look() -> psutil.Process | None:
        for process in worker.marked():
            try:
                if any(Path(entry.path) == path for entry in process.open_files()):
                    return process
            except psutil.Error:
                continue
        return None

    job = until(look, "the job's process")
    keeper = job.parent()
    assert keeper is not None
    return keeper, job
