"""What becomes of a calculation whose attempt ended without a result, and how that is noticed; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from puffin.calculations import FRESH, Claim, Claimant, Document, Status, requeue_update, shorten

_FOR_EVER_S = 1e9
"""Longer than any machine lives, and still a date: who wants no limit writes any large number."""


@dataclass(frozen=True)
class Loss:
    """An attempt that was lost without a result.

    Parameters
    ----------
    host
        Where.
    reason
        How, in words.
    max_attempts
        The loss with this number is the last: the calculation then fails.
    """

    host: str
    reason: str
    max_attempts: int


def loss_update(lost_on: Sequence[str], loss: Loss) -> Document:
    """Give a lost calculation back, or let it fail if it has been lost too often.

    Parameters
    ----------
    lost_on
        Where earlier attempts were lost.
    loss
        This one.
    """
    losses = [*lost_on, loss.host]
    if len(losses) < loss.max_attempts:
        return requeue_update() | {"$push": {"puffin.lost_on": loss.host}}
    hosts = ", ".join(f"{host} ({losses.count(host)})" for host in dict.fromkeys(losses))
    comment = (
        f"lost {len(losses)} times without a result, on {hosts}; the last time: {loss.reason}. "
        "It may be what ends the workers that run it: see their logs before you set its status to new again."
    )
    return {
        "$set": {"status": Status.FAILED.value, "comment": shorten(comment)},
        "$unset": {"puffin.renewed": ""} | FRESH,
        "$currentDate": {"_lastmodified": True},
    }


def retraction_update(claim: Claim, loss: Loss) -> Document | None:
    """Give back what failed through no fault of its own.

    Parameters
    ----------
    claim
        The attempt that failed.
    loss
        Counts as one.

    Returns
    -------
    Document | None
        The write; None if the calculation has no attempt left and stays failed.
    """
    if len(claim.lost_on) + 1 >= loss.max_attempts:
        return None
    update = requeue_update()
    update["$set"]["raw_output"] = ""
    update["$push"] = {"puffin.lost_on": loss.host}
    return update


@dataclass(frozen=True)
class Pending:
    """A calculation that somebody runs, as one look found it.

    Parameters
    ----------
    id
        The calculation's id.
    executor
        Who runs it.
    host
        Where, as far as is known.
    attempt
        Which attempt it is; None if no worker of this project ever claimed it.
    renewed, lease_s
        Its lease by the server's clock; None if it was claimed by a SCINE Puffin, which has none.
    modified
        When it was written last, by the server's clock.
    lost_on
        Where earlier attempts were lost.
    lock
        File whose lock its worker holds as long as it lives; empty if that is not known.
    """

    id: str
    executor: str
    host: str
    attempt: int | None
    renewed: datetime | None
    lease_s: float | None
    modified: datetime | None
    lost_on: tuple[str, ...]
    lock: str = ""

    def is_proven_dead(self, heir: Claimant) -> bool:
        """Whether its worker is an earlier incarnation of another, which holds the lock that it would hold.

        Parameters
        ----------
        heir
            The other.
        """
        same = (self.executor, self.host) == (heir.executor, heir.host)
        return same and self.lock in ("", heir.lock)

    def lapses_at(self, reset_time_s: float) -> datetime | None:
        """When it counts as lost, by the server's clock; None if that cannot be told.

        Parameters
        ----------
        reset_time_s
            How long a SCINE Puffin may leave its calculation untouched, in seconds.
        """
        if self.renewed is not None and self.lease_s is not None:
            return self.renewed + timedelta(seconds=min(self.lease_s, _FOR_EVER_S))
        if self.modified is None:
            return None
        return self.modified + timedelta(seconds=min(reset_time_s, _FOR_EVER_S))


def to_pending(document: Mapping[str, Any]) -> Pending:
    """Read a pending calculation.

    Parameters
    ----------
    document
        With ``executor``, ``puffin`` and ``_lastmodified``.
    """
    ours = document.get("puffin") or {}
    executor = str(document.get("executor") or "")
    leased = ours.get("executor") == executor and "renewed" in ours
    return Pending(
        id=str(document["_id"]),
        executor=executor,
        host=str(ours.get("host", "")) if leased else executor,
        attempt=ours.get("attempt"),
        renewed=ours["renewed"] if leased else None,
        lease_s=float(ours["lease_s"]) if leased else None,
        modified=document.get("_lastmodified"),
        lost_on=tuple(ours.get("lost_on", ())),
        lock=str(ours.get("lock", "")) if leased else "",
    )


def as_seen(pending: Pending, object_id: Any) -> Document:
    """The filter that matches a pending calculation only if nothing has happened to it since.

    Parameters
    ----------
    pending
        What was seen.
    object_id
        The calculation's id in the driver's own type.
    """
    seen: Document = {
        "_id": object_id,
        "status": Status.PENDING.value,
        "executor": pending.executor,
        "puffin.attempt": pending.attempt,
    }
    if pending.renewed is not None:
        return {**seen, "puffin.renewed": pending.renewed}
    return {**seen, "_lastmodified": pending.modified}
