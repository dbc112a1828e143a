"""What `top` shows, without a screen."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from fleet.cli.events import _print as print_events
from fleet.watch.board import History, Snapshot, headlines, spark
from fleet.watch.boardtable import Mode, View, orders, table
from fleet.watch.cells import Cell
from fleet.watch.eventlines import event_cells, event_lines
from fleet.watch.status import status_of
from puffin.progress import Pace
from puffin.store import EventRecord
from tests.unit.test_health import RECORD

NOW = datetime(2026, 11, 22, 12, 0, 30)


def worker(name: str, seconds_ago: float = 1, **changes: object) -> object:
    host = name.rpartition("-")[0]
    return replace(RECORD, worker=name, host=host, seen=NOW - timedelta(seconds=seconds_ago), **changes)


RECORDS = [
    worker("node1-1", state="running", calculation="c1", order="opt", lasting_s=10.0, done=5),
    worker("node1-2", state="idle", done=9, failed=2),
    worker("node2-1", 999, state="running", calculation="c2", order="opt"),
    worker("node10-1", state="running", calculation="c3", order="hessian", lasting_s=60.0, done=7),
]
SNAPSHOT = Snapshot(NOW, ("node1", "node2", "node10"), tuple(status_of(RECORDS, NOW)), {"new": 5, "failed": 2})


def event(seconds_ago: float, kind: str, host: str = "node1", detail: str = "") -> EventRecord:
    at = NOW - timedelta(seconds=seconds_ago)
    return EventRecord(f"{seconds_ago}", at, kind, f"{host}-1", host, "lab", "", detail)


def words(lines: list[list[Cell]]) -> list[str]:
    return ["  ".join(cell.text for cell in line) for line in lines]


def keys(view: View) -> list[str]:
    return [row.key for row in table(SNAPSHOT, view).rows]


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(), ["node2", "node1", "node10"]),
        (View(order=1), ["node1", "node2", "node10"]),
        (View(order=1, reverse=True), ["node10", "node2", "node1"]),
        (View(order=orders(Mode.HOSTS).index("OLDEST")), ["node10", "node1", "node2"]),
        (View(needle="HESS"), ["node10"]),
        (View(needle="run opt"), ["node1"]),
        (View(needle="nothing like it"), []),
        (View(Mode.WORKERS), ["node2-1", "node1-1", "node1-2", "node10-1"]),
        (View(Mode.WORKERS, host="node1"), ["node1-1", "node1-2"]),
        (View(Mode.WORKERS, order=orders(Mode.WORKERS).index("DONE")), ["node1-2", "node10-1", "node1-1", "node2-1"]),
        (View(Mode.WORKERS, needle="node1 idle"), ["node1-2"]),
    ],
)
def test_hosts_and_workers_are_sorted_and_filtered(view: View, expected: list[str]) -> None:
    assert keys(view) == expected


@pytest.mark.parametrize("order", [0, orders(Mode.WORKERS).index("RESTARTS")])
def test_lines_stay_where_they_are_when_a_worker_is_idle_for_a_moment(order: int) -> None:
    def listed(*states: str) -> list[str]:
        records = [worker(f"node1-{at}", state=state) for at, state in enumerate(states, start=1)]
        snapshot = replace(SNAPSHOT, statuses=tuple(status_of(records, NOW)))
        return [row.key for row in table(snapshot, View(Mode.WORKERS, order=order)).rows]

    assert listed("running", "idle", "running") == listed("idle", "running", "stopped")


@pytest.mark.parametrize("mode", list(Mode))
def test_each_order_has_a_column_and_each_row_a_cell_for_each(mode: Mode) -> None:
    for at, title in enumerate(orders(mode)):
        found = table(SNAPSHOT, View(mode, order=at))
        assert found.sorted_by == title
        assert title in {"", *(head.title for head in found.headings)}
        assert {len(row.cells) for row in found.rows} == {len(found.headings)}


def test_events_move_no_cursor() -> None:
    found = replace(event(1, "fa\x1biled", detail="\x1b[2Jgone"), worker="n\x1b-1")
    assert "\x1b" not in words([event_cells(found)])[0]


def test_what_is_wrong_looks_so() -> None:
    row = table(SNAPSHOT, View()).rows[0]
    assert row.cells[:2] == (Cell("node2", "bad"), Cell("1 lost", "bad"))
    assert (
        table(replace(SNAPSHOT, hosts=("node9",), statuses=()), View()).rows[0].cells[1].text
        == "no worker has reported"
    )


def test_the_totals_are_told_in_words() -> None:
    lines = words(headlines(replace(SNAPSHOT, pace=Pace(9, 9.0, 7200.0), told_to_stop=True), History(), 80))
    assert "1 lost  2 running  1 idle  the fleet is told to stop" in lines[0]
    assert "5 new  2 failed" in lines[1]
    assert "0 a minute  about 2.0 h left" in lines[2]
    assert "none has reported" in words(headlines(replace(SNAPSHOT, statuses=()), History(), 80))[0]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_totals_stay_within_the_screen(width: int) -> None:
    history = History().with_events(event(60 * minute, "finished") for minute in range(100, 0, -1))
    for at in range(300):
        history = history.with_depth(NOW + timedelta(seconds=at), at)
    assert max(map(len, words(headlines(SNAPSHOT, history, width))[1:])) <= width


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([], 10, ""),
        ([0, 0], 10, "▁▁"),
        ([0, 4, 8], 10, "▁▄█"),
        ([8, 0, 0, 0], 2, "█▁"),
        ([0, 0, 0, 8], 2, "▁█"),
        ([1], 0, ""),
    ],
)
def test_bars(values: list[float], width: int, bars: str) -> None:
    assert spark(values, width) == bars


def test_what_ended_is_counted_by_the_minute() -> None:
    kinds = [(150, "finished"), (90, "finished"), (85, "failed"), (84, "claimed"), (5, "finished")]
    history = History().with_events(event(*each) for each in kinds)
    assert history.ended_per_minute(NOW, 4) == [0, 1, 2, 1]
    assert sum(history.ended_per_minute(NOW, 60)) == 4


def test_how_many_ended_lately() -> None:
    assert History().lately(NOW) == 0
    just_begun = History().with_events([event(0, "finished")] * 20)
    assert just_begun.lately(NOW) == 20
    steady = History().with_events(event(5 * each, "finished") for each in range(600))
    assert steady.lately(NOW) == pytest.approx(12, rel=0.1)
    two_minutes = History().with_events(event(seconds, "finished") for seconds in (70, 60, 20, 10, 5))
    assert two_minutes.lately(NOW) == pytest.approx(5 / 1.5)


def test_a_depth_is_noted_once_however_often_it_is_told() -> None:
    history = History().with_depth(NOW, 3).with_depth(NOW, 4).with_depth(NOW + timedelta(seconds=1), 5)
    assert [depth for _, depth in history.depths] == [3, 5]


def test_events_are_told_the_newest_first_and_may_be_failures_alone() -> None:
    events = [event(9, "claimed"), event(5, "failed", detail="no\nSCF"), event(2, "finished", "node22")]
    assert words(event_lines(events, failures=False)) == [
        "12:00:28  node22-1  finished      ",
        "12:00:25  node1-1   failed        no",
        "12:00:21  node1-1   claimed       ",
    ]
    assert [line[2] for line in event_lines(events, failures=True)] == [Cell("failed      ", "bad")]
    assert len(event_lines(events, failures=False, host="node22")) == 1


def test_events_are_in_the_order_of_their_times_however_they_come() -> None:
    history = History().with_events([event(5, "claimed"), event(1, "finished")]).with_events([event(3, "failed")])
    assert [each.kind for each in history.events] == ["claimed", "failed", "finished"]


def test_events_are_printed_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_events(iter([[event(9, "quarantined"), event(8, "failed", "node22", "why")], [event(1, "failed")]]), False)
    lines = capsys.readouterr().out.splitlines()
    assert [line[line.index("node") :] for line in lines] == [
        "node1-1   quarantined",
        "node22-1  failed        why",
        "node1-1   failed",
    ]


@pytest.mark.parametrize(
    ("kind", "detail", "is_failure"),
    [
        ("given_back", "told to go now", True),
        ("requeued", "", False),  # an operator's
        ("requeued", "its worker was ended while it ran", True),  # an earlier worker's
        ("finished", "", False),
    ],
)
def test_what_an_operator_did_is_no_failure(kind: str, detail: str, is_failure: bool) -> None:
    (cells,) = event_lines([event(1, kind, detail=detail)], failures=False)
    assert (cells[2].tone == "bad") == is_failure
    assert bool(event_lines([event(1, kind, detail=detail)], failures=True)) == is_failure
