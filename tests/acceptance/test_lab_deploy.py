"""Deploys to hosts with a network of their own, which is cut, healed and switched off; no calculation is lost.

The hosts reach the controller and nothing else: whatever they need travels there by the deploy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.acceptance.commands import Ran, puffin_fleet
from tests.acceptance.test_whole_path import direct_energy, stored_energy, submit
from tests.lab.fixtures_database import Database, connect, initialise
from tests.lab.fixtures_lab import ReachableServer
from tests.lab.laboratory import START_S, Laboratory, hosts_yaml
from tests.lab.worker import Queue, until

NAME = "lab_deploy"
LEASE_S = 8
"""Longer than this machine is ever busy elsewhere: only a host that is cut off or switched off loses its work."""
LONG_S = 600.0


@dataclass(frozen=True)
class DeployedFleet:
    """A fleet on hosts of a laboratory, after its first deploy."""

    laboratory: Laboratory
    file: Path
    database: Database
    first_deploy: Ran

    def run(self, verb: str, *words: object) -> Ran:
        return puffin_fleet(verb, self.file, *words)

    def workers(self) -> dict[str, dict[str, Any]]:
        return {record["worker"]: record for record in self.run("status", "--json").json()}

    def stopped(self, host: str) -> list[psutil.Process]:
        """The processes of a host that are frozen."""
        return [each for each in self.laboratory.processes(host) if _status(each) == psutil.STATUS_STOPPED]


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return ""


def describe(laboratory: Laboratory, database: Database, names: list[str]) -> dict[str, Any]:
    """A hosts.yaml for some hosts: one worker each, with a short lease."""
    content: dict[str, Any] = hosts_yaml(laboratory, "laboratory", {"uri": database.uri, "names": [database.name]})
    content["release"]["extras"] = ["scine"]
    content["defaults"] |= {
        "reserve": {"cores": 0, "memory": 0},
        "workers": {"cores": 1, "memory": 2, "disk": 1, "count": 1},
        "puffin": {"daemon": {"cycle_time_in_s": 0.5, "lease_in_s": LEASE_S}},
    }
    content["hosts"] = {name: content["hosts"][name] for name in names}
    return content


def deployed(
    laboratory: Laboratory, server: ReachableServer, name: str, hosts: list[str], place: Path
) -> DeployedFleet:
    initialise(server, name)
    database = Database(server, name)
    file = place / "hosts.yaml"
    file.write_text(yaml.safe_dump(describe(laboratory, database, hosts), sort_keys=False))
    ran = puffin_fleet("deploy", file, "--yes").ok()
    return DeployedFleet(laboratory, file, database, ran)


@pytest.fixture(scope="module")
def fleet(
    laboratory: Laboratory, laboratory_database: ReachableServer, tmp_path_factory: pytest.TempPathFactory
) -> DeployedFleet:
    laboratory.up(["alpha", "beta"])
    return deployed(laboratory, laboratory_database, NAME, ["alpha", "beta"], tmp_path_factory.mktemp("fleet"))


@pytest.fixture
def queue(fleet: DeployedFleet) -> Iterator[Queue]:
    made = Queue(fleet.database)
    yield made
    made.close()


@pytest.fixture
def manager(fleet: DeployedFleet) -> Iterator[Any]:
    made = connect(fleet.database.server, fleet.database.name)
    yield made
    made.disconnect()


def other(host: str) -> str:
    return {"alpha": "beta", "beta": "alpha"}[host]


def holder(queue: Queue, calculation: str) -> str:
    """The host that has taken a calculation."""
    return str(queue.wait(calculation, "pending")["puffin"]["host"])


def running(queue: Queue, host: str) -> str | None:
    """The calculation that a host's worker reports to be running."""
    (record,) = [record for record in queue.store.registry.workers("laboratory") if record.host == host]
    return record.calculation if record.state == "running" else None


def story(queue: Queue, calculation: str, *kinds: str) -> list[tuple[str, str]]:
    """What happened to a calculation, and where, once these kinds did: events follow results within seconds."""

    def look() -> list[tuple[str, str]]:
        events = [each for each in queue.store.events.latest(1000) if each["calculation"] == calculation]
        told = [(each["kind"], each["host"]) for each in sorted(events, key=lambda each: each["at"])]
        return told if set(kinds) <= set(dict(told)) else []

    return until(look, f"{calculation} to be reported {' and '.join(kinds)}")


def shorten(queue: Queue, calculation: str) -> None:
    """Let the next attempt be short; the present one, which has read its settings, lasts until it is ended."""
    queue.set(calculation, **{"settings.time": 1.0})


def finished_once(queue: Queue, calculation: str, host: str) -> None:
    assert queue.wait(calculation, patience_s=START_S)["puffin"]["host"] == host
    told = story(queue, calculation, "finished")
    assert Counter(kind for kind, _ in told)["finished"] == 1, told
    assert ("finished", host) in told


def both_compute(queue: Queue) -> None:
    """Each host finishes calculations; while one is held up the other may take all that there are."""
    submitted: list[str] = []

    def look() -> bool:
        pair = [queue.sleep(2, memory=0.1, disk=0.1) for _ in range(2)]
        submitted.extend(pair)
        for calculation in pair:
            queue.wait(calculation)
        return {queue[calculation]["puffin"]["host"] for calculation in submitted} == {"alpha", "beta"}

    until(look, "both hosts to compute")
    for calculation in submitted:
        finished_once(queue, calculation, queue[calculation]["puffin"]["host"])
        assert queue[calculation]["puffin"]["attempt"] == 1


def test_hosts_without_internet_compute(fleet: DeployedFleet, manager: Any, queue: Queue) -> None:
    for name in ("alpha", "beta"):
        assert "default" not in fleet.laboratory.ssh(name, "ip", "route").stdout
    assert set(fleet.workers()) == {"alpha-1", "beta-1"}
    assert all("scine_hessian" in record["jobs"] for record in fleet.workers().values())

    submitted = submit(manager)
    for calculation, (order, molecule) in submitted.items():
        assert queue.wait(calculation, "complete", "failed")["status"] == "complete", (order, molecule)
        if order != "scine_bond_orders":
            energy, atoms = stored_energy(manager, calculation)
            assert energy == pytest.approx(direct_energy(atoms), abs=1e-8), (order, molecule)
    hosts = Counter(queue[calculation]["puffin"]["host"] for calculation in submitted)
    assert set(hosts) == {"alpha", "beta"}
    for calculation in submitted:
        finished_once(queue, calculation, queue[calculation]["puffin"]["host"])


def test_what_a_host_that_is_cut_off_had_is_taken_over(fleet: DeployedFleet, queue: Queue) -> None:
    calculation = queue.sleep(LONG_S, memory=0.1, disk=0.1)
    lost = holder(queue, calculation)
    until(lambda: running(queue, lost) == calculation, "the job to run")
    shorten(queue, calculation)
    try:
        fleet.laboratory.cut(lost)
        until(lambda: fleet.stopped(lost), "the job that is cut off to be frozen")
        until(lambda: queue[calculation]["puffin"]["host"] == other(lost), "the other host to take over")
    finally:
        fleet.laboratory.heal(lost)
    until(lambda: not fleet.stopped(lost), "the frozen job to end")

    finished_once(queue, calculation, other(lost))
    told = story(queue, calculation, "finished", "frozen", "discarded")
    assert [each for each in told if each[0] == "claimed"] == [("claimed", lost), ("claimed", other(lost))]
    assert {("frozen", lost), ("reset", other(lost)), ("discarded", lost)} <= set(told)
    assert queue[calculation]["puffin"]["attempt"] == 2


def test_both_hosts_work_again_after_the_cut(fleet: DeployedFleet, queue: Queue) -> None:
    both_compute(queue)


def test_a_deploy_brings_a_host_back_that_was_switched_off(fleet: DeployedFleet, queue: Queue) -> None:
    calculation = queue.sleep(LONG_S, memory=0.1, disk=0.1)
    lost = holder(queue, calculation)
    shorten(queue, calculation)
    fleet.laboratory.kill(lost)
    # A deploy says which host it could not reach, and is done with the others.
    without = fleet.run("deploy", "--yes")
    assert without.code == 1
    assert f"{lost} failed at connect" in without.err
    assert f"{other(lost)} failed" not in without.err
    finished_once(queue, calculation, other(lost))
    assert queue[calculation]["puffin"]["attempt"] == 2

    fleet.laboratory.revive(lost)
    ran = fleet.run("deploy", "--yes").ok()

    assert f"start    {lost}-1" in ran.out
    assert f"start    {other(lost)}-1" not in ran.out
    both_compute(queue)


def test_a_bare_host_computes(
    laboratory: Laboratory, laboratory_database: ReachableServer, bare_lower: Path, tmp_path: Path
) -> None:
    laboratory.up(["bare"], lower=bare_lower, sshd="/usr/sbin/sshd")
    fleet = deployed(laboratory, laboratory_database, f"{NAME}_bare", ["bare"], tmp_path)
    queue = Queue(fleet.database)
    try:
        manager = connect(fleet.database.server, fleet.database.name)
        submitted = submit(manager)
        manager.disconnect()
        ended = {queue.wait(each, "complete", "failed")["status"] for each in submitted}
        assert ended == {"complete"}
        for each in submitted:
            finished_once(queue, each, "bare")
    finally:
        queue.close()
