"""What is wrong comes first, and silence is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from fleet.cli.output import print_json
from fleet.cli.status_look import View
from fleet.cli.status_view import records
from fleet.reach.facts import Program, States, Supervisord
from fleet.shapes import Worker
from fleet.watch.status import HostLook, HostStatus, apart, by_host, status_of, to_json, totals
from fleet.words import natural
from puffin.records import SILENT_AFTER_S, WorkerRecord
from puffin.store import DrainNote
from tests.tools.shapes import problems
from tests.unit.test_health import RECORD

NOW = datetime(2026, 11, 22, 12, 0, 0)


def seen(seconds_ago: float, **changes: object) -> WorkerRecord:
    return replace(RECORD, seen=NOW - timedelta(seconds=seconds_ago), **changes)


def program(name: str, state: str, pid: int = 100, why: str = "") -> Program:
    return Program(name, state, pid, "", why, 0, 1, 0, 2)


def look(
    *programs: Program,
    pids: dict[str, int] | None = None,
    stopped: tuple[str, ...] = (),
    recycling: tuple[str, ...] = (),
    running: bool = True,
) -> HostLook:
    supervisord = Supervisord(running, running, 1 if running else None, "/run/sv.sock", "4.3.0", None, programs)
    return HostLook(States(supervisord, False, frozenset(stopped), frozenset(recycling), pids or {}, "new", 0.0))


def asked(found: HostLook, *records: WorkerRecord) -> HostStatus:
    (host,) = by_host(["node1"], status_of(records, NOW), {"node1": found})
    return host


# What workers reported ---------------------------------------------------------------------------------


def test_a_worker_that_does_not_report_is_lost() -> None:
    (status,) = status_of([seen(SILENT_AFTER_S + 1, state="running")], NOW)
    assert (status.state, status.wrong) == ("lost", True)


def test_a_worker_that_reported_lately_is_what_it_says() -> None:
    (status,) = status_of([seen(SILENT_AFTER_S - 1, state="running")], NOW)
    assert (status.state, status.wrong) == ("running", False)


@pytest.mark.parametrize(
    ("within", "silent", "state"), [(300.0, 310, "running"), (300.0, 320, "lost"), (5.0, 25, "lost")]
)
def test_a_worker_that_says_how_often_it_reports_is_held_to_that(within: float, silent: float, state: str) -> None:
    (status,) = status_of([seen(silent, state="running", reports_within_s=within)], NOW)
    assert status.state == state


def test_a_stopped_worker_may_be_silent() -> None:
    (status,) = status_of([seen(1e6, state="stopped")], NOW)
    assert status.state == "stopped"


@pytest.mark.parametrize(("silent", "state", "wrong"), [(40, "starting", False), (50, "lost", True)])
def test_a_worker_that_ended_to_start_again_is_missed(silent: float, state: str, wrong: bool) -> None:
    (status,) = status_of([seen(silent, state="stopped", returns=100, reports_within_s=30.0)], NOW)
    assert (status.state, status.wrong) == (state, wrong)
    assert not wrong or status.troubles == ("ended 50 s ago to start again, and has not",)


def test_a_worker_between_its_end_and_its_next_start_is_in_no_trouble() -> None:
    between = seen(5, state="stopped", returns=100, release="before")
    found = asked(look(program("node1-1", "EXITED")), between)
    assert ([each.state for each in found.workers], found.wrong) == (["starting"], False)
    assert not found.workers[0].outdated


def test_a_worker_that_was_stopped_before_it_was_back_is_not_missed() -> None:
    gone = seen(600, state="stopped", returns=100)
    told = asked(look(program("node1-1", "EXITED"), stopped=("node1-1",)), gone)
    assert ([each.state for each in told.workers], told.wrong) == (["stopped"], False)
    missed = asked(look(program("node1-1", "EXITED")), gone)
    assert ([each.state for each in missed.workers], missed.wrong) == (["lost"], True)


def test_a_calculation_grows_older_between_reports() -> None:
    (status,) = status_of([seen(20, state="running", calculation="c", lasting_s=100.0)], NOW)
    assert (status.age_s, status.record.since) == (120.0, NOW - timedelta(seconds=120))
    (old,) = status_of([seen(20, state="running", calculation="c")], NOW)
    assert old.age_s is None


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


def test_names_are_sorted_as_people_count() -> None:
    assert sorted(["node10", "node9-2", "big1", "node9"], key=natural) == ["big1", "node9", "node9-2", "node10"]


# Host by host ------------------------------------------------------------------------------------------


def test_hosts_with_trouble_come_first_and_say_what_they_compute() -> None:
    busy = {"state": "running", "calculation": "c", "host": "node2"}
    records = [
        seen(1, worker="node2-1", order="opt", lasting_s=50.0, done=3, failed=1, **busy),
        seen(2, worker="node2-2", order="opt", lasting_s=90.0, done=4, **busy),
        seen(3, worker="node2-3", order="hessian", lasting_s=7.0, **busy),
        seen(900, worker="node3-1", host="node3", state="running", calculation="c", order="opt"),
    ]
    hosts = by_host(["node1", "node2", "node3"], status_of(records, NOW))
    assert [(host.host, host.troubles) for host in hosts] == [
        ("node1", ("no worker has reported",)),
        ("node3", ("1 lost",)),
        ("node2", ()),
    ]
    found = hosts[2]
    assert (found.computing, found.oldest_s, found.silent_s) == ({"opt": 2, "hessian": 1}, 92.0, 1.0)
    assert (found.sum_of("done"), found.sum_of("failed")) == (7, 1)
    assert hosts[1].computing == {}


# What hosts say beside it ------------------------------------------------------------------------------

RUNNING = program("node1-1", "RUNNING")


@pytest.mark.parametrize(
    ("found", "state", "trouble"),
    [
        (look(RUNNING, pids={"node1-1": 100}), "running", ""),
        (look(RUNNING), "running", ""),  # it has not written its lock yet
        (
            look(program("node1-1", "FATAL", 0, "Exited too quickly")),
            "running",
            "supervisord: FATAL, Exited too quickly",
        ),
        (look(program("node1-1", "EXITED", 0)), "running", "reported running, but does not run"),
        (look(program("node1-1", "STOPPED", 0), stopped=("node1-1",)), "idle", "does not run (told to stop)"),
        (look(program("node1-1", "STOPPED", 0), stopped=("node1-1",)), "stopped", ""),
        (look(pids={"node1-1": 100}, running=False), "running", "runs without supervisord"),
        (look(program("node1-1", "EXITED", 0), pids={"node1-1": 7}), "running", "runs without supervisord"),
    ],
)
def test_what_the_host_says_is_held_against_what_the_worker_reported(found: HostLook, state: str, trouble: str) -> None:
    (worker,) = asked(found, seen(1, state=state)).workers
    assert (worker.wrong, trouble in "; ".join(worker.troubles)) == (bool(trouble), True)


def test_a_host_that_cannot_be_asked_is_in_trouble_and_its_workers_are_as_they_reported() -> None:
    host = asked(HostLook(None, "no route to host"), seen(1, state="running"))
    assert host.troubles == ("not reached: no route to host",)
    assert [(worker.state, worker.on_host) for worker in host.workers] == [("running", None)]


def test_a_host_without_supervisord_says_so() -> None:
    assert asked(look(running=False), seen(1, state="stopped")).troubles == ("supervisord: does not run",)


def test_a_worker_that_only_the_host_knows_is_shown() -> None:
    host = asked(look(RUNNING, program("node1-2", "RUNNING"), program("else", "RUNNING"), pids={"node1-1": 1}), seen(1))
    assert [(worker.record.worker, worker.state) for worker in host.workers] == [
        ("node1-2", "unreported"),
        ("node1-1", "idle"),
    ]


def test_who_is_told_to_stop_or_to_start_again_is_known() -> None:
    found = look(RUNNING, pids={"node1-1": 1}, recycling=("node1-1",))
    (worker,) = asked(found, seen(1, state="running")).workers
    data = to_json(worker, {})
    assert (data["supervisord"], data["recycling"], data["told_to_stop"], data["alive"]) == (
        "RUNNING",
        True,
        False,
        True,
    )


@pytest.mark.parametrize(
    ("counts", "cancelled", "shown"),
    [
        ({"new": 2, "failed": 5}, 3, {"cancelled": 3, "failed": 2, "new": 2}),
        ({"failed": 3}, 3, {"cancelled": 3}),
        ({"failed": 2}, 3, {"cancelled": 3}),  # one more was cancelled between the two questions
        ({"complete": 1}, 0, {"complete": 1}),
        ({}, 0, {}),
    ],
)
def test_what_was_cancelled_did_not_fail(counts: dict[str, int], cancelled: int, shown: dict[str, int]) -> None:
    assert list(apart(counts, cancelled).items()) == list(shown.items())


def test_lines_tell_of_hosts_without_workers_and_of_who_is_kept_out(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = by_host(["node1", "node2"], status_of([seen(1)], NOW))
    drained = {"node2": DrainNote("ann@desk", "new disk", None)}
    view = View(hosts, (), {}, told_to_stop=True, drained=drained, at=NOW, failed=())
    for record in records(view):
        print_json(record)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [problem for record in found for problem in problems(record, Worker)] == []
    assert [(each["host"], each["worker"], each["state"], each["drained"]) for each in found] == [
        ("node2", "", "unreported", "drained by ann@desk: new disk"),
        ("node1", "node1-1", "idle", ""),
    ]
    assert [each["troubles"] for each in found] == [["no worker has reported"], []]
    assert [each["fleet_stopped"] for each in found] == [True, True]


@pytest.mark.parametrize(
    ("silent", "used", "shown"), [(1, 1.234, "1.2/8"), (1, None, "8"), (1, 0.0, "0.0/8"), (9999, 1.234, "8")]
)
def test_memory_is_what_is_used_of_what_is_granted(silent: float, used: float | None, shown: str) -> None:
    (status,) = status_of([seen(silent, state="running", memory=8.0, memory_used=used)], NOW)
    assert status.memory == shown
