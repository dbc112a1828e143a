"""What `top` knows, what there is and how it went, and the totals above its table; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fleet.watch.cells import TONES, Cell
from fleet.watch.status import WorkerStatus, totals
from fleet.words import duration

if TYPE_CHECKING:
    from puffin.progress import Pace
    from puffin.store import EventRecord

_BARS = "▁▂▃▄▅▆▇█"
_MINUTES_KEPT = 180
_DEPTHS_KEPT = 4000
_EVENTS_KEPT = 1000
_RECENT_MINUTES = 5
_ENDS = frozenset({"finished", "failed"})


@dataclass(frozen=True)
class Snapshot:
    """What was found at one moment.

    Parameters
    ----------
    at
        When, by the server's clock.
    hosts
        Names of the hosts that there should be.
    statuses
        What their workers do, as :func:`fleet.watch.status.status_of` sorts them.
    queue
        How many calculations are in each state.
    pace
        How fast it goes; None where that is not known.
    told_to_stop
        Whether the whole fleet is told to stop.
    """

    at: datetime
    hosts: tuple[str, ...]
    statuses: tuple[WorkerStatus, ...]
    queue: Mapping[str, int] = field(default_factory=dict)
    pace: Pace | None = None
    told_to_stop: bool = False


@dataclass(frozen=True)
class History:
    """How it went.

    Parameters
    ----------
    ended
        How many calculations ended, by the minute since 1970.
    depths
        How many calculations waited, and when.
    events
        What happened, by time, the newest last.
    """

    ended: Mapping[int, int] = field(default_factory=dict)
    depths: tuple[tuple[datetime, int], ...] = ()
    events: tuple[EventRecord, ...] = ()

    def with_events(self, events: Iterable[EventRecord]) -> History:
        """The same with what happened since.

        Parameters
        ----------
        events
            Each of which is given once.
        """
        new = list(events)
        ended = dict(self.ended)
        for event in new:
            if event.kind in _ENDS:
                ended[_minute(event.at)] = ended.get(_minute(event.at), 0) + 1
        kept = dict(sorted(ended.items())[-_MINUTES_KEPT:])
        # Each worker tells of several at a time, so that they come in no order.
        events = sorted((*self.events, *new), key=lambda event: event.at)[-_EVENTS_KEPT:]
        return replace(self, ended=kept, events=tuple(events))

    def with_depth(self, at: datetime, waiting: int) -> History:
        """The same with how many calculations wait now.

        Parameters
        ----------
        at
            When they were counted.
        waiting
            How many.
        """
        if self.depths and self.depths[-1][0] >= at:
            return self
        return replace(self, depths=(*self.depths, (at, waiting))[-_DEPTHS_KEPT:])

    def ended_per_minute(self, now: datetime, minutes: int) -> list[int]:
        """How many calculations ended in each of the last minutes, the present one last.

        Parameters
        ----------
        now
            The present.
        minutes
            How many minutes.
        """
        last = _minute(now)
        return [self.ended.get(minute, 0) for minute in range(last - minutes + 1, last + 1)]

    def lately(self, now: datetime) -> float:
        """How many calculations ended each minute lately.

        Parameters
        ----------
        now
            The present.

        Returns
        -------
        float
            Of the last few minutes, the present one included; of fewer, one at least, where the first calculation of
            all ended since.
        """
        counts = self.ended_per_minute(now, _RECENT_MINUTES + 1)
        present = (now - datetime(1970, 1, 1)) / timedelta(minutes=1)
        began = max(_minute(now) - _RECENT_MINUTES, min(self.ended, default=0))
        return sum(counts) / max(1.0, present - began)


def _minute(at: datetime) -> int:
    return int((at - datetime(1970, 1, 1)) / timedelta(minutes=1))


# Above the table ---------------------------------------------------------------------------------------


def spark(values: Sequence[float], width: int) -> str:
    """A line of small bars, from nothing to the largest value.

    Parameters
    ----------
    values
        The oldest first; of neighbours that share a place the largest is shown.
    width
        How many bars at most.
    """
    if not values or width < 1:
        return ""
    shown = [max(part) for part in _parts(values, width)]
    largest = max(shown)
    if largest <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / largest * (len(_BARS) - 0.01)))] for value in shown)


def _parts(values: Sequence[float], width: int) -> list[Sequence[float]]:
    count = min(width, len(values))
    edges = [round(len(values) * at / count) for at in range(count + 1)]
    return [values[edges[at] : edges[at + 1]] for at in range(count)]


def headlines(snapshot: Snapshot, history: History, width: int) -> list[list[Cell]]:
    """The lines above the table.

    Parameters
    ----------
    snapshot
        What there is.
    history
        How it went.
    width
        Of the screen.
    """
    counts = totals(snapshot.statuses)
    workers = [Cell(f"{count} {state}", TONES.get(state, "")) for state, count in counts.items()]
    waiting = [Cell(f"{count} {state}", "bad" if state == "failed" else "") for state, count in _queue(snapshot)]
    lines = [
        [Cell("workers", "dim"), *(workers or [Cell("none has reported: 'puffin-fleet deploy' starts them", "warn")])],
        [Cell("queue  ", "dim"), *(waiting or [Cell("no calculations")])],
        [Cell("ended  ", "dim"), *_speed(snapshot, history)],
    ]
    if snapshot.told_to_stop:
        lines[0].append(Cell("the fleet is told to stop", "warn"))
    lines[1].append(Cell(spark([depth for _, depth in history.depths], _room(lines[1], width)), "accent"))
    lines[2].append(Cell(spark(history.ended_per_minute(snapshot.at, 60), _room(lines[2], width)), "accent"))
    return lines


def _room(cells: Sequence[Cell], width: int) -> int:
    return min(60, width - sum(len(cell.text) + 2 for cell in cells) - 2)


def _queue(snapshot: Snapshot) -> list[tuple[str, int]]:
    usual = ("new", "pending", "hold", "failed", "cancelled", "complete", "analyzed")
    order = {state: at for at, state in enumerate(usual)}
    return sorted(snapshot.queue.items(), key=lambda item: order.get(item[0], len(order)))


def _speed(snapshot: Snapshot, history: History) -> list[Cell]:
    lately = history.lately(snapshot.at)
    found = [Cell(f"{lately:.0f} a minute" if lately >= 1 or lately == 0 else f"{lately:.1f} a minute")]
    pace = snapshot.pace
    if pace is not None and pace.left_s:
        found.append(Cell(f"about {duration(pace.left_s)} left"))
    return found
