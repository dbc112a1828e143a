"""Verbs that change something, on five hosts of which four are in trouble; see `five`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
import yaml

from tests.acceptance.commands import Ran
from tests.acceptance.five import Five, five
from tests.acceptance.here import until
from tests.lab.worker import Queue

__all__ = ["five"]

pytestmark = pytest.mark.soak
NO_SPACE = "No space left on device"


@pytest.fixture
def fleet(five: Five) -> Five:
    """All that can run runs, but on the host without supervisord."""
    if not five.is_up("good", "full"):
        five.run("start")
        five.run("resume", "*")
    until(lambda: five.is_up("good", "full"), "the workers")
    five.quench()
    five.laboratory.fill("full")  # what was removed meanwhile left some room
    return five


@pytest.fixture
def queue(five: Five) -> Iterator[Queue]:
    with contextlib.closing(Queue(five.database)) as queue:
        queue.documents.delete_many({})
        yield queue


def change(five: Five, verb: str, *words: object, full: str = "") -> Ran:
    """Run a verb that fails where it must, and only there.

    Parameters
    ----------
    full
        What is said of the full disk; nothing where a verb can do without space.
    """
    with five.knocks() as knocks:
        ran = five.run(verb, *words)
        assert knocks.count == 1, ran
    assert ran.code == 1, ran
    # A deploy says it before it asks, and once more at the end.
    times = 2 if verb == "deploy" else 1
    assert ran.err.count("down failed at connect: ") == times
    assert ran.err.count("refusing failed at connect: ") + ran.err.count("refusing could not be told by SSH: ") == times
    for host in ("good", "idle"):
        assert f"{host} failed" not in ran.err
    assert ran.err.count("full failed") == bool(full)
    assert full in ran.err
    return ran


def rows(ran: Ran) -> dict[str, str]:
    return {line.split()[0]: line for line in ran.out.splitlines()}


def busy(queue: Queue, seconds: float) -> tuple[str, int]:
    """A calculation that `good` has begun, and its attempt: a worker without space gives back what it took."""
    # The worker that cannot be told by SSH works, too.
    started = [queue.sleep(seconds, memory=0.1, disk=0.1) for _ in range(2)]
    until(lambda: any(on_good(queue, each) for each in started), "good to begin one")
    (begun, *_) = (each for each in started if on_good(queue, each))
    return begun, attempt_of(queue, begun)


def on_good(queue: Queue, calculation: str) -> bool:
    found = queue[calculation]
    return found["status"] == "pending" and found["puffin"]["host"] == "good"


def attempt_of(queue: Queue, calculation: str) -> int:
    return int(queue[calculation]["puffin"]["attempt"])


def has_begun(row: str) -> bool:
    """supervisord says of a program for two seconds that it is starting."""
    return re.search(r" (starting|running): [a-z]+-1$", row.rstrip()) is not None


def test_stop_waits_for_those_it_reaches_and_tells_the_others_through_the_database(fleet: Five, queue: Queue) -> None:
    begun, attempt = busy(queue, 4)
    ran = change(fleet, "stop", "--yes")
    assert (queue.status(begun), attempt_of(queue, begun)) == ("complete", attempt)
    told = rows(ran)
    assert told["good"].split()[1:] == told["full"].split()[1:] == told["idle"].split()[1:] == ["stopped"]
    assert "stopped; it cannot be reached, but was told through the database" in told["refusing"]
    assert "down-1 does not report to the database either" in ran.err
    assert not any(fleet.runs(host) for host in ("good", "refusing", "idle", "full"))


def test_stop_without_waiting_says_that_the_database_tells_the_others(fleet: Five) -> None:
    ran = fleet.run("start").out
    assert re.search(r"^good +(starting|running): good-1$", ran, re.MULTILINE)
    with fleet.trusted("refusing"):
        fleet.run("start", "--host", "refusing").ok()
    until(lambda: fleet.is_up("refusing"), "the worker that refuses the key")
    ran_stop = change(fleet, "stop", "--yes", "--no-wait")
    assert "will stop when done: good-1" in rows(ran_stop)["good"]
    (refusing,) = (part for part in ran_stop.err.split("\nrefusing failed")[1:])
    assert "its workers read the stop in the database within 75 s" in refusing
    until(lambda: not fleet.runs("refusing"), "its worker to read that", 90)


def test_start_begins_what_can_be_begun(fleet: Five) -> None:
    ran = change(fleet, "start")
    assert has_begun(rows(ran)["idle"])
    assert has_begun(rows(ran)["full"])
    until(lambda: fleet.is_up("good", "idle", "full"), "the workers")


def test_restart_lets_calculations_finish(fleet: Five, queue: Queue) -> None:
    begun, attempt = busy(queue, 15)
    before = fleet.pids()
    ran = change(fleet, "restart", full=NO_SPACE)
    after = fleet.pids()
    assert "restarted: good-1" in rows(ran)["good"]
    assert "restarted: idle-1" in rows(ran)["idle"]
    assert {name for name in before if before[name] != after[name]} == {"good-1", "idle-1"}
    assert (queue.status(begun), attempt_of(queue, begun)) == ("complete", attempt)


def test_restart_when_idle_returns_at_once(fleet: Five, queue: Queue) -> None:
    begun, attempt = busy(queue, 25)
    before = fleet.pids()
    ran = change(fleet, "restart", "--when-idle", full=NO_SPACE)
    assert "will restart when done: good-1" in rows(ran)["good"]
    assert "started: what was down" in rows(ran)["idle"]
    assert on_good(queue, begun)
    until(lambda: fleet.pids()["good-1"] != before["good-1"], "the new process")
    assert (queue.status(begun), attempt_of(queue, begun)) == ("complete", attempt)
    assert fleet.pids()["full-1"] == before["full-1"]


def test_restart_now_gives_calculations_back(fleet: Five, queue: Queue) -> None:
    begun, attempt = busy(queue, 25)
    before = fleet.pids()
    ran = change(fleet, "restart", "--now", "--yes", full=NO_SPACE)
    assert "restarted: good-1" in rows(ran)["good"]
    assert fleet.pids()["good-1"] != before["good-1"]
    until(lambda: attempt_of(queue, begun) > attempt, "another attempt")


def test_drain_and_resume(fleet: Five) -> None:
    ran = change(fleet, "drain", "*", "--why", "new  disk", full=NO_SPACE)
    assert rows(ran)["good"].split()[1:] == rows(ran)["idle"].split()[1:] == ["stopped"]
    # What could not be told is not said to be drained.
    assert "good, idle drained by " in (said := fleet.run("status").ok().err)
    assert "new  disk" in said
    assert fleet.runs("full")
    ran = change(fleet, "start")
    assert "drained by " in rows(ran)["good"]
    assert not fleet.runs("good")

    ran = change(fleet, "resume", "*")
    assert has_begun(rows(ran)["good"])
    assert has_begun(rows(ran)["idle"])
    assert "drained" not in fleet.run("status").ok().err


def test_a_deploy_after_scale(fleet: Five) -> None:
    before = fleet.file.read_text()
    try:
        fleet.run("scale", "all", "2", "--write").ok()
        assert yaml.safe_load(fleet.file.read_text())["groups"]["all"]["workers"]["count"] == 2
        ran = change(fleet, "deploy", "--yes", full=NO_SPACE)
        assert "2 healthy" in rows(ran)["good"]
        assert "2 healthy" in rows(ran)["idle"]
        assert set(fleet.pids()) == {f"{host}-1" for host in ("good", "down", "refusing", "idle", "full")} | {
            "good-2",
            "idle-2",
        }
        assert fleet.is_up("good", "idle", "full")
    finally:
        fleet.file.write_text(before)
