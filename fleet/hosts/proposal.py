"""What `init` proposes for hosts it has looked at. Pure: what was found in, a few lines of hosts.yaml out.

A proposal is a place to start from, so it is one that surely fits: `count: auto` fills a host, and memory is
divided among as many workers as it has cores for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.hosts.layout import DEFAULT_DISK_PER_CORE
from fleet.reach.facts import Facts, Roomy
from fleet.words import amount, plain

_ROOMY_GB = 20.0
"""Free space below which a disk is no place for calculations."""

_SWEPT = ("/tmp", "/var/tmp")  # noqa: S108 - looked for among what was found
"""Where files that are not touched for days are removed: a last resort."""


@dataclass(frozen=True)
class Proposal:
    """How a host could be cut into workers; memory and disk in GB.

    Parameters
    ----------
    cores, memory
        Of each worker.
    disk
        Of each worker; None where the usual is there.
    reserve_cores, reserve_memory
        For the system.
    scratch
        Where calculations should run; None for the default, below base_dir.
    affinity
        Whether each worker should keep to one NUMA node.
    """

    cores: int
    memory: float
    disk: float | None
    reserve_cores: int
    reserve_memory: float
    scratch: str | None
    affinity: bool


@dataclass(frozen=True)
class HostGroup:
    """Hosts for which the same is proposed.

    Parameters
    ----------
    name
        Of the group in hosts.yaml; None for the first, whose proposal goes into `defaults`.
    hosts
        Keys of `hosts` in hosts.yaml.
    found
        A line for each, on what was found.
    """

    name: str | None
    proposal: Proposal
    hosts: tuple[str, ...]
    found: tuple[str, ...]


def propose(facts: Facts) -> Proposal:
    """Propose how to cut a host into workers.

    Parameters
    ----------
    facts
        What a probe found that was asked to look around.
    """
    hardware = facts.hardware
    cores = 4 if hardware.cores >= 16 else 2 if hardware.cores >= 8 else 1
    reserve_cores = 1 if hardware.cores >= 32 else 0
    reserve_memory = _reserved(hardware.memory)
    count = max(1, (hardware.cores - reserve_cores) // cores)
    place = _scratch(facts)
    free = place.free if place else hardware.disk.free
    usual = DEFAULT_DISK_PER_CORE * cores
    whole = hardware.quota is None and hardware.cores == hardware.physical
    return Proposal(
        cores=cores,
        memory=_rounded((hardware.memory - reserve_memory) / count),
        disk=None if free >= count * usual else _rounded(0.9 * free / count),
        reserve_cores=reserve_cores,
        reserve_memory=reserve_memory,
        scratch=f"{place.path.rstrip('/')}/puffin" if place else None,
        # Under a quota the kernel chooses among all processors; to insist on some would only slow things down.
        affinity=whole and cores > 1 and len({processor.node for processor in hardware.processors}) > 1,
    )


def describe(name: str, facts: Facts) -> str:
    """Say in a line what was found on a host.

    Parameters
    ----------
    name
        The host, as hosts.yaml calls it.
    facts
        What a probe found.
    """
    hardware = facts.hardware
    nodes = len({processor.node for processor in hardware.processors})
    where = f" on {nodes} NUMA nodes" if nodes > 1 else ""
    limit = f" (limited to {hardware.quota:g} of {hardware.physical or hardware.logical})" if hardware.quota else ""
    place = _scratch(facts)
    path, free = (place.path, place.free) if place else (facts.base_dir, hardware.disk.free)
    parts = [
        f"{hardware.cores} core{'s' if hardware.cores > 1 else ''}{where}{limit}",
        amount(hardware.memory * 1e9),
        f"{amount(free * 1e9)} free in {path}",
    ]
    if hardware.gpus:
        counted = {gpu.name: sum(other.name == gpu.name for other in hardware.gpus) for gpu in hardware.gpus}
        parts.append("GPUs: " + ", ".join(f"{number} {kind}" for kind, number in counted.items()))
    # Names and paths come from the host, and this becomes a comment in a file.
    return plain(f"{name}: {', '.join(parts)}")


def group(found: Mapping[str, Facts], names: Mapping[str, str]) -> tuple[HostGroup, ...]:
    """Put hosts together for which the same is proposed, the most hosts first.

    Parameters
    ----------
    found
        What was found, by key of `hosts`.
    names
        By the same key, the host that was looked at: the first of a range.
    """
    proposals = {key: propose(facts) for key, facts in found.items()}
    by_proposal: dict[Proposal, list[str]] = {}
    for key, proposal in proposals.items():
        by_proposal.setdefault(proposal, []).append(key)
    ordered = sorted(by_proposal.items(), key=lambda entry: -len(entry[1]))
    titles = _titles([found[keys[0]] for _, keys in ordered])
    return tuple(
        HostGroup(
            name=title if index else None,
            proposal=proposal,
            hosts=tuple(keys),
            found=tuple(describe(names[key], found[key]) for key in keys),
        )
        for index, ((proposal, keys), title) in enumerate(zip(ordered, titles, strict=True))
    )


def _titles(found: Sequence[Facts]) -> list[str]:
    """A name for each kind of host, by its cores; numbered where that is not enough."""
    titles: list[str] = []
    for facts in found:
        title = f"cores{facts.hardware.cores}"
        number = sum(other.split("-")[0] == title for other in titles)
        titles.append(f"{title}-{number + 1}" if number else title)
    return titles


def _reserved(memory: float) -> float:
    if memory < 4:
        return _rounded(memory / 4)
    return 1.0 if memory < 16 else 2.0 if memory < 64 else 4.0


def _rounded(value: float) -> float:
    """A figure people can read, and the same for hosts that differ by a few megabytes; never more than it was."""
    return float(math.floor(value)) if value >= 2 else max(0.1, math.floor(value * 10) / 10)


def _scratch(facts: Facts) -> Roomy | None:
    """The roomiest disk, if it is better than what the default would use."""
    fit = [place for place in facts.roomy if place.free >= _ROOMY_GB]
    named = [place for place in fit if not place.path.startswith(_SWEPT)]
    if named:
        best = max(named, key=lambda place: place.free)
        return best if facts.shared or best.free > 1.1 * facts.hardware.disk.free else None
    # The home directory is on a network, where calculations would be slow and in everybody's way.
    return max(fit, key=lambda place: place.free) if fit and facts.shared else None
