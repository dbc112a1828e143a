"""What every worker is doing, from what they reported and, where they were asked, what their hosts say; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fleet.reach.facts import ALIVE, Program, States
from fleet.words import duration, natural
from puffin.records import ENDED, WorkerRecord

_AWAY = frozenset({"lost", "unreported", *ENDED})
_WRONG = frozenset({"lost", "quarantined", "frozen", "unreported"})
_ORDER = ("lost", "quarantined", "unreported", "frozen", "starting", "draining", "running", "idle", "stopped")
_RANKS = {state: rank for rank, state in enumerate(_ORDER)}
_KEYS = {"order": "job"}
"""Fields of a record that have another name outside: as those of a calculation have."""
_FULL = 10_000_000
"""With less than so many bytes left on its disk, a host is in trouble: logs and results need room."""
_DOWN_FOR_GOOD = frozenset({"FATAL", "BACKOFF", "UNKNOWN"})


@dataclass(frozen=True)
class OnHost:
    """What a worker's host says of it.

    Parameters
    ----------
    program
        The state that supervisord gives it; empty where supervisord does not run or does not know it.
    why
        What supervisord says beside that, where it is not running.
    alive
        Whether its process runs.
    orphan
        Whether it runs, but supervisord does not look after it.
    stopped, recycling
        Whether it is told to stop, or to start again when its calculation is done.
    """

    program: str
    why: str
    alive: bool
    orphan: bool
    stopped: bool
    recycling: bool


@dataclass(frozen=True)
class WorkerStatus:
    """One worker for a table.

    Parameters
    ----------
    record
        What it reported.
    state
        Its state with silence taken into account.
    silent_s
        Seconds since it last reported.
    wanted_release
        The release to which its host was last deployed; empty where that is not known.
    age_s
        How long it has its calculation, or is in its state where it has none; None where that is not known.
    on_host
        What its host says; None where it was not asked or did not answer.
    """

    record: WorkerRecord
    state: str
    silent_s: float
    wanted_release: str = ""
    age_s: float | None = None
    on_host: OnHost | None = None

    @property
    def outdated(self) -> bool:
        """Whether it lives and runs another release than its host was deployed to."""
        return self.works and bool(self.wanted_release) and self.record.release != self.wanted_release

    @property
    def works(self) -> bool:
        """Whether it lives, as far as is known; between its end and its next start it does not."""
        return self.state not in _AWAY and not self.record.is_between

    @property
    def memory(self) -> str:
        """What its calculation uses of the memory it is granted, as ``1.2/8``, in GB; the latter alone if not known."""
        granted, used = f"{self.record.memory:g}", self.record.memory_used
        return granted if used is None or not self.works else f"{used:.1f}/{granted}"

    @property
    def wrong(self) -> bool:
        """Whether somebody should look at it."""
        return self.state in _WRONG or bool(_host_troubles(self))

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with it, in a few words each."""
        return (*_reported_troubles(self), *_host_troubles(self))


@dataclass(frozen=True)
class HostLook:
    """What came of asking a host.

    Parameters
    ----------
    states
        What it said; None if it could not be asked.
    error
        Why it could not be asked.
    """

    states: States | None
    error: str = ""


@dataclass(frozen=True)
class HostStatus:
    """One host and its workers.

    Parameters
    ----------
    host
        Its name.
    workers
        Its workers, what is wrong first.
    look
        What came of asking it; None where it was not asked.
    """

    host: str
    workers: tuple[WorkerStatus, ...]
    look: HostLook | None = None

    @property
    def wrong(self) -> bool:
        """Whether somebody should look at it."""
        return bool(self.troubles)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with it, in a few words each, the same trouble of several workers said once."""
        states = Counter(worker.state for worker in self.workers if worker.state in _WRONG)
        return (*self.own_troubles, *(f"{count} {state}" for state, count in states.items()))

    @property
    def own_troubles(self) -> tuple[str, ...]:
        """What is wrong with it that the states of its workers do not tell."""
        counted = Counter(trouble for worker in self.workers for trouble in _kinds_of_trouble(worker))
        return (*self.without_workers, *(f"{count} {trouble}" for trouble, count in counted.items()))

    @property
    def without_workers(self) -> tuple[str, ...]:
        """What is wrong with the host itself."""
        return tuple(_own_troubles(self))

    @property
    def computing(self) -> dict[str, int]:
        """How many workers run which job, the most frequent first."""
        counted = Counter(each.record.order for each in self.workers if each.works and each.record.calculation)
        return dict(counted.most_common())

    @property
    def oldest_s(self) -> float | None:
        """For how long the longest of its calculations has been running, in seconds."""
        ages = [each.age_s for each in self.workers if each.works and each.record.calculation and each.age_s]
        return max(ages, default=None)

    @property
    def silent_s(self) -> float | None:
        """Seconds since the last report of any of its workers; None if there was none."""
        return min((each.silent_s for each in self.workers if each.silent_s != float("inf")), default=None)

    def sum_of(self, count: str) -> int:
        """The sum of a count of its workers.

        Parameters
        ----------
        count
            done, failed or restarts.
        """
        return sum(int(getattr(each.record, count)) for each in self.workers)


def status_of(
    records: Iterable[WorkerRecord], now: datetime, releases: Mapping[str, str] | None = None
) -> list[WorkerStatus]:
    """The workers, what is wrong first.

    Parameters
    ----------
    records
        What they reported.
    now
        The database server's clock, by which they were stamped.
    releases
        By host, the release it was last deployed to.
    """
    found = [_status(record, now, (releases or {}).get(record.host, "")) for record in records]
    return sorted(found, key=_urgency)


def by_host(
    hosts: Sequence[str], statuses: Iterable[WorkerStatus], looks: Mapping[str, HostLook] | None = None
) -> list[HostStatus]:
    """The hosts, those with trouble first, else in the order given.

    Parameters
    ----------
    hosts
        Names of the hosts that there should be.
    statuses
        Their workers, and perhaps those of others, as :func:`status_of` sorts them.
    looks
        What came of asking them.
    """
    of_host: dict[str, list[WorkerStatus]] = {host: [] for host in hosts}
    for each in statuses:
        of_host.setdefault(each.record.host, []).append(each)
    found = [HostStatus(host, tuple(workers)) for host, workers in of_host.items()]
    if looks is not None:
        found = [_looked_at(status, looks[status.host]) if status.host in looks else status for status in found]
    return sorted(found, key=lambda status: not status.wrong)


def totals(statuses: Sequence[WorkerStatus]) -> dict[str, int]:
    """How many workers are in each state, what is wrong first.

    Parameters
    ----------
    statuses
        The workers.
    """
    counted = Counter(status.state for status in statuses)
    return {state: counted[state] for state in sorted(counted, key=_rank)}


def of_nobody(host: HostStatus) -> WorkerStatus:
    """What stands for the workers of a host of which none is known.

    Parameters
    ----------
    host
        The host.
    """
    return WorkerStatus(_unreported_record(host.host, "", "unreported"), "unreported", float("inf"))


def apart(counts: Mapping[str, int], cancelled: int) -> dict[str, int]:
    """Calculations by status, sorted, with those that somebody cancelled apart from those that failed by themselves.

    Parameters
    ----------
    counts
        By status, as in the database, where both are failed.
    cancelled
        How many of the failed ones were cancelled.
    """
    failed = counts.get("failed", 0) - cancelled
    split = {**counts, "failed": max(0, failed), "cancelled": cancelled}
    return {status: count for status, count in sorted(split.items()) if count}


def to_json(
    status: WorkerStatus, fields: Mapping[str, Any], *, drained: str = "", fleet_stopped: bool = False
) -> dict[str, Any]:
    """One worker as ``status --json`` prints it; its keys are an interface, see :mod:`fleet.shapes`.

    Parameters
    ----------
    status
        The worker.
    fields
        The fields of its record.
    drained
        Who keeps its host out of the fleet, and why; empty where nobody does.
    fleet_stopped
        Whether the whole fleet is told to stop.
    """
    on_host = status.on_host
    return {
        **{_KEYS.get(name, name): value for name, value in fields.items()},
        "state": status.state,
        "since": status.record.since,
        "age_s": status.age_s,
        "silent_s": None if status.silent_s == float("inf") else status.silent_s,
        "wanted_release": status.wanted_release,
        "troubles": list(status.troubles),
        "drained": drained,
        "fleet_stopped": fleet_stopped,
        "supervisord": None if on_host is None else on_host.program,
        "alive": None if on_host is None else on_host.alive,
        "orphan": None if on_host is None else on_host.orphan,
        "told_to_stop": None if on_host is None else on_host.stopped,
        "recycling": None if on_host is None else on_host.recycling,
    }


def _status(record: WorkerRecord, now: datetime, wanted: str) -> WorkerStatus:
    since = record.since
    age = None if since is None else max(0.0, (now - since).total_seconds())
    state = "lost" if record.is_lost(now) else ("starting" if record.is_between else record.state)
    return WorkerStatus(record, state, max(0.0, record.silent_s(now)), wanted, age)


def _urgency(status: WorkerStatus) -> tuple[bool, int, tuple[tuple[int, str], ...], int, str]:
    record = status.record
    # Workers of one host differ in their number only: so the shorter name is the one with the smaller number.
    return not status.wrong, _rank(status.state), natural(record.host), len(record.worker), record.worker


def _rank(state: str) -> int:
    return _RANKS.get(state, 0)


# What is wrong -----------------------------------------------------------------------------------------


def _reported_troubles(status: WorkerStatus) -> tuple[str, ...]:
    if status.state == "lost" and status.record.state in ENDED:
        return (f"ended {duration(status.silent_s)} ago to start again, and has not",)
    if status.state == "lost":
        silent = "" if status.silent_s == float("inf") else f", silent for {duration(status.silent_s)}"
        return (f"lost{silent}",)
    return {
        "quarantined": ("quarantined after too many failures",),
        "frozen": ("frozen: it cannot reach the database",),
        "unreported": ("has never reported",),
    }.get(status.state, ())


def _host_troubles(status: WorkerStatus) -> tuple[str, ...]:
    on_host = status.on_host
    if on_host is None:
        return ()
    found = []
    if on_host.orphan:
        found.append("runs without supervisord")
    if on_host.program in _DOWN_FOR_GOOD:
        found.append(f"supervisord: {on_host.program}" + (f", {on_host.why}" if on_host.why else ""))
    elif status.works and not on_host.alive and on_host.program not in ALIVE:
        found.append(f"reported {status.state}, but does not run" + (" (told to stop)" if on_host.stopped else ""))
    return tuple(found)


def _kinds_of_trouble(status: WorkerStatus) -> tuple[str, ...]:
    """What its host tells against it, without what differs from worker to worker."""
    if status.on_host is None:
        return ()
    found = ["without supervisord"] if status.on_host.orphan else []
    found += [status.on_host.program] if status.on_host.program in _DOWN_FOR_GOOD else []
    found += ["not running"] if any("does not run" in trouble for trouble in _host_troubles(status)) else []
    return tuple(found)


def _own_troubles(status: HostStatus) -> Iterable[str]:
    look = status.look
    if look is not None and look.states is None:
        yield f"not reached: {look.error}"
    elif look is not None and look.states is not None and not look.states.supervisord.reachable:
        yield f"supervisord: {look.states.supervisord.problem or 'does not run'}"
    if look is not None and look.states is not None and look.states.free is not None and look.states.free < _FULL:
        yield f"disk full: {look.states.free / 1e6:.1f} MB free"
    if not status.workers:
        yield "no worker has reported"


# What hosts say ----------------------------------------------------------------------------------------


def _looked_at(status: HostStatus, look: HostLook) -> HostStatus:
    states = look.states
    if states is None:
        return replace(status, look=look)
    programs = {program.name: program for program in states.supervisord.programs}
    known = {each.record.worker for each in status.workers}
    workers = [_beside(each, _on_host(each.record.worker, states, programs)) for each in status.workers]
    ours = re.compile(rf"{re.escape(status.host)}-[0-9]+")
    for name in sorted({*programs, *states.pids} - known, key=natural):
        if ours.fullmatch(name):
            workers.append(_unreported(status.host, name, _on_host(name, states, programs)))
    return HostStatus(status.host, tuple(sorted(workers, key=_urgency)), look)


def _beside(status: WorkerStatus, on_host: OnHost) -> WorkerStatus:
    """What a worker reported beside what its host says: who is told to stay down before he is back cannot say so."""
    is_stopped = status.record.state in ENDED and on_host.stopped and not on_host.alive
    return replace(status, on_host=on_host, state=status.record.state if is_stopped else status.state)


def _on_host(worker: str, states: States, programs: Mapping[str, Program]) -> OnHost:
    program = programs.get(worker)
    pid = states.pids.get(worker)
    down = program is not None and program.state in _DOWN_FOR_GOOD
    return OnHost(
        program=program.state if program else "",
        why=(program.spawnerr or program.description) if program and down else "",
        alive=pid is not None,
        orphan=pid is not None and (program is None or not program.alive),
        stopped=states.stop or worker in states.stopped,
        recycling=worker in states.recycling,
    )


def _unreported(host: str, worker: str, on_host: OnHost) -> WorkerStatus:
    state = "stopped" if on_host.stopped and not on_host.alive else "unreported"
    return WorkerStatus(_unreported_record(host, worker, state), state, float("inf"), on_host=on_host)


def _unreported_record(host: str, worker: str, state: str) -> WorkerRecord:
    return WorkerRecord(
        uuid="",
        fleet="",
        host=host,
        worker=worker,
        release="",
        configuration="",
        pid=0,
        cores=0,
        memory=0.0,
        disk=0.0,
        programs=(),
        jobs=(),
        state=state,
    )
