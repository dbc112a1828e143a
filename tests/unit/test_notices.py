"""What hooks on events are told, when, and how often again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from fleet.notify.lookout import LastLook, Seen, look
from fleet.notify.notices import Kind, Notice, from_json, of_events, to_json, variables
from fleet.notify.outbox import Outbox
from fleet.watch.status import WorkerStatus, status_of
from puffin.records import WorkerRecord
from puffin.store import EventRecord

NOW = datetime(2026, 11, 22, 12, 0, 0)
AFTER_S = 300.0


def event(number: int, kind: str = "failed", host: str = "node1", detail: str = "no\nsense") -> EventRecord:
    calculation = f"c{number}" if kind == "failed" else ""
    return EventRecord(f"id{number}", NOW, kind, f"{host}-1", host, "lab", calculation, detail)


def notice(number: int, kind: Kind = Kind.FAILED) -> Notice:
    return Notice(kind, f"id{number}", NOW, "lab", f"text {number}", ids=(f"id{number}",))


# Events


def test_a_failure_and_a_worker_put_to_rest_are_told_in_a_line_each() -> None:
    found = of_events(
        [event(1), event(2, "quarantined", detail="crashed 3 times"), event(3, "finished"), event(4, detail="")]
    )
    assert [each.text for each in found] == [
        "lab: calculation c1 failed on node1-1: no",
        "lab: worker node1-1 is quarantined: crashed 3 times",
        "lab: calculation c4 failed on node1-1",
    ]
    assert [(each.kind, each.id, each.ids) for each in found[:2]] == [
        (Kind.FAILED, "id1", ("id1",)),
        (Kind.QUARANTINED, "id2", ("id2",)),
    ]


def test_what_a_calculation_wrote_cannot_command_a_terminal() -> None:
    assert "\x1b" not in of_events([event(1, detail="\x1b[2Jgone")])[0].text


@pytest.mark.parametrize(("count", "told"), [(5, 5), (6, 1)])
def test_many_of_a_kind_at_once_are_told_together(count: int, told: int) -> None:
    found = of_events([event(number, host=f"node{number}") for number in range(count)])
    assert len(found) == told
    assert [each for notice in found for each in notice.ids] == [f"id{number}" for number in range(count)]
    if told == 1:
        assert found[0].text.startswith("lab: 6 calculations failed (node[0-5]); the last: lab: calculation c5 failed")


def test_a_notice_comes_back_from_json_as_it_was() -> None:
    for each in of_events([event(1), *(event(number, "quarantined") for number in range(9))]):
        assert from_json(json.loads(json.dumps(to_json(each)))) == each


def test_a_command_gets_variables_that_the_system_takes() -> None:
    told = variables(replace(notice(1), text="a\0b"))
    assert told["PUFFIN_EVENT"] == "failed"
    assert told["PUFFIN_EVENT_TEXT"] == "ab"


# Lost hosts, empty queues


def worker(host: str = "node1", silent_s: float = 0.0, state: str = "running", number: int = 1) -> WorkerRecord:
    return WorkerRecord(
        uuid=f"{host}-{number}",
        fleet="lab",
        host=host,
        worker=f"{host}-{number}",
        release="r",
        configuration="c",
        pid=1,
        cores=1,
        memory=1.0,
        disk=1.0,
        programs=(),
        jobs=(),
        state=state,
        seen=NOW - timedelta(seconds=silent_s),
        reports_within_s=75.0,
    )


def seen(
    workers: Sequence[WorkerRecord] = (), later_s: float = 0.0, any_open: bool | None = None, hosts: str = "node1 node2"
) -> Seen:
    now = NOW + timedelta(seconds=later_s)
    statuses: list[WorkerStatus] = status_of(workers, now)
    return Seen("lab", now, frozenset(hosts.split()), statuses, any_open)


def lost(watch: LastLook, at: Seen) -> tuple[LastLook, list[str]]:
    after, notices = look(watch, at, AFTER_S)
    # As it is when the notifier was ended and started in between.
    return LastLook.from_json(json.loads(json.dumps(after.to_json()))), [each.host for each in notices]


def test_a_lost_host_is_told_once_and_again_when_it_is_lost_again() -> None:
    gone = [worker(silent_s=0)]
    watch, told = lost(LastLook(), seen(gone, 200))
    assert told == []  # silent, but not for long enough
    watch, told = lost(watch, seen(gone, 310))
    assert told == ["node1"]
    watch, told = lost(watch, seen(gone, 900))
    assert told == []
    back = [replace(gone[0], seen=NOW + timedelta(seconds=1000))]
    watch, told = lost(watch, seen(back, 1010))
    assert (told, watch.silent) == ([], {})
    watch, _ = lost(watch, seen(back, 1150))
    watch, told = lost(watch, seen(back, 1310))
    assert told == ["node1"]


def test_after_an_outage_of_the_database_hosts_are_given_time_to_report() -> None:
    workers = [worker("node1", 0), worker("node2", 0)]
    watch, told = lost(LastLook(), seen(workers, 10))
    watch, told = lost(watch, seen(workers, 1000))  # nobody could report in between
    assert told == []
    one_reports = [replace(workers[0], seen=NOW + timedelta(seconds=1050)), workers[1]]
    watch, told = lost(watch, seen(one_reports, 1101))
    assert told == ["node2"]


@pytest.mark.parametrize(
    ("workers", "hosts", "told"),
    [
        ([worker(silent_s=400)], "node1", ["node1"]),
        ([worker(silent_s=400)], "node2", []),  # drained, or the fleet is told to stop
        ([worker(silent_s=400, state="stopped")], "node1", []),
        ([worker(silent_s=400, state="quarantined")], "node1", []),
        ([worker(silent_s=400, state="stopped"), worker(silent_s=400, number=2)], "node1", ["node1"]),
        ([worker(silent_s=400), worker(silent_s=-200, number=2)], "node1", []),
        ([replace(worker(), seen=None)], "node1", []),
        ([], "node1", []),
    ],
    ids=["silent", "not wanted", "stopped", "quarantined", "one stopped", "one reports", "never seen", "no workers"],
)
def test_a_host_is_lost_that_should_work_and_says_nothing(
    workers: list[WorkerRecord], hosts: str, told: list[str]
) -> None:
    watch, _ = lost(LastLook(), seen(workers, 0, hosts=hosts))
    assert lost(watch, seen(workers, 150, hosts=hosts))[1] == told


def test_many_lost_hosts_are_one_notice() -> None:
    names = [f"node{number}" for number in range(1, 9)]
    at = [seen([worker(name, 400) for name in names], later, hosts=" ".join(names)) for later in (0, 150)]
    watch, _ = look(LastLook(), at[0], AFTER_S)
    _, notices = look(watch, at[1], AFTER_S)
    assert [each.text.split(";")[0] for each in notices] == ["lab: 8 hosts lost (node[1-8])"]


def test_an_empty_queue_is_told_each_time_it_becomes_so() -> None:
    told, watch = [], LastLook()
    for at, is_open in enumerate([False, True, True, False, False, None, True, None, False]):
        watch, notices = look(watch, seen(any_open=is_open, later_s=at), AFTER_S)
        watch = LastLook.from_json(json.loads(json.dumps(watch.to_json())))
        told += [(at, each.kind) for each in notices]
    assert told == [(3, Kind.QUEUE_EMPTY), (8, Kind.QUEUE_EMPTY)]


# Telling


TARGETS = {Kind.FAILED: ("a", "b"), Kind.QUEUE_EMPTY: ("c",)}


def names(outbox: Outbox, at: datetime = NOW, busy: frozenset[str] = frozenset()) -> list[str]:
    return [f"{each.target}{each.notice.id}" for each in outbox.ready(at, busy)]


def test_each_hook_is_told_in_order_one_at_a_time() -> None:
    outbox, _ = Outbox().with_notices([notice(1), notice(2), notice(3, Kind.HOST_LOST)], TARGETS)
    assert names(outbox) == ["aid1", "bid1"]
    assert names(outbox, busy=frozenset("a")) == ["bid1"]
    outbox = outbox.told(outbox.ready(NOW)[0])
    assert names(outbox) == ["bid1", "aid2"]
    again, _ = outbox.with_notices([notice(2)], TARGETS)
    assert again == outbox


def test_what_fails_is_tried_again_after_pauses_that_grow_and_then_given_up() -> None:
    outbox, _ = Outbox().with_notices([notice(1), notice(2)], {Kind.FAILED: ("a",)})
    now, pauses = NOW, []
    while names(outbox, now) == ["aid1"]:
        outbox = outbox.failed(outbox.ready(now)[0], now)
        first = outbox.waiting[0]
        if first.due is not None:
            assert names(outbox, first.due - timedelta(seconds=0.1)) == []  # the second does not overtake it
            pauses.append((first.due - now).total_seconds())
            now = first.due
    assert names(outbox, now) == ["aid2"]
    assert pauses == sorted(pauses)
    assert len(pauses) == 9
    assert 1800 < sum(pauses) < 3600


def test_of_too_much_the_oldest_is_dropped_and_told() -> None:
    outbox, dropped = Outbox().with_notices([notice(number) for number in range(203)], {Kind.FAILED: ("a",)})
    assert [each.notice.id for each in dropped] == ["id0", "id1", "id2"]
    assert len(outbox.waiting) == 200


def test_what_waits_comes_back_as_it_was_but_for_hooks_that_are_gone() -> None:
    outbox, _ = Outbox().with_notices([notice(1)], TARGETS)
    outbox = outbox.failed(outbox.waiting[0], NOW)
    assert Outbox.from_json(json.loads(json.dumps(outbox.to_json()))) == outbox
    assert [each.target for each in outbox.only({Kind.FAILED: ("b", "new")}).waiting] == ["b"]
