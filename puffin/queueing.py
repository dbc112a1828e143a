"""What people ask of the calculations in a database, and do to them; pure.

Every change is conditional: it names the states that it may be made from, and for a running calculation the very
attempt that was seen, so that nothing is changed that somebody else changed in between.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from puffin.calculations import FRESH, MAX_COMMENT_BYTES, Document, Status, program_names, shorten
from puffin.documents import Model, Molecule, Request

if TYPE_CHECKING:
    from puffin.store import WorkerRecord


@dataclass(frozen=True)
class Submission:
    """A structure and the calculation to do with it.

    Parameters
    ----------
    molecule
        The structure.
    request
        The calculation, without structures.
    """

    molecule: Molecule
    request: Request


@dataclass(frozen=True)
class Submitted:
    """What became of a submission.

    Parameters
    ----------
    id
        The calculation.
    status
        Its status.
    added
        Whether it was added; else the identical calculation was there already.
    needs
        What that one asks for: cores, memory and disk in GB; None for one that was added.
    """

    id: str
    status: Status
    added: bool
    needs: tuple[int, float, float] | None = None


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


def any_of(fields: Sequence[str], words: Sequence[str]) -> list[Document]:
    """The filter that one of some fields is one of some words.

    Parameters
    ----------
    fields
        The fields.
    words
        The words, in which ``*``, ``?`` and ``[a-c]`` stand for others, as in a shell; none matches everything.

    Returns
    -------
    list
        One filter; empty where everything matches.
    """
    if not words:
        return []
    exact = [word for word in words if not is_pattern(word)]
    tests: list[Document] = [{"$in": exact}] if exact else []
    tests += [{"$regex": _regular_expression(word)} for word in words if is_pattern(word)]
    choices = [{field: test} for field in fields for test in tests]
    return [{"$or": choices} if len(choices) > 1 else choices[0]]


def is_any_of(text: str, words: Sequence[str]) -> bool:
    """Whether a text is one of some words, as :func:`any_of` would find it.

    Parameters
    ----------
    text
        The text.
    words
        The words; none matches everything.
    """
    return not words or any(fnmatchcase(text, word) for word in words)


def is_pattern(word: str) -> bool:
    """Whether a word stands for others, as :func:`any_of` takes it.

    Parameters
    ----------
    word
        The word.
    """
    return any(sign in word for sign in "*?[")


_PARTS = re.compile(r"\[(?:(?P<negated>!)|(?!!))(?P<choice>\][^\]]*|[^\]]+)\]|(?P<sign>.)", re.DOTALL)
_RANGE = re.compile(r"(.)-(.)|(.)", re.DOTALL)


def _regular_expression(pattern: str) -> str:
    """What :func:`fnmatch.fnmatchcase` does, in words that every database server understands."""
    parts = []
    for found in _PARTS.finditer(pattern):
        if found["sign"] is None:
            parts.append(_one_of(found["choice"], bool(found["negated"])))
        else:
            parts.append({"*": ".*", "?": "."}.get(found["sign"], re.escape(found["sign"])))
    return f"^{''.join(parts)}$"


def _one_of(choice: str, negated: bool) -> str:
    members = []
    for first, last, single in _RANGE.findall(choice):
        if single:
            members.append(re.escape(single))
        elif first <= last:
            members.append(f"{re.escape(first)}-{re.escape(last)}")
    if not members:
        return "." if negated else r"[^\s\S]"
    return f"[{'^' if negated else ''}{''.join(members)}]"


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
        return f"is {entry.status.value}"
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


@dataclass(frozen=True)
class Tally:
    """How many calculations there are of one kind in one state."""

    status: Status
    order: str
    program: str
    count: int


@dataclass(frozen=True)
class Untaken:
    """Calculations that wait and that no worker would take, and why."""

    tally: Tally
    reason: str


@dataclass(frozen=True)
class Pace:
    """How fast calculations come to an end.

    Parameters
    ----------
    finished
        How many ended within the window.
    per_hour
        Rate; None if too few ended to tell.
    left_s
        Seconds until all that run, or wait and will be taken, have ended at this rate; None if that cannot be told.
    """

    finished: int
    per_hour: float | None
    left_s: float | None


@dataclass(frozen=True)
class EndedCalculation:
    """A calculation that came to an end.

    Parameters
    ----------
    at
        When, by the server's clock.
    runtime_s
        Seconds it took.
    """

    at: datetime
    runtime_s: float


NEWEST_ENDS = 1000
"""As many of the last ends are enough to tell the pace."""

_SPANS_S = (300.0, 900.0)
"""Seconds before the last end, in which the pace is looked for before it is looked for in the whole window."""

_ENOUGH = 20
_BREATH_S = 30.0
"""Between calculations a worker may need that long; what is longer is a pause, in which there was nothing to do."""


def pace(finished: int, ended: Sequence[EndedCalculation], left: int, now: datetime, window_s: float = 3600.0) -> Pace:
    """How fast it goes while there is something to do, as of late.

    Parameters
    ----------
    finished
        How many ended within the window.
    ended
        At least the newest :data:`NEWEST_ENDS` of these.
    left
        How many wait or run.
    now
        The time by the same clock.
    window_s
        Length of the window in seconds.
    """
    ends = sorted(ended, key=lambda end: end.at, reverse=True)[:NEWEST_ENDS]
    if len(ends) < 2:
        return Pace(finished, None, 0.0 if left == 0 else None)
    begin = now - timedelta(seconds=window_s)
    if finished > len(ends):
        # What else ended before the oldest of these is not known.
        begin = max(begin, ends[-1].at)
    for span in _SPANS_S:
        later = max(begin, ends[0].at - timedelta(seconds=span))
        if sum(end.at >= later for end in ends) >= _ENOUGH:
            begin = later
            break
    recent = [end for end in ends if end.at >= begin]
    per_second = len(recent) / max(1.0, _busy_s(recent, begin))
    return Pace(finished, per_second * 3600, left / per_second)


def _busy_s(ends: Sequence[EndedCalculation], begin: datetime) -> float:
    """Seconds in which at least one of these ran, short pauses included."""
    spans = sorted((max(begin, end.at - timedelta(seconds=end.runtime_s)), end.at) for end in ends)
    busy, until = timedelta(), spans[0][0]
    for start, stop in spans:
        if (start - until) / timedelta(seconds=1) > _BREATH_S:
            until = start
        busy += max(timedelta(), stop - until)
        until = max(until, stop)
    return busy / timedelta(seconds=1)


def left_of(tallies: Iterable[Tally], untaken: Iterable[Untaken] = ()) -> int:
    """How many calculations wait or run.

    Parameters
    ----------
    tallies
        The counts.
    untaken
        What is left out, since it will not end however long one waits.
    """
    without = sum(each.tally.count for each in untaken)
    return sum(tally.count for tally in tallies if tally.status in {Status.NEW, Status.PENDING}) - without


def totals_by(tallies: Iterable[Tally]) -> dict[Status, int]:
    """How many calculations there are in each state, in the order of a calculation's life.

    Parameters
    ----------
    tallies
        The counts.
    """
    found: Counter[Status] = Counter()
    for tally in tallies:
        found[tally.status] += tally.count
    return {status: found[status] for status in Status if found[status]}


def unserved(request: Request, workers: Sequence[WorkerRecord]) -> str:
    """Why no worker would take a calculation; empty if one would.

    Parameters
    ----------
    request
        The calculation.
    workers
        The workers that ever reported.
    """
    if not workers:
        return "no worker has reported to this database yet"
    willing = [worker for worker in workers if request.order in worker.jobs]
    if not willing:
        return f"no worker accepts the job {request.order}"
    able = [worker for worker in willing if request.model.program in program_names(worker.programs)]
    if not able:
        there = sorted({program for worker in willing for program in worker.programs})
        has = ", ".join(there) or "none"
        return f"no worker that accepts {request.order} has the program {request.model.program}; they have {has}"
    large = [
        worker
        for worker in able
        if request.cores <= worker.cores and request.memory <= worker.memory and request.disk <= worker.disk
    ]
    if not large:
        best = max(able, key=lambda worker: (worker.cores, worker.memory, worker.disk))
        wanted = f"{request.cores} cores, {request.memory:g} GB memory, {request.disk:g} GB disk"
        has = f"{best.cores} cores, {best.memory:g} GB memory, {best.disk:g} GB disk"
        return f"no worker is large enough for {wanted}; the largest has {has}"
    if all(worker.state in {"stopped", "quarantined"} for worker in large):
        return "all workers that would take it are stopped"
    return ""


def untaken(tallies: Sequence[Tally], workers: Sequence[WorkerRecord]) -> list[Untaken]:
    """What waits for a worker that is not there; nothing where none has ever reported, or somebody runs that kind.

    Parameters
    ----------
    tallies
        The counts.
    workers
        The workers that ever reported.
    """
    if not workers:
        return []
    # Who runs it need not have reported: SCINE Puffin may share the database.
    taken = {(tally.order, tally.program) for tally in tallies if tally.status is Status.PENDING}
    waiting = [each for each in tallies if each.status is Status.NEW and (each.order, each.program) not in taken]
    found = [Untaken(tally, unserved(_least(tally), workers)) for tally in waiting]
    return [each for each in found if each.reason]


def _least(tally: Tally) -> Request:
    """What calculations of a kind need at least: how large each is was not counted."""
    return Request(tally.order, Model(program=tally.program or "any"), cores=0, memory=0.0, disk=0.0)
