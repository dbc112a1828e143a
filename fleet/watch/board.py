"""What `top` shows: totals, the table of hosts or workers, what happened, how it went; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from fleet.watch.moments import local
from fleet.watch.status import HostStatus, WorkerStatus, by_host, natural, totals
from fleet.words import duration, first_line, plain
from puffin.records import is_failure

if TYPE_CHECKING:
    from puffin.progress import Pace
    from puffin.store import EventRecord

_BARS = "▁▂▃▄▅▆▇█"
_MINUTES_KEPT = 180
_DEPTHS_KEPT = 4000
_EVENTS_KEPT = 1000
_RECENT_MINUTES = 5
_KIND_WIDTH = 11
_ENDS = frozenset({"finished", "failed"})
_GOOD = frozenset({"finished", "thawed", "started", "deployed"})
_TONES = {
    "lost": "bad",
    "quarantined": "bad",
    "unreported": "bad",
    "frozen": "warn",
    "starting": "warn",
    "draining": "warn",
    "running": "good",
    "stopped": "dim",
}


class Mode(Enum):
    """What the table lists."""

    HOSTS = "hosts"
    WORKERS = "workers"


@dataclass(frozen=True)
class Cell:
    """A few words and how they look: "bad", "warn", "good", "dim" or nothing special."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Heading:
    """A column.

    Parameters
    ----------
    title
        Its heading.
    right
        Whether it is aligned to the right.
    spare
        How soon it is left out where there is no room; 0 never, the largest first.
    cut
        Its least width where its cells may be cut; 0 where they may not.
    """

    title: str
    right: bool = False
    spare: int = 0
    cut: int = 0


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Parameters
    ----------
    key
        The host's or worker's name, which is in its first cell.
    host
        The host.
    make
        Makes its cells: of thousands of lines only some are ever seen.
    """

    key: str
    host: str
    make: Callable[[], tuple[Cell, ...]]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """What is in its columns."""
        return self.make()


@dataclass(frozen=True)
class Table:
    """The table; `sorted_by` is the title of a column, or empty for what is wrong first."""

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    sorted_by: str


@dataclass(frozen=True)
class View:
    """How somebody wants to see it.

    Parameters
    ----------
    mode
        What the table lists.
    order
        By which of :func:`orders` it is sorted, counted from 0.
    reverse
        The other way round.
    needle
        Words that a row must have.
    host
        Only workers of this host; empty for all.
    """

    mode: Mode = Mode.HOSTS
    order: int = 0
    reverse: bool = False
    needle: str = ""
    host: str = ""


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
    workers = [Cell(f"{count} {state}", _TONES.get(state, "")) for state, count in counts.items()]
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
    usual = ("new", "pending", "hold", "failed", "complete", "analyzed")
    order = {state: at for at, state in enumerate(usual)}
    return sorted(snapshot.queue.items(), key=lambda item: order.get(item[0], len(order)))


def _speed(snapshot: Snapshot, history: History) -> list[Cell]:
    lately = history.lately(snapshot.at)
    found = [Cell(f"{lately:.0f} a minute" if lately >= 1 or lately == 0 else f"{lately:.1f} a minute")]
    pace = snapshot.pace
    if pace is not None and pace.left_s:
        found.append(Cell(f"about {duration(pace.left_s)} left"))
    return found


# The table ---------------------------------------------------------------------------------------------

_HOST_HEADINGS = (
    Heading("HOST"),
    Heading("WORKERS", cut=24),
    Heading("COMPUTES", spare=2, cut=14),
    Heading("OLDEST", right=True, spare=3),
    Heading("DONE", right=True),
    Heading("FAILED", right=True),
    Heading("RESTARTS", right=True, spare=5),
    Heading("SEEN", right=True, spare=4),
    Heading("RELEASE", spare=6),
)
_WORKER_HEADINGS = (
    Heading("WORKER"),
    Heading("STATE"),
    Heading("SINCE", right=True),
    Heading("JOB", spare=1, cut=12),
    Heading("CALCULATION", spare=6),
    Heading("DONE", right=True),
    Heading("FAILED", right=True),
    Heading("RESTARTS", right=True, spare=3),
    Heading("GB", right=True, spare=7),
    Heading("SEEN", right=True, spare=4),
    Heading("RELEASE", spare=5),
)

_HOST_ORDERS: tuple[tuple[str, Callable[[HostStatus], Any]], ...] = (
    ("", lambda host: (not host.wrong, natural(host.host))),
    ("HOST", lambda host: natural(host.host)),
    ("WORKERS", lambda host: -sum(worker.works for worker in host.workers)),
    ("OLDEST", lambda host: -(host.oldest_s or 0)),
    ("DONE", lambda host: -host.sum_of("done")),
    ("FAILED", lambda host: -host.sum_of("failed")),
)
_WORKER_ORDERS: tuple[tuple[str, Callable[[WorkerStatus], Any]], ...] = (
    ("", lambda worker: not worker.wrong),
    ("WORKER", lambda worker: natural(worker.record.worker)),
    ("STATE", lambda worker: worker.state),
    ("SINCE", lambda worker: -(worker.age_s or 0)),
    ("JOB", lambda worker: worker.record.order),
    ("DONE", lambda worker: -worker.record.done),
    ("FAILED", lambda worker: -worker.record.failed),
    ("RESTARTS", lambda worker: -worker.record.restarts),
    ("GB", lambda worker: -(worker.record.memory_used or 0)),
)


def orders(mode: Mode) -> tuple[str, ...]:
    """By which columns a table can be sorted; the first, an empty one, puts what is wrong first.

    Parameters
    ----------
    mode
        What it lists.
    """
    return tuple(title for title, _ in (_HOST_ORDERS if mode is Mode.HOSTS else _WORKER_ORDERS))


def table(snapshot: Snapshot, view: View) -> Table:
    """The table.

    Parameters
    ----------
    snapshot
        What there is.
    view
        How to show it.
    """
    words = view.needle.lower().split()
    if view.mode is Mode.HOSTS:
        title, host_key = _HOST_ORDERS[view.order]
        hosts = sorted(by_host(snapshot.hosts, snapshot.statuses), key=host_key, reverse=view.reverse)
        rows = [Row(host.host, host.host, partial(_host_cells, host)) for host in hosts]
        return Table(_HOST_HEADINGS, tuple(row for row in rows if _has(row, words)), title)
    title, worker_key = _WORKER_ORDERS[view.order]
    chosen = [worker for worker in snapshot.statuses if view.host in {"", worker.record.host}]
    # Within what is equal by name: else lines would change places whenever a worker is idle for a moment.
    by_name = sorted(chosen, key=lambda worker: natural(worker.record.worker))
    workers = sorted(by_name, key=worker_key, reverse=view.reverse)
    rows = [Row(worker.record.worker, worker.record.host, partial(_worker_cells, worker)) for worker in workers]
    return Table(_WORKER_HEADINGS, tuple(row for row in rows if _has(row, words)), title)


def _has(row: Row, words: Sequence[str]) -> bool:
    if not words:
        return True
    text = " ".join([row.host, *(cell.text for cell in row.cells)]).lower()
    return all(word in text for word in words)


def _host_cells(host: HostStatus) -> tuple[Cell, ...]:
    counts = totals(host.workers)
    tones = [_TONES.get(state, "") for state in counts]
    worst = next((tone for tone in ("bad", "warn") if tone in tones), tones[0] if len(tones) == 1 else "")
    states = ", ".join(f"{count} {state}" for state, count in counts.items()) or ", ".join(host.own_troubles)
    jobs = [order if count == 1 else f"{order} x{count}" for order, count in host.computing.items()]
    failed = host.sum_of("failed")
    releases = sorted({worker.record.release for worker in host.workers if worker.works})
    return (
        Cell(host.host, "bad" if host.wrong else ""),
        Cell(states, worst if host.workers else "bad"),
        Cell(", ".join(jobs)),
        Cell(duration(host.oldest_s)),
        Cell(str(host.sum_of("done"))),
        Cell(str(failed), "bad" if failed else ""),
        Cell(str(host.sum_of("restarts"))),
        Cell("never" if host.silent_s is None else duration(host.silent_s)),
        Cell(", ".join(releases), "warn" if any(worker.outdated for worker in host.workers) else ""),
    )


def _worker_cells(worker: WorkerStatus) -> tuple[Cell, ...]:
    record = worker.record
    return (
        Cell(record.worker, "bad" if worker.wrong else ""),
        Cell(worker.state, _TONES.get(worker.state, "")),
        Cell(duration(worker.age_s) if worker.works else ""),
        Cell(record.order if worker.works else ""),
        Cell(record.calculation if worker.works else ""),
        Cell(str(record.done)),
        Cell(str(record.failed), "bad" if record.failed else ""),
        Cell(str(record.restarts)),
        Cell(worker.memory),
        Cell("never" if worker.silent_s == float("inf") else duration(worker.silent_s)),
        Cell(record.release, "warn" if worker.outdated else ""),
    )


# Below the table ---------------------------------------------------------------------------------------


def event_lines(events: Iterable[EventRecord], *, failures: bool, host: str = "") -> list[list[Cell]]:
    """What happened, a line each, the newest first.

    Parameters
    ----------
    events
        The newest last.
    failures
        Only what somebody may want to know of.
    host
        Only of this host; empty for all.
    """
    chosen = [
        event
        for event in events
        if (not failures or is_failure(event.kind, event.detail)) and (not host or event.host == host)
    ]
    widest = max((len(event.worker or event.host) for event in chosen), default=0)
    return [event_cells(event, widest) for event in reversed(chosen)]


def event_cells(event: EventRecord, widest: int = 0) -> list[Cell]:
    """One event in words.

    Parameters
    ----------
    event
        The event.
    widest
        How wide the names of workers are.
    """
    tone = "bad" if is_failure(event.kind, event.detail) else ("good" if event.kind in _GOOD else "")
    words = " ".join(word for word in (event.calculation, first_line(event.detail, 200)) if word)
    # People and programs wrote some of it.
    who = plain(event.worker or event.host).ljust(widest)
    return [
        Cell(f"{local(event.at):%H:%M:%S}", "dim"),
        Cell(who),
        Cell(plain(event.kind).ljust(_KIND_WIDTH), tone),
        Cell(plain(words)),
    ]
