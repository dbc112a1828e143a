from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import InventoryError
from fleet.hosts.inventory import Host
from fleet.hosts.layout import Hardware, lay_out
from fleet.reach.affinity import Processor


def host(workers: Any, **more: Any) -> Host:
    return Host.model_validate({"name": "node1", "address": "node1", "scratch": "/s", "workers": workers, **more})


def shape(cores: int, memory: float | None = None, count: int | str = 1, **more: Any) -> dict[str, Any]:
    return {"cores": cores, "memory": memory, "count": count, **more}


NO_RESERVE = {"cores": 0, "memory": 0, "disk": 0}


@pytest.mark.parametrize(
    ("workers", "reserve", "hardware", "expected"),
    [
        pytest.param([shape(4, 8, 2)], NO_RESERVE, (16, 64, 100), [(4, 8)] * 2, id="fixed"),
        pytest.param([shape(4, 8, "auto")], NO_RESERVE, (16, 64, 1000), [(4, 8)] * 4, id="cores are scarce"),
        pytest.param([shape(4, 8, "auto")], NO_RESERVE, (16, 20, 1000), [(4, 8)] * 2, id="memory is scarce"),
        pytest.param([shape(4, 8, "auto")], {"cores": 1, "memory": 2}, (16, 64, 1000), [(4, 8)] * 3, id="reserve"),
        pytest.param(
            [shape(2, 4, "auto"), shape(8, 16, 1)],
            NO_RESERVE,
            (16, 64, 1000),
            [(2, 4)] * 4 + [(8, 16)],
            id="fixed first",
        ),
        pytest.param(
            [shape(4, 4, "auto"), shape(1, 1, "auto")],
            NO_RESERVE,
            (10, 64, 1000),
            [(4, 4)] * 2 + [(1, 1)] * 2,
            id="two autos",
        ),
        pytest.param([shape(3, count="auto")], NO_RESERVE, (8, 64, 1000), [(3, 6)] * 2, id="2 GB for each core"),
        pytest.param([shape(1, 0.1, "auto")], NO_RESERVE, (8, 0.3, 1000), [(1, 0.1)] * 3, id="decimal fractions"),
        pytest.param([shape(1, 1)], {}, (1, 2, 1000), [(1, 1)], id="1 GB is reserved by default"),
    ],
)
def test_layouts(workers: Any, reserve: Any, hardware: Any, expected: list[tuple[int, float]]) -> None:
    found = lay_out(host(workers, reserve=reserve), Hardware(*hardware))
    assert [(worker.cores, worker.memory) for worker in found] == expected
    assert [worker.name for worker in found] == [f"node1-{n}" for n in range(1, len(expected) + 1)]


def test_disk_and_jobs_go_to_the_worker() -> None:
    first, second = lay_out(
        host([shape(1, 1, disk=7, jobs=["sleep"]), shape(2, 1)], reserve=NO_RESERVE), Hardware(4, 8, 50)
    )
    assert (first.disk, first.jobs, first.host) == (7, ("sleep",), "node1")
    assert (second.disk, second.jobs) == (10, ())


@pytest.mark.parametrize(
    ("workers", "reserve", "hardware", "expected"),
    [
        (
            [shape(9, 1, 2)],
            {"cores": 1},
            (16, 64, 1000),
            ["node1: workers ask for 18 cores, the host has 16 less 1 reserved"],
        ),
        (
            [shape(4, 8, 8, disk=20)],
            {"cores": 0, "memory": 2.5},
            (16, 62.7, 100),
            [
                "node1: workers ask for 32 cores, the host has 16",
                "node1: workers ask for 64 GB of memory, the host has 62.7 less 2.5 reserved",
                "node1: workers ask for 160 GB of disk below /s, the host has 100",
            ],
        ),
        (
            [shape(4, 8, "auto", disk=50)],
            NO_RESERVE,
            (16, 64, 150),
            ["node1: workers ask for 200 GB of disk below /s, the host has 150"],
        ),
        ([shape(1, 1, "auto")], {"cores": 8}, (2, 64, 1000), ["node1: 8 cores are reserved, the host has 2"]),
        (
            [shape(16, 8, "auto")],
            {"cores": 1, "memory": 0},
            (16, 64, 1000),
            [
                "node1: 'count: auto' gives no worker: each takes 16 cores and 8 GB of memory,"
                " the host has 16 cores and 64 GB less 1 cores and 0 GB reserved"
            ],
        ),
        (
            [shape(2, 64, "auto"), shape(3, 1, "auto"), shape(2, 1)],
            NO_RESERVE,
            (4, 8, 1000),
            [
                "node1: 'count: auto' gives no worker: each takes 2 cores and 64 GB of memory,"
                " the host has 4 cores and 8 GB less 0 cores and 0 GB reserved and what the other shapes take",
                "node1: 'count: auto' gives no worker: each takes 3 cores and 1 GB of memory,"
                " the host has 4 cores and 8 GB less 0 cores and 0 GB reserved and what the other shapes take",
            ],
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_sums(
    workers: Any, reserve: Any, hardware: Any, expected: list[str]
) -> None:
    with pytest.raises(InventoryError) as caught:
        lay_out(host(workers, reserve=reserve), Hardware(*hardware))
    assert [str(problem) for problem in caught.value.problems] == expected


def test_a_runaway_count_is_refused() -> None:
    with pytest.raises(InventoryError, match="gives 2000 workers, more than 1024"):
        lay_out(host([shape(1, 0.01, "auto", disk=0.001)], reserve=NO_RESERVE), Hardware(2000, 100, 100))


TWO_NODES = tuple(Processor(cpu, cpu % 8, cpu % 8 // 4) for cpu in range(16))
"""Eight cores of two threads on two nodes."""

BOUND = Hardware(8, 64, 1000, TWO_NODES, ("0", "1", "2"))


@pytest.mark.parametrize(
    ("workers", "more", "expected"),
    [
        ([shape(3, 1, 2)], {}, [(), ()]),
        ([shape(3, 1, 2)], {"affinity": "cores"}, [(2, 3, 4), (5, 6, 7)]),
        ([shape(3, 1, 2)], {"affinity": "numa"}, [(1, 2, 3), (5, 6, 7)]),
        ([shape(2, 1, "auto")], {"affinity": "numa", "reserve": {"cores": 1}}, [(2, 3), (4, 5), (6, 7)]),
        ([shape(2, 1, "auto")], {"affinity": "numa", "cpus": "0-1,6-15"}, [(0, 1), (6, 7), (10, 11), (4 + 8, 5 + 8)]),
        ([shape(1, 1, "auto")], {"cpus": [1, 9, 3]}, [(1, 3, 9), (1, 3, 9)]),
    ],
)
def test_processors(workers: Any, more: Any, expected: list[tuple[int, ...]]) -> None:
    found = lay_out(host(workers, **{"reserve": NO_RESERVE, **more}), BOUND)
    assert sorted(worker.cpus for worker in found) == sorted(expected)


@pytest.mark.parametrize(
    ("workers", "more", "expected"),
    [
        ([shape(1, 1, 2), shape(1, 1, 2, gpus=1)], {}, [(), (), ("0",), ("1",)]),
        ([shape(1, 1, "auto", gpus=1), shape(1, 1, "auto")], {}, [("0",), ("1",), ("2",)] + [()] * 5),
        ([shape(1, 1, "auto", gpus=2)], {}, [("0", "1")]),
        ([shape(1, 1, 2, gpus=1)], {"gpus": [2, "GPU-5d5b"]}, [("2",), ("GPU-5d5b",)]),
    ],
)
def test_gpus(workers: Any, more: Any, expected: list[tuple[str, ...]]) -> None:
    assert [worker.gpus for worker in lay_out(host(workers, reserve=NO_RESERVE, **more), BOUND)] == expected


def test_a_host_that_tells_of_no_gpus_is_taken_at_the_word_of_hosts_yaml() -> None:
    (found,) = lay_out(host([shape(1, 1, gpus=1)], gpus=[4]), Hardware(4, 64, 1000))
    assert found.gpus == ("4",)


@pytest.mark.parametrize(
    ("workers", "more", "hardware", "expected"),
    [
        ([shape(1, 1, 4, gpus=1)], {}, BOUND, ["node1: workers ask for 4 GPUs, the host has 3"]),
        ([shape(1, 1, 1, gpus=2)], {"gpus": [0]}, BOUND, ["node1: workers ask for 2 GPUs, the host has 1"]),
        ([shape(1, 1, 1, gpus=1)], {"gpus": [0, 7, 9]}, BOUND, ["node1: 'gpus' names 7, 9, the host has 0, 1, 2"]),
        ([shape(1, 1, 1, gpus=1)], {}, Hardware(4, 64, 1000), ["node1: workers ask for 1 GPUs, the host has 0"]),
        (
            [shape(1, 1, "auto", gpus=4)],
            {},
            BOUND,
            [
                "node1: 'count: auto' gives no worker: each takes 4 GPUs, 1 cores and 1 GB of memory,"
                " the host has 3 GPUs, 8 cores and 64 GB less 0 cores and 1 GB reserved"
            ],
        ),
        (
            [shape(1, 1)],
            {"cpus": "6-20"},
            BOUND,
            ["node1: 'cpus' names 16-20, the host lets this user have 0-15"],
        ),
        (
            [shape(1, 1)],
            {"affinity": "cores"},
            Hardware(4, 64, 1000),
            ["node1: cannot bind workers to processors: the host does not tell which it has"],
        ),
        ([shape(2, 1, 2)], {"cpus": "0-2"}, BOUND, ["node1: workers ask for 4 cores, the host has 3"]),
    ],
)
def test_processors_and_gpus_that_are_not_there(
    workers: Any, more: Any, hardware: Hardware, expected: list[str]
) -> None:
    with pytest.raises(InventoryError) as caught:
        lay_out(host(workers, **more), hardware)
    assert [str(problem) for problem in caught.value.problems] == expected


def test_programs_go_to_the_worker() -> None:
    first, second = lay_out(host([shape(1, 1, programs={"orca": {"root": "/o"}}), shape(1, 1)]), BOUND)
    assert (first.programs, second.programs) == ({"orca": {"root": "/o"}}, {})


sizes = st.floats(0.1, 64, allow_nan=False)
shapes = st.lists(
    st.builds(
        lambda cores, memory, disk, count: shape(cores, memory, count, disk=disk),
        st.integers(1, 16),
        st.none() | sizes,
        st.none() | sizes,
        st.just("auto") | st.integers(1, 4),
    ),
    min_size=1,
    max_size=4,
)
reserves = st.builds(lambda cores, memory: {"cores": cores, "memory": memory}, st.integers(0, 4), st.floats(0, 16))
hardwares = st.builds(Hardware, st.integers(1, 128), st.floats(0.5, 512), st.floats(1, 4000))


@given(shapes, reserves, hardwares)
def test_sums_never_exceed_the_host_less_its_reserve(workers: Any, reserve: Any, hardware: Hardware) -> None:
    there = host(workers, reserve=reserve)
    try:
        found = lay_out(there, hardware)
    except InventoryError:
        return  # refusing is always safe; that it is not refused too often is the next test's business
    assert sum(worker.cores for worker in found) <= hardware.cores - there.reserve.cores
    assert math.fsum(worker.memory for worker in found) <= hardware.memory_gb - there.reserve.memory + 1e-6
    assert math.fsum(worker.disk for worker in found) <= hardware.disk_gb + 1e-6
    assert len({worker.name for worker in found}) == len(found)
    for position in there.workers:
        assert any(worker.cores == position.cores for worker in found)
    assert len(found) >= sum(1 if item.count == "auto" else item.count for item in there.workers)


@st.composite
def whole_hosts(draw: st.DrawFn) -> tuple[Host, Hardware]:
    nodes = draw(st.lists(st.integers(1, 32), min_size=1, max_size=4))
    homes = [node for node, cores in enumerate(nodes) for _ in range(cores)]
    processors = tuple(
        Processor(core + thread * len(homes), core, node)
        for thread in range(draw(st.integers(1, 2)))
        for core, node in enumerate(homes)
    )
    quota = draw(st.integers(1, len(homes)))
    gpus = tuple(map(str, range(draw(st.integers(0, 8)))))
    kinds = draw(
        st.lists(
            st.builds(
                lambda cores, count, gpus: shape(cores, 0.1, count, disk=0.1, gpus=gpus),
                st.integers(1, 12),
                st.just("auto") | st.integers(1, 4),
                st.integers(0, 2),
            ),
            min_size=1,
            max_size=3,
        )
    )
    there = host(
        kinds, affinity=draw(st.sampled_from(["none", "cores", "numa"])), reserve={"cores": draw(st.integers(0, 4))}
    )
    return there, Hardware(quota, 512, 4000, processors, gpus)


@given(whole_hosts())
def test_no_two_workers_share_a_core_or_a_gpu(given: tuple[Host, Hardware]) -> None:
    there, hardware = given
    try:
        found = lay_out(there, hardware)
    except InventoryError:
        return
    gpus = [gpu for worker in found for gpu in worker.gpus]
    assert len(set(gpus)) == len(gpus) <= len(hardware.gpus)
    asked = {(item.cores, item.gpus) for item in there.workers}
    assert {(worker.cores, len(worker.gpus)) for worker in found} <= asked
    if there.affinity == "none":
        assert all(worker.cpus == () for worker in found)
        return
    core_of = {processor.cpu: processor.core for processor in hardware.processors}
    cores = [core_of[cpu] for worker in found for cpu in worker.cpus]
    assert len(set(cores)) == len(cores) <= hardware.cores - there.reserve.cores
    assert all(len(worker.cpus) == worker.cores for worker in found)


@given(st.integers(1, 16), sizes, hardwares)
def test_auto_leaves_no_room_for_one_more(cores: int, memory: float, hardware: Hardware) -> None:
    there = host([shape(cores, memory, "auto", disk=0.001)], reserve=NO_RESERVE)
    try:
        count = len(lay_out(there, hardware))
    except InventoryError:
        count = 0
    one_more = count + 1
    assert one_more * cores > hardware.cores or one_more * memory > hardware.memory_gb - 1e-6
