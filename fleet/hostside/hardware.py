"""What a host has to offer: cores, memory, disk. Every function takes the root of the system it looks at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fleet.hostside.common import Json, read_text
from fleet.hostside.places import nearest_existing

GIGABYTE = 1024**3
_NO_LIMIT = 1 << 60
"""cgroup v1 writes 'no limit' as a number near 2**63."""


def cores(affinity: frozenset[int], system: Path = Path("/")) -> Json:
    """Count the cores this user may use: physical where known, within affinity, cgroup cpuset and quota.

    Parameters
    ----------
    affinity
        Numbers of the processors that this process may use.
    system
        The root of the system that is looked at.

    Returns
    -------
    Json
        The counts cores, physical, logical and quota, the cpus to be used, and the processors.
    """
    allowed = affinity & cpuset(system) or affinity
    found = processors(allowed, system)
    quota = cpu_quota(system)
    first_threads = sorted({processor["core"] for processor in found or ()})
    usable = len(first_threads) or len(allowed)
    if quota is not None:
        usable = min(usable, int(quota))
    alone = [{"cpu": number, "core": number, "node": 0} for number in sorted(allowed)]
    return {
        "cores": max(1, usable),
        "physical": len(first_threads) or None,
        "logical": len(allowed),
        "quota": quota,
        "cpus": first_threads or sorted(allowed),
        "processors": _with_nodes(found or alone, system),
    }


def processors(allowed: frozenset[int], system: Path = Path("/")) -> list[Json]:
    """The logical processors allowed, each with the first of its physical core; empty where it is not told.

    Parameters
    ----------
    allowed
        Their numbers.
    system
        The root of the system that is looked at.

    Returns
    -------
    list[Json]
        For each cpu, core and node, which is 0 here.
    """
    together = _told_by_kernel(allowed, system) or _told_by_cpuinfo(read_text(system / "proc/cpuinfo"), allowed)
    return [{"cpu": number, "core": together[number], "node": 0} for number in sorted(together)]


def _told_by_kernel(allowed: frozenset[int], system: Path) -> dict[int, int]:
    """By processor, the first of those on its core, from sysfs, which also knows processors without `core id`."""
    together = {}
    for number in sorted(allowed):
        place = system / f"sys/devices/system/cpu/cpu{number}/topology"
        siblings = numbers(read_text(place / "core_cpus_list") or read_text(place / "thread_siblings_list"))
        if number not in siblings:
            return {}
        together[number] = min(siblings & allowed)
    return together


def _told_by_cpuinfo(cpuinfo: str, allowed: frozenset[int]) -> dict[int, int]:
    together: dict[int, int] = {}
    first: dict[tuple[str, str], int] = {}
    for block in cpuinfo.split("\n\n"):
        entries = dict(_entries(block))
        if not {"processor", "physical id", "core id"} <= entries.keys():
            continue
        number = int(entries["processor"])
        if number in allowed:
            together[number] = first.setdefault((entries["physical id"], entries["core id"]), number)
    return together


def _with_nodes(found: list[Json], system: Path) -> list[Json]:
    """The same with the NUMA node of each; 0 where the kernel knows no nodes."""
    nodes = {
        number: int(directory.name[len("node") :])
        for directory in (system / "sys/devices/system/node").glob("node[0-9]*")
        for number in numbers(read_text(directory / "cpulist"))
    }
    return [{**processor, "node": nodes.get(processor["cpu"], 0)} for processor in found]


def cpuset(system: Path = Path("/")) -> frozenset[int]:
    """The processors that the control group of this process allows; empty where it says nothing.

    Parameters
    ----------
    system
        The root of the system that is looked at.
    """
    for directory in control_groups(system, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            if allowed := numbers(read_text(directory / name)):
                return allowed
    return frozenset()


def numbers(text: str) -> frozenset[int]:
    """The numbers of a list as the kernel writes it, such as `0-3,8`.

    Parameters
    ----------
    text
        The list.
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _entries(block: str) -> Iterator[tuple[str, str]]:
    for line in block.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            yield key.strip(), value.strip()


def cpu_quota(system: Path = Path("/")) -> float | None:
    """The tightest processor quota of the control groups this process is in, in cores; None without one.

    Parameters
    ----------
    system
        The root of the system that is looked at.
    """
    found = []
    for directory in control_groups(system, "cpu"):
        quota, _, period = read_text(directory / "cpu.max").strip().partition(" ")
        if not quota:
            quota = read_text(directory / "cpu.cfs_quota_us").strip()
            period = read_text(directory / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory(system: Path = Path("/")) -> Json:
    """Memory in GB (1024**3 bytes): what the machine has, within the limit of the control groups.

    Parameters
    ----------
    system
        The root of the system that is looked at.
    """
    entries = dict(_entries(read_text(system / "proc/meminfo")))
    installed = int(entries.get("MemTotal", "0 kB").split()[0]) * 1024
    limits = [limit for limit in _memory_limits(system) if limit < _NO_LIMIT]
    total = min([installed, *limits]) if installed else min(limits, default=0)
    return {"total": total / GIGABYTE}


def _memory_limits(system: Path) -> Iterator[int]:
    for directory in control_groups(system, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = read_text(directory / name).strip()
            if text.isdigit():
                yield int(text)


def control_groups(system: Path, controller: str) -> Iterator[Path]:
    """The control groups this process is in, each with all its parents, version 1 and 2 alike.

    Parameters
    ----------
    system
        The root of the system that is looked at.
    controller
        Such as cpu, for version 1.
    """
    mounted = system / "sys/fs/cgroup"
    for line in read_text(system / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tops = [mounted, mounted / "unified"]
        elif controller in controllers.split(","):
            tops = [mounted / controller, mounted / controllers]
        else:
            continue
        for top in tops:
            relative = Path(path.lstrip("/"))
            yield from (top / step for step in (relative, *relative.parents))


def disk(path: Path) -> Json:
    """Free space in GB (1024**3 bytes) where a path is or would be, and whether it can be written or made.

    Parameters
    ----------
    path
        The path.
    """
    place = nearest_existing(path)
    try:
        usage = os.statvfs(place)
    except OSError:
        return {"path": str(path), "exists": False, "free": 0.0, "inodes": 0, "writable": False}
    return {
        "path": str(path),
        "exists": path.is_dir(),
        "free": usage.f_bavail * usage.f_frsize / GIGABYTE,
        "inodes": usage.f_favail,
        "writable": place.is_dir() and os.access(place, os.W_OK | os.X_OK),
    }
