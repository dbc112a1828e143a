"""What is wrong with one host, and what to do about it. Pure: what was found goes in, findings come out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleet.deployment import manifest
from fleet.deployment.drift import changed_by_hand
from fleet.deployment.manifest import FileState
from fleet.deployment.refusals import describe
from fleet.deployment.workerfiles import named_like_ours
from fleet.errors import InventoryError
from fleet.hosts.hostsfile import path_problem
from fleet.hosts.inventory import Fleet, Host
from fleet.hosts.layout import Hardware, lay_out
from fleet.reach.facts import Disk, Facts, Program
from fleet.watch.examination import UNLIMITED, Examined, Limit, TriedDirectory, WorkerFinding
from puffin.severity import Severity

LONGEST_SOCKET_PATH = 97
"""supervisord binds `<path>.<pid>` first, and the kernel takes 107 bytes."""

CLOCK_TOLERANCE_S = 5.0
_FREE_GB, _NO_GB = 2.0, 0.2
_INODES, _NO_INODES = 50_000, 1_000
_FULL = ("No space left", "quota exceeded")
_FILES, _PROCESSES, _FEW_PROCESSES = 1024, 200, 1024
_DEPLOY = "run: puffin-fleet deploy --host {host}"
_BOOTSTRAP = "puffin bootstrap"
"""What a worker by itself advises; a fleet installs programs with the release."""
_EXTRAS = (
    "for SCINE's programs say 'release: {{{{extras: [scine]}}}}' in hosts.yaml and deploy; "
    "where none is wanted: 'puffin: {{{{programs: {{{{{0}: {{{{available: false}}}}}}}}}}}}'"
)
_SCINE = "scine"
_NO_SCINE = (
    "where no SCINE jobs are wanted nothing has to be done; "
    "else say 'release: {{extras: [scine]}}' in hosts.yaml and deploy"
)
_LOGS = "see 'puffin-fleet logs --host {host}'"
_EXIT_CODES = {2: "its settings are refused", 3: "quarantined after many failures in a row"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    host
        Name of the host in hosts.yaml; empty for the whole fleet.
    check
        What was looked at, in one word or two.
    severity
        Whether workers can live with it.
    what
        What was found.
    advice
        What to do next; empty where nothing has to be done.
    """

    host: str
    check: str
    severity: Severity
    what: str
    advice: str = ""


Checked = tuple[str, Severity, str, str]
"""A finding whose host is still to be said."""


def diagnose(fleet: Fleet, host: Host, found: Examined) -> tuple[Finding, ...]:
    """Judge a host.

    Parameters
    ----------
    fleet, host
        What hosts.yaml says.
    found
        What was found on it.
    """
    looks = (
        _python(found),
        _directories(host, found),
        _sockets(found.facts),
        _clock(found),
        _limits(found),
        _layout(host, found),
        _release(found),
        _supervisord(found.facts),
        _workers(found),
        _orphans(found.facts),
        _drift(host, found.facts),
        _boot(host, found.facts),
        _leftovers(found),
        _database(found),
        _of_worker(fleet, host, found),
    )
    checked = [each for look in looks for each in look]
    return tuple(
        Finding(host.name, name, how, what, advice.format(host=host.name)) for name, how, what, advice in checked
    )


def _ok(check: str, what: str) -> Checked:
    return check, Severity.OK, what, ""


def _warn(check: str, what: str, advice: str) -> Checked:
    return check, Severity.WARN, what, advice


def _fail(check: str, what: str, advice: str) -> Checked:
    return check, Severity.FAIL, what, advice


def _literal(text: str) -> str:
    """Text from elsewhere in an advice, which is a format."""
    return text.replace("{", "{{").replace("}", "}}")


def _python(found: Examined) -> Iterator[Checked]:
    python = found.facts.python
    yield _ok("ssh", f"connected as {found.facts.user}")
    name = f"{python.implementation} {python.version}, {python.machine}, {python.libc} {python.libc_version}".rstrip()
    if python.implementation != "cpython" or python.libc not in {"glibc", "musl"}:
        yield _fail("python", f"there are no wheels for {name}", "set release.python to a CPython")
    elif found.examination.python_home:
        what = f"{python.executable} belongs to the environment {found.examination.python_home}"
        yield _warn("python", what, "set release.python to one of the system: releases die with that environment")
    else:
        yield _ok("python", name)


def _directories(host: Host, found: Examined) -> Iterator[Checked]:
    facts, seen = found.facts, found.examination
    yield from _place("base_dir", seen.base, facts.hardware.disk, facts.shared)
    if seen.scratch is not None and facts.hardware.scratch is not None:
        yield from _place("scratch", seen.scratch, facts.hardware.scratch, False)
    for name, path in (("base_dir", facts.base_dir), ("scratch", facts.scratch or ""), ("run", facts.run_dir)):
        if problem := path_problem(path):
            yield _fail("path", f"{name} is {path!r}: it {problem}", f"choose another one for {host.name}")


def _place(name: str, place: TriedDirectory, disk: Disk, shared: bool) -> Iterator[Checked]:
    advice = f"choose another {name}, or have {_literal(place.tried)} corrected"
    if place.write:
        full = any(words in place.write for words in _FULL)
        what = f"nothing can be written in {place.tried}: {place.write}"
        yield _fail(name, f"{what}; {_free(place, disk)}" if full else what, _make_room(name) if full else advice)
        return
    if place.link:
        what = f"no hard links in {place.tried} ({place.file_system}): {place.link}"
        yield _fail(name, what, "supervisord and installations need them: choose another base_dir")
    if place.run:
        what = f"no program can be started from {place.tried} ({place.file_system}): {place.run}"
        yield _fail(name, what, "it may be mounted noexec: choose another base_dir")
    network = f", a network file system ({place.file_system}): sockets go elsewhere" if shared else ""
    yield from _space(name, place, disk, network)


def _space(name: str, place: TriedDirectory, disk: Disk, network: str) -> Iterator[Checked]:
    # Some file systems have no fixed number of inodes, and say 0.
    scarce = 0 < disk.inodes < _INODES
    if disk.free < _NO_GB or 0 < disk.inodes < _NO_INODES:
        yield _fail(f"{name} space", _free(place, disk), _make_room(name))
    elif disk.free < _FREE_GB or scarce:
        yield _warn(f"{name} space", _free(place, disk), _make_room(name))
    else:
        yield _ok(name, f"{place.path}: {disk.free:.0f} GB free{network}")


def _free(place: TriedDirectory, disk: Disk) -> str:
    inodes = f" and {disk.inodes} inodes" if disk.inodes else ""
    return f"{disk.free:.1f} GB{inodes} free on the file system of {place.tried} ({place.file_system})"


def _make_room(name: str) -> str:
    """What to do where a disk is full."""
    if name == "base_dir":
        return (
            "a new release takes 0.5 GB with SCINE's programs, 0.1 GB without: remove old ones with 'puffin-fleet "
            "prune --host {host}', free space otherwise, or choose a base_dir on another file system in hosts.yaml"
        )
    return f"calculations write there: free some space, or choose a {name} on another file system in hosts.yaml"


def _sockets(facts: Facts) -> Iterator[Checked]:
    path = f"{facts.run_dir}/sv.sock"
    length = len(path.encode())
    if length > LONGEST_SOCKET_PATH:
        what = f"the path {path} has {length} bytes; a socket's may have {LONGEST_SOCKET_PATH}"
        yield _fail("socket", what, "choose a shorter base_dir")
    else:
        yield _ok("socket", f"{path}, {length} of {LONGEST_SOCKET_PATH} bytes")


def _clock(found: Examined) -> Iterator[Checked]:
    offset, doubt = found.clock_offset, found.clock_doubt
    if abs(offset) - doubt > CLOCK_TOLERANCE_S:
        side = "ahead of" if offset > 0 else "behind"
        what = f"{abs(offset):.1f} s {side} this machine's (to within {doubt:.1f} s)"
        yield _warn("clock", what, "set the clock, for example with chrony: logs are sorted by it")
    else:
        yield _ok("clock", f"agrees with this machine's to within {abs(offset) + doubt:.1f} s")


def _limits(found: Examined) -> Iterator[Checked]:
    limits = found.examination.limits
    nofile, nproc = limits.get("nofile"), limits.get("nproc")
    advice = "have it raised in /etc/security/limits.conf"
    good = True
    if nofile and _below(nofile.hard, _FILES):
        good = False
        yield _fail("limits", f"{nofile.hard} open files at most; supervisord needs {_FILES}", advice)
    if nproc and _below(nproc.hard, _PROCESSES):
        good = False
        yield _fail("limits", f"{nproc.hard} processes at most; supervisord needs {_PROCESSES}", advice)
    elif nproc and _below(nproc.soft, _FEW_PROCESSES):
        good = False
        yield _warn("limits", f"{nproc.soft} processes and threads at most for this user", advice)
    if good:
        words = [f"{name} {_limit(limit)}" for name, limit in limits.items()]
        yield _ok("limits", ", ".join(words))


def _below(value: int, needed: int) -> bool:
    return value != UNLIMITED and value < needed


def _limit(limit: Limit) -> str:
    return "unlimited" if limit.soft == UNLIMITED else str(limit.soft)


def _layout(host: Host, found: Examined) -> Iterator[Checked]:
    facts, place = found.facts, found.examination.scratch or found.examination.base
    disk = facts.hardware.scratch or facts.hardware.disk
    # Once workers run, their own files are part of what is taken. That nothing can be written has been said.
    free = disk.free if facts.current is None and not place.write else math.inf
    try:
        workers = lay_out(host, Hardware.found(facts, free))
    except InventoryError as error:
        for problem in error.problems:
            yield _fail("layout", problem.message, "change 'workers' or 'reserve' in hosts.yaml")
        return
    yield _ok("layout", f"{len(workers)} workers fit")
    there = {program.name for program in facts.supervisord.programs}
    lacking = [worker.name for worker in workers if worker.name not in there]
    if lacking and facts.supervisord.reachable:
        yield _warn("layout", f"{', '.join(lacking)} not deployed", _DEPLOY)


def _release(found: Examined) -> Iterator[Checked]:
    if found.examination.release_problem:
        advice = f"remove {_literal(found.facts.fleet_root)}/releases/{found.facts.current or '<release>'}; {_DEPLOY}"
        yield _fail("release", f"damaged: {found.examination.release_problem}", advice)
    elif found.facts.current is None:
        yield _ok("release", "nothing is deployed yet")
    else:
        yield _ok("release", f"{found.facts.current} runs")


def _supervisord(facts: Facts) -> Iterator[Checked]:
    daemon = facts.supervisord
    if facts.drained:
        yield _warn("drained", str(facts.drained), "to bring it back: puffin-fleet resume {host}")
    if facts.current is None and not daemon.running:
        return
    if not daemon.running:
        start = "puffin-fleet resume {host}" if facts.drained else "puffin-fleet start --host {host}"
        advice = f"run: {start}" if facts.stop else _DEPLOY
        how = _warn if facts.stop else _fail
        yield how("supervisord", "does not run" + (", and the host is stopped" if facts.stop else ""), advice)
    elif not daemon.reachable:
        what = f"runs (pid {daemon.pid}) but does not answer: {daemon.problem or 'no reason given'}"
        yield _fail("supervisord", what, f"see {_literal(facts.host_root)}/log/supervisord.log on the host")
    elif _is_another(daemon.version or "", facts.supervisors):
        installed = ", ".join(facts.supervisors)
        what = f"{daemon.version} runs, installed is {installed}"
        advice = "to change it: puffin-fleet stop --supervisord --host {host}, then start"
        yield _warn("supervisord", what, advice)
    else:
        yield _ok("supervisord", f"{daemon.version}, pid {daemon.pid}")


def _is_another(version: str, installed: tuple[str, ...]) -> bool:
    """Directories are named by version and, behind a hyphen, by platform."""
    return bool(installed) and not any(re.match(rf"{re.escape(version)}(-|\Z)", name) for name in installed)


def _workers(found: Examined) -> Iterator[Checked]:
    facts = found.facts
    running = 0
    for program in facts.supervisord.programs:
        meant_to_rest = facts.stop or program.name in facts.stopped
        problem = _problem_of(program)
        running += program.state == "RUNNING"
        if program.state == "EXITED" and not program.exitstatus and not meant_to_rest:
            yield _warn(program.name, "it ended by itself, and nobody stopped it", f"{_LOGS}; to start it, {_DEPLOY}")
        if problem:
            lines = found.examination.logs.get(program.name, ())
            said = "\n".join(["", *(f"  {line}" for line in lines)]) if lines else ""
            yield _fail(program.name, f"{problem}{said}", f"{_LOGS}; then: puffin-fleet start --host {{host}}")
    if facts.supervisord.programs:
        rest = ["all"] if facts.stop else sorted(facts.stopped)
        stopped = f"; stopped on purpose: {', '.join(rest)}" if rest else ""
        yield _ok("workers", f"{running} of {len(facts.supervisord.programs)} run{stopped}")


def _problem_of(program: Program) -> str:
    if program.state == "FATAL":
        return f"supervisord gave up: {program.spawnerr or 'it ended again and again'}"
    if program.state == "BACKOFF":
        return f"it ends as soon as it is started: {program.spawnerr or program.description}"
    if program.state == "EXITED" and program.exitstatus:
        meaning = _EXIT_CODES.get(program.exitstatus)
        return f"it ended with exit code {program.exitstatus}" + (f": {meaning}" if meaning else "")
    return ""


def _orphans(facts: Facts) -> Iterator[Checked]:
    lost = [f"{orphan.worker} (pid {orphan.pid})" for orphan in facts.orphans if orphan.worker]
    strays = [f"{orphan.command[:60]} (pid {orphan.pid})" for orphan in facts.orphans if not orphan.worker]
    if lost:
        advice = "'puffin-fleet stop --host {host}' lets them finish, with --now gives their jobs back; then 'start'"
        yield _fail("orphans", f"workers of an earlier supervisord still run: {', '.join(lost)}", advice)
    if strays:
        yield _warn(
            "orphans", f"left behind by calculations: {', '.join(strays)}", "end them if they do nothing useful"
        )
    if not facts.orphans:
        yield _ok("orphans", "none")


def _drift(host: Host, facts: Facts) -> Iterator[Checked]:
    """What differs from what the last deploy left."""
    by_hand = changed_by_hand(
        manifest.parse(facts.manifest), {file.path: FileState(file.sha256, file.mode) for file in facts.files}
    )
    if by_hand:
        advice = "see it with 'puffin-fleet plan --diff --host {host}'; 'puffin-fleet deploy --repair' undoes it"
        yield _warn("drift", f"changed by hand: {', '.join(by_hand)}", advice)
    names = sorted(facts.drifted)
    if names:
        yield _warn("drift", f"supervisord does not run what stands in the files of {', '.join(names)}", _DEPLOY)
    stopped = [
        program.name
        for program in facts.supervisord.programs
        if program.state == "STOPPED" and not facts.stop and program.name not in facts.stopped
    ]
    if stopped:
        yield _warn(
            "drift",
            f"stopped by hand: {', '.join(stopped)}",
            "'puffin-fleet start --host {host}' starts them; a deploy leaves them stopped",
        )
    known = {file.path for file in facts.files}
    strangers = [
        program.name
        for program in facts.supervisord.programs
        if f"etc/workers/{program.name}.yaml" not in known and not named_like_ours(program.name, host.name)
    ]
    if strangers:
        yield _warn("drift", f"programs that are not from here: {', '.join(strangers)}", "they are left alone")


def _boot(host: Host, facts: Facts) -> Iterator[Checked]:
    boot = facts.boot
    if host.boot == "none":
        yield _ok("boot", "not wanted: hosts.yaml says 'boot: none'")
    elif boot.current and boot.why:
        yield _warn("boot", boot.why, "have the cron daemon started, or workers are not back after a reboot")
    elif boot.current:
        yield _ok("boot", f"by {boot.kind}")
    elif boot.available == "none":
        what, _, advice = boot.why.partition(". ")
        yield _warn("boot", f"workers are not back after a reboot: {what}", _literal(advice))
    elif facts.current is None:
        yield _ok("boot", f"will be by {boot.available}")
    else:
        state = "not arranged" if boot.kind == "none" else f"not as it should be ({boot.kind})"
        yield _warn("boot", f"the start at boot is {state}", _DEPLOY)


def _leftovers(found: Examined) -> Iterator[Checked]:
    holder = found.facts.lock.holder
    if holder is not None and holder.expired:
        advice = "nobody renews it: the next command takes it over, or: puffin-fleet unlock --host {host}"
        yield _warn("lock", describe(holder), advice)
    elif holder is not None:
        yield _ok("lock", describe(holder))
    if found.examination.unfinished:
        names = ", ".join(found.examination.unfinished)
        yield _warn("leftovers", f"something was cut off while it wrote {names}", _DEPLOY)


def _members(found: Examined) -> Iterator[Checked]:
    """Where the replica set sends its clients: only the primary takes writes, but any of them may be it tomorrow."""
    said = {reached.address for reached in found.examination.reachable if reached.problem}
    for place, member in enumerate(found.examination.members):
        if not member.problem or member.address in said:
            continue
        what = f"the database's replica set sends its clients to {member.address}, which the host cannot reach"
        advice = (
            "have that name resolved and that port open for the host, or give the member another address in the set's "
            "own configuration (rs.conf()); for a set of one server 'directConnection=true' in database.uri does"
        )
        if place == 0:
            yield _fail("database", f"{what}: {member.problem}", advice)
        else:
            yield _warn("database", f"{what}: {member.problem}; workers stop when it becomes primary", advice)


def _database(found: Examined) -> Iterator[Checked]:
    seen = found.examination
    yield from _members(found)
    if seen.worker is None:
        bad = [reached for reached in seen.reachable if reached.problem]
        for reached in bad:
            advice = "check the section 'database', and firewalls between this host and the server"
            yield _fail("database", f"{reached.address} cannot be reached from the host: {reached.problem}", advice)
        if seen.reachable and not bad:
            names = ", ".join(reached.address for reached in seen.reachable)
            yield _ok("database", f"{names} can be reached; credentials were not tested: nothing is deployed yet")
        if not seen.reachable:
            yield _ok("database", "cannot be tried from the host before something is deployed")
        return
    if seen.worker_problem:
        advice = "correct base_dir first: that may be why" if seen.base.write else _DEPLOY
        yield _fail("worker check", f"{seen.worker} cannot be asked: {seen.worker_problem}", advice)


def _of_worker(fleet: Fleet, host: Host, found: Examined) -> Iterator[Checked]:
    """What a worker said of itself, when it was asked."""
    seen = found.examination
    lacking = _not_asked_for(fleet, host, seen.worker_findings)
    for finding in seen.worker_findings:
        if finding.check not in lacking:
            yield from _said(seen.worker or "", finding)
    if lacking:
        names = [subject.removeprefix("program ") for subject in lacking]
        what = f"{', '.join(names)} not installed: only jobs that need none of them are taken, such as sleep"
        yield _warn("programs", what, _NO_SCINE)


def _not_asked_for(fleet: Fleet, host: Host, findings: Sequence[WorkerFinding]) -> list[str]:
    """Programs that are missing since the release has none of SCINE's, and that hosts.yaml does not name either."""
    if _SCINE in fleet.release.extras:
        return []
    named = {*(host.puffin.get("programs") or {}), *(name for shape in host.workers for name in shape.programs)}
    missing = [each.check for each in findings if each.severity is Severity.FAIL and _is_uninstalled(each)]
    return [subject for subject in missing if subject.removeprefix("program ") not in named]


def _is_uninstalled(finding: WorkerFinding) -> bool:
    return finding.check.startswith("program ") and _BOOTSTRAP in finding.what


def _said(worker: str, finding: WorkerFinding) -> Iterator[Checked]:
    """That it runs already is as it should be, and disk is taken while it does."""
    check, severity, detail = finding.check, finding.severity, finding.what
    if check in {"worker", "configuration"}:
        return
    said_by = f"this is what {worker} says of itself on the host"
    if severity is Severity.OK:
        yield _ok(check, detail.splitlines()[0] if detail else "")
    elif severity is Severity.FAIL and _is_uninstalled(finding):
        what = detail.replace(f": run '{_BOOTSTRAP}'", "")
        yield _fail(check, what, f"{_EXTRAS.format(check.removeprefix('program '))}; {said_by}")
    elif severity is Severity.FAIL and check != "disk":
        yield _fail(check, detail, said_by)
    else:
        yield _warn(check, detail, said_by)
