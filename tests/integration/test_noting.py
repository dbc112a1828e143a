"""What a deploy leaves in the database for `status` to compare with."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from fleet.deployment.noting import note_unchanged
from fleet.deployment.plan import HostPlan
from fleet.deployment.survey import Goal, work_out
from fleet.hosts.inventory import parse_inventory
from fleet.hostside import probe
from fleet.reach import probing
from puffin.settings import DatabaseSettings
from puffin.store import Store
from tests.lab.fixtures_database import Database

FLEET = f"""\
fleet: noting
database: {{uri: "mongodb://db:27017", names: [explore]}}
release: {{install: path, path: {sys.prefix}}}
defaults: {{boot: none, reserve: {{cores: 0, memory: 0, disk: 0}}, workers: {{cores: 1, memory: 0.1, disk: 0.1}}}}
hosts: {{node1: {{}}, node2: {{}}}}
"""


def test_hosts_that_are_as_they_should_be_are_noted_as_well(database: Database, tmp_path: Path) -> None:
    """The deploy that made them so may have had no database: `status` would go on comparing with the release before."""
    fleet = parse_inventory(FLEET, "hosts.yaml")
    request = probing.probe_request(fleet.name, "node1", str(tmp_path))
    seen = probing.parse("node1", json.loads(json.dumps(probe.main(request))))
    (found,) = work_out(Goal(fleet, None, (), tmp_path), [seen], print)
    assert found.value
    changing = replace(found.value, host=found.value.host.model_copy(update={"name": "node2"}))
    unchanged = replace(found.value, plan=HostPlan("node1"))
    store = Store(DatabaseSettings(uri=database.uri, name=database.name))
    try:
        store.control.note_releases(fleet.name, {"node1": "before", "node2": "before"})
        note_unchanged(fleet, store, [unchanged, changing])
        assert store.control.releases(fleet.name) == {"node1": unchanged.release, "node2": "before"}
    finally:
        store.close()
