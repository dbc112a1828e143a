"""What a list shows of calculations, which of them are meant, and in what order; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from puffin.calculations import Document, Status
from puffin.patterns import any_of


@dataclass(frozen=True)
class Entry:
    """One calculation in a list.

    Parameters
    ----------
    database
        Its database.
    id
        24 hexadecimal digits.
    status, order, priority
        As in the database.
    program, method_family, method, basis_set
        Of its model.
    structures
        Ids of its structures.
    created, modified
        In UTC by the server's clock.
    runtime_s
        Seconds it took; None while it has not ended.
    executor, worker, host
        Who ran it last; worker and host only where it was a worker of this project.
    attempt
        How often a worker of this project claimed it; None if none did.
    leased
        Whether it is being run by a worker of this project.
    comment
        Why it failed.
    """

    database: str
    id: str
    status: Status
    order: str
    priority: int
    program: str
    method_family: str
    method: str
    basis_set: str
    structures: tuple[str, ...]
    created: datetime | None
    modified: datetime | None
    runtime_s: float | None
    executor: str
    worker: str
    host: str
    attempt: int | None
    leased: bool
    comment: str

    @property
    def by(self) -> str:
        """Who ran it last."""
        return self.worker or self.executor

    @property
    def cancelled(self) -> bool:
        """Whether somebody gave it up; otherwise it failed by itself, if it failed."""
        return self.status is Status.FAILED and not self.executor and bool(re.match(_CANCELLED, self.comment))


_CANCELLED = r"^cancelled by [^\s@]+@[^\s:]+(:|$)"
"""The beginning of what :func:`cancellation` writes, also for the database."""


IS_CANCELLED: Mapping[str, Any] = {
    "$and": [
        {"$eq": ["$status", Status.FAILED.value]},
        {"$eq": [{"$ifNull": ["$executor", ""]}, ""]},
        {
            "$regexMatch": {
                "input": {"$cond": [{"$eq": [{"$type": "$comment"}, "string"]}, "$comment", ""]},
                "regex": _CANCELLED,
            }
        },
    ]
}
"""The same as `Entry.cancelled`, as an expression for the server."""


def cancellation(by: str, reason: str = "") -> str:
    """The comment of a calculation that is given up.

    Parameters
    ----------
    by
        Who does it, as ``user@host``.
    reason
        Why; may be empty.
    """
    return f"cancelled by {by}" + (f": {reason}" if reason else "")


ENTRY_FIELDS: Mapping[str, int] = dict.fromkeys(
    (
        *("status", "job.order", "priority", "structures", "_created", "_lastmodified", "runtime", "executor"),
        *("model.program", "model.method_family", "model.method", "model.basis_set", "puffin", "comment"),
    ),
    1,
)
"""What of a document makes an :class:`Entry`; above all not its output, which may be long."""


def to_entry(database: str, document: Mapping[str, Any]) -> Entry:
    """Read a calculation.

    Parameters
    ----------
    database
        Name of the database it came from.
    document
        At least :data:`ENTRY_FIELDS` of it.
    """
    job, model, ours = document.get("job") or {}, document.get("model") or {}, document.get("puffin") or {}
    executor = str(document.get("executor") or "")
    runtime = document.get("runtime")
    return Entry(
        database=database,
        id=str(document["_id"]),
        status=Status(document["status"]),
        order=str(job.get("order", "")),
        priority=int(document.get("priority", 0)),
        program=str(model.get("program", "")),
        method_family=str(model.get("method_family", "")),
        method=str(model.get("method", "")),
        basis_set=str(model.get("basis_set", "")),
        structures=tuple(str(item) for item in document.get("structures") or ()),
        created=document.get("_created"),
        modified=document.get("_lastmodified"),
        runtime_s=float(runtime) if isinstance(runtime, int | float) else None,
        executor=executor,
        worker=str(ours.get("worker", "")),
        host=str(ours.get("host", "")),
        attempt=ours.get("attempt"),
        leased=document["status"] == Status.PENDING.value and bool(executor) and ours.get("executor") == executor,
        comment=str(document.get("comment") or ""),
    )


@dataclass(frozen=True)
class Selection:
    """Which calculations are meant; everything that is empty does not matter.

    Parameters
    ----------
    statuses
        Any of these.
    orders, programs, workers
        Any of these; shell patterns such as ``scine_*`` are fine. A worker may be named by its uuid as well.
    since
        Changed since then, in UTC.
    timed
        Only those that have a runtime.
    cancelled
        Only those that somebody gave up.
    """

    statuses: tuple[Status, ...] = ()
    orders: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    since: datetime | None = None
    timed: bool = False
    cancelled: bool = False


def selection_filter(selection: Selection) -> Document:
    """The filter of a selection.

    Parameters
    ----------
    selection
        The selection.
    """
    found: list[Document] = []
    if selection.statuses:
        found.append({"status": {"$in": [status.value for status in selection.statuses]}})
    found += any_of(("job.order",), selection.orders)
    found += any_of(("model.program",), selection.programs)
    found += any_of(("puffin.worker", "executor"), selection.workers)
    if selection.since is not None:
        found.append({"_lastmodified": {"$gte": selection.since}})
    if selection.timed:
        # Before that it is an empty text, which would be sorted among the numbers.
        found.append({"runtime": {"$type": "double"}})
    if selection.cancelled:
        found.append({"status": Status.FAILED.value, "executor": "", "comment": {"$regex": _CANCELLED}})
    return {"$and": found} if len(found) > 1 else (found[0] if found else {})


class Sort(str, Enum):
    """By what a list is sorted."""

    CHANGED = "changed"
    CREATED = "created"
    PRIORITY = "priority"
    RUNTIME = "runtime"
    JOB = "job"
    STATUS = "status"


def sort_fields(by: Sort, reverse: bool) -> tuple[tuple[str, int], ...]:
    """How to sort: the newest, the most urgent or the longest first, names from a to z.

    Parameters
    ----------
    by
        The key.
    reverse
        The other way round.
    """
    field, direction = {
        Sort.CHANGED: ("_lastmodified", -1),
        Sort.CREATED: ("_created", -1),
        Sort.PRIORITY: ("priority", 1),
        Sort.RUNTIME: ("runtime", -1),
        Sort.JOB: ("job.order", 1),
        Sort.STATUS: ("status", 1),
    }[by]
    sign = -1 if reverse else 1
    return ((field, sign * direction), ("_id", -sign))
