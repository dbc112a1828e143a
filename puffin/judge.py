"""Takes calculations away from workers that are gone; one elected worker for each database.

The election only spares the database: every reset is one write that succeeds only if nothing has happened to the
calculation since it was seen. Two judges at once would therefore do no harm.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from puffin import lease
from puffin.calculations import Claimant
from puffin.clock import boot_time
from puffin.errors import DatabaseError
from puffin.losses import Loss, Pending
from puffin.reporter import Reporter
from puffin.settings import DaemonSettings
from puffin.store import Store, Tenure
from puffin.threads import LONGEST_JOIN_S, ends_the_process
from puffin.worklog import Log

_LATEST_LOOK_S = 0.25
_LATE_ANSWER_S = 5.0
_PATIENCE = 1 / 6
"""Of a lease: a holder whose renewal got no answer tries again after half of that (`puffin.lease.Lease.next_try`)."""

_MOST_PATIENCE_S = 10.0


class Judge:
    """A thread that looks after the calculations of the databases.

    Parameters
    ----------
    store
        The databases.
    daemon
        The worker's settings.
    claimant
        Who the worker is.
    log, reporter
        Where to say what was done.
    """

    def __init__(self, store: Store, daemon: DaemonSettings, claimant: Claimant, log: Log, reporter: Reporter) -> None:
        self._courts = [Court(name, store, daemon, claimant, log, reporter) for name in store.names]
        self._log = log
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(LONGEST_JOIN_S)

    @ends_the_process
    def _run(self) -> None:
        while True:
            next_look = min(court.next_look for court in self._courts)
            if self._stopping.wait(max(0.0, next_look - boot_time())):
                return
            for court in self._courts:
                if boot_time() >= court.next_look:
                    court.look()


class Court:
    """One database and its judge.

    Parameters
    ----------
    name
        The database.
    store, daemon, claimant, log, reporter
        As for :class:`Judge`.
    """

    def __init__(
        self, name: str, store: Store, daemon: DaemonSettings, claimant: Claimant, log: Log, reporter: Reporter
    ) -> None:
        self._name = name
        self._store = store
        self._daemon = daemon
        self._claimant = claimant
        self._log = log
        self._reporter = reporter
        self._clock = ServerClock()
        self._sits = False
        self._silent = False
        self._suspects = Suspects()
        self.next_look = boot_time()

    def look(self) -> None:
        """See whether to sit, and if so, whose calculations to reset; note when to look again."""
        lease_s = self._claimant.lease_s
        # Not much before the seat is lost: each look is two commands, three where every write wakes who watches.
        self.next_look = boot_time() + max(2 / 3 * lease_s, lease_s - _LATE_ANSWER_S)
        try:
            server_now = self._preside()
            if server_now is not None:
                self._clock = self._clock.tick(server_now, boot_time(), lease_s)
                if lease.may_judge(self._connected_since(), boot_time(), lease_s):
                    self._judge(server_now)
        except DatabaseError as error:
            self._sits = False
            self._suspects = Suspects()
            # A server may greet and yet answer nothing else, so that the driver notices no break.
            self._clock = dataclasses.replace(self._clock, steady_since=boot_time())
            if not self._silent:
                self._log.warning(f"no look at the calculations of the dead in {self._name}: {error}")
            self._silent = True
        else:
            self._silent = False

    def _connected_since(self) -> float | None:
        connected = self._store.connected_since
        return None if connected is None else max(connected, self._clock.steady_since)

    def _preside(self) -> datetime | None:
        """Stay, or sit down where nobody sits; return the server's clock, or None if somebody else sits."""
        executor, lease_s, seat = self._claimant.executor, self._claimant.lease_s, self._store.judge_seat(self._name)
        if self._sits:
            server_now = seat.stay(executor, lease_s)
        else:
            seen = seat.look()
            left = _left(seen, executor, self._store.server_time()) if seen else timedelta(0)
            if left > timedelta(0):
                self.next_look = boot_time() + min(left.total_seconds() + _LATEST_LOOK_S, lease_s)
                return None
            server_now = seat.take(seen, executor, lease_s)
            if server_now is not None:
                self._log.info(f"from now on this worker resets what the dead leave in {self._name}")
        self._sits = server_now is not None
        return server_now

    def _judge(self, server_now: datetime) -> None:
        calculations = self._store.calculations(self._name)
        connected = self._connected_since()
        watched_s = 0.0 if connected is None else boot_time() - connected
        sentence = judge(calculations.pending(), server_now, self._daemon.job_reset_time_in_s, watched_s)
        now = boot_time()
        self._suspects = self._suspects.seen(sentence.lost, now)
        for pending in self._suspects.proven(self._claimant.lease_s, now):
            reason = f"its worker {pending.executor or '(unknown)'} did not renew its lease"
            loss = Loss(pending.host, reason, self._daemon.max_attempts)
            if status := calculations.reset(pending, loss):
                self._log.warning(f"reset: {reason}", pending.id)
                self._reporter.lost("reset", pending.id, loss, status)
        if (proven_at := self._suspects.next_proof(self._claimant.lease_s, now)) is not None:
            self.next_look = min(self.next_look, proven_at + _LATEST_LOOK_S)
        if sentence.next_lapse is not None:
            until = (sentence.next_lapse - server_now).total_seconds() + _LATEST_LOOK_S
            self.next_look = min(self.next_look, boot_time() + until)


@dataclass(frozen=True)
class ServerClock:
    """The server's clock as a judge sees it: one that was set makes every lease look lapsed.

    Parameters
    ----------
    ahead_s
        How far it is ahead of this machine's, in seconds; None before the first look.
    steady_since
        When it was last found to have been set, on this machine's clock.
    """

    ahead_s: float | None = None
    steady_since: float = 0.0

    def tick(self, server_now: datetime, now: float, lease_s: float) -> ServerClock:
        """What is known after another look.

        Parameters
        ----------
        server_now
            The server's clock.
        now
            This machine's.
        lease_s
            The worker's lease; jumps of a quarter of it are noticed.
        """
        ahead = (server_now - datetime(1970, 1, 1)).total_seconds() - now
        jumped = self.ahead_s is not None and abs(ahead - self.ahead_s) > lease_s / 4
        return dataclasses.replace(self, ahead_s=ahead, steady_since=now if jumped else self.steady_since)


@dataclass(frozen=True)
class Suspects:
    """Calculations whose lease had lapsed when they were last seen.

    A server that answered nobody from just after one look to just before the next makes all leases look lapsed, and no
    judge has noticed anything. Whoever lives renews as soon as it answers; so only those are lost that are found as
    they were in a second look.

    Parameters
    ----------
    since
        When each was first found so, and has been ever since, in seconds of a clock that never jumps.
    """

    since: Mapping[Pending, float] = field(default_factory=dict)

    def seen(self, lost: Sequence[Pending], now: float) -> Suspects:
        """What is known after another look.

        Parameters
        ----------
        lost
            Those whose lease has lapsed.
        now
            The time.
        """
        return Suspects({pending: self.since.get(pending, now) for pending in lost})

    def proven(self, lease_s: float, now: float) -> list[Pending]:
        """Those that nobody has touched for so long since they were first found lapsed that nobody will.

        Parameters
        ----------
        lease_s
            The judge's own lease, in seconds: for those that have none.
        now
            The time.
        """
        return [pending for pending, first in self.since.items() if now - first >= _patience_s(pending, lease_s)]

    def next_proof(self, lease_s: float, now: float) -> float | None:
        """When the next of them is proven lost; None where all are.

        Parameters
        ----------
        lease_s, now
            As for :meth:`proven`.
        """
        times = [first + _patience_s(pending, lease_s) for pending, first in self.since.items()]
        return min((at for at in times if at > now), default=None)


def _patience_s(pending: Pending, lease_s: float) -> float:
    return min(_PATIENCE * max(lease_s, pending.lease_s or 0.0), _MOST_PATIENCE_S)


@dataclass(frozen=True)
class Sentence:
    """Whose leases have lapsed, and when the next one does unless it is renewed."""

    lost: tuple[Pending, ...]
    next_lapse: datetime | None


def judge(
    pending: Sequence[Pending], server_now: datetime, reset_time_s: float, watched_s: float = float("inf")
) -> Sentence:
    """Tell the lost calculations from those that are being run.

    Parameters
    ----------
    pending
        All that are pending.
    server_now
        The server's clock, read before them.
    reset_time_s
        How long a SCINE Puffin may leave its calculation untouched, in seconds.
    watched_s
        For how long the judge itself has been connected, in seconds. Whoever has a longer lease than that may have
        been as cut off as it was, and has not had the time to renew it.
    """
    lapses = [(item, item.lapses_at(reset_time_s)) for item in pending]
    lost = tuple(
        item
        for item, lapse in lapses
        if lapse is not None and lapse < server_now and (item.lease_s or 0.0) <= watched_s
    )
    alive = [lapse for _, lapse in lapses if lapse is not None and lapse >= server_now]
    return Sentence(lost, min(alive, default=None))


def _left(tenure: Tenure, executor: str, server_now: datetime) -> timedelta:
    if tenure.executor == executor:
        return timedelta(0)
    return tenure.renewed + timedelta(seconds=tenure.lease_s) - server_now
