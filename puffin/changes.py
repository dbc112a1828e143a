"""What people may do to calculations in a database, and how that is written; pure.

Every change is conditional: it names the states that it may be made from, and for a running calculation the very
attempt that was seen, so that nothing is changed that somebody else changed in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from puffin.calculations import FRESH, MAX_COMMENT_BYTES, Document, Status, shorten
from puffin.entries import Entry


class Change(str, Enum):
    """What people do to calculations."""

    REQUEUE = "requeue"
    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Rules:
    """How a change is made.

    Parameters
    ----------
    usual
        The states it is made from where nobody says which.
    possible
        The states it can be made from.
    becomes
        The state afterwards.
    """

    usual: tuple[Status, ...]
    possible: tuple[Status, ...]
    becomes: Status


RULES: Mapping[Change, Rules] = {
    Change.REQUEUE: Rules((Status.FAILED,), (Status.FAILED, Status.COMPLETE, Status.ANALYZED, Status.HOLD), Status.NEW),
    Change.HOLD: Rules((Status.NEW,), (Status.NEW, Status.CONSTRUCTION, Status.PENDING), Status.HOLD),
    Change.RELEASE: Rules((Status.HOLD,), (Status.HOLD,), Status.NEW),
    Change.CANCEL: Rules(
        (Status.NEW, Status.CONSTRUCTION, Status.HOLD, Status.PENDING),
        (Status.NEW, Status.CONSTRUCTION, Status.HOLD, Status.PENDING),
        Status.FAILED,
    ),
}


def refusal(change: Change, entry: Entry) -> str:
    """Why a change cannot be made to a calculation; empty if it can.

    Parameters
    ----------
    change
        The change.
    entry
        The calculation.
    """
    if entry.status not in RULES[change].possible:
        if entry.status is Status.PENDING:
            return "is running: cancel it first, or wait"
        return "is cancelled already" if entry.cancelled else f"is {entry.status.value}"
    if entry.status is Status.PENDING and not entry.leased:
        return f"is run by {entry.executor or 'somebody'}, which is no worker of this project and would not notice"
    return ""


def as_listed(entry: Entry, object_id: Any) -> Document:
    """The filter that matches a calculation only while it is as it was listed.

    Parameters
    ----------
    entry
        What was seen.
    object_id
        The calculation's id in the driver's own type.
    """
    seen: Document = {"_id": object_id, "status": entry.status.value}
    if entry.status is Status.PENDING:
        seen |= {"executor": entry.executor, "puffin.attempt": entry.attempt}
    return seen


def change_update(change: Change, reason: str = "") -> Document:
    """The write of a change.

    Clearing the executor makes whatever a running attempt still writes come to nothing; the number of the attempt
    and the key stay.

    Parameters
    ----------
    change
        The change.
    reason
        The comment of a cancelled calculation.
    """
    fields: Document = {"status": RULES[change].becomes.value, "executor": ""}
    forgotten: Document = {"puffin.renewed": ""}
    if change is Change.REQUEUE:
        results: Document = {"properties": [], "structures": [], "elementary_steps": []}
        fields |= {"comment": "", "raw_output": "", "runtime": "", "results": results}
        forgotten |= FRESH | {"puffin.usage": ""}
    if change is Change.CANCEL:
        fields["comment"] = shorten(reason, MAX_COMMENT_BYTES)
    return {"$set": fields, "$unset": forgotten, "$currentDate": {"_lastmodified": True}}
