from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import InventoryError
from fleet.inventory import Host
from fleet.layout import Hardware, lay_out


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


@given(st.integers(1, 16), sizes, hardwares)
def test_auto_leaves_no_room_for_one_more(cores: int, memory: float, hardware: Hardware) -> None:
    there = host([shape(cores, memory, "auto", disk=0.001)], reserve=NO_RESERVE)
    try:
        count = len(lay_out(there, hardware))
    except InventoryError:
        count = 0
    one_more = count + 1
    assert one_more * cores > hardware.cores or one_more * memory > hardware.memory_gb - 1e-6
