"""When a host has proven what it runs."""

from __future__ import annotations

import pytest

from fleet.deployment.gate import MOST_STARTS, SLOW_S, Gate, Standing
from fleet.deployment.health import Health, WorkerHealth
from fleet.hosts.hostsfile import Update

UPDATE = Update(min_healthy_time=10, healthy_deadline=60, drain_timeout=3600)


def worker(health: Health, name: str = "n-1", detail: str = "") -> WorkerHealth:
    return WorkerHealth(name, health, detail)


def test_health_has_to_last() -> None:
    gate = Gate(UPDATE, 0)
    assert gate.look([worker(Health.STARTING)], 0).standing is Standing.WAIT
    first = gate.look([worker(Health.HEALTHY)], 5)
    assert (first.standing, first.proven) == (Standing.WAIT, False)
    assert gate.look([worker(Health.HEALTHY)], 14.9).standing is Standing.WAIT
    last = gate.look([worker(Health.HEALTHY)], 15)
    assert (last.standing, last.proven) == (Standing.PASSED, True)


def test_health_is_counted_from_when_the_worker_itself_reported_it() -> None:
    gate = Gate(UPDATE, 0)
    first = gate.look([worker(Health.HEALTHY), worker(Health.HEALTHY, "n-2")], 12, {"n-1": 3})
    assert (first.standing, first.proven, first.passes_at) == (Standing.WAIT, False, 22)
    # Who was not well in between begins anew, from its new report.
    gate.look([worker(Health.STARTING)], 12.5, {"n-1": 12.5})
    assert gate.look([worker(Health.HEALTHY)], 13, {"n-1": 12.5}).standing is Standing.WAIT
    assert gate.look([worker(Health.HEALTHY)], 22.5, {"n-1": 12.5}).standing is Standing.PASSED


def test_it_says_when_it_will_have_passed() -> None:
    gate = Gate(UPDATE, 0)
    assert gate.look([worker(Health.STARTING), worker(Health.HEALTHY, "n-2")], 3).passes_at is None
    assert gate.look([worker(Health.HEALTHY), worker(Health.HEALTHY, "n-2")], 5).passes_at == 15
    assert gate.look([worker(Health.STOPPED), worker(Health.HEALTHY, "n-2")], 6).passes_at == 13
    assert gate.look([worker(Health.DRAINING), worker(Health.HEALTHY, "n-2")], 7).passes_at is None


def test_who_takes_long_to_start_is_asked_why() -> None:
    gate = Gate(UPDATE, 0)
    gate.look([worker(Health.STARTING), worker(Health.HEALTHY, "n-2")], 1)
    assert gate.slow(1 + SLOW_S) == []
    assert gate.slow(2 + SLOW_S) == ["n-1"]
    gate.look([worker(Health.HEALTHY)], 30)
    assert gate.slow(60) == []


def test_a_new_process_proves_itself_anew() -> None:
    gate = Gate(UPDATE, 0)
    gate.saw({"n-1": 100})
    gate.look([worker(Health.HEALTHY)], 0)
    gate.saw({"n-1": 101})
    assert gate.look([worker(Health.HEALTHY)], 10).standing is Standing.WAIT
    assert gate.look([worker(Health.HEALTHY)], 20).standing is Standing.PASSED


def test_a_worker_that_is_started_again_and_again_is_told() -> None:
    gate = Gate(UPDATE, 0)
    for pid in range(MOST_STARTS):
        gate.saw({"n-1": pid + 1, "n-2": 7})
    assert gate.looping == frozenset()
    gate.saw({"n-1": 99})
    assert gate.looping == {"n-1"}


def test_the_deadline_counts_from_when_the_calculation_ended() -> None:
    gate = Gate(UPDATE, 0)
    draining = gate.look([worker(Health.DRAINING)], 1000)
    assert (draining.standing, draining.computing) == (Standing.WAIT, True)
    assert gate.look([worker(Health.STARTING)], 1001).standing is Standing.WAIT
    assert gate.look([worker(Health.STARTING)], 1061).standing is Standing.WAIT
    late = gate.look([worker(Health.STARTING, detail="has not reported yet")], 1062)
    assert late.standing is Standing.FAILED
    assert late.why == "n-1: has not reported yet (past update.healthy_deadline)"


def test_a_calculation_may_take_only_so_long() -> None:
    gate = Gate(UPDATE, 0)
    gate.look([worker(Health.DRAINING)], 0)
    assert gate.look([worker(Health.DRAINING)], 3600).standing is Standing.WAIT
    late = gate.look([worker(Health.DRAINING, detail="until sleep 1 is done")], 3601)
    assert late.standing is Standing.FAILED
    assert "past update.drain_timeout" in late.why


def test_who_has_failed_is_said_at_once_and_all_of_them() -> None:
    gate = Gate(UPDATE, 0)
    look = gate.look([worker(Health.HEALTHY), worker(Health.FAILED, "n-2", "x"), worker(Health.FAILED, "n-3", "y")], 0)
    assert look.standing is Standing.FAILED
    assert [each.worker for each in look.failed] == ["n-2", "n-3"]
    assert look.why == "n-2: x; n-3: y"


def test_one_idle_worker_proves_a_host_whose_others_compute() -> None:
    gate = Gate(UPDATE, 0)
    both = [worker(Health.HEALTHY), worker(Health.DRAINING, "n-2")]
    assert not gate.look(both, 0).proven
    look = gate.look(both, 10)
    assert (look.standing, look.proven, look.computing) == (Standing.WAIT, True, True)


@pytest.mark.parametrize("health", [Health.HEALTHY, Health.STARTING])
def test_a_host_with_a_worker_on_its_way_is_being_changed(health: Health) -> None:
    gate = Gate(UPDATE, 0)
    assert not gate.look([worker(health), worker(Health.DRAINING, "n-2")], 0).computing


def test_workers_that_stay_stopped_are_not_waited_for() -> None:
    look = Gate(UPDATE, 0).look([worker(Health.STOPPED)], 0)
    assert (look.standing, look.proven) == (Standing.PASSED, False)


def test_who_has_passed_may_come_to_its_end_while_others_compute() -> None:
    gate = Gate(UPDATE, 0)
    others = worker(Health.DRAINING, "n-2")
    at_its_end = WorkerHealth("n-1", Health.FAILED, "it ended with exit code 0", at_its_end=True)
    assert gate.look([at_its_end, others], 0).standing is Standing.FAILED
    gate.look([worker(Health.HEALTHY), others], 1)
    assert gate.look([worker(Health.HEALTHY), others], 11).proven
    assert gate.look([at_its_end, others], 500).standing is Standing.WAIT
    assert gate.look([at_its_end, worker(Health.STOPPED, "n-2")], 501).standing is Standing.PASSED
    broken = WorkerHealth("n-1", Health.FAILED, "it ended with exit code 2")
    assert gate.look([broken, others], 502).standing is Standing.FAILED


def test_starts_of_one_that_has_passed_are_no_crash_loop_of_the_release() -> None:
    gate = Gate(UPDATE, 0)
    gate.saw({"n-1": 1})
    gate.look([worker(Health.HEALTHY)], 0)
    gate.look([worker(Health.HEALTHY)], 10)
    for pid in range(2, 3 + MOST_STARTS):
        gate.saw({"n-1": pid})
    assert gate.looping == frozenset()
