"""Tells the database how the worker is, from a thread of its own, so that jobs never wait for it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from puffin.calculations import Status, shorten
from puffin.errors import DatabaseError
from puffin.losses import Loss
from puffin.records import WorkerRecord
from puffin.store import Event, Store, new_event_id
from puffin.threads import ends_the_process
from puffin.worklog import Log

_CLOSEST_S = 1.0
_MOST_EVENTS = 1000
_LONGEST_GOODBYE_S = 5.0


class Reporter:
    """Reports the worker's state and events, and reads orders to the fleet.

    Parameters
    ----------
    store
        The database.
    record
        The worker as it starts.
    log
        Where to say that reports do not get through.
    on_fleet_stop
        Called when the fleet is told to stop.
    interval_s
        Seconds between two reports when nothing changes.
    """

    def __init__(
        self, store: Store, record: WorkerRecord, log: Log, on_fleet_stop: Callable[[], None], interval_s: float
    ) -> None:
        self._store = store
        self._registry = store.registry
        self._record = dataclasses.replace(record, reports_within_s=interval_s)
        self._since = _now()
        self._log = log
        self._on_fleet_stop = on_fleet_stop
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        # If the database is away for long, the oldest events go first.
        self._events: deque[tuple[float, Event]] = deque(maxlen=_MOST_EVENTS)
        self._silent = False
        self.fleet_stopped = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def announce(self) -> None:
        """Announce the worker.

        Raises
        ------
        DatabaseError
            The database does not take the announcement.
        """
        self._store.events.prepare()
        self._look_for_orders()
        self._registry.announce(self._record)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, **changes: Any) -> None:
        """Report a last state and end the thread.

        Parameters
        ----------
        **changes
            Fields of the worker's record.
        """
        self.update(**changes)
        self._stopping.set()
        self._wake.set()
        self._thread.join(_LONGEST_GOODBYE_S)

    def update(self, **changes: Any) -> None:
        """Change fields of the worker's record; reported soon, but never more than once a second.

        Parameters
        ----------
        **changes
            The fields.
        """
        with self._lock:
            before, self._record = self._record, dataclasses.replace(self._record, **changes)
            if _doing(before) != _doing(self._record):
                self._since = _now()
            if before.calculation != self._record.calculation:
                self._record = dataclasses.replace(self._record, memory_used=None)
        self._wake.set()

    def note(self, **changes: Any) -> None:
        """Change fields of the worker's record that can wait: they go with the next report.

        Parameters
        ----------
        **changes
            The fields.
        """
        with self._lock:
            self._record = dataclasses.replace(self._record, **changes)

    def event(self, kind: str, calculation: str = "", detail: str = "") -> None:
        """Note that something happened.

        Parameters
        ----------
        kind
            What: claimed, finished, failed, given_back, lost, reset, discarded, frozen, thawed, started, stopped,
            quarantined.
        calculation
            To which calculation.
        detail
            What else there is to say.
        """
        record = self.record
        worker = record.worker or record.uuid
        event = Event(kind, worker, record.host, record.fleet, calculation, shorten(detail, 1000), id=new_event_id())
        with self._lock:
            self._events.append((time.time(), event))
        # Else it would wait for the next regular report where nothing changes beside it, as when a loss is found.
        self._wake.set()

    def lost(self, kind: str, calculation: str, loss: Loss, status: Status) -> None:
        """Note that a calculation was lost, and that it has failed where that was once too often.

        Parameters
        ----------
        kind
            How that was noticed: lost, reset or given_back.
        calculation
            Which.
        loss
            How it was lost.
        status
            What it is now.
        """
        self.event(kind, calculation, loss.reason)
        if status is Status.FAILED:
            self.event("failed", calculation, f"lost once too often: {loss.reason}")

    @property
    def record(self) -> WorkerRecord:
        """The worker's record as it is now."""
        with self._lock:
            return self._record

    @ends_the_process
    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._interval_s)
            self._wake.clear()
            self._say()
            self._stopping.wait(_CLOSEST_S)
        self._say()

    def _say(self) -> None:
        try:
            self._registry.report(dataclasses.replace(self.record, lasting_s=_now() - self._since))
            self._flush_events()
            self._look_for_orders()
        except DatabaseError as error:
            if not self._silent:
                self._log.warning(f"cannot report to the database: {error}")
            self._silent = True
        else:
            self._silent = False

    def _flush_events(self) -> None:
        with self._lock:
            waiting = list(self._events)
        if waiting:
            self._store.events.write(waiting)
            with self._lock:
                for entry in waiting:
                    if self._events and self._events[0] is entry:
                        self._events.popleft()

    def _look_for_orders(self) -> None:
        fleet = self._record.fleet
        before = self.fleet_stopped
        self.fleet_stopped = bool(fleet) and self._store.control.is_stopped(fleet)
        if self.fleet_stopped and not before:
            self._on_fleet_stop()

    def is_fleet_still_stopped(self) -> bool:
        """Look again whether the fleet is told to stop; without an answer the last one counts."""
        try:
            self._look_for_orders()
        except DatabaseError as error:
            self._log.warning(f"cannot read the orders to the fleet: {error}")
        return self.fleet_stopped


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _doing(record: WorkerRecord) -> tuple[str, str]:
    """What its time counts from: a calculation, however it is held up; else the state."""
    return record.calculation, "" if record.calculation else record.state
