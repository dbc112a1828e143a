"""What is asked of calculations and done to them."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from puffin.calculations import Claimant, Status, claim_update
from puffin.documents import Model, Request
from puffin.outcomes import CalculationOutcome, PropertyInfo, formula, to_property
from puffin.queueing import (
    RULES,
    Change,
    EndedCalculation,
    Entry,
    Selection,
    Sort,
    Tally,
    any_of,
    as_listed,
    cancellation,
    change_update,
    is_any_of,
    left_of,
    pace,
    refusal,
    selection_filter,
    sort_fields,
    to_entry,
    totals_by,
    unserved,
    untaken,
)
from puffin.store import WorkerRecord

NOW = datetime(2025, 1, 1, 12)


def entry(status: Status = Status.NEW, **changes: Any) -> Entry:
    document = {"_id": "1" * 24, "status": status.value, "job": {"order": "sleep"}, "executor": "w"}
    ours = {"attempt": 2, "executor": "w", "worker": "node-1", "renewed": NOW}
    return dataclasses.replace(to_entry("db", {**document, "puffin": ours}), **changes)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), {}),
        (Selection(statuses=(Status.NEW,)), {"status": {"$in": ["new"]}}),
        (Selection(timed=True), {"runtime": {"$type": "double"}}),
        (Selection(orders=("a", "b")), {"job.order": {"$in": ["a", "b"]}}),
        (Selection(orders=("scine_*",)), {"job.order": {"$regex": "^scine_.*$"}}),
        (Selection(programs=("a.b?",)), {"model.program": {"$regex": r"^a\.b.$"}}),
        (Selection(programs=("[a-c][!x]",)), {"model.program": {"$regex": r"^[a-c][^x]$"}}),
        (
            Selection(workers=("n-1",)),
            {"$or": [{"puffin.worker": {"$in": ["n-1"]}}, {"executor": {"$in": ["n-1"]}}]},
        ),
        (
            Selection(statuses=(Status.NEW, Status.HOLD), since=NOW),
            {"$and": [{"status": {"$in": ["new", "hold"]}}, {"_lastmodified": {"$gte": NOW}}]},
        ),
    ],
)
def test_the_filter_of_a_selection(selection: Selection, expected: dict[str, Any]) -> None:
    assert selection_filter(selection) == expected


def test_the_newest_come_first_and_the_order_is_whole() -> None:
    assert sort_fields(Sort.CHANGED, reverse=False) == (("_lastmodified", -1), ("_id", -1))
    assert sort_fields(Sort.PRIORITY, reverse=True) == (("priority", -1), ("_id", 1))


ALLOWED = {
    Change.REQUEUE: {Status.FAILED, Status.COMPLETE, Status.ANALYZED, Status.HOLD},
    Change.HOLD: {Status.NEW, Status.CONSTRUCTION, Status.PENDING},
    Change.RELEASE: {Status.HOLD},
    Change.CANCEL: {Status.NEW, Status.CONSTRUCTION, Status.PENDING, Status.HOLD},
}


@pytest.mark.parametrize("change", Change)
@pytest.mark.parametrize("status", Status)
def test_from_which_states_a_change_is_made(change: Change, status: Status) -> None:
    assert (refusal(change, entry(status)) == "") == (status in ALLOWED[change])


def test_what_is_usual_is_possible() -> None:
    assert all(set(rules.usual) <= set(rules.possible) for rules in RULES.values())


@pytest.mark.parametrize("change", [Change.HOLD, Change.CANCEL])
def test_what_a_scine_puffin_runs_is_left_alone(change: Change) -> None:
    document = {"_id": "1" * 24, "status": "pending", "executor": "scine", "puffin": {"executor": "ours"}}
    assert "scine" in refusal(change, to_entry("db", document))


def test_a_running_calculation_is_changed_only_in_the_attempt_that_was_seen() -> None:
    assert as_listed(entry(Status.PENDING), 7) == {
        "_id": 7,
        "status": "pending",
        "executor": "w",
        "puffin.attempt": 2,
    }
    assert as_listed(entry(Status.NEW), 7) == {"_id": 7, "status": "new"}


@pytest.mark.parametrize("change", Change)
def test_no_change_touches_key_or_attempt(change: Change) -> None:
    update = change_update(change, "why")
    touched = [field for fields in update.values() for field in fields]
    assert not {"puffin", "puffin.key", "puffin.attempt"} & set(touched)
    assert update["$set"]["executor"] == ""


def test_the_worker_leaves_the_key_alone() -> None:
    update = claim_update(Claimant("w", 60.0, "host", "worker", "fleet"))
    touched = {field for fields in update.values() for field in fields}
    assert not {"puffin", "puffin.key"} & touched


def test_requeue_forgets_the_results_and_the_losses() -> None:
    update = change_update(Change.REQUEUE)
    assert update["$set"]["results"] == {"properties": [], "structures": [], "elementary_steps": []}
    assert update["$set"]["runtime"] == ""
    assert {"puffin.lost_on", "puffin.renewed"} <= set(update["$unset"])


@pytest.mark.parametrize(
    ("comment", "executor", "cancelled"),
    [
        (cancellation("chem@desk"), "", True),
        (cancellation("chem@desk.example", "wrong basis set:\nsee mail"), "", True),
        (cancellation("chem@desk"), "w", False),
        ("cancelled by the program", "", False),
        ("cancelled by chem@desk as planned", "", False),
        ("not converged\ncancelled by chem@desk", "", False),
        ("", "", False),
    ],
)
def test_what_was_cancelled_is_told_from_what_failed(comment: str, executor: str, cancelled: bool) -> None:
    seen = entry(Status.FAILED, comment=comment, executor=executor)
    asked = selection_filter(Selection(cancelled=True))
    by_database = re.search(asked["comment"]["$regex"], comment) is not None and executor == asked["executor"]
    assert (seen.cancelled, by_database) == (cancelled, cancelled)
    assert not dataclasses.replace(seen, status=Status.NEW).cancelled


def test_cancel_says_why() -> None:
    update = change_update(Change.CANCEL, "cancelled by me")
    assert (update["$set"]["status"], update["$set"]["comment"]) == ("failed", "cancelled by me")


def ends(count: int, every_s: float, last_s: float = 0.0, runtime_s: float = 1.0) -> list[EndedCalculation]:
    """So many, one after the other, of which the last was so long ago."""
    return [EndedCalculation(NOW - timedelta(seconds=last_s + every_s * number), runtime_s) for number in range(count)]


@pytest.mark.parametrize(
    ("ended", "left", "per_hour", "left_s"),
    [
        ([], 5, None, None),
        ([], 0, None, 0.0),
        (ends(1, 1), 5, None, None),
        pytest.param(ends(3600, 1), 30, 3600, 30, id="steadily"),
        pytest.param(ends(10, 1), 0, 3600, 0, id="none left"),
        pytest.param([*ends(14, 0.5, runtime_s=0.5), *ends(2, 1, last_s=2400)], 162, 6400, 91, id="after a pause"),
        pytest.param(ends(30, 1, last_s=1800), 162, 3600, 162, id="in a pause"),
        pytest.param([*ends(40, 1), *ends(40, 10, last_s=1200)], 162, 3600, 162, id="quicker than before"),
        pytest.param(ends(8, 450, runtime_s=1800), 8, 8, 3600, id="four at a time, each half an hour"),
        pytest.param(ends(12, 300, runtime_s=0.1), 12, 36000, 1.2, id="one now and then, as they were submitted"),
        pytest.param(ends(30, 10, runtime_s=0.01), 36, 372, 348, id="workers that look every ten seconds"),
    ],
)
def test_pace(ended: list[EndedCalculation], left: int, per_hour: float | None, left_s: float | None) -> None:
    found = pace(len(ended), ended, left, NOW)
    expected = [value if value is None else pytest.approx(value, rel=0.02) for value in (per_hour, left_s)]
    assert [found.finished, found.per_hour, found.left_s] == [len(ended), *expected]


def test_the_pace_of_many_is_told_from_the_newest_in_any_order() -> None:
    both = [*ends(2000, 0.1), *ends(2000, 0.1)]
    assert pace(4000, both[:1000] + both[2000:3000], 20, NOW).left_s == pytest.approx(1.0, rel=0.02)


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
    ],
)
def test_why_nobody_would_take_it(request_: Request, workers: list[WorkerRecord], said: str) -> None:
    assert said in unserved(request_, workers)


def test_somebody_would_take_it() -> None:
    others = [worker(jobs=()), worker(programs=()), worker(cores=1)]
    assert unserved(wanted(cores=4), [*others, worker()]) == ""
    assert unserved(wanted(model=Model(program="any")), [worker(programs=())]) == ""


@given(st.text(alphabet="ab-]![*?^\\.$", max_size=8), st.text(alphabet="ab-]![^\\.$", max_size=5))
@example("[]", "")
@example("[!]", "[")
@example("[!]]", "[")
@example("[!]a]", "b")
@example("[b-a]", "a")
@example("[b-a]]", "]")
@example("[a-", "[a-")
def test_the_database_understands_patterns_as_a_shell_does(pattern: str, text: str) -> None:
    assume("-" not in pattern or "!" not in pattern)  # behind an empty range Python takes "!" for what it is not
    (test,) = any_of(("name",), [pattern])
    asked = test["name"]
    found = text in asked["$in"] if "$in" in asked else re.fullmatch(asked["$regex"], text) is not None
    assert found == fnmatchcase(text, pattern) == is_any_of(text, [pattern])


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
    found = untaken(tallies, workers)
    assert [each.reason.partition(";")[0] for each in found] == reasons
    assert left_of(tallies, found) == left


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        (("O", "H", "H"), "H2O"),
        (("H", "C", "H", "N", "H", "H", "C", "H"), "C2H5N"),
        (("Cl", "Na"), "ClNa"),
        (("Br", "C", "F"), "CBrF"),
        ((), ""),
    ],
)
def test_formula(elements: tuple[str, ...], expected: str) -> None:
    assert formula(elements) == expected


@pytest.mark.parametrize(
    ("fields", "value", "shape"),
    [
        ({"data": -1.5}, -1.5, ()),
        ({"data": [1.0, 2.0]}, (1.0, 2.0), (2,)),
        ({"data": "text"}, "text", ()),
        ({"data": True}, True, ()),
        ({"rows": 3, "cols": 2}, None, (3, 2)),
    ],
)
def test_properties(fields: dict[str, Any], value: Any, shape: tuple[int, ...]) -> None:
    found = to_property({"_id": "p", "property_name": "x", "structure": "s", **fields})
    assert (found.value, found.shape, found.structure) == (value, shape, "s")


def test_the_energy_is_the_last_one_and_may_be_asked_for_one_structure() -> None:
    energies = [
        PropertyInfo("1", "electronic_energy", "a", -1.0, ()),
        PropertyInfo("2", "electronic_energy", "b", -2.0, ()),
        PropertyInfo("3", "dipole", "b", (1.0,), (1,)),
    ]
    outcome = CalculationOutcome(entry(), (), tuple(energies), ())
    assert outcome.energy == -2.0
    assert outcome.number("electronic_energy", "a") == -1.0
    assert outcome.number("electronic_energy", "c") is None
    assert outcome.number("dipole") is None


def test_a_document_of_scine_alone_can_be_read() -> None:
    document = {"_id": "1" * 24, "status": "complete", "job": {"order": "x"}, "model": {}, "runtime": 2.5}
    found = to_entry("db", document)
    assert (found.runtime_s, found.attempt, found.worker, found.leased) == (2.5, None, "", False)
