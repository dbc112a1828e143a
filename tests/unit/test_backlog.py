"""What waits, and who would take it."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest

from puffin.backlog import Tally, left_of, totals_by, unserved, untaken, whatever_size
from puffin.calculations import Status, claim_filter, lacking
from puffin.documents import Model, Request
from puffin.records import WorkerRecord
from puffin.settings import ResourceSettings

NOW = datetime(2025, 1, 1, 12)


def test_totals_are_in_the_order_of_a_calculations_life() -> None:
    tallies = [
        Tally(Status.FAILED, "a", "p", 1),
        Tally(Status.NEW, "a", "p", 2),
        Tally(Status.NEW, "b", "p", 3),
        Tally(Status.PENDING, "b", "p", 4),
    ]
    assert list(totals_by(tallies).items()) == [(Status.NEW, 5), (Status.PENDING, 4), (Status.FAILED, 1)]
    assert left_of(tallies) == 9


def worker(**changes: Any) -> WorkerRecord:
    record = WorkerRecord(
        uuid="w",
        fleet="f",
        host="h",
        worker="h-1",
        release="",
        configuration="",
        pid=1,
        cores=4,
        memory=8.0,
        disk=10.0,
        programs=("sparrow",),
        jobs=("scine_single_point",),
        state="idle",
        seen=NOW - timedelta(seconds=5),
    )
    return dataclasses.replace(record, **changes)


def wanted(**changes: Any) -> Request:
    return dataclasses.replace(Request("scine_single_point", Model(program="sparrow")), **changes)


@pytest.mark.parametrize(
    ("request_", "workers", "said"),
    [
        (wanted(), [], "no worker has reported"),
        (wanted(order="scine_hessian"), [worker()], "accepts the job scine_hessian"),
        (wanted(model=Model(program="orca")), [worker()], "has the program orca; they have sparrow"),
        (wanted(cores=8), [worker(), worker(cores=6)], "needs 8 cores: no worker has that; the most is 6 cores"),
        (wanted(memory=9.0), [worker()], "needs 9 GB memory: no worker has that; the most is 8 GB memory"),
        (wanted(disk=11.0), [worker()], "needs 11 GB disk"),
        (wanted(cores=8, memory=9.0), [worker(cores=1)], "needs 8 cores, 9 GB memory: no worker has that"),
        (
            wanted(cores=4, memory=9.0),
            [worker(), worker(cores=1, memory=64.0)],
            "no worker has all of that; the largest has 4 cores, 8 GB memory, 10 GB disk",
        ),
        (wanted(cores=8), [worker(), worker(cores=8, state="stopped")], "all workers that would take it are stopped"),
        (wanted(), [worker(state="stopped"), worker(state="quarantined")], "are stopped"),
        (wanted(), [worker(state="stopped"), worker(seen=NOW - timedelta(hours=2))], "reports any more"),
    ],
)
def test_why_nobody_would_take_it(request_: Request, workers: list[WorkerRecord], said: str) -> None:
    assert said in unserved(request_, workers, NOW)


def test_somebody_would_take_it() -> None:
    others = [worker(jobs=()), worker(programs=()), worker(cores=1)]
    assert unserved(wanted(cores=4), [*others, worker()], NOW) == ""
    assert unserved(wanted(model=Model(program="any")), [worker(programs=())], NOW) == ""


NEW_SINGLE_POINTS = Tally(Status.NEW, "scine_single_point", "sparrow", 10)
NEW_HESSIANS = Tally(Status.NEW, "scine_hessian", "sparrow", 9000)
NEW_ORCA = Tally(Status.NEW, "scine_single_point", "orca", 3)


@pytest.mark.parametrize(
    ("tallies", "workers", "reasons", "left"),
    [
        ([NEW_SINGLE_POINTS], [worker(memory=0.5)], [], 10),
        ([NEW_SINGLE_POINTS, NEW_HESSIANS], [worker()], ["no worker accepts the job scine_hessian"], 10),
        ([NEW_ORCA], [worker()], ["no worker that accepts scine_single_point has the program orca"], 0),
        ([NEW_HESSIANS, dataclasses.replace(NEW_HESSIANS, status=Status.PENDING, count=2)], [worker()], [], 9002),
        ([NEW_HESSIANS], [], [], 9000),
        ([dataclasses.replace(NEW_HESSIANS, program="")], [worker(jobs=("scine_hessian",), programs=())], [], 9000),
        ([dataclasses.replace(NEW_HESSIANS, status=Status.FAILED)], [worker()], [], 0),
    ],
)
def test_what_nobody_takes_is_named_and_does_not_count_as_left(
    tallies: list[Tally], workers: list[WorkerRecord], reasons: list[str], left: int
) -> None:
    found = untaken(tallies, workers, NOW)
    assert [each.reason.partition(";")[0] for each in found] == reasons
    assert left_of(tallies, found) == left


LARGE = dataclasses.replace(NEW_SINGLE_POINTS, count=7, cores=8, memory=2.0)
NO_CORES = "needs 8 cores: no worker has that; the most is 4 cores"


def running(like: Tally, **changes: Any) -> Tally:
    return dataclasses.replace(like, status=Status.PENDING, count=1, **changes)


@pytest.mark.parametrize(
    ("tallies", "workers", "found", "left"),
    [
        ([NEW_SINGLE_POINTS, LARGE], [worker()], [(7, NO_CORES)], 10),
        # That small ones run says nothing about the large; that another large one runs does.
        ([LARGE, running(LARGE, cores=4)], [worker()], [(7, NO_CORES)], 1),
        ([LARGE, running(LARGE, cores=16)], [worker()], [], 8),
        # Of the size of one who has not reported nobody knows.
        ([LARGE, running(LARGE, cores=4)], [worker(jobs=())], [], 8),
        ([LARGE], [worker(), worker(cores=16, programs=())], [(7, NO_CORES)], 0),
        ([LARGE], [worker(), worker(cores=16, seen=NOW - timedelta(hours=2))], [(7, "reports any more")], 0),
        # One line for each size that is too large, one for all sizes where that does not matter.
        (
            [LARGE, dataclasses.replace(LARGE, cores=6, count=2)],
            [worker()],
            [(7, NO_CORES), (2, "needs 6 cores: no worker has that")],
            0,
        ),
        ([LARGE, NEW_SINGLE_POINTS], [worker(jobs=("sleep",))], [(17, "no worker accepts the job")], 0),
    ],
)
def test_what_is_too_large_for_every_worker_is_named_and_does_not_count_as_left(
    tallies: list[Tally], workers: list[WorkerRecord], found: list[tuple[int, str]], left: int
) -> None:
    named = untaken(tallies, workers, NOW)
    assert [each.tally.count for each in named] == [count for count, _ in found]
    assert all(said in each.reason for each, (_, said) in zip(named, found, strict=True))
    assert left_of(tallies, named) == left


def test_counts_of_one_kind_are_joined_whatever_its_size() -> None:
    small = dataclasses.replace(LARGE, cores=1, memory=4.0, count=3)
    assert whatever_size([LARGE, NEW_ORCA, small]) == [dataclasses.replace(LARGE, cores=1, count=10), NEW_ORCA]


@pytest.mark.parametrize("size", [{}, {"cores": 4}, {"cores": 5}, {"memory": 8.0}, {"memory": 8.5}, {"disk": 10.5}])
def test_a_worker_lacks_something_of_what_its_claims_leave_out(size: dict[str, Any]) -> None:
    has, request = ResourceSettings(cores=4, memory=8.0, disk=10.0), wanted(**size)
    limits = {
        key.removeprefix("job."): rule["$lte"] for key, rule in claim_filter(has, [], []).items() if "$lte" in rule
    }
    assert sorted(limits) == ["cores", "disk", "memory"]
    left_out = [need for need, limit in limits.items() if getattr(request, need) > limit]
    assert sorted(lacking(has, request)) == sorted(left_out)
