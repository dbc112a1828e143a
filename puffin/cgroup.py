"""Control groups: the kernel's own limit on the memory of a job with all its processes.

Looking at the processes twice a second misses what happens between two looks; the kernel misses nothing. Where the
worker may make control groups, every job has one: its memory cannot grow over the limit, and if it tries, the kernel
ends processes of this job and no others. Where it may not (most hosts without root), looking has to do.

Moving a process into a group takes the kernel up to 25 ms, so the process of the *next* job is put into its group
while the present one runs. That is why groups have the keeper's process id in their names and not the calculation's.
See cgroups(7); for version 2 also Documentation/admin-guide/cgroup-v2.rst of the kernel, "Delegation".
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

GB = 1024**3
_LEAF = "puffin.workers"
_NEARLY = 0.95
_TRIES = 50
_PAUSE_S = 0.01
_DELEGATED = ("user.delegate", "trusted.delegate")


@dataclass(frozen=True)
class _Files:
    """What the files are called in one version of control groups, and what stands in them."""

    version: int
    entry: str
    limit: str
    swap_limit: str
    peak: str
    kills: str
    memory: tuple[str, ...]


# "tasks" and not "cgroup.procs": a process that moves itself with it does not wait for all others of the machine.
_V1 = _Files(
    version=1,
    entry="tasks",
    limit="memory.limit_in_bytes",
    swap_limit="memory.memsw.limit_in_bytes",
    peak="memory.max_usage_in_bytes",
    kills="memory.oom_control",
    memory=("total_rss", "total_shmem", "total_swap"),
)
_V2 = _Files(
    version=2,
    entry="cgroup.procs",
    limit="memory.max",
    swap_limit="memory.swap.max",
    peak="memory.peak",
    kills="memory.events",
    memory=("anon", "shmem"),
)


@dataclass(frozen=True)
class Base:
    """The control group of a process, below which it may make others.

    Parameters
    ----------
    mount
        Where the hierarchy is mounted.
    path
        The group's directory.
    files
        The version.
    """

    mount: Path
    path: Path
    files: _Files

    @property
    def shown(self) -> str:
        """The group in words."""
        return f"version {self.files.version}, below {self.path}"


def locate(groups: str, mounts: str) -> Base | None:
    """Where a process is in the hierarchy that can limit memory.

    Parameters
    ----------
    groups
        Content of ``/proc/<pid>/cgroup``.
    mounts
        Content of ``/proc/<pid>/mountinfo``.

    Returns
    -------
    Base | None
        Version 1 where it has the memory controller, else version 2; None if neither is mounted in sight.
    """
    named = dict(re.findall(r"^\d+:([^:]*):(.*)$", groups, re.MULTILINE))
    for controllers, path in named.items():
        if "memory" in controllers.split(","):
            return _mounted(_mounts(mounts, "cgroup", "memory"), path, _V1)
    return _mounted(_mounts(mounts, "cgroup2", ""), named[""], _V2) if "" in named else None


def _mounts(mounts: str, kind: str, option: str) -> Iterator[tuple[str, str]]:
    """The root and the place of every mount of a kind; see proc(5) for the fields."""
    for line in mounts.splitlines():
        place, _, rest = line.partition(" - ")
        fields, about = place.split(), rest.split()
        if len(fields) > 4 and about[:1] == [kind] and (not option or option in about[-1].split(",")):
            yield fields[3], fields[4]


def _mounted(mounts: Iterable[tuple[str, str]], path: str, files: _Files) -> Base | None:
    if path.startswith("/.."):
        return None  # Outside what this process may see.
    for root, place in mounts:
        # In a container only a part of the hierarchy is mounted, and the path may be told from the top.
        below = path == root or path.startswith(f"{root.rstrip('/')}/")
        inner = os.path.relpath(path, root) if below else path.lstrip("/")
        own = Path(os.path.normpath(Path(place) / inner))
        # The worker has moved out of its way: version 2 has processes only where there are no groups below.
        return Base(Path(place), own.parent if own.name == _LEAF else own, files)
    return None


def own_base() -> Base | None:
    """Where this process is; None if that cannot limit memory."""
    try:
        return locate(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    except OSError:
        return None


def make_room() -> None:
    """Let groups with a limit be made below this process's own; only version 2 needs that.

    It wants a group's processes to be in groups at the end of the tree, so all of them are moved into one. That is
    done only where the group was given to us with all below it: elsewhere it belongs to the system's manager.
    """
    base = own_base()
    if base is None or base.files is not _V2 or not _may_be_divided(base):
        return
    with contextlib.suppress(OSError):
        leaf = base.path / _LEAF
        leaf.mkdir(exist_ok=True)
        for tries_left in reversed(range(_TRIES)):
            for pid in _processes(base.path):
                with contextlib.suppress(ProcessLookupError):
                    _write(leaf / "cgroup.procs", str(pid))
            try:
                _write(base.path / "cgroup.subtree_control", "+memory")
                return
            except OSError:
                # A process was forked meanwhile.
                if tries_left == 0:
                    raise


def _may_be_divided(base: Base) -> bool:
    try:
        enabled = (base.path / "cgroup.subtree_control").read_text().split()
        offered = (base.path / "cgroup.controllers").read_text().split()
    except OSError:
        return False
    return "memory" in offered and "memory" not in enabled and _is_delegated(base)


def _is_delegated(base: Base) -> bool:
    for attribute in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(base.path, attribute) == b"1":
                return True
    # The top of what a container sees is the container's; the top of the whole machine has no type.
    return base.path == base.mount and (base.path / "cgroup.type").exists()


def shown(lock: str) -> str:
    """Where groups of jobs can be made, in words; empty where they cannot.

    Parameters
    ----------
    lock
        Path of the worker's process id file.
    """
    base, made = own_base(), JobGroup.make(lock)
    if made is not None:
        made.remove()
    # A worker that starts makes room for them first.
    return base.shown if base and (made or _may_be_divided(base)) else ""


class JobGroup:
    """The control group of one job.

    Parameters
    ----------
    path
        Its directory, which is there.
    files
        The version.
    """

    def __init__(self, path: Path, files: _Files) -> None:
        self._path = path
        self._files = files

    @classmethod
    def make(cls, lock: str) -> JobGroup | None:
        """Make a group below that of this process.

        Parameters
        ----------
        lock
            Path of the worker's process id file: who holds its lock may remove the group.

        Returns
        -------
        JobGroup | None
            The group; None if it cannot be made here, or could not limit memory.
        """
        base = own_base()
        if base is None or not lock:
            return None
        group = cls(base.path / f"{prefix(lock)}{os.getpid()}", base.files)
        try:
            group._path.mkdir()
        except OSError:
            return None
        if not (group._path / base.files.limit).exists():
            group.remove()
            return None
        with contextlib.suppress(OSError):
            # One process of a job that lacks another never ends well; version 1 cannot do that.
            _write(group._path / "memory.oom.group", "1")
        return group

    def enter(self) -> bool:
        """Move this process into the group; return whether it is there."""
        try:
            _write(self._path / self._files.entry, "0")
        except OSError:
            return False
        return True

    def limit(self, memory_gb: float) -> None:
        """Limit the memory, swap space included; where that cannot be done, who looks has to notice.

        Parameters
        ----------
        memory_gb
            The limit in GB.
        """
        most = str(int(memory_gb * GB))
        with contextlib.suppress(OSError):
            _write(self._path / self._files.limit, most)
            _write(self._path / self._files.swap_limit, most if self._files is _V1 else "0")

    def used_gb(self) -> float:
        """Memory that cannot be had back by forgetting files, in GB; what the job merely read or wrote is not in it."""
        with contextlib.suppress(OSError):
            counted = _numbers((self._path / "memory.stat").read_text())
            swapped = self._path / "memory.swap.current"
            extra = int(swapped.read_text()) if self._files is _V2 and swapped.exists() else 0
            return (sum(counted.get(name, 0) for name in self._files.memory) + extra) / GB
        return 0.0

    def ran_out(self) -> bool:
        """Whether the kernel ended a process of the group because it wanted more memory than it may have.

        If the whole machine runs out of memory that is not the job's fault: its limit was not reached then.
        """
        with contextlib.suppress(OSError, ValueError):
            counted = _numbers((self._path / self._files.kills).read_text())
            limit = int((self._path / self._files.limit).read_text()) / GB
            # Version 1 does not count how often the limit was reached.
            reached = counted.get("oom", 0) > 0 or self.peak_gb() > _NEARLY * limit
            return counted.get("oom_kill", 0) > 0 and reached
        return False

    def peak_gb(self) -> float:
        """The most memory that it ever had, in GB, files included; 0 where the kernel does not tell."""
        with contextlib.suppress(OSError, ValueError):
            return int((self._path / self._files.peak).read_text()) / GB
        return 0.0

    def remove(self) -> None:
        """Remove the group, after all its processes have been killed."""
        _remove(self._path)


def remove_leftovers(lock: str, is_living: Callable[[int], bool]) -> None:
    """Remove the groups of keepers that were killed.

    Parameters
    ----------
    lock
        Path of the worker's process id file, whose lock the caller holds.
    is_living
        Whether a process is a keeper that lives; asked for each group that is there.
    """
    base = own_base()
    if base is None:
        return
    begin = prefix(lock)
    # Everywhere: an earlier incarnation may have been started in another group.
    # Not by rglob: groups of others come and go, and it fails over one that goes as it looks.
    for directory, children, _ in os.walk(base.mount):
        for name in [child for child in children if child.startswith(begin)]:
            keeper = name.removeprefix(begin)
            if not (keeper.isdecimal() and is_living(int(keeper))):
                _remove(Path(directory, name))


def prefix(lock: str) -> str:
    """How the names of all groups of a worker begin.

    Parameters
    ----------
    lock
        Path of its process id file.
    """
    # Containers that share the kernel's hierarchy may have the same paths.
    owner = hashlib.sha256(os.fsencode(f"{socket.gethostname()}:{lock}"))
    return f"puffin-{owner.hexdigest()[:12]}-"


def _remove(path: Path) -> None:
    for _ in range(_TRIES):
        try:
            path.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                return
            for pid in _processes(path):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE_S)
        else:
            return


def _processes(path: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in (path / "cgroup.procs").read_text().split() if word != "0"]
    return []


def _numbers(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\S+) (\d+)$", text, re.MULTILINE)}


def _write(path: Path, text: str) -> None:
    # Not through a buffer: the kernel's refusal is the answer to this very write.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
