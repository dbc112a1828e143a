"""What workers say of themselves, as it goes through the database; pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

FAILURES = frozenset(
    {"failed", "given_back", "reset", "lost", "quarantined", "frozen", "discarded", "not_deployed", "put_back"}
)
"""Kinds of events that somebody may want to know of."""

REQUEUED = "requeued"
"""What an operator did; earlier workers called so, and said why, what is `given_back` now."""


def is_failure(kind: str, detail: str) -> bool:
    """Whether an event is one that somebody may want to know of.

    Parameters
    ----------
    kind, detail
        The event's.
    """
    return kind in FAILURES or (kind == REQUEUED and bool(detail))


ENDED = frozenset({"stopped", "quarantined"})
"""States in which a worker has said that it ends."""

SILENT_AFTER_S = 90.0
"""Seconds without a report after which a worker counts as lost that does not say how often it reports."""

_GRACE_S = 15.0

_BETWEEN_S = 60.0
"""Seconds after which one that has ended to start again should have reported."""


@dataclass(frozen=True)
class WorkerRecord:
    """One worker as the registry knows it.

    Parameters
    ----------
    uuid
        Its unique name.
    fleet, host, worker
        Where it belongs; empty for one started by hand.
    release, configuration
        The release it runs and the hash of the configuration it read.
    pid
        Its process id on its host.
    cores, memory, disk
        What its jobs may use; memory and disk in GB.
    programs, jobs
        What it accepts.
    state
        starting, idle, running, frozen, draining, stopped or quarantined.
    calculation, order
        What it runs now; empty if nothing.
    done, failed
        Jobs since it started.
    restarts
        Starts after an incarnation that ended without saying so: crashes.
    started, seen
        When it started and last reported, by the server's clock.
    lasting_s
        How long it had its calculation when it reported, or was in its state where it had none, in seconds; None
        where it does not say.
    reports_within_s
        It reports at least this often, in seconds; None where it does not say.
    memory_used
        What its calculation had when it reported, in GB; None where it has none or does not say.
    returns
        The process that has ended to be started again at once; None where none has. It counts only while it is the
        one that reported last: a release that knows nothing of this may be started then.
    """

    uuid: str
    fleet: str
    host: str
    worker: str
    release: str
    configuration: str
    pid: int
    cores: int
    memory: float
    disk: float
    programs: tuple[str, ...]
    jobs: tuple[str, ...]
    state: str
    calculation: str = ""
    order: str = ""
    done: int = 0
    failed: int = 0
    restarts: int = 0
    started: datetime | None = None
    seen: datetime | None = None
    lasting_s: float | None = None
    reports_within_s: float | None = None
    memory_used: float | None = None
    returns: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it has said that it ends, and is not to be started again at once."""
        return self.state in ENDED and not self.is_between

    @property
    def is_between(self) -> bool:
        """Whether it has ended to be started again at once, and has not yet reported since."""
        return self.state in ENDED and self.returns == self.pid

    @property
    def since(self) -> datetime | None:
        """Since when it has its calculation, or is in its state, by the server's clock; None if it does not say.

        Both numbers come from one report: so its host's clock may be wrong.
        """
        if self.seen is None or self.lasting_s is None:
            return None
        return self.seen - timedelta(seconds=self.lasting_s)

    def silent_s(self, now: datetime) -> float:
        """Seconds since it last reported; infinite if it never did.

        Parameters
        ----------
        now
            The time by the server's clock.
        """
        return (now - self.seen).total_seconds() if self.seen else float("inf")

    def is_lost(self, now: datetime) -> bool:
        """Whether it is silent for longer than it should be, and has not said that it ends for good.

        Parameters
        ----------
        now
            The time by the server's clock.
        """
        within = self.reports_within_s
        longest = SILENT_AFTER_S if within is None else within + _GRACE_S
        if self.is_between:
            longest = min(longest, _BETWEEN_S)
        return not self.has_ended and self.silent_s(now) > longest
