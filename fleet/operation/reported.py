"""What the workers of a fleet are doing, as they told the database; for many threads that wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from fleet.watch.status import status_of
from fleet.words import duration
from puffin.errors import DatabaseError
from puffin.records import WorkerRecord

if TYPE_CHECKING:
    from puffin.store import Store

_FRESH_S = 1.0


class Reported:
    """What the workers of a fleet reported, read once a second at most, whoever asks.

    Parameters
    ----------
    store
        The fleet's database.
    fleet
        Its name.
    """

    def __init__(self, store: Store, fleet: str) -> None:
        self._store = store
        self._fleet = fleet
        self._lock = threading.Lock()
        self._read = float("-inf")
        self._now: datetime | None = None
        self._records: dict[str, list[WorkerRecord]] = {}
        self._lost: frozenset[str] = frozenset()

    def of(self, host: str) -> list[WorkerRecord]:
        """The workers of a host, as they were when the database last answered; none if it never did.

        Parameters
        ----------
        host
            Its name.
        """
        with self._lock:
            if time.monotonic() - self._read > _FRESH_S:
                self._look()
                self._read = time.monotonic()
            return self._records.get(host, [])

    def left(self, host: str) -> list[WorkerRecord]:
        """Those workers of a host that have not said goodbye.

        Parameters
        ----------
        host
            Its name.
        """
        return [record for record in self.of(host) if not record.has_ended]

    def lost(self, record: WorkerRecord) -> bool:
        """Whether a worker has been silent for so long that nobody knows how it is.

        Parameters
        ----------
        record
            The worker.
        """
        return record.uuid in self._lost

    def doing(self, host: str, workers: Sequence[str]) -> str:
        """In words, what some workers of a host are doing and for how long.

        Parameters
        ----------
        host
            Its name.
        workers
            Their names.
        """
        records = {record.worker: record for record in self.of(host)}
        return "; ".join(self._words(worker, records.get(worker)) for worker in workers)

    def _words(self, worker: str, record: WorkerRecord | None) -> str:
        if record is None or not record.calculation:
            return worker
        began = record.since
        since = f" for {duration((self._now - began).total_seconds())}" if began and self._now else ""
        return f"{worker}: {record.order} {record.calculation}{since}"

    def _look(self) -> None:
        """Where the database does not answer, what it last said is better than nothing."""
        try:
            records = self._store.registry.workers(self._fleet, brief=True)
            self._now = self._store.server_time()
        except DatabaseError:
            return
        lost = [one.record.uuid for one in status_of(records, self._now) if one.state == "lost"]
        self._lost = frozenset(lost)
        self._records = {}
        for record in records:
            self._records.setdefault(record.host, []).append(record)
