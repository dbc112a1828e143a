"""How many calculations there are, and which of those that wait no worker would take; pure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from puffin.calculations import NEEDS, Size, Status, lacking, program_names
from puffin.documents import Model, Request
from puffin.records import WorkerRecord

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Tally:
    """How many calculations there are of one kind in one state.

    Parameters
    ----------
    status, order, program
        What they have in common.
    count
        How many.
    cores, memory, disk
        What each of them asks for, or the least that any of them does; memory and disk in GB.
    """

    status: Status
    order: str
    program: str
    count: int
    cores: int = 0
    memory: float = 0.0
    disk: float = 0.0


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


def whatever_size(tallies: Iterable[Tally]) -> list[Tally]:
    """The counts of those of the same kind and state, however large each is.

    Parameters
    ----------
    tallies
        The counts.
    """
    return list(_joined(((tally.status, tally.order, tally.program), tally) for tally in tallies).values())


def _joined(tallies: Iterable[tuple[_Key, Tally]]) -> dict[_Key, Tally]:
    found: dict[_Key, Tally] = {}
    for key, tally in tallies:
        found[key] = _sum(found[key], tally) if key in found else tally
    return found


def _sum(one: Tally, other: Tally) -> Tally:
    least = {need: min(getattr(one, need), getattr(other, need)) for need in NEEDS}
    return dataclasses.replace(one, count=one.count + other.count, **least)


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
    willing = _willing(request.order, workers)
    if not willing:
        return f"no worker accepts the job {request.order}"
    able = _able(request.model.program, willing)
    if not able:
        there = sorted({program for worker in willing for program in worker.programs})
        has = ", ".join(there) or "none"
        return f"no worker that accepts {request.order} has the program {request.model.program}; they have {has}"
    large = [worker for worker in able if not lacking(worker, request)]
    return _why_away(large, now) if large else _too_large(request, able)


def _willing(order: str, workers: Sequence[WorkerRecord]) -> list[WorkerRecord]:
    return [worker for worker in workers if order in worker.jobs]


def _able(program: str, workers: Sequence[WorkerRecord]) -> list[WorkerRecord]:
    return [worker for worker in workers if program in program_names(worker.programs)]


def _too_large(request: Request, able: Sequence[WorkerRecord]) -> str:
    """What it asks for that nobody has; all of it, where there is none who has all of it at once."""
    most = dataclasses.replace(request, **{need: max(getattr(worker, need) for worker in able) for need in NEEDS})
    short = lacking(most, request)
    if short:
        return f"needs {_amounts(request, short)}: no worker has that; the most is {_amounts(most, short)}"
    largest = max(able, key=_size)
    return f"needs {_amounts(request, NEEDS)}: no worker has all of that; the largest has {_amounts(largest, NEEDS)}"


def _size(size: Size) -> tuple[float, ...]:
    return tuple(getattr(size, need) for need in NEEDS)


def _amounts(size: Size, needs: Iterable[str]) -> str:
    cores = f"{size.cores} core{'' if size.cores == 1 else 's'}"
    words = {"cores": cores, "memory": f"{size.memory:g} GB memory", "disk": f"{size.disk:g} GB disk"}
    return ", ".join(words[need] for need in needs)


def _why_away(able: Sequence[WorkerRecord], now: datetime) -> str:
    there = [worker for worker in able if not worker.has_ended]
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
    running = [each for each in tallies if each.status is Status.PENDING]
    waiting = [each for each in tallies if each.status is Status.NEW and not _is_run(each, running, workers)]
    sorts = _one_of_each_sort(workers, now)
    reasons = [(each, unserved(_request(each), sorts, now)) for each in waiting]
    found = _joined(((each.order, each.program, reason), each) for each, reason in reasons if reason)
    return [Untaken(tally, reason) for (_, _, reason), tally in found.items()]


def _is_run(waiting: Tally, running: Iterable[Tally], workers: Sequence[WorkerRecord]) -> bool:
    """Whether somebody has just taken one of the same kind that is no smaller.

    Who runs it need not have reported: SCINE Puffin may share the database. How large such a one is nobody knows; but
    the largest are taken first.
    """
    alike = [each for each in running if (each.order, each.program) == (waiting.order, waiting.program)]
    if any(not lacking(each, waiting) for each in alike):
        return True
    return bool(alike) and not _able(waiting.program or "any", _willing(waiting.order, workers))


def _one_of_each_sort(workers: Iterable[WorkerRecord], now: datetime) -> list[WorkerRecord]:
    """Of thousands of workers there are few sorts, and of what waits there may be many sizes."""
    sorts = {
        (worker.jobs, worker.programs, *_size(worker), worker.state, worker.is_lost(now)): worker for worker in workers
    }
    return list(sorts.values())


def _request(tally: Tally) -> Request:
    model = Model(program=tally.program or "any")
    return Request(tally.order, model, cores=tally.cores, memory=tally.memory, disk=tally.disk)
