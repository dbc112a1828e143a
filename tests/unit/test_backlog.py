"""What waits, and who would take it."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest

from puffin.backlog import Tally, left_of, totals_by, unserved, untaken
from puffin.calculations import Status
from puffin.documents import Model, Request
from puffin.records import WorkerRecord

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
        (wanted(cores=8), [worker(), worker(cores=6)], "the largest has 6 cores"),
        (wanted(memory=9.0), [worker()], "large enough"),
        (wanted(disk=11.0), [worker()], "large enough"),
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
