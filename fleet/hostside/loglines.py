"""Lines of logs as messages with a time, and which of them somebody wants. Pure; also used by `fleet.reach.logs`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)Z"
    r" +(?P<level>[A-Z]+) +(?P<worker>\S+) +(?P<calculation>-|[0-9a-f]{24})(?: (?P<message>.*))?\Z",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LONGEST = 1000
"""Lines of one message; what follows is taken for another one."""


def moment(text: str) -> datetime | None:
    """Read the time of a line; None where it has the form of one, such as the 99th of a month, but is none.

    Parameters
    ----------
    text
        Such as 2026-11-22T11:40:00.123, in UTC.
    """
    whole, _, fraction = text.partition(".")
    try:
        # Not strptime, which takes most of the time that reading a log takes.
        return datetime.fromisoformat(f"{whole}.{fraction.ljust(6, '0')}+00:00")
    except ValueError:
        return None


class Line(NamedTuple):
    """A line of a file, without its end.

    Parameters
    ----------
    text
        What it says.
    start, end
        Where it starts, and where the next line does.
    neighbour
        Seconds since 1970: the time of a line that has none, where no line before it has one.
    """

    text: str
    start: int
    end: int
    neighbour: float


class Message(NamedTuple):
    """Lines that belong together, such as those of a traceback.

    Parameters
    ----------
    at
        Seconds since 1970; that of the line before where the line has no time of its own.
    level
        Empty where there is none.
    timed
        Whether it has one.
    lines
        As they were written.
    start, end
        Where in its file it starts, and where the next message does.
    """

    at: float
    level: str
    timed: bool
    lines: list[str]
    start: int
    end: int

    @property
    def text(self) -> str:
        """Its lines, joined."""
        return "\n".join(self.lines)

    @property
    def height(self) -> int:
        """Lines that it takes on a terminal, where those that a worker wrote into one are shown as such."""
        ends = sum(sign == "n" for sign in _ESCAPE.findall(self.lines[0])) if self.timed else 0
        return len(self.lines) + ends


class Gathering:
    """Makes messages of the lines of one log, in their order."""

    def __init__(self) -> None:
        self._open: Message | None = None
        self._last: float | None = None

    @property
    def start(self) -> int | None:
        """Where the message starts that is not yet over."""
        return self._open.start if self._open is not None else None

    def add(self, line: Line) -> Message | None:
        """Take a line; give the message before it, if that is over.

        Parameters
        ----------
        line
            The next line.
        """
        found = LINE.match(line.text)
        time = moment(found["time"]) if found else None
        if time is None and self._open is not None and _belongs(line.text, self._open):
            self._open.lines.append(line.text)
            self._open = self._open._replace(end=line.end)
            return None
        done = self.close()
        if found is not None and time is not None:
            self._last = time.timestamp()
            self._open = Message(self._last, found["level"], True, [line.text], line.start, line.end)
        else:
            at = line.neighbour if self._last is None else self._last
            self._open = Message(at, "", False, [line.text], line.start, line.end)
        return done

    def close(self) -> Message | None:
        """Give the last message: nothing more belongs to it."""
        done, self._open = self._open, None
        return done

    def all(self, lines: Iterable[Line]) -> Iterator[Message]:
        """All messages of some lines, the last one too.

        Parameters
        ----------
        lines
            The next lines.
        """
        for line in lines:
            done = self.add(line)
            if done is not None:
                yield done
        last = self.close()
        if last is not None:
            yield last


def _belongs(text: str, before: Message) -> bool:
    if len(before.lines) >= _LONGEST:
        return False
    if before.timed or not text or text[0].isspace():
        return True
    # What ends a traceback is not indented, nor are the words between two of them.
    traceback = any(line.startswith("Traceback ") for line in before.lines)
    return traceback and not before.lines[-1][:1].strip()


class MessageFilter(NamedTuple):
    """Which messages somebody wants.

    Parameters
    ----------
    since, until
        Seconds since 1970.
    pattern
        Some line of it must match.
    level
        This level or a worse one; what has no level may be anything, and is always wanted.
    calculation
        Its id: the message is about it, or names it.
    """

    since: float | None = None
    until: float | None = None
    pattern: re.Pattern[str] | None = None
    level: str | None = None
    calculation: str | None = None

    def holds(self, message: Message) -> bool:
        """Whether a message is wanted.

        Parameters
        ----------
        message
            The message.
        """
        if self.since is not None and message.at < self.since:
            return False
        if self.until is not None and message.at > self.until:
            return False
        levels = LEVELS[LEVELS.index(self.level) :] if self.level is not None else LEVELS
        if message.level in LEVELS and message.level not in levels:
            return False
        if self.calculation is not None and not any(self.calculation in line for line in message.lines):
            return False
        return self.pattern is None or any(self.pattern.search(line) for line in message.lines)
