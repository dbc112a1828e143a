"""What people do to calculations, and from which states."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import pytest

from puffin.calculations import Status
from puffin.changes import RULES, Change, as_listed, change_update, refusal
from puffin.entries import Entry, to_entry

NOW = datetime(2025, 1, 1, 12)


def entry(status: Status = Status.NEW, **changes: Any) -> Entry:
    document = {"_id": "1" * 24, "status": status.value, "job": {"order": "sleep"}, "executor": "w"}
    ours = {"attempt": 2, "executor": "w", "worker": "node-1", "renewed": NOW}
    return dataclasses.replace(to_entry("db", {**document, "puffin": ours}), **changes)


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


def test_requeue_forgets_the_results_and_the_losses() -> None:
    update = change_update(Change.REQUEUE)
    assert update["$set"]["results"] == {"properties": [], "structures": [], "elementary_steps": []}
    assert update["$set"]["runtime"] == ""
    assert {"puffin.lost_on", "puffin.renewed"} <= set(update["$unset"])


def test_cancel_says_why() -> None:
    update = change_update(Change.CANCEL, "cancelled by me")
    assert (update["$set"]["status"], update["$set"]["comment"]) == ("failed", "cancelled by me")
