"""What is wrong comes first, and silence is wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from fleet.status import SILENT_AFTER_S, status_of, totals
from tests.unit.test_health import RECORD

NOW = datetime(2026, 11, 22, 12, 0, 0)


def seen(seconds_ago: float, **changes: object) -> object:
    return replace(RECORD, seen=NOW - timedelta(seconds=seconds_ago), **changes)


def test_a_worker_that_does_not_report_is_lost() -> None:
    (status,) = status_of([seen(SILENT_AFTER_S + 1, state="running")], NOW)
    assert (status.state, status.wrong) == ("lost", True)


def test_a_worker_that_reported_lately_is_what_it_says() -> None:
    (status,) = status_of([seen(SILENT_AFTER_S - 1, state="running")], NOW)
    assert (status.state, status.wrong) == ("running", False)


def test_a_stopped_worker_may_be_silent() -> None:
    (status,) = status_of([seen(1e6, state="stopped")], NOW)
    assert status.state == "stopped"


def test_what_is_wrong_comes_first_then_by_host_and_number() -> None:
    records = [
        seen(1, state="idle", worker="node1-10"),
        seen(1, state="idle", worker="node1-2"),
        seen(1, state="quarantined", worker="node1-3"),
        seen(999, state="idle", worker="node1-4"),
    ]
    statuses = status_of(records, NOW)
    assert [status.record.worker for status in statuses] == ["node1-4", "node1-3", "node1-2", "node1-10"]
    assert totals(statuses) == {"lost": 1, "quarantined": 1, "idle": 2}
