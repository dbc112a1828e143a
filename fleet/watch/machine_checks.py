"""Whether a host can carry its workers: Python, directories, limits, clock, and how many fit. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fleet.errors import InventoryError
from fleet.hosts.hostsfile import path_problem
from fleet.hosts.inventory import Host
from fleet.hosts.layout import Hardware, lay_out
from fleet.reach.facts import Disk, Facts
from fleet.watch.examination import UNLIMITED, Examined, Limit, TriedDirectory
from fleet.watch.findings import DEPLOY, Checked, fail, literal, ok, warn

LONGEST_SOCKET_PATH = 97
"""supervisord binds `<path>.<pid>` first, and the kernel takes 107 bytes. Hosts have the same in their own program."""

CLOCK_TOLERANCE_S = 5.0
_FREE_GB, _NO_GB = 2.0, 0.2
_INODES, _NO_INODES = 50_000, 1_000
_FULL = ("No space left", "quota exceeded")
_FILES, _PROCESSES, _FEW_PROCESSES = 1024, 200, 1024


def of_machine(host: Host, found: Examined) -> Iterator[Checked]:
    """What the host itself has to offer."""
    yield _connection(host, found.facts)
    yield from _python(found)
    yield from _directories(host, found)
    yield from _sockets(found.facts)
    yield from _clock(found)
    yield from _limits(found)
    yield from _layout(host, found)


def _connection(host: Host, facts: Facts) -> Checked:
    if host.connection == "local":
        return ok("local", f"this machine, as {facts.user}; no connection is needed")
    return ok("ssh", f"connected as {facts.user}")


def _python(found: Examined) -> Iterator[Checked]:
    python = found.facts.python
    name = f"{python.implementation} {python.version}, {python.machine}, {python.libc} {python.libc_version}".rstrip()
    if python.implementation != "cpython" or python.libc not in {"glibc", "musl"}:
        yield fail("python", f"there are no wheels for {name}", "set release.python to a CPython")
    elif found.examination.python_home:
        what = f"{python.executable} belongs to the environment {found.examination.python_home}"
        yield warn("python", what, "set release.python to one of the system: releases die with that environment")
    else:
        yield ok("python", name)


def _directories(host: Host, found: Examined) -> Iterator[Checked]:
    facts, seen = found.facts, found.examination
    yield from _place("base_dir", seen.base, facts.hardware.disk, facts.shared)
    if seen.scratch is not None and facts.hardware.scratch is not None:
        yield from _place("scratch", seen.scratch, facts.hardware.scratch, False)
    for name, path in (("base_dir", facts.base_dir), ("scratch", facts.scratch or ""), ("run", facts.run_dir)):
        if problem := path_problem(path):
            yield fail("path", f"{name} is {path!r}: it {problem}", f"choose another one for {host.name}")


def _place(name: str, place: TriedDirectory, disk: Disk, shared: bool) -> Iterator[Checked]:
    advice = f"choose another {name}, or have {literal(place.tried)} corrected"
    if place.write:
        full = any(words in place.write for words in _FULL)
        what = f"nothing can be written in {place.tried}: {place.write}"
        yield fail(name, f"{what}; {_free(place, disk)}" if full else what, _make_room(name) if full else advice)
        return
    if place.link:
        what = f"no hard links in {place.tried} ({place.file_system}): {place.link}"
        yield fail(name, what, "supervisord and installations need them: choose another base_dir")
    if place.run:
        what = f"no program can be started from {place.tried} ({place.file_system}): {place.run}"
        yield fail(name, what, "it may be mounted noexec: choose another base_dir")
    network = f", a network file system ({place.file_system}): sockets go elsewhere" if shared else ""
    yield from _space(name, place, disk, network)


def _space(name: str, place: TriedDirectory, disk: Disk, network: str) -> Iterator[Checked]:
    # Some file systems have no fixed number of inodes, and say 0.
    scarce = 0 < disk.inodes < _INODES
    if disk.free < _NO_GB or 0 < disk.inodes < _NO_INODES:
        yield fail(f"{name} space", _free(place, disk), _make_room(name))
    elif disk.free < _FREE_GB or scarce:
        yield warn(f"{name} space", _free(place, disk), _make_room(name))
    else:
        yield ok(name, f"{place.path}: {disk.free:.0f} GB free{network}")


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
        yield fail("socket", what, "choose a shorter base_dir")
    else:
        yield ok("socket", f"{path}, {length} of {LONGEST_SOCKET_PATH} bytes")


def _clock(found: Examined) -> Iterator[Checked]:
    offset, doubt = found.clock_offset, found.clock_doubt
    if abs(offset) - doubt > CLOCK_TOLERANCE_S:
        side = "ahead of" if offset > 0 else "behind"
        what = f"{abs(offset):.1f} s {side} this machine's (to within {doubt:.1f} s)"
        yield warn("clock", what, "set the clock, for example with chrony: logs are sorted by it")
    else:
        yield ok("clock", f"agrees with this machine's to within {abs(offset) + doubt:.1f} s")


def _limits(found: Examined) -> Iterator[Checked]:
    limits = found.examination.limits
    nofile, nproc = limits.get("nofile"), limits.get("nproc")
    advice = "have it raised in /etc/security/limits.conf"
    good = True
    if nofile and _below(nofile.hard, _FILES):
        good = False
        yield fail("limits", f"{nofile.hard} open files at most; supervisord needs {_FILES}", advice)
    if nproc and _below(nproc.hard, _PROCESSES):
        good = False
        yield fail("limits", f"{nproc.hard} processes at most; supervisord needs {_PROCESSES}", advice)
    elif nproc and _below(nproc.soft, _FEW_PROCESSES):
        good = False
        yield warn("limits", f"{nproc.soft} processes and threads at most for this user", advice)
    if good:
        words = [f"{name} {_limit(limit)}" for name, limit in limits.items()]
        yield ok("limits", ", ".join(words))


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
            yield fail("layout", problem.message, "change 'workers' or 'reserve' in hosts.yaml")
        return
    yield ok("layout", f"{len(workers)} workers fit")
    there = {program.name for program in facts.supervisord.programs}
    lacking = [worker.name for worker in workers if worker.name not in there]
    if lacking and facts.supervisord.reachable:
        yield warn("layout", f"{', '.join(lacking)} not deployed", DEPLOY)
