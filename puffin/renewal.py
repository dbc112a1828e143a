"""Keeps the lease on the running calculation, from a thread that does nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from puffin import lease as leases
from puffin.calculations import Claim
from puffin.errors import DatabaseError
from puffin.keeper import boot_time
from puffin.lease import Hold, Lease
from puffin.runner import RunningJob
from puffin.store import Calculations
from puffin.worklog import Log


@dataclass
class _Held:
    claim: Claim
    calculations: Calculations
    job: RunningJob
    lease: Lease
    writes_own_end: bool
    seen_finished: bool = False


class Renewal:
    """A thread that renews one lease at a time.

    Parameters
    ----------
    log
        Where to say that the database is away, or a calculation lost.
    on_change
        Called when the hold on the calculation changes.
    """

    def __init__(self, log: Log, on_change: Callable[[Hold], None]) -> None:
        self._log = log
        self._on_change = on_change
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
        self._thread.join()

    def hold(
        self, claim: Claim, calculations: Calculations, job: RunningJob, lease: Lease, writes_own_end: bool
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
        """
        with self._changed:
            self._held = _Held(claim, calculations, job, lease, writes_own_end)
            self._changed.notify()

    def release(self) -> bool:
        """Stop renewing.

        Returns
        -------
        bool
            Whether the calculation was still ours as far as is known.
        """
        with self._changed:
            held, self._held = self._held, None
            return held is not None and held.lease.hold is not Hold.LOST

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
            self._log.warning(f"the lease could not be renewed: {error}", held.claim.id)
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
        held.seen_finished = held.calculations.wrote_its_own_end(held.claim)
        return held.seen_finished

    def _become(self, held: _Held, lease: Lease) -> None:
        before, held.lease = held.lease.hold, lease
        with self._changed:
            current = self._held is held
        if current and lease.hold is not before:
            self._on_change(lease.hold)


def _patience(held: _Held | None) -> float | None:
    if held is None or held.lease.hold is Hold.LOST:
        return None
    now = boot_time()
    times = [held.lease.next_try - now]
    if held.lease.hold is Hold.RUNNING:
        times.append(held.lease.freeze_at - now)
    return max(0.0, min(times))
