"""Reads what `top` shows, in threads of its own: nothing that waits for the database holds up the screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from fleet.cli.options import Chosen
from fleet.watch.board import Snapshot
from fleet.watch.status import apart, status_of
from puffin import backlog, progress
from puffin.backlog import Tally
from puffin.entries import Selection
from puffin.errors import DatabaseError
from puffin.progress import Pace
from puffin.store import EventFollower, EventRecord, EventSelection, Store

_BACKLOG = 2000
_WINDOW_S = 3600.0
_QUEUE_EVERY_S = 5.0
_SHARE = 10.0
"""Of the time, at most one part in so many is spent asking."""


class Feed:
    """Looks at the database again and again.

    Parameters
    ----------
    chosen
        The fleet, and the hosts of it to be shown.
    store
        Its database.
    every
        Seconds between two looks.
    on_look
        Told what was found; called from a thread, as are the others.
    on_events
        Told what happened.
    on_trouble
        Told why the database cannot be read; an empty text when it can again.
    """

    def __init__(
        self,
        *,
        chosen: Chosen,
        store: Store,
        every: float,
        on_look: Callable[[Snapshot], None],
        on_events: Callable[[Sequence[EventRecord]], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._chosen = chosen
        self._store = store
        self._every = every
        self._on_look = on_look
        self._on_events = on_events
        self._on_trouble = on_trouble
        self._stop = threading.Event()
        self._soon = threading.Event()
        self._queue: Mapping[str, int] = {}
        self._pace: Pace | None = None
        self._queue_due = 0.0
        self._drained: frozenset[str] = frozenset()

    @property
    def drained(self) -> frozenset[str]:
        """Names of the hosts that were drained when the database was last looked at."""
        return self._drained

    def start(self) -> None:
        """Begin."""
        # Daemons: a database that does not answer must not keep the program from ending.
        for target in (self._look_again, self._follow):
            threading.Thread(target=target, name=f"top-{target.__name__}", daemon=True).start()

    def stop(self) -> None:
        """End; what is under way ends by itself."""
        self._stop.set()
        self._soon.set()

    def hurry(self) -> None:
        """Look now: something was done that should be seen."""
        self._soon.set()

    def _look_again(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                snapshot = self._look()
            except DatabaseError as error:
                # mypy infers no lambda with a default.
                self._tell(lambda error=error: self._on_trouble(str(error)))  # type: ignore[misc]
            else:
                # mypy infers no lambda with a default.
                self._tell(lambda snapshot=snapshot: self._on_look(snapshot))  # type: ignore[misc]
                self._tell(lambda: self._on_trouble(""))
            self._soon.wait(max(self._every, (time.monotonic() - began) * 2))
            self._soon.clear()

    def _follow(self) -> None:
        fleet = self._chosen.fleet.name
        hosts = () if self._chosen.whole else tuple(host.name for host in self._chosen.hosts)
        events, clock = self._store.events, self._store.server_time
        follower = EventFollower(events, clock, EventSelection(fleet, hosts), _BACKLOG)
        while not self._stop.is_set():
            try:
                found = follower.poll(1.0)
            except DatabaseError:
                # The other thread says so.
                self._stop.wait(self._every)
                continue
            if found:
                # mypy infers no lambda with a default.
                self._tell(lambda found=found: self._on_events(found))  # type: ignore[misc]
        follower.close()

    def _tell(self, message: Callable[[], None]) -> None:
        if not self._stop.is_set():
            message()

    def _look(self) -> Snapshot:
        store, fleet = self._store, self._chosen.fleet
        names = tuple(host.name for host in self._chosen.hosts)
        chosen = frozenset(names)
        records = [each for each in store.registry.workers(fleet.name, brief=True) if each.host in chosen]
        at = store.server_time()
        self._drained = frozenset(store.control.drained(fleet.name))
        statuses = status_of(records, at, store.control.releases(fleet.name))
        if time.monotonic() >= self._queue_due:
            self._count(at)
        return Snapshot(at, names, tuple(statuses), self._queue, self._pace, store.control.is_stopped(fleet.name))

    def _count(self, at: datetime) -> None:
        """Count the queue; with a million calculations that takes the server a while, so not with every look."""
        began = time.monotonic()
        tallies: list[Tally] = []
        finished, ended, cancelled = 0, [], 0
        for name in self._store.names:
            queue = self._store.queue(name)
            tallies += queue.tallies()
            some, ends = queue.ended_since(at - timedelta(seconds=_WINDOW_S))
            cancelled += queue.count(Selection(cancelled=True))
            finished += some
            ended += ends
        self._queue = apart({status.value: count for status, count in backlog.totals_by(tallies).items()}, cancelled)
        untaken = backlog.untaken(tallies, self._store.registry.workers(), at)
        self._pace = progress.pace(finished, ended, backlog.left_of(tallies, untaken), at, _WINDOW_S)
        self._queue_due = time.monotonic() + max(_QUEUE_EVERY_S, (time.monotonic() - began) * _SHARE)
