"""What a list shows of calculations, and which of them it shows."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime
from typing import Any

import pytest

from puffin.calculations import Status
from puffin.entries import Selection, Sort, cancellation, selection_filter, sort_fields, to_entry

NOW = datetime(2025, 1, 1, 12)


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
    document = {"_id": "1" * 24, "status": "failed", "comment": comment, "executor": executor}
    seen = to_entry("db", document)
    asked = selection_filter(Selection(cancelled=True))
    by_database = re.search(asked["comment"]["$regex"], comment) is not None and executor == asked["executor"]
    assert (seen.cancelled, by_database) == (cancelled, cancelled)
    assert not dataclasses.replace(seen, status=Status.NEW).cancelled


def test_a_document_of_scine_alone_can_be_read() -> None:
    document = {"_id": "1" * 24, "status": "complete", "job": {"order": "x"}, "model": {}, "runtime": 2.5}
    found = to_entry("db", document)
    assert (found.runtime_s, found.attempt, found.worker, found.leased) == (2.5, None, "", False)
