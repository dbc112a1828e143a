"""Lines of the logs of many workers, in the order in which they were written. Pure."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fleet.hostside.loglines import LINE, moment

_ESCAPE = re.compile(r"\\(n|r|\\)")
_ESCAPED = {"n": "\n", "r": "\r", "\\": "\\"}


@dataclass(frozen=True)
class LogLine:
    """One message of a worker.

    Parameters
    ----------
    worker
        Who wrote it.
    text
        The line as it was written; several where they belong together, such as those of a traceback.
    time
        When it was written; for a line without a time of its own that of its neighbour.
    host
        Where.
    file
        ``log``: the worker's own; ``out``: what it printed.
    level, calculation, message
        Its parts; empty, None and the whole text where it has none. A message may have several lines.
    """

    worker: str
    text: str
    time: datetime
    host: str = ""
    file: str = "log"
    level: str = ""
    calculation: str | None = None
    message: str = ""


def parse(host: str, log: str, at: float, text: str) -> LogLine:
    """Read a line such as ``2026-11-22T11:40:00.123Z INFO  node1-1 6b02d5829fc92b7451414cc0 message``.

    Parameters
    ----------
    host
        Where it is from.
    log
        Name of the log, as ``node1-1.log``.
    at
        Seconds since 1970, for a line without a time of its own.
    text
        The line. The calculation is ``-`` where it is about none; a line of another form is kept as it is.
    """
    worker, _, file = log.rpartition(".")
    found = LINE.match(text)
    time = moment(found["time"]) if found else None
    if found is None or time is None:
        return LogLine(worker, text, datetime.fromtimestamp(at, timezone.utc), host, file, message=text)
    calculation = None if found["calculation"] == "-" else found["calculation"]
    message = _ESCAPE.sub(lambda sign: _ESCAPED[sign[1]], found["message"] or "")
    return LogLine(worker, text, time, host, file, found["level"], calculation, message)


def messages_of(host: str, entry: Mapping[str, Any]) -> list[LogLine]:
    """The messages in one entry of the action `tail`; none in an entry that tells of something else.

    Parameters
    ----------
    host
        Where it is from.
    entry
        What the host said.
    """
    return [parse(host, str(log), float(at), str(text)) for log, at, text in entry.get("messages", ())]


def telling(lines: Sequence[LogLine], count: int) -> list[str]:
    """The lines that tell most about a worker's end: its last errors and its very last words, each once, the last time.

    Parameters
    ----------
    lines
        What it wrote, in order.
    count
        How many lines at most.
    """
    last = set(range(len(lines) - count // 2, len(lines)))
    errors = [at for at, line in enumerate(lines) if line.level == "ERROR" and at not in last][-count // 2 :]
    chosen = sorted({*errors, *(at for at in last if at >= 0)})
    texts = [text for at in chosen for text in lines[at].text.splitlines()]
    return list(dict.fromkeys(reversed(texts)))[:count][::-1]


@dataclass
class _Waiting:
    """What is known of a host: lines that wait, and since when one is owed."""

    lines: int = 0
    reading: bool = True
    owes_since: float | None = None


class Merge:
    """Brings the lines of many hosts into the order of their times, as far as waiting for them is worth it.

    What hosts read of the past is merged exactly: nothing is given while a host still owes its next line, but no host
    is waited for longer than `patience`. What is being added is held back for a moment, so that older lines of other
    hosts can arrive.

    Parameters
    ----------
    hosts
        Their names.
    now
        Seconds of any clock that never goes back.
    patience
        Seconds to wait for a host that still reads.
    hold
        Seconds for which a new line waits.
    """

    def __init__(self, hosts: Iterable[str], now: float, patience: float, hold: float) -> None:
        self._patience = patience
        self._hold = hold
        self._hosts = {host: _Waiting(owes_since=now) for host in hosts}
        self._lines: list[tuple[datetime, int, LogLine]] = []
        self._due: list[tuple[float, datetime, int]] = []
        self._limit: tuple[datetime, int] = (datetime.min.replace(tzinfo=timezone.utc), 0)
        self._latest: dict[tuple[str, str], datetime] = {}
        self._count = 0

    def add(self, lines: Sequence[LogLine], now: float) -> None:
        """Take lines of one host that have arrived; those of one log stay in their order."""
        for line in lines:
            host = self._hosts[line.host]
            log = (line.host, f"{line.worker}.{line.file}")
            key = max(line.time, self._latest.get(log, line.time))
            self._latest[log] = key
            self._count += 1
            host.lines += 1
            host.owes_since = None
            heapq.heappush(self._lines, (key, self._count, line))
            heapq.heappush(self._due, (now if host.reading else now + self._hold, key, self._count))

    def caught_up(self, host: str) -> None:
        """A host has said all that was there: what comes now is new."""
        self._hosts[host].reading = False
        self._hosts[host].owes_since = None

    def waiting(self, host: str) -> int:
        """How many lines of a host were taken and not yet given."""
        return self._hosts[host].lines

    def late(self, now: float) -> list[str]:
        """The hosts that were waited for too long."""
        return [name for name, host in self._hosts.items() if self._is_late(host, now)]

    def _is_late(self, host: _Waiting, now: float) -> bool:
        return host.owes_since is not None and now - host.owes_since >= self._patience

    def ready(self, now: float) -> list[LogLine]:
        """Give the lines whose turn it is."""
        while self._due and self._due[0][0] <= now:
            _, key, count = heapq.heappop(self._due)
            self._limit = max(self._limit, (key, count))
        owing = any(host.owes_since is not None for host in self._hosts.values() if not self._is_late(host, now))
        given = []
        while self._lines and not owing and self._lines[0][:2] <= self._limit:
            line = heapq.heappop(self._lines)[2]
            given.append(line)
            host = self._hosts[line.host]
            host.lines -= 1
            if host.reading and host.lines == 0:
                host.owes_since = now
                owing = True
        return given

    def rest(self) -> list[LogLine]:
        """Give all that waits, at the end."""
        found = [line for _, _, line in sorted(self._lines, key=lambda entry: entry[:2])]
        self._lines, self._due = [], []
        return found
