"""Hosts that are told to stop and are then gone, as in a power cut: the time to wait is kept, reports are followed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from fleet.cli import options
from fleet.hosts.access import open_store
from fleet.operation.host_control import HostControl, StopOptions, Stopped
from fleet.operation.reported import Reported
from fleet.operation.stopping import stop_hosts
from fleet.reach.local import LocalRemote
from fleet.reach.remote import CommandResult, ConnectionLost
from puffin.store import Store
from tests.lab.fixtures_database import Database
from tests.unit.test_health import RECORD


class Vanishing(LocalRemote):
    """A host that is gone once it has answered."""

    def call(self, program: str, timeout: float, data: Iterable[bytes] = ()) -> CommandResult:
        if self.round_trips:
            raise ConnectionLost(self.name, "run", "the cable is cut")
        return super().call(program, timeout, data)


class Quiet:
    """Nobody looks on."""

    def step(self, host: str, what: str) -> None:
        """It is at something."""

    def finished(self, host: str, ok: bool) -> None:
        """It is done."""


@dataclass(frozen=True)
class Outage:
    """A host with a worker that runs, and that is gone once it was told to stop."""

    chosen: options.Chosen
    store: Store

    def report(self, state: str) -> None:
        record = replace(RECORD, uuid="puffin-lab@node1-1", fleet="lab", host="node1", worker="node1-1", state=state)
        self.store.registry.report(record)

    def stop(self, how: StopOptions, ordered: bool, patience_s: float = 120.0) -> Stopped:
        reported = Reported(self.store, "lab")
        remote = Vanishing("node1", "python3")
        control = HostControl(self.chosen.fleet, self.chosen.hosts[0], remote, lambda _: None, reported, patience_s)
        order = (lambda: None) if ordered else None
        (result,), problem = stop_hosts({"node1": control}, how, reported, Quiet(), order=order)
        assert problem is None
        if result.error is not None:
            raise result.error
        assert result.value is not None
        return result.value


@pytest.fixture
def outage(database: Database, tmp_path: Path) -> Iterator[Outage]:
    content = {
        "fleet": "lab",
        "database": {"uri": database.uri, "names": [database.name]},
        "release": {"install": "path", "path": "/opt/puffin"},
        "defaults": {"base_dir": str(tmp_path), "workers": {"cores": 1, "memory": 1, "disk": 1}},
        "hosts": {"node1": {"connection": "local"}},
    }
    file = tmp_path / "hosts.yaml"
    file.write_text(yaml.safe_dump(content))
    chosen = options.choose(str(file), ())
    root = tmp_path / "lab" / "hosts" / "node1"
    for name in ("etc/workers", "run"):
        (root / name).mkdir(parents=True)
    store = open_store(chosen.fleet)
    with (root / "run" / "node1-1.pid").open("w") as lock:
        lock.write(str(os.getpid()))
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Outage(chosen, store)
    store.close()


@pytest.mark.parametrize(
    ("state", "ordered", "running"),
    [
        pytest.param("running", False, ("node1-1",), id="what ran when the host was last seen"),
        pytest.param("stopped", False, (), id="what has said goodbye has ended"),
        pytest.param("stopped", True, (), id="also where the order stands in the database"),
    ],
)
def test_the_time_to_wait_is_kept_by_a_host_that_is_gone(
    outage: Outage, state: str, ordered: bool, running: tuple[str, ...]
) -> None:
    outage.report(state)
    found = outage.stop(StopOptions(timeout_s=2.0), ordered)
    assert (found.running, found.by_database, found.trouble) == (running, False, "the cable is cut")


def test_a_host_that_stays_away_is_followed_through_the_database(outage: Outage) -> None:
    outage.report("stopped")
    found = outage.stop(StopOptions(), ordered=True, patience_s=0.0)
    assert (found.running, found.by_database, found.trouble) == ((), False, "the cable is cut")
    for how, ordered in ((StopOptions(), False), (StopOptions(supervisord=True), True)):
        with pytest.raises(ConnectionLost, match="the cable is cut"):
            outage.stop(how, ordered, patience_s=0.0)
