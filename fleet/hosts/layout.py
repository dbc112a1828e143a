"""How a host is cut into workers. Pure: hardware and shapes in, workers out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import InventoryError, Problem
from fleet.hosts.inventory import Host, Shape
from fleet.reach import affinity
from fleet.reach.affinity import Processor
from fleet.reach.facts import Facts

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
    processors
        The logical ones, with core and NUMA node; only needed where workers are bound to some.
    gpus
        Ids of its GPUs.
    """

    cores: int
    memory_gb: float
    disk_gb: float
    processors: tuple[Processor, ...] = ()
    gpus: tuple[str, ...] = ()

    @classmethod
    def found(cls, facts: Facts, free_gb: float) -> Hardware:
        """What a probe found, with what counts as free disk space."""
        hardware = facts.hardware
        gpus = tuple(gpu.id for gpu in hardware.gpus or ())
        return cls(hardware.cores, hardware.memory, free_gb, hardware.processors, gpus)


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
        Processors it is bound to; empty for none in particular.
    gpus
        Ids of the GPUs it has for itself.
    programs
        Settings of programs for it alone, laid over those of its host.
    """

    name: str
    host: str
    cores: int
    memory: float
    disk: float
    jobs: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()
    programs: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class _Share:
    """What one worker of a shape takes, or what is left of a host."""

    cores: int
    memory: float
    disk: float
    gpus: int


def lay_out(host: Host, hardware: Hardware) -> tuple[Worker, ...]:
    """Cut a host into workers.

    Fixed counts are taken first, wherever they stand in the list; then each ``auto`` shape, in the order of
    the list, takes as many as fit into what is left, by the scarcest of cores, memory and GPUs.

    With affinity, each worker gets as many processors of its own as it has cores: see
    :func:`fleet.reach.affinity.place`. Without, but with `cpus`, all workers share these.

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
    problems = list(_not_there(host, hardware))
    if problems:
        raise InventoryError(tuple(problems))
    hardware = _allowed(host, hardware)
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
    return _bound(host, hardware, _numbered(host, hardware, shares, counts))


def _not_there(host: Host, hardware: Hardware) -> Iterator[Problem]:
    """What hosts.yaml names and the host does not have."""
    cpus = {processor.cpu for processor in hardware.processors}
    if (host.cpus or host.affinity != "none") and not cpus:
        yield _problem(host, "cannot bind workers to processors: the host does not tell which it has")
    elif lost := sorted(set(host.cpus) - cpus):
        yield _problem(host, f"'cpus' names {_ranges(lost)}, the host lets this user have {_ranges(sorted(cpus))}")
    named = host.gpus if host.gpus != "auto" else ()
    # A host whose drivers tell nothing is taken at the word of hosts.yaml, and so are UUIDs.
    if hardware.gpus and (gone := [gpu for gpu in named if gpu.isdigit() and gpu not in hardware.gpus]):
        yield _problem(host, f"'gpus' names {', '.join(gone)}, the host has {', '.join(hardware.gpus)}")


def _allowed(host: Host, hardware: Hardware) -> Hardware:
    """The hardware less what hosts.yaml keeps the fleet from."""
    if host.cpus:
        chosen = [processor for processor in hardware.processors if processor.cpu in host.cpus]
        processors = tuple(_renumbered(chosen))
        cores = min(hardware.cores, len({processor.core for processor in processors}))
        hardware = dataclasses.replace(hardware, cores=cores, processors=processors)
    return hardware if host.gpus == "auto" else dataclasses.replace(hardware, gpus=host.gpus)


def _renumbered(chosen: list[Processor]) -> Iterator[Processor]:
    """The same processors, a core named by the first one of it that is among them."""
    first: dict[int, int] = {}
    for processor in sorted(chosen, key=lambda each: each.cpu):
        yield dataclasses.replace(processor, core=first.setdefault(processor.core, processor.cpu))


def _bound(host: Host, hardware: Hardware, workers: tuple[Worker, ...]) -> tuple[Worker, ...]:
    """The same workers with the processors that each is bound to."""
    placed = (host.cpus,) * len(workers)
    if host.affinity != "none":
        sizes = [worker.cores for worker in workers]
        placed = affinity.place(sizes, hardware.processors, numa=host.affinity == "numa")
    return tuple(dataclasses.replace(worker, cpus=cpus) for worker, cpus in zip(workers, placed, strict=True))


def _ranges(numbers: list[int]) -> str:
    """Write numbers as the kernel does: ``0-3,8``."""
    runs = [
        [pair[1] for pair in run] for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _share(shape: Shape) -> _Share:
    memory = shape.memory if shape.memory is not None else DEFAULT_MEMORY_PER_CORE * shape.cores
    disk = shape.disk if shape.disk is not None else DEFAULT_DISK_PER_CORE * shape.cores
    return _Share(shape.cores, memory, disk, shape.gpus)


def _left(host: Host, hardware: Hardware, shares: list[_Share], counts: list[int]) -> _Share:
    taken = list(zip(counts, shares, strict=True))
    return _Share(
        hardware.cores - host.reserve.cores - sum(count * share.cores for count, share in taken),
        hardware.memory_gb - host.reserve.memory - math.fsum(count * share.memory for count, share in taken),
        hardware.disk_gb - host.reserve.disk - math.fsum(count * share.disk for count, share in taken),
        len(hardware.gpus) - sum(count * share.gpus for count, share in taken),
    )


def _fill(host: Host, hardware: Hardware, shares: list[_Share], fixed: list[int]) -> list[int]:
    counts = list(fixed)
    for index, shape in enumerate(host.workers):
        if shape.count == "auto":
            left = _left(host, hardware, shares, counts)
            share = shares[index]
            limits = [left.cores // share.cores, math.floor((left.memory + _EPSILON) / share.memory)]
            if share.gpus:
                limits.append(left.gpus // share.gpus)
            counts[index] = max(0, min(limits))
    return counts


def _overcommitted(host: Host, hardware: Hardware, shares: list[_Share], counts: list[int]) -> Iterator[Problem]:
    taken = list(zip(counts, shares, strict=True))
    cores = sum(count * share.cores for count, share in taken)
    memory = math.fsum(count * share.memory for count, share in taken)
    if cores > hardware.cores - host.reserve.cores:
        yield _too_much(host, "cores", cores, hardware.cores, host.reserve.cores)
    if memory > hardware.memory_gb - host.reserve.memory + _EPSILON:
        yield _too_much(host, "GB of memory", memory, hardware.memory_gb, host.reserve.memory)
    gpus = sum(count * share.gpus for count, share in taken)
    if gpus > len(hardware.gpus):
        yield _too_much(host, "GPUs", gpus, len(hardware.gpus), 0)


def _disk(host: Host, hardware: Hardware, shares: list[_Share], counts: list[int]) -> Iterator[Problem]:
    asked = math.fsum(count * share.disk for count, share in zip(counts, shares, strict=True))
    if asked > hardware.disk_gb - host.reserve.disk + _EPSILON:
        unit = f"GB of disk below {host.scratch}"
        yield _too_much(host, unit, asked, hardware.disk_gb, host.reserve.disk)


def _too_much(host: Host, unit: str, asked: float, there: float, reserved: float) -> Problem:
    if reserved > there:
        return _problem(host, f"{_number(reserved)} {unit} are reserved, the host has {_number(there)}")
    less = f" less {_number(reserved)} reserved" if reserved else ""
    return _problem(host, f"workers ask for {_number(asked)} {unit}, the host has {_number(there)}{less}")


def _nothing_fits(host: Host, hardware: Hardware, shape: Shape, share: _Share, fixed: list[int]) -> Problem:
    asked = f"{shape.cores} cores and {_number(share.memory)} GB of memory"
    there = f"{hardware.cores} cores and {_number(hardware.memory_gb)} GB"
    if share.gpus:
        asked, there = f"{share.gpus} GPUs, {asked}", f"{len(hardware.gpus)} GPUs, {there}"
    reserved = f"{host.reserve.cores} cores and {_number(host.reserve.memory)} GB reserved"
    others = " and what the other shapes take" if len(fixed) > 1 else ""
    return _problem(
        host,
        f"'count: auto' gives no worker: each takes {asked}, the host has {there} less {reserved}{others}",
    )


def _numbered(host: Host, hardware: Hardware, shares: list[_Share], counts: list[int]) -> tuple[Worker, ...]:
    gpus = iter(hardware.gpus)
    kinds = [
        (share, shape) for shape, share, count in zip(host.workers, shares, counts, strict=True) for _ in range(count)
    ]
    return tuple(
        Worker(
            name=f"{host.name}-{number}",
            host=host.name,
            cores=share.cores,
            memory=share.memory,
            disk=share.disk,
            jobs=shape.jobs,
            gpus=tuple(itertools.islice(gpus, share.gpus)),
            programs=shape.programs,
        )
        for number, (share, shape) in enumerate(kinds, start=1)
    )


def _problem(host: Host, message: str) -> Problem:
    return Problem(message, path=host.name)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
