"""One path through everything: a deploy over SSH, real calculations, results, a stop, and nothing left behind."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.acceptance.commands import puffin_fleet
from tests.acceptance.here import until
from tests.lab.fixtures_database import Database
from tests.lab.sshd import Lab, SshHost, processes_in

MOLECULES = Path(__file__).parents[2] / "examples" / "molecules"
NAMES = ("water", "ammonia", "methane", "formaldehyde", "methanol", "ethene")
ORDERS = ("scine_single_point", "scine_geometry_optimization", "scine_hessian", "scine_bond_orders")
WORKERS = {"alpha-1", "alpha-2", "beta-1", "beta-2"}
FINISHED = {"complete", "failed"}


@dataclass(frozen=True)
class TwoHosts:
    """A fleet of two hosts behind sshd, with the hosts.yaml that describes it."""

    hosts: tuple[SshHost, ...]
    file: Path
    database: Database

    def documents(self, collection: str, **selection: Any) -> list[dict[str, Any]]:
        with self.database.server.client() as client:
            return list(client[self.database.name][collection].find(selection))

    def wait_until_finished(self, ids: set[str], seconds: float) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while True:
            found = [item for item in self.documents("calculations") if str(item["_id"]) in ids]
            # SCINE's jobs write their end themselves; what the attempt used the worker adds a moment later.
            if all(item["status"] in FINISHED and "usage" in item["puffin"] for item in found):
                return found
            assert time.monotonic() < deadline, [(item["job"]["order"], item["status"]) for item in found]
            time.sleep(0.3)


def hosts_yaml(hosts: tuple[SshHost, ...], database: Database, **release: Any) -> dict[str, Any]:
    return {
        "fleet": "acceptance",
        "database": {"uri": database.uri, "names": [database.name]},
        "release": {"extras": ["scine"], "python": "/usr/bin/python3", **release},
        "defaults": {
            "boot": "none",  # this machine stays as it is
            "user": hosts[0].user,
            "base_dir": "~/my pool",
            "reserve": {"cores": 0, "memory": 0},
            "workers": {"cores": 1, "memory": 2, "disk": 1, "count": 2},
            "puffin": {"daemon": {"cycle_time_in_s": 0.5}},
        },
        "update": {"min_healthy_time": "1s"},
        "hosts": {
            host.name: {
                "address": host.address,
                "ssh": {"port": host.port, "key": str(host.key), "known_hosts": str(host.known_hosts)},
            }
            for host in hosts
        },
    }


@pytest.fixture
def two_hosts(ssh_lab: Lab, database: Database, tmp_path: Path) -> Iterator[TwoHosts]:
    hosts = (ssh_lab.host("alpha"), ssh_lab.host("beta"))
    file = tmp_path / "hosts.yaml"
    content = hosts_yaml(hosts, database)
    content["defaults"]["puffin"]["daemon"]["commands"] = ["/bin/sh"]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    yield TwoHosts(hosts, file, database)
    for host in hosts:
        ssh_lab.remove(host)


def submit(manager: Any) -> dict[str, tuple[str, str]]:
    """Submit one calculation of each kind for each molecule; give kind and molecule by id."""
    import scine_database as db
    import scine_utilities as utils

    calculations, structures = manager.get_collection("calculations"), manager.get_collection("structures")
    submitted = {}
    for name in NAMES:
        atoms, _ = utils.io.read(str(MOLECULES / f"{name}.xyz"))
        for order in ORDERS:
            structure = db.Structure()
            structure.link(structures)
            structure.create(atoms, 0, 1)
            structure.set_label(db.Label.USER_GUESS)
            model = db.Model("PM6", "PM6", "")
            model.program, model.spin_mode = "sparrow", "any"
            calculation = db.Calculation()
            calculation.link(calculations)
            calculation.create(model, db.Job(order), [structure.id()])
            calculation.set_status(db.Status.NEW)
            submitted[calculation.id().string()] = (order, name)
    return submitted


def direct_energy(atoms: Any) -> float:
    """What Sparrow gives without database, worker or job class, in hartree."""
    import scine_sparrow  # noqa: F401 - registers the calculator
    import scine_utilities as utils

    calculator = utils.core.get_calculator("PM6", "Sparrow")
    calculator.structure = atoms
    calculator.settings["spin_mode"] = "restricted"
    calculator.set_required_properties([utils.Property.Energy])
    return float(calculator.calculate().energy)


def stored_energy(manager: Any, calculation_id: str) -> tuple[float, Any]:
    """The energy that a calculation stored, as SCINE's own reader gives it, and the atoms it belongs to."""
    import scine_database as db

    calculation = db.Calculation(db.ID(calculation_id), manager.get_collection("calculations"))
    properties = manager.get_collection("properties")
    found = [db.NumberProperty(item, properties) for item in calculation.get_results().property_ids]
    energy = next(item for item in found if item.get_property_name() == "electronic_energy")
    structure = db.Structure(energy.get_structure(), manager.get_collection("structures"))
    return energy.get_data(), structure.get_atoms()


def test_from_deploy_to_the_last_result(two_hosts: TwoHosts, scine_manager: Any) -> None:
    puffin_fleet("deploy", two_hosts.file, "--yes").ok()
    records = {record["worker"]: record for record in puffin_fleet("status", two_hosts.file, "--json").ok().json()}
    assert set(records) == WORKERS
    assert all(record["release"] and "scine_hessian" in record["jobs"] for record in records.values())

    submitted = submit(scine_manager)
    finished = two_hosts.wait_until_finished(set(submitted), 120)
    assert {(item["status"], item["comment"]) for item in finished} == {("complete", "")}
    energies_are_those_of_sparrow(scine_manager, submitted)
    each_ran_once(two_hosts, finished)
    a_second_deploy_changes_nothing(two_hosts)
    a_stop_lets_the_running_job_finish(two_hosts)


def energies_are_those_of_sparrow(manager: Any, submitted: dict[str, tuple[str, str]]) -> None:
    compared = 0
    for calculation_id, (order, name) in submitted.items():
        if order == "scine_bond_orders":
            continue
        energy, atoms = stored_energy(manager, calculation_id)
        assert energy == pytest.approx(direct_energy(atoms), abs=1e-8), (order, name)
        compared += 1
    assert compared == 18


def each_ran_once(two_hosts: TwoHosts, finished: list[dict[str, Any]]) -> None:
    assert {item["puffin"]["attempt"] for item in finished} == {1}
    assert all(type(item["runtime"]) is float and item["runtime"] > 0 for item in finished)
    ids = {str(item["_id"]) for item in finished}
    deadline = time.monotonic() + 30
    while True:  # events follow results within seconds
        events = [event for event in two_hosts.documents("puffin_events") if event["calculation"] in ids]
        claims = [event["calculation"] for event in events if event["kind"] == "claimed"]
        ends = [event["calculation"] for event in events if event["kind"] == "finished"]
        if len(ends) >= len(ids) or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    assert sorted(claims) == sorted(ids)
    assert sorted(ends) == sorted(ids)


def a_second_deploy_changes_nothing(two_hosts: TwoHosts) -> None:
    before = {record["worker"]: record["pid"] for record in puffin_fleet("status", two_hosts.file, "--json").json()}
    again = puffin_fleet("deploy", two_hosts.file, "--yes").ok()
    assert "Nothing to do" in again.err
    after = {record["worker"]: record["pid"] for record in puffin_fleet("status", two_hosts.file, "--json").json()}
    assert after == before
    assert all(psutil.pid_exists(pid) for pid in after.values())


def a_stop_lets_the_running_job_finish(two_hosts: TwoHosts) -> None:
    gate = two_hosts.hosts[0].home / "let-go"  # where the workers of both may look
    held = submit_held(two_hosts, gate, count=2)
    until(lambda: len(two_hosts.documents("calculations", status="pending")) == 2, "both to be taken")
    with ThreadPoolExecutor(1) as aside:
        try:
            stop = aside.submit(puffin_fleet, "stop", two_hosts.file, "--yes", "--supervisord")
            until(lambda: len(two_hosts.documents("puffin_workers", state="draining")) == 2, "both to be told")
            assert len(two_hosts.documents("calculations", status="pending")) == 2
            assert not stop.done()
        finally:
            gate.touch()
        stop.result().ok()
    ended = [item for item in two_hosts.documents("calculations") if str(item["_id"]) in held]
    assert {item["status"] for item in ended} == {"complete"}
    for host in two_hosts.hosts:
        nothing_is_left(host)


def nothing_is_left(host: SshHost) -> None:
    """What served a worker or a connection may need a moment to notice that it is over."""

    def left() -> list[int]:
        return [process.pid for process in processes_in(host.home) if process.pid != host.process.pid]

    until(lambda: not left(), f"all processes of {host.name} to end", 20)


def submit_held(two_hosts: TwoHosts, gate: Path, count: int) -> set[str]:
    """Calculations that end when the file is there."""
    from puffin.documents import Model, Request
    from puffin.settings import DatabaseSettings
    from puffin.store import Store

    store = Store(DatabaseSettings(uri=two_hosts.database.uri, name=two_hosts.database.name))
    loop = f"until test -e {shlex.quote(str(gate))}; do sleep 0.2; done"
    settings = {"program": "sh", "arguments": ["-c", loop]}
    request = Request("command", Model(), settings=settings, memory=0.1, disk=0.1)
    try:
        return set(store.submit(two_hosts.database.name, [(None, request)] * count))
    finally:
        store.close()
