"""What is asked of and written to the calculations of a SCINE database; pure.

The documents, their strict types and the order in which work is taken are those of SCINE Database 1.5 and SCINE
Puffin 2.1, so that both kinds of worker can share a database. What this worker adds lives in the sub-document
``puffin``, which SCINE readers ignore and SCINE setters leave alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from puffin.settings import ResourceSettings

Document = dict[str, Any]

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""Longest ``raw_output``: a document may have 16 MiB, and results need room as well."""

MAX_COMMENT_BYTES = 64 * 1024
"""Longest ``comment``, which is read by people."""


class Status(str, Enum):
    """The states of a calculation, as ``scine_database.Status`` has them."""

    CONSTRUCTION = "construction"
    NEW = "new"
    PENDING = "pending"
    COMPLETE = "complete"
    ANALYZED = "analyzed"
    HOLD = "hold"
    FAILED = "failed"


FINISHED = (Status.COMPLETE, Status.FAILED, Status.ANALYZED)
"""States in which a calculation's results may be read."""


@dataclass(frozen=True)
class Claim:
    """One attempt of one calculation by one worker.

    Parameters
    ----------
    database
        Name of the database.
    id
        The calculation's id, 24 hexadecimal digits.
    attempt
        Counts every claim by a worker of this project; the fencing token of all later writes.
    executor
        The worker's uuid.
    order
        The job's order, such as ``scine_single_point``.
    cores, memory, disk
        What the calculation asked for; memory and disk in GB.
    settings
        The calculation's settings.
    lost_on
        The hosts on which earlier attempts were lost.
    """

    database: str
    id: str
    attempt: int
    executor: str
    order: str
    cores: int
    memory: float
    disk: float
    settings: Mapping[str, Any]
    lost_on: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name of the attempt's directory."""
        return f"{self.id}.{self.attempt}"


@dataclass(frozen=True)
class Usage:
    """What an attempt used: wall and processor time in seconds, peak memory in GB."""

    wall_s: float
    cpu_s: float
    peak_memory_gb: float


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended, ready to be written.

    Parameters
    ----------
    status
        ``COMPLETE`` or ``FAILED``.
    comment
        Why it failed; empty if it did not.
    raw_output
        What the job printed; None leaves what is stored.
    usage
        What it used.
    """

    status: Status
    comment: str
    raw_output: str | None
    usage: Usage


def program_names(available: Iterable[str]) -> tuple[str, ...]:
    """The values of ``model.program`` that a worker with these programs accepts.

    Parameters
    ----------
    available
        The programs that are available.

    Returns
    -------
    tuple[str, ...]
        The programs, ``any``, and the QM/QM and QM/MM combinations they allow, as SCINE Puffin forms them.
    """
    names = ["any", *available]
    if "serenity" in names:
        names.append("serenity/serenity")
    if "swoose" in names:
        no_method = {"readuct", "core", "utils", "database", "molassembler", "swoose"}
        names += [f"{name}/swoose" for name in names if name not in no_method]
    return tuple(names)


class Size(Protocol):
    """What a calculation asks for, or a worker has; memory and disk in GB."""

    @property
    def cores(self) -> int: ...

    @property
    def memory(self) -> float: ...

    @property
    def disk(self) -> float: ...


NEEDS = ("cores", "memory", "disk")
"""The parts of a :class:`Size`, by their names in a calculation's ``job``."""


def lacking(has: Size, wanted: Size) -> tuple[str, ...]:
    """Of which of the :data:`NEEDS` a worker has too little, as :func:`claim_filter` has it.

    Parameters
    ----------
    has
        What the worker has.
    wanted
        What the calculation asks for.
    """
    return tuple(need for need in NEEDS if getattr(wanted, need) > getattr(has, need))


def claim_filter(resources: ResourceSettings, orders: Sequence[str], programs: Sequence[str]) -> Document:
    """The calculations that a worker can take.

    Parameters
    ----------
    resources
        What the worker has.
    orders
        Jobs that it accepts.
    programs
        Values of ``model.program`` that it accepts.
    """
    return {
        "status": Status.NEW.value,
        **{f"job.{need}": {"$lte": getattr(resources, need)} for need in NEEDS},
        "job.order": {"$in": list(orders)},
        "model.program": {"$in": list(programs)},
    }


CLAIM_SORT = (("priority", 1), ("job.cores", -1), ("job.memory", -1), ("job.disk", -1))
"""Most urgent first, then the largest, so that small ones do not block the large."""


@dataclass(frozen=True)
class Claimant:
    """Who claims: the worker's uuid, its lease in seconds, where it runs, and the file whose lock proves that."""

    executor: str
    lease_s: float
    host: str
    worker: str
    fleet: str
    lock: str = ""


def claim_update(claimant: Claimant) -> Document:
    """The one write that makes a calculation ours.

    Parameters
    ----------
    claimant
        Who claims it.
    """
    return {
        "$set": {
            "status": Status.PENDING.value,
            "executor": claimant.executor,
            # Tells our claims from those of a SCINE Puffin that comes later and leaves this sub-document alone.
            "puffin.executor": claimant.executor,
            "puffin.lease_s": float(claimant.lease_s),
            "puffin.host": claimant.host,
            "puffin.worker": claimant.worker,
            "puffin.fleet": claimant.fleet,
            "puffin.lock": claimant.lock,
        },
        "$inc": {"puffin.attempt": 1},
        "$currentDate": {"puffin.renewed": True, "_lastmodified": True},
    }


def to_claim(database: str, document: Mapping[str, Any]) -> Claim:
    """Read a claimed document.

    Parameters
    ----------
    database
        Name of the database it came from.
    document
        The calculation as it is after the claim.
    """
    job = document["job"]
    return Claim(
        database=database,
        id=str(document["_id"]),
        attempt=int(document["puffin"]["attempt"]),
        executor=str(document["executor"]),
        order=str(job["order"]),
        cores=int(job["cores"]),
        memory=float(job["memory"]),
        disk=float(job["disk"]),
        settings=dict(document.get("settings") or {}),
        lost_on=tuple(document["puffin"].get("lost_on", ())),
    )


def owned(claim: Claim, object_id: Any, *statuses: Status) -> Document:
    """The filter that matches the calculation only while this attempt owns it.

    Parameters
    ----------
    claim
        The attempt.
    object_id
        The calculation's id in the driver's own type.
    statuses
        States in which it must be; pending if none is given.
    """
    wanted = [status.value for status in statuses or (Status.PENDING,)]
    return {
        "_id": object_id,
        "executor": claim.executor,
        "puffin.attempt": claim.attempt,
        "status": wanted[0] if len(wanted) == 1 else {"$in": wanted},
    }


def renew_update() -> Document:
    """Extend the lease by the server's clock."""
    return {"$currentDate": {"puffin.renewed": True, "_lastmodified": True}}


def finish_update(verdict: Verdict) -> Document:
    """Write the result of a job that does not write to the database itself.

    Parameters
    ----------
    verdict
        How it ended.
    """
    fields: Document = {"status": verdict.status.value, "comment": shorten(verdict.comment, MAX_COMMENT_BYTES)}
    update = _ending(fields, verdict.usage, verdict.raw_output)
    if verdict.status is Status.COMPLETE:
        update["$unset"] |= FRESH
    return update


FRESH = {"puffin.lost_on": ""}
"""What is forgotten of a calculation once it is complete: whoever runs it anew starts with all attempts."""


def complete_update(usage: Usage, raw_output: str | None) -> Document:
    """Complete the record of a job that wrote status and comment itself.

    Parameters
    ----------
    usage
        What it used.
    raw_output
        What it printed; None if it stored that itself.
    """
    return _ending({}, usage, raw_output)


def _ending(fields: Document, usage: Usage, raw_output: str | None) -> Document:
    # SCINE's C++ readers insist on doubles here: an int would break every one of them.
    fields["runtime"] = float(usage.wall_s)
    fields["puffin.usage"] = {
        "wall_s": float(usage.wall_s),
        "cpu_s": float(usage.cpu_s),
        "peak_memory_gb": float(usage.peak_memory_gb),
    }
    if raw_output is not None:
        fields["raw_output"] = shorten(raw_output)
    return {"$set": fields, "$unset": {"puffin.renewed": ""}, "$currentDate": {"_lastmodified": True}}


def requeue_update() -> Document:
    """Give a calculation back that nobody is to blame for."""
    return {
        "$set": {"status": Status.NEW.value, "executor": ""},
        "$unset": {"puffin.renewed": ""},
        "$currentDate": {"_lastmodified": True},
    }


def shorten(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Cut the middle out of a text that is too long to store.

    Parameters
    ----------
    text
        The text.
    limit
        Longest result in bytes of UTF-8, give or take the note about what was cut.

    Returns
    -------
    str
        The text, or its first and last half with a note between them; always valid UTF-8 without NUL.
    """
    data = text.encode("utf-8", "replace").replace(b"\x00", b"?")
    if len(data) <= limit:
        return data.decode("utf-8")
    half = limit // 2
    head, tail = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{head}\n[... {len(data) - 2 * half} bytes left out ...]\n{tail}"


def reason_of(comment: str) -> str:
    """What a comment says, in one line.

    Parameters
    ----------
    comment
        Of a calculation. SCINE's jobs write ``Error: ... failed with message:`` first, and only then the message.

    Returns
    -------
    str
        Its first line that is not empty; the next where that only announces it, the last of a Python traceback.
    """
    lines = [line.strip() for line in comment.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Traceback "):
        return lines[-1]
    if len(lines) > 1 and lines[0].endswith(":"):
        return lines[1]
    return lines[0] if lines else ""
