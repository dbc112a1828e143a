"""How a host is cut into workers. Pure: hardware and shapes in, workers out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fleet.errors import InventoryError, Problem
from fleet.inventory import Host, Shape

DEFAULT_MEMORY_PER_CORE = 2.0
"""GB a worker gets for each core where its shape does not say.

A constant rather than a share of the host: the same shape is then the same worker on every host, and a new
kernel that reports a little less memory does not change every worker's configuration.
"""

DEFAULT_DISK_PER_CORE = 5.0
"""GB of scratch a worker gets for each core where its shape does not say."""

_MOST_WORKERS = 1024
_EPSILON = 1e-9  # GB; sums of decimal fractions are a little off


@dataclass(frozen=True)
class Hardware:
    """What a host has.

    Parameters
    ----------
    cores
        Cores that processes of the user may run on.
    memory_gb
        Memory in GB, all of it: what is in use now is gone tomorrow, and the reverse.
    disk_gb
        Free space in GB where scratch is, counting what this fleet's own running jobs use there as free;
        else a second deploy, seen while jobs run, would not fit.
    """

    cores: int
    memory_gb: float
    disk_gb: float


@dataclass(frozen=True)
class Worker:
    """One worker: a process with its share of a host.

    Parameters
    ----------
    name
        ``<host>-<n>``, n counted from 1 over all shapes in the order of the file.
    memory, disk
        In GB.
    jobs
        Jobs it takes; empty for all it can.
    cpus
        Cores it is bound to; empty for none in particular.
    """

    name: str
    host: str
    cores: int
    memory: float
    disk: float
    jobs: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Share:
    """What one worker of a shape takes, or what is left of a host."""

    cores: int
    memory: float
    disk: float


def lay_out(host: Host, hardware: Hardware) -> tuple[Worker, ...]:
    """Cut a host into workers.

    Fixed counts are taken first, wherever they stand in the list; then each ``auto`` shape, in the order of
    the list, takes as many as fit into what is left, by the scarcer of cores and memory.

    Parameters
    ----------
    host
        The host with its shapes and reserve.
    hardware
        What it has.

    Returns
    -------
    tuple[Worker, ...]
        The workers, numbered in the order of the shapes.

    Raises
    ------
    InventoryError
        The workers do not fit, or an ``auto`` gives none; all reasons at once, with the sums.
    """
    shares = [_share(shape) for shape in host.workers]
    fixed = [0 if shape.count == "auto" else shape.count for shape in host.workers]
    problems = list(_overcommitted(host, hardware, shares, fixed))
    if problems:
        problems += _disk(host, hardware, shares, fixed)
        raise InventoryError(tuple(problems))
    counts = _fill(host, hardware, shares, fixed)
    problems = [
        _nothing_fits(host, hardware, shape, share, fixed)
        for shape, share, count in zip(host.workers, shares, counts, strict=True)
        if count == 0
    ]
    # Disk does not limit an auto count, so it is only now known what is asked for.
    problems += _disk(host, hardware, shares, counts)
    if sum(counts) > _MOST_WORKERS:
        problems.append(_problem(host, f"gives {sum(counts)} workers, more than {_MOST_WORKERS}"))
    if problems:
        raise InventoryError(tuple(problems))
    return _numbered(host, shares, counts)


def _share(shape: Shape) -> _Share:
    memory = shape.memory if shape.memory is not None else DEFAULT_MEMORY_PER_CORE * shape.cores
    disk = shape.disk if shape.disk is not None else DEFAULT_DISK_PER_CORE * shape.cores
    return _Share(shape.cores, memory, disk)


def _left(host: Host, hardware: Hardware, shares: list[_Share], counts: list[int]) -> _Share:
    taken = list(zip(counts, shares, strict=True))
    return _Share(
        hardware.cores - host.reserve.cores - sum(count * share.cores for count, share in taken),
        hardware.memory_gb - host.reserve.memory - math.fsum(count * share.memory for count, share in taken),
        hardware.disk_gb - host.reserve.disk - math.fsum(count * share.disk for count, share in taken),
    )


def _fill(host: Host, hardware: Hardware, shares: list[_Share], fixed: list[int]) -> list[int]:
    counts = list(fixed)
    for index, shape in enumerate(host.workers):
        if shape.count == "auto":
            left = _left(host, hardware, shares, counts)
            by_memory = math.floor((left.memory + _EPSILON) / shares[index].memory)
            counts[index] = max(0, min(left.cores // shares[index].cores, by_memory))
    return counts


def _overcommitted(host: Host, hardware: Hardware, shares: list[_Share], counts: list[int]) -> Iterator[Problem]:
    taken = list(zip(counts, shares, strict=True))
    cores = sum(count * share.cores for count, share in taken)
    memory = math.fsum(count * share.memory for count, share in taken)
    if cores > hardware.cores - host.reserve.cores:
        yield _too_much(host, "cores", cores, hardware.cores, host.reserve.cores)
    if memory > hardware.memory_gb - host.reserve.memory + _EPSILON:
        yield _too_much(host, "GB of memory", memory, hardware.memory_gb, host.reserve.memory)


def _disk(host: Host, hardware: Hardware, shares: list[_Share], counts: list[int]) -> Iterator[Problem]:
    asked = math.fsum(count * share.disk for count, share in zip(counts, shares, strict=True))
    if asked > hardware.disk_gb - host.reserve.disk + _EPSILON:
        unit = f"GB of disk below {host.scratch}"
        yield _too_much(host, unit, asked, hardware.disk_gb, host.reserve.disk)


def _too_much(host: Host, unit: str, asked: float, there: float, reserved: float) -> Problem:
    less = f" less {_number(reserved)} reserved" if reserved else ""
    return _problem(host, f"workers ask for {_number(asked)} {unit}, the host has {_number(there)}{less}")


def _nothing_fits(host: Host, hardware: Hardware, shape: Shape, share: _Share, fixed: list[int]) -> Problem:
    asked = f"{shape.cores} cores and {_number(share.memory)} GB of memory"
    there = f"{hardware.cores} cores and {_number(hardware.memory_gb)} GB"
    reserved = f"{host.reserve.cores} cores and {_number(host.reserve.memory)} GB reserved"
    others = " and what the other shapes take" if len(fixed) > 1 else ""
    return _problem(
        host,
        f"'count: auto' gives no worker: each takes {asked}, the host has {there} less {reserved}{others}",
    )


def _numbered(host: Host, shares: list[_Share], counts: list[int]) -> tuple[Worker, ...]:
    kinds = [
        (share, shape.jobs)
        for shape, share, count in zip(host.workers, shares, counts, strict=True)
        for _ in range(count)
    ]
    return tuple(
        Worker(f"{host.name}-{number}", host.name, share.cores, share.memory, share.disk, jobs)
        for number, (share, jobs) in enumerate(kinds, start=1)
    )


def _problem(host: Host, message: str) -> Problem:
    return Problem(message, path=host.name)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
