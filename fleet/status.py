"""What every worker is doing, from what they reported; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from puffin.store import WorkerRecord

SILENT_AFTER_S = 90.0
"""Seconds without a report after which a worker that should report counts as lost; it reports every 20 s."""

_ENDED = frozenset({"stopped", "quarantined"})
_AWAY = frozenset({"lost", *_ENDED})
_ORDER = ("lost", "quarantined", "frozen", "starting", "draining", "running", "idle", "stopped")


@dataclass(frozen=True)
class WorkerStatus:
    """One worker for a table.

    Parameters
    ----------
    record
        What it reported.
    state
        Its state with silence taken into account.
    silent_s
        Seconds since it last reported.
    wanted_release
        The release to which its host was last deployed; empty where that is not known.
    """

    record: WorkerRecord
    state: str
    silent_s: float
    wanted_release: str = ""

    @property
    def outdated(self) -> bool:
        """Whether it lives and runs another release than its host was deployed to."""
        return self.works and bool(self.wanted_release) and self.record.release != self.wanted_release

    @property
    def works(self) -> bool:
        """Whether it lives, as far as is known."""
        return self.state not in _AWAY

    @property
    def wrong(self) -> bool:
        """Whether somebody should look at it."""
        return self.state in {"lost", "quarantined", "frozen"}


def status_of(
    records: Iterable[WorkerRecord], now: datetime, releases: Mapping[str, str] | None = None
) -> list[WorkerStatus]:
    """The workers, what is wrong first.

    Parameters
    ----------
    records
        What they reported.
    now
        The database server's clock, by which they were stamped.
    releases
        By host, the release it was last deployed to.
    """
    found = [_status(record, now, (releases or {}).get(record.host, "")) for record in records]
    return sorted(found, key=lambda status: (_rank(status.state), status.record.host, _natural(status.record.worker)))


def totals(statuses: Sequence[WorkerStatus]) -> dict[str, int]:
    """How many workers are in each state, what is wrong first.

    Parameters
    ----------
    statuses
        The workers.
    """
    counts = {state: sum(status.state == state for status in statuses) for state in _ORDER}
    return {state: count for state, count in counts.items() if count}


def _status(record: WorkerRecord, now: datetime, wanted: str) -> WorkerStatus:
    silent = (now - record.seen).total_seconds() if record.seen else float("inf")
    lost = silent > SILENT_AFTER_S and record.state not in _ENDED
    return WorkerStatus(record, "lost" if lost else record.state, max(0.0, silent), wanted)


def _rank(state: str) -> int:
    return _ORDER.index(state) if state in _ORDER else 0


def _natural(name: str) -> tuple[int, str]:
    """Sort the second worker of a host before the tenth."""
    digits = name.rpartition("-")[2]
    return (int(digits) if digits.isdigit() else 0, name)
