"""Whether the workers of a host are what a deploy wanted them to be; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from fleet.hosts.render import STAYS_DOWN
from fleet.reach.facts import States

if TYPE_CHECKING:
    from puffin.records import WorkerRecord


_NO_SUPERVISORD = "supervisord does not run any more: was the host started anew, or supervisord ended?"


class Health(Enum):
    """How far a worker has come."""

    HEALTHY = "healthy"
    STARTING = "starting"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class WorkerHealth:
    """One worker: how far it has come, and in words what it is waiting for or has died of.

    `at_its_end` says that it ended by itself with exit code 0, as after `daemon.idle_timeout_in_h`.
    """

    worker: str
    health: Health
    detail: str = ""
    at_its_end: bool = False


def judge(
    wanted: Mapping[str, str],
    release: str,
    states: States,
    records: Sequence[WorkerRecord],
    looping: frozenset[str] = frozenset(),
) -> tuple[WorkerHealth, ...]:
    """Compare workers as they are with what they should be.

    A worker is healthy if supervisord says RUNNING and it has itself reported that it runs the wanted release
    with the wanted configuration.

    Parameters
    ----------
    wanted
        By worker, the hash of its configuration.
    release
        The release.
    states
        What the host says.
    records
        What the workers of this host reported to the database.
    looping
        Workers that were seen to be started again and again.
    """
    programs = {program.name: program for program in states.supervisord.programs}
    reported = {record.worker: record for record in records}
    found = []
    for worker, configuration in wanted.items():
        program = programs.get(worker)
        record = reported.get(worker)
        if states.stop or worker in states.stopped:
            found.append(WorkerHealth(worker, Health.STOPPED, "stopped on purpose"))
        elif program is None:
            why = "supervisord does not know it" if states.supervisord.running else _NO_SUPERVISORD
            found.append(WorkerHealth(worker, Health.FAILED, why))
        elif worker in looping:
            found.append(WorkerHealth(worker, Health.FAILED, "it is started and ends again and again"))
        elif program.state == "FATAL":
            found.append(WorkerHealth(worker, Health.FAILED, program.spawnerr or "it ended again and again"))
        elif program.state == "EXITED" and program.exitstatus not in STAYS_DOWN:
            # For a moment only: supervisord starts it again.
            found.append(WorkerHealth(worker, Health.STARTING, f"about to start again after {program.exitstatus}"))
        elif program.state == "EXITED":
            why, at_its_end = f"it ended with exit code {program.exitstatus}", program.exitstatus == 0
            found.append(WorkerHealth(worker, Health.FAILED, why, at_its_end))
        elif program.state in {"STOPPED", "UNKNOWN"}:
            found.append(WorkerHealth(worker, Health.FAILED, "supervisord does not run it"))
        elif worker in states.recycling:
            found.append(_recycling(worker, record))
        elif program.state != "RUNNING":
            why = f": {program.spawnerr}" if program.spawnerr else ""
            found.append(_with_words(WorkerHealth(worker, Health.STARTING, f"{program.state.lower()}{why}"), states))
        else:
            # A predecessor that was killed never took its report back.
            own = record if record is not None and record.pid == program.pid else None
            found.append(_with_words(_by_report(worker, own, release, configuration), states))
    return tuple(found)


def _with_words(worker: WorkerHealth, states: States) -> WorkerHealth:
    """What a worker that takes long to start says of that itself; first, since lines on a terminal are cut off."""
    words = states.words.get(worker.worker)
    if worker.health is not Health.STARTING or not words:
        return worker
    return replace(worker, detail=f"log: {words} ({worker.detail})")


def _recycling(worker: str, record: WorkerRecord | None) -> WorkerHealth:
    """One that computes may take days; one that does not is being changed, and counts as such."""
    if record is None or not record.calculation:
        return WorkerHealth(worker, Health.STARTING, "about to start again")
    return WorkerHealth(worker, Health.DRAINING, f"until {record.order} {record.calculation} is done")


def _by_report(worker: str, record: WorkerRecord | None, release: str, configuration: str) -> WorkerHealth:
    if record is None or record.state in {"starting", "stopped"}:
        return WorkerHealth(worker, Health.STARTING, "has not reported yet")
    if record.release != release:
        return WorkerHealth(worker, Health.STARTING, f"reports release {record.release or '(none)'}")
    if record.configuration != configuration:
        return WorkerHealth(worker, Health.STARTING, "reports its old settings")
    return WorkerHealth(worker, Health.HEALTHY)
