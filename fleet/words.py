"""Words for people: how long, how much, when, names in order, and only what a terminal may be shown; pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import cache

_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_SIZES = ("bytes", "kB", "MB", "GB")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_REPLACED = "\N{REPLACEMENT CHARACTER}"


def duration(seconds: float | None) -> str:
    """A time as people say it, such as ``3 min`` or ``1.5 d``.

    Parameters
    ----------
    seconds
        The time; None is an empty text.
    """
    if seconds is None:
        return ""
    for size, unit in _STEPS:
        if seconds >= size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 10 and size > 60 else f"{count:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def utc(when: datetime) -> str:
    """A time as all JSON has it: ISO 8601 in UTC with milliseconds, such as ``2026-11-22T12:00:04.250+00:00``.

    Parameters
    ----------
    when
        The time; one that says no zone is in UTC already, as all of the database's are.
    """
    known = when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when.astimezone(timezone.utc)
    return known.isoformat(timespec="milliseconds")


def age(when: datetime | None, now: datetime) -> str:
    """How long ago something was.

    Parameters
    ----------
    when
        When it was; None is an empty text.
    now
        The present by the same clock.
    """
    return "" if when is None else duration((now - when) / timedelta(seconds=1))


def amount(count: float) -> str:
    """A number of bytes as people say it, such as ``1.5 GB``.

    Parameters
    ----------
    count
        Bytes.
    """
    for unit in _SIZES:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def first_line(text: str, limit: int) -> str:
    """The first line of a text, cut to a length.

    Parameters
    ----------
    text
        The text.
    limit
        Longest result.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def plain(text: str, keep: str = "") -> str:
    """A text that cannot move the cursor, change the terminal's title, or look like another line; as long as before.

    Parameters
    ----------
    text
        Of whatever origin: a worker's, a program's, another user's.
    keep
        Unprintable characters that may stay, such as line ends; others become a space where they are one, else a mark.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else (" " if sign.isspace() else _REPLACED) for sign in text
    )


def uncoloured(text: str) -> str:
    """A text without the colours that a program gave it for a terminal of its own.

    Parameters
    ----------
    text
        What it wrote.
    """
    return _COLOUR.sub("", text)


@cache
def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sort node2 before node10, and the second worker of a host before the tenth.

    Parameters
    ----------
    name
        The name of a host or worker.
    """
    parts = re.findall(r"\d+|\D+", name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
