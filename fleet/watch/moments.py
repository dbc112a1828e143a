"""Times as operators write them: ``10m`` ago, a day, a day and an hour. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
FORMS = "10m, 2h, 3d, 2026-11-22, 2026-11-22T10:00 (your time)"


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a time.

    Parameters
    ----------
    text
        How long ago, as ``10m``; or a day or time as in ISO 8601, local where it names no zone.
    now
        The present, with its zone.

    Returns
    -------
    datetime
        With its zone.

    Raises
    ------
    ValueError
        It is neither.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return now - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
        # Before Python 3.11 it does not read the sign for UTC.
        return datetime.fromisoformat(re.sub(r"[zZ]\Z", "+00:00", text.strip())).astimezone()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; a time is written as one of {FORMS}") from None


def local(when: datetime) -> datetime:
    """A time of the database's as people read it: with the zone of this machine.

    Parameters
    ----------
    when
        With its zone, or naive and in UTC.
    """
    aware = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    try:
        return aware.astimezone()
    except OverflowError:
        return aware  # an event that does not say when


def full(when: datetime) -> str:
    """The same in words, with day and zone.

    Parameters
    ----------
    when
        With its zone, or naive and in UTC.
    """
    return f"{local(when):%Y-%m-%d %H:%M:%S %Z}"
