"""How a plan is found: desired held against observed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from fleet.deployment.drift import Drift, find_drift
from fleet.deployment.manifest import FileState
from fleet.deployment.plan import ChangeReason, FileWrite, HostPlan, Switch, WorkerChange, WriteReason
from fleet.deployment.sides import BootState, DesiredHost, ObservedHost
from fleet.deployment.workerfiles import WORKER_FILE, named_like_ours, workers_of
from fleet.hosts.render import RenderedFile, configuration_hash
from fleet.words import natural


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
    ours = frozenset(path for path in observed.files if path not in drift.files_strange)
    workers = _sorted_out(desired, observed, ours, drift, writes, repair)
    plan = HostPlan(
        host=desired.name,
        wheels_to_upload=tuple(sorted(desired.wheels - observed.wheels)) if install else (),
        install_release=desired.release if install else None,
        supervisor_to_install=None if desired.supervisor in observed.supervisors else desired.supervisor,
        files_to_write=writes,
        files_to_remove=tuple(sorted(_unwanted(desired.files, ours))),
        switch_release=_switch(desired, observed),
        start_supervisord=workers.wanted_up and not observed.supervisord_running,
        workers_added=workers.added,
        workers_changed=workers.changed,
        workers_removed=workers.removed,
        workers_to_start=workers.to_start,
        kept_stopped=workers.kept_stopped,
        unchanged=workers.unchanged,
        stale_stops=tuple(name for name in workers.added if name in observed.stopped),
        strangers=workers.strangers,
        drained=observed.drained,
        drift=drift,
        repair=repair,
        enable_boot=desired.boot and observed.boot in {BootState.MISSING, BootState.OUTDATED},
        disable_boot=not desired.boot and observed.boot in {BootState.IN_PLACE, BootState.OUTDATED},
        no_boot=observed.boot_why if desired.boot and observed.boot is BootState.IMPOSSIBLE else "",
        unproven=observed.unproven and any(name not in workers.kept_stopped for name in desired.workers),
    )
    return plan if plan.empty else replace(plan, stop_files=tuple(_stop_files(plan, observed)))


@dataclass(frozen=True)
class _Workers:
    """What becomes of each worker and program; the names are those of `HostPlan`."""

    added: tuple[str, ...]
    changed: tuple[WorkerChange, ...]
    removed: tuple[str, ...]
    to_start: tuple[str, ...]
    kept_stopped: tuple[str, ...]
    unchanged: tuple[str, ...]
    strangers: tuple[str, ...]

    @property
    def wanted_up(self) -> bool:
        """Whether one has to be started that is not running."""
        return any(name not in self.kept_stopped for name in (*self.added, *self.to_start))


def _sorted_out(
    desired: DesiredHost,
    observed: ObservedHost,
    ours: frozenset[str],
    drift: Drift,
    writes: tuple[FileWrite, ...],
    repair: bool,
) -> _Workers:
    """Sort the workers by what has to be done about them; `ours` are the paths that are not somebody else's."""
    strangers = _strangers(desired, observed, workers_of(ours), workers_of(drift.files_strange))
    known = (frozenset(observed.programs) | workers_of(ours)) - strangers
    added = tuple(name for name in desired.workers if name not in known)
    by_hand = () if repair else drift.workers_stopped
    kept = tuple(name for name in desired.workers if name in by_hand or _stopped_on_purpose(name, observed, added))
    rest = [name for name in desired.workers if name in known and name not in kept]
    to_start = tuple(name for name in rest if _is_down(name, observed))
    running = [name for name in rest if name not in to_start]
    changed = _changes(running, desired, observed, writes)
    return _Workers(
        added=added,
        changed=changed,
        removed=tuple(sorted(known - frozenset(desired.workers), key=natural)),
        to_start=to_start,
        kept_stopped=kept,
        unchanged=tuple(name for name in running if name not in {change.name for change in changed}),
        strangers=tuple(sorted(strangers)),
    )


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
    return frozenset(path for path in there if path not in wanted and WORKER_FILE.match(path))


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
