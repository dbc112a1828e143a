"""Looks at hosts and works out what a deploy would have to do on each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.deployment.kits import EXISTING, PREVIOUS, Kit, kit_there, kits_for, platform_of, refuse_mixture
from fleet.deployment.manifest import FileState
from fleet.deployment.manifest import parse as parse_manifest
from fleet.deployment.plan import HostPlan
from fleet.deployment.planner import plan_host
from fleet.deployment.sides import BootState, DesiredHost, ObservedHost, ProgramState, RunningWorker
from fleet.errors import FleetError, RemoteError
from fleet.hosts.access import Remotes
from fleet.hosts.inventory import Fleet, Host
from fleet.hosts.layout import Hardware, Worker, lay_out
from fleet.hosts.paths import HostPaths, host_paths, job_directories
from fleet.hosts.render import RenderedFile, configuration_hash, render_host
from fleet.reach import probing
from fleet.reach.execute import Say, ask, fan_out
from fleet.reach.facts import Facts
from fleet.reach.remote import HostResult
from fleet.release.bundle import Bundle, Supply, Toolbox, supply
from fleet.release.wheels import Platform
from puffin.records import WorkerRecord


@dataclass(frozen=True)
class HostWork:
    """Everything a deploy needs to know about one host.

    Parameters
    ----------
    host
        What hosts.yaml says.
    facts
        What was found.
    workers
        What it shall run.
    paths
        Its directories.
    release
        Id of the release it shall have.
    bundle, toolbox
        The wheels and tools for it; None where it uses an existing environment.
    release_supply, supervisor_supply
        How the wheels of these come to the host; nothing to it where it uses an existing environment.
    directories
        Directories of the workers' jobs.
    configurations
        By worker, the hash of its settings.
    desired, observed
        The host as it shall be, with the content of every file, and as it was found.
    plan
        What has to be done.
    worth_keeping
        Whether the present state works, has not been kept as the last good one, and is about to be changed.
    """

    host: Host
    facts: Facts
    workers: tuple[Worker, ...]
    paths: HostPaths
    release: str
    bundle: Bundle | None
    toolbox: Toolbox | None
    release_supply: Supply
    supervisor_supply: Supply
    directories: tuple[str, ...]
    configurations: Mapping[str, str]
    desired: DesiredHost
    observed: ObservedHost
    plan: HostPlan
    worth_keeping: bool = False


@dataclass(frozen=True)
class Goal:
    """What is the same for all hosts of a deploy.

    Parameters
    ----------
    fleet
        The fleet.
    password
        The database's password.
    records
        What the workers reported of themselves; None where the database could not be asked.
    alive
        Workers that have reported within the last minute and did not say goodbye.
    stopped
        Whether the whole fleet was told to stop through the database.
    cache
        Where wheels are kept on this machine.
    refresh
        Whether to look for newer versions of what is required.
    back_to
        A release that the hosts have and shall go back to, or `PREVIOUS`; None for what hosts.yaml asks for.
    repair
        Whether what was changed by hand on the hosts may be undone.
    """

    fleet: Fleet
    password: str | None
    records: Sequence[WorkerRecord] | None
    cache: Path
    alive: frozenset[str] = frozenset()
    stopped: bool = False
    refresh: bool = False
    back_to: str | None = None
    repair: bool = False


def probe_all(fleet: Fleet, hosts: Sequence[Host], remotes: Remotes, parallel: int) -> list[HostResult[Facts]]:
    """Probe hosts, each in one round trip.

    Parameters
    ----------
    fleet
        The fleet.
    hosts
        The hosts.
    remotes
        Connections to them.
    parallel
        How many at a time.
    """

    def probe(host: Host) -> Facts:
        request = probing.probe_request(
            fleet.name, host.name, host.base_dir, host.scratch, fleet.release.python, gpus=host.wants_gpus
        )
        return probing.parse(host.name, ask(remotes[host.name], probing.ACTION, request))

    return fan_out({host.name: host for host in hosts}, probe, parallel)


def survey(goal: Goal, hosts: Sequence[Host], remotes: Remotes, parallel: int, say: Say) -> list[HostResult[HostWork]]:
    """Find out what has to be done on hosts; changes nothing on them.

    Parameters
    ----------
    goal
        What is wanted.
    hosts
        The hosts.
    remotes
        Connections to them.
    parallel
        How many to probe at a time.
    say
        Told what takes long.

    Returns
    -------
    list[HostResult[HostWork]]
        One for every host, in their order.

    Raises
    ------
    FleetError
        As :func:`work_out`.
    """
    probed = probe_all(goal.fleet, hosts, remotes, parallel)
    worked_out = {work.host: work for work in work_out(goal, [each.value for each in probed if each.value], say)}
    return [
        dataclasses.replace(worked_out.get(each.host) or HostResult(each.host, error=each.error), seconds=each.seconds)
        for each in probed
    ]


def work_out(goal: Goal, found: Sequence[Facts], say: Say) -> list[HostResult[HostWork]]:
    """Work out what has to be done on hosts of the fleet that have been probed.

    Parameters
    ----------
    goal
        What is wanted.
    found
        What was found on them.
    say
        Told what takes long: choosing and building what is installed.

    Raises
    ------
    FleetError
        Hosts of one platform would go back to different releases.
    """
    if goal.back_to == PREVIOUS:
        refuse_mixture(found)
    kits = kits_for(goal.fleet.release, found, goal.cache, say, refresh=goal.refresh) if goal.back_to is None else {}
    hosts = {host.name: host for host in goal.fleet.hosts}
    records: dict[str, list[WorkerRecord]] = {}
    for record in goal.records or ():
        records.setdefault(record.host, []).append(record)
    return [_work_out(goal, hosts[facts.host], facts, records.get(facts.host, []), kits) for facts in found]


def _work_out(
    goal: Goal,
    host: Host,
    facts: Facts,
    records: Sequence[WorkerRecord],
    kits: Mapping[Platform, Kit | FleetError],
) -> HostResult[HostWork]:
    try:
        kit = kit_there(goal.back_to, facts) if goal.back_to else kits[platform_of(facts)]
        if isinstance(kit, FleetError):
            raise kit
        return HostResult(host.name, _work(goal, host, facts, records, kit))
    except FleetError as error:
        return HostResult(host.name, error=error)


def _work(goal: Goal, host: Host, facts: Facts, records: Sequence[WorkerRecord], kit: Kit) -> HostWork:
    fleet = goal.fleet
    _refuse_silent(facts)
    _refuse_doubles(host, facts, records, goal.alive)
    workers = lay_out(host, _hardware(facts))
    paths = _paths(fleet, host, facts, kit)
    files = render_host(fleet, host, workers, paths, goal.password)
    own_index = fleet.release.install == "index"
    release_supply = supply(kit.bundle.wheels if kit.bundle else (), own_index)
    desired = DesiredHost(
        name=host.name,
        release=kit.release,
        files=files,
        workers=tuple(worker.name for worker in workers),
        wheels=frozenset(wheel.sha256 for wheel in release_supply.brought),
        supervisor=kit.supervisor,
        boot=host.boot == "auto",
    )
    observed = _observed(facts, records, goal, kit)
    plan = plan_host(desired, observed, goal.repair)
    return HostWork(
        host=host,
        facts=facts,
        workers=workers,
        paths=paths,
        release=kit.release,
        bundle=kit.bundle,
        toolbox=kit.toolbox,
        release_supply=release_supply,
        supervisor_supply=supply(kit.toolbox.supervisor if kit.toolbox else (), own_index),
        directories=job_directories(fleet, workers, paths),
        configurations={worker.name: _configuration(worker, files) for worker in workers},
        desired=desired,
        observed=observed,
        plan=plan,
        # Where nothing else is changed, this deploy itself finds out whether it works for long enough.
        worth_keeping=observed.works and observed.unproven and not plan.empty,
    )


def _paths(fleet: Fleet, host: Host, facts: Facts, kit: Kit) -> HostPaths:
    paths = host_paths(
        base_dir_abs=facts.base_dir,
        home=facts.home,
        fleet_name=fleet.name,
        host_name=host.name,
        run_dir=facts.run_dir,
        scratch_abs=facts.scratch or f"{facts.base_dir}/scratch",
        supervisor_version=kit.supervisor,
    )
    if kit.supervisor != EXISTING:
        return paths
    # An existing environment brings supervisor with it.
    return dataclasses.replace(paths, supervisor=f"{paths.releases}/{kit.release}")


def _refuse_silent(facts: Facts) -> None:
    """Refuse a host whose supervisord runs without answering: its workers would be taken for stopped ones."""
    supervisord = facts.supervisord
    if supervisord.silent:
        what = f"supervisord runs (pid {supervisord.pid}) but does not answer: {supervisord.problem}"
        hint = f"try again; look at log/supervisord.log there; if it hangs, end process {supervisord.pid}, then deploy"
        raise RemoteError(facts.host, "looking", what, hint)


def _refuse_doubles(host: Host, facts: Facts, records: Sequence[WorkerRecord], alive: frozenset[str]) -> None:
    """Refuse a host whose workers live in another place, which would be started here a second time.

    Their locks are in that other place, so nothing else would keep the two from running the same calculation.
    """
    here = {program.name for program in facts.supervisord.programs} | {orphan.worker for orphan in facts.orphans}
    here |= {file.path.removeprefix("etc/workers/").removesuffix(".yaml") for file in facts.files}
    lost = sorted(({record.worker for record in records} & alive) - here)
    if lost:
        what = f"{', '.join(lost)} report{'s' if len(lost) == 1 else ''} to the database, but not from this place"
        hint = (
            "if base_dir, user or address was changed: put it back, 'puffin-fleet stop', then change it and deploy; "
            "if the host has just died: wait a minute"
        )
        raise RemoteError(host.name, "looking", what, hint)


def _hardware(facts: Facts) -> Hardware:
    disk = facts.hardware.scratch or facts.hardware.disk
    # Once workers run, their own files are part of what is taken: free space then says nothing about the layout.
    free = disk.free if facts.current is None else math.inf
    return Hardware.found(facts, free)


def _configuration(worker: Worker, files: Sequence[RenderedFile]) -> str:
    wanted = f"etc/workers/{worker.name}.yaml"
    return configuration_hash(next(file.content for file in files if file.path == wanted))


def _observed(facts: Facts, records: Sequence[WorkerRecord], goal: Goal, kit: Kit) -> ObservedHost:
    alive = {program.name: program.pid for program in facts.supervisord.programs if program.state == "RUNNING"}
    # Who has not reported yet, but began when all was written, runs that, and not what the one before it did.
    mine = [
        record
        for record in records
        if record.worker in alive and (record.worker not in facts.fresh or record.pid == alive[record.worker])
    ]
    supervisors = {*facts.supervisors, *([EXISTING] if kit.supervisor == EXISTING else [])}
    return ObservedHost(
        releases=frozenset(release.id for release in facts.releases),
        current=facts.current,
        files={file.path: FileState(file.sha256, file.mode) for file in facts.files},
        supervisord_running=facts.supervisord.running,
        programs={program.name: ProgramState(program.state) for program in facts.supervisord.programs},
        stopped=facts.stopped,
        stopped_all=facts.stop,
        told_to_stop=goal.stopped,
        drained=str(facts.drained) if facts.drained else "",
        wheels=frozenset(wheel.sha256 for wheel in facts.wheels),
        supervisors=frozenset(supervisors),
        running={record.worker: RunningWorker(record.release, record.configuration) for record in mine},
        drifted=facts.drifted,
        manifest=parse_manifest(facts.manifest),
        good=facts.good,
        boot=_boot(facts),
        boot_why=facts.boot.why,
    )


def _boot(facts: Facts) -> BootState:
    if facts.boot.current:
        return BootState.IN_PLACE
    if facts.boot.available == "none":
        return BootState.IMPOSSIBLE
    return BootState.MISSING if facts.boot.kind == "none" else BootState.OUTDATED
