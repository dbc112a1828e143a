"""The lease on a calculation, as a state machine; pure, with the time passed in.

A claim is valid for the lease's duration. The holder renews it every third of that. If no renewal has succeeded for
three quarters of it, the job is frozen, so that a worker that takes the calculation over when the lease has run out
never runs it beside the old one. When the database answers again the job goes on, if the calculation is still ours.

The protocol is that of leases with a fencing token: C. Gray and D. Cheriton, "Leases: an efficient fault-tolerant
mechanism for distributed file cache consistency", SOSP 1989. Only the rates of two clocks must agree, never their
readings: the holder counts from the moment at which it *sent* a renewal, which is before the server stamped it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum

RENEW_FRACTION = 1 / 3
FREEZE_FRACTION = 3 / 4


class Hold(Enum):
    """What the holder may do with its job."""

    RUNNING = "running"
    FROZEN = "frozen"
    LOST = "lost"


@dataclass(frozen=True)
class Lease:
    """A lease as its holder sees it.

    Parameters
    ----------
    duration
        Seconds for which one renewal is valid.
    renewed
        When the last successful renewal was sent, in seconds of a clock that never jumps and also counts while the
        machine sleeps.
    tried
        When the last renewal was sent, successful or not.
    renew_every
        Seconds between two renewals while all is well.
    hold
        What the holder may do.
    """

    duration: float
    renewed: float
    tried: float
    renew_every: float
    hold: Hold = Hold.RUNNING

    @property
    def freeze_at(self) -> float:
        """When the job must stand still unless a renewal succeeds before."""
        return self.renewed + FREEZE_FRACTION * self.duration

    @property
    def expires_at(self) -> float:
        """When, at the earliest, somebody else may take the calculation."""
        return self.renewed + self.duration

    @property
    def next_try(self) -> float:
        """When the next renewal is due: soon after one that got no answer."""
        if self.tried > self.renewed:
            return self.tried + min(self.duration / 12, 5.0)
        return self.renewed + self.renew_every


def claimed(duration: float, sent: float, touch_every: float = math.inf) -> Lease:
    """The lease that a claim grants.

    Parameters
    ----------
    duration
        Seconds for which it is valid.
    sent
        When the claim was sent.
    touch_every
        Seconds after which it is renewed at the latest, however long it is valid.
    """
    every = min(RENEW_FRACTION * duration, touch_every)
    return Lease(duration=duration, renewed=sent, tried=sent, renew_every=every)


def trying(lease: Lease, now: float) -> Lease:
    """A renewal is being sent."""
    return dataclasses.replace(lease, tried=now)


def granted(lease: Lease, sent: float) -> Lease:
    """A renewal sent at ``sent`` succeeded: the job may run, or run again."""
    if lease.hold is Hold.LOST:
        return lease
    return dataclasses.replace(
        lease, renewed=max(sent, lease.renewed), tried=max(sent, lease.renewed), hold=Hold.RUNNING
    )


def refused(lease: Lease) -> Lease:
    """The calculation is no longer ours: the job must die, and nothing of it may be written."""
    return dataclasses.replace(lease, hold=Hold.LOST)


def at(lease: Lease, now: float) -> Lease:
    """The lease after time has passed without a renewal."""
    if lease.hold is Hold.RUNNING and now >= lease.freeze_at:
        return dataclasses.replace(lease, hold=Hold.FROZEN)
    return lease


def is_due(lease: Lease, now: float) -> bool:
    """Whether a renewal should be sent now."""
    return lease.hold is not Hold.LOST and now >= lease.next_try


def may_judge(connected_since: float | None, now: float, lease_s: float) -> bool:
    """Whether a worker may call others dead: only after a full lease without a break of its own connection.

    Right after an outage every lease in the database looks lapsed, although all its holders live.

    Parameters
    ----------
    connected_since
        When its connection began to work without a failure; None if it does not work.
    now
        The present, on the same clock.
    lease_s
        Its own lease, in seconds. Who has a longer one is left alone for as long as that: see `puffin.judge.judge`.
    """
    return connected_since is not None and now - connected_since > lease_s
