"""What has to be done on a host. Pure; `planner` finds it, and the order of doing is the caller's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from fleet import shapes
from fleet.deployment.drift import Drift
from fleet.hosts.render import RenderedFile


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
class FileWrite:
    """A file to be written, and why."""

    file: RenderedFile
    reason: WriteReason

    def to_json(self) -> shapes.FileToWrite:
        """Plain data for ``--json``; the content is left out."""
        return {"path": self.file.path, "mode": f"{self.file.mode:04o}", "reason": self.reason.value}


@dataclass(frozen=True)
class Switch:
    """Which release the host's link names before and after."""

    before: str | None
    after: str

    def to_json(self) -> shapes.Switch:
        """Plain data for ``--json``."""
        return {"from": self.before, "to": self.after}


@dataclass(frozen=True)
class WorkerChange:
    """A worker that goes on with something new once its calculation has ended, and why."""

    name: str
    reasons: tuple[ChangeReason, ...]

    @property
    def restart(self) -> bool:
        """Whether supervisord must take the program out and in again; recycling is not enough."""
        return ChangeReason.PROGRAM in self.reasons

    def to_json(self) -> shapes.WorkerChange:
        """Plain data for ``--json``."""
        how = "restart" if self.restart else "recycle"
        return {"worker": self.name, "how": how, "reasons": [reason.value for reason in self.reasons]}


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
    unproven
        Whether workers shall run that no deploy has seen healthy with what the last one wrote: it was cut off, or did
        not wait. The next one does, also where there is nothing else to do.
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
    unproven: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing would be changed."""
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
        return {
            "host": self.host,
            "empty": self.empty,
            "needs_consent": self.needs_consent,
            "repair": self.repair,
            "drift": self.drift.to_json(),
            "wheels_to_upload": list(self.wheels_to_upload),
            "install_release": self.install_release,
            "supervisor_to_install": self.supervisor_to_install,
            "files_to_write": [write.to_json() for write in self.files_to_write],
            "files_to_remove": list(self.files_to_remove),
            "switch_release": self.switch_release.to_json() if self.switch_release else None,
            "start_supervisord": self.start_supervisord,
            "workers_added": list(self.workers_added),
            "workers_changed": [change.to_json() for change in self.workers_changed],
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
            "unproven": self.unproven,
        }
