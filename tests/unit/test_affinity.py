"""Which processors a worker gets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.reach.affinity import Processor, place


def machine(*nodes: int, threads: int = 1) -> list[Processor]:
    """Nodes with so many cores each; second threads are numbered after all first."""
    homes = [node for node, cores in enumerate(nodes) for _ in range(cores)]
    return [
        Processor(core + thread * len(homes), core, node)
        for thread in range(threads)
        for core, node in enumerate(homes)
    ]


@pytest.mark.parametrize(
    ("nodes", "sizes", "numa", "expected"),
    [
        pytest.param((4,), (2, 2), False, ["01", "23"], id="in order"),
        pytest.param((4,), (1, 2), False, ["1", "23"], id="the first core is left to the system"),
        pytest.param((4, 4), (3, 3), False, ["234", "567"], id="cores does not look at nodes"),
        pytest.param((4, 4), (3, 3), True, ["123", "567"], id="numa does"),
        pytest.param((4, 4), (2, 4, 2), True, ["01", "4567", "23"], id="the largest first"),
        pytest.param((4, 4), (6,), True, ["012367"], id="larger than a node"),
        pytest.param((2, 2, 6), (5, 4), True, ["56789", "0123"], id="no room in one node"),
        pytest.param((4, 4), (5, 3), True, ["01234", "567"], id="the fewest nodes for a large one"),
        pytest.param((6, 6), (4, 3, 3, 2), True, ["6789", "012", "345", "AB"], id="full to the last core"),
        pytest.param((2,), (), True, [], id="none"),
    ],
)
def test_places(nodes: Sequence[int], sizes: Sequence[int], numa: bool, expected: list[str]) -> None:
    found = place(sizes, machine(*nodes), numa=numa)
    assert ["".join(f"{cpu:X}" for cpu in cpus) for cpus in found] == expected


def test_the_search_goes_back_where_the_nearest_fit_leads_nowhere() -> None:
    # Best fit would put 4 into the node of 5, and then 3 and 2 would not both fit elsewhere whole.
    found = place((4, 3, 2), machine(5, 4), numa=True)
    assert [set(cpus) for cpus in found] == [{5, 6, 7, 8}, {0, 1, 2}, {3, 4}]


def test_only_one_processor_of_a_core_is_given() -> None:
    assert place((2, 2), machine(2, 2, threads=2), numa=True) == ((0, 1), (2, 3))


def test_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="5 cores are asked for, there are 4"):
        place((3, 2), machine(4, threads=2), numa=False)


machines = st.builds(
    lambda nodes, threads: machine(*nodes, threads=threads),
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(1, 2),
)


@given(machines, st.lists(st.integers(1, 24), max_size=40), st.booleans())
def test_no_two_workers_share_a_core_and_each_gets_its_number(
    processors: list[Processor], sizes: list[int], numa: bool
) -> None:
    there = len({processor.core for processor in processors})
    asked = list(sizes)
    while sum(asked) > there:
        asked.pop()
    found = place(asked, processors, numa=numa)
    assert [len(cpus) for cpus in found] == asked
    core_of = {processor.cpu: processor.core for processor in processors}
    used = [core_of[cpu] for cpus in found for cpu in cpus]
    assert len(set(used)) == len(used)


def nodes_of(found: Sequence[Sequence[int]], processors: Sequence[Processor]) -> list[set[int]]:
    node_of = {processor.cpu: processor.node for processor in processors}
    return [{node_of[cpu] for cpu in cpus} for cpus in found]


def could_all_be_whole(sizes: Sequence[int], room: Sequence[int]) -> bool:
    return any(
        all(
            sum(size for size, node in zip(sizes, chosen, strict=True) if node == here) <= free
            for here, free in enumerate(room)
        )
        for chosen in itertools.product(range(len(room)), repeat=len(sizes))
    )


@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_no_worker_is_split_if_all_can_be_whole(room: list[int], sizes: list[int]) -> None:
    """For up to six workers on three nodes, by comparison with all assignments there are."""
    if sum(sizes) > sum(room):
        return
    processors = machine(*room)
    split = [nodes for nodes in nodes_of(place(sizes, processors, numa=True), processors) if len(nodes) > 1]
    assert (not split) == could_all_be_whole(sizes, room)


@given(
    st.lists(st.integers(1, 128), min_size=1, max_size=8),
    st.lists(st.sampled_from([1, 2, 4, 8, 16, 32]), min_size=1, max_size=128),
)
def test_powers_of_two_are_never_split_where_there_is_room(room: list[int], sizes: list[int]) -> None:
    """At any size: if each size, the largest first, finds as many places as there are workers, none is split."""
    slots = list(room)
    for size in sorted(sizes, reverse=True):
        node = max(range(len(slots)), key=lambda index: slots[index])
        if slots[node] < size:
            return
        slots[node] -= size
    processors = machine(*room)
    assert all(len(nodes) == 1 for nodes in nodes_of(place(sizes, processors, numa=True), processors))


@given(st.lists(st.integers(1, 16), min_size=2, max_size=6), st.integers(1, 64))
def test_one_worker_alone_spans_the_fewest_nodes(room: list[int], size: int) -> None:
    if size > sum(room):
        return
    processors = machine(*room)
    (nodes,) = nodes_of(place([size], processors, numa=True), processors)
    fewest = next(n for n in range(1, len(room) + 1) if sum(sorted(room)[-n:]) >= size)
    assert len(nodes) == fewest
