"""Lines of the logs of many workers, in the order in which they were written. Pure."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)Z"
    r" +(?P<level>[A-Z]+) +(?P<worker>\S+) +(?P<calculation>-|[0-9a-f]{24})(?: (?P<message>.*))?\Z",
    re.DOTALL,
)


@dataclass(frozen=True)
class LogLine:
    """One line of a worker's log.

    Parameters
    ----------
    worker
        Whose log it is from.
    text
        The line as it was written.
    time
        When it was written; for a line without a time of its own, such as one of a traceback, that of the
        line before it. None where there is no such line.
    level, calculation, message
        Its parts; empty, None and the whole text where it has none.
    """

    worker: str
    text: str
    time: datetime | None = None
    level: str = ""
    calculation: str | None = None
    message: str = ""


def parse(worker: str, text: str) -> LogLine:
    """Read a line such as ``2026-11-22T11:40:00.123Z INFO  node1-1 6b02d5829fc92b7451414cc0 message``.

    The calculation is ``-`` where the line is about none. A line of another form is kept as it is.
    """
    found = _LINE.match(text)
    time = _time(found["time"]) if found else None
    if found is None or time is None:
        return LogLine(worker, text, message=text)
    calculation = None if found["calculation"] == "-" else found["calculation"]
    return LogLine(worker, text, time, found["level"], calculation, found["message"] or "")


def _time(text: str) -> datetime | None:
    whole, _, fraction = text.partition(".")
    try:
        moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None  # the form of a time, such as the 99th of a month, but none
    return moment + timedelta(microseconds=int(fraction.ljust(6, "0") or 0))


def parse_all(worker: str, texts: Iterable[str]) -> Iterator[LogLine]:
    """Read the lines of one log, in their order; those without a time get that of the line before."""
    last: datetime | None = None
    for text in texts:
        line = parse(worker, text)
        last = line.time or last
        yield line if line.time else replace(line, time=last)


_BEGINNING = datetime.min.replace(tzinfo=timezone.utc)


def merge(logs: Iterable[Iterable[LogLine]]) -> Iterator[LogLine]:
    """Merge logs by time; the lines of one log keep their order, also where a clock was set back."""
    for _, line in heapq.merge(*(_rising(log) for log in logs), key=lambda entry: entry[0]):
        yield line


def _rising(log: Iterable[LogLine]) -> Iterator[tuple[datetime, LogLine]]:
    latest = _BEGINNING
    for line in log:
        latest = max(latest, line.time or _BEGINNING)
        yield latest, line


def select(
    lines: Iterable[LogLine], since: datetime | None = None, pattern: re.Pattern[str] | None = None
) -> Iterator[LogLine]:
    """Leave out lines before a time, and lines without a match of a pattern."""
    for line in lines:
        if since is not None and (line.time is None or line.time < since):
            continue
        if pattern is None or pattern.search(line.text):
            yield line


@dataclass
class HoldBack:
    """Brings the lines of followed logs into order, by holding each back for a moment.

    Parameters
    ----------
    seconds
        How long a line waits for older ones of other workers.
    """

    seconds: float
    _waiting: list[tuple[datetime, int, float, LogLine]] = field(default_factory=list)
    _last: dict[str, LogLine] = field(default_factory=dict)
    _count: int = 0

    def add(self, worker: str, text: str, now: float) -> None:
        """Take a line that arrived at `now`, in seconds of any clock that never goes back."""
        line = parse(worker, text)
        before = self._last.get(worker)
        if before is not None and before.time and (line.time is None or line.time < before.time):
            ordered = before.time
        else:
            ordered = line.time or _BEGINNING
        line = line if line.time else replace(line, time=before.time if before else None)
        self._last[worker] = replace(line, time=ordered if ordered is not _BEGINNING else None)
        self._count += 1
        heapq.heappush(self._waiting, (ordered, self._count, now, line))

    def ready(self, now: float) -> Sequence[LogLine]:
        """Give the lines that have waited long enough, and those before them, in order."""
        due = [entry for entry in self._waiting if now - entry[2] >= self.seconds]
        return self._take(max(due)[:2]) if due else []

    def rest(self) -> Sequence[LogLine]:
        """Give all that waits, at the end."""
        return self._take(max(self._waiting)[:2]) if self._waiting else []

    def _take(self, until: tuple[datetime, int]) -> Sequence[LogLine]:
        taken = []
        while self._waiting and self._waiting[0][:2] <= until:
            taken.append(heapq.heappop(self._waiting)[3])
        return taken
