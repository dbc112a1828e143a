"""How many calculations there are, and which of those that wait no worker would take; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from puffin.calculations import Status, program_names
from puffin.documents import Model, Request
from puffin.records import ENDED, WorkerRecord


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


def unserved(request: Request, workers: Sequence[WorkerRecord], now: datetime) -> str:
    """Why no worker would take a calculation; empty if one would.

    Parameters
    ----------
    request
        The calculation.
    workers
        The workers that ever reported.
    now
        The time by the server's clock.
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
    return _why_away(large, now)


def _why_away(able: Sequence[WorkerRecord], now: datetime) -> str:
    there = [worker for worker in able if worker.state not in ENDED]
    if not there:
        return "all workers that would take it are stopped"
    return "no worker that would take it reports any more" if all(worker.is_lost(now) for worker in there) else ""


def untaken(tallies: Sequence[Tally], workers: Sequence[WorkerRecord], now: datetime) -> list[Untaken]:
    """What waits for a worker that is not there; nothing where none has ever reported, or somebody runs that kind.

    Parameters
    ----------
    tallies
        The counts.
    workers
        The workers that ever reported.
    now
        The time by the server's clock.
    """
    if not workers:
        return []
    # Who runs it need not have reported: SCINE Puffin may share the database.
    taken = {(tally.order, tally.program) for tally in tallies if tally.status is Status.PENDING}
    waiting = [each for each in tallies if each.status is Status.NEW and (each.order, each.program) not in taken]
    found = [Untaken(tally, unserved(_least(tally), workers, now)) for tally in waiting]
    return [each for each in found if each.reason]


def _least(tally: Tally) -> Request:
    """What calculations of a kind need at least: how large each is was not counted."""
    return Request(tally.order, Model(program=tally.program or "any"), cores=0, memory=0.0, disk=0.0)
