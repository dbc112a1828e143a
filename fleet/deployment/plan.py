"""What has to be done on a host: desired against observed. Pure; the order of doing is the caller's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from fleet import shapes
from fleet.deployment.drift import Drift, find_drift
from fleet.deployment.manifest import FileState, Manifest
from fleet.hosts.render import RenderedFile, configuration_hash

_WORKER_FILE = re.compile(r"etc/(?:conf\.d/([^/]+)\.conf|workers/([^/]+)\.(?:yaml|env))\Z")


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


class WriteReason(str, Enum):
    """Why a file is written."""

    NEW = "new"
    CHANGED = "changed"
    MODE = "mode"


class ChangeReason(str, Enum):
    """Why a worker must start again."""

    RELEASE = "release"
    SETTINGS = "settings"
    PROGRAM = "program"


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
    boot: BootState = BootState.MISSING
    boot_why: str = ""

    @property
    def works(self) -> bool:
        """Whether the last deploy was finished, and every worker of it runs what it wrote."""
        if self.manifest is None or self.manifest.before is not None or self.current != self.manifest.release:
            return False
        names = [
            match.group(2) for path in self.manifest.files if (match := _WORKER_FILE.match(path)) and match.group(2)
        ]
        return bool(names) and all(self._runs(name) for name in dict.fromkeys(names))

    def _runs(self, worker: str) -> bool:
        file = self.files.get(f"etc/workers/{worker}.yaml")
        running = self.running.get(worker)
        return (
            file is not None
            and running is not None
            and self.programs.get(worker) is ProgramState.RUNNING
            and running == RunningWorker(self.current or "", file.sha256[:12])
        )


@dataclass(frozen=True)
class FileWrite:
    """A file to be written, and why."""

    file: RenderedFile
    reason: WriteReason


@dataclass(frozen=True)
class Switch:
    """Which release the host's link names before and after."""

    before: str | None
    after: str


@dataclass(frozen=True)
class WorkerChange:
    """A worker that goes on with something new once its calculation has ended, and why."""

    name: str
    reasons: tuple[ChangeReason, ...]

    @property
    def restart(self) -> bool:
        """Whether supervisord must take the program out and in again; recycling is not enough."""
        return ChangeReason.PROGRAM in self.reasons


@dataclass(frozen=True)
class HostPlan:
    """What has to be done on one host.

    Parameters
    ----------
    wheels_to_upload
        SHA-256 of each, only where the release has to be installed.
    files_to_remove
        Only files of workers, and only such as the manager writes.
    workers_added
        Workers that were not there.
    workers_changed
        Workers that run and must start again: recycled or restarted, in either case after their calculation.
    workers_removed
        Workers that finish their jobs and are then taken out.
    workers_to_start
        Workers that should run and do not.
    drained
        In words, who keeps the host out of the fleet and why; empty where nobody does.
    kept_stopped
        Workers that somebody stopped, on purpose by a stop file or by hand with supervisorctl, so they stay
        stopped. They are given their files all the same.
    stop_files
        Those of `kept_stopped` that need a stop file written, since without one this deploy would start them.
    stale_stops
        Added workers with a stop file left by an earlier worker of that name; it has to be cleared.
    strangers
        Programs under supervisord that the manager did not put there; left alone.
    drift
        What was changed by hand.
    repair
        Whether there is consent to undo that.
    enable_boot, disable_boot
        Whether the host has to be made to start its workers with the machine, or to do so no longer.
    no_boot
        Why that is wanted and not possible; empty otherwise. Nothing is done about it.
    """

    host: str
    wheels_to_upload: tuple[str, ...] = ()
    install_release: str | None = None
    supervisor_to_install: str | None = None
    files_to_write: tuple[FileWrite, ...] = ()
    files_to_remove: tuple[str, ...] = ()
    switch_release: Switch | None = None
    start_supervisord: bool = False
    workers_added: tuple[str, ...] = ()
    workers_changed: tuple[WorkerChange, ...] = ()
    workers_removed: tuple[str, ...] = ()
    workers_to_start: tuple[str, ...] = ()
    kept_stopped: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    stale_stops: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    stop_files: tuple[str, ...] = ()
    drained: str = ""
    drift: Drift = field(default_factory=Drift)
    repair: bool = False
    enable_boot: bool = False
    disable_boot: bool = False
    no_boot: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.wheels_to_upload
            or self.install_release
            or self.supervisor_to_install
            or self.files_to_write
            or self.files_to_remove
            or self.switch_release
            or self.start_supervisord
            or self.workers_added
            or self.workers_changed
            or self.workers_removed
            or self.workers_to_start
            or self.stale_stops
            or self.enable_boot
            or self.disable_boot
        )

    @property
    def needs_consent(self) -> bool:
        """Whether carrying this out would undo what somebody changed by hand, which nobody has agreed to."""
        return not self.repair and bool(self.drift.files_changed or self.drift.files_missing)

    def to_json(self) -> shapes.Plan:
        """Plain data for ``--json``; file contents are left out.

        The keys are the attributes of this class, ``empty`` and ``needs_consent``; what they mean stands there.
        """
        switch = self.switch_release
        return {
            "host": self.host,
            "empty": self.empty,
            "needs_consent": self.needs_consent,
            "repair": self.repair,
            "drift": self.drift.to_json(),
            "wheels_to_upload": list(self.wheels_to_upload),
            "install_release": self.install_release,
            "supervisor_to_install": self.supervisor_to_install,
            "files_to_write": [
                {"path": write.file.path, "mode": f"{write.file.mode:04o}", "reason": write.reason.value}
                for write in self.files_to_write
            ],
            "files_to_remove": list(self.files_to_remove),
            "switch_release": {"from": switch.before, "to": switch.after} if switch else None,
            "start_supervisord": self.start_supervisord,
            "workers_added": list(self.workers_added),
            "workers_changed": [
                {
                    "worker": change.name,
                    "how": "restart" if change.restart else "recycle",
                    "reasons": [reason.value for reason in change.reasons],
                }
                for change in self.workers_changed
            ],
            "workers_removed": list(self.workers_removed),
            "workers_to_start": list(self.workers_to_start),
            "drained": self.drained,
            "kept_stopped": list(self.kept_stopped),
            "unchanged": list(self.unchanged),
            "stale_stops": list(self.stale_stops),
            "stop_files": list(self.stop_files),
            "strangers": list(self.strangers),
            "enable_boot": self.enable_boot,
            "disable_boot": self.disable_boot,
            "no_boot": self.no_boot,
        }


def plan_host(desired: DesiredHost, observed: ObservedHost, repair: bool = False) -> HostPlan:
    """Compare a host as it shall be with the host as it is.

    Parameters
    ----------
    desired
        From hosts.yaml, through layout and rendering.
    observed
        From the probe, and from the Registry where it could be asked.
    repair
        Whether what was changed by hand may be undone. Without, workers that were stopped by hand stay stopped,
        and a plan that would write over files changed by hand `needs_consent`.

    Returns
    -------
    HostPlan
        Everything that differs; empty where nothing does.
    """
    install = desired.release not in observed.releases
    writes = tuple(_writes(desired.files, observed.files))
    drift = find_drift(desired.files, observed.files, observed.manifest, _stopped_by_hand(desired, observed))
    ours = {path for path in observed.files if path not in drift.files_strange}
    strangers = _strangers(desired, observed, _files_workers(ours), _files_workers(drift.files_strange))
    known = (frozenset(observed.programs) | _files_workers(ours)) - strangers
    added = tuple(name for name in desired.workers if name not in known)
    by_hand = () if repair else drift.workers_stopped
    kept = tuple(name for name in desired.workers if name in by_hand or _stopped_on_purpose(name, observed, added))
    rest = [name for name in desired.workers if name in known and name not in kept]
    to_start = tuple(name for name in rest if _is_down(name, observed))
    changes = _changes([name for name in rest if name not in to_start], desired, observed, writes)
    wanted_up = [name for name in (*added, *to_start) if name not in kept]
    plan = HostPlan(
        host=desired.name,
        wheels_to_upload=tuple(sorted(desired.wheels - observed.wheels)) if install else (),
        install_release=desired.release if install else None,
        supervisor_to_install=None if desired.supervisor in observed.supervisors else desired.supervisor,
        files_to_write=writes,
        files_to_remove=tuple(sorted(_unwanted(desired.files, ours))),
        switch_release=_switch(desired, observed),
        start_supervisord=bool(wanted_up) and not observed.supervisord_running,
        workers_added=added,
        workers_changed=changes,
        workers_removed=tuple(sorted(known - frozenset(desired.workers), key=_natural)),
        workers_to_start=to_start,
        kept_stopped=kept,
        unchanged=tuple(
            name for name in rest if name not in to_start and name not in {change.name for change in changes}
        ),
        stale_stops=tuple(name for name in added if name in observed.stopped),
        strangers=tuple(sorted(strangers)),
        drained=observed.drained,
        drift=drift,
        repair=repair,
        enable_boot=desired.boot and observed.boot in {BootState.MISSING, BootState.OUTDATED},
        disable_boot=not desired.boot and observed.boot in {BootState.IN_PLACE, BootState.OUTDATED},
        no_boot=observed.boot_why if desired.boot and observed.boot is BootState.IMPOSSIBLE else "",
    )
    return plan if plan.empty else replace(plan, stop_files=tuple(_stop_files(plan, observed)))


def _stopped_by_hand(desired: DesiredHost, observed: ObservedHost) -> list[str]:
    if not observed.supervisord_running or observed.stopped_all or observed.told_to_stop:
        return []
    states = {name: observed.programs.get(name) for name in desired.workers if name not in observed.stopped}
    return [name for name, state in states.items() if state is not None and state.stopped_by_hand]


def _strangers(
    desired: DesiredHost, observed: ObservedHost, with_files: frozenset[str], with_strange_files: frozenset[str]
) -> frozenset[str]:
    """Programs that nobody here asked for.

    One that has no file any more but is called like a worker was one: its removal was cut off half-way.
    """
    others = frozenset(observed.programs) - frozenset(desired.workers) - with_files
    return frozenset(name for name in others if name in with_strange_files or not named_like_ours(name, desired.name))


def _stop_files(plan: HostPlan, observed: ObservedHost) -> Iterator[str]:
    """Which workers would be started by what is done to the others, or to their own section."""
    written = {write.file.path for write in plan.files_to_write}
    for name in plan.kept_stopped:
        if name in observed.stopped or observed.stopped_all:
            continue
        if name not in plan.drift.workers_stopped or f"etc/conf.d/{name}.conf" in written or name in observed.drifted:
            yield name


def _writes(files: tuple[RenderedFile, ...], there: Mapping[str, FileState]) -> Iterator[FileWrite]:
    for file in files:
        state = there.get(file.path)
        if state is None:
            yield FileWrite(file, WriteReason.NEW)
        elif state.sha256 != file.sha256:
            yield FileWrite(file, WriteReason.CHANGED)
        elif state.mode != file.mode:
            yield FileWrite(file, WriteReason.MODE)


def _unwanted(files: tuple[RenderedFile, ...], there: Iterable[str]) -> frozenset[str]:
    wanted = {file.path for file in files}
    return frozenset(path for path in there if path not in wanted and _WORKER_FILE.match(path))


def _files_workers(files: Iterable[str]) -> frozenset[str]:
    matches = (_WORKER_FILE.match(path) for path in files)
    return frozenset(match.group(1) or match.group(2) for match in matches if match)


def named_like_ours(program: str, host: str) -> bool:
    """Whether a program whose file is gone was once a worker: removal was cut off half-way."""
    return re.fullmatch(rf"{re.escape(host)}-[0-9]+", program) is not None


def _stopped_on_purpose(name: str, observed: ObservedHost, added: tuple[str, ...]) -> bool:
    return observed.stopped_all or observed.told_to_stop or (name in observed.stopped and name not in added)


def _is_down(name: str, observed: ObservedHost) -> bool:
    state = observed.programs.get(name) if observed.supervisord_running else None
    return state is None or state.down


def _switch(desired: DesiredHost, observed: ObservedHost) -> Switch | None:
    return None if observed.current == desired.release else Switch(observed.current, desired.release)


def _changes(
    names: list[str], desired: DesiredHost, observed: ObservedHost, writes: tuple[FileWrite, ...]
) -> tuple[WorkerChange, ...]:
    contents = {file.path: file.content for file in desired.files}
    written = {write.file.path for write in writes if write.reason is not WriteReason.MODE}
    found = []
    for name in names:
        content = contents.get(f"etc/workers/{name}.yaml", b"")
        reasons = tuple(_reasons(name, desired, observed, written, configuration_hash(content)))
        if reasons:
            found.append(WorkerChange(name, reasons))
    return tuple(found)


def _reasons(
    name: str, desired: DesiredHost, observed: ObservedHost, written: set[str], configuration: str
) -> Iterator[ChangeReason]:
    # What a worker reported counts beside the files: an earlier deploy may have written them and gone no further.
    running = observed.running.get(name)
    if observed.current != desired.release or (running and running.release != desired.release):
        yield ChangeReason.RELEASE
    settings = {f"etc/workers/{name}.yaml", f"etc/workers/{name}.env"}
    if settings & written or (running and running.configuration != configuration):
        yield ChangeReason.SETTINGS
    if f"etc/conf.d/{name}.conf" in written or name in observed.drifted:
        yield ChangeReason.PROGRAM


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort node1-2 before node1-10."""
    return [(int(part) if part.isdigit() else 0, part) for part in re.split(r"([0-9]+)", name)]
