"""Whether a worker started now would work."""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from puffin import cgroup, devices
from puffin.config import Configuration
from puffin.errors import PuffinError
from puffin.jobloop import accepted_kinds, installed_kinds, unknown_jobs
from puffin.jobs.base import JobKind
from puffin.pidfile import PidFile
from puffin.programs.environment import prepare
from puffin.programs.verify import verify
from puffin.settings import DaemonSettings, DatabaseSettings, ResourceSettings, Settings
from puffin.severity import Severity
from puffin.store import Store, location
from puffin.tunnel import database_in_reach

_GB = 1024**3
_TUNNEL_PATIENCE_S = 15.0
_WORDS = {Severity.OK: "ok", Severity.WARN: "warn", Severity.FAIL: "FAIL"}
"""As tables have it: what fails stands out also without colours."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    check
        What was looked at, in one word or two.
    severity
        Whether a worker can live with it.
    what
        What was found, and what to do about it.
    """

    check: str
    severity: Severity
    what: str


def examine(config: Configuration) -> list[Finding]:
    """Look at everything a worker needs, in the environment that its jobs get.

    Parameters
    ----------
    config
        The configuration.

    Returns
    -------
    list[Finding]
        The findings; a worker would work if none of them is bad.
    """
    looks: tuple[tuple[str, Callable[[Configuration], Iterator[Finding]]], ...] = (
        ("worker", _worker),
        ("database", _database),
        ("folder", _directories),
        ("resources", _resources),
        ("program", _programs),
        ("jobs", _jobs),
    )
    findings = [Finding("configuration", Severity.OK, config.source or "defaults and environment")]
    for subject, look in looks:
        try:
            findings += look(config)
        except PuffinError as error:
            findings.append(Finding(subject, Severity.FAIL, str(error)))
    return findings


def table(findings: Sequence[Finding], width: int) -> list[str]:
    """The findings as lines of a table.

    Parameters
    ----------
    findings
        The findings.
    width
        How many characters fit into a line.

    Returns
    -------
    list[str]
        The lines; each finding begins with its severity, further lines of it with spaces.
    """
    left = max(len(finding.check) for finding in findings)
    indent = " " * (6 + left + 2)
    lines = []
    for finding in findings:
        # A long path stays in one piece, so that it can be copied.
        wrapper = textwrap.TextWrapper(max(20, width - len(indent)), break_long_words=False, break_on_hyphens=False)
        detail = [line for part in finding.what.splitlines() for line in wrapper.wrap(part.strip())]
        first, *rest = detail or [""]
        lines.append(f"{_WORDS[finding.severity]:4}  {finding.check:{left}}  {first}".rstrip())
        lines += [f"{indent}{line}" for line in rest]
    return lines


def _of(good: bool) -> Severity:
    return Severity.OK if good else Severity.FAIL


def _worker(config: Configuration) -> Iterator[Finding]:
    pid = PidFile(config["daemon"]["pid"]).owner()
    if pid is not None:
        yield Finding("worker", Severity.WARN, f"already runs as process {pid}; a second one would not start")


def _database(config: Configuration) -> Iterator[Finding]:
    # What goes wrong with the tunnel comes as an error.
    with database_in_reach(config.settings, lambda _: None, _TUNNEL_PATIENCE_S) as database:
        yield from _reached_database(config, database)


def _reached_database(config: Configuration, database: DatabaseSettings) -> Iterator[Finding]:
    gateway = config.settings.database.ssh_tunnel
    where = location(config.settings.database) + (f" through {gateway}" if gateway else "")
    store = Store(database, timeout_s=5.0)
    try:
        store.check()
        yield Finding("database", Severity.OK, f"{where}, {', '.join(store.names)}")
        streams = store.calculations(store.names[0]).offers_change_streams()
        cycle = config["daemon"]["cycle_time_in_s"]
        wait = "the server tells of new calculations" if streams else f"the server is asked at least each {cycle:g} s"
        yield Finding("waiting", Severity.OK, wait)
    finally:
        store.close()


def _directories(config: Configuration) -> Iterator[Finding]:
    daemon = config.settings.daemon
    paths = [daemon.job_dir, daemon.error_dir, daemon.archive_dir, daemon.pid_dir]
    paths += [str(Path(file).parent) for file in (daemon.log, daemon.stop) if file]
    for path in dict.fromkeys(path for path in paths if path):
        yield _folder(path)


def _folder(path: str) -> Finding:
    """Each is created by whoever first writes there."""
    existing = _existing(path)
    if problem := _write_problem(existing):
        lacking = "" if existing == Path(path).absolute() else "is not there, and cannot be created: "
        return Finding("folder", Severity.FAIL, f"{path}: {lacking}{problem}")
    return Finding(
        "folder", Severity.OK, path if Path(path).is_dir() else f"{path}: is not there yet, and will be created"
    )


def _write_problem(folder: Path) -> str:
    """Why nothing can be written there: found by writing, since permissions do not tell all on network file systems."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"user {os.getuid()} cannot write in {folder}: {error.strerror}"


def _existing(path: str) -> Path:
    absolute = Path(path).absolute()
    return next(parent for parent in (absolute, *absolute.parents) if parent.exists())


def _resources(config: Configuration) -> Iterator[Finding]:
    daemon, resources = config.settings.daemon, config.settings.resources
    free = shutil.disk_usage(_existing(daemon.job_dir)).free / _GB
    disk = f"{free:.1f} GB free at {daemon.job_dir}, {resources.disk:g} GB promised"
    yield Finding("disk", _of(free >= resources.disk), disk)
    there = psutil.virtual_memory().total / _GB
    memory = f"{there:.1f} GB there, {resources.memory:g} GB promised"
    yield Finding("memory", _of(there >= resources.memory), memory)
    yield Finding("memory limit", Severity.OK, _memory_limit(daemon))
    usable = len(resources.cpus or os.sched_getaffinity(0))
    yield Finding("cores", _of(usable >= resources.cores), f"{usable} usable, {resources.cores} promised")
    yield from _devices(resources)


def _devices(resources: ResourceSettings) -> Iterator[Finding]:
    if resources.cpus:
        problem = devices.refusal(resources.cpus)
        chosen = devices.in_words(resources.cpus)
        yield Finding("processors", _of(not problem), f"resources.cpus: {problem}" if problem else f"only {chosen}")
    if resources.gpus:
        there = devices.has_gpu_driver()
        detail = f"only {', '.join(resources.gpus)}"
        lacking = "; but neither /dev/nvidiactl nor /dev/kfd is there: install the driver, or empty resources.gpus"
        yield Finding("gpus", Severity.OK if there else Severity.WARN, detail if there else detail + lacking)


def _memory_limit(daemon: DaemonSettings) -> str:
    if not daemon.enforce_memory_limit:
        return "off: daemon.enforce_memory_limit is false"
    where = cgroup.shown(daemon.pid)
    looking = "each job's processes are looked at twice a second; control groups cannot be made here"
    return f"by control groups of {where}" if where else looking


def _programs(config: Configuration) -> Iterator[Finding]:
    for found in verify(config):
        subject = f"program {found.program}"
        if found.problem:
            yield Finding(subject, Severity.FAIL, found.problem)
            continue
        words = [found.version or "works", ", ".join(found.models), found.note]
        yield Finding(subject, Severity.WARN if found.note else Severity.OK, "; ".join(filter(None, words)))


def _jobs(config: Configuration) -> Iterator[Finding]:
    settings, _ = prepare(config.settings)
    kinds = installed_kinds(settings)
    accepted = accepted_kinds(settings, kinds)
    for kind in kinds:
        if kind.problem and _is_wanted(kind, config.settings):
            yield Finding("job", _gravity(kind), f"{kind.order}: {kind.problem}")
    for problem in unknown_jobs(settings, kinds):
        yield Finding("job", Severity.WARN, problem)
    names = ", ".join(kind.order for kind in accepted)
    counted = f"{len(accepted)} of {len(kinds)} are accepted; 'puffin jobs' says why the others are not"
    yield Finding("jobs", _of(bool(accepted)), f"{counted}\n{names}")


def _is_wanted(kind: JobKind, settings: Settings) -> bool:
    """Whether somebody expects the job: its programs are to be there, and it is not left out on purpose."""
    listed = not settings.daemon.jobs or kind.order in settings.daemon.jobs
    return listed and all(program in settings.available_programs for program in kind.required_programs)


def _gravity(kind: JobKind) -> Severity:
    """A job that cannot be imported does not say what it needs: perhaps nobody misses it. All of a provider's are."""
    return Severity.FAIL if kind.required_programs or kind.order == kind.provider else Severity.WARN
