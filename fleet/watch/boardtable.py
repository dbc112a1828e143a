"""The table of `top`, of hosts or of workers: columns, order, filter, what is in its cells; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import Any

from fleet.watch.board import Snapshot
from fleet.watch.cells import TONES, Cell
from fleet.watch.status import HostStatus, WorkerStatus, by_host, totals
from fleet.words import duration, natural


class Mode(Enum):
    """What the table lists."""

    HOSTS = "hosts"
    WORKERS = "workers"


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
    tones = [TONES.get(state, "") for state in counts]
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
        Cell(worker.state, TONES.get(worker.state, "")),
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
