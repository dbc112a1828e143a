"""How fast calculations come to an end, and when those that are left will have; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Pace:
    """How fast calculations come to an end.

    Parameters
    ----------
    finished
        How many ended within the window.
    per_hour
        Rate; None if too few ended to tell.
    left_s
        Seconds until all that run, or wait and will be taken, have ended at this rate; None if that cannot be told.
    """

    finished: int
    per_hour: float | None
    left_s: float | None


@dataclass(frozen=True)
class EndedCalculation:
    """A calculation that came to an end.

    Parameters
    ----------
    at
        When, by the server's clock.
    runtime_s
        Seconds it took.
    """

    at: datetime
    runtime_s: float


NEWEST_ENDS = 1000
"""As many of the last ends are enough to tell the pace."""

_SPANS_S = (300.0, 900.0)
"""Seconds before the last end, in which the pace is looked for before it is looked for in the whole window."""

_ENOUGH = 20
_BREATH_S = 30.0
"""Between calculations a worker may need that long; what is longer is a pause, in which there was nothing to do."""


def pace(finished: int, ended: Sequence[EndedCalculation], left: int, now: datetime, window_s: float = 3600.0) -> Pace:
    """How fast it goes while there is something to do, as of late.

    Parameters
    ----------
    finished
        How many ended within the window.
    ended
        At least the newest :data:`NEWEST_ENDS` of these.
    left
        How many wait or run.
    now
        The time by the same clock.
    window_s
        Length of the window in seconds.
    """
    begin = now - timedelta(seconds=window_s)
    ends = sorted((end for end in ended if end.at >= begin), key=lambda end: end.at, reverse=True)[:NEWEST_ENDS]
    if len(ends) < 2:
        return Pace(finished, None, 0.0 if left == 0 else None)
    if finished > len(ends):
        # What else ended before the oldest of these is not known.
        begin = max(begin, ends[-1].at)
    for span in _SPANS_S:
        later = max(begin, ends[0].at - timedelta(seconds=span))
        if sum(end.at >= later for end in ends) >= _ENOUGH:
            begin = later
            break
    recent = [end for end in ends if end.at >= begin]
    per_second = len(recent) / max(1.0, _busy_s(recent, begin))
    return Pace(finished, per_second * 3600, left / per_second)


def _busy_s(ends: Sequence[EndedCalculation], begin: datetime) -> float:
    """Seconds in which at least one of these ran, short pauses included."""
    spans = sorted((max(begin, end.at - timedelta(seconds=end.runtime_s)), end.at) for end in ends)
    busy, until = timedelta(), spans[0][0]
    for start, stop in spans:
        if (start - until) / timedelta(seconds=1) > _BREATH_S:
            until = start
        busy += max(timedelta(), stop - until)
        until = max(until, stop)
    return busy / timedelta(seconds=1)
