"""Which processors each worker of a host gets. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

_MOST_STEPS = 5000
"""Of the search for places; a plan for a thousand hosts must not wait for the last of all combinations."""


@dataclass(frozen=True)
class Processor:
    """A logical processor.

    Parameters
    ----------
    cpu
        Its number, as the kernel counts.
    core
        The first processor on the same physical core.
    node
        Its NUMA node.
    """

    cpu: int
    core: int
    node: int


def place(sizes: Sequence[int], processors: Sequence[Processor], *, numa: bool) -> tuple[tuple[int, ...], ...]:
    """Give each worker processors of its own, one of each of its physical cores.

    What is left over are the first cores, with `numa` of the first nodes: processor 0 has most interrupts.

    Parameters
    ----------
    sizes
        Cores of each worker.
    processors
        Those of the host.
    numa
        Whether a worker shall stay on one NUMA node. Whenever all workers can be placed so, they are, found
        by a bounded search; else as many as fit when the largest are placed first. Those larger than any
        node, and those that found no room, get the fewest nodes that are then possible.

    Raises
    ------
    ValueError
        The host has fewer cores.
    """
    nodes: dict[int, list[int]] = {}
    for processor in sorted(processors, key=lambda each: (each.node, each.core)):
        if processor.core == processor.cpu:
            nodes.setdefault(processor.node if numa else 0, []).append(processor.cpu)
    room = tuple(len(cores) for cores in nodes.values())
    if sum(sizes) > sum(room):
        raise ValueError(f"{sum(sizes)} cores are asked for, there are {sum(room)}")
    found = _hand_out(_parts(tuple(sizes), room), list(nodes.values()))
    in_order = {size: iter(sorted(cpus for cpus in found if len(cpus) == size)) for size in set(sizes)}
    return tuple(next(in_order[size]) for size in sizes)


_Parts = dict[int, int]
"""By the position of a node, how many of its cores a worker gets."""


def _hand_out(parts: Sequence[_Parts], nodes: Sequence[list[int]]) -> tuple[tuple[int, ...], ...]:
    used = [sum(part.get(node, 0) for part in parts) for node in range(len(nodes))]
    rest = [iter(cores[len(cores) - taken :]) for cores, taken in zip(nodes, used, strict=True)]
    return tuple(
        tuple(sorted(next(rest[node]) for node, number in part.items() for _ in range(number))) for part in parts
    )


@lru_cache(maxsize=256)  # hosts of a fleet are mostly alike
def _parts(sizes: tuple[int, ...], room: tuple[int, ...]) -> tuple[_Parts, ...]:
    left = list(room)
    parts: dict[int, _Parts] = {}
    order = sorted(range(len(sizes)), key=lambda worker: (-sizes[worker], worker))
    wide = [worker for worker in order if sizes[worker] > max(room, default=0)]
    narrow = order[len(wide) :]
    for worker in wide:
        parts[worker] = _spread(sizes[worker], left)
    chosen = _whole([sizes[worker] for worker in narrow], left)
    if chosen is None:
        chosen = _largest_first([sizes[worker] for worker in narrow], left)
    for worker, node in zip(narrow, chosen, strict=True):
        if node is not None:
            left[node] -= sizes[worker]
            parts[worker] = {node: sizes[worker]}
    for worker in narrow:
        if worker not in parts:
            parts[worker] = _spread(sizes[worker], left)
    return tuple(parts[worker] for worker in range(len(sizes)))


def _fitting(size: int, left: Sequence[int]) -> Iterator[int]:
    """Nodes with room, the fullest first; of several with the same room only the last: the others are no different."""
    by_room = {free: node for node, free in enumerate(left) if free >= size}
    return iter([by_room[room] for room in sorted(by_room)])


def _whole(sizes: Sequence[int], room: Sequence[int]) -> list[int | None] | None:
    """A node for each worker, the largest first; None where there is no such assignment, or none was found."""
    if not sizes or sum(free // sizes[-1] for free in room) < len(sizes):
        return None
    left = list(room)
    chosen: list[int | None] = []
    options = [_fitting(sizes[0], left)]
    for _ in range(_MOST_STEPS):
        node = next(options[-1], None)
        if node is not None:
            left[node] -= sizes[len(chosen)]
            chosen.append(node)
            if len(chosen) == len(sizes):
                return chosen
            options.append(_fitting(sizes[len(chosen)], left))
            continue
        options.pop()
        if not options:
            return None
        back = chosen.pop()
        if back is not None:
            left[back] += sizes[len(chosen)]
    return None


def _largest_first(sizes: Sequence[int], room: Sequence[int]) -> list[int | None]:
    left = list(room)
    chosen = []
    for size in sizes:
        node = next(_fitting(size, left), None)
        if node is not None:
            left[node] -= size
        chosen.append(node)
    return chosen


def _spread(size: int, left: list[int]) -> _Parts:
    """Take cores from the fewest nodes, and take them out of what is left."""
    part: _Parts = {}
    while size:
        node = next(_fitting(size, left), left.index(max(left)))
        part[node] = min(size, left[node])
        size -= part[node]
        left[node] -= part[node]
    return part
