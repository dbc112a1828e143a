"""Keeps the lease on the running calculation, from a thread that does nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from puffin import lease as leases
from puffin.calculations import Claim
from puffin.clock import boot_time
from puffin.errors import DatabaseError
from puffin.lease import Hold, Lease
from puffin.runner import RunningJob
from puffin.store import Calculations
from puffin.threads import LONGEST_JOIN_S, ends_the_process
from puffin.worklog import Log


@dataclass
class _Held:
    claim: Claim
    calculations: Calculations
    job: RunningJob
    lease: Lease
    writes_own_end: bool
    on_change: Callable[[Hold], None]
    seen_finished: bool = False
    outage: bool = False
    silent: bool = False


@dataclass(frozen=True)
class Released:
    """What is known about a calculation when its lease need not be kept any longer.

    Parameters
    ----------
    ours
        Whether it was still ours as far as is known.
    outage
        Whether the database was away at any time while it ran.
    """

    ours: bool
    outage: bool


class Renewal:
    """A thread that renews one lease at a time.

    Parameters
    ----------
    log
        Where to say that the database is away, or a calculation lost.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._changed = threading.Condition()
        self._held: _Held | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(LONGEST_JOIN_S)

    def hold(
        self,
        claim: Claim,
        calculations: Calculations,
        job: RunningJob,
        lease: Lease,
        writes_own_end: bool,
        on_change: Callable[[Hold], None],
    ) -> None:
        """Keep the lease of a job that has just been started.

        Parameters
        ----------
        claim
            The attempt.
        calculations
            Where it is.
        job
            The job, whose right to run follows the lease.
        lease
            The lease that the claim granted.
        writes_own_end
            Whether the job itself may turn the calculation's status.
        on_change
            Called, in this thread, when the hold on the calculation changes.
        """
        with self._changed:
            self._held = _Held(claim, calculations, job, lease, writes_own_end, on_change)
            self._changed.notify()

    def release(self) -> Released:
        """Stop renewing.

        Returns
        -------
        Released
            What became of the hold on the calculation.
        """
        with self._changed:
            held, self._held = self._held, None
            if held is None:
                return Released(ours=False, outage=False)
            return Released(ours=held.lease.hold is not Hold.LOST, outage=held.outage)

    @ends_the_process
    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                held = self._held
                self._changed.wait(_patience(held))
                if self._stopping:
                    return
                held = self._held
            if held is not None:
                self._tend(held)

    def _tend(self, held: _Held) -> None:
        now = boot_time()
        if leases.is_due(held.lease, now):
            self._renew(held, now)
        self._become(held, leases.at(held.lease, boot_time()))

    def _renew(self, held: _Held, now: float) -> None:
        held.lease = leases.trying(held.lease, now)
        try:
            ours = held.calculations.renew(held.claim) or self._has_just_finished(held)
        except DatabaseError as error:
            if not held.silent:
                self._log.warning(f"the lease could not be renewed: {error}", held.claim.id)
            held.silent = held.outage = True
            return
        held.silent = False
        if not self._is_current(held):
            return
        if ours:
            self._become(held, leases.granted(held.lease, now))
            held.job.extend(held.lease.freeze_at)
        else:
            self._log.warning("the calculation is no longer ours; its job is killed", held.claim.id)
            self._become(held, leases.refused(held.lease))
            held.job.kill()

    def _has_just_finished(self, held: _Held) -> bool:
        """Whether the job itself ended the calculation; it then has one more renewal's time to leave."""
        if not held.writes_own_end or held.seen_finished:
            return False
        held.seen_finished = held.calculations.status_of(held.claim) is not None
        return held.seen_finished

    def _become(self, held: _Held, lease: Lease) -> None:
        before, held.lease = held.lease.hold, lease
        if lease.hold is not before and self._is_current(held):
            held.on_change(lease.hold)

    def _is_current(self, held: _Held) -> bool:
        with self._changed:
            return self._held is held


def _patience(held: _Held | None) -> float | None:
    if held is None or held.lease.hold is Hold.LOST:
        return None
    now = boot_time()
    times = [held.lease.next_try - now]
    if held.lease.hold is Hold.RUNNING:
        times.append(held.lease.freeze_at - now)
    return max(0.0, min(times))
