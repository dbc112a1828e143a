"""The two sides that a plan is made from: a host as it shall be, and as it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from fleet.deployment.manifest import FileState, Manifest
from fleet.deployment.workerfiles import WORKER_FILE
from fleet.hosts.render import RenderedFile


class ProgramState(str, Enum):
    """What supervisord says of a program."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"
    UNKNOWN = "UNKNOWN"

    @property
    def down(self) -> bool:
        """Whether supervisord will not start it again by itself."""
        return self in {ProgramState.STOPPED, ProgramState.EXITED, ProgramState.FATAL, ProgramState.UNKNOWN}

    @property
    def stopped_by_hand(self) -> bool:
        """Whether supervisord was told to stop it. The manager never does: its workers end by a signal, and exit."""
        return self in {ProgramState.STOPPED, ProgramState.STOPPING}


@dataclass(frozen=True)
class RunningWorker:
    """What a running worker reported of itself in the Registry."""

    release: str
    configuration: str


@dataclass(frozen=True)
class DesiredHost:
    """A host as it shall be.

    Parameters
    ----------
    workers
        Names of all its workers.
    wheels
        SHA-256 of every wheel of the release; empty where an existing environment is used.
    supervisor
        Version of supervisor.
    boot
        Whether its workers are to be started with the machine.
    """

    name: str
    release: str
    files: tuple[RenderedFile, ...]
    workers: tuple[str, ...]
    wheels: frozenset[str]
    supervisor: str
    boot: bool = False


class BootState(str, Enum):
    """Whether the workers of a host are started with the machine."""

    IN_PLACE = "in place"
    OUTDATED = "outdated"
    MISSING = "missing"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True)
class ObservedHost:
    """A host as it is.

    Parameters
    ----------
    releases
        Ids of the complete releases on it.
    current
        Id of the release its link names.
    files
        By path relative to the host's own directory.
    programs
        State of each program that supervisord has.
    stopped
        Workers with a stop file of their own.
    stopped_all
        Whether the stop file for the whole host is there.
    told_to_stop
        Whether the whole fleet was told to stop through the database.
    drained
        In words, who keeps the host out of the fleet and why; empty where nobody does.
    wheels
        SHA-256 of the wheels it has.
    supervisors
        Versions of supervisor installed.
    running
        By worker; only those of which it is known. Where it is not, the files say what a worker runs with.
    drifted
        Programs whose section on disk is not the one that supervisord runs with: an earlier deploy was cut off.
    manifest
        What the last deploy wrote; None where none did, or an older one that wrote no manifest.
    good
        Id of the deploy that wrote the last state in which all workers were seen healthy; None where none did.
    boot, boot_why
        Whether its workers are started with the machine, and why that is impossible where it is.
    """

    releases: frozenset[str] = frozenset()
    current: str | None = None
    files: Mapping[str, FileState] = field(default_factory=dict)
    supervisord_running: bool = False
    programs: Mapping[str, ProgramState] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()
    stopped_all: bool = False
    told_to_stop: bool = False
    drained: str = ""
    wheels: frozenset[str] = frozenset()
    supervisors: frozenset[str] = frozenset()
    running: Mapping[str, RunningWorker] = field(default_factory=dict)
    drifted: frozenset[str] = frozenset()
    manifest: Manifest | None = None
    good: str | None = None
    boot: BootState = BootState.MISSING
    boot_why: str = ""

    @property
    def unproven(self) -> bool:
        """Whether the last deploy was cut off, or ended, before it had seen all workers healthy."""
        return self.manifest is not None and self.manifest.deploy != self.good

    @property
    def works(self) -> bool:
        """Whether the last deploy was finished, and every worker of it that is not stopped runs what it wrote."""
        if self.manifest is None or self.manifest.before is not None or self.current != self.manifest.release:
            return False
        names = [
            match.group(2) for path in self.manifest.files if (match := WORKER_FILE.match(path)) and match.group(2)
        ]
        up = [name for name in dict.fromkeys(names) if not self.stopped_all and name not in self.stopped]
        return not names or (bool(up) and all(self._runs(name) for name in up))

    def _runs(self, worker: str) -> bool:
        file = self.files.get(f"etc/workers/{worker}.yaml")
        running = self.running.get(worker)
        return (
            file is not None
            and running is not None
            and self.programs.get(worker) is ProgramState.RUNNING
            and running == RunningWorker(self.current or "", file.sha256[:12])
        )
