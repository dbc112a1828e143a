"""When a deploy may call a worker healthy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.deployment.health import Health, judge
from fleet.reach.facts import Program, States, Supervisord
from puffin.records import WorkerRecord

PROGRAM = Program("node1-1", "RUNNING", 100, "", "", 0, 1, 0, 2)
RECORD = WorkerRecord(
    uuid="puffin-lab@node1-1",
    fleet="lab",
    host="node1",
    worker="node1-1",
    release="new",
    configuration="c0ffee",
    pid=100,
    cores=1,
    memory=1.0,
    disk=1.0,
    programs=(),
    jobs=(),
    state="idle",
)


def states(*programs: Program, stop: bool = False, recycling: tuple[str, ...] = ()) -> States:
    supervisord = Supervisord(True, True, 1, "/run/sv.sock", "4.3.0", None, programs)
    return States(supervisord, stop, frozenset(), frozenset(recycling), {}, "new", 0.0)


@pytest.mark.parametrize(
    ("program", "record", "health", "detail"),
    [
        (PROGRAM, RECORD, Health.HEALTHY, ""),
        (PROGRAM, replace(RECORD, state="running"), Health.HEALTHY, ""),
        (PROGRAM, None, Health.STARTING, "has not reported yet"),
        (PROGRAM, replace(RECORD, state="starting"), Health.STARTING, "has not reported yet"),
        (PROGRAM, replace(RECORD, release="old"), Health.STARTING, "reports release old"),
        (PROGRAM, replace(RECORD, configuration="other"), Health.STARTING, "reports its old settings"),
        (replace(PROGRAM, state="STARTING"), RECORD, Health.STARTING, "starting"),
        (replace(PROGRAM, state="FATAL"), RECORD, Health.FAILED, "it ended again and again"),
        (replace(PROGRAM, state="FATAL", spawnerr="no such file"), RECORD, Health.FAILED, "no such file"),
        (replace(PROGRAM, state="EXITED", exitstatus=2), RECORD, Health.FAILED, "it ended with exit code 2"),
        (replace(PROGRAM, state="EXITED", exitstatus=75), RECORD, Health.STARTING, "about to start again after 75"),
        (replace(PROGRAM, state="EXITED", exitstatus=-9), RECORD, Health.STARTING, "about to start again after -9"),
    ],
)
def test_a_worker(program: Program, record: WorkerRecord | None, health: Health, detail: str) -> None:
    (found,) = judge({"node1-1": "c0ffee"}, "new", states(program), [record] if record else [])
    assert (found.health, found.detail) == (health, detail)


def test_a_worker_that_takes_long_to_start_is_shown_with_its_last_words() -> None:
    said = replace(states(PROGRAM), words={"node1-1": "waiting for the database"})
    (found,) = judge({"node1-1": "c0ffee"}, "new", said, [])
    assert found.detail == "log: waiting for the database (has not reported yet)"
    (found,) = judge({"node1-1": "c0ffee"}, "new", said, [RECORD])
    assert found.detail == ""


def test_a_worker_that_supervisord_does_not_know() -> None:
    (found,) = judge({"node1-1": "c0ffee"}, "new", states(), [RECORD])
    assert found.health is Health.FAILED


def test_a_worker_that_finishes_its_calculation_first() -> None:
    busy = replace(RECORD, release="old", calculation="c1", order="scine_hessian")
    (found,) = judge({"node1-1": "c0ffee"}, "new", states(PROGRAM, recycling=("node1-1",)), [busy])
    assert (found.health, found.detail) == (Health.DRAINING, "until scine_hessian c1 is done")


def test_a_worker_that_is_told_to_start_again_and_computes_nothing() -> None:
    (found,) = judge({"node1-1": "c0ffee"}, "new", states(PROGRAM, recycling=("node1-1",)), [RECORD])
    assert (found.health, found.detail) == (Health.STARTING, "about to start again")


def test_a_host_that_was_stopped_on_purpose() -> None:
    (found,) = judge({"node1-1": "c0ffee"}, "new", states(replace(PROGRAM, state="EXITED"), stop=True), [RECORD])
    assert found.health is Health.STOPPED


def test_a_worker_that_starts_again_and_again() -> None:
    (found,) = judge({"node1-1": "c0ffee"}, "new", states(PROGRAM), [RECORD], frozenset({"node1-1"}))
    assert found.health is Health.FAILED
